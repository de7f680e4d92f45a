//! A bounded queue with one producer and one consumer, and the doorbell that wakes the consumer.
//!
//! Nothing here locks. The proof for the `unsafe` of the queue:
//!
//! 1. Slots `head..tail` (modulo the capacity) hold values, all others are empty. Only the
//!    [`Producer`] moves `tail`, only the [`Consumer`] moves `head`; neither is `Clone` nor `Sync`.
//! 2. The producer writes slot `tail` only after it loaded (`Acquire`) a `head` that shows the slot
//!    empty, and publishes it with a `Release` store of `tail`; the consumer reads a slot only
//!    after an `Acquire` load of a `tail` beyond it. The reverse holds for `head`. So no slot is
//!    ever accessed from both sides at once.
//! 3. Whatever is left is dropped by the last owner of the shared part, when both sides are gone.
//!
//! The doorbell never loses a wake-up: the consumer arms it, fences, and looks at the queue once
//! more before it sleeps; the producer pushes, fences, and looks at the arm. Both fences are
//! sequentially consistent, so at least one of the two sees what the other wrote: either the
//! consumer finds the value and does not sleep, or the producer finds the arm and rings. While the
//! consumer is busy it is not armed and a push costs no system call.
#![allow(unsafe_code)] // The proof is above.

use std::cell::Cell;
use std::mem::MaybeUninit;

#[cfg(feature = "loom")]
use loom::{
    cell::UnsafeCell,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence},
};
#[cfg(not(feature = "loom"))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering, fence},
};

#[cfg(not(feature = "loom"))]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(feature = "loom"))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}

/// Keeps the two counters off each other's cache line (two lines, for adjacent-line prefetch).
#[repr(align(128))]
struct Apart(AtomicUsize);

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    head: Apart,
    tail: Apart,
}

// SAFETY: values move from one side to the other, which `T: Send` allows; rule 2 orders accesses.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; each side is a single owner.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.0.load(Ordering::Acquire);
        let mut head = self.head.0.load(Ordering::Acquire);
        while head != tail {
            // SAFETY: rule 3: this is the last owner, and the slot holds a value (rule 1).
            self.slot(head)
                .with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The only side that pushes.
pub(crate) struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: Cell<usize>,
    head_seen: Cell<usize>,
}

/// The only side that pops.
pub(crate) struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: Cell<usize>,
    tail_seen: Cell<usize>,
}

/// A queue for at least `capacity` values (rounded up to a power of two).
pub(crate) fn spsc<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let shared = Arc::new(Shared {
        slots: (0..capacity)
            .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
            .collect(),
        head: Apart(AtomicUsize::new(0)),
        tail: Apart(AtomicUsize::new(0)),
    });
    (
        Producer {
            shared: shared.clone(),
            tail: Cell::new(0),
            head_seen: Cell::new(0),
        },
        Consumer {
            shared,
            head: Cell::new(0),
            tail_seen: Cell::new(0),
        },
    )
}

impl<T> Producer<T> {
    /// Appends a value, or gives it back when the queue is full.
    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let tail = self.tail.get();
        if tail.wrapping_sub(self.head_seen.get()) == self.shared.slots.len() {
            self.head_seen
                .set(self.shared.head.0.load(Ordering::Acquire));
            if tail.wrapping_sub(self.head_seen.get()) == self.shared.slots.len() {
                return Err(value);
            }
        }
        // SAFETY: rule 2: the slot is empty and the consumer does not look at it before the store.
        self.shared.slot(tail).with_mut(|slot| unsafe {
            (*slot).write(value);
        });
        self.tail.set(tail.wrapping_add(1));
        self.shared.tail.0.store(self.tail.get(), Ordering::Release);
        Ok(())
    }
}

impl<T> Consumer<T> {
    /// Whether nothing is there at this moment.
    pub(crate) fn is_empty(&self) -> bool {
        if self.tail_seen.get() == self.head.get() {
            self.tail_seen
                .set(self.shared.tail.0.load(Ordering::Acquire));
        }
        self.tail_seen.get() == self.head.get()
    }

    /// Takes the oldest value.
    pub(crate) fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let head = self.head.get();
        // SAFETY: rule 2: the slot holds a value, and the producer does not touch it before the
        // store below.
        let value = self
            .shared
            .slot(head)
            .with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head.set(head.wrapping_add(1));
        self.shared.head.0.store(self.head.get(), Ordering::Release);
        Some(value)
    }
}

/// The arm of a sleeping consumer, see the file head.
pub(crate) struct Doorbell {
    armed: AtomicBool,
}

impl Doorbell {
    /// Not armed.
    pub(crate) fn new() -> Doorbell {
        Doorbell {
            armed: AtomicBool::new(false),
        }
    }

    /// The consumer is about to sleep. It must look at its queues once more after this.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The consumer is awake.
    pub(crate) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Whether nobody rang since [`Doorbell::arm`].
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// After a push: whether the caller has to wake the consumer (at most one caller per arm).
    pub(crate) fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::AcqRel)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn is_first_in_first_out_and_bounded() {
        let (producer, consumer) = spsc(4);
        for round in 0..3 {
            for value in 0..4 {
                producer.push(round * 10 + value).expect("room");
            }
            assert_eq!(producer.push(99), Err(99));
            for value in 0..4 {
                assert_eq!(consumer.pop(), Some(round * 10 + value));
            }
            assert!(consumer.is_empty());
        }
    }

    #[test]
    fn values_left_behind_are_dropped_once() {
        let witness = std::rc::Rc::new(());
        struct Held {
            _witness: std::rc::Rc<()>,
        }
        // SAFETY: the test uses both sides on one thread.
        unsafe impl Send for Held {}
        let (producer, consumer) = spsc(8);
        for _ in 0..5 {
            assert!(
                producer
                    .push(Held {
                        _witness: witness.clone()
                    })
                    .is_ok()
            );
        }
        drop(consumer.pop());
        assert_eq!(std::rc::Rc::strong_count(&witness), 5);
        drop(consumer);
        drop(producer);
        assert_eq!(std::rc::Rc::strong_count(&witness), 1);
    }

    #[test]
    fn crosses_threads_in_order() {
        let (producer, consumer) = spsc(16);
        let sender = std::thread::spawn(move || {
            for value in 0..100_000_u64 {
                let mut pending = value;
                while let Err(back) = producer.push(pending) {
                    pending = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < 100_000 {
            match consumer.pop() {
                Some(value) => {
                    assert_eq!(value, expected);
                    expected += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        sender.join().expect("sender");
    }

    #[test]
    fn only_one_ring_per_arm() {
        let bell = Doorbell::new();
        assert!(!bell.ring());
        bell.arm();
        assert!(bell.is_armed());
        assert!(bell.ring());
        assert!(!bell.ring());
        assert!(!bell.is_armed());
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use loom::thread;

    #[test]
    fn queue_moves_every_value_in_order() {
        loom::model(|| {
            let (producer, consumer) = spsc(2);
            let sender = thread::spawn(move || {
                for value in 0..3_u32 {
                    let mut pending = value;
                    while let Err(back) = producer.push(pending) {
                        pending = back;
                        thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < 3 {
                match consumer.pop() {
                    Some(value) => {
                        assert_eq!(value, expected);
                        expected += 1;
                    }
                    None => thread::yield_now(),
                }
            }
            sender.join().expect("sender");
        });
    }

    #[test]
    fn armed_consumer_never_sleeps_through_a_push() {
        loom::model(|| {
            let (producer, consumer) = spsc(2);
            let bell = Arc::new(Doorbell::new());
            let rung = Arc::new(AtomicBool::new(false));
            let sender = {
                let (bell, rung) = (bell.clone(), rung.clone());
                thread::spawn(move || {
                    assert!(producer.push(7_u32).is_ok());
                    if bell.ring() {
                        rung.store(true, Ordering::Release);
                    }
                })
            };
            bell.arm();
            let found = !consumer.is_empty();
            sender.join().expect("sender");
            assert!(
                found || rung.load(Ordering::Acquire),
                "asleep with a value in the queue"
            );
            assert_eq!(consumer.pop(), Some(7));
        });
    }
}
