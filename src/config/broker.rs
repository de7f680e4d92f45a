//! The broker's settings, by section, and how they are put together from their sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::cluster::ClusterConfig;
use super::coordinators::{GroupsConfig, TransactionsConfig};
use super::derived;
use super::group;
use super::kind::{Address, CoreSelection, Kind, Value};
use super::knob::{Knob, Settings, Source, section};
use super::problem::{Problem, Problems};
use super::sources::{self, Sources};
use super::topic;

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const INT_MAX: i32 = i32::MAX;
/// What files and direct I/O are aligned to.
const BLOCK_BYTES: usize = 4096;

section! {
    /// `[node]`: who this broker is. The cluster's id is kept in the data directory.
    NodeConfig in "node" {
        /// Id of this broker, unique in its cluster.
        id: i32 = "1", Kind::Int(0, INT_MAX), "", ["node.id", "broker.id"];
        /// Rack or zone, for rack-aware clients.
        rack: Option<String> = "", Kind::OptionalText, "", ["broker.rack"];
        /// What it does in its cluster.
        roles: Vec<String> = "broker,controller", Kind::Choices(&["broker", "controller"]), "", ["process.roles"];
        /// Nodes that vote about metadata when a cluster begins, each as id@host:port of its inter_broker listener; empty: this one alone.
        quorum: Option<String> = "", Kind::OptionalText, "", ["controller.quorum.voters"];
        /// The cluster of this node; left empty, what the data directory says, and in a new one what follows from node.quorum.
        cluster_id: Option<String> = "", Kind::OptionalText, "", [];
    }
}

section! {
    /// `[cores]`: which cores serve, and how.
    CoresConfig in "cores" {
        /// Cores that serve: auto, a count, or a list such as 0,2-3.
        list: CoreSelection = "auto", Kind::Cores, "", [];
        /// Whether every thread stays on its core.
        pin: bool = "true", Kind::Bool, "", [];
        /// Physical cores, the first ones, that auto and a count leave to interrupts and others.
        reserved: usize = "0", Kind::Int(0, 1023), "cores", [];
        /// Whether auto and a count use every hyperthread of a core, or one of each.
        hyperthreads: bool = "true", Kind::Bool, "", [];
        /// How long an idle core looks for work before it sleeps.
        spin_us: u32 = "0", Kind::Int(0, 1_000_000), "us", [];
    }
}

section! {
    /// `[listeners]`: where the broker listens.
    ListenersConfig in "listeners" {
        /// Where clients connect.
        client: Address = "127.0.0.1:9092", Kind::Address, "", ["listeners"];
        /// What clients are told to connect to, when it differs.
        advertised: Option<Address> = "", Kind::OptionalAddress, "", ["advertised.listeners"];
        /// Where other brokers connect; needed in a cluster of several.
        inter_broker: Option<Address> = "", Kind::OptionalAddress, "", [];
        /// Metrics, health and console over HTTP; left empty, there are none.
        admin: Option<Address> = "127.0.0.1:9644", Kind::OptionalAddress, "", [];
        /// A port and a node identity for every core.
        per_core: bool = "false", Kind::Bool, "", [];
    }
}

section! {
    /// `[storage]`: where data lives, and what memory and disk it takes.
    StorageConfig in "storage" {
        /// Data directories, at best one per disk.
        data_dirs: Vec<String> = "./data", Kind::List, "", ["log.dirs", "log.dir"];
        /// Journal of each core in each data directory.
        journal_bytes: usize = "268435456", Kind::Long(MIB, 64 * GIB), "bytes", [];
        /// The journal's first file, written before the broker serves for the first time.
        journal_first_file_bytes: usize = "4194304", Kind::Long(32 * KIB, GIB), "bytes", [];
        /// Memory for chunks of logs, over all cores.
        cache_bytes: usize = "536870912", Kind::Long(MIB, 1024 * GIB), "bytes", [];
        /// Space of each data directory that appends do not use.
        reserve_bytes: u64 = "268435456", Kind::Long(0, 1024 * GIB), "bytes", [];
        /// Largest window of a segment that is held in memory as one piece.
        chunk_bytes: usize = "1048576", Kind::Long(4 * KIB, 16 * MIB), "bytes", [];
        /// First window of a log that starts to grow.
        chunk_first_bytes: usize = "4096", Kind::Long(4 * KIB, 16 * MIB), "bytes", [];
        /// Groups of a journal on their way to the disk at a time.
        journal_groups_in_flight: usize = "2", Kind::Int(1, 4), "groups", [];
        /// How fast sealed segments are read in the background to find damage; 0 is not at all.
        scrub_bytes_per_second: u64 = "4194304", Kind::Long(0, 1024 * GIB), "bytes/s", [];
        /// Full blocks of an append that go straight to their segment while the disk is idle.
        direct_write_bytes: usize = "65536", Kind::Long(4 * KIB, GIB), "bytes", [];
        /// The same while earlier writes are on their way.
        direct_write_busy_bytes: usize = "16384", Kind::Long(4 * KIB, GIB), "bytes", [];
        /// The same at least, where a segment's blocks were never written: it is not a recycled file.
        direct_write_unwritten_bytes: usize = "262144", Kind::Long(4 * KIB, GIB), "bytes", [];
        /// Files of deleted segments kept in each data directory to become new segments.
        segment_pool_bytes: u64 = "2147483648", Kind::Long(0, 1024 * GIB), "bytes", [];
        /// Budget of background writes to each data directory; 0 is no limit.
        background_write_bytes_per_second: u64 = "419430400", Kind::Long(0, 1024 * GIB), "bytes/s", [];
        /// Time after which a log that nobody uses gives up its memory and its descriptor.
        cool_after_ms: u64 = "30000", Kind::Long(100, 86_400_000), "ms", [];
        /// How often retention is looked after.
        retention_check_interval_ms: u64 = "300000", Kind::Long(1, i64::MAX), "ms", ["log.retention.check.interval.ms"];
        /// Whether topics with cleanup.policy compact are compacted.
        compaction_enable: bool = "true", Kind::Bool, "", ["log.cleaner.enable"];
        /// How long to wait before looking again for logs to compact.
        compaction_backoff_ms: u64 = "15000", Kind::Long(0, i64::MAX), "ms", ["log.cleaner.backoff.ms"];
        /// Memory for the keys that a run of compaction notes, over all cores.
        compaction_memory_bytes: usize = "134217728", Kind::Long(64 * KIB, 1024 * GIB), "bytes", ["log.cleaner.dedupe.buffer.size"];
        /// What compaction reads and writes at most, over all cores; Kafka's default is no bound.
        compaction_bytes_per_second: f64 = "268435456", Kind::Double(1.0, f64::MAX), "bytes/s", ["log.cleaner.io.max.bytes.per.second"];
    }
}

section! {
    /// `[limits]`: the maximum of everything that clients can make grow.
    LimitsConfig in "limits" {
        /// Connections to this broker.
        connections_max: usize = "20000", Kind::Int(1, 1_000_000), "connections", ["max.connections"], dynamic;
        /// Connections from one address.
        connections_per_ip_max: usize = "10000", Kind::Int(0, INT_MAX), "connections", ["max.connections.per.ip"], dynamic;
        /// How long a connection may be silent.
        connection_idle_max_ms: u64 = "600000", Kind::Long(1000, i64::MAX), "ms", ["connections.max.idle.ms"];
        /// Largest request.
        request_max_bytes: usize = "104857600", Kind::Int(1024, 1 << 30), "bytes", ["socket.request.max.bytes"];
        /// Memory that requests take until they are answered, over all cores.
        request_memory_bytes: usize = "268435456", Kind::Long(MIB, 1024 * GIB), "bytes", ["queued.max.request.bytes"];
        /// Time for the body of a request to arrive.
        request_body_deadline_ms: u64 = "60000", Kind::Long(100, 86_400_000), "ms", [];
        /// Rate below which the body of a request must not fall.
        request_body_min_bytes_per_second: u64 = "16384", Kind::Long(0, GIB), "bytes/s", [];
        /// Requests of one connection taken in before the first is answered.
        pipelined_requests_max: usize = "128", Kind::Int(1, 65_536), "requests", [];
        /// Records in the answer to a Fetch.
        fetch_max_bytes: usize = "57671680", Kind::Int(1024, INT_MAX), "bytes", ["fetch.max.bytes"];
        /// Fetch sessions kept.
        fetch_sessions_max: usize = "1000", Kind::Int(0, 1_000_000), "sessions", ["max.incremental.fetch.session.cache.slots"];
        /// Partitions that one request names.
        request_partitions_max: usize = "50000", Kind::Int(1, 1_000_000), "partitions", [];
        /// Partitions in the answer to a DescribeTopicPartitions.
        describe_partitions_max: usize = "2000", Kind::Int(1, 100_000), "partitions", ["max.request.partition.size.limit"];
        /// Topics that one request creates or deletes.
        topics_per_request_max: usize = "1000", Kind::Int(1, 100_000), "topics", [];
        /// Partitions that one request creates.
        partitions_per_request_max: usize = "10000", Kind::Int(1, 1_000_000), "partitions", [];
        /// Partitions on this broker.
        partitions_max: usize = "100000", Kind::Int(1, 10_000_000), "partitions", [];
        /// Messages queued from one core to another.
        mailbox_messages: usize = "1024", Kind::Int(2, 65_536), "messages", [];
        /// What one batch may decompress to.
        decompressed_batch_max_bytes: usize = "134217728", Kind::Long(MIB, GIB), "bytes", [];
        /// Idempotent producers remembered per partition.
        producers_per_partition_max: usize = "100000", Kind::Int(1, 10_000_000), "producers", [];
        /// How long a silent idempotent producer is remembered.
        producer_id_expiration_ms: u64 = "86400000", Kind::Int(1, INT_MAX), "ms", ["producer.id.expiration.ms"], dynamic;
    }
}

/// The part of `[defaults]` that is not about the settings of a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct DefaultsConfig {
    /// Partitions of a topic created without a number of them.
    pub partitions: i32,
    /// Replicas of a topic created without a number of them.
    pub replication_factor: i16,
    /// Whether a Metadata request that asks for it creates a topic.
    pub auto_create_topics: bool,
    /// Whether topics can be deleted.
    pub delete_topics: bool,
}

impl DefaultsConfig {
    fn knobs() -> Vec<Knob> {
        use super::knob::{Alias, alias};
        let row = |name: &'static str, aliases: &'static [Alias], kind, default, doc| Knob {
            name: name.into(),
            aliases,
            kind,
            unit: "",
            default,
            is_dynamic: false,
            doc,
        };
        vec![
            row(
                "defaults.num.partitions",
                &[alias!("num.partitions")],
                Kind::Int(1, 1_000_000),
                "1",
                "Partitions of a topic created without a number of them.",
            ),
            row(
                "defaults.default.replication.factor",
                &[alias!("default.replication.factor")],
                Kind::Int(1, 32_767),
                "1",
                "Replicas of a topic created without a number of them.",
            ),
            row(
                "defaults.auto.create.topics.enable",
                &[alias!("auto.create.topics.enable")],
                Kind::Bool,
                "true",
                "Whether a Metadata request that asks for it creates a topic.",
            ),
            row(
                "defaults.delete.topic.enable",
                &[alias!("delete.topic.enable")],
                Kind::Bool,
                "true",
                "Whether topics can be deleted.",
            ),
        ]
    }

    fn from_settings(settings: &Settings) -> DefaultsConfig {
        DefaultsConfig {
            partitions: settings.typed("defaults.num.partitions"),
            replication_factor: settings.typed("defaults.default.replication.factor"),
            auto_create_topics: settings.typed("defaults.auto.create.topics.enable"),
            delete_topics: settings.typed("defaults.delete.topic.enable"),
        }
    }
}

/// All settings of a broker. Topics' defaults are in [`topic::TopicConfig::resolve`].
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Who this broker is.
    pub node: NodeConfig,
    /// Which cores serve.
    pub cores: CoresConfig,
    /// Where it listens.
    pub listeners: ListenersConfig,
    /// Where data lives.
    pub storage: StorageConfig,
    /// The maximum of everything.
    pub limits: LimitsConfig,
    /// Consumer groups.
    pub groups: GroupsConfig,
    /// Transactions.
    pub transactions: TransactionsConfig,
    /// Clusters of several brokers.
    pub cluster: ClusterConfig,
    /// Defaults of new topics.
    pub defaults: DefaultsConfig,
    pub(super) settings: Settings,
}

impl BrokerConfig {
    /// Every setting at its default.
    #[must_use]
    pub fn defaults() -> BrokerConfig {
        BrokerConfig::from_settings(Settings::new(knobs()))
    }

    /// The defaults overridden by each source in turn.
    ///
    /// # Errors
    /// Every setting that was refused.
    pub fn load(sources: &Sources<'_>) -> Result<BrokerConfig, Problems> {
        let mut settings = Settings::new(knobs());
        let problems = sources::apply(sources, &mut settings);
        BrokerConfig::checked(settings, problems)
    }

    /// This configuration under what the admin API set: cluster-wide defaults, then this broker's
    /// own, by Kafka's names or ours. Earlier dynamic values are forgotten.
    ///
    /// # Errors
    /// Every setting that was refused; settings that need a restart are among them.
    pub fn with_dynamic(
        &self,
        cluster: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Result<BrokerConfig, Problems> {
        let mut settings = self.settings.clone();
        for setting in &mut settings.rows {
            setting
                .layers
                .retain(|(source, _)| *source < Source::DynamicDefault);
        }
        let mut problems = Vec::new();
        let layers = [
            (Source::DynamicDefault, cluster),
            (Source::DynamicBroker, broker),
        ];
        for (source, values) in layers {
            for (name, value) in values {
                problems.extend(set_dynamic(&mut settings, name, value, source).err());
            }
        }
        BrokerConfig::checked(settings, problems)
    }

    /// Whether the admin API may set `name`; `None` when there is no such setting.
    #[must_use]
    pub fn is_dynamic(&self, name: &str) -> Option<bool> {
        self.settings
            .find(name)
            .map(|(row, _)| self.settings.rows[row].knob.is_dynamic)
    }

    /// Small enough that every test rolls, evicts and checkpoints: segments of 16 KiB, indexes of
    /// 4 entries, journals of 1 MiB. Bounds meant for users do not hold; relations do.
    #[must_use]
    pub fn tiny_for_tests() -> BrokerConfig {
        let mut settings = Settings::new(knobs());
        for (name, value) in [
            ("cores.list", "1"),
            ("cores.pin", "false"),
            ("listeners.client", "127.0.0.1:0"),
            ("listeners.admin", "127.0.0.1:0"),
            ("storage.journal_bytes", "1048576"),
            ("storage.journal_first_file_bytes", "32768"),
            ("storage.cache_bytes", "262144"),
            ("storage.reserve_bytes", "0"),
            ("storage.chunk_bytes", "16384"),
            ("storage.chunk_first_bytes", "4096"),
            ("defaults.log.segment.bytes", "16384"),
            ("defaults.log.index.size.max.bytes", "32"),
            ("defaults.log.index.interval.bytes", "512"),
            ("defaults.message.max.bytes", "16384"),
        ] {
            settings.force(name, value);
        }
        BrokerConfig::checked(settings, Vec::new()).expect("a test keeps the preset consistent")
    }

    /// The configured voters of the metadata quorum: node id, host and port.
    ///
    /// # Panics
    /// Never: what is no voter was refused.
    #[must_use]
    pub fn voters(&self) -> BTreeMap<i32, (String, u16)> {
        let voters = self.voter_texts().map(|text| {
            let (node_id, address) = voter(text).expect("checked");
            (node_id, (address.host, address.port))
        });
        voters.collect()
    }

    /// What clients are told to connect to.
    #[must_use]
    pub fn advertised_address(&self) -> &Address {
        self.listeners
            .advertised
            .as_ref()
            .unwrap_or(&self.listeners.client)
    }

    /// Every setting with value, unit, default, bounds and source, one line each.
    #[must_use]
    pub fn print_config(&self) -> String {
        let mut text = String::new();
        for setting in &self.settings.rows {
            let knob = &setting.knob;
            let (source, value) = setting.current();
            let or_nothing = |text: &str| {
                if text.is_empty() {
                    "(nothing)".to_string()
                } else {
                    text.to_string()
                }
            };
            let unit = if knob.unit.is_empty() {
                String::new()
            } else {
                format!(" {}", knob.unit)
            };
            let dynamic = if knob.is_dynamic { ", dynamic" } else { "" };
            let kafka = match knob
                .aliases
                .iter()
                .map(|alias| alias.name)
                .collect::<Vec<_>>()
            {
                names if names.is_empty() => String::new(),
                names => format!("; Kafka: {}", names.join(", ")),
            };
            let _ = writeln!(
                text,
                "{} = {}{unit}  # {} Default {}; {}; from {}{dynamic}{kafka}",
                knob.name,
                or_nothing(&value.to_string()),
                knob.doc,
                or_nothing(knob.default),
                knob.kind.bounds(),
                source.name(),
            );
        }
        text
    }

    fn from_settings(settings: Settings) -> BrokerConfig {
        BrokerConfig {
            node: NodeConfig::from_settings(&settings),
            cores: CoresConfig::from_settings(&settings),
            listeners: ListenersConfig::from_settings(&settings),
            storage: StorageConfig::from_settings(&settings),
            limits: LimitsConfig::from_settings(&settings),
            groups: GroupsConfig::from_settings(&settings),
            transactions: TransactionsConfig::from_settings(&settings),
            cluster: ClusterConfig::from_settings(&settings),
            defaults: DefaultsConfig::from_settings(&settings),
            settings,
        }
    }

    fn checked(settings: Settings, mut problems: Vec<Problem>) -> Result<BrokerConfig, Problems> {
        let config = BrokerConfig::from_settings(settings);
        config.check_reserved(&mut problems);
        config.check_cluster(&mut problems);
        config.check_relations(&mut problems);
        group::check_bounds(&config.groups, &mut problems);
        problems.extend(topic::check_defaults(&config).err());
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Problems(problems))
        }
    }

    /// Refuses what has a name already and does nothing yet.
    fn check_reserved(&self, problems: &mut Vec<Problem>) {
        let mut refuse = |is_set: bool, name: &str, why: &str| {
            if is_set {
                problems.push(Problem::refused(name, why));
            }
        };
        refuse(
            self.listeners.per_core,
            "listeners.per_core",
            "a port per core is not built yet; leave it false",
        );
        refuse(
            self.node.roles.len() != 2,
            "node.roles",
            "every node is broker and controller; a node with one role is not built yet",
        );
    }

    fn voter_texts(&self) -> impl Iterator<Item = &str> {
        let quorum = self.node.quorum.iter();
        quorum.flat_map(|text| text.split(',').map(str::trim))
    }

    /// Refuses a cluster that cannot work.
    fn check_cluster(&self, problems: &mut Vec<Problem>) {
        let voters: Vec<_> = self.voter_texts().map(voter).collect();
        let mut refuse = |name: &str, why: &str| problems.push(Problem::refused(name, why));
        if voters.iter().any(Option::is_none) {
            refuse("node.quorum", "each voter is id@host:port");
            return;
        }
        let ids: BTreeSet<i32> = voters.iter().flatten().map(|(id, _)| *id).collect();
        if ids.len() < voters.len() {
            refuse("node.quorum", "a node votes once");
        }
        if ids.iter().any(|id| *id != self.node.id) && self.listeners.inter_broker.is_none() {
            refuse(
                "listeners.inter_broker",
                "a node of a cluster of several needs an address where the others reach it",
            );
        }
        if let Some(id) = &self.node.cluster_id
            && (id.len() != 22 || !id.bytes().all(is_id_symbol))
        {
            refuse(
                "node.cluster_id",
                "an id is 22 characters of url-safe base64, as `percolog cluster describe` shows it",
            );
        }
    }

    /// Refuses values that do not go together.
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        let (storage, limits) = (&self.storage, &self.limits);
        let mut require = |holds: bool, name: &str, why: &str| {
            if !holds {
                problems.push(Problem::refused(name, why));
            }
        };
        for (name, bytes) in [
            ("storage.journal_bytes", storage.journal_bytes),
            (
                "storage.journal_first_file_bytes",
                storage.journal_first_file_bytes,
            ),
            ("storage.chunk_bytes", storage.chunk_bytes),
            ("storage.chunk_first_bytes", storage.chunk_first_bytes),
        ] {
            require(
                bytes.is_multiple_of(BLOCK_BYTES),
                name,
                "must be a multiple of 4096",
            );
        }
        require(
            storage.journal_first_file_bytes <= storage.journal_bytes,
            "storage.journal_first_file_bytes",
            "must not exceed storage.journal_bytes",
        );
        require(
            storage.chunk_first_bytes <= storage.chunk_bytes,
            "storage.chunk_first_bytes",
            "must not exceed storage.chunk_bytes",
        );
        require(
            storage.cache_bytes >= derived::CHUNKS_MIN * storage.chunk_bytes,
            "storage.cache_bytes",
            "must hold at least eight chunks of storage.chunk_bytes",
        );
        require(
            limits.request_memory_bytes
                >= limits
                    .request_max_bytes
                    .saturating_add(limits.request_max_bytes / 8),
            "limits.request_memory_bytes",
            "must exceed limits.request_max_bytes by an eighth, so that small requests always fit",
        );
        require(
            limits.mailbox_messages.is_power_of_two(),
            "limits.mailbox_messages",
            "must be a power of two",
        );
    }
}

/// The whole table.
pub(super) fn knobs() -> Vec<Knob> {
    let mut knobs = NodeConfig::knobs();
    knobs.extend(CoresConfig::knobs());
    knobs.extend(ListenersConfig::knobs());
    knobs.extend(StorageConfig::knobs());
    knobs.extend(LimitsConfig::knobs());
    knobs.extend(GroupsConfig::knobs());
    knobs.extend(TransactionsConfig::knobs());
    knobs.extend(ClusterConfig::knobs());
    knobs.extend(DefaultsConfig::knobs());
    knobs.extend(topic::default_knobs());
    knobs
}

fn set_dynamic(
    settings: &mut Settings,
    name: &str,
    value: &str,
    source: Source,
) -> Result<(), Problem> {
    match settings.find(name) {
        None => Err(sources::unknown(name)),
        Some((row, _)) if !settings.rows[row].knob.is_dynamic => Err(Problem::refused(
            name,
            "Cannot update this setting while the broker runs; set it in the configuration file",
        )),
        Some(_) => settings.set(name, value, source),
    }
}

/// A symbol of url-safe base64.
fn is_id_symbol(symbol: u8) -> bool {
    symbol.is_ascii_alphanumeric() || symbol == b'-' || symbol == b'_'
}

/// A voter as it is written: id@host:port.
fn voter(text: &str) -> Option<(i32, Address)> {
    let (id, address) = text.split_once('@')?;
    let id = id.parse().ok().filter(|id| *id >= 0)?;
    Some((id, Address::parse(address)?))
}

/// The value of a setting of Kafka's that holds a list of listeners, as one address of ours.
pub(super) fn kafka_listener(name: &str, text: &str) -> Result<Value, String> {
    let listeners: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    let [listener] = listeners[..] else {
        return Err(
            "Give exactly one PLAINTEXT listener; a CONTROLLER listener is not needed".to_string(),
        );
    };
    let Some((protocol, address)) = listener.split_once("://") else {
        return Err("Expected PLAINTEXT://host:port".to_string());
    };
    if protocol != "PLAINTEXT" {
        return Err(format!("{protocol} is not built yet; only PLAINTEXT is"));
    }
    // An empty host is every interface; nobody can be told to connect there.
    let every = if name == "listeners" { "0.0.0.0" } else { "" };
    let address = match address.strip_prefix(':') {
        Some(port) => format!("{every}:{port}"),
        None => address.to_string(),
    };
    Kind::Address.parse(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<BrokerConfig, Problems> {
        BrokerConfig::load(&Sources {
            toml: Some(text),
            ..Sources::default()
        })
    }

    fn properties(text: &str) -> Result<BrokerConfig, Problems> {
        BrokerConfig::load(&Sources {
            kafka_properties: Some(text),
            ..Sources::default()
        })
    }

    fn refusal(result: Result<BrokerConfig, Problems>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn defaults_hold_all_rules_and_listen_on_loopback_only() {
        let config = BrokerConfig::load(&Sources::default()).unwrap();
        assert_eq!(config.listeners, BrokerConfig::defaults().listeners);
        assert_eq!(config.listeners.client.to_string(), "127.0.0.1:9092");
        assert_eq!(
            config.listeners.admin.as_ref().unwrap().to_string(),
            "127.0.0.1:9644"
        );
        assert_eq!(config.advertised_address(), &config.listeners.client);
        assert_eq!(config.storage.data_dirs, ["./data"]);
        assert_eq!(config.storage.journal_bytes, 256 << 20);
        assert_eq!(config.limits.request_max_bytes, 100 << 20);
        assert!(config.defaults.auto_create_topics && config.defaults.delete_topics);
        assert_eq!(config.cores.list, CoreSelection::Auto);
    }

    #[test]
    fn each_source_wins_over_the_ones_before_it() {
        let toml = "[limits]\nfetch_max_bytes = 2000\nrequest_partitions_max = 2\n\
                    pipelined_requests_max = 2\nmailbox_messages = 2\n";
        let properties = "fetch.max.bytes=3000\n";
        let sets = [
            "limits.pipelined_requests_max=4".to_string(),
            "limits.mailbox_messages=4".to_string(),
            "limits.mailbox_messages=8".to_string(),
        ];
        let flags = [("limits.mailbox_messages", "16".to_string())];
        let sources = Sources {
            disk: None,
            toml: Some(toml),
            kafka_properties: Some(properties),
            sets: &sets,
            flags: &flags,
        };
        let limits = BrokerConfig::load(&sources).unwrap().limits;
        assert_eq!(limits.request_partitions_max, 2);
        assert_eq!(limits.fetch_max_bytes, 3000);
        assert_eq!(limits.pipelined_requests_max, 4);
        assert_eq!(limits.mailbox_messages, 16);
        let sources = Sources {
            flags: &[],
            ..sources
        };
        assert_eq!(
            BrokerConfig::load(&sources)
                .unwrap()
                .limits
                .mailbox_messages,
            8
        );
    }

    #[test]
    fn toml_takes_our_names_and_kafkas_quoted_or_dotted() {
        let config = toml(
            "num.partitions = 3\n[node]\nid = 7\nrack = \"r1\"\n[cores]\nlist = 2\n\
             [storage]\ndata_dirs = [\"/a\", \"/b\"]\n[listeners]\nadmin = \"\"\n\
             [defaults]\nlog.retention.hours = 1\n\"auto.create.topics.enable\" = false\n\
             log.cleaner.min.cleanable.ratio = 0.25\nlog.cleanup.policy = [\"compact\"]\n",
        )
        .unwrap();
        assert_eq!(
            (config.node.id, config.node.rack.as_deref()),
            (7, Some("r1"))
        );
        assert_eq!(config.cores.list, CoreSelection::Count(2));
        assert_eq!(config.storage.data_dirs, ["/a", "/b"]);
        assert_eq!(config.listeners.admin, None);
        assert_eq!(config.defaults.partitions, 3);
        assert!(!config.defaults.auto_create_topics);
        let topic = topic::TopicConfig::resolve(&BTreeMap::new(), &config).unwrap();
        assert_eq!(topic.retention_ms, 3_600_000);
        assert!(topic.cleanup_policy.is_compact);
        assert_eq!(topic.min_cleanable_dirty_ratio, 0.25);
    }

    #[test]
    fn wrong_types_and_bounds_are_refused_by_name() {
        for (text, name, why) in [
            ("[node]\nid = \"7\"", "node.id", "an integer"),
            ("[node]\nid = -1", "node.id", "at least 0"),
            ("[node]\nrack = 7", "node.rack", "a string"),
            ("[cores]\npin = \"true\"", "cores.pin", "without quotes"),
            ("[cores]\nlist = \"3-1\"", "cores.list", "auto, a count"),
            (
                "[storage]\ndata_dirs = []",
                "storage.data_dirs",
                "must not be empty",
            ),
            (
                "[storage]\ndata_dirs = [1]",
                "storage.data_dirs",
                "array of strings",
            ),
            (
                "[storage]\njournal_bytes = 1",
                "storage.journal_bytes",
                "at least 1048576",
            ),
            (
                "[limits]\nfetch_max_bytes = 1.5",
                "limits.fetch_max_bytes",
                "an integer",
            ),
            (
                "[listeners]\nclient = \"9092\"",
                "listeners.client",
                "host:port",
            ),
            (
                "[limits]\nnonsense = 1",
                "limits.nonsense",
                "unknown setting",
            ),
            ("nonsense = 2026-01-01", "nonsense", "a string"),
            (
                "[defaults]\nretention.ms = 5",
                "defaults.retention.ms",
                "log.retention.ms",
            ),
            ("[node", "configuration file", "TOML"),
        ] {
            let text = refusal(toml(text));
            assert!(text.contains(name) && text.contains(why), "{text}");
        }
        let sets = ["no-equals-sign".to_string()];
        let result = BrokerConfig::load(&Sources {
            sets: &sets,
            ..Sources::default()
        });
        assert!(refusal(result).contains("key=value"));
    }

    #[test]
    fn all_problems_are_reported_together() {
        let problems = toml("a = 1\nb = 2\n[node]\nid = \"x\"\n").unwrap_err();
        assert_eq!(problems.0.len(), 3, "{problems}");
    }

    #[test]
    fn a_server_properties_file_is_read_by_kafkas_names() {
        let config = properties(
            "node.id=4\nlisteners=PLAINTEXT://:9092\nadvertised.listeners=PLAINTEXT://host:9092\n\
             log.dirs=/tmp/a,/tmp/b\nlog.dir=/tmp/c\nnum.network.threads=3\nnum.io.threads=8\n\
             socket.send.buffer.bytes=102400\noffsets.topic.replication.factor=1\n\
             log.retention.hours=168\nlog.retention.minutes=2\nlog.segment.bytes=1073741824\n\
             log.retention.check.interval.ms=300000\nprocess.roles=broker,controller\n",
        )
        .unwrap();
        assert_eq!(config.node.id, 4);
        assert_eq!(config.listeners.client.to_string(), "0.0.0.0:9092");
        assert_eq!(config.advertised_address().to_string(), "host:9092");
        assert_eq!(config.storage.data_dirs, ["/tmp/a", "/tmp/b"]);
        let topic = topic::TopicConfig::resolve(&BTreeMap::new(), &config).unwrap();
        assert_eq!(topic.retention_ms, 120_000);
    }

    #[test]
    fn kafkas_settings_without_a_counterpart_are_refused_with_the_reason() {
        for (line, why) in [
            ("num.io.threads=16", "one thread per core"),
            ("zookeeper.connect=x:1", "removed"),
            ("controller.quorum.voters=1:x:1", "id@host:port"),
            ("controller.quorum.voters=1@x:1,2@x:2", "needs an address"),
            ("controller.quorum.fetch.timeout.ms=5", "quorum is built in"),
            ("sasl.enabled.mechanisms=PLAIN", "security is not built yet"),
            ("remote.log.storage.system.enable=true", "tiered storage"),
            ("listeners=SSL://:9093", "only PLAINTEXT"),
            (
                "listeners=PLAINTEXT://:9092,CONTROLLER://:9093",
                "CONTROLLER listener is not needed",
            ),
            ("listeners=9092", "PLAINTEXT://host:port"),
            ("advertised.listeners=PLAINTEXT://:9092", "host:port"),
            (
                "process.roles=broker",
                "every node is broker and controller",
            ),
            ("queued.max.request.bytes=-1", "at least 1048576"),
            ("log.retention.hours=x", "Not a number"),
            ("no.such.setting=1", "unknown setting"),
        ] {
            let text = refusal(properties(line));
            assert!(text.contains(why), "{line}: {text}");
            assert!(!text.contains('\n'), "one problem each: {text}");
        }
    }

    #[test]
    fn unlimited_hours_are_unlimited_milliseconds() {
        let config = properties("log.retention.hours=-1").unwrap();
        let topic = topic::TopicConfig::resolve(&BTreeMap::new(), &config).unwrap();
        assert_eq!(topic.retention_ms, -1);
    }

    #[test]
    fn what_does_not_go_together_or_is_not_built_is_refused() {
        for (text, name) in [
            ("[node]\nquorum = \"1@h:1,1@h:2\"", "node.quorum"),
            ("[node]\nquorum = \"7@h:1\"", "listeners.inter_broker"),
            ("[node]\ncluster_id = \"short\"", "node.cluster_id"),
            ("[listeners]\nper_core = true", "listeners.per_core"),
            (
                "[storage]\njournal_bytes = 1048577",
                "storage.journal_bytes",
            ),
            (
                "[storage]\njournal_bytes = 1048576",
                "storage.journal_first_file_bytes",
            ),
            (
                "[storage]\nchunk_first_bytes = 2097152",
                "storage.chunk_first_bytes",
            ),
            ("[storage]\nchunk_bytes = 4097", "storage.chunk_bytes"),
            ("[storage]\ncache_bytes = 2097152", "storage.cache_bytes"),
            (
                "[limits]\nrequest_memory_bytes = 104857600",
                "limits.request_memory_bytes",
            ),
            ("[limits]\nmailbox_messages = 3", "limits.mailbox_messages"),
        ] {
            let problems = toml(text).unwrap_err();
            assert!(
                problems.0.iter().any(|problem| problem.name == name),
                "{text}: {problems}"
            );
        }
    }

    #[test]
    fn only_dynamic_settings_change_while_the_broker_runs() {
        let none = BTreeMap::new();
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_string(), value.to_string())]);
        let config = BrokerConfig::defaults();
        let changed = config
            .with_dynamic(&one("max.connections", "5"), &none)
            .unwrap();
        assert_eq!(changed.limits.connections_max, 5);
        let changed = changed
            .with_dynamic(
                &one("max.connections", "6"),
                &one("limits.connections_max", "7"),
            )
            .unwrap();
        assert_eq!(changed.limits.connections_max, 7);
        let back = changed.with_dynamic(&none, &none).unwrap();
        assert_eq!(back.limits, config.limits);
        for (name, value, why) in [
            ("log.dirs", "/x", "Cannot update"),
            ("no.such", "1", "unknown setting"),
            (
                "ssl.keystore.location",
                "/etc/passwd",
                "security is not built yet",
            ),
            ("max.connections", "0", "at least 1"),
        ] {
            let text = refusal(config.with_dynamic(&none, &one(name, value)));
            assert!(text.contains(name) && text.contains(why), "{text}");
        }
        assert_eq!(config.is_dynamic("message.max.bytes"), Some(true));
        assert_eq!(config.is_dynamic("node.id"), Some(false));
        assert_eq!(config.is_dynamic("no.such"), None);
    }

    #[test]
    fn print_config_shows_every_setting_with_everything_about_it() {
        let config = properties("fetch.max.bytes=4096").unwrap();
        let text = config.print_config();
        assert_eq!(text.lines().count(), knobs().len());
        let line = text
            .lines()
            .find(|line| line.starts_with("limits.fetch_max_bytes"))
            .unwrap();
        assert_eq!(
            line,
            "limits.fetch_max_bytes = 4096 bytes  # Records in the answer to a Fetch. \
             Default 57671680; [1024,...]; from kafka-properties; Kafka: fetch.max.bytes"
        );
        assert!(text.contains("node.rack = (nothing)"));
        for knob in knobs() {
            assert!(knob.doc.ends_with('.'), "{} has no sentence", knob.name);
        }
    }

    #[test]
    fn the_tiny_preset_is_tiny_and_consistent() {
        let tiny = BrokerConfig::tiny_for_tests();
        assert_eq!(tiny.storage.journal_bytes, 1 << 20);
        assert_eq!(tiny.cores.list, CoreSelection::Count(1));
        assert_eq!(tiny.listeners.client.port, 0);
    }
}
