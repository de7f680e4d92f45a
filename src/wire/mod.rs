pub mod batch_validation;
pub mod checksum;
pub mod compression;
pub mod record;
pub mod record_batch;
pub mod record_batch_builder;
mod xerial;
