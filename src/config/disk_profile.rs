//! The settings that `percolog tune disk` found for a disk, as they lie in a data directory.
//!
//! # Format, `percolog.disk`
//! TOML, with the settings under their names in the configuration file:
//! ```text
//! format = "percolog disk profile 1"
//! [storage]
//! journal_groups_in_flight = 2
//! direct_write_bytes = 65536
//! direct_write_busy_bytes = 16384
//! background_write_bytes_per_second = 419430400
//! # crc32c 0123abcd
//! ```
//! Other lines that begin with `#` tell how it was measured. The last line is the checksum of all
//! lines above it. They count between the defaults and everything that is given explicitly.

use std::fmt::Write;

use super::broker::BrokerConfig;

/// Its name in a data directory.
pub const FILE_NAME: &str = "percolog.disk";
/// The longest one.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;

const FORMAT: &str = "percolog disk profile 1";
const CHECKSUM: &str = "# crc32c ";

/// See the head of this file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSettings {
    /// `storage.journal_groups_in_flight`
    pub journal_groups_in_flight: usize,
    /// `storage.direct_write_bytes`
    pub direct_write_bytes: usize,
    /// `storage.direct_write_busy_bytes`
    pub direct_write_busy_bytes: usize,
    /// `storage.background_write_bytes_per_second`
    pub background_write_bytes_per_second: u64,
}

impl DiskSettings {
    /// Those of a broker.
    #[must_use]
    pub fn of(config: &BrokerConfig) -> DiskSettings {
        let storage = &config.storage;
        DiskSettings {
            journal_groups_in_flight: storage.journal_groups_in_flight,
            direct_write_bytes: storage.direct_write_bytes,
            direct_write_busy_bytes: storage.direct_write_busy_bytes,
            background_write_bytes_per_second: storage.background_write_bytes_per_second,
        }
    }

    /// Names and values.
    #[must_use]
    pub fn entries(&self) -> [(&'static str, u64); 4] {
        [
            (
                "journal_groups_in_flight",
                self.journal_groups_in_flight as u64,
            ),
            ("direct_write_bytes", self.direct_write_bytes as u64),
            (
                "direct_write_busy_bytes",
                self.direct_write_busy_bytes as u64,
            ),
            (
                "background_write_bytes_per_second",
                self.background_write_bytes_per_second,
            ),
        ]
    }

    /// For two directories at once, since a setting is for all of them: what asks least of either
    /// disk.
    #[must_use]
    pub fn with(&self, other: &DiskSettings) -> DiskSettings {
        // Without a limit is the most that can be asked.
        let pace = [self, other].map(|one| one.background_write_bytes_per_second);
        DiskSettings {
            journal_groups_in_flight: self
                .journal_groups_in_flight
                .min(other.journal_groups_in_flight),
            direct_write_bytes: self.direct_write_bytes.max(other.direct_write_bytes),
            direct_write_busy_bytes: self
                .direct_write_busy_bytes
                .max(other.direct_write_busy_bytes),
            background_write_bytes_per_second: pace
                .into_iter()
                .filter(|bytes| *bytes > 0)
                .min()
                .unwrap_or(0),
        }
    }

    /// The content of the file, with lines that tell how it was measured.
    #[must_use]
    pub fn render(&self, notes: &[String]) -> String {
        let mut text = format!("format = \"{FORMAT}\"\n");
        for note in notes {
            let plain: String = note.chars().filter(|letter| !letter.is_control()).collect();
            let _ = writeln!(text, "# {plain}");
        }
        text.push_str("[storage]\n");
        for (name, value) in self.entries() {
            let _ = writeln!(text, "{name} = {value}");
        }
        let sum = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "{CHECKSUM}{sum:08x}");
        text
    }

    /// Reads the content of the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<DiskSettings, String> {
        if !text.starts_with("format = \"percolog disk profile") {
            return Err("this is no disk profile".to_owned());
        }
        let end = text
            .rfind(CHECKSUM)
            .ok_or("it has no checksum: it is cut off")?;
        let (body, sum) = text.split_at(end);
        let sum = sum[CHECKSUM.len()..].strip_suffix('\n').unwrap_or_default();
        let known = u32::from_str_radix(sum, 16).ok().filter(|_| sum.len() == 8);
        if known != Some(crc32c::crc32c(body.as_bytes())) {
            return Err(
                "its checksum does not fit: it is damaged, or was edited; settings of your own \
                 belong in the configuration file, which wins over this one"
                    .to_owned(),
            );
        }
        let table: toml::Table = body.parse().map_err(|error| format!("no TOML: {error}"))?;
        let format = table.get("format").and_then(toml::Value::as_str);
        if format != Some(FORMAT) {
            return Err(format!(
                "its format is {format:?}, this version reads \"{FORMAT}\""
            ));
        }
        let storage = table.get("storage").and_then(toml::Value::as_table);
        let storage = storage.ok_or("it has no [storage]")?;
        let number = |name: &str| {
            let value = storage.get(name).and_then(toml::Value::as_integer);
            value
                .and_then(|value| u64::try_from(value).ok())
                .ok_or_else(|| format!("it has no number {name}"))
        };
        let size = |name: &str| -> Result<usize, String> {
            usize::try_from(number(name)?).map_err(|_| format!("{name} is out of bounds"))
        };
        let settings = DiskSettings {
            journal_groups_in_flight: size("journal_groups_in_flight")?,
            direct_write_bytes: size("direct_write_bytes")?,
            direct_write_busy_bytes: size("direct_write_busy_bytes")?,
            background_write_bytes_per_second: number("background_write_bytes_per_second")?,
        };
        let known = settings.entries();
        match storage
            .keys()
            .find(|key| known.iter().all(|(name, _)| name != key))
        {
            Some(key) => Err(format!("it has a setting {key} that does not belong there")),
            None => Ok(settings),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sources::Sources;
    use super::*;

    fn settings() -> DiskSettings {
        DiskSettings {
            journal_groups_in_flight: 3,
            direct_write_bytes: 131_072,
            direct_write_busy_bytes: 32_768,
            background_write_bytes_per_second: 100 << 20,
        }
    }

    fn summed(body: &str) -> String {
        format!("{body}{CHECKSUM}{:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    #[test]
    fn survives_being_written_down() {
        let notes = ["4 KiB: 4500/s".to_owned(), "with\na line feed".to_owned()];
        let text = settings().render(&notes);
        assert_eq!(DiskSettings::parse(&text), Ok(settings()));
        assert!(text.contains("# witha line feed\n"), "{text}");
        for cut in 0..text.len() {
            assert!(DiskSettings::parse(&text[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 0x01;
            if let Ok(flipped) = String::from_utf8(bytes) {
                assert!(DiskSettings::parse(&flipped).is_err(), "flipped at {at}");
            }
        }
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        let body = settings().render(&[]);
        let body = &body[..body.find(CHECKSUM).expect("written")];
        assert!(DiskSettings::parse(&summed(body)).is_ok());
        for (text, said) in [
            (String::new(), "no disk profile"),
            ("format = \"other\"\n".to_owned(), "no disk profile"),
            (body.to_owned(), "cut off"),
            (summed(&body.replace("profile 1", "profile 2")), "profile 2"),
            (
                summed(&body.replace("= 3\n", "= -3\n")),
                "journal_groups_in_flight",
            ),
            (
                summed(&body.replace("= 3\n", "= \"3\"\n")),
                "journal_groups_in_flight",
            ),
            (summed(&body.replace("[storage]", "[other]")), "[storage]"),
            (
                summed(&format!("{body}chunk_bytes = 4096\n")),
                "chunk_bytes",
            ),
            (summed(&format!("{body}= = =\n")), "no TOML"),
            (body.to_owned() + "# crc32c 00000000\n", "edited"),
        ] {
            let error = DiskSettings::parse(&text).expect_err(said);
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn everything_given_explicitly_wins() {
        let sets = ["storage.direct_write_bytes=262144".to_owned()];
        let sources = Sources {
            disk: Some(settings()),
            toml: Some("[storage]\njournal_groups_in_flight = 1\n"),
            sets: &sets,
            ..Sources::default()
        };
        let config = BrokerConfig::load(&sources).expect("valid");
        assert_eq!(config.storage.journal_groups_in_flight, 1);
        assert_eq!(config.storage.direct_write_bytes, 262_144);
        assert_eq!(config.storage.direct_write_busy_bytes, 32_768);
        let text = config.print_config();
        let line = text
            .lines()
            .find(|line| line.starts_with("storage.direct_write_busy_bytes = "))
            .expect("every setting");
        assert!(line.contains("from percolog.disk"), "{line}");
    }

    #[test]
    fn values_out_of_bounds_are_refused_by_name() {
        let beyond = DiskSettings {
            journal_groups_in_flight: 99,
            ..settings()
        };
        let sources = Sources {
            disk: Some(beyond),
            ..Sources::default()
        };
        let problems = BrokerConfig::load(&sources)
            .expect_err("out of bounds")
            .to_string();
        assert!(
            problems.contains("storage.journal_groups_in_flight"),
            "{problems}"
        );
        assert!(problems.contains(FILE_NAME), "{problems}");
    }

    #[test]
    fn of_two_disks_the_more_careful_values_count() {
        let other = DiskSettings {
            journal_groups_in_flight: 2,
            direct_write_bytes: 65_536,
            direct_write_busy_bytes: 65_536,
            background_write_bytes_per_second: 0,
        };
        let both = settings().with(&other);
        assert_eq!(
            both.entries().map(|(_, value)| value),
            [2, 131_072, 65_536, 100 << 20]
        );
        assert_eq!(other.with(&other), other);
    }
}
