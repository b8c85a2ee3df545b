//! Ports of the loopback interface.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use uuid::Uuid;

/// Below the range that the kernel gives to outgoing connections: a port from here stays free
/// while its owner is stopped, whatever connects meanwhile.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// Can this port of 127.0.0.1 be listened on? The error is the system's: taken, or not permitted.
pub fn check(port: u16) -> io::Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop)
}

/// As many different free ports as asked for.
pub fn free(count: usize) -> io::Result<Vec<u16>> {
    let mut held = Vec::with_capacity(count);
    let mut last = None;
    // Held together, so that no two are the same; tried often enough for a crowded machine.
    for _ in 0..count * 200 {
        if held.len() == count {
            break;
        }
        let (random, _) = Uuid::new_v4().as_u64_pair();
        let span = u64::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(random % span).unwrap_or_default();
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => held.push((port, listener)),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) if held.len() < count => Err(error),
        _ => Ok(held.into_iter().map(|(port, _)| port).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_free_and_differ() {
        let mut ports = free(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }

    #[test]
    fn taken_port_is_an_error() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(check(held.local_addr().unwrap().port()).is_err());
    }
}
