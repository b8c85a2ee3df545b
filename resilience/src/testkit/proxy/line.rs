use std::fmt;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use socket2::{SockRef, Socket};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// What happens with a connection that has been accepted.
type Serve = Arc<dyn Fn(TcpStream) -> BoxFuture<'static, ()> + Send + Sync>;

/// A port on loopback, listened on or not, and all connections that came through it.
pub(super) struct Line {
    address: SocketAddr,
    /// Bound and never listening: nobody else gets the port while connections are refused.
    _anchor: TcpSocket,
    serve: Serve,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Line {
    /// Listens on a free port.
    pub(super) fn new(
        serve: impl Fn(TcpStream) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        let anchor = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = anchor.local_addr().expect("a bound socket has an address");
        let line =
            Self { address, _anchor: anchor, serve: Arc::new(serve), serving: Mutex::default() };
        line.up();
        line
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens, unless it does already.
    pub(super) fn up(&self) {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if serving.is_none() {
            *serving = Some(tokio::spawn(accept(listen(self.address), Arc::clone(&self.serve))));
        }
    }

    /// Stops listening and ends all connections. Both have happened when it returns.
    pub(super) async fn down(&self) {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serving) = serving {
            serving.abort();
            // Cancelled, as was asked for.
            let _ = serving.await;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let serving = self.serving.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serving) = serving {
            serving.abort();
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A socket at this address, which it can share with the line's other one and with no one else's.
fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    #[cfg(unix)]
    socket.set_reuseport(true).expect("a fresh socket");
    #[cfg(not(unix))]
    socket.set_reuseaddr(true).expect("a fresh socket");
    socket.bind(address).expect("a free port on loopback");
    socket
}

/// Connections pass this on to what remains of them: closed ones keep nobody from the port later.
/// The anchor must not have it: any socket that asks for the same could share its port.
fn listen(address: SocketAddr) -> TcpListener {
    let socket = bind(address);
    socket.set_reuseaddr(true).expect("a fresh socket");
    socket.listen(BACKLOG).expect("the port is ours")
}

/// Ends what a socket does when it is dropped. Closing it wouldn't do: a process that is being started
/// holds copies of all sockets of its parent until it runs its own program, and the kernel goes on
/// accepting connections on one of them meanwhile.
struct Ending(Option<Socket>);

impl Ending {
    fn of(socket: &SockRef<'_>) -> Self {
        Self(Some(socket.try_clone().expect("a file descriptor")))
    }

    /// It has ended by itself, in a way of its own.
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            // The other side may have ended it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

async fn accept(listener: TcpListener, serve: Serve) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    let _ending = Ending::of(&SockRef::from(&listener));
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let ending = Ending::of(&SockRef::from(&stream));
                    let served = serve(stream);
                    connections.spawn(async move {
                        served.await;
                        ending.disarm();
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
