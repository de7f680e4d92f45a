//! Files as they lie on disks out there: today's reader understands them, and today's writer writes
//! the same bytes.
//!
//! When a format has changed on purpose (new magic or kind, see the head of the file that writes
//! it), write the files anew with `PERCOLOG_WRITE_GOLDEN=1 cargo test --test golden`, and look at
//! the difference: whatever existed before must still be readable, so old kinds keep their bytes.

use std::path::PathBuf;

use percolog::log::bytes::Fields;
use percolog::log::checkpoint::{Checkpoint, Current, JournalPlace};
use percolog::log::compaction::CompactionProgress;
use percolog::log::data_directory::{format_text, open_all};
use percolog::log::entry::{Entry, NAMED_BATCH_BYTES};
use percolog::log::group::{Epoch, GROUP_HEADER_BYTES, GroupHeader, group_size_bytes};
use percolog::log::index::{IndexFile, MOST_ENTRIES, SparseIndex};
use percolog::log::partition_log::LogImage;
use percolog::log::position::{LeaderEpoch, LogId, Offset, SegmentId};
use percolog::log::producer_state::ProducerState;
use percolog::log::segment::SegmentImage;
use percolog::log::swap::Swap;
use percolog::wire::codec::Uuid;
use percolog::wire::record_batch::BatchHeader;
use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};
use percolog::wire::transaction_marker::TransactionMarker;

const MOST_FILE_BYTES: usize = 8 << 10;
const BYTES_PER_LINE: usize = 32;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn is_to_be_written() -> bool {
    std::env::var_os("PERCOLOG_WRITE_GOLDEN").is_some()
}

/// The bytes of a golden file; they are those that today's writer made.
fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    assert!(written.len() <= MOST_FILE_BYTES, "{name}: keep it small");
    let path = path(name);
    if is_to_be_written() {
        let lines = written.chunks(BYTES_PER_LINE).map(|line| {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            hex + "\n"
        });
        std::fs::write(&path, lines.collect::<String>()).expect("the golden file is written");
    }
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'\n').collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hexadecimal digits")
    };
    let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    if let Some(at) =
        (0..bytes.len().max(written.len())).find(|at| bytes.get(*at) != written.get(*at))
    {
        panic!(
            "{name}: today's writer differs from byte {at} on: {:02x?} there, {:02x?} now",
            bytes.get(at),
            written.get(at)
        );
    }
    bytes
}

const LOG: LogId = LogId {
    topic: *b"0123456789abcdef",
    partition: 0x0403_0201,
};
const SEGMENT: SegmentId = SegmentId(0x1122_3344_5566_7788);

/// One entry of every kind.
fn every_kind() -> Vec<Entry<'static>> {
    let mut entries = plain_kinds();
    entries.extend(kinds_of_transactions());
    entries
}

fn plain_kinds() -> Vec<Entry<'static>> {
    let log = LOG;
    vec![
        Entry::Create {
            log,
            directory: "orders-67305985",
        },
        Entry::Roll {
            log,
            segment: SEGMENT,
            base_offset: Offset(17),
        },
        Entry::Append {
            log,
            segment: SEGMENT,
            position: 4096,
            bytes: b"any bytes of a segment",
        },
        Entry::Start {
            log,
            offset: Offset(5),
        },
        Entry::Drop {
            log,
            segment: SEGMENT,
        },
        Entry::Epoch {
            log,
            epoch: LeaderEpoch(2),
            start: Offset(17),
        },
        Entry::Delete { log },
        Entry::Swap {
            log,
            swap: Swap {
                segment: SEGMENT,
                base_offset: Offset(17),
                size_bytes: 4097,
                largest_timestamp_ms: 1_700_000_000_009,
                first_timestamp_ms: 1_700_000_000_001,
                progress: CompactionProgress {
                    first_dirty: Offset(20),
                    run: None,
                },
                old: vec![SegmentId(5), SegmentId(6)],
                markers: Vec::new(),
            },
        },
        Entry::Truncate {
            log,
            segment: SEGMENT,
            position: 4000,
            offset: Offset(16),
        },
        Entry::Extent {
            log,
            segment: SEGMENT,
            position: 8192,
            length: 12_288,
            batches: &[0x42; NAMED_BATCH_BYTES],
        },
        Entry::Producers {
            log,
            producers: one_producer(),
        },
    ]
}

fn kinds_of_transactions() -> Vec<Entry<'static>> {
    let log = LOG;
    vec![
        Entry::Producers {
            log,
            producers: transactional_producer(),
        },
        Entry::Swap {
            log,
            swap: Swap {
                segment: SEGMENT,
                base_offset: Offset(17),
                size_bytes: 4097,
                largest_timestamp_ms: 1_700_000_000_009,
                first_timestamp_ms: 1_700_000_000_001,
                progress: CompactionProgress::default(),
                old: vec![SegmentId(5)],
                markers: vec![Offset(18), Offset(19)],
            },
        },
        Entry::Skip {
            log,
            to: Offset(0x0102_0304_0506),
        },
    ]
}

fn transactional_producer() -> ProducerState {
    let mut producers = one_producer();
    let marker = TransactionMarker {
        producer_id: 0x0102_0304,
        producer_epoch: 5,
        coordinator_epoch: 0x0506_0708,
        commit: true,
    };
    producers.end_transaction(&marker, Offset(9), 10);
    producers
}

fn one_producer() -> ProducerState {
    let mut batch = BatchBuilder::new(BatchOptions {
        producer_id: 0x0102_0304,
        producer_epoch: 5,
        base_sequence: 6,
        ..BatchOptions::default()
    });
    batch.append(7, None, None, [].into_iter());
    let header = BatchHeader::parse(&batch.finish()).expect("just built");
    let mut producers = ProducerState::default();
    producers.remember(&header, Offset(8));
    producers
}

/// Does not compile until a new kind has its place here and in [`every_kind`].
fn kind_number(entry: &Entry<'_>) -> u8 {
    match entry {
        Entry::Create { .. } => 1,
        Entry::Roll { .. } => 2,
        Entry::Append { .. } => 3,
        Entry::Start { .. } => 4,
        Entry::Drop { .. } => 5,
        Entry::Epoch { .. } => 6,
        Entry::Delete { .. } => 7,
        Entry::Swap { swap, .. } if !swap.markers.is_empty() => 13,
        Entry::Swap { .. } => 8,
        Entry::Truncate { .. } => 9,
        Entry::Extent { .. } => 10,
        Entry::Producers { producers, .. } if *producers == one_producer() => 11,
        Entry::Producers { .. } => 12,
        Entry::Skip { .. } => 14,
    }
}

const KINDS: [u8; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];

#[test]
fn a_group_with_an_entry_of_every_kind() {
    let entries = every_kind();
    let mut body = Vec::new();
    entries.iter().for_each(|entry| entry.encode(&mut body));
    let epoch = Epoch(*b"sixteen secrets!");
    let header = GroupHeader {
        epoch,
        sequence: 0x0102_0304_0506_0708,
        completed: 0x0102_0304_0506_0706,
        predecessor: 0xdead_beef,
        body_length: body.len() as u32,
        entry_count: entries.len() as u32,
        body_checksum: GroupHeader::body_checksum(epoch, &body),
    };
    let mut written = header.encode().0.to_vec();
    written.extend_from_slice(&body);
    // Zeroes follow to the end of the block.
    assert_eq!(
        written.len().next_multiple_of(4096),
        group_size_bytes(body.len())
    );
    let read = golden("group.hex", &written);

    let (found, _) = GroupHeader::decode(&read).expect("a group");
    assert_eq!(found, header);
    let body = &read[GROUP_HEADER_BYTES..][..found.body_length as usize];
    assert!(found.matches(body));
    let mut fields = Fields::new(body);
    let mut kinds = Vec::new();
    for entry in &entries {
        kinds.push(body[fields.position()]);
        assert_eq!(Entry::decode(&mut fields).as_ref(), Ok(entry));
        assert_eq!(kinds.last(), Some(&kind_number(entry)));
    }
    assert_eq!(fields.remaining(), 0);
    kinds.sort_unstable();
    assert_eq!(kinds, KINDS);
}

fn index() -> SparseIndex {
    let mut index = SparseIndex::new(Offset(1000), 4096, MOST_ENTRIES);
    for batch in 0..20 {
        index.note(
            Offset(1000 + batch * 10),
            batch as u64 * 1500,
            1_700_000_000_000 + batch,
        );
    }
    index
}

fn log_image() -> LogImage {
    let mut log = LogImage::empty(LOG, "orders-67305985");
    log.start = Offset(4);
    log.end = Offset(1200);
    log.compaction.first_dirty = Offset(700);
    log.damage = Some("a batch does not verify".to_owned());
    log.epochs.begin(LeaderEpoch(3), Offset(0));
    log.epochs.begin(LeaderEpoch(5), Offset(900));
    for sequence in [0, 2] {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: 4711,
            producer_epoch: 6,
            base_sequence: sequence,
            ..Default::default()
        });
        builder.append(1_700_000_000_000, None, Some(b"v"), std::iter::empty());
        builder.append(1_700_000_000_001, None, Some(b"v"), std::iter::empty());
        let header = BatchHeader::parse(&builder.finish()).expect("just built");
        log.producers
            .remember(&header, Offset(1100 + i64::from(sequence)));
    }
    note_transactions(&mut log);
    let segment = |id, base_offset, sealed, index| SegmentImage {
        id: SegmentId(id),
        base_offset: Offset(base_offset),
        size_bytes: 30_000,
        sealed,
        largest_timestamp_ms: 1_700_000_000_019,
        first_timestamp_ms: 1_700_000_000_000,
        index,
    };
    log.segments = vec![
        segment(1, 0, true, None),
        segment(SEGMENT.0, 1000, false, Some(index())),
    ];
    log
}

/// An aborted transaction and an open one.
fn note_transactions(log: &mut LogImage) {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: 4712,
        producer_epoch: 6,
        base_sequence: 0,
        is_transactional: true,
        ..Default::default()
    });
    builder.append(1_700_000_000_002, None, Some(b"v"), std::iter::empty());
    let header = BatchHeader::parse(&builder.finish()).expect("just built");
    let marker = TransactionMarker {
        producer_id: 4712,
        producer_epoch: 7,
        coordinator_epoch: 3,
        commit: false,
    };
    let marker_header = BatchHeader::parse(&marker.batch(8)).expect("just built");
    let transactions = &mut log.transactions;
    transactions.note(&mut log.producers, &header, Offset(1150), None);
    let ends = Some(&marker);
    transactions.note(&mut log.producers, &marker_header, Offset(1151), ends);
    transactions.note(&mut log.producers, &header, Offset(1152), None);
}

#[test]
fn a_checkpoint_with_everything_in_it() {
    let empty = LogId {
        partition: 7,
        ..LOG
    };
    let checkpoint = Checkpoint {
        generation: 0x0102_0304_0506_0708,
        core: 0x0a0b,
        epoch: Epoch(*b"sixteen secrets!"),
        covered: 77,
        cut: JournalPlace {
            file: 0x0201,
            position: 8192,
        },
        closed: true,
        logs: vec![log_image(), LogImage::empty(empty, "orders-7")],
    };
    let read = golden("checkpoint.hex", &checkpoint.encode());
    assert_eq!(Checkpoint::decode(&read), Ok(checkpoint));
}

#[test]
fn the_name_of_the_valid_generation() {
    let current = Current {
        generation: 0x0102_0304_0506_0708,
        cores: 3,
    };
    let read = golden("current.hex", &current.encode());
    assert_eq!(Current::decode(&read), Ok(current));
}

#[test]
fn an_index_beside_a_segment() {
    let read = golden("index.hex", &index().to_file(SEGMENT, 30_000));
    let found = IndexFile::decode(&read, Offset(1000)).expect("an index");
    assert_eq!((found.segment, found.size_bytes), (SEGMENT, 30_000));
    // How many entries it would take further is no part of the file.
    assert_eq!(found.index, index());
}

#[test]
fn the_mark_of_a_data_directory() {
    let (cluster, directory) = (Uuid(*b"cluster of tests"), Uuid(*b"directory tested"));
    let written = format_text(cluster, 12, directory);
    let path = path("percolog.format");
    if is_to_be_written() {
        std::fs::write(&path, &written).expect("the golden file is written");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file");
    assert_eq!(golden, written);
    let data = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(data.path().join("percolog.format"), golden).expect("copied");
    let opened = open_all(&[data.path().to_owned()], 12, None).expect("it is ours");
    assert_eq!(opened.cluster_id, cluster);
    assert_eq!(opened.list[0].directory_id, Some(directory));
}
