//! A replica that follows, on the simulated disk: it copies its leader's offsets and epochs, gaps and
//! all, is cut where the logs part, and keeps through a power cut what it reported as flushed.

use std::rc::Rc;

use super::leader::Reign;
use super::replica::{AppendRefusal, AppendTerms, CommitFailure, Replica};
use crate::log::one_log::{KEEPING, open_one, recovered};
use crate::log::position::Offset;
use crate::runtime::sim::disk_model::DiskModel;
use crate::runtime::sim::world::World;
use crate::wire::record_batch::{BatchHeader, Batches, HEADER_BYTES};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

const OWN: i32 = 2;
const LEADER: i32 = 1;

fn reign(leader: i32, leader_epoch: i32) -> Reign {
    Reign {
        leader,
        leader_epoch,
        partition_epoch: leader_epoch,
        replicas: vec![LEADER, OWN],
        isr: vec![LEADER, OWN],
        min_isr: 1,
    }
}

/// A batch of `records` as the leader of an epoch placed it.
fn batch(base_offset: i64, epoch: i32, records: usize) -> (BatchHeader, Vec<u8>) {
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset,
        ..BatchOptions::default()
    });
    for _ in 0..records {
        builder.append(5, None, Some(&[7; 300]), [].into_iter());
    }
    let bytes = builder.finish();
    let header = BatchHeader::parse(&bytes).expect("just built");
    let header = BatchHeader {
        partition_leader_epoch: epoch,
        ..header
    };
    (header, bytes[HEADER_BYTES..].to_vec())
}

async fn follow(replica: &Replica, base_offset: i64, epoch: i32, records: usize) -> bool {
    let (header, payload) = batch(base_offset, epoch, records);
    let followed = (LEADER, replica.leader_epoch());
    let appended = replica.append_replicated(followed, &header, &payload);
    appended.await.expect("healthy")
}

async fn flush(replica: &Replica) -> Offset {
    let log = replica.log();
    loop {
        let moved = log.flush_moved().raised();
        if log.flushed_offset() == log.end_offset() {
            return log.flushed_offset();
        }
        log.healthy().expect("healthy");
        moved.await;
    }
}

/// Base offsets and epochs of all batches.
async fn batches(replica: &Replica) -> Vec<(i64, i32)> {
    let log = replica.log();
    let (mut at, end) = (log.start_offset(), log.end_offset());
    let mut found = Vec::new();
    while at < end {
        let run = log.read(at, end, 1 << 20, true).await.expect("readable");
        let slices = run.slices.iter().flat_map(|slice| slice.to_vec());
        let bytes: Vec<u8> = slices.collect();
        for batch in Batches::new(&bytes) {
            let batch = batch.expect("whole");
            batch.verify_checksum().expect("as it was sent");
            let header = batch.header();
            found.push((header.base_offset, header.partition_leader_epoch));
            at = Offset(header.last_offset() + 1);
        }
    }
    found
}

fn with_follower<F: Future<Output = ()> + 'static>(
    world: &Rc<World>,
    test: impl FnOnce(Rc<Replica>) -> F + 'static,
) {
    let core = recovered(world);
    let run = world.run(async move {
        let (_directory, log) = open_one(core, KEEPING).await;
        let epoch = log
            .with_epochs(|epochs| epochs.latest())
            .map_or(3, |epoch| epoch.0.max(3));
        test(Rc::new(Replica::of(log, OWN, &reign(LEADER, epoch)))).await;
    });
    run.expect("no cut is due");
}

#[test]
fn offsets_epochs_and_gaps_are_the_leaders_and_survive_a_power_cut() {
    let world = World::new(1, DiskModel::new());
    with_follower(&world, async |replica| {
        for (base, epoch) in [(0, 1), (3, 1), (500, 2), (1 << 33, 3)] {
            assert!(follow(&replica, base, epoch, 3).await);
        }
        assert_eq!(flush(&replica).await, Offset((1 << 33) + 3));
        assert_eq!(replica.epoch_end(1), (1, 500));
        assert!(!follow(&replica, 500, 3, 3).await, "it is there already");
    });
    let world = World::new(2, world.disk_after_power_cut());
    with_follower(&world, async |replica| {
        let expected = [(0, 1), (3, 1), (500, 2), (1 << 33, 3)];
        assert_eq!(batches(&replica).await, expected);
        assert_eq!(replica.log().end_offset(), Offset((1 << 33) + 3));
        assert!(follow(&replica, (1 << 33) + 3, 3, 1).await);
    });
}

#[test]
fn a_log_begins_anew_where_the_leaders_does() {
    let world = World::new(1, DiskModel::new());
    with_follower(&world, async |replica| {
        follow(&replica, 0, 1, 4).await;
        let log = replica.log();
        log.skip_to(Offset(900)).await.expect("healthy");
        log.advance_start(Offset(900)).await.expect("healthy");
        assert_eq!(log.flushed_offset(), Offset(900));
        assert!(follow(&replica, 900, 3, 2).await);
        flush(&replica).await;
    });
    let world = World::new(2, world.disk_after_power_cut());
    with_follower(&world, async |replica| {
        assert_eq!(replica.log().start_offset(), Offset(900));
        assert_eq!(batches(&replica).await, [(900, 3)]);
    });
}

#[test]
fn a_cut_is_made_for_the_leader_of_the_epoch_alone() {
    let world = World::new(1, DiskModel::new());
    with_follower(&world, async |replica| {
        follow(&replica, 0, 1, 2).await;
        follow(&replica, 2, 3, 2).await;
        replica.follow_metadata(&reign(LEADER, 4));
        let late = replica.cut_replicated((LEADER, 3), Offset(0)).await;
        assert_eq!((late, replica.log().end_offset()), (Ok(()), Offset(4)));
        let cut = replica.cut_replicated((LEADER, 4), Offset(2)).await;
        assert_eq!((cut, replica.log().end_offset()), (Ok(()), Offset(2)));
        assert!(follow(&replica, 2, 4, 1).await);
        assert_eq!(batches(&replica).await, [(0, 1), (2, 4)]);
    });
}

#[test]
fn roles_change_and_old_promises_end() {
    let world = World::new(1, DiskModel::new());
    with_follower(&world, async |replica| {
        follow(&replica, 0, 3, 2).await;
        let (header, payload) = batch(0, -1, 1);
        let place = |replica: Rc<Replica>| {
            let (header, payload) = (header, payload.clone());
            async move {
                let turn = replica.take_turn();
                let terms = AppendTerms::default();
                replica.append(turn, &header, &payload, terms).await
            }
        };
        let refused = place(replica.clone()).await;
        assert_eq!(refused, Err(AppendRefusal::NotLeader));
        replica.follow_metadata(&reign(OWN, 4));
        assert!(!follow(&replica, 2, 3, 1).await, "it leads now");
        let placed = place(replica.clone()).await.expect("it leads");
        assert_eq!(placed.base_offset, Offset(2));
        replica.flushed(&placed).await.expect("healthy");
        // The other one has not even said where it is.
        assert_eq!(replica.high_watermark(), Offset(0));
        assert!(!replica.may_tell_end());
        replica.follow_metadata(&reign(LEADER, 5));
        let over = replica.placed_is_committed(&placed).await;
        assert_eq!(over, Err(CommitFailure::NotLeader));
        replica.follow_metadata(&reign(OWN, 6));
        let over = replica.placed_is_committed(&placed).await;
        assert_eq!(over, Err(CommitFailure::NotLeader), "of another reign");
        // Alone, what is flushed is committed.
        let alone = Reign {
            partition_epoch: 7,
            isr: vec![OWN],
            ..reign(OWN, 6)
        };
        replica.follow_metadata(&alone);
        assert_eq!(replica.high_watermark(), Offset(3));
        assert!(replica.may_tell_end() && replica.has_enough_in_sync());
    });
}
