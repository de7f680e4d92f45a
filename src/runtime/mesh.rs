//! Messages between cores, and between other threads and a core.
//!
//! [`mesh`]: one bounded queue per ordered pair of cores, without a lock; a receiver that is busy
//! costs its senders no system call. [`inbox`]: from any thread to one core. [`oneshot`]: one
//! answer from a core to a thread that may block.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bell::Bell;
use super::core_id::CoreId;
use super::queue::{Consumer, Producer, spsc};

/// One core's end of a mesh. Made before the cores start and moved onto its core.
pub struct MeshPort<T> {
    core: CoreId,
    outgoing: Vec<Producer<T>>,
    incoming: Vec<Consumer<T>>,
    bells: Vec<Arc<Bell>>,
    first: Cell<usize>,
    receiving: Cell<bool>,
}

/// Connects `cores` cores, each to each and to itself, with queues of `capacity` messages. The
/// port at index `i` is for core `i`.
#[must_use]
pub fn mesh<T: Send + 'static>(cores: usize, capacity: usize) -> Vec<MeshPort<T>> {
    let bells: Vec<_> = (0..cores).map(|_| Bell::new()).collect();
    let mut outgoing: Vec<Vec<Producer<T>>> = (0..cores).map(|_| Vec::new()).collect();
    let mut incoming: Vec<Vec<Consumer<T>>> = (0..cores).map(|_| Vec::new()).collect();
    for sender in &mut outgoing {
        for receiver in &mut incoming {
            let (producer, consumer) = spsc(capacity);
            sender.push(producer);
            receiver.push(consumer);
        }
    }
    outgoing
        .into_iter()
        .zip(incoming)
        .enumerate()
        .map(|(index, (outgoing, incoming))| MeshPort {
            core: CoreId(u16::try_from(index).expect("cores are counted in 16 bits")),
            outgoing,
            incoming,
            bells: bells.clone(),
            first: Cell::new(0),
            receiving: Cell::new(false),
        })
        .collect()
}

impl<T: Send + 'static> MeshPort<T> {
    /// The core this port belongs to.
    #[must_use]
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// How many cores the mesh connects.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// Gives the message back when the queue to that core is full.
    pub fn try_send(&self, to: CoreId, message: T) -> Result<(), T> {
        self.outgoing[to.index()].push(message)?;
        self.bells[to.index()].ring();
        Ok(())
    }

    /// Waits until something is there, then takes at most `most` messages, fairly over the
    /// senders. One receiver at a time.
    pub async fn receive(&self, into: &mut Vec<(CoreId, T)>, most: usize) {
        assert!(most > 0, "room for at least one message");
        assert!(!self.receiving.replace(true), "one receiver at a time");
        let _receiving = Receiving(&self.receiving);
        while self.drain(into, most) == 0 {
            let some = || self.incoming.iter().any(|queue| !queue.is_empty());
            self.bells[self.core.index()].rung(some).await;
        }
    }

    /// Takes what is there, at most `most`: an equal share per sender first, the rest in turn.
    fn drain(&self, into: &mut Vec<(CoreId, T)>, most: usize) -> usize {
        let senders = self.incoming.len();
        let share = most.div_ceil(senders);
        let first = self.first.get();
        self.first.set((first + 1) % senders);
        let mut taken = 0;
        for limit in [share, most] {
            for index in (first..senders).chain(0..first) {
                let from = CoreId(u16::try_from(index).expect("checked by mesh"));
                let mut here = 0;
                while here < limit && taken < most {
                    let Some(message) = self.incoming[index].pop() else {
                        break;
                    };
                    into.push((from, message));
                    here += 1;
                    taken += 1;
                }
            }
        }
        taken
    }
}

struct Receiving<'a>(&'a Cell<bool>);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

struct InboxState<T> {
    waiting: VecDeque<T>,
    senders: usize,
    receiver: bool,
}

struct InboxShared<T> {
    state: Mutex<InboxState<T>>,
    capacity: usize,
    bell: Arc<Bell>,
}

impl<T> InboxShared<T> {
    fn with<R>(&self, act: impl FnOnce(&mut InboxState<T>) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sends to an [`Inbox`] from any thread.
pub struct InboxSender<T> {
    shared: Arc<InboxShared<T>>,
}

/// What one core receives from other threads.
pub struct Inbox<T> {
    shared: Arc<InboxShared<T>>,
}

/// A bounded queue from any thread to one core; for rare messages, it locks.
#[must_use]
pub fn inbox<T: Send + 'static>(capacity: usize) -> (InboxSender<T>, Inbox<T>) {
    let state = InboxState {
        waiting: VecDeque::new(),
        senders: 1,
        receiver: true,
    };
    let shared = Arc::new(InboxShared {
        state: Mutex::new(state),
        capacity,
        bell: Bell::new(),
    });
    (
        InboxSender {
            shared: shared.clone(),
        },
        Inbox { shared },
    )
}

impl<T: Send + 'static> InboxSender<T> {
    /// Sends without waiting.
    ///
    /// # Errors
    /// Gives the message back when the inbox is full or its receiver is gone.
    pub fn try_send(&self, message: T) -> Result<(), T> {
        self.shared.with(|state| {
            if !state.receiver || state.waiting.len() >= self.shared.capacity {
                return Err(message);
            }
            state.waiting.push_back(message);
            Ok(())
        })?;
        self.shared.bell.ring();
        Ok(())
    }
}

impl<T> Clone for InboxSender<T> {
    fn clone(&self) -> InboxSender<T> {
        self.shared.with(|state| state.senders += 1);
        InboxSender {
            shared: self.shared.clone(),
        }
    }
}

impl<T> Drop for InboxSender<T> {
    fn drop(&mut self) {
        self.shared.with(|state| state.senders -= 1);
        self.shared.bell.ring();
    }
}

impl<T: Send + 'static> Inbox<T> {
    /// The next message, or `None` once all senders are gone.
    pub async fn receive(&self) -> Option<T> {
        let ready = || {
            self.shared
                .with(|state| state.senders == 0 || !state.waiting.is_empty())
        };
        self.shared.bell.rung(ready).await;
        self.shared.with(|state| state.waiting.pop_front())
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        let rest = self.shared.with(|state| {
            state.receiver = false;
            std::mem::take(&mut state.waiting)
        });
        drop(rest);
    }
}

struct OneshotState<T> {
    value: Option<T>,
    promised: bool,
}

struct OneshotShared<T> {
    state: Mutex<OneshotState<T>>,
    changed: Condvar,
}

/// Delivers one answer to another thread.
pub struct OneshotSender<T> {
    shared: Arc<OneshotShared<T>>,
}

/// Waits for it.
pub struct OneshotReceiver<T> {
    shared: Arc<OneshotShared<T>>,
}

/// A pair for one answer from a core to a thread outside.
#[must_use]
pub fn oneshot<T: Send + 'static>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    let state = Mutex::new(OneshotState {
        value: None,
        promised: true,
    });
    let shared = Arc::new(OneshotShared {
        state,
        changed: Condvar::new(),
    });
    (
        OneshotSender {
            shared: shared.clone(),
        },
        OneshotReceiver { shared },
    )
}

impl<T> OneshotSender<T> {
    /// Delivers.
    pub fn send(self, value: T) {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .value = Some(value);
        // The drop of `self` wakes the receiver.
    }
}

impl<T> Drop for OneshotSender<T> {
    fn drop(&mut self) {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .promised = false;
        self.shared.changed.notify_all();
    }
}

impl<T> OneshotReceiver<T> {
    /// Blocks the calling thread, which must not be a core. `None` when the sender was dropped
    /// without an answer or `limit` passed.
    #[must_use]
    pub fn wait(self, limit: Duration) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = state.value.take() {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !state.promised || left.is_zero() {
                return None;
            }
            let woken = self.shared.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::runtime::executor::yield_now;
    use crate::runtime::executor_test::{on_core, on_cores};

    /// Hands one value to each core by index.
    fn dealt<T>(values: Vec<T>) -> impl Fn(CoreId) -> T + Clone {
        let values = Arc::new(Mutex::new(values.into_iter().map(Some).collect::<Vec<_>>()));
        move |core| {
            values.lock().expect("lock")[core.index()]
                .take()
                .expect("dealt once")
        }
    }

    #[test]
    fn ping_pong_between_two_cores() {
        let ports = dealt(mesh::<u32>(2, 4));
        on_cores(2, move |core| {
            let port = ports(core);
            async move {
                assert_eq!((port.core(), port.cores()), (core, 2));
                let other = CoreId(1 - core.0);
                let mut got = Vec::new();
                if core == CoreId(0) {
                    port.try_send(other, 0).expect("room");
                }
                while got.len() < 2000 {
                    let at = got.len();
                    port.receive(&mut got, 1).await;
                    assert_eq!(got[at].0, other);
                    let next = got[at].1 + 1;
                    if next < 4000 {
                        port.try_send(other, next).expect("room");
                    }
                }
                let first = u32::from(core.0 == 0);
                let expected: Vec<_> = (0..2000).map(|step| (other, first + 2 * step)).collect();
                assert_eq!(got, expected);
            }
        });
    }

    #[test]
    fn a_burst_arrives_whole_and_a_full_queue_gives_back() {
        let ports = dealt(mesh::<u64>(2, 64));
        on_cores(2, move |core| {
            let port = ports(core);
            async move {
                const TOTAL: u64 = 200_000;
                if core == CoreId(0) {
                    let mut refused = 0;
                    for value in 0..TOTAL {
                        let mut pending = value;
                        while let Err(back) = port.try_send(CoreId(1), pending) {
                            pending = back;
                            refused += 1;
                            yield_now().await;
                        }
                    }
                    assert!(refused > 0, "64 places held {TOTAL} messages");
                } else {
                    let mut next = 0;
                    let mut batch = Vec::new();
                    while next < TOTAL {
                        port.receive(&mut batch, 16).await;
                        assert!(batch.len() <= 16);
                        for (_, value) in batch.drain(..) {
                            assert_eq!(value, next);
                            next += 1;
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn draining_is_fair_over_senders() {
        let ports = mesh::<u32>(3, 64);
        for _ in 0..50 {
            ports[0].try_send(CoreId(2), 0).expect("room");
        }
        ports[1].try_send(CoreId(2), 1).expect("room");
        for round in 0..3 {
            ports[2].try_send(CoreId(2), round).expect("room");
        }
        let mut got = Vec::new();
        assert_eq!(ports[2].drain(&mut got, 9), 9);
        let from = |sender| {
            got.iter()
                .filter(|(from, _)| *from == CoreId(sender))
                .count()
        };
        assert_eq!((from(0), from(1), from(2)), (5, 1, 3));
    }

    #[test]
    fn threads_reach_a_core_and_get_answers() {
        let (sender, inbox) = inbox::<(u32, OneshotSender<u32>)>(2);
        let asker = std::thread::spawn(move || {
            let other = sender.clone();
            drop(sender);
            for value in 0..100 {
                let (answer, answered) = oneshot();
                assert!(
                    other.try_send((value, answer)).is_ok(),
                    "room for one at a time"
                );
                assert_eq!(answered.wait(Duration::from_secs(60)), Some(value * 2));
            }
        });
        on_core(|| async move {
            while let Some((value, answer)) = inbox.receive().await {
                answer.send(value * 2);
            }
        });
        asker.join().expect("asker");
    }

    #[test]
    fn inboxes_are_bounded_and_end() {
        let (sender, inbox) = inbox(2);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Ok(()));
        assert_eq!(sender.try_send(3), Err(3));
        drop(inbox);
        assert_eq!(sender.try_send(4), Err(4));
        let (answer, answered) = oneshot::<u8>();
        drop(answer);
        assert_eq!(answered.wait(Duration::from_secs(60)), None);
        let (_kept, unanswered) = oneshot::<u8>();
        assert_eq!(unanswered.wait(Duration::ZERO), None);
    }
}
