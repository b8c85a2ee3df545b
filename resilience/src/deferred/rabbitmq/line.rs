//! One connection to the broker, whose end is bounded whatever the broker does.

use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use lapin::tcp::{OwnedTLSConfig, TLSConfig};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event};
use tokio::time::timeout;

use super::address::Address;

/// For finding and reaching the host, its TLS included.
const CONNECT: Duration = Duration::from_secs(2);

/// For the whole way to a connection that can be used: a broker that accepts and doesn't answer is
/// as far away as one that doesn't accept.
const OPEN: Duration = Duration::from_secs(5);

/// For any answer: a broker that is frozen is noticed by whoever asks it something.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// For a courteous end.
const CLOSE: Duration = Duration::from_millis(500);

/// What went wrong between the broker and us.
#[derive(Debug)]
pub(super) enum Fault {
    /// What the broker or the network said.
    Amqp(lapin::Error),
    /// What we made of it.
    Because(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amqp(error) => error.fmt(f),
            Self::Because(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Fault {}

impl From<lapin::Error> for Fault {
    fn from(error: lapin::Error) -> Self {
        Self::Amqp(error)
    }
}

/// A second handle of the connection's socket. lapin reads and writes on a thread of its own, which
/// a frozen broker, or one that has blocked us, would keep for ever: dropped, this ends it.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Option<TcpStream>>>);

impl Socket {
    fn keep(&self, stream: &impl AsFd) -> std::io::Result<()> {
        let stream = TcpStream::from(stream.as_fd().try_clone_to_owned()?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        Ok(())
    }

    fn cut(&self) {
        if let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It fails when the other side has ended it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Cuts the socket on the way out, by whichever way that is.
struct Cut(Socket);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// A connection.
pub(super) struct Line {
    connection: Connection,
    socket: Cut,
}

impl Line {
    /// Connects, as the connection of this name in the broker's lists.
    pub(super) async fn open(address: &Address, name: &str) -> Result<Self, Fault> {
        let socket = Cut(Socket::default());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime()?;
        let (keep, target) = (socket.0.clone(), address.clone());
        let connecting = Connection::connector(
            address.uri(),
            runtime,
            async move |_, runtime| {
                let connected = timeout(CONNECT, async {
                    let addresses: Vec<_> = tokio::net::lookup_host(target.host()).await?.collect();
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(stream) = &stream {
                        keep.keep(stream.get_ref())?;
                    }
                    if !target.encrypted() {
                        return Ok(stream);
                    }
                    let tls = OwnedTLSConfig::default();
                    let tls: TLSConfig<'_, '_, '_> = tls.as_ref();
                    let stream = stream.into_tls(target.host().0, tls).await?;
                    // Without a TLS stack compiled in, it would hand the plain stream back.
                    if matches!(stream, AsyncTcpStream::Plain(_)) {
                        return Err(std::io::Error::other("no TLS in this build"));
                    }
                    Ok(stream)
                });
                let timed_out = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
                Ok(connected.await.map_err(timed_out)??)
            },
            properties,
        );
        let connection = timeout(OPEN, connecting)
            .await
            .map_err(|_| Fault::Because("the broker doesn't answer"))??;
        Ok(Self { connection, socket })
    }

    /// A channel, or what keeps us from it.
    pub(super) async fn channel(&self) -> Result<Channel, Fault> {
        within(ANSWER, self.connection.create_channel()).await
    }

    /// What happens to the connection.
    pub(super) fn events(&self) -> BoxStream<'static, Event> {
        self.connection.events_listener().boxed()
    }

    /// Whether it is there still, as far as anybody has noticed.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.connection.status().connected() {
            Ok(())
        } else {
            Err(Fault::Because("the connection is closed"))
        }
    }

    /// Says goodbye, where there is somebody to say it to, and ends it.
    pub(super) async fn close(&self) {
        let _ = timeout(CLOSE, self.connection.close(200, "bye".into())).await;
        self.socket.0.cut();
    }
}

/// The answer, unless it takes longer than this.
pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Fault> {
    match timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Fault::Because("the broker doesn't answer in time")),
    }
}
