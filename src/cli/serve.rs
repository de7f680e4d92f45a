//! `percolog serve`: the arguments of a broker.

use std::path::PathBuf;

use super::failure::Failure;

/// Runs a broker
///
/// An empty data directory is formatted. One line, "percolog ready HOST:PORT", goes to stdout when
/// clients can connect; logs go to stderr. SIGTERM stops cleanly.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ServeArguments {
    /// Configuration file (TOML)
    #[arg(long = "config", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Settings of a Kafka broker, read as far as they have a counterpart
    #[arg(long, value_name = "FILE")]
    pub kafka_properties: Option<PathBuf>,
    /// Data directory, again for more of them
    #[arg(long = "data-dir", value_name = "DIR")]
    pub data_dirs: Vec<PathBuf>,
    /// Where clients connect
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where metrics, health and console are
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<String>,
    /// Cores to use, like 0,2-5
    #[arg(long, value_name = "LIST")]
    pub cores: Option<String>,
    /// One setting, like storage.journal_size=64MiB or num.partitions=2; again for more of them
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print every setting with value, unit, default and bounds, and do not start
    #[arg(long)]
    pub print_config: bool,
}

/// Runs the command.
pub(crate) fn run(_arguments: &ServeArguments) -> Result<(), Failure> {
    Err(Failure::Local("serve: not wired".to_owned()))
}
