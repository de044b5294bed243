//! The distribution API over HTTP.
//!
//! ```text
//! connections ─► observe ─► router ─► route ─► blobs, uploads, manifests, lists ─► AsyncStore
//!  limits, stop   log line,            what the   one function an endpoint: a call of the store,
//!                 metrics              path names  its result as an answer; `failure` for its errors
//! ```

mod blobs;
pub mod connections;
mod failure;
mod lists;
mod manifests;
mod metrics;
mod observe;
mod query;
mod range;
mod route;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use strongroom::registry::{Repository, RepositoryName, RepositorySettings};
use strongroom::tokio::AsyncStore;
use strongroom::{Result, Store};

use failure::Failure;
use metrics::Metrics;
use query::Query;
use route::Route;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What all requests share.
#[derive(Debug)]
pub struct Registry {
    store: AsyncStore,
    creation: Creation,
    indexes: Indexes,
    metrics: Metrics,
}

/// Whether an index may be pushed before what it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexes {
    /// It may not.
    Whole,
    /// It may: what is missing may come later, or never.
    Sparse,
}

/// When repositories come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// When something is pushed to them.
    OnPush,
    /// Not by requests.
    Never,
}

impl Creation {
    /// The repository that something is pushed to.
    fn repository<'a>(self, store: &'a Store, name: &RepositoryName) -> Result<Repository<'a>> {
        match self {
            Self::OnPush => store.create_on_push(name, RepositorySettings::new()),
            Self::Never => store.repository(name),
        }
    }
}

impl Registry {
    pub fn new(store: AsyncStore, creation: Creation, indexes: Indexes) -> Self {
        Self { store, creation, indexes, metrics: Metrics::default() }
    }
}

/// All that is answered, with metrics and a log line for each.
pub fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/metrics", get(metrics::show))
        .route("/healthz", get(health))
        .fallback(distribution)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&registry), observe::observe))
        .with_state(registry)
}

/// Whether the store can write: after a failed sync it reads only, until it is opened again.
async fn health(State(registry): State<Arc<Registry>>) -> Response {
    match registry.store.call(Store::sync).await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// The distribution API. Names have slashes, so what the path means is found from its end: [`Route`].
async fn distribution(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let mut response = answer(&registry, request).await.unwrap_or_else(Failure::into_response);
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}

async fn answer(registry: &Registry, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let (headers, query) = (&parts.headers, Query::of(&parts.uri)?);
    let route = Route::parse(parts.uri.path())?;
    let allowed = route.methods();
    match (route, parts.method) {
        (Route::Version, Method::GET | Method::HEAD) => Ok(json("{}".to_owned())),
        (Route::Catalog, Method::GET) => lists::catalog(registry, &query).await,
        (Route::Tags(name), Method::GET) => lists::tags(registry, name, &query).await,
        (Route::Referrers(name, subject), Method::GET) => lists::referrers(registry, name, subject, &query).await,
        (Route::Blob(name, digest), Method::GET) => blobs::get(registry, name, digest, headers).await,
        (Route::Blob(name, digest), Method::HEAD) => blobs::head(registry, name, digest).await,
        (Route::Blob(name, digest), Method::DELETE) => blobs::delete(registry, name, digest).await,
        (Route::Uploads(name), Method::POST) => uploads::begin(registry, name, &query, body).await,
        (Route::Upload(name, id), Method::GET) => uploads::status(registry, name, id).await,
        (Route::Upload(name, id), Method::PATCH) => uploads::append(registry, name, id, headers, body).await,
        (Route::Upload(name, id), Method::PUT) => uploads::finish(registry, name, id, &query, headers, body).await,
        (Route::Upload(name, id), Method::DELETE) => uploads::cancel(registry, name, id).await,
        (Route::Manifest(name, reference), Method::GET) => manifests::get(registry, name, reference).await,
        (Route::Manifest(name, reference), Method::HEAD) => manifests::head(registry, name, reference).await,
        (Route::Manifest(name, reference), Method::PUT) => {
            manifests::put(registry, name, reference, &query, headers, body).await
        }
        (Route::Manifest(name, reference), Method::DELETE) => manifests::delete(registry, name, reference).await,
        _ => Err(Failure::method_not_allowed(allowed)),
    }
}

/// An answer without a body.
fn empty<const N: usize>(status: StatusCode, headers: [(HeaderName, String); N]) -> Response {
    (status, headers).into_response()
}

fn json(document: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], Body::from(document)).into_response()
}
