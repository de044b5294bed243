//! What one client, and all together, may take. `docs/security.md` says why each is there.

use std::time::Duration;

/// Bytes that are held in memory for each request without being counted: so small documents never wait for others.
pub const UNCOUNTED: usize = 64 << 10;

/// How much is read from a connection at a time, in bytes.
pub const BUFFER: usize = 128 << 10;

/// How much of a body is gathered before it is written.
pub const GATHERED: usize = 512 << 10;

/// Content up to this length is held in memory when an upload of it is ended: the default of the store.
const INLINE: u64 = 4 << 20;

/// What a page of referrers takes: a document at a time, of up to 4 MiB, and annotations as they are and as JSON.
pub const REFERRERS_MEMORY: usize = 16 << 20;

/// How many bytes of memory it takes to end an upload of this length, if that is counted: short content is read,
/// compressed and framed there.
pub fn memory_to_commit(len: u64) -> Option<usize> {
    let is_counted = (UNCOUNTED as u64..=INLINE).contains(&len);
    is_counted.then(|| usize::try_from(3 * len).unwrap_or(usize::MAX))
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many connections are served at once.
    pub connections: usize,
    /// How many of them one client may have. Proxies are not counted.
    pub connections_per_client: usize,
    /// How many more get an answer of 503 when those are taken; among them probes, which are served.
    pub refusals: usize,
    /// For how long a connection may say nothing, from its beginning or after an answer, until a request's head is
    /// there. Longer than the 60 s for which balancers usually keep connections: who closes first is not surprised by a
    /// request.
    pub head: Duration,
    /// A connection that says nothing for so long, or a request whose client does not go on for
    /// [`stalled`](Self::stalled), makes way where there is no place for another.
    pub silent: Duration,
    pub stalled: Duration,
    /// For how long a client may not go on with a body, or with reading an answer. It has to make up for it at `rate`.
    pub idle: Duration,
    /// How many bytes a second a client has to send, or to read, in the long run.
    pub rate: u32,
    /// For how long one body of a blob may take in all, and that of a manifest.
    pub blob: Duration,
    pub manifest: Duration,
    /// How many bytes of bodies and answers are held in memory, beyond [`UNCOUNTED`] for each.
    pub memory: usize,
    /// For how long a request waits for its turn, or for memory, before it is told to come again.
    pub wait: Duration,
    /// Who may not, or is not who they say, is told so at a multiple of this time since they asked: how long it took
    /// tells nothing of what is there, of policies and of keys, and guessing takes time. Zero: at once.
    pub refusal: Duration,
    /// How many uploads of one client may be unfinished, and how many of those may have no content yet.
    pub uploads: usize,
    pub begun_uploads: usize,
    /// After this time an upload without content is given up.
    pub begun: Duration,
    /// How many repositories one client may create by pushes that are not completed.
    pub new_repositories: usize,
    /// For how long requests under way may go on after `stop`.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_client: 256,
            refusals: 64,
            head: Duration::from_secs(75),
            silent: Duration::from_secs(1),
            stalled: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            rate: 4 << 10,
            blob: Duration::from_secs(6 * 60 * 60),
            manifest: Duration::from_secs(60),
            memory: 96 << 20,
            wait: Duration::from_secs(10),
            refusal: Duration::from_millis(50),
            uploads: 1000,
            begun_uploads: 100,
            begun: Duration::from_secs(10 * 60),
            new_repositories: 100,
            grace: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// How long after it was asked a refusal is told that is known after `elapsed`.
    pub fn refused_after(&self, elapsed: Duration) -> Duration {
        let steps = elapsed.as_nanos().checked_div(self.refusal.as_nanos()).map_or(0, |whole| whole + 1);
        self.refusal.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_at_steps_of_time() {
        let limits = Limits { refusal: Duration::from_millis(50), ..Limits::default() };
        for (elapsed, told) in [(0, 50), (1, 50), (49, 50), (50, 100), (120, 150)] {
            let told = Duration::from_millis(told);
            assert_eq!(limits.refused_after(Duration::from_millis(elapsed)), told, "{elapsed}");
        }
        let limits = Limits { refusal: Duration::ZERO, ..limits };
        assert_eq!(limits.refused_after(Duration::from_secs(1)), Duration::ZERO);
    }
}
