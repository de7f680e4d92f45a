//! The process that copies with transactions: the test binary again, so that kill -9 takes it as a
//! crash of its machine would. Each binary that uses it has a test `copying_process` that calls
//! [`copy_until_killed`].

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::PATIENCE;

const RECORDS_PER_TRANSACTION: usize = 20;
pub(crate) const SOURCE: &str = "source";
pub(crate) const TARGET: &str = "target";
pub(crate) const GROUP: &str = "copy";

/// What the copying process is told through its environment.
const BROKER_VARIABLE: &str = "EXACTLY_ONCE_BROKER";
const PROTOCOL_VARIABLE: &str = "EXACTLY_ONCE_PROTOCOL";

/// A line on stderr tells each step.
const STEP: &str = "step:";

pub(crate) fn client_config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200");
    config
}

fn copying_consumer(address: &str, protocol: &str) -> BaseConsumer {
    let mut config = client_config(address);
    config
        .set("group.id", GROUP)
        .set("group.protocol", protocol)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "100");
    if protocol == "classic" {
        config
            .set("session.timeout.ms", "1000")
            .set("heartbeat.interval.ms", "200");
    }
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[SOURCE]).expect("subscribed");
    consumer
}

/// Calls again what may be called again.
fn insist(mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
    let begun = Instant::now();
    loop {
        match call() {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && begun.elapsed() < PATIENCE => {}
            result => return result,
        }
    }
}

/// One transaction with the next records; what to do about an error is the caller's.
fn copy_some(consumer: &BaseConsumer, producer: &BaseProducer) -> KafkaResult<()> {
    let Some(first) = consumer.poll(Duration::from_millis(200)) else {
        return Ok(());
    };
    // From before the next polls: if the group rebalances in them, the coordinator refuses it.
    let metadata = consumer.group_metadata().expect("a member of a group");
    let mut messages: Vec<BorrowedMessage<'_>> = vec![first?];
    while messages.len() < RECORDS_PER_TRANSACTION {
        match consumer.poll(Duration::ZERO) {
            Some(message) => messages.push(message?),
            None => break,
        }
    }
    producer.begin_transaction()?;
    eprintln!("{STEP} begun");
    let mut offsets = TopicPartitionList::new();
    for message in &messages {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(TARGET)
            .partition(message.partition())
            .payload(message.payload().expect("a value"));
        producer.send(record).map_err(|(error, _)| error)?;
        let next = Offset::Offset(message.offset() + 1);
        match offsets.find_partition(SOURCE, message.partition()) {
            Some(mut partition) => partition.set_offset(next)?,
            None => offsets.add_partition_offset(SOURCE, message.partition(), next)?,
        }
    }
    producer.flush(PATIENCE)?;
    eprintln!("{STEP} produced");
    insist(|| producer.send_offsets_to_transaction(&offsets, &metadata, PATIENCE))?;
    eprintln!("{STEP} offsets");
    insist(|| producer.commit_transaction(PATIENCE))?;
    eprintln!("{STEP} committed");
    Ok(())
}

/// Copies until it is killed, or fenced.
pub(crate) fn copy_until_killed() {
    let Ok(address) = std::env::var(BROKER_VARIABLE) else {
        return;
    };
    let protocol = std::env::var(PROTOCOL_VARIABLE).expect("set with the other one");
    let producer: BaseProducer = client_config(&address)
        .set("transactional.id", "copy")
        .set("linger.ms", "1")
        .create()
        .expect("a producer");
    insist(|| producer.init_transactions(PATIENCE)).expect("initialised");
    let mut consumer = copying_consumer(&address, &protocol);
    loop {
        let error = match copy_some(&consumer, &producer) {
            Ok(()) => continue,
            Err(error) => error,
        };
        eprintln!("{error}");
        if producer.client().fatal_error().is_some() {
            std::process::exit(1);
        }
        let is_open = !matches!(error, KafkaError::MessageConsumption(_));
        if is_open && insist(|| producer.abort_transaction(PATIENCE)).is_err() {
            std::process::exit(1);
        }
        // A new member goes on where the group's offsets are: what was aborted comes again.
        drop(consumer);
        consumer = copying_consumer(&address, &protocol);
    }
}

/// The process that copies, and its lines.
pub(crate) struct Copier {
    child: Child,
    pub(crate) lines: Receiver<String>,
}

impl Copier {
    pub(crate) fn start(address: &str, protocol: &str) -> Copier {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--ignored", "--exact", "--nocapture", "copying_process"])
            .env(BROKER_VARIABLE, address)
            .env(PROTOCOL_VARIABLE, protocol)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Copier { child, lines }
    }

    /// Waits for so many steps; false when it has ended by itself before.
    pub(crate) fn wait_for_steps(&self, steps: usize) -> bool {
        let mut seen = 0;
        while seen < steps {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with(STEP) => seen += 1,
                Ok(line) => println!("         {} says: {line}", self.child.id()),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("the copy stands still"),
            }
        }
        true
    }

    /// Shows what it has said meanwhile; whether it goes on.
    pub(crate) fn is_alive(&mut self) -> bool {
        for line in self.lines.try_iter().filter(|line| !line.starts_with(STEP)) {
            println!("         {} says: {line}", self.child.id());
        }
        self.child.try_wait().expect("a child").is_none()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.expect("kill exists").success());
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
