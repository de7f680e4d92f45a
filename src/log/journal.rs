//! The journal of one core in one data directory: group commit, and the one flush for all logs.
//!
//! Entries are collected while earlier groups are on their way to the disk; a group is sealed as
//! soon as fewer than [`JournalLimits::groups_in_flight`] are. No timer is involved: one lone append is one durable
//! write, a thousand at once are still one. Groups complete in order.
//!
//! *Architecture Invariant*: nothing learns that bytes are flushed before the group that carries
//! them and every group before it are durable.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use smallvec::SmallVec;

use super::entry::{APPEND_HEADER_BYTES, Entry, encode_append_header};
use super::group::{Epoch, GROUP_HEADER_BYTES, GroupHeader, group_size_bytes};
use super::position::{AppendedBytes, BytePosition, LogId, SegmentId};
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::buffer::{AppendBuf, Slice};
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
    }
}

/// How far a log is flushed, and whether it will ever be flushed further.
#[derive(Default)]
pub struct FlushMark {
    flushed: Cell<AppendedBytes>,
    failed: Cell<bool>,
    moved: Signal,
}

impl FlushMark {
    /// Bytes ever appended to the log that are durable.
    #[must_use]
    pub fn flushed(&self) -> AppendedBytes {
        self.flushed.get()
    }

    /// Whether the journal has failed: nothing more will be flushed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Raised when the mark moves or fails.
    #[must_use]
    pub fn moved(&self) -> &Signal {
        &self.moved
    }

    fn advance(&self, to: AppendedBytes) {
        assert!(
            to >= self.flushed.get(),
            "{to:?} after {:?}",
            self.flushed.get()
        );
        self.flushed.set(to);
        self.moved.raise();
    }

    fn fail(&self) {
        self.failed.set(true);
        self.moved.raise();
    }
}

struct PendingAppend {
    log: LogId,
    segment: SegmentId,
    position: BytePosition,
    bytes: SmallVec<[Slice; 2]>,
    length: usize,
    mark: Rc<FlushMark>,
    appended: AppendedBytes,
}

enum Pending {
    Control(Vec<u8>, Option<Promise<()>>),
    Append(PendingAppend),
    Cut(Promise<u64>),
}

struct JournalFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    position: u64,
    last_sequence: u64,
}

struct InFlight {
    sequence: u64,
    done: bool,
    marks: Vec<(Rc<FlushMark>, AppendedBytes)>,
    promises: Vec<Promise<()>>,
    cut: Option<Promise<u64>>,
}

struct Sealed {
    sequence: u64,
    bytes: Slice,
    file: File,
    position: u64,
}

#[derive(Default)]
struct State {
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Where the last entry of a log stands in `pending`, if an append may still join it; counted
    /// from the number of entries ever taken out.
    joinable: BTreeMap<LogId, u64>,
    taken: u64,
    in_flight: VecDeque<InFlight>,
    cuts_pending: usize,
    next_sequence: u64,
    completed: u64,
    announced: u64,
    predecessor: u32,
    current: Option<JournalFile>,
    free: VecDeque<JournalFile>,
    used: VecDeque<JournalFile>,
    next_file: u64,
    allocated_bytes: u64,
}

/// See the head of this file.
pub struct Journal {
    directory: PathBuf,
    epoch: Epoch,
    limits: JournalLimits,
    state: RefCell<State>,
    failure: RefCell<Option<Rc<str>>>,
    stopped: Cell<bool>,
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
    groups: Cell<u64>,
    group_bytes: Cell<u64>,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalCounts {
    /// Groups written, each one durable write.
    pub groups: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of all journal files.
    pub allocated_bytes: u64,
}

impl Journal {
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
            groups: Cell::new(0),
            group_bytes: Cell::new(0),
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
            journal.add_file(path, file, size_bytes);
        }
        if journal.state.borrow().free.is_empty() {
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
            groups: self.groups.get(),
            bytes: self.group_bytes.get(),
            allocated_bytes: self.state.borrow().allocated_bytes,
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
        self.starved.get() || self.bytes_to_release() > self.limits.total_bytes / 2
    }

    /// Bytes of groups that no checkpoint covers yet.
    fn bytes_to_release(&self) -> u64 {
        let state = self.state.borrow();
        let used: u64 = state.used.iter().map(|file| file.position).sum();
        used + state.current.as_ref().map_or(0, |file| file.position)
    }

    /// Waits until entries may be added without growing beyond the limit.
    pub async fn room(&self) {
        loop {
            let wait = self.room.raised();
            let full = self.state.borrow().pending_bytes >= self.limits.pending_bytes;
            if !full || self.failure.borrow().is_some() {
                return;
            }
            wait.await;
        }
    }

    /// Adds bytes appended to a log. `appended` is what the log's mark shows once they are flushed.
    pub fn append(
        &self,
        (log, segment): (LogId, SegmentId),
        position: BytePosition,
        bytes: SmallVec<[Slice; 2]>,
        mark: &Rc<FlushMark>,
        appended: AppendedBytes,
    ) {
        if self.refuses() {
            mark.fail();
            return;
        }
        let length = bytes.iter().map(|slice| slice.len()).sum::<usize>();
        let mut state = self.state.borrow_mut();
        state.pending_bytes += length;
        if let Some(earlier) = state.joinable(log)
            && earlier.segment == segment
            && earlier.position + earlier.length as u64 == position
        {
            earlier.bytes.extend(bytes);
            earlier.length += length;
            earlier.appended = appended;
        } else {
            state.pending_bytes += APPEND_HEADER_BYTES;
            let mark = mark.clone();
            let append = PendingAppend {
                log,
                segment,
                position,
                bytes,
                length,
                mark,
                appended,
            };
            state.push(log, Pending::Append(append));
        }
        drop(state);
        self.work.raise();
    }

    /// Adds another kind of entry; resolves when it is durable (None when it never will be).
    pub fn record(&self, entry: &Entry<'_>) -> Promised<()> {
        debug_assert!(!matches!(entry, Entry::Append { .. }));
        let (done, durable) = promise();
        if self.refuses() {
            return durable;
        }
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        let mut state = self.state.borrow_mut();
        state.pending_bytes += bytes.len();
        state.push(entry.log(), Pending::Control(bytes, Some(done)));
        drop(state);
        self.work.raise();
        durable
    }

    /// Ends the group that holds everything added so far; resolves to its sequence when it is
    /// durable. Whatever is added later is in a later group.
    pub fn cut(&self) -> Promised<u64> {
        let (done, durable) = promise();
        if self.failure.borrow().is_some() {
            return durable;
        }
        let mut state = self.state.borrow_mut();
        state.joinable.clear();
        state.cuts_pending += 1;
        state.pending.push_back(Pending::Cut(done));
        drop(state);
        self.work.raise();
        durable
    }

    /// As [`Journal::cut`], and nothing is taken after it: what was not recorded by now never will
    /// be.
    pub fn close(&self) -> Promised<u64> {
        let durable = self.cut();
        self.closed.set(true);
        durable
    }

    fn refuses(&self) -> bool {
        self.closed.get() || self.failure.borrow().is_some()
    }

    /// Gives files back whose groups are all covered by a durable checkpoint. A file that is too
    /// small to hold a cut in reserve is removed instead.
    pub fn release(&self, covered: u64) {
        let mut state = self.state.borrow_mut();
        let mut removed = Vec::new();
        while state
            .used
            .front()
            .is_some_and(|file| file.last_sequence <= covered)
        {
            let mut file = state.used.pop_front().expect("checked");
            if file.size_bytes < self.limits.file_bytes {
                state.allocated_bytes -= file.size_bytes;
                removed.push(file.path);
                continue;
            }
            file.position = 0;
            state.free.push_back(file);
        }
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

    fn add_file(&self, path: PathBuf, file: File, size_bytes: u64) {
        let mut state = self.state.borrow_mut();
        state.allocated_bytes += size_bytes;
        let file = JournalFile {
            path,
            file,
            size_bytes,
            position: 0,
            last_sequence: 0,
        };
        state.free.push_back(file);
        drop(state);
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
        self.add_file(path, file, size_bytes);
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
            let wanted = {
                let state = self.state.borrow();
                state.free.len() < 3
                    && state.allocated_bytes + self.limits.file_bytes <= self.limits.total_bytes
            };
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
            {
                let mut state = self.state.borrow_mut();
                if let Some(file) = &state.current
                    && file.position + largest <= file.size_bytes
                {
                    return;
                }
                // The last free file is kept for the cut of the checkpoint that frees the others.
                let reserved = usize::from(state.cuts_pending == 0 && !state.used.is_empty());
                if state.free.len() > reserved {
                    let next = state.free.pop_front();
                    let full = std::mem::replace(&mut state.current, next);
                    state.used.extend(full);
                    drop(state);
                    self.space.raise();
                    if self.wants_checkpoint() {
                        self.pressed.raise();
                    }
                    return;
                }
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
                let idle = state.pending.is_empty();
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
        state.pending.is_empty()
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
        let mut body = GroupBody::default();
        state.take_into(&mut body, self.limits.group_bytes);
        state.joinable.clear();
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
        // An empty closing group is complete knowledge by itself; it needs no closing of its own.
        state.announced = if body.entries == 0 {
            header.sequence
        } else {
            header.completed
        };
        state.next_sequence += 1;
        state.predecessor = checksum;
        let file = state.current.as_mut().expect("claim_space was called");
        let position = file.position;
        file.position += bytes.len() as u64;
        file.last_sequence = header.sequence;
        assert!(
            file.position <= file.size_bytes,
            "group at {position} of {}",
            file.size_bytes
        );
        let sealed = Sealed {
            sequence: header.sequence,
            bytes,
            file: file.file.clone(),
            position,
        };
        state.in_flight.push_back(InFlight {
            sequence: header.sequence,
            done: false,
            marks: body.marks,
            promises: body.promises,
            cut: body.cut,
        });
        drop(state);
        self.room.raise();
        sealed
    }

    async fn write_group(self: Rc<Self>, sealed: Sealed) {
        let durability = if is_planted(Breach::DropGroupDurability) {
            Durability::Volatile
        } else {
            Durability::Durable
        };
        if is_planted(Breach::AcknowledgeEarly) {
            self.complete(sealed.sequence);
        }
        let length = sealed.bytes.len() as u64;
        match sealed
            .file
            .write(sealed.position, sealed.bytes, durability)
            .await
        {
            Ok(()) => {
                self.groups.set(self.groups.get() + 1);
                self.group_bytes.set(self.group_bytes.get() + length);
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
                    done: true,
                    marks,
                    promises: vec![],
                    cut: None,
                });
            }
            while state.in_flight.front().is_some_and(|flight| flight.done) {
                let flight = state.in_flight.pop_front().expect("checked");
                assert!(
                    flight.sequence == state.completed + 1,
                    "groups complete in order"
                );
                state.completed = flight.sequence;
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
                cut.keep(flight.sequence);
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
        let (pending, in_flight) = {
            let mut state = self.state.borrow_mut();
            (
                std::mem::take(&mut state.pending),
                std::mem::take(&mut state.in_flight),
            )
        };
        for pending in pending {
            if let Pending::Append(append) = pending {
                append.mark.fail();
            }
        }
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

impl State {
    fn push(&mut self, log: LogId, pending: Pending) {
        let number = self.taken + self.pending.len() as u64;
        self.joinable.insert(log, number);
        self.pending.push_back(pending);
    }

    /// The last pending entry of a log, if it is an append.
    fn joinable(&mut self, log: LogId) -> Option<&mut PendingAppend> {
        let index = self.joinable.get(&log)?.checked_sub(self.taken)?;
        match self.pending.get_mut(usize::try_from(index).ok()?)? {
            Pending::Append(append) => Some(append),
            _ => None,
        }
    }

    /// Moves pending entries into `body` until it is full or a cut ends it.
    fn take_into(&mut self, body: &mut GroupBody, limit: usize) {
        while let Some(pending) = self.pending.pop_front() {
            self.taken += 1;
            match pending {
                Pending::Cut(cut) => {
                    self.cuts_pending -= 1;
                    body.cut = Some(cut);
                    return;
                }
                Pending::Control(bytes, done) => {
                    assert!(bytes.len() <= limit, "control entries are small");
                    if body.length + bytes.len() > limit {
                        self.put_back(Pending::Control(bytes, done));
                        return;
                    }
                    self.pending_bytes -= bytes.len();
                    body.promises.extend(done);
                    body.control(bytes);
                }
                Pending::Append(append) => {
                    let room = limit.saturating_sub(body.length + APPEND_HEADER_BYTES);
                    if room == 0 {
                        self.put_back(Pending::Append(append));
                        return;
                    }
                    if append.length <= room {
                        self.pending_bytes -= append.length + APPEND_HEADER_BYTES;
                        body.append(append);
                        continue;
                    }
                    let (first, rest) = append.split(room);
                    self.pending_bytes -= first.length;
                    body.append(first);
                    self.put_back(Pending::Append(rest));
                    return;
                }
            }
        }
        assert!(
            self.pending_bytes == 0,
            "{} bytes of nothing",
            self.pending_bytes
        );
    }

    fn put_back(&mut self, pending: Pending) {
        self.taken -= 1;
        self.pending.push_front(pending);
    }
}

impl PendingAppend {
    /// Splits after `length` bytes.
    fn split(mut self, length: usize) -> (PendingAppend, PendingAppend) {
        assert!(length < self.length);
        let mut first = SmallVec::new();
        let mut rest = SmallVec::new();
        let mut left = length;
        for slice in self.bytes.drain(..) {
            let here = left.min(slice.len());
            if here > 0 {
                first.push(slice.part(0..here));
            }
            if here < slice.len() {
                rest.push(slice.part(here..slice.len()));
            }
            left -= here;
        }
        let rest_length = self.length - length;
        let head = PendingAppend {
            log: self.log,
            segment: self.segment,
            position: self.position,
            bytes: first,
            length,
            mark: self.mark.clone(),
            appended: AppendedBytes(self.appended.0.saturating_sub(rest_length as u64)),
        };
        let tail = PendingAppend {
            position: self.position + length as u64,
            bytes: rest,
            length: rest_length,
            ..self
        };
        (head, tail)
    }
}

#[derive(Default)]
struct GroupBody {
    pieces: Vec<Piece>,
    length: usize,
    entries: u32,
    marks: Vec<(Rc<FlushMark>, AppendedBytes)>,
    promises: Vec<Promise<()>>,
    cut: Option<Promise<u64>>,
}

enum Piece {
    Owned(Vec<u8>),
    Shared(Slice),
}

impl GroupBody {
    fn control(&mut self, bytes: Vec<u8>) {
        self.length += bytes.len();
        self.entries += 1;
        self.pieces.push(Piece::Owned(bytes));
    }

    fn append(&mut self, append: PendingAppend) {
        let mut head = Vec::with_capacity(APPEND_HEADER_BYTES);
        encode_append_header(
            &mut head,
            append.log,
            append.segment,
            append.position,
            append.length,
        );
        self.length += head.len() + append.length;
        self.entries += 1;
        self.pieces.push(Piece::Owned(head));
        self.pieces
            .extend(append.bytes.into_iter().map(Piece::Shared));
        self.marks.push((append.mark, append.appended));
    }

    /// Header, body and padding in one buffer, and the header's checksum.
    fn encode(&mut self, mut header: GroupHeader) -> (Slice, u32) {
        let mut body_checksum = GroupHeader::body_checksum(header.epoch, &[]);
        for piece in &self.pieces {
            body_checksum = crc32c::crc32c_append(body_checksum, piece.bytes());
        }
        header.body_checksum = body_checksum;
        let (head, checksum) = header.encode();
        let mut buffer = AppendBuf::allocate(GROUP_HEADER_BYTES + self.length);
        buffer.append(&head);
        for piece in self.pieces.drain(..) {
            buffer.append(piece.bytes());
        }
        buffer.pad_to_block();
        (buffer.whole(), checksum)
    }
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Owned(bytes) => bytes,
            Piece::Shared(slice) => slice,
        }
    }
}
