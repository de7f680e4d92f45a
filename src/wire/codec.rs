//! Primitive types of the wire, read and written.
//!
//! [`Reader`] borrows everything from the frame; [`Writer`] collects a head of small fields and the
//! [`Gap`]s between them that the caller fills with bytes of its own (record batches that already
//! lie in chunks), so that a reply leaves as one gather write without a copy.
//!
//! Whether lengths are *classic* (int16 and int32) or *compact* (varints, and a section of tagged
//! fields after every structure) is a property of the message version: `Message::decode` and
//! `Message::encode` set it on the reader and the writer.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

pub use super::reader::Reader;
pub use super::writer::{Gap, TagSection, Writer};

/// Most elements one array may have, as in Kafka.
pub const ARRAY_ELEMENTS_MAX: usize = 1_000_000;
/// Vectors start with room for at most this many elements and then grow as elements arrive.
pub const ARRAY_ELEMENTS_INITIAL_MAX: usize = 1_000;
/// Most tagged fields one structure may carry, as in Kafka.
pub const TAGGED_FIELDS_MAX: u32 = 10_000;
/// No element of an array is larger in memory than so many times its fewest bytes on the wire. With
/// a vector and its successor holding at most twice the elements whose bytes are here, decoding N
/// bytes holds at most 64 N bytes and small change.
pub const ELEMENT_BYTES_PER_INPUT_BYTE_MAX: usize = 32;
/// Longest string that the classic form can carry.
pub const CLASSIC_STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Text of a message: borrowed when decoded, either when built.
pub type Str<'a> = Cow<'a, str>;
/// Bytes of a message: borrowed when decoded, either when built.
pub type Bytes<'a> = Cow<'a, [u8]>;

/// Why bytes are not a message. Whoever sent them is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("{needed} bytes needed, {remaining} left")]
    Truncated {
        /// Bytes the value takes at least.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// A length below -1, or below zero where -1 has no meaning.
    #[error("length {0} is negative")]
    NegativeLength(i32),
    /// A null where the message version has none.
    #[error("null where it is not allowed")]
    UnexpectedNull,
    /// A varint of more bytes, or a greater value, than its type has.
    #[error("varint does not fit its type")]
    OverlongVarint,
    /// An array of more than [`ARRAY_ELEMENTS_MAX`] elements.
    #[error("array of {0} elements, at most {ARRAY_ELEMENTS_MAX} are accepted")]
    ArrayTooLong(usize),
    /// More than [`TAGGED_FIELDS_MAX`] tagged fields in one structure.
    #[error("{0} tagged fields, at most {TAGGED_FIELDS_MAX} are accepted")]
    TooManyTags(u32),
    /// The same tag twice.
    #[error("tag {0} appears twice")]
    DuplicateTag(u32),
    /// Tags that do not ascend.
    #[error("tag {0} is out of order")]
    UnsortedTag(u32),
    /// Text that is not UTF-8.
    #[error("text is not valid UTF-8")]
    InvalidUtf8,
    /// Bytes after the end of a message or of a tagged field.
    #[error("{0} bytes after the end")]
    TrailingBytes(usize),
    /// The message has no such version.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// Name of the message.
        message: &'static str,
        /// The version that was asked for.
        version: i16,
    },
}

impl DecodeError {
    /// A short fixed name, for metric labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            DecodeError::Truncated { .. } => "truncated",
            DecodeError::NegativeLength(_) => "negative_length",
            DecodeError::UnexpectedNull => "unexpected_null",
            DecodeError::OverlongVarint => "overlong_varint",
            DecodeError::ArrayTooLong(_) => "array_too_long",
            DecodeError::TooManyTags(_) => "too_many_tags",
            DecodeError::DuplicateTag(_) => "duplicate_tag",
            DecodeError::UnsortedTag(_) => "unsorted_tag",
            DecodeError::InvalidUtf8 => "invalid_utf8",
            DecodeError::TrailingBytes(_) => "trailing_bytes",
            DecodeError::UnsupportedVersion { .. } => "unsupported_version",
        }
    }
}

/// A 128-bit identifier: topics, directories, members.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Uuid(pub [u8; 16]);

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const UUID_TEXT_BYTES: usize = 22;

impl Uuid {
    /// The id that stands for "none".
    pub const ZERO: Uuid = Uuid([0; 16]);

    /// Whether this is [`Uuid::ZERO`].
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Uuid::ZERO
    }
}

impl fmt::Display for Uuid {
    /// Url-safe base64 without padding, as Kafka prints ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0_u8; UUID_TEXT_BYTES];
        for (index, symbol) in text.iter_mut().enumerate() {
            // 22 symbols hold 132 bits: the last four are zero.
            let sextet = if index == UUID_TEXT_BYTES - 1 {
                (bits << 4) & 0x3f
            } else {
                (bits >> (122 - 6 * index)) & 0x3f
            };
            *symbol = BASE64_URL[sextet as usize];
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why text is not a [`Uuid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an id is 22 characters of url-safe base64 without padding")]
pub struct UuidParseError;

impl FromStr for Uuid {
    type Err = UuidParseError;

    fn from_str(text: &str) -> Result<Uuid, UuidParseError> {
        if text.len() != UUID_TEXT_BYTES {
            return Err(UuidParseError);
        }
        let mut bits = 0_u128;
        for (index, byte) in text.bytes().enumerate() {
            let sextet = BASE64_URL.iter().position(|&symbol| symbol == byte);
            let sextet = sextet.ok_or(UuidParseError)? as u128;
            bits = if index == UUID_TEXT_BYTES - 1 {
                if sextet & 0xf != 0 {
                    return Err(UuidParseError);
                }
                (bits << 2) | (sextet >> 4)
            } else {
                (bits << 6) | sextet
            };
        }
        Ok(Uuid(bits.to_be_bytes()))
    }
}

/// A `records` field: record batches, opaque at this level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Records<'a> {
    /// No records at all; also what every negative length decodes to, for the handler to answer.
    #[default]
    Null,
    /// The batches themselves.
    Bytes(&'a [u8]),
    /// That many bytes which the sender puts into the [`Gap`] itself. Never decoded.
    Detached(usize),
}

impl<'a> Records<'a> {
    /// The batches, if they are here.
    #[must_use]
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Records::Bytes(bytes) => Some(bytes),
            Records::Null | Records::Detached(_) => None,
        }
    }

    /// Size on the wire in bytes, without the length prefix.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Records::Null => 0,
            Records::Bytes(bytes) => bytes.len(),
            Records::Detached(size_bytes) => *size_bytes,
        }
    }
}

/// What arrays hold: structures and the primitive types.
pub trait Element<'a>: Sized {
    /// Fewest bytes one value takes on the wire in any version; never zero, since array counts are
    /// checked with it.
    const MINIMUM_BYTES: usize;

    /// Reads one value as `version` lays it out.
    fn read(reader: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError>;

    /// Writes one value as `version` lays it out.
    fn write(&self, writer: &mut Writer, version: i16);
}

macro_rules! primitive_elements {
    ($($type:ty, $bytes:literal, $name:ident);*) => {$(
        impl<'a> Element<'a> for $type {
            const MINIMUM_BYTES: usize = $bytes;

            fn read(reader: &mut Reader<'a>, _version: i16) -> Result<Self, DecodeError> {
                reader.$name()
            }

            fn write(&self, writer: &mut Writer, _version: i16) {
                writer.$name(*self);
            }
        }
    )*};
}

primitive_elements!(i8, 1, int8; i16, 2, int16; i32, 4, int32; i64, 8, int64; Uuid, 16, uuid);

impl<'a> Element<'a> for Str<'a> {
    const MINIMUM_BYTES: usize = 1;

    fn read(reader: &mut Reader<'a>, _version: i16) -> Result<Self, DecodeError> {
        reader.string()
    }

    fn write(&self, writer: &mut Writer, _version: i16) {
        writer.string(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_as_kafka_has_them() {
        let one = Uuid(1_u128.to_be_bytes());
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(one.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(Uuid([0xff; 16]).to_string(), "_____________________w");
        assert_eq!(Uuid([0xfb; 16]).to_string(), "-_v7-_v7-_v7-_v7-_v7-w");
        for id in [
            Uuid::ZERO,
            one,
            Uuid([0xfb; 16]),
            Uuid(*b"0123456789abcdef"),
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!(Uuid::ZERO.is_zero() && !one.is_zero());
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        let wrong = [
            "",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAA==",
            "AAAAAAAAAAAAAAAAAAAAA+",
            // Bits beyond the 128th.
            "AAAAAAAAAAAAAAAAAAAAAB",
            "\u{e9}AAAAAAAAAAAAAAAAAAAA",
        ];
        for text in wrong {
            assert_eq!(text.parse::<Uuid>(), Err(UuidParseError), "{text}");
        }
    }

    #[test]
    fn records_know_their_size_wherever_the_bytes_are() {
        assert_eq!(Records::Null.size_bytes(), 0);
        assert_eq!(Records::Bytes(b"abc").size_bytes(), 3);
        assert_eq!(Records::Detached(9).size_bytes(), 9);
        assert_eq!(Records::Bytes(b"abc").bytes(), Some(&b"abc"[..]));
        assert_eq!(Records::Detached(9).bytes(), None);
    }
}
