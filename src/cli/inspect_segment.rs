//! `percolog inspect segment`: walks the batches of a segment file, without a broker.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::wire::record::Records;
use crate::wire::record_batch::{
    BatchHeader, BatchView, HEADER_BYTES, NO_PRODUCER_ID, TimestampType,
};

use super::failure::Failure;
use super::format::{self, Printed};
use super::output::OutputFormat;
use super::timestamp;

/// What may come out of one compressed batch.
const PLAIN_BYTES_MAX: usize = 1 << 30;
const BUFFER_BYTES: usize = 1 << 20;

/// Lists the batches of a segment (.log) file of a broker that does not write to it
///
/// A file that is damaged or cut is listed up to there; the position is reported and the exit code
/// is 1. Zeroes at the end are space that was prepared and not written.
#[derive(Debug, clap::Args)]
pub(crate) struct SegmentArguments {
    /// The .log file
    file: PathBuf,
    /// Print the records as well
    #[arg(long)]
    records: bool,
    /// How results are printed; json is one object a line
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
}

/// Runs the command.
pub(crate) fn run(arguments: &SegmentArguments) -> Result<(), Failure> {
    let name = arguments.file.display().to_string();
    let failed = |error: io::Error| Failure::Local(format!("{name}: {error}"));
    let file = File::open(&arguments.file).map_err(failed)?;
    let size_bytes = file.metadata().map_err(failed)?.len();
    let input = BufReader::with_capacity(BUFFER_BYTES, file);
    let out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
    let mut walk = Walk {
        arguments,
        topic: topic_of(&arguments.file),
        input,
        position: 0,
        size_bytes,
        out,
        batches: 0,
        records: 0,
        next_offset: None,
        damage: Vec::new(),
    };
    let walked = walk.all();
    walk.out.flush().map_err(|error| Failure::output(&error))?;
    walked?;
    walk.verdict(&name)
}

/// Topic and partition as the folder says, for the records.
fn topic_of(path: &std::path::Path) -> (String, i32) {
    let folder = std::path::absolute(path)
        .ok()
        .and_then(|path| Some(path.parent()?.file_name()?.to_str()?.to_owned()))
        .unwrap_or_default();
    match folder.rsplit_once('-') {
        Some((topic, partition)) => match partition.parse() {
            Ok(partition) => (topic.to_owned(), partition),
            Err(_) => (folder, -1),
        },
        None => (folder, -1),
    }
}

/// What ends a walk before the end of the file.
enum Stop {
    /// The bytes are not a log any more.
    Damage(String),
    /// The command cannot go on.
    Failure(Failure),
}

struct Walk<'a, R, W> {
    arguments: &'a SegmentArguments,
    topic: (String, i32),
    input: R,
    position: u64,
    size_bytes: u64,
    out: W,
    batches: u64,
    records: u64,
    next_offset: Option<i64>,
    damage: Vec<String>,
}

impl<R: Read, W: Write> Walk<'_, R, W> {
    fn all(&mut self) -> Result<(), Failure> {
        if self.arguments.output == OutputFormat::Table {
            let line = row(&COLUMNS.map(|(name, _)| name.to_owned()));
            self.print(&line)?;
        }
        while self.position < self.size_bytes {
            match self.batch() {
                Ok(size_bytes) => self.position += size_bytes,
                Err(Stop::Failure(failure)) => return Err(failure),
                Err(Stop::Damage(reason)) => {
                    self.damage(&reason);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn damage(&mut self, reason: &str) {
        self.damage
            .push(format!("position {}: {reason}", self.position));
    }

    fn verdict(&self, name: &str) -> Result<(), Failure> {
        if self.damage.is_empty() {
            return Ok(());
        }
        let (batches, records) = (self.batches, self.records);
        Err(Failure::Local(format!(
            "{name}: damaged, {batches} batches with {records} records before or around it\n  {}",
            self.damage.join("\n  ")
        )))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Stop> {
        self.input.read_exact(bytes).map_err(|error| {
            let text = format!("{}: {error}", self.arguments.file.display());
            Stop::Failure(Failure::Local(text))
        })
    }

    fn print(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.out, "{line}").map_err(|error| Failure::output(&error))
    }

    /// Reads and prints one batch; gives its size, or that of the zeroes that end the file.
    fn batch(&mut self) -> Result<u64, Stop> {
        let left = self.size_bytes - self.position;
        let mut bytes = vec![0; left.min(HEADER_BYTES as u64) as usize];
        self.fill(&mut bytes)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return self.zeroes(left, bytes.len() as u64);
        }
        let header = BatchHeader::parse(&bytes).map_err(|error| Stop::Damage(error.to_string()))?;
        let size_bytes = header.size_bytes() as u64;
        if size_bytes > left {
            return Err(Stop::Damage(format!(
                "a batch of {size_bytes} bytes, of which {left} are there"
            )));
        }
        bytes.resize(size_bytes as usize, 0);
        self.fill(&mut bytes[HEADER_BYTES..])?;
        let batch = BatchView::parse(&bytes).map_err(|error| Stop::Damage(error.to_string()))?;
        self.check_offsets(&header);
        let checked = batch.verify_checksum();
        if let Err(error) = &checked {
            self.damage(&error.to_string());
        }
        self.print_batch(&header, checked.is_ok())
            .map_err(Stop::Failure)?;
        self.batches += 1;
        self.records += u64::try_from(header.record_count).unwrap_or(0);
        if checked.is_ok() {
            self.check_records(&batch).map_err(Stop::Failure)?;
        }
        Ok(size_bytes)
    }

    /// Whether the rest of the file is zeroes, of which `read` bytes were seen.
    fn zeroes(&mut self, left: u64, read: u64) -> Result<u64, Stop> {
        let mut unread = left - read;
        let mut block = [0; 4096];
        while unread > 0 {
            let count = unread.min(block.len() as u64) as usize;
            self.fill(&mut block[..count])?;
            if block[..count].iter().any(|byte| *byte != 0) {
                let reason = "zeroes where a batch should be, and other bytes behind them";
                return Err(Stop::Damage(reason.to_owned()));
            }
            unread -= count as u64;
        }
        if self.arguments.output == OutputFormat::Table {
            let position = self.position;
            self.print(&format!(
                "{left} zero bytes from position {position} to the end: not written"
            ))
            .map_err(Stop::Failure)?;
        }
        Ok(left)
    }

    fn check_offsets(&mut self, header: &BatchHeader) {
        let base_offset = header.base_offset;
        match self.next_offset {
            Some(next) if base_offset < next => {
                self.damage(&format!(
                    "base offset {base_offset} behind offset {}",
                    next - 1
                ));
            }
            _ if header.last_offset_delta < 0 => {
                self.damage(&format!("last offset delta {}", header.last_offset_delta));
            }
            _ => {}
        }
        self.next_offset = Some(header.last_offset().saturating_add(1));
    }

    fn check_records(&mut self, batch: &BatchView<'_>) -> Result<(), Failure> {
        let header = batch.header();
        let plain = match batch.plain_payload(PLAIN_BYTES_MAX) {
            Ok(plain) => plain,
            Err(error) => {
                self.damage(&error.to_string());
                return Ok(());
            }
        };
        if header.record_count < 0 {
            self.damage(&format!("record count {}", header.record_count));
        }
        for record in Records::new(&plain, header.record_count) {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    self.damage(&error.to_string());
                    return Ok(());
                }
            };
            if !self.arguments.records {
                continue;
            }
            let headers: Vec<_> = record
                .headers()
                .map(|header| (header.key, header.value))
                .collect();
            let timestamp_ms = match header.attributes.timestamp_type() {
                TimestampType::CreateTime => {
                    header.base_timestamp.wrapping_add(record.timestamp_delta)
                }
                TimestampType::LogAppendTime => header.max_timestamp,
            };
            let printed = Printed {
                topic: &self.topic.0,
                partition: self.topic.1,
                offset: header
                    .base_offset
                    .wrapping_add(i64::from(record.offset_delta)),
                timestamp_ms,
                key: record.key,
                value: record.value,
                headers: &headers,
            };
            let text = record_text(&printed, self.arguments.output);
            self.out
                .write_all(text.as_bytes())
                .map_err(|error| Failure::output(&error))?;
        }
        Ok(())
    }

    fn print_batch(&mut self, header: &BatchHeader, is_checked: bool) -> Result<(), Failure> {
        let line = match self.arguments.output {
            OutputFormat::Table => row(&cells(self.position, header, is_checked)),
            OutputFormat::Json => batch_json(self.position, header, is_checked).to_string(),
        };
        self.print(&line)
    }
}

/// Columns with their widths: the file may be larger than memory, so nothing is collected.
const COLUMNS: [(&str, usize); 12] = [
    ("POSITION", 10),
    ("BYTES", 9),
    ("BASE", 10),
    ("LAST", 10),
    ("RECORDS", 8),
    ("CODEC", 7),
    ("CRC", 4),
    ("EPOCH", 6),
    ("PRODUCER", 9),
    ("SEQUENCE", 9),
    ("MAX TIMESTAMP", 25),
    ("FLAGS", 5),
];

fn row(cells: &[String; COLUMNS.len()]) -> String {
    let mut line = String::new();
    for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
        line.push_str(&format!("{cell:<width$} "));
    }
    line.trim_end().to_owned()
}

fn codec_name(header: &BatchHeader) -> String {
    match header.attributes.codec() {
        Ok(codec) => codec.name().to_owned(),
        Err(_) => format!("?{}", header.attributes.0 & 7),
    }
}

fn flags(header: &BatchHeader) -> Vec<&'static str> {
    let attributes = header.attributes;
    let mut flags = Vec::new();
    let mut add = |is_set: bool, name| flags.extend(is_set.then_some(name));
    add(attributes.is_transactional(), "transactional");
    add(attributes.is_control(), "control");
    let is_append_time = attributes.timestamp_type() == TimestampType::LogAppendTime;
    add(is_append_time, "append-time");
    add(attributes.has_delete_horizon(), "delete-horizon");
    add(attributes.has_unknown_bits(), "unknown-bits");
    flags
}

fn cells(position: u64, header: &BatchHeader, is_checked: bool) -> [String; COLUMNS.len()] {
    let has_producer = header.producer_id != NO_PRODUCER_ID;
    let producer = |text: String| if has_producer { text } else { "-".to_owned() };
    [
        position.to_string(),
        header.size_bytes().to_string(),
        header.base_offset.to_string(),
        header.last_offset().to_string(),
        header.record_count.to_string(),
        codec_name(header),
        if is_checked { "ok" } else { "BAD" }.to_owned(),
        header.partition_leader_epoch.to_string(),
        producer(format!("{}:{}", header.producer_id, header.producer_epoch)),
        producer(header.base_sequence.to_string()),
        timestamp::format(header.max_timestamp),
        flags(header).join(","),
    ]
}

fn batch_json(position: u64, header: &BatchHeader, is_checked: bool) -> serde_json::Value {
    json!({
        "position": position,
        "size_bytes": header.size_bytes(),
        "base_offset": header.base_offset,
        "last_offset": header.last_offset(),
        "record_count": header.record_count,
        "codec": codec_name(header),
        "crc": format!("{:08x}", header.crc),
        "crc_valid": is_checked,
        "partition_leader_epoch": header.partition_leader_epoch,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "base_timestamp_ms": header.base_timestamp,
        "max_timestamp_ms": header.max_timestamp,
        "flags": flags(header),
    })
}

/// A record as JSON, or on a line in which every byte is visible.
fn record_text(record: &Printed<'_>, output: OutputFormat) -> String {
    let visible = |bytes: Option<&[u8]>| {
        bytes.map_or("null".to_owned(), |bytes| {
            format!("\"{}\"", bytes.escape_ascii())
        })
    };
    match output {
        OutputFormat::Json => {
            let mut line = Vec::new();
            format::write_json(&mut line, record).expect("memory can be written");
            String::from_utf8(line).expect("JSON is text")
        }
        OutputFormat::Table => {
            let mut line = format!(
                "  {} {} key {} value {}",
                record.offset,
                timestamp::format(record.timestamp_ms),
                visible(record.key),
                visible(record.value),
            );
            for (name, value) in record.headers {
                let name = name.escape_ascii();
                line.push_str(&format!(" header {name}={}", visible(*value)));
            }
            line + "\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::compression::{Codec, Compression};
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

    fn batch(base_offset: i64, codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset,
            compression: Compression::of(codec),
            ..Default::default()
        });
        builder.append(1000, Some(b"k"), Some(b"v\n"), std::iter::empty());
        builder.append(2000, None, None, std::iter::empty());
        builder.finish()
    }

    fn walk(file: &[u8], records: bool, output: OutputFormat) -> (String, Vec<String>) {
        let arguments = SegmentArguments {
            file: "t-0/0.log".into(),
            records,
            output,
        };
        let mut walk = Walk {
            arguments: &arguments,
            topic: ("t".to_owned(), 0),
            input: file,
            position: 0,
            size_bytes: file.len() as u64,
            out: Vec::new(),
            batches: 0,
            records: 0,
            next_offset: None,
            damage: Vec::new(),
        };
        walk.all().expect("memory can be read and written");
        assert_eq!(walk.verdict("f").is_err(), !walk.damage.is_empty());
        (String::from_utf8(walk.out).expect("text"), walk.damage)
    }

    #[test]
    fn batches_and_records_are_listed_with_their_positions() {
        let mut file = batch(0, Codec::None);
        let second = file.len();
        file.extend(batch(2, Codec::Zstd));
        let (text, damage) = walk(&file, true, OutputFormat::Table);
        assert_eq!(damage, Vec::<String>::new());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 7, "{text}");
        assert!(lines[1].starts_with("0 "), "{text}");
        assert!(lines[4].starts_with(&format!("{second} ")), "{text}");
        assert!(lines[4].contains("zstd") && lines[4].contains("1970-01-01T00:00:02"));
        assert_eq!(
            lines[2],
            r#"  0 1970-01-01T00:00:01.000Z key "k" value "v\n""#
        );
        assert_eq!(lines[6], "  3 1970-01-01T00:00:02.000Z key null value null");
    }

    #[test]
    fn json_has_an_object_a_line() {
        let (text, _) = walk(&batch(7, Codec::Gzip), true, OutputFormat::Json);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines[0]["base_offset"], 7);
        assert_eq!(lines[0]["codec"], "gzip");
        assert_eq!(lines[0]["crc_valid"], true);
        assert_eq!(lines[2]["offset"], 8);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_file_cut_anywhere_is_reported_at_its_last_whole_batch() {
        let first = batch(0, Codec::None);
        let mut file = first.clone();
        file.extend(batch(2, Codec::Lz4));
        for cut in 1..file.len() {
            let (_, damage) = walk(&file[..cut], false, OutputFormat::Table);
            let position = if cut < first.len() { 0 } else { first.len() };
            match cut == first.len() {
                true => assert_eq!(damage, Vec::<String>::new()),
                // The base offset of the first batch is zeroes, like space not written.
                false if cut <= 8 => assert!(damage.is_empty()),
                false => assert!(
                    damage[0].starts_with(&format!("position {position}: ")),
                    "{cut}: {damage:?}"
                ),
            }
        }
    }

    #[test]
    fn every_flipped_byte_is_noticed_where_it_matters() {
        let mut file = batch(5, Codec::None);
        file.extend(batch(7, Codec::None));
        // Offset and epoch stand outside of the checksum: the latter cannot be noticed.
        for at in (0..12).chain(16..file.len() / 2) {
            let mut damaged = file.clone();
            damaged[at] ^= 0x40;
            let (_, damage) = walk(&damaged, false, OutputFormat::Json);
            let is_unnoticeable = at < 8 && damaged[at] != 0x40;
            assert!(!damage.is_empty() || is_unnoticeable, "byte {at}");
        }
    }

    #[test]
    fn zeroes_at_the_end_are_space_and_not_damage() {
        let mut file = batch(0, Codec::None);
        file.extend([0; 10_000]);
        let (text, damage) = walk(&file, false, OutputFormat::Table);
        assert!(text.contains("10000 zero bytes"), "{text}");
        assert_eq!(damage, Vec::<String>::new());
        file.push(1);
        let (_, damage) = walk(&file, false, OutputFormat::Table);
        assert_eq!(damage.len(), 1);
    }

    #[test]
    fn offsets_that_go_back_are_damage() {
        let mut file = batch(5, Codec::None);
        file.extend(batch(6, Codec::None));
        let (_, damage) = walk(&file, false, OutputFormat::Table);
        assert!(
            damage[0].contains("base offset 6 behind offset 6"),
            "{damage:?}"
        );
    }

    #[test]
    fn the_folder_names_topic_and_partition() {
        let of = |path: &str| topic_of(std::path::Path::new(path));
        assert_eq!(of("/d/a-b-12/0.log"), ("a-b".to_owned(), 12));
        assert_eq!(of("/d/other/0.log"), ("other".to_owned(), -1));
    }
}
