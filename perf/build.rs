//! Tells the tool which commit it was built from, for the provenance of its reports.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let is_good = output.status.success();
    is_good.then(|| text.trim().to_owned())
}

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    // Ledgers grow by measuring what they are about.
    let places = [":/", ":(top,exclude)perf/ledger"];
    let arguments = ["status", "--porcelain", "--untracked-files=no", "--"];
    let is_changed =
        git(&[&arguments[..], &places].concat()).is_some_and(|status| !status.is_empty());
    let commit = commit.map_or_else(
        || "unknown".to_owned(),
        |commit| {
            if is_changed {
                commit + "+changes"
            } else {
                commit
            }
        },
    );
    println!("cargo::rustc-env=PERCOLOG_PERF_COMMIT={commit}");
    // The reflog moves with every commit and checkout.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=../src");
}
