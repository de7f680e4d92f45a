//! Produce, versions 3 to 13 (KIP-98 transactions' fields, KIP-467 record errors from 8, KIP-951
//! leaders from 10, KIP-516 topic ids from 13).
//!
//! Stage one decodes, validates every batch on this core, and hands them to the cores that own the
//! partitions: from then on their order is fixed. Stage two answers when they have kept the promise
//! that `acks` asks for. Where we are stricter or clearer than Kafka:
//!
//! * A partition named twice is refused with INVALID_REQUEST wherever it stands: Kafka drops all but
//!   the last batch without a word.
//! * Null records are INVALID_RECORD; Kafka never answers them.
//! * A transactional batch without a transactional id fails the whole request with
//!   TRANSACTIONAL_ID_AUTHORIZATION_FAILED, as in Kafka. With one, the coordinator has to vouch for what
//!   opens a transaction in a partition (produce_transactions.rs) before the order is fixed. A plain
//!   batch under a transactional id is appended, as in Kafka.
//!
//! With acks=0 there is no answer; an error closes the connection, as in Kafka.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::call::{Call, Handled, Refused, Started, check_count, duration_ms, settled};
use super::dispatch::Api;
use super::endpoint::endpoints;
use super::error_mapping::{partition_code, partition_message};
use super::produce_transactions;
use super::topic_rules::TopicRules;
use crate::cluster::image::{MetadataImage, TopicImage};
use crate::cluster::topic_name;
use crate::config::broker::BrokerConfig;
use crate::net::close_reason::CloseReason;
use crate::net::frame::Frame;
use crate::net::service::{Reply, Stage};
use crate::runtime::clock;
use crate::runtime::executor::yield_now;
use crate::shard::request::{AppendPart, AppendedPart, PartitionError, Payload, Promise, log_of};
use crate::wire::batch_validation::{BatchRules, RecordError, Rejection, validate};
use crate::wire::codec::{Records, Uuid};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData,
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use crate::wire::record_batch::{BatchHeader, TimestampType};

/// First version that may carry zstd.
const ZSTD_FROM: i16 = 7;
/// First version that tells the leader with NOT_LEADER_OR_FOLLOWER.
const LEADER_FROM: i16 = 10;
/// First version of clients whose epochs grow with every transaction.
const BUMPS_EPOCHS_FROM: i16 = 12;
/// First version that names topics by id.
const TOPIC_ID_FROM: i16 = 13;
/// Bytes validated before others on this core get a turn.
const TURN_BYTES: usize = 256 << 10;

/// Why a partition is not appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) message: Option<String>,
    pub(super) record_errors: Vec<RecordError>,
}

impl Refusal {
    pub(super) fn of(code: ErrorCode) -> Refusal {
        Refusal {
            code,
            message: None,
            record_errors: Vec::new(),
        }
    }

    pub(super) fn with(code: ErrorCode, message: &str) -> Refusal {
        Refusal {
            message: Some(message.to_string()),
            ..Refusal::of(code)
        }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Refusal {
        let code = ErrorCode::from_code(rejection.code.0).unwrap_or(ErrorCode::InvalidRecord);
        Refusal {
            code,
            message: Some(rejection.message),
            record_errors: rejection.record_errors,
        }
    }
}

/// What becomes of a partition.
#[derive(Debug)]
pub(super) struct PlannedPartition {
    pub(super) index: i32,
    /// When appended: the time all its records get, or -1.
    pub(super) outcome: Result<i64, Refusal>,
}

/// A topic of the request.
#[derive(Debug)]
pub(super) struct PlannedTopic {
    pub(super) name: Arc<str>,
    pub(super) id: Uuid,
    pub(super) partitions: Vec<PlannedPartition>,
}

/// A request after validation: the parts are those of the partitions that are not refused, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) topics: Vec<PlannedTopic>,
    pub(super) parts: Vec<AppendPart>,
}

/// What a request is planned on.
struct Ground<'a> {
    image: &'a MetadataImage,
    config: &'a Rc<BrokerConfig>,
    rules: &'a RefCell<TopicRules>,
    frame: &'a Frame,
    version: i16,
    now_ms: i64,
}

/// What the request asks for besides its batches.
struct Prepared {
    plan: Plan,
    acks: i16,
    timeout_ms: u64,
    image: Arc<MetadataImage>,
}

/// Starts a Produce.
pub(super) fn start(api: &Rc<Api>, call: Call) -> Started {
    let api = api.clone();
    Started::Starting(Box::pin(async move {
        match prepare(&api, &call).await {
            Ok(prepared) => enqueue(api, call, prepared),
            Err(refused) => Stage::Done(settled(Err(refused))),
        }
    }))
}

async fn prepare(api: &Api, call: &Call) -> Result<Prepared, Refused> {
    let (image, config) = (api.router.image(), api.router.config());
    let request: ProduceRequest<'_> = call.request()?;
    let partitions = request.topic_data.iter();
    let count = partitions.map(|topic| topic.partition_data.len()).sum();
    check_count(count, config.limits.request_partitions_max)?;
    let ground = Ground {
        image: &image,
        config: &config,
        rules: &api.rules,
        frame: &call.frame,
        version: call.version,
        now_ms: clock::wall_ms(),
    };
    let mut plan = ground.plan(&request).await;
    if let Some(transactional_id) = &request.transactional_id {
        produce_transactions::verify(api, &mut plan, transactional_id, call.version).await;
    }
    Ok(Prepared {
        plan,
        acks: request.acks,
        timeout_ms: duration_ms(request.timeout_ms),
        image: image.clone(),
    })
}

/// Fixes the order; what is left is the second stage.
fn enqueue(api: Rc<Api>, call: Call, prepared: Prepared) -> Stage {
    let Prepared {
        mut plan,
        acks,
        timeout_ms,
        image,
    } = prepared;
    let parts = std::mem::take(&mut plan.parts);
    let promise = match acks {
        0 => Promise::Enqueued,
        1 => Promise::Flushed,
        _ => Promise::Committed,
    };
    if parts.is_empty() {
        return Stage::Done(settled(answer(&api, &call, &image, &plan, &[], acks)));
    }
    let appended = api.router.append(parts, promise, timeout_ms);
    Stage::Later(Box::pin(async move {
        let results = appended.await;
        settled(answer(&api, &call, &image, &plan, &results, acks))
    }))
}

impl Ground<'_> {
    async fn plan(&self, request: &ProduceRequest<'_>) -> Plan {
        let common = common_refusal(request);
        let twice = self.named_twice(request);
        let mut plan = Plan::default();
        let mut validated_bytes = 0;
        for data in &request.topic_data {
            if data.partition_data.is_empty() {
                continue;
            }
            let topic = self.topic(data);
            let mut partitions = Vec::with_capacity(data.partition_data.len());
            for partition in &data.partition_data {
                if validated_bytes > TURN_BYTES {
                    validated_bytes = 0;
                    yield_now().await;
                }
                validated_bytes += partition.records.size_bytes();
                let outcome = match (&common, topic) {
                    (Some(refusal), _) => Err(refusal.clone()),
                    (None, Err(code)) => Err(Refusal::of(code)),
                    (None, Ok(topic)) => self.partition(request, topic, partition, &twice),
                };
                let index = partition.index;
                let outcome = outcome.map(|(part, log_append_time_ms)| {
                    plan.parts.push(part);
                    log_append_time_ms
                });
                partitions.push(PlannedPartition { index, outcome });
            }
            plan.topics.push(PlannedTopic {
                name: match topic {
                    Ok(topic) => topic.name.clone(),
                    Err(_) => data.name.as_ref().into(),
                },
                id: data.topic_id,
                partitions,
            });
        }
        plan
    }

    fn topic(&self, data: &TopicProduceData<'_>) -> Result<&Arc<TopicImage>, ErrorCode> {
        if self.version >= TOPIC_ID_FROM {
            let topic = self.image.topic_by_id(data.topic_id);
            topic.ok_or(ErrorCode::UnknownTopicId)
        } else {
            let topic = self.image.topic(&data.name);
            topic.ok_or(ErrorCode::UnknownTopicOrPartition)
        }
    }

    /// Partitions that the request names more than once.
    fn named_twice(&self, request: &ProduceRequest<'_>) -> BTreeSet<(Uuid, i32)> {
        let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
        if let [topic] = &request.topic_data[..]
            && topic.partition_data.len() < 2
        {
            return twice;
        }
        for data in &request.topic_data {
            let Ok(topic) = self.topic(data) else {
                continue;
            };
            for partition in &data.partition_data {
                let name = (topic.id, partition.index);
                if !seen.insert(name) {
                    twice.insert(name);
                }
            }
        }
        twice
    }

    fn partition(
        &self,
        request: &ProduceRequest<'_>,
        topic: &Arc<TopicImage>,
        data: &PartitionProduceData<'_>,
        twice: &BTreeSet<(Uuid, i32)>,
    ) -> Result<(AppendPart, i64), Refusal> {
        let log = log_of(topic, data.index)
            .ok_or_else(|| Refusal::of(ErrorCode::UnknownTopicOrPartition))?;
        if ![-1, 0, 1].contains(&request.acks) {
            return Err(Refusal::of(ErrorCode::InvalidRequiredAcks));
        }
        if topic_name::is_internal(&topic.name) {
            let message = format!("Cannot append to internal topic {}", topic.name);
            return Err(Refusal::with(ErrorCode::InvalidTopicException, &message));
        }
        if twice.contains(&(topic.id, data.index)) {
            let message = "The request names this partition more than once";
            return Err(Refusal::with(ErrorCode::InvalidRequest, message));
        }
        let rules = BatchRules {
            allows_zstd: self.version >= ZSTD_FROM,
            ..self.rules.borrow_mut().of(topic, self.config)
        };
        let records = data.records.bytes().unwrap_or_default();
        let batch = validate(records, &rules, self.now_ms)?;
        let log_append_time_ms = match rules.timestamp_type {
            TimestampType::CreateTime => -1,
            TimestampType::LogAppendTime => self.now_ms,
        };
        let part = AppendPart {
            log,
            header: batch.header,
            payload: payload(self.frame, batch.payload),
            guard: None,
            bumps_epochs: self.version >= BUMPS_EPOCHS_FROM,
        };
        Ok((part, log_append_time_ms))
    }
}

/// What refuses every partition alike.
fn common_refusal(request: &ProduceRequest<'_>) -> Option<Refusal> {
    if request.transactional_id.is_some() {
        return None;
    }
    let partitions = request
        .topic_data
        .iter()
        .flat_map(|topic| &topic.partition_data);
    let mut records = partitions.filter_map(|partition| match partition.records {
        Records::Bytes(bytes) => BatchHeader::parse(bytes).ok(),
        _ => None,
    });
    records
        .any(|header| header.attributes.is_transactional())
        .then(|| Refusal::of(ErrorCode::TransactionalIdAuthorizationFailed))
}

/// The payload as a view of the frame, where it is still the client's.
fn payload(frame: &Frame, bytes: Cow<'_, [u8]>) -> Payload {
    match bytes {
        Cow::Owned(bytes) => Payload::Owned(bytes),
        Cow::Borrowed(bytes) => {
            let start = bytes.as_ptr().addr().wrapping_sub(frame.as_ptr().addr());
            let end = start.wrapping_add(bytes.len());
            assert!(
                start <= end && end <= frame.len(),
                "a payload that was not rebuilt lies in its frame"
            );
            Payload::Shared(frame.clone(), start..end)
        }
    }
}

fn answer(
    api: &Api,
    call: &Call,
    image: &MetadataImage,
    plan: &Plan,
    results: &[Result<AppendedPart, PartitionError>],
    acks: i16,
) -> Handled {
    let mut leaders = BTreeSet::new();
    let responses = responses(plan, results, &mut |topic, response| {
        if call.version >= LEADER_FROM {
            response.current_leader = current_leader(image, topic, response.index);
            leaders.insert(response.current_leader.leader_id);
        }
    });
    if acks == 0 {
        let mut partitions = responses
            .iter()
            .flat_map(|topic| &topic.partition_responses);
        return match partitions.all(|partition| partition.error_code == 0) {
            true => Ok(Reply::Nothing),
            false => Err(Refused(CloseReason::RefusedByService)),
        };
    }
    let brokers = if leaders.is_empty() {
        Vec::new()
    } else {
        endpoints(image, &api.router.config(), &call.peer)
    };
    let brokers = brokers
        .iter()
        .filter(|broker| leaders.contains(&broker.node_id));
    let node_endpoints = brokers.map(|broker| NodeEndpoint {
        node_id: broker.node_id,
        host: broker.host.as_str().into(),
        port: broker.port,
        rack: broker.rack.as_deref().map(Cow::Borrowed),
    });
    Ok(call.reply(&ProduceResponse {
        responses,
        node_endpoints: node_endpoints.collect(),
        ..ProduceResponse::default()
    }))
}

/// Joins the plan with what became of its parts; `not_leader` may say more to those who asked the
/// wrong broker.
fn responses<'a>(
    plan: &'a Plan,
    results: &[Result<AppendedPart, PartitionError>],
    not_leader: &mut dyn FnMut(&PlannedTopic, &mut PartitionProduceResponse<'a>),
) -> Vec<TopicProduceResponse<'a>> {
    let mut results = results.iter();
    let mut topics = Vec::with_capacity(plan.topics.len());
    for topic in &plan.topics {
        let mut partition_responses = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let mut response = match &partition.outcome {
                Err(refusal) => refused(refusal),
                Ok(log_append_time_ms) => {
                    let result = results.next().expect("one result per part");
                    appended(result, *log_append_time_ms)
                }
            };
            response.index = partition.index;
            if response.error_code == ErrorCode::NotLeaderOrFollower.code() {
                not_leader(topic, &mut response);
            }
            partition_responses.push(response);
        }
        topics.push(TopicProduceResponse {
            name: Cow::Borrowed(&topic.name),
            topic_id: topic.id,
            partition_responses,
        });
    }
    assert!(results.next().is_none(), "one result per part");
    topics
}

fn refused(refusal: &Refusal) -> PartitionProduceResponse<'_> {
    let record_errors = refusal.record_errors.iter();
    let record_errors = record_errors.map(|error| BatchIndexAndErrorMessage {
        batch_index: error.batch_index,
        batch_index_error_message: Some(error.message.as_str().into()),
    });
    PartitionProduceResponse {
        error_code: refusal.code.code(),
        base_offset: -1,
        record_errors: record_errors.collect(),
        error_message: refusal.message.as_deref().map(Cow::Borrowed),
        ..PartitionProduceResponse::default()
    }
}

fn appended<'a>(
    result: &Result<AppendedPart, PartitionError>,
    log_append_time_ms: i64,
) -> PartitionProduceResponse<'a> {
    match result {
        Ok(part) => PartitionProduceResponse {
            base_offset: part.base_offset,
            log_append_time_ms,
            log_start_offset: part.log_start_offset,
            ..PartitionProduceResponse::default()
        },
        Err(error) => PartitionProduceResponse {
            error_code: partition_code(error).code(),
            base_offset: -1,
            error_message: partition_message(error).map(Cow::Owned),
            ..PartitionProduceResponse::default()
        },
    }
}

fn current_leader(image: &MetadataImage, topic: &PlannedTopic, index: i32) -> LeaderIdAndEpoch {
    let topic = image.topic(&topic.name);
    match topic.and_then(|topic| topic.partition(index)) {
        Some(partition) => LeaderIdAndEpoch {
            leader_id: partition.leader,
            leader_epoch: partition.leader_epoch,
        },
        None => LeaderIdAndEpoch::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::image::PartitionImage;
    use crate::cluster::record::MetadataRecord;
    use crate::wire::compression::{Codec, Compression};
    use crate::wire::record_batch::HEADER_BYTES;
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};
    use std::collections::BTreeMap;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn image(configs: &[(&str, &str)]) -> MetadataImage {
        let mut image = MetadataImage::empty("c", 1);
        let configs: BTreeMap<String, String> = configs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        for (id, name) in [(1, "t"), (2, topic_name::CONSUMER_OFFSETS)] {
            let partition = PartitionImage {
                leader: 1,
                leader_epoch: 3,
                ..PartitionImage::new(vec![1])
            };
            image.apply(&MetadataRecord::TopicCreated {
                name: name.to_string(),
                id: Uuid([id; 16]),
                partitions: vec![partition; 2],
                configs: configs.clone(),
            });
        }
        image
    }

    fn batch(options: BatchOptions) -> Vec<u8> {
        let mut builder = BatchBuilder::new(options);
        builder.append(NOW_MS, Some(b"k"), Some(b"v"), [].into_iter());
        builder.finish()
    }

    fn plain() -> Vec<u8> {
        batch(BatchOptions::default())
    }

    fn transactional() -> Vec<u8> {
        batch(BatchOptions {
            producer_id: 4,
            producer_epoch: 0,
            base_sequence: 0,
            is_transactional: true,
            ..BatchOptions::default()
        })
    }

    fn request<'a>(partitions: &[(&'a str, i32, &'a [u8])]) -> ProduceRequest<'a> {
        let topic = |(name, index, records): &(&'a str, i32, &'a [u8])| TopicProduceData {
            name: (*name).into(),
            partition_data: vec![PartitionProduceData {
                index: *index,
                records: Records::Bytes(records),
            }],
            ..TopicProduceData::default()
        };
        ProduceRequest {
            acks: -1,
            topic_data: partitions.iter().map(topic).collect(),
            ..ProduceRequest::default()
        }
    }

    /// Plans a request the way it arrives, so that payloads lie in the frame.
    fn planned_on(image: &MetadataImage, request: &ProduceRequest<'_>, version: i16) -> Plan {
        use crate::wire::message::Message;
        let frame = Frame::uncharged(request.to_bytes(version));
        let request = ProduceRequest::decode_whole(&frame, version).unwrap();
        let config = Rc::new(BrokerConfig::defaults());
        let rules = RefCell::default();
        let ground = Ground {
            image,
            config: &config,
            rules: &rules,
            frame: &frame,
            version,
            now_ms: NOW_MS,
        };
        futures_lite::future::block_on(ground.plan(&request))
    }

    fn codes(plan: &Plan) -> Vec<i16> {
        let partitions = plan.topics.iter().flat_map(|topic| &topic.partitions);
        partitions
            .map(|partition| {
                partition
                    .outcome
                    .as_ref()
                    .map_or_else(|r| r.code.code(), |_| 0)
            })
            .collect()
    }

    fn planned(request: &ProduceRequest<'_>, version: i16) -> (Vec<i16>, usize) {
        let plan = planned_on(&image(&[]), request, version);
        (codes(&plan), plan.parts.len())
    }

    #[test]
    fn good_batches_become_parts_that_share_the_frame() {
        let bytes = plain();
        let request = request(&[
            ("t", 1, &bytes),
            ("nope", 0, &bytes),
            ("t", 7, &bytes),
            ("t", -1, &bytes),
        ]);
        let plan = planned_on(&image(&[]), &request, 9);
        assert_eq!(codes(&plan), [0, 3, 3, 3]);
        let part = &plan.parts[0];
        assert_eq!((part.log.partition, part.log.topic), (1, [1; 16]));
        assert!(matches!(part.payload, Payload::Shared(..)));
        assert_eq!(part.payload[..], bytes[HEADER_BYTES..]);
    }

    #[test]
    fn a_rebuilt_payload_is_its_own() {
        let bytes = plain();
        let image = image(&[("compression.type", "lz4")]);
        let plan = planned_on(&image, &request(&[("t", 0, &bytes)]), 9);
        assert!(matches!(plan.parts[0].payload, Payload::Owned(_)));
    }

    #[test]
    fn acks_are_all_none_or_one() {
        let bytes = plain();
        for (acks, code) in [(-1, 0), (0, 0), (1, 0), (2, 21), (-2, 21), (i16::MIN, 21)] {
            let request = ProduceRequest {
                acks,
                ..request(&[("t", 0, &bytes)])
            };
            assert_eq!(planned(&request, 9).0, [code]);
        }
    }

    #[test]
    fn no_batch_or_several_are_invalid_records() {
        let two = [plain(), plain()].concat();
        assert_eq!(
            planned(&request(&[("t", 0, &two), ("t", 1, &[])]), 9).0,
            [87, 87]
        );
        let mut null = request(&[("t", 0, &[])]);
        null.topic_data[0].partition_data[0].records = Records::Null;
        assert_eq!(planned(&null, 9).0, [87]);
    }

    #[test]
    fn a_partition_named_twice_is_refused_and_others_are_not() {
        let bytes = plain();
        let request = request(&[("t", 0, &bytes), ("t", 1, &bytes), ("t", 0, &bytes)]);
        assert_eq!(planned(&request, 9), (vec![42, 0, 42], 1));
    }

    #[test]
    fn internal_topics_are_not_for_clients() {
        let bytes = plain();
        let offsets = request(&[(topic_name::CONSUMER_OFFSETS, 0, &bytes)]);
        assert_eq!(planned(&offsets, 9).0, [17]);
        let metadata = request(&[(topic_name::CLUSTER_METADATA, 0, &bytes)]);
        assert_eq!(planned(&metadata, 9).0, [3]);
    }

    #[test]
    fn topics_are_named_by_id_from_version_13() {
        let bytes = plain();
        let mut request = request(&[("", 0, &bytes), ("", 0, &bytes), ("", 9, &bytes)]);
        request.topic_data[0].topic_id = Uuid([1; 16]);
        request.topic_data[1].topic_id = Uuid([9; 16]);
        request.topic_data[2].topic_id = Uuid([1; 16]);
        let plan = planned_on(&image(&[]), &request, 13);
        assert_eq!(codes(&plan), [0, 100, 3]);
        let responses = responses(&plan, &[Err(PartitionError::DiskFull)], &mut |_, _| {});
        assert_eq!(responses[1].topic_id, Uuid([9; 16]));
    }

    #[test]
    fn zstd_needs_version_7() {
        let bytes = batch(BatchOptions {
            compression: Compression::of(Codec::Zstd),
            ..BatchOptions::default()
        });
        let request = request(&[("t", 0, &bytes)]);
        assert_eq!(planned(&request, 6).0, [76]);
        assert_eq!(planned(&request, 7).0, [0]);
    }

    #[test]
    fn transactional_batches_need_an_id_for_the_whole_request() {
        let (plain, transactional) = (plain(), transactional());
        let mut request = request(&[("t", 0, &transactional), ("t", 1, &plain)]);
        assert_eq!(planned(&request, 9).0, [53, 53]);
        request.transactional_id = Some("x".into());
        assert_eq!(planned(&request, 9), (vec![0, 0], 2));
        let bumps = |version| planned_on(&image(&[]), &request, version).parts[0].bumps_epochs;
        assert!(!bumps(11) && bumps(12));
    }

    #[test]
    fn clients_write_no_control_batches() {
        let control = batch(BatchOptions {
            producer_id: 4,
            producer_epoch: 0,
            is_transactional: true,
            is_control: true,
            ..BatchOptions::default()
        });
        let mut request = request(&[("t", 0, &control)]);
        request.transactional_id = Some("x".into());
        assert_eq!(planned(&request, 12).0, [87]);
    }

    #[test]
    fn answers_join_refusals_and_results_in_order() {
        let bytes = plain();
        let image = image(&[("message.timestamp.type", "LogAppendTime")]);
        let request = request(&[("t", 0, &bytes), ("t", 9, &bytes), ("t", 1, &bytes)]);
        let plan = planned_on(&image, &request, 10);
        let results = [
            Ok(AppendedPart {
                base_offset: 5,
                log_start_offset: 2,
                duplicate: false,
            }),
            Err(PartitionError::NotLeader),
        ];
        let mut asked = Vec::new();
        let topics = responses(&plan, &results, &mut |topic, response| {
            response.current_leader = current_leader(&image, topic, response.index);
            asked.push(response.index);
        });
        let partitions: Vec<_> = topics.iter().map(|t| &t.partition_responses[0]).collect();
        assert_eq!(
            (partitions[0].base_offset, partitions[0].log_start_offset),
            (5, 2)
        );
        assert_eq!(partitions[0].log_append_time_ms, NOW_MS);
        assert_eq!(
            (partitions[1].error_code, partitions[1].base_offset),
            (3, -1)
        );
        assert_eq!((partitions[2].error_code, asked), (6, vec![1]));
        assert_eq!(partitions[2].current_leader.leader_epoch, 3);
    }

    #[test]
    fn records_at_fault_are_named() {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(NOW_MS, None, None, [].into_iter());
        let bytes = builder.finish();
        let image = image(&[("cleanup.policy", "compact")]);
        let plan = planned_on(&image, &request(&[("t", 0, &bytes)]), 9);
        let topics = responses(&plan, &[], &mut |_, _| {});
        let partition = &topics[0].partition_responses[0];
        assert_eq!(
            (partition.error_code, partition.record_errors[0].batch_index),
            (87, 0)
        );
        assert!(partition.error_message.is_some());
    }
}
