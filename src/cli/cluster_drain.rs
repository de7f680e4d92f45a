//! `percolog cluster drain`: every replica away from a broker, each to one that holds few.

use std::collections::BTreeMap;

use serde_json::json;

use super::client::{Client, ClientOptions, Topics};
use super::cluster_reassign::{Ongoing, Target, ongoing, reassign};
use super::failure::Failure;
use super::metadata::{Broker, Metadata};
use super::output::{self, OutputFormat, Table};

#[derive(Debug, clap::Args)]
pub(crate) struct DrainArguments {
    /// Node id of the broker
    #[arg(value_name = "ID")]
    broker: i32,
    /// Only prints the plan
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    client: ClientOptions,
}

/// A partition, and where it goes.
#[derive(Debug, PartialEq, Eq)]
struct Move {
    topic: String,
    partition: i32,
    before: Vec<i32>,
    after: Vec<i32>,
}

/// Runs the command.
pub(crate) fn run(arguments: &DrainArguments) -> Result<(), Failure> {
    let options = &arguments.client;
    let mut client = Client::connect(options)?;
    let metadata = client.metadata(Topics::All)?;
    let under_way = ongoing(&mut client, options)?;
    let moves = plan(&metadata, &under_way, arguments.broker)?;
    print(&moves, options.output)?;
    if arguments.dry_run || moves.is_empty() {
        return Ok(());
    }
    let targets = moves.into_iter().map(|step| Target {
        topic: step.topic,
        partition: step.partition,
        replicas: Some(step.after),
    });
    reassign(&mut client, options, &targets.collect::<Vec<_>>())?;
    output::note("started; percolog cluster reassign --list shows what is still under way");
    Ok(())
}

/// Where every replica of the broker goes: to an active broker that does not hold the partition,
/// rather in a rack of its own, and of those to the one that holds the fewest.
fn plan(metadata: &Metadata, under_way: &[Ongoing], drained: i32) -> Result<Vec<Move>, Failure> {
    let mut held: BTreeMap<i32, usize> = BTreeMap::new();
    let mut partitions = Vec::new();
    for topic in &metadata.topics {
        for partition in &topic.partitions {
            let mut replicas = partition.replicas.clone();
            let moving = under_way
                .iter()
                .find(|other| other.topic == topic.name && other.partition == partition.index);
            if let Some(moving) = moving {
                replicas.retain(|node| !moving.removing.contains(node));
            }
            replicas
                .iter()
                .for_each(|node| *held.entry(*node).or_default() += 1);
            partitions.push((topic.name.clone(), partition.index, replicas));
        }
    }
    let leaves = |(_, _, replicas): &(String, i32, Vec<i32>)| replicas.contains(&drained);
    let leaving = partitions.into_iter().filter(leaves);
    let mut moves = Vec::new();
    for (topic, partition, before) in leaving {
        let Some(target) = target(&metadata.brokers, &before, drained, &held) else {
            return Err(Failure::Local(format!(
                "topic {topic} partition {partition} has replicas {}: no other active broker can take the one of {drained}",
                output::ids(&before)
            )));
        };
        *held.entry(target).or_default() += 1;
        let after = before.iter();
        let after = after.map(|node| if *node == drained { target } else { *node });
        moves.push(Move {
            after: after.collect(),
            topic,
            partition,
            before,
        });
    }
    Ok(moves)
}

fn target(
    brokers: &[Broker],
    replicas: &[i32],
    drained: i32,
    held: &BTreeMap<i32, usize>,
) -> Option<i32> {
    let stays = |broker: &&Broker| broker.id != drained && replicas.contains(&broker.id);
    let racks: Vec<&Option<String>> = brokers.iter().filter(stays).map(|b| &b.rack).collect();
    let candidates = brokers.iter().filter(|b| !replicas.contains(&b.id));
    let best = candidates.min_by_key(|broker| {
        let shares_rack = broker.rack.is_some() && racks.contains(&&broker.rack);
        (
            shares_rack,
            held.get(&broker.id).copied().unwrap_or(0),
            broker.id,
        )
    });
    best.map(|broker| broker.id)
}

fn print(moves: &[Move], format: OutputFormat) -> Result<(), Failure> {
    if format == OutputFormat::Json {
        let rows = moves.iter().map(|step| {
            json!({
                "topic": step.topic,
                "partition": step.partition,
                "before": step.before,
                "after": step.after,
            })
        });
        return output::json(&rows.collect());
    }
    if moves.is_empty() {
        return output::line("the broker holds no replicas that stay");
    }
    let mut table = Table::new(&["topic", "partition", "before", "after"]);
    for step in moves {
        table.row([
            step.topic.clone(),
            step.partition.to_string(),
            output::ids(&step.before),
            output::ids(&step.after),
        ]);
    }
    table.print()
}

#[cfg(test)]
mod tests {
    use super::super::metadata::{Partition, Topic};
    use super::*;

    fn metadata(brokers: &[(i32, &str)], partitions: &[&[i32]]) -> Metadata {
        let broker = |(id, rack): &(i32, &str)| Broker {
            id: *id,
            host: "h".to_owned(),
            port: 1,
            rack: Some((*rack).to_owned()),
        };
        let partition = |(index, replicas): (i32, &&[i32])| Partition {
            index,
            error: 0,
            leader: replicas[0],
            leader_epoch: 0,
            replicas: replicas.to_vec(),
            isr: replicas.to_vec(),
            offline: Vec::new(),
        };
        Metadata {
            brokers: brokers.iter().map(broker).collect(),
            topics: vec![Topic {
                name: "t".to_owned(),
                id: Default::default(),
                is_internal: false,
                error: 0,
                partitions: (0..).zip(partitions).map(partition).collect(),
            }],
            ..Metadata::default()
        }
    }

    fn after(moves: &[Move]) -> Vec<&[i32]> {
        moves.iter().map(|step| &step.after[..]).collect()
    }

    #[test]
    fn replicas_keep_their_place_and_spread_over_those_who_hold_few() {
        let brokers = [(1, "a"), (2, "a"), (3, "a"), (4, "a")];
        let metadata = metadata(&brokers, &[&[1, 2], &[2, 1], &[3, 1], &[2, 3]]);
        let moves = plan(&metadata, &[], 1).expect("a plan");
        assert_eq!(after(&moves), [&[4, 2][..], &[2, 4], &[3, 4]]);
    }

    #[test]
    fn a_rack_without_a_replica_is_preferred() {
        let brokers = [(1, "a"), (2, "b"), (3, "b"), (4, "a")];
        let metadata = metadata(&brokers, &[&[1, 2], &[4, 3], &[4, 3]]);
        let moves = plan(&metadata, &[], 1).expect("a plan");
        assert_eq!(after(&moves), [&[4, 2][..]]);
    }

    #[test]
    fn what_leaves_already_is_left_alone() {
        let metadata = metadata(&[(1, "a"), (2, "a")], &[&[2, 1]]);
        let under_way = [Ongoing {
            topic: "t".to_owned(),
            partition: 0,
            replicas: vec![2, 1],
            adding: vec![2],
            removing: vec![1],
        }];
        assert_eq!(plan(&metadata, &under_way, 1).expect("a plan"), []);
    }

    #[test]
    fn a_replica_without_a_place_to_go_is_refused() {
        let metadata = metadata(&[(1, "a"), (2, "a")], &[&[1, 2]]);
        let failure = plan(&metadata, &[], 1).expect_err("nobody is left");
        assert!(failure.to_string().contains("partition 0"), "{failure}");
    }
}
