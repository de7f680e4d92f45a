//! Journal groups: what is formed of the appends that wait, and encoded into one buffer.

use std::rc::Rc;

use percolog::log::flush_mark::FlushMark;
use percolog::log::group::{Epoch, GroupHeader};
use percolog::log::group_queue::{MemoryAppend, group_in_memory};
use percolog::log::position::LogId;
use percolog::runtime::buffer::{AppendBuf, BLOCK_BYTES};

use crate::cases::{Amount, Cases, text};

const HEADER: GroupHeader = GroupHeader {
    epoch: Epoch([0x3c; 16]),
    sequence: 1 << 20,
    completed: (1 << 20) - 1,
    predecessor: 0x1234_5678,
    body_length: 0,
    entry_count: 0,
    body_checksum: 0,
};

/// A log with all its appends behind each other in one chunk.
struct Log {
    id: LogId,
    chunk: AppendBuf,
    mark: Rc<FlushMark>,
    append_bytes: usize,
}

impl Log {
    fn new(partition: usize, appends: usize, append_bytes: usize) -> Log {
        let mut chunk = AppendBuf::allocate(appends * append_bytes);
        let bytes = text(append_bytes);
        for _ in 0..appends {
            chunk.append(&bytes);
        }
        Log {
            id: LogId {
                topic: [9; 16],
                partition: partition as u32,
            },
            chunk,
            mark: Rc::default(),
            append_bytes,
        }
    }

    /// Its appends as the log hands them to its journal.
    fn appends(&self) -> impl Iterator<Item = MemoryAppend> {
        let begins = (0..self.chunk.len()).step_by(self.append_bytes);
        begins.map(|begin| {
            let boundary = begin - begin % BLOCK_BYTES;
            MemoryAppend {
                log: self.id,
                position: begin as u64,
                bytes: self.chunk.slice(boundary..begin + self.append_bytes),
                mark: self.mark.clone(),
            }
        })
    }
}

pub(crate) fn add(cases: &mut Cases) {
    let (kib, mib) = (1 << 10, 1 << 20);
    for (logs, appends, append_bytes, what) in [
        (1, 1, kib, "1 append of 1 KiB"),
        (1, 64, kib, "64 appends of 1 KiB to one log"),
        (64, 1, kib, "64 appends of 1 KiB to 64 logs"),
        (4, 1, 16 * kib, "4 appends of 16 KiB to 4 logs"),
        (1, 1, mib, "1 append of 1 MiB, all of it in the group"),
    ] {
        let size_bytes = logs * appends * append_bytes;
        let logs: Vec<Log> = (0..logs)
            .map(|partition| Log::new(partition, appends, append_bytes))
            .collect();
        let name = format!("journal: a group of {what}");
        cases.add(name, Amount::Bytes(size_bytes), move || {
            group_in_memory(logs.iter().flat_map(Log::appends), HEADER)
        });
    }
}
