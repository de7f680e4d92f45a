//! Reading reports and writing figures, for the scripts beside this tool: no other program is needed
//! to take JSON apart or to put it together.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::client::Failure;
use crate::host;

/// Appends a value to a file, as one line.
pub(crate) fn append(value: &Value, path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.map_err(failed)?;
    file.write_all(format!("{value}\n").as_bytes())
        .map_err(failed)
}

/// What stands at `pointers` (RFC 6901, like `/produce/latency/p99`) in the last line of a file.
pub(crate) fn read(path: &Path, pointers: &[String]) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    let last = text.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(last)
        .map_err(|error| format!("{}: the last line: {error}", path.display()))?;
    let mut found = Vec::new();
    for pointer in pointers {
        found.push(match report.pointer(pointer) {
            None | Some(Value::Null) => {
                return Err(format!("{}: there is no {pointer}", path.display()));
            }
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        });
    }
    Ok(found)
}

/// The figures of a script with their provenance. A figure is `NAME=VALUE`, a number if it is one.
pub(crate) fn figures(script: &str, figures: &[String]) -> Result<Value, Failure> {
    let mut values = Map::new();
    for figure in figures {
        let (name, value) = figure
            .split_once('=')
            .ok_or_else(|| format!("a figure is NAME=VALUE, not {figure:?}"))?;
        let value = match value.parse::<f64>() {
            Ok(number) if number.is_finite() => json!(number),
            _ => json!(value),
        };
        values.insert(name.to_owned(), value);
    }
    Ok(json!({
        "kind": "script",
        "script": script,
        "time": host::time(),
        "tool": host::tool(),
        "host": host::describe(),
        "figures": values,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_and_read_back() {
        let name = format!("percolog-perf-ledger-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let words = ["seconds=1.25".to_owned(), "note=good".to_owned()];
        for script in ["first", "second"] {
            append(&figures(script, &words).expect("figures"), &path).expect("a file");
        }
        let pointers = ["/script", "/figures/seconds", "/figures/note"].map(str::to_owned);
        let found = read(&path, &pointers);
        let missing = read(&path, &["/figures/none".to_owned()]);
        std::fs::remove_file(&path).expect("a file");
        assert_eq!(found.expect("values"), ["second", "1.25", "good"]);
        assert!(missing.expect_err("nothing").contains("/figures/none"));
        assert!(figures("x", &["nonsense".to_owned()]).is_err());
    }
}
