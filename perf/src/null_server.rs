//! A server that does nothing with what it gets: Produce is acknowledged once it is read, Fetch is
//! answered from one batch in memory. What a run against it costs is the tool's own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use percolog::wire::api_table::{ApiKey, ServedApi};
use percolog::wire::codec::{Records, Uuid, Writer};
use percolog::wire::error_code::ErrorCode;
use percolog::wire::frame::{self, RequestFrame};
use percolog::wire::message::Message;
use percolog::wire::messages::api_versions::{ApiVersion, ApiVersionsResponse};
use percolog::wire::messages::create_topics::{
    CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use percolog::wire::messages::fetch::{
    FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use percolog::wire::messages::init_producer_id::InitProducerIdResponse;
use percolog::wire::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use percolog::wire::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use percolog::wire::messages::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use percolog::wire::record_batch::BatchHeader;

use crate::batch::{BatchMaker, BatchShape, Origin, ReadyBatch};
use crate::connection::Connection;
use crate::poller::Poller;
use crate::schedule::SECOND;

const LISTENER: usize = usize::MAX;
const NODE_ID: i32 = 1;
const TOPICS_MAX: usize = 100_000;
const PARTITIONS_MAX: i32 = 1_000_000;
const SERVED: [ApiKey; 7] = [
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::InitProducerId,
];
/// Where every partition ends: never, for a reader.
const END: i64 = i64::MAX / 2;

#[derive(Debug)]
struct KnownTopic {
    id: Uuid,
    partitions: i32,
}

/// The server.
#[derive(Debug)]
pub(crate) struct NullServer {
    listener: TcpListener,
    address: SocketAddr,
    poller: Poller,
    connections: BTreeMap<usize, (Connection, bool)>,
    next_token: usize,
    topics: BTreeMap<String, KnownTopic>,
    /// What Fetch is answered with.
    batch: ReadyBatch,
}

/// An answer, and where batches go into it.
struct Answer {
    writer: Writer,
    batches: Vec<ReadyBatch>,
}

impl NullServer {
    /// Listens.
    pub(crate) fn bind(listen: &str, batch_bytes: usize) -> io::Result<NullServer> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER)?;
        let shape = BatchShape {
            record_bytes: 1024,
            batch_bytes,
            codec: Default::default(),
            keys: 0,
        };
        let mut maker = BatchMaker::new(shape, batch_bytes.max(1 << 20), 1, false);
        Ok(NullServer {
            address: listener.local_addr()?,
            listener,
            poller,
            connections: BTreeMap::new(),
            next_token: 0,
            topics: BTreeMap::new(),
            batch: maker.make(0, shape.records(), 0, Origin::NONE),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until told to stop.
    pub(crate) fn serve(&mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            for event in self.poller.wait(Some(SECOND / 10))? {
                match event.token {
                    LISTENER => self.accept()?,
                    token => self.turn(token, event.is_readable),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let connection = Connection::new(stream)?;
                    let token = self.next_token;
                    self.next_token += 1;
                    self.poller.add(connection.descriptor(), token)?;
                    self.connections.insert(token, (connection, false));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn turn(&mut self, token: usize, is_readable: bool) {
        // Out of the map, so that answering may look at the rest of the server.
        let Some((mut connection, wants_write)) = self.connections.remove(&token) else {
            return;
        };
        let mut is_open = true;
        if is_readable {
            is_open = self.read(&mut connection).unwrap_or(false);
        }
        is_open = is_open && connection.flush().is_ok();
        let wants = connection.has_output();
        if is_open && wants != wants_write {
            let set = self
                .poller
                .set_wants_write(connection.descriptor(), token, wants);
            is_open = set.is_ok();
        }
        if is_open {
            self.connections.insert(token, (connection, wants));
        }
    }

    /// Reads and answers; false when the client is gone or sends what is not served.
    fn read(&mut self, connection: &mut Connection) -> io::Result<bool> {
        if !connection.receive()? {
            return Ok(false);
        }
        while let Some(range) = connection.take_frame()? {
            let Some(answer) = self.answer(connection.frame(range)) else {
                return Ok(false);
            };
            let mut position = 0;
            for (gap, batch) in answer.writer.gaps().iter().zip(answer.batches) {
                connection.queue(&answer.writer.head()[position..gap.position]);
                connection.queue(&batch.header);
                connection.queue_shared(batch.records);
                position = gap.position;
            }
            connection.queue(&answer.writer.head()[position..]);
        }
        Ok(true)
    }

    fn answer(&mut self, bytes: &[u8]) -> Option<Answer> {
        let mut request = frame::decode_request(bytes).ok()?;
        let version = request.header.api_version;
        let mut answer = Answer {
            writer: Writer::new(),
            batches: Vec::new(),
        };
        let id = request.header.correlation_id;
        let open = frame::begin_response(&mut answer.writer, request.api, version, id);
        let writer = &mut answer.writer;
        match request.api {
            ApiKey::ApiVersions => api_versions().encode(writer, version),
            ApiKey::Metadata => self.metadata(&mut request)?.encode(writer, version),
            ApiKey::CreateTopics => self.create(&mut request)?.encode(writer, version),
            ApiKey::InitProducerId => InitProducerIdResponse {
                producer_id: 1,
                ..Default::default()
            }
            .encode(writer, version),
            ApiKey::ListOffsets => {
                let asked = ListOffsetsRequest::decode(&mut request.body, version).ok()?;
                offsets(&asked).encode(writer, version);
            }
            ApiKey::Produce => {
                let asked = ProduceRequest::decode(&mut request.body, version).ok()?;
                if asked.acks == 0 {
                    return Some(Answer {
                        writer: Writer::new(),
                        batches: Vec::new(),
                    });
                }
                acknowledge(&asked).encode(writer, version);
            }
            ApiKey::Fetch => {
                let asked = FetchRequest::decode(&mut request.body, version).ok()?;
                answer.batches = self.batches(&asked);
                data(&asked, &answer.batches).encode(writer, version);
            }
            _ => return None,
        }
        frame::finish(&mut answer.writer, open);
        Some(answer)
    }

    fn create(&mut self, request: &mut RequestFrame<'_>) -> Option<CreateTopicsResponse<'static>> {
        let version = request.header.api_version;
        let asked = CreateTopicsRequest::decode(&mut request.body, version).ok()?;
        let mut results = Vec::new();
        for topic in asked.topics {
            let is_known = self.topics.contains_key(&*topic.name);
            let error = match is_known {
                true => ErrorCode::TopicAlreadyExists,
                false if self.topics.len() >= TOPICS_MAX => ErrorCode::PolicyViolation,
                false => ErrorCode::None,
            };
            if error == ErrorCode::None {
                let known = KnownTopic {
                    id: Uuid((self.topics.len() as u128 + 1).to_be_bytes()),
                    partitions: topic.num_partitions.clamp(1, PARTITIONS_MAX),
                };
                self.topics.insert(topic.name.to_string(), known);
            }
            results.push(CreatableTopicResult {
                name: Cow::Owned(topic.name.into_owned()),
                error_code: error.code(),
                ..Default::default()
            });
        }
        Some(CreateTopicsResponse {
            topics: results,
            ..Default::default()
        })
    }

    fn metadata(&self, request: &mut RequestFrame<'_>) -> Option<MetadataResponse<'static>> {
        let version = request.header.api_version;
        let asked = MetadataRequest::decode(&mut request.body, version).ok()?;
        let names = asked.topics.unwrap_or_default();
        let topics = names.into_iter().filter_map(|topic| topic.name);
        let topics = topics.map(|name| self.describe(name.into_owned()));
        Some(MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: NODE_ID,
                host: self.address.ip().to_string().into(),
                port: i32::from(self.address.port()),
                ..Default::default()
            }],
            cluster_id: Some("null".into()),
            controller_id: NODE_ID,
            topics: topics.collect(),
            ..Default::default()
        })
    }

    fn describe(&self, name: String) -> MetadataResponseTopic<'static> {
        let known = self.topics.get(&name);
        let partition = |partition_index| MetadataResponsePartition {
            partition_index,
            leader_id: NODE_ID,
            replica_nodes: vec![NODE_ID],
            isr_nodes: vec![NODE_ID],
            ..Default::default()
        };
        MetadataResponseTopic {
            error_code: match known {
                Some(_) => 0,
                None => ErrorCode::UnknownTopicOrPartition.code(),
            },
            topic_id: known.map_or(Uuid::ZERO, |known| known.id),
            partitions: (0..known.map_or(0, |known| known.partitions))
                .map(partition)
                .collect(),
            name: Some(name.into()),
            ..Default::default()
        }
    }

    /// The batches of an answer: one per partition while the limit lasts, but one at least.
    fn batches(&self, asked: &FetchRequest<'_>) -> Vec<ReadyBatch> {
        let mut left = i64::from(asked.max_bytes).max(1);
        let mut batches = Vec::new();
        for partition in asked.topics.iter().flat_map(|topic| &topic.partitions) {
            if left <= 0 {
                break;
            }
            let header = BatchHeader::parse(&self.batch.header).expect("a header that was made");
            batches.push(ReadyBatch {
                header: header.placed(partition.fetch_offset, 0),
                records: Rc::clone(&self.batch.records),
            });
            left -= self.batch.size_bytes() as i64;
        }
        batches
    }
}

fn api_versions() -> ApiVersionsResponse<'static> {
    let api = |key: &ApiKey| {
        let served = ServedApi::stable(*key);
        ApiVersion {
            api_key: key.code(),
            min_version: served.min,
            max_version: served.max,
        }
    };
    ApiVersionsResponse {
        api_keys: SERVED.iter().map(api).collect(),
        ..Default::default()
    }
}

fn acknowledge<'a>(asked: &'a ProduceRequest<'a>) -> ProduceResponse<'a> {
    let mut responses = Vec::with_capacity(asked.topic_data.len());
    for topic in &asked.topic_data {
        let partitions = topic.partition_data.iter();
        let partition_responses = partitions.map(|partition| PartitionProduceResponse {
            index: partition.index,
            ..Default::default()
        });
        responses.push(TopicProduceResponse {
            name: Cow::Borrowed(&topic.name),
            topic_id: topic.topic_id,
            partition_responses: partition_responses.collect(),
        });
    }
    ProduceResponse {
        responses,
        ..Default::default()
    }
}

fn offsets<'a>(asked: &'a ListOffsetsRequest<'a>) -> ListOffsetsResponse<'a> {
    let topics = asked.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|partition| ListOffsetsPartitionResponse {
            partition_index: partition.partition_index,
            offset: if partition.timestamp == -2 { 0 } else { END },
            ..Default::default()
        });
        ListOffsetsTopicResponse {
            name: Cow::Borrowed(&topic.name),
            partitions: partitions.collect(),
        }
    });
    ListOffsetsResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn data<'a>(asked: &'a FetchRequest<'a>, batches: &[ReadyBatch]) -> FetchResponse<'a> {
    let mut sizes = batches.iter().map(ReadyBatch::size_bytes);
    let mut responses = Vec::with_capacity(asked.topics.len());
    for topic in &asked.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            partitions.push(PartitionData {
                partition_index: partition.partition,
                high_watermark: END,
                last_stable_offset: END,
                log_start_offset: 0,
                records: sizes.next().map_or(Records::Null, Records::Detached),
                ..Default::default()
            });
        }
        responses.push(FetchableTopicResponse {
            topic: Cow::Borrowed(&topic.topic),
            topic_id: topic.topic_id,
            partitions,
        });
    }
    FetchResponse {
        responses,
        ..Default::default()
    }
}
