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
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// A cursor over the bytes of one frame.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

macro_rules! read_integers {
    ($($name:ident $type:ident),*) => {$(
        #[doc = concat!("Reads a big-endian `", stringify!($type), "`.")]
        pub fn $name(&mut self) -> Result<$type, DecodeError> {
            Ok($type::from_be_bytes(self.fixed()?))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`, in the classic form until told otherwise.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            rest: bytes,
            flexible: false,
        }
    }

    /// Chooses between classic and compact lengths.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Bytes that are left.
    #[must_use]
    pub fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    /// Fails unless everything was read.
    pub fn expect_end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes(self.rest.len()))
        }
    }

    /// Takes the next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(DecodeError::Truncated {
                needed: count,
                remaining: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated {
                needed: N,
                remaining: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(*taken)
    }

    read_integers!(int8 i8, int16 i16, int32 i32, int64 i64, uint8 u8, uint16 u16, uint32 u32, float64 f64);

    /// Reads a boolean: anything but zero is true, as in Kafka.
    pub fn boolean(&mut self) -> Result<bool, DecodeError> {
        Ok(self.uint8()? != 0)
    }

    /// Reads an id.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid(self.fixed()?))
    }

    /// Reads an unsigned varint of at most 5 bytes.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let value = self.unsigned_varint_of(5)?;
        u32::try_from(value).map_err(|_| DecodeError::OverlongVarint)
    }

    /// Reads a zigzag varint of at most 5 bytes.
    pub fn varint(&mut self) -> Result<i32, DecodeError> {
        let value = self.unsigned_varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Reads an unsigned varint of at most 10 bytes.
    pub fn unsigned_varlong(&mut self) -> Result<u64, DecodeError> {
        self.unsigned_varint_of(10)
    }

    /// Reads a zigzag varint of at most 10 bytes.
    pub fn varlong(&mut self) -> Result<i64, DecodeError> {
        let value = self.unsigned_varlong()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn unsigned_varint_of(&mut self, bytes_max: u32) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for index in 0..bytes_max {
            let byte = self.uint8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit only.
            if index == 9 && bits > 1 {
                return Err(DecodeError::OverlongVarint);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::OverlongVarint)
    }

    /// A length in the current form; `None` is null.
    fn length(&mut self, classic_is_short: bool) -> Result<Option<usize>, DecodeError> {
        if self.flexible {
            return Ok((self.unsigned_varint()? as usize).checked_sub(1));
        }
        let length = if classic_is_short {
            i32::from(self.int16()?)
        } else {
            self.int32()?
        };
        match length {
            -1 => Ok(None),
            _ => match usize::try_from(length) {
                Ok(length) => Ok(Some(length)),
                Err(_) => Err(DecodeError::NegativeLength(length)),
            },
        }
    }

    /// Reads text.
    pub fn string(&mut self) -> Result<Str<'a>, DecodeError> {
        self.nullable_string(false)?
            .ok_or(DecodeError::UnexpectedNull)
    }

    /// Reads text that may be null if `allowed`.
    pub fn nullable_string(&mut self, allowed: bool) -> Result<Option<Str<'a>>, DecodeError> {
        let length = self.length(true)?;
        self.text(length, allowed)
    }

    /// Reads nullable text whose length is an int16 even in flexible versions.
    pub fn classic_nullable_string(
        &mut self,
        allowed: bool,
    ) -> Result<Option<Str<'a>>, DecodeError> {
        let flexible = std::mem::replace(&mut self.flexible, false);
        let length = self.length(true);
        self.flexible = flexible;
        self.text(length?, allowed)
    }

    fn text(
        &mut self,
        length: Option<usize>,
        allowed: bool,
    ) -> Result<Option<Str<'a>>, DecodeError> {
        let Some(length) = length else {
            return null_if(allowed);
        };
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8)?;
        Ok(Some(Cow::Borrowed(text)))
    }

    /// Reads bytes.
    pub fn bytes(&mut self) -> Result<Bytes<'a>, DecodeError> {
        self.nullable_bytes(false)?
            .ok_or(DecodeError::UnexpectedNull)
    }

    /// Reads bytes that may be null if `allowed`.
    pub fn nullable_bytes(&mut self, allowed: bool) -> Result<Option<Bytes<'a>>, DecodeError> {
        let Some(length) = self.length(false)? else {
            return null_if(allowed);
        };
        Ok(Some(Cow::Borrowed(self.take(length)?)))
    }

    /// Reads record batches; every negative length is null here, whatever the version allows.
    pub fn records(&mut self) -> Result<Records<'a>, DecodeError> {
        let length = match self.length(false) {
            Err(DecodeError::NegativeLength(_)) => None,
            length => length?,
        };
        Ok(match length {
            None => Records::Null,
            Some(length) => Records::Bytes(self.take(length)?),
        })
    }

    /// Reads an array.
    pub fn array<T: Element<'a>>(&mut self, version: i16) -> Result<Vec<T>, DecodeError> {
        self.nullable_array(version, false)?
            .ok_or(DecodeError::UnexpectedNull)
    }

    /// Reads an array that may be null if `allowed`.
    pub fn nullable_array<T: Element<'a>>(
        &mut self,
        version: i16,
        allowed: bool,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        const { assert!(size_of::<T>() <= ELEMENT_BYTES_PER_INPUT_BYTE_MAX * T::MINIMUM_BYTES) };
        let Some(count) = self.array_count(T::MINIMUM_BYTES)? else {
            return null_if(allowed);
        };
        let mut elements = Vec::new();
        for index in 0..count {
            if index == elements.capacity() {
                // At most twice of what was decoded so far, and never more than announced.
                let more = index.max(ARRAY_ELEMENTS_INITIAL_MAX).min(count - index);
                elements.reserve_exact(more);
            }
            elements.push(T::read(self, version)?);
        }
        Ok(Some(elements))
    }

    fn array_count(&mut self, minimum_bytes: usize) -> Result<Option<usize>, DecodeError> {
        let Some(count) = self.length(false)? else {
            return Ok(None);
        };
        if count > ARRAY_ELEMENTS_MAX {
            return Err(DecodeError::ArrayTooLong(count));
        }
        let needed = count * minimum_bytes;
        if needed > self.rest.len() {
            return Err(DecodeError::Truncated {
                needed,
                remaining: self.rest.len(),
            });
        }
        Ok(Some(count))
    }

    /// Reads a structure behind the marker that tells whether it is null; without a marker if null
    /// is not `allowed`.
    pub fn nullable_structure<T: Element<'a>>(
        &mut self,
        version: i16,
        allowed: bool,
    ) -> Result<Option<T>, DecodeError> {
        if allowed && self.int8()? < 0 {
            return Ok(None);
        }
        T::read(self, version).map(Some)
    }

    /// Reads the tagged fields of a structure, if the version has any: `known` reads the field of
    /// a tag, or returns false to have it skipped.
    pub fn tags(
        &mut self,
        known: &mut dyn FnMut(&mut Reader<'a>, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.unsigned_varint()?;
        if count > TAGGED_FIELDS_MAX {
            return Err(DecodeError::TooManyTags(count));
        }
        let mut previous = None;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            match previous {
                Some(previous) if tag == previous => return Err(DecodeError::DuplicateTag(tag)),
                Some(previous) if tag < previous => return Err(DecodeError::UnsortedTag(tag)),
                _ => previous = Some(tag),
            }
            let size = self.unsigned_varint()? as usize;
            let mut field = Reader {
                rest: self.take(size)?,
                flexible: true,
            };
            if known(&mut field, tag)? {
                field.expect_end()?;
            }
        }
        Ok(())
    }

    /// Skips the tagged fields of a structure that knows none.
    pub fn skip_tags(&mut self) -> Result<(), DecodeError> {
        self.tags(&mut |_, _| Ok(false))
    }
}

fn null_if<T>(allowed: bool) -> Result<Option<T>, DecodeError> {
    if allowed {
        Ok(None)
    } else {
        Err(DecodeError::UnexpectedNull)
    }
}

/// A place in the head of a [`Writer`] where the sender inserts bytes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Where in the head: before the byte of this index.
    pub position: usize,
    /// Bytes to insert.
    pub length: usize,
}

/// Collects the bytes of frames.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    head: Vec<u8>,
    gaps: Vec<Gap>,
    flexible: bool,
}

macro_rules! write_integers {
    ($($name:ident $type:ident),*) => {$(
        #[doc = concat!("Writes a big-endian `", stringify!($type), "`.")]
        pub fn $name(&mut self, value: $type) {
            self.head.extend_from_slice(&value.to_be_bytes());
        }
    )*};
}

impl Writer {
    /// Starts with an empty head.
    #[must_use]
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Appends to `head`, so that its memory can be used again.
    #[must_use]
    pub fn with_head(head: Vec<u8>) -> Writer {
        Writer {
            head,
            gaps: Vec::new(),
            flexible: false,
        }
    }

    /// Chooses between classic and compact lengths.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Everything but what belongs into the gaps.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Where the sender inserts bytes, in ascending order.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The head and its gaps.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<Gap>) {
        (self.head, self.gaps)
    }

    /// Bytes that will be sent: head and gaps.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.head.len() + self.gaps.iter().map(|gap| gap.length).sum::<usize>()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.head.clear();
        self.gaps.clear();
        self.flexible = false;
    }

    /// Overwrites four bytes of the head at `position`.
    pub(super) fn patch_int32(&mut self, position: usize, value: i32) {
        self.head[position..position + 4].copy_from_slice(&value.to_be_bytes());
    }

    write_integers!(int8 i8, int16 i16, int32 i32, int64 i64, uint8 u8, uint16 u16, uint32 u32, float64 f64);

    /// Writes a boolean.
    pub fn boolean(&mut self, value: bool) {
        self.head.push(u8::from(value));
    }

    /// Writes an id.
    pub fn uuid(&mut self, value: Uuid) {
        self.head.extend_from_slice(&value.0);
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.head.extend_from_slice(bytes);
    }

    /// Writes an unsigned varint.
    pub fn unsigned_varint(&mut self, value: u32) {
        self.unsigned_varlong(u64::from(value));
    }

    /// Writes a zigzag varint.
    pub fn varint(&mut self, value: i32) {
        self.unsigned_varint(((value << 1) ^ (value >> 31)).cast_unsigned());
    }

    /// Writes an unsigned varint of 64 bits.
    pub fn unsigned_varlong(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.head.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.head.push(value as u8);
    }

    /// Writes a zigzag varint of 64 bits.
    pub fn varlong(&mut self, value: i64) {
        self.unsigned_varlong(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// Writes a length in the current form; `None` is null.
    fn length(&mut self, length: Option<usize>, classic_is_short: bool) {
        if self.flexible {
            // A frame has at most 2^31-1 bytes; `frame` refuses longer ones.
            return self.unsigned_varint(length.map_or(0, |length| length as u32 + 1));
        }
        let length = length.map_or(-1, |length| length as i32);
        if classic_is_short {
            self.int16(length as i16)
        } else {
            self.int32(length)
        }
    }

    /// Writes text. The classic form has room for [`CLASSIC_STRING_BYTES_MAX`] bytes: what is
    /// longer (it can only have come in through a compact one) is cut.
    pub fn string(&mut self, text: &str) {
        let text = if self.flexible {
            text
        } else {
            classic_text(text)
        };
        self.length(Some(text.len()), true);
        self.head.extend_from_slice(text.as_bytes());
    }

    /// Writes text that may be null if `allowed`; a null that is not becomes the empty text.
    pub fn nullable_string(&mut self, text: Option<&str>, allowed: bool) {
        match text {
            None if allowed => self.length(None, true),
            text => self.string(text.unwrap_or_default()),
        }
    }

    /// Writes nullable text whose length is an int16 even in flexible versions.
    pub fn classic_nullable_string(&mut self, text: Option<&str>, allowed: bool) {
        let flexible = std::mem::replace(&mut self.flexible, false);
        self.nullable_string(text, allowed);
        self.flexible = flexible;
    }

    /// Writes bytes behind their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.length(Some(bytes.len()), false);
        self.head.extend_from_slice(bytes);
    }

    /// Writes bytes that may be null if `allowed`; a null that is not becomes empty.
    pub fn nullable_bytes(&mut self, bytes: Option<&[u8]>, allowed: bool) {
        match bytes {
            None if allowed => self.length(None, false),
            bytes => self.bytes(bytes.unwrap_or_default()),
        }
    }

    /// Writes record batches, or their length and a gap for them; a null that is not `allowed`
    /// becomes empty.
    pub fn records(&mut self, records: Records<'_>, allowed: bool) {
        match records {
            Records::Null if allowed => self.length(None, false),
            Records::Null => self.bytes(&[]),
            Records::Bytes(bytes) => self.bytes(bytes),
            Records::Detached(length) => {
                self.length(Some(length), false);
                if length > 0 {
                    self.gaps.push(Gap {
                        position: self.head.len(),
                        length,
                    });
                }
            }
        }
    }

    /// Writes an array.
    pub fn array<'a, T: Element<'a>>(&mut self, elements: &[T], version: i16) {
        self.length(Some(elements.len()), false);
        for element in elements {
            element.write(self, version);
        }
    }

    /// Writes an array that may be null if `allowed`; a null that is not becomes empty.
    pub fn nullable_array<'a, T: Element<'a>>(
        &mut self,
        elements: Option<&[T]>,
        version: i16,
        allowed: bool,
    ) {
        match elements {
            None if allowed => self.length(None, false),
            elements => self.array(elements.unwrap_or_default(), version),
        }
    }

    /// Writes a structure behind its null marker, or without one if null is not `allowed`: then a
    /// null becomes the default.
    pub fn nullable_structure<'a, T: Element<'a> + Default>(
        &mut self,
        value: Option<&T>,
        version: i16,
        allowed: bool,
    ) {
        if allowed {
            self.int8(if value.is_some() { 1 } else { -1 });
        }
        match value {
            Some(value) => value.write(self, version),
            None if allowed => {}
            None => T::default().write(self, version),
        }
    }

    /// Opens the section of tagged fields, if the version has one: the result goes to
    /// [`Writer::tag`].
    pub fn begin_tags(&mut self) -> TagSection {
        if self.flexible {
            self.head.push(0);
        }
        TagSection {
            position: self.head.len().wrapping_sub(1),
        }
    }

    /// Writes one tagged field; tags must ascend.
    pub fn tag(&mut self, section: &TagSection, tag: u32, write: &mut dyn FnMut(&mut Writer)) {
        if !self.flexible {
            return;
        }
        let count = &mut self.head[section.position];
        assert!(
            *count < 0x7f,
            "no structure of the tables has that many tags"
        );
        *count += 1;
        self.unsigned_varint(tag);
        let (start, gaps) = (self.head.len(), self.gaps.len());
        write(self);
        assert_eq!(self.gaps.len(), gaps, "records are never tagged");
        // The size stands before the field but is known only now.
        let end = self.head.len();
        self.unsigned_varint((end - start) as u32);
        let size_bytes = self.head.len() - end;
        self.head[start..].rotate_right(size_bytes);
    }
}

/// Where a structure counts its tagged fields.
#[derive(Debug)]
pub struct TagSection {
    position: usize,
}

fn classic_text(text: &str) -> &str {
    &text[..text.floor_char_boundary(CLASSIC_STRING_BYTES_MAX)]
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
