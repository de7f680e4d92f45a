//! A budget of bytes per second, and of bytes in flight, for work that must not crowd out the
//! journal.
//!
//! Measured: segments written at 800 MB/s beside a journal cut it to an eighth, at 400 MB/s they
//! did it no harm.

use std::cell::Cell;
use std::time::Duration;

use crate::runtime::clock;
use crate::runtime::signal::Signal;

/// Sleeping for less is not worth a timer.
const LEAST_SLEEP_US: u64 = 1000;
/// What may be in flight beside another write: many small ones, or one large one.
const MOST_IN_FLIGHT_BYTES: u64 = 1 << 20;

/// See the head of this file.
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When the budget of what was taken so far is used up.
    free_at_us: Cell<u64>,
    in_flight_bytes: Cell<u64>,
    ended: Signal,
}

/// The place of a write among those in flight.
pub(super) struct InFlight<'a> {
    pace: &'a Pace,
    bytes: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let left = self.pace.in_flight_bytes.get() - self.bytes;
        self.pace.in_flight_bytes.set(left);
        self.pace.ended.raise();
    }
}

impl Pace {
    /// A budget; 0 is none at all.
    pub(super) fn new(bytes_per_second: u64) -> Pace {
        Pace {
            bytes_per_second,
            free_at_us: Cell::new(0),
            in_flight_bytes: Cell::new(0),
            ended: Signal::default(),
        }
    }

    /// Takes `bytes` from the budget; how long to wait before more is taken.
    pub(super) fn take(&self, bytes: u64, now_us: u64) -> Option<Duration> {
        if self.bytes_per_second == 0 {
            return None;
        }
        let cost_us = bytes.saturating_mul(1_000_000) / self.bytes_per_second;
        let free_at_us = self.free_at_us.get().max(now_us) + cost_us;
        self.free_at_us.set(free_at_us);
        let wait_us = free_at_us - now_us;
        (wait_us >= LEAST_SLEEP_US).then(|| Duration::from_micros(wait_us))
    }

    /// Waits until a write of `bytes` may join those in flight.
    pub(super) async fn enter(&self, bytes: u64) -> InFlight<'_> {
        loop {
            let ended = self.ended.raised();
            let others = self.in_flight_bytes.get();
            if others == 0 || others + bytes <= MOST_IN_FLIGHT_BYTES {
                self.in_flight_bytes.set(others + bytes);
                return InFlight { pace: self, bytes };
            }
            ended.await;
        }
    }

    /// Takes `bytes` and waits until the budget allows more.
    pub(super) async fn spend(&self, bytes: u64) {
        if let Some(wait) = self.take(bytes, clock::monotonic_us()) {
            clock::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_budget_is_kept_and_not_saved_up() {
        let pace = Pace::new(1_000_000);
        assert_eq!(pace.take(500, 0), None, "too short to sleep");
        assert_eq!(pace.take(1500, 0), Some(Duration::from_micros(2000)));
        assert_eq!(pace.take(1000, 2000), Some(Duration::from_micros(1000)));
        let late = pace.take(3000, 1_000_000);
        assert_eq!(late, Some(Duration::from_micros(3000)), "idle time is lost");
        assert_eq!(Pace::new(0).take(u64::MAX, 0), None);
    }

    #[test]
    fn small_writes_are_in_flight_together_and_large_ones_alone() {
        let pace = Pace::new(0);
        let mut context = Context::from_waker(Waker::noop());
        let small = [pace.enter(4096), pace.enter(4096)].map(futures_lite::future::block_on);
        let mut large = pin!(pace.enter(MOST_IN_FLIGHT_BYTES));
        assert!(large.as_mut().poll(&mut context).is_pending());
        drop(small);
        let Poll::Ready(large) = large.as_mut().poll(&mut context) else {
            panic!("nothing else is in flight");
        };
        let mut next = pin!(pace.enter(1));
        assert!(next.as_mut().poll(&mut context).is_pending());
        drop(large);
        assert!(next.as_mut().poll(&mut context).is_ready());
    }
}
