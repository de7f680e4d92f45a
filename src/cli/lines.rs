//! A line per record: lines of a file or of stdin, in chunks, read ahead by a thread of their own
//! so that what a person types is sent while more is awaited.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::failure::Failure;

/// Longest line accepted: no broker takes larger records without being told to.
pub(crate) const LINE_BYTES_MAX: usize = 128 << 20;
/// Bytes asked for at once.
const READ_BYTES: usize = 256 << 10;
/// Chunks read ahead at most.
const CHUNKS_AHEAD: usize = 4;

/// Whole lines with their line ends; only the last line of the input may lack its own.
pub(crate) type Chunk = Result<Vec<u8>, Failure>;

/// Starts reading. The channel closes at the end of the input.
pub(crate) fn read_ahead(name: String, input: Box<dyn Read + Send>) -> Receiver<Chunk> {
    let (sender, receiver) = sync_channel(CHUNKS_AHEAD);
    // Never joined: a thread that waits for stdin ends with the process.
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(READ_BYTES, input);
        if let Err(failure) = read_all(&name, &mut input, &sender) {
            let _ = sender.send(Err(failure));
        }
    });
    receiver
}

fn read_all(
    name: &str,
    input: &mut impl BufRead,
    sender: &SyncSender<Chunk>,
) -> Result<(), Failure> {
    let mut carry = Vec::new();
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Local(format!("{name}: {error}"))),
        };
        if available.is_empty() {
            if !carry.is_empty() {
                let _ = sender.send(Ok(carry));
            }
            return Ok(());
        }
        let length = available.len();
        let lines_end = available.iter().rposition(|byte| *byte == b'\n');
        let (lines, rest) = available.split_at(lines_end.map_or(0, |at| at + 1));
        if !lines.is_empty() {
            let mut chunk = std::mem::take(&mut carry);
            chunk.extend_from_slice(lines);
            if sender.send(Ok(chunk)).is_err() {
                return Ok(()); // Whoever sends the records has failed, and says so.
            }
        }
        carry.extend_from_slice(rest);
        if carry.len() > LINE_BYTES_MAX {
            return Err(Failure::Local(format!(
                "{name}: a line is longer than {LINE_BYTES_MAX} bytes"
            )));
        }
        input.consume(length);
    }
}

/// The lines of a chunk, without their line ends.
pub(crate) fn split(chunk: &[u8]) -> impl Iterator<Item = &[u8]> {
    let chunk = chunk.strip_suffix(b"\n").unwrap_or(chunk);
    chunk.split(|byte| *byte == b'\n')
}

/// Key and value of a line: what stands before and behind the first separator. A line without one
/// has no key.
pub(crate) fn key_and_value<'l>(
    line: &'l [u8],
    separator: Option<&[u8]>,
) -> (Option<&'l [u8]>, &'l [u8]) {
    let Some(separator) = separator.filter(|separator| !separator.is_empty()) else {
        return (None, line);
    };
    let at = line
        .windows(separator.len())
        .position(|window| window == separator);
    match at {
        Some(at) => (Some(&line[..at]), &line[at + separator.len()..]),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(input: &'static [u8], buffer_bytes: usize) -> Vec<Vec<u8>> {
        let (sender, receiver) = sync_channel(1000);
        let mut input = BufReader::with_capacity(buffer_bytes, input);
        read_all("test", &mut input, &sender).expect("memory can be read");
        drop(sender);
        receiver
            .iter()
            .flat_map(|chunk| {
                let chunk = chunk.expect("no failure");
                split(&chunk).map(<[u8]>::to_vec).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let input: &[u8] = b"one\n\n three \r\n\xff\x00\nlast";
        let expected: [&[u8]; 5] = [b"one", b"", b" three \r", b"\xff\x00", b"last"];
        for buffer_bytes in 1..input.len() + 2 {
            assert_eq!(lines_of(input, buffer_bytes), expected, "{buffer_bytes}");
        }
    }

    #[test]
    fn a_line_end_at_the_end_is_no_further_line() {
        assert_eq!(lines_of(b"", 16), Vec::<Vec<u8>>::new());
        assert_eq!(lines_of(b"\n", 16), [b""]);
        assert_eq!(lines_of(b"a\n", 16), [b"a"]);
        assert_eq!(lines_of(b"a\n\n", 16), [&b"a"[..], b""]);
    }

    #[test]
    fn keys_end_at_the_first_separator() {
        let split = |line: &'static str, separator: Option<&str>| {
            let (key, value) = key_and_value(line.as_bytes(), separator.map(str::as_bytes));
            (
                key.map(|key| str::from_utf8(key).expect("text")),
                str::from_utf8(value).expect("text"),
            )
        };
        assert_eq!(split("k:v:w", Some(":")), (Some("k"), "v:w"));
        assert_eq!(split("k::v", Some("::")), (Some("k"), "v"));
        assert_eq!(split(":v", Some(":")), (Some(""), "v"));
        assert_eq!(split("k:", Some(":")), (Some("k"), ""));
        assert_eq!(split("v", Some(":")), (None, "v"));
        assert_eq!(split("k:v", None), (None, "k:v"));
        assert_eq!(split("k:v", Some("")), (None, "k:v"));
    }
}
