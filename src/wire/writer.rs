//! Writing: the head of frames, and the gaps in it. Used through `codec`.

use super::codec::{CLASSIC_STRING_BYTES_MAX, Element, Records, Uuid};

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

    /// Writes a structure that may be null in a tagged field: its marker is a varint.
    pub fn tagged_structure<'a, T: Element<'a>>(&mut self, value: Option<&T>, version: i16) {
        self.unsigned_varint(u32::from(value.is_some()));
        if let Some(value) = value {
            value.write(self, version);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::Reader;

    fn written(flexible: bool, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.set_flexible(flexible);
        write(&mut writer);
        writer.into_parts().0
    }

    #[test]
    fn varints_come_back() {
        for value in [0, 1, -1, 63, -64, 64, 8191, i32::MAX, i32::MIN] {
            let bytes = written(false, |writer| writer.varint(value));
            assert_eq!(Reader::new(&bytes).varint(), Ok(value));
        }
        for value in [0, 1, -1, i64::from(i32::MIN), i64::MAX, i64::MIN] {
            let bytes = written(false, |writer| writer.varlong(value));
            assert_eq!(Reader::new(&bytes).varlong(), Ok(value));
        }
        assert_eq!(
            written(false, |writer| writer.unsigned_varint(300)),
            [0xac, 0x02]
        );
        assert_eq!(
            written(false, |writer| writer.unsigned_varlong(u64::MAX)).len(),
            10
        );
    }

    #[test]
    fn null_is_written_where_allowed_and_empty_elsewhere() {
        assert_eq!(
            written(false, |writer| writer.nullable_string(None, true)),
            [0xff, 0xff]
        );
        assert_eq!(
            written(false, |writer| writer.nullable_string(None, false)),
            [0, 0]
        );
        assert_eq!(
            written(true, |writer| writer.nullable_string(None, true)),
            [0]
        );
        assert_eq!(
            written(true, |writer| writer.nullable_string(None, false)),
            [1]
        );
        assert_eq!(
            written(true, |writer| writer.nullable_string(Some("a"), false)),
            [2, b'a']
        );
        assert_eq!(
            written(false, |writer| writer.nullable_bytes(None, true)),
            [0xff; 4]
        );
        assert_eq!(
            written(true, |writer| writer.nullable_bytes(None, false)),
            [1]
        );
        assert_eq!(
            written(true, |writer| writer.nullable_array::<i8>(None, 0, true)),
            [0]
        );
        assert_eq!(
            written(true, |writer| writer.nullable_array::<i8>(None, 0, false)),
            [1]
        );
        assert_eq!(
            written(true, |writer| writer.records(Records::Null, true)),
            [0]
        );
        assert_eq!(
            written(true, |writer| writer.records(Records::Null, false)),
            [1]
        );
        let structure = |value: Option<i16>, allowed| {
            written(true, |writer| {
                writer.nullable_structure(value.as_ref(), 0, allowed)
            })
        };
        assert_eq!(structure(None, true), [0xff]);
        assert_eq!(structure(Some(5), true), [1, 0, 5]);
        assert_eq!(structure(None, false), [0, 0]);
        let tagged =
            |value: Option<i16>| written(true, |writer| writer.tagged_structure(value.as_ref(), 0));
        assert_eq!(tagged(None), [0]);
        assert_eq!(tagged(Some(5)), [1, 0, 5]);
    }

    #[test]
    fn detached_records_leave_a_gap_behind_their_length() {
        let mut writer = Writer::new();
        writer.int8(1);
        writer.records(Records::Detached(300), true);
        writer.int8(2);
        writer.set_flexible(true);
        writer.records(Records::Detached(300), true);
        writer.records(Records::Detached(0), true);
        assert_eq!(writer.head(), [1, 0, 0, 1, 44, 2, 0xad, 0x02, 1]);
        let gap = |position| Gap {
            position,
            length: 300,
        };
        assert_eq!(writer.gaps(), [gap(5), gap(8)]);
        assert_eq!(writer.size_bytes(), 609);
        writer.clear();
        assert_eq!((writer.size_bytes(), writer.gaps().len()), (0, 0));
    }

    #[test]
    fn tags_are_counted_and_sized() {
        let bytes = written(true, |writer| {
            let tags = writer.begin_tags();
            writer.tag(&tags, 1, &mut |writer| writer.int16(5));
            writer.tag(&tags, 300, &mut |writer| writer.bytes(&[9; 200]));
        });
        assert_eq!(bytes[..8], [2, 1, 2, 0, 5, 0xac, 0x02, 0xca]);
        assert_eq!(bytes.len(), 5 + 2 + 2 + 202);
        let mut reader = Reader::new(&bytes);
        reader.set_flexible(true);
        assert_eq!(reader.skip_tags(), Ok(()));
        assert_eq!(reader.expect_end(), Ok(()));

        let classic = written(false, |writer| {
            let tags = writer.begin_tags();
            writer.tag(&tags, 1, &mut |writer| writer.int16(5));
        });
        assert!(classic.is_empty(), "the classic form has none");
    }

    #[test]
    fn long_text_is_cut_between_characters_in_the_classic_form_only() {
        let text = "\u{20ac}".repeat(20_000);
        let bytes = written(false, |writer| writer.string(&text));
        assert_eq!(bytes.len(), 2 + 32_766);
        assert_eq!(Reader::new(&bytes).string().expect("text").len(), 32_766);
        let bytes = written(true, |writer| writer.string(&text));
        assert_eq!(bytes.len(), 3 + 60_000);
    }

    #[test]
    fn memory_of_a_head_can_be_used_again() {
        let mut writer = Writer::with_head(vec![1, 2]);
        writer.raw(&[3]);
        writer.uuid(Uuid([4; 16]));
        writer.boolean(true);
        assert_eq!(writer.head()[..4], [1, 2, 3, 4]);
        assert_eq!(writer.head().len(), 20);
    }
}
