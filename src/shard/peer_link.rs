//! One connection to another broker: asks one thing after the other.
//!
//! A link that failed in any way is closed, and whoever uses it next opens it anew: after an error
//! nobody knows what is still on its way.

use std::future::Future;
use std::time::Duration;

use super::peer_protocol::{
    ANSWER_HEAD_BYTES, Hello, PeerAnswer, PeerKind, PeerRequest, put, request, take,
};
use crate::runtime::clock;
use crate::runtime::gather::Gather;
use crate::runtime::socket::{Socket, resolve};

/// How long connecting and being welcomed may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// Room for the first read of an answer, and the largest step in which more is made.
const FIRST_READ_BYTES: usize = 4096;
const MOST_STEP_BYTES: usize = 1 << 20;

/// Why a peer did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerFailure {
    /// Nobody listens there: its process is gone.
    #[error("nobody listens")]
    Refused,
    /// Where it listens is not known.
    #[error("its address is not known")]
    Unknown,
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke, or what came makes no sense.
    #[error("{0}")]
    Broken(String),
    /// It does not speak to this node.
    #[error("refused: {0}")]
    NotWelcome(String),
}

/// Where a node listens for others.
pub type PeerAddress = (String, u16);

/// See the head of this file.
pub struct PeerLink {
    socket: Option<Socket>,
    /// What was received and not consumed.
    buffer: Vec<u8>,
    correlation: u32,
    most_bytes: usize,
}

impl PeerLink {
    /// A link that is not connected; answers are at most `most_bytes` long.
    #[must_use]
    pub fn new(most_bytes: usize) -> PeerLink {
        PeerLink {
            socket: None,
            buffer: Vec::new(),
            correlation: 0,
            most_bytes,
        }
    }

    /// Whether it was connected when it was used last.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.socket = None;
        self.buffer = Vec::new();
    }

    /// Connects and introduces this node, unless that was done.
    ///
    /// # Errors
    /// Why not.
    pub async fn open(
        &mut self,
        address: Option<&PeerAddress>,
        hello: impl FnOnce() -> Hello,
    ) -> Result<(), PeerFailure> {
        if self.is_open() {
            return Ok(());
        }
        let (host, port) = address.ok_or(PeerFailure::Unknown)?;
        let resolved = resolve(host, *port).await;
        let resolved = resolved.map_err(|error| PeerFailure::Broken(format!("{host}: {error}")))?;
        let address = resolved.ok_or(PeerFailure::Unknown)?;
        let connect = async {
            Socket::connect(address)
                .await
                .map_err(|error| match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => PeerFailure::Refused,
                    _ => PeerFailure::Broken(error.to_string()),
                })
        };
        self.socket = Some(in_time(CONNECT_PATIENCE, connect).await?);
        self.buffer = Vec::new();
        match self
            .call(&PeerRequest::Hello(hello()), CONNECT_PATIENCE)
            .await?
        {
            PeerAnswer::Hello(Ok(())) => Ok(()),
            PeerAnswer::Hello(Err(why)) => {
                self.close();
                Err(PeerFailure::NotWelcome(why))
            }
            _ => Err(self.broken("another answer than that to a hello")),
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// Why there is none; nobody knows then whether it was done.
    pub async fn call(
        &mut self,
        asked: &PeerRequest,
        patience: Duration,
    ) -> Result<PeerAnswer, PeerFailure> {
        let body = self
            .exchange(PeerKind::Call, |into| put(into, asked), patience)
            .await?;
        take(&body).ok_or_else(|| self.broken("an answer that makes no sense"))
    }

    /// Sends a request of a kind and waits for the body of its answer.
    ///
    /// # Errors
    /// As [`PeerLink::call`].
    pub async fn exchange(
        &mut self,
        kind: PeerKind,
        encode: impl FnOnce(&mut Vec<u8>),
        patience: Duration,
    ) -> Result<Vec<u8>, PeerFailure> {
        self.correlation = self.correlation.wrapping_add(1);
        let bytes = request(kind, self.correlation, encode);
        let exchanged = in_time(patience, async {
            self.write(bytes).await?;
            self.read_answer().await
        });
        let exchanged = exchanged.await;
        if exchanged.is_err() {
            self.close();
        }
        exchanged
    }

    /// Sends a request that is not answered.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn tell(
        &mut self,
        kind: PeerKind,
        encode: impl FnOnce(&mut Vec<u8>),
        patience: Duration,
    ) -> Result<(), PeerFailure> {
        let bytes = request(kind, 0, encode);
        let told = in_time(patience, self.write(bytes)).await;
        if told.is_err() {
            self.close();
        }
        told
    }

    async fn write(&self, bytes: Vec<u8>) -> Result<(), PeerFailure> {
        let socket = self.socket.as_ref().ok_or(PeerFailure::Unknown)?;
        let written = socket.write_gather(Gather::owned(bytes)).await;
        written.map_err(|error| PeerFailure::Broken(error.to_string()))
    }

    /// Reads one frame: what it announces is believed as it arrives.
    async fn read_answer(&mut self) -> Result<Vec<u8>, PeerFailure> {
        let broken = |why: &str| PeerFailure::Broken(why.to_string());
        let socket = self.socket.as_ref().ok_or(PeerFailure::Unknown)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let length = loop {
            if let Some(head) = buffer.first_chunk::<4>() {
                break u32::from_be_bytes(*head) as usize;
            }
            buffer = read_more(socket, buffer, FIRST_READ_BYTES).await?;
        };
        if length > self.most_bytes || length < ANSWER_HEAD_BYTES {
            return Err(broken("an answer of a forbidden length"));
        }
        while buffer.len() < 4 + length {
            let missing = 4 + length - buffer.len();
            buffer = read_more(socket, buffer, missing.min(MOST_STEP_BYTES)).await?;
        }
        let rest = buffer.split_off(4 + length);
        self.buffer = rest;
        let correlation = buffer[4..].first_chunk::<4>().expect("checked");
        if u32::from_le_bytes(*correlation) != self.correlation {
            return Err(broken("the answer to something else"));
        }
        buffer.drain(..4 + ANSWER_HEAD_BYTES);
        Ok(buffer)
    }

    fn broken(&mut self, why: &str) -> PeerFailure {
        self.close();
        PeerFailure::Broken(why.to_string())
    }
}

async fn read_more(
    socket: &Socket,
    mut buffer: Vec<u8>,
    bytes: usize,
) -> Result<Vec<u8>, PeerFailure> {
    buffer.reserve(bytes);
    let (read, buffer) = socket.read(buffer).await;
    match read {
        Ok(0) => Err(PeerFailure::Broken("the connection was closed".to_string())),
        Ok(_) => Ok(buffer),
        Err(error) => Err(PeerFailure::Broken(error.to_string())),
    }
}

async fn in_time<T>(
    patience: Duration,
    doing: impl Future<Output = Result<T, PeerFailure>>,
) -> Result<T, PeerFailure> {
    let late = async {
        clock::sleep(patience).await;
        Err(PeerFailure::TimedOut)
    };
    futures_lite::future::or(doing, late).await
}
