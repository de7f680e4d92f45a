//! The command line as a whole.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::cluster::ClusterCommand;
use super::config::ConfigCommand;
use super::consume::ConsumeArguments;
use super::failure::Failure;
use super::group::GroupCommand;
use super::inspect::FileArguments;
use super::inspect_segment::SegmentArguments;
use super::produce::ProduceArguments;
use super::repair::RepairArguments;
use super::serve::ServeArguments;
use super::topic::TopicCommand;
use super::transaction::TransactionCommand;
use super::tune::TuneCommand;
use super::{cluster, config, consume, group, inspect_checkpoint, inspect_index, inspect_journal};
use super::{inspect_segment, output, produce, repair, serve, topic, transaction, tune};

/// A durable log broker for Linux that speaks Kafka's wire protocol, and its tools
#[derive(Debug, Parser)]
#[command(name = "percolog", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Arguments of a command that is to come.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(ServeArguments),
    /// Creates, lists, describes, alters and deletes topics
    #[command(subcommand)]
    Topic(TopicCommand),
    Produce(ProduceArguments),
    Consume(ConsumeArguments),
    /// Shows and changes configs of topics and brokers
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Shows the cluster, elects leaders, moves partitions, removes brokers
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Reads files of a stopped broker
    #[command(subcommand)]
    Inspect(InspectCommand),
    /// Lists, describes, resets and deletes consumer groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// Access control lists (not available yet)
    Acl(Anything),
    /// Users and their credentials (not available yet)
    User(Anything),
    /// Client quotas (not available yet)
    Quota(Anything),
    /// Shows transactions and producers, and ends transactions that hang
    #[command(subcommand)]
    Transaction(TransactionCommand),
    /// Looks at the host, changes it and changes it back; measures a disk
    #[command(subcommand)]
    Tune(TuneCommand),
    /// Live view in the terminal (not available yet)
    Top(Anything),
    Repair(RepairArguments),
}

#[derive(Debug, Subcommand)]
enum InspectCommand {
    Segment(SegmentArguments),
    /// Lists the groups of a journal file and their entries
    ///
    /// The column EPOCH is a digest: the epoch itself is a secret of the running broker, since
    /// whoever knows it can make bytes that recovery takes for a group. A group is stale when it
    /// does not follow the one at the file's beginning: files are reused. The exit code is 1 when a
    /// group that was durable, as a later one says, is missing or does not verify.
    Journal(FileArguments),
    /// Lists the entries of an index file
    ///
    /// An index that does not verify is no loss (the broker rebuilds it from its segment), but the
    /// exit code is 1.
    Index(FileArguments),
    /// Lists the logs of a checkpoint file, or what `checkpoint/current` names
    ///
    /// A file that does not verify is listed as far as it makes sense, and the exit code is 1.
    Checkpoint(FileArguments),
}

/// Parses the arguments of the process and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(&arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::OutputClosed) {
                output::note(&format!("percolog: {failure}"));
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn dispatch(command: &Command) -> Result<(), Failure> {
    let unavailable = |what: &str| Err(Failure::Unavailable(what.to_owned()));
    match command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Topic(command) => topic::run(command),
        Command::Produce(arguments) => produce::run(arguments),
        Command::Consume(arguments) => consume::run(arguments),
        Command::Config(command) => config::run(command),
        Command::Cluster(command) => cluster::run(command),
        Command::Inspect(InspectCommand::Segment(arguments)) => inspect_segment::run(arguments),
        Command::Inspect(InspectCommand::Journal(arguments)) => inspect_journal::run(arguments),
        Command::Inspect(InspectCommand::Index(arguments)) => inspect_index::run(arguments),
        Command::Inspect(InspectCommand::Checkpoint(file)) => inspect_checkpoint::run(file),
        Command::Group(command) => group::run(command),
        Command::Acl(_) => unavailable("acl"),
        Command::User(_) => unavailable("user"),
        Command::Quota(_) => unavailable("quota"),
        Command::Transaction(command) => transaction::run(command),
        Command::Tune(command) => tune::run(command),
        Command::Top(_) => unavailable("top"),
        Command::Repair(arguments) => repair::run(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command)
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn serve_takes_what_the_interface_says() {
        let line = "percolog serve --config c.toml --kafka-properties k --data-dir a --data-dir b \
                    --listen h:1 --admin h:2 --cores 0-3 --set a=b --set c=d --print-config";
        let words = line.split_whitespace();
        let arguments = Arguments::try_parse_from(words).expect("arguments");
        let Command::Serve(serve) = arguments.command else {
            panic!("not serve");
        };
        let expected = ServeArguments {
            config_file: Some("c.toml".into()),
            kafka_properties: Some("k".into()),
            data_dirs: vec!["a".into(), "b".into()],
            listen: Some("h:1".to_owned()),
            admin: Some("h:2".to_owned()),
            cores: Some("0-3".to_owned()),
            set: vec!["a=b".to_owned(), "c=d".to_owned()],
            print_config: true,
        };
        assert_eq!(serve, expected);
    }

    #[test]
    fn commands_to_come_say_so_whatever_their_arguments() {
        for line in [
            "percolog quota list --bootstrap x:1",
            "percolog acl",
            "percolog top --help",
        ] {
            let failure = dispatch(&parse(line).expect(line)).expect_err(line);
            assert!(failure.to_string().contains("not available yet"), "{line}");
            assert_eq!(failure.exit_code(), 1);
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "percolog nonsense",
            "percolog produce",
            "percolog produce t --acks 2",
            "percolog produce t --compression brotli",
            "percolog consume t --from yesterday",
            "percolog consume t --group g --partition 0",
            "percolog consume t --isolation some",
            "percolog group",
            "percolog group list --state busy",
            "percolog group describe",
            "percolog group reset g --to end",
            "percolog group reset g --topic t",
            "percolog group reset g --topic t --all-topics --to end",
            "percolog group reset g --topic t --to sometime",
            "percolog group delete",
            "percolog group delete-offsets g",
            "percolog transaction list --older-than 5",
            "percolog transaction describe",
            "percolog transaction producers",
            "percolog transaction abort --topic t --partition 0",
            "percolog topic create t --partitions 0",
            "percolog topic create t --config k",
            "percolog config set topic t",
            "percolog config set planet t k=v",
            "percolog cluster describe --timeout 0",
            "percolog cluster elect preferred",
            "percolog cluster elect anybody --all",
            "percolog cluster elect unclean t --all",
            "percolog cluster reassign t",
            "percolog cluster reassign --to 1,2",
            "percolog cluster reassign t --to 1 --cancel",
            "percolog cluster reassign t --list",
            "percolog cluster drain",
            "percolog cluster remove x",
            "percolog tune",
            "percolog tune check --item nonsense",
            "percolog tune disk --seconds 0",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
