//! A connection whose client may not keep the registry waiting with an answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, sleep_until};

use super::patience::Patience;
use super::peer::Peer;

/// For so long is read, and thrown away, what a client still sends when its answer was the last one. Were the
/// connection closed with that unread, the system would tell the client that it is reset, and what the answer was might
/// be lost.
const LINGER: Duration = Duration::from_secs(2);

/// Writing fails once the client's [`Patience`] has run out: who does not read holds what was read for him.
#[derive(Debug)]
pub struct Watched {
    stream: TcpStream,
    peer: Arc<Peer>,
    patience: Patience,
    /// When writing fails, while the client does not read.
    end: Option<Pin<Box<Sleep>>>,
    /// Until when it lingers.
    linger: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    pub fn new(stream: TcpStream, peer: Arc<Peer>, patience: Patience) -> Self {
        Self { stream, peer, patience, end: None, linger: None }
    }

    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = written {
            self.end = None;
            self.patience.moved(*result.as_ref().unwrap_or(&0), Instant::now());
            self.peer.goes_on();
            return Poll::Ready(result);
        }
        self.peer.waits();
        let until = self.patience.wait(Instant::now());
        let end = self.end.get_or_insert_with(|| Box::pin(sleep_until(until.into())));
        ready!(end.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.end.is_some() {
            // The system lets go of what the client has not read, too. It would keep it for minutes.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        let end = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut thrown_away = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut thrown_away);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {} // the runtime sees to it that this ends
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return end.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
