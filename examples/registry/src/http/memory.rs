//! The memory that bodies and answers take.
//!
//! There are two kinds. *Kept* memory waits for a client to send the rest of a body or to read an answer, perhaps for
//! ever. So it is divided among clients, with a share left for the next one, and where it is short, clients that keep
//! much and do not progress are disconnected. *Working* memory waits for the store only, and is free again in a moment:
//! it is given out in turn.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::Caller;
use super::connections::Places;
use super::failure::Failure;
use super::limits::Limits;
use super::peer::{Client, Peer};

/// How many bytes of memory to work with are counted as one.
const UNIT: usize = 1 << 10;

#[derive(Debug)]
pub struct Memory {
    kept: Arc<Kept>,
    work: Arc<Semaphore>,
    places: Arc<Places>,
    limits: Limits,
}

/// What clients keep.
#[derive(Debug)]
struct Kept {
    most: usize,
    shares: Mutex<Shares>,
    freed: Notify,
}

#[derive(Clone, Debug, Default)]
struct Shares {
    all: usize,
    by_client: HashMap<Client, usize>,
}

impl Shares {
    fn of(&self, client: Client) -> usize {
        self.by_client.get(&client).copied().unwrap_or(0)
    }

    /// Whether a client may have so much more, if there is so much: as much as the others have that have some, and as
    /// is left for one who has none yet.
    fn is_in_share(&self, client: Client, bytes: usize, most: usize) -> bool {
        let own = self.of(client);
        let others = self.by_client.len() - usize::from(own > 0);
        own == 0 || own + bytes <= most / (others + 2)
    }

    fn may_have(&self, client: Client, bytes: usize, most: usize) -> bool {
        self.all + bytes <= most && self.is_in_share(client, bytes, most)
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, client: Client, bytes: usize) -> bool {
        let mut shares = self.lock();
        let may_have = shares.may_have(client, bytes, self.most);
        if may_have {
            shares.all += bytes;
            *shares.by_client.entry(client).or_default() += bytes;
        }
        may_have
    }

    fn give_back(&self, client: Client, bytes: usize) {
        let mut shares = self.lock();
        shares.all -= bytes;
        if let Some(own) = shares.by_client.get_mut(&client) {
            *own -= bytes;
            if *own == 0 {
                shares.by_client.remove(&client);
            }
        }
        drop(shares);
        self.freed.notify_waiters();
    }
}

impl Memory {
    pub fn new(places: Arc<Places>, limits: &Limits) -> Self {
        let kept = Kept { most: limits.memory / 2, shares: Mutex::default(), freed: Notify::new() };
        let work = (limits.memory / 2 / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self { kept: Arc::new(kept), work: Arc::new(Semaphore::new(work)), places, limits: *limits }
    }

    /// How many bytes clients keep.
    pub fn kept(&self) -> usize {
        self.kept.lock().all
    }

    /// Memory that waits for a client. More than there is at all counts as all of it.
    ///
    /// # Errors
    /// 503, to try again, where there is none for too long.
    pub async fn keep(&self, bytes: usize, caller: &Caller) -> Result<Held, Failure> {
        let bytes = bytes.clamp(1, self.kept.most.max(1));
        let end = Instant::now() + self.limits.wait;
        loop {
            let mut freed = pin!(self.kept.freed.notified());
            freed.as_mut().enable(); // what is given back from here on is not missed
            if let Some(held) = self.keep_now(bytes, caller) {
                return Ok(held);
            }
            self.evict(caller.client, bytes);
            if Instant::now() >= end {
                return Err(Failure::busy());
            }
            // Who goes on now may not in a moment.
            let _ = timeout_at((Instant::now() + self.limits.silent / 4).min(end), freed).await;
        }
    }

    /// Memory that waits for a client, if there is some at once.
    pub fn keep_now(&self, bytes: usize, caller: &Caller) -> Option<Held> {
        let bytes = bytes.clamp(1, self.kept.most.max(1));
        self.kept.take(caller.client, bytes).then(|| {
            caller.peer.keeps.fetch_add(bytes, Relaxed);
            Held { kept: Arc::clone(&self.kept), peer: Arc::clone(&caller.peer), client: caller.client, bytes }
        })
    }

    /// Ends a connection that keeps memory and does not go on: the client's own if he would have more than his share,
    /// else of who has most.
    fn evict(&self, client: Client, bytes: usize) {
        let shares = self.kept.lock().clone();
        let has_too_much = !shares.is_in_share(client, bytes, self.kept.most);
        let may_go = |peer: &Peer| {
            let is_own = peer.client == client;
            let has_more = shares.of(peer.client) >= shares.of(client);
            peer.keeps.load(Relaxed) > 0 && if has_too_much { is_own } else { is_own || has_more }
        };
        self.places.evict(self.limits.silent, may_go, |peer| shares.of(peer.client));
    }

    /// Memory to work with for a moment.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub async fn work(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let work = timeout(self.limits.wait, Arc::clone(&self.work).acquire_many_owned(self.units(bytes))).await;
        work.ok().and_then(Result::ok).ok_or_else(Failure::busy)
    }

    /// Memory to work with for a moment, for callers that hold what others wait for, so that they can't wait.
    ///
    /// # Errors
    /// 503, to try again, where there is none at once.
    pub fn work_now(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.work).try_acquire_many_owned(self.units(bytes)).map_err(|_| Failure::busy())
    }

    fn units(&self, bytes: usize) -> u32 {
        let most = self.limits.memory / 2 / UNIT;
        u32::try_from(bytes.div_ceil(UNIT).clamp(1, most.max(1))).unwrap_or(u32::MAX)
    }
}

/// Memory that a request keeps.
#[derive(Debug)]
pub struct Held {
    kept: Arc<Kept>,
    peer: Arc<Peer>,
    client: Client,
    bytes: usize,
}

impl Held {
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.peer.keeps.fetch_sub(self.bytes, Relaxed);
        self.kept.give_back(self.client, self.bytes);
    }
}

/// An answer's body with the memory that it takes: given back when the last of it was sent, or is given up.
pub fn keeping(body: Body, held: Option<Held>) -> Body {
    match held {
        Some(held) => Body::new(Keeping { body, held: Arc::new(held) }),
        None => body,
    }
}

struct Keeping {
    body: Body,
    held: Arc<Held>,
}

/// A part of a body. It may wait to be sent when the body is long gone.
struct Part {
    data: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl HttpBody for Keeping {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let keep = |data| Bytes::from_owner(Part { data, _held: Arc::clone(&self.held) });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(keep))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_clients_keep_as_much_as_they_may_there_is_a_share_for_the_next() {
        let client = |n: u8| Client::of([192, 0, 2, n].into());
        let kept = Kept { most: 1200, shares: Mutex::default(), freed: Notify::new() };
        let takes_all = |n: u8| (0..).take_while(|_| kept.take(client(n), 10)).count() * 10;
        assert_eq!(takes_all(1), 600);
        assert_eq!(takes_all(2), 400, "a third");
        assert_eq!(takes_all(3), 200, "what is left: the first two have more than their share by now");
        assert!(!kept.take(client(4), 10), "they have to give some back");
        kept.give_back(client(1), 500);
        assert_eq!(takes_all(1), 200, "a quarter is its share now");
        assert_eq!(takes_all(4), 240, "a fifth");
        assert!(kept.take(client(5), 60), "who has nothing may have what is left");
        for (n, bytes) in [(1, 300), (2, 400), (3, 200), (4, 240), (5, 60)] {
            kept.give_back(client(n), bytes);
        }
        assert!(kept.lock().all == 0 && kept.lock().by_client.is_empty());
    }
}
