//! Fetch: from an offset in a log in memory to the answer that leaves in one gather write.

use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use percolog::api::fetch::gathered;
use percolog::log::chunk_cache::{CacheLimits, ChunkCache};
use percolog::log::journal::JournalLimits;
use percolog::log::log_directory::{Housekeeping, LogDirectory};
use percolog::log::partition_log::{LogSettings, PartitionLog};
use percolog::log::position::{LeaderEpoch, LogId, Offset};
use percolog::log::recovery::RecoveredCore;
use percolog::log::segment_pool::PoolLimits;
use percolog::runtime::gather::Gather;
use percolog::wire::codec::{Records, Uuid, Writer};
use percolog::wire::compression::Codec;
use percolog::wire::frame::encode_response;
use percolog::wire::messages::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use percolog::wire::record_batch::{BatchHeader, HEADER_BYTES};

use crate::cases::{Amount, Cases};
use crate::records::batch;

const VERSION: i16 = 17;

/// Everything stays in memory, and no checkpoint comes between.
const CACHE: CacheLimits = CacheLimits {
    total_bytes: 256 << 20,
    unstored_bytes: 128 << 20,
    least_chunk_bytes: 4 << 10,
    most_chunk_bytes: 1 << 20,
};

const JOURNAL: JournalLimits = JournalLimits {
    total_bytes: 256 << 20,
    file_bytes: 64 << 20,
    first_file_bytes: 16 << 20,
    group_bytes: 1 << 20,
    pending_bytes: 8 << 20,
    append_bytes: 16 << 20,
    groups_in_flight: 2,
    direct_bytes: 128 << 10,
    direct_busy_bytes: 32 << 10,
    direct_unwritten_bytes: 256 << 10,
    group_direct_bytes: 8 << 20,
};

const HOUSEKEEPING: Housekeeping = Housekeeping {
    pool: PoolLimits {
        total_bytes: 0,
        least_file_bytes: 1 << 20,
        busy_segment_bytes: 1 << 20,
    },
    write_bytes_per_second: 0,
    cool_after: Duration::from_secs(3600),
};

const SETTINGS: LogSettings = LogSettings {
    segment_bytes: 1 << 30,
    segment_ms: i64::MAX,
    index_interval_bytes: 4096,
    index_most_entries: 4096,
    retention_ms: None,
    retention_bytes: None,
    deletable: true,
    compaction: None,
    producers_max: 64,
    producer_expiration_ms: i64::MAX / 2,
    file_delete_delay_ms: 0,
    flush_messages: 1,
};

/// What is asked for: from one partition or many, so much of each.
struct Shape {
    partitions: u32,
    batch_bytes: usize,
    batches: usize,
    what: &'static str,
}

const SHAPES: [Shape; 4] = [
    Shape {
        partitions: 1,
        batch_bytes: 1 << 10,
        batches: 1024,
        what: "1 partition, 1 KiB",
    },
    Shape {
        partitions: 1,
        batch_bytes: 16 << 10,
        batches: 256,
        what: "1 partition, 16 KiB",
    },
    Shape {
        partitions: 1,
        batch_bytes: 1 << 20,
        batches: 8,
        what: "1 partition, 1 MiB",
    },
    Shape {
        partitions: 64,
        batch_bytes: 1 << 10,
        batches: 64,
        what: "64 partitions, 1 KiB each",
    },
];

/// Opens an empty data directory on this core, fills logs and adds what reads them. The directory is
/// to be shut down.
pub(crate) async fn add(
    cases: &mut Cases,
    path: &Path,
    recovered: RecoveredCore,
) -> Rc<LogDirectory> {
    let cache = Rc::new(ChunkCache::new(CACHE));
    let settings = |_: &_| SETTINGS;
    let started = LogDirectory::start(path, 0, recovered, &cache, JOURNAL, HOUSEKEEPING, settings);
    let directory = started.await.expect("a journal in a new directory");
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let mut logs = Vec::new();
        for partition in 0..shape.partitions {
            logs.push(filled(&directory, number as u8, partition, &shape).await);
        }
        let from = Offset(logs[0].end_offset().0 / 2);
        let name = format!("fetch: read and assemble {}", shape.what);
        let size_bytes = shape.batch_bytes * logs.len();
        cases.add(name, Amount::Bytes(size_bytes), move || {
            assembled(&logs, from, shape.batch_bytes)
        });
    }
    directory
}

/// A log with the shape's batches, flushed.
async fn filled(
    directory: &LogDirectory,
    topic: u8,
    partition: u32,
    shape: &Shape,
) -> Rc<PartitionLog> {
    let id = LogId {
        topic: [topic; 16],
        partition,
    };
    let log = directory.create_log(id, &format!("topic{topic}-{partition}"), SETTINGS);
    let bytes = batch(shape.batch_bytes, Codec::None);
    let header = BatchHeader::parse(&bytes).expect("just built");
    let (records, timestamp_ms) = (i64::from(header.record_count), header.max_timestamp);
    for _ in 0..shape.batches {
        let ready = log.ready(bytes.len(), records, timestamp_ms).await;
        ready.expect("the disk has room");
        log.append(&header, &bytes[HEADER_BYTES..], LeaderEpoch(1));
    }
    loop {
        let moved = log.flush_moved().raised();
        if log.flushed_offset() == log.end_offset() {
            break;
        }
        moved.await;
    }
    log
}

/// The answer to a fetch from all logs at `from`: what the replicas read, the head, and the slices in
/// its gaps.
fn assembled(logs: &[Rc<PartitionLog>], from: Offset, most_bytes: usize) -> Gather {
    let mut partitions = Vec::with_capacity(logs.len());
    let mut slices = Vec::with_capacity(logs.len());
    for log in logs {
        let end = log.flushed_offset();
        let read = log.read(black_box(from), end, most_bytes, true);
        let read = read.now_or_never().expect("all of it is in memory");
        let run = read.expect("a healthy log");
        partitions.push(PartitionData {
            partition_index: log.id().partition as i32,
            high_watermark: end.0,
            last_stable_offset: end.0,
            log_start_offset: 0,
            records: Records::Detached(run.size_bytes),
            ..PartitionData::default()
        });
        slices.push(run.slices.into_vec());
    }
    let response = FetchResponse {
        session_id: 1,
        responses: vec![FetchableTopicResponse {
            topic_id: Uuid([0x5a; 16]),
            partitions,
            ..FetchableTopicResponse::default()
        }],
        ..FetchResponse::default()
    };
    let mut writer = Writer::new();
    encode_response(&mut writer, VERSION, 7, &response);
    gathered(writer, slices.into_iter())
}
