//! Snappy as Kafka's clients send it: raw blocks in the Xerial framing (snappy-java's), or one raw
//! block without any framing, as some clients do.

use super::compression::DecompressionError;

/// First bytes of the framing.
const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Magic, version and lowest compatible version.
const HEADER_BYTES: usize = 16;
const VERSION: u32 = 1;
/// Bytes of input per block, as snappy-java cuts them.
const BLOCK_BYTES: usize = 32 * 1024;
/// No block grows by more than this: the densest element makes 64 bytes of 3. So a block's
/// announced size says no more than its input allows.
const GROWTH_MAX: usize = 22;

const CORRUPT: DecompressionError = DecompressionError::Corrupt("snappy");

/// Compresses `input` into the Xerial framing.
pub(super) fn compress(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(HEADER_BYTES + input.len() / 2);
    output.extend(MAGIC);
    output.extend(VERSION.to_be_bytes());
    output.extend(VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK_BYTES) {
        let packed = encoder
            .compress_vec(block)
            .expect("a block is far below snappy's maximum");
        output.extend((packed.len() as u32).to_be_bytes());
        output.extend(packed);
    }
    output
}

/// Decompresses block by block.
pub(super) struct SnappyReader<'a> {
    rest: &'a [u8],
    is_framed: bool,
    limit_bytes: usize,
    block: Vec<u8>,
    position: usize,
}

impl<'a> SnappyReader<'a> {
    /// Over `input`; a block larger than `limit_bytes` is refused.
    pub(super) fn new(
        input: &'a [u8],
        limit_bytes: usize,
    ) -> Result<SnappyReader<'a>, DecompressionError> {
        let is_framed = input.starts_with(&MAGIC);
        let rest = if is_framed {
            without_header(input)?
        } else {
            input
        };
        Ok(SnappyReader {
            rest,
            is_framed,
            limit_bytes,
            block: Vec::new(),
            position: 0,
        })
    }

    /// Fills `output` from the front and says how far; 0 at the end.
    pub(super) fn read(&mut self, output: &mut [u8]) -> Result<usize, DecompressionError> {
        while self.position == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.next_block()?;
        }
        let count = output.len().min(self.block.len() - self.position);
        output[..count].copy_from_slice(&self.block[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }

    fn next_block(&mut self) -> Result<(), DecompressionError> {
        let packed = if self.is_framed {
            self.cut_block()?
        } else {
            std::mem::take(&mut self.rest)
        };
        let length = snap::raw::decompress_len(packed).map_err(|_| CORRUPT)?;
        if length > packed.len().saturating_mul(GROWTH_MAX) {
            return Err(CORRUPT);
        }
        if length > self.limit_bytes {
            return Err(DecompressionError::TooLarge {
                limit_bytes: self.limit_bytes,
            });
        }
        self.position = 0;
        self.block.resize(length, 0);
        let count = snap::raw::Decoder::new()
            .decompress(packed, &mut self.block)
            .map_err(|_| CORRUPT)?;
        self.block.truncate(count);
        Ok(())
    }

    /// The next block of the framing. Streams may be concatenated, each with a header.
    fn cut_block(&mut self) -> Result<&'a [u8], DecompressionError> {
        if self.rest.starts_with(&MAGIC) {
            self.rest = without_header(self.rest)?;
        }
        if self.rest.is_empty() {
            // What is not there decompresses to nothing: one byte says length zero.
            return Ok(&[0]);
        }
        let (length, rest) = self.rest.split_first_chunk().ok_or(CORRUPT)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (packed, rest) = rest.split_at_checked(length).ok_or(CORRUPT)?;
        self.rest = rest;
        Ok(packed)
    }
}

fn without_header(input: &[u8]) -> Result<&[u8], DecompressionError> {
    let (header, rest) = input.split_at_checked(HEADER_BYTES).ok_or(CORRUPT)?;
    let compatible = header.last_chunk().copied().map(u32::from_be_bytes);
    let version = header[MAGIC.len()..]
        .first_chunk()
        .copied()
        .map(u32::from_be_bytes);
    // snappy-java refuses versions below the first compatible one and checks nothing else.
    if version < Some(VERSION) || compatible.is_none() {
        return Err(CORRUPT);
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::super::compression::Codec;
    use super::*;

    fn decompress(input: &[u8]) -> Result<Vec<u8>, DecompressionError> {
        Codec::Snappy.decompress(input, 1 << 20)
    }

    #[test]
    fn raw_framed_and_concatenated_streams_are_read() {
        let input: Vec<u8> = (0..100_000u32).map(|n| (n / 7) as u8).collect();
        let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
        assert_eq!(decompress(&raw), Ok(input.clone()));
        let framed = compress(&input);
        assert_eq!(decompress(&framed), Ok(input.clone()));
        assert_eq!(decompress(&framed.repeat(2)), Ok(input.repeat(2)));
        assert_eq!(decompress(&compress(b"")), Ok(Vec::new()));
    }

    #[test]
    fn blocks_hold_32_kib_of_input() {
        let framed = compress(&vec![7; BLOCK_BYTES + 1]);
        let first = u32::from_be_bytes(*framed[HEADER_BYTES..].first_chunk().unwrap()) as usize;
        let first = &framed[HEADER_BYTES + 4..HEADER_BYTES + 4 + first];
        assert_eq!(snap::raw::decompress_len(first), Ok(BLOCK_BYTES));
    }

    #[test]
    fn lengths_that_lie_are_refused_without_allocating() {
        // A raw block that announces 4 GiB less one.
        assert_eq!(
            decompress(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]),
            Err(CORRUPT)
        );
        let mut framed = compress(b"some bytes");
        framed[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(decompress(&framed), Err(CORRUPT));
        framed.truncate(HEADER_BYTES + 2);
        assert_eq!(decompress(&framed), Err(CORRUPT));
        framed.truncate(HEADER_BYTES - 1);
        assert_eq!(decompress(&framed), Err(CORRUPT));
        let mut old = compress(b"some bytes");
        old[11] = 0;
        assert_eq!(decompress(&old), Err(CORRUPT));
    }
}
