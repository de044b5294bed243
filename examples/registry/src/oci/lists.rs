//! Lists, a page at a time: repositories, tags, referrers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::HeaderName;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::json;
use strongroom::registry::{Referrer, RepositoryName};
use strongroom::{Digest, Error, Store};

use super::query::Query;
use crate::access::{Denied, Reads};
use crate::http::failure::{Code, Failure};
use crate::http::limits::{REFERRERS_MEMORY, UNCOUNTED};
use crate::http::memory::{Held, keeping};
use crate::http::{Caller, Registry, json};

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The most entries of a page.
const MAX_ENTRIES: usize = 1000;

/// The most bytes of a page of names: what no memory has to be counted for.
const MAX_NAMES_LEN: usize = UNCOUNTED - 1024;

/// After so many repositories, and after so long, a page ends, whatever is in it: rights on each were looked at, and
/// each has a policy that may be slow.
const MAX_LOOKED_AT: usize = 5000;
const MAX_LOOKING: Duration = Duration::from_secs(1);

/// What the place behind a repository begins with, where its name is not told: no name begins so.
const PLACE: char = '~';

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

    /// A list that was read with one entry more than the page has, as the page and perhaps the way to the next. A page
    /// of long names has fewer of them.
    fn cut(&self, path: &str, mut entries: Vec<String>) -> (Vec<String>, Option<(HeaderName, String)>) {
        let read = entries.len();
        let mut len = 0;
        let fits = |entry: &&String| {
            len += entry.len() + 3;
            len <= MAX_NAMES_LEN
        };
        let count = entries.iter().take(self.len).take_while(fits).count();
        entries.truncate(count);
        let last = entries.last().filter(|_| count < read);
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

/// The repositories that who asks may see. A page may have fewer than it could, where most are not for them to see.
pub async fn catalog(registry: &Arc<Registry>, caller: &Caller, query: &Query) -> Result<Response, Failure> {
    let page = Page::of(query)?;
    let (own, by, len) = (Arc::clone(registry), caller.clone(), page.len);
    let after = match page.after.as_deref() {
        Some(last) if last.starts_with(PLACE) => {
            let name = registry.auth.name_before(last.trim_start_matches(PLACE));
            Some(name.ok_or_else(|| Failure::bad_query("last is no place of this list: begin anew".to_owned()))?)
        }
        last => last.map(str::to_owned),
    };
    let list = move |store: &Store| {
        let access = own.access(store, &by);
        let (mut seen, mut after, mut looked_at, begun) = (Vec::new(), after, 0, Instant::now());
        loop {
            let found = store.repositories(after.as_deref(), len + 1)?;
            looked_at += found.items.len();
            for name in &found.items {
                match access.check_stored(&["DescribeRepositories"], name, Reads::Yes) {
                    Ok(()) => seen.push(name.to_string()),
                    Err(Denied::Refused(_)) => {}
                    Err(error) => return Err(Failure::from(error)),
                }
                if begun.elapsed() > MAX_LOOKING {
                    return Ok((seen, Some(name.to_string())));
                }
            }
            after = found.next;
            if after.is_none() || seen.len() > len || looked_at > MAX_LOOKED_AT {
                return Ok((seen, after));
            }
        }
    };
    let (names, more) = registry.reading(caller).await?.read(list).await?;
    let (names, link) = page.cut("/v2/_catalog", names);
    // What was looked at last need not be for who asks to see. Pages of no names would lead on and on.
    let link = match (link, more) {
        (None, Some(last)) if len > 0 => {
            let place = registry.auth.place(&last).map_err(|error| {
                tracing::error!(%error, "no place of a list can be told");
                Failure::busy()
            })?;
            Some(next("/v2/_catalog", &[("n", &len.to_string()), ("last", &format!("{PLACE}{place}"))]))
        }
        (link, _) => link,
    };
    Ok((AppendHeaders(link), json(json!({ "repositories": names }).to_string())).into_response())
}

pub async fn tags(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    query: &Query,
) -> Result<Response, Failure> {
    let page = Page::of(query)?;
    let (after, most, own) = (page.after.clone(), page.len + 1, name.clone());
    let list = move |store: &Store| store.repository(&own)?.tags(after.as_deref(), most);
    let tags = registry.reading(caller).await?.read(list).await?.items;
    let (tags, link) = page.cut(&format!("/v2/{name}/tags/list"), tags.iter().map(ToString::to_string).collect());
    let document = json!({ "name": name.as_str(), "tags": tags });
    Ok((AppendHeaders(link), json(document.to_string())).into_response())
}

/// The manifests whose subject is a digest, be it there or not: an image index of them, perhaps empty. A 404 would tell
/// clients that there is no such endpoint, so there is none for an unknown repository either.
///
/// A page costs what [`Repository::referrers`](strongroom::registry::Repository::referrers) says, however many there
/// are of another type.
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
    let mut held: Option<Held> = None;
    let (last, document) = loop {
        // One page at a time: that is where most memory is needed, and most is done.
        let turn = registry.long_turns.take(caller.client).await?;
        let work = registry.memory.work(REFERRERS_MEMORY).await?;
        let page = match registry.reading(caller).await?.repository(&name).await {
            Err(Error::RepositoryNotFound { .. }) => strongroom::Page::default(),
            repository => repository?.referrers(&subject, filter.as_deref(), after.as_ref(), MAX_ENTRIES).await?,
        };
        let manifests = page.items.iter().map(Descriptor::from).collect();
        let index = ImageIndex { schema_version: 2, media_type: INDEX, manifests };
        let document = serde_json::to_string(&index).unwrap_or_default(); // texts and numbers can be written
        let needed = if document.len() > UNCOUNTED { document.len() } else { 0 };
        if held.as_ref().map_or(0, Held::bytes) < needed {
            drop(held.take());
            held = registry.memory.keep_now(needed, caller);
        }
        if needed == 0 || held.is_some() {
            break (page.next, document);
        }
        // Nobody else waits for his turn, and nothing is held, while this one waits for memory.
        drop((document, page, work, turn));
        held = Some(registry.memory.keep(needed, caller).await?);
    };
    let link = last.map(|last| {
        let path = format!("/v2/{name}/referrers/{subject}");
        let kind = filter.as_deref().map(|kind| ("artifactType", kind));
        next(&path, &kind.into_iter().chain([("last", last.to_string().as_str())]).collect::<Vec<_>>())
    });
    let applied = filter.is_some().then(|| (OCI_FILTERS_APPLIED, "artifactType".to_owned()));
    let headers = AppendHeaders(link.into_iter().chain(applied).collect::<Vec<_>>());
    Ok(([(CONTENT_TYPE, INDEX)], headers, keeping(Body::from(document), held)).into_response())
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
