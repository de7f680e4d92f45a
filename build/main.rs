//! Turns the message tables of `src/wire/messages/tables` into Rust.

mod generate;
mod samples;
mod table;

use std::path::{Path, PathBuf};
use std::{env, fs};

const TABLES: &str = "src/wire/messages/tables";

fn main() {
    println!("cargo:rerun-if-changed={TABLES}");
    println!("cargo:rerun-if-changed=build");
    let families = families(Path::new(TABLES));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("messages.rs"), generate::messages(&families)).expect("OUT_DIR is writable");
    fs::write(out.join("api_table.rs"), generate::api_table(&families))
        .expect("OUT_DIR is writable");
    fs::write(out.join("samples.rs"), samples::samples(&families)).expect("OUT_DIR is writable");
}

/// Every table, in the order of the file names.
fn families(folder: &Path) -> Vec<table::Family> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the tables are part of the sources")
        .map(|entry| entry.expect("the folder is readable").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| family(path)).collect()
}

fn family(path: &Path) -> table::Family {
    let text = fs::read_to_string(path).expect("the table is readable");
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .expect("names are ASCII");
    let module = stem
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .trim_start_matches('_');
    match table::parse(module, &text) {
        Ok(family) => family,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}
