//! Time: the wall clock for timestamps, the monotonic clock for everything that waits.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<Instant> = OnceLock::new();

/// Milliseconds since 1970, as records carry them. May jump.
#[must_use]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Microseconds since some moment early in this process; only differences mean anything.
#[must_use]
pub fn monotonic_us() -> u64 {
    let start = START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Resolves after `duration`, on the core that calls it.
pub async fn sleep(duration: Duration) {
    #[cfg(feature = "glommio")]
    glommio::timer::sleep(duration).await;
    #[cfg(not(feature = "glommio"))]
    super::timers::sleep(duration).await;
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::runtime::executor_test::on_core;

    #[test]
    fn time_passes_while_asleep() {
        on_core(|| async {
            let before = monotonic_us();
            sleep(Duration::from_millis(2)).await;
            assert!(monotonic_us() - before >= 2000);
            assert!(wall_ms() > 1_600_000_000_000);
        });
    }
}
