//! How many connections there are, over all cores: in total, per address, per core.
//!
//! Addresses are counted in two rows of atomics under two keyed hashes, and an address's count is
//! the smaller of its two cells: never too small, and too large only when other addresses collide
//! with it in both rows. So the table has a fixed size whatever the number of addresses, cores
//! share it without a lock, and nobody can aim at a neighbour's cell without the key.

use core::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::close_reason::CloseReason;
use crate::runtime::core_id::CoreId;
use crate::runtime::random::random_bytes;

const ROW_CELLS: usize = 1 << 14;

/// Counts of the whole process; made once at start.
pub struct ConnectionLimits {
    max_connections: usize,
    max_connections_per_ip: usize,
    total: AtomicUsize,
    rows: [Box<[AtomicU32]>; 2],
    keys: [u64; 2],
    per_core: Box<[AtomicUsize]>,
}

impl ConnectionLimits {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(
        cores: usize,
        max_connections: usize,
        max_connections_per_ip: usize,
    ) -> Arc<ConnectionLimits> {
        let row = || (0..ROW_CELLS).map(|_| AtomicU32::new(0)).collect();
        let key = || u64::from_ne_bytes(random_bytes::<8>()) | 1;
        Arc::new(ConnectionLimits {
            max_connections,
            max_connections_per_ip,
            total: AtomicUsize::new(0),
            rows: [row(), row()],
            keys: [key(), key()],
            per_core: (0..cores).map(|_| AtomicUsize::new(0)).collect(),
        })
    }

    /// Counts one more connection, or says which limit it would break.
    pub(crate) fn admit(
        self: &Arc<ConnectionLimits>,
        address: IpAddr,
        core: CoreId,
    ) -> Result<Admitted, CloseReason> {
        // Counted first and taken back by the drop when too many: two cores cannot both slip in.
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        self.per_core[core.index()].fetch_add(1, Ordering::Relaxed);
        let before = self
            .cells(address)
            .map(|cell| cell.fetch_add(1, Ordering::Relaxed));
        let admitted = Admitted {
            limits: self.clone(),
            address,
            core,
        };
        if total >= self.max_connections {
            return Err(CloseReason::LimitTotal);
        }
        if before.into_iter().min().unwrap_or(0) as usize >= self.max_connections_per_ip {
            return Err(CloseReason::LimitPerAddress);
        }
        Ok(admitted)
    }

    fn cells(&self, address: IpAddr) -> [&AtomicU32; 2] {
        let bits = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        [0, 1].map(|row| {
            let key = self.keys[row];
            let low = mix((bits as u64) ^ key, key);
            let hash = mix(((bits >> 64) as u64) ^ low, key.rotate_left(32));
            &self.rows[row][hash as usize % ROW_CELLS]
        })
    }

    /// The core with the fewest connections, when it has clearly fewer than `here`.
    pub(crate) fn emptier(&self, here: CoreId) -> Option<CoreId> {
        let count = |cell: &AtomicUsize| cell.load(Ordering::Relaxed);
        let mine = count(&self.per_core[here.index()]);
        let counts = self.per_core.iter().map(count).enumerate();
        let (core, fewest) = counts.min_by_key(|(_, count)| *count)?;
        // `mine` counts the connection in question already.
        let clearly = fewest + 1 + mine / 8 < mine;
        clearly.then(|| CoreId(u16::try_from(core).expect("cores are counted in 16 bits")))
    }

    /// Connections of the whole process.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }
}

/// One round of multiply-and-fold.
fn mix(value: u64, key: u64) -> u64 {
    let product = u128::from(value) * u128::from(key ^ 0x9E37_79B9_7F4A_7C15);
    (product as u64) ^ ((product >> 64) as u64)
}

/// One counted connection; the count ends with it.
pub(crate) struct Admitted {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
    core: CoreId,
}

impl Admitted {
    /// Counts the connection for another core from now on.
    pub(crate) fn move_to(&mut self, core: CoreId) {
        self.limits.per_core[core.index()].fetch_add(1, Ordering::Relaxed);
        self.limits.per_core[self.core.index()].fetch_sub(1, Ordering::Relaxed);
        self.core = core;
    }
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admitted({} on core {})", self.address, self.core)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.limits.total.fetch_sub(1, Ordering::Relaxed);
        self.limits.per_core[self.core.index()].fetch_sub(1, Ordering::Relaxed);
        for cell in self.limits.cells(self.address) {
            cell.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn limits_hold_and_counts_are_given_back() {
        let limits = ConnectionLimits::new(2, 5, 2);
        let mut held: Vec<_> = [1, 1, 2, 2, 3]
            .map(|last| limits.admit(address(last), CoreId(0)).expect("admitted"))
            .into();
        assert_eq!(
            limits.admit(address(9), CoreId(0)).err(),
            Some(CloseReason::LimitTotal)
        );
        held.pop();
        assert_eq!(
            limits.admit(address(1), CoreId(0)).err(),
            Some(CloseReason::LimitPerAddress)
        );
        assert!(limits.admit(address(9), CoreId(0)).is_ok());
        assert_eq!(limits.total(), 4);
        held.clear();
        assert_eq!(limits.total(), 0);
        assert!(
            limits
                .rows
                .iter()
                .flatten()
                .all(|cell| cell.load(Ordering::Relaxed) == 0)
        );
    }

    #[test]
    fn only_a_clearly_emptier_core_is_offered() {
        let limits = ConnectionLimits::new(2, 100, 100);
        let mut held = vec![limits.admit(address(1), CoreId(0)).expect("admitted")];
        assert_eq!(limits.emptier(CoreId(0)), None);
        held.push(limits.admit(address(1), CoreId(0)).expect("admitted"));
        assert_eq!(limits.emptier(CoreId(0)), Some(CoreId(1)));
        held[1].move_to(CoreId(1));
        assert_eq!(limits.emptier(CoreId(0)), None);
        assert_eq!(limits.emptier(CoreId(1)), None);
    }
}
