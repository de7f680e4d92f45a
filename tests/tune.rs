//! `percolog tune` as a user runs it: over a host of plain files, and on a real disk; and what `serve`
//! makes of a disk profile and of the examples in `tuning/`.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use percolog::config::broker::BrokerConfig;
use percolog::config::disk_profile::{DiskSettings, FILE_NAME};
use percolog::config::sources::Sources;
use support::Broker;

/// A host that has all there is to change without a device.
const HOST: &[(&str, &str)] = &[
    ("sys/devices/system/cpu/online", "0-3"),
    ("proc/sys/kernel/random/boot_id", "abc"),
    ("proc/sys/kernel/osrelease", "6.12.0"),
    ("proc/sys/vm/swappiness", "60"),
    ("proc/swaps", "Filename Type\n/dev/sda2 partition\n"),
    ("proc/sys/net/core/somaxconn", "128"),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "[always] madvise never",
    ),
];

fn host() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (path, text) in HOST {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, text).expect("written");
    }
    folder
}

fn percolog(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_percolog"))
        .args(arguments)
        .output()
        .expect("the binary was built for this test")
}

/// `percolog tune` on a host of files; items that measure or ask the running kernel are left out.
fn tune(host: &Path, arguments: &[&str]) -> Output {
    let root = ["--host-root", host.to_str().expect("UTF-8")];
    let mut all = vec!["tune"];
    all.extend_from_slice(arguments);
    all.extend_from_slice(&root);
    if arguments[0] != "undo" {
        for item in ["swappiness", "listen-backlog", "transparent-huge-pages"] {
            all.extend_from_slice(&["--item", item]);
        }
    }
    percolog(&all)
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn value(host: &Path, path: &str) -> String {
    let text = fs::read_to_string(host.join(path)).expect("there");
    text.trim().to_owned()
}

#[test]
fn check_apply_and_undo() {
    let host = host();
    let check = tune(host.path(), &["check", "--output", "json"]);
    assert_eq!(check.status.code(), Some(1), "{}", said(&check));
    let findings: serde_json::Value = serde_json::from_str(&out(&check)).expect("JSON");
    let findings = findings.as_array().expect("a list");
    assert_eq!(findings.len(), 3);
    for finding in findings {
        assert_eq!(finding["severity"], "warning", "{finding}");
        assert_eq!(finding["apply"], true, "{finding}");
    }

    let dry = tune(host.path(), &["apply", "--dry-run"]);
    assert!(dry.status.success(), "{}", said(&dry));
    let line = "put '/proc/sys/vm/swappiness' '1' # was 60";
    assert!(out(&dry).contains(line), "{}", out(&dry));
    let script = host.path().join("tune.sh");
    let name = script.to_str().expect("UTF-8");
    assert!(
        tune(host.path(), &["apply", "--script", name])
            .status
            .success()
    );
    assert_eq!(fs::read_to_string(&script).expect("written"), out(&dry));
    assert_eq!(value(host.path(), "proc/sys/vm/swappiness"), "60");

    let apply = tune(host.path(), &["apply"]);
    assert!(apply.status.success(), "{}", said(&apply));
    assert_eq!(value(host.path(), "proc/sys/vm/swappiness"), "1");
    assert!(tune(host.path(), &["check"]).status.success());

    fs::write(host.path().join("proc/sys/net/core/somaxconn"), "200").expect("written");
    let refused = tune(host.path(), &["apply"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("--again"), "{}", said(&refused));
    assert!(tune(host.path(), &["apply", "--again"]).status.success());

    let undo = tune(host.path(), &["undo"]);
    assert!(undo.status.success(), "{}", said(&undo));
    assert_eq!(value(host.path(), "proc/sys/vm/swappiness"), "60");
    assert_eq!(value(host.path(), "proc/sys/net/core/somaxconn"), "128");
    assert!(out(&tune(host.path(), &["undo"])).contains("nothing to undo"));
}

#[test]
fn a_check_of_everything_explains_itself() {
    let host = host();
    let root = host.path().to_str().expect("UTF-8");
    let missing = host.path().join("data");
    let data = missing.to_str().expect("UTF-8");
    let check = percolog(&["tune", "check", "--host-root", root, "--data-dir", data]);
    assert_eq!(check.status.code(), Some(1));
    let text = out(&check);
    for part in [
        "NOT APPLICABLE",
        "does not exist",
        "warning: swap: ",
        "swapoff -a",
    ] {
        let found = text.to_lowercase().contains(&part.to_lowercase());
        assert!(found, "{part}: {text}");
    }
    assert!(!missing.exists(), "a check makes no data directory");
}

/// On the file system of the build: temporary ones are often in memory.
fn disk_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

#[test]
fn a_measured_disk_sets_the_broker_and_a_damaged_profile_stops_it() {
    let folder = disk_folder();
    let data: PathBuf = folder.path().join("data");
    let name = data.to_str().expect("UTF-8");
    let dry = [
        "tune",
        "disk",
        "--seconds",
        "2",
        "--data-dir",
        name,
        "--dry-run",
    ];
    let measured = percolog(&dry);
    assert!(measured.status.success(), "{}", said(&measured));
    assert!(!data.join(FILE_NAME).exists());
    let measured = percolog(&[
        "tune",
        "disk",
        "--seconds",
        "2",
        "--data-dir",
        name,
        "--output",
        "json",
    ]);
    assert!(measured.status.success(), "{}", said(&measured));
    let figures: serde_json::Value = serde_json::from_str(&out(&measured)).expect("JSON");
    let profile = fs::read_to_string(data.join(FILE_NAME)).expect("written");
    let settings = DiskSettings::parse(&profile).expect("sound");
    for (at, (setting, value)) in settings.entries().into_iter().enumerate() {
        assert_eq!(
            figures["settings"][at]["name"],
            format!("storage.{setting}")
        );
        assert_eq!(figures["settings"][at]["value"], value);
    }

    // An empty directory with a profile is still one that a broker takes.
    assert_eq!(Broker::start(&data, &[]).stop(), Some(0));
    let careful = DiskSettings {
        direct_write_busy_bytes: 8192,
        ..settings
    };
    fs::write(data.join(FILE_NAME), careful.render(&[])).expect("written");
    let shown = percolog(&["serve", "--data-dir", name, "--print-config"]);
    let text = out(&shown);
    let line = text
        .lines()
        .find(|line| line.starts_with("storage.direct_write_busy_bytes"))
        .expect("every setting");
    assert!(
        line.contains("= 8192 ") && line.contains("from percolog.disk"),
        "{line}"
    );
    let set = "storage.direct_write_busy_bytes=12288";
    let shown = percolog(&["serve", "--data-dir", name, "--set", set, "--print-config"]);
    assert!(out(&shown).contains("= 12288 bytes"), "{}", out(&shown));

    refuses_damaged_profiles(&data, &careful);
    // Measuring again is one of the two ways out.
    assert!(percolog(&dry[..6]).status.success());
    assert_eq!(Broker::start(&data, &[]).stop(), Some(0));
}

fn refuses_damaged_profiles(data: &Path, sound: &DiskSettings) {
    let name = data.to_str().expect("UTF-8");
    for damaged in [&sound.render(&[])[..40], "", "something else\n", "\u{0}"] {
        fs::write(data.join(FILE_NAME), damaged).expect("written");
        let refused = percolog(&["serve", "--data-dir", name]);
        assert_eq!(refused.status.code(), Some(1));
        let said = said(&refused);
        let names_it = said.contains(FILE_NAME) && said.contains("tune disk --data-dir");
        assert!(names_it && said.contains("Remove it"), "{said}");
    }
}

#[test]
fn a_disk_in_use_and_a_foreign_directory_are_not_measured() {
    let folder = disk_folder();
    let data = folder.path().join("data");
    let broker = Broker::start(&data, &[]);
    let refused = percolog(&["tune", "disk", "--data-dir", data.to_str().expect("UTF-8")]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("another broker"),
        "{}",
        said(&refused)
    );
    assert_eq!(broker.stop(), Some(0));
    fs::write(folder.path().join("notes.txt"), "mine").expect("written");
    let foreign = folder.path().to_str().expect("UTF-8");
    let refused = percolog(&["tune", "disk", "--data-dir", foreign]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("empty directory"),
        "{}",
        said(&refused)
    );
}

fn tuning_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning")
}

#[test]
fn the_examples_of_cores_are_configurations() {
    let mut examples = 0;
    for entry in fs::read_dir(tuning_folder().join("cores")).expect("there") {
        let path = entry.expect("readable").path();
        let text = fs::read_to_string(&path).expect("readable");
        let sources = Sources {
            toml: Some(&text),
            ..Sources::default()
        };
        let config = BrokerConfig::load(&sources);
        let config = config.unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
        assert!(config.cores.pin);
        let shown = percolog(&[
            "serve",
            "--config",
            path.to_str().expect("UTF-8"),
            "--print-config",
        ]);
        assert!(
            shown.status.success(),
            "{}: {}",
            path.display(),
            said(&shown)
        );
        examples += 1;
    }
    assert_eq!(examples, 4);
}

#[test]
fn sysctl_file_and_tuner_say_the_same() {
    let text = fs::read_to_string(tuning_folder().join("sysctl/90-percolog.conf")).expect("there");
    let mut lines = 0;
    let host = host();
    assert!(tune(host.path(), &["apply"]).status.success());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, wanted)) = line.split_once(" = ") else {
            assert!(line.is_empty(), "{line}");
            continue;
        };
        let path = format!("proc/sys/{}", name.replace('.', "/"));
        if host.path().join(&path).exists() {
            assert_eq!(value(host.path(), &path), wanted, "{name}");
            lines += 1;
        }
    }
    assert_eq!(lines, 2);
}
