//! Offset commits and transactions: requests that a coordinator answers, in a closed loop.
//!
//! Every connection has a thread, its own group or transactional id, and one request on its way. A
//! transaction is one Produce of one batch to one partition and the EndTxn behind it, as clients of
//! `transaction.version` 2 send them (KIP-890). Answers that are worth another try are tried again
//! within the time that is measured, and counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use percolog::wire::codec::Records;
use percolog::wire::error_code::ErrorCode;
use percolog::wire::messages::end_txn::EndTxnRequest;
use percolog::wire::messages::find_coordinator::FindCoordinatorRequest;
use percolog::wire::messages::init_producer_id::InitProducerIdRequest;
use percolog::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use percolog::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};
use serde_json::{Value, json};

use crate::accounting::Accounting;
use crate::client::{Client, Failure, check};
use crate::cluster::{Cluster, Topic};
use crate::latency::Latency;
use crate::options::{CoordinationKind, CoordinationOptions};

/// How long a coordinator may take to load before anything is measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause before another try.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// What one connection did in the measured time.
#[derive(Debug)]
struct Share {
    latency: Latency,
    retries: u64,
}

/// What all of them did.
#[derive(Debug)]
pub(crate) struct Coordination {
    latency: Latency,
    retries: u64,
    duration: Duration,
    cpu_seconds: Option<f64>,
}

/// One connection with what it repeats.
trait Repeats {
    /// Does it once; the number of answers that had to be tried again.
    fn once(&mut self) -> Result<u64, Failure>;
}

/// Measures all connections together.
pub(crate) fn measure(
    options: &CoordinationOptions,
    cluster: &Cluster,
) -> Result<(Coordination, Accounting), Failure> {
    let mut accounting = Accounting::new(options.run.broker_pid, options.run.data_dir.as_ref())?;
    let (measuring, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    let failed = AtomicBool::new(false);
    let seconds = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in 0..options.connections {
            let mut repeats = open(options, cluster, number)?;
            let flags = (&measuring, &stopped, &failed);
            threads.push(scope.spawn(move || repeat(&mut *repeats, flags)));
        }
        std::thread::sleep(seconds(options.warmup));
        accounting.start();
        let started = Instant::now();
        measuring.store(true, Ordering::Release);
        while started.elapsed() < seconds(options.duration) && !failed.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(10));
        }
        stopped.store(true, Ordering::Release);
        let duration = started.elapsed();
        accounting.stop();
        let (mut latency, mut retries) = (Latency::new(), 0);
        for thread in threads {
            let share = thread.join().expect("threads do not panic")?;
            latency.absorb(&share.latency);
            retries += share.retries;
        }
        let measured = Coordination {
            latency,
            retries,
            duration,
            cpu_seconds: accounting.broker_cpu().map(|(user, system)| user + system),
        };
        Ok((measured, accounting))
    })
}

fn repeat(
    repeats: &mut dyn Repeats,
    (measuring, stopped, failed): (&AtomicBool, &AtomicBool, &AtomicBool),
) -> Result<Share, Failure> {
    let mut share = Share {
        latency: Latency::new(),
        retries: 0,
    };
    while !stopped.load(Ordering::Acquire) {
        let is_measured = measuring.load(Ordering::Acquire);
        let started = Instant::now();
        let retries = repeats.once();
        let retries = retries.inspect_err(|_| failed.store(true, Ordering::Release))?;
        if is_measured && !stopped.load(Ordering::Acquire) {
            let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            share.latency.record(nanoseconds, 1);
            share.retries += retries;
        }
    }
    Ok(share)
}

fn open(
    options: &CoordinationOptions,
    cluster: &Cluster,
    number: u32,
) -> Result<Box<dyn Repeats + Send>, Failure> {
    let client = Client::open(&options.run.bootstrap)?;
    let name = format!("percolog-perf-{}-{number}", std::process::id());
    Ok(match options.kind {
        CoordinationKind::Commits => Box::new(Committer::open(client, name, options, cluster)?),
        CoordinationKind::Transactions => {
            Box::new(Transactions::open(client, name, number, options, cluster)?)
        }
    })
}

/// Waits until the broker knows the coordinator of a name.
pub(crate) fn find(client: &mut Client, name: &str, key_type: i8) -> Result<(), Failure> {
    let request = FindCoordinatorRequest {
        key_type,
        coordinator_keys: vec![name.into()],
        ..FindCoordinatorRequest::default()
    };
    let started = Instant::now();
    loop {
        let code = client.ask(&request, |answer| answer.coordinators[0].error_code)?;
        match check("FindCoordinator", code) {
            Ok(()) => return Ok(()),
            Err(reason) if started.elapsed() > PATIENCE => return Err(reason),
            Err(_) => std::thread::sleep(RETRY_PAUSE),
        }
    }
}

fn is_worth_a_try(code: i16) -> bool {
    ErrorCode::from_code(code).is_some_and(ErrorCode::is_retriable)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

/// Asks until the answer is final.
pub(crate) fn insist(
    what: &str,
    mut ask: impl FnMut() -> Result<i16, Failure>,
) -> Result<u64, Failure> {
    let started = Instant::now();
    let mut retries = 0;
    loop {
        let code = ask()?;
        if !is_worth_a_try(code) || started.elapsed() > PATIENCE {
            return check(what, code).map(|()| retries);
        }
        retries += 1;
        std::thread::sleep(RETRY_PAUSE);
    }
}

/// Commits offsets as a consumer without members does.
struct Committer {
    client: Client,
    group: String,
    topic: Topic,
    partitions: i32,
    offset: i64,
}

impl Committer {
    fn open(
        mut client: Client,
        group: String,
        options: &CoordinationOptions,
        cluster: &Cluster,
    ) -> Result<Committer, Failure> {
        find(&mut client, &group, 0)?;
        let available = i32::try_from(cluster.targets.len()).unwrap_or(i32::MAX);
        Ok(Committer {
            client,
            group,
            topic: cluster.topics[0].clone(),
            partitions: options.commit_partitions.min(available),
            offset: 0,
        })
    }
}

impl Repeats for Committer {
    fn once(&mut self) -> Result<u64, Failure> {
        self.offset += 1;
        let partition = |index| OffsetCommitRequestPartition {
            partition_index: index,
            committed_offset: self.offset,
            committed_leader_epoch: -1,
            committed_metadata: Some("".into()),
        };
        let request = OffsetCommitRequest {
            group_id: self.group.as_str().into(),
            topics: vec![OffsetCommitRequestTopic {
                name: self.topic.name.as_str().into(),
                topic_id: self.topic.id,
                partitions: (0..self.partitions).map(partition).collect(),
            }],
            ..OffsetCommitRequest::default()
        };
        let client = &mut self.client;
        insist("OffsetCommit", || {
            client.ask(&request, |answer| {
                let topics = answer.topics.iter();
                let mut codes = topics.flat_map(|topic| &topic.partitions);
                let failed = codes.find(|partition| partition.error_code != 0);
                failed.map_or(0, |partition| partition.error_code)
            })
        })
    }
}

/// Commits one offset of a topic as a member of a consumer group.
pub(crate) fn commit_one(
    client: &mut Client,
    group: &str,
    (member, epoch): (&str, i32),
    topic: &Topic,
) -> Result<u64, Failure> {
    let request = OffsetCommitRequest {
        group_id: group.into(),
        member_id: member.into(),
        generation_id_or_member_epoch: epoch,
        topics: vec![OffsetCommitRequestTopic {
            name: topic.name.as_str().into(),
            topic_id: topic.id,
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 1,
                committed_leader_epoch: -1,
                committed_metadata: Some("".into()),
            }],
        }],
        ..OffsetCommitRequest::default()
    };
    insist("OffsetCommit", || {
        client.ask(&request, |answer| answer.topics[0].partitions[0].error_code)
    })
}

/// Transactions of one id.
pub(crate) struct Transactor {
    id: String,
    topic: Topic,
    partition: i32,
    value: Vec<u8>,
    producer: (i64, i16),
}

impl Transactor {
    /// Of the partition that `number` falls to.
    pub(crate) fn new(
        id: String,
        number: u32,
        record_bytes: usize,
        cluster: &Cluster,
    ) -> Transactor {
        let target = number as usize % cluster.targets.len();
        Transactor {
            id,
            topic: cluster.topic_of(target).clone(),
            partition: cluster.targets[target].partition,
            value: vec![b'x'; record_bytes],
            producer: (-1, -1),
        }
    }

    /// Asks for a producer id.
    pub(crate) fn init(&mut self, client: &mut Client) -> Result<u64, Failure> {
        let request = InitProducerIdRequest {
            transactional_id: Some(self.id.as_str().into()),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let producer = &mut self.producer;
        insist("InitProducerId", || {
            client.ask(&request, |answer| {
                *producer = (answer.producer_id, answer.producer_epoch);
                answer.error_code
            })
        })
    }

    /// Begins a transaction with a record.
    pub(crate) fn produce(&self, client: &mut Client) -> Result<u64, Failure> {
        let (producer_id, producer_epoch) = self.producer;
        let mut batch = BatchBuilder::new(BatchOptions {
            producer_id,
            producer_epoch,
            base_sequence: 0,
            is_transactional: true,
            ..BatchOptions::default()
        });
        batch.append(now_ms(), None, Some(&self.value), [].into_iter());
        let batch = batch.finish();
        let produce = ProduceRequest {
            transactional_id: Some(self.id.as_str().into()),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData {
                name: self.topic.name.as_str().into(),
                topic_id: self.topic.id,
                partition_data: vec![PartitionProduceData {
                    index: self.partition,
                    records: Records::Bytes(&batch),
                }],
            }],
        };
        insist("Produce", || {
            client.ask(&produce, |answer| {
                answer.responses[0].partition_responses[0].error_code
            })
        })
    }

    /// Commits it.
    pub(crate) fn end(&mut self, client: &mut Client) -> Result<u64, Failure> {
        let (producer_id, producer_epoch) = self.producer;
        let end = EndTxnRequest {
            transactional_id: self.id.as_str().into(),
            producer_id,
            producer_epoch,
            committed: true,
        };
        let producer = &mut self.producer;
        insist("EndTxn", || {
            client.ask(&end, |answer| {
                *producer = (answer.producer_id, answer.producer_epoch);
                answer.error_code
            })
        })
    }
}

/// One transaction after the other.
struct Transactions {
    client: Client,
    transactor: Transactor,
}

impl Transactions {
    fn open(
        mut client: Client,
        id: String,
        number: u32,
        options: &CoordinationOptions,
        cluster: &Cluster,
    ) -> Result<Transactions, Failure> {
        find(&mut client, &id, 1)?;
        let mut transactor = Transactor::new(id, number, options.record_bytes, cluster);
        transactor.init(&mut client)?;
        Ok(Transactions { client, transactor })
    }
}

impl Repeats for Transactions {
    fn once(&mut self) -> Result<u64, Failure> {
        let produced = self.transactor.produce(&mut self.client)?;
        let ended = self.transactor.end(&mut self.client)?;
        Ok(produced + ended)
    }
}

impl Coordination {
    fn per_second(&self) -> f64 {
        self.latency.count() as f64 / self.duration.as_secs_f64()
    }

    fn cpu_per_million(&self) -> Option<f64> {
        let millions = self.latency.count() as f64 / 1e6;
        self.cpu_seconds.map(|seconds| seconds / millions.max(1e-9))
    }

    /// For the terminal.
    pub(crate) fn to_lines(&self, kind: CoordinationKind) -> String {
        let mut text = format!(
            "{}\n  {:<22} {:.0}/s, {} answers tried again\n  {:<22} {}\n",
            kind.name(),
            "rate",
            self.per_second(),
            self.retries,
            "latency",
            self.latency.to_line()
        );
        if let Some(seconds) = self.cpu_per_million() {
            text += &format!("  {:<22} {seconds:.1} s per million\n", "broker cpu");
        }
        text
    }

    /// For reports.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "count": self.latency.count(),
            "per_second": self.per_second(),
            "retries": self.retries,
            "latency": self.latency.to_json(),
            "broker_cpu_seconds_per_million": self.cpu_per_million(),
        })
    }
}
