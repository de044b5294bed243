//! Lists, a page at a time: repositories, tags, referrers.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::HeaderName;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::json;
use strongroom::registry::{Referrer, Referrers, RepositoryName};
use strongroom::{Digest, Error, Store};

use super::failure::{Code, Failure};
use super::memory::{Held, keeping};
use super::query::Query;
use super::{Caller, Registry};

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The most entries of a page.
const MAX_ENTRIES: usize = 1000;

/// What a page of names takes in memory, at most and roughly, in bytes: 1,000 of 256 characters, as they are and as JSON.
const PAGE_MEMORY: usize = 768 << 10;

/// What a page of referrers takes: a document at a time, of up to 4 MiB, and annotations as they are and as JSON.
const REFERRERS_MEMORY: usize = 16 << 20;

/// What stays as it is in a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'/').remove(b':');

/// Which page is wanted.
struct Page {
    len: usize,
    /// The entry before it.
    after: Option<String>,
}

impl Page {
    fn of(query: &Query) -> Result<Self, Failure> {
        let len = query.parsed::<usize>("n", Code::Unsupported)?.unwrap_or(MAX_ENTRIES).min(MAX_ENTRIES);
        Ok(Self { len, after: query.get("last").filter(|last| !last.is_empty()).map(str::to_owned) })
    }

    /// A list that was read with one entry more than the page has, as the page and perhaps the way to the next.
    fn cut(&self, path: &str, mut entries: Vec<String>) -> (Vec<String>, Option<(HeaderName, String)>) {
        let is_last = entries.len() <= self.len;
        entries.truncate(self.len);
        let last = entries.last().filter(|_| !is_last);
        let link = last.map(|last| next(path, &[("n", &self.len.to_string()), ("last", last)]));
        (entries, link)
    }
}

/// The header that leads to the next page.
fn next(path: &str, query: &[(&str, &str)]) -> (HeaderName, String) {
    let encoded = |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, PLAIN));
    let query: Vec<String> = query.iter().map(encoded).collect();
    (LINK, format!("<{path}?{}>; rel=\"next\"", query.join("&")))
}

pub async fn catalog(registry: &Registry, caller: &Caller, query: &Query) -> Result<Response, Failure> {
    let page = Page::of(query)?;
    let held = registry.memory.hold(PAGE_MEMORY, &caller.peer).await?;
    let (after, limit) = (page.after.clone(), page.len + 1);
    let names = registry.call(move |store| Ok(store.repositories(after.as_deref(), limit)?)).await?;
    let (names, link) = page.cut("/v2/_catalog", names.iter().map(ToString::to_string).collect());
    Ok(answer("application/json", link, &json!({ "repositories": names }), held))
}

pub async fn tags(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    query: &Query,
) -> Result<Response, Failure> {
    let page = Page::of(query)?;
    let held = registry.memory.hold(PAGE_MEMORY, &caller.peer).await?;
    let (of, after, limit) = (name.clone(), page.after.clone(), page.len + 1);
    let tags = registry.call(move |store| Ok(store.repository(&of)?.tags(after.as_deref(), limit)?)).await?;
    let (tags, link) = page.cut(&format!("/v2/{name}/tags/list"), tags.iter().map(ToString::to_string).collect());
    Ok(answer("application/json", link, &json!({ "name": name.as_str(), "tags": tags }), held))
}

/// The manifests whose subject is a digest, be it there or not: an image index of them, perhaps empty. A 404 would tell clients
/// that there is no such endpoint, so there is none for an unknown repository either.
///
/// A page costs what [`Repository::referrers`](strongroom::registry::Repository::referrers) says, however many there are of another type.
pub async fn referrers(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    subject: Digest,
    query: &Query,
) -> Result<Response, Failure> {
    // A `+` that was not encoded has become a space, which no media type has.
    let filter = query.get("artifactType").filter(|kind| !kind.is_empty()).map(|kind| kind.replace(' ', "+"));
    let after = query.parsed::<Digest>("last", Code::DigestInvalid)?;
    let (of, artifact_type) = (name.clone(), filter.clone());
    let read = move |store: &Store| match store.repository(&of) {
        Err(Error::RepositoryNotFound { .. }) => Ok(Referrers::default()),
        repository => Ok(repository?.referrers(&subject, artifact_type.as_deref(), after.as_ref(), MAX_ENTRIES)?),
    };
    // One page at a time: that is where most memory is needed, and most is done.
    let turn = registry.turn(&registry.long_turns).await?;
    let held = registry.memory.hold(REFERRERS_MEMORY, &caller.peer).await?;
    let page = registry.call(read).await?;
    drop(turn);
    let link = page.next.map(|last| {
        let path = format!("/v2/{name}/referrers/{subject}");
        let kind = filter.as_deref().map(|kind| ("artifactType", kind));
        next(&path, &kind.into_iter().chain([("last", last.to_string().as_str())]).collect::<Vec<_>>())
    });
    let applied = filter.is_some().then(|| (OCI_FILTERS_APPLIED, "artifactType".to_owned()));
    let manifests = page.referrers.iter().map(Descriptor::from).collect();
    let index = ImageIndex { schema_version: 2, media_type: INDEX, manifests };
    Ok(answer(INDEX, link.into_iter().chain(applied), &index, held))
}

/// An answer that keeps the memory that it takes until it was sent.
fn answer(
    media_type: &'static str,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
    document: &impl Serialize,
    mut held: Held,
) -> Response {
    let document = serde_json::to_string(document).unwrap_or_default(); // texts and numbers can be written
    held.shrink(document.len());
    let headers = AppendHeaders(headers.into_iter().collect::<Vec<_>>());
    ([(CONTENT_TYPE, media_type)], headers, keeping(Body::from(document), Some(held))).into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageIndex<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a Referrer> for Descriptor<'a> {
    fn from(referrer: &'a Referrer) -> Self {
        Self {
            media_type: &referrer.media_type,
            digest: referrer.digest.to_string(),
            size: referrer.len,
            artifact_type: referrer.artifact_type.as_deref(),
            annotations: &referrer.annotations,
        }
    }
}
