//! Memory for requests: one budget per core, charged in steps as bytes arrive and given back when
//! the last holder of the bytes drops them, from whatever core.
//!
//! Three pots bound every charge: the core's, the address's, the connection's. The core's keeps a
//! reserve that only small requests may use, so that stalled senders of large ones stop nobody.
//! Who meets a bound waits a little (answers on their way give memory back); then the slowest body
//! of those that share the bound is closed, which may be the one that waits.

use core::net::IpAddr;
use core::time::Duration;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::close_reason::CloseReason;
use super::connection_table::{ConnectionTable, Entry};
use super::net_limits::NetLimits;
use super::net_metrics::{NetMetrics, add};
use crate::runtime::clock::{monotonic_us, sleep};

/// How often a waiting connection looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Bytes held under one bound. Only the owning core adds; every core takes back.
#[derive(Debug, Default)]
struct Pot {
    used: AtomicUsize,
}

impl Pot {
    fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{bytes} bytes given back of {before}");
    }
}

/// What one connection is charged to.
#[derive(Debug, Default)]
pub(crate) struct Account {
    core: Arc<Pot>,
    address: Arc<Pot>,
    connection: Pot,
}

impl Account {
    fn give_back(&self, bytes: usize) {
        self.core.give_back(bytes);
        self.address.give_back(bytes);
        self.connection.give_back(bytes);
    }
}

/// Bytes charged to an account until dropped.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    account: Option<Arc<Account>>,
    bytes: usize,
}

impl Charge {
    /// A charge to nobody.
    pub(crate) fn nothing() -> Charge {
        Charge::default()
    }

    /// Joins another charge to the same account.
    pub(crate) fn merge(&mut self, mut other: Charge) {
        if self.account.is_none() {
            self.account = other.account.take();
        }
        // `other` must give nothing back any more.
        other.account = None;
        self.bytes += other.bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.give_back(self.bytes);
        }
    }
}

/// Which bound refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    Connection,
    Address,
    Core,
}

/// The budget of one core.
pub(crate) struct Admission {
    limits: Rc<NetLimits>,
    table: Rc<ConnectionTable>,
    metrics: Rc<NetMetrics>,
    core: Arc<Pot>,
    /// Per address with its number of connections here; bounded by the number of connections.
    addresses: RefCell<BTreeMap<IpAddr, (Arc<Pot>, usize)>>,
}

impl Admission {
    pub(crate) fn new(
        limits: Rc<NetLimits>,
        table: Rc<ConnectionTable>,
        metrics: Rc<NetMetrics>,
    ) -> Admission {
        let addresses = RefCell::new(BTreeMap::new());
        Admission {
            limits,
            table,
            metrics,
            core: Arc::default(),
            addresses,
        }
    }

    /// Bytes charged now.
    pub(crate) fn used_bytes(&self) -> usize {
        self.core.used()
    }

    /// Whether reads should be small because little is left.
    pub(crate) fn is_tight(&self) -> bool {
        let open = self.limits.request_memory_bytes - self.limits.small_reserve_bytes;
        self.core.used() > open - open / 8
    }

    pub(crate) fn open_account(&self, address: IpAddr) -> Arc<Account> {
        let mut addresses = self.addresses.borrow_mut();
        let (pot, connections) = addresses.entry(address).or_default();
        *connections += 1;
        let (core, address) = (self.core.clone(), pot.clone());
        Arc::new(Account {
            core,
            address,
            connection: Pot::default(),
        })
    }

    /// The connection is gone; what it still has in flight is given back later all the same.
    pub(crate) fn close_account(&self, address: IpAddr) {
        let mut addresses = self.addresses.borrow_mut();
        let (_, connections) = addresses.get_mut(&address).expect("opened before");
        *connections -= 1;
        if *connections == 0 {
            addresses.remove(&address);
        }
    }

    fn try_charge(
        &self,
        account: &Arc<Account>,
        bytes: usize,
        small: bool,
    ) -> Result<Charge, Refusal> {
        let limits = &self.limits;
        let reserve = if small { 0 } else { limits.small_reserve_bytes };
        if account.connection.used() + bytes > limits.connection_share_bytes {
            return Err(Refusal::Connection);
        }
        if account.address.used() + bytes > limits.address_share_bytes {
            return Err(Refusal::Address);
        }
        if account.core.used() + bytes > limits.request_memory_bytes - reserve {
            return Err(Refusal::Core);
        }
        for pot in [&*account.core, &*account.address, &account.connection] {
            pot.add(bytes);
        }
        let peak = &self.metrics.memory_peak_bytes;
        peak.set(peak.get().max(self.core.used() as u64));
        Ok(Charge {
            account: Some(account.clone()),
            bytes,
        })
    }

    /// Charges `bytes`, waiting for others to give back or making the slowest body go.
    pub(crate) async fn charge(
        &self,
        account: &Arc<Account>,
        entry: &Entry,
        bytes: usize,
        small: bool,
    ) -> Result<Charge, CloseReason> {
        if let Ok(charge) = self.try_charge(account, bytes, small) {
            return Ok(charge);
        }
        add(&self.metrics.memory_waits, 1);
        entry.pause_body();
        let outcome = self.wait_for(account, entry, bytes, small).await;
        entry.resume_body();
        outcome
    }

    async fn wait_for(
        &self,
        account: &Arc<Account>,
        entry: &Entry,
        bytes: usize,
        small: bool,
    ) -> Result<Charge, CloseReason> {
        let started_us = monotonic_us();
        loop {
            sleep(LOOK_AGAIN).await;
            let refusal = match self.try_charge(account, bytes, small) {
                Ok(charge) => return Ok(charge),
                Err(refusal) => refusal,
            };
            let waited_ms = (monotonic_us() - started_us) / 1000;
            if waited_ms > self.limits.memory_wait_max_ms {
                return Err(CloseReason::Memory);
            }
            if waited_ms > self.limits.memory_wait_ms {
                self.make_room(refusal, entry)?;
            }
        }
    }

    /// Closes the slowest body that shares the bound; an error when that is the asking one.
    fn make_room(&self, refusal: Refusal, asking: &Entry) -> Result<(), CloseReason> {
        let slowest = match refusal {
            // Its own requests hold the memory: they are answered, or it can never have it.
            Refusal::Connection if asking.in_flight() > 0 => return Ok(()),
            Refusal::Connection => return Err(CloseReason::Memory),
            Refusal::Address => self.table.slowest_body(Some(asking.address())),
            Refusal::Core => self.table.slowest_body(None),
        };
        match slowest {
            Some(slowest) if slowest.id() == asking.id() => Err(CloseReason::Memory),
            Some(slowest) => {
                slowest.kill(CloseReason::Memory);
                Ok(())
            }
            // All of it belongs to requests at work.
            None => Ok(()),
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn admission() -> Admission {
        let limits = NetLimits {
            request_memory_bytes: 1000,
            small_reserve_bytes: 200,
            connection_share_bytes: 500,
            address_share_bytes: 600,
            ..NetLimits::default()
        };
        Admission::new(Rc::new(limits), Rc::default(), Rc::default())
    }

    #[test]
    fn each_pot_refuses_and_gets_back() {
        let admission = admission();
        let here = IpAddr::from([10, 0, 0, 1]);
        let one = admission.open_account(here);
        let two = admission.open_account(here);
        let other = admission.open_account(IpAddr::from([10, 0, 0, 2]));
        let held = admission.try_charge(&one, 500, false).expect("fits");
        assert_eq!(
            admission.try_charge(&one, 1, false).err(),
            Some(Refusal::Connection)
        );
        assert_eq!(
            admission.try_charge(&two, 101, false).err(),
            Some(Refusal::Address)
        );
        assert_eq!(
            admission.try_charge(&other, 301, false).err(),
            Some(Refusal::Core)
        );
        assert!(!admission.is_tight());
        let small = admission
            .try_charge(&other, 301, true)
            .expect("the reserve is for small");
        assert!(admission.is_tight());
        std::thread::spawn(move || drop(held))
            .join()
            .expect("given back elsewhere");
        assert_eq!(admission.used_bytes(), 301);
        let mut joined = small;
        joined.merge(admission.try_charge(&other, 10, true).expect("fits"));
        assert_eq!((joined.bytes, admission.used_bytes()), (311, 311));
        drop(joined);
        assert_eq!(admission.used_bytes(), 0);
        admission.close_account(here);
        admission.close_account(here);
        assert_eq!(admission.addresses.borrow().len(), 1);
    }
}
