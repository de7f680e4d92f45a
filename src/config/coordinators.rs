//! The settings of group and transaction coordinators.

use super::kind::Kind;
use super::knob::section;

const INT_MAX: i32 = i32::MAX;

section! {
    /// `[groups]`: consumer groups and the offsets they commit.
    GroupsConfig in "groups" {
        /// Partitions of __consumer_offsets when it is created.
        topic_partitions: i32 = "50", Kind::Int(1, 10_000), "partitions", ["offsets.topic.num.partitions"];
        /// Segment size of __consumer_offsets when it is created.
        topic_segment_bytes: i32 = "104857600", Kind::Int(1 << 20, INT_MAX), "bytes", ["offsets.topic.segment.bytes"];
        /// Replicas of __consumer_offsets; fewer while the cluster has fewer brokers.
        topic_replication_factor: i16 = "3", Kind::Int(1, 32_767), "replicas", ["offsets.topic.replication.factor"];
        /// Shortest session timeout of members of classic groups.
        min_session_timeout_ms: i32 = "6000", Kind::Int(1, INT_MAX), "ms", ["group.min.session.timeout.ms"];
        /// Longest session timeout of members of classic groups.
        max_session_timeout_ms: i32 = "1800000", Kind::Int(1, INT_MAX), "ms", ["group.max.session.timeout.ms"];
        /// How long the first rebalance of an empty classic group waits for more members.
        initial_rebalance_delay_ms: i32 = "3000", Kind::Int(0, INT_MAX), "ms", ["group.initial.rebalance.delay.ms"];
        /// Members of one classic group.
        max_size: usize = "10000", Kind::Int(1, INT_MAX), "members", ["group.max.size"];
        /// Groups that this broker coordinates.
        groups_max: usize = "100000", Kind::Int(1, 10_000_000), "groups", [];
        /// Bytes of subscriptions and assignments of one group's members; less where a batch of the log is.
        members_max_bytes: usize = "67108864", Kind::Int(64 * 1024, INT_MAX), "bytes", [];
        /// How long offsets are kept after their group is empty or unsubscribed.
        offsets_retention_ms: i64 = "604800000", Kind::Long(1, i64::MAX), "ms", ["offsets.retention.minutes" * 60_000];
        /// How often expired offsets are looked for.
        offsets_retention_check_interval_ms: u64 = "600000", Kind::Long(1, i64::MAX), "ms", ["offsets.retention.check.interval.ms"];
        /// Largest metadata of a committed offset.
        offset_metadata_max_bytes: usize = "4096", Kind::Int(0, INT_MAX), "bytes", ["offset.metadata.max.bytes"];
        /// Session timeout of members of consumer groups (KIP-848).
        consumer_session_timeout_ms: i32 = "45000", Kind::Int(1, INT_MAX), "ms", ["group.consumer.session.timeout.ms"];
        /// Least session timeout that a group may be configured with.
        consumer_min_session_timeout_ms: i32 = "45000", Kind::Int(1, INT_MAX), "ms", ["group.consumer.min.session.timeout.ms"];
        /// Largest session timeout that a group may be configured with.
        consumer_max_session_timeout_ms: i32 = "60000", Kind::Int(1, INT_MAX), "ms", ["group.consumer.max.session.timeout.ms"];
        /// Heartbeat interval of members of consumer groups.
        consumer_heartbeat_interval_ms: i32 = "5000", Kind::Int(1, INT_MAX), "ms", ["group.consumer.heartbeat.interval.ms"];
        /// Least heartbeat interval that a group may be configured with.
        consumer_min_heartbeat_interval_ms: i32 = "5000", Kind::Int(1, INT_MAX), "ms", ["group.consumer.min.heartbeat.interval.ms"];
        /// Largest heartbeat interval that a group may be configured with.
        consumer_max_heartbeat_interval_ms: i32 = "15000", Kind::Int(1, INT_MAX), "ms", ["group.consumer.max.heartbeat.interval.ms"];
        /// Members of one consumer group.
        consumer_max_size: usize = "10000", Kind::Int(1, INT_MAX), "members", ["group.consumer.max.size"];
        /// Assignors of consumer groups, the default first: uniform, range.
        consumer_assignors: Vec<String> = "uniform,range", Kind::Choices(&["uniform", "range"]), "", ["group.consumer.assignors"];
        /// Which groups change between the classic and the consumer protocol while they live.
        consumer_migration_policy: String = "bidirectional", Kind::Choice(&["disabled", "downgrade", "upgrade", "bidirectional"]), "", ["group.consumer.migration.policy"];
        /// How often subscriptions by regular expression are matched again with the topics.
        consumer_regex_refresh_interval_ms: u64 = "600000", Kind::Int(10_000, INT_MAX), "ms", ["group.consumer.regex.refresh.interval.ms"];
    }
}

section! {
    /// `[transactions]`: transactions and their coordinators.
    TransactionsConfig in "transactions" {
        /// Partitions of __transaction_state when it is created.
        topic_partitions: i32 = "50", Kind::Int(1, 10_000), "partitions", ["transaction.state.log.num.partitions"];
        /// Segment size of __transaction_state when it is created.
        topic_segment_bytes: i32 = "104857600", Kind::Int(1 << 20, INT_MAX), "bytes", ["transaction.state.log.segment.bytes"];
        /// Replicas of __transaction_state; fewer while the cluster has fewer brokers.
        topic_replication_factor: i16 = "3", Kind::Int(1, 32_767), "replicas", ["transaction.state.log.replication.factor"];
        /// In-sync replicas that __transaction_state needs when it is created.
        topic_min_insync_replicas: i32 = "2", Kind::Int(1, INT_MAX), "replicas", ["transaction.state.log.min.isr"];
        /// Longest timeout that a transactional producer may ask for.
        max_timeout_ms: i32 = "900000", Kind::Int(1, INT_MAX), "ms", ["transaction.max.timeout.ms"];
        /// How often transactions that took too long are aborted.
        abort_check_interval_ms: u64 = "10000", Kind::Int(1, INT_MAX), "ms", ["transaction.abort.timed.out.transaction.cleanup.interval.ms"];
        /// How long a transactional id that nobody uses is remembered.
        id_expiration_ms: i64 = "604800000", Kind::Int(1, INT_MAX), "ms", ["transactional.id.expiration.ms"];
        /// How often transactional ids that nobody uses are looked for.
        id_expiration_check_interval_ms: u64 = "3600000", Kind::Int(1, INT_MAX), "ms", ["transaction.remove.expired.transaction.cleanup.interval.ms"];
        /// Transactional ids that this broker coordinates.
        ids_max: usize = "100000", Kind::Int(1, 10_000_000), "ids", [];
        /// Whether a partition asks the coordinator before the first record of a transaction.
        partition_verification: bool = "true", Kind::Bool, "", ["transaction.partition.verification.enable"];
    }
}
