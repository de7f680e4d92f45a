//! Which core owns what, and the hop there. Until cores own partitions, every one is unknown.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use super::request::{
    AppendPart, AppendedPart, DeleteRecordsPart, EpochEndPart, FetchPart, FetchTerms, FetchedPart,
    FoundOffset, ListOffsetsPart, LogUsage, PartitionError, Promise,
};
use crate::cluster::controller::{Command, CommandReply};
use crate::cluster::image::MetadataImage;
use crate::config::broker::BrokerConfig;
use crate::log::position::LogId;
use crate::runtime::core_id::CoreId;

/// Why a command was not carried out, or not known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlFailure {
    /// The controller has too much to do.
    Overloaded,
    /// The metadata cannot be stored.
    Storage,
    /// It did not happen in time; it may still happen.
    TimedOut,
}

/// A data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryState {
    /// As it was configured.
    pub path: String,
    /// Size of its volume.
    pub total_bytes: i64,
    /// Space left there.
    pub usable_bytes: i64,
    /// Whether it failed.
    pub offline: bool,
}

/// The way from a connection to partitions and the controller.
pub struct Router {
    image: Arc<MetadataImage>,
    config: Rc<BrokerConfig>,
}

impl Router {
    /// A router to nowhere.
    #[must_use]
    pub fn new(image: Arc<MetadataImage>, config: Rc<BrokerConfig>) -> Router {
        Router { image, config }
    }

    /// The metadata as this core knows it.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.clone()
    }

    /// The configuration with the dynamic values in force.
    #[must_use]
    pub fn config(&self) -> Rc<BrokerConfig> {
        self.config.clone()
    }

    /// The core that owns a log.
    #[must_use]
    pub fn owner(&self, _log: LogId) -> CoreId {
        CoreId(0)
    }

    /// Fixes the order now; resolves with one result per part in the given order.
    pub fn append(
        self: &Rc<Self>,
        parts: Vec<AppendPart>,
        _promise: Promise,
        _timeout_ms: u64,
    ) -> impl Future<Output = Vec<Result<AppendedPart, PartitionError>>> + 'static {
        std::future::ready(parts.iter().map(|_| Err(PartitionError::Unknown)).collect())
    }

    /// Reads; waits for bytes as the terms say. Answers in order.
    pub async fn fetch(
        self: &Rc<Self>,
        parts: Vec<FetchPart>,
        _terms: FetchTerms,
    ) -> Vec<FetchedPart> {
        let unknown = |part: &FetchPart| FetchedPart {
            log: part.log,
            error: Some(PartitionError::Unknown),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            leader_epoch: -1,
            diverging: None,
            slices: Default::default(),
            size_bytes: 0,
        };
        parts.iter().map(unknown).collect()
    }

    /// Looks for offsets.
    pub async fn list_offsets(
        self: &Rc<Self>,
        parts: Vec<ListOffsetsPart>,
    ) -> Vec<Result<FoundOffset, PartitionError>> {
        parts.iter().map(|_| Err(PartitionError::Unknown)).collect()
    }

    /// Looks where epochs end: epoch and end offset.
    pub async fn epoch_ends(
        self: &Rc<Self>,
        parts: Vec<EpochEndPart>,
    ) -> Vec<Result<(i32, i64), PartitionError>> {
        parts.iter().map(|_| Err(PartitionError::Unknown)).collect()
    }

    /// Moves log starts; gives the low watermarks.
    pub async fn delete_records(
        self: &Rc<Self>,
        parts: Vec<DeleteRecordsPart>,
        _timeout_ms: u64,
    ) -> Vec<Result<i64, PartitionError>> {
        parts.iter().map(|_| Err(PartitionError::Unknown)).collect()
    }

    /// What every log takes on disk.
    pub async fn log_usage(self: &Rc<Self>) -> Vec<LogUsage> {
        Vec::new()
    }

    /// The data directories, in the order of the configuration.
    pub async fn data_directories(self: &Rc<Self>) -> Vec<DirectoryState> {
        Vec::new()
    }

    /// Has a command decided, stored, and applied on every core.
    pub async fn control(
        self: &Rc<Self>,
        _command: Command,
    ) -> Result<CommandReply, ControlFailure> {
        Err(ControlFailure::Overloaded)
    }
}
