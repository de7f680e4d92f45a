//! `percolog tune check|apply|undo`: the host.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use serde_json::json;

use super::failure::Failure;
use super::output::{self, OutputFormat, Table};
use super::serve;
use super::tune_disk::{self, DiskArguments};
use crate::config::broker::BrokerConfig;
use crate::config::derived::DerivedLimits;
use crate::config::sources::Sources;
use crate::runtime::control_group;
use crate::runtime::disk_probe::{DiskProbe, FileState, Run, Samples};
use crate::runtime::host as runtime_host;
use crate::runtime::host_tree::{HostTree, Reading};
use crate::runtime::startup;
use crate::tuning::apply::{self, Outcome, Step, Undone};
use crate::tuning::check::{self, item_names};
use crate::tuning::core_selection::{self, Offer};
use crate::tuning::cpu_set;
use crate::tuning::finding::{Finding, Severity};
use crate::tuning::host::{DataDirectory, Host};
use crate::tuning::script;
use crate::tuning::topology::Topology;
use crate::tuning::undo_file;

/// What the process needs beside caches and requests.
const BASE_MEMORY_BYTES: u64 = 64 << 20;
/// How long flushes are measured for a check.
const FLUSH_TIME: Duration = Duration::from_millis(500);
/// Writes of such a measurement, at most.
const FLUSH_BYTES_MAX: u64 = 1 << 20;
const FLUSH_ITEM: &str = "flush-latency";

/// Looks at the host, changes it, changes it back
#[derive(Debug, clap::Subcommand)]
pub(crate) enum TuneCommand {
    /// Says what on this host slows a broker down or endangers its data
    ///
    /// Nothing is changed. In the data directory, if it exists, a nameless file is written for half
    /// a second. The exit code is 1 when something is worse than a hint.
    Check(CheckArguments),
    /// Changes what can be changed while the host runs, after noting what was there
    ///
    /// What was there is noted in /var/lib/percolog-tune/tune.undo first. All values are gone after a
    /// restart of the host. The exit code is 1 when a value could not be set, or when something that
    /// cannot be changed here is worse than a hint.
    Apply(ApplyArguments),
    /// Puts back what `apply` changed, and forgets it
    Undo(UndoArguments),
    Disk(DiskArguments),
}

/// Which host, and which broker is to run on it.
#[derive(Debug, clap::Args)]
pub(crate) struct HostArguments {
    /// Configuration file of the broker (TOML), for its cores, directories and memory
    #[arg(long = "config", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Data directory, which need not exist yet
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Cores that the broker will use, like 2-7
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// Only this item; again for more of them
    #[arg(long = "item", value_name = "NAME", value_parser = PossibleValuesParser::new(item_names()))]
    items: Vec<String>,
    /// Where the files of the host lie, for tests
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    host_root: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    host: HostArguments,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArguments {
    #[command(flatten)]
    host: HostArguments,
    /// Print a shell script that does the same, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Write that script to a file, and change nothing
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Apply although the host was tuned before; what was there first stays noted
    #[arg(long)]
    again: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UndoArguments {
    /// Where the files of the host lie, for tests
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    host_root: PathBuf,
}

/// Runs the command.
pub(crate) fn run(command: &TuneCommand) -> Result<(), Failure> {
    match command {
        TuneCommand::Check(arguments) => run_check(arguments),
        TuneCommand::Apply(arguments) => run_apply(arguments),
        TuneCommand::Undo(arguments) => run_undo(arguments),
        TuneCommand::Disk(arguments) => tune_disk::run(arguments),
    }
}

/// The settings that a broker would have.
pub(super) fn configuration(
    config_file: Option<&Path>,
    data_dir: Option<&Path>,
    cores: Option<&str>,
) -> Result<BrokerConfig, Failure> {
    let toml = serve::read(config_file)?;
    let mut flags = Vec::new();
    if let Some(directory) = data_dir {
        let name = serve::directory_name(directory)?;
        flags.push(("storage.data_dirs", name.to_owned()));
    }
    flags.extend(cores.map(|cores| ("cores.list", cores.to_owned())));
    serve::load(Sources {
        toml: toml.as_deref(),
        flags: &flags,
        ..Sources::default()
    })
}

fn host(arguments: &HostArguments) -> Result<Host, Failure> {
    let config = configuration(
        arguments.config_file.as_deref(),
        arguments.data_dir.as_deref(),
        arguments.cores.as_deref(),
    )?;
    let tree = HostTree::new(&arguments.host_root);
    let usable = usable_cpus(&tree)?;
    let topology = Topology::read(&tree, &usable);
    let offer = Offer {
        usable: &usable,
        quota: control_group::cpu_quota(&tree),
        topology: &topology,
    };
    let data_cpus: BTreeSet<usize> = core_selection::select(&config.cores, &offer)
        .map_err(Failure::Local)?
        .into_iter()
        .collect();
    let measures = arguments.items.is_empty() || arguments.items.iter().any(|i| i == FLUSH_ITEM);
    let paths = config.storage.data_dirs.iter().map(Path::new);
    Ok(Host {
        memory_needed_bytes: memory_needed_bytes(&config, data_cpus.len()),
        directories: paths.map(|path| data_directory(path, measures)).collect(),
        tree,
        data_cpus,
    })
}

fn usable_cpus(tree: &HostTree) -> Result<Vec<usize>, Failure> {
    if tree.is_running_host() {
        return Ok(runtime_host::usable_cpus());
    }
    let path = "sys/devices/system/cpu/online";
    let online = match tree.read(path) {
        Reading::Text(text) => cpu_set::parse_list(&text),
        _ => None,
    };
    let online = online.filter(|online| !online.is_empty());
    online
        .map(|online| online.into_iter().collect())
        .ok_or_else(|| Failure::Local(format!("{}: no list of CPUs", tree.path(path).display())))
}

fn memory_needed_bytes(config: &BrokerConfig, cores: usize) -> u64 {
    let limits = DerivedLimits::new(config, cores.max(1));
    let per_core = limits.cache_per_core_bytes
        + limits.request_memory_per_core_bytes
        + limits.compaction_memory_per_core_bytes;
    BASE_MEMORY_BYTES + per_core as u64 * cores as u64
}

fn data_directory(path: &Path, measures: bool) -> Result<DataDirectory, String> {
    let facts = path
        .canonicalize()
        .and_then(|path| Ok((runtime_host::directory_facts(&path)?, path)));
    let (facts, path) = facts.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "The data directory {} does not exist; make it, or name another with --data-dir.",
            path.display()
        ),
        _ => format!("{}: {error}.", path.display()),
    })?;
    let flushes = match measures {
        true => measure_flushes(&path).map_err(|error| format!("Not measured: {error}.")),
        false => Err("Not asked for.".to_owned()),
    };
    Ok(DataDirectory {
        path,
        facts,
        flushes,
    })
}

fn measure_flushes(path: &Path) -> std::io::Result<Samples> {
    let mut probe = DiskProbe::open(path)?;
    probe.prepare(FileState::Zeroed, FLUSH_BYTES_MAX)?;
    probe.run(Run {
        size_bytes: 4096,
        depth: 1,
        time: FLUSH_TIME,
        bytes_max: FLUSH_BYTES_MAX,
    })
}

fn run_check(arguments: &CheckArguments) -> Result<(), Failure> {
    let host = host(&arguments.host)?;
    let findings = check::check(&host, &arguments.host.items);
    match arguments.output {
        OutputFormat::Json => {
            let list: Vec<_> = findings.iter().map(describe).collect();
            output::json(&json!(list))?;
        }
        OutputFormat::Table => table(&findings)?,
    }
    verdict(&findings)
}

/// Fails when something is worse than a hint.
fn verdict(findings: &[Finding]) -> Result<(), Failure> {
    if !check::needs_attention(findings) {
        return Ok(());
    }
    let worse = findings
        .iter()
        .filter(|finding| finding.severity > Severity::Hint);
    let (mut all, mut changeable) = (0_usize, 0);
    for finding in worse {
        all += 1;
        changeable += usize::from(!finding.changes.is_empty());
    }
    Err(Failure::Local(format!(
        "{} attention; percolog tune apply changes {changeable} of them",
        if all == 1 {
            "1 item needs".to_owned()
        } else {
            format!("{all} items need")
        }
    )))
}

fn describe(finding: &Finding) -> serde_json::Value {
    let changes: Vec<_> = finding
        .changes
        .iter()
        .map(
            |change| json!({ "file": format!("/{}", change.target.path()), "value": change.value }),
        )
        .collect();
    json!({
        "item": finding.item,
        "device": finding.device,
        "severity": finding.severity.name(),
        "found": finding.found,
        "should_be": finding.should_be,
        "reason": finding.reason,
        "apply": !changes.is_empty(),
        "changes": changes,
        "remedy": finding.remedy,
    })
}

fn name(finding: &Finding) -> String {
    match &finding.device {
        Some(device) => format!("{} {device}", finding.item),
        None => finding.item.to_owned(),
    }
}

fn table(findings: &[Finding]) -> Result<(), Failure> {
    let mut table = Table::new(&["item", "severity", "found", "should be", "apply"]);
    for finding in findings {
        let apply = match finding.severity {
            Severity::NotApplicable | Severity::Good => "-",
            _ if finding.changes.is_empty() => "no",
            _ => "yes",
        };
        table.row([
            name(finding),
            finding.severity.name().to_owned(),
            finding.found.clone(),
            finding.should_be.clone(),
            apply.to_owned(),
        ]);
    }
    table.print()?;
    for severity in [
        Severity::Error,
        Severity::Warning,
        Severity::Hint,
        Severity::NotApplicable,
    ] {
        for finding in findings
            .iter()
            .filter(|finding| finding.severity == severity)
        {
            let mut text = format!(
                "\n{}: {}: {}",
                severity.name(),
                name(finding),
                finding.reason
            );
            if let Some(remedy) = &finding.remedy {
                text.push_str(&format!("\n    {remedy}"));
            }
            output::line(&text)?;
        }
    }
    Ok(())
}

fn run_apply(arguments: &ApplyArguments) -> Result<(), Failure> {
    let host = host(&arguments.host)?;
    let findings = check::check(&host, &arguments.host.items);
    let steps = apply::plan(&host.tree, &findings).map_err(Failure::Local)?;
    if let Some(path) = &arguments.script {
        return write_script(path, &steps);
    }
    if arguments.dry_run {
        return output::line(script::render(&steps).trim_end());
    }
    if steps.is_empty() {
        output::note("nothing to change");
    } else {
        change(&host, &findings, arguments.again)?;
    }
    let again = check::check(&host, &arguments.host.items);
    let open: Vec<Finding> = again
        .into_iter()
        .filter(|finding| finding.severity > Severity::Hint)
        .collect();
    if !open.is_empty() {
        output::note("still open:");
        table(&open)?;
    }
    verdict(&open)
}

/// Notes what is there and changes it. Planned again under the lock, so that what is noted is not
/// what another tuner has just written.
fn change(host: &Host, findings: &[Finding], again: bool) -> Result<(), Failure> {
    let lock = undo_file::lock(&host.tree).map_err(Failure::Local)?;
    let steps = apply::plan(&host.tree, findings).map_err(Failure::Local)?;
    apply::remember(&host.tree, &lock, &steps, again).map_err(Failure::Local)?;
    let outcomes = apply::write(&host.tree, &steps);
    let rows = steps.iter().zip(&outcomes);
    let failed = print_outcomes(rows.map(|(step, outcome)| {
        let target = step.target.to_string();
        (target, &*step.before, &*step.after, outcome)
    }))?;
    let noted = undo_file::path(&host.tree);
    output::note(&format!(
        "what was there is noted in {}; percolog tune undo puts it back",
        noted.display()
    ));
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Local(format!(
            "{failed} of {} values were not set",
            steps.len()
        ))),
    }
}

fn write_script(path: &Path, steps: &[Step]) -> Result<(), Failure> {
    startup::replace_file(path, script::render(steps).as_bytes())
        .map_err(|error| Failure::Local(format!("{}: {error}", path.display())))?;
    output::note(&format!(
        "{} values in {}; read it, then run it with sh as root",
        steps.len(),
        path.display()
    ));
    Ok(())
}

/// Prints what became of each value; how many failed.
fn print_outcomes<'a>(
    rows: impl Iterator<Item = (String, &'a str, &'a str, &'a Outcome)>,
) -> Result<usize, Failure> {
    let mut table = Table::new(&["value", "from", "to", "outcome"]);
    let mut failed = 0;
    for (target, from, to, outcome) in rows {
        failed += usize::from(matches!(outcome, Outcome::Failed(_)));
        let text = match outcome {
            Outcome::Written => "set".to_owned(),
            Outcome::Unchanged => "was so already".to_owned(),
            Outcome::Kept(why) => format!("kept by the kernel: {why}"),
            Outcome::Foreign(now) => format!("left at {now}: changed by somebody else since"),
            Outcome::Gone => "not there any more".to_owned(),
            Outcome::Failed(why) => format!("failed: {why}"),
        };
        table.row([target, from.to_owned(), to.to_owned(), text]);
    }
    table.print()?;
    Ok(failed)
}

fn run_undo(arguments: &UndoArguments) -> Result<(), Failure> {
    let tree = HostTree::new(&arguments.host_root);
    if undo_file::read(&tree).map_err(Failure::Local)?.is_none() {
        return output::line("nothing to undo");
    }
    let lock = undo_file::lock(&tree).map_err(Failure::Local)?;
    let values = match apply::undo(&tree, &lock).map_err(Failure::Local)? {
        Undone::Nothing => return output::line("nothing to undo"),
        Undone::OtherBoot => {
            return output::line("nothing to undo: the host was restarted since it was tuned");
        }
        Undone::Values(values) => values,
    };
    let rows = values.iter().map(|(entry, outcome)| {
        (
            entry.target.to_string(),
            &*entry.after,
            &*entry.before,
            outcome,
        )
    });
    let failed = print_outcomes(rows)?;
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::Local(format!(
        "{failed} of {} values were not put back; they stay noted in {}",
        values.len(),
        undo_file::path(&tree).display()
    )))
}
