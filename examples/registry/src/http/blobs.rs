//! Pulling and deleting blobs.

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use strongroom::registry::RepositoryName;
use strongroom::{Damage, Digest, Error, Store};

use super::failure::Failure;
use super::limits::UNCOUNTED;
use super::memory::keeping;
use super::range::Wanted;
use super::{Caller, DOCKER_CONTENT_DIGEST, Registry, empty};

/// Streams a blob, or a part of it. Damage that is found after the first piece cuts the answer off.
pub async fn get(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    digest: Digest,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let wanted = Wanted::of(headers, &digest);
    let open = move |store: &Store| {
        let blob = store.repository(&name)?.get(&digest)?;
        let range = wanted.within(blob.len())?;
        // What takes memory is read when there is some.
        let first = if blob.memory(&range) > UNCOUNTED as u64 { range.start..range.start } else { range };
        Ok((blob, first))
    };
    let turn = registry.read_turns.take(caller.client).await?;
    let mut content = registry.store.open(open).await?;
    drop(turn); // memory may have to be waited for
    let range = wanted.within(content.blob_len())?;
    let mut held = None;
    if content.range() != range {
        let blob = content.blob().clone();
        held = Some(registry.memory.keep(blob.memory(&range).try_into().unwrap_or(usize::MAX), caller).await?);
        let _turn = registry.read_turns.take(caller.client).await?;
        content = registry.store.open(move |_| Ok((blob, range))).await?;
    }
    let headers = described(&digest, content.remaining());
    let (range, len) = (content.range(), content.blob_len());
    let body = keeping(Body::from_stream(content), held);
    if wanted == Wanted::All {
        return Ok((headers, body).into_response());
    }
    let range = format!("bytes {}-{}/{len}", range.start, range.end.saturating_sub(1));
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
    let claim = move |store: &Store| {
        let claimed = store.repository(&name)?.claim(&digest);
        Ok(claimed.map_err(|error| if is_known_damage(&error) { Error::BlobNotFound { digest } } else { error })?)
    };
    let blob = registry.call(caller, claim).await?;
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
    registry.call(caller, move |store| Ok(store.repository(&name)?.remove_blob(&digest)?)).await?;
    Ok(empty(StatusCode::ACCEPTED, []))
}
