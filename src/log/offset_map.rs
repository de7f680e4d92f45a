//! From the hash of a key to the latest offset of a record with that key, in bounded memory.
//!
//! Kafka: `SkimpyOffsetMap`. A key is known by 16 bytes of hash only; a secret seed per map keeps
//! anybody from choosing keys that meet. Open addressing without removal: a map is filled once, from
//! the dirty part of one log, looked up, and dropped. It never grows, since moving millions of
//! entries would stop the core.

use std::hash::{DefaultHasher, Hasher};

use super::position::Offset;

/// Memory of one slot: the hash and the offset.
pub const SLOT_BYTES: usize = 24;

/// Entries per slot, as a fraction: a fuller map probes too long.
const LOAD_NUMERATOR: usize = 3;
const LOAD_DENOMINATOR: usize = 4;

/// A map smaller than this would make no progress worth its reading.
const LEAST_SLOTS: usize = 64;

/// Hash, hash, and the offset plus one; zero there is an empty slot. An array, so that a large map
/// is given as untouched zero pages instead of being written at once.
type Slot = [u64; 3];

const _: () = assert!(size_of::<Slot>() == SLOT_BYTES);

/// See the head of this file.
pub struct OffsetMap {
    seed: [u64; 2],
    slots: Vec<Slot>,
    entries: usize,
    entries_max: usize,
    end: Offset,
}

/// A map took no further key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFull;

impl OffsetMap {
    /// A map for at most `records` keys that takes at most `memory_bytes`.
    #[must_use]
    pub fn new(records: u64, memory_bytes: usize, seed: [u64; 2]) -> OffsetMap {
        let affordable = (memory_bytes / SLOT_BYTES).max(LEAST_SLOTS);
        let wanted = usize::try_from(records)
            .unwrap_or(usize::MAX)
            .saturating_mul(LOAD_DENOMINATOR)
            .div_ceil(LOAD_NUMERATOR);
        let slots = wanted.clamp(LEAST_SLOTS, affordable);
        OffsetMap {
            seed,
            slots: vec![[0; 3]; slots],
            entries: 0,
            entries_max: slots * LOAD_NUMERATOR / LOAD_DENOMINATOR,
            end: Offset(0),
        }
    }

    /// Every record of the dirty range below this was taken in; nothing is known of those from here
    /// on. Kafka: `latestOffset() + 1`.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Notes that there is nothing to take in below `end`.
    pub fn advance(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// Keys in the map.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether no key was put.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Notes a record; a later one of the same key counts.
    ///
    /// # Errors
    /// When the map is full. As in Kafka the first put into a full map is refused even if it has
    /// the key already: where a dirty range ends does not depend on what the next record is.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> Result<(), MapFull> {
        if self.entries >= self.entries_max {
            return Err(MapFull);
        }
        let hash = self.hash(key);
        let index = self.find(hash);
        let slot = &mut self.slots[index];
        let [_, _, before] = *slot;
        let offset_plus_one = offset.0.cast_unsigned() + 1;
        *slot = [hash[0], hash[1], before.max(offset_plus_one)];
        self.entries += usize::from(before == 0);
        self.advance(Offset(offset.0 + 1));
        Ok(())
    }

    /// The latest offset noted for a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let [_, _, offset_plus_one] = self.slots[self.find(self.hash(key))];
        offset_plus_one
            .checked_sub(1)
            .map(|offset| Offset(offset.cast_signed()))
    }

    /// The slot of a hash, or the empty one where it belongs. There always is an empty one.
    fn find(&self, hash: [u64; 2]) -> usize {
        let mut index = (hash[0] % self.slots.len() as u64) as usize;
        loop {
            let [first, second, offset_plus_one] = self.slots[index];
            if offset_plus_one == 0 || [first, second] == hash {
                return index;
            }
            index = (index + 1) % self.slots.len();
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        self.seed.map(|seed| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(seed);
            hasher.write(key);
            hasher.finish()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_offset_of_every_key_is_kept() {
        let mut map = OffsetMap::new(1000, 1 << 20, [1, 2]);
        for offset in 0..1000i64 {
            let key = (offset % 37).to_be_bytes();
            assert_eq!(map.put(&key, Offset(offset)), Ok(()));
        }
        assert_eq!(map.len(), 37);
        for key in 0..37i64 {
            let latest = (0..1000).rev().find(|offset| offset % 37 == key);
            assert_eq!(map.get(&key.to_be_bytes()), latest.map(Offset));
        }
        assert_eq!(map.get(b"never"), None);
        assert_eq!(map.end(), Offset(1000));
        map.advance(Offset(1200));
        map.advance(Offset(1100));
        assert_eq!(map.end(), Offset(1200));
    }

    #[test]
    fn an_earlier_offset_does_not_replace_a_later_one() {
        let mut map = OffsetMap::new(10, 1 << 20, [1, 2]);
        assert!(map.is_empty());
        map.put(b"", Offset(0)).expect("room");
        map.put(b"key", Offset(7)).expect("room");
        map.put(b"key", Offset(3)).expect("room");
        assert_eq!(map.get(b"key"), Some(Offset(7)));
        assert_eq!(map.get(b""), Some(Offset(0)), "the empty key is a key");
    }

    #[test]
    fn memory_is_bounded_and_a_full_map_says_so() {
        let mut map = OffsetMap::new(u64::MAX, 100 * SLOT_BYTES, [3, 4]);
        let fits = (0..1000i64)
            .take_while(|key| map.put(&key.to_be_bytes(), Offset(*key)).is_ok())
            .count();
        assert_eq!(fits, 75);
        assert_eq!(map.slots.len(), 100);
        assert_eq!(
            map.put(&0i64.to_be_bytes(), Offset(2000)),
            Err(MapFull),
            "also for a known key"
        );
        for key in 0..75i64 {
            assert_eq!(map.get(&key.to_be_bytes()), Some(Offset(key)));
        }
        assert_eq!(map.get(&999i64.to_be_bytes()), None);
    }

    #[test]
    fn a_map_for_few_records_is_small() {
        for records in 300..303 {
            let map = OffsetMap::new(records, usize::MAX, [0, 0]);
            assert!(map.slots.len() < 410);
            assert!(map.entries_max >= records as usize, "all of them fit");
        }
        assert_eq!(OffsetMap::new(0, 0, [0, 0]).slots.len(), LEAST_SLOTS);
    }
}
