//! Seeded randomness.

use super::sim::world;

/// A random number.
#[must_use]
pub fn random_u64() -> u64 {
    world::current().random_u64()
}

/// Random bytes for identities and epochs.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    std::array::from_fn(|_| random_u64() as u8)
}
