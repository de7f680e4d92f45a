//! `percolog repair`: cuts damaged logs of a stopped broker, on an operator's word.

use std::path::PathBuf;

use serde_json::json;

use super::failure::Failure;
use super::output::{self, OutputFormat, Table};
use crate::log::data_directory;
use crate::log::recovery::repair_directory;
use crate::log::repair::Repair;

/// Cuts damaged logs of a stopped broker at their first bad byte, and tells what is lost
///
/// A partition whose records are damaged stays offline until its log is repaired here, or restored
/// from elsewhere. Without --accept-loss nothing is cut: the loss is only told. Records that were
/// acknowledged behind the cut are lost for good; copy the data directory first if in doubt.
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArguments {
    /// The data directory of a broker that does not run
    #[arg(long, default_value = "./data")]
    data_dir: PathBuf,
    /// Only these partitions, as TOPIC-PARTITION (all damaged ones by default)
    partitions: Vec<String>,
    /// Cut, and let the partitions be served again
    #[arg(long)]
    accept_loss: bool,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
}

/// Runs the command.
pub(crate) fn run(arguments: &RepairArguments) -> Result<(), Failure> {
    let local = |error: String| Failure::Local(error);
    let _lock = data_directory::hold(&arguments.data_dir).map_err(|e| local(e.to_string()))?;
    let tries = !arguments.accept_loss;
    let repairs = repair_directory(&arguments.data_dir, &arguments.partitions, tries)
        .map_err(|error| local(error.to_string()))?;
    match arguments.output {
        OutputFormat::Json => {
            let rows: Vec<_> = repairs
                .iter()
                .map(|repair| describe(repair, tries))
                .collect();
            output::json(&json!(rows))
        }
        OutputFormat::Table => table(&repairs, tries),
    }
}

fn describe(repair: &Repair, tries: bool) -> serde_json::Value {
    json!({
        "partition": repair.directory,
        "damage": repair.damage,
        "start_offset": repair.start.0,
        "end_offset": repair.end.0,
        "known_end_offset": repair.known_end.0,
        "cut_bytes": repair.cut_bytes,
        "repaired": !tries,
    })
}

fn table(repairs: &[Repair], tries: bool) -> Result<(), Failure> {
    if repairs.is_empty() {
        return output::line("no damaged partitions");
    }
    let mut table = Table::new(&["partition", "keeps offsets", "loses", "cut bytes", "damage"]);
    for repair in repairs {
        table.row([
            repair.directory.clone(),
            format!("{} to {}", repair.start.0, repair.end.0 - 1),
            format!("{} and all behind it", repair.end.0),
            repair.cut_bytes.to_string(),
            repair.damage.clone(),
        ]);
    }
    table.print()?;
    if tries {
        output::note(
            "nothing was cut; --accept-loss cuts, and lets the partitions be served again",
        );
    }
    Ok(())
}
