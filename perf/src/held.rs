//! Groups, members of one group, and open transactions that stay: what opening and holding them takes.
//!
//! A few connections share them, each with one request on its way. Groups are of the consumer protocol
//! (KIP-848): each has one member and one committed offset; the members of one group send heartbeats
//! until every one has its partitions. An open transaction has one record.

use std::time::{Duration, Instant};

use percolog::wire::codec::Uuid;
use percolog::wire::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use serde_json::{Value, json};

use crate::accounting::Accounting;
use crate::client::{Client, Failure};
use crate::cluster::{Cluster, Topic};
use crate::coordination::{Transactor, commit_one, find, insist};
use crate::latency::Latency;
use crate::options::{HeldKind, HeldOptions};

/// Longest that a member may be silent; a tenth of it is left for a heartbeat of all.
const LIVES: Duration = Duration::from_secs(40);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Held {
    count: u32,
    opening: Phase,
    /// Until nothing moves any more.
    settling: Phase,
    /// A heartbeat of every member.
    beating: Phase,
    closing: Phase,
    before_bytes: u64,
    after_bytes: u64,
    is_accounted: bool,
}

/// Requests of one kind, over all of them.
#[derive(Debug)]
struct Phase {
    latency: Latency,
    duration: Duration,
}

/// One of those that are held.
trait Holds: Send {
    fn open(&mut self, client: &mut Client) -> Result<(), Failure>;
    /// Keeps it alive; whether it changed by that.
    fn beat(&mut self, client: &mut Client) -> Result<bool, Failure>;
    fn close(&mut self, client: &mut Client) -> Result<(), Failure>;
}

/// Connections, each with its share.
type Shares = Vec<(Client, Vec<Box<dyn Holds>>)>;

/// Opens all, holds them, and lets them go.
pub(crate) fn measure(
    options: &HeldOptions,
    cluster: &Cluster,
) -> Result<(Held, Accounting), Failure> {
    let account = || Accounting::new(options.run.broker_pid, options.run.data_dir.as_ref());
    let (mut opening_account, mut holding_account) = (account()?, account()?);
    let mut shares = shares(options, cluster)?;
    opening_account.start();
    let opening = phase(&mut shares, |client, held| held.open(client).map(|()| true))?.0;
    let begun = Instant::now();
    let mut settling = Phase {
        latency: Latency::new(),
        duration: Duration::ZERO,
    };
    loop {
        let (round, changed) = phase(&mut shares, |client, held| held.beat(client))?;
        if !changed {
            break;
        }
        settling.latency.absorb(&round.latency);
        settling.duration = begun.elapsed();
        if settling.duration > LIVES {
            return Err("the members do not settle".to_string());
        }
    }
    holding_account.start();
    let beating = phase(&mut shares, |client, held| held.beat(client))?.0;
    holding_account.stop();
    let closing = phase(&mut shares, |client, held| {
        held.close(client).map(|()| true)
    })?
    .0;
    let held = Held {
        count: options.count,
        opening,
        settling,
        beating,
        closing,
        before_bytes: opening_account.memory_at_start(),
        after_bytes: holding_account.broker_memory().map_or(0, |(end, _)| end),
        is_accounted: options.run.broker_pid.is_some(),
    };
    Ok((held, holding_account))
}

/// Does one thing with all of them, every connection beside the others; whether anything changed.
fn phase(
    shares: &mut Shares,
    act: impl Fn(&mut Client, &mut dyn Holds) -> Result<bool, Failure> + Sync,
) -> Result<(Phase, bool), Failure> {
    let begun = Instant::now();
    let act = &act;
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = shares
            .iter_mut()
            .map(|(client, held)| {
                scope.spawn(move || {
                    let (mut latency, mut changed) = (Latency::new(), false);
                    for one in held {
                        let started = Instant::now();
                        changed |= act(client, &mut **one)?;
                        let nanoseconds = started.elapsed().as_nanos();
                        latency.record(u64::try_from(nanoseconds).unwrap_or(u64::MAX), 1);
                    }
                    Ok::<_, Failure>((latency, changed))
                })
            })
            .collect();
        let joined = threads.into_iter();
        joined
            .map(|thread| thread.join().expect("threads do not panic"))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let mut phase = Phase {
        latency: Latency::new(),
        duration: begun.elapsed(),
    };
    let mut changed = false;
    for (latency, is_changed) in results {
        phase.latency.absorb(&latency);
        changed |= is_changed;
    }
    Ok((phase, changed))
}

fn shares(options: &HeldOptions, cluster: &Cluster) -> Result<Shares, Failure> {
    let name = format!("percolog-perf-held-{}", std::process::id());
    let mut shares = Shares::new();
    for _ in 0..options.connections.min(options.count) {
        shares.push((Client::open(&options.run.bootstrap)?, Vec::new()));
    }
    let (key, key_type) = match options.kind {
        HeldKind::Groups | HeldKind::Members => (&name, 0),
        HeldKind::Transactions => (&name, 1),
    };
    find(&mut shares[0].0, key, key_type)?;
    for number in 0..options.count {
        let own = format!("{name}-{number}");
        let topic = cluster.topics[0].clone();
        let share = &mut shares[number as usize % options.connections as usize];
        let held: Box<dyn Holds> = match options.kind {
            HeldKind::Groups => Box::new(Member::new(own.clone(), own, topic, true)),
            HeldKind::Members => Box::new(Member::new(name.clone(), own, topic, false)),
            HeldKind::Transactions => Box::new(Open {
                transactor: Transactor::new(own, number, 100, cluster),
            }),
        };
        share.1.push(held);
    }
    Ok(shares)
}

/// A member of a consumer group.
struct Member {
    group: String,
    id: String,
    topic: Topic,
    commits: bool,
    epoch: i32,
    owned: Vec<(Uuid, Vec<i32>)>,
}

impl Member {
    fn new(group: String, id: String, topic: Topic, commits: bool) -> Member {
        Member {
            group,
            id,
            topic,
            commits,
            epoch: 0,
            owned: Vec::new(),
        }
    }

    /// Whether it learned something.
    fn heartbeat(&mut self, client: &mut Client, epoch: i32) -> Result<bool, Failure> {
        let is_join = epoch == 0;
        let owned = self
            .owned
            .iter()
            .map(|(topic_id, partitions)| TopicPartitions {
                topic_id: *topic_id,
                partitions: partitions.clone(),
            });
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.as_str().into(),
            member_id: self.id.as_str().into(),
            member_epoch: epoch,
            rebalance_timeout_ms: if is_join { 60_000 } else { -1 },
            subscribed_topic_names: is_join.then(|| vec![self.topic.name.as_str().into()]),
            topic_partitions: (epoch >= 0).then(|| owned.collect()),
            ..ConsumerGroupHeartbeatRequest::default()
        };
        let mut told = None;
        insist("ConsumerGroupHeartbeat", || {
            client.ask(&request, |answer| {
                let assignment = answer.assignment.map(|assignment| {
                    let topics = assignment.topic_partitions.into_iter();
                    topics
                        .map(|topic| (topic.topic_id, topic.partitions))
                        .collect()
                });
                told = Some((answer.member_epoch, assignment));
                answer.error_code
            })
        })?;
        let (epoch, assignment) = told.expect("an answer was read");
        let changed = epoch != self.epoch || assignment.is_some();
        self.epoch = epoch;
        self.owned = assignment.unwrap_or(std::mem::take(&mut self.owned));
        Ok(changed)
    }
}

impl Holds for Member {
    fn open(&mut self, client: &mut Client) -> Result<(), Failure> {
        self.heartbeat(client, 0)?;
        if self.commits {
            let member = (self.id.as_str(), self.epoch);
            commit_one(client, &self.group, member, &self.topic)?;
        }
        Ok(())
    }

    fn beat(&mut self, client: &mut Client) -> Result<bool, Failure> {
        self.heartbeat(client, self.epoch)
    }

    fn close(&mut self, client: &mut Client) -> Result<(), Failure> {
        self.heartbeat(client, -1).map(|_| ())
    }
}

/// A transaction with one record.
struct Open {
    transactor: Transactor,
}

impl Holds for Open {
    fn open(&mut self, client: &mut Client) -> Result<(), Failure> {
        self.transactor.init(client)?;
        self.transactor.produce(client).map(|_| ())
    }

    fn beat(&mut self, _client: &mut Client) -> Result<bool, Failure> {
        Ok(false)
    }

    fn close(&mut self, client: &mut Client) -> Result<(), Failure> {
        self.transactor.end(client).map(|_| ())
    }
}

impl Phase {
    fn to_line(&self) -> String {
        let per_second = self.latency.count() as f64 / self.duration.as_secs_f64().max(1e-9);
        format!(
            "{:.2} s, {per_second:.0}/s, {}",
            self.duration.as_secs_f64(),
            self.latency.to_line()
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "count": self.latency.count(),
            "seconds": self.duration.as_secs_f64(),
            "latency": self.latency.to_json(),
        })
    }
}

impl Held {
    /// Resident memory of the broker that came with each; none if its process is not known.
    fn kibibytes_each(&self) -> Option<f64> {
        let grown = self.after_bytes as f64 - self.before_bytes as f64;
        (self.is_accounted).then(|| grown / 1024.0 / f64::from(self.count))
    }

    /// For the terminal.
    pub(crate) fn to_lines(&self, kind: HeldKind) -> String {
        let mut text = format!("{} {}\n", self.count, kind.name());
        let mut phase = |name: &str, phase: &Phase| {
            if phase.latency.count() > 0 {
                text += &format!("  {name:<22} {}\n", phase.to_line());
            }
        };
        phase("opened", &self.opening);
        phase("settled", &self.settling);
        if kind != HeldKind::Transactions {
            phase("one heartbeat of each", &self.beating);
        }
        phase("closed", &self.closing);
        if let Some(kibibytes) = self.kibibytes_each() {
            text += &format!("  {:<22} {kibibytes:.2} KiB each\n", "broker memory");
        }
        text
    }

    /// For the report.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "count": self.count,
            "opened": self.opening.to_json(),
            "settled": self.settling.to_json(),
            "heartbeats": self.beating.to_json(),
            "closed": self.closing.to_json(),
            "resident_kibibytes_each": self.kibibytes_each(),
        })
    }
}
