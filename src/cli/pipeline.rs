//! Batches on their way to the leaders: several in flight on each connection, sent again when the
//! broker asks for it.

use std::collections::{BTreeMap, VecDeque};

use crate::wire::codec::Records;
use crate::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::client::{Client, Patience, Topics};
use super::connection::Expected;
use super::failure::Failure;
use super::metadata::Topic;

/// Highest Produce version that names topics instead of giving their id.
const VERSION_BY_NAME_MAX: i16 = 12;

/// One batch for one partition.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Where it goes.
    pub(crate) partition: i32,
    /// The batch as it goes onto the wire.
    pub(crate) bytes: Vec<u8>,
    /// Records in it.
    pub(crate) records: u64,
}

/// Batches on their way.
pub(crate) struct Pipeline {
    client: Client,
    topic: Topic,
    acks: i16,
    in_flight_max: usize,
    patience: Patience,
    queue: VecDeque<Batch>,
    in_flight: BTreeMap<i32, VecDeque<(Expected, Batch)>>,
    records_done: u64,
}

impl Pipeline {
    /// To the leaders of `topic`, with `in_flight_max` batches on each connection.
    pub(crate) fn new(client: Client, topic: Topic, acks: i16, in_flight_max: usize) -> Pipeline {
        let patience = Patience::new(client.timeout());
        Pipeline {
            client,
            topic,
            acks,
            in_flight_max,
            patience,
            queue: VecDeque::new(),
            in_flight: BTreeMap::new(),
            records_done: 0,
        }
    }

    /// Records that are acknowledged, or sent if nobody acknowledges.
    pub(crate) fn records_done(&self) -> u64 {
        self.records_done
    }

    /// Sends a batch, after waiting until fewer than the maximum are in flight.
    pub(crate) fn submit(&mut self, batch: Batch) -> Result<(), Failure> {
        self.queue.push_back(batch);
        self.send_queue()
    }

    /// Waits for everything that is in flight.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        loop {
            self.send_queue()?;
            let Some((&node, _)) = self.in_flight.iter().find(|(_, flight)| !flight.is_empty())
            else {
                return Ok(());
            };
            self.receive(node)?;
        }
    }

    fn send_queue(&mut self) -> Result<(), Failure> {
        while let Some(batch) = self.queue.pop_front() {
            let node = match self.topic.leader(batch.partition) {
                Ok(node) => node,
                Err(failure) => {
                    self.queue.push_front(batch);
                    self.recover(failure)?;
                    continue;
                }
            };
            let flight = self.in_flight.entry(node).or_default();
            if flight.len() >= self.in_flight_max {
                self.queue.push_front(batch);
                self.receive(node)?;
                continue;
            }
            self.send(node, batch)?;
        }
        Ok(())
    }

    fn send(&mut self, node: i32, batch: Batch) -> Result<(), Failure> {
        let request = ProduceRequest {
            transactional_id: None,
            acks: self.acks,
            timeout_ms: i32::try_from(self.client.timeout().as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![TopicProduceData {
                name: self.topic.name.as_str().into(),
                topic_id: self.topic.id,
                partition_data: vec![PartitionProduceData {
                    index: batch.partition,
                    records: Records::Bytes(&batch.bytes),
                }],
            }],
        };
        let version_max = match self.topic.id.is_zero() {
            true => VERSION_BY_NAME_MAX,
            false => i16::MAX,
        };
        let sent = self
            .client
            .node(node)
            .and_then(|connection| connection.send(&request, version_max));
        match sent {
            Ok(_) if self.acks == 0 => self.records_done += batch.records,
            Ok(expected) => {
                let flight = self.in_flight.entry(node).or_default();
                flight.push_back((expected, batch));
            }
            Err(failure) => {
                self.queue.push_front(batch);
                self.connection_failed(node, failure)?;
            }
        }
        Ok(())
    }

    /// Takes the answer to the oldest batch in flight on the connection to `node`.
    fn receive(&mut self, node: i32) -> Result<(), Failure> {
        let flight = self.in_flight.entry(node).or_default();
        let Some((expected, batch)) = flight.pop_front() else {
            return Ok(());
        };
        let received = self
            .client
            .node(node)
            .and_then(|connection| connection.receive(expected));
        let reply = match received {
            Ok(reply) => reply,
            Err(failure) => {
                let flight = self.in_flight.entry(node).or_default();
                flight.push_front((expected, batch));
                return self.connection_failed(node, failure);
            }
        };
        let response = reply.decode::<ProduceRequest<'_>>()?;
        let answer = response
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses)
            .next();
        let Some(answer) = answer else {
            return Err(Failure::Protocol {
                address: format!("node {node}"),
                reason: "a Produce response without the partition".to_owned(),
            });
        };
        let record_error = answer
            .record_errors
            .first()
            .and_then(|error| error.batch_index_error_message.as_deref());
        let message = answer.error_message.as_deref().or(record_error);
        let subject = format!("topic {} partition {}", self.topic.name, batch.partition);
        match Failure::check(subject, answer.error_code, message) {
            Ok(()) => {
                self.records_done += batch.records;
                self.patience.renew();
                Ok(())
            }
            Err(failure) => {
                self.queue.push_front(batch);
                self.recover(failure)
            }
        }
    }

    /// What was in flight to `node` may or may not have arrived: it is sent again, in order.
    fn connection_failed(&mut self, node: i32, failure: Failure) -> Result<(), Failure> {
        self.client.drop_node(node);
        for (_, batch) in self
            .in_flight
            .remove(&node)
            .unwrap_or_default()
            .into_iter()
            .rev()
        {
            self.queue.push_front(batch);
        }
        self.recover(failure)
    }

    /// Pauses and learns the leaders anew; fails when `failure` is final or time is up.
    fn recover(&mut self, failure: Failure) -> Result<(), Failure> {
        self.patience.wait_after(failure)?;
        let name = self.topic.name.clone();
        self.topic = self.client.topic(Topics::One(&name))?;
        Ok(())
    }
}
