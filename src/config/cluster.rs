//! The settings of a cluster of several brokers.

use super::kind::Kind;
use super::knob::section;

const INT_MAX: i32 = i32::MAX;

section! {
    /// `[cluster]`: how brokers watch and copy each other.
    ClusterConfig in "cluster" {
        /// How often a broker tells the controller that it is alive.
        heartbeat_interval_ms: u64 = "200", Kind::Int(10, INT_MAX), "ms", ["broker.heartbeat.interval.ms"];
        /// How long the controller waits for a broker before others lead what it led.
        session_timeout_ms: u64 = "3000", Kind::Int(100, INT_MAX), "ms", ["broker.session.timeout.ms"];
        /// How long a broker waits at a stop for others to lead what it leads.
        shutdown_patience_ms: u64 = "10000", Kind::Int(0, INT_MAX), "ms", [];
        /// How long a follower may lack what its leader has and still count as in sync.
        replica_lag_max_ms: u64 = "30000", Kind::Long(1, i64::MAX / 1000), "ms", ["replica.lag.time.max.ms"];
        /// Bytes of one partition in one answer to a follower; a larger first batch comes whole.
        replica_fetch_max_bytes: usize = "1048576", Kind::Int(1024, INT_MAX), "bytes", ["replica.fetch.max.bytes"];
        /// Bytes of all partitions in one answer to a follower.
        replica_fetch_response_max_bytes: usize = "10485760", Kind::Int(1024, 64 << 20), "bytes", ["replica.fetch.response.max.bytes"];
        /// How long a leader that has nothing new lets a follower wait.
        replica_fetch_wait_ms: u64 = "500", Kind::Int(1, INT_MAX), "ms", ["replica.fetch.wait.max.ms"];
        /// Whether preferred leaders get their partitions back by themselves.
        leader_rebalance_enable: bool = "true", Kind::Bool, "", ["auto.leader.rebalance.enable"];
        /// How often the controller looks for partitions that their preferred leaders do not lead.
        leader_rebalance_interval_ms: u64 = "300000", Kind::Long(1000, i64::MAX / 1000), "ms", ["leader.imbalance.check.interval.seconds" * 1000];
        /// Size of a node's answer that other nodes accept.
        peer_frame_max_bytes: usize = "134217728", Kind::Int(1 << 20, INT_MAX), "bytes", [];
    }
}
