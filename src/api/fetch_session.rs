//! Fetch sessions (KIP-227): what a consumer asked for and was told, so that both only say what
//! changed.
//!
//! Sessions live on the core of the connection that made them; a client that comes back on another
//! core is told that there is none and begins anew, as after any eviction. When all slots are taken,
//! one that was idle for two minutes makes room, or else the smallest one if the new one is larger;
//! otherwise the client gets no session (id 0) and asks in full. The partitions of all sessions
//! together are bounded too.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;

/// The epoch of a request that begins a session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that wants none, or ends one.
const FINAL_EPOCH: i32 = -1;
/// How long a session is safe from being evicted (`min.incremental.fetch.session.eviction.ms`).
const SAFE_US: u64 = 120_000_000;
/// Partitions of all sessions of a core.
const PARTITIONS_MAX: usize = 500_000;

/// How a request names a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    /// Before version 13.
    Name(Arc<str>),
    /// From version 13 on.
    Id(Uuid),
}

/// What a consumer wants of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The topic.
    pub topic: TopicKey,
    /// The partition.
    pub partition: i32,
    /// From where.
    pub offset: i64,
    /// At most so much.
    pub max_bytes: i32,
    /// The leader epoch the client knows, or -1.
    pub current_leader_epoch: i32,
    /// The epoch of its last record, or -1.
    pub last_fetched_epoch: i32,
}

/// What a consumer is told about a partition, as far as a session remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The high watermark.
    pub high_watermark: i64,
    /// The log start.
    pub log_start_offset: i64,
    /// Whether there are records.
    pub has_records: bool,
    /// Whether there is an error, or a diverging epoch.
    pub has_error: bool,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    /// These partitions, and nothing is remembered.
    Sessionless(Vec<Wanted>),
    /// These partitions, and a session may begin.
    New(Vec<Wanted>),
    /// All partitions of this session.
    Incremental(i32, Vec<Wanted>),
    /// Nothing.
    Refused(ErrorCode),
}

struct Cached {
    wanted: Wanted,
    high_watermark: i64,
    log_start_offset: i64,
}

type Key = (TopicKey, i32);

struct Session {
    epoch: i32,
    uses_ids: bool,
    last_used_us: u64,
    /// In the order in which they are read; what gave records goes to the end.
    order: BTreeMap<u64, Cached>,
    places: BTreeMap<Key, u64>,
    next_place: u64,
}

impl Session {
    fn push(&mut self, cached: Cached) {
        let key = (cached.wanted.topic.clone(), cached.wanted.partition);
        self.places.insert(key, self.next_place);
        self.order.insert(self.next_place, cached);
        self.next_place += 1;
    }

    fn update(&mut self, wanted: Vec<Wanted>, forgotten: &[Key]) {
        for wanted in wanted {
            let place = self.places.get(&(wanted.topic.clone(), wanted.partition));
            match place.and_then(|place| self.order.get_mut(place)) {
                Some(cached) => cached.wanted = wanted,
                None => self.push(Cached {
                    wanted,
                    high_watermark: -1,
                    log_start_offset: -1,
                }),
            }
        }
        for key in forgotten {
            if let Some(place) = self.places.remove(key) {
                self.order.remove(&place);
            }
        }
    }

    /// Whether the client has to be told; remembers that it is.
    fn tell(&mut self, wanted: &Wanted, told: &Told) -> bool {
        let key = (wanted.topic.clone(), wanted.partition);
        let Some(place) = self.places.get(&key).copied() else {
            return true;
        };
        let cached = self
            .order
            .get_mut(&place)
            .expect("both maps hold a partition");
        let is_changed = told.has_records
            || told.has_error
            || cached.high_watermark != told.high_watermark
            || cached.log_start_offset != told.log_start_offset;
        cached.log_start_offset = told.log_start_offset;
        // When an error goes away the partition is told again, whatever it was before.
        cached.high_watermark = if told.has_error {
            -1
        } else {
            told.high_watermark
        };
        if told.has_records {
            let cached = self.order.remove(&place).expect("just there");
            self.push(cached);
        }
        is_changed
    }
}

/// The sessions of one core.
pub struct FetchSessions {
    sessions: BTreeMap<i32, Session>,
    sessions_max: usize,
    session_partitions_max: usize,
    partitions: usize,
}

impl FetchSessions {
    /// Room for so many sessions, each with at most so many partitions.
    #[must_use]
    pub fn new(sessions_max: usize, session_partitions_max: usize) -> FetchSessions {
        FetchSessions {
            sessions: BTreeMap::new(),
            sessions_max,
            session_partitions_max,
            partitions: 0,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Decides what a request is about. `uses_ids` says how its version names topics.
    pub fn begin(
        &mut self,
        (id, epoch): (i32, i32),
        uses_ids: bool,
        wanted: Vec<Wanted>,
        forgotten: &[Key],
        now_us: u64,
    ) -> Context {
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            self.remove(id);
            return if epoch == FINAL_EPOCH {
                Context::Sessionless(wanted)
            } else {
                Context::New(wanted)
            };
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return Context::Refused(ErrorCode::FetchSessionIdNotFound);
        };
        if session.uses_ids != uses_ids {
            return Context::Refused(ErrorCode::FetchSessionTopicIdError);
        }
        if session.epoch != epoch {
            return Context::Refused(ErrorCode::InvalidFetchSessionEpoch);
        }
        let before = session.order.len();
        session.update(wanted, forgotten);
        let after = session.order.len();
        session.epoch = epoch.checked_add(1).unwrap_or(1);
        session.last_used_us = now_us;
        self.partitions = self.partitions - before + after;
        if after == 0 {
            self.remove(id);
            return Context::Sessionless(Vec::new());
        }
        if after > self.session_partitions_max || self.partitions > PARTITIONS_MAX {
            // The client begins anew, and may get no session then.
            self.remove(id);
            return Context::Refused(ErrorCode::FetchSessionIdNotFound);
        }
        let session = self.sessions.get(&id).expect("just there");
        let wanted = session.order.values().map(|cached| cached.wanted.clone());
        Context::Incremental(id, wanted.collect())
    }

    /// Begins a session with what was wanted and told; gives its id, or 0 when there is no room.
    /// `ids` makes random numbers.
    pub fn create(
        &mut self,
        wanted: &[Wanted],
        told: &[Told],
        uses_ids: bool,
        mut ids: impl FnMut() -> i32,
        now_us: u64,
    ) -> i32 {
        assert_eq!(wanted.len(), told.len(), "each partition is told once");
        if wanted.len() > self.session_partitions_max || !self.make_room(wanted.len(), now_us) {
            return 0;
        }
        let id = loop {
            let id = ids() & i32::MAX;
            if id != 0 && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            epoch: INITIAL_EPOCH + 1,
            uses_ids,
            last_used_us: now_us,
            order: BTreeMap::new(),
            places: BTreeMap::new(),
            next_place: 0,
        };
        session.update(wanted.to_vec(), &[]);
        for (wanted, told) in wanted.iter().zip(told) {
            session.tell(wanted, told);
        }
        self.partitions += session.order.len();
        self.sessions.insert(id, session);
        id
    }

    /// Which partitions an incremental answer has to hold. All, when the session was evicted while
    /// the request waited.
    pub fn tell(&mut self, id: i32, wanted: &[Wanted], told: &[Told]) -> Vec<bool> {
        assert_eq!(wanted.len(), told.len(), "each partition is told once");
        match self.sessions.get_mut(&id) {
            None => vec![true; wanted.len()],
            Some(session) => {
                let pairs = wanted.iter().zip(told);
                pairs
                    .map(|(wanted, told)| session.tell(wanted, told))
                    .collect()
            }
        }
    }

    fn make_room(&mut self, partitions: usize, now_us: u64) -> bool {
        if self.sessions_max == 0 || partitions > PARTITIONS_MAX {
            return false;
        }
        while self.sessions.len() >= self.sessions_max
            || self.partitions + partitions > PARTITIONS_MAX
        {
            let Some(id) = self.evictable(partitions, now_us) else {
                return false;
            };
            self.remove(id);
        }
        true
    }

    fn evictable(&self, partitions: usize, now_us: u64) -> Option<i32> {
        let sessions = self.sessions.iter();
        let (stalest, session) = sessions.min_by_key(|(_, session)| session.last_used_us)?;
        if now_us.saturating_sub(session.last_used_us) > SAFE_US {
            return Some(*stalest);
        }
        let sessions = self.sessions.iter();
        let (smallest, session) = sessions.min_by_key(|(_, session)| session.order.len())?;
        (session.order.len() < partitions).then_some(*smallest)
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.order.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(partition: i32) -> Wanted {
        Wanted {
            topic: TopicKey::Name("t".into()),
            partition,
            offset: 0,
            max_bytes: 10,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        }
    }

    fn key(partition: i32) -> Key {
        (TopicKey::Name("t".into()), partition)
    }

    fn told(high_watermark: i64) -> Told {
        Told {
            high_watermark,
            log_start_offset: 0,
            has_records: false,
            has_error: false,
        }
    }

    fn sessions(sessions_max: usize) -> FetchSessions {
        FetchSessions::new(sessions_max, 100)
    }

    fn create(sessions: &mut FetchSessions, partitions: i32, now_us: u64) -> i32 {
        let wanted: Vec<Wanted> = (0..partitions).map(wanted).collect();
        let told = vec![told(0); wanted.len()];
        let mut next = i32::try_from(sessions.len()).unwrap() + 100 * partitions;
        let ids = || {
            next += 1;
            next
        };
        sessions.create(&wanted, &told, false, ids, now_us)
    }

    fn next(sessions: &mut FetchSessions, id: i32, epoch: i32) -> Context {
        sessions.begin((id, epoch), false, Vec::new(), &[], 1)
    }

    fn numbers(context: &Context) -> Vec<i32> {
        let Context::Incremental(_, wanted) = context else {
            panic!("{context:?}");
        };
        wanted.iter().map(|wanted| wanted.partition).collect()
    }

    #[test]
    fn full_requests_begin_or_avoid_sessions_and_end_old_ones() {
        let mut sessions = sessions(9);
        let begun = sessions.begin((0, 0), false, vec![wanted(1)], &[], 1);
        assert_eq!(begun, Context::New(vec![wanted(1)]));
        let id = create(&mut sessions, 1, 1);
        assert!(id > 0);
        let none = sessions.begin((id, -1), false, vec![wanted(2)], &[], 1);
        assert_eq!(none, Context::Sessionless(vec![wanted(2)]));
        assert!(sessions.is_empty());
    }

    #[test]
    fn epochs_follow_each_other() {
        let mut sessions = sessions(9);
        let id = create(&mut sessions, 2, 1);
        assert_eq!(numbers(&next(&mut sessions, id, 1)), [0, 1]);
        let refused = Context::Refused(ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(next(&mut sessions, id, 1), refused);
        assert_eq!(next(&mut sessions, id, 3), refused);
        assert_eq!(numbers(&next(&mut sessions, id, 2)), [0, 1]);
        let unknown = Context::Refused(ErrorCode::FetchSessionIdNotFound);
        assert_eq!(next(&mut sessions, id + 1, 1), unknown);
        assert_eq!(next(&mut sessions, 0, 1), unknown);
        sessions.sessions.get_mut(&id).unwrap().epoch = i32::MAX;
        next(&mut sessions, id, i32::MAX);
        assert_eq!(numbers(&next(&mut sessions, id, 1)), [0, 1]);
    }

    #[test]
    fn names_and_ids_do_not_mix() {
        let mut sessions = sessions(9);
        let id = create(&mut sessions, 1, 1);
        let context = sessions.begin((id, 1), true, Vec::new(), &[], 1);
        assert_eq!(
            context,
            Context::Refused(ErrorCode::FetchSessionTopicIdError)
        );
    }

    #[test]
    fn requests_add_change_and_forget_partitions() {
        let mut sessions = sessions(9);
        let id = create(&mut sessions, 2, 1);
        let changed = Wanted {
            offset: 7,
            ..wanted(1)
        };
        let add = vec![wanted(5), changed.clone()];
        let context = sessions.begin((id, 1), false, add, &[key(0), key(9)], 1);
        assert_eq!(context, Context::Incremental(id, vec![changed, wanted(5)]));
        assert_eq!(sessions.partitions, 2);
        // A session of nothing is no session.
        let context = sessions.begin((id, 2), false, Vec::new(), &[key(1), key(5)], 1);
        assert_eq!(context, Context::Sessionless(Vec::new()));
        assert_eq!((sessions.len(), sessions.partitions), (0, 0));
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut sessions = sessions(9);
        let id = create(&mut sessions, 1, 1);
        let mut tell = |told: Told| sessions.tell(id, &[wanted(0)], &[told])[0];
        assert!(!tell(told(0)));
        assert!(tell(told(1)) && !tell(told(1)));
        let log_start = Told {
            log_start_offset: 1,
            ..told(1)
        };
        assert!(tell(log_start) && !tell(log_start));
        let records = Told {
            has_records: true,
            ..log_start
        };
        assert!(tell(records) && tell(records) && !tell(log_start));
        let error = Told {
            has_error: true,
            ..log_start
        };
        assert!(tell(error) && tell(error));
        // The error is over, which is news although nothing else is.
        assert!(tell(log_start) && !tell(log_start));
        assert_eq!(sessions.tell(id + 1, &[wanted(0)], &[told(0)]), [true]);
    }

    #[test]
    fn partitions_with_records_are_read_last_next_time() {
        let mut sessions = sessions(9);
        let id = create(&mut sessions, 3, 1);
        let all: Vec<Wanted> = (0..3).map(wanted).collect();
        let records = Told {
            has_records: true,
            ..told(0)
        };
        sessions.tell(id, &all, &[records, told(0), told(0)]);
        assert_eq!(numbers(&next(&mut sessions, id, 1)), [1, 2, 0]);
    }

    #[test]
    fn idle_or_smaller_sessions_make_room() {
        let mut sessions = sessions(2);
        let old = create(&mut sessions, 5, 0);
        let small = create(&mut sessions, 2, SAFE_US);
        // Nobody is idle or smaller.
        assert_eq!(create(&mut sessions, 1, SAFE_US), 0);
        let larger = create(&mut sessions, 3, SAFE_US);
        assert!(larger > 0 && !sessions.sessions.contains_key(&small));
        let late = create(&mut sessions, 1, SAFE_US + 1);
        assert!(late > 0 && !sessions.sessions.contains_key(&old));
        assert_eq!((sessions.len(), sessions.partitions), (2, 4));
    }

    #[test]
    fn sessions_are_bounded_in_number_and_size() {
        assert_eq!(create(&mut sessions(0), 1, 1), 0);
        assert_eq!(create(&mut sessions(1), 101, 1), 0);
        let mut sessions = sessions(1);
        let id = create(&mut sessions, 100, 1);
        let context = sessions.begin((id, 1), false, vec![wanted(100)], &[], 1);
        assert_eq!(context, Context::Refused(ErrorCode::FetchSessionIdNotFound));
        assert!(sessions.is_empty());
    }
}
