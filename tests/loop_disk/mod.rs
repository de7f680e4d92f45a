//! A small ext4 on a loop device that can be filled, broken and mounted again. Needs root.
//!
//! A disk takes away what it made when it is dropped, also while a test fails; nothing that it did
//! not make is touched.

#![allow(dead_code)] // Every test binary uses a part of it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// As a server would mount it.
const WRITABLE: &str = "loop,errors=remount-ro";

/// See the head of this file.
pub(crate) struct LoopDisk {
    folder: tempfile::TempDir,
    is_mounted: bool,
}

/// What becomes of the changes that only the file system's journal in memory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// They are written.
    WithJournal,
    /// They are lost.
    WithoutJournal,
}

/// Runs a command; what it said when it failed.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    answer_of(program, arguments).map(drop)
}

/// Runs a command; what it printed, or what it said when it failed.
fn answer_of(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program} {}: {}",
        arguments.join(" "),
        said.trim()
    ))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

impl LoopDisk {
    /// A fresh, mounted disk; why there can be none, otherwise.
    pub(crate) fn new(size_bytes: u64) -> Result<LoopDisk, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(size_bytes)
            .map_err(|error| error.to_string())?;
        let options = [
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
        ];
        run("mkfs.ext4", &[&options[..], &[text(&image)]].concat())?;
        std::fs::create_dir(folder.path().join("mnt")).map_err(|error| error.to_string())?;
        let mut disk = LoopDisk {
            folder,
            is_mounted: false,
        };
        disk.try_mount(WRITABLE)?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    fn try_mount(&mut self, options: &str) -> Result<(), String> {
        let image = self.folder.path().join("image");
        // The loop device goes with the last unmount.
        let mount = self.path();
        run("mount", &["-o", options, text(&image), text(&mount)])?;
        self.is_mounted = true;
        Ok(())
    }

    /// Mounts it again.
    pub(crate) fn mount(&mut self) {
        self.try_mount(WRITABLE).expect("it was mounted before");
    }

    /// Mounts it again, but so that it takes no writes.
    pub(crate) fn mount_read_only(&mut self) {
        self.try_mount("loop,ro").expect("it was mounted before");
    }

    /// Unmounts it; nobody may use it. The kernel lets go of the files of a killed process's ring
    /// some time after the process has gone.
    pub(crate) fn unmount(&mut self) {
        let mut tries = 0..1000;
        while let Err(said) = run("umount", &[text(&self.path())]) {
            assert!(tries.next().is_some(), "nobody uses it: {said}");
            std::thread::yield_now();
        }
        self.is_mounted = false;
    }

    /// Takes it away from the path while it is in use.
    pub(crate) fn detach(&mut self) {
        run("umount", &["-l", text(&self.path())]).expect("it is mounted");
        self.is_mounted = false;
    }

    /// Stops all access as if the device were gone, without writing its journal.
    pub(crate) fn shut_down(&mut self) {
        self.shut_down_with(Shutdown::WithoutJournal);
    }

    /// Stops all access (EXT4_IOC_SHUTDOWN).
    pub(crate) fn shut_down_with(&mut self, how: Shutdown) {
        let script = "open(my $file, '<', $ARGV[0]) or die $!; my $flag = pack('L', $ARGV[1]); \
                      ioctl($file, 0x8004587d, $flag) or die $!;";
        let file = self.path().join("percolog.format");
        let flag = match how {
            Shutdown::WithJournal => "1",
            Shutdown::WithoutJournal => "2",
        };
        run("perl", &["-e", script, text(&file), flag]).expect("ext4 knows this call");
    }

    /// As after an error that ext4 could not handle: the file system takes no writes any more.
    pub(crate) fn abort(&mut self) {
        run("mount", &["-o", "remount,abort", text(&self.path())]).expect("ext4 knows this option");
    }

    /// Fills all of it but `left_bytes` with a file.
    pub(crate) fn fill(&mut self, left_bytes: u64) {
        let filler = self.path().join("filler");
        let mut step = 64 << 20;
        let mut size: u64 = 0;
        while step >= 4096 {
            let wanted = (size + step).to_string();
            match run("fallocate", &["-l", &wanted, text(&filler)]) {
                Ok(()) => size += step,
                Err(_) => step /= 2,
            }
        }
        if left_bytes > 0 {
            let file = std::fs::OpenOptions::new().write(true).open(&filler);
            let shorter = size.saturating_sub(left_bytes);
            file.and_then(|file| file.set_len(shorter))
                .expect("the filler is ours");
        }
    }

    /// Fills all of it but about `left_bytes` with a file in one step: what becomes free from then
    /// on stays free.
    pub(crate) fn fill_at_once(&mut self, left_bytes: u64) {
        let filler = self.path().join("filler");
        let mut tries = 0..100;
        loop {
            let path = self.path();
            let blocks_and_size = ["--file-system", "--format=%a %S", text(&path)];
            let answer = answer_of("stat", &blocks_and_size).expect("it is mounted");
            let factors = answer.split_whitespace().map(str::parse::<u64>);
            let free_bytes: u64 = factors.map(|factor| factor.expect("a number")).product();
            let wanted = free_bytes.saturating_sub(left_bytes).to_string();
            if run("fallocate", &["-l", &wanted, text(&filler)]).is_ok() {
                return;
            }
            // Somebody took space in between; what it got so far goes back.
            let _ = std::fs::remove_file(&filler);
            assert!(tries.next().is_some(), "the disk is never quiet");
        }
    }

    /// Takes all inodes, so that no file can be created, whatever its size.
    pub(crate) fn fill_inodes(&mut self) {
        let folder = self.path().join("inodes");
        std::fs::create_dir(&folder).expect("there is an inode left");
        for number in 0.. {
            // Without an inode there is no way to tell it from a folder that cannot grow; both will do.
            if std::fs::File::create(folder.join(format!("{number}"))).is_err() {
                break;
            }
        }
    }

    /// Gives the inodes back.
    pub(crate) fn free_inodes(&mut self) {
        std::fs::remove_dir_all(self.path().join("inodes")).expect("they were taken");
    }

    /// Gives the space of a filler back.
    pub(crate) fn free(&mut self) {
        std::fs::remove_file(self.path().join("filler")).expect("it was filled");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.is_mounted {
            // Lazily, in case a broker of a failed test still has it.
            let _ = run("umount", &["-l", text(&self.path())]);
        }
    }
}
