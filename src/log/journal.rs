//! The journal of one core in one data directory: group commit, and the one flush for all logs.
//!
//! Entries are collected while earlier groups are on their way to the disk; a group is sealed as
//! soon as fewer than [`JournalLimits::groups_in_flight`] are. No timer is involved: one lone append is one durable
//! write, a thousand at once are still one. Groups complete in order.
//!
//! *Architecture Invariant*: nothing learns that bytes are flushed before the group that carries
//! them and every group before it are durable.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::checkpoint::JournalPlace;
use super::entry::Entry;
use super::flush_mark::FlushMark;
use super::group::{Epoch, GroupHeader, group_size_bytes};
use super::group_queue::{Creation, DirectWrite, GroupQueue, GroupRoom, PendingAppend};
use super::journal_files::JournalFiles;
use super::position::{AppendedBytes, LogId};
use crate::observe::histogram::Histogram;
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::buffer::{AppendBuf, BLOCK_BYTES, Slice};
use crate::runtime::clock;
use crate::runtime::disk::{self, Durability, File};
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::signal::{Promise, Promised, Signal, promise};

/// How long a journal must be idle before it writes the empty group that says all is complete.
const CLOSING_DELAY: Duration = Duration::from_millis(10);

/// How long to wait before trying again to extend the journal (a full disk).
const EXTEND_AGAIN: Duration = Duration::from_secs(1);

/// Zeroes written ahead in one write.
const ZERO_WRITE_BYTES: usize = 1 << 20;

/// Sizes of a journal.
#[derive(Clone, Copy, Debug)]
pub struct JournalLimits {
    /// All files together.
    pub total_bytes: u64,
    /// One file.
    pub file_bytes: u64,
    /// The very first file, so that an empty broker starts at once.
    pub first_file_bytes: u64,
    /// Entries of one group.
    pub group_bytes: usize,
    /// Entries that wait for a group; beyond it appends wait.
    pub pending_bytes: usize,
    /// The largest single append.
    pub append_bytes: usize,
    /// Groups on their way at a time. More than one hides the device's latency; a third gained
    /// nothing clear when measured.
    pub groups_in_flight: usize,
    /// Full blocks of an append that are written straight to the segment while the disk is idle.
    pub direct_bytes: usize,
    /// The same while a group is on its way.
    pub direct_busy_bytes: usize,
    /// The same at least, where blocks of the segment were never written: ext4 commits metadata with
    /// each durable write there.
    pub direct_unwritten_bytes: usize,
    /// Bytes written straight to segments beside one group.
    pub group_direct_bytes: usize,
}

impl JournalLimits {
    /// # Panics
    /// When the sizes contradict each other: config derives them, so this is our bug.
    pub fn check(&self) {
        let largest_group = group_size_bytes(self.group_bytes) as u64;
        assert!(
            largest_group <= self.first_file_bytes.min(self.file_bytes),
            "{self:?}"
        );
        // A cut must fit into the file that is kept in reserve for it: what may be pending plus one
        // append that was let in last, in whole groups, beside the room a group left unused.
        let cut = self.pending_bytes + self.append_bytes;
        let groups = cut as u64 / self.group_bytes as u64 + 2;
        let padding = groups * (group_size_bytes(0) as u64);
        assert!(
            cut as u64 + padding + largest_group <= self.file_bytes,
            "{self:?}"
        );
        assert!(4 * self.file_bytes <= self.total_bytes, "{self:?}");
        assert!(self.direct_busy_bytes >= BLOCK_BYTES, "{self:?}");
        assert!(self.direct_bytes >= self.direct_busy_bytes, "{self:?}");
    }
}

struct InFlight {
    sequence: u64,
    /// Where it ends.
    end: JournalPlace,
    /// Once it is durable, recovery knows that everything up to here was complete.
    tells: u64,
    done: bool,
    marks: Vec<(Rc<FlushMark>, AppendedBytes)>,
    promises: Vec<Promise<()>>,
    creations: Vec<Creation>,
    cut: Option<Promise<Cut>>,
}

/// A point of the journal that a checkpoint can cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Groups up to this one.
    pub sequence: u64,
    /// Where it ends.
    pub place: JournalPlace,
}

struct Sealed {
    sequence: u64,
    sealed_us: u64,
    bytes: Slice,
    file: File,
    position: u64,
    direct: Vec<DirectWrite>,
}

#[derive(Default)]
struct State {
    queue: GroupQueue,
    files: JournalFiles,
    in_flight: VecDeque<InFlight>,
    next_sequence: u64,
    completed: u64,
    /// Recovery will know that everything up to here was complete.
    told: u64,
    announced: u64,
    predecessor: u32,
    next_file: u64,
}

impl State {
    /// A log is deleted: what makes it known is not carried again.
    fn forget(&mut self, log: LogId) {
        self.queue.forget(log);
        for flight in &mut self.in_flight {
            flight.creations.retain(|creation| creation.log != log);
        }
    }
}

/// See the head of this file.
pub struct Journal {
    directory: PathBuf,
    epoch: Epoch,
    limits: JournalLimits,
    state: RefCell<State>,
    failure: RefCell<Option<Rc<str>>>,
    stopped: Cell<bool>,
    /// When the oldest pending append came; none is pending otherwise.
    pending_since_us: Cell<Option<u64>>,
    /// Something is pending, or a flight ended.
    work: Signal,
    /// Pending entries became fewer.
    room: Signal,
    /// A file became free, or will not.
    space: Signal,
    /// A checkpoint would free space.
    pressed: Signal,
    /// A group became durable, or none will.
    completed: Signal,
    /// A group waits for a file.
    starved: Cell<bool>,
    /// The broker stops: nothing is taken any more.
    closed: Cell<bool>,
    /// A log has rolled: its old segment is to be stored and sealed.
    rolled: Cell<bool>,
    counts: Cell<JournalCounts>,
    times: JournalTimes,
}

/// Where the time of an acknowledgement goes, per group.
#[derive(Debug, Default)]
pub struct JournalTimes {
    /// From the first append that waits until its group is taken.
    pub wait: Histogram,
    /// From there until the group and its extents are on stable storage.
    pub write: Histogram,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalCounts {
    /// Groups written, each one durable write.
    pub groups: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Writes straight to segments beside them.
    pub direct_writes: u64,
    /// Their bytes.
    pub direct_bytes: u64,
    /// Bytes of all journal files.
    pub allocated_bytes: u64,
}

impl Journal {
    /// Durations since the start.
    #[must_use]
    pub fn times(&self) -> &JournalTimes {
        &self.times
    }

    /// Opens the journal and starts its task. `recycled` are whole journal files of earlier epochs
    /// with their sizes; new ones are numbered from `next_file`.
    pub async fn start(
        directory: &Path,
        epoch: Epoch,
        limits: JournalLimits,
        recycled: Vec<(PathBuf, u64)>,
        next_file: u64,
    ) -> io::Result<Rc<Journal>> {
        limits.check();
        let journal = Rc::new(Journal {
            directory: directory.to_path_buf(),
            epoch,
            limits,
            state: RefCell::new(State {
                next_sequence: 1,
                next_file,
                ..State::default()
            }),
            failure: RefCell::default(),
            stopped: Cell::new(false),
            work: Signal::default(),
            room: Signal::default(),
            space: Signal::default(),
            pressed: Signal::default(),
            completed: Signal::default(),
            starved: Cell::new(false),
            closed: Cell::new(false),
            rolled: Cell::new(false),
            counts: Cell::default(),
            times: JournalTimes::default(),
            pending_since_us: Cell::new(None),
        });
        // A crash while a file was made leaves a short one.
        let (mut whole, short): (Vec<_>, Vec<_>) = recycled
            .into_iter()
            .partition(|(_, size_bytes)| *size_bytes >= limits.first_file_bytes);
        remove_files(short.into_iter().map(|(path, _)| path).collect()).await;
        // Small ones first: they are used once and then removed.
        whole.sort_by_key(|(_, size_bytes)| *size_bytes);
        for (path, size_bytes) in whole {
            let file = disk::open(&path).await?;
            file.full_sync().await?;
            journal.state.borrow_mut().files.add(path, file, size_bytes);
        }
        if !journal.state.borrow().files.has_free() {
            journal.create_file(limits.first_file_bytes).await?;
        }
        spawn(Queue::Ack, journal.clone().commit_groups());
        spawn(Queue::Background, journal.clone().prepare_files());
        Ok(journal)
    }

    /// The epoch of this start.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The sizes it was made with.
    #[must_use]
    pub fn limits(&self) -> &JournalLimits {
        &self.limits
    }

    /// Why the journal takes nothing any more, if so.
    #[must_use]
    pub fn failure(&self) -> Option<Rc<str>> {
        self.failure.borrow().clone()
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counts(&self) -> JournalCounts {
        JournalCounts {
            allocated_bytes: self.state.borrow().files.allocated_bytes(),
            ..self.counts.get()
        }
    }

    /// Raised when a checkpoint is needed to free space.
    #[must_use]
    pub fn pressed(&self) -> &Signal {
        &self.pressed
    }

    /// Raised when a group became durable, or none will any more.
    #[must_use]
    pub fn group_completed(&self) -> &Signal {
        &self.completed
    }

    /// Tells the task that moves bytes to the segments that a log has rolled.
    pub fn note_roll(&self) {
        self.rolled.set(true);
        self.pressed.raise();
    }

    /// Whether a log has rolled since this was last asked.
    pub fn take_roll(&self) -> bool {
        self.rolled.take()
    }

    /// Whether a checkpoint is due: half of the journal is used, or a group waits for a file.
    #[must_use]
    pub fn wants_checkpoint(&self) -> bool {
        let uncovered = self.state.borrow().files.uncovered_bytes();
        self.starved.get() || uncovered > self.limits.total_bytes / 2
    }

    /// Whether a group waits for a file that only a checkpoint can free.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.starved.get()
    }

    /// Waits until entries may be added without growing beyond the limit.
    pub async fn room(&self) {
        loop {
            let wait = self.room.raised();
            let full = self.state.borrow().queue.bytes() >= self.limits.pending_bytes;
            if !full || self.failure.borrow().is_some() {
                return;
            }
            wait.await;
        }
    }

    /// Adds bytes appended to a log.
    pub(super) fn append(&self, append: PendingAppend) {
        if self.refuses() {
            append.mark.fail();
            return;
        }
        self.state.borrow_mut().queue.append(append);
        if self.pending_since_us.get().is_none() {
            self.pending_since_us.set(Some(clock::monotonic_us()));
        }
        self.work.raise();
    }

    /// Adds another kind of entry; resolves when it is durable (None when it never will be).
    pub fn record(&self, entry: &Entry<'_>) -> Promised<()> {
        debug_assert!(!matches!(
            entry,
            Entry::Append { .. } | Entry::Extent { .. }
        ));
        let (done, durable) = promise();
        if self.refuses() {
            return durable;
        }
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        let mut state = self.state.borrow_mut();
        let creates = matches!(entry, Entry::Create { .. });
        state.queue.control(entry.log(), bytes, done, creates);
        if matches!(entry, Entry::Delete { .. }) {
            state.forget(entry.log());
        }
        drop(state);
        self.work.raise();
        durable
    }

    /// Waits until recovery knows that every group durable by now was complete, even if nothing of
    /// what they wrote directly is left. Whoever is about to remove or overwrite bytes of a segment
    /// on the strength of an entry waits for this first. None when the journal has failed.
    pub async fn told(&self) -> Option<()> {
        if is_planted(Breach::EffectsBeforeTold) {
            return Some(());
        }
        let sequence = self.state.borrow().completed;
        loop {
            let wait = self.completed.raised();
            if self.state.borrow().told >= sequence {
                return Some(());
            }
            if self.failure.borrow().is_some() {
                return None;
            }
            wait.await;
        }
    }

    /// Ends the group that holds everything added so far; resolves to its place when it is
    /// durable. Whatever is added later is in a later group.
    pub fn cut(&self) -> Promised<Cut> {
        let (done, durable) = promise();
        if self.failure.borrow().is_some() {
            return durable;
        }
        self.state.borrow_mut().queue.cut(done);
        self.work.raise();
        durable
    }

    /// As [`Journal::cut`], and nothing is taken after it: what was not recorded by now never will
    /// be.
    pub fn close(&self) -> Promised<Cut> {
        let durable = self.cut();
        self.closed.set(true);
        self.state.borrow_mut().queue.close();
        durable
    }

    fn refuses(&self) -> bool {
        self.closed.get() || self.failure.borrow().is_some()
    }

    /// Gives files back whose groups are all covered by a durable checkpoint. A file that is too
    /// small to hold a cut in reserve is removed instead.
    pub fn release(&self, covered: u64) {
        let mut state = self.state.borrow_mut();
        let removed = state.files.release(covered, self.limits.file_bytes);
        drop(state);
        if !removed.is_empty() {
            spawn(Queue::Background, remove_files(removed));
        }
        self.starved.set(false);
        self.space.raise();
        self.work.raise();
    }

    /// Ends the tasks once nothing is pending. Entries added later are lost.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.work.raise();
        self.space.raise();
    }

    /// Creates a file, writes it full of zeroes and makes its name durable, so that a durable write
    /// into it later has no metadata to commit.
    async fn create_file(&self, size_bytes: u64) -> io::Result<()> {
        let number = {
            let mut state = self.state.borrow_mut();
            state.next_file += 1;
            state.next_file
        };
        let path = self.directory.join(format!("{number:08}.journal"));
        let file = disk::create(&path, size_bytes).await?;
        if let Err(error) = self.fill_file(&file, size_bytes).await {
            // It would be a file more with every attempt.
            remove_files(vec![path]).await;
            return Err(error);
        }
        self.state.borrow_mut().files.add(path, file, size_bytes);
        self.space.raise();
        Ok(())
    }

    async fn fill_file(&self, file: &File, size_bytes: u64) -> io::Result<()> {
        let mut zeroes = AppendBuf::allocate(ZERO_WRITE_BYTES.min(size_bytes as usize));
        zeroes.append_with(zeroes.capacity(), |zeroes| zeroes.len());
        let zeroes = zeroes.whole();
        let mut position = 0;
        while position < size_bytes {
            let length = zeroes.len().min((size_bytes - position) as usize);
            file.write(position, zeroes.part(0..length), Durability::Volatile)
                .await?;
            position += length as u64;
        }
        file.full_sync().await?;
        disk::sync_dir(&self.directory).await
    }

    /// Keeps files in store until the journal has its full size.
    async fn prepare_files(self: Rc<Self>) {
        loop {
            let wait = self.space.raised();
            if self.stopped.get() || self.failure.borrow().is_some() {
                return;
            }
            let (file_bytes, total_bytes) = (self.limits.file_bytes, self.limits.total_bytes);
            let wanted = self
                .state
                .borrow()
                .files
                .wants_more(file_bytes, total_bytes);
            if !wanted {
                wait.await;
                continue;
            }
            if let Err(error) = self.create_file(self.limits.file_bytes).await {
                tracing::warn!(directory = %self.directory.display(), %error,
                    "cannot extend the journal; it goes on with the files it has");
                clock::sleep(EXTEND_AGAIN).await;
            }
        }
    }

    /// Makes sure that the current file holds one more group of the largest size.
    async fn claim_space(&self) {
        let largest = group_size_bytes(self.limits.group_bytes) as u64;
        loop {
            let wait = self.space.raised();
            let advanced = {
                let mut state = self.state.borrow_mut();
                if state.files.has_room(largest) {
                    return;
                }
                let for_cut = state.queue.has_cut();
                state.files.advance(for_cut)
            };
            if advanced {
                self.space.raise();
                if self.wants_checkpoint() {
                    self.pressed.raise();
                }
                return;
            }
            self.starved.set(true);
            self.pressed.raise();
            if self.failure.borrow().is_some() {
                return;
            }
            let wait_for_cut = self.work.raised();
            futures_lite::future::or(wait, wait_for_cut).await;
        }
    }

    async fn commit_groups(self: Rc<Self>) {
        loop {
            let wait = self.work.raised();
            let (idle, ready) = {
                let state = self.state.borrow();
                let idle = state.queue.is_empty();
                (
                    idle,
                    !idle && state.in_flight.len() < self.limits.groups_in_flight,
                )
            };
            if self.failure.borrow().is_some() || (idle && self.stopped.get()) {
                return;
            }
            if ready {
                self.claim_space().await;
                self.start_group();
                continue;
            }
            if self.wants_closing() {
                let idle_for = async {
                    clock::sleep(CLOSING_DELAY).await;
                    true
                };
                let disturbed = async {
                    wait.await;
                    false
                };
                if futures_lite::future::or(idle_for, disturbed).await && self.wants_closing() {
                    self.claim_space().await;
                    self.start_group();
                }
                continue;
            }
            wait.await;
        }
    }

    /// Whether the last groups are complete but no group says so yet.
    fn wants_closing(&self) -> bool {
        let state = self.state.borrow();
        state.queue.is_empty()
            && state.in_flight.is_empty()
            && state.announced < state.completed
            && self.failure.borrow().is_none()
    }

    fn start_group(self: &Rc<Self>) {
        if self.failure.borrow().is_none() {
            let sealed = self.seal();
            spawn(Queue::Ack, self.clone().write_group(sealed));
        }
    }

    /// Takes what is pending, up to one group, and gives it its place in the current file.
    fn seal(&self) -> Sealed {
        let mut state = self.state.borrow_mut();
        let busy = !state.in_flight.is_empty();
        let mut body = state.queue.take_group(&GroupRoom {
            body_bytes: self.limits.group_bytes,
            direct_bytes: self.limits.group_direct_bytes,
            direct_least_bytes: if busy {
                self.limits.direct_busy_bytes
            } else {
                self.limits.direct_bytes
            },
            direct_unwritten_bytes: self.limits.direct_unwritten_bytes,
        });
        let header = GroupHeader {
            epoch: self.epoch,
            sequence: state.next_sequence,
            completed: state.completed,
            predecessor: state.predecessor,
            body_length: body.length as u32,
            entry_count: body.entries,
            body_checksum: 0,
        };
        let (bytes, checksum) = body.encode(header);
        // An empty group that follows a complete one leaves nothing to be told; it needs no closing
        // of its own.
        let closes = body.entries == 0 && header.completed + 1 == header.sequence;
        let tells = header.completed + u64::from(closes);
        state.announced = tells;
        state.next_sequence += 1;
        state.predecessor = checksum;
        let (file, position, end) = state.files.place(header.sequence, bytes.len() as u64);
        let sealed = Sealed {
            sequence: header.sequence,
            sealed_us: clock::monotonic_us(),
            bytes,
            file,
            position,
            direct: body.direct,
        };
        state.in_flight.push_back(InFlight {
            sequence: header.sequence,
            end,
            tells,
            done: false,
            marks: body.marks,
            promises: body.promises,
            creations: body.creations,
            cut: body.cut,
        });
        // What did not fit is counted from here on.
        let left = (state.queue.bytes() > 0).then_some(sealed.sealed_us);
        drop(state);
        if let Some(since_us) = self.pending_since_us.replace(left) {
            self.times.wait.note(sealed.sealed_us - since_us);
        }
        self.room.raise();
        sealed
    }

    /// Writes a group and its extents side by side, each durable by itself.
    async fn write_group(self: Rc<Self>, sealed: Sealed) {
        if is_planted(Breach::AcknowledgeEarly) {
            self.complete(sealed.sequence);
        }
        let mut counts = self.counts.get();
        counts.groups += 1;
        counts.bytes += sealed.bytes.len() as u64;
        counts.direct_writes += sealed.direct.len() as u64;
        let written = sealed.direct.iter().map(|write| write.bytes.len() as u64);
        counts.direct_bytes += written.sum::<u64>();
        self.counts.set(counts);
        let group = sealed.file.write(
            sealed.position,
            sealed.bytes,
            durable_unless(Breach::DropGroupDurability),
        );
        let written = if sealed.direct.is_empty() {
            group.await
        } else {
            let durability = durable_unless(Breach::DropExtentDurability);
            let extents = try_join_all(sealed.direct.iter().map(|write| {
                let (position, bytes) = (write.position, write.bytes.clone());
                write.file.write(position, bytes, durability)
            }));
            let (group, extents) = futures_util::future::join(group, extents).await;
            group.and(extents.map(drop))
        };
        match written {
            Ok(()) => {
                let took_us = clock::monotonic_us() - sealed.sealed_us;
                self.times.write.note(took_us);
                self.complete(sealed.sequence);
            }
            // Never retried: after a failed flush nobody knows what the device holds.
            Err(error) => self.fail(&format!("writing the journal failed: {error}")),
        }
        self.work.raise();
    }

    fn complete(&self, sequence: u64) {
        let mut complete = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            let Some(flight) = state.in_flight.iter_mut().find(|f| f.sequence == sequence) else {
                return;
            };
            flight.done = true;
            if is_planted(Breach::AcknowledgeOutOfOrder) {
                let marks = std::mem::take(&mut flight.marks);
                complete.push(InFlight {
                    sequence,
                    end: flight.end,
                    tells: 0,
                    done: true,
                    marks,
                    promises: vec![],
                    creations: vec![],
                    cut: None,
                });
            }
            while state.in_flight.front().is_some_and(|flight| flight.done) {
                let mut flight = state.in_flight.pop_front().expect("checked");
                if !self.closed.get() {
                    state.queue.repeat(std::mem::take(&mut flight.creations));
                }
                assert!(
                    flight.sequence == state.completed + 1,
                    "groups complete in order"
                );
                state.completed = flight.sequence;
                state.told = state.told.max(flight.tells);
                complete.push(flight);
            }
        }
        for flight in complete {
            for (mark, appended) in flight.marks {
                if mark.flushed() < appended {
                    mark.advance(appended);
                }
            }
            flight.promises.into_iter().for_each(|done| done.keep(()));
            if let Some(cut) = flight.cut {
                cut.keep(Cut {
                    sequence: flight.sequence,
                    place: flight.end,
                });
            }
        }
        self.completed.raise();
    }

    /// Takes the directory out of service.
    pub fn fail(&self, reason: &str) {
        if self.failure.borrow().is_some() {
            return;
        }
        *self.failure.borrow_mut() = Some(reason.into());
        let in_flight = {
            let mut state = self.state.borrow_mut();
            state.queue.fail();
            std::mem::take(&mut state.in_flight)
        };
        for (mark, _) in in_flight.into_iter().flat_map(|flight| flight.marks) {
            mark.fail();
        }
        for signal in [
            &self.work,
            &self.room,
            &self.space,
            &self.pressed,
            &self.completed,
        ] {
            signal.raise();
        }
    }
}

async fn remove_files(paths: Vec<PathBuf>) {
    for path in paths {
        if let Err(error) = disk::remove_file(&path).await {
            tracing::warn!(file = %path.display(), %error, "cannot remove a small journal file");
        }
    }
}

fn durable_unless(breach: Breach) -> Durability {
    if is_planted(breach) {
        Durability::Volatile
    } else {
        Durability::Durable
    }
}
