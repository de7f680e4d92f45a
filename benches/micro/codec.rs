//! The wire protocol: requests from bytes, responses to bytes.

use std::hint::black_box;

use percolog::wire::codec::{Records, Uuid, Writer};
use percolog::wire::compression::Codec;
use percolog::wire::frame::{LENGTH_BYTES, decode_request, encode_request, encode_response};
use percolog::wire::message::{Message, Request};
use percolog::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use percolog::wire::messages::metadata::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use percolog::wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData, TopicProduceResponse,
};

use crate::cases::{Amount, Cases, SIZES};
use crate::records::batch;

/// Versions that Kafka 4.3 clients speak.
const PRODUCE_VERSION: i16 = 13;
const FETCH_VERSION: i16 = 17;
const METADATA_VERSION: i16 = 13;

const TOPIC: Uuid = Uuid([0x5a; 16]);
const MANY: usize = 64;

pub(crate) fn add(cases: &mut Cases) {
    produce_requests(cases);
    produce_responses(cases);
    fetch_requests(cases);
    metadata_responses(cases);
}

/// What follows the length in a frame with this request.
fn frame_of<'a, R: Request<'a>>(version: i16, request: &R) -> Vec<u8> {
    let mut writer = Writer::new();
    encode_request(&mut writer, version, 7, Some("producer-1"), request);
    writer.into_parts().0.split_off(LENGTH_BYTES)
}

fn produce_frame(partitions: usize, batch: &[u8]) -> Vec<u8> {
    let data = (0..partitions).map(|index| PartitionProduceData {
        index: index as i32,
        records: Records::Bytes(batch),
    });
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            topic_id: TOPIC,
            partition_data: data.collect(),
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    frame_of(PRODUCE_VERSION, &request)
}

fn produce_requests(cases: &mut Cases) {
    let one = SIZES.map(|(size_bytes, size)| (1, "1 partition", size_bytes, size));
    let many = (MANY, "64 partitions", 1 << 10, "1 KiB each");
    for (partitions, count, size_bytes, size) in one.into_iter().chain([many]) {
        let frame = produce_frame(partitions, &batch(size_bytes, Codec::None));
        let name = format!("codec: decode a produce request, {count}, {size}");
        cases.add(name, Amount::Elements(partitions), move || {
            let mut request = decode_request(black_box(&frame)).expect("just encoded");
            let version = request.header.api_version;
            let request = ProduceRequest::decode(&mut request.body, version);
            let request = request.expect("just encoded");
            request.topic_data[0].partition_data.len()
        });
    }
}

fn produce_responses(cases: &mut Cases) {
    for (partitions, count) in [(1, "1 partition"), (MANY, "64 partitions")] {
        let name = format!("codec: encode a produce response, {count}");
        cases.add(name, Amount::Elements(partitions), move || {
            let answers = (0..partitions).map(|index| PartitionProduceResponse {
                index: index as i32,
                base_offset: 1 << 40,
                log_start_offset: 0,
                ..PartitionProduceResponse::default()
            });
            let response = ProduceResponse {
                responses: vec![TopicProduceResponse {
                    topic_id: TOPIC,
                    partition_responses: answers.collect(),
                    ..TopicProduceResponse::default()
                }],
                ..ProduceResponse::default()
            };
            let mut writer = Writer::new();
            encode_response(&mut writer, PRODUCE_VERSION, 7, black_box(&response));
            writer.into_parts().0
        });
    }
}

fn fetch_requests(cases: &mut Cases) {
    for (partitions, count) in [(1, "1 partition"), (MANY, "64 partitions")] {
        let wanted = (0..partitions).map(|partition| FetchPartition {
            partition: partition as i32,
            current_leader_epoch: 3,
            fetch_offset: 1 << 40,
            partition_max_bytes: 1 << 20,
            ..FetchPartition::default()
        });
        let request = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            topics: vec![FetchTopic {
                topic_id: TOPIC,
                partitions: wanted.collect(),
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let frame = frame_of(FETCH_VERSION, &request);
        let name = format!("codec: decode a fetch request, {count}");
        cases.add(name, Amount::Elements(partitions), move || {
            let mut request = decode_request(black_box(&frame)).expect("just encoded");
            let version = request.header.api_version;
            let request = FetchRequest::decode(&mut request.body, version);
            request.expect("just encoded").topics[0].partitions.len()
        });
    }
}

fn metadata_responses(cases: &mut Cases) {
    let topics: Vec<String> = (0..MANY).map(|topic| format!("orders-{topic}")).collect();
    let name = "codec: encode a metadata response, 64 topics of 8 partitions";
    cases.add(name, Amount::Elements(MANY * 8), move || {
        let partition = |index| MetadataResponsePartition {
            partition_index: index,
            leader_id: 1,
            leader_epoch: 3,
            replica_nodes: vec![1],
            isr_nodes: vec![1],
            ..MetadataResponsePartition::default()
        };
        let topic = |name| MetadataResponseTopic {
            name: Some(name),
            topic_id: TOPIC,
            partitions: (0..8).map(partition).collect(),
            ..MetadataResponseTopic::default()
        };
        let names = topics.iter().map(|name| name.as_str().into());
        let response = MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: "broker-1.example.org".into(),
                port: 9092,
                ..MetadataResponseBroker::default()
            }],
            cluster_id: Some("5L6g3nShT-eMCtK--X86sw".into()),
            controller_id: 1,
            topics: names.map(topic).collect(),
            ..MetadataResponse::default()
        };
        let mut writer = Writer::new();
        encode_response(&mut writer, METADATA_VERSION, 7, black_box(&response));
        writer.into_parts().0
    });
}
