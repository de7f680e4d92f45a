//! Which partition a record goes to when the user does not say.

use super::failure::Failure;

/// Spreads records over the partitions of a topic.
#[derive(Debug)]
pub(crate) struct Partitioner {
    partitions: i32,
    fixed: Option<i32>,
    /// Where records without a key go until the batch is full.
    sticky: i32,
}

impl Partitioner {
    /// Over `partitions` partitions, or all into the `fixed` one.
    pub(crate) fn new(partitions: i32, fixed: Option<i32>) -> Result<Partitioner, Failure> {
        if partitions <= 0 {
            return Err(Failure::Local("the topic has no partitions".to_owned()));
        }
        Ok(Partitioner {
            partitions,
            fixed,
            sticky: 0,
        })
    }

    /// The partition of a record: by the hash of its key as Kafka's Java client has it, so that
    /// records of a key meet whoever wrote them.
    pub(crate) fn partition(&self, key: Option<&[u8]>) -> i32 {
        match (self.fixed, key) {
            (Some(fixed), _) => fixed,
            (None, None) => self.sticky,
            (None, Some(key)) => (murmur2(key) & 0x7fff_ffff) as i32 % self.partitions,
        }
    }

    /// The batch of `partition` was sent: records without a key go to the next one.
    pub(crate) fn turn(&mut self, partition: i32) {
        if partition == self.sticky {
            self.sticky = (self.sticky + 1) % self.partitions;
        }
    }
}

/// The hash of Kafka's default partitioner.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const FACTOR: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let words = data.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        let mut k = u32::from_le_bytes(*word.first_chunk().expect("chunks of four"));
        k = k.wrapping_mul(FACTOR);
        k ^= k >> 24;
        hash = hash.wrapping_mul(FACTOR) ^ k.wrapping_mul(FACTOR);
    }
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(FACTOR);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_kafkas_own_tests() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
    }

    #[test]
    fn keys_decide_then_the_batch_and_a_fixed_partition_beats_both() {
        let mut partitioner = Partitioner::new(3, None).expect("partitions");
        let keyed = partitioner.partition(Some(b"foobar"));
        assert_eq!(keyed, (-790_332_482_i32 & 0x7fff_ffff) % 3);
        assert_eq!(partitioner.partition(None), 0);
        partitioner.turn(1);
        assert_eq!(partitioner.partition(None), 0, "another batch was sent");
        for expected in [1, 2, 0] {
            partitioner.turn(partitioner.partition(None));
            assert_eq!(partitioner.partition(None), expected);
        }
        assert_eq!(partitioner.partition(Some(b"foobar")), keyed);
        let fixed = Partitioner::new(3, Some(2)).expect("partitions");
        assert_eq!(fixed.partition(Some(b"foobar")), 2);
        assert!(Partitioner::new(0, None).is_err());
    }
}
