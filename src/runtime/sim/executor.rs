//! Tasks of the simulated machine, which schedules all queues by chance; see the real `executor.rs` for
//! what the names mean.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::core_id::CoreId;
pub use super::core_plan::Queue;
use super::sim::world;

/// Starts a detached task on the current core.
pub fn spawn(_queue: Queue, future: impl Future<Output = ()> + 'static) {
    let world = world::current();
    let core = world.core();
    world.spawn(core, future);
}

/// The core whose task is running.
#[must_use]
pub fn current_core() -> CoreId {
    world::current().core()
}

/// Lets others run.
pub async fn yield_now() {
    YieldOnce(false).await;
}

/// Lets others run if this task has run for long; the simulation always yields.
pub async fn yield_if_needed() {
    yield_now().await;
}

struct YieldOnce(bool);

impl Future for YieldOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
