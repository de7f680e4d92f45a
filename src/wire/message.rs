//! What every generated message offers.

use std::ops::RangeInclusive;

use super::api_table::ApiKey;
use super::codec::{DecodeError, Element, Reader, Writer};

/// [`Message::FLEXIBLE_FROM`] of messages that have no flexible version.
pub const NEVER_FLEXIBLE: i16 = i16::MAX;

/// A message of the tables.
///
/// Decoding gives a field that the version lacks its default. Encoding leaves it out, whatever its
/// value: Kafka throws if such a field is not "ignorable", but what a broker knows beyond what the
/// client asked for is no reason to fail a reply. Tagged fields that are not in the tables are
/// skipped, and not kept.
pub trait Message<'a>: Element<'a> {
    /// Kafka's name of the message.
    const NAME: &'static str;
    /// Versions that can be decoded and encoded.
    const VERSIONS: RangeInclusive<i16>;
    /// First version with compact lengths and tagged fields.
    const FLEXIBLE_FROM: i16;

    /// Reads the message; bytes after it stay in the reader.
    fn decode(reader: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(DecodeError::UnsupportedVersion {
                message: Self::NAME,
                version,
            });
        }
        reader.set_flexible(version >= Self::FLEXIBLE_FROM);
        Self::read(reader, version)
    }

    /// Reads the message from bytes that hold nothing else.
    fn decode_whole(bytes: &'a [u8], version: i16) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = Self::decode(&mut reader, version)?;
        reader.expect_end()?;
        Ok(message)
    }

    /// Writes the message.
    ///
    /// # Panics
    /// When there is no such version: versions are filtered where requests arrive.
    fn encode(&self, writer: &mut Writer, version: i16) {
        assert!(
            Self::VERSIONS.contains(&version),
            "{} has no version {version}",
            Self::NAME
        );
        writer.set_flexible(version >= Self::FLEXIBLE_FROM);
        self.write(writer, version);
    }

    /// The bytes of the message.
    ///
    /// # Panics
    /// When there is no such version, or when records are detached.
    fn to_bytes(&self, version: i16) -> Vec<u8> {
        let mut writer = Writer::new();
        self.encode(&mut writer, version);
        let (head, gaps) = writer.into_parts();
        assert!(gaps.is_empty(), "{} has detached records", Self::NAME);
        head
    }
}

/// A message that asks.
pub trait Request<'a>: Message<'a> {
    /// The API it belongs to.
    const API_KEY: ApiKey;
    /// What answers it.
    type Response<'r>: Response<'r>;
}

/// A message that answers.
pub trait Response<'a>: Message<'a> {
    /// The API it belongs to.
    const API_KEY: ApiKey;
}
