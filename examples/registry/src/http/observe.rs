//! One log line and one count for each request, when its answer has ended or is given up.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::Extension;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use percent_encoding::percent_decode_str;

use super::Registry;
use super::peer::{Asking, Peer};
use crate::access::DOWNLOAD;

/// So much of a path is logged: a line of the log may be no longer than that of others because a client wants it.
const PATH_LOGGED: usize = 300;
const METHOD_LOGGED: usize = 20;

pub async fn observe(
    State(registry): State<Arc<Registry>>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
    next: Next,
) -> Response {
    registry.metrics.under_way.fetch_add(1, Relaxed);
    let (received, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut record = Record {
        registry,
        method: request.method().clone(),
        path: logged(request.uri()),
        status: None,
        begun: Instant::now(),
        _asking: Asking::new(peer),
        received: Arc::clone(&received),
        sent: Arc::clone(&sent),
    };
    let request = request.map(|body| Body::new(Counted { body, bytes: received, _record: None }));
    let response = next.run(request).await;
    record.status = Some(response.status());
    response.map(|body| Body::new(Counted { body, bytes: sent, _record: Some(record) }))
}

/// A path and its query as the log has them: nothing in them ends a line, or means something to a terminal, and a token
/// by which a blob may be read is left out.
fn logged(uri: &Uri) -> String {
    let escaped = |text: &str| text.chars().take(PATH_LOGGED).flat_map(char::escape_default).collect();
    let Some(query) = uri.query() else { return escaped(&uri.to_string()) };
    let shown = |pair: &str| match percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy() {
        name if name == DOWNLOAD => format!("{DOWNLOAD}=..."),
        _ => pair.to_owned(),
    };
    let query: Vec<_> = query.split('&').map(shown).collect();
    escaped(&format!("{}?{}", uri.path(), query.join("&")))
}

/// A request. It is told of when this is dropped: with the body of the answer, or where the client went away before.
struct Record {
    registry: Arc<Registry>,
    method: Method,
    path: String,
    status: Option<StatusCode>,
    begun: Instant,
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    _asking: Asking,
}

impl Drop for Record {
    fn drop(&mut self) {
        let (took, received, sent) = (self.begun.elapsed(), self.received.load(Relaxed), self.sent.load(Relaxed));
        let metrics = &self.registry.metrics;
        metrics.under_way.fetch_sub(1, Relaxed);
        metrics.count(&self.method, self.status, took, received, sent);
        // 0 where no answer was sent.
        let status = self.status.map_or(0, |status| status.as_u16());
        let method = self.method.as_str();
        let method = method.get(..METHOD_LOGGED).unwrap_or(method);
        tracing::info!(%method, path = %self.path, status, received, sent, ?took, "request");
    }
}

/// A body whose bytes are counted.
struct Counted {
    body: Body,
    bytes: Arc<AtomicU64>,
    /// Dropped with the body.
    _record: Option<Record>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.bytes.fetch_add(frame.data_ref().map_or(0, Bytes::len) as u64, Relaxed);
        }
        Poll::Ready(frame)
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
    fn the_log_has_no_token_and_no_line_of_a_clients_own() {
        for (uri, expected) in [
            ("/v2/a/blobs/sha256:00?token=secret", "/v2/a/blobs/sha256:00?token=..."),
            ("/v2/a?n=1&token=secret&last=b&token=more", "/v2/a?n=1&token=...&last=b&token=..."),
            ("/v2/a?%74oken=secret", "/v2/a?token=..."),
            ("/v2/a?last=token%3D1&tokens=2", "/v2/a?last=token%3D1&tokens=2"),
            ("/v2/token?service=a", "/v2/token?service=a"),
        ] {
            assert_eq!(logged(&uri.parse().unwrap()), expected);
        }
        assert_eq!(logged(&format!("/{}", "a".repeat(1000)).parse().unwrap()).len(), PATH_LOGGED);
    }
}
