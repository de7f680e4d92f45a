//! The part of a Produce that belongs to a transaction: what would open one in a partition is appended
//! only when the coordinator vouches for it (KIP-890).
//!
//! The partition gives a guard first, then the coordinator is asked: a marker that comes in between
//! takes the guard back. What is part of an open transaction costs one question to the partition's
//! core, and what is none costs nothing.
//!
//! With `transaction.partition.verification.enable=false` nobody is asked, as in Kafka, unless the
//! client leaves it to the broker to add partitions to its transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dispatch::Api;
use super::error_mapping::{partition_code, partition_message};
use super::produce::{Plan, PlannedPartition, Refusal};
use super::transaction_verification::BROKER_ADDS_FROM;
use crate::wire::error_code::ErrorCode;

/// Topic and partition of a part.
type Place = (Arc<str>, i32);

/// Asks about the transactional parts of a plan, and refuses those that nobody vouches for.
pub(super) async fn verify(api: &Api, plan: &mut Plan, transactional_id: &str, version: i16) {
    let is_transactional = |part: &usize| plan.parts[*part].header.attributes.is_transactional();
    let parts: Vec<usize> = (0..plan.parts.len()).filter(is_transactional).collect();
    if parts.is_empty() {
        return;
    }
    let asked = parts.iter().map(|part| {
        let part = &plan.parts[*part];
        (part.log, part.header)
    });
    let answers = api.router.verifications(asked.collect()).await;
    let config = api.router.config();
    let asks = version >= BROKER_ADDS_FROM || config.transactions.partition_verification;
    let mut refusals = BTreeMap::new();
    let mut needed: BTreeMap<(i64, i16), Vec<usize>> = BTreeMap::new();
    for (part, answer) in parts.into_iter().zip(answers) {
        match answer {
            Ok(verification) => {
                let appended = &mut plan.parts[part];
                appended.guard = verification.guard();
                if appended.guard.is_some() && asks {
                    let header = &appended.header;
                    let producer = (header.producer_id, header.producer_epoch);
                    needed.entry(producer).or_default().push(part);
                }
            }
            Err(error) => {
                let refusal = Refusal {
                    message: partition_message(&error),
                    ..Refusal::of(partition_code(&error))
                };
                refusals.insert(part, refusal);
            }
        }
    }
    let places = places(plan);
    for (producer, parts) in needed {
        let asked = parts.iter().map(|part| places[*part].clone()).collect();
        let verified = api.verify_transaction(transactional_id, producer, asked, version);
        let verified = verified.await;
        assert!(verified.len() == parts.len(), "one answer per partition");
        for (part, verified) in parts.into_iter().zip(verified) {
            if let Err(code) = verified {
                refusals.insert(part, refusal(code));
            }
        }
    }
    refuse(plan, refusals);
}

fn refusal(code: ErrorCode) -> Refusal {
    Refusal::with(code, "The partition is not part of the transaction")
}

/// The places of all parts, in their order.
fn places(plan: &Plan) -> Vec<Place> {
    let topics = plan.topics.iter();
    let places = topics.flat_map(|topic| {
        let appended = topic.partitions.iter().filter(|it| it.outcome.is_ok());
        appended.map(|partition| (topic.name.clone(), partition.index))
    });
    places.collect()
}

/// Takes parts out of the plan.
fn refuse(plan: &mut Plan, mut refusals: BTreeMap<usize, Refusal>) {
    if refusals.is_empty() {
        return;
    }
    let mut part = 0;
    plan.parts.retain(|_| {
        part += 1;
        !refusals.contains_key(&(part - 1))
    });
    let topics = plan.topics.iter_mut();
    let partitions = topics.flat_map(|topic| &mut topic.partitions);
    let appended = partitions.filter(|partition| partition.outcome.is_ok());
    for (part, PlannedPartition { outcome, .. }) in appended.enumerate() {
        if let Some(refusal) = refusals.remove(&part) {
            *outcome = Err(refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::produce::PlannedTopic;
    use crate::cluster::image::{MetadataImage, PartitionImage};
    use crate::cluster::record::MetadataRecord;
    use crate::shard::request::{AppendPart, Payload, log_of};
    use crate::wire::codec::Uuid;
    use crate::wire::record_batch::BatchHeader;
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

    fn part(image: &MetadataImage, partition: i32) -> AppendPart {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        batch.append(1, None, None, [].into_iter());
        AppendPart {
            log: log_of(image.topic("t").expect("made"), partition).expect("made"),
            header: BatchHeader::parse(&batch.finish()).expect("just built"),
            payload: Payload::Owned(Vec::new()),
            guard: None,
            bumps_epochs: false,
        }
    }

    fn image() -> MetadataImage {
        let mut image = MetadataImage::empty("c", 1);
        let partition = PartitionImage {
            leader: 1,
            leader_epoch: 0,
            ..PartitionImage::new(vec![1])
        };
        image.apply(&MetadataRecord::TopicCreated {
            name: "t".to_string(),
            id: Uuid([1; 16]),
            partitions: vec![partition; 4],
            configs: BTreeMap::new(),
        });
        image
    }

    #[test]
    fn what_is_refused_leaves_the_plan_and_the_rest_keeps_its_place() {
        let image = image();
        let unknown = Err(Refusal::of(ErrorCode::UnknownTopicOrPartition));
        let outcomes = [Ok(-1), unknown, Ok(-1), Ok(-1)];
        let partitions = (0..).zip(outcomes);
        let topic = PlannedTopic {
            name: "t".into(),
            id: Uuid([1; 16]),
            partitions: partitions
                .map(|(index, outcome)| PlannedPartition { index, outcome })
                .collect(),
        };
        let mut plan = Plan {
            topics: vec![topic],
            parts: [0, 2, 3].map(|index| part(&image, index)).into(),
        };
        let indexes = |plan: &Plan| places(plan).iter().map(|place| place.1).collect::<Vec<_>>();
        assert_eq!(indexes(&plan), [0, 2, 3]);
        let refused = BTreeMap::from([(1, refusal(ErrorCode::InvalidTxnState))]);
        refuse(&mut plan, refused);
        assert_eq!(indexes(&plan), [0, 3]);
        let logs: Vec<u32> = plan.parts.iter().map(|part| part.log.partition).collect();
        assert_eq!(logs, [0, 3]);
        let outcome = plan.topics[0].partitions[2].outcome.as_ref();
        let code = outcome.map_err(|refusal| refusal.code);
        assert_eq!(code, Err(ErrorCode::InvalidTxnState));
    }
}
