//! What a broker's stall does to the figures, played on a virtual clock: no sockets, no waiting.

use std::collections::VecDeque;

use crate::flow::{Flow, Lane, Partitioner, RequestLimits};
use crate::measure::{Recorder, Volume, Window};
use crate::schedule::{Nanos, Pace, SECOND, Schedule};

const MILLISECOND: Nanos = SECOND / 1_000;

/// A broker that answers each request a millisecond after the one before, but nothing during a stall.
#[derive(Default)]
struct StallingBroker {
    stall: std::ops::Range<Nanos>,
    answers: VecDeque<Nanos>,
}

impl StallingBroker {
    fn take(&mut self, now: Nanos) {
        let last = self.answers.back().copied().unwrap_or(0);
        let at = now.max(last) + MILLISECOND / 10;
        let at = if self.stall.contains(&at) {
            self.stall.end
        } else {
            at
        };
        self.answers.push_back(at);
    }
}

fn limits(batch_records: u32, batches: usize) -> RequestLimits {
    RequestLimits {
        batch_records,
        batches,
    }
}

fn flow(partitioner: Partitioner, limits: RequestLimits, window: usize) -> Flow {
    let lane = Lane::new(0, 1, vec![0, 1, 2], 0, partitioner, limits);
    Flow::new(vec![lane], window)
}

/// Plays `pace` until everything that is due before `end` is answered.
fn play(flow: &mut Flow, pace: &Pace, broker: &mut StallingBroker, end: Nanos) -> Recorder {
    let mut recorder = Recorder::new(Window {
        from: 0,
        to: Some(end),
    });
    let mut now = 0;
    loop {
        while broker.answers.front().is_some_and(|at| *at <= now) {
            broker.answers.pop_front();
            let request = flow.answered().expect("it was sent");
            recorder.answered(&request, &[], pace, now);
            let volume = Volume {
                records: request.record_count(),
                ..Volume::default()
            };
            recorder.count(volume, now);
        }
        while (now < end || matches!(pace, Pace::Open(_))) && flow.next(pace, now).is_some() {
            broker.take(now);
        }
        let answer = broker.answers.front().copied();
        match (answer, pace.next_due(now)) {
            (None, None) => return recorder,
            (answer, due) => now = answer.unwrap_or(u64::MAX).min(due.unwrap_or(u64::MAX)),
        }
    }
}

fn stalled(start: Nanos, length: Nanos) -> StallingBroker {
    StallingBroker {
        stall: start..start + length,
        answers: VecDeque::new(),
    }
}

#[test]
fn a_stall_shows_in_the_percentiles_of_an_open_loop() {
    let schedule = Schedule {
        start: 0,
        rate: 10_000,
        limit: 30_000,
    };
    for partitioner in [Partitioner::Sticky, Partitioner::RoundRobin] {
        let mut flow = flow(partitioner, limits(100, 3), 5);
        let mut broker = stalled(SECOND, SECOND / 2);
        let recorder = play(&mut flow, &Pace::Open(schedule), &mut broker, 3 * SECOND);
        let latency = &recorder.latency;
        assert_eq!(latency.count(), 30_000, "every record that was due counts");
        assert_eq!(recorder.total.records, 30_000);
        // A sixth of the records was due in the stall; on average they waited half of it.
        assert!(latency.at_percentile(50.0) < 5_000, "{latency:?}");
        assert!(latency.at_percentile(90.0) > 150_000, "{latency:?}");
        assert!((495_000..510_000).contains(&latency.max()), "{latency:?}");
    }
}

#[test]
fn without_a_rate_the_same_stall_hides_behind_the_window() {
    let mut flow = flow(Partitioner::Sticky, limits(1, 1), 5);
    let mut broker = stalled(SECOND, SECOND / 2);
    let pace = Pace::Closed { limit: u64::MAX };
    let recorder = play(&mut flow, &pace, &mut broker, 3 * SECOND);
    let latency = &recorder.latency;
    assert!(latency.count() > 20_000);
    assert!(latency.at_percentile(99.9) < 5_000, "{latency:?}");
    assert!(latency.max() >= 495_000, "{latency:?}");
}

#[test]
fn what_is_never_answered_counts_with_the_time_it_waited() {
    let schedule = Schedule {
        start: 0,
        rate: 1_000,
        limit: 2_000,
    };
    let pace = Pace::Open(schedule);
    for partitioner in [Partitioner::Sticky, Partitioner::RoundRobin] {
        let mut flow = flow(partitioner, limits(10, 2), 2);
        // The window fills and nobody answers.
        for now in (0..2 * SECOND).step_by(MILLISECOND as usize) {
            while flow.next(&pace, now).is_some() {}
        }
        let now = 2 * SECOND;
        let sent: u64 = flow
            .unanswered()
            .map(|request| request.record_count())
            .sum();
        let mut left = Vec::new();
        flow.lanes()[0].backlog_indices(pace.available(now), &mut |index| left.push(index));
        assert_eq!(sent + left.len() as u64, 2_000);
        let sent = flow.unanswered().flat_map(|request| &request.batches);
        let mut all: Vec<u64> = sent.flat_map(|batch| batch.indices()).chain(left).collect();
        all.sort_unstable();
        assert_eq!(all, (0..2_000).collect::<Vec<_>>(), "each record once");
    }
}

#[test]
fn records_are_divided_among_lanes_and_partitions_without_loss() {
    for partitioner in [Partitioner::Sticky, Partitioner::RoundRobin] {
        for (batch_records, batches) in [(1, 1), (7, 2), (50, 3)] {
            let lanes: Vec<Lane> = (0..4)
                .map(|number| {
                    let limits = limits(batch_records, batches);
                    Lane::new(number, 4, vec![0, 1, 2], number, partitioner, limits)
                })
                .collect();
            let mut flow = Flow::new(lanes, 1);
            let (mut seen, mut targets) = (Vec::new(), [0_u64; 3]);
            let pace = Pace::Closed { limit: 1_001 };
            while flow.next(&pace, 0).is_some() {
                let request = flow.answered().expect("one is in flight");
                assert!(request.batches.len() <= batches);
                for batch in &request.batches {
                    assert!(batch.count <= batch_records);
                    seen.extend(batch.indices());
                    targets[batch.target] += u64::from(batch.count);
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..1_001).collect::<Vec<_>>());
            let spread = targets.iter().max().unwrap() - targets.iter().min().unwrap();
            let spread_max = if partitioner == Partitioner::Sticky {
                300
            } else {
                4
            };
            assert!(spread <= spread_max, "{targets:?}");
        }
    }
}

#[test]
fn a_refused_request_is_sent_again_later_and_keeps_its_place_in_the_window() {
    let mut flow = flow(Partitioner::Sticky, limits(1, 1), 2);
    let pace = Pace::Closed { limit: 3 };
    assert!(flow.next(&pace, 0).is_some());
    assert!(flow.next(&pace, 0).is_some());
    let refused = flow.answered().expect("one is in flight");
    flow.retry(50, refused.clone());
    assert!(flow.next(&pace, 49).is_none(), "the window is full");
    assert_eq!(flow.retry_at(), Some(50));
    let again = flow.next(&pace, 50).expect("its time has come").clone();
    assert_eq!((again.sent, again.batches), (0, refused.batches));
    assert_eq!(flow.retry_at(), None);
    assert!(!flow.is_idle(3));
    for _ in 0..2 {
        assert!(flow.answered().is_some());
    }
    assert!(flow.next(&pace, 60).is_some(), "the third record");
    assert!(flow.answered().is_some());
    assert!(flow.is_idle(3));
}

#[test]
fn nothing_new_is_sent_once_the_load_is_over() {
    for partitioner in [Partitioner::Sticky, Partitioner::RoundRobin] {
        let mut flow = flow(partitioner, limits(4, 2), 2);
        let pace = Pace::Closed { limit: u64::MAX };
        assert!(flow.next(&pace, 0).is_some());
        let over = Pace::Closed { limit: 0 };
        assert!(flow.next(&over, 1).is_none());
        assert!(flow.answered().is_some());
        assert!(flow.next(&over, 2).is_none());
        assert!(flow.is_idle(0));
    }
}
