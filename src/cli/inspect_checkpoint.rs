//! `percolog inspect checkpoint`: what a start of the broker finds beside the journal.

use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use crate::log::bytes::Malformed;
use crate::log::checkpoint::{CheckpointHead, Current, decode_log};
use crate::log::partition_log::LogImage;
use crate::log::segment::SegmentImage;
use crate::wire::codec::Uuid;

use super::failure::Failure;
use super::inspect::{self, FileArguments, Source, Stop, WINDOW_BYTES, Window, row};
use super::output::OutputFormat;
use super::timestamp;

/// The largest log that is decoded, with its segments, indexes and producers.
const MOST_LOG_BYTES: usize = 256 << 20;
/// `checkpoint/current` is far shorter.
const MOST_CURRENT_BYTES: usize = 4096;
const CHECKSUM_BYTES: u64 = 4;

const COLUMNS: [&str; 8] = [
    "DIRECTORY",
    "TOPIC ID",
    "PARTITION",
    "START",
    "END",
    "SEGMENTS",
    "BYTES",
    "PRODUCERS",
];
const WIDTHS: [usize; 8] = [30, 22, 9, 12, 12, 8, 14, 9];

/// Lists the logs of a checkpoint file, or what `checkpoint/current` names
///
/// A file that does not verify is listed as far as it makes sense, and the exit code is 1.
pub(crate) fn run(arguments: &FileArguments) -> Result<(), Failure> {
    let file = inspect::open(arguments)?;
    let mut out = BufWriter::with_capacity(WINDOW_BYTES, io::stdout().lock());
    let walked = list(arguments.output, &file, &mut out);
    out.flush().map_err(|error| Failure::output(&error))?;
    inspect::verdict(arguments, walked)
}

fn print(out: &mut impl Write, line: &str) -> Result<(), Stop> {
    writeln!(out, "{line}").map_err(|error| Stop::Failure(Failure::output(&error)))
}

fn list(output: OutputFormat, source: &impl Source, out: &mut impl Write) -> Result<(), Stop> {
    let size_bytes = source
        .size_bytes()
        .map_err(|error| Failure::Local(error.to_string()))?;
    let mut window = Window::new(source, size_bytes);
    let beginning = window.at(0, MOST_CURRENT_BYTES)?;
    if Current::is_announced_by(beginning) {
        let current = Current::decode(beginning).map_err(|Malformed(at)| Stop::Damage {
            position: at as u64,
            what: "does not verify".to_owned(),
        })?;
        return print(out, &current_text(&current, output));
    }
    let end = size_bytes.saturating_sub(CHECKSUM_BYTES);
    let mut position = 0;
    let head = Window::new(source, end)
        .decode(&mut position, MOST_CURRENT_BYTES, CheckpointHead::decode)
        .map_err(|stop| match stop {
            Stop::Damage { position: 0, .. } => Stop::Damage {
                position: 0,
                what: "neither a checkpoint nor checkpoint/current".to_owned(),
            },
            stop => stop,
        })?;
    let verifies = verify(source, end)?;
    print(out, &head_text(&head, verifies, output))?;
    let listed = list_logs(source, position, end, &head, output, out);
    if verifies {
        return listed;
    }
    // What the checksum says is the more telling; the list ends where the bytes make no sense.
    if let Err(Stop::Failure(failure)) = listed {
        return Err(Stop::Failure(failure));
    }
    let extent = match listed {
        Err(Stop::Damage { position, .. }) => {
            format!("; nothing makes sense from byte {position} on")
        }
        _ => String::new(),
    };
    Err(Stop::Damage {
        position: end,
        what: format!("the checksum does not fit{extent}"),
    })
}

/// Whether the checksum at `end` is that of everything before.
fn verify(source: &impl Source, end: u64) -> Result<bool, Stop> {
    let mut window = Window::new(source, end + CHECKSUM_BYTES);
    let (mut checksum, mut position) = (0, 0);
    while position < end {
        let left = usize::try_from(end - position).unwrap_or(usize::MAX);
        let bytes = window.at(position, WINDOW_BYTES.min(left))?;
        checksum = crc32c::crc32c_append(checksum, bytes);
        position += bytes.len() as u64;
    }
    Ok(window.at(end, CHECKSUM_BYTES as usize)? == checksum.to_le_bytes())
}

fn list_logs(
    source: &impl Source,
    mut position: u64,
    end: u64,
    head: &CheckpointHead,
    output: OutputFormat,
    out: &mut impl Write,
) -> Result<(), Stop> {
    let mut window = Window::new(source, end);
    if output == OutputFormat::Table {
        print(out, &row(&COLUMNS.map(str::to_owned), &WIDTHS))?;
    }
    for _ in 0..head.logs {
        let log = window.decode(&mut position, MOST_LOG_BYTES, |fields| {
            decode_log(fields, head.has_transactions)
        })?;
        match output {
            OutputFormat::Json => print(out, &log_json(&log).to_string())?,
            OutputFormat::Table => print(out, &log_text(&log))?,
        }
    }
    if position < end {
        return Err(Stop::Damage {
            position,
            what: format!("{} bytes behind the last log", end - position),
        });
    }
    Ok(())
}

fn current_text(current: &Current, output: OutputFormat) -> String {
    let Current { generation, cores } = current;
    match output {
        OutputFormat::Json => json!({
            "type": "current",
            "generation": generation,
            "cores": cores,
        })
        .to_string(),
        OutputFormat::Table => {
            format!("current: generation {generation} of {cores} cores; verifies")
        }
    }
}

fn head_text(head: &CheckpointHead, verifies: bool, output: OutputFormat) -> String {
    // The epoch itself is a secret: with it a client could make bytes that pass for a group.
    let digest = format!("{:08x}", head.epoch.digest());
    match output {
        OutputFormat::Json => json!({
            "type": "checkpoint",
            "generation": head.generation,
            "core": head.core,
            "epoch_digest": digest,
            "covered": head.covered,
            "cut": { "journal_file": head.cut.file, "position": head.cut.position },
            "closed": head.closed,
            "logs": head.logs,
            "verifies": verifies,
        })
        .to_string(),
        OutputFormat::Table => format!(
            "checkpoint: generation {}, core {}, epoch {digest} (a digest; the epoch is a secret), \
             covers groups up to {} (journal file {} byte {}), {}, {} logs; {}",
            head.generation,
            head.core,
            head.covered,
            head.cut.file,
            head.cut.position,
            if head.closed {
                "closed: the broker stopped after it"
            } else {
                "open: the journal may go on"
            },
            head.logs,
            if verifies {
                "verifies"
            } else {
                "DOES NOT VERIFY"
            },
        ),
    }
}

fn size_bytes(log: &LogImage) -> u64 {
    let sizes = log.segments.iter().map(|segment| segment.size_bytes);
    sizes.fold(0, u64::saturating_add)
}

fn log_json(log: &LogImage) -> Value {
    let segment = |segment: &SegmentImage| {
        json!({
            "id": format!("{:016x}", segment.id.0),
            "base_offset": segment.base_offset.0,
            "size_bytes": segment.size_bytes,
            "sealed": segment.sealed,
            "first_timestamp_ms": segment.first_timestamp_ms,
            "largest_timestamp_ms": segment.largest_timestamp_ms,
            "index_entries": segment.index.as_ref().map(|index| index.entries().len()),
        })
    };
    let epochs = log
        .epochs
        .starts()
        .iter()
        .map(|(epoch, start)| json!({ "epoch": epoch.0, "start_offset": start.0 }));
    json!({
        "type": "log",
        "directory": log.directory,
        "topic_id": Uuid(log.id.topic).to_string(),
        "partition": log.id.partition,
        "start_offset": log.start.0,
        "end_offset": log.end.0,
        "first_dirty_offset": log.compaction.first_dirty.0,
        "size_bytes": size_bytes(log),
        "segments": log.segments.iter().map(segment).collect::<Vec<_>>(),
        "leader_epochs": epochs.collect::<Vec<_>>(),
        "producers": log.producers.len(),
        "open_transactions": log.transactions.open_count(),
        "aborted_transactions": log.transactions.aborted().len(),
        "damage": log.damage,
    })
}

fn log_text(log: &LogImage) -> String {
    let cells = [
        log.directory.escape_debug().to_string(),
        Uuid(log.id.topic).to_string(),
        log.id.partition.to_string(),
        log.start.to_string(),
        log.end.to_string(),
        log.segments.len().to_string(),
        size_bytes(log).to_string(),
        log.producers.len().to_string(),
    ];
    let mut text = row(&cells, &WIDTHS);
    for segment in &log.segments {
        let state = if segment.sealed { "sealed" } else { "active" };
        text.push_str(&format!(
            "\n  segment {:016x} from offset {}: {} bytes, {state}, up to {}",
            segment.id.0,
            segment.base_offset,
            segment.size_bytes,
            timestamp::format(segment.largest_timestamp_ms),
        ));
        if let Some(index) = &segment.index {
            text.push_str(&format!(", {} index entries here", index.entries().len()));
        }
    }
    for (epoch, start) in log.epochs.starts() {
        text.push_str(&format!("\n  leader epoch {} from offset {start}", epoch.0));
    }
    if let Some(damage) = &log.damage {
        text.push_str(&format!(
            "\n  DAMAGED, not served: {}",
            damage.escape_debug()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::checkpoint::{Checkpoint, JournalPlace};
    use crate::log::group::Epoch;
    use crate::log::index::{MOST_ENTRIES, SparseIndex};
    use crate::log::position::{LeaderEpoch, LogId, Offset, SegmentId};

    fn log(partition: u32) -> LogImage {
        let topic = [9; 16];
        let mut log = LogImage::empty(LogId { topic, partition }, &format!("orders-{partition}"));
        log.end = Offset(30);
        log.start = Offset(4);
        log.epochs.begin(LeaderEpoch(3), Offset(0));
        let mut index = SparseIndex::new(Offset(20), 16, MOST_ENTRIES);
        for batch in 1..=partition {
            index.note(Offset(20 + i64::from(batch)), u64::from(batch) * 100, 5);
        }
        log.damage = (partition == 1).then(|| "a gap".to_owned());
        log.segments = vec![SegmentImage {
            id: SegmentId(2),
            base_offset: Offset(20),
            size_bytes: 300,
            sealed: false,
            largest_timestamp_ms: 8,
            first_timestamp_ms: 7,
            index: Some(index),
        }];
        log
    }

    fn file(logs: u32) -> Vec<u8> {
        let checkpoint = Checkpoint {
            generation: 5,
            core: 1,
            epoch: Epoch([1; 16]),
            covered: 77,
            cut: JournalPlace {
                file: 3,
                position: 8192,
            },
            closed: true,
            logs: (0..logs).map(log).collect(),
        };
        checkpoint.encode()
    }

    fn listed(bytes: &[u8], output: OutputFormat) -> (String, Result<(), Failure>) {
        let arguments = FileArguments {
            file: "f".into(),
            output,
        };
        let mut out = Vec::new();
        let walked = list(output, &bytes, &mut out);
        let verdict = inspect::verdict(&arguments, walked);
        (String::from_utf8(out).expect("text"), verdict)
    }

    #[test]
    fn logs_are_listed_and_the_epoch_is_not() {
        let (text, verdict) = listed(&file(2), OutputFormat::Table);
        verdict.expect("whole");
        assert!(
            text.contains("generation 5, core 1") && text.contains("up to 77 (journal file 3"),
            "{text}"
        );
        assert!(
            text.contains("orders-1") && text.contains("DAMAGED, not served: a gap"),
            "{text}"
        );
        let (text, _) = listed(&file(2), OutputFormat::Json);
        assert!(!text.contains("01010101"), "{text}");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines[0]["covered"], 77);
        assert_eq!(lines[2]["directory"], "orders-1");
        assert_eq!(lines[2]["leader_epochs"][0]["epoch"], 3);
        let current = Current {
            generation: 5,
            cores: 2,
        };
        let (text, verdict) = listed(&current.encode(), OutputFormat::Table);
        verdict.expect("whole");
        assert_eq!(text, "current: generation 5 of 2 cores; verifies\n");
    }

    #[test]
    fn a_file_larger_than_a_window_is_listed_whole() {
        let (text, verdict) = listed(&file(2000), OutputFormat::Json);
        verdict.expect("whole");
        assert_eq!(text.lines().count(), 2001);
    }

    #[test]
    fn damage_is_reported_with_its_position() {
        let mut bytes = file(3);
        let end = bytes.len() - 4;
        bytes[200] ^= 1;
        let (text, verdict) = listed(&bytes, OutputFormat::Table);
        let message = verdict.expect_err("damaged").to_string();
        assert!(
            message.contains(&format!("byte {end}: the checksum does not fit")),
            "{message}"
        );
        assert!(
            text.contains("DOES NOT VERIFY") && text.contains("orders-0"),
            "{text}"
        );
        let (_, verdict) = listed(&[7; 5000], OutputFormat::Table);
        assert!(
            verdict
                .expect_err("foreign")
                .to_string()
                .contains("byte 0: neither")
        );
    }

    proptest! {
        #[test]
        fn mutated_files_never_panic_and_never_pass(
            flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..6),
            cut in any::<prop::sample::Index>(),
            sealed in any::<bool>(),
        ) {
            let whole = file(4);
            let mut bytes = whole.clone();
            for (at, change) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= change;
            }
            if sealed {
                let (content, checksum) = bytes.split_last_chunk_mut::<4>().expect("long enough");
                *checksum = crc32c::crc32c(content).to_le_bytes();
            } else {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            let (_, verdict) = listed(&bytes, OutputFormat::Table);
            prop_assert!(sealed || bytes == whole || verdict.is_err());
        }
    }
}
