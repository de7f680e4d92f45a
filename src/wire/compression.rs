//! The codecs of record batches, both ways, in the framings that Kafka's clients use.
//!
//! Nothing here allocates by a length found in the input: output grows with what really comes out
//! and ends at the caller's limit. The decoders' own state is bounded by the formats: 32 KiB for
//! gzip, 12 MiB for lz4, 128 MiB of address space for zstd, of which only what was decoded is
//! ever touched.

use std::io::{Read, Write};

use super::xerial::{self, SnappyReader};

/// Frames in one zstd payload; more than one is unusual already.
const ZSTD_FRAMES_MAX: u32 = 64;
/// Largest zstd window accepted, what Kafka's own decoder accepts: level 22 asks for all of it.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();
const LZ4_MAGIC: [u8; 4] = 0x184D_2204u32.to_le_bytes();
/// First allocation for output; it doubles from there.
const OUTPUT_START_BYTES: usize = 8 * 1024;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// Snappy, in the Xerial framing or as one raw block.
    Snappy,
    /// One LZ4 frame.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

impl Codec {
    /// The codec with this id in a batch's attributes.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Codec> {
        [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ]
        .get(usize::from(id))
        .copied()
    }

    /// Its id in a batch's attributes.
    #[must_use]
    pub fn id(self) -> u8 {
        self as u8
    }

    /// Kafka's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// Decompresses all of `input`, which may come to `limit_bytes` at most.
    ///
    /// # Errors
    /// When it is malformed, or when more than the limit comes out of it.
    pub fn decompress(
        self,
        input: &[u8],
        limit_bytes: usize,
    ) -> Result<Vec<u8>, DecompressionError> {
        let mut decompressor = Decompressor::new(self, input, limit_bytes)?;
        let mut output = Vec::new();
        loop {
            let length = output.len();
            let step = length.clamp(OUTPUT_START_BYTES, 1 << 20);
            output.resize(length + step, 0);
            let count = decompressor.read(&mut output[length..])?;
            output.truncate(length + count);
            if count == 0 {
                return Ok(output);
            }
        }
    }
}

/// Why compressed bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressionError {
    /// More came out than the caller allows.
    #[error("more than {limit_bytes} bytes come out")]
    TooLarge {
        /// The caller's limit.
        limit_bytes: usize,
    },
    /// The input is not what the codec expects.
    #[error("malformed {0}")]
    Corrupt(&'static str),
}

/// Decompresses piece by piece, counting what comes out.
pub struct Decompressor<'a> {
    source: Source<'a>,
    limit_bytes: usize,
    left: usize,
}

enum Source<'a> {
    Plain(&'a [u8]),
    Gzip(Box<flate2::bufread::MultiGzDecoder<&'a [u8]>>),
    Snappy(SnappyReader<'a>),
    Lz4 {
        frame: Box<lz4_flex::frame::FrameDecoder<&'a [u8]>>,
        is_done: bool,
    },
    Zstd(ZstdReader<'a>),
}

impl<'a> Decompressor<'a> {
    /// Over `input`, of which at most `limit_bytes` may come out.
    ///
    /// # Errors
    /// When the input does not even start as the codec demands.
    pub fn new(
        codec: Codec,
        input: &'a [u8],
        limit_bytes: usize,
    ) -> Result<Decompressor<'a>, DecompressionError> {
        let source = match codec {
            Codec::None => Source::Plain(input),
            Codec::Gzip => Source::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
            Codec::Snappy => Source::Snappy(SnappyReader::new(input, limit_bytes)?),
            Codec::Lz4 => {
                // Legacy and skippable frames are nothing that Kafka's clients read.
                if !input.starts_with(&LZ4_MAGIC) {
                    return Err(DecompressionError::Corrupt("lz4 frame"));
                }
                let frame = Box::new(lz4_flex::frame::FrameDecoder::new(input));
                Source::Lz4 {
                    frame,
                    is_done: false,
                }
            }
            Codec::Zstd => Source::Zstd(ZstdReader::new(input)?),
        };
        Ok(Decompressor {
            source,
            limit_bytes,
            left: limit_bytes,
        })
    }

    /// Over bytes that are not compressed, without a limit of its own.
    #[must_use]
    pub fn plain(input: &'a [u8]) -> Decompressor<'a> {
        Decompressor {
            source: Source::Plain(input),
            limit_bytes: usize::MAX,
            left: usize::MAX,
        }
    }

    /// Fills `output` from the front and says how far; 0 at the end.
    ///
    /// # Errors
    /// When the input is malformed, or more than the limit comes out.
    pub fn read(&mut self, output: &mut [u8]) -> Result<usize, DecompressionError> {
        let corrupt = DecompressionError::Corrupt;
        let count = match &mut self.source {
            Source::Plain(input) => input.read(output).map_err(|_| corrupt("bytes"))?,
            Source::Gzip(gzip) => gzip.read(output).map_err(|_| corrupt("gzip"))?,
            Source::Snappy(snappy) => snappy.read(output)?,
            Source::Lz4 { is_done: true, .. } => 0,
            Source::Lz4 { frame, is_done } => {
                let count = frame.read(output).map_err(|_| corrupt("lz4"))?;
                // Only the first frame counts, as in Kafka's reader.
                *is_done = count == 0 && !output.is_empty();
                count
            }
            Source::Zstd(zstd) => zstd.read(output)?,
        };
        if count > self.left {
            return Err(DecompressionError::TooLarge {
                limit_bytes: self.limit_bytes,
            });
        }
        self.left -= count;
        Ok(count)
    }
}

/// Reads consecutive frames, none of them in a legacy format.
struct ZstdReader<'a> {
    frame: Option<zstd::stream::read::Decoder<'static, &'a [u8]>>,
    frames_left: u32,
}

impl<'a> ZstdReader<'a> {
    fn new(input: &'a [u8]) -> Result<ZstdReader<'a>, DecompressionError> {
        let frame = Some(ZstdReader::frame(input)?);
        Ok(ZstdReader {
            frame,
            frames_left: ZSTD_FRAMES_MAX - 1,
        })
    }

    fn frame(
        input: &'a [u8],
    ) -> Result<zstd::stream::read::Decoder<'static, &'a [u8]>, DecompressionError> {
        const CORRUPT: DecompressionError = DecompressionError::Corrupt("zstd");
        if !input.starts_with(&ZSTD_MAGIC) {
            return Err(CORRUPT);
        }
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)
            .map_err(|_| CORRUPT)?
            .single_frame();
        decoder
            .window_log_max(ZSTD_WINDOW_LOG_MAX)
            .map_err(|_| CORRUPT)?;
        Ok(decoder)
    }

    fn read(&mut self, output: &mut [u8]) -> Result<usize, DecompressionError> {
        const CORRUPT: DecompressionError = DecompressionError::Corrupt("zstd");
        loop {
            let Some(frame) = &mut self.frame else {
                return Ok(0);
            };
            let count = frame.read(output).map_err(|_| CORRUPT)?;
            if count > 0 || output.is_empty() {
                return Ok(count);
            }
            let rest = self.frame.take().map_or(&[][..], |frame| frame.finish());
            if rest.is_empty() {
                return Ok(0);
            }
            self.frames_left = self.frames_left.checked_sub(1).ok_or(CORRUPT)?;
            self.frame = Some(ZstdReader::frame(rest)?);
        }
    }
}

/// A codec and how hard it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Compression {
    /// The codec.
    pub codec: Codec,
    /// Its level, within the codec's bounds; `None` is the codec's default. Snappy has no levels,
    /// and the lz4 encoder has one only.
    pub level: Option<i32>,
}

impl Compression {
    /// A codec at its default level.
    #[must_use]
    pub fn of(codec: Codec) -> Compression {
        Compression { codec, level: None }
    }

    /// Compresses `input` into a framing that every Kafka client reads.
    #[must_use]
    pub fn compress(self, input: &[u8]) -> Vec<u8> {
        match self.codec {
            Codec::None => input.to_vec(),
            Codec::Gzip => gzip(input, self.level),
            Codec::Snappy => xerial::compress(input),
            Codec::Lz4 => lz4(input),
            Codec::Zstd => zstd::stream::encode_all(input, self.level.unwrap_or(3))
                .expect("memory does not fail, and the level is clamped by the library"),
        }
    }
}

const MEMORY: &str = "writing to memory does not fail";

fn gzip(input: &[u8], level: Option<i32>) -> Vec<u8> {
    // -1 is Kafka's name for the default.
    let level = match level {
        None | Some(-1) => flate2::Compression::default(),
        Some(level) => flate2::Compression::new(level.clamp(1, 9) as u32),
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(input).expect(MEMORY);
    encoder.finish().expect(MEMORY)
}

/// Independent blocks of 64 KiB: Kafka's Java reader takes no dependent ones.
fn lz4(input: &[u8]) -> Vec<u8> {
    let frame = lz4_flex::frame::FrameInfo::new()
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .block_mode(lz4_flex::frame::BlockMode::Independent);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, Vec::new());
    encoder.write_all(input).expect(MEMORY);
    encoder.finish().expect(MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_codec_gives_back_what_went_in(
            seed in proptest::collection::vec(any::<u8>(), 0..300),
            repeats in 0usize..600,
        ) {
            let input = seed.repeat(repeats);
            for codec in CODECS {
                let packed = Compression::of(codec).compress(&input);
                prop_assert_eq!(codec.decompress(&packed, input.len()), Ok(input.clone()));
                if !input.is_empty() {
                    let limit_bytes = input.len() - 1;
                    prop_assert_eq!(
                        codec.decompress(&packed, limit_bytes),
                        Err(DecompressionError::TooLarge { limit_bytes })
                    );
                }
            }
        }

        #[test]
        fn damaged_input_never_panics_and_stays_below_the_limit(
            seed in proptest::collection::vec(any::<u8>(), 1..200),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let input = seed.repeat(400);
            for codec in CODECS {
                let mut packed = Compression::of(codec).compress(&input);
                for (at, byte) in &damage {
                    let at = at.index(packed.len());
                    packed[at] = *byte;
                }
                packed.truncate(cut.index(packed.len()) + 1);
                if let Ok(output) = codec.decompress(&packed, 100_000) {
                    prop_assert!(output.len() <= 100_000);
                }
            }
        }
    }

    #[test]
    fn bombs_end_at_the_limit_without_growing_to_their_size() {
        let bomb = vec![0u8; 64 << 20];
        for codec in CODECS {
            let packed = Compression::of(codec).compress(&bomb);
            let limit_bytes = 1 << 20;
            assert_eq!(
                codec.decompress(&packed, limit_bytes),
                Err(DecompressionError::TooLarge { limit_bytes }),
                "{codec:?} of {} bytes",
                packed.len()
            );
        }
    }

    #[test]
    fn levels_change_the_work_and_not_the_content() {
        let input: Vec<u8> = (0..100_000u32)
            .flat_map(|n| (n % 1000).to_be_bytes())
            .collect();
        for (codec, levels) in [(Codec::Gzip, [-1, 1, 9]), (Codec::Zstd, [-131_072, 1, 19])] {
            for level in levels {
                let packed = Compression {
                    codec,
                    level: Some(level),
                }
                .compress(&input);
                assert_eq!(codec.decompress(&packed, input.len()), Ok(input.clone()));
            }
        }
    }

    #[test]
    fn several_gzip_members_and_zstd_frames_read_as_one() {
        for codec in [Codec::Gzip, Codec::Zstd] {
            let mut packed = Compression::of(codec).compress(b"one ");
            packed.extend(Compression::of(codec).compress(b"two"));
            assert_eq!(codec.decompress(&packed, 100), Ok(b"one two".to_vec()));
        }
        let many = Compression::of(Codec::Zstd)
            .compress(b"")
            .repeat(ZSTD_FRAMES_MAX as usize + 1);
        assert_eq!(
            Codec::Zstd.decompress(&many, 100),
            Err(DecompressionError::Corrupt("zstd"))
        );
    }

    #[test]
    fn a_zstd_window_beyond_the_limit_is_refused_before_it_is_allocated() {
        // Magic, descriptor without single segment, window byte for 2^31, one empty raw block.
        let mut frame = ZSTD_MAGIC.to_vec();
        frame.extend([0x00, (31 - 10) << 3, 0x01, 0x00, 0x00]);
        assert_eq!(
            Codec::Zstd.decompress(&frame, 100),
            Err(DecompressionError::Corrupt("zstd"))
        );
    }

    #[test]
    fn dependent_and_checksummed_lz4_frames_are_read() {
        let input: Vec<u8> = (0..200_000u32)
            .flat_map(|n| (n % 777).to_le_bytes())
            .collect();
        let frame = lz4_flex::frame::FrameInfo::new()
            .block_mode(lz4_flex::frame::BlockMode::Linked)
            .block_checksums(true)
            .content_checksum(true);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, Vec::new());
        encoder.write_all(&input).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(Codec::Lz4.decompress(&packed, input.len()), Ok(input));
    }

    #[test]
    fn our_lz4_frames_announce_independent_blocks_of_64_kib() {
        let packed = Compression::of(Codec::Lz4).compress(b"anything");
        // Version 01, block independence, no checksums, no sizes; block maximum 4 = 64 KiB.
        assert_eq!(packed[4..6], [0b0110_0000, 0x40]);
    }

    #[test]
    fn codec_ids_are_those_of_the_format() {
        for (id, name) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().enumerate() {
            let codec = Codec::from_id(id as u8).unwrap();
            assert_eq!((codec.id(), codec.name()), (id as u8, *name));
        }
        assert_eq!(Codec::from_id(5), None);
    }
}
