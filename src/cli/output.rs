//! Results on stdout, as a table for people or as JSON for programs.

use std::io::{self, Write};

use super::failure::Failure;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// Columns, for people
    Table,
    /// JSON, for programs
    Json,
}

/// Writes text and a line end to stdout.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

/// Writes a JSON document to stdout.
pub(crate) fn json(value: &serde_json::Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// Says something about the command itself; nobody may be listening.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Columns with a header each.
pub(crate) struct Table {
    table: comfy_table::Table,
}

impl Table {
    /// Without rows yet.
    pub(crate) fn new(header: &[&str]) -> Table {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(header.iter().map(|name| name.to_uppercase()));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Table { table }
    }

    /// Adds a row of as many cells as the header has.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    /// The text, without blanks at line ends.
    pub(crate) fn text(&self) -> String {
        self.table.trim_fmt()
    }

    /// To stdout.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        line(&self.text())
    }
}

/// Ids as `1,2,3`, or `-` for none.
pub(crate) fn ids(ids: &[i32]) -> String {
    if ids.is_empty() {
        return "-".to_owned();
    }
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(",")
}

/// The text, or `-` for none.
pub(crate) fn or_dash(text: String) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    text
}

/// Notes all failures but the last, which is what the command fails with.
pub(crate) fn all_said(mut failures: Vec<Failure>) -> Result<(), Failure> {
    let last = failures.pop();
    for failure in failures {
        note(&format!("percolog: {failure}"));
    }
    last.map_or(Ok(()), Err)
}

/// A number with a unit that keeps it short.
pub(crate) fn size(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" {
                format!("{value:.0} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_columns() {
        let mut table = Table::new(&["name", "n"]);
        table.row(["a".to_owned(), "1".to_owned()]);
        table.row(["longer".to_owned(), "22".to_owned()]);
        assert_eq!(table.text(), "NAME    N\na       1\nlonger  22");
    }

    #[test]
    fn ids_and_sizes_are_short() {
        assert_eq!(ids(&[]), "-");
        assert_eq!(ids(&[3, 1]), "3,1");
        assert_eq!(size(0.0), "0 B");
        assert_eq!(size(999.0), "999 B");
        assert_eq!(size(1500.0), "1.5 KB");
        assert_eq!(size(2e15), "2000.0 TB");
    }
}
