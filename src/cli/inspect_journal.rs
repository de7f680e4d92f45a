//! `percolog inspect journal`: the groups of a journal file and what they carry.
//!
//! A file is written from its beginning and reused for ever, so behind the groups of its last use
//! lie those of earlier ones: *stale* is what does not follow the group at the file's beginning.
//! Whether a checkpoint covers a group is not in the file.

use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use crate::log::bytes::{Fields, Malformed};
use crate::log::entry::{Entry, named_batches};
use crate::log::group::{Epoch, GROUP_HEADER_BYTES, GroupHeader};
use crate::log::position::{LogId, SegmentId};
use crate::log::swap::Swap;
use crate::runtime::buffer::BLOCK_BYTES;
use crate::wire::codec::Uuid;

use super::failure::Failure;
use super::inspect::{self, FileArguments, Source, Stop, WINDOW_BYTES, Window, row};
use super::output::OutputFormat;

/// The largest body that is read; brokers write far smaller ones.
const MOST_BODY_BYTES: usize = 64 << 20;

const COLUMNS: [&str; 9] = [
    "POSITION",
    "SEQUENCE",
    "EPOCH",
    "COMPLETED",
    "BYTES",
    "ENTRIES",
    "PREDECESSOR",
    "BODY",
    "STATE",
];
const WIDTHS: [usize; 9] = [12, 10, 8, 10, 9, 7, 11, 4, 5];

/// Lists the groups of a journal file and their entries
///
/// The column EPOCH is a digest: the epoch itself is a secret of the running broker, since whoever
/// knows it can make bytes that recovery takes for a group. The exit code is 1 when a group that
/// was durable, as a later one says, is missing or does not verify.
pub(crate) fn run(arguments: &FileArguments) -> Result<(), Failure> {
    let file = inspect::open(arguments)?;
    let mut out = BufWriter::with_capacity(WINDOW_BYTES, io::stdout().lock());
    let walked = Walk::new(&file, arguments.output, &mut out).and_then(|walk| walk.all());
    out.flush().map_err(|error| Failure::output(&error))?;
    inspect::verdict(arguments, walked)
}

/// The group before, if it follows the one at the beginning of the file.
#[derive(Clone, Copy)]
struct Live {
    epoch: Epoch,
    sequence: u64,
    checksum: u32,
}

struct Walk<'a, S, W> {
    window: Window<'a, S>,
    source: &'a S,
    size_bytes: u64,
    output: OutputFormat,
    out: &'a mut W,
    last: Option<Live>,
    /// Something that is no group and not zero.
    foreign_at: Option<u64>,
    groups: u64,
    stale: u64,
    /// The lowest sequence that is missing or does not verify, and where it should be.
    broken: Option<(u64, u64)>,
    /// Every group up to this one was durable once.
    completed: u64,
    damage: Option<(u64, String)>,
}

impl<'a, S: Source, W: Write> Walk<'a, S, W> {
    fn new(source: &'a S, output: OutputFormat, out: &'a mut W) -> Result<Self, Stop> {
        let size_bytes = source
            .size_bytes()
            .map_err(|error| Failure::Local(error.to_string()))?;
        Ok(Walk {
            window: Window::new(source, size_bytes),
            source,
            size_bytes,
            output,
            out,
            last: None,
            foreign_at: None,
            groups: 0,
            stale: 0,
            broken: None,
            completed: 0,
            damage: None,
        })
    }

    fn all(mut self) -> Result<(), Stop> {
        if self.output == OutputFormat::Table {
            let head = row(&COLUMNS.map(str::to_owned), &WIDTHS);
            self.print(&head)?;
        }
        let mut position = 0;
        while position < self.size_bytes {
            let block = self.window.at(position, BLOCK_BYTES)?;
            position += match GroupHeader::decode(block) {
                Some((header, checksum)) => self.group(position, &header, checksum)?,
                None => {
                    if self.foreign_at.is_none() && block.iter().any(|byte| *byte != 0) {
                        self.foreign_at = Some(position);
                    }
                    BLOCK_BYTES as u64
                }
            };
        }
        self.end()
    }

    fn print(&mut self, line: &str) -> Result<(), Stop> {
        writeln!(self.out, "{line}").map_err(|error| Stop::Failure(Failure::output(&error)))
    }

    /// Shows a group; how many bytes it settles.
    fn group(&mut self, position: u64, header: &GroupHeader, checksum: u32) -> Result<u64, Stop> {
        let stale = self
            .last
            .is_some_and(|last| last.epoch != header.epoch || header.sequence <= last.sequence);
        let predecessor = match self.last {
            _ if header.sequence == 1 => Some(header.predecessor == 0),
            Some(last) if !stale && last.sequence.checked_add(1) == Some(header.sequence) => {
                Some(header.predecessor == last.checksum)
            }
            _ => None,
        };
        let body = self.body(position, header)?;
        self.groups += 1;
        self.stale += u64::from(stale);
        if !stale {
            self.follow(position, header, checksum, predecessor, body.is_some());
        }
        let shown = Shown {
            position,
            header,
            predecessor,
            verifies: body.is_some(),
            stale,
        };
        self.print(&shown.text(self.output))?;
        match body {
            Some(body) => {
                self.entries(position, header, &body)?;
                Ok(header.size_bytes() as u64)
            }
            // Other groups may lie in what was overwritten.
            None => Ok(BLOCK_BYTES as u64),
        }
    }

    /// The body, if it is the one the header was written for.
    fn body(&self, position: u64, header: &GroupHeader) -> Result<Option<Vec<u8>>, Stop> {
        let begin = position + GROUP_HEADER_BYTES as u64;
        let length = header.body_length as usize;
        if u64::from(header.body_length) > self.size_bytes.saturating_sub(begin)
            || length > MOST_BODY_BYTES
        {
            return Ok(None);
        }
        let mut body = vec![0; length];
        let read = self
            .source
            .read_at(begin, &mut body)
            .map_err(|error| Failure::Local(error.to_string()))?;
        Ok(Some(body).filter(|body| read == length && header.matches(body)))
    }

    /// Keeps account of what was durable and what is missing of it.
    fn follow(
        &mut self,
        position: u64,
        header: &GroupHeader,
        checksum: u32,
        predecessor: Option<bool>,
        verifies: bool,
    ) {
        self.completed = self.completed.max(header.completed);
        let next = self.last.and_then(|last| last.sequence.checked_add(1));
        if let Some(next) = next
            && next < header.sequence
        {
            self.broken.get_or_insert((next, position));
        }
        if !verifies {
            self.broken.get_or_insert((header.sequence, position));
        }
        if predecessor == Some(false) && self.damage.is_none() {
            let what = format!(
                "group {} does not follow the one before it",
                header.sequence
            );
            self.damage = Some((position, what));
        }
        self.last = Some(Live {
            epoch: header.epoch,
            sequence: header.sequence,
            checksum,
        });
    }

    fn entries(&mut self, position: u64, header: &GroupHeader, body: &[u8]) -> Result<(), Stop> {
        let begin = position + GROUP_HEADER_BYTES as u64;
        let mut fields = Fields::new(body);
        for _ in 0..header.entry_count {
            let at = begin + fields.position() as u64;
            match Entry::decode(&mut fields) {
                Ok(entry) => {
                    let line = entry_text(&entry, header.sequence, at, self.output);
                    self.print(&line)?;
                }
                Err(Malformed(malformed)) => {
                    let what = format!("group {} holds what is no entry", header.sequence);
                    self.damage.get_or_insert((begin + malformed as u64, what));
                    return Ok(());
                }
            }
        }
        if fields.remaining() > 0 {
            let what = format!(
                "group {} has {} bytes behind its last entry",
                header.sequence,
                fields.remaining()
            );
            self.damage
                .get_or_insert((begin + fields.position() as u64, what));
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), Stop> {
        if self.output == OutputFormat::Table {
            let (groups, stale) = (self.groups, self.stale);
            let line = format!(
                "{groups} groups in {} bytes, {stale} of them stale",
                self.size_bytes
            );
            self.print(&line)?;
        }
        if let Some((sequence, position)) = self.broken
            && sequence <= self.completed
            && self.damage.is_none()
        {
            let what = format!(
                "group {sequence} is missing or does not verify, but was durable: a later group \
                 says that all up to {} were",
                self.completed
            );
            self.damage = Some((position, what));
        }
        if let (0, Some(position)) = (self.groups, self.foreign_at) {
            let what = "not a journal file: no group anywhere, and bytes that are not zero";
            self.damage.get_or_insert((position, what.to_owned()));
        }
        match self.damage {
            Some((position, what)) => Err(Stop::Damage { position, what }),
            None => Ok(()),
        }
    }
}

struct Shown<'a> {
    position: u64,
    header: &'a GroupHeader,
    predecessor: Option<bool>,
    verifies: bool,
    stale: bool,
}

impl Shown<'_> {
    fn text(&self, output: OutputFormat) -> String {
        let header = self.header;
        let digest = format!("{:08x}", header.epoch.digest());
        let judged = |is_good| if is_good { "ok" } else { "BAD" };
        match output {
            OutputFormat::Json => json!({
                "type": "group",
                "position": self.position,
                "size_bytes": header.size_bytes(),
                "sequence": header.sequence,
                "epoch_digest": digest,
                "completed": header.completed,
                "predecessor_ok": self.predecessor,
                "body_bytes": header.body_length,
                "entries": header.entry_count,
                "body_verifies": self.verifies,
                "stale": self.stale,
            })
            .to_string(),
            OutputFormat::Table => row(
                &[
                    self.position.to_string(),
                    header.sequence.to_string(),
                    digest,
                    header.completed.to_string(),
                    header.body_length.to_string(),
                    header.entry_count.to_string(),
                    self.predecessor.map_or("-", judged).to_owned(),
                    judged(self.verifies).to_owned(),
                    if self.stale { "stale" } else { "live" }.to_owned(),
                ],
                &WIDTHS,
            ),
        }
    }
}

/// The fields of an entry beyond its log, in the order of the format.
fn entry_fields(entry: &Entry<'_>) -> (&'static str, Vec<(&'static str, Value)>) {
    let segment_id = |segment: &SegmentId| ("segment", json!(format!("{:016x}", segment.0)));
    match entry {
        Entry::Create { directory, .. } => ("create", vec![("directory", json!(directory))]),
        Entry::Roll {
            segment,
            base_offset,
            ..
        } => (
            "roll",
            vec![segment_id(segment), ("base_offset", json!(base_offset.0))],
        ),
        Entry::Append {
            segment,
            position,
            bytes,
            ..
        } => (
            "append",
            vec![
                segment_id(segment),
                ("segment_position", json!(position)),
                ("length", json!(bytes.len())),
            ],
        ),
        Entry::Start { offset, .. } => ("start", vec![("offset", json!(offset.0))]),
        Entry::Drop { segment, .. } => ("drop", vec![segment_id(segment)]),
        Entry::Epoch { epoch, start, .. } => (
            "epoch",
            vec![
                ("leader_epoch", json!(epoch.0)),
                ("start_offset", json!(start.0)),
            ],
        ),
        Entry::Delete { .. } => ("delete", vec![]),
        Entry::Skip { to, .. } => ("skip", vec![("offset", json!(to.0))]),
        Entry::Swap { swap, .. } => ("swap", swap_fields(swap)),
        Entry::Truncate {
            segment,
            position,
            offset,
            ..
        } => (
            "truncate",
            vec![
                segment_id(segment),
                ("segment_position", json!(position)),
                ("offset", json!(offset.0)),
            ],
        ),
        Entry::Producers { producers, .. } => {
            ("producers", vec![("producers", json!(producers.len()))])
        }
        Entry::Extent {
            segment,
            position,
            length,
            batches,
            ..
        } => (
            "extent",
            vec![
                segment_id(segment),
                ("segment_position", json!(position)),
                ("length", json!(length)),
                ("batches", json!(named_batches(batches).count())),
            ],
        ),
    }
}

fn swap_fields(swap: &Swap) -> Vec<(&'static str, Value)> {
    let id = |segment: &SegmentId| format!("{:016x}", segment.0);
    vec![
        ("segment", json!(id(&swap.segment))),
        ("base_offset", json!(swap.base_offset.0)),
        ("size_bytes", json!(swap.size_bytes)),
        ("first_dirty_offset", json!(swap.progress.first_dirty.0)),
        (
            "replaced",
            json!(swap.old.iter().map(id).collect::<Vec<_>>()),
        ),
    ]
}

fn entry_text(entry: &Entry<'_>, group: u64, at: u64, output: OutputFormat) -> String {
    let (kind, fields) = entry_fields(entry);
    let LogId { topic, partition } = entry.log();
    let topic = Uuid(topic).to_string();
    match output {
        OutputFormat::Json => {
            let mut value = json!({
                "type": "entry",
                "group": group,
                "position": at,
                "kind": kind,
                "topic_id": topic,
                "partition": partition,
            });
            for (name, field) in fields {
                value[name] = field;
            }
            value.to_string()
        }
        OutputFormat::Table => {
            let mut line = format!("  {at:<12} {kind:<8} {topic}-{partition}");
            for (name, field) in fields {
                let field = match field {
                    Value::String(text) => text.escape_debug().to_string(),
                    other => other.to_string(),
                };
                line.push_str(&format!(" {} {field}", name.replace('_', " ")));
            }
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::position::{LeaderEpoch, Offset};

    const LOG: LogId = LogId {
        topic: [3; 16],
        partition: 4,
    };

    /// A journal file as the broker writes it.
    #[derive(Default)]
    struct File {
        bytes: Vec<u8>,
        predecessor: u32,
    }

    impl File {
        fn group(&mut self, epoch: u8, sequence: u64, completed: u64, body_bytes: usize) {
            let payload = vec![0xab; body_bytes];
            let entries = [
                Entry::Append {
                    log: LOG,
                    segment: SegmentId(9),
                    position: 4096,
                    bytes: &payload,
                },
                Entry::Epoch {
                    log: LOG,
                    epoch: LeaderEpoch(1),
                    start: Offset(3),
                },
            ];
            let mut body = Vec::new();
            entries.iter().for_each(|entry| entry.encode(&mut body));
            let epoch = Epoch([epoch; 16]);
            let header = GroupHeader {
                epoch,
                sequence,
                completed,
                predecessor: if sequence == 1 { 0 } else { self.predecessor },
                body_length: body.len() as u32,
                entry_count: 2,
                body_checksum: GroupHeader::body_checksum(epoch, &body),
            };
            let (head, checksum) = header.encode();
            self.predecessor = checksum;
            self.bytes.extend(head);
            self.bytes.extend(body);
            self.bytes
                .resize(self.bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        }
    }

    fn walked(bytes: &[u8], output: OutputFormat) -> (String, Result<(), Stop>) {
        let mut out = Vec::new();
        let result = Walk::new(&bytes, output, &mut out).and_then(|walk| walk.all());
        (String::from_utf8(out).expect("text"), result)
    }

    fn lines(bytes: &[u8]) -> Vec<Value> {
        let (text, _) = walked(bytes, OutputFormat::Json);
        let parse = |line| serde_json::from_str(line).expect("JSON");
        text.lines().map(parse).collect()
    }

    /// Three groups of the last use over what is left of an earlier one.
    fn file() -> Vec<u8> {
        let mut old = File::default();
        for sequence in 1..=4 {
            old.group(1, sequence, sequence - 1, 9000);
        }
        let mut new = File::default();
        new.group(2, 1, 0, 100);
        new.group(2, 2, 0, 5000);
        new.group(2, 3, 2, 10);
        let kept = old.bytes.split_off(new.bytes.len());
        new.bytes.extend(kept);
        new.bytes
    }

    #[test]
    fn groups_and_entries_are_listed_and_stale_ones_marked() {
        let (text, result) = walked(&file(), OutputFormat::Table);
        assert!(result.is_ok(), "{text}");
        assert!(
            text.ends_with("groups in 49152 bytes, 2 of them stale\n"),
            "{text}"
        );
        let lines = lines(&file());
        let groups: Vec<_> = lines
            .iter()
            .filter(|line| line["type"] == "group")
            .collect();
        let sequences: Vec<_> = groups
            .iter()
            .map(|group| group["sequence"].as_u64())
            .collect();
        assert_eq!(sequences, [1, 2, 3, 3, 4].map(Some));
        let stale: Vec<_> = groups.iter().map(|group| group["stale"] == true).collect();
        assert_eq!(stale, [false, false, false, true, true]);
        assert!(
            groups[..3]
                .iter()
                .all(|group| group["predecessor_ok"] == true)
        );
        assert_eq!(groups[3]["predecessor_ok"], Value::Null);
        assert_eq!(lines[1]["kind"], "append");
        assert_eq!(lines[1]["position"], 64);
        assert_eq!(lines[1]["length"], 100);
        assert_eq!(lines[2]["position"], 64 + 41 + 100);
        assert!(!text.contains(&"02".repeat(16)), "the epoch is a secret");
    }

    #[test]
    fn a_torn_end_is_none_of_our_business_and_a_lost_middle_is() {
        let mut torn = file();
        torn[4096 * 3 + 80] ^= 1;
        assert!(walked(&torn, OutputFormat::Table).1.is_ok());
        let mut lost = file();
        lost[4096 + 80] ^= 1;
        let (text, result) = walked(&lost, OutputFormat::Table);
        let Err(Stop::Damage { position, what }) = result else {
            panic!("{text}");
        };
        assert_eq!(position, 4096);
        assert!(
            what.contains("group 2") && what.contains("all up to 2"),
            "{what}"
        );
        lost[4096 + 30] ^= 1;
        let Err(Stop::Damage { position, .. }) = walked(&lost, OutputFormat::Table).1 else {
            panic!("a group without a header");
        };
        assert_eq!(position, 4096 * 3, "where its successor is");
    }

    #[test]
    fn zeroes_are_a_journal_and_other_bytes_are_not() {
        assert!(walked(&[0; 3 * BLOCK_BYTES], OutputFormat::Table).1.is_ok());
        let mut foreign = vec![0; 3 * BLOCK_BYTES];
        foreign[BLOCK_BYTES + 9] = 1;
        let Err(Stop::Damage { position, what }) = walked(&foreign, OutputFormat::Json).1 else {
            panic!("not a journal");
        };
        assert_eq!(position, BLOCK_BYTES as u64);
        assert!(what.contains("not a journal file"), "{what}");
    }

    #[test]
    fn a_body_that_claims_more_than_there_is_allocates_nothing() {
        let epoch = Epoch([5; 16]);
        for body_length in [u32::MAX, 70 << 20] {
            let header = GroupHeader {
                epoch,
                sequence: 1,
                completed: 0,
                predecessor: 0,
                body_length,
                entry_count: u32::MAX,
                body_checksum: 0,
            };
            let mut bytes = header.encode().0.to_vec();
            bytes.resize(2 * BLOCK_BYTES, 0);
            let lines = lines(&bytes);
            assert_eq!(lines.len(), 1);
            assert_eq!(lines[0]["body_verifies"], false);
        }
    }

    proptest! {
        #[test]
        fn mutated_files_never_panic(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = file();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            let (_, table) = walked(&bytes, OutputFormat::Table);
            let (_, json) = walked(&bytes, OutputFormat::Json);
            prop_assert_eq!(table.is_ok(), json.is_ok());
        }

        /// Bodies whose checksums fit, with anything in them.
        #[test]
        fn forged_bodies_never_panic(
            body in prop::collection::vec(prop_oneof![0..12_u8, any::<u8>()], 0..300),
            entry_count in prop_oneof![0..20_u32, any::<u32>()],
            sequence in any::<u64>(),
            completed in any::<u64>(),
        ) {
            let epoch = Epoch([5; 16]);
            let header = GroupHeader {
                epoch,
                sequence,
                completed,
                predecessor: 0,
                body_length: body.len() as u32,
                entry_count,
                body_checksum: GroupHeader::body_checksum(epoch, &body),
            };
            let mut bytes = header.encode().0.to_vec();
            bytes.extend(body);
            bytes.resize(BLOCK_BYTES, 0);
            bytes.extend_from_within(..);
            let (_, _) = walked(&bytes, OutputFormat::Table);
        }
    }
}
