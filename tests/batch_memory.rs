//! Validating hostile record sets takes bounded memory, whatever lengths they announce.
//!
//! The allocator below counts; it is sound because every call is passed on to the system's
//! allocator unchanged. What the C library of zstd takes is not seen.
#![allow(unsafe_code)] // The proof is above.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use percolog::wire::batch_validation::{BatchRules, RejectionCode, TopicCompression, validate};
use percolog::wire::compression::{Codec, Compression};
use percolog::wire::record_batch::{BatchHeader, HEADER_BYTES, TimestampType};
use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};

struct Counting;

static NOW_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: see the file head; `realloc` and `alloc_zeroed` default to these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK_BYTES.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        NOW_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW_MS: i64 = 1_700_000_000_000;
/// The limit on what a batch decompresses to, far below what the bombs hold.
const DECOMPRESSED_MAX_BYTES: usize = 1 << 20;
/// A decoder's own state: lz4's largest, dependent blocks of 4 MiB.
const DECODER_BYTES: usize = 13 << 20;

fn rules(target: Option<Codec>) -> BatchRules {
    BatchRules {
        message_max_bytes: 1 << 20,
        segment_bytes: 1 << 30,
        decompressed_max_bytes: DECOMPRESSED_MAX_BYTES,
        compression: target.map_or(TopicCompression::Producer, |codec| {
            TopicCompression::Fixed(Compression::of(codec))
        }),
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        is_compacted: false,
        allows_zstd: true,
    }
}

/// What `validate` allocates at its peak beyond what was there before.
fn peak_bytes(record_set: &[u8], rules: &BatchRules) -> (usize, Option<RejectionCode>) {
    let before = NOW_BYTES.load(Ordering::Relaxed);
    PEAK_BYTES.store(before, Ordering::Relaxed);
    let code = validate(record_set, rules, NOW_MS)
        .err()
        .map(|rejection| rejection.code);
    (PEAK_BYTES.load(Ordering::Relaxed) - before, code)
}

fn with_payload(codec: Codec, payload: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions {
        compression: Compression::of(codec),
        ..BatchOptions::default()
    });
    builder.append(NOW_MS, None, Some(b"v"), [].into_iter());
    let mut header = BatchHeader::parse(&builder.finish()).unwrap();
    header.batch_length = (HEADER_BYTES - 12 + payload.len()) as i32;
    header.crc = header.checksum(payload);
    [&header.encode()[..], payload].concat()
}

// One test only: another thread's allocations would be counted too.
#[test]
fn no_record_set_makes_validation_take_more_than_limit_and_decoder_state() {
    let bomb = vec![0u8; 64 << 20];
    // A record that announces almost 2 GiB, in bytes that never come.
    let liar = [
        0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f,
    ];
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for codec in [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ] {
        for target in [None, Some(Codec::None), Some(Codec::Gzip)] {
            let rules = rules(target);
            let allowed = DECODER_BYTES + 3 * DECOMPRESSED_MAX_BYTES;
            if codec != Codec::None {
                let packed = Compression::of(codec).compress(&bomb);
                let (peak, code) = peak_bytes(&with_payload(codec, &packed), &rules);
                assert!(
                    peak < allowed && code.is_some(),
                    "{codec:?}: {peak} bytes, {code:?}"
                );
            }
            let packed = Compression::of(codec).compress(&liar);
            let record_set = with_payload(codec, &packed);
            let (peak, code) = peak_bytes(&record_set, &rules);
            assert!(peak < 1 << 20, "{codec:?}: {peak} bytes");
            assert_eq!(code, Some(RejectionCode::INVALID_RECORD), "{codec:?}");
            for _ in 0..200 {
                let mut payload = packed.clone();
                for _ in 0..random.usize(1..5) {
                    let at = random.usize(..payload.len());
                    payload[at] = random.u8(..);
                }
                let (peak, _) = peak_bytes(&with_payload(codec, &payload), &rules);
                assert!(peak < allowed, "seed {seed}, {codec:?}: {peak} bytes");
            }
        }
    }
}
