//! The listener and what is behind it: which requests go to which API.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use strongroom::aio::AsyncStore;
use tokio::net::TcpListener;

use crate::http::{self, Registry, Settings};
use crate::{ecr, lifecycle, oci};

/// Serves until `stop`. Requests under way may end then, for as long as the limits say.
pub async fn serve(store: AsyncStore, settings: Settings, listener: TcpListener, stop: impl Future<Output = ()>) {
    let (limits, proxies) = (settings.limits, settings.proxies.clone());
    let registry = Arc::new(Registry::new(store, settings));
    let sweeper = tokio::spawn(sweep(Arc::clone(&registry)));
    let lifecycle = tokio::spawn(lifecycle::run(Arc::clone(&registry)));
    let auth = Arc::clone(&registry.auth);
    let watcher = tokio::spawn(async move { auth.watch().await });
    let places = Arc::clone(&registry.places);
    http::connections::serve(listener, router(registry), places, &proxies, limits, stop).await;
    for task in [sweeper, lifecycle, watcher] {
        task.abort();
    }
}

/// Gives up now and then what clients have begun and do not finish.
async fn sweep(registry: Arc<Registry>) {
    loop {
        tokio::time::sleep(registry.limits.begun / 10).await;
        let own = Arc::clone(&registry);
        let swept = registry.store.call(move |store| own.unfinished.sweep(store, &own.limits)).await;
        if let Err(error) = swept {
            tracing::warn!(%error, "cannot give up what is not finished");
        }
    }
}

/// All that is answered, with metrics and a log line for each.
fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route(http::gate::METRICS, get(http::metrics::show))
        .route(http::gate::HEALTH, get(http::health::show))
        .route("/", post(ecr::answer).fallback(oci::answer))
        .route(ecr::public::LOGOS_PATH, get(ecr::public::logo))
        .fallback(oci::answer)
        .layer(from_fn_with_state(Arc::clone(&registry), http::gate::gate))
        .layer(from_fn_with_state(Arc::clone(&registry), http::observe::observe))
        .with_state(registry)
}
