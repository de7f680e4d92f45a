//! `percolog serve`: the arguments of a broker.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use super::output;
use crate::broker;
use crate::config::broker::BrokerConfig;
use crate::config::disk_profile::{self, DiskSettings};
use crate::config::problem::Problems;
use crate::config::sources::Sources;
use crate::runtime::startup;

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
    /// One setting, like storage.journal_bytes=67108864 or num.partitions=2; again for more of them
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print every setting with value, unit, default and bounds, and do not start
    #[arg(long)]
    pub print_config: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &ServeArguments) -> Result<(), Failure> {
    let toml = read(arguments.config_file.as_deref())?;
    let kafka_properties = read(arguments.kafka_properties.as_deref())?;
    let flags = flags(arguments)?;
    let given = Sources {
        disk: None,
        toml: toml.as_deref(),
        kafka_properties: kafka_properties.as_deref(),
        sets: &arguments.set,
        flags: &flags,
    };
    let config = load(given)?;
    if arguments.print_config {
        return output::line(&config.print_config());
    }
    log_to_stderr();
    broker::run(config, |address| {
        // A supervisor that closed our stdout does not want to know.
        let _ = output::line(&format!("percolog ready {address}"));
    })
    .map_err(|error| Failure::Local(error.to_string()))
}

/// The settings given, over what the probes of their data directories' disks found.
pub(super) fn load(given: Sources<'_>) -> Result<BrokerConfig, Failure> {
    let refused = |problems: Problems| Failure::Local(problems.to_string());
    let config = BrokerConfig::load(&given).map_err(refused)?;
    let mut disk: Option<DiskSettings> = None;
    for directory in &config.storage.data_dirs {
        if let Some(found) = disk_settings(Path::new(directory))? {
            disk = Some(disk.map_or(found, |known| known.with(&found)));
        }
    }
    match disk {
        None => Ok(config),
        disk => BrokerConfig::load(&Sources { disk, ..given }).map_err(refused),
    }
}

/// What the probe of a directory's disk found, if it was probed. Whether the directory can be used
/// at all is found out later.
fn disk_settings(directory: &Path) -> Result<Option<DiskSettings>, Failure> {
    let path = directory.join(disk_profile::FILE_NAME);
    let refused = |why: String| {
        Failure::Local(format!(
            "{}: {why}. Remove it to go back to the defaults, or run percolog tune disk \
             --data-dir {} again",
            path.display(),
            directory.display()
        ))
    };
    let bytes = match startup::read_file(&path, disk_profile::FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
            return Err(refused("it is too long for a disk profile".to_owned()));
        }
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                output::note(&format!("{}: {error}: not used", path.display()));
            }
            return Ok(None);
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| refused("it is not text".to_owned()))?;
    DiskSettings::parse(&text).map(Some).map_err(refused)
}

pub(super) fn read(path: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = path else {
        return Ok(None);
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) => Err(Failure::Local(format!("{}: {error}", path.display()))),
    }
}

/// A data directory as a list of them can hold it.
pub(super) fn directory_name(path: &Path) -> Result<&str, Failure> {
    let name = path.to_str().filter(|name| !name.contains(','));
    name.ok_or_else(|| {
        Failure::Local(format!(
            "--data-dir {}: the name must be UTF-8 without a comma",
            path.display()
        ))
    })
}

/// The flags of their own, under the names of the settings they stand for.
fn flags(arguments: &ServeArguments) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut flags = Vec::new();
    if !arguments.data_dirs.is_empty() {
        let names = arguments.data_dirs.iter().map(|path| directory_name(path));
        let names: Vec<&str> = names.collect::<Result<_, _>>()?;
        flags.push(("storage.data_dirs", names.join(",")));
    }
    let single = [
        ("listeners.client", &arguments.listen),
        ("listeners.admin", &arguments.admin),
        ("cores.list", &arguments.cores),
    ];
    for (name, value) in single {
        flags.extend(value.clone().map(|value| (name, value)));
    }
    Ok(flags)
}

/// Logs go to stderr; `PERCOLOG_LOG` filters them, `info` by default.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("PERCOLOG_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,glommio=warn"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
}
