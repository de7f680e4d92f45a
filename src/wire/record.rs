//! Records inside a batch: borrowed parsing, a walk over a stream that holds none of them, and
//! the varints both need.

use super::compression::Decompressor;
use super::record_batch::BatchError;

/// Most bytes of a varint of 32 bits.
const VARINT_BYTES: u32 = 5;
/// Most bytes of a varint of 64 bits.
const VARLONG_BYTES: u32 = 10;
/// What a walk over compressed records holds of them at any time.
const WINDOW_BYTES: usize = 8 * 1024;

const OVERLONG: BatchError = BatchError::BadRecord("varint is too long");
const SHORT: BatchError = BatchError::BadRecord("record ends early");
const EARLY_END: BatchError = BatchError::BadRecord("fewer records than the batch counts");
const LEFT_OVER: BatchError = BatchError::BadRecord("bytes behind the last record");
const BODY_LENGTH: BatchError = BatchError::BadRecord("record length does not match its fields");
const NEGATIVE: BatchError = BatchError::BadRecord("negative length");

/// Where the fields of records come from, one byte or one skip at a time.
trait Source {
    fn byte(&mut self) -> Result<u8, BatchError>;
}

fn varint(source: &mut impl Source) -> Result<i32, BatchError> {
    let raw = unsigned(source, VARINT_BYTES)?;
    let raw = u32::try_from(raw).map_err(|_| OVERLONG)?;
    Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

fn varlong(source: &mut impl Source) -> Result<i64, BatchError> {
    let raw = unsigned(source, VARLONG_BYTES)?;
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

fn unsigned(source: &mut impl Source, bytes_max: u32) -> Result<u64, BatchError> {
    let mut value = 0u64;
    for index in 0..bytes_max {
        let byte = source.byte()?;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit only.
        if index == VARLONG_BYTES - 1 && bits > 1 {
            return Err(OVERLONG);
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(OVERLONG)
}

/// Appends `value` as a zigzag varint.
pub(super) fn put_varint(bytes: &mut Vec<u8>, value: i32) {
    put_varlong(bytes, i64::from(value));
}

/// Appends `value` as a zigzag varint of up to ten bytes.
pub(super) fn put_varlong(bytes: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
}

/// Bytes that `value` takes as a zigzag varint.
pub(super) fn varint_size_bytes(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (raw | 1).leading_zeros()).div_ceil(7) as usize
}

/// Reads fields off the front of a slice.
#[derive(Clone, Copy, Debug)]
struct Fields<'a> {
    rest: &'a [u8],
}

impl Source for Fields<'_> {
    fn byte(&mut self) -> Result<u8, BatchError> {
        let (first, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*first)
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BatchError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Bytes behind a length; any negative length is null, as in Kafka.
    fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, BatchError> {
        match usize::try_from(varint(self)?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn header(&mut self) -> Result<Header<'a>, BatchError> {
        let length = usize::try_from(varint(self)?).map_err(|_| NEGATIVE)?;
        Ok(Header {
            key: self.take(length)?,
            value: self.nullable_bytes()?,
        })
    }
}

/// One header of a record. Keys are UTF-8 by convention; nobody checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its name.
    pub key: &'a [u8],
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// One record, borrowed from its batch; all lengths were checked.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// Its timestamp less the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; null in a tombstone.
    pub value: Option<&'a [u8]>,
    header_count: i32,
    headers: Fields<'a>,
}

impl<'a> Record<'a> {
    /// Takes one record off the front of `fields`.
    fn take(fields: &mut Fields<'a>) -> Result<Record<'a>, BatchError> {
        let length = usize::try_from(varint(fields)?).map_err(|_| NEGATIVE)?;
        let mut body = Fields {
            rest: fields.take(length)?,
        };
        let _attributes = body.byte()?;
        let timestamp_delta = varlong(&mut body)?;
        let offset_delta = varint(&mut body)?;
        let key = body.nullable_bytes()?;
        let value = body.nullable_bytes()?;
        let header_count = varint(&mut body)?;
        if header_count < 0 {
            return Err(NEGATIVE);
        }
        let headers = body;
        // Every header takes at least two bytes, so a lying count ends with the body.
        for _ in 0..header_count {
            body.header()?;
        }
        if !body.rest.is_empty() {
            return Err(BODY_LENGTH);
        }
        Ok(Record {
            offset_delta,
            timestamp_delta,
            key,
            value,
            header_count,
            headers,
        })
    }

    /// Number of its headers.
    #[must_use]
    pub fn header_count(&self) -> usize {
        self.header_count as usize
    }

    /// Its headers, in order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = Header<'a>> + Clone + use<'a> {
        let mut fields = self.headers;
        (0..self.header_count as usize)
            .map(move |_| fields.header().expect("checked when the record was parsed"))
    }
}

/// The records of a payload that is not compressed. Yields exactly the counted number of records,
/// or an error and then nothing.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    fields: Fields<'a>,
    remaining: i32,
    is_done: bool,
}

impl<'a> Records<'a> {
    /// `count` records in `payload`, which must hold nothing else.
    #[must_use]
    pub fn new(payload: &'a [u8], count: i32) -> Records<'a> {
        Records {
            fields: Fields { rest: payload },
            remaining: count.max(0),
            is_done: false,
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let item = match (self.remaining, self.fields.rest.is_empty()) {
            (0, true) => None,
            (0, false) => Some(Err(LEFT_OVER)),
            (_, true) => Some(Err(EARLY_END)),
            (_, false) => Some(Record::take(&mut self.fields)),
        };
        self.remaining -= 1;
        self.is_done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// What validation needs to know of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordOutline {
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// Its timestamp less the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Whether it has a key.
    pub has_key: bool,
}

impl From<&Record<'_>> for RecordOutline {
    fn from(record: &Record<'_>) -> RecordOutline {
        RecordOutline {
            offset_delta: record.offset_delta,
            timestamp_delta: record.timestamp_delta,
            has_key: record.key.is_some(),
        }
    }
}

/// Walks compressed records as they come out of the decompressor, without ever holding more than
/// a window of them. Same rules as [`Records`].
pub struct RecordOutlines<'a> {
    stream: Stream<'a>,
    remaining: i32,
    is_done: bool,
}

struct Stream<'a> {
    input: Decompressor<'a>,
    window: Vec<u8>,
    start: usize,
    end: usize,
    /// What is left of the record being read; lengths beyond it are refused before any skip.
    body_left: u64,
}

impl Stream<'_> {
    fn refill(&mut self) -> Result<bool, BatchError> {
        assert_eq!(
            self.start, self.end,
            "refilled only when the window is used up"
        );
        let count = self.input.read(&mut self.window)?;
        self.start = 0;
        self.end = count;
        Ok(count > 0)
    }

    fn is_at_end(&mut self) -> Result<bool, BatchError> {
        Ok(self.start == self.end && !self.refill()?)
    }

    fn skip(&mut self, count: u64) -> Result<(), BatchError> {
        if count > self.body_left {
            return Err(SHORT);
        }
        self.body_left -= count;
        let mut left = count;
        while left > 0 {
            if self.is_at_end()? {
                return Err(SHORT);
            }
            let step = left.min((self.end - self.start) as u64);
            self.start += step as usize;
            left -= step;
        }
        Ok(())
    }

    /// Skips bytes behind a length and says whether they are not null.
    fn skip_nullable(&mut self) -> Result<bool, BatchError> {
        match u64::try_from(varint(self)?) {
            Ok(length) => self.skip(length).map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

impl Source for Stream<'_> {
    fn byte(&mut self) -> Result<u8, BatchError> {
        if self.body_left == 0 || self.is_at_end()? {
            return Err(SHORT);
        }
        self.body_left -= 1;
        self.start += 1;
        Ok(self.window[self.start - 1])
    }
}

impl<'a> RecordOutlines<'a> {
    /// `count` records that come out of `input`, and nothing else.
    #[must_use]
    pub fn new(input: Decompressor<'a>, count: i32) -> RecordOutlines<'a> {
        let window = vec![0; WINDOW_BYTES];
        RecordOutlines {
            stream: Stream {
                input,
                window,
                start: 0,
                end: 0,
                body_left: 0,
            },
            remaining: count.max(0),
            is_done: false,
        }
    }

    fn outline(&mut self) -> Result<RecordOutline, BatchError> {
        let stream = &mut self.stream;
        stream.body_left = u64::from(VARINT_BYTES);
        let length = varint(stream)?;
        stream.body_left = u64::try_from(length).map_err(|_| NEGATIVE)?;
        let _attributes = stream.byte()?;
        let timestamp_delta = varlong(stream)?;
        let offset_delta = varint(stream)?;
        let has_key = stream.skip_nullable()?;
        stream.skip_nullable()?;
        let header_count = varint(stream)?;
        if header_count < 0 {
            return Err(NEGATIVE);
        }
        for _ in 0..header_count {
            let key_length = u64::try_from(varint(stream)?).map_err(|_| NEGATIVE)?;
            stream.skip(key_length)?;
            stream.skip_nullable()?;
        }
        if stream.body_left > 0 {
            return Err(BODY_LENGTH);
        }
        Ok(RecordOutline {
            offset_delta,
            timestamp_delta,
            has_key,
        })
    }

    fn step(&mut self) -> Result<Option<RecordOutline>, BatchError> {
        match (self.remaining, self.stream.is_at_end()?) {
            (0, true) => Ok(None),
            (0, false) => Err(LEFT_OVER),
            (_, true) => Err(EARLY_END),
            (_, false) => self.outline().map(Some),
        }
    }
}

impl Iterator for RecordOutlines<'_> {
    type Item = Result<RecordOutline, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let item = self.step().transpose();
        self.remaining -= 1;
        self.is_done = !matches!(item, Some(Ok(_)));
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_varint(bytes: &[u8]) -> Result<i32, BatchError> {
        varint(&mut Fields { rest: bytes })
    }

    fn read_varlong(bytes: &[u8]) -> Result<i64, BatchError> {
        varlong(&mut Fields { rest: bytes })
    }

    #[test]
    fn varints_round_trip_at_every_width_and_report_their_size() {
        let mut values: Vec<i64> = vec![0, -1, i64::MIN, i64::MAX];
        for shift in 0..63 {
            values.extend([1i64 << shift, -(1i64 << shift), (1i64 << shift) - 1]);
        }
        for value in values {
            let mut bytes = Vec::new();
            put_varlong(&mut bytes, value);
            assert_eq!(bytes.len(), varint_size_bytes(value), "{value}");
            assert_eq!(read_varlong(&bytes), Ok(value));
            match i32::try_from(value) {
                Ok(narrow) => assert_eq!(read_varint(&bytes), Ok(narrow)),
                Err(_) => assert_eq!(read_varint(&bytes), Err(OVERLONG)),
            }
        }
    }

    #[test]
    fn varints_that_are_overlong_or_cut_are_refused() {
        assert_eq!(read_varint(&[0xff; 6]), Err(OVERLONG));
        assert_eq!(read_varint(&[0xff, 0xff, 0xff, 0xff, 0x10]), Err(OVERLONG));
        assert_eq!(read_varint(&[0x80]), Err(SHORT));
        assert_eq!(read_varlong(&[0xff; 11]), Err(OVERLONG));
        let mut ten = [0xff; 10];
        ten[9] = 0x02;
        assert_eq!(read_varlong(&ten), Err(OVERLONG));
        ten[9] = 0x01;
        assert_eq!(read_varlong(&ten), Ok(i64::MIN));
    }

    /// One record with a key, a value and a header, delta zero.
    const RECORD: &[u8] = &[22, 0, 0, 0, 2, b'k', 4, b'v', b'w', 2, 2, b'h', 1];

    fn first(bytes: &[u8], count: i32) -> Result<(), BatchError> {
        let slices = Records::new(bytes, count).find_map(|record| record.err());
        let streamed =
            RecordOutlines::new(Decompressor::plain(bytes), count).find_map(|record| record.err());
        assert_eq!(
            slices.is_some(),
            streamed.is_some(),
            "both walks agree on {bytes:?}"
        );
        slices.map_or(Ok(()), Err)
    }

    #[test]
    fn both_walks_agree_on_a_record_and_on_every_cut_and_lie() {
        let mut good = RECORD.to_vec();
        good[0] = ((RECORD.len() - 1) * 2) as u8;
        let record = Records::new(&good, 1).next().unwrap().unwrap();
        assert_eq!(record.key, Some(&b"k"[..]));
        assert_eq!(record.value, Some(&b"vw"[..]));
        let headers: Vec<_> = record.headers().collect();
        assert_eq!(
            headers,
            [Header {
                key: b"h",
                value: None
            }]
        );
        assert_eq!(first(&good, 1), Ok(()));
        assert_eq!(first(&good, 2), Err(EARLY_END));
        assert_eq!(first(&good, 0), Err(LEFT_OVER));
        for cut in 1..good.len() {
            assert!(first(&good[..cut], 1).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            for lie in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = lie;
                let _ = first(&bytes, 1);
            }
        }
    }

    #[test]
    fn a_header_count_that_lies_ends_with_the_record() {
        let mut bytes = vec![0, 0, 0, 1, 1];
        put_varint(&mut bytes, i32::MAX);
        let mut record = Vec::new();
        put_varint(&mut record, bytes.len() as i32);
        record.extend_from_slice(&bytes);
        assert_eq!(first(&record, 1), Err(SHORT));
    }
}
