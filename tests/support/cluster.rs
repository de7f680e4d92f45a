//! Three real brokers that are one cluster, on ports that were free when it began.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percolog::wire::frame;
use percolog::wire::messages::{create_topics, metadata};
use percolog::wire::record_batch::Batches;
use rdkafka::config::ClientConfig;

use super::{Broker, PATIENCE, until};

/// The node ids.
pub(crate) const NODES: [i32; 3] = [1, 2, 3];

/// How long a silent broker counts as alive.
pub(crate) const SESSION_TIMEOUT_MS: u64 = 1500;

/// How long to wait at most before a look at what no event tells of.
const LOOK: Duration = Duration::from_millis(50);

/// One cluster of a test binary at a time: three brokers take what cores there are, and a cluster that
/// gets none is fenced, elects, and tests patience instead of what it is for.
static TURN: Mutex<()> = Mutex::new(());

/// One place of the cluster, whether its broker runs or not.
struct Node {
    client_port: u16,
    peer_port: u16,
    broker: Option<Broker>,
    /// What earlier runs wrote to stderr.
    said: String,
}

/// The cluster; its brokers are killed when it is dropped, and tell what they said if a test failed.
pub(crate) struct Cluster {
    data: tempfile::TempDir,
    nodes: BTreeMap<i32, Node>,
    settings: Vec<String>,
    /// Last, so that the next one starts when the brokers are gone.
    _turn: MutexGuard<'static, ()>,
}

/// How a partition stands, as a broker tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionState {
    /// -1 without one.
    pub(crate) leader: i32,
    /// In ascending order.
    pub(crate) in_sync: Vec<i32>,
}

/// A port that nobody listens on. From below those that the kernel gives to connections: one of these
/// could take the port while its broker is down.
fn free_port(random: &mut fastrand::Rng) -> u16 {
    loop {
        let port = random.u16(15_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Cluster {
    /// Starts all three and waits until they are ready; `settings` are those of every broker.
    pub(crate) fn start(settings: &[&str]) -> Cluster {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut random = fastrand::Rng::new();
        let mut node = || Node {
            client_port: free_port(&mut random),
            peer_port: free_port(&mut random),
            broker: None,
            said: String::new(),
        };
        let mut cluster = Cluster {
            data: tempfile::tempdir().expect("a temporary directory"),
            nodes: NODES.iter().map(|id| (*id, node())).collect(),
            settings: settings.iter().map(ToString::to_string).collect(),
            _turn: turn,
        };
        cluster.start_nodes(&NODES);
        cluster
    }

    /// The first data directory of a node.
    pub(crate) fn data_of(&self, id: i32) -> PathBuf {
        self.data.path().join(id.to_string())
    }

    /// Where a node listens for other brokers.
    pub(crate) fn peer_address(&self, id: i32) -> (&'static str, u16) {
        ("127.0.0.1", self.nodes[&id].peer_port)
    }

    /// A node that runs.
    pub(crate) fn broker(&self, id: i32) -> &Broker {
        self.nodes[&id].broker.as_ref().expect("it runs")
    }

    /// Every place where clients may begin.
    pub(crate) fn bootstrap(&self) -> String {
        let ports = self.nodes.values().map(|node| node.client_port);
        let places: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        places.join(",")
    }

    /// A client of the cluster that tries again soon.
    pub(crate) fn client_config(&self) -> ClientConfig {
        client_config(&self.bootstrap())
    }

    /// The arguments of a node.
    pub(crate) fn arguments(&self, id: i32) -> Vec<String> {
        let peers = self.nodes.iter();
        let peers = peers.map(|(id, node)| format!("{id}@127.0.0.1:{}", node.peer_port));
        let node = &self.nodes[&id];
        let own = [
            format!("node.id={id}"),
            format!("node.quorum={}", peers.collect::<Vec<_>>().join(",")),
            format!("listeners.client=127.0.0.1:{}", node.client_port),
            format!("listeners.inter_broker=127.0.0.1:{}", node.peer_port),
            format!("cluster.session_timeout_ms={SESSION_TIMEOUT_MS}"),
            // The last one to stop finds nobody to ask.
            "cluster.shutdown_patience_ms=1000".to_string(),
            "cores.spin_us=0".to_string(),
            "default.replication.factor=3".to_string(),
            "min.insync.replicas=2".to_string(),
            "groups.topic_partitions=4".to_string(),
            "transactions.topic_partitions=4".to_string(),
            "log.segment.bytes=1048576".to_string(),
        ];
        let settings = own.into_iter().chain(self.settings.iter().cloned());
        let settings = settings.flat_map(|one| ["--set".to_string(), one]);
        // Nodes with one core and with two: both roads within a broker are taken.
        let cores = if id == 1 { "1" } else { "2" };
        ["--cores".to_string(), cores.to_string()]
            .into_iter()
            .chain(settings)
            .collect()
    }

    /// Starts nodes together, since one alone does not become ready, and waits for all of them.
    pub(crate) fn start_nodes(&mut self, ids: &[i32]) {
        let starts = ids.iter().map(|id| {
            let (data, arguments) = (self.data_of(*id), self.arguments(*id));
            (*id, spawn(&data, &arguments))
        });
        let starts: Vec<_> = starts.collect();
        let mut readies = Vec::new();
        for (id, (broker, ready)) in starts {
            self.nodes.get_mut(&id).expect("a node").broker = Some(broker);
            readies.push((id, ready));
        }
        for (id, ready) in readies {
            let address = ready.recv_timeout(PATIENCE);
            let address = address.unwrap_or_else(|error| panic!("node {id} is not ready: {error}"));
            let node = self.nodes.get_mut(&id).expect("a node");
            node.broker.as_mut().expect("just started").address = address;
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, id: i32) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let mut broker = node.broker.take().expect("it runs");
        broker.child.kill().expect("still running");
        broker.child.wait().expect("a child");
        // To the end of what it said.
        node.said.push_str(&broker.said.borrow());
        node.said.extend(broker.lines.iter());
        node.said.push_str("(killed)\n");
    }

    /// kill -9 of all, so that none sees another one gone for long.
    pub(crate) fn kill_all(&mut self) {
        for id in NODES {
            self.signal(id, "-KILL");
        }
        for id in NODES {
            self.kill(id);
        }
    }

    /// A stopped node's disk is replaced by an empty one.
    pub(crate) fn empty_disk(&self, id: i32) {
        std::fs::remove_dir_all(self.data_of(id)).expect("removed");
    }

    /// Starts another process with a node's id, on ports and a disk of its own, and does not wait.
    pub(crate) fn start_second(&self, id: i32) -> Broker {
        let mut random = fastrand::Rng::new();
        let mut arguments = self.arguments(id);
        for listener in ["listeners.client", "listeners.inter_broker"] {
            let port = free_port(&mut random);
            arguments.extend(["--set".to_string(), format!("{listener}=127.0.0.1:{port}")]);
        }
        spawn(&self.data.path().join(format!("{id}-again")), &arguments).0
    }

    /// A signal by its name.
    pub(crate) fn signal(&self, id: i32, name: &str) {
        let pid = self.broker(id).pid().to_string();
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.expect("kill exists").success());
    }

    /// SIGTERM for all at once; each must end well.
    pub(crate) fn stop(&mut self) {
        for id in NODES {
            self.signal(id, "-TERM");
        }
        for (id, node) in &mut self.nodes {
            let (code, said) = node.broker.take().expect("it runs").end();
            node.said.push_str(&said);
            assert_eq!(code, Some(0), "node {id} ends well");
        }
    }

    /// Returns soon, at once if a node says something.
    pub(crate) fn look_again(&self, id: i32) {
        let broker = self.broker(id);
        if let Ok(line) = broker.lines.recv_timeout(LOOK) {
            broker.said.borrow_mut().push_str(&line);
        }
    }

    /// Waits until a node's clients get this answer.
    pub(crate) fn until<T>(&self, id: i32, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        until(what, || {
            let answer = ask();
            if answer.is_none() {
                self.look_again(id);
            }
            answer
        })
    }

    /// Creates a topic with three replicas of each partition.
    pub(crate) fn create_topic(&self, through: i32, name: &str, partitions: i32) {
        let topic = create_topics::CreatableTopic {
            name: name.to_string().into(),
            num_partitions: partitions,
            replication_factor: 3,
            ..Default::default()
        };
        let request = create_topics::CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let frame = self.broker(through).connect().ask(5, &request);
        let decoded = frame::decode_response_of::<create_topics::CreateTopicsRequest>(&frame, 5);
        let (_, answer) = decoded.expect("an answer");
        assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
    }

    /// The partitions of a topic, as one node sees them; None while it does not know the topic.
    pub(crate) fn describe(&self, through: i32, topic: &str) -> Option<Vec<PartitionState>> {
        let request = metadata::MetadataRequest {
            topics: Some(vec![metadata::MetadataRequestTopic {
                name: Some(topic.to_string().into()),
                ..Default::default()
            }]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let frame = self.broker(through).connect().ask(5, &request);
        let decoded = frame::decode_response_of::<metadata::MetadataRequest>(&frame, 5);
        let (_, answer) = decoded.expect("an answer");
        let found = &answer.topics[0];
        if found.error_code != 0 {
            return None;
        }
        let state = |partition: &metadata::MetadataResponsePartition| {
            let mut in_sync: Vec<i32> = partition.isr_nodes.to_vec();
            in_sync.sort_unstable();
            let state = PartitionState {
                leader: partition.leader_id,
                in_sync,
            };
            (partition.partition_index, state)
        };
        let states: BTreeMap<i32, PartitionState> = found.partitions.iter().map(state).collect();
        Some(states.into_values().collect())
    }

    /// The cluster id and the brokers that take part, as one node sees them.
    pub(crate) fn members(&self, through: i32) -> (String, Vec<i32>) {
        let request = metadata::MetadataRequest {
            topics: Some(Vec::new()),
            ..Default::default()
        };
        let frame = self.broker(through).connect().ask(5, &request);
        let decoded = frame::decode_response_of::<metadata::MetadataRequest>(&frame, 5);
        let (_, answer) = decoded.expect("an answer");
        let mut ids: Vec<i32> = answer.brokers.iter().map(|one| one.node_id).collect();
        ids.sort_unstable();
        (answer.cluster_id.expect("one").to_string(), ids)
    }

    /// Waits until a node says of every partition of a topic that it stands so.
    pub(crate) fn until_every(
        &self,
        through: i32,
        topic: &str,
        what: &str,
        stands: impl Fn(&PartitionState) -> bool,
    ) {
        self.until(through, &format!("node {through}: {topic} {what}"), || {
            let states = self.describe(through, topic)?;
            (!states.is_empty() && states.iter().all(&stands)).then_some(())
        });
    }

    /// Waits until every running node says that all three replicas of every partition are in sync.
    pub(crate) fn until_whole(&self, topic: &str) {
        for id in NODES {
            self.until_every(id, topic, "is in sync everywhere", |state| {
                state.in_sync == NODES && state.leader >= 0
            });
        }
    }

    /// The batches of a partition as they lie in a stopped node's files, without the empty end. A
    /// partition without records has no folder.
    pub(crate) fn stored(&self, id: i32, topic: &str, partition: i32) -> Vec<u8> {
        let folder = self.data_of(id).join(format!("{topic}-{partition}"));
        if !folder.exists() {
            return Vec::new();
        }
        let entries = std::fs::read_dir(&folder).expect("readable");
        let paths = entries.map(|entry| entry.expect("readable").path());
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
        let mut segments: Vec<PathBuf> = paths.filter(is_segment).collect();
        segments.sort();
        segments.iter().flat_map(|path| batches_of(path)).collect()
    }
}

/// A client of a cluster that tries again soon.
pub(crate) fn client_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("retry.backoff.ms", "20")
        .set("topic.metadata.refresh.interval.ms", "1000")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200");
    config
}

/// A broker that may not be ready yet, and where its address comes when it is.
fn spawn(data: &Path, arguments: &[String]) -> (Broker, Receiver<SocketAddr>) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = super::command(data, &arguments);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary was built for this test");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let stderr = child.stderr.take().expect("piped");
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || super::drain(stderr, &sender));
    let (sender, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("percolog ready ") {
                let _ = sender.send(address.parse().expect("an address"));
            }
        }
    });
    let broker = Broker {
        child,
        address: ([127, 0, 0, 1], 0).into(),
        lines,
        said: RefCell::default(),
    };
    (broker, ready)
}

fn batches_of(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("readable");
    let mut found = Vec::new();
    for batch in Batches::new(&bytes) {
        let Ok(batch) = batch else { break };
        batch.verify_checksum().expect("stored batches are whole");
        found.extend_from_slice(batch.bytes());
    }
    let rest = &bytes[found.len()..];
    let name = path.display();
    assert!(
        rest.iter().all(|byte| *byte == 0),
        "{name}: more than batches"
    );
    found
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (id, node) in &mut self.nodes {
            if let Some(mut broker) = node.broker.take() {
                let _ = broker.child.kill();
                let _ = broker.child.wait();
                node.said.push_str(&broker.said.borrow());
                node.said.extend(broker.lines.iter());
            }
            if std::thread::panicking() {
                println!("node {id} said:\n{}", node.said);
            }
        }
    }
}
