//! The distribution API, as the OCI distribution specification 1.1 has it: what a path names, and one function an
//! endpoint, which calls the store and answers with what it says.

pub mod blobs;
mod lists;
mod manifests;
mod query;
mod range;
mod rights;
mod route;
mod uploads;

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::HeaderValue;
use axum::http::request::Parts;
use axum::http::{HeaderName, Method};
use axum::response::{IntoResponse, Response};

use strongroom::Store;

use crate::access::{DOWNLOAD, Denied};
use crate::auth::Identity;
use crate::auth::challenge::{Challenge, TOKEN_PATH};
use crate::http::failure::Failure;
use crate::http::peer::Peer;
use crate::http::{Caller, Registry, json};
use query::Query;
pub use route::Route;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Answers a request of the distribution API. Names have slashes, so what the path means is found from its end:
/// [`Route`].
pub async fn answer(
    State(registry): State<Arc<Registry>>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Response {
    let (asked, (parts, body)) = (Instant::now(), request.into_parts());
    if parts.uri.path() == TOKEN_PATH && parts.method == Method::GET {
        return match registry.auth.bearer(&parts) {
            Ok(token) => json(token.to_string()),
            Err(challenge) => {
                registry.refusal(asked).await;
                challenge.into_response()
            }
        };
    }
    let mut response = match registry.auth.of_oci(&parts) {
        Ok(identity) => {
            let caller = Caller::new(peer, &parts, identity);
            let answer = route(&registry, &caller, parts, body).await;
            answer.unwrap_or_else(IntoResponse::into_response)
        }
        Err(challenge) => {
            registry.refusal(asked).await;
            challenge.into_response()
        }
    };
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}

/// Whether who asks may do what a request comes to, or is to log in first. Nothing was looked up yet.
async fn check_rights(
    registry: &Arc<Registry>,
    caller: &Caller,
    route: &Route,
    parts: &Parts,
    query: &Query,
) -> Result<Option<Challenge>, Failure> {
    if matches!(caller.asker.identity, Identity::Open) || is_given(registry, route, parts, query) {
        return Ok(None);
    }
    let asked = Instant::now();
    let checked = match rights::need(route, &parts.method) {
        Some(need) => {
            let (own, by, name) = (Arc::clone(registry), caller.clone(), need.repository.clone());
            let check = move |store: &Store| own.access(store, &by).check_stored(need.actions, &name, need.reads);
            let checked = registry.reading(caller).await?.read(check).await;
            if checked.is_err() {
                registry.refusal(asked).await;
            }
            checked
        }
        // Clients find out here whether and how to log in.
        None if *route == Route::Version && matches!(caller.asker.identity, Identity::Anonymous) => {
            Err(Denied::Refused("who asks has to say who they are".to_owned()))
        }
        None => Ok(()),
    };
    match checked {
        Err(Denied::Refused(_)) if matches!(caller.asker.identity, Identity::Anonymous) => {
            Ok(Some(registry.auth.challenge(parts)))
        }
        other => Ok(other.map(|()| None)?),
    }
}

/// Whether the address of a blob has a token by which it may be read: see `GetDownloadUrlForLayer`.
fn is_given(registry: &Registry, route: &Route, parts: &Parts, query: &Query) -> bool {
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    match (route, query.get(DOWNLOAD)) {
        (Route::Blob(name, digest), Some(token)) if is_read => {
            registry.auth.may_download(token, name.as_str(), &digest.to_string())
        }
        _ => false,
    }
}

async fn route(registry: &Arc<Registry>, caller: &Caller, parts: Parts, body: Body) -> Result<Response, Failure> {
    let (headers, query) = (&parts.headers, Query::of(&parts.uri)?);
    let route = Route::parse(parts.uri.path())?;
    if let Some(challenge) = check_rights(registry, caller, &route, &parts, &query).await? {
        return Ok(challenge.into_response());
    }
    let allowed = route.methods();
    match (route, parts.method.clone()) {
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
