//! TCP, completion style: buffers go in and come back by value.
//!
//! The bytes move by non-blocking calls; only when the kernel has none (or no room) does this core
//! wait for readiness, through our own ring. glommio's streams are not used: they need `&mut` for
//! both directions, an initialised buffer, four `fcntl` per accept, and more CPU for many small
//! requests (see the measurements in the design). The file is small on purpose, so that a
//! runtime whose ring also carries the bytes can replace it.
//!
//! A [`Socket`] owns no buffer: an idle connection costs a descriptor and one slot of the ring.
#![allow(unsafe_code)] // Plain system calls on memory that outlives them.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

use super::executor;
use super::gather::Gather;

/// Connections the kernel keeps for us until they are accepted (it caps this at somaxconn).
const BACKLOG: i32 = 4096;
/// Pieces one system call takes (IOV_MAX).
const MAX_PIECES: usize = 1024;
/// Bytes after which a long write lets other tasks run.
const YIELD_BYTES: usize = 1 << 20;

/// A listening socket of this core.
pub struct Listener {
    descriptor: Arc<OwnedFd>,
}

impl Listener {
    /// Listens on `address`. All cores bind the same port with SO_REUSEPORT; the first one passes
    /// `exclusive_first`, before the others bind, so that a port used by another process is an
    /// error instead of a shared port.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub fn bind(address: SocketAddr, exclusive_first: bool) -> io::Result<Listener> {
        let address = if exclusive_first {
            let probe = stream(address)?;
            probe.bind(&address.into())?;
            probe
                .local_addr()?
                .as_socket()
                .expect("an internet address")
        } else {
            address
        };
        let socket = stream(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Listener {
            descriptor: Arc::new(socket.into()),
        })
    }

    /// The address, with the port the system chose when 0 was asked for.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        internet(SockRef::from(&*self.descriptor).local_addr()?)
    }

    /// The next connection, with TCP_NODELAY set.
    ///
    /// # Errors
    /// As accept(2). Running out of descriptors is the caller's to pace; a connection that died
    /// in the queue is not reported.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        loop {
            // SAFETY: no address is asked for, so no memory is passed.
            let accepted = unsafe {
                let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
                let none = std::ptr::null_mut();
                libc::accept4(self.descriptor.as_raw_fd(), none, none.cast(), flags)
            };
            if accepted >= 0 {
                // SAFETY: the descriptor is fresh and owned by nobody else.
                let socket = Socket::new(unsafe { OwnedFd::from_raw_fd(accepted) });
                // It may be gone already; then so is the connection.
                let Ok(peer) = socket.peer_addr() else {
                    continue;
                };
                socket.socket().set_tcp_nodelay(true)?;
                return Ok((socket, peer));
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN) => {
                    let ring = executor::core().ring().clone();
                    ring.readiness(self.descriptor.clone(), libc::POLLIN)
                        .await?;
                }
                Some(
                    libc::EINTR
                    | libc::ECONNABORTED
                    | libc::EPROTO
                    | libc::ENETDOWN
                    | libc::EHOSTDOWN
                    | libc::EHOSTUNREACH
                    | libc::ENETUNREACH,
                ) => executor::yield_if_needed().await,
                _ => return Err(error),
            }
        }
    }
}

fn stream(address: SocketAddr) -> io::Result<socket2::Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Without it a restart would wait for old connections to time out.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn internet(address: SockAddr) -> io::Result<SocketAddr> {
    address
        .as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// The first address of a host; a name is looked up off the core.
///
/// # Errors
/// As getaddrinfo(3).
pub async fn resolve(host: &str, port: u16) -> io::Result<Option<SocketAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(Some(SocketAddr::new(address, port)));
    }
    let named = (host.to_string(), port);
    let pools = super::disk::pools();
    pools
        .bulk
        .run(move || Ok(std::net::ToSocketAddrs::to_socket_addrs(&named)?.next()))
        .await
}

/// A connection. Reading and writing at the same time is fine; one reader and one writer.
pub struct Socket {
    descriptor: Arc<OwnedFd>,
    /// The last read took everything there was, so the next one waits first.
    drained: Cell<bool>,
    writing: Cell<bool>,
}

/// A connection on its way to another core.
pub struct Transfer {
    descriptor: Arc<OwnedFd>,
}

impl Socket {
    fn new(descriptor: OwnedFd) -> Socket {
        Socket::from_transfer(Transfer {
            descriptor: Arc::new(descriptor),
        })
    }

    /// Connects, with TCP_NODELAY set.
    ///
    /// # Errors
    /// As connect(2). Give it a deadline by dropping it.
    pub async fn connect(address: SocketAddr) -> io::Result<Socket> {
        let socket = stream(address)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let socket = Socket::new(socket.into());
        let ring = executor::core().ring().clone();
        ring.readiness(socket.descriptor.clone(), libc::POLLOUT)
            .await?;
        match socket.socket().take_error()? {
            None => Ok(socket),
            Some(error) => Err(error),
        }
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&*self.descriptor)
    }

    /// The other end.
    ///
    /// # Errors
    /// As getpeername(2).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        internet(self.socket().peer_addr()?)
    }

    /// This end.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        internet(self.socket().local_addr()?)
    }

    /// Waits until a read would not wait, without holding a buffer.
    ///
    /// # Errors
    /// When the ring has no room.
    pub async fn readable(&self) -> io::Result<()> {
        let ring = executor::core().ring().clone();
        ring.readiness(self.descriptor.clone(), libc::POLLIN)
            .await?;
        self.drained.set(false);
        Ok(())
    }

    /// Appends what arrives to the spare capacity of `buffer`; 0 means that the peer is done.
    ///
    /// # Errors
    /// As recv(2).
    ///
    /// # Panics
    /// When `buffer` has no spare capacity.
    pub async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        assert!(buffer.capacity() > buffer.len(), "a read without room");
        loop {
            if self.drained.get()
                && let Err(error) = self.readable().await
            {
                return (Err(error), buffer);
            }
            match self.receive(&mut buffer) {
                Ok(count) => return (Ok(count), buffer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.drained.set(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
            }
        }
    }

    fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let spare = buffer.spare_capacity_mut();
        let room = spare.len();
        // SAFETY: pointer and length describe the spare capacity, which outlives the call.
        let count = unsafe {
            let start = spare.as_mut_ptr().cast();
            libc::recv(self.descriptor.as_raw_fd(), start, room, libc::MSG_DONTWAIT)
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel initialised `count` bytes of the spare capacity.
        unsafe { buffer.set_len(buffer.len() + count) };
        self.drained.set(count > 0 && count < room);
        Ok(count)
    }

    /// Sends everything, without copying it, and gives the memory back when the kernel has it.
    ///
    /// # Errors
    /// As sendmsg(2).
    pub async fn write_gather(&self, gather: Gather) -> io::Result<()> {
        assert!(!self.writing.replace(true), "one writer at a time");
        let _writing = Writing(&self.writing);
        let mut progress = Progress {
            piece: 0,
            offset: 0,
        };
        let mut since_yield = 0;
        while progress.piece < gather.pieces().len() {
            match self.send(&gather, &progress) {
                Ok(count) => {
                    progress.advance(&gather, count);
                    since_yield += count;
                    if since_yield >= YIELD_BYTES {
                        since_yield = 0;
                        executor::yield_if_needed().await;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let ring = executor::core().ring().clone();
                    ring.readiness(self.descriptor.clone(), libc::POLLOUT)
                        .await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn send(&self, gather: &Gather, progress: &Progress) -> io::Result<usize> {
        let mut vectors = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; MAX_PIECES];
        let mut count = 0;
        let mut skip = progress.offset;
        for piece in gather.pieces()[progress.piece..].iter().take(MAX_PIECES) {
            let bytes = &piece.bytes()[skip..];
            skip = 0;
            // The kernel only reads through this pointer.
            vectors[count].iov_base = bytes.as_ptr().cast_mut().cast();
            vectors[count].iov_len = bytes.len();
            count += 1;
        }
        // SAFETY: all zeroes is a valid `msghdr`; the vectors describe live bytes of `gather` for
        // the length of the call.
        let sent = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = vectors.as_mut_ptr();
            message.msg_iovlen = count;
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            libc::sendmsg(self.descriptor.as_raw_fd(), &raw const message, flags)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Ends both directions; a pending read or write on this socket returns.
    pub fn shutdown(&self) {
        // Not connected any more is what is wanted.
        drop(self.socket().shutdown(std::net::Shutdown::Both));
    }

    /// Ends the sending direction: the peer reads everything sent before, then the end.
    pub fn finish(&self) {
        // As in `shutdown`.
        drop(self.socket().shutdown(std::net::Shutdown::Write));
    }

    /// Takes the connection off this core.
    #[must_use]
    pub fn into_transfer(self) -> Transfer {
        Transfer {
            descriptor: self.descriptor,
        }
    }

    /// Puts a connection on this core.
    #[must_use]
    pub fn from_transfer(transfer: Transfer) -> Socket {
        Socket {
            descriptor: transfer.descriptor,
            drained: Cell::new(false),
            writing: Cell::new(false),
        }
    }
}

struct Writing<'a>(&'a Cell<bool>);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// How far a gather write has come.
struct Progress {
    piece: usize,
    offset: usize,
}

impl Progress {
    fn advance(&mut self, gather: &Gather, mut count: usize) {
        while count > 0 {
            let left = gather.pieces()[self.piece].bytes().len() - self.offset;
            if count < left {
                self.offset += count;
                return;
            }
            count -= left;
            self.piece += 1;
            self.offset = 0;
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::rc::Rc;
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::runtime::buffer::AppendBuf;
    use crate::runtime::core_id::CoreId;
    use crate::runtime::executor::{Queue, spawn};
    use crate::runtime::executor_test::{on_core, on_cores};
    use crate::runtime::mesh::mesh;
    use crate::runtime::ring;

    fn local() -> SocketAddr {
        "127.0.0.1:0".parse().expect("an address")
    }

    async fn pair() -> (Socket, Socket) {
        let listener = Listener::bind(local(), true).expect("bind");
        let client = Socket::connect(listener.local_addr().expect("bound"))
            .await
            .expect("connect");
        let (server, peer) = listener.accept().await.expect("accept");
        assert_eq!(peer, client.local_addr().expect("connected"));
        (client, server)
    }

    async fn read_exactly(socket: &Socket, count: usize) -> Vec<u8> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let (result, back) = socket.read(all).await;
            all = back;
            assert!(
                result.expect("read") > 0,
                "end after {} of {count} bytes",
                all.len()
            );
        }
        all
    }

    #[test]
    fn eight_mebibytes_of_slices_arrive_while_the_other_way_flows_too() {
        on_core(|| async {
            let (client, server) = pair().await;
            let server = Rc::new(server);
            let mut chunk = AppendBuf::allocate(8 << 20);
            let bytes: Vec<u8> = (0..8_u32 << 20).map(|at| (at % 253) as u8).collect();
            chunk.append(&bytes);
            let mut gather = Gather::owned(b"head".to_vec());
            let mut at = 0;
            while at < bytes.len() {
                let next = (at + 1000).min(bytes.len());
                gather.push_slice(chunk.slice(at..next));
                at = next;
            }
            let writer = server.clone();
            spawn(Queue::Network, async move {
                writer.write_gather(gather).await.expect("write");
            });
            // The server's reading direction works while its writing direction waits for room.
            client
                .write_gather(Gather::owned(b"ping".to_vec()))
                .await
                .expect("write");
            assert_eq!(read_exactly(&server, 4).await, b"ping");
            let got = read_exactly(&client, 4 + bytes.len()).await;
            assert!(&got[..4] == b"head" && got[4..] == bytes[..]);
            assert!(ring::counters().polls > 0);
        });
    }

    #[test]
    fn end_and_shutdown_are_seen() {
        on_core(|| async {
            let (client, server) = pair().await;
            client
                .write_gather(Gather::owned(vec![1, 2, 3]))
                .await
                .expect("write");
            client.finish();
            assert_eq!(read_exactly(&server, 3).await, [1, 2, 3]);
            assert_eq!(server.read(Vec::with_capacity(8)).await.0.expect("end"), 0);
            let server = Rc::new(server);
            let other = server.clone();
            spawn(Queue::Network, async move { other.shutdown() });
            let (result, _) = client.read(Vec::with_capacity(8)).await;
            assert_eq!(result.expect("end"), 0);
        });
    }

    #[test]
    fn a_dropped_wait_is_cancelled_and_the_descriptor_closed() {
        on_core(|| async {
            let (client, server) = pair().await;
            {
                let mut read = std::pin::pin!(server.read(Vec::with_capacity(8)));
                let ready = futures_lite::future::poll_once(&mut read).await;
                assert!(ready.is_none());
                // The wait reaches the kernel.
                crate::runtime::clock::sleep(std::time::Duration::from_millis(1)).await;
            }
            drop(server);
            // Only the release of the descriptor by the cancelled wait sends the end.
            let (result, _) = client.read(Vec::with_capacity(8)).await;
            assert_eq!(result.expect("end"), 0);
            assert_eq!(ring::counters().cancels, 1);
        });
    }

    #[test]
    fn a_used_port_is_an_error_but_cores_share_theirs() {
        on_core(|| async {
            let first = Listener::bind(local(), true).expect("bind");
            let address = first.local_addr().expect("bound");
            Listener::bind(address, false).expect("shared");
            let error = Listener::bind(address, true).err().expect("in use");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        });
    }

    #[test]
    fn a_connection_moves_to_another_core() {
        let ports = Arc::new(Mutex::new(mesh::<Transfer>(2, 4)));
        let (tell, told) = mpsc::channel::<SocketAddr>();
        let client = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let address = told.recv().expect("address");
            let mut stream = std::net::TcpStream::connect(address).expect("connect");
            stream.write_all(b"moved?").expect("write");
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).expect("read");
            assert_eq!(&answer, b"core1");
        });
        on_cores(2, move |core| {
            let port = ports.lock().expect("lock").pop().expect("one each");
            let tell = tell.clone();
            async move {
                // Popped from the end: which core has which port is not said, the port is.
                let at = port.core();
                if at == CoreId(0) {
                    let listener = Listener::bind(local(), true).expect("bind");
                    tell.send(listener.local_addr().expect("bound"))
                        .expect("client waits");
                    let (socket, _) = listener.accept().await.expect("accept");
                    // Data may already have been looked for here.
                    socket.readable().await.expect("readable");
                    assert!(port.try_send(CoreId(1), socket.into_transfer()).is_ok());
                } else {
                    let mut got = Vec::new();
                    port.receive(&mut got, 1).await;
                    let (_, transfer) = got.pop().expect("received");
                    let socket = Socket::from_transfer(transfer);
                    assert_eq!(read_exactly(&socket, 6).await, b"moved?");
                    socket
                        .write_gather(Gather::owned(b"core1".to_vec()))
                        .await
                        .expect("write");
                }
                let _ = core;
            }
        });
        client.join().expect("client");
    }

    #[test]
    fn nobody_listening_is_refused() {
        on_core(|| async {
            let listener = Listener::bind(local(), true).expect("bind");
            let address = listener.local_addr().expect("bound");
            drop(listener);
            let error = Socket::connect(address).await.err().expect("refused");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}
