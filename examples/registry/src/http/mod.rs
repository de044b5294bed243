//! The distribution API over HTTP.
//!
//! ```text
//! connections ─► observe ─► gate ─► router ─► route ─► blobs, uploads, manifests, lists ─► AsyncStore
//!  places, stop   log line,  what a            what the   one function an endpoint: calls of the store,
//!                 metrics    request must be   path names  their results as an answer; `failure` for errors
//! ```
//! What one client may take, of connections, time, memory and what it leaves unfinished, is in `limits`.

mod blobs;
mod body;
mod clock;
mod connections;
mod failure;
mod gate;
mod health;
pub mod limits;
mod lists;
mod manifests;
mod memory;
mod metrics;
mod observe;
mod patience;
mod peer;
mod query;
mod range;
mod route;
mod transport;
mod turns;
mod unfinished;
mod uploads;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use strongroom::aio::AsyncStore;
use strongroom::registry::{Repository, RepositoryName, RepositorySettings};
use strongroom::{Error, Result, Store};
use tokio::net::TcpListener;

use body::{Incoming, Kind};
use connections::Places;
use failure::Failure;
pub use gate::Admission;
use health::Health;
use limits::Limits;
use memory::Memory;
use metrics::Metrics;
use peer::{Client, Peer};
use query::Query;
use route::Route;
use turns::Turns;
use unfinished::Unfinished;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How a registry behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    pub creation: Creation,
    pub indexes: Indexes,
    pub admission: Admission,
    /// The addresses of proxies, which are many clients, and say which.
    pub proxies: Vec<IpAddr>,
    pub limits: Limits,
    /// Counts lines of the log that were lost, since nobody took them.
    pub lost_lines: Arc<AtomicU64>,
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

/// What all requests share.
#[derive(Debug)]
pub struct Registry {
    store: AsyncStore,
    creation: Creation,
    indexes: Indexes,
    admission: Admission,
    limits: Limits,
    metrics: Metrics,
    lost_lines: Arc<AtomicU64>,
    health: Health,
    memory: Memory,
    places: Arc<Places>,
    unfinished: Unfinished,
    /// For calls that may write, for those that only read, and for those of them that look at much.
    turns: Turns,
    read_turns: Turns,
    long_turns: Turns,
}

/// How many calls run at once, and as many that only read. Commits that wait at the same time share a sync, so more
/// than there are cores help.
const TURNS: usize = 64;

/// How many of them one client has.
const TURNS_OF_ONE: usize = 48;

/// How many may look at much: pages of referrers.
const LONG_TURNS: usize = 1;

/// Who asks.
#[derive(Clone, Debug)]
struct Caller {
    peer: Arc<Peer>,
    client: Client,
}

impl Registry {
    pub fn new(store: AsyncStore, settings: Settings) -> Self {
        let places = Arc::new(Places::default());
        Self {
            store,
            creation: settings.creation,
            indexes: settings.indexes,
            admission: settings.admission,
            limits: settings.limits,
            metrics: Metrics::default(),
            lost_lines: settings.lost_lines,
            health: Health::default(),
            memory: Memory::new(Arc::clone(&places), &settings.limits),
            places,
            unfinished: Unfinished::default(),
            turns: Turns::new(TURNS, TURNS_OF_ONE, settings.limits.wait),
            read_turns: Turns::new(TURNS, TURNS_OF_ONE, settings.limits.wait),
            long_turns: Turns::new(LONG_TURNS, LONG_TURNS, settings.limits.wait),
        }
    }

    /// The store, for calls that may write, when a client's turn has come. They hold the turn, also when the client is
    /// gone and they run on.
    async fn writing(&self, caller: &Caller) -> Result<AsyncStore, Failure> {
        Ok(self.store.holding(self.turns.take(caller.client).await?))
    }

    /// The store, for calls that only read, when a client's turn has come. They do not wait for others that write,
    /// whatever those wait for.
    async fn reading(&self, caller: &Caller) -> Result<AsyncStore, Failure> {
        Ok(self.store.holding(self.read_turns.take(caller.client).await?))
    }

    /// Does something to the repository that somebody pushes to.
    fn push<T>(
        &self,
        store: &Store,
        name: &RepositoryName,
        client: Client,
        mut work: impl FnMut(&Repository) -> Result<T>,
    ) -> Result<T, Failure> {
        let mut again = 0..3;
        loop {
            match work(&self.pushed_to(store, name, client)?) {
                // A collection has just deleted it, since no push to it was completed: this one creates it anew.
                Err(Error::RepositoryNotFound { .. })
                    if self.creation == Creation::OnPush && again.next().is_some() => {}
                other => return Ok(other?),
            }
        }
    }

    fn pushed_to(&self, store: &Store, name: &RepositoryName, client: Client) -> Result<Repository, Failure> {
        match (store.repository(name), self.creation) {
            (Err(Error::RepositoryNotFound { .. }), Creation::OnPush) => {
                self.unfinished.create_repository(client, name, &self.limits)?;
                let created = store.create_on_push(name, RepositorySettings::new());
                if created.is_err() {
                    self.unfinished.repository_settled(name);
                }
                Ok(created?)
            }
            (found, _) => Ok(found?),
        }
    }

    /// A body that is to be received.
    fn incoming(&self, body: Body, kind: Kind, caller: &Caller) -> Incoming {
        Incoming::new(body, kind, &caller.peer, &self.limits)
    }
}

/// Serves until `stop`. Requests under way may end then, for as long as the limits say.
pub async fn serve(store: AsyncStore, settings: Settings, listener: TcpListener, stop: impl Future<Output = ()>) {
    let (limits, proxies) = (settings.limits, settings.proxies.clone());
    let registry = Arc::new(Registry::new(store, settings));
    let sweeper = tokio::spawn(sweep(Arc::clone(&registry)));
    let places = Arc::clone(&registry.places);
    connections::serve(listener, router(registry), places, &proxies, limits, stop).await;
    sweeper.abort();
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
        .route(gate::METRICS, get(metrics::show))
        .route(gate::HEALTH, get(health::show))
        .fallback(distribution)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&registry), gate::gate))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&registry), observe::observe))
        .with_state(registry)
}

/// The distribution API. Names have slashes, so what the path means is found from its end: [`Route`].
async fn distribution(
    State(registry): State<Arc<Registry>>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Response {
    let caller = Caller { client: peer.client_of(request.headers()), peer };
    let mut response = answer(&registry, &caller, request).await.unwrap_or_else(Failure::into_response);
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}

async fn answer(registry: &Arc<Registry>, caller: &Caller, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let (headers, query) = (&parts.headers, Query::of(&parts.uri)?);
    let route = Route::parse(parts.uri.path())?;
    let allowed = route.methods();
    match (route, parts.method) {
        (Route::Version, Method::GET | Method::HEAD) => Ok(json("{}".to_owned())),
        (Route::Catalog, Method::GET) => lists::catalog(registry, caller, &query).await,
        (Route::Tags(name), Method::GET) => lists::tags(registry, caller, name, &query).await,
        (Route::Referrers(name, subject), Method::GET) => {
            lists::referrers(registry, caller, name, subject, &query).await
        }
        (Route::Blob(name, digest), Method::GET) => blobs::get(registry, caller, name, digest, headers).await,
        (Route::Blob(name, digest), Method::HEAD) => blobs::head(registry, caller, name, digest).await,
        (Route::Blob(name, digest), Method::DELETE) => blobs::delete(registry, caller, name, digest).await,
        (Route::Uploads(name), Method::POST) => uploads::begin(registry, caller, name, &query, body).await,
        (Route::Upload(name, id), Method::GET) => uploads::status(registry, caller, name, id).await,
        (Route::Upload(name, id), Method::PATCH) => uploads::append(registry, caller, name, id, headers, body).await,
        (Route::Upload(name, id), Method::PUT) => {
            uploads::finish(registry, caller, name, id, &query, headers, body).await
        }
        (Route::Upload(name, id), Method::DELETE) => uploads::cancel(registry, caller, name, id).await,
        (Route::Manifest(name, reference), Method::GET) => manifests::get(registry, caller, name, reference).await,
        (Route::Manifest(name, reference), Method::HEAD) => manifests::head(registry, caller, name, reference).await,
        (Route::Manifest(name, reference), Method::PUT) => {
            manifests::put(registry, caller, name, reference, &query, headers, body).await
        }
        (Route::Manifest(name, reference), Method::DELETE) => {
            manifests::delete(registry, caller, name, reference).await
        }
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
