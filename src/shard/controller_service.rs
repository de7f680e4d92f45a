//! The controller at work: decides, stores, applies, spreads, answers. One command after the other,
//! on the controller's core.
//!
//! Records are appended to the metadata log and flushed before anything they say is true. When the
//! log has grown enough since, the image is written as a snapshot (`metadata.snapshot` in the first
//! data directory) and the log starts behind it.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::metadata_snapshot::{SNAPSHOT_FILE, Snapshot};
use super::request::ControlFailure;
use super::router::Router;
use crate::cluster::controller::{Command, CommandReply, decide};
use crate::cluster::image::MetadataImage;
use crate::cluster::record::{MetadataRecord, snapshot};
use crate::log::partition_log::LogError;
use crate::log::position::Offset;
use crate::log::small_file;
use crate::partition::replica::{AppendTerms, Replica};
use crate::partition::turns::Turns;
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::random::random_bytes;
use crate::runtime::signal::promise;
use crate::wire::codec::Uuid;
use crate::wire::record_batch::{BatchHeader, BatchView, Batches, HEADER_BYTES};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

/// Bytes of the metadata log after which a snapshot is due.
const SNAPSHOT_DUE_BYTES: u64 = 1 << 20;

/// Bytes of records in one batch.
const BATCH_BYTES: usize = 512 << 10;

/// Commands that may wait.
const MOST_WAITING: usize = 1024;

/// Bytes of the metadata log read at a time.
const LOAD_BYTES: usize = 1 << 20;

/// See the head of this file.
pub struct ControllerService {
    router: Weak<Router>,
    replica: Rc<Replica>,
    directory: PathBuf,
    image: RefCell<Arc<MetadataImage>>,
    turns: Rc<Turns>,
    waiting: Cell<usize>,
    bytes_since_snapshot: Cell<u64>,
}

impl ControllerService {
    /// Loads the metadata: the snapshot, then what the log holds behind it.
    pub async fn load(
        router: &Rc<Router>,
        replica: Rc<Replica>,
        directory: &Path,
        snapshot: Snapshot,
        empty: MetadataImage,
    ) -> Result<Rc<ControllerService>, String> {
        let mut image = empty;
        snapshot
            .records
            .iter()
            .for_each(|record| image.apply(record));
        let bytes = load(&replica, snapshot.next_offset, &mut image).await?;
        Ok(Rc::new(ControllerService {
            router: Rc::downgrade(router),
            replica,
            directory: directory.to_path_buf(),
            image: RefCell::new(Arc::new(image)),
            turns: Rc::default(),
            waiting: Cell::new(0),
            bytes_since_snapshot: Cell::new(bytes),
        }))
    }

    /// The newest image.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.borrow().clone()
    }

    /// Decides about a command and makes it so. That goes on when whoever asks does not wait for it
    /// any more (its connection was closed): what is stored has to be applied as well, or the next
    /// decision is made on an image that lacks it.
    pub async fn submit(self: &Rc<Self>, command: Command) -> Result<CommandReply, ControlFailure> {
        if self.waiting.get() >= MOST_WAITING {
            return Err(ControlFailure::Overloaded);
        }
        let turn = self.turns.take();
        self.waiting.set(self.waiting.get() + 1);
        let (done, result) = promise();
        let service = self.clone();
        spawn(Queue::Control, async move {
            turn.come().await;
            service.waiting.set(service.waiting.get() - 1);
            done.keep(service.decide_and_make_so(command).await);
        });
        result.await.unwrap_or(Err(ControlFailure::Overloaded))
    }

    async fn decide_and_make_so(&self, command: Command) -> Result<CommandReply, ControlFailure> {
        let Some(router) = self.router.upgrade() else {
            return Err(ControlFailure::Overloaded);
        };
        let (image, config) = (self.image(), router.config());
        let decision = decide(&image, &config, command, &mut || Uuid(random_bytes()));
        self.make_so(&router, decision.records).await?;
        Ok(decision.reply)
    }

    /// Commits records that need no decision.
    pub async fn commit(&self, records: Vec<MetadataRecord>) -> Result<(), ControlFailure> {
        let turn = self.turns.take();
        turn.come().await;
        let Some(router) = self.router.upgrade() else {
            return Err(ControlFailure::Overloaded);
        };
        self.make_so(&router, records).await
    }

    async fn make_so(
        &self,
        router: &Rc<Router>,
        records: Vec<MetadataRecord>,
    ) -> Result<(), ControlFailure> {
        if records.is_empty() {
            return Ok(());
        }
        self.store(&records).await.map_err(|error| {
            tracing::error!(%error, "the metadata log does not take records");
            ControlFailure::Storage
        })?;
        let mut image = (*self.image()).clone();
        records.iter().for_each(|record| image.apply(record));
        let image = Arc::new(image);
        *self.image.borrow_mut() = image.clone();
        router.publish(image).await;
        if self.bytes_since_snapshot.get() > SNAPSHOT_DUE_BYTES {
            self.write_snapshot().await;
        }
        Ok(())
    }

    /// Appends records in as few batches as fit, and waits until the last is committed.
    async fn store(&self, records: &[MetadataRecord]) -> Result<(), String> {
        let mut end = None;
        let mut rest = records;
        while !rest.is_empty() {
            let mut builder = BatchBuilder::new(BatchOptions::default());
            let mut taken = 0;
            for record in rest {
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                builder.append(clock::wall_ms(), None, Some(&bytes), [].into_iter());
                taken += 1;
                if builder.plain_bytes() > BATCH_BYTES {
                    break;
                }
            }
            rest = &rest[taken..];
            let bytes = builder.finish();
            let header = BatchHeader::parse(&bytes).expect("just built");
            let placed = self
                .replica
                .append(
                    self.replica.take_turn(),
                    &header,
                    &bytes[HEADER_BYTES..],
                    AppendTerms::default(),
                )
                .await
                .map_err(|refusal| format!("{refusal:?}"))?;
            self.bytes_since_snapshot
                .set(self.bytes_since_snapshot.get() + bytes.len() as u64);
            end = Some(placed.end);
        }
        match end {
            Some(end) => self
                .replica
                .committed(end)
                .await
                .map_err(|error| format!("{error:?}")),
            None => Ok(()),
        }
    }

    /// Writes the image as a snapshot and lets the log begin behind it. When that fails the log is
    /// just longer.
    async fn write_snapshot(&self) {
        let next_offset = self.replica.high_watermark();
        let records = snapshot(&self.image());
        let bytes = Snapshot {
            next_offset,
            records,
        }
        .encode();
        if let Err(error) = small_file::replace(&self.directory.join(SNAPSHOT_FILE), &bytes).await {
            tracing::warn!(%error, "writing a metadata snapshot failed");
            return;
        }
        self.bytes_since_snapshot.set(0);
        if let Err(error) = self.replica.log().advance_start(next_offset).await {
            tracing::warn!(%error, "the metadata log keeps what the snapshot covers");
        }
    }
}

/// Applies what the log holds from `from` on; the bytes read.
async fn load(replica: &Replica, from: Offset, image: &mut MetadataImage) -> Result<u64, String> {
    let log = replica.log();
    let damaged = |error: LogError| format!("the metadata log: {error}");
    log.healthy().map_err(damaged)?;
    let (start, end) = (log.start_offset(), log.end_offset());
    if start > from {
        return Err(format!(
            "the metadata log begins at {start}, the snapshot ends at {from}"
        ));
    }
    let (mut at, mut bytes) = (from, 0);
    while at < end {
        let run = log.read(at, end, LOAD_BYTES, true).await.map_err(damaged)?;
        let joined: Vec<u8> = run
            .slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let before = at;
        for batch in Batches::new(&joined) {
            // The last one may be cut off; it comes whole with the next read.
            let Ok(batch) = batch else { break };
            apply_batch(&batch, at, image)?;
            at = Offset(batch.header().last_offset() + 1);
            bytes += batch.bytes().len() as u64;
        }
        if at == before {
            return Err(format!("the metadata log has no whole batch at {at}"));
        }
    }
    Ok(bytes)
}

fn apply_batch(
    batch: &BatchView<'_>,
    from: Offset,
    image: &mut MetadataImage,
) -> Result<(), String> {
    let at = batch.header().base_offset;
    batch
        .verify_checksum()
        .map_err(|error| format!("the metadata log at {at}: {error}"))?;
    let records = batch
        .records()
        .map_err(|error| format!("the metadata log at {at}: {error}"))?;
    for record in records {
        let record = record.map_err(|error| format!("the metadata log at {at}: {error}"))?;
        if at + i64::from(record.offset_delta) < from.0 {
            continue;
        }
        let value = record.value.unwrap_or_default();
        let record = MetadataRecord::decode(value)
            .map_err(|error| format!("the metadata log at {at}: {error}"))?;
        image.apply(&record);
    }
    Ok(())
}
