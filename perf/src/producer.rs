//! The producing side of a run.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use percolog::wire::api_table::ApiKey;
use percolog::wire::codec::{Records, Writer};
use percolog::wire::error_code::ErrorCode;
use percolog::wire::frame;
use percolog::wire::messages::init_producer_id::InitProducerIdRequest;
use percolog::wire::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use percolog::wire::record_batch::advance_sequence;

use crate::batch::{BatchMaker, COPY_BYTES_MAX, Origin, ReadyBatch, STAMP_BYTES};
use crate::client::{CLIENT_ID, Client, Failure, error_name, version_of};
use crate::cluster::Cluster;
use crate::flow::{Batch, Flow, Lane, Request, RequestLimits};
use crate::measure::{Recorder, Volume, Window};
use crate::options::{LoadOptions, Spread};
use crate::schedule::{Nanos, Pace, SECOND};
use crate::sockets::Sockets;

const REQUEST_TIMEOUT_MS: i32 = 30_000;
/// From this version on topics go by id.
const TOPIC_ID_VERSION: i16 = 13;
/// What a refused batch waits before it is sent again, as in Kafka's clients.
const RETRY_BACKOFF: Nanos = SECOND / 10;
/// And how long it is tried.
const RETRY_TIME_MAX: Nanos = 30 * SECOND;
/// What a lost connection's records are counted under.
const CONNECTION_LOST: &str = "CONNECTION_LOST";

/// A connection of the producing side.
#[derive(Debug)]
struct Line {
    token: usize,
    flow: Flow,
    /// Producer ids of the lanes.
    origins: Vec<Origin>,
    /// Next sequence by lane and target.
    sequences: BTreeMap<(usize, usize), i32>,
    /// Without acknowledgements: where each request ends in what was queued.
    ends: VecDeque<u64>,
    /// Bytes of the batches of each request in flight.
    batch_bytes: VecDeque<u64>,
    next_correlation_id: i32,
    is_lost: bool,
}

/// The producing side.
#[derive(Debug)]
pub(crate) struct Producer {
    cluster: Cluster,
    acks: i16,
    version: i16,
    /// Batches are numbered: those in flight behind a refused one are refused too, so none is retried.
    is_idempotent: bool,
    maker: BatchMaker,
    lines: Vec<Line>,
    /// Line of each lane, by the lane's number.
    line_of_lane: Vec<usize>,
    /// Lines that may have something to send.
    ready: BTreeSet<usize>,
    /// Lines with something to be sent again.
    retrying: BTreeSet<usize>,
    /// Records that were due at the last look.
    seen_due: u64,
    payload_bytes_per_record: u64,
    /// Marks the values of this run, if receivers need to know when they were due.
    nonce: Option<u64>,
    spare: Vec<u8>,
    /// How much may be sent.
    pub(crate) pace: Pace,
    /// What came of it.
    pub(crate) recorder: Recorder,
}

impl Producer {
    /// What makes the batches of a load. It takes a moment, hence apart.
    pub(crate) fn prepare(load: &LoadOptions, has_stamps: bool) -> Result<BatchMaker, Failure> {
        let (shape, pool_bytes) = (load.shape()?, load.pool_bytes as usize);
        Ok(BatchMaker::new(shape, pool_bytes, load.seed, !has_stamps))
    }

    /// Connects to the leaders.
    pub(crate) fn open(
        cluster: &Cluster,
        load: &LoadOptions,
        maker: BatchMaker,
        nonce: Option<u64>,
        sockets: &mut Sockets,
    ) -> Result<Producer, Failure> {
        let shape = load.shape()?;
        let mut maker = maker;
        maker.set_target_count(cluster.targets.len());
        let mut version = version_of(&cluster.versions, ApiKey::Produce)?;
        if cluster.topics.iter().any(|topic| topic.id.is_zero()) {
            version = version.min(TOPIC_ID_VERSION - 1);
        }
        let mut producer = Producer {
            cluster: cluster.clone(),
            acks: load.acks.code(),
            version,
            is_idempotent: load.idempotent,
            maker,
            lines: Vec::new(),
            line_of_lane: Vec::new(),
            ready: BTreeSet::new(),
            retrying: BTreeSet::new(),
            seen_due: 0,
            payload_bytes_per_record: shape.payload_bytes(1),
            nonce,
            spare: Vec::new(),
            pace: Pace::Closed { limit: 0 },
            recorder: Recorder::new(Window::ALL),
        };
        let limits = RequestLimits {
            batch_records: shape.records(),
            batches: load.partitions_per_request as usize,
        };
        producer.open_lines(load, limits, sockets)?;
        Ok(producer)
    }

    fn open_lines(
        &mut self,
        load: &LoadOptions,
        limits: RequestLimits,
        sockets: &mut Sockets,
    ) -> Result<(), Failure> {
        let leaders: BTreeSet<i32> = self.cluster.targets.iter().map(|t| t.leader).collect();
        let connections = load.connections as usize;
        let producers = load
            .producers
            .map_or(connections, |count| count as usize)
            .max(connections);
        let lane_count = leaders.len() * producers;
        let mut lane_number = 0;
        for leader in leaders {
            let led: Vec<usize> = (0..self.cluster.targets.len())
                .filter(|target| self.cluster.targets[*target].leader == leader)
                .collect();
            let mut lanes = vec![Vec::new(); connections];
            for producer in 0..producers {
                let (targets, first) = share(&led, load.spread, producer, producers);
                let partitioner = load.partitioner;
                let number = lane_number + producer;
                let lane = Lane::new(number, lane_count, targets, first, partitioner, limits);
                lanes[producer % connections].push(lane);
                self.line_of_lane
                    .push(self.lines.len() + producer % connections);
            }
            lane_number += producers;
            let address = &self.cluster.brokers[&leader];
            for lanes in lanes {
                let origins = origins(address, lanes.len(), load.idempotent)?;
                self.lines.push(Line {
                    token: sockets.open(address)?,
                    flow: Flow::new(lanes, load.in_flight as usize),
                    origins,
                    sequences: BTreeMap::new(),
                    ends: VecDeque::new(),
                    batch_bytes: VecDeque::new(),
                    next_correlation_id: 0,
                    is_lost: false,
                });
            }
        }
        Ok(())
    }

    /// Whether the token is one of this side's.
    pub(crate) fn line_of(&self, token: usize) -> Option<usize> {
        // Tokens are given in order.
        let first = self.lines.first()?.token;
        let line = token.checked_sub(first)?;
        (line < self.lines.len()).then_some(line)
    }

    /// Every line may have something to send.
    pub(crate) fn wake_all(&mut self) {
        self.ready.extend(0..self.lines.len());
    }

    /// Sends what is due and has room.
    pub(crate) fn pump(&mut self, now: Nanos, wall_ms: i64, sockets: &mut Sockets) {
        let due = self.pace.available(now);
        if let Pace::Open(_) = self.pace {
            let lanes = self.line_of_lane.len() as u64;
            let new = (due - self.seen_due).min(lanes);
            for index in due - new..due {
                self.ready
                    .insert(self.line_of_lane[(index % lanes) as usize]);
            }
            self.seen_due = due;
        }
        let lines = &self.lines;
        let is_due = |line: &usize| lines[*line].flow.retry_at().is_some_and(|at| at <= now);
        self.ready
            .extend(self.retrying.iter().copied().filter(is_due));
        while let Some(line) = self.ready.pop_first() {
            if self.lines[line].is_lost {
                continue;
            }
            let mut is_any = false;
            while let Some(request) = self.lines[line].flow.next(&self.pace, now) {
                let request = request.clone();
                if request.attempt == 0 {
                    self.recorder.sent(&request, &self.pace);
                }
                self.send(line, &request, wall_ms, sockets);
                is_any = true;
            }
            if is_any {
                self.flush(line, now, sockets);
            }
            if self.lines[line].flow.retry_at().is_none() {
                self.retrying.remove(&line);
            }
        }
    }

    /// When the next record is due that was not at `now`, if it could be sent then.
    pub(crate) fn next_due(&self, now: Nanos) -> Option<Nanos> {
        let mut lines = self.lines.iter();
        let has_room = lines.any(|line| !line.is_lost && line.flow.has_room());
        let due = has_room.then(|| self.pace.next_due(now)).flatten();
        let retries = self.retrying.iter();
        let retry = retries.filter_map(|line| self.lines[*line].flow.retry_at());
        due.into_iter().chain(retry).min()
    }

    /// The kernel may take more.
    pub(crate) fn writable(&mut self, line: usize, now: Nanos, sockets: &mut Sockets) {
        self.flush(line, now, sockets);
    }

    fn flush(&mut self, line: usize, now: Nanos, sockets: &mut Sockets) {
        let token = self.lines[line].token;
        sockets.flush(token);
        if sockets.lost(token).is_some() {
            return self.lose(line);
        }
        // Without acknowledgements a request counts when the kernel has taken it.
        let written = sockets.connection(token).written_bytes();
        while self.lines[line]
            .ends
            .front()
            .is_some_and(|end| *end <= written)
        {
            self.lines[line].ends.pop_front();
            self.complete(line, &[], now);
        }
    }

    fn lose(&mut self, line: usize) {
        let line = &mut self.lines[line];
        if !line.is_lost {
            line.is_lost = true;
            let records: u64 = line.flow.unanswered().map(Request::record_count).sum();
            self.recorder.fail(CONNECTION_LOST, records.max(1));
        }
    }

    /// Whether no connection is left.
    pub(crate) fn is_lost(&self) -> bool {
        self.lines.iter().all(|line| line.is_lost)
    }

    /// Whether everything due is answered.
    pub(crate) fn is_idle(&self, now: Nanos) -> bool {
        let available = self.pace.available(now);
        let mut lines = self.lines.iter().filter(|line| !line.is_lost);
        match self.pace {
            Pace::Open(schedule) if available < schedule.limit => false,
            _ => lines.all(|line| line.flow.is_idle(available)),
        }
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_answered(&self) -> bool {
        let mut lines = self.lines.iter().filter(|line| !line.is_lost);
        lines.all(|line| line.flow.unanswered().next().is_none())
    }

    /// Gives `each` the intended time of every record that is due and has no answer.
    pub(crate) fn outstanding(&self, now: Nanos, each: &mut dyn FnMut(Nanos)) {
        for line in &self.lines {
            for request in line.flow.unanswered() {
                for index in request.batches.iter().flat_map(Batch::indices) {
                    each(self.pace.intended(index, request.sent));
                }
            }
            if let Pace::Open(_) = self.pace {
                let available = self.pace.available(now);
                for lane in line.flow.lanes() {
                    lane.backlog_indices(available, &mut |index| {
                        each(self.pace.intended(index, now));
                    });
                }
            }
        }
    }

    fn send(&mut self, line: usize, request: &Request, wall_ms: i64, sockets: &mut Sockets) {
        // Kafka's form has the partitions of a topic side by side.
        let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, batch) in request.batches.iter().enumerate() {
            let topic = self.cluster.targets[batch.target].topic;
            places.entry(topic).or_default().push(place);
        }
        let batches: Vec<ReadyBatch> = places
            .values()
            .flatten()
            .map(|place| self.make(line, request, *place, wall_ms))
            .collect();
        let batch_bytes: usize = batches.iter().map(ReadyBatch::size_bytes).sum();
        self.lines[line].batch_bytes.push_back(batch_bytes as u64);
        let mut next = batches.iter();
        let mut partition = |place: &usize| PartitionProduceData {
            index: self.cluster.targets[request.batches[*place].target].partition,
            records: Records::Detached(next.next().map_or(0, ReadyBatch::size_bytes)),
        };
        let topic_data = places
            .iter()
            .map(|(topic, places)| TopicProduceData {
                name: Cow::Borrowed(&self.cluster.topics[*topic].name),
                topic_id: self.cluster.topics[*topic].id,
                partition_data: places.iter().map(&mut partition).collect(),
            })
            .collect();
        let message = ProduceRequest {
            acks: self.acks,
            timeout_ms: REQUEST_TIMEOUT_MS,
            topic_data,
            ..Default::default()
        };
        let line = &mut self.lines[line];
        let correlation_id = line.next_correlation_id;
        line.next_correlation_id = correlation_id.wrapping_add(1);
        let mut writer = Writer::with_head(std::mem::take(&mut self.spare));
        let version = self.version;
        frame::encode_request(
            &mut writer,
            version,
            correlation_id,
            Some(CLIENT_ID),
            &message,
        );
        let connection = sockets.connection(line.token);
        let mut position = 0;
        for (gap, batch) in writer.gaps().iter().zip(batches) {
            connection.queue(&writer.head()[position..gap.position]);
            position = gap.position;
            connection.queue(&batch.header);
            match batch.records.len() <= COPY_BYTES_MAX {
                true => connection.queue(&batch.records),
                false => connection.queue_shared(batch.records),
            }
        }
        connection.queue(&writer.head()[position..]);
        if self.acks == 0 {
            line.ends.push_back(connection.queued_bytes());
        }
        self.spare = writer.into_parts().0;
        self.spare.clear();
    }

    fn make(&mut self, line: usize, request: &Request, place: usize, wall_ms: i64) -> ReadyBatch {
        let batch = request.batches[place];
        let line = &mut self.lines[line];
        let mut origin = line.origins[request.lane];
        if origin.producer_id >= 0 {
            let sequence = line
                .sequences
                .entry((request.lane, batch.target))
                .or_insert(0);
            origin.base_sequence = *sequence;
            *sequence = advance_sequence(*sequence, batch.count as i32);
        }
        let Some(nonce) = self.nonce else {
            return self.maker.make(batch.target, batch.count, wall_ms, origin);
        };
        let mut indices = batch.indices();
        let mut stamps = || {
            let index = indices.next().unwrap_or(batch.first);
            let mut stamp = [0; STAMP_BYTES];
            stamp[..8].copy_from_slice(&nonce.to_be_bytes());
            let intended = self.pace.intended(index, request.sent);
            stamp[8..].copy_from_slice(&intended.to_be_bytes());
            stamp
        };
        let stamps = Some(&mut stamps as &mut dyn FnMut() -> [u8; STAMP_BYTES]);
        let (target, count) = (batch.target, batch.count);
        self.maker.compose(target, count, wall_ms, origin, stamps)
    }

    /// The socket has something, or is lost.
    pub(crate) fn readable(&mut self, line: usize, now: Nanos, sockets: &mut Sockets) {
        let token = self.lines[line].token;
        sockets.receive(token);
        while let Some(range) = sockets.take_frame(token) {
            let frame = sockets.connection(token).frame(range);
            if let Err(reason) = self.answer(line, frame, now) {
                sockets.lose(token, reason);
            }
        }
        if sockets.lost(token).is_some() {
            self.lose(line);
        }
    }

    fn answer(&mut self, line: usize, frame: &[u8], now: Nanos) -> Result<(), Failure> {
        let decoded = frame::decode_response_of::<ProduceRequest<'_>>(frame, self.version);
        let (_, response) = decoded.map_err(|error| error.to_string())?;
        let request = self.lines[line].flow.oldest();
        let request = request.ok_or("an answer to no request")?;
        let count: usize = response
            .responses
            .iter()
            .map(|t| t.partition_responses.len())
            .sum();
        if count != request.batches.len() {
            return Err(format!(
                "{count} partitions answered, {} asked",
                request.batches.len()
            ));
        }
        let failures = self.failures(request, &response)?;
        let mut again = Request {
            attempt: request.attempt + 1,
            batches: Vec::new(),
            ..*request
        };
        let is_retried = !self.is_idempotent && now < request.sent + RETRY_TIME_MAX;
        for (place, code) in &failures {
            let batch = request.batches[*place];
            let error = ErrorCode::from_code(*code);
            if is_retried && error.is_some_and(ErrorCode::is_retriable) {
                again.batches.push(batch);
            } else {
                self.recorder
                    .fail(&error_name(*code), u64::from(batch.count));
            }
        }
        let failed: Vec<usize> = failures.into_iter().map(|(place, _)| place).collect();
        self.complete(line, &failed, now);
        if !again.batches.is_empty() {
            self.recorder.retried += again.record_count();
            self.lines[line].flow.retry(now + RETRY_BACKOFF, again);
            self.retrying.insert(line);
        }
        Ok(())
    }

    /// Places of batches that were refused, and why.
    fn failures(
        &self,
        request: &Request,
        response: &ProduceResponse<'_>,
    ) -> Result<Vec<(usize, i16)>, Failure> {
        let mut failures = Vec::new();
        for topic in &response.responses {
            let refused = topic
                .partition_responses
                .iter()
                .filter(|p| p.error_code != 0);
            for partition in refused {
                let place = request.batches.iter().position(|batch| {
                    let found = self.cluster.topic_of(batch.target);
                    self.cluster.targets[batch.target].partition == partition.index
                        && match self.version >= TOPIC_ID_VERSION {
                            true => found.id == topic.topic_id,
                            false => found.name == topic.name,
                        }
                });
                let place = place.ok_or("an answer for a partition that was not asked")?;
                failures.push((place, partition.error_code));
            }
        }
        Ok(failures)
    }

    fn complete(&mut self, line: usize, failed: &[usize], now: Nanos) {
        self.ready.insert(line);
        let Some(request) = self.lines[line].flow.answered() else {
            return;
        };
        self.recorder.answered(&request, failed, &self.pace, now);
        let mut volume = Volume {
            requests: 1,
            batch_bytes: self.lines[line].batch_bytes.pop_front().unwrap_or(0),
            ..Volume::default()
        };
        for (place, batch) in request.batches.iter().enumerate() {
            if !failed.contains(&place) {
                volume.records += u64::from(batch.count);
                volume.batches += 1;
            }
        }
        volume.bytes = volume.records * self.payload_bytes_per_record;
        self.recorder.count(volume, now);
    }
}

/// The partitions of one producer of `producers`, and which it begins with.
fn share(led: &[usize], spread: Spread, producer: usize, producers: usize) -> (Vec<usize>, usize) {
    match spread {
        // Producers begin at places spread over the partitions.
        Spread::All => (led.to_vec(), producer * led.len() / producers),
        Spread::Divided if producers > led.len() => (vec![led[producer % led.len()]], 0),
        Spread::Divided => {
            let own = led.iter().skip(producer).step_by(producers);
            (own.copied().collect(), 0)
        }
    }
}

fn origins(address: &str, count: usize, is_idempotent: bool) -> Result<Vec<Origin>, Failure> {
    if !is_idempotent {
        return Ok(vec![Origin::NONE; count]);
    }
    let mut client = Client::open(address)?;
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: REQUEST_TIMEOUT_MS,
        ..Default::default()
    };
    let mut origins = Vec::new();
    for _ in 0..count {
        origins.push(client.ask(&request, |response| {
            crate::client::check("InitProducerId", response.error_code)?;
            Ok::<Origin, Failure>(Origin {
                producer_id: response.producer_id,
                producer_epoch: response.producer_epoch,
                base_sequence: 0,
            })
        })??);
    }
    Ok(origins)
}
