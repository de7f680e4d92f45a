//! One step of a member from what it has to what it is to have.
//!
//! A member first confirms that it gave up what it is to lose; then it takes over the epoch of the
//! target and gets what nobody else holds any more. So no partition has two owners at any time.

use super::consumer_records::{CurrentAssignment, HeldPartitions, MemberState, Partitions};
use crate::wire::codec::Uuid;
use crate::wire::messages::consumer_group_heartbeat::TopicPartitions;

/// What a step depends on.
pub(super) struct Reconciliation<'a> {
    /// The epoch of the target assignment.
    pub(super) target_epoch: i32,
    /// What the member is to have.
    pub(super) target: &'a Partitions,
    /// Whether the member subscribes to a topic.
    pub(super) subscribes: &'a dyn Fn(Uuid) -> bool,
    /// Whether any member holds a partition.
    pub(super) is_held: &'a dyn Fn(Uuid, i32) -> bool,
    /// What the member says it owns; None where it says nothing.
    pub(super) owned: Option<&'a [TopicPartitions]>,
    /// Whether the member has just changed its subscription.
    pub(super) subscription_changed: bool,
}

impl Reconciliation<'_> {
    /// What the member has after the step; None where it has to start anew without partitions.
    #[must_use]
    pub(super) fn step(&self, current: &CurrentAssignment) -> Option<CurrentAssignment> {
        let next = match current.state {
            MemberState::Stable if current.epoch != self.target_epoch => self.advance(current),
            MemberState::Stable if self.subscription_changed => self.withdraw(current),
            MemberState::Stable => current.clone(),
            MemberState::UnrevokedPartitions if !self.owns_any(&current.revoking) => {
                self.advance(current)
            }
            MemberState::UnrevokedPartitions if self.subscription_changed => self.withdraw(current),
            MemberState::UnrevokedPartitions => current.clone(),
            MemberState::UnreleasedPartitions => self.advance(current),
            MemberState::Unknown if self.owned.is_some_and(<[_]>::is_empty) => {
                let mut known = current.clone();
                known.epoch = self.target_epoch;
                self.advance(&known)
            }
            MemberState::Unknown => return None,
        };
        Some(next)
    }

    /// Whether the member owns some of these, or may own them.
    fn owns_any(&self, held: &HeldPartitions) -> bool {
        let Some(owned) = self.owned else {
            return true;
        };
        owned.iter().any(|topic| {
            held.get(&topic.topic_id)
                .is_some_and(|held| topic.partitions.iter().any(|p| held.contains_key(p)))
        })
    }

    /// Takes away what the member no longer subscribes to.
    fn withdraw(&self, current: &CurrentAssignment) -> CurrentAssignment {
        let mut next = current.clone();
        let mut revoking = current.revoking.clone();
        next.assigned.retain(|topic, partitions| {
            let stays = (self.subscribes)(*topic);
            if !stays {
                revoking.entry(*topic).or_default().extend(&*partitions);
            }
            stays
        });
        if next.assigned == current.assigned {
            return next;
        }
        next.previous_epoch = current.epoch;
        if self.owns_any(&revoking) {
            next.state = MemberState::UnrevokedPartitions;
            next.revoking = revoking;
        }
        next
    }

    /// Goes to the target as far as possible.
    fn advance(&self, current: &CurrentAssignment) -> CurrentAssignment {
        let mut kept = HeldPartitions::new();
        let mut revoking = HeldPartitions::new();
        for (topic, partitions) in &current.assigned {
            for (partition, epoch) in partitions {
                let side = match self.is_target(*topic, *partition) {
                    true => &mut kept,
                    false => &mut revoking,
                };
                let side = side.entry(*topic).or_default();
                side.insert(*partition, *epoch);
            }
        }
        if !revoking.is_empty() && self.owns_any(&revoking) {
            return CurrentAssignment {
                epoch: current.epoch,
                previous_epoch: current.epoch,
                state: MemberState::UnrevokedPartitions,
                assigned: kept,
                revoking,
            };
        }
        let complete = self.add_released(current, &mut kept);
        CurrentAssignment {
            epoch: self.target_epoch,
            previous_epoch: current.epoch,
            state: match complete {
                true => MemberState::Stable,
                false => MemberState::UnreleasedPartitions,
            },
            assigned: kept,
            revoking: HeldPartitions::new(),
        }
    }

    fn is_target(&self, topic: Uuid, partition: i32) -> bool {
        let target = self.target.get(&topic);
        target.is_some_and(|target| target.contains(&partition)) && (self.subscribes)(topic)
    }

    /// Adds what nobody else holds, and says whether that was all.
    fn add_released(&self, current: &CurrentAssignment, kept: &mut HeldPartitions) -> bool {
        let mut complete = true;
        for (topic, target) in self.target.iter().filter(|(t, _)| (self.subscribes)(**t)) {
            let own = current.revoking.get(topic);
            for partition in target {
                if kept.get(topic).is_some_and(|k| k.contains_key(partition)) {
                    continue;
                }
                let is_own = own.is_some_and(|own| own.contains_key(partition));
                if !is_own && (self.is_held)(*topic, *partition) {
                    complete = false;
                } else {
                    let kept = kept.entry(*topic).or_default();
                    kept.insert(*partition, self.target_epoch);
                }
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: Uuid = Uuid([1; 16]);
    const OTHER: Uuid = Uuid([2; 16]);

    fn held(partitions: &[(i32, i32)]) -> HeldPartitions {
        let partitions: std::collections::BTreeMap<i32, i32> = partitions.iter().copied().collect();
        (!partitions.is_empty())
            .then_some((TOPIC, partitions))
            .into_iter()
            .collect()
    }

    fn owned(partitions: &[i32]) -> Vec<TopicPartitions> {
        vec![TopicPartitions {
            topic_id: TOPIC,
            partitions: partitions.to_vec(),
        }]
    }

    fn step(
        current: &CurrentAssignment,
        target: (i32, &[i32]),
        taken: &[i32],
        owned: Option<&[TopicPartitions]>,
    ) -> CurrentAssignment {
        let partitions = Partitions::from([(TOPIC, target.1.iter().copied().collect())]);
        let step = Reconciliation {
            target_epoch: target.0,
            target: &partitions,
            subscribes: &|topic| topic == TOPIC,
            is_held: &|_, partition| taken.contains(&partition),
            owned,
            subscription_changed: false,
        };
        step.step(current).expect("the state is known")
    }

    fn stable(epoch: i32, assigned: &[(i32, i32)]) -> CurrentAssignment {
        CurrentAssignment {
            epoch,
            previous_epoch: epoch - 1,
            state: MemberState::Stable,
            assigned: held(assigned),
            revoking: HeldPartitions::new(),
        }
    }

    #[test]
    fn what_is_to_go_goes_before_anything_comes() {
        let before = stable(5, &[(0, 2), (1, 2)]);
        let told = step(&before, (6, &[1, 2]), &[0, 1], None);
        assert_eq!(told.state, MemberState::UnrevokedPartitions);
        assert_eq!((told.epoch, told.previous_epoch), (5, 5));
        assert_eq!(told.assigned, held(&[(1, 2)]));
        assert_eq!(told.revoking, held(&[(0, 2)]));
        assert_eq!(step(&told, (6, &[1, 2]), &[0, 1], None), told);
        let owns = owned(&[0, 1]);
        assert_eq!(step(&told, (6, &[1, 2]), &[0, 1], Some(&owns)), told);
        let confirmed = step(&told, (6, &[1, 2]), &[0, 1], Some(&owned(&[1])));
        assert_eq!(confirmed.state, MemberState::Stable);
        assert_eq!((confirmed.epoch, confirmed.previous_epoch), (6, 5));
        assert_eq!(confirmed.assigned, held(&[(1, 2), (2, 6)]));
        assert!(confirmed.revoking.is_empty());
    }

    #[test]
    fn what_others_hold_comes_when_they_gave_it_up() {
        let waits = step(&stable(5, &[]), (6, &[0, 1]), &[1], Some(&[]));
        assert_eq!(waits.state, MemberState::UnreleasedPartitions);
        assert_eq!((waits.epoch, &waits.assigned), (6, &held(&[(0, 6)])));
        let has_all = step(&waits, (6, &[0, 1]), &[0], Some(&[]));
        assert_eq!(has_all.state, MemberState::Stable);
        assert_eq!(has_all.assigned, held(&[(0, 6), (1, 6)]));
        assert_eq!(step(&has_all, (6, &[0, 1]), &[], None), has_all);
    }

    #[test]
    fn what_it_gave_up_and_gets_again_is_its_own() {
        let told = step(&stable(5, &[(0, 2)]), (6, &[]), &[0], None);
        let again = step(&told, (7, &[0]), &[0], Some(&[]));
        assert_eq!((again.epoch, again.assigned), (7, held(&[(0, 7)])));
        assert_eq!(again.state, MemberState::Stable);
    }

    #[test]
    fn a_narrower_subscription_takes_effect_before_the_next_target() {
        let target = Partitions::from([(OTHER, [0].into())]);
        let mut before = stable(5, &[(0, 2)]);
        before.assigned.insert(OTHER, [(0, 3)].into());
        let narrower = |owned| Reconciliation {
            target_epoch: 5,
            target: &target,
            subscribes: &|topic| topic == TOPIC,
            is_held: &|_, _| false,
            owned,
            subscription_changed: true,
        };
        let told = narrower(None).step(&before).expect("known");
        assert_eq!(told.state, MemberState::UnrevokedPartitions);
        assert_eq!(told.assigned, held(&[(0, 2)]));
        assert_eq!(told.revoking, [(OTHER, [(0, 3)].into())].into());
        let owns = owned(&[0]);
        let gave_up = narrower(Some(&owns)).step(&before).expect("known");
        assert_eq!(gave_up.state, MemberState::Stable);
        assert!(gave_up.revoking.is_empty());
    }

    #[test]
    fn a_member_in_an_unknown_state_starts_anew() {
        let mut odd = stable(5, &[(0, 2)]);
        odd.state = MemberState::Unknown;
        let target = Partitions::from([(TOPIC, [0].into())]);
        let with = |owned| Reconciliation {
            target_epoch: 6,
            target: &target,
            subscribes: &|_| true,
            is_held: &|_, _| false,
            owned,
            subscription_changed: false,
        };
        assert_eq!(with(None).step(&odd), None);
        let anew = with(Some(&[])).step(&odd).expect("it owns nothing");
        assert_eq!((anew.epoch, anew.state), (6, MemberState::Stable));
    }
}
