//! What the compiler does not check: who may import whom, how long files and functions are, which
//! calls have no place where, and that every folder says what it is.
//!
//! A failure names file, line and rule, and what to do instead.

mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use source::{Module, Token, module_line, modules, tokens};

/// Who may import whom, from the bottom up. `broker` puts everything together and `cli` starts it;
/// nobody imports these two, `admin` is for `broker` alone.
const IMPORTS: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("observe", &[]),
    ("wire", &[]),
    ("runtime", &["config", "observe"]),
    ("tuning", &["runtime", "config"]),
    ("net", &["runtime", "wire", "observe", "config"]),
    ("log", &["runtime", "wire", "observe", "config"]),
    ("security", &["wire", "config"]),
    ("coordinator", &["wire", "config"]),
    (
        "partition",
        &["runtime", "wire", "log", "observe", "config"],
    ),
    (
        "cluster",
        &[
            "runtime", "wire", "net", "log", "security", "observe", "config",
        ],
    ),
    (
        "shard",
        &[
            "runtime",
            "wire",
            "net",
            "log",
            "partition",
            "coordinator",
            "cluster",
            "observe",
            "config",
        ],
    ),
    (
        "api",
        &[
            "runtime",
            "wire",
            "net",
            "security",
            "coordinator",
            "cluster",
            "shard",
            "observe",
            "config",
        ],
    ),
    ("admin", ALL_BELOW),
    ("simulation", ALL_BELOW),
    ("broker", &["*", "admin"]),
    ("cli", &["*", "broker"]),
];
const ALL_BELOW: &[&str] = &["*"];
/// What `*` does not mean.
const NOT_BELOW: &[&str] = &["admin", "simulation", "broker", "cli"];

/// Crates that only one folder may name.
const CRATES: &[(&str, &str)] = &[
    ("glommio", "runtime"),
    ("io_uring", "runtime"),
    ("libc", "runtime"),
    ("rustix", "runtime"),
    ("socket2", "runtime"),
    ("core_affinity", "runtime"),
    ("axum", "admin"),
    ("tokio", "admin"),
    ("clap", "cli"),
    ("comfy_table", "cli"),
    ("indicatif", "cli"),
    ("raft", "cluster"),
    ("slog", "cluster"),
];

const FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;

/// Files and functions that were too long when the limit came: they may shrink, and leave the list
/// when they fit.
const LONG_FILES: &[(&str, usize)] = &[];
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// Pages with `unsafe` outside `src/runtime`, each with its proof at its head.
const UNSAFE_PAGES: &[&str] = &["tests/counting_allocator/mod.rs", "tests/batch_memory.rs"];

/// A call that has no place in a scope. Patterns are tokens, `{` stands for "first in braces too".
struct Ban {
    pattern: &'static [&'static str],
    scope: Scope,
    instead: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All of src, tests and build.
    Everywhere,
    /// What runs on a core, above runtime: src without runtime, cli, admin, and tests.
    OnCores,
    /// src without cli, main.rs and tests.
    Silent,
    /// Tests, in src as well.
    Tests,
}

const BANS: &[Ban] = &[
    ban(
        &["todo", "!"],
        Scope::Everywhere,
        "write it, or leave it out",
    ),
    ban(
        &["unimplemented", "!"],
        Scope::Everywhere,
        "write it, or leave it out",
    ),
    ban(&["dbg", "!"], Scope::Everywhere, "remove it"),
    ban(&["println", "!"], Scope::Silent, "log, or return it to cli"),
    ban(&["print", "!"], Scope::Silent, "log, or return it to cli"),
    ban(
        &["eprintln", "!"],
        Scope::Silent,
        "log, or return it to cli",
    ),
    ban(&["eprint", "!"], Scope::Silent, "log, or return it to cli"),
    ban(
        &["thread", "::", "sleep"],
        Scope::Tests,
        "wait for the event",
    ),
    ban(&["Instant", "::", "now"], Scope::OnCores, "runtime::clock"),
    ban(&["SystemTime"], Scope::OnCores, "runtime::clock"),
    ban(
        &["std", "::", "fs"],
        Scope::OnCores,
        "runtime::disk or runtime::startup",
    ),
    ban(
        &["std", "::", "thread"],
        Scope::OnCores,
        "runtime::executor or runtime::thread",
    ),
    ban(
        &["thread_local", "!"],
        Scope::OnCores,
        "state that a core owns",
    ),
    ban(&["TcpStream"], Scope::OnCores, "runtime::socket"),
    ban(&["TcpListener"], Scope::OnCores, "runtime::socket"),
    ban(&["UdpSocket"], Scope::OnCores, "runtime::socket"),
    ban(
        &["ToSocketAddrs"],
        Scope::OnCores,
        "addresses that config has resolved",
    ),
    ban(
        &["RandomState"],
        Scope::OnCores,
        "a hasher with a fixed seed, or BTreeMap",
    ),
    ban(
        &["DefaultHashBuilder"],
        Scope::OnCores,
        "a hasher with a fixed seed",
    ),
    ban(
        &["collections", "::", "HashMap"],
        Scope::OnCores,
        "BTreeMap, or hashbrown with a fixed seed",
    ),
    ban(
        &["collections", "::", "HashSet"],
        Scope::OnCores,
        "BTreeSet, or hashbrown with a fixed seed",
    ),
    ban(
        &["HashMap", "::", "new"],
        Scope::OnCores,
        "with_hasher and a fixed seed",
    ),
    ban(
        &["HashSet", "::", "new"],
        Scope::OnCores,
        "with_hasher and a fixed seed",
    ),
    ban(
        &["HashMap", "::", "with_capacity"],
        Scope::OnCores,
        "with_capacity_and_hasher",
    ),
    ban(
        &["HashSet", "::", "with_capacity"],
        Scope::OnCores,
        "with_capacity_and_hasher",
    ),
];

const fn ban(pattern: &'static [&'static str], scope: Scope, instead: &'static str) -> Ban {
    Ban {
        pattern,
        scope,
        instead,
    }
}

/// Bans that a file may break, and why.
const EXEMPTIONS: &[(&str, &str, &str)] = &[
    (
        "src/broker.rs",
        "ToSocketAddrs",
        "names are resolved once, before a core runs",
    ),
    (
        "src/broker.rs",
        "std::fs",
        "properties and configuration are read before a core runs",
    ),
];

/// Words that tell about a machine instead of the project. In halves, since this file is read too.
const WORDS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("/tmp/", "wt"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` with one of the extensions; what is built, stored or measured is left out.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or("");
            let is_top = folder == root();
            let is_left_out = match name {
                "target" | "data" | ".git" => is_top,
                // Reports name the machine they were made on, and are not kept.
                "results" => folder == root().join("perf"),
                _ => name == "node_modules" || name == "corpus",
            };
            if is_left_out {
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if extensions.is_empty() || extensions.contains(&extension.unwrap_or("")) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Where test code begins: tests stand at the end of a file.
fn tests_start(text: &str) -> usize {
    let line = text.lines().position(|line| {
        line.starts_with("#[cfg(") && line.contains("test") && !line.contains("not(test")
    });
    line.map_or(usize::MAX, |line| line + 1)
}

// Imports

fn may_import(from: &str, to: &str) -> bool {
    if from == to {
        return true;
    }
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == from) else {
        return false;
    };
    allowed.contains(&to) || (allowed.contains(&"*") && !NOT_BELOW.contains(&to))
}

/// First segments below the crate of every path that starts with `crate` or climbs up to it.
fn imports(module: &[String], tokens: &[Token]) -> Vec<(String, usize)> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    // Depths of braces at which an inline module began.
    let (mut depth, mut inline) = (0_usize, Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => {
                if at >= 2 && text(at - 2) == "mod" {
                    inline.push(depth);
                }
                depth += 1;
            }
            "}" => {
                depth = depth.saturating_sub(1);
                if inline.last() == Some(&depth) {
                    inline.pop();
                }
            }
            "crate" if text(at + 1) == "::" => {
                found.extend(heads(tokens, at + 2));
            }
            "super" if text(at.wrapping_sub(1)) != "::" => {
                let mut climbed = 0;
                let mut next = at;
                while text(next) == "super" && text(next + 1) == "::" {
                    climbed += 1;
                    next += 2;
                }
                if climbed == module.len() + inline.len() {
                    found.extend(heads(tokens, next));
                }
            }
            _ => {}
        }
    }
    found
}

/// The segment at `at`, or those that braces hold.
fn heads(tokens: &[Token], at: usize) -> Vec<(String, usize)> {
    let Some(first) = tokens.get(at) else {
        return Vec::new();
    };
    if first.text != "{" {
        return vec![(first.text.clone(), first.line)];
    }
    let mut heads = Vec::new();
    let (mut depth, mut is_head) = (0, true);
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," if depth == 1 => is_head = true,
            _ if depth == 1 && is_head => {
                heads.push((token.text.clone(), token.line));
                is_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn import_problems(file: &str, module: &[String], tokens: &[Token]) -> Vec<String> {
    let Some(folder) = module.first() else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    for (to, line) in imports(module, tokens) {
        let is_module = IMPORTS.iter().any(|(name, _)| *name == to);
        if !may_import(folder, &to) && (is_module || to == "*" || to == "self") {
            problems.push(format!("{file}:{line}: {folder} must not import {to}"));
        }
    }
    for (at, token) in tokens.iter().enumerate() {
        let is_path = tokens.get(at + 1).is_some_and(|next| next.text == "::")
            && (at == 0 || tokens[at - 1].text != "::");
        let owner = CRATES.iter().find(|(name, _)| *name == token.text);
        if let Some((name, owner)) = owner
            && is_path
            && owner != folder
        {
            let line = token.line;
            problems.push(format!(
                "{file}:{line}: only {owner} may name the crate {name}"
            ));
        }
    }
    problems
}

/// Re-exports would hand on what the importer may not see: none across folders, none with a star.
fn reexport_problems(file: &str, module: &[String], tokens: &[Token]) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.text != "use" || !is_public(&tokens[..at]) {
            continue;
        }
        let end = tokens[at..].iter().position(|token| token.text == ";");
        let statement = &tokens[at..at + end.unwrap_or(tokens.len() - at)];
        if statement.iter().any(|token| token.text == "*") {
            let line = token.line;
            problems.push(format!("{file}:{line}: no re-export with a star"));
        }
        for (to, line) in imports(module, statement) {
            if module.first() != Some(&to) {
                problems.push(format!("{file}:{line}: no re-export of what is {to}'s"));
            }
        }
    }
    problems
}

fn is_public(before: &[Token]) -> bool {
    match before.last().map(|token| token.text.as_str()) {
        Some("pub") => true,
        Some(")") => before.iter().rev().take(8).any(|token| token.text == "pub"),
        _ => false,
    }
}

#[test]
fn folders_import_only_what_the_table_allows() {
    let mut problems = Vec::new();
    for Module { file, path, .. } in modules(&root().join("src/lib.rs")) {
        let (name, tokens) = (relative(&file), tokens(&read(&file)));
        problems.extend(import_problems(&name, &path, &tokens));
        problems.extend(reexport_problems(&name, &path, &tokens));
    }
    report(&problems);
}

#[test]
fn forbidden_imports_are_found_in_every_spelling() {
    let module = ["log".to_owned(), "journal".to_owned()];
    for text in [
        "use crate::cluster::image;",
        "use crate::{wire::codec, shard::{router, request}};",
        "fn f() { crate::net::frame::f() }",
        "use super::super::cluster::image;",
        "mod tests { use super::super::super::net; }",
        "use crate::*;",
        "use crate::{self as all};",
        "use glommio::io;",
        "fn f() { libc::getpid(); }",
    ] {
        let problems = import_problems("f", &module, &tokens(text));
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
    }
    for text in [
        "use crate::wire::codec;",
        "use crate::log::cluster::x;",
        "use super::cluster;",
        "mod tests { use super::super::net; }",
        "// use crate::net;\nconst A: &str = \"crate::net\";",
        "fn f() { x.glommio(); }",
    ] {
        let problems = import_problems("f", &module, &tokens(text));
        assert_eq!(problems, Vec::<String>::new(), "{text}");
    }
}

#[test]
fn reexports_across_folders_are_found() {
    let module = ["log".to_owned(), "journal".to_owned()];
    for text in [
        "pub use crate::wire::codec::Reader;",
        "pub(crate) use crate::wire::codec;",
        "pub(in crate::log) use super::super::wire;",
        "pub use super::reader::*;",
    ] {
        assert!(
            !reexport_problems("f", &module, &tokens(text)).is_empty(),
            "{text}"
        );
    }
    for text in ["pub use super::reader::Reader;", "use crate::wire::codec;"] {
        let problems = reexport_problems("f", &module, &tokens(text));
        assert_eq!(problems, Vec::<String>::new(), "{text}");
    }
}

// Charters and modules

fn charter_problems(file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !text.starts_with("//! ") {
        problems.push(format!("{file}:1: a charter comes first"));
    }
    if !text.contains("*Architecture Invariant*") {
        problems.push(format!(
            "{file}:1: the charter states no *Architecture Invariant*"
        ));
    }
    for (at, line) in text.lines().enumerate() {
        let is_generated = line.starts_with("include!(concat!(env!(\"OUT_DIR\")");
        let is_plain = ["//", "#[cfg(", "#[path"]
            .iter()
            .any(|start| line.starts_with(start));
        if !(line.is_empty() || is_plain || is_generated || module_line(line).is_some()) {
            problems.push(format!("{file}:{}: a charter and mod lines only", at + 1));
        }
    }
    problems
}

#[test]
fn every_folder_has_a_charter_and_nothing_else_in_its_mod_file() {
    let mut problems = Vec::new();
    for file in files(&root().join("src"), &["rs"]) {
        if file.ends_with("mod.rs") {
            problems.extend(charter_problems(&relative(&file), &read(&file)));
        }
    }
    report(&problems);
}

#[test]
fn code_in_a_mod_file_is_found() {
    let charter = "//! What it is.\n//!\n//! *Architecture Invariant*: so.\n\n";
    let problems = |rest: &str| charter_problems("f", &format!("{charter}{rest}"));
    assert_eq!(
        problems("pub mod a;\n#[cfg(test)]\nmod b;\n"),
        Vec::<String>::new()
    );
    for rest in [
        "pub use a::B;",
        "use a;",
        "fn f() {}",
        "mod a { }",
        "const A: u8 = 1;",
    ] {
        assert_eq!(problems(rest).len(), 1, "{rest}");
    }
    assert_eq!(charter_problems("f", "mod a;\n").len(), 2);
}

#[test]
fn every_source_file_is_part_of_the_crate() {
    let src = root().join("src");
    let mut known: BTreeSet<PathBuf> = modules(&src.join("lib.rs"))
        .into_iter()
        .map(|module| module.file)
        .collect();
    known.insert(src.join("main.rs"));
    let dead = |file: &PathBuf| !known.contains(file);
    let problems: Vec<String> = files(&src, &["rs"])
        .into_iter()
        .filter(dead)
        .map(|file| format!("{}: no mod line reaches it", relative(&file)))
        .collect();
    report(&problems);
}

// Length

/// Functions with a body: name, first line, lines.
fn functions(tokens: &[Token]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let name = tokens.get(at + 1).map_or("", |name| name.text.as_str());
        if token.text != "fn" || name.is_empty() || name == "(" {
            continue;
        }
        let (mut depth, mut nesting) = (0_i32, 0_i32);
        for end in &tokens[at..] {
            match end.text.as_str() {
                "(" | "[" => nesting += 1,
                ")" | "]" => nesting -= 1,
                ";" if depth == 0 && nesting == 0 => break,
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        found.push((name.to_owned(), token.line, end.line - token.line + 1));
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn sources() -> Vec<PathBuf> {
    let folders = ["src", "tests", "build", "benches", "perf"];
    folders
        .iter()
        .flat_map(|folder| files(&root().join(folder), &["rs"]))
        .collect()
}

#[test]
fn files_are_not_too_long() {
    let mut problems = Vec::new();
    for file in sources() {
        let (name, lines) = (relative(&file), read(&file).lines().count());
        let listed = LONG_FILES.iter().find(|(long, _)| *long == name);
        let max = listed.map_or(FILE_LINES_MAX, |(_, lines)| *lines);
        if lines > max {
            problems.push(format!(
                "{name}: {lines} lines, at most {max}: split it by role"
            ));
        }
        if listed.is_some() && lines <= FILE_LINES_MAX {
            problems.push(format!("{name}: fits now, take it off LONG_FILES"));
        }
    }
    report(&problems);
}

#[test]
fn functions_are_not_too_long() {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for file in sources() {
        let name = relative(&file);
        for (function, line, lines) in functions(&tokens(&read(&file))) {
            if lines <= FUNCTION_LINES_MAX {
                continue;
            }
            let key = (name.as_str(), function.as_str());
            let listed = LONG_FUNCTIONS
                .iter()
                .find(|(file, function, _)| (*file, *function) == key);
            match listed {
                Some((file, function, max)) if lines <= *max => {
                    used.insert((*file, *function));
                }
                _ => problems.push(format!("{name}:{line}: {function} has {lines} lines")),
            }
        }
    }
    for (file, function, _) in LONG_FUNCTIONS {
        if !used.contains(&(*file, *function)) {
            problems.push(format!(
                "{file}: {function} fits now, take it off LONG_FUNCTIONS"
            ));
        }
    }
    report(&problems);
}

#[test]
fn the_length_of_functions_is_measured_through_literals_and_signatures() {
    let text = "fn a(x: [u8; 3]) -> u8 {\n  let s = \"}\"; // }\n  '}' as u8\n}\n\
                trait T { fn b(&self); fn c<'a>(&'a self) {} }\n\
                const F: fn(u8) = |x| { };\n";
    let expected = [("a".to_owned(), 1, 4), ("c".to_owned(), 5, 1)];
    assert_eq!(functions(&tokens(text)), expected);
}

// Calls

fn ban_problems(file: &str, is_test_file: bool, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let tests_start = if is_test_file { 0 } else { tests_start(text) };
    let is_in = |folder: &str| file.starts_with(folder);
    let off_core = [
        "src/runtime/",
        "src/cli/",
        "src/admin/",
        "src/main.rs",
        "tests/",
        "build/",
    ];
    let mut problems = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let is_test = token.line >= tests_start || is_in("tests/");
        for ban in BANS {
            let applies = match ban.scope {
                Scope::Everywhere => true,
                Scope::Tests => is_test,
                Scope::Silent => {
                    is_in("src/") && !is_in("src/cli/") && !is_in("src/main.rs") && !is_test
                }
                Scope::OnCores => {
                    is_in("src/") && !is_test && !off_core.iter().any(|folder| is_in(folder))
                }
            };
            let name = ban.pattern.concat();
            let is_exempt = EXEMPTIONS
                .iter()
                .any(|(exempt, what, _)| *exempt == file && *what == name);
            if applies && !is_exempt && matches(&tokens[at..], ban.pattern) {
                let line = token.line;
                problems.push(format!("{file}:{line}: {name}: use {}", ban.instead));
            }
        }
    }
    problems
}

/// Whether `tokens` begin with `pattern`; its last token may stand within braces: `std::{fs, io}`.
fn matches(tokens: &[Token], pattern: &[&str]) -> bool {
    let (last, start) = pattern.split_last().expect("patterns are not empty");
    let is_start = start
        .iter()
        .enumerate()
        .all(|(at, text)| tokens.get(at).is_some_and(|token| token.text == *text));
    if !is_start {
        return false;
    }
    let is_use = start.last() == Some(&"::");
    let mut found = heads(tokens, start.len()).into_iter();
    match is_use {
        true => found.any(|(head, _)| head == *last),
        false => tokens
            .get(start.len())
            .is_some_and(|token| token.text == *last),
    }
}

#[test]
fn calls_stand_where_they_belong() {
    let test_files: BTreeSet<PathBuf> = modules(&root().join("src/lib.rs"))
        .into_iter()
        .filter(|module| module.is_test)
        .map(|module| module.file)
        .collect();
    let mut problems = Vec::new();
    for file in sources() {
        let is_test_file = test_files.contains(&file);
        problems.extend(ban_problems(&relative(&file), is_test_file, &read(&file)));
    }
    report(&problems);
}

#[test]
fn banned_calls_are_found() {
    for text in [
        "fn f() { todo!() }",
        "fn f() { dbg!(1); }",
        "fn f() { println!(\"\"); }",
        "use std::fs;",
        "use std::fs::File;",
        "use std::{fs, io};",
        "use std::time::{Duration, SystemTime};",
        "fn f() { Instant::now(); }",
        "use std::collections::{BTreeMap, HashMap};",
        "fn f() { hashbrown::HashMap::new(); }",
        "fn f() { std::thread::spawn(g); }",
    ] {
        assert_eq!(ban_problems("src/log/a.rs", false, text).len(), 1, "{text}");
    }
    for text in [
        "use std::time::Duration; // todo!()",
        "fn f() { \"todo!()\"; }",
        "use hashbrown::HashMap;",
        "#[cfg(test)]\nmod tests { fn f() { println!(); std::fs::read(p); } }",
    ] {
        let problems = ban_problems("src/log/a.rs", false, text);
        assert_eq!(problems, Vec::<String>::new(), "{text}");
    }
    let sleep = "fn f() { std::thread::sleep(d); }";
    assert_eq!(ban_problems("tests/a.rs", false, sleep).len(), 1);
    assert_eq!(ban_problems("src/cli/a.rs", false, sleep).len(), 0);
    assert_eq!(ban_problems("src/cli/a.rs", true, sleep).len(), 1);
}

#[test]
fn unsafe_code_stays_in_runtime() {
    let mut problems = Vec::new();
    for file in sources() {
        let name = relative(&file);
        if name.starts_with("src/runtime/") || UNSAFE_PAGES.contains(&name.as_str()) {
            continue;
        }
        let tokens = tokens(&read(&file));
        let used = tokens.iter().filter(|token| token.text == "unsafe");
        problems.extend(used.map(|token| format!("{name}:{}: unsafe", token.line)));
    }
    report(&problems);
}

// Words

#[test]
fn nothing_tells_about_a_machine() {
    let mut problems = Vec::new();
    for file in files(&root(), &[]) {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue; // Not a text.
        };
        for (at, line) in text.lines().enumerate() {
            for word in WORDS.iter().filter(|word| line.contains(**word)) {
                problems.push(format!("{}:{}: {word}", relative(&file), at + 1));
            }
        }
    }
    report(&problems);
}
