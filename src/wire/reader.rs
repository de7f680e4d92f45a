//! Reading: a cursor over the bytes of one frame. Used through `codec`.

use std::borrow::Cow;

use super::codec::{
    ARRAY_ELEMENTS_INITIAL_MAX, ARRAY_ELEMENTS_MAX, Bytes, DecodeError,
    ELEMENT_BYTES_PER_INPUT_BYTE_MAX, Element, Records, Str, TAGGED_FIELDS_MAX, Uuid,
};

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

    /// Reads a structure that may be null in a tagged field: its marker is a varint.
    pub fn tagged_structure<T: Element<'a>>(
        &mut self,
        version: i16,
    ) -> Result<Option<T>, DecodeError> {
        if self.unsigned_varint()? == 0 {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn flexible(bytes: &[u8]) -> Reader<'_> {
        let mut reader = Reader::new(bytes);
        reader.set_flexible(true);
        reader
    }

    #[test]
    fn varints_end_where_their_type_does() {
        let read = |bytes: &[u8]| Reader::new(bytes).unsigned_varint();
        assert_eq!(read(&[0]), Ok(0));
        assert_eq!(read(&[0xff, 0x7f]), Ok(0x3fff));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
        // More bytes than needed are what Kafka accepts too, more bits than fit are not.
        assert_eq!(read(&[0x80, 0x80, 0]), Ok(0));
        assert_eq!(
            read(&[0xff, 0xff, 0xff, 0xff, 0x1f]),
            Err(DecodeError::OverlongVarint)
        );
        assert_eq!(
            read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]),
            Err(DecodeError::OverlongVarint)
        );
        assert_eq!(
            read(&[0x80]),
            Err(DecodeError::Truncated {
                needed: 1,
                remaining: 0
            })
        );

        let read = |bytes: &[u8]| Reader::new(bytes).unsigned_varlong();
        let mut bytes = [0xff; 10];
        bytes[9] = 0x01;
        assert_eq!(read(&bytes), Ok(u64::MAX));
        bytes[9] = 0x02;
        assert_eq!(read(&bytes), Err(DecodeError::OverlongVarint));
        assert_eq!(read(&[0x80; 11]), Err(DecodeError::OverlongVarint));
    }

    #[test]
    fn zigzag_puts_the_sign_last() {
        for (byte, value) in [(0, 0), (1, -1), (2, 1), (3, -2), (0x7f, -64)] {
            assert_eq!(Reader::new(&[byte]).varint(), Ok(value));
            assert_eq!(Reader::new(&[byte]).varlong(), Ok(i64::from(value)));
        }
        let least = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(Reader::new(&least).varint(), Ok(i32::MIN));
    }

    #[test]
    fn text_is_borrowed_checked_and_null_only_where_allowed() {
        let bytes = [0, 2, b'o', b'k'];
        assert!(matches!(
            Reader::new(&bytes).string(),
            Ok(Cow::Borrowed("ok"))
        ));
        assert_eq!(Reader::new(&[0xff, 0xff]).nullable_string(true), Ok(None));
        assert_eq!(
            Reader::new(&[0xff, 0xff]).string(),
            Err(DecodeError::UnexpectedNull)
        );
        assert_eq!(
            Reader::new(&[0xff, 0xfe]).string(),
            Err(DecodeError::NegativeLength(-2))
        );
        assert_eq!(
            Reader::new(&[0, 1, 0xff]).string(),
            Err(DecodeError::InvalidUtf8)
        );
        let cut = DecodeError::Truncated {
            needed: 3,
            remaining: 2,
        };
        assert_eq!(Reader::new(&[0, 3, b'o', b'k']).string(), Err(cut));

        assert_eq!(flexible(&[3, b'o', b'k']).string().as_deref(), Ok("ok"));
        assert_eq!(flexible(&[1]).string().as_deref(), Ok(""));
        assert_eq!(flexible(&[0]).nullable_string(true), Ok(None));
        assert_eq!(
            flexible(&[0]).nullable_string(false),
            Err(DecodeError::UnexpectedNull)
        );
        let mut reader = flexible(&[0, 1, b'x', 2, b'y']);
        assert_eq!(reader.classic_nullable_string(true), Ok(Some("x".into())));
        assert_eq!(reader.string().as_deref(), Ok("y"));
    }

    #[test]
    fn records_of_any_negative_length_are_null() {
        for length in [-1_i32, -2, i32::MIN] {
            assert_eq!(
                Reader::new(&length.to_be_bytes()).records(),
                Ok(Records::Null)
            );
        }
        assert_eq!(flexible(&[0]).records(), Ok(Records::Null));
        assert_eq!(flexible(&[1]).records(), Ok(Records::Bytes(&[])));
        assert_eq!(
            Reader::new(&[0, 0, 0, 1, 7]).records(),
            Ok(Records::Bytes(&[7]))
        );
        let cut = DecodeError::Truncated {
            needed: i32::MAX as usize,
            remaining: 1,
        };
        assert_eq!(
            Reader::new(&[0x7f, 0xff, 0xff, 0xff, 7]).records(),
            Err(cut)
        );
    }

    #[test]
    fn array_counts_are_checked_before_anything_is_allocated() {
        let count = |count: i32| count.to_be_bytes();
        let long = DecodeError::ArrayTooLong(1_000_001);
        assert_eq!(Reader::new(&count(1_000_001)).array::<i8>(0), Err(long));
        let cut = DecodeError::Truncated {
            needed: 4_000_000,
            remaining: 0,
        };
        assert_eq!(Reader::new(&count(1_000_000)).array::<i32>(0), Err(cut));
        assert_eq!(
            Reader::new(&count(-1)).array::<i8>(0),
            Err(DecodeError::UnexpectedNull)
        );
        assert_eq!(
            Reader::new(&count(-1)).nullable_array::<i8>(0, true),
            Ok(None)
        );
        assert_eq!(
            Reader::new(&count(-9)).array::<i8>(0),
            Err(DecodeError::NegativeLength(-9))
        );
        assert_eq!(
            Reader::new(&[0, 0, 0, 2, 5, 6]).array::<i8>(0),
            Ok(vec![5, 6])
        );
        assert_eq!(flexible(&[3, 5, 6]).array::<i8>(0), Ok(vec![5, 6]));
        assert_eq!(flexible(&[0]).nullable_array::<i8>(0, true), Ok(None));
        let cut = DecodeError::Truncated {
            needed: 2,
            remaining: 1,
        };
        assert_eq!(flexible(&[3, 5]).array::<i8>(0), Err(cut));
    }

    #[test]
    fn vectors_hold_no_more_than_was_announced() {
        let mut bytes = 2_500_i32.to_be_bytes().to_vec();
        bytes.resize(4 + 2_500, 1);
        let elements = Reader::new(&bytes).array::<i8>(0).expect("an array");
        assert_eq!((elements.len(), elements.capacity()), (2_500, 2_500));
    }

    #[test]
    fn structures_are_null_behind_a_marker() {
        assert_eq!(
            Reader::new(&[0xff]).nullable_structure::<i16>(0, true),
            Ok(None)
        );
        assert_eq!(
            Reader::new(&[1, 0, 5]).nullable_structure::<i16>(0, true),
            Ok(Some(5))
        );
        assert_eq!(
            Reader::new(&[0, 5]).nullable_structure::<i16>(0, false),
            Ok(Some(5))
        );
        assert_eq!(flexible(&[0]).tagged_structure::<i16>(0), Ok(None));
        assert_eq!(flexible(&[1, 0, 5]).tagged_structure::<i16>(0), Ok(Some(5)));
    }

    #[test]
    fn tags_ascend_and_fill_their_size() {
        let read = |bytes: &[u8]| {
            let mut seen = Vec::new();
            let result = flexible(bytes).tags(&mut |field, tag| {
                let known = tag < 5;
                if known {
                    seen.push((tag, field.int8()?));
                }
                Ok(known)
            });
            result.map(|()| seen)
        };
        assert_eq!(read(&[0]), Ok(vec![]));
        assert_eq!(read(&[2, 0, 1, 7, 3, 1, 8]), Ok(vec![(0, 7), (3, 8)]));
        assert_eq!(read(&[2, 0, 1, 7, 9, 3, 1, 2, 3]), Ok(vec![(0, 7)]));
        assert_eq!(
            read(&[2, 3, 1, 7, 3, 1, 8]),
            Err(DecodeError::DuplicateTag(3))
        );
        assert_eq!(read(&[2, 9, 0, 9, 0]), Err(DecodeError::DuplicateTag(9)));
        assert_eq!(
            read(&[2, 3, 1, 7, 2, 1, 8]),
            Err(DecodeError::UnsortedTag(2))
        );
        assert_eq!(read(&[1, 0, 2, 7, 7]), Err(DecodeError::TrailingBytes(1)));
        let cut = DecodeError::Truncated {
            needed: 1,
            remaining: 0,
        };
        assert_eq!(read(&[1, 0, 0]), Err(cut));
        let cut = DecodeError::Truncated {
            needed: 5,
            remaining: 1,
        };
        assert_eq!(read(&[1, 9, 5, 0]), Err(cut));
        assert_eq!(read(&[0x91, 0x4e]), Err(DecodeError::TooManyTags(10_001)));
        assert_eq!(
            Reader::new(&[]).skip_tags(),
            Ok(()),
            "the classic form has none"
        );
    }

    #[test]
    fn what_is_left_is_an_error_only_if_asked() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.boolean(), Ok(true));
        assert_eq!(reader.expect_end(), Err(DecodeError::TrailingBytes(2)));
        assert_eq!(reader.remaining(), [2, 3]);
        assert_eq!(reader.int16(), Ok(0x0203));
        assert_eq!(reader.expect_end(), Ok(()));
        assert_eq!(DecodeError::TrailingBytes(2).reason(), "trailing_bytes");
    }
}
