//! `percolog group reset`: moves committed offsets of a group that has no members.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::wire::error_code::ErrorCode;

use super::client::{Client, ClientOptions, Topics};
use super::failure::Failure;
use super::group_offsets::{self, Committed, Committer, Offsets};
use super::isolation::Isolation;
use super::log_offsets::{self, Place};
use super::metadata::Topic;
use super::output::{self, OutputFormat, Table};
use super::topic_selection::TopicSelection;
use super::{group_describe, timestamp};

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Beginning,
    End,
    Offset(i64),
    Time(i64),
    /// From what is committed.
    By(i64),
}

impl Target {
    fn parse(text: &str) -> Result<Target, String> {
        match text {
            "beginning" => return Ok(Target::Beginning),
            "end" => return Ok(Target::End),
            _ => {}
        }
        let wrong = || {
            format!(
                "takes beginning, end, an offset, @TIME, +N or -N, where TIME is {}",
                timestamp::ACCEPTED
            )
        };
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = is_number.then(|| text.parse::<i64>().ok());
            number.flatten().ok_or_else(wrong)
        };
        if let Some(time) = text.strip_prefix('@') {
            return timestamp::parse(time).map(Target::Time).ok_or_else(wrong);
        }
        if let Some(forward) = text.strip_prefix('+') {
            return number(forward).map(Target::By);
        }
        if let Some(back) = text.strip_prefix('-') {
            return number(back).map(|back| Target::By(-back));
        }
        number(text).map(Target::Offset)
    }
}

/// Moves committed offsets of a group that has no members
///
/// An offset that the partition does not have becomes the nearest that it has.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("topics").required(true).args(["topic", "all_topics"])))]
pub(crate) struct ResetArguments {
    /// Group; it is created if there is none
    group: String,
    /// Topic, or some partitions of it; again for more of them
    #[arg(
        long,
        value_name = "TOPIC[:PARTITION,...]",
        value_parser = TopicSelection::parse
    )]
    topic: Vec<TopicSelection>,
    /// All partitions for which the group has a committed offset
    #[arg(long)]
    all_topics: bool,
    /// Where to: beginning, end, an OFFSET, the first record at or after @TIME, or N records on
    /// or back from the committed offset
    #[arg(
        long,
        value_name = "beginning|end|OFFSET|@TIME|+N|-N",
        value_parser = Target::parse,
        allow_hyphen_values = true
    )]
    to: Target,
    /// Show what would be committed, and commit nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    client: ClientOptions,
}

/// Runs the command.
pub(crate) fn run(arguments: &ResetArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.client)?;
    let group = arguments.group.as_str();
    check_unused(&mut client, group)?;
    let committed = group_offsets::all(&mut client, group)?;
    let mut offsets: Offsets<i64> = BTreeMap::new();
    for (mut topic, partitions) in selected(&mut client, arguments, &committed)? {
        let known = committed.get(&topic.name);
        let targets = targets(&mut client, &mut topic, &partitions, arguments.to, known)?;
        offsets.insert(topic.name, targets);
    }
    if !arguments.dry_run {
        group_offsets::commit(&mut client, group, Committer::ADMINISTRATOR, &offsets)?;
    }
    show(arguments, &committed, &offsets)
}

/// Members would go on from where they are, and overwrite what is committed here.
fn check_unused(client: &mut Client, group: &str) -> Result<(), Failure> {
    let described = match group_describe::describe(client, group) {
        Ok(described) => described,
        Err(failure) if failure.error_code() == Some(ErrorCode::GroupIdNotFound) => return Ok(()),
        Err(failure) => return Err(failure),
    };
    if described.state == "Empty" && described.members.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(
        format!("group {group}"),
        ErrorCode::NonEmptyGroup.code(),
        Some(&format!(
            "offsets can be reset while the group has no members; its state is {}",
            described.state
        )),
    ))
}

/// Topics with the partitions that are meant.
fn selected(
    client: &mut Client,
    arguments: &ResetArguments,
    committed: &Offsets<Committed>,
) -> Result<Vec<(Topic, Vec<i32>)>, Failure> {
    let mut wanted: BTreeMap<String, Option<BTreeSet<i32>>> = BTreeMap::new();
    if arguments.all_topics {
        if committed.is_empty() {
            let text = format!("group {}: nothing is committed", arguments.group);
            return Err(Failure::Local(text));
        }
        let topics = committed.iter();
        let topics =
            topics.map(|(topic, found)| (topic.clone(), Some(found.keys().copied().collect())));
        wanted.extend(topics);
    }
    for selection in &arguments.topic {
        let TopicSelection { topic, partitions } = selection.clone();
        let before = wanted.entry(topic).or_insert_with(|| Some(BTreeSet::new()));
        match (before.as_mut(), partitions) {
            (Some(before), Some(partitions)) => before.extend(partitions),
            _ => *before = None,
        }
    }
    let mut selected = Vec::new();
    for (name, partitions) in wanted {
        let topic = client.topic(Topics::One(&name))?;
        let all = || topic.partitions.iter().map(|found| found.index).collect();
        let partitions = partitions.map_or_else(all, |some| some.into_iter().collect::<Vec<_>>());
        for partition in &partitions {
            if !topic.has(*partition) {
                topic.leader(*partition)?;
            }
        }
        selected.push((topic, partitions));
    }
    Ok(selected)
}

/// The offsets to commit, all of them within the logs.
fn targets(
    client: &mut Client,
    topic: &mut Topic,
    partitions: &[i32],
    to: Target,
    committed: Option<&BTreeMap<i32, Committed>>,
) -> Result<BTreeMap<i32, i64>, Failure> {
    let mut find = |place| {
        let isolation = Isolation::default();
        log_offsets::find(client, topic, partitions, place, isolation)
    };
    let (starts, ends) = (find(Place::Beginning)?, find(Place::End)?);
    let times = match to {
        Target::Time(timestamp_ms) => find(Place::Time(timestamp_ms))?,
        _ => BTreeMap::new(),
    };
    let mut targets = BTreeMap::new();
    for partition in partitions {
        let (start, end) = (starts[partition], ends[partition]);
        let subject = || format!("topic {} partition {partition}", topic.name);
        let wanted = match to {
            Target::Beginning => start,
            Target::End => end,
            Target::Offset(offset) => offset,
            // No record is that late.
            Target::Time(_) if times[partition] < 0 => end,
            Target::Time(_) => times[partition],
            Target::By(by) => {
                let known = committed.and_then(|committed| committed.get(partition));
                let nothing = || Failure::Local(format!("{}: nothing is committed", subject()));
                known.ok_or_else(nothing)?.offset.saturating_add(by)
            }
        };
        let target = wanted.clamp(start, end);
        if target != wanted {
            output::note(&format!(
                "{}: {wanted} is not within {start} to {end}, {target} instead",
                subject()
            ));
        }
        targets.insert(*partition, target);
    }
    Ok(targets)
}

fn show(
    arguments: &ResetArguments,
    committed: &Offsets<Committed>,
    offsets: &Offsets<i64>,
) -> Result<(), Failure> {
    let before = |topic: &str, partition: i32| {
        let committed = committed.get(topic)?.get(&partition)?;
        Some(committed.offset)
    };
    let rows = offsets.iter().flat_map(|(topic, offsets)| {
        let offsets = offsets.iter();
        offsets.map(move |(partition, offset)| (topic, *partition, *offset))
    });
    if arguments.client.output == OutputFormat::Json {
        let rows = rows.map(|(topic, partition, offset)| {
            json!({
                "topic": topic, "partition": partition,
                "before": before(topic, partition), "committed": offset,
            })
        });
        return output::json(&json!({
            "group": arguments.group, "dry_run": arguments.dry_run,
            "offsets": rows.collect::<Vec<_>>(),
        }));
    }
    let now = if arguments.dry_run {
        "would be"
    } else {
        "committed"
    };
    let mut table = Table::new(&["topic", "partition", "before", now]);
    for (topic, partition, offset) in rows {
        let before = before(topic, partition).map(|before| before.to_string());
        table.row([
            topic.clone(),
            partition.to_string(),
            output::or_dash(before.unwrap_or_default()),
            offset.to_string(),
        ]);
    }
    table.print()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_words_offsets_times_and_steps() {
        assert_eq!(Target::parse("beginning"), Ok(Target::Beginning));
        assert_eq!(Target::parse("end"), Ok(Target::End));
        assert_eq!(Target::parse("7"), Ok(Target::Offset(7)));
        assert_eq!(Target::parse("+7"), Ok(Target::By(7)));
        assert_eq!(Target::parse("-7"), Ok(Target::By(-7)));
        assert_eq!(Target::parse("@7"), Ok(Target::Time(7)));
        for text in ["", "+", "-", "--1", "+-1", "@", "@soon", "1.5", "start"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
