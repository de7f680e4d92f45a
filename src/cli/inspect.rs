//! What `percolog inspect` reads files with: windows of a bounded size, whatever a file claims.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::log::bytes::{Fields, Malformed};

use super::failure::Failure;
use super::output::OutputFormat;

/// The least that one read asks for.
pub(super) const WINDOW_BYTES: usize = 1 << 20;

/// Arguments of the commands that read one file.
#[derive(Debug, clap::Args)]
pub(crate) struct FileArguments {
    /// The file
    pub(super) file: PathBuf,
    /// How results are printed; json is one object a line
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    pub(super) output: OutputFormat,
}

/// Bytes at positions: a file, or memory in tests.
pub(super) trait Source {
    /// Their number.
    fn size_bytes(&self) -> io::Result<u64>;

    /// Fills `into` from `position` as far as the source goes; how far that was.
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize>;
}

impl Source for File {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match FileExt::read_at(self, &mut into[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Source for &[u8] {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(position).map_or(self.len(), |from| from.min(self.len()));
        let count = into.len().min(self.len() - from);
        into[..count].copy_from_slice(&self[from..from + count]);
        Ok(count)
    }
}

/// Opens a file for reading alone, so that it may lie on a disk that takes no writes.
pub(super) fn open(arguments: &FileArguments) -> Result<File, Failure> {
    File::open(&arguments.file)
        .map_err(|error| Failure::Local(format!("{}: {error}", arguments.file.display())))
}

/// What ends reading before the end of the file.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bytes from here on are not what they should be.
    Damage { position: u64, what: String },
    /// The command cannot go on.
    Failure(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

/// A window that moves forward over a source.
pub(super) struct Window<'a, S> {
    source: &'a S,
    /// Where reading ends.
    end: u64,
    /// Position of `bytes[0]`.
    position: u64,
    bytes: Vec<u8>,
}

impl<'a, S: Source> Window<'a, S> {
    /// Over the bytes of `source` before `end`.
    pub(super) fn new(source: &'a S, end: u64) -> Window<'a, S> {
        Window {
            source,
            end,
            position: 0,
            bytes: Vec::new(),
        }
    }

    /// The bytes from `position` on: `length`, or up to the end. Holds no more than that and one
    /// window.
    pub(super) fn at(&mut self, position: u64, length: usize) -> Result<&[u8], Stop> {
        let position = position.min(self.end);
        let left = self.end - position;
        let length = usize::try_from(left).map_or(length, |left| length.min(left));
        let held = position
            .checked_sub(self.position)
            .and_then(|from| usize::try_from(from).ok())
            .filter(|from| from + length <= self.bytes.len());
        let from = match held {
            Some(from) => from,
            None => {
                self.load(position, length)?;
                0
            }
        };
        Ok(&self.bytes[from..from + length])
    }

    fn load(&mut self, position: u64, length: usize) -> Result<(), Stop> {
        let left = usize::try_from(self.end - position).unwrap_or(usize::MAX);
        self.bytes.clear();
        self.bytes.resize(length.max(WINDOW_BYTES).min(left), 0);
        self.position = position;
        let read = self
            .source
            .read_at(position, &mut self.bytes)
            .map_err(|error| Stop::Failure(Failure::Local(error.to_string())))?;
        if read < length {
            return Err(Stop::Damage {
                position: position + read as u64,
                what: "the file became shorter while it was read".to_owned(),
            });
        }
        self.bytes.truncate(read);
        Ok(())
    }

    /// Decodes what begins at `position`, from a window that grows up to `most_bytes`; moves
    /// `position` behind it.
    pub(super) fn decode<T>(
        &mut self,
        position: &mut u64,
        most_bytes: usize,
        decode: impl Fn(&mut Fields<'_>) -> Result<T, Malformed>,
    ) -> Result<T, Stop> {
        let mut length = most_bytes.min(64 << 10);
        loop {
            let bytes = self.at(*position, length)?;
            let is_all = bytes.len() < length || length == most_bytes;
            let mut fields = Fields::new(bytes);
            match decode(&mut fields) {
                Ok(decoded) => {
                    *position += fields.position() as u64;
                    return Ok(decoded);
                }
                Err(Malformed(at)) if is_all => {
                    return Err(Stop::Damage {
                        position: *position + at as u64,
                        what: "malformed".to_owned(),
                    });
                }
                Err(_) => length = length.saturating_mul(4).min(most_bytes),
            }
        }
    }
}

/// The failure that reports a file as damaged.
pub(super) fn damaged(arguments: &FileArguments, position: u64, what: &str) -> Failure {
    Failure::Local(format!(
        "{}: damaged at byte {position}: {what}",
        arguments.file.display()
    ))
}

/// Turns the end of a walk into the result of the command.
pub(super) fn verdict(arguments: &FileArguments, walked: Result<(), Stop>) -> Result<(), Failure> {
    match walked {
        Ok(()) => Ok(()),
        Err(Stop::Failure(failure)) => Err(failure),
        Err(Stop::Damage { position, what }) => Err(damaged(arguments, position, &what)),
    }
}

/// Columns of a fixed width: a file may be larger than memory, so nothing is collected.
pub(super) fn row(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(&format!("{cell:<width$} "));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_moves_and_grows_but_not_beyond_its_bounds() {
        let content: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
        let source = content.as_slice();
        let mut window = Window::new(&source, 4_900_000);
        for (position, length) in [(0, 10), (9, 4096), (2_000_000, 3), (1_000_000, 2_000_000)] {
            let expected = &content[position..position + length];
            let bytes = window.at(position as u64, length).expect("memory");
            assert_eq!(bytes, expected);
        }
        assert_eq!(window.at(4_899_990, 100).expect("memory").len(), 10);
        assert_eq!(window.at(9_000_000, 100).expect("memory").len(), 0);
        assert!(window.bytes.len() <= 2_000_000);
    }

    #[test]
    fn decoding_asks_for_more_until_its_bound() {
        let content = vec![0_u8; 3_000_000];
        let source = content.as_slice();
        let mut window = Window::new(&source, 3_000_000);
        let mut position = 5;
        let take =
            |count: usize| move |fields: &mut Fields<'_>| fields.take(count).map(<[u8]>::len);
        let took = window.decode(&mut position, 2_000_000, take(1_500_000));
        assert_eq!(took.expect("there are more"), 1_500_000);
        assert_eq!(position, 1_500_005);
        let Err(Stop::Damage { position: at, .. }) =
            window.decode(&mut position, 1_000_000, take(1_400_000))
        else {
            panic!("beyond the bound");
        };
        assert_eq!((at, position), (1_500_005, 1_500_005));
    }
}
