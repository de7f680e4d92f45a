//! When records are due. No clock in here: time comes in as nanoseconds since the run's clock began.
//!
//! Open loop: record `i` of the run is due at `start + i / rate`, whatever the broker does. Nothing
//! in the schedule waits for an answer, so a record that cannot be sent in time still counts from
//! the moment it was due: coordinated omission is impossible by construction.

/// Nanoseconds since the run's clock began.
pub(crate) type Nanos = u64;

/// Nanoseconds in a second.
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// A fixed rate from a fixed start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// When record 0 is due.
    pub(crate) start: Nanos,
    /// Records per second.
    pub(crate) rate: u64,
    /// Records in all.
    pub(crate) limit: u64,
}

impl Schedule {
    /// When the record of this index is due.
    pub(crate) fn intended(&self, index: u64) -> Nanos {
        let offset = u128::from(index) * u128::from(SECOND) / u128::from(self.rate);
        self.start + offset as Nanos
    }

    /// How many records are due at `now`: those of index below it.
    pub(crate) fn due(&self, now: Nanos) -> u64 {
        let Some(elapsed) = now.checked_sub(self.start) else {
            return 0;
        };
        let product = (u128::from(elapsed) + 1) * u128::from(self.rate);
        (product.div_ceil(u128::from(SECOND)) as u64).min(self.limit)
    }
}

/// What decides how much may be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// At a rate, from the intended time.
    Open(Schedule),
    /// As fast as the windows allow, up to so many records; a record is due when it is sent.
    Closed {
        /// Records in all.
        limit: u64,
    },
}

impl Pace {
    /// Records of the whole run that may have been sent by `now`.
    pub(crate) fn available(&self, now: Nanos) -> u64 {
        match self {
            Pace::Open(schedule) => schedule.due(now),
            Pace::Closed { limit } => *limit,
        }
    }

    /// When the record counts from, if it was handed out at `sent`.
    pub(crate) fn intended(&self, index: u64, sent: Nanos) -> Nanos {
        match self {
            Pace::Open(schedule) => schedule.intended(index),
            Pace::Closed { .. } => sent,
        }
    }

    /// When the first record that is not yet due at `now` will be, if there is one.
    pub(crate) fn next_due(&self, now: Nanos) -> Option<Nanos> {
        match self {
            Pace::Open(schedule) => {
                let due = schedule.due(now);
                (due < schedule.limit).then(|| schedule.intended(due))
            }
            Pace::Closed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_and_intended_agree_at_every_nanosecond_around_a_record() {
        for rate in [1, 3, 7, 1_000, 99_991, 1_000_000, 3_000_000_000] {
            let schedule = Schedule {
                start: 1_000,
                rate,
                limit: u64::MAX,
            };
            for index in [0, 1, 2, 3, 1_000, 12_345_678] {
                let at = schedule.intended(index);
                assert!(schedule.due(at) > index, "rate {rate}, record {index}");
                if at > schedule.start {
                    assert!(schedule.due(at - 1) <= index, "rate {rate}, record {index}");
                }
            }
            assert_eq!(schedule.due(schedule.start - 1), 0);
        }
    }

    #[test]
    fn the_schedule_ends_at_its_limit() {
        let pace = Pace::Open(Schedule {
            start: 0,
            rate: 10,
            limit: 5,
        });
        assert_eq!(pace.available(100 * SECOND), 5);
        assert_eq!(pace.next_due(0), Some(SECOND / 10));
        assert_eq!(pace.next_due(SECOND / 10 * 4), None);
    }

    #[test]
    fn without_a_rate_a_record_counts_from_its_sending() {
        let pace = Pace::Closed { limit: 7 };
        assert_eq!(pace.available(0), 7);
        assert_eq!(pace.intended(3, 55), 55);
        assert_eq!(pace.next_due(0), None);
    }
}
