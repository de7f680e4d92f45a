//! The commands for consumer groups and transactions, the real binary against the real broker.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use support::{Broker, PATIENCE, produce_request, produced, until};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 4;

fn broker(arguments: &[&str]) -> (tempfile::TempDir, Broker) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let always = [
        "--cores",
        "2",
        "--set",
        "group.initial.rebalance.delay.ms=0",
    ];
    let broker = Broker::start(data.path(), &[&always, arguments].concat());
    broker.connect().create_topic(TOPIC, PARTITIONS, &[]);
    (data, broker)
}

fn command(broker: &Broker, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_percolog"));
    command
        .args(line.split_whitespace())
        .args(["--bootstrap", &broker.address.to_string()])
        .stdin(Stdio::null());
    command
}

fn run(broker: &Broker, line: &str) -> Output {
    command(broker, line)
        .output()
        .expect("the binary was built")
}

/// What a command that succeeds writes to stdout.
#[track_caller]
fn works(broker: &Broker, line: &str) -> String {
    let output = run(broker, line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn json(broker: &Broker, line: &str) -> Value {
    let text = works(broker, &format!("{line} --output json"));
    serde_json::from_str(&text).expect("JSON")
}

/// What a command that is refused writes to stderr.
#[track_caller]
fn refused(broker: &Broker, line: &str) -> String {
    let output = run(broker, line);
    assert_eq!(output.status.code(), Some(1), "{line}");
    String::from_utf8(output.stderr).expect("text")
}

/// Records to every partition, as `percolog produce` sends them.
fn produce(broker: &Broker, values: std::ops::Range<usize>) {
    for partition in 0..PARTITIONS {
        let line = format!("produce {TOPIC} --partition {partition}");
        let mut child = command(broker, &line)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary was built");
        let mut stdin = child.stdin.take().expect("piped");
        for value in values.clone() {
            writeln!(stdin, "{partition}/{value}").expect("it reads");
        }
        drop(stdin);
        assert!(child.wait().expect("a child").success());
    }
}

fn all_values(values: std::ops::Range<usize>) -> BTreeSet<String> {
    let of = |partition| {
        values
            .clone()
            .map(move |value| format!("{partition}/{value}"))
    };
    (0..PARTITIONS).flat_map(of).collect()
}

fn set_of(text: &str) -> BTreeSet<String> {
    let set: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(set.len(), text.lines().count(), "nothing comes twice");
    set
}

/// A `percolog consume --group` that goes on until it is told to stop.
struct Reader {
    child: Child,
    lines: Receiver<String>,
}

impl Reader {
    fn start(broker: &Broker, group: &str) -> Reader {
        let mut child = command(broker, &format!("consume {TOPIC} --group {group}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Reader { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a record in time")
    }

    /// SIGTERM; it leaves in order, and what it still printed is given.
    fn stop(mut self) -> Vec<String> {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").arg(pid).status();
        assert!(told.expect("kill exists").success());
        assert!(self.child.wait().expect("a child").success());
        self.lines.iter().collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a group is stable with so many members, and gives who reads how many partitions.
fn wait_for_members(broker: &Broker, group: &str, members: usize) -> Value {
    until("the group is stable", || {
        let output = run(broker, &format!("group describe {group} --output json"));
        let described: Value = serde_json::from_slice(&output.stdout).ok()?;
        let described = described.get(0)?.clone();
        let count = described["members"].as_array()?.len();
        (described["state"] == "Stable" && count == members).then_some(described)
    })
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let (_data, broker) = broker(&[]);
    produce(&broker, 0..100);
    let first = works(&broker, "consume orders --group app --count 150");
    assert_eq!(first.lines().count(), 150);
    let rest = works(&broker, "consume orders --group app --exit-at-end");
    assert_eq!(
        rest.lines().count(),
        250,
        "what was printed is not read again"
    );
    let all = first.clone() + &rest;
    assert_eq!(set_of(&all), all_values(0..100));
    assert_eq!(
        works(&broker, "consume orders --group app --exit-at-end"),
        ""
    );
    produce(&broker, 100..101);
    let text = works(
        &broker,
        "consume orders --group app --exit-at-end --from end",
    );
    assert_eq!(
        set_of(&text),
        all_values(100..101),
        "--from is for what is not committed"
    );
}

#[test]
fn where_a_group_begins_is_committed_before_it_has_read_anything() {
    let (_data, broker) = broker(&[]);
    produce(&broker, 0..3);
    let text = works(
        &broker,
        "consume orders --group late --from end --exit-at-end",
    );
    assert_eq!(text, "");
    produce(&broker, 3..5);
    let text = works(
        &broker,
        "consume orders --group late --from end --exit-at-end",
    );
    assert_eq!(set_of(&text), all_values(3..5));
}

#[test]
fn two_consumers_share_the_partitions_and_one_takes_over() {
    let (_data, broker) = broker(&[]);
    let (one, two) = (
        Reader::start(&broker, "team"),
        Reader::start(&broker, "team"),
    );
    let described = wait_for_members(&broker, "team", 2);
    let members = described["members"].as_array().expect("members");
    for member in members {
        let assigned = member["assigned"][TOPIC].as_array().expect("partitions");
        assert_eq!(assigned.len(), 2, "{described}");
        assert_eq!(member["client_id"], "percolog");
    }
    assert_eq!(described["protocol"], "range");
    let said = refused(&broker, "group reset team --topic orders --to beginning");
    assert!(said.contains("NON_EMPTY_GROUP"), "{said}");
    let said = refused(&broker, "group delete team");
    assert!(said.contains("NON_EMPTY_GROUP"), "{said}");
    let said = refused(&broker, "group delete-offsets team --topic orders:0");
    assert!(said.contains("GROUP_SUBSCRIBED_TO_TOPIC"), "{said}");

    produce(&broker, 0..50);
    let mut found = String::new();
    for reader in [&one, &two] {
        (0..100).for_each(|_| found += &(reader.line() + "\n"));
    }
    assert_eq!(set_of(&found), all_values(0..50));
    assert_eq!(one.stop(), Vec::<String>::new());
    let described = wait_for_members(&broker, "team", 1);
    assert_eq!(
        described["members"][0]["assigned"],
        json!({TOPIC: [0, 1, 2, 3]})
    );
    produce(&broker, 50..60);
    let mut found = String::new();
    (0..40).for_each(|_| found += &(two.line() + "\n"));
    assert_eq!(set_of(&found), all_values(50..60), "nothing is read again");
    assert_eq!(two.stop(), Vec::<String>::new());
    let described = json(&broker, "group describe team");
    assert_eq!(described[0]["state"], "Empty");
    for offset in described[0]["offsets"].as_array().expect("offsets") {
        let (committed, lag) = (&offset["committed"], &offset["lag"]);
        assert_eq!((committed, lag), (&json!(60), &json!(0)), "{described}");
    }
}

#[test]
fn groups_are_listed_described_and_deleted() {
    let (_data, broker) = broker(&[]);
    produce(&broker, 0..5);
    works(&broker, "consume orders --group a --exit-at-end");
    works(&broker, "group reset b --topic orders:1 --to 2");
    let listed = json(&broker, "group list");
    let group =
        |id| json!({"id": id, "protocol_type": "consumer", "state": "Empty", "type": "classic"});
    assert_eq!(listed[0], group("a"));
    assert_eq!(listed[1]["id"], "b");
    assert_eq!(json(&broker, "group list --state stable"), json!([]));
    assert_eq!(json(&broker, "group list --state Empty"), listed);
    let b = &json(&broker, "group describe b")[0];
    let offset = json!({
        "topic": TOPIC, "partition": 1, "committed": 2, "log_start": 0, "log_end": 5, "lag": 3,
        "metadata": "",
    });
    assert_eq!(b["offsets"], json!([offset]));
    let table = works(&broker, "group describe b");
    assert!(table.starts_with("b  state Empty  type classic"), "{table}");

    let output = run(&broker, "group describe b nobody");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        table,
        "the other one is shown"
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("group nobody: GROUP_ID_NOT_FOUND"), "{said}");
    assert_eq!(works(&broker, "group delete a"), "deleted a\n");
    let said = refused(&broker, "group delete a");
    assert!(said.contains("GROUP_ID_NOT_FOUND"), "{said}");
    assert_eq!(
        run(&broker, "group reset b --to end").status.code(),
        Some(2)
    );
}

/// Committed offsets by partition.
fn committed(broker: &Broker, group: &str) -> Vec<(i64, i64)> {
    let described = json(broker, &format!("group describe {group}"));
    let offsets = described[0]["offsets"].as_array().expect("offsets").iter();
    let number = |value: &Value| value.as_i64().unwrap_or(-1);
    offsets
        .map(|it| (number(&it["partition"]), number(&it["committed"])))
        .collect()
}

#[test]
fn offsets_are_moved_and_forgotten() {
    let (_data, broker) = broker(&[]);
    produce(&broker, 0..10);
    let reset = |to: &str| works(&broker, &format!("group reset g {to}"));
    reset("--topic orders --to end");
    assert_eq!(
        committed(&broker, "g"),
        [(0, 10), (1, 10), (2, 10), (3, 10)]
    );
    let shown = reset("--topic orders:0 --to -3 --dry-run");
    assert!(shown.contains("WOULD BE"), "{shown}");
    assert_eq!(committed(&broker, "g")[0], (0, 10), "nothing was done");
    reset("--topic orders:0,2 --to -3");
    assert_eq!(committed(&broker, "g"), [(0, 7), (1, 10), (2, 7), (3, 10)]);
    reset("--topic orders:0 --topic orders:1 --to 4");
    reset("--topic orders:0 --to +1");
    assert_eq!(committed(&broker, "g"), [(0, 5), (1, 4), (2, 7), (3, 10)]);
    reset("--topic orders:1 --to 99");
    reset("--topic orders:2 --to @1");
    assert_eq!(committed(&broker, "g"), [(0, 5), (1, 10), (2, 0), (3, 10)]);
    reset("--topic orders:2 --to @99999999999999");
    works(&broker, "group delete-offsets g --topic orders:0,3");
    assert_eq!(committed(&broker, "g"), [(1, 10), (2, 10)]);
    reset("--all-topics --to beginning");
    assert_eq!(committed(&broker, "g"), [(1, 0), (2, 0)]);
    works(&broker, "group delete-offsets g --topic orders");
    let said = refused(&broker, "group reset g --topic orders:0 --to +1");
    assert!(said.contains("nothing is committed"), "{said}");
    let said = refused(&broker, "group reset g --topic orders:9 --to end");
    assert!(said.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{said}");
}

#[test]
fn a_group_of_the_newer_protocol_is_described_and_not_reset_while_it_is_read() {
    let (_data, broker) = broker(&[]);
    produce(&broker, 0..1);
    let mut config = ClientConfig::new();
    let consumer: BaseConsumer = config
        .set("bootstrap.servers", broker.address.to_string())
        .set("group.id", "newer")
        .set("group.protocol", "consumer")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[TOPIC]).expect("subscribed");
    // A rebalance is an event too, without a message.
    until("there is a record", || {
        let message = consumer.poll(PATIENCE)?.expect("no error");
        message.payload().map(<[u8]>::to_vec)
    });
    let described = json(&broker, "group describe newer");
    let group = &described[0];
    assert_eq!(
        (&group["type"], &group["protocol"]),
        (&json!("consumer"), &json!("uniform"))
    );
    assert_eq!(
        group["members"][0]["assigned"],
        json!({TOPIC: [0, 1, 2, 3]})
    );
    let listed = json(&broker, "group list");
    assert_eq!(
        (&listed[0]["id"], &listed[0]["type"]),
        (&json!("newer"), &json!("consumer"))
    );
    let said = refused(&broker, "group reset newer --all-topics --to end");
    assert!(said.contains("NON_EMPTY_GROUP"), "{said}");
}

fn transactional(broker: &Broker, id: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    let producer: BaseProducer = config
        .set("bootstrap.servers", broker.address.to_string())
        .set("transactional.id", id)
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("a producer id");
    producer
}

/// Sends values to partition 0 within a transaction that stays open.
fn send(producer: &BaseProducer, values: &[&str]) {
    producer.begin_transaction().expect("begun");
    for value in values {
        let record: BaseRecord<'_, (), str> = BaseRecord::to(TOPIC).partition(0).payload(value);
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("queued");
    }
    producer.flush(PATIENCE).expect("sent");
}

#[test]
fn aborted_records_are_left_out_of_what_is_committed() {
    let (_data, broker) = broker(&[]);
    let producer = transactional(&broker, "payments");
    send(&producer, &["kept"]);
    producer.commit_transaction(PATIENCE).expect("committed");
    send(&producer, &["lost", "lost too"]);
    producer.abort_transaction(PATIENCE).expect("aborted");
    send(&producer, &["kept too"]);
    producer.commit_transaction(PATIENCE).expect("committed");
    send(&producer, &["undecided"]);
    let uncommitted = works(&broker, "consume orders --exit-at-end --format %s,");
    assert_eq!(uncommitted, "kept,lost,lost too,kept too,undecided,");
    let committed = "consume orders --exit-at-end --format %s, --isolation committed";
    assert_eq!(works(&broker, committed), "kept,kept too,");
    let in_group = format!("{committed} --group g");
    assert_eq!(works(&broker, &in_group), "kept,kept too,");
    producer.commit_transaction(PATIENCE).expect("committed");
    assert_eq!(works(&broker, &in_group), "undecided,");
    let described = json(&broker, "group describe g");
    assert_eq!(
        described[0]["offsets"][0]["lag"], 0,
        "markers are behind the group too"
    );
}

#[test]
fn transactions_are_listed_and_described() {
    let (_data, broker) = broker(&[]);
    let (open, done) = (
        transactional(&broker, "open"),
        transactional(&broker, "done"),
    );
    send(&done, &["a"]);
    done.commit_transaction(PATIENCE).expect("committed");
    send(&open, &["b"]);
    let listed = json(&broker, "transaction list");
    assert_eq!(
        (&listed[0]["id"], &listed[1]["id"]),
        (&json!("done"), &json!("open"))
    );
    let ongoing = json(&broker, "transaction list --state ongoing");
    assert_eq!(
        (&ongoing[0]["id"], ongoing.as_array().map(Vec::len)),
        (&json!("open"), Some(1))
    );
    assert_eq!(json(&broker, "transaction list --older-than 1h"), json!([]));
    let older = json(&broker, "transaction list --older-than 0ms --state Ongoing");
    assert_eq!(older, ongoing);
    let described = &json(&broker, "transaction describe open")[0];
    assert_eq!(described["state"], "Ongoing");
    assert_eq!(described["partitions"], json!({TOPIC: [0]}));
    assert_eq!(described["producer_id"], ongoing[0]["producer_id"]);
    let producers = json(&broker, "transaction producers orders --partition 0");
    let producers = producers.as_array().expect("producers").iter();
    let start = |it: &Value| it["open_transaction_start_offset"].clone();
    let open = producers.filter(|it| it["producer_id"] == ongoing[0]["producer_id"]);
    assert_eq!(open.map(start).collect::<Vec<_>>(), [json!(2)]);
    let hanging = "transaction find-hanging --max-transaction-timeout 0ms";
    assert_eq!(
        json(&broker, hanging),
        json!([]),
        "its coordinator knows it"
    );
    let said = refused(&broker, "transaction describe nobody");
    assert!(said.contains("TRANSACTIONAL_ID_NOT_FOUND"), "{said}");
}

#[test]
fn a_transaction_that_no_coordinator_knows_is_found_and_aborted() {
    let (_data, broker) = broker(&["--set", "transaction.partition.verification.enable=false"]);
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: 7_000,
        producer_epoch: 3,
        base_sequence: 0,
        is_transactional: true,
        ..Default::default()
    });
    builder.append(1_700_000_000_000, None, Some(b"hangs"), [].into_iter());
    let batch = builder.finish();
    let mut request = produce_request(TOPIC, 1, -1, &batch);
    request.transactional_id = Some("forgotten".into());
    let frame = broker.connect().ask(11, &request);
    assert_eq!(produced(&frame, 11), (0, 0));
    produce(&broker, 0..2);
    let committed = "consume orders --partition 1 --isolation committed --exit-at-end";
    assert_eq!(
        works(&broker, committed),
        "",
        "all is behind the open transaction"
    );

    let hanging = json(&broker, "transaction find-hanging");
    let expected = json!([{
        "topic": TOPIC, "partition": 1, "start_offset": 0, "producer_id": 7_000,
        "producer_epoch": 3, "last_timestamp_ms": 1_700_000_000_000_i64,
    }]);
    assert_eq!(hanging, expected);
    let abort = "transaction abort --topic orders --partition 1 --start-offset";
    let said = refused(&broker, &format!("{abort} 1"));
    assert!(
        said.contains("no open transaction begins at offset 1"),
        "{said}"
    );
    let said = works(&broker, &format!("{abort} 0"));
    assert_eq!(
        said,
        "aborted the transaction of producer 7000 (epoch 3) in orders partition 1\n"
    );
    assert_eq!(works(&broker, committed), "1/0\n1/1\n");
    assert_eq!(json(&broker, "transaction find-hanging"), json!([]));
    let said = refused(&broker, &format!("{abort} 0"));
    assert!(said.contains("no open transaction"), "{said}");
}
