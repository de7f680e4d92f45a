//! The consuming side of a run: Fetch without sessions, one request in flight per connection.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use percolog::wire::api_table::ApiKey;
use percolog::wire::codec::{Records as RecordSet, Writer};
use percolog::wire::frame;
use percolog::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use percolog::wire::record::Records;
use percolog::wire::record_batch::{BatchView, Batches};

use crate::batch::STAMP_BYTES;
use crate::client::{CLIENT_ID, Failure, error_name, version_of};
use crate::cluster::{Cluster, list_offsets};
use crate::measure::{Recorder, Volume, Window};
use crate::options::{FetchOptions, Spread, Start};
use crate::schedule::Nanos;
use crate::sockets::Sockets;

/// From this version on topics go by id.
const TOPIC_ID_VERSION: i16 = 13;
const EARLIEST: i64 = -2;
const END: i64 = -1;
/// Most bytes that come out of one compressed batch.
const PLAIN_BYTES_MAX: usize = 256 << 20;
/// What damaged batches are counted under.
const CORRUPT: &str = "CORRUPT_MESSAGE";
const CONNECTION_LOST: &str = "CONNECTION_LOST";

/// What a run wants to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Connections per broker.
    pub(crate) connections: usize,
    /// Which partitions each reads.
    pub(crate) spread: Spread,
    /// Where to begin.
    pub(crate) from: Start,
    /// Stop at what was the end at the beginning.
    pub(crate) is_bounded: bool,
    /// Begin again there.
    pub(crate) is_repeated: bool,
    /// Records are those of this run, and carry their intended times.
    pub(crate) nonce: Option<u64>,
}

/// A partition as one connection reads it.
#[derive(Clone, Copy, Debug)]
struct Position {
    target: usize,
    start: i64,
    next: i64,
    end: i64,
}

#[derive(Debug)]
struct Line {
    token: usize,
    positions: Vec<Position>,
    asked: Option<Nanos>,
    next_correlation_id: i32,
    is_lost: bool,
}

/// The consuming side.
#[derive(Debug)]
pub(crate) struct Consumer {
    cluster: Cluster,
    options: FetchOptions,
    reading: Reading,
    version: i16,
    lines: Vec<Line>,
    ready: BTreeSet<usize>,
    by_name: BTreeMap<(usize, i32), usize>,
    /// What came of it. Latency is that of records where they carry a time, else that of fetches
    /// that brought something.
    pub(crate) recorder: Recorder,
    /// Records with this run's mark.
    pub(crate) received: u64,
}

/// What one partition of an answer held.
#[derive(Debug, Default)]
struct Found {
    volume: Volume,
    next: Option<i64>,
    error: Option<String>,
    intended: Vec<Nanos>,
}

impl Consumer {
    /// Connects to the leaders and looks up where to begin.
    pub(crate) fn open(
        cluster: &Cluster,
        reading: Reading,
        options: &FetchOptions,
        sockets: &mut Sockets,
    ) -> Result<Consumer, Failure> {
        let mut version = version_of(&cluster.versions, ApiKey::Fetch)?;
        if cluster.topics.iter().any(|topic| topic.id.is_zero()) {
            version = version.min(TOPIC_ID_VERSION - 1);
        }
        let ends = list_offsets(cluster, END)?;
        let starts = match reading.from {
            Start::Beginning => list_offsets(cluster, EARLIEST)?,
            Start::End => ends.clone(),
        };
        let positions: Vec<Position> = (0..cluster.targets.len())
            .map(|target| Position {
                target,
                start: starts[target],
                next: starts[target],
                end: if reading.is_bounded {
                    ends[target]
                } else {
                    i64::MAX
                },
            })
            .collect();
        let mut consumer = Consumer {
            cluster: cluster.clone(),
            options: options.clone(),
            reading,
            version,
            lines: Vec::new(),
            ready: BTreeSet::new(),
            by_name: BTreeMap::new(),
            recorder: Recorder::new(Window::ALL),
            received: 0,
        };
        for (index, target) in cluster.targets.iter().enumerate() {
            let key = (target.topic, target.partition);
            consumer.by_name.insert(key, index);
        }
        consumer.open_lines(&positions, sockets)?;
        Ok(consumer)
    }

    fn open_lines(&mut self, all: &[Position], sockets: &mut Sockets) -> Result<(), Failure> {
        let leaders: BTreeSet<i32> = self.cluster.targets.iter().map(|t| t.leader).collect();
        for leader in leaders {
            let led: Vec<Position> = all
                .iter()
                .filter(|position| self.cluster.targets[position.target].leader == leader)
                .copied()
                .collect();
            let connections = self.reading.connections;
            for number in 0..connections {
                let positions = match self.reading.spread {
                    Spread::All => led.clone(),
                    Spread::Divided if connections > led.len() => vec![led[number % led.len()]],
                    Spread::Divided => led
                        .iter()
                        .skip(number)
                        .step_by(connections)
                        .copied()
                        .collect(),
                };
                self.ready.insert(self.lines.len());
                self.lines.push(Line {
                    token: sockets.open(&self.cluster.brokers[&leader])?,
                    positions,
                    asked: None,
                    next_correlation_id: 0,
                    is_lost: false,
                });
            }
        }
        Ok(())
    }

    /// Whether the token is one of this side's.
    pub(crate) fn line_of(&self, token: usize) -> Option<usize> {
        let first = self.lines.first()?.token;
        let line = token.checked_sub(first)?;
        (line < self.lines.len()).then_some(line)
    }

    /// Whether there is nothing left to read.
    pub(crate) fn is_done(&self) -> bool {
        let is_done = |line: &Line| line.is_lost || (line.asked.is_none() && is_read(line));
        self.ready.is_empty() && self.lines.iter().all(is_done)
    }

    /// Whether no connection is left.
    pub(crate) fn is_lost(&self) -> bool {
        self.lines.iter().all(|line| line.is_lost)
    }

    /// Asks on every connection that waits for nothing.
    pub(crate) fn pump(&mut self, now: Nanos, sockets: &mut Sockets) {
        while let Some(line) = self.ready.pop_first() {
            if self.lines[line].is_lost {
                continue;
            }
            if is_read(&self.lines[line]) {
                if !self.reading.is_repeated {
                    continue;
                }
                for position in &mut self.lines[line].positions {
                    position.next = position.start;
                }
                if is_read(&self.lines[line]) {
                    continue;
                }
            }
            self.ask(line, now, sockets);
        }
    }

    fn ask(&mut self, line: usize, now: Nanos, sockets: &mut Sockets) {
        let mut topics: BTreeMap<usize, Vec<FetchPartition>> = BTreeMap::new();
        for position in &self.lines[line].positions {
            if position.next >= position.end {
                continue;
            }
            let target = self.cluster.targets[position.target];
            topics
                .entry(target.topic)
                .or_default()
                .push(FetchPartition {
                    partition: target.partition,
                    fetch_offset: position.next,
                    partition_max_bytes: self.options.fetch_partition_max_bytes,
                    ..Default::default()
                });
        }
        let topic = |(topic, partitions): (usize, Vec<FetchPartition>)| {
            let topic = &self.cluster.topics[topic];
            FetchTopic {
                topic: Cow::Borrowed(topic.name.as_str()),
                topic_id: topic.id,
                partitions,
            }
        };
        let message = FetchRequest {
            max_wait_ms: self.options.fetch_max_wait,
            min_bytes: self.options.fetch_min_bytes,
            max_bytes: self.options.fetch_max_bytes,
            topics: topics.into_iter().map(topic).collect(),
            ..Default::default()
        };
        let line = &mut self.lines[line];
        let correlation_id = line.next_correlation_id;
        line.next_correlation_id = correlation_id.wrapping_add(1);
        line.asked = Some(now);
        let mut writer = Writer::new();
        frame::encode_request(
            &mut writer,
            self.version,
            correlation_id,
            Some(CLIENT_ID),
            &message,
        );
        sockets.connection(line.token).queue(writer.head());
        sockets.flush(line.token);
    }

    /// The kernel may take more.
    pub(crate) fn writable(&mut self, line: usize, sockets: &mut Sockets) {
        sockets.flush(self.lines[line].token);
    }

    /// The socket has something, or is lost.
    pub(crate) fn readable(&mut self, line: usize, now: Nanos, sockets: &mut Sockets) {
        let token = self.lines[line].token;
        sockets.receive(token);
        while let Some(range) = sockets.take_frame(token) {
            let frame = sockets.connection(token).frame(range);
            match self.answer(line, frame, now) {
                Ok(()) => {
                    self.ready.insert(line);
                }
                Err(reason) => sockets.lose(token, reason),
            }
        }
        if sockets.lost(token).is_some() && !self.lines[line].is_lost {
            self.lines[line].is_lost = true;
            self.recorder.fail(CONNECTION_LOST, 1);
        }
    }

    fn answer(&mut self, line: usize, frame: &[u8], now: Nanos) -> Result<(), Failure> {
        let decoded = frame::decode_response_of::<FetchRequest<'_>>(frame, self.version);
        let (_, response) = decoded.map_err(|error| error.to_string())?;
        let asked = self.lines[line]
            .asked
            .take()
            .ok_or("an answer to no request")?;
        if response.error_code != 0 {
            return Err(error_name(response.error_code));
        }
        let mut volume = Volume {
            requests: 1,
            ..Volume::default()
        };
        for topic in &response.responses {
            let index = self.cluster.topics.iter().position(|known| {
                match self.version >= TOPIC_ID_VERSION {
                    true => known.id == topic.topic_id,
                    false => known.name == topic.topic,
                }
            });
            let index = index.ok_or("an answer for a topic that was not asked")?;
            for partition in &topic.partitions {
                let target = self.by_name.get(&(index, partition.partition_index));
                let target = *target.ok_or("an answer for a partition that was not asked")?;
                volume.add(self.take(line, target, partition, now));
            }
        }
        if volume.records > 0 && self.reading.nonce.is_none() {
            self.recorder.sample(asked, now);
        }
        self.recorder.count(volume, now);
        Ok(())
    }

    fn take(&mut self, line: usize, target: usize, data: &PartitionData<'_>, now: Nanos) -> Volume {
        if data.error_code == 0 && data.records.size_bytes() == 0 {
            return Volume::default();
        }
        let positions = &mut self.lines[line].positions;
        let Some(position) = positions.iter_mut().find(|known| known.target == target) else {
            return Volume::default();
        };
        if data.error_code != 0 {
            self.recorder.fail(&error_name(data.error_code), 1);
            // What fails is not asked for again.
            position.next = position.end;
            return Volume::default();
        }
        let RecordSet::Bytes(bytes) = data.records else {
            return Volume::default();
        };
        let found = read(
            bytes,
            position.next,
            !self.options.skip_crc,
            self.reading.nonce,
        );
        if let Some(next) = found.next {
            position.next = next;
        }
        if let Some(error) = found.error {
            self.recorder.fail(&error, 1);
            position.next = position.end;
        }
        self.received += found.intended.len() as u64;
        for intended in found.intended {
            self.recorder.sample(intended, now);
        }
        found.volume
    }
}

/// Whether every partition of the line is at its end.
fn is_read(line: &Line) -> bool {
    let mut positions = line.positions.iter();
    positions.all(|position| position.next >= position.end)
}

/// Walks the batches of a record set from offset `from` on.
fn read(bytes: &[u8], from: i64, is_checked: bool, nonce: Option<u64>) -> Found {
    let mut found = Found::default();
    let mut next = from;
    let mut batches = Batches::new(bytes);
    let mut size_bytes = 0;
    while let Some(Ok(batch)) = batches.next() {
        size_bytes += batch.bytes().len() as u64;
        let header = *batch.header();
        if header.last_offset() < from {
            continue;
        }
        let problem = match is_checked {
            true => batch.verify_checksum().err(),
            false => None,
        };
        if problem.is_some() {
            found.error = Some(CORRUPT.to_owned());
            break;
        }
        let skipped = (next - header.base_offset).clamp(0, i64::from(header.record_count));
        found.volume.records += header.record_count as u64 - skipped as u64;
        found.volume.batches += 1;
        next = header.last_offset() + 1;
        if let Some(nonce) = nonce
            && let Err(reason) = intended_times(&batch, skipped, nonce, &mut found.intended)
        {
            found.error = Some(reason);
            break;
        }
    }
    // The last batch of an answer may be cut; the first never is.
    if size_bytes == 0 && !bytes.is_empty() {
        found.error = Some(CORRUPT.to_owned());
    }
    found.volume.bytes = size_bytes;
    found.volume.batch_bytes = size_bytes;
    found.next = (next > from).then_some(next);
    found
}

/// When the records of a batch were due, of those that carry this run's mark.
fn intended_times(
    batch: &BatchView<'_>,
    skipped: i64,
    nonce: u64,
    times: &mut Vec<Nanos>,
) -> Result<(), String> {
    let corrupt = |_| CORRUPT.to_owned();
    let plain = batch.plain_payload(PLAIN_BYTES_MAX).map_err(corrupt)?;
    for record in Records::new(&plain, batch.header().record_count).skip(skipped as usize) {
        let record = record.map_err(corrupt)?;
        let stamp = record
            .value
            .and_then(|value| value.first_chunk::<STAMP_BYTES>());
        let Some(stamp) = stamp else {
            continue;
        };
        let stamp = u128::from_be_bytes(*stamp);
        if (stamp >> 64) as u64 == nonce {
            times.push(stamp as u64);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use percolog::wire::record_batch::HEADER_BYTES;
    use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};

    fn batch(base_offset: i64, values: &[&[u8]]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset,
            ..BatchOptions::default()
        });
        for value in values {
            builder.append(5, None, Some(value), [].into_iter());
        }
        builder.finish()
    }

    #[test]
    fn whole_batches_count_and_a_cut_one_at_the_end_does_not() {
        let mut set = [batch(10, &[b"a", b"b"]), batch(12, &[b"c"])].concat();
        set.extend_from_slice(&batch(13, &[b"d"])[..30]);
        let found = read(&set, 10, true, None);
        assert_eq!((found.volume.records, found.volume.batches), (3, 2));
        assert_eq!((found.next, found.error), (Some(13), None));
    }

    #[test]
    fn records_below_the_asked_offset_do_not_count() {
        let found = read(&batch(10, &[b"a", b"b", b"c"]), 11, true, None);
        assert_eq!((found.volume.records, found.next), (2, Some(13)));
    }

    #[test]
    fn a_damaged_batch_is_an_error_unless_checksums_are_skipped() {
        let mut set = batch(0, &[b"some value"]);
        set[HEADER_BYTES + 9] ^= 1;
        assert_eq!(read(&set, 0, true, None).error.as_deref(), Some(CORRUPT));
        assert_eq!(read(&set, 0, false, None).error, None);
        assert_eq!(
            read(&set[..20], 0, true, None).error.as_deref(),
            Some(CORRUPT)
        );
    }

    #[test]
    fn only_this_runs_records_have_times() {
        let stamp = |nonce: u64, time: u64| [nonce.to_be_bytes(), time.to_be_bytes()].concat();
        let set = batch(0, &[&stamp(7, 70), b"short", &stamp(8, 80), &stamp(7, 71)]);
        assert_eq!(read(&set, 0, true, Some(7)).intended, [70, 71]);
        assert_eq!(read(&set, 1, true, Some(7)).intended, [71]);
    }
}
