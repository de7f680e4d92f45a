//! Fetch, versions 4 to 18 (KIP-227 sessions from 7, KIP-320 leader epochs from 9, KIP-595 diverging
//! epochs from 12, KIP-516 topic ids from 13, KIP-951 leaders from 16).
//!
//! Waiting happens at the router. Records are never touched: the answer is a head with gaps into
//! which the slices go. A partition that is known to fail ends the wait at once. Requests of replicas
//! are answered with NOT_LEADER_OR_FOLLOWER per partition, as Kafka does to one that it does not
//! know: there is no cluster yet. No records are an empty field, never null.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::call::{Call, Handled, check_count, duration_ms};
use super::dispatch::Api;
use super::endpoint::{Endpoint, endpoints};
use super::error_mapping::fetch_code;
use super::fetch_session::{Context, Told, TopicKey, Wanted};
use crate::cluster::image::{MetadataImage, TopicImage};
use crate::config::broker::BrokerConfig;
use crate::net::service::Reply;
use crate::runtime::buffer::Slice;
use crate::runtime::clock;
use crate::runtime::gather::Gather;
use crate::runtime::random::random_u64;
use crate::shard::request::{FetchPart, FetchTerms, FetchedPart, log_of};
use crate::wire::codec::{Records, Uuid, Writer};
use crate::wire::error_code::ErrorCode;
use crate::wire::frame;
use crate::wire::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchRequest, FetchResponse, FetchTopic,
    FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};

/// First version that names topics by id.
const TOPIC_ID_FROM: i16 = 13;
/// First version that has a replica's id in a tagged field.
const REPLICA_STATE_FROM: i16 = 15;
/// First version that tells the leader to those who asked the wrong broker.
const LEADER_FROM: i16 = 16;

/// What a partition of the request gave.
struct Answer {
    code: ErrorCode,
    high_watermark: i64,
    last_stable_offset: i64,
    log_start_offset: i64,
    diverging: Option<(i32, i64)>,
    slices: Vec<Slice>,
    size_bytes: usize,
    aborted: Vec<AbortedTransaction>,
    /// Whether the partition was looked at: then the transactions aborted in it are known.
    is_read: bool,
}

impl Answer {
    fn error(code: ErrorCode) -> Answer {
        Answer {
            code,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging: None,
            slices: Vec::new(),
            size_bytes: 0,
            aborted: Vec::new(),
            is_read: false,
        }
    }

    fn of(part: FetchedPart, version: i16) -> Answer {
        if let Some(error) = &part.error {
            return Answer {
                is_read: true,
                ..Answer::error(fetch_code(error, version))
            };
        }
        let slices = part.slices.into_vec();
        let aborted = part.aborted.iter().map(|aborted| AbortedTransaction {
            producer_id: aborted.producer_id,
            first_offset: aborted.first_offset.0,
        });
        Answer {
            code: ErrorCode::None,
            high_watermark: part.high_watermark,
            last_stable_offset: part.last_stable_offset,
            log_start_offset: part.log_start_offset,
            diverging: part.diverging,
            size_bytes: slices.iter().map(|slice| slice.len()).sum(),
            slices,
            aborted: aborted.collect(),
            is_read: true,
        }
    }

    fn told(&self) -> Told {
        Told {
            high_watermark: self.high_watermark,
            log_start_offset: self.log_start_offset,
            has_records: self.size_bytes > 0,
            has_error: self.code.is_error() || self.diverging.is_some(),
        }
    }
}

/// Answers a Fetch.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let (image, config) = (api.router.image(), api.router.config());
    let request: FetchRequest<'_> = call.request()?;
    let named = request.topics.iter().map(|topic| topic.partitions.len());
    let forgotten = request.forgotten_topics_data.iter();
    let count = named
        .chain(forgotten.map(|topic| topic.partitions.len()))
        .sum();
    check_count(count, config.limits.request_partitions_max)?;
    let uses_ids = call.version >= TOPIC_ID_FROM;
    let wanted = wanted(&image, &request.topics, uses_ids);
    let forgotten = forgotten_keys(&image, &request, uses_ids);
    let session = (request.session_id, request.session_epoch);
    let now_us = clock::monotonic_us();
    let context = {
        let mut sessions = api.sessions.borrow_mut();
        sessions.begin(session, uses_ids, wanted, &forgotten, now_us)
    };
    let wanted = match &context {
        Context::Refused(code) => {
            let response = FetchResponse {
                error_code: code.code(),
                ..FetchResponse::default()
            };
            return Ok(call.reply(&response));
        }
        Context::Sessionless(wanted) | Context::New(wanted) | Context::Incremental(_, wanted) => {
            wanted
        }
    };
    let answers = read(&api, &call, &image, &config, &request, wanted).await;
    let told: Vec<Told> = answers.iter().map(Answer::told).collect();
    let mut sessions = api.sessions.borrow_mut();
    let (session_id, is_told) = match &context {
        Context::Incremental(id, _) => (*id, sessions.tell(*id, wanted, &told)),
        Context::New(_) => {
            let ids = || random_u64() as i32;
            let id = sessions.create(wanted, &told, uses_ids, ids, clock::monotonic_us());
            (id, vec![true; wanted.len()])
        }
        _ => (0, vec![true; wanted.len()]),
    };
    drop(sessions);
    let telling = Telling {
        call: &call,
        image: &image,
        endpoints: &endpoints(&image, &config, &call.peer),
        session_id,
        is_read_committed: request.isolation_level == 1,
    };
    Ok(telling.reply(wanted, answers, &is_told))
}

/// What the request names, each partition once: the place of the first mention, the wish of the
/// last, as in Kafka.
fn wanted(image: &MetadataImage, topics: &[FetchTopic<'_>], uses_ids: bool) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    let mut places = BTreeMap::new();
    for topic in topics {
        let key = key(image, &topic.topic, topic.topic_id, uses_ids);
        for partition in &topic.partitions {
            let wanted = Wanted {
                topic: key.clone(),
                partition: partition.partition,
                offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            };
            let place = *places
                .entry((key.clone(), partition.partition))
                .or_insert(all.len());
            match all.get_mut(place) {
                Some(earlier) => *earlier = wanted,
                None => all.push(wanted),
            }
        }
    }
    all
}

fn key(image: &MetadataImage, name: &str, id: Uuid, uses_ids: bool) -> TopicKey {
    if uses_ids {
        return TopicKey::Id(id);
    }
    let known = image.topic(name).map(|topic| topic.name.clone());
    TopicKey::Name(known.unwrap_or_else(|| name.into()))
}

fn forgotten_keys(
    image: &MetadataImage,
    request: &FetchRequest<'_>,
    uses_ids: bool,
) -> Vec<(TopicKey, i32)> {
    let mut keys = Vec::new();
    for topic in &request.forgotten_topics_data {
        let key = key(image, &topic.topic, topic.topic_id, uses_ids);
        keys.extend(
            topic
                .partitions
                .iter()
                .map(|partition| (key.clone(), *partition)),
        );
    }
    keys
}

fn find<'a>(image: &'a MetadataImage, key: &TopicKey) -> Result<&'a Arc<TopicImage>, ErrorCode> {
    match key {
        TopicKey::Name(name) => image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        TopicKey::Id(id) => image.topic_by_id(*id).ok_or(ErrorCode::UnknownTopicId),
    }
}

/// The partition's part, or why it has none.
fn part(image: &MetadataImage, wanted: &Wanted) -> Result<FetchPart, ErrorCode> {
    let topic = find(image, &wanted.topic)?;
    let log = log_of(topic, wanted.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(FetchPart {
        log,
        offset: wanted.offset,
        max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(0),
        current_leader_epoch: wanted.current_leader_epoch,
        last_fetched_epoch: wanted.last_fetched_epoch,
    })
}

fn terms(request: &FetchRequest<'_>, config: &BrokerConfig, has_errors: bool) -> FetchTerms {
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0);
    let max_bytes = max_bytes.min(config.limits.fetch_max_bytes);
    FetchTerms {
        min_bytes: usize::try_from(request.min_bytes)
            .unwrap_or(0)
            .min(max_bytes),
        max_wait_ms: if has_errors {
            0
        } else {
            duration_ms(request.max_wait_ms)
        },
        max_bytes,
        read_committed: request.isolation_level == 1,
    }
}

/// Why the request as a whole reads nothing.
fn common_error(request: &FetchRequest<'_>, version: i16) -> Option<ErrorCode> {
    let replica_id = if version >= REPLICA_STATE_FROM {
        request.replica_state.replica_id
    } else {
        request.replica_id
    };
    if replica_id >= 0 {
        return Some(ErrorCode::NotLeaderOrFollower);
    }
    (![0, 1].contains(&request.isolation_level)).then_some(ErrorCode::InvalidRequest)
}

async fn read(
    api: &Api,
    call: &Call,
    image: &MetadataImage,
    config: &BrokerConfig,
    request: &FetchRequest<'_>,
    wanted: &[Wanted],
) -> Vec<Answer> {
    let common = common_error(request, call.version);
    let parts = wanted.iter().map(|wanted| match common {
        Some(code) => Err(code),
        None => part(image, wanted),
    });
    let parts: Vec<Result<FetchPart, ErrorCode>> = parts.collect();
    let good: Vec<FetchPart> = parts.iter().filter_map(|part| part.ok()).collect();
    let terms = terms(request, config, good.len() < parts.len());
    let fetched = if good.is_empty() {
        Vec::new()
    } else {
        api.router.fetch(good, terms).await
    };
    let mut fetched = fetched.into_iter();
    let answers = parts.into_iter().map(|part| match part {
        Err(code) => Answer::error(code),
        Ok(_) => Answer::of(fetched.next().expect("one answer per part"), call.version),
    });
    answers.collect()
}

/// How a response is told.
struct Telling<'a> {
    call: &'a Call,
    image: &'a MetadataImage,
    endpoints: &'a [Endpoint],
    session_id: i32,
    is_read_committed: bool,
}

impl Telling<'_> {
    fn reply(&self, wanted: &[Wanted], answers: Vec<Answer>, is_told: &[bool]) -> Reply {
        let mut topics: Vec<FetchableTopicResponse<'_>> = Vec::new();
        let mut last = None;
        let mut leaders = BTreeSet::new();
        let told = wanted.iter().zip(&answers).zip(is_told);
        for ((wanted, answer), _) in told.filter(|(_, is_told)| **is_told) {
            if last != Some(&wanted.topic) {
                last = Some(&wanted.topic);
                topics.push(topic_response(&wanted.topic));
            }
            let data = self.partition(wanted, answer);
            if data.current_leader.leader_id >= 0 {
                leaders.insert(data.current_leader.leader_id);
            }
            let topic = topics.last_mut().expect("just pushed");
            topic.partitions.push(data);
        }
        let endpoints = self.endpoints.iter();
        let endpoints = endpoints.filter(|endpoint| leaders.contains(&endpoint.node_id));
        let node_endpoints = endpoints.map(|endpoint| NodeEndpoint {
            node_id: endpoint.node_id,
            host: endpoint.host.as_str().into(),
            port: endpoint.port,
            rack: endpoint.rack.as_deref().map(Cow::Borrowed),
        });
        let response = FetchResponse {
            session_id: self.session_id,
            responses: topics,
            node_endpoints: node_endpoints.collect(),
            ..FetchResponse::default()
        };
        let mut writer = Writer::new();
        let (version, correlation_id) = (self.call.version, self.call.correlation_id);
        frame::encode_response(&mut writer, version, correlation_id, &response);
        drop(response);
        let told = answers.into_iter().zip(is_told);
        let told = told.filter(|(_, is_told)| **is_told);
        Reply::Send(gathered(writer, told.map(|(answer, _)| answer.slices)))
    }

    fn partition(&self, wanted: &Wanted, answer: &Answer) -> PartitionData<'static> {
        let (epoch, end_offset) = answer.diverging.unwrap_or((-1, -1));
        let aborted_transactions =
            (self.is_read_committed || !answer.is_read).then(|| answer.aborted.clone());
        PartitionData {
            partition_index: wanted.partition,
            error_code: answer.code.code(),
            high_watermark: answer.high_watermark,
            last_stable_offset: answer.last_stable_offset,
            log_start_offset: answer.log_start_offset,
            diverging_epoch: EpochEndOffset { epoch, end_offset },
            current_leader: self.current_leader(wanted, answer.code),
            aborted_transactions,
            records: Records::Detached(answer.size_bytes),
            ..PartitionData::default()
        }
    }

    fn current_leader(&self, wanted: &Wanted, code: ErrorCode) -> LeaderIdAndEpoch {
        let asked_wrong = [ErrorCode::NotLeaderOrFollower, ErrorCode::FencedLeaderEpoch];
        if self.call.version < LEADER_FROM || !asked_wrong.contains(&code) {
            return LeaderIdAndEpoch::default();
        }
        let topic = find(self.image, &wanted.topic).ok();
        match topic.and_then(|topic| topic.partition(wanted.partition)) {
            Some(partition) => LeaderIdAndEpoch {
                leader_id: partition.leader,
                leader_epoch: partition.leader_epoch,
            },
            None => LeaderIdAndEpoch::default(),
        }
    }
}

fn topic_response(key: &TopicKey) -> FetchableTopicResponse<'_> {
    match key {
        TopicKey::Name(name) => FetchableTopicResponse {
            topic: Cow::Borrowed(name),
            ..FetchableTopicResponse::default()
        },
        TopicKey::Id(id) => FetchableTopicResponse {
            topic_id: *id,
            ..FetchableTopicResponse::default()
        },
    }
}

/// The head with the slices in its gaps, in order; what is empty has no gap.
///
/// # Panics
/// When gaps and slices do not match. Public for `make micro`, which measures it.
#[must_use]
pub fn gathered(writer: Writer, slices: impl Iterator<Item = Vec<Slice>>) -> Gather {
    let (head, gaps) = writer.into_parts();
    let mut slices = slices.filter(|slices| slices.iter().any(|slice| !slice.is_empty()));
    let mut gather = Gather::default();
    let mut from = 0;
    for gap in gaps {
        gather.push_owned(head[from..gap.position].to_vec());
        from = gap.position;
        let before = gather.size_bytes();
        for slice in slices.next().expect("every gap has slices") {
            gather.push_slice(slice);
        }
        assert_eq!(
            gather.size_bytes() - before,
            gap.length,
            "a gap is filled exactly"
        );
    }
    assert!(slices.next().is_none(), "all slices have a gap");
    gather.push_owned(head[from..].to_vec());
    gather
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::image::PartitionImage;
    use crate::cluster::record::MetadataRecord;
    use crate::net::frame::Frame;
    use crate::net::peer::Peer;
    use crate::shard::request::PartitionError;
    use crate::wire::messages::fetch::FetchPartition;
    use core::net::SocketAddr;

    fn image() -> MetadataImage {
        let mut image = MetadataImage::empty("c", 1);
        for (id, name) in [(1, "a"), (2, "b")] {
            let partition = PartitionImage {
                leader: 1,
                leader_epoch: 4,
                ..PartitionImage::new(vec![1])
            };
            image.apply(&MetadataRecord::TopicCreated {
                name: name.to_string(),
                id: Uuid([id; 16]),
                partitions: vec![partition; 3],
                configs: BTreeMap::new(),
            });
        }
        image
    }

    fn call(version: i16) -> Call {
        let any = SocketAddr::from(([127, 0, 0, 1], 9092));
        Call {
            frame: Frame::uncharged(Vec::new()),
            peer: Peer::new(any, any, 1, 0, 100),
            version,
            correlation_id: 5,
            body: 0,
        }
    }

    fn wish(topic: &str, partition: i32) -> Wanted {
        Wanted {
            topic: TopicKey::Name(topic.into()),
            partition,
            offset: 0,
            max_bytes: 100,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        }
    }

    fn with_records(parts: &[&[u8]]) -> Answer {
        Answer {
            code: ErrorCode::None,
            high_watermark: 9,
            last_stable_offset: 9,
            slices: parts.iter().map(|part| Slice::copied(part)).collect(),
            size_bytes: parts.iter().map(|part| part.len()).sum(),
            is_read: true,
            ..Answer::error(ErrorCode::None)
        }
    }

    fn told(version: i16, wanted: &[Wanted], answers: Vec<Answer>, is_told: &[bool]) -> Vec<u8> {
        let (call, image) = (call(version), image());
        let endpoints = endpoints(&image, &BrokerConfig::defaults(), &call.peer);
        let telling = Telling {
            call: &call,
            image: &image,
            endpoints: &endpoints,
            session_id: 77,
            is_read_committed: false,
        };
        let Reply::Send(gather) = telling.reply(wanted, answers, is_told) else {
            panic!("another reply");
        };
        gather.to_vec()
    }

    #[test]
    fn slices_stand_in_their_places_in_every_version() {
        for version in 4..=18 {
            let mut wanted = vec![wish("a", 0), wish("a", 1), wish("b", 0), wish("b", 1)];
            if version >= TOPIC_ID_FROM {
                for (wanted, id) in wanted.iter_mut().zip([1, 1, 2, 2]) {
                    wanted.topic = TopicKey::Id(Uuid([id; 16]));
                }
            }
            let answers = vec![
                with_records(&[b"abc", b"", b"de"]),
                with_records(&[]),
                with_records(&[b"left out"]),
                with_records(&[b"f"]),
            ];
            let bytes = told(version, &wanted, answers, &[true, true, false, true]);
            let length = u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize;
            assert_eq!(length, bytes.len() - 4);
            let (_, response) =
                frame::decode_response_of::<FetchRequest<'_>>(&bytes[4..], version).unwrap();
            let records: Vec<Vec<Option<&[u8]>>> = response
                .responses
                .iter()
                .map(|topic| topic.partitions.iter().map(|p| p.records.bytes()).collect())
                .collect();
            let expected = vec![
                vec![Some(&b"abcde"[..]), Some(&b""[..])],
                vec![Some(&b"f"[..])],
            ];
            assert_eq!(records, expected, "version {version}");
            assert_eq!(response.session_id, if version >= 7 { 77 } else { 0 });
        }
    }

    #[test]
    fn who_asked_the_wrong_broker_is_told_the_right_one() {
        for (version, leader, endpoints) in [(15, -1, 0), (16, 1, 1)] {
            let mut wanted = wish("a", 2);
            wanted.topic = TopicKey::Id(Uuid([1; 16]));
            let answers = vec![Answer::error(ErrorCode::NotLeaderOrFollower)];
            let bytes = told(version, &[wanted], answers, &[true]);
            let (_, response) =
                frame::decode_response_of::<FetchRequest<'_>>(&bytes[4..], version).unwrap();
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.current_leader.leader_id, leader);
            assert_eq!(response.node_endpoints.len(), endpoints);
        }
    }

    #[test]
    fn a_partition_named_twice_is_wanted_once() {
        let partition = |partition, fetch_offset| FetchPartition {
            partition,
            fetch_offset,
            ..FetchPartition::default()
        };
        let topic = |name: &'static str, partitions| FetchTopic {
            topic: name.into(),
            partitions,
            ..FetchTopic::default()
        };
        let topics = [
            topic("a", vec![partition(0, 1), partition(1, 2)]),
            topic("a", vec![partition(0, 3)]),
        ];
        let wanted = wanted(&image(), &topics, false);
        let offsets: Vec<_> = wanted.iter().map(|w| (w.partition, w.offset)).collect();
        assert_eq!(offsets, [(0, 3), (1, 2)]);
    }

    #[test]
    fn unknown_topics_and_partitions_have_no_part() {
        let image = image();
        assert!(part(&image, &wish("a", 2)).is_ok());
        for bad in [wish("a", 3), wish("a", -1), wish("x", 0)] {
            assert_eq!(part(&image, &bad), Err(ErrorCode::UnknownTopicOrPartition));
        }
        let unknown = Wanted {
            topic: TopicKey::Id(Uuid([9; 16])),
            ..wish("", 0)
        };
        assert_eq!(part(&image, &unknown), Err(ErrorCode::UnknownTopicId));
    }

    #[test]
    fn terms_are_clamped_and_errors_do_not_wait() {
        let config = BrokerConfig::defaults();
        let request = FetchRequest {
            max_wait_ms: 500,
            min_bytes: i32::MAX,
            max_bytes: i32::MAX,
            isolation_level: 1,
            ..FetchRequest::default()
        };
        let most = config.limits.fetch_max_bytes;
        let granted = terms(&request, &config, false);
        assert_eq!((granted.min_bytes, granted.max_bytes), (most, most));
        assert!(granted.read_committed && granted.max_wait_ms == 500);
        assert_eq!(terms(&request, &config, true).max_wait_ms, 0);
        let negative = FetchRequest {
            max_wait_ms: -5,
            min_bytes: -1,
            max_bytes: -1,
            ..request
        };
        let granted = terms(&negative, &config, false);
        assert_eq!(
            (granted.min_bytes, granted.max_bytes, granted.max_wait_ms),
            (0, 0, 0)
        );
    }

    #[test]
    fn replicas_and_unknown_isolation_are_refused() {
        let consumer = FetchRequest::default();
        assert_eq!(common_error(&consumer, 12), None);
        let old = FetchRequest {
            replica_id: 1,
            ..FetchRequest::default()
        };
        assert_eq!(common_error(&old, 14), Some(ErrorCode::NotLeaderOrFollower));
        let mut new = FetchRequest::default();
        new.replica_state.replica_id = 0;
        assert_eq!(common_error(&new, 15), Some(ErrorCode::NotLeaderOrFollower));
        new = FetchRequest {
            isolation_level: 2,
            ..FetchRequest::default()
        };
        assert_eq!(common_error(&new, 15), Some(ErrorCode::InvalidRequest));
    }

    #[test]
    fn errors_of_partitions_say_nothing_else() {
        let part = FetchedPart {
            log: log_of(image().topic("a").unwrap(), 0).unwrap(),
            error: Some(PartitionError::OffsetOutOfRange),
            high_watermark: 5,
            last_stable_offset: 5,
            log_start_offset: 1,
            leader_epoch: 4,
            diverging: None,
            slices: Default::default(),
            size_bytes: 0,
            aborted: Vec::new(),
        };
        let answer = Answer::of(part, 12);
        assert_eq!((answer.code.code(), answer.high_watermark), (1, -1));
        assert!(answer.told().has_error);
    }
}
