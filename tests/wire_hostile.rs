//! Bytes from nobody's friend, into every decoder of every version: no panic, bounded memory.

mod counting_allocator;
#[macro_use]
mod samples;

use counting_allocator::peak_bytes_of;
use percolog::wire::codec::{DecodeError, ELEMENT_BYTES_PER_INPUT_BYTE_MAX, Reader};
use percolog::wire::frame;
use percolog::wire::message::Message;
use samples::{Flavour, Sample, Source};

/// Memory that decoding may hold at once for each byte of input: twice what `codec` proves for one
/// vector (`ELEMENT_BYTES_PER_INPUT_BYTE_MAX`), since a vector that grows holds its successor too.
const BYTES_PER_INPUT_BYTE: usize = 2 * ELEMENT_BYTES_PER_INPUT_BYTE_MAX;
/// Memory that decoding may hold whatever the input: vectors that have just begun, in each other.
const BYTES_ANYWAY: usize = 64 * 1024;
/// Arrays never lie deeper in each other.
const ARRAY_DEPTH_MAX: usize = 6;
/// Attempts for each message and version.
const NOISE_ROUNDS: usize = 300;

/// One message in one version.
struct Decoder {
    name: &'static str,
    version: i16,
    decode: fn(&[u8], i16) -> Result<usize, DecodeError>,
    sample: fn(&mut Source, i16) -> Vec<u8>,
}

macro_rules! all_decoders {
    ($($module:ident $name:ident,)*) => {
        fn decoders() -> Vec<Decoder> {
            use percolog::wire::messages::*;
            let mut all = Vec::new();
            $(all.extend($module::$name::VERSIONS.map(|version| Decoder {
                name: $module::$name::NAME,
                version,
                decode: |bytes, version| {
                    let mut reader = Reader::new(bytes);
                    $module::$name::decode(&mut reader, version)?;
                    Ok(bytes.len() - reader.remaining().len())
                },
                sample: |source, version| {
                    $module::$name::sample(source, version).to_bytes(version)
                },
            }));)*
            all
        }
    };
}

for_each_message!(all_decoders);

impl Decoder {
    /// Decodes with an eye on the memory.
    fn attempt(&self, bytes: &[u8], what: &dyn Fn() -> String) -> Result<usize, DecodeError> {
        let (result, peak_bytes) = peak_bytes_of(|| (self.decode)(bytes, self.version));
        let allowed = BYTES_PER_INPUT_BYTE * bytes.len() + BYTES_ANYWAY;
        assert!(
            peak_bytes <= allowed,
            "{} version {}: {peak_bytes} bytes held for {} bytes of input: {}",
            self.name,
            self.version,
            bytes.len(),
            what()
        );
        result
    }

    fn sample(&self, flavour: Flavour, seed: u64) -> Vec<u8> {
        (self.sample)(&mut Source::new(flavour, seed), self.version)
    }
}

/// Arrays of as many and as empty elements as there are bytes, at every depth, whole and announced
/// but cut short.
#[test]
fn memory_is_bounded_by_the_input() {
    let mut largest = 0.0_f64;
    for decoder in decoders() {
        for depth in 0..ARRAY_DEPTH_MAX {
            let bytes = decoder.sample(Flavour::Crowded { depth }, 0);
            let result = decoder.attempt(&bytes, &|| format!("arrays at depth {depth}"));
            assert_eq!(
                result,
                Ok(bytes.len()),
                "{} version {}",
                decoder.name,
                decoder.version
            );
            let (_, peak_bytes) = peak_bytes_of(|| (decoder.decode)(&bytes, decoder.version));
            if bytes.len() > samples::CROWD {
                largest = largest.max(peak_bytes as f64 / bytes.len() as f64);
            }
            for eighth in 1..8 {
                let cut = &bytes[..bytes.len() * eighth / 8];
                let result = decoder.attempt(cut, &|| format!("{eighth}/8 of depth {depth}"));
                assert!(result.is_err() || bytes.is_empty());
            }
        }
    }
    println!("at most {largest:.1} bytes held for a byte of input");
}

/// Every proper start of a message is an error.
#[test]
fn messages_cut_at_any_byte_are_errors() {
    for decoder in decoders() {
        for (flavour, seed) in [
            (Flavour::Empty, 0),
            (Flavour::Greatest, 0),
            (Flavour::Random, 1),
        ] {
            let bytes = decoder.sample(flavour, seed);
            for length in 0..bytes.len() {
                let result = decoder.attempt(&bytes[..length], &|| format!("{length} bytes"));
                assert!(
                    result.is_err(),
                    "{} version {}: {length} of {} bytes are enough",
                    decoder.name,
                    decoder.version,
                    bytes.len()
                );
            }
        }
    }
}

/// Lies about lengths, at every byte: so at every length of every field.
#[test]
fn lengths_that_lie_anywhere_are_harmless() {
    const LIES: [&[u8]; 4] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x80, 0, 0, 0],
        &[0xff; 10],
    ];
    for decoder in decoders() {
        let sample = decoder.sample(Flavour::Greatest, 0);
        for position in 0..sample.len() {
            for lie in LIES {
                let mut bytes = sample.clone();
                let end = bytes.len().min(position + lie.len());
                bytes[position..end].copy_from_slice(&lie[..end - position]);
                let _ = decoder.attempt(&bytes, &|| format!("{lie:x?} at {position}"));
            }
        }
    }
}

/// Noise: even, and of the small and the extreme values that lengths and tags are made of.
#[test]
fn noise_is_harmless() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for decoder in decoders() {
        for _ in 0..NOISE_ROUNDS {
            let length = random.usize(0..200);
            let even = random.bool();
            let noise = |random: &mut fastrand::Rng| match random.u8(0..8) {
                0..5 if !even => random.u8(0..4),
                5 if !even => 0xff,
                _ => random.u8(..),
            };
            let bytes: Vec<u8> = (0..length).map(|_| noise(&mut random)).collect();
            let _ = decoder.attempt(&bytes, &|| format!("seed {seed}: {bytes:x?}"));
            let _ = frame::decode_request(&bytes);
        }
    }
}

/// Valid messages with a few bytes changed, dropped, doubled or swapped with another message's.
#[test]
fn damaged_messages_are_harmless() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for decoder in decoders() {
        let other = decoder.sample(Flavour::Random, random.u64(..));
        for _ in 0..NOISE_ROUNDS {
            let mut bytes = decoder.sample(Flavour::Random, random.u64(..));
            for _ in 0..random.usize(1..4) {
                damage(&mut bytes, &other, &mut random);
            }
            let _ = decoder.attempt(&bytes, &|| format!("seed {seed}: {bytes:x?}"));
        }
    }
}

fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut fastrand::Rng) {
    if bytes.is_empty() {
        return;
    }
    let at = random.usize(0..bytes.len());
    match random.u8(0..5) {
        0 => bytes[at] ^= 1 << random.u8(0..8),
        1 => bytes[at] = random.u8(..),
        2 => drop(bytes.remove(at)),
        3 => bytes.insert(at, bytes[at]),
        _ => {
            let end = bytes.len().min(at + random.usize(0..20));
            let from = random.usize(0..=other.len());
            let patch = &other[from..other.len().min(from + end - at)];
            bytes.splice(at..end, patch.iter().copied());
        }
    }
}

#[test]
fn versions_that_do_not_exist_are_errors() {
    for decoder in decoders() {
        for version in [i16::MIN, -1, i16::MAX] {
            let result = (decoder.decode)(&[0; 64], version);
            assert_eq!(
                result,
                Err(DecodeError::UnsupportedVersion {
                    message: decoder.name,
                    version
                })
            );
        }
    }
}
