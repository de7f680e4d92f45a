//! Membership in a consumer group by the classic protocol: join, sync, heartbeat, commit, leave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::wire::error_code::ErrorCode;
use crate::wire::message::Request;
use crate::wire::messages::heartbeat::HeartbeatRequest;
use crate::wire::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use crate::wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use super::client::{Client, Patience, Topics};
use super::connection::Reply;
use super::coordinator::{Coordinated, is_elsewhere};
use super::failure::Failure;
use super::group_offsets::{self, Committer, Offsets};
use super::member_protocol;
use super::range_assignor::{self, Subscriber};
use super::termination::Termination;

/// How long the group waits for a member that says nothing; Kafka's default for consumers.
const SESSION_TIMEOUT_MS: i32 = 45_000;
/// How long a rebalance waits for members that are busy with what they have read.
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
/// How often a member that waits for the others looks whether it was told to stop.
const LOOK: Duration = Duration::from_millis(200);
/// The only protocol offered.
const PROTOCOL: &str = "range";
const PROTOCOL_TYPE: &str = "consumer";
/// What a member says before it is one.
const NO_GENERATION: i32 = -1;

/// Whether the group still counts on this member as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does.
    Member,
    /// It has to join again.
    Rejoin,
}

/// A process in a group that reads one topic.
#[derive(Debug)]
pub(crate) struct GroupMember {
    client: Client,
    group: String,
    topic: String,
    /// Empty until the coordinator gave one.
    member_id: String,
    generation: i32,
    /// Numbers of partitions that this member handed out as the leader.
    counts: Option<BTreeMap<String, usize>>,
}

impl GroupMember {
    /// Not yet in the group.
    pub(crate) fn new(client: Client, group: &str, topic: &str) -> GroupMember {
        GroupMember {
            client,
            group: group.to_owned(),
            topic: topic.to_owned(),
            member_id: String::new(),
            generation: NO_GENERATION,
            counts: None,
        }
    }

    /// Joins, with whoever else does, and gives the partitions that this member reads; none when
    /// the process was told to stop.
    pub(crate) fn join(&mut self, termination: &Termination) -> Result<Option<Vec<i32>>, Failure> {
        let mut patience = Patience::new(self.client.timeout());
        loop {
            match self.join_once(termination) {
                Ok(partitions) => return Ok(partitions),
                Err(failure) if self.must_rejoin(&failure) => {}
                Err(failure) => patience.wait_after(failure)?,
            }
            if termination.is_requested() {
                return Ok(None);
            }
        }
    }

    fn join_once(&mut self, termination: &Termination) -> Result<Option<Vec<i32>>, Failure> {
        let Some(reply) = self.join_group(termination)? else {
            return Ok(None);
        };
        let joined = reply.decode::<JoinGroupRequest<'_>>()?;
        // A broker that is not the coordinator gives none back.
        if !joined.member_id.is_empty() {
            self.member_id = joined.member_id.to_string();
        }
        Failure::check(self.subject(), joined.error_code, None)?;
        self.generation = joined.generation_id;
        let is_leader = joined.leader == joined.member_id && !joined.skip_assignment;
        let assignments = match is_leader {
            true => self.assignments(&joined)?,
            false => {
                self.counts = None;
                Vec::new()
            }
        };
        let request = SyncGroupRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.member_id.as_str().into(),
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: Some(PROTOCOL.into()),
            assignments,
            ..Default::default()
        };
        let node = Coordinated::Group(&self.group).find(&mut self.client)?;
        let Some(reply) = ask_patiently(&mut self.client, node, &request, termination)? else {
            return Ok(None);
        };
        let synced = reply.decode::<SyncGroupRequest<'_>>()?;
        Failure::check(self.subject(), synced.error_code, None)?;
        let assigned = member_protocol::assigned(&synced.assignment);
        let mut assigned = assigned.ok_or_else(|| Failure::Protocol {
            address: format!("leader of {}", self.subject()),
            reason: "an assignment that cannot be read".to_owned(),
        })?;
        Ok(Some(assigned.remove(&self.topic).unwrap_or_default()))
    }

    fn join_group(&mut self, termination: &Termination) -> Result<Option<Reply>, Failure> {
        let metadata = member_protocol::subscription(&self.topic);
        let request = JoinGroupRequest {
            group_id: self.group.as_str().into(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: self.member_id.as_str().into(),
            protocol_type: PROTOCOL_TYPE.into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: PROTOCOL.into(),
                metadata: metadata.into(),
            }],
            ..Default::default()
        };
        let coordinated = Coordinated::Group(&self.group);
        let node = coordinated.find(&mut self.client)?;
        ask_patiently(&mut self.client, node, &request, termination)
    }

    /// What the leader gives to everybody.
    fn assignments(
        &mut self,
        joined: &JoinGroupResponse<'_>,
    ) -> Result<Vec<SyncGroupRequestAssignment<'static>>, Failure> {
        let mut subscribers = Vec::new();
        for member in &joined.members {
            let topics =
                member_protocol::subscribed(&member.metadata).ok_or_else(|| Failure::Protocol {
                    address: format!("member {} of {}", member.member_id, self.subject()),
                    reason: "a subscription that cannot be read".to_owned(),
                })?;
            subscribers.push(Subscriber {
                member_id: member.member_id.to_string(),
                instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
                topics: topics.into_iter().collect(),
            });
        }
        let wanted = subscribers.iter().flat_map(|it| it.topics.iter().cloned());
        let counts = self.count_partitions(wanted.collect())?;
        let shares = range_assignor::assign(&subscribers, &counts);
        self.counts = Some(counts);
        let assignments = shares
            .into_iter()
            .map(|(member_id, share)| SyncGroupRequestAssignment {
                member_id: member_id.into(),
                assignment: member_protocol::assignment(share).into(),
            });
        Ok(assignments.collect())
    }

    /// How many partitions topics have; those that are not there are left out.
    fn count_partitions(
        &mut self,
        topics: BTreeSet<String>,
    ) -> Result<BTreeMap<String, usize>, Failure> {
        let mut counts = BTreeMap::new();
        for name in topics {
            let metadata = self.client.metadata(Topics::One(&name))?;
            let found = metadata.topics.into_iter().next();
            let found = found.filter(|topic| topic.check().is_ok());
            counts.extend(found.map(|topic| (name, topic.partitions.len())));
        }
        Ok(counts)
    }

    /// As the leader, finds out whether topics have other partitions than those handed out.
    pub(crate) fn look_at_topics(&mut self) -> Result<Standing, Failure> {
        let Some(before) = self.counts.clone() else {
            return Ok(Standing::Member);
        };
        let now = self.count_partitions(before.keys().cloned().collect())?;
        Ok(match now == before {
            true => Standing::Member,
            false => Standing::Rejoin,
        })
    }

    /// Says that this member is alive.
    pub(crate) fn heartbeat(&mut self) -> Result<Standing, Failure> {
        let request = HeartbeatRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.member_id.as_str().into(),
            ..Default::default()
        };
        let subject = self.subject();
        let outcome = |reply: &Reply| {
            let response = reply.decode::<HeartbeatRequest<'_>>()?;
            Failure::check(subject.as_str(), response.error_code, None)
        };
        let coordinated = Coordinated::Group(&self.group);
        let asked = coordinated.ask(&mut self.client, &request, i16::MAX, outcome);
        self.standing(asked.map(drop))
    }

    /// Commits offsets of the topic.
    pub(crate) fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<Standing, Failure> {
        let offsets = Offsets::from([(self.topic.clone(), offsets.clone())]);
        let committer = Committer {
            member_id: &self.member_id,
            generation: self.generation,
        };
        let committed = group_offsets::commit(&mut self.client, &self.group, committer, &offsets);
        self.standing(committed)
    }

    /// What the group has committed of these partitions.
    pub(crate) fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, Failure> {
        group_offsets::of_partitions(&mut self.client, &self.group, &self.topic, partitions)
    }

    /// Leaves, so that others need not wait until this member has been silent for long.
    pub(crate) fn leave(mut self) -> Result<(), Failure> {
        if self.member_id.is_empty() {
            return Ok(());
        }
        let member_id = self.member_id.as_str();
        let request = LeaveGroupRequest {
            group_id: self.group.as_str().into(),
            member_id: member_id.into(),
            members: vec![MemberIdentity {
                member_id: member_id.into(),
                reason: Some("the consumer is being closed".into()),
                ..Default::default()
            }],
        };
        let subject = self.subject();
        let outcome = |reply: &Reply| {
            let response = reply.decode::<LeaveGroupRequest<'_>>()?;
            Failure::check(subject.as_str(), response.error_code, None)?;
            for member in &response.members {
                Failure::check(subject.as_str(), member.error_code, None)?;
            }
            Ok(())
        };
        let coordinated = Coordinated::Group(&self.group);
        match coordinated.ask(&mut self.client, &request, i16::MAX, outcome) {
            Err(failure) if failure.error_code() != Some(ErrorCode::UnknownMemberId) => {
                Err(failure)
            }
            _ => Ok(()),
        }
    }

    fn standing(&mut self, result: Result<(), Failure>) -> Result<Standing, Failure> {
        match result {
            Ok(()) => Ok(Standing::Member),
            Err(failure) if self.must_rejoin(&failure) => Ok(Standing::Rejoin),
            // The coordinator may be back, or be another one, when this member joins again.
            Err(failure) if failure.is_retriable() && is_about_the_way(&failure) => {
                Ok(Standing::Rejoin)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Whether joining again is the answer. A member that is not known any more joins as a new one.
    fn must_rejoin(&mut self, failure: &Failure) -> bool {
        match failure.error_code() {
            Some(ErrorCode::UnknownMemberId) => self.member_id.clear(),
            Some(ErrorCode::IllegalGeneration) => self.generation = NO_GENERATION,
            Some(ErrorCode::RebalanceInProgress | ErrorCode::MemberIdRequired) => {}
            _ => return false,
        }
        true
    }

    fn coordinated(&self) -> Coordinated<'_> {
        Coordinated::Group(&self.group)
    }

    fn subject(&self) -> String {
        self.coordinated().subject()
    }
}

fn is_about_the_way(failure: &Failure) -> bool {
    is_elsewhere(failure) || matches!(failure, Failure::Unreachable { .. })
}

/// Asks for what comes only when all members are there: as long as a rebalance may take, or until
/// the process is told to stop.
fn ask_patiently<'q, Q: Request<'q>>(
    client: &mut Client,
    node: i32,
    request: &Q,
    termination: &Termination,
) -> Result<Option<Reply>, Failure> {
    // Other members may have said that a rebalance waits longer for them: then it is asked again.
    let limit = Duration::from_millis(REBALANCE_TIMEOUT_MS.unsigned_abs().into());
    let limit = limit + client.timeout();
    let begun = Instant::now();
    let mut ask = || {
        let connection = client.node(node)?;
        let expected = connection.send(request, i16::MAX)?;
        while !connection.has_answer_within(LOOK)? {
            if termination.is_requested() {
                return Ok(None);
            }
            if begun.elapsed() > limit {
                return Err(Failure::Unreachable {
                    address: format!("coordinator (broker {node})"),
                    reason: "the rebalance does not end".to_owned(),
                });
            }
        }
        connection.receive(expected).map(Some)
    };
    let reply = ask();
    if !matches!(reply, Ok(Some(_))) {
        client.drop_node(node);
    }
    reply
}
