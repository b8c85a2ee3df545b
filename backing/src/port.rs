//! Ports of the loopback interface.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};
use uuid::Uuid;

use crate::process;

/// Below the range that the kernel gives to outgoing connections: a port from here stays free
/// while its owner is stopped, whatever connects meanwhile.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// Can this port of 127.0.0.1 be listened on? The error is the system's: taken, or not permitted.
pub fn check(port: u16) -> io::Result<()> {
    // Taken as whoever listens takes it, but never listened on: a process that is being started has
    // a copy of each socket until it runs its own program, and one that listens would keep the port
    // from its new owner after it was closed here.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
}

/// Who listens on this port of 127.0.0.1, or of all addresses: its pid and its program's name. `None` where
/// nobody does, or it belongs to another user, which only root can see.
pub fn holder(port: u16) -> Option<(Pid, String)> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table.lines().filter_map(|line| listening(line, port)).collect::<Vec<_>>()
        })
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let holds = |pid: Pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = open.filter_map(|open| fs::read_link(open.path()).ok());
        links.any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|s| s == link)))
    };
    let pid = process::all().find(|pid| holds(*pid))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().to_owned()))
}

/// The inode of a line of `/proc/net/tcp`, of a socket that listens there.
fn listening(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, found) = fields.get(1)?.rsplit_once(':')?;
    let ours = ["0100007F", "00000000"].contains(&address)
        // All addresses, or 127.0.0.1, in their form of IPv6.
        || address.chars().all(|digit| digit == '0')
        || address == "0000000000000000FFFF00000100007F";
    let listens = *fields.get(3)? == "0A";
    (ours && listens && u16::from_str_radix(found, 16) == Ok(port))
        .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}

/// As many different free ports as asked for.
pub fn free(count: usize) -> io::Result<Vec<u16>> {
    let mut found = Vec::with_capacity(count);
    let mut last = None;
    // Often enough for a crowded machine.
    for _ in 0..count * 200 {
        if found.len() == count {
            break;
        }
        let (random, _) = Uuid::new_v4().as_u64_pair();
        let span = u64::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(random % span).unwrap_or_default();
        match check(port) {
            Ok(()) if found.contains(&port) => {}
            Ok(()) => found.push(port),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) if found.len() < count => Err(error),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn free_ports_are_free_and_differ() {
        let mut ports = free(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }

    /// A process that is being started holds copies of its parent's sockets until it runs its own
    /// program: one that listens would go on doing so after it was closed here.
    #[test]
    fn free_port_can_be_listened_on_at_once_while_processes_are_started() {
        let started = AtomicU32::new(0);
        let enough = || started.load(Ordering::Relaxed) >= 200;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !enough() {
                        assert!(Command::new("true").status().unwrap().success());
                        started.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while !enough() {
                let port = free(1).unwrap()[0];
                check(port).unwrap();
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
            }
        });
    }

    #[test]
    fn taken_port_is_an_error_and_its_holder_is_known() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let held = TcpListener::bind(address).unwrap();
            let port = held.local_addr().unwrap().port();
            assert!(check(port).is_err());
            assert_eq!(holder(port).map(|(pid, _)| pid), Some(Pid::this()), "{address}");
        }
        assert_eq!(holder(free(1).unwrap()[0]), None);
    }
}
