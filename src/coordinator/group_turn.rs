//! What the parts of a shard share while they decide: the world, the timers and what is left behind.

use std::sync::Arc;

use super::context::Context;
use super::effects::Effects;
use super::group_request::GroupAnswer;
use super::timers::Timers;

/// What a timer of a shard is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A member's session, or a pending member's time to join: group and member.
    Session(Arc<str>, Arc<str>),
    /// The end of a group's waiting for its members.
    Join(Arc<str>),
    /// The end of a group's waiting for its members to fetch their assignments.
    Sync(Arc<str>),
    /// What members of a consumer group have to do.
    Consumer(Arc<str>),
    /// The search for expired offsets.
    Expiry,
}

/// One call of a shard.
pub(super) struct Turn<'t, 'c> {
    /// The world.
    pub(super) context: &'t mut Context<'c>,
    /// The shard's timers.
    pub(super) timers: &'t mut Timers<Due>,
    /// What the call leaves.
    pub(super) effects: &'t mut Effects<GroupAnswer>,
}

/// A deadline that moves with every sign of life.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    deadline_ms: u64,
    timer_ms: Option<u64>,
}

impl Session {
    /// Moves the deadline. The timer is touched only when it would fire too late.
    pub(super) fn expire_in(&mut self, timeout_ms: u64, turn: &mut Turn<'_, '_>, due: Due) {
        self.deadline_ms = turn.context.now_ms.saturating_add(timeout_ms);
        match self.timer_ms {
            Some(timer_ms) if timer_ms <= self.deadline_ms => return,
            Some(timer_ms) => turn.timers.cancel(timer_ms, due.clone()),
            None => {}
        }
        self.set(turn, due);
    }

    fn set(&mut self, turn: &mut Turn<'_, '_>, due: Due) {
        turn.timers.set(self.deadline_ms, due);
        self.timer_ms = Some(self.deadline_ms);
    }

    /// The timer fired: whether the deadline is reached. If it is not, the timer is set again.
    pub(super) fn is_over(&mut self, turn: &mut Turn<'_, '_>, due: Due) -> bool {
        self.timer_ms = None;
        if self.deadline_ms <= turn.context.now_ms {
            return true;
        }
        self.set(turn, due);
        false
    }

    /// Takes the timer back.
    pub(super) fn end(&mut self, turn: &mut Turn<'_, '_>, due: Due) {
        if let Some(timer_ms) = self.timer_ms.take() {
            turn.timers.cancel(timer_ms, due);
        }
    }
}
