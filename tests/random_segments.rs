//! Random segments: what `percolog inspect segment` says of every batch is what was written, for
//! segments sealed by a broker and for files with everything a batch can be.
//!
//! `PERCOLOG_SEED` repeats a run. With `PERCOLOG_SEGMENTS_DIR` the files are kept there, for the
//! comparison with Kafka's own tool (`tests/clients/run.sh dump`).

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use percolog::wire::compression::{Codec, Compression};
use percolog::wire::record::Header;
use percolog::wire::record_batch::BatchHeader;
use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};

use support::{Broker, produce_request, produced};

const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];
const TIMESTAMP_MS: i64 = 1_700_000_000_000;
const BATCHES: usize = 300;
/// The smallest that a topic may have.
const SEGMENT_BYTES: usize = 1 << 20;

fn seeded() -> fastrand::Rng {
    let seed = std::env::var("PERCOLOG_SEED").map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("a number"),
    );
    println!("PERCOLOG_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// A folder that is kept if somebody asked for it.
enum Folder {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn new(name: &str) -> Folder {
        match std::env::var_os("PERCOLOG_SEGMENTS_DIR") {
            Some(above) => {
                let path = Path::new(&above).join(name);
                std::fs::create_dir_all(&path).expect("a folder can be made there");
                Folder::Kept(path)
            }
            None => Folder::Temporary(tempfile::tempdir().expect("a temporary directory")),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Folder::Kept(path) => path,
            Folder::Temporary(folder) => folder.path(),
        }
    }
}

/// Idempotent producers with the sequence each comes to next.
#[derive(Default)]
struct Producers {
    next: [i32; 4],
}

fn bytes(random: &mut fastrand::Rng, most: usize) -> Vec<u8> {
    // Half of it compresses.
    let length = random.usize(..=most);
    (0..length)
        .map(|at| if at % 2 == 0 { random.u8(..) } else { 7 })
        .collect()
}

fn random_batch(
    random: &mut fastrand::Rng,
    producers: &mut Producers,
    options: BatchOptions,
) -> Vec<u8> {
    let mut options = BatchOptions {
        compression: Compression::of(*random.choice(&CODECS).expect("some")),
        ..options
    };
    let records = if options.is_control {
        1
    } else {
        random.usize(1..40)
    };
    if random.bool() || options.is_transactional {
        let producer = random.usize(..producers.next.len());
        options.producer_id = 1000 + producer as i64;
        options.producer_epoch = 3;
        if !options.is_control {
            options.base_sequence = producers.next[producer];
            producers.next[producer] += records as i32;
        }
    }
    let mut builder = BatchBuilder::new(options);
    let most = 1 << random.usize(0..12);
    for _ in 0..records {
        let timestamp_ms = TIMESTAMP_MS + random.i64(0..1_000_000);
        if options.is_control {
            // EndTxnMarker: version 0, commit or abort; version 0, coordinator epoch.
            let key = [0, 0, 0, u8::from(random.bool())];
            let value = [0, 0, 0, 0, 0, 9];
            builder.append(timestamp_ms, Some(&key), Some(&value), [].into_iter());
            continue;
        }
        let (key, value) = (bytes(random, 20), bytes(random, most));
        let name = bytes(random, 5)
            .iter()
            .map(|byte| b'a' + byte % 26)
            .collect::<Vec<u8>>();
        let headers = [Header {
            key: &name,
            value: Some(&key),
        }];
        builder.append(
            timestamp_ms,
            random.bool().then_some(key.as_slice()),
            (random.u8(..10) > 0).then_some(value.as_slice()),
            headers[..random.usize(..=1)].iter().copied(),
        );
    }
    builder.finish()
}

/// What `inspect segment` prints, an object a line.
fn inspected(file: &Path) -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_percolog"))
        .args(["inspect", "segment", "--output", "json"])
        .arg(file)
        .output()
        .expect("the binary was built for this test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", file.display());
    String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// A batch that was written, at offset and position.
struct Written {
    header: BatchHeader,
    base_offset: i64,
    position: u64,
}

fn assert_same(line: &serde_json::Value, written: &Written) {
    let header = &written.header;
    let last_offset = written.base_offset + i64::from(header.last_offset_delta);
    assert_eq!(line["position"], written.position, "{line}");
    assert_eq!(line["size_bytes"], header.size_bytes(), "{line}");
    assert_eq!(line["base_offset"], written.base_offset, "{line}");
    assert_eq!(line["last_offset"], last_offset, "{line}");
    assert_eq!(line["record_count"], header.record_count, "{line}");
    assert_eq!(line["crc"], format!("{:08x}", header.crc), "{line}");
    assert_eq!(line["crc_valid"], true, "{line}");
    assert_eq!(line["producer_id"], header.producer_id, "{line}");
    assert_eq!(line["producer_epoch"], header.producer_epoch, "{line}");
    assert_eq!(line["base_sequence"], header.base_sequence, "{line}");
    assert_eq!(line["max_timestamp_ms"], header.max_timestamp, "{line}");
    let codec = header.attributes.codec().expect("known").name();
    assert_eq!(line["codec"], codec, "{line}");
    let flagged = |flag: &str| {
        let flags = line["flags"].as_array().expect("a list");
        flags.iter().any(|found| found == flag)
    };
    let attributes = header.attributes;
    assert_eq!(flagged("transactional"), attributes.is_transactional());
    assert_eq!(flagged("control"), attributes.is_control());
}

#[test]
fn segments_of_a_broker() {
    let mut random = seeded();
    let folder = Folder::new("broker");
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.connect();
    let segment_bytes = SEGMENT_BYTES.to_string();
    client.create_topic("random", 1, &[("segment.bytes", &segment_bytes)]);
    let mut producers = Producers::default();
    let mut written = Vec::new();
    let mut sealed_bytes = 0;
    while sealed_bytes < 3 * SEGMENT_BYTES || written.len() < BATCHES {
        let batch = random_batch(&mut random, &mut producers, BatchOptions::default());
        let frame = client.ask(9, &produce_request("random", 0, -1, &batch));
        let (error, base_offset) = produced(&frame, 9);
        assert_eq!(error, 0);
        sealed_bytes += batch.len();
        written.push((base_offset, BatchHeader::parse(&batch).expect("just built")));
    }
    drop(client);
    assert_eq!(broker.stop(), Some(0));

    let mut files: Vec<PathBuf> = std::fs::read_dir(folder.path().join("random-0"))
        .expect("the log's folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    let mut lines = files.iter().flat_map(|file| {
        let mut position = 0;
        inspected(file).into_iter().map(move |line| {
            let here = position;
            position += line["size_bytes"].as_u64().expect("a number");
            (here, line)
        })
    });
    for (base_offset, header) in written {
        let (position, line) = lines.next().expect("as many batches as were written");
        let written = Written {
            header,
            base_offset,
            position,
        };
        assert_same(&line, &written);
        assert_eq!(line["partition_leader_epoch"], 0, "{line}");
    }
    assert!(lines.next().is_none());
}

#[test]
fn files_with_everything_a_batch_can_be() {
    let mut random = seeded();
    let folder = Folder::new("everything-0");
    let mut producers = Producers::default();
    let mut base_offset = 0;
    for _ in 0..3 {
        let name = format!("{base_offset:020}.log");
        let mut content = Vec::new();
        let mut written = Vec::new();
        for _ in 0..BATCHES {
            let is_transactional = random.u8(..4) == 0;
            let options = BatchOptions {
                base_offset,
                partition_leader_epoch: random.i32(0..9),
                log_append_time_ms: (random.u8(..4) == 0).then_some(TIMESTAMP_MS + 5),
                is_transactional,
                is_control: is_transactional && random.bool(),
                ..Default::default()
            };
            let batch = random_batch(&mut random, &mut producers, options);
            let header = BatchHeader::parse(&batch).expect("just built");
            let position = content.len() as u64;
            content.extend(batch);
            written.push(Written {
                base_offset,
                position,
                header,
            });
            // Compaction leaves gaps.
            base_offset = written.last().expect("pushed").header.last_offset() + 1;
            base_offset += if random.u8(..10) == 0 {
                random.i64(0..100)
            } else {
                0
            };
        }
        let file = folder.path().join(name);
        std::fs::write(&file, &content).expect("written");
        let lines = inspected(&file);
        assert_eq!(lines.len(), written.len());
        for (line, written) in lines.iter().zip(&written) {
            assert_same(line, written);
            assert_eq!(
                line["partition_leader_epoch"],
                written.header.partition_leader_epoch
            );
        }
    }
}
