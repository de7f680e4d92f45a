//! One replica. The only file of this folder that waits.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::leader::{
    EpochJudgement, FollowerReport, IsrProposal, Leadership, ProposalEnd, Reign, judge_epoch,
};
use super::offset_lookup::{self, RecordTime};
use super::turns::{Turn, Turns};
use super::verification::{Guards, Verification, VerificationGuard};
use crate::log::partition_log::{LogError, PartitionLog};
use crate::log::position::{LeaderEpoch, Offset};
use crate::log::producer_state::{MarkerCheck, ProducerOutline, ProducerState, SequenceCheck};
use crate::log::reader::BatchRun;
use crate::log::transactions::AbortedTransaction;
use crate::runtime::clock;
use crate::runtime::signal::Signal;
use crate::wire::record_batch::{BatchHeader, HEADER_BYTES};
use crate::wire::transaction_marker::TransactionMarker;

/// The node of a replica that does not know its broker's.
const SOLE_NODE: i32 = 0;

/// Offsets without records that one segment takes; beyond, the log skips them first.
const MOST_GAP: i64 = 1 << 30;

/// Whose word counts for a replica.
#[derive(Debug)]
enum Role {
    /// This broker's alone: nobody else holds the partition.
    Sole,
    /// This broker's, with followers.
    Leading(Box<Leadership>),
    /// Another broker's, or nobody's.
    Following {
        /// The leader, or -1.
        leader: i32,
    },
}

/// See the head of this folder.
pub struct Replica {
    log: Rc<PartitionLog>,
    node_id: i32,
    leader_epoch: Cell<i32>,
    role: RefCell<Role>,
    min_isr: Cell<usize>,
    /// The watermark as far as it is known, unless this replica is the only one.
    high_watermark: Cell<Offset>,
    /// How often this replica ceased to lead: what was promised before is not kept any more.
    abdications: Cell<u64>,
    turns: Rc<Turns>,
    watchers: RefCell<Vec<Weak<Signal>>>,
    /// Followers that wait for records.
    end_watchers: RefCell<Vec<Weak<Signal>>>,
    is_being_cut: Cell<bool>,
    guards: Guards,
}

/// Why something appended is not committed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitFailure {
    /// The log does not serve.
    Log(LogError),
    /// Another broker leads now: it may keep what was appended, or not.
    NotLeader,
}

impl From<LogError> for CommitFailure {
    fn from(error: LogError) -> CommitFailure {
        CommitFailure::Log(error)
    }
}

/// Why a batch was not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendRefusal {
    /// The log does not serve.
    Log(LogError),
    /// Another broker leads the partition.
    NotLeader,
    /// The batch does not follow the producer's last one.
    OutOfOrderSequence,
    /// A newer producer with this id has taken over.
    InvalidProducerEpoch,
    /// It is larger than a segment may be.
    TooLarge,
    /// It opens a transaction that the coordinator does not vouch for, or is outside of the one that
    /// its producer has open.
    InvalidTransactionState,
    /// A newer coordinator than that of the marker has taken over.
    CoordinatorFenced,
    /// The log remembers as many open and aborted transactions as it may.
    TooManyTransactions,
}

/// How a client's batch came here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendTerms {
    /// Needed to open a transaction.
    pub guard: Option<VerificationGuard>,
    /// Its producer's epoch grows with every transaction (KIP-890): a producer that is not known
    /// begins with sequence 0.
    pub bumps_epochs: bool,
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The high watermark must reach this before the batch is committed.
    pub end: Offset,
    /// It had been appended before.
    pub duplicate: bool,
    /// The abdications of the replica when it was appended.
    reign: u64,
}

impl Replica {
    /// The leader of a partition whose log is here and nowhere else.
    #[must_use]
    pub fn new(log: Rc<PartitionLog>, leader_epoch: i32) -> Replica {
        Replica::of(log, SOLE_NODE, &Reign::alone(SOLE_NODE, leader_epoch))
    }

    /// The replica that broker `node_id` has of a partition.
    #[must_use]
    pub fn of(log: Rc<PartitionLog>, node_id: i32, reign: &Reign) -> Replica {
        let replica = Replica {
            node_id,
            leader_epoch: Cell::new(reign.leader_epoch),
            role: RefCell::new(Role::Following { leader: -1 }),
            min_isr: Cell::new(reign.min_isr),
            high_watermark: Cell::new(log.start_offset()),
            abdications: Cell::new(0),
            turns: Rc::default(),
            watchers: RefCell::default(),
            end_watchers: RefCell::default(),
            is_being_cut: Cell::new(false),
            guards: Guards::default(),
            log,
        };
        replica.follow_metadata(reign);
        replica
    }

    /// Does what the metadata say of the partition.
    ///
    /// # Panics
    /// When the leader epoch goes back.
    pub fn follow_metadata(&self, reign: &Reign) {
        let before = self.leader_epoch.get();
        assert!(
            reign.leader_epoch >= before,
            "leader epochs grow: {} after {before}",
            reign.leader_epoch
        );
        let (now_us, log_end) = (clock::monotonic_us(), self.log.end_offset());
        self.min_isr.set(reign.min_isr);
        // Asked of the old role, as far as it came.
        let high_watermark = self.high_watermark();
        let is_new = reign.leader_epoch > before;
        self.leader_epoch.set(reign.leader_epoch);
        let mut role = self.role.borrow_mut();
        let led = !matches!(*role, Role::Following { .. });
        if reign.leader != self.node_id {
            *role = Role::Following {
                leader: reign.leader,
            };
            self.high_watermark.set(high_watermark.min(log_end));
            if led {
                self.abdications.set(self.abdications.get() + 1);
            }
        } else if reign.replicas == [self.node_id] {
            *role = Role::Sole;
        } else {
            self.high_watermark.set(high_watermark);
            match &mut *role {
                Role::Leading(leadership) if !is_new => {
                    leadership.follow_metadata(reign.clone(), now_us);
                }
                _ => {
                    let (id, reign) = (self.node_id, reign.clone());
                    let leadership = Leadership::begin(id, reign, log_end, now_us);
                    *role = Role::Leading(Box::new(leadership));
                }
            }
        }
        drop(role);
        self.log.flush_moved().raise();
        self.grew();
        self.end_moved();
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Rc<PartitionLog> {
        &self.log
    }

    /// The epoch in which this replica leads.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.get()
    }

    /// Whether this broker leads the partition.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        !matches!(*self.role.borrow(), Role::Following { .. })
    }

    /// The leader whose records this replica copies, if another broker is.
    #[must_use]
    pub fn followed_leader(&self) -> Option<i32> {
        match *self.role.borrow() {
            Role::Following { leader } if leader >= 0 => Some(leader),
            _ => None,
        }
    }

    /// Whether as many replicas are in sync as `min.insync.replicas` asks for.
    #[must_use]
    pub fn has_enough_in_sync(&self) -> bool {
        let in_sync = match &*self.role.borrow() {
            Role::Leading(leadership) => leadership.reign().isr.len(),
            _ => 1,
        };
        in_sync >= self.min_isr.get()
    }

    /// Judges a client's `current_leader_epoch`.
    #[must_use]
    pub fn judge_epoch(&self, clients: i32) -> EpochJudgement {
        judge_epoch(self.leader_epoch.get(), clients)
    }

    /// Records below are committed: on every in-sync replica's disk, or as much less as the topic's
    /// `flush.messages` asks for.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        let own = self.log.acknowledgeable_offset();
        let high_watermark = match &*self.role.borrow() {
            Role::Sole => own,
            Role::Leading(leadership) => leadership.high_watermark(own, self.high_watermark.get()),
            Role::Following { .. } => self.high_watermark.get().min(self.log.end_offset()),
        };
        // What retention took was committed.
        let high_watermark = high_watermark.max(self.log.start_offset());
        assert!(
            high_watermark <= self.log.end_offset(),
            "the high watermark {high_watermark} is above the log end {}",
            self.log.end_offset()
        );
        self.high_watermark.set(high_watermark);
        high_watermark
    }

    /// What a follower heard of its leader's watermark.
    pub fn note_leaders_watermark(&self, high_watermark: Offset) {
        let before = self.high_watermark();
        if !self.is_leader() && high_watermark > before {
            let known = high_watermark.min(self.log.end_offset());
            self.high_watermark.set(known);
            if known > before {
                self.grew();
            }
        }
    }

    /// Notes what a follower says of itself; false when it holds no replica.
    pub fn note_fetch(&self, report: FollowerReport) -> bool {
        let (before, log_end) = (self.high_watermark(), self.log.end_offset());
        let known = match &mut *self.role.borrow_mut() {
            Role::Leading(leadership) => {
                leadership.note_fetch(report, log_end, clock::monotonic_us())
            }
            _ => false,
        };
        if self.high_watermark() > before {
            self.log.flush_moved().raise();
            self.grew();
        }
        known
    }

    /// Another in-sync set, if the controller is to be asked for one.
    pub fn propose_in_sync(&self, lag_us: u64) -> Option<IsrProposal> {
        let (high_watermark, log_end) = (self.high_watermark(), self.log.end_offset());
        match &mut *self.role.borrow_mut() {
            Role::Leading(leadership) => {
                leadership.propose(high_watermark, log_end, clock::monotonic_us(), lag_us)
            }
            _ => None,
        }
    }

    /// A proposal was not accepted.
    pub fn end_proposal(&self, partition_epoch: i32, end: ProposalEnd) {
        if let Role::Leading(leadership) = &mut *self.role.borrow_mut() {
            leadership.end_proposal(partition_epoch, end);
        }
    }

    /// Whether clients may be told where the log ends: a new leader's watermark may still be below
    /// what its predecessor told. Kafka: `Partition.fetchOffsetForTimestamp`.
    #[must_use]
    pub fn may_tell_end(&self) -> bool {
        let high_watermark = self.high_watermark();
        match &*self.role.borrow() {
            Role::Leading(leadership) => high_watermark >= leadership.epoch_start(),
            _ => true,
        }
    }

    /// Records below are committed and belong to no open transaction.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        let high_watermark = self.high_watermark();
        let stable = self.log.last_stable_offset(high_watermark);
        assert!(
            self.log.start_offset() <= stable && stable <= high_watermark,
            "the last stable offset {stable} is above the high watermark {high_watermark}"
        );
        stable
    }

    /// Where reading ends for a reader.
    #[must_use]
    pub fn readable_end(&self, read_committed: bool) -> Offset {
        if read_committed {
            self.last_stable_offset()
        } else {
            self.high_watermark()
        }
    }

    /// The producers that are remembered.
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerOutline> {
        self.log
            .with_producers(|producers| producers.outlines().collect())
    }

    /// Whether the coordinator has to be asked before a batch is appended.
    #[must_use]
    pub fn verification(&self, header: &BatchHeader) -> Verification {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        if !header.attributes.is_transactional() || self.has_open_transaction(header) {
            return Verification::NotNeeded;
        }
        let most = self.log.settings().producers_max;
        Verification::Needed(self.guards.give(id, epoch, most))
    }

    fn has_open_transaction(&self, header: &BatchHeader) -> bool {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        self.log
            .with_producers(|producers| producers.has_open_transaction(id, epoch))
    }

    /// A place in the order of appends.
    #[must_use]
    pub fn take_turn(&self) -> Turn {
        self.turns.take()
    }

    /// Bytes of the largest batch that can be appended.
    #[must_use]
    pub fn batch_max_bytes(&self) -> usize {
        let segment_bytes = self.log.settings().segment_bytes;
        let segment_bytes = usize::try_from(segment_bytes).unwrap_or(usize::MAX);
        segment_bytes.min(self.log.largest_append_bytes())
    }

    /// Appends a validated batch in its turn. On return its place is fixed.
    pub async fn append(
        &self,
        turn: Turn,
        header: &BatchHeader,
        payload: &[u8],
        terms: AppendTerms,
    ) -> Result<Placed, AppendRefusal> {
        turn.come().await;
        if !self.is_leader() {
            return Err(AppendRefusal::NotLeader);
        }
        if header.size_bytes() > self.batch_max_bytes() {
            return Err(AppendRefusal::TooLarge);
        }
        let records = i64::from(header.last_offset_delta) + 1;
        self.log
            .ready(header.size_bytes(), records, header.max_timestamp)
            .await
            .map_err(AppendRefusal::Log)?;
        if !self.is_leader() {
            return Err(AppendRefusal::NotLeader);
        }
        match self.log.check_sequence(header) {
            SequenceCheck::Append => {}
            SequenceCheck::Duplicate(original) => {
                return Ok(Placed {
                    base_offset: original.base_offset,
                    end: Offset(original.last_offset.0 + 1),
                    duplicate: true,
                    reign: self.abdications.get(),
                });
            }
            SequenceCheck::FencedEpoch => return Err(AppendRefusal::InvalidProducerEpoch),
            SequenceCheck::OutOfOrder if !header.attributes.is_transactional() => {
                return Err(AppendRefusal::OutOfOrderSequence);
            }
            SequenceCheck::OutOfOrder => {
                self.check_transactional(header, terms)?;
                return Err(AppendRefusal::OutOfOrderSequence);
            }
            SequenceCheck::OutsideTransaction => {
                return Err(AppendRefusal::InvalidTransactionState);
            }
        }
        if header.attributes.is_transactional() {
            self.check_transactional(header, terms)?;
            self.guards.take_back(header.producer_id);
        }
        Ok(self.place(header, payload))
    }

    /// Whether a batch may be appended to its transaction, or open it.
    fn check_transactional(
        &self,
        header: &BatchHeader,
        terms: AppendTerms,
    ) -> Result<(), AppendRefusal> {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        if self.has_open_transaction(header) {
            return Ok(());
        }
        if !self.guards.accept(id, epoch, terms.guard) {
            return Err(AppendRefusal::InvalidTransactionState);
        }
        let is_known = self.log.with_producers(|producers| producers.knows(id));
        if terms.bumps_epochs && !is_known && header.base_sequence != 0 {
            return Err(AppendRefusal::OutOfOrderSequence);
        }
        if !self.log.has_room_for_transaction() {
            return Err(AppendRefusal::TooManyTransactions);
        }
        Ok(())
    }

    fn place(&self, header: &BatchHeader, payload: &[u8]) -> Placed {
        let epoch = LeaderEpoch(self.leader_epoch.get());
        let appended = self.log.append(header, payload, epoch);
        self.end_moved();
        Placed {
            base_offset: appended.base_offset,
            end: appended.end,
            duplicate: false,
            reign: self.abdications.get(),
        }
    }

    /// Appends a marker, in its turn. It takes one offset, whether it ends a transaction or not.
    pub async fn append_marker(&self, marker: TransactionMarker) -> Result<Placed, AppendRefusal> {
        self.append_marker_that(marker, false).await
    }

    /// Appends a marker that `bumps_epoch` or may have the epoch of its transaction (KIP-1228): one
    /// that bumps it cannot end a transaction of its own epoch, which is a later one.
    pub async fn append_marker_that(
        &self,
        marker: TransactionMarker,
        bumps_epoch: bool,
    ) -> Result<Placed, AppendRefusal> {
        let turn = self.take_turn();
        turn.come().await;
        let now_ms = clock::wall_ms();
        let bytes = marker.batch(now_ms);
        let ready = self.log.ready(bytes.len(), 1, now_ms).await;
        ready.map_err(AppendRefusal::Log)?;
        if !self.is_leader() {
            return Err(AppendRefusal::NotLeader);
        }
        match self.log.check_marker(&marker) {
            MarkerCheck::Append => {}
            MarkerCheck::FencedEpoch => return Err(AppendRefusal::InvalidProducerEpoch),
            MarkerCheck::FencedCoordinator => return Err(AppendRefusal::CoordinatorFenced),
        }
        let (id, epoch) = (marker.producer_id, marker.producer_epoch);
        let ends_later = |producers: &mut ProducerState| producers.has_open_transaction(id, epoch);
        if bumps_epoch && self.log.with_producers(ends_later) {
            return Err(AppendRefusal::InvalidProducerEpoch);
        }
        self.guards.take_back(marker.producer_id);
        let header = BatchHeader::parse(&bytes).expect("just built");
        Ok(self.place(&header, &bytes[HEADER_BYTES..]))
    }

    /// Appends a batch of the log of the leader that is `followed` in its epoch; false when that is
    /// over or the batch is there already. On return its place is fixed.
    pub async fn append_replicated(
        &self,
        followed: (i32, i32),
        header: &BatchHeader,
        payload: &[u8],
    ) -> Result<bool, LogError> {
        let turn = self.take_turn();
        turn.come().await;
        let base_offset = Offset(header.base_offset);
        if !self.follows(followed) {
            return Ok(false);
        }
        if base_offset.0 - self.log.end_offset().0 > MOST_GAP {
            self.log.skip_to(base_offset).await?;
        }
        let span = header.last_offset() + 1 - self.log.end_offset().0;
        let size_bytes = header.size_bytes();
        self.log
            .ready(size_bytes, span, header.max_timestamp)
            .await?;
        if !self.follows(followed) || base_offset < self.log.end_offset() {
            return Ok(false);
        }
        self.log.append_replicated(header, payload);
        Ok(true)
    }

    fn follows(&self, (leader, epoch): (i32, i32)) -> bool {
        self.followed_leader() == Some(leader) && self.leader_epoch() == epoch
    }

    /// Cuts the log where it and that of the leader `followed` in its epoch part. Until that is done
    /// nothing is asked of anybody nor reported: what is cut would count as flushed.
    pub async fn cut_replicated(&self, followed: (i32, i32), to: Offset) -> Result<(), LogError> {
        let turn = self.take_turn();
        turn.come().await;
        if !self.follows(followed) {
            return Ok(());
        }
        let known = self.high_watermark();
        if to < known {
            tracing::error!(log = %self.log.directory_name(), %to, %known,
                "the leader lacks records below the high watermark: an unclean election");
        }
        self.is_being_cut.set(true);
        let cut = self.log.truncate(to).await;
        self.is_being_cut.set(false);
        self.high_watermark
            .set(self.high_watermark.get().min(self.log.end_offset()));
        cut
    }

    /// Whether it is being cut.
    #[must_use]
    pub fn is_being_cut(&self) -> bool {
        self.is_being_cut.get()
    }

    /// Raises `signal` once when something is appended, committed or not, or the role changes.
    pub fn watch_end(&self, signal: &Rc<Signal>) {
        let mut watchers = self.end_watchers.borrow_mut();
        if watchers.len() == watchers.capacity() {
            watchers.retain(|watcher| watcher.strong_count() > 0);
        }
        watchers.push(Rc::downgrade(signal));
    }

    fn end_moved(&self) {
        let watchers = std::mem::take(&mut *self.end_watchers.borrow_mut());
        for signal in watchers.iter().filter_map(Weak::upgrade) {
            signal.raise();
        }
    }

    /// Waits until what was placed is flushed here.
    pub async fn flushed(&self, placed: &Placed) -> Result<(), CommitFailure> {
        self.reached(placed, || self.log.acknowledgeable_offset())
            .await
    }

    /// Waits until what was placed is committed. Where this replica is the only one, the journal
    /// either flushes or fails, so this ends without a timer; otherwise it ends at the latest when
    /// another broker leads.
    pub async fn placed_is_committed(&self, placed: &Placed) -> Result<(), CommitFailure> {
        self.reached(placed, || self.high_watermark()).await
    }

    async fn reached(
        &self,
        placed: &Placed,
        offset: impl Fn() -> Offset,
    ) -> Result<(), CommitFailure> {
        loop {
            let moved = self.log.flush_moved().raised();
            if self.abdications.get() != placed.reign {
                return Err(CommitFailure::NotLeader);
            }
            if offset() >= placed.end {
                return Ok(());
            }
            self.log.healthy()?;
            moved.await;
        }
    }

    /// Waits until the high watermark reaches `end`, or this broker ceases to lead.
    pub async fn committed(&self, end: Offset) -> Result<(), CommitFailure> {
        let placed = Placed {
            base_offset: end,
            end,
            duplicate: false,
            reign: self.abdications.get(),
        };
        self.placed_is_committed(&placed).await
    }

    /// Raises `signal` once when the high watermark moves or the partition ends.
    pub fn watch(&self, signal: &Rc<Signal>) {
        let mut watchers = self.watchers.borrow_mut();
        if watchers.len() == watchers.capacity() {
            // Before it grows: those who gave up are forgotten.
            watchers.retain(|watcher| watcher.strong_count() > 0);
        }
        watchers.push(Rc::downgrade(signal));
    }

    /// Wakes those who watch.
    pub fn grew(&self) {
        let watchers = std::mem::take(&mut *self.watchers.borrow_mut());
        for watcher in watchers {
            if let Some(signal) = watcher.upgrade() {
                signal.raise();
            }
        }
    }

    /// Reads committed batches from `from` on, to a reader of `read_committed` none of open
    /// transactions.
    pub async fn read(
        &self,
        from: Offset,
        most_bytes: usize,
        whole_first: bool,
        read_committed: bool,
    ) -> Result<BatchRun, LogError> {
        // What is there and not committed yet is no error: the next leader may not know the watermark.
        let end = self.log.end_offset();
        if from > end {
            return Err(LogError::OutOfRange {
                asked: from,
                start: self.log.start_offset(),
                end: self.high_watermark(),
            });
        }
        let below = self.readable_end(read_committed).max(from);
        self.log.read(from, below, most_bytes, whole_first).await
    }

    /// Reads batches for a follower, whether they are committed or not.
    pub async fn read_for_follower(
        &self,
        from: Offset,
        most_bytes: usize,
        whole_first: bool,
    ) -> Result<BatchRun, LogError> {
        let end = self.log.end_offset();
        self.log.read(from, end, most_bytes, whole_first).await
    }

    /// The aborted transactions that a reader has to know who got `run`, read from `from` on.
    #[must_use]
    pub fn aborted_in(&self, from: Offset, run: &BatchRun) -> Vec<AbortedTransaction> {
        match run.size_bytes {
            0 => Vec::new(),
            _ => self.log.aborted_between(from, run.end_offset(from)),
        }
    }

    /// The first record at or after `timestamp_ms` that a reader may see.
    pub async fn first_at(
        &self,
        timestamp_ms: i64,
        limit_bytes: usize,
        read_committed: bool,
    ) -> Result<Option<RecordTime>, LogError> {
        self.log.healthy()?;
        let below = self.readable_end(read_committed);
        let Some(bytes) = self.log.batch_at_time(timestamp_ms, below).await? else {
            return Ok(None);
        };
        Ok(offset_lookup::first_at(&bytes, timestamp_ms, limit_bytes))
    }

    /// The record with the largest timestamp that a reader may see.
    pub async fn latest_in_time(
        &self,
        limit_bytes: usize,
        read_committed: bool,
    ) -> Result<Option<RecordTime>, LogError> {
        self.log.healthy()?;
        let largest_ms = self.log.largest_timestamp_ms();
        let below = self.readable_end(read_committed);
        let Some(bytes) = self.log.batch_at_time(largest_ms, below).await? else {
            return Ok(None);
        };
        Ok(offset_lookup::largest(&bytes, limit_bytes))
    }

    /// Where the largest epoch up to `asked` ends, as epoch and offset; (-1, -1) when unknown.
    #[must_use]
    pub fn epoch_end(&self, asked: i32) -> (i32, i64) {
        let log_end = self.log.end_offset();
        if asked == self.leader_epoch.get() {
            return (asked, log_end.0);
        }
        self.log
            .with_epochs(|epochs| epochs.end_of(LeaderEpoch(asked), log_end))
            .map_or((-1, -1), |(epoch, end)| (epoch.0, end.0))
    }

    /// The epoch that wrote `offset`, or -1.
    #[must_use]
    pub fn epoch_of(&self, offset: i64) -> i32 {
        self.log
            .with_epochs(|epochs| epochs.epoch_of(Offset(offset)))
            .map_or(-1, |epoch| epoch.0)
    }
}
