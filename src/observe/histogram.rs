//! Durations of one core, counted by powers of two.

use std::array;
use std::cell::Cell;

/// Finite upper bounds; what is longer than the last counts as infinite.
pub const BOUNDS: usize = 21;
/// The smallest bound; each next one is twice as long, the last 16.8 s.
const LEAST_US: u64 = 16;

/// A histogram that only its core touches. Noting takes a few instructions and no memory.
#[derive(Debug)]
pub struct Histogram {
    counts: [Cell<u64>; BOUNDS + 1],
    sum_us: Cell<u64>,
}

/// What a histogram held at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Durations by bound: over the one before, up to this one. The last is beyond all bounds.
    pub counts: [u64; BOUNDS + 1],
    /// All durations together, in microseconds.
    pub sum_us: u64,
}

/// The upper bound of a count, in microseconds; none for the last.
#[must_use]
pub fn bound_us(index: usize) -> Option<u64> {
    (index < BOUNDS).then(|| LEAST_US << index)
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: array::from_fn(|_| Cell::new(0)),
            sum_us: Cell::new(0),
        }
    }
}

impl Histogram {
    /// Counts a duration.
    pub fn note(&self, duration_us: u64) {
        let steps = duration_us.saturating_sub(1) / LEAST_US;
        let index = (u64::BITS - steps.leading_zeros()) as usize;
        let count = &self.counts[index.min(BOUNDS)];
        count.set(count.get() + 1);
        self.sum_us
            .set(self.sum_us.get().saturating_add(duration_us));
    }

    /// What was counted so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted {
            counts: array::from_fn(|index| self.counts[index].get()),
            sum_us: self.sum_us.get(),
        }
    }
}

impl Counted {
    /// Nothing.
    pub const NONE: Counted = Counted {
        counts: [0; BOUNDS + 1],
        sum_us: 0,
    };

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Counted) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_count_at_the_first_bound_that_holds_them() {
        let at = |duration_us| {
            let histogram = Histogram::default();
            histogram.note(duration_us);
            let counted = histogram.counted();
            assert_eq!(counted.counts.iter().sum::<u64>(), 1);
            assert_eq!(counted.sum_us, duration_us);
            counted.counts.iter().position(|count| *count == 1)
        };
        for index in 0..BOUNDS {
            let bound = bound_us(index).expect("finite");
            assert_eq!(at(bound), Some(index), "{bound}");
            assert_eq!(at(bound + 1), Some(index + 1), "{bound}");
        }
        assert_eq!((at(0), at(u64::MAX)), (Some(0), Some(BOUNDS)));
        assert_eq!(bound_us(BOUNDS), None);
        assert_eq!(bound_us(BOUNDS - 1), Some(16_777_216));
    }

    #[test]
    fn counts_add_up() {
        let (first, second) = (Histogram::default(), Histogram::default());
        first.note(10);
        second.note(20);
        second.note(10);
        let mut sum = Counted::NONE;
        sum.add(&first.counted());
        sum.add(&second.counted());
        assert_eq!((sum.counts[0], sum.counts[1], sum.sum_us), (2, 1, 40));
    }
}
