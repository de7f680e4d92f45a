//! Consumer groups among the other groups of a shard, and their way from the classic protocol and
//! back.

use super::classic_group::State;
use super::consumer_group_world::{TestTopics, beat, join, owns, told};
use super::consumer_protocol;
use super::context::{Client, Context, Topics};
use super::effects::{CoordinatorRecord, Effects, Ticket};
use super::group_request::{GroupAnswer, GroupRequest};
use super::group_shard::{Group, GroupShard};
use crate::config::broker::BrokerConfig;
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::message::Message;
use crate::wire::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::wire::messages::heartbeat::HeartbeatRequest;
use crate::wire::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use crate::wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use crate::wire::messages::list_groups::ListGroupsRequest;
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use crate::wire::messages::offset_fetch::OffsetFetchRequestGroup;
use crate::wire::messages::records_consumer_protocol_assignment::{
    ConsumerProtocolAssignment, TopicPartition as Assigned,
};
use crate::wire::messages::records_consumer_protocol_subscription::{
    ConsumerProtocolSubscription, TopicPartition as Owned,
};
use crate::wire::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};

struct World {
    config: BrokerConfig,
    topics: TestTopics,
    shard: GroupShard,
    log: Vec<CoordinatorRecord>,
    answers: Vec<(Ticket, GroupAnswer)>,
    now_ms: u64,
    tickets: u64,
}

impl World {
    fn new() -> World {
        let mut topics = TestTopics::default();
        topics.set("foo", 4);
        let mut config = BrokerConfig::defaults();
        config.groups.initial_rebalance_delay_ms = 0;
        World {
            config,
            topics,
            shard: GroupShard::new(),
            log: Vec::new(),
            answers: Vec::new(),
            now_ms: 1_000,
            tickets: 0,
        }
    }

    fn foo(&self) -> Uuid {
        self.topics.by_name("foo").expect("made").id
    }

    fn act(
        &mut self,
        act: impl FnOnce(&mut GroupShard, &mut Context<'_>, &mut Effects<GroupAnswer>),
    ) {
        let tickets = self.tickets;
        let mut ids = 0;
        let mut new_id = || {
            ids += 1;
            Uuid(u128::from(tickets * 100 + ids).to_be_bytes())
        };
        let mut context = Context {
            now_ms: self.now_ms,
            wall_ms: 1_700_000_000_000 + self.now_ms.cast_signed(),
            client: Client {
                id: "client",
                host: "/127.0.0.1",
                version: 9,
            },
            topics: &self.topics,
            groups: &self.config.groups,
            single_groups: &self.config.groups,
            transactions: &self.config.transactions,
            batch_max_bytes: usize::MAX,
            new_id: &mut new_id,
        };
        let mut effects = Effects::default();
        act(&mut self.shard, &mut context, &mut effects);
        self.log.extend(effects.records);
        self.answers.extend(effects.answers);
    }

    /// Asks, and returns the number of the question.
    fn ask(&mut self, request: GroupRequest<'_>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.act(|shard, context, effects| shard.handle(context, ticket, request, effects));
        ticket
    }

    fn answer(&mut self, ticket: Ticket) -> GroupAnswer {
        let at = self.answers.iter().position(|(asked, _)| *asked == ticket);
        self.answers.remove(at.expect("it is answered")).1
    }

    fn pass(&mut self, time_ms: u64) {
        self.now_ms += time_ms;
        while self
            .shard
            .next_due_ms()
            .is_some_and(|due_ms| due_ms <= self.now_ms)
        {
            self.act(|shard, context, effects| shard.tick(context, effects));
        }
    }

    fn consumer(
        &mut self,
        request: ConsumerGroupHeartbeatRequest<'_>,
    ) -> ConsumerGroupHeartbeatResponse<'static> {
        let ticket = self.ask(GroupRequest::ConsumerHeartbeat(request));
        let GroupAnswer::ConsumerHeartbeat(answer) = self.answer(ticket) else {
            panic!("another answer");
        };
        answer
    }

    fn join_ticket(&mut self, member: &str, owned: &[i32]) -> Ticket {
        self.ask(GroupRequest::Join(JoinGroupRequest {
            group_id: "g1".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            member_id: member.into(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "cooperative-sticky".into(),
                metadata: subscription(owned).into(),
            }],
            ..JoinGroupRequest::default()
        }))
    }

    fn join(&mut self, member: &str, owned: &[i32]) -> JoinGroupResponse<'static> {
        let ticket = self.join_ticket(member, owned);
        let GroupAnswer::Join(answer) = self.answer(ticket) else {
            panic!("another answer");
        };
        answer
    }

    fn sync(
        &mut self,
        member: &str,
        generation_id: i32,
        given: &[(&str, &[i32])],
    ) -> SyncGroupResponse<'static> {
        let assignments = given
            .iter()
            .map(|(member, partitions)| SyncGroupRequestAssignment {
                member_id: (*member).into(),
                assignment: assignment(partitions).into(),
            });
        let request = SyncGroupRequest {
            group_id: "g1".into(),
            generation_id,
            member_id: member.into(),
            assignments: assignments.collect(),
            ..SyncGroupRequest::default()
        };
        let ticket = self.ask(GroupRequest::Sync(request));
        let GroupAnswer::Sync(answer) = self.answer(ticket) else {
            panic!("another answer");
        };
        answer
    }

    fn heartbeat(&mut self, member: &str, generation_id: i32) -> i16 {
        let ticket = self.ask(GroupRequest::Heartbeat(HeartbeatRequest {
            group_id: "g1".into(),
            generation_id,
            member_id: member.into(),
            ..HeartbeatRequest::default()
        }));
        let GroupAnswer::Heartbeat(answer) = self.answer(ticket) else {
            panic!("another answer");
        };
        answer.error_code
    }

    fn commit(&mut self, member: &str, epoch: i32) -> i16 {
        let ticket = self.ask(GroupRequest::OffsetCommit(OffsetCommitRequest {
            group_id: "g1".into(),
            generation_id_or_member_epoch: epoch,
            member_id: member.into(),
            topics: vec![OffsetCommitRequestTopic {
                name: "foo".into(),
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: 7,
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        }));
        let GroupAnswer::OffsetCommit(answer) = self.answer(ticket) else {
            panic!("another answer");
        };
        answer.topics[0].partitions[0].error_code
    }

    fn fetch(&mut self, member_id: Option<&str>, member_epoch: i32) -> Result<usize, i16> {
        let group = OffsetFetchRequestGroup {
            group_id: "g1".into(),
            member_id: member_id.map(Into::into),
            member_epoch,
            topics: None,
        };
        let require_stable = false;
        let ticket = self.ask(GroupRequest::OffsetFetch {
            group,
            require_stable,
        });
        let GroupAnswer::OffsetFetch(answer) = self.answer(ticket) else {
            panic!("another answer");
        };
        match answer.error_code {
            0 => Ok(answer.topics.len()),
            code => Err(code),
        }
    }

    /// A classic group of a member that has all of foo, and the member's id.
    fn classic(&mut self) -> String {
        let id = self.join("", &[]).member_id.into_owned();
        let ticket = self.join_ticket(&id, &[]);
        self.pass(0);
        let GroupAnswer::Join(joined) = self.answer(ticket) else {
            panic!("another answer");
        };
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
        let synced = self.sync(&id, 1, &[(&id, &[0, 1, 2, 3])]);
        assert_eq!(synced.error_code, 0);
        id
    }

    fn group(&self) -> Option<&Group> {
        self.shard.groups.get("g1")
    }

    fn check_log(&self) {
        let mut rebuilt = GroupShard::new();
        for record in &self.log {
            let value = record.value.as_deref();
            rebuilt
                .replay(&record.key, value, None)
                .expect("own records");
        }
        match (self.group(), rebuilt.groups.get("g1")) {
            (Some(Group::Consumer(ours)), Some(Group::Consumer(theirs))) => {
                assert_eq!(ours, theirs)
            }
            (Some(Group::Classic(ours)), Some(Group::Classic(theirs))) => {
                let ids = |group: &super::classic_group::ClassicGroup| -> Vec<String> {
                    group.members.keys().map(ToString::to_string).collect()
                };
                assert_eq!(ids(ours), ids(theirs));
                assert_eq!(ours.generation, theirs.generation);
            }
            (None, None) => {}
            (ours, theirs) => panic!("{ours:?} is {theirs:?} after a load"),
        }
    }
}

fn subscription(owned: &[i32]) -> Vec<u8> {
    let said = ConsumerProtocolSubscription {
        topics: vec!["foo".into()],
        owned_partitions: vec![Owned {
            topic: "foo".into(),
            partitions: owned.to_vec(),
        }],
        ..ConsumerProtocolSubscription::default()
    };
    [&3_i16.to_be_bytes()[..], &said.to_bytes(3)].concat()
}

fn assignment(partitions: &[i32]) -> Vec<u8> {
    let given = ConsumerProtocolAssignment {
        assigned_partitions: vec![Assigned {
            topic: "foo".into(),
            partitions: partitions.to_vec(),
        }],
        user_data: None,
    };
    [&3_i16.to_be_bytes()[..], &given.to_bytes(3)].concat()
}

#[test]
fn a_classic_group_becomes_a_consumer_group_and_a_classic_one_again() {
    let mut world = World::new();
    let foo = world.foo();
    let classic = world.classic();
    // A member of the new protocol comes: the group goes on with both.
    let answer = world.consumer(join("new", &["foo"]));
    assert_eq!((answer.error_code, answer.member_epoch), (0, 2));
    assert_eq!(told(&answer), Some(vec![]));
    world.check_log();
    let Some(Group::Consumer(group)) = world.group() else {
        panic!("it is a consumer group now");
    };
    assert_eq!(group.members[&classic].current.assigned[&foo].len(), 4);
    // The classic member is told to join again, gives up two, and joins once more.
    let rebalance = ErrorCode::RebalanceInProgress.code();
    assert_eq!(world.heartbeat(&classic, 1), rebalance);
    let joined = world.join(&classic, &[0, 1, 2, 3]);
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(joined.protocol_name.as_deref(), Some("cooperative-sticky"));
    let synced = world.sync(&classic, 1, &[]);
    assert_eq!(synced.assignment.as_ref(), assignment(&[0, 1]));
    assert_eq!(world.heartbeat(&classic, 1), rebalance);
    let joined = world.join(&classic, &[0, 1]);
    assert_eq!(joined.generation_id, 2);
    let synced = world.sync(&classic, 2, &[]);
    assert_eq!(synced.assignment.as_ref(), assignment(&[0, 1]));
    assert_eq!(world.heartbeat(&classic, 2), 0);
    let answer = world.consumer(beat("new", 2));
    assert_eq!(told(&answer), Some(vec![(foo, vec![2, 3])]));
    world.check_log();
    // The last one of the new protocol leaves: the classic member leads again.
    assert_eq!(world.consumer(beat("new", -1)).error_code, 0);
    world.check_log();
    let Some(Group::Classic(group)) = world.group() else {
        panic!("it is a classic group again");
    };
    assert!(group.state.is_preparing());
    assert_eq!(world.heartbeat(&classic, 3), rebalance);
    let joined = world.join(&classic, &[0, 1]);
    assert_eq!(
        (joined.leader.as_ref(), joined.generation_id),
        (classic.as_str(), 4)
    );
    let synced = world.sync(&classic, 4, &[(&classic, &[0, 1, 2, 3])]);
    assert_eq!(synced.assignment.as_ref(), assignment(&[0, 1, 2, 3]));
    world.check_log();
}

#[test]
fn who_waits_in_a_classic_group_is_told_to_join_again_when_it_changes() {
    let mut world = World::new();
    let first = world.classic();
    let second = world.join("", &[]).member_id.into_owned();
    let waiting = world.join_ticket(&second, &[]);
    assert_eq!(world.consumer(join("new", &["foo"])).error_code, 0);
    let GroupAnswer::Join(answer) = world.answer(waiting) else {
        panic!("another answer");
    };
    assert_eq!(answer.error_code, ErrorCode::RebalanceInProgress.code());
    assert_eq!(world.join(&second, &[]).error_code, 0);
    world.check_log();
    // The first is silent: its session was its own.
    world.pass(10_000);
    assert_eq!(
        world.heartbeat(&first, 1),
        ErrorCode::UnknownMemberId.code()
    );
}

#[test]
fn a_member_that_does_not_join_or_sync_in_time_is_removed() {
    let mut world = World::new();
    let classic = world.classic();
    world.consumer(join("new", &["foo"]));
    for _ in 0..12 {
        let code = world.heartbeat(&classic, 1);
        assert_eq!(code, ErrorCode::RebalanceInProgress.code());
        world.consumer(beat("new", 2));
        world.pass(5_000);
    }
    assert_eq!(
        world.heartbeat(&classic, 1),
        ErrorCode::UnknownMemberId.code()
    );
    let other = world.join("", &[]).member_id.into_owned();
    let joined = world.join(&other, &[]);
    for _ in 0..12 {
        world.heartbeat(&other, joined.generation_id);
        world.consumer(beat("new", 3));
        world.pass(5_000);
    }
    let code = world.heartbeat(&other, joined.generation_id);
    assert_eq!(code, ErrorCode::UnknownMemberId.code());
    world.check_log();
}

#[test]
fn migration_happens_only_where_the_settings_allow_it() {
    let mut world = World::new();
    world.config.groups.consumer_migration_policy = "downgrade".to_owned();
    world.classic();
    let not_found = ErrorCode::GroupIdNotFound.code();
    let answer = world.consumer(join("new", &["foo"]));
    assert_eq!(answer.error_code, not_found);
    assert!(
        answer
            .error_message
            .is_some_and(|why| why.contains("online upgrade is disabled"))
    );
    world.check_log();
    world.config.groups.consumer_migration_policy = "upgrade".to_owned();
    assert_eq!(world.consumer(beat("new", 1)).error_code, not_found);
    assert_eq!(world.consumer(join("new", &["foo"])).error_code, 0);
    world.consumer(beat("new", -1));
    assert!(
        matches!(world.group(), Some(Group::Consumer(_))),
        "downgrade is disabled"
    );
    world.check_log();
}

#[test]
fn what_cannot_be_upgraded_stays_as_it_is() {
    let mut world = World::new();
    let classic = world.classic();
    let refused = ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some("(".into()),
        ..join("new", &["foo"])
    };
    let answer = world.consumer(refused);
    assert_eq!(
        answer.error_code,
        ErrorCode::InvalidRegularExpression.code()
    );
    assert_eq!(world.heartbeat(&classic, 1), 0);
    let joining = world.join_ticket(&classic, &[0]);
    let GroupAnswer::Join(joined) = world.answer(joining) else {
        panic!("another answer");
    };
    let custom = ConsumerProtocolAssignment {
        assigned_partitions: Vec::new(),
        user_data: Some(vec![1].into()),
    };
    let custom = [&1_i16.to_be_bytes()[..], &custom.to_bytes(1)].concat();
    let ticket = world.ask(GroupRequest::Sync(SyncGroupRequest {
        group_id: "g1".into(),
        generation_id: joined.generation_id,
        member_id: classic.as_str().into(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: classic.as_str().into(),
            assignment: custom.into(),
        }],
        ..SyncGroupRequest::default()
    }));
    world.answer(ticket);
    let answer = world.consumer(join("new", &["foo"]));
    assert!(
        answer
            .error_message
            .is_some_and(|why| why.contains("custom assignor"))
    );
    assert_eq!(world.heartbeat(&classic, joined.generation_id), 0);
    world.check_log();
}

#[test]
fn empty_groups_change_their_kind_with_who_comes() {
    let mut world = World::new();
    world.config.groups.consumer_migration_policy = "disabled".to_owned();
    assert_eq!(world.commit("", -1), 0);
    assert_eq!(world.consumer(join("new", &["foo"])).error_code, 0);
    assert!(matches!(world.group(), Some(Group::Consumer(_))));
    assert_eq!(world.fetch(None, -1), Ok(1));
    world.check_log();
    world.consumer(beat("new", -1));
    let classic = world.classic();
    assert!(matches!(world.group(), Some(Group::Classic(group)) if group.state == State::Stable));
    world.check_log();
    let answer = world.consumer(join("new", &["foo"]));
    assert_eq!(answer.error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(world.heartbeat(&classic, 1), 0);
}

#[test]
fn offsets_are_for_members_in_their_epoch() {
    let mut world = World::new();
    let foo = world.foo();
    world.consumer(join("a", &["foo"]));
    assert_eq!(world.commit("a", 2), 0);
    assert_eq!(world.commit("a", 3), ErrorCode::StaleMemberEpoch.code());
    assert_eq!(world.commit("b", 2), ErrorCode::UnknownMemberId.code());
    assert_eq!(world.commit("", -1), ErrorCode::UnknownMemberId.code());
    assert_eq!(world.fetch(Some("a"), 2), Ok(1));
    assert_eq!(
        world.fetch(Some("a"), 1),
        Err(ErrorCode::StaleMemberEpoch.code())
    );
    assert_eq!(
        world.fetch(Some("b"), 2),
        Err(ErrorCode::UnknownMemberId.code())
    );
    assert_eq!(world.fetch(None, -1), Ok(1));
    let delete = || OffsetDeleteRequest {
        group_id: "g1".into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "foo".into(),
            partitions: vec![OffsetDeleteRequestPartition::default()],
        }],
    };
    let deleted = |world: &mut World| {
        let ticket = world.ask(GroupRequest::OffsetDelete(delete()));
        let GroupAnswer::OffsetDelete(answer) = world.answer(ticket) else {
            panic!("another answer");
        };
        answer.topics[0].partitions[0].error_code
    };
    assert_eq!(
        deleted(&mut world),
        ErrorCode::GroupSubscribedToTopic.code()
    );
    let delete_group = |world: &mut World| {
        let ticket = world.ask(GroupRequest::DeleteGroup("g1"));
        world.answer(ticket)
    };
    let non_empty = GroupAnswer::DeleteGroup(ErrorCode::NonEmptyGroup.code());
    assert_eq!(delete_group(&mut world), non_empty);
    world.consumer(owns("a", 2, &[(foo, &[0])]));
    world.consumer(beat("a", -1));
    assert_eq!(deleted(&mut world), 0);
    assert_eq!(delete_group(&mut world), GroupAnswer::DeleteGroup(0));
    assert!(world.group().is_none());
    world.check_log();
    world.pass(1_000_000);
    assert!(world.group().is_none());
}

#[test]
fn offsets_of_empty_consumer_groups_expire_and_the_group_with_them() {
    let mut world = World::new();
    world.act(|shard, context, effects| shard.loaded(context, effects));
    world.consumer(join("a", &["foo"]));
    world.commit("a", 2);
    world.config.groups.consumer_session_timeout_ms = i32::MAX;
    world.consumer(beat("a", 2));
    let retention_ms = world.config.groups.offsets_retention_ms.cast_unsigned();
    world.pass(retention_ms / 2);
    world.consumer(beat("a", 2));
    world.pass(retention_ms);
    assert_eq!(world.fetch(None, -1), Ok(1), "it is subscribed");
    world.consumer(beat("a", -1));
    world.pass(retention_ms);
    assert!(world.group().is_none());
    world.check_log();
}

#[test]
fn groups_are_listed_and_described_as_what_they_are() {
    let mut world = World::new();
    world.consumer(join("a", &["foo"]));
    let mut list = |types: &[&'static str], states: &[&'static str]| {
        let ticket = world.ask(GroupRequest::List(ListGroupsRequest {
            states_filter: states.iter().map(|state| (*state).into()).collect(),
            types_filter: types.iter().map(|kind| (*kind).into()).collect(),
        }));
        let GroupAnswer::List(groups) = world.answer(ticket) else {
            panic!("another answer");
        };
        groups
    };
    let all = list(&[], &[]);
    assert_eq!(
        (all[0].group_type.as_ref(), all[0].protocol_type.as_ref()),
        ("consumer", "consumer")
    );
    assert_eq!(all[0].group_state, "Stable");
    assert_eq!(list(&["Consumer"], &["stable"]).len(), 1);
    assert!(list(&["classic"], &[]).is_empty() && list(&[], &["Empty"]).is_empty());
    let ticket = world.ask(GroupRequest::Describe("g1"));
    let GroupAnswer::Describe(described) = world.answer(ticket) else {
        panic!("another answer");
    };
    assert_eq!(described.error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(
        described.error_message.as_deref(),
        Some("Group g1 is not a classic group.")
    );
    let ticket = world.ask(GroupRequest::ConsumerDescribe("g1"));
    let GroupAnswer::ConsumerDescribe(described) = world.answer(ticket) else {
        panic!("another answer");
    };
    assert_eq!((described.error_code, described.members.len()), (0, 1));
    let counts = world.shard.counts();
    assert_eq!(
        (counts.consumer_stable, counts.members, counts.classic_empty),
        (1, 1, 0)
    );
}

#[test]
fn a_static_classic_member_takes_the_place_of_the_last_consumer() {
    let mut world = World::new();
    let foo = world.foo();
    let first = ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        ..join("new", &["foo"])
    };
    assert_eq!(
        told(&world.consumer(first)),
        Some(vec![(foo, vec![0, 1, 2, 3])])
    );
    let request = JoinGroupRequest {
        group_id: "g1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        group_instance_id: Some("i".into()),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: subscription(&[]).into(),
        }],
        ..JoinGroupRequest::default()
    };
    let ticket = world.ask(GroupRequest::Join(request));
    let GroupAnswer::Join(joined) = world.answer(ticket) else {
        panic!("another answer");
    };
    assert_eq!(joined.error_code, 0);
    let Some(Group::Classic(group)) = world.group() else {
        panic!("only a classic member is left");
    };
    assert_eq!(
        (group.state, group.generation),
        (State::Stable, joined.generation_id)
    );
    let synced = world.sync(&joined.member_id, joined.generation_id, &[]);
    assert_eq!(synced.assignment.as_ref(), assignment(&[0, 1, 2, 3]));
    world.check_log();
}

#[test]
fn members_of_both_protocols_leave_together() {
    let mut world = World::new();
    let classic = world.classic();
    world.consumer(join("new", &["foo"]));
    let member = |id: &str| MemberIdentity {
        member_id: id.to_owned().into(),
        ..MemberIdentity::default()
    };
    let ticket = world.ask(GroupRequest::Leave(LeaveGroupRequest {
        group_id: "g1".into(),
        members: vec![member(&classic), member("new"), member("nobody")],
        ..LeaveGroupRequest::default()
    }));
    let GroupAnswer::Leave(answer) = world.answer(ticket) else {
        panic!("another answer");
    };
    let codes: Vec<i16> = answer
        .members
        .iter()
        .map(|member| member.error_code)
        .collect();
    assert_eq!(codes, [0, 0, ErrorCode::UnknownMemberId.code()]);
    assert!(matches!(world.group(), Some(Group::Consumer(group)) if group.is_empty()));
    world.check_log();
}

#[test]
fn subscriptions_of_newer_versions_are_read_as_far_as_they_are_known() {
    let mut world = World::new();
    let mut bytes = subscription(&[1]);
    bytes[1] = 9;
    bytes.extend([1, 2, 3]);
    let mut said = None;
    world.act(|_, context, _| said = Some(consumer_protocol::subscription(&bytes, context)));
    let said = said.expect("asked").expect("readable");
    assert_eq!(said.owned[0].partitions, [1]);
    assert_eq!(consumer_protocol::version(&bytes), 3);
    world.act(|_, context, _| assert!(consumer_protocol::subscription(&[], context).is_err()));
}
