//! Kafka's broker settings that have no counterpart here: why, and what to use instead.
//!
//! Each row lists values that are accepted silently, since they ask for nothing: Kafka's default,
//! and what a single node does anyway.

use Reason::*;

/// Why settings are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Security,
    TieredStorage,
    Groups,
    ShareGroups,
    StreamsGroups,
    Transactions,
    Quotas,
    Quorum,
    Replication,
    Plugins,
    Metrics,
    Threads,
    SocketBuffers,
    Cleaner,
    DataDirectories,
    Journal,
    Unstable,
    Timers,
    Removed,
}

impl Reason {
    /// The reason, and what to use instead.
    pub(super) fn text(self) -> &'static str {
        match self {
            Security => {
                "security is not built yet: the broker serves plain text; bind listeners.client to \
                 an address that only trusted hosts reach"
            }
            TieredStorage => "tiered storage is not built; use storage.data_dirs and retention",
            Groups => "coordinators size their own buffers and run on the cores; leave it out",
            ShareGroups => "share groups are not built yet; use consumer groups",
            StreamsGroups => {
                "streams groups are not built yet; Kafka Streams works with classic groups"
            }
            Transactions => "there is nothing to set: see the [transactions] section; leave it out",
            Quotas => {
                "quotas are not built yet; the [limits] section bounds memory and connections"
            }
            Quorum => {
                "the metadata quorum is built in; name its voters in node.quorum, nothing else"
            }
            Replication => {
                "followers fetch with one loop per core and leader, which needs no such setting; \
                 leave it out"
            }
            Plugins => "Java classes cannot be loaded; leave it out",
            Metrics => "metrics are served over HTTP at listeners.admin under /metrics",
            Threads => {
                "there are no thread pools and no purgatory to purge: one thread per core does \
                 everything; use cores.list, and limits.request_memory_bytes to bound requests"
            }
            SocketBuffers => {
                "the kernel sizes socket buffers; use the sysctls net.ipv4.tcp_rmem and tcp_wmem"
            }
            Cleaner => "compaction sizes its own buffers and work; leave it out",
            DataDirectories => "a failed directory goes offline at once; use storage.data_dirs",
            Journal => {
                "appends are durable through the journal, without flush or checkpoint timers; use \
                 storage.journal_bytes, and flush.messages per topic"
            }
            Unstable => "unstable versions are never offered; leave it out",
            Timers => "there is no timer to set; leave it out",
            Removed => "Kafka itself has removed this setting; leave it out",
        }
    }
}

/// A setting of Kafka's that has no counterpart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) name: &'static str,
    harmless: &'static [&'static str],
    pub(super) reason: Reason,
}

impl Refusal {
    /// Whether `value` asks for nothing that does not happen anyway.
    pub(super) fn is_harmless(&self, value: &str) -> bool {
        let parts: Vec<&str> = value.split(',').map(str::trim).collect();
        self.harmless.contains(&parts.join(",").as_str())
    }
}

const fn refuse(name: &'static str, harmless: &'static [&'static str], reason: Reason) -> Refusal {
    Refusal {
        name,
        harmless,
        reason,
    }
}

/// Names that take a suffix of the user's own.
const PREFIXES: &[(&str, Reason)] = &[
    ("config.providers.", Plugins),
    ("listener.name.", Security),
    ("rlmm.config.", TieredStorage),
    ("rsm.config.", TieredStorage),
    ("zookeeper.", Removed),
];

/// The row of `name`.
pub(super) fn find(name: &str) -> Option<Refusal> {
    if let Ok(row) = REFUSALS.binary_search_by_key(&name, |refusal| refusal.name) {
        return Some(REFUSALS[row]);
    }
    let prefix = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    prefix.map(|(prefix, reason)| refuse(prefix, &[], *reason))
}

/// Sorted by name.
#[rustfmt::skip]
const REFUSALS: &[Refusal] = &[
    refuse("add.partitions.to.txn.retry.backoff.max.ms", &["100"], Transactions),
    refuse("add.partitions.to.txn.retry.backoff.ms", &["20"], Transactions),
    refuse("advertised.host.name", &[], Removed),
    refuse("advertised.port", &[], Removed),
    refuse("alter.config.policy.class.name", &[], Plugins),
    refuse("alter.log.dirs.replication.quota.window.num", &["11"], Quotas),
    refuse("alter.log.dirs.replication.quota.window.size.seconds", &["1"], Quotas),
    refuse("authorizer.class.name", &[""], Security),
    refuse("auto.include.jmx.reporter", &[], Removed),
    refuse("background.threads", &["10"], Threads),
    refuse("broker.id.generation.enable", &[], Removed),
    refuse("client.quota.callback.class", &[], Quotas),
    refuse("config.providers", &[""], Plugins),
    refuse("connection.failed.authentication.delay.ms", &["100"], Security),
    refuse("connections.max.reauth.ms", &["0"], Security),
    refuse("control.plane.listener.name", &[], Removed),
    refuse("controlled.shutdown.enable", &["true"], Replication),
    refuse("controller.listener.names", &[], Quorum),
    refuse("controller.performance.always.log.threshold.ms", &["2000"], Quorum),
    refuse("controller.performance.sample.period.ms", &["60000"], Quorum),
    refuse("controller.quorum.append.linger.ms", &["25"], Quorum),
    refuse("controller.quorum.auto.join.enable", &["false"], Quorum),
    refuse("controller.quorum.bootstrap.servers", &[""], Quorum),
    refuse("controller.quorum.election.backoff.max.ms", &["1000"], Quorum),
    refuse("controller.quorum.election.timeout.ms", &["1000"], Quorum),
    refuse("controller.quorum.fetch.max.bytes", &["1048576"], Quorum),
    refuse("controller.quorum.fetch.snapshot.max.bytes", &["1048576"], Quorum),
    refuse("controller.quorum.fetch.timeout.ms", &["2000"], Quorum),
    refuse("controller.quorum.request.timeout.ms", &["2000"], Quorum),
    refuse("controller.quorum.retry.backoff.ms", &["20"], Quorum),
    refuse("controller.quota.window.num", &["11"], Quotas),
    refuse("controller.quota.window.size.seconds", &["1"], Quotas),
    refuse("controller.socket.timeout.ms", &["30000"], Quorum),
    refuse("cordoned.log.dirs", &[""], DataDirectories),
    refuse("create.topic.policy.class.name", &[], Plugins),
    refuse("delegation.token.expiry.check.interval.ms", &["3600000"], Security),
    refuse("delegation.token.expiry.time.ms", &["86400000"], Security),
    refuse("delegation.token.master.key", &[], Removed),
    refuse("delegation.token.max.lifetime.ms", &["604800000"], Security),
    refuse("delegation.token.secret.key", &[], Security),
    refuse("delete.records.purgatory.purge.interval.requests", &["1"], Threads),
    refuse("early.start.listeners", &[], Security),
    refuse("fetch.purgatory.purge.interval.requests", &["1000"], Threads),
    refuse("follower.fetch.last.tiered.offset.enable", &["false"], TieredStorage),
    refuse("group.consumer.assignment.interval.ms", &["1000"], Groups),
    refuse("group.consumer.max.assignment.interval.ms", &["15000"], Groups),
    refuse("group.consumer.min.assignment.interval.ms", &["0"], Groups),
    refuse("group.coordinator.append.linger.ms", &["-1"], Groups),
    refuse("group.coordinator.background.threads", &["2"], Groups),
    refuse("group.coordinator.cached.buffer.max.bytes", &["1048588"], Groups),
    refuse("group.coordinator.rebalance.protocols", &["classic,consumer,streams"], Groups),
    refuse("group.coordinator.threads", &["4"], Groups),
    refuse("group.share.assignment.interval.ms", &["1000"], ShareGroups),
    refuse("group.share.assignors", &["simple"], ShareGroups),
    refuse("group.share.delivery.count.limit", &["5"], ShareGroups),
    refuse("group.share.heartbeat.interval.ms", &["5000"], ShareGroups),
    refuse("group.share.initialize.retry.interval.ms", &["30000"], ShareGroups),
    refuse("group.share.max.assignment.interval.ms", &["15000"], ShareGroups),
    refuse("group.share.max.delivery.count.limit", &["10"], ShareGroups),
    refuse("group.share.max.heartbeat.interval.ms", &["15000"], ShareGroups),
    refuse("group.share.max.partition.max.record.locks", &["4000"], ShareGroups),
    refuse("group.share.max.record.lock.duration.ms", &["60000"], ShareGroups),
    refuse("group.share.max.session.timeout.ms", &["60000"], ShareGroups),
    refuse("group.share.max.share.sessions", &["2000"], ShareGroups),
    refuse("group.share.max.size", &["200"], ShareGroups),
    refuse("group.share.min.assignment.interval.ms", &["0"], ShareGroups),
    refuse("group.share.min.delivery.count.limit", &["2"], ShareGroups),
    refuse("group.share.min.heartbeat.interval.ms", &["5000"], ShareGroups),
    refuse("group.share.min.partition.max.record.locks", &["100"], ShareGroups),
    refuse("group.share.min.record.lock.duration.ms", &["15000"], ShareGroups),
    refuse("group.share.min.session.timeout.ms", &["45000"], ShareGroups),
    refuse("group.share.partition.max.record.locks", &["2000"], ShareGroups),
    refuse("group.share.persister.class.name", &["org.apache.kafka.server.share.persister.DefaultStatePersister"], ShareGroups),
    refuse("group.share.record.lock.duration.ms", &["30000"], ShareGroups),
    refuse("group.share.session.timeout.ms", &["45000"], ShareGroups),
    refuse("group.streams.assignment.interval.ms", &["1000"], StreamsGroups),
    refuse("group.streams.heartbeat.interval.ms", &["5000"], StreamsGroups),
    refuse("group.streams.initial.rebalance.delay.ms", &["3000"], StreamsGroups),
    refuse("group.streams.max.assignment.interval.ms", &["15000"], StreamsGroups),
    refuse("group.streams.max.heartbeat.interval.ms", &["15000"], StreamsGroups),
    refuse("group.streams.max.session.timeout.ms", &["60000"], StreamsGroups),
    refuse("group.streams.max.size", &["2147483647"], StreamsGroups),
    refuse("group.streams.max.standby.replicas", &["2"], StreamsGroups),
    refuse("group.streams.min.assignment.interval.ms", &["0"], StreamsGroups),
    refuse("group.streams.min.heartbeat.interval.ms", &["5000"], StreamsGroups),
    refuse("group.streams.min.session.timeout.ms", &["45000"], StreamsGroups),
    refuse("group.streams.num.standby.replicas", &["0"], StreamsGroups),
    refuse("group.streams.session.timeout.ms", &["45000"], StreamsGroups),
    refuse("host.name", &[], Removed),
    refuse("initial.broker.registration.timeout.ms", &["60000"], Quorum),
    refuse("inter.broker.listener.name", &[], Replication),
    refuse("inter.broker.protocol.version", &[], Removed),
    refuse("internal.metadata.delete.delay.millis", &["60000"], Quorum),
    refuse("internal.metadata.log.segment.bytes", &[], Quorum),
    refuse("internal.metadata.max.batch.size.in.bytes", &["8388608"], Quorum),
    refuse("kafka.metrics.polling.interval.secs", &["10"], Metrics),
    refuse("kafka.metrics.reporters", &[""], Metrics),
    refuse("listener.security.protocol.map", &["SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT"], Security),
    refuse("log.cleaner.io.buffer.load.factor", &["0.9"], Cleaner),
    refuse("log.cleaner.io.buffer.size", &["524288"], Cleaner),
    refuse("log.cleaner.threads", &["1"], Threads),
    refuse("log.dir.failure.timeout.ms", &["30000"], DataDirectories),
    refuse("log.flush.offset.checkpoint.interval.ms", &["60000"], Journal),
    refuse("log.flush.start.offset.checkpoint.interval.ms", &["60000"], Journal),
    refuse("log.initial.task.delay.ms", &["30000"], Journal),
    refuse("log.message.downconversion.enable", &[], Removed),
    refuse("log.message.format.version", &[], Removed),
    refuse("log.message.timestamp.difference.max.ms", &[], Removed),
    refuse("max.connection.creation.rate", &["2147483647"], Quotas),
    refuse("max.connections.per.ip.overrides", &[""], Quotas),
    refuse("metadata.log.dir", &[], Quorum),
    refuse("metadata.log.max.record.bytes.between.snapshots", &["20971520"], Quorum),
    refuse("metadata.log.max.snapshot.interval.ms", &["3600000"], Quorum),
    refuse("metadata.log.segment.bytes", &["1073741824"], Quorum),
    refuse("metadata.log.segment.ms", &["604800000"], Quorum),
    refuse("metadata.max.idle.interval.ms", &["500"], Quorum),
    refuse("metadata.max.retention.bytes", &["104857600"], Quorum),
    refuse("metadata.max.retention.ms", &["604800000"], Quorum),
    refuse("metric.reporters", &["org.apache.kafka.common.metrics.JmxReporter"], Metrics),
    refuse("metrics.num.samples", &["2"], Metrics),
    refuse("metrics.recording.level", &["INFO"], Metrics),
    refuse("metrics.sample.window.ms", &["30000"], Metrics),
    refuse("num.io.threads", &["8"], Threads),
    refuse("num.network.threads", &["3"], Threads),
    refuse("num.recovery.threads.per.data.dir", &["2"], Threads),
    refuse("num.replica.alter.log.dirs.threads", &[], Threads),
    refuse("num.replica.fetchers", &["1"], Replication),
    refuse("offsets.commit.required.acks", &[], Removed),
    refuse("offsets.commit.timeout.ms", &["5000"], Groups),
    refuse("offsets.load.buffer.size", &["5242880"], Groups),
    refuse("offsets.topic.compression.codec", &["0"], Groups),
    refuse("password.encoder.old.secret", &[], Removed),
    refuse("password.encoder.secret", &[], Removed),
    refuse("port", &[], Removed),
    refuse("principal.builder.class", &["org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"], Security),
    refuse("producer.id.expiration.check.interval.ms", &["600000"], Timers),
    refuse("producer.purgatory.purge.interval.requests", &["1000"], Threads),
    refuse("queued.max.requests", &["500"], Threads),
    refuse("quota.consumer.default", &[], Removed),
    refuse("quota.producer.default", &[], Removed),
    refuse("quota.window.num", &["11"], Quotas),
    refuse("quota.window.size.seconds", &["1"], Quotas),
    refuse("remote.fetch.max.wait.ms", &["500"], TieredStorage),
    refuse("remote.list.offsets.request.timeout.ms", &["30000"], TieredStorage),
    refuse("remote.log.index.file.cache.total.size.bytes", &["1073741824"], TieredStorage),
    refuse("remote.log.index.file.cache.ttl.ms", &["900000"], TieredStorage),
    refuse("remote.log.manager.copier.thread.pool.size", &["10"], TieredStorage),
    refuse("remote.log.manager.copy.max.bytes.per.second", &["9223372036854775807"], TieredStorage),
    refuse("remote.log.manager.copy.quota.window.num", &["11"], TieredStorage),
    refuse("remote.log.manager.copy.quota.window.size.seconds", &["1"], TieredStorage),
    refuse("remote.log.manager.expiration.thread.pool.size", &["10"], TieredStorage),
    refuse("remote.log.manager.fetch.max.bytes.per.second", &["9223372036854775807"], TieredStorage),
    refuse("remote.log.manager.fetch.quota.window.num", &["11"], TieredStorage),
    refuse("remote.log.manager.fetch.quota.window.size.seconds", &["1"], TieredStorage),
    refuse("remote.log.manager.follower.thread.pool.size", &["2"], TieredStorage),
    refuse("remote.log.manager.task.interval.ms", &["30000"], TieredStorage),
    refuse("remote.log.manager.task.retry.backoff.max.ms", &["30000"], TieredStorage),
    refuse("remote.log.manager.task.retry.backoff.ms", &["500"], TieredStorage),
    refuse("remote.log.manager.task.retry.jitter", &["0.2"], TieredStorage),
    refuse("remote.log.manager.thread.pool.size", &["2"], TieredStorage),
    refuse("remote.log.metadata.custom.metadata.max.bytes", &["128"], TieredStorage),
    refuse("remote.log.metadata.manager.class.name", &["org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager"], TieredStorage),
    refuse("remote.log.metadata.manager.class.path", &[], TieredStorage),
    refuse("remote.log.metadata.manager.impl.prefix", &["rlmm.config."], TieredStorage),
    refuse("remote.log.metadata.manager.listener.name", &[], TieredStorage),
    refuse("remote.log.reader.max.pending.tasks", &["100"], TieredStorage),
    refuse("remote.log.reader.threads", &["10"], TieredStorage),
    refuse("remote.log.storage.manager.class.name", &[], TieredStorage),
    refuse("remote.log.storage.manager.class.path", &[], TieredStorage),
    refuse("remote.log.storage.manager.impl.prefix", &["rsm.config."], TieredStorage),
    refuse("remote.log.storage.system.enable", &["false"], TieredStorage),
    refuse("replica.fetch.backoff.ms", &["1000"], Replication),
    refuse("replica.fetch.min.bytes", &["1"], Replication),
    refuse("replica.high.watermark.checkpoint.interval.ms", &["5000"], Replication),
    refuse("replica.selector.class", &[], Replication),
    refuse("replica.socket.receive.buffer.bytes", &["65536"], Replication),
    refuse("replica.socket.timeout.ms", &["30000"], Replication),
    refuse("replication.quota.window.num", &["11"], Quotas),
    refuse("replication.quota.window.size.seconds", &["1"], Quotas),
    refuse("request.timeout.ms", &["30000"], Replication),
    refuse("reserved.broker.max.id", &[], Removed),
    refuse("sasl.client.callback.handler.class", &[], Security),
    refuse("sasl.enabled.mechanisms", &["GSSAPI"], Security),
    refuse("sasl.jaas.config", &[], Security),
    refuse("sasl.kerberos.kinit.cmd", &["/usr/bin/kinit"], Security),
    refuse("sasl.kerberos.min.time.before.relogin", &["60000"], Security),
    refuse("sasl.kerberos.principal.to.local.rules", &["DEFAULT"], Security),
    refuse("sasl.kerberos.service.name", &[], Security),
    refuse("sasl.kerberos.ticket.renew.jitter", &["0.05"], Security),
    refuse("sasl.kerberos.ticket.renew.window.factor", &["0.8"], Security),
    refuse("sasl.login.callback.handler.class", &[], Security),
    refuse("sasl.login.class", &[], Security),
    refuse("sasl.login.connect.timeout.ms", &[], Security),
    refuse("sasl.login.read.timeout.ms", &[], Security),
    refuse("sasl.login.refresh.buffer.seconds", &["300"], Security),
    refuse("sasl.login.refresh.min.period.seconds", &["60"], Security),
    refuse("sasl.login.refresh.window.factor", &["0.8"], Security),
    refuse("sasl.login.refresh.window.jitter", &["0.05"], Security),
    refuse("sasl.login.retry.backoff.max.ms", &["10000"], Security),
    refuse("sasl.login.retry.backoff.ms", &["100"], Security),
    refuse("sasl.mechanism.controller.protocol", &["GSSAPI"], Security),
    refuse("sasl.mechanism.inter.broker.protocol", &["GSSAPI"], Security),
    refuse("sasl.oauthbearer.assertion.algorithm", &["RS256"], Security),
    refuse("sasl.oauthbearer.assertion.claim.aud", &[], Security),
    refuse("sasl.oauthbearer.assertion.claim.exp.seconds", &["300"], Security),
    refuse("sasl.oauthbearer.assertion.claim.iss", &[], Security),
    refuse("sasl.oauthbearer.assertion.claim.jti.include", &["false"], Security),
    refuse("sasl.oauthbearer.assertion.claim.nbf.seconds", &["60"], Security),
    refuse("sasl.oauthbearer.assertion.claim.sub", &[], Security),
    refuse("sasl.oauthbearer.assertion.file", &[], Security),
    refuse("sasl.oauthbearer.assertion.private.key.file", &[], Security),
    refuse("sasl.oauthbearer.assertion.private.key.passphrase", &[], Security),
    refuse("sasl.oauthbearer.assertion.template.file", &[], Security),
    refuse("sasl.oauthbearer.client.credentials.client.id", &[], Security),
    refuse("sasl.oauthbearer.client.credentials.client.secret", &[], Security),
    refuse("sasl.oauthbearer.clock.skew.seconds", &["30"], Security),
    refuse("sasl.oauthbearer.expected.audience", &[""], Security),
    refuse("sasl.oauthbearer.expected.issuer", &[], Security),
    refuse("sasl.oauthbearer.jwks.endpoint.refresh.ms", &["3600000"], Security),
    refuse("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", &["10000"], Security),
    refuse("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", &["100"], Security),
    refuse("sasl.oauthbearer.jwks.endpoint.url", &[], Security),
    refuse("sasl.oauthbearer.jwt.retriever.class", &["org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever"], Security),
    refuse("sasl.oauthbearer.jwt.validator.class", &["org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator"], Security),
    refuse("sasl.oauthbearer.scope", &[], Security),
    refuse("sasl.oauthbearer.scope.claim.name", &["scope"], Security),
    refuse("sasl.oauthbearer.sub.claim.name", &["sub"], Security),
    refuse("sasl.oauthbearer.token.endpoint.url", &[], Security),
    refuse("sasl.server.callback.handler.class", &[], Security),
    refuse("sasl.server.max.receive.size", &["524288"], Security),
    refuse("security.inter.broker.protocol", &["PLAINTEXT"], Security),
    refuse("security.providers", &[], Security),
    refuse("server.max.startup.time.ms", &["9223372036854775807"], Quorum),
    refuse("share.coordinator.append.linger.ms", &["-1"], ShareGroups),
    refuse("share.coordinator.cached.buffer.max.bytes", &["1048588"], ShareGroups),
    refuse("share.coordinator.cold.partition.snapshot.interval.ms", &["300000"], ShareGroups),
    refuse("share.coordinator.load.buffer.size", &["5242880"], ShareGroups),
    refuse("share.coordinator.snapshot.update.records.per.snapshot", &["500"], ShareGroups),
    refuse("share.coordinator.state.topic.compression.codec", &["0"], ShareGroups),
    refuse("share.coordinator.state.topic.min.isr", &["2", "1"], ShareGroups),
    refuse("share.coordinator.state.topic.num.partitions", &["50"], ShareGroups),
    refuse("share.coordinator.state.topic.prune.interval.ms", &["300000"], ShareGroups),
    refuse("share.coordinator.state.topic.replication.factor", &["3", "1"], ShareGroups),
    refuse("share.coordinator.state.topic.segment.bytes", &["104857600"], ShareGroups),
    refuse("share.coordinator.threads", &["1"], ShareGroups),
    refuse("share.coordinator.write.timeout.ms", &["5000"], ShareGroups),
    refuse("share.fetch.purgatory.purge.interval.requests", &["1000"], ShareGroups),
    refuse("socket.connection.setup.timeout.max.ms", &["30000"], Replication),
    refuse("socket.connection.setup.timeout.ms", &["10000"], Replication),
    refuse("socket.listen.backlog.size", &["50"], SocketBuffers),
    refuse("socket.receive.buffer.bytes", &["102400"], SocketBuffers),
    refuse("socket.send.buffer.bytes", &["102400"], SocketBuffers),
    refuse("ssl.allow.dn.changes", &["false"], Security),
    refuse("ssl.allow.san.changes", &["false"], Security),
    refuse("ssl.cipher.suites", &[""], Security),
    refuse("ssl.client.auth", &["none"], Security),
    refuse("ssl.enabled.protocols", &["TLSv1.2,TLSv1.3"], Security),
    refuse("ssl.endpoint.identification.algorithm", &["https"], Security),
    refuse("ssl.engine.factory.class", &[], Security),
    refuse("ssl.key.password", &[], Security),
    refuse("ssl.keymanager.algorithm", &["SunX509"], Security),
    refuse("ssl.keystore.certificate.chain", &[], Security),
    refuse("ssl.keystore.key", &[], Security),
    refuse("ssl.keystore.location", &[], Security),
    refuse("ssl.keystore.password", &[], Security),
    refuse("ssl.keystore.type", &["JKS"], Security),
    refuse("ssl.principal.mapping.rules", &["DEFAULT"], Security),
    refuse("ssl.protocol", &["TLSv1.3"], Security),
    refuse("ssl.provider", &[], Security),
    refuse("ssl.secure.random.implementation", &[], Security),
    refuse("ssl.trustmanager.algorithm", &["PKIX"], Security),
    refuse("ssl.truststore.certificates", &[], Security),
    refuse("ssl.truststore.location", &[], Security),
    refuse("ssl.truststore.password", &[], Security),
    refuse("ssl.truststore.type", &["JKS"], Security),
    refuse("telemetry.max.bytes", &["1048576"], Metrics),
    refuse("transaction.state.log.load.buffer.size", &["5242880"], Transactions),
    refuse("transaction.two.phase.commit.enable", &["false"], Transactions),
    refuse("unclean.leader.election.interval.ms", &["300000"], Replication),
    refuse("unstable.api.versions.enable", &["false"], Unstable),
    refuse("unstable.feature.versions.enable", &["false"], Unstable),
    refuse("zookeeper.connect", &[], Removed),
    refuse("zookeeper.connection.timeout.ms", &[], Removed),
    refuse("zookeeper.session.timeout.ms", &[], Removed),
];

#[cfg(test)]
mod tests {
    use super::super::broker::knobs;
    use super::*;
    use std::collections::BTreeSet;

    /// How many broker settings Kafka 4.3.1 has.
    const KAFKA_SETTINGS: usize = 360;

    #[test]
    fn every_setting_of_kafka_is_either_known_or_refused() {
        assert!(REFUSALS.is_sorted_by(|one, next| one.name < next.name));
        let refused: BTreeSet<_> = REFUSALS.iter().map(|refusal| refusal.name).collect();
        let mut known = BTreeSet::new();
        for knob in knobs() {
            for alias in knob.aliases {
                assert!(!refused.contains(alias.name), "{}", alias.name);
                known.insert(alias.name);
            }
        }
        let is_removed = |refusal: &&Refusal| refusal.reason == Removed;
        let removed = REFUSALS.iter().filter(is_removed).count();
        assert_eq!(refused.len() - removed + known.len(), KAFKA_SETTINGS);
    }

    #[test]
    fn defaults_and_what_one_node_does_anyway_are_harmless() {
        let is_harmless = |name: &str, value: &str| find(name).unwrap().is_harmless(value);
        assert!(is_harmless("num.io.threads", "8"));
        assert!(!is_harmless("num.io.threads", "16"));
        assert!(is_harmless("offsets.commit.timeout.ms", "5000"));
        assert!(is_harmless("ssl.enabled.protocols", "TLSv1.2, TLSv1.3"));
        assert!(!is_harmless("ssl.keystore.location", ""));
        assert!(is_harmless("authorizer.class.name", ""));
        assert_eq!(
            find("listener.name.internal.ssl.key.password")
                .unwrap()
                .reason,
            Security
        );
        assert_eq!(find("zookeeper.anything").unwrap().reason, Removed);
        assert!(find("num.partitions").is_none());
    }
}
