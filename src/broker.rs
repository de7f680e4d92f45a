//! The composition root: puts a broker together, starts its cores, and stops them in order.
//!
//! Start: check the host, lock and recover the data directories (no core runs yet), start one thread
//! per core; core 0 opens its logs, binds, loads the metadata and gives it to the others; when every
//! core listens, the broker is ready. Stop: accept nothing new, answer what is in flight, and when
//! that is true on every core, flush, write checkpoints, end.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::admin::server::{self, AdminState};
use crate::api::dispatch::Api;
use crate::api::peer_requests::INTER_BROKER_LISTENER;
use crate::cluster::controller::BrokerRegistration;
use crate::cluster::image::{CLUSTER_VERSION_MAX, MetadataImage};
use crate::cluster::quorum::member::Voter;
use crate::config::broker::BrokerConfig;
use crate::config::derived::{BUSY_SEGMENT_BYTES, DerivedLimits, POOLED_FILE_MIN_BYTES};
use crate::config::kind::Address;
use crate::log::chunk_cache::{CacheLimits, ChunkCache};
use crate::log::data_directory::{self, DataDirectories, DataDirectory};
use crate::log::journal::JournalLimits;
use crate::log::log_directory::{Housekeeping, LogDirectory};
use crate::log::partition_log::{LogImage, LogSettings};
use crate::log::recovery::{RecoveredCore, RecoveryError, recover};
use crate::log::segment_pool::PoolLimits;
use crate::net::acceptor::{Handover, ListenerTraits, NetCore};
use crate::net::connection_limits::ConnectionLimits;
use crate::net::net_limits::NetLimits;
use crate::net::net_metrics::NetMetrics;
use crate::observe::metrics::MetricPage;
use crate::partition::leader::Reign;
use crate::partition::replica::Replica;
use crate::runtime::clock;
use crate::runtime::control_group;
use crate::runtime::core_id::CoreId;
use crate::runtime::executor::{CorePlan, Queue, spawn, start_cores};
use crate::runtime::host;
use crate::runtime::host_tree::HostTree;
use crate::runtime::mesh::{Inbox, InboxSender, MeshPort, inbox, mesh};
use crate::runtime::random::random_bytes;
use crate::runtime::socket::Listener;
use crate::shard::controller_service::ControllerService;
use crate::shard::core_metrics;
use crate::shard::directory_health::DirectoryHealth;
use crate::shard::directory_watch;
use crate::shard::housekeeping::HousekeepingConfig;
use crate::shard::membership::Membership;
use crate::shard::peers::PeerIdentity;
use crate::shard::placement;
use crate::shard::replica_manager::{ReplicaManager, ReplicaSettings};
use crate::shard::router::{Router, RouterPorts};
use crate::tuning::core_selection::{self, Offer};
use crate::tuning::topology::Topology;
use crate::wire::codec::Uuid;

/// How long requests in flight may take to be answered at a stop.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How old a number on the metrics page may be.
const METRICS_PERIOD: Duration = Duration::from_secs(1);

/// Entries of one journal group, at most.
const GROUP_BYTES: usize = 1 << 20;
/// Bytes written straight to segments beside one group; what one group's verification reads.
const GROUP_DIRECT_BYTES: usize = 16 << 20;

/// Files of a journal of full size.
const JOURNAL_FILES: u64 = 8;

/// Segments of the metadata log.
const METADATA_SEGMENT_BYTES: u64 = 16 << 20;

/// Connections that one core may offer another at a time.
const HANDOVER_QUEUE: usize = 256;

/// Why a broker did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BrokerError(String);

impl BrokerError {
    fn new(error: impl ToString) -> BrokerError {
        BrokerError(error.to_string())
    }
}

/// What a core takes with it when it starts.
struct CoreParts {
    /// None for a directory that is offline.
    recovered: Vec<Option<RecoveredCore>>,
    ports: RouterPorts,
    handover: MeshPort<Handover>,
    stop: Inbox<()>,
}

/// What all cores share.
struct Shared {
    config: BrokerConfig,
    limits: DerivedLimits,
    cores: usize,
    directories: Vec<PathBuf>,
    health: Arc<DirectoryHealth>,
    cluster_id: String,
    /// Who this node is to others.
    identity: PeerIdentity,
    connection_limits: Arc<ConnectionLimits>,
    parts: Mutex<Vec<Option<CoreParts>>>,
    /// The port that was bound, when the kernel was to choose.
    port: AtomicU16,
    reports: Mutex<mpsc::Sender<Result<CoreId, String>>>,
    /// Whether the first core has tried to bind the listener for other brokers.
    has_inter_broker: AtomicBool,
    /// Whether other brokers lead what this one led, as far as they could.
    has_left: AtomicBool,
    /// Cores that have no request in flight any more.
    drained: AtomicUsize,
    admin: AdminState,
}

/// Runs a broker until it is told to stop; `ready` is called with the bound address when clients
/// can connect.
pub fn run(config: BrokerConfig, ready: impl FnOnce(SocketAddr)) -> Result<(), BrokerError> {
    let signals = host::block_termination_signals();
    let cpus = choose_cpus(&config)?;
    check_host(cpus.len())?;
    let mut held = open_directories(&config)?;
    let (shared, stops) = assemble(config, &mut held, cpus.len())?;
    if let Some(address) = &shared.config.listeners.admin {
        let bound = server::start(
            &format!("{}:{}", address.host, address.port),
            shared.admin.clone(),
        )
        .map_err(BrokerError)?;
        tracing::info!(%bound, "admin HTTP");
    }
    let (reports, reported) = mpsc::channel();
    *shared.reports.lock().expect("no core runs yet") = reports;
    signals
        .wait_for_termination(move |signal| {
            tracing::info!(signal, "stopping");
            for stop in &stops {
                // Full means that it was told before.
                let _ = stop.try_send(());
            }
        })
        .map_err(BrokerError::new)?;
    let plans = plan_cores(&shared.config, &cpus);
    let for_cores = shared.clone();
    let cores = start_cores(plans, move |core| run_core(core, for_cores.clone()))
        .map_err(|error| BrokerError(format!("cannot start the cores: {error}")))?;
    for _ in 0..shared.cores {
        match reported.recv() {
            Ok(Ok(core)) => tracing::debug!(%core, "serves"),
            Ok(Err(error)) => return Err(BrokerError(error)),
            Err(_) => return cores.join().map_err(BrokerError),
        }
    }
    shared.admin.ready.store(true, Ordering::Release);
    ready(client_address(&shared)?);
    cores.join().map_err(BrokerError)?;
    if let Some(reason) = shared.health.failure(0) {
        return Err(BrokerError(format!(
            "stopped: the first data directory, {}, holds the metadata and failed: {reason}; \
             nothing that was acknowledged is lost if its disk keeps what it has: check the disk, \
             then start again",
            shared.health.path(0)
        )));
    }
    tracing::info!("stopped");
    Ok(())
}

/// The CPUs that serve, and the sentence that says why these.
fn choose_cpus(config: &BrokerConfig) -> Result<Vec<usize>, BrokerError> {
    let tree = HostTree::new(Path::new("/"));
    let usable = host::usable_cpus();
    let quota = control_group::cpu_quota(&tree);
    let topology = Topology::read(&tree, &usable);
    let offer = Offer {
        usable: &usable,
        quota,
        topology: &topology,
    };
    let cpus = core_selection::select(&config.cores, &offer).map_err(BrokerError)?;
    let granted = offer.granted();
    if config.cores.spin_us > 0 && granted < cpus.len() {
        return Err(BrokerError(format!(
            "cores.spin_us={} with {} cores, but the control group grants {granted}: a spinning core \
             would be throttled; set cores.spin_us=0 or raise the quota",
            config.cores.spin_us,
            cpus.len()
        )));
    }
    let pinned = if config.cores.pin {
        "pinned to"
    } else {
        "floating over"
    };
    let mapping: Vec<String> = cpus
        .iter()
        .enumerate()
        .map(|(core, cpu)| format!("core {core} {pinned} CPU {cpu}"))
        .collect();
    let nodes = topology.nodes_of(&cpus.iter().copied().collect());
    tracing::info!(usable = ?usable, quota, numa_nodes = ?nodes, spin_us = config.cores.spin_us,
        "cores: {}", mapping.join(", "));
    Ok(cpus)
}

fn plan_cores(config: &BrokerConfig, cpus: &[usize]) -> Vec<CorePlan> {
    let plan = |(core, cpu): (usize, &usize)| CorePlan {
        core: CoreId(core as u16),
        cpu: config.cores.pin.then_some(*cpu),
        spin_before_park_us: if config.cores.pin {
            u64::from(config.cores.spin_us)
        } else {
            0
        },
    };
    cpus.iter().enumerate().map(plan).collect()
}

fn check_host(cores: usize) -> Result<(), BrokerError> {
    let (fatal, weak): (Vec<_>, Vec<_>) = host::check_host(cores)
        .into_iter()
        .partition(|shortcoming| shortcoming.fatal);
    for shortcoming in weak {
        tracing::warn!("{shortcoming}");
    }
    if fatal.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = fatal.iter().map(ToString::to_string).collect();
    Err(BrokerError(format!(
        "this host cannot run a broker:\n{}",
        list.join("\n")
    )))
}

/// The cluster that this node is told to belong to: by its setting, or by its voters, who must all
/// take the same one without having spoken to each other.
fn cluster_id(config: &BrokerConfig) -> Option<Uuid> {
    if let Some(id) = &config.node.cluster_id {
        return id.parse().ok();
    }
    let voters = config.voters();
    if voters.len() < 2 {
        return None;
    }
    let mut bytes = [0; 16];
    let mut checksum = 0;
    for quarter in bytes.chunks_exact_mut(4) {
        checksum = crc32c::crc32c_append(checksum, format!("{voters:?}").as_bytes());
        quarter.copy_from_slice(&checksum.to_le_bytes());
    }
    Some(Uuid(bytes))
}

/// The first directory must be usable, each of the others is offline when it is not.
fn open_directories(config: &BrokerConfig) -> Result<DataDirectories, BrokerError> {
    let paths: Vec<PathBuf> = config.storage.data_dirs.iter().map(PathBuf::from).collect();
    let mut held = data_directory::open_all(&paths, config.node.id, cluster_id(config))
        .map_err(BrokerError::new)?;
    for index in 0..held.list.len() {
        if held.list[index].offline.is_some() {
            continue;
        }
        let path = held.list[index].path.clone();
        let problem = match host::check_data_dir(&path) {
            Ok(problems) => problems.first().map(ToString::to_string),
            Err(error) => Some(error.to_string()),
        };
        match problem {
            Some(problem) if index == 0 => {
                return Err(BrokerError(format!("{}: {problem}", path.display())));
            }
            Some(problem) => held.set_offline(index, problem),
            None => {}
        }
    }
    Ok(held)
}

/// Recovers the directories and prepares everything the cores take with them.
fn assemble(
    config: BrokerConfig,
    held: &mut DataDirectories,
    cores: usize,
) -> Result<(Arc<Shared>, Vec<InboxSender<()>>), BrokerError> {
    let limits = DerivedLimits::new(&config, cores);
    let recovered = recover_all(held, cores)?;
    held.register_layout(cores).map_err(BrokerError::new)?;
    let health = Arc::new(health(held, cores));
    let mailbox = config.limits.mailbox_messages;
    let mut questions = mesh(cores, mailbox).into_iter();
    let mut answers = mesh(cores, mailbox).into_iter();
    let mut handovers = mesh(cores, HANDOVER_QUEUE).into_iter();
    let mut stops = Vec::new();
    let mut parts = Vec::new();
    for recovered in recovered {
        let (stop_sender, stop) = inbox(1);
        stops.push(stop_sender);
        parts.push(Some(CoreParts {
            recovered,
            ports: RouterPorts {
                questions: questions.next().expect("one per core"),
                answers: answers.next().expect("one per core"),
                most_outstanding: mailbox,
            },
            handover: handovers.next().expect("one per core"),
            stop,
        }));
    }
    let identity = PeerIdentity {
        cluster_id: held.cluster_id.to_string(),
        node_id: config.node.id,
        directory_id: held.list[0].directory_id.unwrap_or(Uuid::ZERO),
        voters: config.voters(),
        frame_max_bytes: config.cluster.peer_frame_max_bytes,
    };
    let connection_limits = ConnectionLimits::new(
        cores,
        config.limits.connections_max,
        config.limits.connections_per_ip_max,
    );
    let shared = Arc::new(Shared {
        limits,
        cores,
        directories: held
            .list
            .iter()
            .map(|directory| directory.path.clone())
            .collect(),
        health,
        cluster_id: held.cluster_id.to_string(),
        identity,
        connection_limits,
        parts: Mutex::new(parts),
        port: AtomicU16::new(config.listeners.client.port),
        reports: Mutex::new(mpsc::channel().0),
        has_inter_broker: AtomicBool::new(false),
        has_left: AtomicBool::new(false),
        drained: AtomicUsize::new(0),
        admin: AdminState {
            pages: (0..cores).map(|_| MetricPage::default()).collect(),
            ready: Arc::default(),
        },
        config,
    });
    Ok((shared, stops))
}

/// What every core gets of every directory.
fn recover_all(
    held: &mut DataDirectories,
    cores: usize,
) -> Result<Vec<Vec<Option<RecoveredCore>>>, BrokerError> {
    let mut recovered: Vec<Vec<Option<RecoveredCore>>> = (0..cores).map(|_| Vec::new()).collect();
    for index in 0..held.list.len() {
        let path = held.list[index].path.clone();
        let parts = if held.list[index].offline.is_some() {
            Vec::new()
        } else {
            match recover_directory(&path, cores) {
                Ok(parts) => parts,
                Err(error) if index == 0 => return Err(BrokerError::new(error)),
                Err(error) => {
                    held.set_offline(index, error.to_string());
                    Vec::new()
                }
            }
        };
        let has_metadata = |part: &RecoveredCore| {
            let mut logs = part.logs.iter();
            logs.any(|log| log.id == placement::METADATA_LOG)
        };
        if index > 0 && parts.iter().any(has_metadata) {
            return Err(BrokerError(format!(
                "{} is listed first, but the metadata is in {}: list that one first",
                held.list[0].path.display(),
                path.display()
            )));
        }
        let mut parts = parts.into_iter();
        recovered
            .iter_mut()
            .for_each(|core| core.push(parts.next()));
    }
    Ok(recovered)
}

fn recover_directory(path: &Path, cores: usize) -> Result<Vec<RecoveredCore>, RecoveryError> {
    let owner = |log| placement::owner(log, cores).0;
    let (recovered, summary) = recover(path, cores as u16, owner)?;
    tracing::info!(directory = %path.display(), logs = summary.logs, groups = summary.groups,
        restored_bytes = summary.restored_bytes, "recovered");
    for log in recovered.iter().flat_map(|core| &core.logs) {
        if let Some(damage) = &log.damage {
            tracing::error!(log = log.directory, damage, "partition stays offline");
        }
    }
    Ok(recovered)
}

fn health(held: &DataDirectories, cores: usize) -> DirectoryHealth {
    let directory = |directory: &DataDirectory| {
        let path = directory.path.display().to_string();
        (path, directory.directory_id)
    };
    let directories = held.list.iter().map(directory).collect();
    let (register, missing) = (held.register.clone(), held.missing());
    let health = DirectoryHealth::new(directories, cores, register, missing);
    for (index, directory) in held.list.iter().enumerate() {
        if let Some(why) = &directory.offline {
            directory_watch::fail(&health, index, why);
        }
    }
    health
}

fn client_address(shared: &Shared) -> Result<SocketAddr, BrokerError> {
    let address = &shared.config.listeners.client;
    let port = shared.port.load(Ordering::Acquire);
    (address.host.as_str(), port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| BrokerError(format!("listeners.client: {} has no address", address.host)))
}

/// A core from its first to its last breath.
async fn run_core(core: CoreId, shared: Arc<Shared>) {
    let report = |outcome: Result<CoreId, String>| {
        // The receiver is gone only when the broker has given up already.
        let _ = shared
            .reports
            .lock()
            .expect("reports do not panic")
            .send(outcome);
    };
    let parts = shared.parts.lock().expect("taking does not panic")[core.index()].take();
    let parts = parts.expect("a core starts once");
    let stop = parts.stop;
    let start = start_core(
        core,
        &shared,
        (parts.recovered, parts.ports, parts.handover),
    );
    // A node may wait for its cluster for as long as that has no majority.
    let given_up = async {
        stop.receive().await;
        Err("stopped before it was part of its cluster".to_string())
    };
    let (router, net) = match futures_lite::future::or(start, given_up).await {
        Ok(started) => started,
        Err(error) => return report(Err(error)),
    };
    report(Ok(core));
    let page = shared.admin.pages[core.index()].clone();
    spawn(
        Queue::Background,
        publish_metrics(page, router.clone(), net.metrics()),
    );
    let told = async {
        stop.receive().await;
    };
    futures_lite::future::or(told, router.replicas().metadata_failed()).await;
    // Others take what this broker leads while it still serves.
    if core == placement::CONTROLLER_CORE {
        router.leave_cluster().await;
        shared.has_left.store(true, Ordering::Release);
    }
    while !shared.has_left.load(Ordering::Acquire) {
        clock::sleep(Duration::from_millis(1)).await;
    }
    router.stop_following();
    router.coordinators().stop();
    net.shutdown(STOP_GRACE).await;
    shared.drained.fetch_add(1, Ordering::AcqRel);
    // Other cores may still wait for answers from the partitions of this one.
    while shared.drained.load(Ordering::Acquire) < shared.cores {
        clock::sleep(Duration::from_millis(1)).await;
    }
    router.stop_controller().await;
    router.replicas().shut_down().await;
}

async fn publish_metrics(page: MetricPage, router: Rc<Router>, net: Rc<NetMetrics>) {
    loop {
        page.publish(core_metrics::samples(&router, &net));
        clock::sleep(METRICS_PERIOD).await;
    }
}

type StartedCore = (Rc<Router>, Rc<NetCore<Api>>);

/// What a core starts with, but for the word to stop.
type StartParts = (Vec<Option<RecoveredCore>>, RouterPorts, MeshPort<Handover>);

async fn start_core(
    core: CoreId,
    shared: &Arc<Shared>,
    (recovered, ports, handover): StartParts,
) -> Result<StartedCore, String> {
    let config = Rc::new(shared.config.clone());
    let replicas = open_replicas(core, shared, recovered).await?;
    let empty = MetadataImage::empty(&shared.cluster_id, config.node.id);
    let router = Router::start(
        ports,
        shared.cores,
        replicas,
        config,
        empty.clone(),
        shared.identity.clone(),
    );
    let api = Api::new(router.clone(), shared.cores);
    let net = NetCore::start(
        net_limits(shared),
        shared.connection_limits.clone(),
        handover,
        api,
    );
    // Others are heard before this node is ready: it becomes that with their help.
    if let Some(address) = &shared.config.listeners.inter_broker {
        let is_first = core == placement::CONTROLLER_CORE;
        let listener = bind_inter_broker(shared, address, is_first).await?;
        net.listen(
            listener,
            ListenerTraits {
                listener: INTER_BROKER_LISTENER,
                authenticates: false,
            },
        );
    }
    let listener = if core == placement::CONTROLLER_CORE {
        let listener = bind(shared, true)?;
        lead_cluster(shared, &router, empty).await?;
        listener
    } else {
        router.ready().await;
        bind(shared, false)?
    };
    net.listen(
        listener,
        ListenerTraits {
            listener: 0,
            authenticates: false,
        },
    );
    Ok((router, net))
}

/// The core's part of every data directory.
async fn open_replicas(
    core: CoreId,
    shared: &Shared,
    recovered: Vec<Option<RecoveredCore>>,
) -> Result<Rc<ReplicaManager>, String> {
    let config = &shared.config;
    let cache = Rc::new(ChunkCache::new(cache_limits(shared)));
    let mut directories = Vec::new();
    for (index, recovered) in recovered.into_iter().enumerate() {
        directories.push(open_directory(core, shared, index, recovered, &cache).await?);
    }
    let settings = ReplicaSettings {
        reserve_bytes: config.storage.reserve_bytes,
        decompressed_max_bytes: config.limits.decompressed_batch_max_bytes,
        housekeeping: housekeeping_config(shared),
        scrub_bytes_per_second: config
            .storage
            .scrub_bytes_per_second
            .div_ceil(shared.cores as u64),
    };
    let health = shared.health.clone();
    Ok(ReplicaManager::new(
        core,
        directories,
        health,
        cache,
        settings,
    ))
}

async fn open_directory(
    core: CoreId,
    shared: &Shared,
    index: usize,
    recovered: Option<RecoveredCore>,
    cache: &Rc<ChunkCache>,
) -> Result<Option<Rc<LogDirectory>>, String> {
    let Some(recovered) = recovered else {
        return Ok(None);
    };
    let path = &shared.directories[index];
    let limits = journal_limits(&shared.config);
    let keeping = housekeeping(shared);
    let settings = |_: &LogImage| metadata_settings();
    let started =
        LogDirectory::start(path, core.0, recovered, cache, limits, keeping, settings).await;
    match started {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if index == 0 => Err(format!("{}: {error}", path.display())),
        Err(error) => {
            directory_watch::fail(&shared.health, index, &error.to_string());
            Ok(None)
        }
    }
}

fn bind(shared: &Shared, first: bool) -> Result<Listener, String> {
    let address = client_address(shared).map_err(|error| error.to_string())?;
    let listener = Listener::bind(address, first).map_err(|error| {
        format!("cannot listen on {address}: {error}; stop what uses the port or choose another with --listen")
    })?;
    let bound = listener.local_addr().map_err(|error| error.to_string())?;
    shared.port.store(bound.port(), Ordering::Release);
    Ok(listener)
}

/// Binds the listener for other brokers; its port is configured, so the first core may come last.
async fn bind_inter_broker(
    shared: &Shared,
    address: &Address,
    is_first: bool,
) -> Result<Listener, String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("listeners.inter_broker: cannot listen on {address}: {error}")
    };
    let mut addresses = (address.host.as_str(), address.port)
        .to_socket_addrs()
        .map_err(|error| failed(&error))?;
    let found = addresses.next().ok_or_else(|| failed(&"no address"))?;
    // Whoever is first finds out whether somebody else has the port.
    if !is_first {
        while !shared.has_inter_broker.load(Ordering::Acquire) {
            clock::sleep(Duration::from_millis(1)).await;
        }
    }
    let listener = Listener::bind(found, is_first).map_err(|error| failed(&error));
    shared.has_inter_broker.store(true, Ordering::Release);
    listener
}

/// The controller's core: loads the metadata, registers this start, and gives the image to all.
async fn lead_cluster(
    shared: &Shared,
    router: &Rc<Router>,
    empty: MetadataImage,
) -> Result<(), String> {
    let directory = &shared.directories[0];
    let replicas = router.replicas();
    let node_id = shared.config.node.id;
    replicas.hold(
        placement::METADATA_LOG,
        (0, true),
        placement::METADATA_DIRECTORY,
        (node_id, &Reign::alone(node_id, 0)),
        metadata_settings(),
    );
    let replica: Rc<Replica> = replicas
        .replica(placement::METADATA_LOG)
        .expect("led above");
    let controller =
        ControllerService::load(router, replica, directory, empty, voters(shared)).await?;
    router.set_controller(controller.clone());
    let peers = router.peers().clone();
    let membership = Membership::start(router, &controller, &peers, registration(shared));
    router.set_membership(membership.clone());
    membership.join().await
}

/// Those that vote when the cluster begins: the configured ones, or this node alone.
fn voters(shared: &Shared) -> Vec<Voter> {
    let identity = &shared.identity;
    let voter = |(node_id, (host, port)): (&i32, &(String, u16))| Voter {
        node_id: *node_id,
        directory_id: None,
        host: host.clone(),
        port: *port,
    };
    if identity.voters.is_empty() {
        let address = shared.config.advertised_address();
        return vec![voter((
            &identity.node_id,
            &(address.host.clone(), address.port),
        ))];
    }
    identity.voters.iter().map(voter).collect()
}

fn registration(shared: &Shared) -> BrokerRegistration {
    let config = &shared.config;
    let advertised = config.advertised_address();
    let port = match advertised.port {
        0 => shared.port.load(Ordering::Acquire),
        port => port,
    };
    let inter_broker = config.listeners.inter_broker.as_ref();
    BrokerRegistration {
        node_id: config.node.id,
        host: advertised.host.clone(),
        port,
        inter_broker: inter_broker.map(|address| (address.host.clone(), address.port)),
        rack: config.node.rack.clone(),
        incarnation: Uuid(random_bytes()),
        directory_id: shared.identity.directory_id,
        cores: shared.cores as u16,
        cluster_version_max: CLUSTER_VERSION_MAX,
        previous_epoch: -1,
    }
}

fn housekeeping_config(shared: &Shared) -> HousekeepingConfig {
    let (storage, limits) = (&shared.config.storage, &shared.limits);
    HousekeepingConfig {
        retention_check_ms: storage.retention_check_interval_ms,
        compacts: storage.compaction_enable,
        compaction_backoff_ms: storage.compaction_backoff_ms,
        compaction_memory_bytes: limits.compaction_memory_per_core_bytes,
        compaction_bytes_per_second: limits.compaction_bytes_per_core_per_second,
    }
}

fn metadata_settings() -> LogSettings {
    LogSettings {
        segment_bytes: METADATA_SEGMENT_BYTES,
        segment_ms: i64::MAX,
        index_interval_bytes: 4096,
        index_most_entries: 4096,
        retention_ms: None,
        retention_bytes: None,
        deletable: true,
        compaction: None,
        producers_max: 1,
        producer_expiration_ms: i64::MAX / 2,
        file_delete_delay_ms: 0,
        flush_messages: 1,
    }
}

fn housekeeping(shared: &Shared) -> Housekeeping {
    let storage = &shared.config.storage;
    let parts = shared.cores as u64 * shared.directories.len() as u64;
    Housekeeping {
        pool: PoolLimits {
            total_bytes: storage.segment_pool_bytes / parts,
            least_file_bytes: POOLED_FILE_MIN_BYTES,
            busy_segment_bytes: BUSY_SEGMENT_BYTES,
        },
        write_bytes_per_second: storage
            .background_write_bytes_per_second
            .div_ceil(shared.cores as u64),
        cool_after: Duration::from_millis(storage.cool_after_ms),
    }
}

fn cache_limits(shared: &Shared) -> CacheLimits {
    let storage = &shared.config.storage;
    let total_bytes = shared.limits.cache_per_core_bytes;
    CacheLimits {
        total_bytes,
        unstored_bytes: total_bytes / 2,
        least_chunk_bytes: storage.chunk_first_bytes.min(storage.chunk_bytes),
        most_chunk_bytes: storage.chunk_bytes,
    }
}

fn journal_limits(config: &BrokerConfig) -> JournalLimits {
    let total_bytes = config.storage.journal_bytes as u64;
    let file_bytes = (total_bytes / JOURNAL_FILES).next_multiple_of(4096);
    let sixth = (file_bytes / 6) as usize;
    let group_bytes = GROUP_BYTES.min(sixth).next_multiple_of(4096);
    JournalLimits {
        total_bytes,
        file_bytes,
        first_file_bytes: (config.storage.journal_first_file_bytes as u64)
            .max(2 * group_bytes as u64)
            .min(file_bytes),
        group_bytes,
        pending_bytes: sixth,
        append_bytes: 2 * sixth,
        groups_in_flight: config.storage.journal_groups_in_flight,
        direct_bytes: config.storage.direct_write_bytes,
        direct_busy_bytes: config
            .storage
            .direct_write_busy_bytes
            .min(config.storage.direct_write_bytes),
        direct_unwritten_bytes: config.storage.direct_write_unwritten_bytes,
        group_direct_bytes: GROUP_DIRECT_BYTES,
    }
}

fn net_limits(shared: &Shared) -> NetLimits {
    let (limits, derived) = (&shared.config.limits, &shared.limits);
    let margin = 4 << 20;
    let connection_share_bytes = derived
        .request_memory_per_connection_bytes
        .max(limits.request_max_bytes + margin);
    let request_memory_bytes = derived
        .request_memory_per_core_bytes
        .max(connection_share_bytes + derived.small_request_reserve_bytes);
    NetLimits {
        max_connections: limits.connections_max,
        max_connections_per_ip: limits.connections_per_ip_max,
        max_frame_bytes: limits.request_max_bytes,
        request_memory_bytes,
        small_reserve_bytes: derived.small_request_reserve_bytes,
        connection_share_bytes,
        address_share_bytes: derived
            .request_memory_per_address_bytes
            .max(connection_share_bytes)
            .min(request_memory_bytes),
        body_deadline_ms: limits.request_body_deadline_ms,
        body_min_rate_bytes_per_s: limits.request_body_min_bytes_per_second,
        max_in_flight: limits.pipelined_requests_max,
        max_idle_ms: limits.connection_idle_max_ms,
        ..NetLimits::default()
    }
}
