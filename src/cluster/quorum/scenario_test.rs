//! Single steps of a quorum, one after the other.

use super::member::MembershipChange;
use super::node::{QuorumNode, Recovered};
use super::node_membership::ChangeRefused;
use super::simulation_world::{World, config, voter};

fn alone() -> QuorumNode {
    QuorumNode::new(config(0, 1, 1), Recovered::default()).unwrap()
}

/// Carries out all work at once; what was appended.
fn settle(node: &mut QuorumNode) -> Vec<u64> {
    let mut appended = Vec::new();
    while let Some(work) = node.take_work() {
        appended.extend(work.append.iter().map(|entry| entry.index));
        assert!(work.send_now.is_empty() && node.work_is_durable().is_empty());
    }
    appended
}

#[test]
fn a_sole_voter_leads_at_once_and_commits_what_is_durable() {
    let mut node = alone();
    assert!(node.propose(vec![1]).is_err());
    node.lead_alone();
    assert_eq!(settle(&mut node), [2]);
    assert_eq!((node.leader(), node.term()), (Some(0), 2));
    assert!(!node.is_leading_with_all_applied());
    assert_eq!(node.take_committed().len(), 1);
    assert!(node.is_leading_with_all_applied());
    let proposal = node.propose(vec![1]).unwrap();
    assert_eq!((proposal.index, proposal.term), (3, 2));
    let work = node.take_work().unwrap();
    assert!(work.needs_disk() && work.state.is_none());
    assert_eq!(node.take_committed(), []);
    assert!(node.take_work().is_none());
    node.work_is_durable();
    settle(&mut node);
    let committed = node.take_committed();
    assert_eq!(committed.len(), 1);
    assert_eq!((committed[0].index, &committed[0].data[..]), (3, &[1][..]));
}

#[test]
fn a_node_goes_on_where_it_stopped() {
    let mut node = alone();
    node.lead_alone();
    let mut recovered = Recovered::default();
    for data in 0..3_u8 {
        while let Some(work) = node.take_work() {
            recovered.state = work.state.or(recovered.state);
            recovered.entries.extend(work.append);
            node.work_is_durable();
        }
        node.take_committed();
        node.propose(vec![data]).unwrap();
    }
    let mut again = QuorumNode::new(config(0, 1, 1), recovered.clone()).unwrap();
    assert_eq!((again.term(), again.applied_index()), (2, 1));
    again.lead_alone();
    settle(&mut again);
    let committed = again.take_committed();
    let data: Vec<&[u8]> = committed.iter().map(|entry| &entry.data[..]).collect();
    assert_eq!(data, [&[][..], &[0], &[1], &[]]);
    assert_eq!(again.term(), 3);

    let mut without_state = recovered.clone();
    without_state.state = None;
    assert!(QuorumNode::new(config(0, 1, 1), without_state).is_err());
    let mut with_gap = recovered.clone();
    with_gap.entries.remove(1);
    assert!(QuorumNode::new(config(0, 1, 1), with_gap).is_err());
    let mut with_old_state = recovered;
    with_old_state.state.as_mut().unwrap().term = 1;
    assert!(QuorumNode::new(config(0, 1, 1), with_old_state).is_err());
}

#[test]
fn a_vote_waits_until_it_is_durable() {
    let node = |id| QuorumNode::new(config(id, 3, 1), Recovered::default()).unwrap();
    let (mut candidate, mut voter) = (node(0), node(1));
    settle(&mut voter);
    // Asks whether an election has a chance, which promises nothing, then for the vote itself.
    let mut answers = Vec::new();
    for _ in 0..100 {
        candidate.tick();
        let Some(work) = candidate.take_work() else {
            continue;
        };
        let mut messages = work.send_now;
        messages.extend(candidate.work_is_durable());
        for message in messages.iter().filter(|message| message.to == 1) {
            voter.receive(0, &message.bytes).unwrap();
            let Some(work) = voter.take_work() else {
                continue;
            };
            assert!(work.send_now.is_empty());
            answers.push(work.state.map(|state| state.vote));
            for answer in voter.work_is_durable() {
                candidate.receive(1, &answer.bytes).unwrap();
            }
        }
        if candidate.is_leader() {
            break;
        }
    }
    assert!(candidate.is_leader());
    assert_eq!(answers[..2], [None, Some(Some(0))]);
}

#[test]
fn a_node_that_lost_what_it_acknowledged_stops() {
    let mut world = World::new(3, 3, 1, None);
    world.run_until("somebody leads", |world| world.leader().is_some());
    let leader = world.leader().unwrap();
    assert!(world.propose(leader));
    for _ in 0..10 {
        world.tick();
    }
    let other = (leader + 1) % 3;
    let blank = QuorumNode::new(config(other as i32, 3, 1), Recovered::default());
    world.peers[other].node = Some(blank.unwrap());
    for _ in 0..10 {
        world.tick();
    }
    let node = world.peers[other].node.as_mut().unwrap();
    assert!(node.failure().unwrap().contains("was lost"));
    assert!(node.take_work().is_none());
}

#[test]
fn a_node_that_joins_gets_a_snapshot_and_becomes_a_voter() {
    let mut world = World::new(4, 3, 2, None);
    world.run_until("somebody leads", |world| world.leader().is_some());
    let leader = world.leader().unwrap();
    assert!(world.propose(leader));
    world.run_until("it is committed", |world| world.peers[leader].applied >= 3);
    let node = world.peers[leader].node.as_mut().unwrap();
    let add = MembershipChange::AddLearner(voter(3));
    let promote = MembershipChange::Promote(3);
    assert_eq!(
        node.change_members(&promote),
        Err(ChangeRefused::NoSuchMember)
    );
    assert!(node.change_members(&add).is_ok());
    assert_eq!(
        node.change_members(&MembershipChange::Remove(leader as i32)),
        Err(ChangeRefused::ChangeOpen)
    );
    world.run_until("the learner follows", |world| {
        world.peers[3].applied >= world.peers[leader].applied
    });
    let node = world.peers[3].node.as_ref().unwrap();
    assert_eq!(node.members().voters.len(), 3);
    assert_eq!(node.members().learners.keys().collect::<Vec<_>>(), [&3]);
    for _ in 0..10 {
        world.tick();
    }
    let node = world.peers[leader].node.as_mut().unwrap();
    assert_eq!(
        node.change_members(&MembershipChange::Remove(leader as i32)),
        Err(ChangeRefused::IsLeader)
    );
    assert_eq!(node.change_members(&add), Err(ChangeRefused::AlreadyThere));
    assert!(node.change_members(&promote).is_ok());
    world.run_until("it is a voter", |world| {
        let node = world.peers[3].node.as_ref().unwrap();
        node.members().voters.len() == 4
    });
    let description = world.peers[leader].node.as_ref().unwrap().describe();
    assert_eq!(description.leader, Some(leader as i32));
    assert_eq!(description.replicas.len(), 4);
    assert!(description.replicas.iter().all(|replica| replica.is_voter));
    world.heal();
}

#[test]
fn leadership_is_handed_over() {
    let mut world = World::new(3, 3, 3, None);
    world.run_until("somebody leads", |world| world.leader().is_some());
    let leader = world.leader().unwrap();
    let other = (leader + 1) % 3;
    let node = world.peers[leader].node.as_mut().unwrap();
    assert_eq!(
        node.transfer_leadership(7),
        Err(ChangeRefused::NoSuchMember)
    );
    node.transfer_leadership(other as i32).unwrap();
    assert!(node.propose(vec![1]).is_err());
    world.run_until("the other one leads", |world| world.leader() == Some(other));
    let refused = world.peers[leader].node.as_mut().unwrap().propose(vec![1]);
    assert_eq!(refused.unwrap_err().leader, Some(other as i32));
}

#[test]
fn a_change_of_the_members_is_in_force_when_its_commitment_is_durable() {
    let mut node = alone();
    node.lead_alone();
    settle(&mut node);
    node.take_committed();
    let add = MembershipChange::AddLearner(voter(1));
    let index = node.change_members(&add).unwrap().index;
    assert_eq!(settle_entry(&mut node), index);
    let work = node.take_work().unwrap();
    assert!(work.state.is_some_and(|state| state.commit >= index));
    assert_eq!(node.take_committed(), []);
    assert!(node.members().learners.is_empty());
    node.work_is_durable();
    assert_eq!(node.take_committed().len(), 1);
    assert_eq!(node.members().learners.keys().collect::<Vec<_>>(), [&1]);
}

/// Makes one piece of work durable; its last entry.
fn settle_entry(node: &mut QuorumNode) -> u64 {
    let work = node.take_work().unwrap();
    node.work_is_durable();
    work.append.last().unwrap().index
}
