//! Pulling and deleting blobs.

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use strongroom::registry::RepositoryName;
use strongroom::{Damage, Digest, Error, Store};

use super::DOCKER_CONTENT_DIGEST;
use super::range::Wanted;
use crate::http::failure::Failure;
use crate::http::limits::UNCOUNTED;
use crate::http::memory::keeping;
use crate::http::{Caller, Registry, empty};

/// Streams a blob, or a part of it. Damage that is found after the first piece cuts the answer off.
pub async fn get(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    digest: Digest,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let wanted = Wanted::of(headers, &digest);
    let open = move |store: &Store| store.repository(&name)?.get(&digest);
    let blob = registry.reading(caller).await?.open_blob(open).await?;
    let range = wanted.within(blob.len())?;
    // What takes memory is read when there is some.
    let held = match usize::try_from(blob.blocking().memory(&range)).unwrap_or(usize::MAX) {
        ..=UNCOUNTED => None,
        bytes => Some(registry.memory.keep(bytes, caller).await?),
    };
    let turn = registry.read_turns.take(caller.client).await?;
    let content = blob.open_stream(range.clone()).await?;
    drop(turn);
    let headers = described(&digest, content.remaining());
    let body = keeping(Body::from_stream(content), held);
    if wanted == Wanted::All {
        return Ok((headers, body).into_response());
    }
    let range = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), blob.len());
    Ok((StatusCode::PARTIAL_CONTENT, headers, [(CONTENT_RANGE, range)], body).into_response())
}

/// Tells whether a blob is there. A client that is told so does not push it: so it is kept for the retention time. Of
/// one that is known to be damaged nobody is told so: who has it then pushes it, and that brings it back. (Who pulls it
/// is told that the registry has failed.)
pub async fn head(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    digest: Digest,
) -> Result<Response, Failure> {
    let claim = move |store: &Store| store.repository(&name)?.claim(&digest);
    let claimed = registry.writing(caller).await?.call(claim).await;
    let blob = claimed.map_err(|error| if is_known_damage(&error) { Error::BlobNotFound { digest } } else { error })?;
    Ok(empty(StatusCode::OK, described(&digest, blob.len)))
}

/// Whether content is known to be damaged, so that it has to be pushed again.
pub fn is_known_damage(error: &Error) -> bool {
    matches!(error, Error::Corrupt { damage: Damage::Known, .. })
}

/// What is said of a blob, of which so many bytes are sent.
fn described(digest: &Digest, len: u64) -> [(HeaderName, String); 5] {
    [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, len.to_string()),
        (DOCKER_CONTENT_DIGEST, digest.to_string()),
        (ETAG, format!("\"{digest}\"")),
        (ACCEPT_RANGES, "bytes".to_owned()),
    ]
}

pub async fn delete(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    digest: Digest,
) -> Result<Response, Failure> {
    let remove = move |store: &Store| store.repository(&name)?.remove_blob(&digest);
    registry.writing(caller).await?.call(remove).await?;
    Ok(empty(StatusCode::ACCEPTED, []))
}
