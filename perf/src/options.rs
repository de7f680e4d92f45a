//! The command line, and the values it stands for.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use percolog::wire::compression::Codec;

use crate::batch::{BatchShape, STAMP_BYTES};
use crate::client::Failure;
use crate::cluster::{MESSAGE_BYTES_DEFAULT, TopicPlan};
use crate::flow::Partitioner;

/// Longest run.
const SECONDS_MAX: f64 = 86_400.0;
const RECORD_BYTES_MAX: u64 = 16 << 20;
const BATCH_BYTES_MAX: u64 = 64 << 20;

/// Load generator for brokers that speak Kafka's wire protocol.
#[derive(Debug, Parser)]
#[command(name = "percolog-perf", version)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Produces records and measures from the intended send time to the acknowledgement
    Produce(ProduceOptions),
    /// Reads partitions from the beginning or from their end
    Consume(ConsumeOptions),
    /// Produces and consumes, and measures from the intended send time to the receipt
    EndToEnd(EndToEndOptions),
    /// Produces at one rate after the other and prints latency percentiles for each
    Sweep(SweepOptions),
    /// Holds idle connections and measures what they take of the broker
    Connections(ConnectionsOptions),
    /// Commits offsets, or transactions, in a closed loop
    Coordination(CoordinationOptions),
    /// Holds groups, members of one group, or open transactions, and measures what they take of the broker
    Held(HeldOptions),
    /// Creates topics and measures until every partition has a leader
    Create(CreateOptions),
    /// Reads Produce requests and acknowledges them at once: to measure this tool itself
    NullServer(NullServerOptions),
    /// Prints values of the last report in a file, one a line
    Read(ReadOptions),
    /// Appends figures of a script to a file, with their provenance
    Figures(FiguresOptions),
    /// Prints reports that name their workload as a table, with ratios between brokers
    Table(TableOptions),
    /// Writes them as one HTML file with plots
    Page(PageOptions),
    /// Prints the fingerprint of this machine, by which ledgers are told apart
    Host(HostOptions),
    /// Appends the medians of reports to a ledger, a line per workload
    Record(RecordOptions),
    /// Compares the broker's CPU time per record with a ledger or another broker; fails on a regression
    Gate(GateOptions),
    /// Prints where CPU time went, from what `perf script -F comm,tid,ip,sym,dso` printed
    Profile(ProfileOptions),
}

/// Which broker, which topic, what to account, where to report.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    /// Broker to ask first; more than one are separated by commas
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PERCOLOG_BOOTSTRAP",
        default_value = "127.0.0.1:9092"
    )]
    pub(crate) bootstrap: String,
    /// Topic; it is created if it does not exist
    #[arg(long, default_value = "perf")]
    pub(crate) topic: String,
    /// Number of topics, named TOPIC-0, TOPIC-1, ... if there are several
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) topics: u32,
    /// Partitions per topic; default: those that exist, or one
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    pub(crate) partitions: Option<i32>,
    /// Configuration of topics that are created
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) topic_config: Vec<String>,
    /// Process to account: CPU time, memory, bytes written
    #[arg(long, value_name = "PID")]
    pub(crate) broker_pid: Option<u32>,
    /// Directory on the broker's disk: the sectors its block device writes are counted
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// How reports name the broker
    #[arg(long, value_name = "NAME")]
    pub(crate) broker_name: Option<String>,
    /// How reports name what is run; tables put those with the same name together
    #[arg(long, value_name = "NAME")]
    pub(crate) workload_name: Option<String>,
    /// Appends the report to a file, as one line of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Exit with 0 although the broker reported errors
    #[arg(long)]
    pub(crate) tolerate_errors: bool,
}

impl RunOptions {
    /// The topics, for batches of up to `batch_bytes`.
    pub(crate) fn topic_plan(&self, batch_bytes: usize) -> Result<TopicPlan, Failure> {
        let names = match self.topics {
            1 => vec![self.topic.clone()],
            count => (0..count)
                .map(|index| format!("{}-{index}", self.topic))
                .collect(),
        };
        let mut configs = Vec::new();
        for config in &self.topic_config {
            let (name, value) = config
                .split_once('=')
                .ok_or_else(|| format!("--topic-config takes KEY=VALUE, not {config:?}"))?;
            configs.push((name.to_owned(), value.to_owned()));
        }
        let is_told = configs.iter().any(|(name, _)| name == "max.message.bytes");
        if batch_bytes > MESSAGE_BYTES_DEFAULT && !is_told {
            configs.push(("max.message.bytes".to_owned(), batch_bytes.to_string()));
        }
        Ok(TopicPlan {
            names,
            partitions: self.partitions,
            is_created: true,
            configs,
        })
    }
}

/// How long.
#[derive(Clone, Debug, Args)]
pub(crate) struct TimeOptions {
    /// Seconds measured, after the warm-up; default 10, or no end when --count is given
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: Option<f64>,
    /// Seconds of load before the measurement; default 1, or 0 when --count is given
    #[arg(long, value_name = "SECONDS")]
    pub(crate) warmup: Option<f64>,
    /// Records in all, warm-up included
    #[arg(long, value_name = "RECORDS")]
    pub(crate) count: Option<u64>,
    /// Seconds that answers may take after the end of the load
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(crate) drain: f64,
}

impl TimeOptions {
    /// Warm-up and measured time.
    pub(crate) fn durations(&self) -> Result<(Duration, Option<Duration>), Failure> {
        let default = |seconds| {
            if self.count.is_none() {
                Some(seconds)
            } else {
                None
            }
        };
        let warmup = self.warmup.or(default(1.0)).unwrap_or(0.0);
        let duration = self.duration.or(default(10.0));
        if duration == Some(0.0) {
            return Err("--duration is more than 0".to_owned());
        }
        let duration = duration.map(|seconds| seconds_of("--duration", seconds));
        Ok((seconds_of("--warmup", warmup)?, duration.transpose()?))
    }

    /// [`TimeOptions::drain`] as a duration.
    pub(crate) fn drain(&self) -> Result<Duration, Failure> {
        seconds_of("--drain", self.drain)
    }
}

fn seconds_of(name: &str, seconds: f64) -> Result<Duration, Failure> {
    match (0.0..=SECONDS_MAX).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(format!(
            "{name} takes 0 to {SECONDS_MAX} seconds, not {seconds}"
        )),
    }
}

/// The records, and how they are sent.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadOptions {
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=RECORD_BYTES_MAX))]
    pub(crate) record_bytes: u64,
    /// Bytes of a batch at most, before compression (a single record may exceed it)
    #[arg(long, value_name = "BYTES", default_value_t = 16384, value_parser = clap::value_parser!(u64).range(1..=BATCH_BYTES_MAX))]
    pub(crate) batch_bytes: u64,
    /// Connections to each broker that leads a partition of the run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) connections: u32,
    /// Requests in flight per connection
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) in_flight: u32,
    /// Producers per broker, which share the connections; default: one per connection
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) producers: Option<u32>,
    /// Partitions with a batch each in one Produce request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) partitions_per_request: u32,
    /// How a producer chooses partitions
    #[arg(long, value_enum, default_value_t = Partitioner::Sticky)]
    pub(crate) partitioner: Partitioner,
    /// Which partitions a producer writes to (and a consumer's connection reads)
    #[arg(long, value_enum, default_value_t = Spread::All)]
    pub(crate) spread: Spread,
    /// Acknowledgements to wait for
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub(crate) acks: Acks,
    /// Codec
    #[arg(long, value_enum, default_value_t = CompressionName::None)]
    pub(crate) compression: CompressionName,
    /// Distinct keys of 16 bytes, each always in the same partition; 0 for none
    #[arg(long, default_value_t = 0)]
    pub(crate) keys: u64,
    /// Producers get ids and number their batches
    #[arg(long)]
    pub(crate) idempotent: bool,
    /// Seed of payloads
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Bytes of text that payloads are cut from
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1 << 20..=4 << 30))]
    pub(crate) pool_bytes: u64,
}

impl LoadOptions {
    /// Sizes and codec of its batches.
    pub(crate) fn shape(&self) -> Result<BatchShape, Failure> {
        if self.record_bytes * 2 > self.pool_bytes {
            return Err("--pool-bytes must be twice --record-bytes at least".to_owned());
        }
        Ok(BatchShape {
            record_bytes: self.record_bytes as usize,
            batch_bytes: self.batch_bytes as usize,
            codec: self.compression.codec(),
            keys: self.keys,
        })
    }

    /// Largest batch, for the topic's configuration.
    pub(crate) fn batch_bytes_max(&self) -> usize {
        // A record's own fields and the batch's header.
        (self.record_bytes + 128).max(self.batch_bytes) as usize
    }
}

/// Which partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spread {
    /// All of them, as clients do
    All,
    /// A share of them, so that no partition has two producers unless there are more producers than
    /// partitions
    Divided,
}

/// Acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Acks {
    /// Every replica in sync
    #[value(alias = "-1")]
    All,
    /// The leader
    #[value(name = "1")]
    Leader,
    /// None: a record counts when the kernel took it
    #[value(name = "0")]
    None,
}

impl Acks {
    /// The number on the wire.
    pub(crate) fn code(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::Leader => 1,
            Acks::None => 0,
        }
    }
}

/// A codec by Kafka's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionName {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl CompressionName {
    fn codec(self) -> Codec {
        match self {
            CompressionName::None => Codec::None,
            CompressionName::Gzip => Codec::Gzip,
            CompressionName::Snappy => Codec::Snappy,
            CompressionName::Lz4 => Codec::Lz4,
            CompressionName::Zstd => Codec::Zstd,
        }
    }
}

/// `percolog-perf produce`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProduceOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    #[command(flatten)]
    pub(crate) time: TimeOptions,
    #[command(flatten)]
    pub(crate) load: LoadOptions,
    /// Records per second, sent on time whatever the answers do; default: as fast as they come
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) rate: Option<u64>,
    /// With --rate: microseconds between two looks at the schedule at least. Timers are dear on
    /// virtual machines; what a record waits for the next look is part of its latency
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub(crate) tick: u64,
}

/// How fetches are made.
#[derive(Clone, Debug, Args)]
pub(crate) struct FetchOptions {
    /// Bytes of one answer at most
    #[arg(long, value_name = "BYTES", default_value_t = 52_428_800, value_parser = clap::value_parser!(i32).range(1..=200 << 20))]
    pub(crate) fetch_max_bytes: i32,
    /// Bytes of one partition in an answer at most
    #[arg(long, value_name = "BYTES", default_value_t = 1_048_576, value_parser = clap::value_parser!(i32).range(1..=200 << 20))]
    pub(crate) fetch_partition_max_bytes: i32,
    /// Bytes the broker waits for before it answers
    #[arg(long, value_name = "BYTES", default_value_t = 1, value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) fetch_min_bytes: i32,
    /// How long it waits for them
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 500, value_parser = clap::value_parser!(i32).range(0..=60_000))]
    pub(crate) fetch_max_wait: i32,
    /// Do not compare checksums
    #[arg(long)]
    pub(crate) skip_crc: bool,
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Start {
    /// At the first record; without --duration it stops at what was the end when it began
    Beginning,
    /// Behind the last record
    End,
}

/// `percolog-perf consume`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConsumeOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Seconds measured, after the warm-up; default: until the end of the partitions, or 10 with --from end
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: Option<f64>,
    /// Seconds of reading before the measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub(crate) warmup: f64,
    /// Records to read
    #[arg(long, value_name = "RECORDS")]
    pub(crate) count: Option<u64>,
    /// Connections to each broker; partitions are divided among them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) connections: u32,
    /// Which partitions a connection reads
    #[arg(long, value_enum, default_value_t = Spread::Divided)]
    pub(crate) spread: Spread,
    /// Where to begin
    #[arg(long, value_enum, default_value_t = Start::Beginning)]
    pub(crate) from: Start,
    /// Begin again at the end, until --duration is over
    #[arg(long, requires = "duration")]
    pub(crate) repeat: bool,
    #[command(flatten)]
    pub(crate) fetch: FetchOptions,
}

impl ConsumeOptions {
    /// Warm-up and measured time.
    pub(crate) fn durations(&self) -> Result<(Duration, Option<Duration>), Failure> {
        let duration = match (self.duration, self.from, self.count) {
            (None, Start::End, None) => Some(10.0),
            (duration, _, _) => duration,
        };
        let duration = duration.map(|seconds| seconds_of("--duration", seconds));
        Ok((seconds_of("--warmup", self.warmup)?, duration.transpose()?))
    }
}

/// `percolog-perf end-to-end`.
#[derive(Clone, Debug, Args)]
pub(crate) struct EndToEndOptions {
    #[command(flatten)]
    pub(crate) produce: ProduceOptions,
    #[command(flatten)]
    pub(crate) fetch: FetchOptions,
    /// Connections of the consumer; default: as many as the producer's
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) consumers: Option<u32>,
    /// The next record is sent when the one before was received
    #[arg(long, conflicts_with = "rate")]
    pub(crate) one_at_a_time: bool,
}

impl EndToEndOptions {
    /// Refuses what cannot be measured.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.produce.load.record_bytes < STAMP_BYTES as u64 {
            return Err(format!(
                "--record-bytes is {STAMP_BYTES} at least: records carry their time"
            ));
        }
        Ok(())
    }
}

/// `percolog-perf sweep`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SweepOptions {
    /// Rates, in records per second
    #[arg(
        long,
        value_name = "RECORDS,...",
        value_delimiter = ',',
        required = true
    )]
    pub(crate) rates: Vec<u64>,
    #[command(flatten)]
    pub(crate) produce: ProduceOptions,
}

/// `percolog-perf create`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CreateOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

/// `percolog-perf connections`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectionsOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// How many; each asks for the broker's versions and is idle from then on
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
    /// Seconds they are held
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub(crate) idle: f64,
}

/// What a coordinator is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CoordinationKind {
    /// OffsetCommit
    Commits,
    /// Produce and EndTxn
    Transactions,
}

impl CoordinationKind {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CoordinationKind::Commits => "commits",
            CoordinationKind::Transactions => "transactions",
        }
    }
}

/// `percolog-perf coordination`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CoordinationOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// What is repeated
    #[arg(value_enum)]
    pub(crate) kind: CoordinationKind,
    /// Connections, each with a group or a transactional id and one request on its way
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) connections: u32,
    /// Partitions in a commit
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub(crate) commit_partitions: i32,
    /// Bytes of the record in a transaction
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub(crate) record_bytes: usize,
    /// Seconds that are measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub(crate) duration: f64,
    /// Seconds before
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub(crate) warmup: f64,
}

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeldKind {
    /// Groups with one member and one committed offset each
    Groups,
    /// Members of one group
    Members,
    /// Transactions with one record each
    Transactions,
}

impl HeldKind {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            HeldKind::Groups => "groups",
            HeldKind::Members => "members",
            HeldKind::Transactions => "transactions",
        }
    }
}

/// `percolog-perf held`.
#[derive(Clone, Debug, Args)]
pub(crate) struct HeldOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// What is held
    #[arg(value_enum)]
    pub(crate) kind: HeldKind,
    /// How many
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    /// Connections that share them, each with one request on its way
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) connections: u32,
}

/// `percolog-perf null-server`.
#[derive(Clone, Debug, Args)]
pub(crate) struct NullServerOptions {
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9292")]
    pub(crate) listen: String,
    /// Bytes of a batch in answers to Fetch
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1024..=16 << 20))]
    pub(crate) batch_bytes: u64,
}

/// `percolog-perf read`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReadOptions {
    /// File of reports, a line each
    pub(crate) file: PathBuf,
    /// What to print, like /produce/latency/p99
    #[arg(required = true)]
    pub(crate) pointers: Vec<String>,
}

/// `percolog-perf figures`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FiguresOptions {
    /// Name of the script
    #[arg(long)]
    pub(crate) script: String,
    /// File to append to
    #[arg(long, value_name = "FILE")]
    pub(crate) json: PathBuf,
    /// The figures
    #[arg(value_name = "NAME=VALUE", required = true)]
    pub(crate) figures: Vec<String>,
}

/// `percolog-perf table`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TableOptions {
    /// File of reports, a line each
    pub(crate) file: PathBuf,
}

/// `percolog-perf page`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PageOptions {
    /// File of reports, a line each
    pub(crate) file: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub(crate) html: PathBuf,
    /// Title of the page
    #[arg(long, default_value = "Percolog")]
    pub(crate) title: String,
    /// Ledger whose history is shown
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
}

/// `percolog-perf host`.
#[derive(Clone, Debug, Args)]
pub(crate) struct HostOptions {
    /// Directory on the disk that counts
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) data_dir: PathBuf,
}

/// `percolog-perf record`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RecordOptions {
    /// File of reports, a line each
    pub(crate) file: PathBuf,
    /// Ledger to append to
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: PathBuf,
    /// Directory on the broker's disk
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Which broker's reports
    #[arg(long, value_name = "NAME", default_value = "percolog")]
    pub(crate) broker: String,
}

/// `percolog-perf gate`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("past").required(true))]
pub(crate) struct GateOptions {
    /// File of reports, a line each
    pub(crate) file: PathBuf,
    /// Which broker's reports are judged
    #[arg(long, value_name = "NAME", default_value = "percolog")]
    pub(crate) broker: String,
    /// Compare with the last entries of a ledger
    #[arg(long, value_name = "FILE", group = "past")]
    pub(crate) ledger: Option<PathBuf>,
    /// Compare with another broker of the same reports
    #[arg(long, value_name = "NAME", group = "past")]
    pub(crate) against: Option<String>,
    /// Workloads that have to be there
    #[arg(long, value_name = "NAME", required = true)]
    pub(crate) workload: Vec<String>,
}

/// `percolog-perf profile`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProfileOptions {
    /// What perf script printed
    pub(crate) file: PathBuf,
    /// Samples per second and core that perf was told to take
    #[arg(long, default_value_t = 999.0)]
    pub(crate) frequency: f64,
}
