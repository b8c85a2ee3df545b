//! What the operating system allows of connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// So many of the connections that are wanted: half of the descriptors that this process may have,
/// as each request that comes in may need some that go out. The soft limit is raised to the hard one
/// first.
pub(super) fn allowed(wanted: usize) -> usize {
    let resource = Resource::RLIMIT_NOFILE;
    let limit = getrlimit(resource).map(|(soft, hard)| {
        if soft == hard || setrlimit(resource, hard, hard).is_ok() { hard } else { soft }
    });
    match limit {
        Ok(limit) => usize::try_from(limit / 2).unwrap_or(usize::MAX).clamp(1, wanted),
        Err(error) => {
            tracing::warn!(%error, "nobody knows how many descriptors there may be");
            wanted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_connections_than_half_of_the_descriptors() {
        assert_eq!(allowed(1), 1);
        let all = allowed(usize::MAX);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard, "raised");
        assert_eq!(all, usize::try_from(hard / 2).unwrap());
    }
}
