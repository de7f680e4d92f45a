//! Virtual time.

use std::time::Duration;

use super::sim::world;

/// Where the wall clock of a simulated machine starts, in milliseconds since 1970.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// Milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> i64 {
    EPOCH_MS + (world::current().now_us() / 1000) as i64
}

/// Microseconds since the machine started; never goes back.
#[must_use]
pub fn monotonic_us() -> u64 {
    world::current().now_us()
}

/// Waits.
pub async fn sleep(duration: Duration) {
    let world = world::current();
    let due_us = world.now_us() + duration.as_micros() as u64;
    world.until(due_us).await;
}
