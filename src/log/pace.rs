//! So many bytes per second for work that can wait.

use std::cell::Cell;
use std::time::Duration;

/// The longest wait at a time: whoever waits looks up now and then whether it is still wanted.
const STEP_MAX: Duration = Duration::from_millis(100);

/// Counts bytes and says how long to wait before more.
pub(super) struct Pace {
    bytes_per_second: f64,
    /// When what was taken so far is paid for.
    paid_at_us: Cell<f64>,
    owed_bytes: Cell<u64>,
    read_bytes: Cell<u64>,
    written_bytes: Cell<u64>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: f64) -> Pace {
        Pace {
            bytes_per_second,
            paid_at_us: Cell::new(0.0),
            owed_bytes: Cell::new(0),
            read_bytes: Cell::new(0),
            written_bytes: Cell::new(0),
        }
    }

    pub(super) fn note_read(&self, bytes: u64) {
        self.read_bytes.set(self.read_bytes.get() + bytes);
        self.owed_bytes.set(self.owed_bytes.get() + bytes);
    }

    pub(super) fn note_written(&self, bytes: u64) {
        self.written_bytes.set(self.written_bytes.get() + bytes);
        self.owed_bytes.set(self.owed_bytes.get() + bytes);
    }

    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.get()
    }

    /// How long to wait, at most a step; none when more may be taken. Time in which nothing was
    /// taken is not saved up.
    pub(super) fn delay(&self, now_us: u64) -> Option<Duration> {
        let now_us = now_us as f64;
        let owed_us = self.owed_bytes.replace(0) as f64 / self.bytes_per_second * 1e6;
        let paid_at_us = if owed_us > 0.0 {
            self.paid_at_us.get().max(now_us) + owed_us
        } else {
            self.paid_at_us.get()
        };
        self.paid_at_us.set(paid_at_us);
        let left_us = paid_at_us - now_us;
        (left_us >= 1.0).then(|| Duration::from_micros(left_us as u64).min(STEP_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_with_time_that_is_not_saved_up() {
        let pace = Pace::new(1000.0);
        assert_eq!(pace.delay(5_000_000), None);
        pace.note_read(30);
        pace.note_written(20);
        assert_eq!(pace.delay(5_000_000), Some(Duration::from_millis(50)));
        assert_eq!(pace.delay(5_020_000), Some(Duration::from_millis(30)));
        pace.note_read(10);
        assert_eq!(pace.delay(5_020_000), Some(Duration::from_millis(40)));
        assert_eq!(pace.delay(5_060_000), None);
        pace.note_read(1000);
        assert_eq!(pace.delay(9_000_000), Some(STEP_MAX), "in steps");
        assert_eq!((pace.read_bytes(), pace.written_bytes()), (1040, 20));
    }

    #[test]
    fn without_a_bound_nobody_waits() {
        let pace = Pace::new(f64::MAX);
        pace.note_read(u64::MAX / 4);
        assert_eq!(pace.delay(0), None);
    }
}
