//! A blob as an async reader.

use std::io::{self, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_core::Stream as _;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncSeek, ReadBuf};

use crate::aio::BlobStream;

/// A part of a blob as an [`AsyncRead`], [`AsyncBufRead`] and [`AsyncSeek`], whose positions count from the part's
/// beginning: a [`BlobStream`] that is read by bytes. Made by [`AsyncBlob::reader`](crate::aio::AsyncBlob::reader).
///
/// # Errors
/// Reading fails with an [`io::Error`] that holds the store's [`Error`](crate::Error).
#[derive(Debug)]
pub struct AsyncBlobReader {
    /// What was read and not yet taken. Before the stream, since it may be a part of the blob's file.
    piece: Bytes,
    stream: BlobStream,
    /// The part of the blob.
    range: Range<u64>,
}

impl AsyncBlobReader {
    pub(super) fn new(stream: BlobStream) -> Self {
        Self { piece: Bytes::new(), range: stream.range(), stream }
    }

    /// Where the next byte lies in the blob.
    fn position(&self) -> u64 {
        self.stream.range().start - self.piece.len() as u64
    }
}

impl AsyncBufRead for AsyncBlobReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.piece.is_empty() {
            let rest = this.stream.range();
            match ready!(Pin::new(&mut this.stream).poll_next(cx)) {
                Some(Ok(piece)) => this.piece = piece,
                Some(Err(error)) => {
                    // Were it asked again, it must not say that the content ends here.
                    this.stream.restart(rest);
                    return Poll::Ready(Err(io::Error::other(error)));
                }
                None => break,
            }
        }
        Poll::Ready(Ok(&this.piece))
    }

    fn consume(mut self: Pin<&mut Self>, len: usize) {
        let len = len.min(self.piece.len());
        self.piece.advance(len);
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
            SeekFrom::Start(at) => start.checked_add(at),
            SeekFrom::End(by) => end.checked_add_signed(by),
            SeekFrom::Current(by) => self.position().checked_add_signed(by),
        };
        // Behind the end there is nothing to read, as in a file; the position is then that of the end.
        let target = target.filter(|target| *target >= start).ok_or(io::ErrorKind::InvalidInput)?.min(end);
        match target.checked_sub(self.position()).and_then(|ahead| usize::try_from(ahead).ok()) {
            Some(ahead) if ahead < self.piece.len() => self.piece.advance(ahead),
            _ => {
                self.piece = Bytes::new();
                self.stream.restart(target..end);
            }
        }
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position() - self.range.start))
    }
}
