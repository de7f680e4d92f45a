//! Accepting connections on one core, and the core's whole network side around it.
//!
//! Every core listens on every port (SO_REUSEPORT). The kernel spreads few connections badly, so a
//! core that has clearly more than another hands a fresh connection over, before its first read.

use core::net::SocketAddr;
use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future::or;

use super::admission::Admission;
use super::close_reason::CloseReason;
use super::connection::Connection;
use super::connection_limits::{Admitted, ConnectionLimits};
use super::connection_table::{ConnectionTable, Entry};
use super::frame_reader::{FrameReader, ReaderContext};
use super::net_limits::NetLimits;
use super::net_metrics::{NetMetrics, add};
use super::peer::Peer;
use super::service::Service;
use crate::runtime::clock::sleep;
use crate::runtime::core_id::CoreId;
use crate::runtime::executor::{Queue, spawn, yield_if_needed};
use crate::runtime::mesh::MeshPort;
use crate::runtime::signal::Signal;
use crate::runtime::socket::{Listener, Socket, Transfer};

/// Pause of accepting when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections taken over in one go.
const MAX_TAKEN_OVER: usize = 64;

/// What a listener says about its connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenerTraits {
    /// Its number in the broker's list.
    pub listener: u16,
    /// Whether peers must authenticate before they may send frames of full size.
    pub authenticates: bool,
}

/// A connection on its way to the core that will serve it.
pub struct Handover {
    transfer: Transfer,
    address: SocketAddr,
    traits: ListenerTraits,
    connection_id: u64,
    admitted: Admitted,
}

/// The network side of one core.
pub struct NetCore<S> {
    core: CoreId,
    service: Rc<S>,
    counts: Arc<ConnectionLimits>,
    port: MeshPort<Handover>,
    table: Rc<ConnectionTable>,
    context: Rc<ReaderContext>,
    next_id: Cell<u64>,
    stopping: Cell<bool>,
    stop: Signal,
}

impl<S: Service> NetCore<S> {
    /// Starts the sweep and takes connections over from now on. The port's core is this one.
    ///
    /// # Panics
    /// When the limits contradict each other.
    #[must_use]
    pub fn start(
        limits: NetLimits,
        counts: Arc<ConnectionLimits>,
        port: MeshPort<Handover>,
        service: Rc<S>,
    ) -> Rc<NetCore<S>> {
        assert_eq!(limits.check(), Ok(()));
        let limits = Rc::new(limits);
        let metrics = Rc::new(NetMetrics::default());
        let table = Rc::new(ConnectionTable::default());
        let admission = Admission::new(limits.clone(), table.clone(), metrics.clone());
        let spare = RefCell::new(Vec::new());
        let net = Rc::new(NetCore {
            core: port.core(),
            service,
            counts,
            port,
            table,
            context: Rc::new(ReaderContext {
                limits,
                admission,
                metrics,
                spare,
            }),
            next_id: Cell::new(0),
            stopping: Cell::new(false),
            stop: Signal::default(),
        });
        spawn(Queue::Control, net.clone().sweep());
        spawn(Queue::Network, net.clone().take_over());
        net
    }

    /// Accepts from `listener` until the shutdown.
    pub fn listen(self: &Rc<Self>, listener: Listener, traits: ListenerTraits) {
        spawn(Queue::Network, self.clone().accept(listener, traits));
    }

    /// This core's counters.
    #[must_use]
    pub fn metrics(&self) -> Rc<NetMetrics> {
        self.context.metrics.clone()
    }

    /// Memory that requests hold now.
    #[must_use]
    pub fn request_memory_bytes(&self) -> usize {
        self.context.admission.used_bytes()
    }

    /// Connections served here now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Stops accepting, lets requests in flight be answered for at most `grace`, closes the rest.
    pub async fn shutdown(&self, grace: Duration) {
        self.stopping.set(true);
        self.stop.raise();
        self.table.stop_all();
        let in_time = or(
            async {
                self.table.empty().await;
                true
            },
            async {
                sleep(grace).await;
                false
            },
        );
        if !in_time.await {
            self.table.kill_all(CloseReason::Shutdown);
            self.table.empty().await;
        }
    }

    async fn stopped(&self) {
        while !self.stopping.get() {
            self.stop.raised().await;
        }
    }

    async fn sweep(self: Rc<Self>) {
        let period = Duration::from_millis(self.context.limits.sweep_ms);
        // Until the last connection is gone: a shutdown needs the deadlines too.
        while !self.stopping.get() || self.table.len() > 0 {
            sleep(period).await;
            self.table.sweep(&self.context.limits);
        }
    }

    async fn accept(self: Rc<Self>, listener: Listener, traits: ListenerTraits) {
        loop {
            let next = or(async { Some(listener.accept().await) }, async {
                self.stopped().await;
                None
            });
            match next.await {
                None => return,
                Some(Ok((socket, address))) => self.accepted(socket, address, traits),
                Some(Err(_)) => {
                    // Out of descriptors or memory: others will end, accepting faster won't help.
                    add(&self.context.metrics.accept_pauses, 1);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
            yield_if_needed().await;
        }
    }

    fn accepted(self: &Rc<Self>, socket: Socket, address: SocketAddr, traits: ListenerTraits) {
        let metrics = &self.context.metrics;
        add(&metrics.accepted, 1);
        let mut admitted = match self.counts.admit(address.ip(), self.core) {
            Ok(admitted) => admitted,
            Err(reason) => {
                metrics.count_close(reason);
                return;
            }
        };
        let connection_id = u64::from(self.core.0) << 48 | self.next_id.get();
        self.next_id.set(self.next_id.get() + 1);
        let target = self.counts.emptier(self.core).unwrap_or(self.core);
        admitted.move_to(target);
        let transfer = socket.into_transfer();
        let handover = Handover {
            transfer,
            address,
            traits,
            connection_id,
            admitted,
        };
        if target == self.core {
            self.serve(handover);
            return;
        }
        match self.port.try_send(target, handover) {
            Ok(()) => add(&metrics.handed_over, 1),
            Err(mut back) => {
                back.admitted.move_to(self.core);
                self.serve(back);
            }
        }
    }

    async fn take_over(self: Rc<Self>) {
        let mut arrived = Vec::new();
        loop {
            let go_on = or(
                async {
                    self.port.receive(&mut arrived, MAX_TAKEN_OVER).await;
                    true
                },
                async {
                    self.stopped().await;
                    false
                },
            );
            if !go_on.await {
                return;
            }
            for (_, handover) in arrived.drain(..) {
                add(&self.context.metrics.taken_over, 1);
                self.serve(handover);
            }
        }
    }

    fn serve(self: &Rc<Self>, handover: Handover) {
        let Handover {
            transfer,
            address,
            traits,
            connection_id,
            admitted,
        } = handover;
        let socket = Rc::new(Socket::from_transfer(transfer));
        // Without its own address the connection is gone already.
        let (Ok(local_address), false) = (socket.local_addr(), self.stopping.get()) else {
            self.context.metrics.count_close(CloseReason::PeerReset);
            return;
        };
        let limits = &self.context.limits;
        let max_frame_bytes = if traits.authenticates {
            limits.max_frame_unauthenticated_bytes
        } else {
            limits.max_frame_bytes
        };
        let peer = Peer::new(
            address,
            local_address,
            connection_id,
            traits.listener,
            max_frame_bytes,
        );
        let entry = Entry::new(connection_id, address.ip());
        let key = self.table.insert(entry.clone());
        spawn(
            Queue::Network,
            self.clone()
                .serve_to_end(socket, peer, entry, key, admitted),
        );
    }

    async fn serve_to_end(
        self: Rc<Self>,
        socket: Rc<Socket>,
        peer: Peer,
        entry: Rc<Entry>,
        key: usize,
        admitted: Admitted,
    ) {
        let context = &self.context;
        context.metrics.open.set(context.metrics.open.get() + 1);
        let address = entry.address();
        let account = context.admission.open_account(address);
        let reader = FrameReader::new(
            context.clone(),
            socket.clone(),
            account,
            entry.clone(),
            peer.clone(),
        );
        let connection = Connection::new(
            self.service.clone(),
            context.clone(),
            socket,
            entry.clone(),
            peer,
        );
        let reason = connection.run(reader).await;
        context.metrics.count_close(reason);
        if reason.is_by_service() {
            connection.linger().await;
        }
        drop(connection);
        context.admission.close_account(address);
        context.metrics.open.set(context.metrics.open.get() - 1);
        drop(admitted);
        self.table.remove(key);
    }
}
