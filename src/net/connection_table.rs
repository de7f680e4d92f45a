//! The connections of one core: who is idle, who is slow, who has to go.
//!
//! Deadlines are cells that one sweep per core looks at, so that no request needs a timer.

use core::net::IpAddr;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use slab::Slab;

use super::close_reason::CloseReason;
use super::net_limits::NetLimits;
use crate::runtime::clock::monotonic_us;
use crate::runtime::signal::Signal;

/// A body younger than this is rated as if it had this age.
const RATE_AGE_US: u64 = 1_000;

/// A frame of which not everything has arrived.
#[derive(Clone, Copy, Debug)]
struct Body {
    since_us: u64,
    /// When its first byte was seen; unlike `since_us` not moved by waits.
    begun_us: u64,
    received_bytes: usize,
    /// Since when it waits for our memory, which is not the sender's time.
    paused_us: Option<u64>,
}

impl Body {
    fn age_us(&self, now_us: u64) -> u64 {
        self.paused_us
            .unwrap_or(now_us)
            .saturating_sub(self.since_us)
    }

    /// Bytes per second so far, without the waits for memory.
    fn rate(&self, now_us: u64) -> u64 {
        self.received_bytes as u64 * 1_000_000 / self.age_us(now_us).max(RATE_AGE_US)
    }

    /// The same with them: among bodies that all wait, the oldest has had its chance.
    fn worth(&self, now_us: u64) -> u64 {
        let age_us = now_us.saturating_sub(self.begun_us);
        self.received_bytes as u64 * 1_000_000 / age_us.max(RATE_AGE_US)
    }
}

/// One connection as the sweep sees it.
pub(crate) struct Entry {
    id: u64,
    address: IpAddr,
    changed: Signal,
    end: Cell<Option<CloseReason>>,
    stopping: Cell<bool>,
    last_activity_us: Cell<u64>,
    body: Cell<Option<Body>>,
    write_deadline_us: Cell<Option<u64>>,
    in_flight: Cell<usize>,
}

impl Entry {
    pub(crate) fn new(id: u64, address: IpAddr) -> Rc<Entry> {
        Rc::new(Entry {
            id,
            address,
            changed: Signal::default(),
            end: Cell::new(None),
            stopping: Cell::new(false),
            last_activity_us: Cell::new(monotonic_us()),
            body: Cell::new(None),
            write_deadline_us: Cell::new(None),
            in_flight: Cell::new(0),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    pub(crate) fn set_in_flight(&self, count: usize) {
        self.in_flight.set(count);
    }

    pub(crate) fn touch(&self) {
        self.last_activity_us.set(monotonic_us());
    }

    /// Part of a frame is here and the rest is awaited.
    pub(crate) fn note_body(&self, received_bytes: usize) {
        let body = self.body.get().unwrap_or_else(|| {
            let now_us = monotonic_us();
            Body {
                since_us: now_us,
                begun_us: now_us,
                received_bytes,
                paused_us: None,
            }
        });
        self.body.set(Some(Body {
            received_bytes,
            ..body
        }));
    }

    pub(crate) fn end_body(&self) {
        self.body.set(None);
    }

    /// Its clock stands still while it waits for our memory.
    pub(crate) fn pause_body(&self) {
        if let Some(body) = self.body.get() {
            self.body.set(Some(Body {
                paused_us: Some(monotonic_us()),
                ..body
            }));
        }
    }

    /// Its clock goes on.
    pub(crate) fn resume_body(&self) {
        if let Some(body) = self.body.get()
            && let Some(paused_us) = body.paused_us
        {
            let since_us = body.since_us + (monotonic_us() - paused_us);
            self.body.set(Some(Body {
                since_us,
                paused_us: None,
                ..body
            }));
        }
    }

    pub(crate) fn set_write_deadline(&self, deadline_us: Option<u64>) {
        self.write_deadline_us.set(deadline_us);
    }

    /// Ends the connection for `reason`; the first reason stays.
    pub(crate) fn kill(&self, reason: CloseReason) {
        if self.end.get().is_none() {
            self.end.set(Some(reason));
            self.changed.raise();
        }
    }

    /// Lets it answer what it has begun, and then end.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        self.changed.raise();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Resolves when somebody killed the connection.
    pub(crate) async fn killed(&self) -> CloseReason {
        loop {
            let changed = self.changed.raised();
            if let Some(reason) = self.end.get() {
                return reason;
            }
            changed.await;
        }
    }

    /// Resolves when the connection is to stop.
    pub(crate) async fn stopped(&self) {
        loop {
            let changed = self.changed.raised();
            if self.stopping.get() {
                return;
            }
            changed.await;
        }
    }

    /// Which deadline it has missed.
    fn overdue(&self, now_us: u64, limits: &NetLimits) -> Option<CloseReason> {
        if self
            .write_deadline_us
            .get()
            .is_some_and(|deadline| now_us > deadline)
        {
            return Some(CloseReason::WriteStalled);
        }
        if let Some(body) = self.body.get() {
            let age_ms = body.age_us(now_us) / 1000;
            let slow = age_ms > limits.body_grace_ms
                && body.rate(now_us) < limits.body_min_rate_bytes_per_s;
            return (slow || age_ms > limits.body_deadline_ms).then_some(CloseReason::BodyDeadline);
        }
        if self.in_flight.get() > 0 {
            return None;
        }
        let idle_ms = now_us.saturating_sub(self.last_activity_us.get()) / 1000;
        (idle_ms > limits.max_idle_ms).then_some(CloseReason::Idle)
    }
}

/// All connections of one core.
#[derive(Default)]
pub(crate) struct ConnectionTable {
    entries: RefCell<Slab<Rc<Entry>>>,
    emptied: Signal,
}

impl ConnectionTable {
    pub(crate) fn insert(&self, entry: Rc<Entry>) -> usize {
        self.entries.borrow_mut().insert(entry)
    }

    pub(crate) fn remove(&self, key: usize) {
        let mut entries = self.entries.borrow_mut();
        entries.remove(key);
        if entries.is_empty() {
            drop(entries);
            self.emptied.raise();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    fn each(&self, mut act: impl FnMut(&Rc<Entry>)) {
        // Acting only raises signals, so nothing comes back here meanwhile.
        for (_, entry) in &*self.entries.borrow() {
            act(entry);
        }
    }

    /// Kills whoever missed a deadline.
    pub(crate) fn sweep(&self, limits: &NetLimits) {
        let now_us = monotonic_us();
        self.each(|entry| {
            if let Some(reason) = entry.overdue(now_us, limits) {
                entry.kill(reason);
            }
        });
    }

    /// The body that arrives most slowly, of one address or of all.
    pub(crate) fn slowest_body(&self, address: Option<IpAddr>) -> Option<Rc<Entry>> {
        let now_us = monotonic_us();
        let mut slowest: Option<(u64, Rc<Entry>)> = None;
        self.each(|entry| {
            let wanted = address.is_none_or(|address| address == entry.address);
            let rate = entry.body.get().map(|body| body.worth(now_us));
            if let Some(rate) = rate
                && wanted
                && entry.end.get().is_none()
                && slowest.as_ref().is_none_or(|(least, _)| rate < *least)
            {
                slowest = Some((rate, entry.clone()));
            }
        });
        slowest.map(|(_, entry)| entry)
    }

    /// Lets all connections answer what they have begun.
    pub(crate) fn stop_all(&self) {
        self.each(|entry| entry.stop());
    }

    /// Ends all connections now.
    pub(crate) fn kill_all(&self, reason: CloseReason) {
        self.each(|entry| entry.kill(reason));
    }

    /// Resolves when no connection is left.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.raised();
            if self.entries.borrow().is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn entry(id: u64) -> Rc<Entry> {
        Entry::new(id, IpAddr::from([127, 0, 0, 1]))
    }

    #[test]
    fn deadlines_are_told_apart() {
        let limits = NetLimits::default();
        let second = 1_000_000;
        let entry = entry(1);
        let start = entry.last_activity_us.get();
        assert_eq!(entry.overdue(start + 600 * second, &limits), None);
        assert_eq!(
            entry.overdue(start + 601 * second, &limits),
            Some(CloseReason::Idle)
        );
        entry.body.set(Some(Body {
            since_us: start,
            begun_us: start,
            received_bytes: 1 << 20,
            paused_us: None,
        }));
        assert_eq!(entry.overdue(start + 59 * second, &limits), None);
        assert_eq!(
            entry.overdue(start + 61 * second, &limits),
            Some(CloseReason::BodyDeadline)
        );
        entry.note_body(4);
        assert_eq!(entry.overdue(start + 5 * second, &limits), None);
        assert_eq!(
            entry.overdue(start + 6 * second, &limits),
            Some(CloseReason::BodyDeadline)
        );
        entry.pause_body();
        assert_eq!(entry.overdue(start + 600 * second, &limits), None);
        entry.resume_body();
        assert_eq!(
            entry.overdue(start + 7 * second, &limits),
            Some(CloseReason::BodyDeadline)
        );
        entry.end_body();
        entry.set_in_flight(1);
        assert_eq!(entry.overdue(start + 700 * second, &limits), None);
        entry.set_write_deadline(Some(start));
        assert_eq!(
            entry.overdue(start + 1, &limits),
            Some(CloseReason::WriteStalled)
        );
    }

    #[test]
    fn the_slowest_living_body_is_found() {
        let table = ConnectionTable::default();
        let entries: Vec<_> = (0..4).map(entry).collect();
        for (entry, received_bytes) in entries.iter().zip([500, 100, 300]) {
            entry.body.set(Some(Body {
                since_us: 0,
                begun_us: 0,
                received_bytes,
                paused_us: None,
            }));
            table.insert(entry.clone());
        }
        table.insert(entries[3].clone());
        let slowest = |address| table.slowest_body(address).map(|entry| entry.id());
        assert_eq!(slowest(None), Some(1));
        entries[1].kill(CloseReason::Memory);
        assert_eq!(slowest(None), Some(2));
        assert_eq!(slowest(Some(IpAddr::from([127, 0, 0, 2]))), None);
    }
}
