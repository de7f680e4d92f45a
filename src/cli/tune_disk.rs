//! `percolog tune disk`: measures the disk of a data directory and writes what follows from it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde_json::json;

use super::failure::Failure;
use super::output::{self, OutputFormat, Table};
use crate::config::broker::BrokerConfig;
use crate::config::disk_profile::{self, DiskSettings};
use crate::log::data_directory;
use crate::runtime::disk_probe::FileState;
use crate::runtime::startup;
use crate::tuning::disk_decision::{self, Reason};
use crate::tuning::disk_measure::{self, Beside, Cell, DEPTHS, Pass, SIZES_BYTES};

const DISTURBED: &str = "other work on this machine disturbed the measurement: few writes at a time \
                         waited for something else than the disk; measure again when it is quiet";

/// Measures the disk of a data directory, and writes the file that the broker reads at its start
///
/// Durable direct writes of 4 KiB to 1 MiB, one to eight at a time, into files that were written,
/// zero-written and merely allocated before; then small ones beside background writes. Writes up to
/// a few GiB in all, into files without a name of at most 32 MiB. No broker may use the directory
/// meanwhile, and nothing else should use the disk.
#[derive(Debug, clap::Args)]
pub(crate) struct DiskArguments {
    /// The data directory; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data_dir: PathBuf,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=300))]
    seconds: u32,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
}

/// Runs the command.
pub(super) fn run(arguments: &DiskArguments) -> Result<(), Failure> {
    let directory = &arguments.data_dir;
    let lock = data_directory::hold_or_claim(directory);
    let _lock = lock.map_err(|error| Failure::Local(error.to_string()))?;
    let passes = measure(directory, arguments.seconds)?;
    let defaults = DiskSettings::of(&BrokerConfig::defaults());
    let (settings, reasons) = disk_decision::decide(&passes, &defaults);
    match arguments.output {
        OutputFormat::Json => output::json(&describe(&passes, &reasons))?,
        OutputFormat::Table => print(&passes, &reasons)?,
    }
    if is_disturbed(&passes) {
        output::note(DISTURBED);
    }
    if arguments.dry_run {
        output::note("nothing was written");
        return Ok(());
    }
    let path = directory.join(disk_profile::FILE_NAME);
    let text = settings.render(&notes(&passes, &reasons));
    startup::replace_file(&path, text.as_bytes())
        .map_err(|error| Failure::Local(format!("{}: {error}", path.display())))?;
    output::note(&format!(
        "written to {}; a broker that uses this directory reads it at its next start",
        path.display()
    ));
    Ok(())
}

fn is_disturbed(passes: &[Pass]) -> bool {
    passes.iter().any(Pass::is_disturbed)
}

fn measure(directory: &Path, seconds: u32) -> Result<Vec<Pass>, Failure> {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    let measured = disk_measure::measure(directory, seconds, &mut |text| {
        bar.set_message(text.to_owned());
        bar.tick();
    });
    bar.finish_and_clear();
    measured.map_err(Failure::Local)
}

/// Both passes of one kind of writes, averaged.
fn averaged(passes: &[Pass], state: FileState, size_bytes: usize, depth: usize) -> Option<Cell> {
    let is_it =
        |cell: &&Cell| (cell.state, cell.size_bytes, cell.depth) == (state, size_bytes, depth);
    let all = passes.iter().flat_map(|pass| &pass.cells);
    let cells: Vec<&Cell> = all.filter(is_it).collect();
    let count = cells.len();
    let first = *cells.first()?;
    let rate: f64 = cells.iter().map(|cell| cell.writes_per_second).sum();
    Some(Cell {
        writes_per_second: rate / count as f64,
        half_us: cells.iter().map(|cell| cell.half_us).sum::<u64>() / count as u64,
        most_us: cells.iter().map(|cell| cell.most_us).max()?,
        ..first.clone()
    })
}

fn all_cells(passes: &[Pass]) -> impl Iterator<Item = Cell> {
    let states = [FileState::Written, FileState::Zeroed, FileState::Allocated];
    let kinds = states.into_iter().flat_map(|state| {
        let sizes = SIZES_BYTES.into_iter();
        sizes.flat_map(move |size| DEPTHS.into_iter().map(move |depth| (state, size, depth)))
    });
    kinds.filter_map(|(state, size, depth)| averaged(passes, state, size, depth))
}

fn cell_texts(cell: &Cell) -> [String; 7] {
    let bytes_per_second = cell.writes_per_second * cell.size_bytes as f64;
    [
        cell.state.name().to_owned(),
        format!("{} KiB", cell.size_bytes >> 10),
        cell.depth.to_string(),
        format!("{:.0}", cell.writes_per_second),
        format!("{:.1}", bytes_per_second / 1e6),
        cell.half_us.to_string(),
        cell.most_us.to_string(),
    ]
}

fn beside_texts(pass: usize, alone_per_second: [f64; 2], beside: &Beside) -> [String; 4] {
    let [before, after] = alone_per_second;
    [
        pass.to_string(),
        format!("{:.0}", beside.asked_bytes_per_second as f64 / 1e6),
        format!("{:.0}", beside.reached_bytes_per_second / 1e6),
        format!(
            "{:.0}; alone {before:.0}, {after:.0}",
            beside.writes_per_second
        ),
    ]
}

fn all_beside(passes: &[Pass]) -> impl Iterator<Item = [String; 4]> {
    passes.iter().enumerate().flat_map(|(at, pass)| {
        let rows = pass.beside.iter();
        rows.map(move |beside| beside_texts(at + 1, pass.alone_per_second, beside))
    })
}

fn print(passes: &[Pass], reasons: &[Reason]) -> Result<(), Failure> {
    let columns = [
        "file",
        "write",
        "at a time",
        "writes/s",
        "MB/s",
        "p50 us",
        "p99 us",
    ];
    let mut table = Table::new(&columns);
    all_cells(passes).for_each(|cell| table.row(cell_texts(&cell)));
    table.print()?;
    output::line("\nDurable writes of 16 KiB, two at a time, beside background writes:")?;
    let mut table = Table::new(&["pass", "asked MB/s", "reached MB/s", "writes/s"]);
    all_beside(passes).for_each(|row| table.row(row));
    table.print()?;
    output::line("")?;
    let mut table = Table::new(&["setting", "value", "why"]);
    for reason in reasons {
        table.row([
            format!("storage.{}", reason.name),
            reason.value.to_string(),
            reason.why.clone(),
        ]);
    }
    table.print()
}

fn describe(passes: &[Pass], reasons: &[Reason]) -> serde_json::Value {
    let cell = |cell: &Cell| {
        json!({
            "file": cell.state.name(),
            "write_bytes": cell.size_bytes,
            "depth": cell.depth,
            "writes_per_second": cell.writes_per_second,
            "p50_us": cell.half_us,
            "p99_us": cell.most_us,
        })
    };
    let beside = |beside: &Beside| {
        json!({
            "asked_bytes_per_second": beside.asked_bytes_per_second,
            "reached_bytes_per_second": beside.reached_bytes_per_second,
            "writes_per_second": beside.writes_per_second,
        })
    };
    let pass = |pass: &Pass| {
        json!({
            "writes": pass.cells.iter().map(cell).collect::<Vec<_>>(),
            "alone_writes_per_second": pass.alone_per_second,
            "beside_background_writes": pass.beside.iter().map(beside).collect::<Vec<_>>(),
        })
    };
    let setting = |reason: &Reason| {
        let name = format!("storage.{}", reason.name);
        json!({ "name": name, "value": reason.value, "why": reason.why })
    };
    json!({
        "disturbed": is_disturbed(passes),
        "passes": passes.iter().map(pass).collect::<Vec<_>>(),
        "settings": reasons.iter().map(setting).collect::<Vec<_>>(),
    })
}

/// How the values came about, for those who open the file.
fn notes(passes: &[Pass], reasons: &[Reason]) -> Vec<String> {
    let mut notes = vec![format!(
        "Written by percolog tune disk of version {}. Settings in the configuration file win.",
        env!("CARGO_PKG_VERSION")
    )];
    notes.extend(
        reasons
            .iter()
            .map(|reason| format!("{}: {}", reason.name, reason.why)),
    );
    if is_disturbed(passes) {
        notes.push(DISTURBED.to_owned());
    }
    notes.push("file, write, at a time, writes/s, MB/s, p50 us, p99 us:".to_owned());
    notes.extend(all_cells(passes).map(|cell| cell_texts(&cell).join(", ")));
    notes.push("pass, background MB/s asked, reached, durable writes/s:".to_owned());
    notes.extend(all_beside(passes).map(|row| row.join(", ")));
    notes
}
