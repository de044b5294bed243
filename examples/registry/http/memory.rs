//! The memory that bodies and answers take.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::connections::Places;
use super::failure::Failure;
use super::limits::Limits;
use super::peer::Peer;

/// How many bytes are counted as one.
const UNIT: usize = 1 << 10;

/// The memory that is counted. Who needs some waits for those that have it; where that are clients who do not go on, those go.
#[derive(Debug)]
pub struct Memory {
    units: Arc<Semaphore>,
    most: usize,
    places: Arc<Places>,
    limits: Limits,
}

impl Memory {
    pub fn new(places: Arc<Places>, limits: &Limits) -> Self {
        let most = (limits.memory / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(most)), most, places, limits: *limits }
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        (self.most - self.units.available_permits()) * UNIT
    }

    /// Memory for a request. What is more than there is at all counts as all of it.
    ///
    /// # Errors
    /// 503, to try again, where there is none for too long.
    pub async fn hold(&self, bytes: usize, peer: &Arc<Peer>) -> Result<Held, Failure> {
        let units = bytes.div_ceil(UNIT).clamp(1, self.most);
        let count = u32::try_from(units).unwrap_or(u32::MAX);
        let mut acquire = pin!(Arc::clone(&self.units).acquire_many_owned(count));
        let end = Instant::now() + self.limits.wait;
        loop {
            // Looked at now and then: who goes on now may not in a moment.
            let moment = (Instant::now() + self.limits.silent).min(end);
            if let Ok(permit) = timeout_at(moment, &mut acquire).await {
                peer.held.fetch_add(units * UNIT, Relaxed);
                return Ok(Held { peer: Arc::clone(peer), permit: permit.map_err(|_| Failure::busy())? });
            }
            self.places.evict(&self.limits, |peer| peer.held.load(Relaxed) > 0);
            if Instant::now() >= end {
                return Err(Failure::busy());
            }
        }
    }
}

/// Memory that a request holds.
#[derive(Debug)]
pub struct Held {
    peer: Arc<Peer>,
    permit: OwnedSemaphorePermit,
}

impl Held {
    fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT
    }

    /// Gives back what turned out not to be needed.
    pub fn shrink(&mut self, bytes: usize) {
        let surplus = self.permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        if let Some(surplus) = self.permit.split(surplus) {
            self.peer.held.fetch_sub(surplus.num_permits() * UNIT, Relaxed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.peer.held.fetch_sub(self.bytes(), Relaxed);
    }
}

/// An answer's body with the memory that it takes: given back when it was sent, or is given up.
pub fn keeping(body: Body, held: Option<Held>) -> Body {
    match held {
        Some(held) => Body::new(Keeping { body, _held: held }),
        None => body,
    }
}

struct Keeping {
    body: Body,
    _held: Held,
}

impl HttpBody for Keeping {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
