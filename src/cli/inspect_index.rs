//! `percolog inspect index`: the entries of the index beside a sealed segment.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;

use crate::log::bytes::Malformed;
use crate::log::index::IndexFile;
use crate::log::position::Offset;

use super::failure::Failure;
use super::inspect::{self, FileArguments, Source, Stop, Window, row};
use super::output::OutputFormat;
use super::timestamp;

const WIDTHS: [usize; 4] = [20, 16, 14, 25];

/// Lists the entries of an index file and says whether it verifies
///
/// An index that does not verify is no loss: the broker rebuilds it from its segment.
pub(crate) fn run(arguments: &FileArguments) -> Result<(), Failure> {
    let file = inspect::open(arguments)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let walked = list(arguments, &file, &mut out);
    out.flush().map_err(|error| Failure::output(&error))?;
    inspect::verdict(arguments, walked)
}

/// The first offset of the segment, which its name tells.
fn base_offset(path: &Path) -> Option<Offset> {
    let stem = path.file_stem()?.to_str()?;
    let is_number = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        stem.parse().ok().map(Offset)
    } else {
        None
    }
}

fn list(arguments: &FileArguments, source: &impl Source, out: &mut impl Write) -> Result<(), Stop> {
    let size_bytes = source
        .size_bytes()
        .map_err(|error| Failure::Local(error.to_string()))?;
    if size_bytes > IndexFile::MOST_BYTES as u64 {
        return Err(Stop::Damage {
            position: IndexFile::MOST_BYTES as u64,
            what: format!("{size_bytes} bytes are more than any index has"),
        });
    }
    let mut window = Window::new(source, size_bytes);
    let bytes = window.at(0, IndexFile::MOST_BYTES)?;
    let base = base_offset(&arguments.file);
    let file = IndexFile::decode(bytes, base.unwrap_or_default()).map_err(|Malformed(at)| {
        let what = match at {
            0 => "not an index file",
            _ if at + 4 == bytes.len() => "the checksum at its end does not fit",
            _ => "malformed",
        };
        Stop::Damage {
            position: at as u64,
            what: what.to_owned(),
        }
    })?;
    let text = match arguments.output {
        OutputFormat::Json => json_lines(&file, base),
        OutputFormat::Table => table(&file, base),
    };
    out.write_all(text.as_bytes())
        .map_err(|error| Stop::Failure(Failure::output(&error)))
}

fn table(file: &IndexFile, base: Option<Offset>) -> String {
    let entries = file.index.entries();
    let mut text = format!(
        "segment {:016x} of {} bytes: {} entries, at least {} bytes apart; verifies\n",
        file.segment.0,
        file.size_bytes,
        entries.len(),
        file.index.interval_bytes(),
    );
    let offsets = if base.is_some() {
        "OFFSET"
    } else {
        "RELATIVE OFFSET"
    };
    let head = [offsets, "POSITION", "RELATIVE", "TIMESTAMP BEFORE"].map(str::to_owned);
    text.push_str(&(row(&head, &WIDTHS) + "\n"));
    for entry in entries {
        let relative = i64::from(entry.relative_offset);
        let cells = [
            base.map_or(relative, |base| base.0.saturating_add(relative))
                .to_string(),
            entry.position.to_string(),
            relative.to_string(),
            timestamp::format(entry.timestamp_before_ms),
        ];
        text.push_str(&(row(&cells, &WIDTHS) + "\n"));
    }
    text
}

fn json_lines(file: &IndexFile, base: Option<Offset>) -> String {
    let head = json!({
        "type": "index",
        "segment": format!("{:016x}", file.segment.0),
        "segment_size_bytes": file.size_bytes,
        "base_offset": base.map(|base| base.0),
        "interval_bytes": file.index.interval_bytes(),
        "entries": file.index.entries().len(),
        "verifies": true,
    });
    let mut text = format!("{head}\n");
    for entry in file.index.entries() {
        let relative = i64::from(entry.relative_offset);
        let line = json!({
            "type": "entry",
            "offset": base.map(|base| base.0.saturating_add(relative)),
            "relative_offset": relative,
            "position": entry.position,
            "timestamp_before_ms": entry.timestamp_before_ms,
        });
        text.push_str(&format!("{line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::index::{MOST_ENTRIES, SparseIndex};
    use crate::log::position::SegmentId;

    fn file() -> Vec<u8> {
        let mut index = SparseIndex::new(Offset(1000), 100, MOST_ENTRIES);
        for batch in 0..40 {
            index.note(Offset(1000 + batch * 3), batch as u64 * 60, batch * 10 - 1);
        }
        index.to_file(SegmentId(0xab), 2400)
    }

    fn listed(bytes: &[u8], output: OutputFormat) -> (String, Result<(), Failure>) {
        let arguments = FileArguments {
            file: "t-0/00000000000000001000.index".into(),
            output,
        };
        let mut out = Vec::new();
        let walked = list(&arguments, &bytes, &mut out);
        let verdict = inspect::verdict(&arguments, walked);
        (String::from_utf8(out).expect("text"), verdict)
    }

    #[test]
    fn entries_are_listed_with_the_offsets_of_the_files_name() {
        let (text, verdict) = listed(&file(), OutputFormat::Table);
        verdict.expect("whole");
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("segment 00000000000000ab of 2400 bytes: 19 entries"),
            "{text}"
        );
        assert!(
            lines[2].starts_with("1006 ") && lines[2].contains("120"),
            "{text}"
        );
        let (text, _) = listed(&file(), OutputFormat::Json);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 20);
        assert_eq!(lines[0]["base_offset"], 1000);
        assert_eq!(lines[1]["position"], 120);
    }

    #[test]
    fn damage_is_reported_with_its_position() {
        let mut bytes = file();
        bytes[50] ^= 1;
        let (text, verdict) = listed(&bytes, OutputFormat::Table);
        let message = verdict.expect_err("damaged").to_string();
        assert!(
            message.contains(&format!("byte {}: the checksum", bytes.len() - 4)),
            "{message}"
        );
        assert_eq!(text, "");
        let (_, verdict) = listed(b"something else", OutputFormat::Table);
        assert!(
            verdict
                .expect_err("foreign")
                .to_string()
                .contains("not an index file")
        );
        let (_, verdict) = listed(&vec![0; 100_000], OutputFormat::Json);
        assert!(
            verdict
                .expect_err("long")
                .to_string()
                .contains("more than any index has")
        );
    }

    proptest! {
        /// Also where the checksum fits: nothing in the file is a secret.
        #[test]
        fn mutated_files_never_panic(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
            sealed in any::<bool>(),
        ) {
            let mut bytes = file();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if sealed {
                let (content, checksum) = bytes.split_last_chunk_mut::<4>().expect("long enough");
                *checksum = crc32c::crc32c(content).to_le_bytes();
            } else {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            let (_, verdict) = listed(&bytes, OutputFormat::Table);
            let (_, again) = listed(&bytes, OutputFormat::Json);
            prop_assert_eq!(verdict.is_ok(), again.is_ok());
        }
    }
}
