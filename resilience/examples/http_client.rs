//! A client on reqwest whose errors say what is known: a server fails for a while, the breaker opens,
//! and a probe finds out that it is well again.
//!
//! `cargo run -p resilience --example http_client --features http`

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resilience::http::{Client, Context, ErrorKind, StatusCode, Transport, TransportConfig};
use resilience::{Breaker, Clock, SystemClock};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    story(&mut io::stdout(), SystemClock, tokio::time::sleep).await
}

#[derive(serde::Deserialize)]
struct Paid {
    receipt: u32,
}

/// What the clock is and how waiting is done comes from outside: a test turns the time by hand, and
/// reads what is written.
pub(crate) async fn story(
    out: &mut impl Write,
    clock: impl Clock + Clone,
    wait: impl AsyncFn(Duration),
) -> Result<()> {
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let address = server.local_addr()?;
    let asked = Arc::new(AtomicUsize::new(0));
    tokio::spawn(serve(server, Arc::clone(&asked)));

    let breaker =
        Breaker::builder("billing").open_for(Duration::from_secs(1)).clock(clock.clone()).build();
    let billing = Client::builder("billing", format!("http://{address}").parse()?)
        .breaker(breaker)
        .timeout(Duration::from_millis(500))
        .clock(clock)
        .build(&Transport::new(TransportConfig::default())?);

    for call in 1..=6 {
        let payment = billing
            .post("/payments")
            .idempotency_key("1d1a7b1e-7b0c-4c53-9d5b-2f6b6c9e8a10")
            .json(&serde_json::json!({ "cents": 700 }))
            .expect(StatusCode::CREATED);
        match payment.fetch::<Paid>(&Context::new()).await {
            Ok(reply) => writeln!(out, "call {call}: paid, receipt {}", reply.body.receipt)?,
            Err(error) => {
                writeln!(out, "call {call}: {error}")?;
                writeln!(out, "        effect: {:?}", error.effect())?;
                if let ErrorKind::Rejected(rejection) = error.kind() {
                    wait(rejection.retry_after()).await;
                }
            }
        }
    }
    writeln!(out, "6 calls, and billing was asked {} times", asked.load(Ordering::Relaxed))?;
    Ok(())
}

/// Answers 500 to the first three requests, and 201 to all others.
async fn serve(server: TcpListener, asked: Arc<AtomicUsize>) -> io::Result<()> {
    loop {
        let (connection, _) = server.accept().await?;
        let earlier = asked.fetch_add(1, Ordering::Relaxed);
        let (status, body) =
            if earlier < 3 { ("500 Oops", "{}") } else { ("201 Created", r#"{"receipt":17}"#) };
        answer(connection, status, body).await?;
    }
}

async fn answer(mut connection: TcpStream, status: &str, body: &str) -> io::Result<()> {
    let mut request = BufReader::new(&mut connection);
    let (mut length, mut line) = (0, String::new());
    while request.read_line(&mut line).await? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    tokio::io::AsyncReadExt::read_exact(&mut request, &mut vec![0; length]).await?;
    let head = "Content-Type: application/json\r\nConnection: close\r\nContent-Length:";
    let answer = format!("HTTP/1.1 {status}\r\n{head} {}\r\n\r\n{body}", body.len());
    connection.write_all(answer.as_bytes()).await
}
