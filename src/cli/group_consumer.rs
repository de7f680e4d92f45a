//! `percolog consume --group`: reads what the group gives to this process, and commits what was
//! printed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::fetcher::{Fetched, Fetcher, Position, Visit};
use super::group_member::{GroupMember, Standing};
use super::log_offsets::Place;
use super::output;
use super::termination::Termination;

/// How often the group hears of this member.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How often offsets are committed, besides at the end and before a rebalance.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// How often the leader looks whether a topic got partitions.
const TOPICS_INTERVAL: Duration = Duration::from_secs(60);

/// What the records go to.
pub(crate) trait Sink {
    /// Takes a record.
    fn take(&mut self, fetched: &Fetched<'_>) -> Result<Visit, Failure>;
    /// Whether it takes no more.
    fn is_full(&self) -> bool;
    /// Makes sure that all records taken are out, before their offsets are committed.
    fn flush(&mut self) -> Result<(), Failure>;
}

/// Something that is due again and again.
struct Schedule {
    interval: Duration,
    next: Instant,
}

impl Schedule {
    fn every(interval: Duration) -> Schedule {
        let next = Instant::now() + interval;
        Schedule { interval, next }
    }

    /// Whether it is due; if so, it counts as done.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.next;
        if is_due {
            self.next = now + self.interval;
        }
        is_due
    }
}

/// Why reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// All was read that was asked for, or the process was told to stop.
    Done,
    /// The group gives out its partitions anew.
    Rebalance,
}

/// Offsets to begin at in some partitions.
pub(crate) type First<'a> =
    dyn Fn(&mut Fetcher, &[i32]) -> Result<BTreeMap<i32, i64>, Failure> + 'a;

/// A member of a group while it reads.
pub(crate) struct GroupConsumer<'a> {
    pub(crate) member: &'a mut GroupMember,
    pub(crate) fetcher: &'a mut Fetcher,
    pub(crate) termination: &'a Termination,
    /// Where to stop, by partition; none to go on.
    pub(crate) ends: Option<BTreeMap<i32, i64>>,
    /// Where to begin where nothing is committed.
    pub(crate) first: &'a First<'a>,
}

impl GroupConsumer<'_> {
    /// Reads until the end, until `sink` has enough, or until the process is told to stop.
    pub(crate) fn run(&mut self, sink: &mut dyn Sink) -> Result<(), Failure> {
        while let Some(partitions) = self.member.join(self.termination)? {
            let ending = match partitions.is_empty() {
                true => self.idle()?,
                false => self.read(&partitions, sink)?,
            };
            if ending == Ending::Done {
                break;
            }
        }
        Ok(())
    }

    /// Where the group goes on, in partitions where it has committed an offset that is still there.
    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, Failure> {
        let mut starts = self.member.committed(partitions)?;
        let earliest = self.fetcher.offsets(partitions, Place::Beginning)?;
        starts.retain(|partition, offset| {
            let start = earliest[partition];
            if *offset < start {
                output::note(&format!(
                    "percolog: partition {partition}: the committed offset {offset} is gone, the \
                     log begins at {start}"
                ));
            }
            *offset >= start
        });
        Ok(starts)
    }

    /// From where to where the partitions are read.
    fn positions(
        &mut self,
        partitions: &[i32],
        committed: &BTreeMap<i32, i64>,
    ) -> Result<BTreeMap<i32, Position>, Failure> {
        let mut starts = committed.clone();
        let missing = partitions.iter().copied();
        let missing: Vec<i32> = missing.filter(|it| !starts.contains_key(it)).collect();
        if !missing.is_empty() {
            starts.extend((self.first)(self.fetcher, &missing)?);
        }
        let position = |(partition, next): (i32, i64)| {
            let ends = self.ends.as_ref();
            // A partition that came later has nothing that was there at the beginning.
            let end = ends.map(|ends| ends.get(&partition).copied().unwrap_or(0));
            (partition, Position { next, end })
        };
        Ok(starts.into_iter().map(position).collect())
    }

    /// Waits for partitions.
    fn idle(&mut self) -> Result<Ending, Failure> {
        if self.ends.is_some() {
            return Ok(Ending::Done);
        }
        while !self.termination.wait(HEARTBEAT_INTERVAL) {
            let standing = self.member.heartbeat()?;
            if standing == Standing::Rejoin || self.member.look_at_topics()? == Standing::Rejoin {
                return Ok(Ending::Rebalance);
            }
        }
        Ok(Ending::Done)
    }

    fn read(&mut self, partitions: &[i32], sink: &mut dyn Sink) -> Result<Ending, Failure> {
        let committed = self.committed(partitions)?;
        let positions = self.positions(partitions, &committed)?;
        let mut ending = Ending::Done;
        let mut progress = Progress {
            member: self.member,
            heartbeat: Schedule::every(HEARTBEAT_INTERVAL),
            commit: Schedule::every(COMMIT_INTERVAL),
            topics: Schedule::every(TOPICS_INTERVAL),
            // Also where the group begins: what comes while nobody reads is not skipped later.
            printed: positions
                .iter()
                .map(|(index, it)| (*index, it.next))
                .collect(),
            committed,
        };
        self.fetcher.assign(positions);
        let sink = std::cell::RefCell::new(sink);
        let result = self.fetcher.run(
            &mut |fetched| sink.borrow_mut().take(fetched),
            &mut |handed_on| {
                sink.borrow_mut().flush()?;
                progress.printed.clone_from(handed_on);
                if self.termination.is_requested() || sink.borrow().is_full() {
                    return Ok(Visit::Stop);
                }
                if progress.keep_up()? == Standing::Rejoin {
                    ending = Ending::Rebalance;
                    return Ok(Visit::Stop);
                }
                Ok(Visit::Continue)
            },
        );
        // Also when reading failed: what was printed was printed.
        let committed = progress.commit();
        result?;
        if committed? == Standing::Rejoin && ending == Ending::Done {
            output::note(
                "percolog: the group went on without this member: what it printed last was not \
                 committed and is read again",
            );
        }
        Ok(ending)
    }
}

/// What is owed to the group while reading.
struct Progress<'a> {
    member: &'a mut GroupMember,
    heartbeat: Schedule,
    commit: Schedule,
    topics: Schedule,
    printed: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
}

impl Progress<'_> {
    fn keep_up(&mut self) -> Result<Standing, Failure> {
        if self.commit.is_due() && self.commit()? == Standing::Rejoin {
            return Ok(Standing::Rejoin);
        }
        if self.topics.is_due() && self.member.look_at_topics()? == Standing::Rejoin {
            return Ok(Standing::Rejoin);
        }
        match self.heartbeat.is_due() {
            true => self.member.heartbeat(),
            false => Ok(Standing::Member),
        }
    }

    /// Commits what was printed since the last time.
    fn commit(&mut self) -> Result<Standing, Failure> {
        if self.printed == self.committed {
            return Ok(Standing::Member);
        }
        let standing = self.member.commit(&self.printed)?;
        if standing == Standing::Member {
            self.committed.clone_from(&self.printed);
        }
        Ok(standing)
    }
}
