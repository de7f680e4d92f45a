//! Several controllers of one cluster on one core, each with a directory of its own, over a network
//! in memory that can be cut.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;

use super::controller_service::ControllerService;
use super::directory_health::DirectoryHealth;
use super::housekeeping::HousekeepingConfig;
use super::peers::PeerIdentity;
use super::placement;
use super::replica_manager::{ReplicaManager, ReplicaSettings};
use super::request::ControlFailure;
use super::router::{Router, RouterPorts};
use crate::cluster::controller::{Command, CommandReply, PRODUCER_ID_BLOCK};
use crate::cluster::image::MetadataImage;
use crate::cluster::quorum::member::{MembershipChange, Voter};
use crate::cluster::quorum::node_membership::ChangeRefused;
use crate::cluster::record::{ConfigTarget, MetadataRecord};
use crate::config::broker::BrokerConfig;
use crate::log::chunk_cache::{CacheLimits, ChunkCache};
use crate::log::data_directory::{self, DataDirectories};
use crate::log::journal::JournalLimits;
use crate::log::log_directory::{Housekeeping, LogDirectory};
use crate::log::partition_log::LogSettings;
use crate::log::recovery::recover;
use crate::log::segment_pool::PoolLimits;
use crate::partition::leader::Reign;
use crate::runtime::core_id::CoreId;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::executor_test::on_core;
use crate::runtime::mesh::mesh;
use crate::wire::codec::Uuid;

const FOUNDERS: i32 = 3;

const JOURNAL: JournalLimits = JournalLimits {
    total_bytes: 4 << 20,
    file_bytes: 1 << 20,
    first_file_bytes: 256 << 10,
    group_bytes: 64 << 10,
    pending_bytes: 64 << 10,
    append_bytes: 128 << 10,
    groups_in_flight: 2,
    direct_bytes: 64 << 10,
    direct_busy_bytes: 64 << 10,
    direct_unwritten_bytes: 64 << 10,
    group_direct_bytes: 1 << 20,
};

const CACHE: CacheLimits = CacheLimits {
    total_bytes: 4 << 20,
    unstored_bytes: 2 << 20,
    least_chunk_bytes: 4 << 10,
    most_chunk_bytes: 64 << 10,
};

const SETTINGS: LogSettings = LogSettings {
    segment_bytes: 1 << 20,
    segment_ms: i64::MAX,
    index_interval_bytes: 4096,
    index_most_entries: 64,
    retention_ms: None,
    retention_bytes: None,
    deletable: true,
    compaction: None,
    producers_max: 1,
    producer_expiration_ms: i64::MAX / 2,
    file_delete_delay_ms: 0,
    flush_messages: 1,
};

fn voter(node_id: i32) -> Voter {
    Voter {
        node_id,
        directory_id: None,
        host: format!("node-{node_id}"),
        port: 9093,
    }
}

/// What of a broker stays when its controller stops.
struct Machine {
    path: PathBuf,
    router: Rc<Router>,
    empty: MetadataImage,
    _held: DataDirectories,
    _directory: tempfile::TempDir,
}

impl Machine {
    async fn new(node_id: i32) -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_path_buf();
        let held = data_directory::open_all(std::slice::from_ref(&path), node_id, None).unwrap();
        let (mut recovered, _) = recover(&path, 1, |_| 0).unwrap();
        let cache = Rc::new(ChunkCache::new(CACHE));
        let keeping = Housekeeping {
            pool: PoolLimits {
                total_bytes: 0,
                least_file_bytes: 64 << 10,
                busy_segment_bytes: 1 << 20,
            },
            write_bytes_per_second: 0,
            cool_after: Duration::from_secs(60),
        };
        let recovered = recovered.remove(0);
        let opened =
            LogDirectory::start(&path, 0, recovered, &cache, JOURNAL, keeping, |_| SETTINGS).await;
        let named = (path.display().to_string(), held.list[0].directory_id);
        let health = DirectoryHealth::new(vec![named], 1, held.register.clone(), Vec::new());
        let replicas = ReplicaManager::new(
            CoreId(0),
            vec![Some(opened.unwrap())],
            Arc::new(health),
            cache,
            ReplicaSettings {
                reserve_bytes: 0,
                decompressed_max_bytes: 1 << 20,
                housekeeping: HousekeepingConfig {
                    retention_check_ms: 300_000,
                    compacts: false,
                    compaction_backoff_ms: 300_000,
                    compaction_memory_bytes: 1 << 20,
                    compaction_bytes_per_second: 0,
                },
                scrub_bytes_per_second: 0,
            },
        );
        let empty = MetadataImage::empty("c", node_id);
        let ports = RouterPorts {
            questions: mesh(1, 64).remove(0),
            answers: mesh(1, 64).remove(0),
            most_outstanding: 64,
        };
        let config = Rc::new(BrokerConfig::defaults());
        let identity = PeerIdentity {
            cluster_id: "c".to_string(),
            node_id,
            directory_id: Uuid::ZERO,
            voters: BTreeMap::new(),
            frame_max_bytes: 1 << 20,
        };
        Machine {
            path,
            router: Router::start(ports, 1, replicas, config, empty.clone(), identity),
            empty,
            _held: held,
            _directory: directory,
        }
    }
}

/// All nodes and what is between them.
struct Cluster {
    machines: Vec<Machine>,
    services: RefCell<Vec<Option<Rc<ControllerService>>>>,
    cut_off: RefCell<BTreeSet<i32>>,
}

impl Cluster {
    async fn new(nodes: i32) -> Rc<Cluster> {
        let mut machines = Vec::new();
        for node_id in 0..nodes {
            machines.push(Machine::new(node_id).await);
        }
        let cluster = Rc::new(Cluster {
            machines,
            services: RefCell::new((0..nodes).map(|_| None).collect()),
            cut_off: RefCell::default(),
        });
        for at in 0..nodes as usize {
            cluster.start(at).await;
        }
        cluster
    }

    async fn start(self: &Rc<Self>, at: usize) {
        let machine = &self.machines[at];
        let replicas = machine.router.replicas();
        let name = placement::METADATA_DIRECTORY;
        let reign = (at as i32, &Reign::alone(at as i32, 0));
        replicas.hold(placement::METADATA_LOG, (0, true), name, reign, SETTINGS);
        let replica = replicas.replica(placement::METADATA_LOG).unwrap();
        let service = ControllerService::load(
            &machine.router,
            replica,
            &machine.path,
            machine.empty.clone(),
            (0..FOUNDERS).map(voter).collect(),
        );
        let service = service.await.unwrap();
        let cluster = Rc::downgrade(self);
        service.set_transport(Rc::new(move |to, bytes| {
            let Some(cluster) = cluster.upgrade() else {
                return;
            };
            spawn(Queue::Network, async move {
                cluster.deliver(at as i32, to, &bytes);
            });
        }));
        service.begin_publishing();
        self.services.borrow_mut()[at] = Some(service);
    }

    fn deliver(&self, from: i32, to: i32, bytes: &[u8]) {
        let cut_off = self.cut_off.borrow();
        if cut_off.contains(&from) != cut_off.contains(&to) {
            return;
        }
        let service = self.services.borrow()[to as usize].clone();
        if let Some(service) = service {
            service.receive(from, bytes).unwrap();
        }
    }

    fn service(&self, at: usize) -> Rc<ControllerService> {
        self.services.borrow()[at].clone().expect("it runs")
    }

    async fn stop(&self, at: usize) {
        self.service(at).stop().await;
        self.services.borrow_mut()[at] = None;
    }

    /// Waits until one of these decides.
    async fn active(&self, among: &[usize]) -> usize {
        let services: Vec<_> = among.iter().map(|at| self.service(*at)).collect();
        loop {
            let changes = services.iter().map(|one| one.leadership_changed().raised());
            let changes: Vec<_> = changes.collect();
            if let Some(found) = services.iter().position(|one| one.is_active()) {
                return among[found];
            }
            select_all(changes).await;
        }
    }

    /// Waits until a node has an index, and checks a setting that came with it.
    async fn expect(&self, at: usize, index: u64, name: &str, value: Option<&str>) {
        let service = self.service(at);
        service.applied_to(index).await;
        let image = service.image();
        let found = image.default_configs().get(name).map(String::as_str);
        assert_eq!(found, value, "{name} at node {at}");
    }
}

fn setting(name: &str, value: &str) -> Vec<MetadataRecord> {
    vec![MetadataRecord::ConfigChanged {
        target: ConfigTarget::BrokerDefault,
        name: name.to_string(),
        value: Some(value.to_string()),
    }]
}

fn others(at: usize) -> Vec<usize> {
    (0..FOUNDERS as usize).filter(|one| *one != at).collect()
}

#[test]
fn decisions_are_made_by_one_node_and_reach_all() {
    on_core(|| async {
        let cluster = Cluster::new(FOUNDERS).await;
        let leader = cluster.active(&[0, 1, 2]).await;
        let service = cluster.service(leader);
        let (reply, index) = service.submit(Command::AllocateProducerIds).await.unwrap();
        assert_eq!(reply, CommandReply::ProducerIds(Ok(0)));
        for at in 0..3 {
            cluster.service(at).applied_to(index).await;
            let next = cluster.service(at).image().next_producer_id();
            assert_eq!(next, PRODUCER_ID_BLOCK);
        }
        let other = cluster.service(others(leader)[0]);
        assert_eq!(
            other.submit(Command::AllocateProducerIds).await,
            Err(ControlFailure::NotController(Some(leader as i32)))
        );
        let description = service.describe();
        assert_eq!(description.leader, Some(leader as i32));
        assert!(description.high_watermark >= index);
        assert_eq!(description.replicas.len(), 3);
    });
}

#[test]
fn what_a_leader_could_not_commit_is_cut_from_its_log() {
    on_core(|| async {
        let cluster = Cluster::new(FOUNDERS).await;
        let leader = cluster.active(&[0, 1, 2]).await;
        let index = cluster.service(leader).propose(setting("a", "1")).await;
        cluster.expect(leader, index.unwrap(), "a", Some("1")).await;
        cluster.cut_off.borrow_mut().insert(leader as i32);
        let alone = cluster.service(leader).propose(setting("a", "2")).await;
        assert_eq!(alone, Err(ControlFailure::TimedOut));
        let next = cluster.active(&others(leader)).await;
        let index = cluster.service(next).propose(setting("b", "3")).await;
        let index = index.unwrap();
        cluster.cut_off.borrow_mut().clear();
        for at in 0..3 {
            cluster.expect(at, index, "a", Some("1")).await;
            cluster.expect(at, index, "b", Some("3")).await;
        }
        // What is on its disk now is read again.
        cluster.stop(leader).await;
        cluster.start(leader).await;
        cluster.expect(leader, index, "a", Some("1")).await;
        cluster.expect(leader, index, "b", Some("3")).await;
    });
}

#[test]
fn a_node_that_joins_has_everything_and_outlives_the_leader() {
    on_core(|| async {
        let cluster = Cluster::new(FOUNDERS + 1).await;
        let leader = cluster.active(&[0, 1, 2]).await;
        let service = cluster.service(leader);
        service.propose(setting("a", "1")).await.unwrap();
        let add = MembershipChange::AddLearner(voter(3));
        let index = service.change_members(&add).unwrap();
        cluster.expect(3, index, "a", Some("1")).await;
        assert_eq!(cluster.service(3).members().learners.len(), 1);
        let promote = MembershipChange::Promote(3);
        let promoted = loop {
            match service.change_members(&promote) {
                Ok(index) => break index,
                Err(ChangeRefused::ChangeOpen | ChangeRefused::NotCaughtUp) => {
                    // Its answer is on its way; another entry brings another one.
                    service.propose(setting("b", "2")).await.unwrap();
                }
                Err(refused) => panic!("{refused:?}"),
            }
        };
        cluster.expect(3, promoted, "a", Some("1")).await;
        assert_eq!(cluster.service(3).members().voters.len(), 4);
        // The log of the one that joined goes on behind its snapshot.
        cluster.stop(3).await;
        cluster.start(3).await;
        cluster.expect(3, promoted, "a", Some("1")).await;
        cluster.stop(leader).await;
        let mut left = others(leader);
        left.push(3);
        let next = cluster.active(&left).await;
        let index = cluster.service(next).propose(setting("c", "3")).await;
        cluster.expect(3, index.unwrap(), "c", Some("3")).await;
    });
}
