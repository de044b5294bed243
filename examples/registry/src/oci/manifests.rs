//! Pulling, pushing and deleting manifests and tags.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use strongroom::registry::{ExpectTag, PutManifest, Reference, RepositoryName, StorageClass, Tag};
use strongroom::{Error, Store};

use super::DOCKER_CONTENT_DIGEST;
use super::query::Query;
use crate::access::pull_manifest;
use crate::http::body::Kind;
use crate::http::failure::{Code, Failure};
use crate::http::limits::UNCOUNTED;
use crate::http::memory::keeping;
use crate::http::{Caller, Indexes, Registry, empty};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// The longest manifest, in bytes: what the specification wants registries to take at least.
const MAX_LEN: usize = 4 << 20;

/// More tags than that in one request are refused.
const MAX_TAGS: usize = 100;

pub async fn get(
    registry: &Arc<Registry>,
    caller: &Caller,
    name: RepositoryName,
    reference: Reference,
) -> Result<Response, Failure> {
    let mut held = None;
    let manifest = loop {
        let (own, by, is_held) = (Arc::clone(registry), caller.clone(), held.is_some());
        let (name, reference) = (name.clone(), reference.clone());
        let pull = move |store: &Store| {
            let repository = store.repository(&name)?;
            if !is_held
                && let len @ UNCOUNTED.. = usize::try_from(repository.manifest_info(&reference)?.len).unwrap_or(MAX_LEN)
            {
                return Ok(Err(len)); // memory may have to be waited for, without a turn
            }
            let counts = own.access(store, &by).counts_pulls();
            Ok::<_, Failure>(Ok(pull_manifest(&repository, &reference, counts)?))
        };
        match registry.reading(caller).await?.read(pull).await? {
            Ok(manifest) => break manifest,
            Err(len) => held = Some(registry.memory.keep(len, caller).await?),
        }
    };
    let digest = manifest.digest;
    let headers = [
        (CONTENT_TYPE, manifest.media_type),
        (DOCKER_CONTENT_DIGEST, digest.to_string()),
        (ETAG, format!("\"{digest}\"")),
    ];
    Ok((headers, keeping(Body::from(manifest.content), held)).into_response())
}

/// Does not count as a pull. One whose document is known to be damaged, or that is archived, is not said to be there:
/// it can't be pulled, and whoever has it pushes it again, which repairs or restores it.
pub async fn head(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    reference: Reference,
) -> Result<Response, Failure> {
    let asked = reference.to_string();
    let find = move |store: &Store| store.repository(&name)?.manifest_info(&reference);
    let manifest = registry.reading(caller).await?.read(find).await?;
    if manifest.damaged || manifest.storage_class == StorageClass::Archive {
        return Err(Error::ManifestNotFound { reference: asked }.into());
    }
    let headers = [
        (CONTENT_TYPE, manifest.media_type),
        (CONTENT_LENGTH, manifest.len.to_string()),
        (DOCKER_CONTENT_DIGEST, manifest.digest.to_string()),
        (ETAG, format!("\"{}\"", manifest.digest)),
    ];
    Ok(empty(StatusCode::OK, headers))
}

/// Pushes by tag, or by digest and perhaps with tags: `?tag=` for each. `If-Match` with the digest of what a tag points
/// to, and `If-None-Match: *`, make moving it depend on that.
pub async fn put(
    registry: &Arc<Registry>,
    caller: &Caller,
    name: RepositoryName,
    reference: Reference,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let mut put = PutManifest::new(media_type(headers)?).expect_tag(expected_tag(headers)?);
    if registry.indexes == Indexes::Sparse {
        put = put.allow_missing_manifests();
    }
    let mut tags = Vec::new();
    match reference {
        Reference::Tag(tag) => tags.push(tag),
        Reference::Digest(digest) => {
            put = put.expect(digest);
            for tag in query.all("tag") {
                tags.push(tag.parse::<Tag>()?);
            }
        }
    }
    if tags.len() > MAX_TAGS {
        let message = format!("{} tags, more than the limit of {MAX_TAGS}", tags.len());
        return Err(Failure::new(StatusCode::URI_TOO_LONG, Code::Unsupported, message));
    }
    for tag in &tags {
        put = put.tag(tag.clone());
    }
    let (content, _held) = registry.whole(body, Kind::Manifest, MAX_LEN, caller).await?;
    let _work = match content.len() {
        ..=UNCOUNTED => None,
        len => Some(registry.memory.work(3 * len).await?), // it is parsed, compressed and framed
    };
    let (own, to, by) = (Arc::clone(registry), name.clone(), caller.clone());
    let push = move |store: &Store| {
        let pushed = own.push(store, &to, &by, |repository| repository.put_manifest(&content, put.clone()))?;
        own.unfinished.repository_settled(&to);
        Ok::<_, Failure>(pushed)
    };
    let pushed = registry.writing(caller).await?.call(push).await?;
    let headers = [
        (LOCATION, format!("/v2/{name}/manifests/{}", pushed.digest)),
        (DOCKER_CONTENT_DIGEST, pushed.digest.to_string()),
    ];
    let subject = pushed.subject.map(|subject| (OCI_SUBJECT, subject.to_string()));
    let tags = tags.into_iter().map(|tag| (OCI_TAG, tag.to_string()));
    let more = AppendHeaders(subject.into_iter().chain(tags).collect::<Vec<_>>());
    Ok((StatusCode::CREATED, headers, more).into_response())
}

/// By tag, the tag is removed; by digest, the manifest with all its tags.
pub async fn delete(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    reference: Reference,
) -> Result<Response, Failure> {
    let delete = move |store: &Store| match reference {
        Reference::Tag(tag) => store.repository(&name)?.untag(&tag),
        Reference::Digest(digest) => store.repository(&name)?.delete_manifest(&digest),
    };
    registry.writing(caller).await?.call(delete).await?;
    Ok(empty(StatusCode::ACCEPTED, []))
}

/// The media type, without parameters.
fn media_type(headers: &HeaderMap) -> Result<String, Failure> {
    let given = headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    match given.split(';').next().unwrap_or_default().trim() {
        "" => Err(Failure::bad_request(Code::ManifestInvalid, "Content-Type must be the manifest's media type")),
        media_type => Ok(media_type.to_owned()),
    }
}

/// What the headers say that a tag must point to.
fn expected_tag(headers: &HeaderMap) -> Result<ExpectTag, Failure> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(ExpectTag::Any),
        (None, Some("*")) => Ok(ExpectTag::Absent),
        (Some(tag), None) => Ok(ExpectTag::Is(tag.trim_matches('"').parse()?)),
        _ => Err(Failure::bad_request(Code::Unsupported, "either If-Match with one digest, or If-None-Match with *")),
    }
}
