//! Little-endian reading and writing of our own formats, with bounds.

/// The bytes ended early or do not make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed at byte {0}")]
pub struct Malformed(pub usize);

/// Reads fields one after the other.
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { bytes, at: 0 }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        if count > self.remaining() {
            return Err(Malformed(self.at));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.take(N)?.try_into().expect("took N"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little-endian.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian, signed.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian, signed.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A count of elements of at least `element_bytes` each: never more than can follow.
    pub fn count(&mut self, element_bytes: usize) -> Result<usize, Malformed> {
        let at = self.at;
        let count = self.u32()? as usize;
        if count > self.remaining() / element_bytes {
            return Err(Malformed(at));
        }
        Ok(count)
    }

    /// Text with its length in two bytes.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let at = self.at;
        let length = usize::try_from(self.i16()?).map_err(|_| Malformed(at))?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed(at))
    }
}

/// Appends text with its length in two bytes.
///
/// # Panics
/// Beyond 32,767 bytes; names are far shorter.
pub fn put_text(into: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).expect("names are short");
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(text.as_bytes());
}

/// Appends a count of elements.
pub fn put_count(into: &mut Vec<u8>, count: usize) {
    into.extend_from_slice(&u32::try_from(count).expect("bounded").to_le_bytes());
}
