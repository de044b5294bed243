//! A blob as an async reader.

use std::io::{self, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream as _;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncSeek, ReadBuf};

use crate::aio::BlobStream;

/// A part of a blob as an [`AsyncRead`], [`AsyncBufRead`] and [`AsyncSeek`], whose positions count from the part's
/// beginning: a [`BlobStream`] that is read by bytes. Made by [`AsyncBlob::reader`](crate::aio::AsyncBlob::reader).
///
/// It keeps the piece of up to 256 KiB, or 1 MiB of what is mapped, that it has read last: a seek within that reads
/// nothing anew.
///
/// # Errors
/// Reading fails with an [`io::Error`] that holds the store's [`Error`](crate::Error).
#[derive(Debug)]
pub struct AsyncBlobReader {
    /// What was read last: what comes before the rest of the stream. Declared before that, since it may be a part of
    /// the blob's file.
    piece: Bytes,
    /// How much of it was taken.
    taken: usize,
    stream: BlobStream,
    /// The part of the blob.
    range: Range<u64>,
}

impl AsyncBlobReader {
    pub(super) fn new(mut stream: BlobStream) -> Self {
        let range = stream.range();
        Self { piece: stream.take_ready(), taken: 0, range, stream }
    }

    /// Where the piece begins in the blob.
    fn piece_start(&self) -> u64 {
        self.stream.range().start - self.piece.len() as u64
    }

    /// Where the next byte lies in the part.
    fn position(&self) -> u64 {
        self.piece_start() + self.taken as u64 - self.range.start
    }

    fn untaken(&self) -> &[u8] {
        self.piece.get(self.taken..).unwrap_or_default()
    }
}

impl AsyncBufRead for AsyncBlobReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.untaken().is_empty() {
            let rest = this.stream.range();
            match ready!(Pin::new(&mut this.stream).poll_next(cx)) {
                Some(Ok(piece)) => (this.piece, this.taken) = (piece, 0),
                Some(Err(error)) => {
                    // Were it asked again, it must not say that the content ends here.
                    this.stream.restart(rest);
                    return Poll::Ready(Err(io::Error::other(error)));
                }
                None => break,
            }
        }
        Poll::Ready(Ok(this.untaken()))
    }

    fn consume(mut self: Pin<&mut Self>, len: usize) {
        self.taken = self.piece.len().min(self.taken + len);
    }
}

impl AsyncRead for AsyncBlobReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = ready!(self.as_mut().poll_fill_buf(cx))?;
        let part = filled.get(..buf.remaining()).unwrap_or(filled);
        buf.put_slice(part);
        let len = part.len();
        self.consume(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for AsyncBlobReader {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let Range { start, end } = self.range;
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => (end - start).checked_add_signed(by),
            SeekFrom::Current(by) => self.position().checked_add_signed(by),
        };
        // Behind the end there is nothing to read, as in a file; the position is then that of the end.
        let target = start + target.ok_or(io::ErrorKind::InvalidInput)?.min(end - start);
        match target.checked_sub(self.piece_start()).and_then(|taken| usize::try_from(taken).ok()) {
            // It was read already. Right behind it, what is read ahead goes on.
            Some(taken) if taken <= self.piece.len() => self.taken = taken,
            _ => {
                (self.piece, self.taken) = (Bytes::new(), 0);
                self.stream.restart(target..end);
            }
        }
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position()))
    }
}
