//! Carries out what the quorum wants: stores, sends, applies what was committed, keeps time.
//!
//! One task does this for a node, one thing after the other, so that nothing is promised before it
//! is durable; another one spreads images, since other cores may take their time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::controller_service::ControllerService;
use super::metadata_entry;
use super::quorum_log::Loaded;
use super::request::ControlFailure;
use crate::cluster::image::MetadataImage;
use crate::cluster::quorum::member::Voter;
use crate::cluster::quorum::node::{
    Committed, InstalledSnapshot, Outgoing, QuorumConfig, QuorumNode, Recovered,
};
use crate::cluster::record::{MetadataRecord, snapshot};
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::random::random_u64;

/// The quorum's unit of time.
const TICK: Duration = Duration::from_millis(50);

/// Ticks without a leader after which a node asks for votes, to twice as many.
const ELECTION_TICKS: usize = 10;

/// Ticks between two signs of life of a leader.
const HEARTBEAT_TICKS: usize = 2;

/// Bytes of entries in one message, unless one alone has more.
const MESSAGE_BYTES: u64 = 1 << 20;

/// Bytes of the metadata log after which a snapshot is due.
const SNAPSHOT_DUE_BYTES: u64 = 1 << 20;

/// The node of the quorum as it was left.
pub(super) fn node(
    node_id: i32,
    founders: Vec<Voter>,
    loaded: Loaded,
) -> Result<QuorumNode, String> {
    let config = QuorumConfig {
        node_id,
        seed: random_u64(),
        election_ticks: ELECTION_TICKS,
        heartbeat_ticks: HEARTBEAT_TICKS,
        message_bytes: MESSAGE_BYTES,
        founders,
    };
    let recovered = Recovered {
        state: loaded.state,
        snapshot: loaded.snapshot.map(|snapshot| snapshot.point),
        entries: loaded.entries,
    };
    QuorumNode::new(config, recovered).map_err(|error| format!("the metadata: {error}"))
}

impl ControllerService {
    /// Starts the tasks that carry everything out.
    pub(super) fn start(self: &Rc<Self>) {
        spawn(Queue::Control, self.clone().keep_time());
        spawn(Queue::Control, self.clone().publish_images());
        let service = self.clone();
        spawn(Queue::Control, async move {
            service.drive().await;
            service.has_ended.set(true);
            service.ended.raise();
        });
    }

    async fn keep_time(self: Rc<Self>) {
        while !self.is_stopped.get() {
            clock::sleep(TICK).await;
            self.node.borrow_mut().tick();
            if self.log.is_full() {
                self.fail_proposals(ControlFailure::TimedOut);
            }
            self.woken.raise();
        }
    }

    async fn drive(&self) {
        while !self.is_stopped.get() {
            let woken = self.woken.raised();
            if let Err(why) = self.settle().await {
                if self.is_stopped.get() {
                    return;
                }
                tracing::error!(why, "this node leaves the metadata quorum");
                self.fail_proposals(ControlFailure::Storage);
                self.tell_to_stop();
                if let Some(router) = self.router.upgrade() {
                    router.replicas().fail_metadata(&why);
                }
                return;
            }
            woken.await;
        }
    }

    /// Does what the quorum wants until it wants nothing more.
    pub(super) async fn settle(&self) -> Result<(), String> {
        loop {
            self.apply_committed()?;
            if self.is_stopped.get() {
                return Ok(());
            }
            let work = self.node.borrow_mut().take_work();
            let Some(mut work) = work else {
                break;
            };
            self.send(std::mem::take(&mut work.send_now));
            if work.needs_disk() {
                self.log.make_durable(&work).await?;
            }
            let messages = self.node.borrow_mut().work_is_durable();
            if let Some(installed) = work.install {
                self.install(&installed)?;
            }
            self.send(messages);
        }
        if let Some(why) = self.node.borrow().failure() {
            return Err(format!("the metadata quorum: {why}"));
        }
        self.provide_snapshot();
        self.note_leadership();
        if self.log.bytes_since_snapshot() > SNAPSHOT_DUE_BYTES {
            self.write_snapshot().await;
        }
        Ok(())
    }

    fn send(&self, messages: Vec<Outgoing>) {
        let transport = self.transport.borrow().clone();
        if let Some(transport) = transport {
            for message in messages {
                transport(message.to, message.bytes);
            }
        }
    }

    fn apply_committed(&self) -> Result<(), String> {
        let committed = self.node.borrow_mut().take_committed();
        let Some(last) = committed.last() else {
            return Ok(());
        };
        let index = last.index;
        let mut image = (*self.image()).clone();
        let before = image.version();
        for entry in &committed {
            apply(entry, &mut image)?;
        }
        if image.version() != before {
            *self.image.borrow_mut() = Arc::new(image);
        }
        self.image_index.set(index);
        for entry in &committed {
            let waiting = self.proposals.borrow_mut().remove(&entry.index);
            if let Some((term, done)) = waiting {
                done.keep(match term == entry.term {
                    true => Ok(()),
                    false => Err(ControlFailure::TimedOut),
                });
            }
        }
        self.applied.raise();
        Ok(())
    }

    fn install(&self, installed: &InstalledSnapshot) -> Result<(), String> {
        let records = metadata_entry::decode(&installed.data);
        let records = records.map_err(|error| format!("the leader's snapshot: {error}"))?;
        let mut image = self.empty.clone();
        records.iter().for_each(|record| image.apply(record));
        // A newer image has a larger version, and a snapshot has fewer records: one that says what
        // is so already makes up for them.
        while image.version() <= self.image().version() {
            let next = image.next_producer_id();
            image.apply(&MetadataRecord::ProducerIdsAllocated { next });
        }
        *self.image.borrow_mut() = Arc::new(image);
        self.image_index.set(installed.point.index);
        self.applied.raise();
        Ok(())
    }

    fn provide_snapshot(&self) {
        let mut node = self.node.borrow_mut();
        if node.take_snapshot_wanted() {
            let records = snapshot(&self.image());
            node.provide_snapshot(&metadata_entry::encode(&records));
        }
    }

    /// Tells those who wait for a leader, and those whose leader was this node.
    fn note_leadership(&self) {
        let (term, is_leader) = {
            let node = self.node.borrow();
            (node.term(), node.is_leader())
        };
        let waiting = self.proposals.borrow().values().next().map(|(of, _)| *of);
        if waiting.is_some_and(|of| of != term || !is_leader) {
            self.fail_proposals(ControlFailure::TimedOut);
        }
        let now = (self.leader(), self.is_active());
        if self.told.replace(now) != now {
            tracing::info!(leader = now.0, active = now.1, term, "metadata quorum");
            self.changed.raise();
        }
    }

    /// Answers those who wait for their proposals.
    pub(super) fn fail_proposals(&self, failure: ControlFailure) {
        let waiting = std::mem::take(&mut *self.proposals.borrow_mut());
        for (_, done) in waiting.into_values() {
            done.keep(Err(failure));
        }
    }

    /// Writes the image as a snapshot. When that fails the log is just longer.
    async fn write_snapshot(&self) {
        let (point, image) = (self.node.borrow().snapshot_point(), self.image());
        let index = point.index;
        match self.log.write_snapshot(point, snapshot(&image)).await {
            Ok(()) => self.node.borrow_mut().compact(index),
            Err(error) => tracing::warn!(%error, "writing a metadata snapshot failed"),
        }
    }

    async fn publish_images(self: Rc<Self>) {
        let mut last: Option<Arc<MetadataImage>> = None;
        while !self.is_stopped.get() {
            let applied = self.applied.raised();
            let (index, image) = (self.image_index.get(), self.image());
            if !self.is_publishing.get() || self.published_index.get() == Some(index) {
                applied.await;
                continue;
            }
            let Some(router) = self.router.upgrade() else {
                return;
            };
            let is_known = last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &image));
            if !is_known {
                router.publish(image.clone()).await;
                last = Some(image);
            }
            self.published_index.set(Some(index));
            self.published.raise();
        }
    }
}

fn apply(entry: &Committed, image: &mut MetadataImage) -> Result<(), String> {
    if entry.data.is_empty() {
        return Ok(());
    }
    let records = metadata_entry::decode(&entry.data);
    let records = records.map_err(|error| format!("metadata entry {}: {error}", entry.index))?;
    records.iter().for_each(|record| image.apply(record));
    Ok(())
}
