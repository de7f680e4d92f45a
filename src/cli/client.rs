//! A small blocking Kafka client: from the bootstrap address to metadata to leaders.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::wire::error_code::ErrorCode;
use crate::wire::message::Request;
use crate::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};

use super::connection::{Connection, Reply};
use super::failure::Failure;
use super::metadata::{Metadata, Topic};
use super::output::OutputFormat;

/// Bounds of `--timeout`, so that every sum of times stays far from overflow.
const TIMEOUT_SECONDS: std::ops::RangeInclusive<i64> = 1..=3600;
/// First pause between two attempts; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A topic just created is unknown to some brokers for a moment; longer than this it does not exist.
const UNKNOWN_TOPIC_GRACE: Duration = Duration::from_secs(3);

/// What all client commands take.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClientOptions {
    /// Broker to ask first; more than one are separated by commas
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PERCOLOG_BOOTSTRAP",
        default_value = "127.0.0.1:9092"
    )]
    pub(crate) bootstrap: String,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    pub(crate) output: OutputFormat,
    /// How long to try before giving up
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(i64).range(TIMEOUT_SECONDS)
    )]
    pub(crate) timeout: i64,
}

impl ClientOptions {
    /// [`ClientOptions::timeout`] as a duration.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.unsigned_abs())
    }

    /// The same for a field of a request.
    pub(crate) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout * 1000).expect("the option is bounded")
    }

    fn addresses(&self) -> Result<Vec<String>, Failure> {
        let addresses: Vec<String> = self
            .bootstrap
            .split(',')
            .map(|address| address.trim().to_owned())
            .filter(|address| !address.is_empty())
            .collect();
        let lacks_port = |address: &&String| {
            let port = address.rsplit_once(':').map(|(_, port)| port);
            port.is_none_or(|port| port.parse::<u16>().is_err())
        };
        match addresses.iter().find(lacks_port) {
            Some(address) => Err(Failure::Usage(format!(
                "--bootstrap takes HOST:PORT, not {address:?}"
            ))),
            None if addresses.is_empty() => Err(Failure::Usage("--bootstrap is empty".to_owned())),
            None => Ok(addresses),
        }
    }
}

/// Pauses that grow, until time is up.
#[derive(Debug)]
pub(crate) struct Patience {
    start: Instant,
    limit: Duration,
    pause: Duration,
}

impl Patience {
    /// From now on, for `limit`.
    pub(crate) fn new(limit: Duration) -> Patience {
        Patience {
            start: Instant::now(),
            limit,
            pause: PAUSE_MIN,
        }
    }

    /// Sleeps before the next attempt, or gives `failure` back when it is final or time is up.
    pub(crate) fn wait_after(&mut self, failure: Failure) -> Result<(), Failure> {
        let limit = match failure.error_code() {
            Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId) => {
                self.limit.min(UNKNOWN_TOPIC_GRACE)
            }
            _ => self.limit,
        };
        if !failure.is_retriable() || self.start.elapsed() + self.pause > limit {
            return Err(failure);
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }

    /// Starts anew: there was progress.
    pub(crate) fn renew(&mut self) {
        *self = Patience::new(self.limit);
    }
}

/// Which topics metadata is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Topics<'a> {
    /// All of them.
    All,
    /// None: brokers only.
    None,
    /// One, which the broker may create if it is set up so.
    OneOrCreate(&'a str),
    /// One.
    One(&'a str),
}

/// Connections to the brokers of one cluster, one each.
#[derive(Debug)]
pub(crate) struct Client {
    bootstrap: Vec<String>,
    timeout: Duration,
    /// Addresses by node id, from the last metadata.
    nodes: BTreeMap<i32, String>,
    controller_id: i32,
    connections: BTreeMap<i32, Connection>,
    /// To a bootstrap address.
    first: Option<Connection>,
}

impl Client {
    /// Connects to the first bootstrap address that answers.
    pub(crate) fn connect(options: &ClientOptions) -> Result<Client, Failure> {
        let mut client = Client {
            bootstrap: options.addresses()?,
            timeout: options.timeout(),
            nodes: BTreeMap::new(),
            controller_id: -1,
            connections: BTreeMap::new(),
            first: None,
        };
        client.any()?;
        Ok(client)
    }

    /// Time for one attempt.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A connection to some broker.
    pub(crate) fn any(&mut self) -> Result<&mut Connection, Failure> {
        if self.first.is_none() {
            self.first = Some(self.open_any()?);
        }
        Ok(self.first.as_mut().expect("just opened"))
    }

    /// Known nodes stand in when all bootstrap addresses are gone.
    fn open_any(&self) -> Result<Connection, Failure> {
        let mut result = None;
        for address in self.bootstrap.iter().chain(self.nodes.values()) {
            match Connection::open(address, self.timeout) {
                Ok(connection) => return Ok(connection),
                Err(failure) => result = result.or(Some(failure)),
            }
        }
        Err(result.expect("there is at least one bootstrap address"))
    }

    /// The connection to a node that metadata named.
    pub(crate) fn node(&mut self, id: i32) -> Result<&mut Connection, Failure> {
        if !self.connections.contains_key(&id) {
            let Some(address) = self.nodes.get(&id) else {
                return Err(Failure::refused(
                    format!("broker {id}"),
                    ErrorCode::BrokerNotAvailable.code(),
                    Some("the cluster has no such broker now"),
                ));
            };
            let connection = Connection::open(address, self.timeout)?;
            self.connections.insert(id, connection);
        }
        Ok(self.connections.get_mut(&id).expect("just inserted"))
    }

    /// Forgets the connection to a node after it failed.
    pub(crate) fn drop_node(&mut self, id: i32) {
        self.connections.remove(&id);
    }

    /// Asks a node in a version of at most `version_max`. A connection that failed is forgotten.
    pub(crate) fn ask_node<'q, Q: Request<'q>>(
        &mut self,
        id: i32,
        request: &Q,
        version_max: i16,
    ) -> Result<Reply, Failure> {
        let reply = self.node(id).and_then(|connection| {
            let expected = connection.send(request, version_max)?;
            connection.receive(expected)
        });
        if reply.is_err() {
            self.drop_node(id);
        }
        reply
    }

    /// Ids of all brokers of the cluster.
    pub(crate) fn node_ids(&mut self) -> Result<Vec<i32>, Failure> {
        let metadata = self.metadata(Topics::None)?;
        Ok(metadata.brokers.iter().map(|broker| broker.id).collect())
    }

    /// Where a node is, if metadata named it.
    pub(crate) fn address(&self, id: i32) -> Option<&str> {
        self.nodes.get(&id).map(String::as_str)
    }

    /// Fetches metadata once, and remembers where the nodes are.
    pub(crate) fn metadata(&mut self, topics: Topics<'_>) -> Result<Metadata, Failure> {
        let one = |name| {
            Some(vec![MetadataRequestTopic {
                name: Some(std::borrow::Cow::Borrowed(name)),
                ..Default::default()
            }])
        };
        let request = MetadataRequest {
            topics: match topics {
                Topics::All => None,
                Topics::None => Some(Vec::new()),
                Topics::One(name) | Topics::OneOrCreate(name) => one(name),
            },
            allow_auto_topic_creation: matches!(topics, Topics::OneOrCreate(_)),
            ..Default::default()
        };
        let reply = match self.any()?.ask(&request) {
            Ok(reply) => reply,
            Err(failure) => {
                self.first = None;
                return Err(failure);
            }
        };
        let response = reply.decode::<MetadataRequest<'_>>()?;
        Failure::check("metadata", response.error_code, None)?;
        let metadata = Metadata::of(&response);
        for broker in &metadata.brokers {
            let address = broker.address();
            if self.nodes.get(&broker.id) != Some(&address) {
                self.connections.remove(&broker.id);
            }
            self.nodes.insert(broker.id, address);
        }
        self.nodes
            .retain(|id, _| metadata.brokers.iter().any(|broker| broker.id == *id));
        self.controller_id = metadata.controller_id;
        Ok(metadata)
    }

    /// Metadata of one topic that is there and whose partitions are known.
    pub(crate) fn topic(&mut self, topics: Topics<'_>) -> Result<Topic, Failure> {
        let mut patience = Patience::new(self.timeout);
        loop {
            let found = self.metadata(topics).and_then(|metadata| {
                let topic = metadata.topics.into_iter().next();
                let topic = topic.ok_or_else(|| {
                    let code = ErrorCode::UnknownTopicOrPartition.code();
                    Failure::refused("topic", code, None)
                })?;
                topic.check().map(|()| topic)
            });
            match found {
                Ok(topic) => return Ok(topic),
                Err(failure) => patience.wait_after(failure)?,
            }
        }
    }

    /// Sends a change to the controller, or to whom metadata calls so: brokers forward it.
    /// `outcome` finds errors in the reply; those that say that nothing was done are tried again.
    pub(crate) fn change<'q, Q: Request<'q>>(
        &mut self,
        request: &Q,
        outcome: impl Fn(&Reply) -> Result<(), Failure>,
    ) -> Result<Reply, Failure> {
        let mut patience = Patience::new(self.timeout);
        loop {
            self.metadata(Topics::None)?;
            let id = self.controller_id;
            let connection = if self.nodes.contains_key(&id) {
                self.node(id)?
            } else {
                self.any()?
            };
            let reply = connection.ask(request)?;
            match outcome(&reply) {
                Ok(()) => return Ok(reply),
                Err(failure) if was_not_attempted(&failure) => patience.wait_after(failure)?,
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// Whether trying a change again cannot do it twice.
fn was_not_attempted(failure: &Failure) -> bool {
    matches!(
        failure.error_code(),
        Some(
            ErrorCode::NotController
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::ThrottlingQuotaExceeded
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(bootstrap: &str) -> ClientOptions {
        ClientOptions {
            bootstrap: bootstrap.to_owned(),
            output: OutputFormat::Table,
            timeout: 30,
        }
    }

    #[test]
    fn bootstrap_takes_one_or_more_addresses() {
        let addresses = options("a:1, [::1]:2,").addresses().expect("addresses");
        assert_eq!(addresses, ["a:1", "[::1]:2"]);
        for wrong in ["", ",", "a", "a:", "a:port", "a:70000", "a:1,b"] {
            let failure = options(wrong).addresses().expect_err(wrong);
            assert_eq!(failure.exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn patience_ends_at_once_with_what_is_final() {
        let mut patience = Patience::new(Duration::from_secs(3600));
        let failure = patience.wait_after(Failure::refused("x", 29, None));
        assert_eq!(failure.expect_err("final").exit_code(), 1);
        let mut patience = Patience::new(Duration::ZERO);
        let failure = patience.wait_after(Failure::refused("x", 6, None));
        assert!(failure.is_err(), "time is up");
    }

    #[test]
    fn changes_are_tried_again_only_when_nothing_was_done() {
        assert!(was_not_attempted(&Failure::refused("", 41, None)));
        assert!(!was_not_attempted(&Failure::refused("", 7, None)));
        assert!(!was_not_attempted(&Failure::refused("", 36, None)));
    }
}
