//! Record batches: checksums, the one copy, and what validation looks at.

use std::hint::black_box;

use percolog::runtime::buffer::AppendBuf;
use percolog::wire::batch_validation::{BatchRules, TopicCompression, validate};
use percolog::wire::checksum::crc32c;
use percolog::wire::compression::{Codec, Compression};
use percolog::wire::record_batch::{BatchView, HEADER_BYTES, TimestampType};
use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};

use crate::cases::{Amount, Cases, SIZES, text};

/// Values of this size are what fills a large batch.
const VALUE_BYTES: usize = 1000;
/// What every record here says, and the clock when it is validated.
const NOW_MS: i64 = 1_700_000_000_000;
/// The default of `max.message.bytes` is just above 1 MiB of records; chunks have this size.
const CHUNK_BYTES: usize = 1 << 20;

const RULES: BatchRules = BatchRules {
    message_max_bytes: 2 << 20,
    segment_bytes: 1 << 30,
    decompressed_max_bytes: 100 << 20,
    compression: TopicCompression::Producer,
    timestamp_type: TimestampType::CreateTime,
    timestamp_before_max_ms: i64::MAX,
    timestamp_after_max_ms: 3_600_000,
    is_compacted: false,
    allows_zstd: true,
};

/// A batch as a producer sends it: records of about a thousand bytes, at most `size_bytes` before
/// compression.
pub(crate) fn batch(size_bytes: usize, codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions {
        compression: Compression::of(codec),
        ..BatchOptions::default()
    });
    let text = text(size_bytes);
    // A record takes up to 20 bytes beside its value.
    let room = size_bytes - HEADER_BYTES;
    let count = room.div_ceil(VALUE_BYTES + 20);
    let value_bytes = room / count - 20;
    for value in text.chunks_exact(value_bytes).take(count) {
        builder.append(NOW_MS, None, Some(value), [].into_iter());
    }
    builder.finish()
}

pub(crate) fn add(cases: &mut Cases) {
    checksums(cases);
    copies(cases);
    validation(cases);
}

fn checksums(cases: &mut Cases) {
    for (size_bytes, size) in SIZES {
        let bytes = text(size_bytes);
        let name = format!("checksum: CRC-32C of {size}");
        cases.add(name, Amount::Bytes(size_bytes), move || {
            crc32c(black_box(&bytes))
        });
    }
}

/// What an uncompressed batch costs on its way into the log: its checksum is verified and it is
/// copied once, behind a header with its offset.
fn copies(cases: &mut Cases) {
    for (size_bytes, size) in SIZES {
        let bytes = batch(size_bytes, Codec::None);
        let mut chunk = AppendBuf::allocate(CHUNK_BYTES);
        let name = format!("checksum and copy: a batch of {size} into chunks of 1 MiB");
        cases.add(name, Amount::Bytes(size_bytes), move || {
            let batch = BatchView::parse(black_box(&bytes)).expect("just built");
            batch.verify_checksum().expect("just built");
            if chunk.remaining() < bytes.len() {
                chunk = AppendBuf::allocate(CHUNK_BYTES);
            }
            chunk.append(&batch.placed_header(7, 1));
            chunk.append(batch.payload());
            chunk.len()
        });
    }
}

fn validation(cases: &mut Cases) {
    let compressed = [(Codec::Lz4, "lz4"), (Codec::Zstd, "zstd")];
    let plain = SIZES.map(|(size_bytes, size)| (size_bytes, size, Codec::None, "uncompressed"));
    let compressed = compressed.map(|(codec, name)| (1 << 20, "1 MiB", codec, name));
    for (size_bytes, size, codec, codec_name) in plain.into_iter().chain(compressed) {
        let bytes = batch(size_bytes, codec);
        let name = format!("validation: a batch of {size} in records of 1 KB, {codec_name}");
        cases.add(name, Amount::Bytes(size_bytes), move || {
            let valid = validate(black_box(&bytes), &RULES, NOW_MS).expect("a good batch");
            valid.size_bytes()
        });
    }
}
