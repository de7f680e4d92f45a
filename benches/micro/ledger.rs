//! Instructions per unit, on paper: as JSON, and against the reference that is kept in the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// How much more than the reference a case may take.
const TOLERANCE: f64 = 0.05;

/// What was counted, and with what.
#[derive(Default)]
pub(crate) struct Counts {
    /// Versions by tool.
    pub(crate) tools: BTreeMap<String, String>,
    /// Instructions per unit by case.
    pub(crate) per_unit: BTreeMap<String, f64>,
}

impl Counts {
    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let about = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let document = json!({ "tools": self.tools, "instructions_per_unit": self.per_unit });
        let text = serde_json::to_string_pretty(&document).map_err(|error| about(&error))?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| about(&error))?;
        }
        std::fs::write(path, text + "\n").map_err(|error| about(&error))
    }

    /// Reads what [`Counts::write`] wrote.
    fn read(path: &Path) -> Result<Counts, String> {
        let about = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| about(&error))?;
        let document: Value = serde_json::from_str(&text).map_err(|error| about(&error))?;
        let object = |key: &str| {
            let object = document.get(key).and_then(Value::as_object);
            object.ok_or_else(|| about(&format!("no {key}")))
        };
        let mut counts = Counts::default();
        for (tool, version) in object("tools")? {
            let version = version.as_str().ok_or_else(|| about(tool))?;
            counts.tools.insert(tool.clone(), version.to_owned());
        }
        for (case, instructions) in object("instructions_per_unit")? {
            let instructions = instructions.as_f64().ok_or_else(|| about(case))?;
            counts.per_unit.insert(case.clone(), instructions);
        }
        Ok(counts)
    }
}

/// The reference.
pub(crate) struct Ledger {
    path: PathBuf,
}

impl Ledger {
    pub(crate) fn at_its_place() -> Ledger {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        Ledger {
            path: root.join("perf/ledger/instructions.json"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn accept(&self, counts: &Counts) -> Result<(), String> {
        print(counts, &BTreeMap::new());
        counts.write(&self.path)
    }

    /// Prints the counts beside the reference; what does not pass.
    pub(crate) fn compare(&self, counts: &Counts) -> Result<Vec<String>, String> {
        let reference = Counts::read(&self.path)?;
        print(counts, &reference.per_unit);
        for (tool, version) in &counts.tools {
            let before = reference.tools.get(tool);
            if before != Some(version) {
                let before = before.map_or("unknown", String::as_str);
                println!("note: {tool} is {version}, the reference was made with {before}");
            }
        }
        let mut problems = Vec::new();
        for (case, now) in &counts.per_unit {
            match reference.per_unit.get(case) {
                None => problems.push(format!("{case}: not in the reference")),
                Some(before) if *now > before * (1.0 + TOLERANCE) => problems.push(format!(
                    "{case}: {now} instructions per unit, {:.1} % more than {before}",
                    change(*before, *now)
                )),
                Some(_) => {}
            }
        }
        let gone = reference.per_unit.keys();
        let gone = gone.filter(|case| !counts.per_unit.contains_key(*case));
        problems.extend(gone.map(|case| format!("{case}: in the reference, and no case any more")));
        Ok(problems)
    }
}

/// In percent.
fn change(before: f64, now: f64) -> f64 {
    (now / before - 1.0) * 100.0
}

fn print(counts: &Counts, reference: &BTreeMap<String, f64>) {
    let width = counts.per_unit.keys().map(String::len).max().unwrap_or(0);
    println!("{:width$}  {:>14}  {:>9}", "case", "instructions", "change");
    for (case, now) in &counts.per_unit {
        let change = match reference.get(case) {
            Some(before) => format!("{:+.1} %", change(*before, *now)),
            None => "-".to_owned(),
        };
        println!("{case:width$}  {now:>14.1}  {change:>9}");
    }
}
