//! Time: the wall clock, for what people read, and the store's open time, for what expires.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Where a store takes the time from.
///
/// What expires (uploads, named files) is counted in *open time*: the time during which the store was open, over all
/// its openings. Neither a jump of the wall clock nor a restart shortens it.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System(Instant),
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The operating system's clocks.
    pub fn system() -> Self {
        Self(Kind::System(Instant::now()))
    }

    /// A clock that stands at 0 until [`advance`](Self::advance) moves it: for tests.
    pub fn manual() -> Self {
        Self(Kind::Manual(Arc::default()))
    }

    /// Moves a manual clock on. A system clock ignores it.
    pub fn advance(&self, by: Duration) {
        if let Kind::Manual(now) = &self.0 {
            now.fetch_add(milliseconds(by), Ordering::Relaxed);
        }
    }

    /// Milliseconds since this clock was made.
    pub(crate) fn elapsed(&self) -> u64 {
        match &self.0 {
            Kind::System(start) => milliseconds(start.elapsed()),
            Kind::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since 1970.
    pub(crate) fn wall(&self) -> u64 {
        match &self.0 {
            Kind::System(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, milliseconds),
            Kind::Manual(now) => now.load(Ordering::Relaxed),
        }
    }
}

/// When a commit happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// The wall clock, in milliseconds since 1970.
    pub(crate) wall: u64,
    /// The store's open time, in milliseconds.
    pub(crate) open: u64,
}

/// A moment of the wall clock, in whole seconds since 1970: what facts of which there are many have of it. Later ones
/// than in 2106 stand there as that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) u32);

impl Seconds {
    /// In milliseconds.
    pub(crate) fn milliseconds(self) -> u64 {
        u64::from(self.0) * 1000
    }
}

impl Times {
    /// The open time, as when somebody relied on something: never 0, which says that nobody does.
    pub(crate) fn touched(self) -> u64 {
        self.open.max(1)
    }

    /// The wall clock.
    pub(crate) fn seconds(self) -> Seconds {
        Seconds(u32::try_from(self.wall / 1000).unwrap_or(u32::MAX))
    }
}

/// A store's time.
#[derive(Clone, Debug)]
pub(crate) struct StoreClock {
    clock: Clock,
    /// The open time that earlier openings have added up, less what the clock said when this one began, in
    /// milliseconds.
    base: i64,
}

impl StoreClock {
    /// The time of a store that was open for so many milliseconds before.
    pub(crate) fn new(clock: Clock, before: u64) -> Self {
        let base = before.cast_signed() - clock.elapsed().cast_signed();
        Self { clock, base }
    }

    /// The open time in milliseconds, over all openings.
    pub(crate) fn open_time(&self) -> u64 {
        self.clock.elapsed().saturating_add_signed(self.base).min(MAX)
    }

    /// How long ago something was in open time.
    pub(crate) fn since(&self, open_time: u64) -> Duration {
        Duration::from_millis(self.open_time().saturating_sub(open_time))
    }

    pub(crate) fn now(&self) -> Times {
        Times { wall: self.clock.wall(), open: self.open_time() }
    }
}

/// Keeps work to so many bytes a second, if that is wanted.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<u64>,
    began: Instant,
    bytes: u64,
}

impl Pace {
    /// Work that begins now.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate, began: Instant::now(), bytes: 0 }
    }

    /// Notes that so many bytes were done.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// How many bytes were done.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sleeps for a moment, if more was done than should be by now; `false` where not.
    pub(crate) fn rest(&self) -> bool {
        let Some(rate) = self.rate else { return false };
        let due = Duration::try_from_secs_f64(self.bytes as f64 / rate as f64).unwrap_or(Duration::MAX);
        let left = due.saturating_sub(self.began.elapsed());
        std::thread::sleep(left.min(Duration::from_millis(50)));
        !left.is_zero()
    }
}

/// The grace period for what nothing holds, after a client relied on it, in milliseconds of open time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention(pub(crate) u64);

impl Retention {
    /// When something was last relied on is noted with this precision, so that claiming it again and again costs
    /// nothing.
    fn precision(self) -> u64 {
        self.0 / 8
    }

    /// Whether it is time to note that somebody relies on what was last relied on at a time.
    pub(crate) fn is_stale(self, touched: u64, now: u64) -> bool {
        touched.saturating_add(self.precision()) <= now
    }

    /// Whether the grace period of what a client last relied on at `touched` is over.
    pub(crate) fn has_expired(self, touched: u64, now: u64) -> bool {
        touched.saturating_add(self.0).saturating_add(self.precision()) <= now
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

/// The longest time in milliseconds: what 48 bits hold, 8,900 years.
pub(crate) const MAX: u64 = (1 << 48) - 1;

/// A duration in milliseconds, at most [`MAX`].
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(MAX)
}
