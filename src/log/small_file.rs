//! Small files that are replaced whole: checkpoints, indexes, snapshots.

use std::io;
use std::path::Path;

use crate::runtime::buffer::{AppendBuf, Slice};
use crate::runtime::disk::{self, Durability};

/// A copy of `bytes`, padded with zeroes to whole blocks.
pub(super) fn padded(bytes: &[u8]) -> Slice {
    let mut buffer = AppendBuf::allocate(bytes.len());
    buffer.append(bytes);
    buffer.pad_to_block();
    buffer.whole()
}

/// Replaces a file so that a crash leaves the old or the new content; durable on return.
pub async fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    if disk::exists(&temporary).await? {
        disk::remove_file(&temporary).await?;
    }
    let file = disk::create(&temporary, 0).await?;
    file.write(0, padded(content), Durability::Volatile).await?;
    file.set_len(content.len() as u64).await?;
    file.full_sync().await?;
    disk::rename(&temporary, path).await?;
    disk::sync_dir(path.parent().expect("files have a directory")).await
}
