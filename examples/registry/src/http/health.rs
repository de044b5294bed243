//! Health checks: whether the registry can do its work, for supervisors and load balancers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use strongroom::Error;
use tokio::sync::Mutex;

use super::Registry;

/// What was found holds for so long: however often it is asked for, the disk is written to once.
const FRESH: Duration = Duration::from_secs(1);

/// What was found last.
#[derive(Debug, Default)]
pub struct Health(Mutex<Option<(Instant, StatusCode, String)>>);

/// `GET /healthz`: 200 where the store can write, 503 with the reason where it cannot. A full disk is no such reason:
/// whoever restarts the registry for it would gain nothing, and pulling and deleting go on.
///
/// The store's own health, which takes no look at the disk, is told by `/metrics`; here the disk is what is asked for.
pub async fn show(State(registry): State<Arc<Registry>>) -> Response {
    let mut last = registry.health.0.lock().await;
    let found = match last.take().filter(|(when, ..)| when.elapsed() < FRESH) {
        Some(fresh) => fresh,
        None => {
            let (status, text) = probe(&registry).await;
            (Instant::now(), status, text)
        }
    };
    let (_, status, text) = last.insert(found).clone();
    (status, text).into_response()
}

async fn probe(registry: &Registry) -> (StatusCode, String) {
    let failed = |reason: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    match tokio::time::timeout(registry.limits.wait, registry.store.probe()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n".to_owned()),
        Ok(Err(Error::Full { .. })) => (StatusCode::OK, "ok, but the disk is full: nothing can be pushed\n".to_owned()),
        Ok(Err(error)) => {
            tracing::error!(%error, "the registry can't write");
            failed("the registry can't write: its log says why")
        }
        Err(_) => {
            tracing::error!("the disk does not answer");
            failed("the disk does not answer")
        }
    }
}
