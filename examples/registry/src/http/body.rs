//! The body of a request, from a client that may send slowly, or not at all.

use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use axum::http::StatusCode;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;

use super::failure::{Code, Failure};
use super::limits::{BUFFER, Limits};
use super::patience::Patience;
use super::peer::Peer;

/// What kind of body it is: how much time it may take, and what an error with it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Blob,
    Manifest,
}

impl Kind {
    fn code(self) -> Code {
        match self {
            Self::Blob => Code::BlobUploadInvalid,
            Self::Manifest => Code::ManifestInvalid,
        }
    }
}

/// A piece that is shorter is copied: it is a part of a buffer that is read into, and would keep all of that.
const SHORT: usize = BUFFER / 2;

/// What came of a body, taking not much more memory than its bytes, however it came. Who receives it adds to it, and
/// who writes it, perhaps in another thread, takes it.
#[derive(Clone, Debug, Default)]
pub struct Gathered(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pieces: Mutex<Pieces>,
    /// As much came as who writes waits for.
    enough: Condvar,
    /// All of it was taken, for who receives.
    taken: Notify,
}

#[derive(Debug, Default)]
struct Pieces {
    whole: Vec<Bytes>,
    /// The last bytes, that were copied.
    copied: Vec<u8>,
    len: usize,
    /// For how much is waited.
    wanted: Option<usize>,
    /// Whether that is all.
    ended: bool,
}

impl Pieces {
    fn seal(&mut self) {
        if !self.copied.is_empty() {
            self.whole.push(std::mem::take(&mut self.copied).into());
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.seal();
        self.len = 0;
        std::mem::take(&mut self.whole)
    }
}

impl Gathered {
    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.0.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, piece: Bytes) {
        let mut pieces = self.lock();
        pieces.len += piece.len();
        if piece.len() < SHORT {
            pieces.copied.extend_from_slice(&piece);
        } else {
            pieces.seal();
            pieces.whole.push(piece);
        }
        if pieces.wanted.is_some_and(|wanted| pieces.len >= wanted) {
            self.0.enough.notify_one();
        }
    }

    /// Nothing more comes.
    fn end(&self) {
        self.lock().ended = true;
        self.0.enough.notify_one();
    }

    pub fn len(&self) -> usize {
        self.lock().len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, and nothing is left.
    pub fn take(&self) -> Vec<Bytes> {
        self.lock().take()
    }

    /// All of it, once that is `wanted` bytes: less, or nothing, where that takes longer, or no more comes. Blocks.
    pub fn take_soon(&self, wanted: usize, longest: Duration) -> Vec<Bytes> {
        let mut pieces = self.lock();
        pieces.wanted = Some(wanted);
        let waited = self.0.enough.wait_timeout_while(pieces, longest, |pieces| pieces.len < wanted && !pieces.ended);
        let (mut pieces, _) = waited.unwrap_or_else(PoisonError::into_inner);
        pieces.wanted = None;
        let taken = pieces.take();
        drop(pieces);
        self.0.taken.notify_one();
        taken
    }
}

/// A body that is being received.
#[derive(Debug)]
pub struct Incoming {
    body: BodyDataStream,
    kind: Kind,
    peer: Arc<Peer>,
    patience: Patience,
    /// When it has to be there.
    end: Instant,
    /// How long it has to be, where that was said.
    expected: Option<u64>,
    received: u64,
    /// Whether it is longer or shorter than it should be.
    misfit: bool,
    /// What was met behind pieces that were handed out before: the end, or why there are no more.
    end_or_failure: Option<Result<Option<Bytes>, Failure>>,
}

impl Incoming {
    pub fn new(body: Body, kind: Kind, peer: &Arc<Peer>, limits: &Limits) -> Self {
        let most = if kind == Kind::Blob { limits.blob } else { limits.manifest };
        let expected = body.size_hint().exact();
        Self {
            body: body.into_data_stream(),
            kind,
            peer: Arc::clone(peer),
            patience: Patience::new(limits.idle.min(most), limits.rate),
            end: Instant::now() + most,
            expected,
            received: 0,
            misfit: false,
            end_or_failure: None,
        }
    }

    /// Has the body be exactly so long: otherwise receiving it fails.
    pub fn expect(mut self, len: u64) -> Self {
        self.expected = Some(len);
        self
    }

    /// How long it is, where that was said.
    pub fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// Whether it failed since it is longer or shorter than was said.
    pub fn is_misfit(&self) -> bool {
        self.misfit
    }

    /// Waits until there is something, and gathers that with what more is there already, until it is about `most`
    /// bytes; says whether there was something before the end.
    pub async fn some(&mut self, gathered: &Gathered, most: usize) -> Result<bool, Failure> {
        let first = match self.end_or_failure.take() {
            Some(known) => known?,
            None => self.wait().await?,
        };
        let Some(first) = first else { return Ok(false) };
        gathered.push(first);
        while self.may_take(gathered, most)
            && let Some(next) = self.body.next().now_or_never()
        {
            self.gather(next, gathered);
        }
        Ok(true)
    }

    /// Works, and gathers meanwhile what comes, until it is about `most` bytes. What is met at the end of that,
    /// [`some`](Self::some) tells.
    pub async fn some_during<T>(&mut self, work: impl Future<Output = T>, gathered: &Gathered, most: usize) -> T {
        let mut work = pin!(work);
        loop {
            let may_take = self.may_take(gathered, most);
            tokio::select! {
                biased;
                done = &mut work => return done,
                next = self.body.next(), if may_take => self.gather(next, gathered),
                () = gathered.0.taken.notified(), if !may_take => {}
            }
        }
    }

    fn may_take(&self, gathered: &Gathered, most: usize) -> bool {
        gathered.len() < most && self.end_or_failure.is_none()
    }

    fn gather(&mut self, next: Option<Result<Bytes, axum::Error>>, gathered: &Gathered) {
        match self.take(next) {
            Ok(Some(piece)) => gathered.push(piece),
            other => {
                self.end_or_failure = Some(other.map(|_| None));
                gathered.end();
            }
        }
    }

    /// Waits for the next piece.
    async fn wait(&mut self) -> Result<Option<Bytes>, Failure> {
        let until = self.patience.wait(Instant::now()).min(self.end);
        self.peer.waits();
        let next = tokio::time::timeout_at(until.into(), self.body.next()).await;
        self.peer.goes_on();
        match next {
            Ok(next) => self.take(next),
            Err(_) => {
                let message = "the body did not come, or came too slowly; of a blob, what came is kept";
                Err(Failure::new(StatusCode::REQUEST_TIMEOUT, self.kind.code(), message))
            }
        }
    }

    /// Counts what has come.
    fn take(&mut self, next: Option<Result<Bytes, axum::Error>>) -> Result<Option<Bytes>, Failure> {
        let next = next
            .transpose()
            .map_err(|error| Failure::bad_request(self.kind.code(), format!("the body was cut off: {error}")))?;
        let len = next.as_ref().map_or(0, Bytes::len);
        self.patience.moved(len, Instant::now());
        self.received += len as u64;
        let (received, is_end) = (self.received, next.is_none());
        match self.expected {
            Some(expected) if received > expected || is_end && received < expected => {
                self.misfit = true;
                let message = format!("the body should have {expected} bytes, and has {received} or more");
                Err(Failure::bad_request(Code::SizeInvalid, message))
            }
            _ => Ok(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer that is read into. Those are counted that are held.
    struct Buffer(Vec<u8>, #[expect(dead_code, reason = "it is counted")] Arc<()>);

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn what_is_gathered_keeps_no_more_than_its_bytes() {
        let alive = Arc::new(());
        let piece = |len: usize| Bytes::from_owner(Buffer(vec![7; BUFFER], Arc::clone(&alive))).slice(..len);
        let gathered = Gathered::default();
        for _ in 0..1000 {
            gathered.push(piece(1));
        }
        assert_eq!((gathered.len(), Arc::strong_count(&alive)), (1000, 1), "short pieces keep no buffer");
        gathered.push(piece(BUFFER));
        gathered.push(piece(SHORT));
        gathered.push(piece(9));
        assert_eq!(Arc::strong_count(&alive), 3);
        let lens: Vec<usize> = gathered.take().iter().map(Bytes::len).collect();
        assert_eq!(lens, [1000, BUFFER, SHORT, 9]);
        assert!(gathered.is_empty() && gathered.take().is_empty());
        // Who waits has what came when it was too long, at once when it is enough, and when no more comes.
        gathered.push(piece(1));
        assert_eq!(gathered.take_soon(2, Duration::ZERO).len(), 1);
        let forever = Duration::from_secs(3600);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| [2, 2].map(|wanted| gathered.take_soon(wanted, forever)));
            gathered.push(piece(1));
            gathered.push(piece(1));
            while !gathered.is_empty() {
                std::thread::yield_now();
            }
            gathered.push(piece(1));
            gathered.end();
            assert_eq!(waiting.join().unwrap().map(|pieces| pieces.concat().len()), [2, 1]);
        });
    }
}
