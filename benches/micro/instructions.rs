//! Counting instructions: this program runs itself under callgrind, which writes one profile per case.
//!
//! Only what happens within [`counted_units`] counts, on the thread that runs it; the kernel's part of
//! system calls and page faults does not show.

use std::ffi::OsString;
use std::hint::black_box;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cases::Case;
use crate::ledger::{Counts, Ledger};

/// Tells the child that it runs under callgrind.
pub(crate) const COUNTED: &str = "--counted";

/// Callgrind takes no patterns for functions that end a profile.
const COUNTED_FUNCTION: &str = concat!(module_path!(), "::counted_units");

const HELP: &str = "\
instructions per unit of every case of `make micro`, counted by valgrind's callgrind

  (nothing)     counts and prints, beside the reference
  --check       fails when a case takes more than 5 % more than the reference, or has none
  --accept      writes the reference, perf/ledger/instructions.json
  --json FILE   also writes the counts to FILE";

/// What is done with the counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Print,
    Check,
    Accept,
}

/// The whole of `--instructions`.
pub(crate) fn count(arguments: &[String]) -> ExitCode {
    let (mode, json) = match parse(arguments) {
        Ok(parsed) => parsed,
        Err(problem) => {
            eprintln!("{problem}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match counted(mode, json.as_deref()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<(Mode, Option<PathBuf>), String> {
    let (mut mode, mut json) = (Mode::Print, None);
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--check" | "--accept" if mode != Mode::Print => {
                return Err("either --check or --accept".to_owned());
            }
            "--check" => mode = Mode::Check,
            "--accept" => mode = Mode::Accept,
            "--json" => json = Some(rest.next().ok_or("--json needs a file")?.into()),
            _ => return Err(format!("{word} is no option")),
        }
    }
    Ok((mode, json))
}

/// Counts and does what `mode` says; whether the counts pass.
fn counted(mode: Mode, json: Option<&Path>) -> Result<bool, String> {
    let counts = run_under_callgrind()?;
    if let Some(path) = json {
        counts.write(path)?;
        println!("counts written to {}", path.display());
    }
    let ledger = Ledger::at_its_place();
    if mode == Mode::Accept {
        ledger.accept(&counts)?;
        println!("{} is the reference now", ledger.path().display());
        return Ok(true);
    }
    let problems = ledger.compare(&counts)?;
    if mode == Mode::Print {
        return Ok(true);
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        println!("no case takes more than 5 % more than the reference");
    } else {
        eprintln!("if that is meant to be: perf/instructions.sh --accept, and commit the ledger");
    }
    Ok(problems.is_empty())
}

fn run_under_callgrind() -> Result<Counts, String> {
    let valgrind = first_line("valgrind", "--version").map_err(|error| {
        format!("valgrind is missing ({error}): sudo apt-get install -y valgrind")
    })?;
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let tools = [
        ("rustc", first_line(rustc, "--version")),
        ("valgrind", Ok(valgrind)),
        // Copies are the C library's.
        ("libc", first_line("ldd", "--version")),
    ];
    let mut counts = Counts::default();
    for (tool, version) in tools {
        let version = version.map_err(|error| format!("{tool} --version: {error}"))?;
        counts.tools.insert(tool.to_owned(), version);
    }
    let profiles = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let profiles = profiles.map_err(|error| format!("a directory in target: {error}"))?;
    let cases = profile(&profiles.path().join("profile"))?;
    for (number, (name, units)) in cases.into_iter().enumerate() {
        // Callgrind numbers its profiles from 1.
        let path = profiles.path().join(format!("profile.{}", number + 1));
        let total = total(&path)? as f64;
        let per_unit = (total / units as f64 * 10.0).round() / 10.0;
        counts.per_unit.insert(name, per_unit);
    }
    Ok(counts)
}

/// Runs all cases under callgrind; their names and how many units were counted, in the order of the
/// profiles.
fn profile(out: &Path) -> Result<Vec<(String, u64)>, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let mut out_option = OsString::from("--callgrind-out-file=");
    out_option.push(out);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        // Threads take turns in order: the core never sleeps (`stay_awake`), and would keep its pools
        // from ever running otherwise.
        .arg("--fair-sched=yes")
        .arg("--collect-atstart=no")
        .arg(format!("--toggle-collect={COUNTED_FUNCTION}"))
        .arg(format!("--dump-after={COUNTED_FUNCTION}"))
        .arg(out_option)
        .arg(program)
        .arg(COUNTED)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("valgrind ended with {}", output.status));
    }
    let lines = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
    let cases = lines.lines().map(|line| {
        let (units, name) = line.split_once('\t').ok_or_else(|| strange(line))?;
        let units = units.parse().map_err(|_| strange(line))?;
        Ok((name.to_owned(), units))
    });
    cases.collect()
}

fn strange(line: &str) -> String {
    format!("not a counted case: {line}")
}

/// The instructions of a profile.
fn total(profile: &Path) -> Result<u64, String> {
    let about = |error: &dyn std::fmt::Display| format!("{}: {error}", profile.display());
    let text = std::fs::read_to_string(profile).map_err(|error| about(&error))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.ok_or_else(|| about(&"no totals"))?;
    match total.trim().parse() {
        Ok(0) => Err(about(&"nothing was counted")),
        Ok(total) => Ok(total),
        Err(error) => Err(about(&error)),
    }
}

fn first_line(program: impl AsRef<std::ffi::OsStr>, argument: &str) -> io::Result<String> {
    let output = Command::new(program).arg(argument).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The child: every case some times for what is set up once, then counted.
pub(crate) fn run_counted(cases: &mut [Case]) {
    for case in cases {
        (case.run)();
        (case.run)();
        let units = case.counted_units();
        counted_units(&mut *case.run, units);
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{units}\t{}", case.name).expect("the parent reads");
    }
}

/// What callgrind looks for by its name.
#[inline(never)]
fn counted_units(run: &mut dyn FnMut(), units: u64) {
    for _ in 0..units {
        black_box(&mut *run)();
    }
}
