//! The tasks of a core that wait for a moment.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::executor;

/// Sleeps longer than this end early, after years; the clock has no later moments.
const MOST_SLEEP: Duration = Duration::from_secs(10 * 365 * 86_400);

pub(crate) async fn sleep(duration: Duration) {
    Sleep {
        due: Instant::now() + duration.min(MOST_SLEEP),
        number: None,
    }
    .await;
}

/// The sleeping tasks of a core by the moment they are due.
#[derive(Default)]
pub(crate) struct Timers {
    sleeping: RefCell<BTreeMap<(Instant, u64), Waker>>,
    next: Cell<u64>,
}

impl Timers {
    /// Wakes everybody who is due.
    pub(crate) fn fire(&self, now: Instant) {
        loop {
            let due = {
                let mut sleeping = self.sleeping.borrow_mut();
                match sleeping.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            due.wake();
        }
    }

    /// How long until somebody is due.
    pub(crate) fn next_in(&self) -> Option<Duration> {
        let sleeping = self.sleeping.borrow();
        let ((due, _), _) = sleeping.first_key_value()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn is_due(&self) -> bool {
        self.next_in().is_some_and(|left| left.is_zero())
    }
}

struct Sleep {
    due: Instant,
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.due {
            return Poll::Ready(());
        }
        let core = executor::core();
        let timers = core.timers();
        let number = *self.number.get_or_insert_with(|| {
            timers.next.set(timers.next.get() + 1);
            timers.next.get()
        });
        let mut sleeping = timers.sleeping.borrow_mut();
        sleeping.insert((self.due, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (Some(number), Some(core)) = (self.number, executor::try_core()) {
            core.timers()
                .sleeping
                .borrow_mut()
                .remove(&(self.due, number));
        }
    }
}
