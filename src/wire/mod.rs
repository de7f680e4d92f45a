pub mod checksum;
pub mod compression;
pub mod record;
pub mod record_batch;
mod xerial;
