//! How long a client may keep the registry waiting.

use std::time::{Duration, Instant};

/// The time that a client may still take without going on.
///
/// It runs out while the registry waits for the client, not while it works itself, and comes back with the bytes that
/// move: at so many a second, up to what it was in the beginning. So a pause is forgiven, and a byte now and then is
/// not: in the long run a client has to keep up that rate.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
    most: Duration,
    /// Bytes a second.
    rate: u32,
    /// Since when the registry waits.
    since: Option<Instant>,
}

impl Patience {
    pub fn new(most: Duration, rate: u32) -> Self {
        Self { left: most, most, rate: rate.max(1), since: None }
    }

    /// The registry waits. Returns until when.
    pub fn wait(&mut self, now: Instant) -> Instant {
        *self.since.get_or_insert(now) + self.left
    }

    /// Some bytes have moved: the registry does not wait any more.
    pub fn moved(&mut self, bytes: usize, now: Instant) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
        }
        let earned = Duration::from_secs_f64(bytes as f64 / f64::from(self.rate));
        self.left = (self.left + earned).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// For how many seconds a client is waited for that sends so many bytes every few seconds.
    fn lasts(bytes: usize, every: u64) -> Option<u64> {
        let start = Instant::now();
        let mut patience = Patience::new(seconds(60), 4096);
        (1..10_000).map(|n| n * every).find(|at| {
            let end = patience.wait(start + seconds(at - every));
            patience.moved(bytes, start + seconds(*at));
            end < start + seconds(*at)
        })
    }

    #[test]
    fn a_byte_now_and_then_is_not_enough_and_a_pause_is_forgiven() {
        assert_eq!(lasts(1, 20), Some(80));
        assert_eq!(lasts(1, 61), Some(61), "nothing for too long");
        assert!(lasts(4000, 1).is_some_and(|at| at > 1000), "nearly enough lasts for a while");
        assert_eq!(lasts(4096, 1), None);
        assert_eq!(lasts(64 << 10, 15), None);
        let (start, mut patience) = (Instant::now(), Patience::new(seconds(60), 4096));
        patience.wait(start);
        patience.moved(1, start + seconds(59));
        patience.moved(1 << 30, start + seconds(60));
        assert_eq!(patience.wait(start + seconds(60)), start + seconds(120), "all of it is back, and no more");
    }

    #[test]
    fn what_the_registry_takes_itself_does_not_count() {
        let (start, mut patience) = (Instant::now(), Patience::new(seconds(60), 4096));
        patience.moved(10, start);
        patience.moved(10, start + seconds(3600));
        assert_eq!(patience.wait(start + seconds(3600)), start + seconds(3660));
    }
}
