//! Reads partitions from their leaders: one request to each leader a round, the next one sent
//! before the records of the last are handed on.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::wire::error_code::ErrorCode;
use crate::wire::messages::fetch::{AbortedTransaction, FetchPartition, FetchRequest, FetchTopic};
use crate::wire::record::{Record, Records};
use crate::wire::record_batch::{BatchError, BatchView, Batches, TimestampType};

use super::client::{Client, Patience, Topics};
use super::connection::{Expected, Reply};
use super::failure::Failure;
use super::isolation::{AbortFilter, Isolation};
use super::log_offsets::{self, Place};
use super::metadata::Topic;

/// Highest Fetch version that names topics instead of giving their id.
const VERSION_BY_NAME_MAX: i16 = 12;
/// What a response carries at most, unless one batch is larger.
const FETCH_BYTES_MAX: i32 = 50 << 20;
/// The same for each partition.
const PARTITION_BYTES_MAX: i32 = 4 << 20;
/// What the broker waits for at most when there is nothing, for all leaders together.
const FETCH_WAIT_MS: usize = 500;
/// What may come out of one compressed batch.
const PLAIN_BYTES_MAX: usize = 1 << 30;

/// How far a partition was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Offset of the next record.
    pub(crate) next: i64,
    /// Where to stop.
    pub(crate) end: Option<i64>,
}

impl Position {
    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

/// A record that was read.
pub(crate) struct Fetched<'a> {
    /// Its partition.
    pub(crate) partition: i32,
    /// Its offset.
    pub(crate) offset: i64,
    /// Its timestamp.
    pub(crate) timestamp_ms: i64,
    /// The rest of it.
    pub(crate) record: Record<'a>,
}

/// What `visit` says after a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// More, please.
    Continue,
    /// Enough.
    Stop,
}

/// Batches of one partition, and which of their records are meant.
struct Portion<'r> {
    partition: i32,
    from: i64,
    /// Behind the last batch.
    next: i64,
    end: Option<i64>,
    batches: &'r [u8],
    aborted: Option<Vec<AbortedTransaction>>,
}

/// Reads partitions of one topic.
pub(crate) struct Fetcher {
    client: Client,
    topic: Topic,
    isolation: Isolation,
    patience: Patience,
    positions: BTreeMap<i32, Position>,
    /// Up to where records were handed on.
    handed_on: BTreeMap<i32, i64>,
}

/// Called before the fetcher waits for more, with the offsets up to which records were handed on.
pub(crate) type Pause<'p> = dyn FnMut(&BTreeMap<i32, i64>) -> Result<Visit, Failure> + 'p;

impl Fetcher {
    /// Of `topic`, without positions yet.
    pub(crate) fn new(client: Client, topic: Topic, isolation: Isolation) -> Fetcher {
        let patience = Patience::new(client.timeout());
        Fetcher {
            client,
            topic,
            isolation,
            patience,
            positions: BTreeMap::new(),
            handed_on: BTreeMap::new(),
        }
    }

    /// Where `place` is in each of `partitions`; -1 where no record is that late.
    pub(crate) fn offsets(
        &mut self,
        partitions: &[i32],
        place: Place,
    ) -> Result<BTreeMap<i32, i64>, Failure> {
        let (client, topic) = (&mut self.client, &mut self.topic);
        log_offsets::find(client, topic, partitions, place, self.isolation)
    }

    /// Reads these partitions from now on, and no others.
    pub(crate) fn assign(&mut self, positions: BTreeMap<i32, Position>) {
        let starts = positions.iter();
        self.handed_on = starts.map(|(index, it)| (*index, it.next)).collect();
        self.positions = positions;
        self.patience.renew();
    }

    fn subject(&self, partition: i32) -> String {
        format!("topic {} partition {partition}", self.topic.name)
    }

    /// Hands every record to `visit` and calls `pause` before waiting for more, until all
    /// partitions are at their ends or one of the two has enough.
    pub(crate) fn run(
        &mut self,
        visit: &mut dyn FnMut(&Fetched<'_>) -> Result<Visit, Failure>,
        pause: &mut Pause<'_>,
    ) -> Result<(), Failure> {
        let mut expected = Vec::new();
        while !self.positions.values().all(Position::is_done) || !expected.is_empty() {
            let mut trouble = None;
            if expected.is_empty() {
                match self.send_all() {
                    Ok(sent) => {
                        expected = sent;
                        continue;
                    }
                    Err(failure) => trouble = Some(failure),
                }
            }
            let mut replies = Vec::new();
            match self.receive_all(std::mem::take(&mut expected)) {
                Ok(received) => replies = received,
                Err(failure) => trouble = Some(failure),
            }
            let mut portions = Vec::new();
            for reply in &replies {
                trouble = self.advance(reply, &mut portions)?.or(trouble);
            }
            if trouble.is_none() {
                // If this fails, the next turn finds out.
                expected = self.send_all().unwrap_or_default();
            }
            let stopped = self.hand_on(&portions, visit)? == Visit::Stop;
            if pause(&self.handed_on)? == Visit::Stop || stopped {
                self.abandon(&expected);
                return Ok(());
            }
            if let Some(failure) = trouble {
                self.recover(failure)?;
            }
        }
        Ok(())
    }

    /// Forgets the connections on which answers are still to come.
    fn abandon(&mut self, expected: &[(i32, Expected)]) {
        for (node, _) in expected {
            self.client.drop_node(*node);
        }
    }

    fn hand_on(
        &mut self,
        portions: &[Portion<'_>],
        visit: &mut dyn FnMut(&Fetched<'_>) -> Result<Visit, Failure>,
    ) -> Result<Visit, Failure> {
        for portion in portions {
            let (handed_on, stopped) = visit_all(portion, &self.topic.name, visit)?;
            self.handed_on.insert(portion.partition, handed_on);
            if stopped == Visit::Stop {
                return Ok(Visit::Stop);
            }
        }
        Ok(Visit::Continue)
    }

    /// Moves the positions behind what `reply` brought, which goes to `portions`. A partition that
    /// failed alone is returned for later: the others are handed on first.
    fn advance<'r>(
        &mut self,
        reply: &'r Reply,
        portions: &mut Vec<Portion<'r>>,
    ) -> Result<Option<Failure>, Failure> {
        let response = reply.decode::<FetchRequest<'_>>()?;
        Failure::check("fetch", response.error_code, None)?;
        let mut trouble = None;
        for answer in response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions)
        {
            let partition = answer.partition_index;
            let subject = self.subject(partition);
            let code = answer.error_code;
            let range = (answer.log_start_offset, answer.high_watermark);
            let Some(position) = self.positions.get_mut(&partition) else {
                continue;
            };
            let out_of_range = (code == ErrorCode::OffsetOutOfRange.code()).then(|| match range {
                // Kafka itself does not say beside the error what it has.
                (..0, _) | (_, ..0) => format!("the partition has no offset {}", position.next),
                (start, end) => format!("offset {} is not within {start} to {end}", position.next),
            });
            if let Err(failure) = Failure::check(&subject, code, out_of_range.as_deref()) {
                trouble = Some(failure);
                continue;
            }
            let batches = answer.records.bytes().unwrap_or_default();
            let from = position.next;
            position.next = end_of(batches, from).map_err(|error| damaged(&subject, &error))?;
            if position.next > from {
                self.patience.renew();
                portions.push(Portion {
                    partition,
                    from,
                    next: position.next,
                    end: position.end,
                    batches,
                    aborted: answer.aborted_transactions.clone(),
                });
            }
        }
        Ok(trouble)
    }

    /// A Fetch to every leader of a partition that is not done. Connections that are cut off in
    /// the middle are dropped.
    fn send_all(&mut self) -> Result<Vec<(i32, Expected)>, Failure> {
        let mut by_node: BTreeMap<i32, Vec<FetchPartition>> = BTreeMap::new();
        for (&partition, position) in &self.positions {
            if position.is_done() {
                continue;
            }
            let node = self.topic.leader(partition)?;
            by_node.entry(node).or_default().push(FetchPartition {
                partition,
                fetch_offset: position.next,
                partition_max_bytes: PARTITION_BYTES_MAX,
                ..Default::default()
            });
        }
        let max_wait_ms = (FETCH_WAIT_MS / by_node.len().max(1)).max(1) as i32;
        let mut expected: Vec<(i32, Expected)> = Vec::new();
        for (node, partitions) in by_node {
            match self.send(node, partitions, max_wait_ms) {
                Ok(sent) => expected.push((node, sent)),
                Err(failure) => {
                    // Their answers would be taken for those to later requests.
                    self.client.drop_node(node);
                    for (node, _) in expected {
                        self.client.drop_node(node);
                    }
                    return Err(failure);
                }
            }
        }
        Ok(expected)
    }

    fn send(
        &mut self,
        node: i32,
        partitions: Vec<FetchPartition>,
        max_wait_ms: i32,
    ) -> Result<Expected, Failure> {
        let request = FetchRequest {
            max_wait_ms,
            min_bytes: 1,
            max_bytes: FETCH_BYTES_MAX,
            isolation_level: self.isolation.level(),
            topics: vec![FetchTopic {
                topic: self.topic.name.as_str().into(),
                topic_id: self.topic.id,
                partitions,
            }],
            ..Default::default()
        };
        let version_max = match self.topic.id.is_zero() {
            true => VERSION_BY_NAME_MAX,
            false => i16::MAX,
        };
        self.client.node(node)?.send(&request, version_max)
    }

    fn receive_all(&mut self, expected: Vec<(i32, Expected)>) -> Result<Vec<Reply>, Failure> {
        let nodes: BTreeSet<i32> = expected.iter().map(|(node, _)| *node).collect();
        let mut replies = Vec::new();
        for (node, expected) in expected {
            let received = self
                .client
                .node(node)
                .and_then(|connection| connection.receive(expected));
            match received {
                Ok(reply) => replies.push(reply),
                Err(failure) => {
                    nodes
                        .into_iter()
                        .for_each(|node| self.client.drop_node(node));
                    return Err(failure);
                }
            }
        }
        Ok(replies)
    }

    fn recover(&mut self, failure: Failure) -> Result<(), Failure> {
        self.patience.wait_after(failure)?;
        let name = self.topic.name.clone();
        self.topic = self.client.topic(Topics::One(&name))?;
        Ok(())
    }
}

fn damaged(subject: &str, error: &BatchError) -> Failure {
    Failure::Protocol {
        address: subject.to_owned(),
        reason: format!("damaged records: {error}"),
    }
}

/// Offset behind the last whole batch. The last one may be cut, but not if it is the only one.
fn end_of(batches: &[u8], from: i64) -> Result<i64, BatchError> {
    let mut next = from;
    for batch in Batches::new(batches) {
        match batch {
            Ok(batch) => next = next.max(batch.header().last_offset().wrapping_add(1)),
            Err(BatchError::TooShort { .. } | BatchError::Truncated { .. }) if next > from => break,
            Err(error) => return Err(error),
        }
    }
    Ok(next)
}

/// Up to which offset records were handed on, and whether that is enough.
fn visit_all(
    portion: &Portion<'_>,
    topic: &str,
    visit: &mut dyn FnMut(&Fetched<'_>) -> Result<Visit, Failure>,
) -> Result<(i64, Visit), Failure> {
    let subject = format!("topic {topic} partition {}", portion.partition);
    let mut filter = AbortFilter::new(portion.aborted.as_deref());
    let mut handed_on = portion.from;
    let mut visit = |fetched: &Fetched<'_>| {
        handed_on = fetched.offset + 1;
        visit(fetched)
    };
    for batch in Batches::new(portion.batches).map_while(Result::ok) {
        let result = visit_batch(portion, &batch, &mut filter, &mut visit);
        if result.map_err(|error| damaged(&subject, &error))?? == Visit::Stop {
            return Ok((handed_on, Visit::Stop));
        }
    }
    let next = portion
        .end
        .map_or(portion.next, |end| end.min(portion.next));
    Ok((next, Visit::Continue))
}

/// The outer error is that of the batch, the inner one that of `visit`.
fn visit_batch(
    portion: &Portion<'_>,
    batch: &BatchView<'_>,
    filter: &mut AbortFilter,
    visit: &mut dyn FnMut(&Fetched<'_>) -> Result<Visit, Failure>,
) -> Result<Result<Visit, Failure>, BatchError> {
    let header = batch.header();
    batch.verify_checksum()?;
    if !filter.admits(batch)? {
        return Ok(Ok(Visit::Continue));
    }
    if header.record_count < 0 {
        return Err(BatchError::BadCount(header.record_count));
    }
    let plain: Cow<'_, [u8]> = batch.plain_payload(PLAIN_BYTES_MAX)?;
    for record in Records::new(&plain, header.record_count) {
        let record = record?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        if offset < portion.from || portion.end.is_some_and(|end| offset >= end) {
            continue;
        }
        let timestamp_ms = match header.attributes.timestamp_type() {
            TimestampType::CreateTime => header.base_timestamp.wrapping_add(record.timestamp_delta),
            TimestampType::LogAppendTime => header.max_timestamp,
        };
        let fetched = Fetched {
            partition: portion.partition,
            offset,
            timestamp_ms,
            record,
        };
        match visit(&fetched) {
            Ok(Visit::Continue) => {}
            stopped => return Ok(stopped),
        }
    }
    Ok(Ok(Visit::Continue))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::compression::{Codec, Compression};
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

    fn batch(base_offset: i64, records: usize, options: BatchOptions) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset,
            ..options
        });
        for index in 0..records {
            let value = format!("{}", base_offset + index as i64);
            let timestamp_ms = 1000 + index as i64;
            builder.append(
                timestamp_ms,
                None,
                Some(value.as_bytes()),
                std::iter::empty(),
            );
        }
        builder.finish()
    }

    fn portion(from: i64, end: Option<i64>, batches: &[u8]) -> Portion<'_> {
        Portion {
            partition: 0,
            from,
            next: end_of(batches, from).unwrap_or(from),
            end,
            batches,
            aborted: None,
        }
    }

    fn visited(from: i64, end: Option<i64>, batches: &[u8]) -> Result<Vec<(i64, i64)>, Failure> {
        let portion = portion(from, end, batches);
        let mut seen = Vec::new();
        let visit = &mut |fetched: &Fetched<'_>| {
            let value = fetched.record.value.expect("a value");
            assert_eq!(value, fetched.offset.to_string().as_bytes());
            seen.push((fetched.offset, fetched.timestamp_ms));
            Ok(Visit::Continue)
        };
        visit_all(&portion, "t", visit)?;
        Ok(seen)
    }

    #[test]
    fn only_records_from_the_position_to_the_end_are_handed_on() {
        let zstd = BatchOptions {
            compression: Compression::of(Codec::Zstd),
            ..Default::default()
        };
        let mut log = batch(0, 3, zstd);
        log.extend(batch(3, 3, BatchOptions::default()));
        let seen = visited(1, Some(5), &log).expect("whole batches");
        assert_eq!(seen, [(1, 1001), (2, 1002), (3, 1000), (4, 1001)]);
        assert_eq!(end_of(&log, 1), Ok(6));
    }

    #[test]
    fn the_append_time_stands_for_every_record_and_markers_are_left_out() {
        let options = BatchOptions {
            log_append_time_ms: Some(77),
            ..Default::default()
        };
        let mut log = batch(0, 2, options);
        let control = BatchOptions {
            is_control: true,
            ..Default::default()
        };
        log.extend(batch(2, 1, control));
        assert_eq!(visited(0, None, &log).expect("batches"), [(0, 77), (1, 77)]);
        assert_eq!(end_of(&log, 0), Ok(3));
    }

    #[test]
    fn a_cut_batch_waits_for_the_next_fetch_unless_it_is_alone() {
        let whole = batch(0, 2, BatchOptions::default());
        let mut log = whole.clone();
        log.extend(batch(2, 2, BatchOptions::default()));
        for cut in whole.len() + 1..log.len() {
            assert_eq!(end_of(&log[..cut], 0), Ok(2), "cut at {cut}");
            assert_eq!(visited(0, None, &log[..cut]).expect("one batch").len(), 2);
        }
        assert!(end_of(&log[..whole.len() - 1], 0).is_err());
        assert_eq!(end_of(&[], 9), Ok(9));
    }

    #[test]
    fn a_wrong_checksum_is_named() {
        let mut log = batch(0, 2, BatchOptions::default());
        *log.last_mut().expect("bytes") ^= 1;
        let failure = visited(0, None, &log).expect_err("damage");
        assert!(failure.to_string().contains("crc"), "{failure}");
    }

    #[test]
    fn the_first_stop_ends_the_visit() {
        let log = batch(0, 9, BatchOptions::default());
        let portion = portion(0, None, &log);
        let mut seen = 0;
        let visit = &mut |_: &Fetched<'_>| {
            seen += 1;
            let enough = seen == 4;
            Ok(if enough { Visit::Stop } else { Visit::Continue })
        };
        assert_eq!(
            visit_all(&portion, "t", visit).expect("a batch"),
            (4, Visit::Stop)
        );
        assert_eq!(seen, 4);
    }
}
