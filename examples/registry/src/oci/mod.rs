//! The distribution API, as the OCI distribution specification 1.1 has it: what a path names, and one function an
//! endpoint, which calls the store and answers with what it says.

mod blobs;
mod lists;
mod manifests;
mod query;
mod range;
mod route;
mod uploads;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::HeaderValue;
use axum::http::{HeaderName, Method};
use axum::response::{IntoResponse as _, Response};

use crate::http::failure::Failure;
use crate::http::peer::Peer;
use crate::http::{Caller, Registry, json};
use query::Query;
pub use route::Route;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The distribution API. Names have slashes, so what the path means is found from its end: [`Route`].
pub async fn answer(
    State(registry): State<Arc<Registry>>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Response {
    let caller = Caller { client: peer.client_of(request.headers()), peer };
    let mut response = route(&registry, &caller, request).await.unwrap_or_else(Failure::into_response);
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}

async fn route(registry: &Arc<Registry>, caller: &Caller, request: Request) -> Result<Response, Failure> {
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
