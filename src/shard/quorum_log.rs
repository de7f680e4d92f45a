//! What the quorum made durable, on the controller's core: its entries in the metadata log, its term
//! and vote in `quorum.state`, its snapshot in `metadata.snapshot`.
//!
//! One entry is one batch of one record; the batch's leader epoch is the entry's term. Offsets follow
//! indexes at a distance that changes only when a snapshot of the leader takes the place of entries
//! that are not here: the log cannot skip offsets, so the file of the snapshot says which offset the
//! next entry has.
//!
//! The state is durable before the entries are written, so no entry of a term is found without it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::metadata_entry;
use super::metadata_snapshot::{SNAPSHOT_FILE, Snapshot};
use crate::cluster::quorum::entry::Entry;
use crate::cluster::quorum::node::{InstalledSnapshot, SnapshotPoint, Work};
use crate::cluster::quorum::state::DurableState;
use crate::cluster::record::MetadataRecord;
use crate::log::partition_log::{LogError, PartitionLog};
use crate::log::position::{LeaderEpoch, Offset};
use crate::log::small_file;
use crate::runtime::{clock, startup};
use crate::wire::record_batch::{BatchHeader, BatchView, Batches, HEADER_BYTES};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

/// The file's name, in the first data directory.
const STATE_FILE: &str = "quorum.state";

/// A state names the founders, of which there are few.
const STATE_MOST_BYTES: u64 = 1 << 20;

/// Index of the first entry, less the first offset (cluster/quorum/mod.rs: index 1 is nobody's).
const FIRST_SHIFT: i64 = 2;

/// What a batch may need beside an entry's own bytes.
const BATCH_OVERHEAD_BYTES: usize = 256;

/// Bytes of the metadata log read at a time.
const LOAD_BYTES: usize = 1 << 20;

/// How long a full disk is left alone.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);

/// What was found at the start.
pub(super) struct Loaded {
    pub(super) state: Option<DurableState>,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) entries: Vec<Entry>,
}

/// See the head of this file.
pub(super) struct QuorumLog {
    log: Rc<PartitionLog>,
    directory: PathBuf,
    /// Index less offset.
    shift: Cell<i64>,
    /// Entries wait for space on the disk.
    is_full: Cell<bool>,
    is_stopped: Cell<bool>,
    bytes_since_snapshot: Cell<u64>,
}

impl QuorumLog {
    /// Reads everything.
    pub(super) async fn load(
        log: Rc<PartitionLog>,
        directory: &Path,
    ) -> Result<(QuorumLog, Loaded), String> {
        let state = read_state(directory)?;
        let snapshot = Snapshot::read(directory)?;
        let (from, shift) = match &snapshot {
            Some(snapshot) => {
                let from = snapshot.next_offset;
                (from, snapshot.point.index as i64 + 1 - from.0)
            }
            None => (Offset(0), FIRST_SHIFT),
        };
        let quorum_log = QuorumLog {
            log,
            directory: directory.to_path_buf(),
            shift: Cell::new(shift),
            is_full: Cell::new(false),
            is_stopped: Cell::new(false),
            bytes_since_snapshot: Cell::new(0),
        };
        let (entries, bytes) = quorum_log.read(from).await?;
        quorum_log.bytes_since_snapshot.set(bytes);
        let loaded = Loaded {
            state,
            snapshot,
            entries,
        };
        Ok((quorum_log, loaded))
    }

    async fn read(&self, from: Offset) -> Result<(Vec<Entry>, u64), String> {
        let damaged = |error: LogError| format!("the metadata log: {error}");
        self.log.healthy().map_err(damaged)?;
        let (start, end) = (self.log.start_offset(), self.log.end_offset());
        if start > from || end < from {
            return Err(format!(
                "the metadata log holds {start}..{end}, but what it should go on with is {from}"
            ));
        }
        let (mut at, mut bytes, mut entries) = (from, 0, Vec::new());
        while at < end {
            let run = self.log.read(at, end, LOAD_BYTES, true).await;
            let run = run.map_err(damaged)?;
            let slices = run.slices.iter();
            let joined: Vec<u8> = slices.flat_map(|slice| slice.iter().copied()).collect();
            let before = at;
            for batch in Batches::new(&joined) {
                // The last one may be cut off; it comes whole with the next read.
                let Ok(batch) = batch else { break };
                entries.push(self.read_entry(&batch, at)?);
                at = Offset(at.0 + 1);
                bytes += batch.bytes().len() as u64;
            }
            if at == before {
                return Err(format!("the metadata log has no whole batch at {at}"));
            }
        }
        Ok((entries, bytes))
    }

    fn read_entry(&self, batch: &BatchView<'_>, at: Offset) -> Result<Entry, String> {
        let damaged = |error: &dyn std::fmt::Display| format!("the metadata log at {at}: {error}");
        batch.verify_checksum().map_err(|error| damaged(&error))?;
        let header = batch.header();
        if header.base_offset != at.0 || header.last_offset() != at.0 {
            return Err(damaged(&"not one entry, as every batch is"));
        }
        let mut records = batch.records().map_err(|error| damaged(&error))?;
        let record = records.next().ok_or_else(|| damaged(&"no entry"))?;
        let record = record.map_err(|error| damaged(&error))?;
        let term = u64::try_from(header.partition_leader_epoch);
        let term = term.map_err(|_| damaged(&"an entry without a term"))?;
        let content = record.value.unwrap_or_default();
        let index = (at.0 + self.shift.get()) as u64;
        Entry::from_content(index, term, content).map_err(|error| damaged(&error))
    }

    fn offset(&self, index: u64) -> Offset {
        Offset(index as i64 - self.shift.get())
    }

    /// Bytes that one proposal may have.
    pub(super) fn most_entry_bytes(&self) -> usize {
        let segment_bytes = self.log.settings().segment_bytes as usize;
        let most = self.log.largest_append_bytes().min(segment_bytes);
        most.saturating_sub(BATCH_OVERHEAD_BYTES)
    }

    /// Space on the disk is not waited for any more.
    pub(super) fn stop(&self) {
        self.is_stopped.set(true);
    }

    /// Whether entries wait for space on the disk.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.get()
    }

    pub(super) fn bytes_since_snapshot(&self) -> u64 {
        self.bytes_since_snapshot.get()
    }

    /// Makes work durable, in the order that a crash at any point needs.
    pub(super) async fn make_durable(&self, work: &Work) -> Result<(), String> {
        if let Some(state) = &work.state {
            let path = self.directory.join(STATE_FILE);
            let written = small_file::replace(&path, &state.encode()).await;
            written.map_err(|error| format!("writing {}: {error}", path.display()))?;
        }
        let failed = |error: LogError| format!("the metadata log: {error}");
        if let Some(installed) = &work.install {
            self.install(installed).await?;
        }
        if let Some(from) = work.truncate_from {
            let cut = self.log.truncate(self.offset(from)).await;
            cut.map_err(failed)?;
        }
        for entry in &work.append {
            self.append(entry).await.map_err(failed)?;
        }
        self.flushed().await.map_err(failed)
    }

    async fn append(&self, entry: &Entry) -> Result<(), LogError> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let now_ms = clock::wall_ms();
        builder.append(now_ms, None, Some(&entry.content()), [].into_iter());
        let bytes = builder.finish();
        let header = BatchHeader::parse(&bytes).expect("just built");
        if bytes.len() > self.most_entry_bytes() + BATCH_OVERHEAD_BYTES {
            let reason = format!(
                "entry {} has {} bytes, more than this node's journal takes: raise \
                 storage.journal_bytes",
                entry.index,
                bytes.len()
            );
            return Err(LogError::Offline(reason.into()));
        }
        while let Err(error) = self.log.ready(bytes.len(), 1, now_ms).await {
            if error != LogError::NoSpace || self.is_stopped.get() {
                return Err(error);
            }
            if !self.is_full.replace(true) {
                tracing::warn!("the disk of the metadata log is full: changes wait for space");
            }
            clock::sleep(FULL_DISK_PAUSE).await;
        }
        self.is_full.set(false);
        let epoch = LeaderEpoch(i32::try_from(entry.term).expect("terms are bounded"));
        let appended = self.log.append(&header, &bytes[HEADER_BYTES..], epoch);
        assert_eq!(
            appended.base_offset,
            self.offset(entry.index),
            "entry {} has its place",
            entry.index
        );
        let bytes = self.bytes_since_snapshot.get() + bytes.len() as u64;
        self.bytes_since_snapshot.set(bytes);
        Ok(())
    }

    /// Waits until everything is flushed.
    async fn flushed(&self) -> Result<(), LogError> {
        loop {
            let moved = self.log.flush_moved().raised();
            if self.log.flushed_offset() >= self.log.end_offset() {
                return Ok(());
            }
            self.log.healthy()?;
            moved.await;
        }
    }

    /// Puts a snapshot of the leader in the place of all entries. What the log holds ends before it
    /// as soon as the file is there; it need not be cut.
    async fn install(&self, installed: &InstalledSnapshot) -> Result<(), String> {
        let records = metadata_entry::decode(&installed.data);
        let records = records.map_err(|error| format!("the leader's snapshot: {error}"))?;
        let next_offset = self.log.end_offset();
        let point = installed.point.clone();
        self.shift.set(point.index as i64 + 1 - next_offset.0);
        self.write_snapshot(point, records).await
    }

    /// Replaces the snapshot and lets the log begin behind it.
    pub(super) async fn write_snapshot(
        &self,
        point: SnapshotPoint,
        records: Vec<MetadataRecord>,
    ) -> Result<(), String> {
        let next_offset = self.offset(point.index + 1);
        let snapshot = Snapshot {
            next_offset,
            point,
            records,
        };
        let path = self.directory.join(SNAPSHOT_FILE);
        let written = small_file::replace(&path, &snapshot.encode()).await;
        written.map_err(|error| format!("writing {}: {error}", path.display()))?;
        self.bytes_since_snapshot.set(0);
        if let Err(error) = self.log.advance_start(next_offset).await {
            tracing::warn!(%error, "the metadata log keeps what the snapshot covers");
        }
        Ok(())
    }
}

fn read_state(directory: &Path) -> Result<Option<DurableState>, String> {
    let path = directory.join(STATE_FILE);
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    if !startup::exists(&path).map_err(|error| failed(&error))? {
        return Ok(None);
    }
    let bytes = startup::read_file(&path, STATE_MOST_BYTES).map_err(|error| failed(&error))?;
    let state = DurableState::decode(&bytes).map_err(|error| failed(&error))?;
    Ok(Some(state))
}
