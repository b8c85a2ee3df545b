//! For your tests, as for the library's own: time, chance and the network in a test's hands.
//!
//! | what a test wants | what it takes |
//! |---|---|
//! | time that passes when it is told | [`ManualClock`] |
//! | the same jitter each time | [`Random::seeded`](crate::Random::seeded) |
//! | a network that breaks | [`Proxy`]; [`HttpProxy`] goes by requests |
//! | a breaker that is obviously right | [`model`], for property tests |
//!
//! None of it waits in real time, and everything is undone when it is dropped. What waits for
//! something to happen has no limit of its own: it would have to look at a clock.
//!
//! # A flaky dependency in ten lines
//!
//! ```
//! use resilience::testkit::{Fault, ManualClock, Proxy};
//! use resilience::{Breaker, State};
//! # use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! # use tokio::net::{TcpListener, TcpStream};
//!
//! # async fn greet(address: std::net::SocketAddr) -> std::io::Result<String> {
//! #     let mut greeting = String::new();
//! #     TcpStream::connect(address).await?.read_to_string(&mut greeting).await?;
//! #     Ok(greeting)
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! # let upstream = TcpListener::bind("127.0.0.1:0").await?;
//! # let address = upstream.local_addr()?.to_string();
//! # tokio::spawn(async move {
//! #     while let Ok((mut stream, _)) = upstream.accept().await {
//! #         let _ = stream.write_all(b"hello").await;
//! #     }
//! # });
//! let (clock, proxy) = (ManualClock::new(), Proxy::new(address));
//! let breaker = Breaker::builder("greeter").clock(clock.clone()).build();
//! proxy.set(Fault::Reset);
//! for _ in 0..3 {
//!     assert!(breaker.call_async(greet(proxy.address())).await.is_err());
//! }
//! assert_eq!(breaker.state(), State::Open);
//! proxy.heal();
//! clock.advance(std::time::Duration::from_secs(6));
//! assert_eq!(breaker.call_async(greet(proxy.address())).await.unwrap(), "hello");
//! assert_eq!(breaker.state(), State::Closed);
//! # Ok(())
//! # }
//! ```

mod clock;
#[cfg(feature = "testkit")]
pub mod model;
#[cfg(feature = "testkit")]
mod proxy;

pub use clock::ManualClock;
#[cfg(feature = "testkit")]
pub use proxy::{Act, Counts, Fault, HttpProxy, Proxy, Rule, Seen};
