//! The pool that payloads are cut from: text-like bytes, larger than the CPU's caches.
//!
//! Words of a made-up vocabulary in skewed frequencies, separated by blanks and now and then a
//! number or a line end: compressible by about the factor that logs are, never the same twice.

use fastrand::Rng;

const VOCABULARY_WORDS: usize = 8_192;
const WORD_BYTES: std::ops::RangeInclusive<usize> = 2..=11;
/// What the cursor moves on behind each piece, so that pieces start nowhere twice in a row.
const STRIDE_BYTES: usize = 61;

/// The pool, and where the next piece is cut.
#[derive(Debug)]
pub(crate) struct TextPool {
    bytes: Vec<u8>,
    cursor: usize,
}

impl TextPool {
    /// `size_bytes` of text, the same for the same seed.
    pub(crate) fn new(size_bytes: usize, seed: u64) -> TextPool {
        let mut random = Rng::with_seed(seed);
        let vocabulary: Vec<Vec<u8>> = (0..VOCABULARY_WORDS)
            .map(|_| {
                let length = random.usize(WORD_BYTES);
                (0..length).map(|_| random.u8(b'a'..=b'z')).collect()
            })
            .collect();
        let mut bytes = Vec::with_capacity(size_bytes + 32);
        while bytes.len() < size_bytes {
            // The product of two uniform numbers favours the front of the vocabulary.
            let bits = random.u64(..);
            let (a, b) = ((bits & 0xffff) as usize, (bits >> 16 & 0xffff) as usize);
            bytes.extend_from_slice(&vocabulary[(a * b * VOCABULARY_WORDS) >> 32]);
            bytes.push(match bits >> 58 {
                0 => b'\n',
                1..=3 => b',',
                _ => b' ',
            });
            if (bits >> 52) & 0x1f == 0 {
                bytes.extend_from_slice(format!("{} ", bits >> 40 & 0xfffff).as_bytes());
            }
        }
        bytes.truncate(size_bytes);
        TextPool { bytes, cursor: 0 }
    }

    /// The next `size_bytes`, which must be less than the pool.
    pub(crate) fn cut(&mut self, size_bytes: usize) -> &[u8] {
        assert!(
            size_bytes < self.bytes.len(),
            "the pool is larger than a record"
        );
        if self.cursor + size_bytes > self.bytes.len() {
            self.cursor = (self.cursor + size_bytes) % STRIDE_BYTES;
        }
        let start = self.cursor;
        self.cursor += size_bytes + STRIDE_BYTES;
        &self.bytes[start..start + size_bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use percolog::wire::compression::{Codec, Compression};

    #[test]
    fn text_compresses_like_text_and_not_like_a_constant() {
        let pool = TextPool::new(1 << 20, 7);
        let compressed = Compression::of(Codec::Zstd).compress(&pool.bytes).len();
        let ratio = pool.bytes.len() as f64 / compressed as f64;
        assert!((1.5..5.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn pieces_differ_also_in_the_next_round_through_the_pool() {
        let mut pool = TextPool::new(100_000, 7);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..400 {
            assert!(seen.insert(pool.cut(1_000).to_vec()));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_text() {
        assert_eq!(TextPool::new(5_000, 1).bytes, TextPool::new(5_000, 1).bytes);
        assert_ne!(TextPool::new(5_000, 1).bytes, TextPool::new(5_000, 2).bytes);
    }
}
