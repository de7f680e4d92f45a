//! A service for the tests of this folder, and clients that speak to it.
//!
//! A request is a kind, three bytes of padding, a number, and a payload; the answer repeats it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use core::net::SocketAddr;

use super::acceptor::{ListenerTraits, NetCore};
use super::close_reason::CloseReason;
use super::connection_limits::ConnectionLimits;
use super::frame::Frame;
use super::net_limits::NetLimits;
use super::peer::Peer;
use super::service::{Reply, Service, Stage};
use crate::runtime::buffer::Slice;
use crate::runtime::executor::{Queue, current_core, spawn, yield_now};
use crate::runtime::gather::Gather;
use crate::runtime::mesh::mesh;
use crate::runtime::signal::{Promise, Signal, promise};
use crate::runtime::socket::{Listener, Socket};

/// Answered at once.
pub(super) const ECHO: u8 = b'e';
/// Overlaps; answered when its gate opens.
pub(super) const PRODUCE: u8 = b'p';
/// Does not overlap; answered when its gate opens.
pub(super) const FETCH: u8 = b'f';
/// Not answered.
pub(super) const SILENT: u8 = b'n';
/// Closes the connection.
pub(super) const CLOSE: u8 = b'c';
/// Answered with as many bytes as the payload's first four say.
pub(super) const BIG: u8 = b'b';
/// Answered with the core's number in the payload.
pub(super) const WHERE: u8 = b'w';

#[derive(Default)]
pub(super) struct Toy {
    gates: RefCell<BTreeMap<u32, Promise<()>>>,
    pub(super) started: RefCell<Vec<u32>>,
    pub(super) start: Signal,
}

pub(super) fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(
        frame[4..8]
            .try_into()
            .expect("the smallest frame has a number"),
    )
}

fn answer(frame: &[u8]) -> Gather {
    let mut head = u32::try_from(frame.len())
        .expect("bounded")
        .to_be_bytes()
        .to_vec();
    head.extend_from_slice(&frame[..8]);
    let mut gather = Gather::owned(head);
    gather.push_slice(Slice::copied(&frame[8..]));
    gather
}

impl Toy {
    /// Opens the gate of a started request.
    pub(super) fn open(&self, number: u32) {
        self.gates
            .borrow_mut()
            .remove(&number)
            .expect("started and waiting")
            .keep(());
    }

    /// Waits until `count` requests were started.
    pub(super) async fn until_started(&self, count: usize) {
        loop {
            let start = self.start.raised();
            if self.started.borrow().len() >= count {
                return;
            }
            start.await;
        }
    }
}

impl Service for Toy {
    fn overlaps(&self, frame: &[u8]) -> bool {
        frame[0] == PRODUCE
    }

    async fn call(self: &Rc<Self>, frame: Frame, _peer: &Peer) -> Stage {
        self.started.borrow_mut().push(number(&frame));
        let stage = match frame[0] {
            ECHO => Stage::Done(Reply::Send(answer(&frame))),
            PRODUCE | FETCH => {
                let (gate, opened) = promise();
                self.gates.borrow_mut().insert(number(&frame), gate);
                Stage::Later(Box::pin(async move {
                    opened.await;
                    Reply::Send(answer(&frame))
                }))
            }
            SILENT => Stage::Done(Reply::Nothing),
            BIG => {
                let size = number(&frame[4..]) as usize;
                let mut big = frame[..8].to_vec();
                big.resize(8 + size, 0x5A);
                Stage::Done(Reply::Send(answer(&big)))
            }
            WHERE => {
                let mut place = frame[..8].to_vec();
                place.extend_from_slice(&current_core().0.to_be_bytes());
                Stage::Done(Reply::Send(answer(&place)))
            }
            _ => Stage::Done(Reply::Close(CloseReason::RefusedByService)),
        };
        self.start.raise();
        stage
    }
}

pub(super) const TRAITS: ListenerTraits = ListenerTraits {
    listener: 0,
    authenticates: false,
};

pub(super) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A network side of one core with a listener of its own.
pub(super) fn serve(limits: NetLimits) -> (Rc<NetCore<Toy>>, Rc<Toy>, SocketAddr) {
    let counts: Arc<ConnectionLimits> =
        ConnectionLimits::new(1, limits.max_connections, limits.max_connections_per_ip);
    let port = mesh(1, 8).pop().expect("one core");
    let toy = Rc::new(Toy::default());
    let net = NetCore::start(limits, counts, port, toy.clone());
    let listener = Listener::bind(any_port(), true).expect("bind");
    let address = listener.local_addr().expect("bound");
    net.listen(listener, TRAITS);
    (net, toy, address)
}

/// A request with its length.
pub(super) fn request(kind: u8, number: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(8 + payload.len())
        .expect("bounded")
        .to_be_bytes()
        .to_vec();
    bytes.extend_from_slice(&[kind, 0, 0, 0]);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A client on this core.
pub(super) struct Client {
    socket: Rc<Socket>,
    received: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Client {
        let socket = Rc::new(Socket::connect(address).await.expect("connect"));
        Client {
            socket,
            received: Vec::new(),
        }
    }

    pub(super) async fn send(&self, bytes: Vec<u8>) {
        self.socket
            .write_gather(Gather::owned(bytes))
            .await
            .expect("send");
    }

    /// Sends while the caller does something else.
    pub(super) fn send_beside(&self, bytes: Vec<u8>) {
        self.send_pieces_beside(vec![bytes]);
    }

    /// Sends piece by piece, while the caller does something else.
    pub(super) fn send_pieces_beside(&self, pieces: Vec<Vec<u8>>) {
        let socket = self.socket.clone();
        spawn(Queue::Network, async move {
            for piece in pieces {
                socket
                    .write_gather(Gather::owned(piece))
                    .await
                    .expect("send");
                yield_now().await;
            }
        });
    }

    /// Whether the other end still takes bytes.
    pub(super) async fn try_send(&self, bytes: Vec<u8>) -> bool {
        self.socket.write_gather(Gather::owned(bytes)).await.is_ok()
    }

    async fn fill(&mut self) -> bool {
        let mut buffer = std::mem::take(&mut self.received);
        buffer.reserve(64 << 10);
        let (result, back) = self.socket.read(buffer).await;
        self.received = back;
        result.is_ok_and(|count| count > 0)
    }

    /// The next answer without its length, or `None` at the end.
    pub(super) async fn answer(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(prefix) = self.received.first_chunk::<4>() {
                let length = u32::from_be_bytes(*prefix) as usize;
                if self.received.len() >= 4 + length {
                    let rest = self.received.split_off(4 + length);
                    let frame = std::mem::replace(&mut self.received, rest);
                    return Some(frame[4..].to_vec());
                }
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    pub(super) async fn call(&mut self, kind: u8, number: u32, payload: &[u8]) -> Vec<u8> {
        self.send(request(kind, number, payload)).await;
        self.answer().await.expect("an answer")
    }

    /// Waits for an end that is not a reset.
    pub(super) async fn expect_clean_end(&mut self) {
        let (result, _) = self.socket.read(Vec::with_capacity(8)).await;
        assert_eq!(result.expect("no reset"), 0);
    }

    /// Waits for the end, which must come without another answer.
    pub(super) async fn expect_end(&mut self) {
        while self.fill().await {}
        assert!(
            self.received.is_empty(),
            "{} bytes before the end",
            self.received.len()
        );
    }
}

/// Lets everything happen that can happen by itself: some round trips beside it.
pub(super) async fn settle(address: SocketAddr) {
    let mut client = Client::connect(address).await;
    for _ in 0..20 {
        client.call(WHERE, u32::MAX, &[]).await;
    }
}
