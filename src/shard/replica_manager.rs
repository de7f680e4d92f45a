//! The partitions of one core: creates and removes them as the metadata says, and does what
//! requests ask of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::directory_health::DirectoryHealth;
use super::housekeeping::{Housekeeper, HousekeepingConfig};
use super::partition_transactions::MarkerHook;
use super::request::{
    AppendPart, AppendedPart, DeleteRecordsPart, EpochEndPart, FetchPart, FetchedPart, FoundOffset,
    ListOffsetsPart, LogUsage, OffsetWanted, PartitionError, Promise,
};
use crate::cluster::image::MetadataImage;
use crate::log::chunk_cache::ChunkCache;
use crate::log::log_directory::LogDirectory;
use crate::log::partition_log::{LogError, LogSettings};
use crate::log::position::{LogId, Offset};
use crate::log::reader::Slices;
use crate::log::scrub::{ScrubCounts, Scrubber};
use crate::partition::leader::{EpochJudgement, Reign};
use crate::partition::replica::{AppendRefusal, AppendTerms, CommitFailure, Placed, Replica};
use crate::partition::turns::Turn;
use crate::runtime::clock;
use crate::runtime::core_id::CoreId;
use crate::runtime::disk;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::signal::{Promise as SlotPromise, Promised, Signal, promise};
use crate::wire::codec::Uuid;

/// What appends find about a data directory.
pub(super) struct DirectorySlot {
    /// None when it was offline at the start.
    pub(super) directory: Option<Rc<LogDirectory>>,
    pub(super) identity: Cell<Option<disk::Identity>>,
    pub(super) is_full: Cell<bool>,
    pub(super) announced_full: Cell<bool>,
    /// What appends may take until the disk is looked at again.
    pub(super) room_bytes: Cell<u64>,
}

impl DirectorySlot {
    pub(super) fn new(directory: Option<Rc<LogDirectory>>) -> DirectorySlot {
        DirectorySlot {
            directory,
            identity: Cell::new(None),
            is_full: Cell::new(false),
            announced_full: Cell::new(false),
            room_bytes: Cell::new(u64::MAX),
        }
    }
}

/// What a replica manager is told once.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaSettings {
    /// Space of each data directory that appends do not use.
    pub reserve_bytes: u64,
    /// What may come out of one compressed batch.
    pub decompressed_max_bytes: usize,
    /// Retention and compaction.
    pub housekeeping: HousekeepingConfig,
    /// How fast this core reads sealed segments to find damage; 0 is not at all.
    pub scrub_bytes_per_second: u64,
}

/// See the head of this file.
pub struct ReplicaManager {
    pub(super) core: CoreId,
    pub(super) slots: Vec<DirectorySlot>,
    pub(super) health: Arc<DirectoryHealth>,
    pub(super) cache: Rc<ChunkCache>,
    pub(super) replicas: RefCell<BTreeMap<LogId, Rc<Replica>>>,
    /// Partitions whose log is in a directory that was offline at the start.
    pub(super) missing: RefCell<BTreeMap<LogId, String>>,
    /// Partitions that do not serve, as last looked at.
    pub(super) offline_logs: RefCell<BTreeSet<LogId>>,
    pub(super) settings: ReplicaSettings,
    /// The directories were looked at.
    pub(super) looked: Signal,
    scrubber: Rc<Scrubber>,
    housekeeper: Housekeeper,
    pub(super) marker_hooks: RefCell<Vec<Rc<MarkerHook>>>,
    /// The metadata that the partitions of this core follow.
    image: RefCell<Option<Arc<MetadataImage>>>,
}

/// The result of one part of a request.
pub type PartResult<T> = Result<T, PartitionError>;

/// A part of an append: its replica and its place in the order, or why it has none.
type Ordered = (AppendPart, PartResult<(Rc<Replica>, Turn)>);

impl ReplicaManager {
    /// A core with its data directories (none for one that is offline) and no partitions yet.
    #[must_use]
    pub fn new(
        core: CoreId,
        directories: Vec<Option<Rc<LogDirectory>>>,
        health: Arc<DirectoryHealth>,
        cache: Rc<ChunkCache>,
        settings: ReplicaSettings,
    ) -> Rc<ReplicaManager> {
        assert!(directories.len() == health.len(), "one slot per directory");
        let online = directories.iter().flatten().cloned().collect();
        let manager = Rc::new(ReplicaManager {
            core,
            scrubber: Scrubber::new(online, settings.scrub_bytes_per_second),
            slots: directories.into_iter().map(DirectorySlot::new).collect(),
            health,
            cache,
            replicas: RefCell::default(),
            missing: RefCell::default(),
            offline_logs: RefCell::default(),
            settings,
            looked: Signal::default(),
            housekeeper: Housekeeper::new(&settings.housekeeping, settings.decompressed_max_bytes),
            marker_hooks: RefCell::default(),
            image: RefCell::default(),
        });
        spawn(Queue::Background, manager.clone().watch_directories());
        Housekeeper::start(&manager, &settings.housekeeping);
        if settings.scrub_bytes_per_second > 0 {
            spawn(Queue::Background, manager.scrubber.clone().run());
        }
        manager
    }

    /// The data directories of this core that were usable at the start.
    pub fn directories(&self) -> impl Iterator<Item = &Rc<LogDirectory>> {
        self.slots.iter().filter_map(|slot| slot.directory.as_ref())
    }

    /// How many data directories are configured.
    #[must_use]
    pub fn directory_count(&self) -> usize {
        self.slots.len()
    }

    /// Data directories that do not serve.
    #[must_use]
    pub fn offline_directories(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.online().is_none())
            .count()
    }

    /// Data directories that take no appends because their disks are full.
    #[must_use]
    pub fn full_directories(&self) -> usize {
        let is_full = |slot: &&DirectorySlot| {
            slot.online()
                .is_some_and(|directory| slot.is_full.get() || directory.is_out_of_space())
        };
        self.slots.iter().filter(is_full).count()
    }

    /// What the background check of sealed segments found.
    #[must_use]
    pub fn scrub_counts(&self) -> ScrubCounts {
        self.scrubber.counts()
    }

    /// Partitions of this core that do not serve.
    #[must_use]
    pub fn offline_logs(&self) -> BTreeSet<LogId> {
        self.offline_logs.borrow().clone()
    }

    /// Raised when the directories were looked at.
    #[must_use]
    pub fn looked(&self) -> &Signal {
        &self.looked
    }

    /// Partitions of this core.
    #[must_use]
    pub fn len(&self) -> usize {
        self.replicas.borrow().len()
    }

    /// Whether this core has no partitions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Logs that recovery found here.
    #[must_use]
    pub fn recovered_logs(&self) -> Vec<LogId> {
        self.directories()
            .flat_map(|directory| directory.logs())
            .map(|log| log.id())
            .collect()
    }

    /// Holds a replica: opens its log, or creates it in data directory `directory`, in the first one
    /// if that is offline. What is not new and may lie in a directory that is offline is offline too.
    pub fn hold(
        &self,
        log: LogId,
        (directory, is_new): (usize, bool),
        name: &str,
        (node_id, reign): (i32, &Reign),
        settings: LogSettings,
    ) {
        if let Some(replica) = self.replica(log) {
            replica.follow_metadata(reign);
            replica.log().set_settings(settings);
            return;
        }
        let found = self.directories().find_map(|directory| directory.log(log));
        let opened = match found {
            Some(opened) => {
                opened.set_settings(settings);
                opened
            }
            None if !is_new && self.health.may_be_missing(log) => {
                let why = "its data directory was offline when the broker started".to_string();
                self.missing.borrow_mut().insert(log, why);
                return;
            }
            None => {
                let turn = self.slots[directory].online();
                let home = turn.or(self.slots[0].online());
                let Some(home) = home else {
                    return; // The broker is about to end.
                };
                home.create_log(log, name, settings)
            }
        };
        self.replicas
            .borrow_mut()
            .insert(log, Rc::new(Replica::of(opened, node_id, reign)));
    }

    /// Tells which metadata the partitions follow from now on.
    pub(super) fn set_image(&self, image: Arc<MetadataImage>) {
        *self.image.borrow_mut() = Some(image);
    }

    /// Whether the cluster has a partition, wherever it is.
    fn exists(&self, log: LogId) -> bool {
        let image = self.image.borrow();
        let topic = image
            .as_ref()
            .and_then(|image| image.topic_by_id(Uuid(log.topic)));
        topic.is_some_and(|topic| topic.partitions.len() > log.partition as usize)
    }

    /// Removes a partition and its records; the files go in the background.
    pub fn remove(self: &Rc<Self>, log: LogId) {
        self.missing.borrow_mut().remove(&log);
        let removed = self.replicas.borrow_mut().remove(&log);
        let owner = self
            .directories()
            .find(|directory| directory.log(log).is_some())
            .cloned();
        if let Some(directory) = owner {
            spawn(
                Queue::Background,
                async move { directory.delete_log(log).await },
            );
        }
        if let Some(replica) = removed {
            replica.grew();
        }
    }

    /// A partition of this core.
    #[must_use]
    pub fn replica(&self, log: LogId) -> Option<Rc<Replica>> {
        self.replicas.borrow().get(&log).cloned()
    }

    /// All partitions of this core.
    #[must_use]
    pub fn replicas(&self) -> Vec<Rc<Replica>> {
        self.replicas.borrow().values().cloned().collect()
    }

    /// What keeps the logs of this core.
    #[must_use]
    pub fn housekeeper(&self) -> &Housekeeper {
        &self.housekeeper
    }

    pub(super) fn known(&self, log: LogId) -> PartResult<Rc<Replica>> {
        self.replica(log)
            .ok_or_else(|| match self.missing.borrow().get(&log) {
                Some(why) => PartitionError::Storage(why.clone()),
                None if self.exists(log) => PartitionError::NotLeader,
                None => PartitionError::Unknown,
            })
    }

    /// A partition that this broker leads.
    pub(super) fn led(&self, log: LogId) -> PartResult<Rc<Replica>> {
        let replica = self.known(log)?;
        match replica.is_leader() {
            true => Ok(replica),
            false => Err(PartitionError::NotLeader),
        }
    }

    /// A partition that this broker leads in an epoch that a client knows.
    pub(super) fn led_in(&self, log: LogId, clients_epoch: i32) -> PartResult<Rc<Replica>> {
        let replica = self.known(log)?;
        if !replica.is_leader() && clients_epoch <= replica.leader_epoch() {
            return Err(PartitionError::NotLeader);
        }
        match replica.judge_epoch(clients_epoch) {
            EpochJudgement::Current => Ok(replica),
            EpochJudgement::Fenced => Err(PartitionError::FencedLeaderEpoch),
            EpochJudgement::Unknown => Err(PartitionError::UnknownLeaderEpoch),
        }
    }

    /// Starts appending: the order is fixed on return, the answer comes when `until` holds.
    #[must_use]
    pub fn start_append(
        self: &Rc<Self>,
        parts: Vec<AppendPart>,
        until: Promise,
        at_most: Duration,
    ) -> Promised<Vec<PartResult<AppendedPart>>> {
        let order = |part: AppendPart| {
            let replica = self
                .led(part.log)
                .and_then(|replica| self.appendable(replica, &part, until));
            let ordered = replica.map(|replica| {
                let turn = replica.take_turn();
                (replica, turn)
            });
            (part, ordered)
        };
        let ordered: Vec<Ordered> = parts.into_iter().map(order).collect();
        let (done, answer) = promise();
        spawn(Queue::Ack, append(ordered, until, at_most, done));
        answer
    }

    fn appendable(
        &self,
        replica: Rc<Replica>,
        part: &AppendPart,
        until: Promise,
    ) -> PartResult<Rc<Replica>> {
        if until == Promise::Committed && !replica.has_enough_in_sync() {
            return Err(PartitionError::NotEnoughReplicas);
        }
        let id = replica.log().id();
        let holds = |slot: &&DirectorySlot| {
            let directory = slot.directory.as_ref();
            directory.is_some_and(|directory| directory.log(id).is_some())
        };
        let slot = match self.slots.as_slice() {
            [only] => Some(only),
            slots => slots.iter().find(holds),
        };
        if slot.is_none_or(|slot| slot.take_room(part.header.size_bytes())) {
            Ok(replica)
        } else {
            Err(PartitionError::DiskFull)
        }
    }

    /// Reads what is there now, in the order of the parts, until `max_bytes`.
    pub async fn read(
        &self,
        parts: &[FetchPart],
        max_bytes: usize,
        read_committed: bool,
    ) -> Vec<FetchedPart> {
        let mut left = max_bytes;
        let mut nothing_yet = true;
        let mut fetched = Vec::with_capacity(parts.len());
        for part in parts {
            let most = left.min(part.max_bytes);
            let room = (most, nothing_yet);
            let answer = self.read_part(part, room, read_committed).await;
            left = left.saturating_sub(answer.size_bytes);
            nothing_yet &= answer.size_bytes == 0;
            fetched.push(answer);
        }
        fetched
    }

    async fn read_part(
        &self,
        part: &FetchPart,
        (most, whole_first): (usize, bool),
        read_committed: bool,
    ) -> FetchedPart {
        let replica = match self.led_in(part.log, part.current_leader_epoch) {
            Ok(replica) => replica,
            Err(error) => return FetchedPart::failed(part.log, error),
        };
        let mut answer = FetchedPart {
            log: part.log,
            error: None,
            high_watermark: replica.high_watermark().0,
            last_stable_offset: replica.last_stable_offset().0,
            log_start_offset: replica.log().start_offset().0,
            leader_epoch: replica.leader_epoch(),
            diverging: diverging(&replica, part),
            slices: Slices::new(),
            size_bytes: 0,
            aborted: Vec::new(),
        };
        if answer.diverging.is_some() {
            return answer;
        }
        let from = Offset(part.offset);
        let read = replica.read(from, most, whole_first, read_committed);
        match read.await {
            Ok(run) => {
                if read_committed {
                    answer.aborted = replica.aborted_in(from, &run);
                }
                answer.size_bytes = run.size_bytes;
                answer.slices = run.slices;
                answer
            }
            Err(error) => FetchedPart {
                leader_epoch: answer.leader_epoch,
                ..FetchedPart::failed(part.log, unreadable(error))
            },
        }
    }

    /// Waits until one of the partitions can be read beyond the offset named with it, or does not
    /// serve any more.
    pub async fn grown_beyond(&self, seen: &[(LogId, i64)], read_committed: bool) {
        let grown = Rc::new(Signal::default());
        loop {
            let wait = grown.raised();
            for (log, seen) in seen {
                let Some(replica) = self.replica(*log) else {
                    return;
                };
                let end = replica.readable_end(read_committed);
                if end.0 > *seen || !replica.is_leader() || replica.log().healthy().is_err() {
                    return;
                }
                replica.watch(&grown);
            }
            wait.await;
        }
    }

    /// Finds one offset.
    pub async fn list_offset(&self, part: &ListOffsetsPart) -> PartResult<FoundOffset> {
        let replica = self.led_in(part.log, part.current_leader_epoch)?;
        replica.log().healthy().map_err(unreadable)?;
        if !replica.may_tell_end() && part.wanted != OffsetWanted::Earliest {
            return Err(PartitionError::OffsetNotAvailable);
        }
        let limit = self.settings.decompressed_max_bytes;
        let at = |offset: i64| FoundOffset {
            timestamp_ms: -1,
            offset,
            leader_epoch: match replica.epoch_of(offset) {
                -1 => replica.leader_epoch(),
                epoch => epoch,
            },
        };
        let found = match part.wanted {
            OffsetWanted::Latest => return Ok(at(replica.readable_end(part.read_committed).0)),
            OffsetWanted::Earliest => return Ok(at(replica.log().start_offset().0)),
            OffsetWanted::MaxTimestamp => replica.latest_in_time(limit, part.read_committed).await,
            OffsetWanted::Timestamp(timestamp_ms) => {
                let read_committed = part.read_committed;
                replica.first_at(timestamp_ms, limit, read_committed).await
            }
        };
        Ok(match found.map_err(unreadable)? {
            Some(record) => FoundOffset {
                timestamp_ms: record.timestamp_ms,
                offset: record.offset,
                leader_epoch: replica.epoch_of(record.offset),
            },
            None => FoundOffset {
                timestamp_ms: -1,
                offset: -1,
                leader_epoch: -1,
            },
        })
    }

    /// Where an epoch ends.
    pub fn epoch_end(&self, part: &EpochEndPart) -> PartResult<(i32, i64)> {
        let replica = self.led_in(part.log, part.current_leader_epoch)?;
        replica.log().healthy().map_err(unreadable)?;
        Ok(replica.epoch_end(part.leader_epoch))
    }

    /// Moves the log start; the new one.
    pub async fn delete_records(&self, part: &DeleteRecordsPart) -> PartResult<i64> {
        let replica = self.led(part.log)?;
        replica.log().healthy().map_err(unreadable)?;
        if !replica.log().settings().deletable {
            return Err(PartitionError::PolicyViolation);
        }
        let high_watermark = replica.high_watermark();
        let to = if part.offset == -1 {
            high_watermark
        } else {
            Offset(part.offset)
        };
        if to.0 < 0 || to > high_watermark {
            return Err(PartitionError::OffsetOutOfRange);
        }
        replica.log().advance_start(to).await.map_err(unreadable)?;
        // An open transaction that began below holds nobody up any more.
        replica.grew();
        Ok(replica.log().start_offset().0)
    }

    /// What the partitions of this core take.
    #[must_use]
    pub fn usage(&self) -> Vec<LogUsage> {
        let mut usage = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let logs = slot.directory.iter().flat_map(|directory| directory.logs());
            usage.extend(logs.map(|log| LogUsage {
                log: log.id(),
                directory: index,
                size_bytes: log.size_bytes(),
            }));
        }
        usage
    }

    /// Flushes everything and empties the journals. Nothing may be appended any more.
    pub async fn shut_down(&self) {
        for directory in self.directories() {
            directory.shut_down().await;
        }
    }
}

/// Appends one part in its turn.
async fn place((part, ordered): Ordered) -> PartResult<(Rc<Replica>, Placed)> {
    let (replica, turn) = ordered?;
    let terms = AppendTerms {
        guard: part.guard,
        bumps_epochs: part.bumps_epochs,
    };
    let placed = replica.append(turn, &part.header, &part.payload, terms);
    let placed = placed.await;
    let place = placed.map_err(refused)?;
    Ok((replica, place))
}

/// Appends all parts, each in its turn, and keeps the promise.
async fn append(
    ordered: Vec<Ordered>,
    until: Promise,
    at_most: Duration,
    done: SlotPromise<Vec<PartResult<AppendedPart>>>,
) {
    // Side by side: partitions that wait for a segment wait together.
    let mut placed = join_all(ordered.into_iter().map(place)).await;
    let answer = |placed: &PartResult<(Rc<Replica>, Placed)>| match placed {
        Ok((replica, place)) => Ok(AppendedPart {
            base_offset: place.base_offset.0,
            log_start_offset: replica.log().start_offset().0,
            duplicate: place.duplicate,
        }),
        Err(error) => Err(error.clone()),
    };
    let mut done = Some(done);
    if until == Promise::Enqueued
        && let Some(done) = done.take()
    {
        done.keep(placed.iter().map(answer).collect());
    }
    let deadline_us = clock::monotonic_us().saturating_add(at_most.as_micros() as u64);
    for placed in &mut placed {
        let Ok((replica, place)) = placed else {
            continue;
        };
        let promised = match until {
            Promise::Committed => committed(replica, place, deadline_us).await,
            _ => replica.flushed(place).await.map_err(uncommitted),
        };
        replica.grew();
        if let Err(error) = promised {
            *placed = Err(error);
        }
    }
    if let Some(done) = done {
        done.keep(placed.iter().map(answer).collect());
    }
}

/// Waits until a batch is committed, at most until the deadline. A timer is needed only where other
/// replicas are waited for: the journal flushes or fails.
async fn committed(replica: &Replica, place: &Placed, deadline_us: u64) -> PartResult<()> {
    replica.flushed(place).await.map_err(uncommitted)?;
    let committed = async {
        let committed = replica.placed_is_committed(place).await;
        committed.map_err(uncommitted)
    };
    if replica.high_watermark() >= place.end {
        return committed.await;
    }
    let too_late = async {
        let left_us = deadline_us.saturating_sub(clock::monotonic_us());
        clock::sleep(Duration::from_micros(left_us)).await;
        Err(PartitionError::TimedOut)
    };
    futures_lite::future::or(committed, too_late).await
}

/// KIP-320: where the client's log and this one part, if the client's last epoch ended earlier here.
fn diverging(replica: &Replica, part: &FetchPart) -> Option<(i32, i64)> {
    if part.last_fetched_epoch < 0 {
        return None;
    }
    let (epoch, end) = replica.epoch_end(part.last_fetched_epoch);
    let apart = epoch < part.last_fetched_epoch || end < part.offset;
    (apart && epoch >= 0).then_some((epoch, end))
}

pub(super) fn refused(refusal: AppendRefusal) -> PartitionError {
    match refusal {
        AppendRefusal::Log(error) => unreadable(error),
        AppendRefusal::NotLeader => PartitionError::NotLeader,
        AppendRefusal::OutOfOrderSequence => PartitionError::OutOfOrderSequence,
        AppendRefusal::InvalidProducerEpoch => PartitionError::InvalidProducerEpoch,
        AppendRefusal::TooLarge => PartitionError::BatchTooLarge,
        AppendRefusal::InvalidTransactionState => PartitionError::InvalidTransactionState,
        AppendRefusal::CoordinatorFenced => PartitionError::CoordinatorFenced,
        AppendRefusal::TooManyTransactions => PartitionError::TooManyTransactions,
    }
}

pub(super) fn uncommitted(failure: CommitFailure) -> PartitionError {
    match failure {
        CommitFailure::Log(error) => unreadable(error),
        CommitFailure::NotLeader => PartitionError::NotLeader,
    }
}

pub(super) fn unreadable(error: LogError) -> PartitionError {
    match error {
        LogError::Offline(reason) => PartitionError::Storage(reason.to_string()),
        LogError::Deleted => PartitionError::Unknown,
        LogError::NoSpace => PartitionError::DiskFull,
        LogError::OutOfRange { .. } => PartitionError::OffsetOutOfRange,
    }
}
