//! `percolog produce`: a record per line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::wire::compression::{Codec, Compression};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

use super::client::{Client, ClientOptions, Topics};
use super::failure::Failure;
use super::lines::{self, Chunk};
use super::output::{self, OutputFormat};
use super::partitioner::Partitioner;
use super::pipeline::{Batch, Pipeline};
use super::timestamp;

/// How long records wait for others while nothing more is read.
const LINGER: Duration = Duration::from_millis(10);
/// Open batches of all partitions together; beyond that all are sent.
const OPEN_BYTES_MAX: usize = 64 << 20;
/// What a record takes beside key and value, at most.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// Who has to have a record before the broker acknowledges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Acks {
    /// Nobody: there is no acknowledgement
    #[value(name = "0")]
    None,
    /// The leader
    #[value(name = "1")]
    Leader,
    /// All replicas in sync
    #[value(name = "all", alias = "-1")]
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CompressionName {
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

/// Writes a record per line of a file, or of stdin. A batch whose answer got lost is sent again, so
/// a record may arrive twice
#[derive(Debug, clap::Args)]
pub(crate) struct ProduceArguments {
    /// Topic to write to
    topic: String,
    /// File to read; stdin without it, or with -
    file: Option<PathBuf>,
    /// What stands between key and value; a line without it has no key
    #[arg(long, value_name = "C")]
    key_separator: Option<String>,
    /// Partition to write to; otherwise the key decides, as in Kafka's Java client
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Who has to have a record before it counts as written
    #[arg(long, value_enum, default_value = "all")]
    acks: Acks,
    /// How batches are compressed
    #[arg(long, value_enum, value_name = "NAME", default_value = "none")]
    compression: CompressionName,
    /// Write null (a tombstone) where the value is empty
    #[arg(long)]
    empty_as_null: bool,
    /// Size of a batch, before compression
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 256 << 10,
        value_parser = clap::value_parser!(u32).range(1..=64 << 20)
    )]
    batch_bytes: u32,
    /// Batches on their way to one broker at a time; 1 keeps the order even when some are sent again
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u16).range(1..=100)
    )]
    in_flight: u16,
    #[command(flatten)]
    client: ClientOptions,
}

/// Runs the command.
pub(crate) fn run(arguments: &ProduceArguments) -> Result<(), Failure> {
    let (name, input, size_bytes) = open(arguments)?;
    let mut client = Client::connect(&arguments.client)?;
    let topic = client.topic(Topics::OneOrCreate(&arguments.topic))?;
    if let Some(partition) = arguments.partition {
        topic.leader(partition)?;
    }
    let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let acks = match arguments.acks {
        Acks::None => 0,
        Acks::Leader => 1,
        Acks::All => -1,
    };
    let in_flight = usize::from(arguments.in_flight);
    let mut producer = Producer {
        arguments,
        pipeline: Pipeline::new(client, topic, acks, in_flight),
        partitioner: Partitioner::new(partitions, arguments.partition)?,
        open: BTreeMap::new(),
        open_bytes: 0,
        value_bytes: 0,
    };
    let start = Instant::now();
    let progress = progress(size_bytes);
    let result = producer.all(&lines::read_ahead(name, input), &progress);
    progress.finish_and_clear();
    summary(arguments, &producer, start.elapsed())?;
    result
}

type Input = (String, Box<dyn Read + Send>, Option<u64>);

fn open(arguments: &ProduceArguments) -> Result<Input, Failure> {
    let path = arguments
        .file
        .as_ref()
        .filter(|path| path.as_os_str() != "-");
    let Some(path) = path else {
        return Ok(("stdin".to_owned(), Box::new(io::stdin()), None));
    };
    let name = path.display().to_string();
    let failed = |error: io::Error| Failure::Local(format!("{name}: {error}"));
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let size_bytes = metadata.is_file().then_some(metadata.len());
    Ok((name, Box::new(file), size_bytes))
}

/// Hidden unless stderr is a terminal.
fn progress(size_bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size_bytes {
        Some(size_bytes) => (
            ProgressBar::new(size_bytes),
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {bytes_per_sec} {msg}",
        ),
    };
    let style = ProgressStyle::with_template(template).expect("the templates are constant");
    bar.with_style(style)
}

struct Producer<'a> {
    arguments: &'a ProduceArguments,
    pipeline: Pipeline,
    partitioner: Partitioner,
    /// Batches that still take records.
    open: BTreeMap<i32, BatchBuilder>,
    open_bytes: usize,
    value_bytes: u64,
}

impl Producer<'_> {
    fn all(&mut self, chunks: &Receiver<Chunk>, progress: &ProgressBar) -> Result<(), Failure> {
        loop {
            let chunk = match chunks.recv_timeout(LINGER) {
                Ok(chunk) => chunk?,
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
                Err(RecvTimeoutError::Timeout) => {
                    // What was typed so far is written before more is awaited.
                    self.flush()?;
                    match chunks.recv() {
                        Ok(chunk) => chunk?,
                        Err(_) => return Ok(()),
                    }
                }
            };
            for line in lines::split(&chunk) {
                self.append(line)?;
            }
            progress.inc(chunk.len() as u64);
            progress.set_message(format!("{} records", self.pipeline.records_done()));
        }
    }

    fn append(&mut self, line: &[u8]) -> Result<(), Failure> {
        let separator = self.arguments.key_separator.as_deref().map(str::as_bytes);
        let (key, value) = lines::key_and_value(line, separator);
        let value = (!value.is_empty() || !self.arguments.empty_as_null).then_some(value);
        let mut partition = self.partitioner.partition(key);
        let batch_bytes = self.arguments.batch_bytes as usize;
        let is_full = self.open.get(&partition).is_some_and(|batch| {
            batch.plain_bytes() + line.len() + RECORD_OVERHEAD_BYTES > batch_bytes
        });
        if is_full {
            self.send(partition)?;
            partition = self.partitioner.partition(key);
        }
        let compression = Compression::of(self.arguments.compression.codec());
        let batch = self.open.entry(partition).or_insert_with(|| {
            BatchBuilder::new(BatchOptions {
                compression,
                ..Default::default()
            })
        });
        let before = batch.plain_bytes();
        batch.append(timestamp::now_ms(), key, value, std::iter::empty());
        self.open_bytes += batch.plain_bytes() - before;
        self.value_bytes += line.len() as u64;
        if self.open_bytes > OPEN_BYTES_MAX {
            self.send_all()?;
        }
        Ok(())
    }

    fn send(&mut self, partition: i32) -> Result<(), Failure> {
        let Some(batch) = self.open.remove(&partition) else {
            return Ok(());
        };
        self.partitioner.turn(partition);
        let empty = BatchBuilder::new(BatchOptions::default()).plain_bytes();
        self.open_bytes -= batch.plain_bytes() - empty;
        let records = u64::from(batch.record_count().unsigned_abs());
        self.pipeline.submit(Batch {
            partition,
            bytes: batch.finish(),
            records,
        })
    }

    fn send_all(&mut self) -> Result<(), Failure> {
        while let Some((&partition, _)) = self.open.first_key_value() {
            self.send(partition)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.send_all()?;
        self.pipeline.finish()
    }
}

fn summary(
    arguments: &ProduceArguments,
    producer: &Producer<'_>,
    elapsed: Duration,
) -> Result<(), Failure> {
    let records = producer.pipeline.records_done();
    let bytes = producer.value_bytes;
    let seconds = elapsed.as_secs_f64().max(0.001);
    let (records_per_second, bytes_per_second) = (records as f64 / seconds, bytes as f64 / seconds);
    output::note(&format!(
        "{records} records {}, {} read in {seconds:.2} s: {records_per_second:.0} records/s, {}/s",
        match arguments.acks {
            Acks::None => "sent",
            Acks::Leader | Acks::All => "acknowledged",
        },
        output::size(bytes as f64),
        output::size(bytes_per_second),
    ));
    if arguments.client.output == OutputFormat::Table {
        return Ok(());
    }
    output::json(&serde_json::json!({
        "topic": arguments.topic,
        "records": records,
        "bytes": bytes,
        "seconds": seconds,
    }))
}
