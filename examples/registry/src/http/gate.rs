//! What every request has to be like before it is looked at.
//!
//! | what | answer |
//! |---|---|
//! | there is no place for the connection, and it is no probe | 503, to try again |
//! | a head of more than 32 KiB | 431 |
//! | HTTP/1.1 without `Host`, or with several | 400 |
//! | a `Host` that is not among those that were given | 421 |
//! | a path that does not stand as it is meant: `%2F`, `%76`, an empty part | 400 |
//! | a write that a page of another origin has a browser send | 403 |
//! | `OPTIONS` | 204 with `Allow`; nothing is allowed to other origins but those that were given |

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONNECTION, DATE, HOST, ORIGIN, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;

use super::failure::{Code, Failure};
use super::peer::Peer;
use super::{Registry, clock, empty};
use crate::oci::Route;

/// Where probes ask.
pub const HEALTH: &str = "/healthz";
pub const METRICS: &str = "/metrics";

/// The longest head of a request, in bytes: it is held until the request ends.
const MAX_HEAD: usize = 32 << 10;

/// Who may ask from where.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// The names under which the registry is reached, with their ports; any, where there is none.
    pub hosts: Vec<String>,
    /// The origins whose pages may read and write, as browsers write them.
    pub origins: Vec<String>,
}

pub async fn gate(State(registry): State<Arc<Registry>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).filter(|origin| registry.admission.allows(origin)).cloned();
    let mut response = match registry.admission.check(&request) {
        Ok(()) if request.method() == Method::OPTIONS => options(request.uri()),
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.extend(clock::date().map(|date| (DATE, date)));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// What can be done with a path.
fn options(uri: &Uri) -> Response {
    let methods = Route::parse(uri.path()).map_or("GET, HEAD", |route| route.methods());
    let methods = format!("{methods}, OPTIONS");
    empty(StatusCode::NO_CONTENT, [(ALLOW, methods.clone()), (ACCESS_CONTROL_ALLOW_METHODS, methods)])
}

impl Admission {
    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    fn check(&self, request: &Request) -> Result<(), Failure> {
        let is_probe = matches!(request.uri().path(), HEALTH | METRICS);
        let is_surplus = request.extensions().get::<Arc<Peer>>().is_some_and(|peer| peer.is_surplus);
        if is_surplus && !is_probe {
            return Err(Failure::busy().header(CONNECTION, "close".to_owned()));
        }
        if head_len(request) > MAX_HEAD {
            let message = format!("a request's head has at most {MAX_HEAD} bytes");
            return Err(Failure::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Code::Unsupported, message));
        }
        let host = host(request)?;
        let is_known = |host: &str| self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
        if !self.hosts.is_empty() && !is_probe && !host.as_deref().is_some_and(is_known) {
            let message = "this registry is not reached under that name";
            return Err(Failure::new(StatusCode::MISDIRECTED_REQUEST, Code::Denied, message));
        }
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if !is_read && self.is_of_another_origin(request.headers(), host.as_deref()) {
            let message = "a page of another origin may not write here";
            return Err(Failure::new(StatusCode::FORBIDDEN, Code::Denied, message));
        }
        Ok(())
    }

    /// Whether a browser sends a request for a page that does not come from here. Other clients send none of these
    /// headers.
    fn is_of_another_origin(&self, headers: &HeaderMap, host: Option<&str>) -> bool {
        if let Some(origin) = headers.get(ORIGIN) {
            let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
            return own.is_none_or(|own| Some(own) != host) && !self.allows(origin);
        }
        let site = headers.get("sec-fetch-site");
        site.is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
    }
}

/// How long a request's head is, in bytes, but for what stands between its parts.
fn head_len(request: &Request) -> usize {
    let (method, uri) = (request.method().as_str(), request.uri());
    let uri = uri.path().len() + uri.query().map_or(0, str::len) + uri.authority().map_or(0, |one| one.as_str().len());
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    method.len() + uri + headers.sum::<usize>()
}

/// The name under which a request reaches the registry, in lower case; none in HTTP/1.0, which need not say it.
fn host(request: &Request) -> Result<Option<String>, Failure> {
    let bad = |message: &str| Failure::bad_request(Code::Unsupported, message);
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().filter(|host| host.is_empty() || host.parse::<Authority>().is_ok()),
        (None, _) if request.version() < Version::HTTP_11 => return Ok(None),
        (None, _) => return Err(bad("the header Host is missing")),
        (Some(_), Some(_)) => return Err(bad("there is more than one header Host")),
    };
    let host = host.ok_or_else(|| bad("the header Host is no name or address"))?;
    let host = request.uri().authority().map_or(host, Authority::as_str);
    Ok(Some(host.to_ascii_lowercase()))
}
