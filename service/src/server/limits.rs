//! The numbers.

use std::time::Duration;

use crate::config::Reader;

/// What a client may take of a service, and for how long. The variables are in the table of
/// [`BaseConfig`](crate::config::BaseConfig).
///
/// In the memory of a process each connection holds at most one head ([`Limits::head_bytes`]), one
/// body ([`crate::pipeline::BODY_LIMIT`]) and one answer, besides some 20 KiB of its own and what the
/// kernel buffers. With the defaults that is 1 056 connections of 16, 64 and 20 KiB: some 105 MiB if every
/// one of them sends all that it may, and never more however many come.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Bytes of a request's head at most. There may be 100 headers.
    pub head_bytes: usize,
    /// How long a head may take to arrive: from its first byte on, or from the connection's
    /// beginning for the first one.
    pub head_time: Duration,
    /// How long a body may take to arrive.
    pub body_time: Duration,
    /// How long a connection may wait for its next request. Longer than whoever calls keeps it in a
    /// pool: otherwise it closes just as it is used.
    pub idle_time: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub write_time: Duration,
}

impl Limits {
    /// Reads its variables.
    pub(crate) fn read(reader: &mut Reader) -> Self {
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            connections: size(reader.number("MAX_CONNECTIONS", 1024, 1..=1_000_000)),
            head_bytes: size(reader.number("MAX_HEAD_BYTES", 16 * 1024, 1024..=1024 * 1024)),
            head_time: reader.millis("HEAD_TIMEOUT_MS", 10_000),
            body_time: reader.millis("BODY_TIMEOUT_MS", 10_000),
            idle_time: reader.millis("IDLE_TIMEOUT_MS", 100_000),
            write_time: reader.millis("WRITE_TIMEOUT_MS", 10_000),
        }
    }
}
