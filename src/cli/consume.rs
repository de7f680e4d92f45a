//! `percolog consume`: records to stdout, by partition or as a member of a group.

use std::collections::BTreeMap;
use std::io::{BufWriter, StdoutLock, Write};

use super::client::{Client, ClientOptions, Topics};
use super::failure::Failure;
use super::fetcher::{Fetched, Fetcher, Position, Visit};
use super::format::{self, FORMAT_HELP, Format, Printed};
use super::group_consumer::{GroupConsumer, Sink};
use super::group_member::GroupMember;
use super::isolation::Isolation;
use super::log_offsets::Place;
use super::metadata::Topic;
use super::output::OutputFormat;
use super::termination::Termination;
use super::timestamp;

/// Printed records collect up to so many bytes while more of them are at hand.
const OUTPUT_BYTES: usize = 256 << 10;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Beginning,
    End,
    Offset(i64),
    Time(i64),
}

impl From {
    fn parse(text: &str) -> Result<From, String> {
        match text {
            "beginning" => return Ok(From::Beginning),
            "end" => return Ok(From::End),
            _ => {}
        }
        let wrong = || {
            format!(
                "takes beginning, end, an offset, or @TIME, where TIME is {}",
                timestamp::ACCEPTED
            )
        };
        if let Some(time) = text.strip_prefix('@') {
            return timestamp::parse(time).map(From::Time).ok_or_else(wrong);
        }
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let offset = is_number.then(|| text.parse().ok()).flatten();
        offset.map(From::Offset).ok_or_else(wrong)
    }
}

/// Reads records of a topic: all partitions, those that are named, or as a member of a group
#[derive(Debug, clap::Args)]
pub(crate) struct ConsumeArguments {
    /// Topic to read
    topic: String,
    /// Where to begin: beginning, end, an OFFSET, or the first record at or after @TIME, given in
    /// milliseconds since 1970 or as 2026-01-02T03:04:05Z (UTC unless it says +hh:mm). A group
    /// goes on from what it has committed, and begins there where that is nothing
    #[arg(
        long,
        value_name = "beginning|end|OFFSET|@TIME",
        default_value = "beginning",
        value_parser = From::parse
    )]
    from: From,
    /// Partition to read, again for more of them; all without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Read as a member of this consumer group: the partitions that it gives to this process.
    /// Offsets are committed every few seconds and at the end, after their records are printed
    #[arg(long, value_name = "NAME", conflicts_with = "partition")]
    group: Option<String>,
    /// Whether records of open and aborted transactions are read
    #[arg(long, value_enum, default_value_t = Isolation::Uncommitted)]
    isolation: Isolation,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop where the partitions ended when the command began
    #[arg(long)]
    exit_at_end: bool,
    #[arg(long, value_name = "FMT", help = FORMAT_HELP)]
    format: Option<String>,
    #[command(flatten)]
    client: ClientOptions,
}

/// Runs the command.
pub(crate) fn run(arguments: &ConsumeArguments) -> Result<(), Failure> {
    let format = match (&arguments.format, arguments.client.output) {
        (Some(_), OutputFormat::Json) => {
            let text = "--format and --output json exclude each other";
            return Err(Failure::Usage(text.to_owned()));
        }
        (Some(text), OutputFormat::Table) => Some(Format::parse(text)?),
        (None, OutputFormat::Table) => Some(Format::default()),
        (None, OutputFormat::Json) => None,
    };
    if arguments.count == Some(0) {
        return Ok(());
    }
    let printer = Printer {
        topic: &arguments.topic,
        format,
        left: arguments.count.unwrap_or(u64::MAX),
        out: BufWriter::with_capacity(OUTPUT_BYTES, std::io::stdout().lock()),
    };
    match &arguments.group {
        Some(group) => read_in_group(arguments, group, printer),
        None => read_alone(arguments, printer),
    }
}

fn read_alone(arguments: &ConsumeArguments, printer: Printer<'_>) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.client)?;
    let topic = client.topic(Topics::One(&arguments.topic))?;
    let partitions = partitions(arguments, &topic)?;
    let mut fetcher = Fetcher::new(client, topic, arguments.isolation);
    let positions = positions(arguments, &mut fetcher, &partitions)?;
    fetcher.assign(positions);
    let printer = std::cell::RefCell::new(printer);
    fetcher.run(
        &mut |fetched| printer.borrow_mut().take(fetched),
        &mut |_| {
            printer.borrow_mut().flush()?;
            Ok(Visit::Continue)
        },
    )
}

fn read_in_group(
    arguments: &ConsumeArguments,
    group: &str,
    mut printer: Printer<'_>,
) -> Result<(), Failure> {
    let termination = Termination::watch()?;
    let mut client = Client::connect(&arguments.client)?;
    let topic = client.topic(Topics::One(&arguments.topic))?;
    let all: Vec<i32> = topic.partitions.iter().map(|found| found.index).collect();
    let mut fetcher = Fetcher::new(client, topic, arguments.isolation);
    let ends = match arguments.exit_at_end {
        true => Some(fetcher.offsets(&all, Place::End)?),
        false => None,
    };
    let first = |fetcher: &mut Fetcher, partitions: &[i32]| -> Result<_, Failure> {
        let positions = positions(arguments, fetcher, partitions)?.into_iter();
        Ok(positions
            .map(|(index, found)| (index, found.next))
            .collect())
    };
    // Of its own: the group must hear of this member while a fetch waits.
    let coordinated = Client::connect(&arguments.client)?;
    let mut member = GroupMember::new(coordinated, group, &arguments.topic);
    let mut consumer = GroupConsumer {
        member: &mut member,
        fetcher: &mut fetcher,
        termination: &termination,
        ends,
        first: &first,
    };
    let read = consumer.run(&mut printer);
    let left = member.leave();
    read.and(left)
}

fn partitions(arguments: &ConsumeArguments, topic: &Topic) -> Result<Vec<i32>, Failure> {
    if arguments.partition.is_empty() {
        return Ok(topic.partitions.iter().map(|found| found.index).collect());
    }
    for partition in &arguments.partition {
        if !topic.has(*partition) {
            topic.leader(*partition)?;
        }
    }
    let mut partitions = arguments.partition.clone();
    partitions.sort_unstable();
    partitions.dedup();
    Ok(partitions)
}

fn positions(
    arguments: &ConsumeArguments,
    fetcher: &mut Fetcher,
    partitions: &[i32],
) -> Result<BTreeMap<i32, Position>, Failure> {
    let needs_ends = arguments.exit_at_end || matches!(arguments.from, From::End | From::Time(_));
    let ends = match needs_ends {
        true => fetcher.offsets(partitions, Place::End)?,
        false => BTreeMap::new(),
    };
    let starts = match arguments.from {
        From::Beginning => fetcher.offsets(partitions, Place::Beginning)?,
        From::Time(timestamp_ms) => fetcher.offsets(partitions, Place::Time(timestamp_ms))?,
        From::End => ends.clone(),
        From::Offset(offset) => partitions
            .iter()
            .map(|partition| (*partition, offset))
            .collect(),
    };
    let position = |(partition, start): (i32, i64)| {
        let end = ends.get(&partition).copied();
        // No record is as late as the time that was asked for.
        let next = if start < 0 { end.unwrap_or(0) } else { start };
        let end = end.filter(|_| arguments.exit_at_end);
        (partition, Position { next, end })
    };
    Ok(starts.into_iter().map(position).collect())
}

struct Printer<'a> {
    topic: &'a str,
    /// JSON without one.
    format: Option<Format>,
    left: u64,
    out: BufWriter<StdoutLock<'static>>,
}

impl Sink for Printer<'_> {
    fn take(&mut self, fetched: &Fetched<'_>) -> Result<Visit, Failure> {
        let headers: Vec<_> = fetched
            .record
            .headers()
            .map(|header| (header.key, header.value))
            .collect();
        let printed = Printed {
            topic: self.topic,
            partition: fetched.partition,
            offset: fetched.offset,
            timestamp_ms: fetched.timestamp_ms,
            key: fetched.record.key,
            value: fetched.record.value,
            headers: &headers,
        };
        let written = match &self.format {
            Some(format) => format.write(&mut self.out, &printed),
            None => format::write_json(&mut self.out, &printed),
        };
        written.map_err(|error| Failure::output(&error))?;
        self.left -= 1;
        Ok(if self.left == 0 {
            Visit::Stop
        } else {
            Visit::Continue
        })
    }

    fn is_full(&self) -> bool {
        self.left == 0
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| Failure::output(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_words_offsets_and_times() {
        assert_eq!(From::parse("beginning"), Ok(From::Beginning));
        assert_eq!(From::parse("end"), Ok(From::End));
        assert_eq!(From::parse("0"), Ok(From::Offset(0)));
        assert_eq!(From::parse("42"), Ok(From::Offset(42)));
        assert_eq!(From::parse("@42"), Ok(From::Time(42)));
        assert_eq!(From::parse("@1970-01-01T00:00:01Z"), Ok(From::Time(1000)));
        for text in [
            "",
            "-1",
            "start",
            "@",
            "@soon",
            "+1",
            "99999999999999999999",
        ] {
            let message = From::parse(text).expect_err(text);
            assert!(message.contains("2026-01-02T03:04"), "{message}");
        }
    }
}
