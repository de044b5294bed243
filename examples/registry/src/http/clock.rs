//! The wall clock, where it is wrong.
//!
//! The header `Date` has years from 1970 to 9999, and the HTTP library panics where the clock says another one, in
//! whatever connection it then looks. So connections end before it looks, and new ones are told why. The store itself
//! needs no right clock.

use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use axum::http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The year 10000, in seconds since 1970.
const END: u64 = 253_402_300_800;

const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 60\r\n\
    Content-Length: 57\r\nContent-Type: text/plain\r\n\r\nthe clock of the registry's machine is wrong: set it now\r\n";

/// Whether dates can be told.
pub fn is_sane() -> bool {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since.as_secs() < END)
}

/// The header `Date`; none where the clock is wrong.
pub fn date() -> Option<HeaderValue> {
    let date = is_sane().then(|| httpdate::fmt_http_date(SystemTime::now()))?;
    HeaderValue::from_str(&date).ok()
}

/// Runs a connection to its end, or until the clock is wrong.
pub async fn while_sane<T>(connection: impl Future<Output = T>) -> Option<T> {
    let mut connection = pin!(connection);
    std::future::poll_fn(|cx| if is_sane() { connection.as_mut().poll(cx).map(Some) } else { Poll::Ready(None) }).await
}

/// Tells a client why nothing can be answered.
pub async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    tracing::error!("the clock of this machine is before 1970 or after 9999: nothing can be answered until it is set");
    let answer = async {
        stream.write_all(REFUSAL.as_bytes()).await?;
        stream.shutdown().await?;
        // Else it could be lost, with what the client has sent and nobody read.
        tokio::io::copy(&mut (&mut stream).take(64 << 10), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), answer).await;
}
