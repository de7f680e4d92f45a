//! What the control groups of this process grant it: CPU time and memory.
//!
//! Every ancestor limits too; the tightest limit counts. Inside a container the path of the host may
//! not exist, the root of the mount does.

use std::path::Path;

use super::host_tree::HostTree;

/// Groups above one another that are looked at.
const DEPTH_MAX: usize = 64;
/// Version 1 says "no limit" with a number close to the largest one.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// How many CPUs' worth of time is granted, when it is limited.
#[must_use]
pub fn cpu_quota(tree: &HostTree) -> Option<f64> {
    directories(tree, "cpu", &["cpu", "cpu,cpuacct"])
        .iter()
        .filter_map(|(directory, unified)| match unified {
            true => quota_v2(tree, directory),
            false => quota_v1(tree, directory),
        })
        .reduce(f64::min)
}

/// How much memory is granted, when it is limited.
#[must_use]
pub fn memory_limit_bytes(tree: &HostTree) -> Option<u64> {
    directories(tree, "memory", &["memory"])
        .iter()
        .filter_map(|(directory, unified)| {
            let name = match unified {
                true => "memory.max",
                false => "memory.limit_in_bytes",
            };
            let bytes = tree.read(&format!("{directory}/{name}")).text()?.parse();
            bytes.ok().filter(|bytes: &u64| *bytes < UNLIMITED_BYTES)
        })
        .min()
}

/// Directories of the groups that may limit what `controller` is for, below the roots where such a
/// controller of version 1 is mounted, with whether they are of version 2.
fn directories(tree: &HostTree, controller: &str, roots: &[&str]) -> Vec<(String, bool)> {
    let groups = tree.read("proc/self/cgroup");
    let mut directories = Vec::new();
    for line in groups.text().unwrap_or_default().lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let unified = controllers.is_empty();
        let mounts: &[&str] = if unified {
            &["", "unified"]
        } else if controllers.split(',').any(|name| name == controller) {
            roots
        } else {
            continue;
        };
        // A group outside of the namespace's root is told as a climb, which leads nowhere here.
        let path = if path.contains("..") { "/" } else { path };
        for mount in mounts {
            for ancestor in Path::new(path).ancestors().take(DEPTH_MAX) {
                let below = ancestor.to_string_lossy();
                let below = below.trim_matches('/');
                let parts = ["sys/fs/cgroup", mount, below];
                let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                directories.push((parts.join("/"), unified));
            }
        }
    }
    directories
}

fn quota_v2(tree: &HostTree, directory: &str) -> Option<f64> {
    let found = tree.read(&format!("{directory}/cpu.max"));
    let mut fields = found.text()?.split_whitespace();
    ratio(fields.next()?, fields.next()?)
}

fn quota_v1(tree: &HostTree, directory: &str) -> Option<f64> {
    let quota = tree.read(&format!("{directory}/cpu.cfs_quota_us"));
    let period = tree.read(&format!("{directory}/cpu.cfs_period_us"));
    ratio(quota.text()?, period.text()?)
}

/// `max` and -1 both mean no limit.
fn ratio(quota_us: &str, period_us: &str) -> Option<f64> {
    let quota: f64 = quota_us.parse().ok()?;
    let period: f64 = period_us.parse().ok()?;
    (quota > 0.0 && period > 0.0 && quota.is_finite()).then(|| quota / period)
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, HostTree) {
        let folder = tempfile::tempdir().expect("tempdir");
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let tree = HostTree::new(folder.path());
        (folder, tree)
    }

    #[test]
    fn the_tightest_group_counts() {
        let (_folder, found) = tree(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/cpu.max", "400000 100000\n"),
            ("sys/fs/cgroup/a/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
        ]);
        assert_eq!(cpu_quota(&found), Some(1.5));
        assert_eq!(memory_limit_bytes(&found), Some(1 << 30));
    }

    #[test]
    fn groups_of_version_1_and_of_other_namespaces() {
        let (_folder, found) = tree(&[
            ("proc/self/cgroup", "4:cpu,cpuacct:/a\n3:memory:/../x\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4096\n"),
        ]);
        assert_eq!(cpu_quota(&found), Some(0.5));
        assert_eq!(memory_limit_bytes(&found), Some(4096));
        let (_folder, unlimited) = tree(&[
            ("proc/self/cgroup", "3:memory:/\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712",
            ),
        ]);
        assert_eq!(memory_limit_bytes(&unlimited), None);
    }

    #[test]
    fn what_makes_no_sense_limits_nothing() {
        for text in ["", "::\n", "0::/\n", "nonsense", "0::/\u{0}\n"] {
            let (_folder, found) = tree(&[
                ("proc/self/cgroup", text),
                ("sys/fs/cgroup/cpu.max", "many few"),
                ("sys/fs/cgroup/memory.max", "99999999999999999999999"),
            ]);
            assert_eq!(cpu_quota(&found), None, "{text}");
            assert_eq!(memory_limit_bytes(&found), None, "{text}");
        }
        let (_folder, nothing) = tree(&[]);
        assert_eq!(cpu_quota(&nothing), None);
    }
}
