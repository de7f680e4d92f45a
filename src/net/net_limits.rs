//! The limits of this folder, filled from the configuration.

/// Bounds of connections, frames and memory. Sizes of memory are per core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetLimits {
    /// Connections of the whole process (`max.connections`).
    pub max_connections: usize,
    /// Connections from one address (`max.connections.per.ip`).
    pub max_connections_per_ip: usize,
    /// Largest frame (`socket.request.max.bytes`).
    pub max_frame_bytes: usize,
    /// Largest frame before authentication, where the listener demands it.
    pub max_frame_unauthenticated_bytes: usize,
    /// Smallest frame: what the shortest request header takes.
    pub min_frame_bytes: usize,
    /// Memory for requests of one core, from the first byte to the answer on the wire.
    pub request_memory_bytes: usize,
    /// The part of it that only small requests may use.
    pub small_reserve_bytes: usize,
    /// Frames up to this size are small requests.
    pub small_frame_bytes: usize,
    /// The most one connection may hold.
    pub connection_share_bytes: usize,
    /// The most all connections of one address may hold on one core.
    pub address_share_bytes: usize,
    /// Longest time a frame may take to arrive, not counting waits for memory.
    pub body_deadline_ms: u64,
    /// Slowest rate at which a frame may arrive, looked at after the grace.
    pub body_min_rate_bytes_per_s: u64,
    /// How long a body may be slow before its rate matters.
    pub body_grace_ms: u64,
    /// Longest wait for memory before the slowest body has to go.
    pub memory_wait_ms: u64,
    /// Longest wait for memory altogether; then the waiting connection goes itself.
    pub memory_wait_max_ms: u64,
    /// Requests of one connection in flight at once.
    pub max_in_flight: usize,
    /// Answers that may be ready and unsent while the next request is started.
    pub max_ready_bytes: usize,
    /// Time to send an answer, to which its size at the rate below is added.
    pub write_deadline_ms: u64,
    /// Slowest rate at which answers may leave.
    pub write_min_rate_bytes_per_s: u64,
    /// An idle connection is closed after this (`connections.max.idle.ms`).
    pub max_idle_ms: u64,
    /// How often deadlines are looked at.
    pub sweep_ms: u64,
}

impl Default for NetLimits {
    fn default() -> NetLimits {
        NetLimits {
            max_connections: 100_000,
            max_connections_per_ip: 100_000,
            max_frame_bytes: 100 << 20,
            max_frame_unauthenticated_bytes: 64 << 10,
            min_frame_bytes: 8,
            request_memory_bytes: 256 << 20,
            small_reserve_bytes: 16 << 20,
            small_frame_bytes: 16 << 10,
            connection_share_bytes: 128 << 20,
            address_share_bytes: 256 << 20,
            body_deadline_ms: 60_000,
            body_min_rate_bytes_per_s: 4 << 10,
            body_grace_ms: 5_000,
            memory_wait_ms: 200,
            memory_wait_max_ms: 30_000,
            max_in_flight: 64,
            max_ready_bytes: 256 << 10,
            write_deadline_ms: 30_000,
            write_min_rate_bytes_per_s: 64 << 10,
            max_idle_ms: 600_000,
            sweep_ms: 250,
        }
    }
}

impl NetLimits {
    /// Refuses limits that contradict each other, with the reason.
    ///
    /// # Errors
    /// The sentence to show.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            (
                self.min_frame_bytes >= 1,
                "the smallest frame needs at least one byte",
            ),
            (
                self.max_frame_unauthenticated_bytes <= self.max_frame_bytes,
                "frames before authentication may not be larger than after it",
            ),
            (
                // A growing buffer exists twice for a moment.
                self.max_frame_bytes + (4 << 20) <= self.connection_share_bytes,
                "socket.request.max.bytes must leave 4 MiB of a connection's share of memory",
            ),
            (
                self.connection_share_bytes <= self.request_memory_bytes
                    && self.address_share_bytes <= self.request_memory_bytes,
                "shares may not exceed the memory for requests",
            ),
            (
                self.connection_share_bytes + self.small_reserve_bytes <= self.request_memory_bytes,
                "one connection's share and the reserve must fit the memory for requests",
            ),
            (
                self.max_in_flight >= 1,
                "at least one request must be in flight",
            ),
            (self.sweep_ms >= 1, "deadlines must be looked at"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, reason)) => Err((*reason).to_owned()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_together_and_contradictions_are_named() {
        assert_eq!(NetLimits::default().check(), Ok(()));
        let limits = NetLimits {
            connection_share_bytes: 1 << 20,
            ..NetLimits::default()
        };
        assert!(
            limits
                .check()
                .expect_err("too small")
                .contains("socket.request.max.bytes")
        );
    }
}
