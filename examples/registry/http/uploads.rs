//! Pushing blobs: at once, in chunks, or by mounting them from another repository.

use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;
use futures_util::{Stream, StreamExt as _, stream};
use strongroom::registry::RepositoryName;
use strongroom::tokio::StreamError;
use strongroom::{Algorithm, Digest, Error, Result, UploadId};

use super::blobs::is_known_damage;
use super::failure::{Code, Failure};
use super::query::Query;
use super::range::chunk;
use super::{DOCKER_CONTENT_DIGEST, Registry, empty};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// A client that sends nothing for so long is given up. Its upload can be continued.
const IDLE: Duration = Duration::from_secs(60);

/// `POST`: mounts a blob (`?mount=&from=`), takes it whole (`?digest=`), or begins an upload.
pub async fn begin(registry: &Registry, name: RepositoryName, query: &Query, body: Body) -> Result<Response, Failure> {
    if let Some(digest) = query.parsed("mount", Code::DigestInvalid)? {
        // A name that can't be one is one that has nothing.
        let from = query.get("from").and_then(|from| from.parse().ok());
        if mount(registry, name.clone(), digest, from).await? {
            return Ok(created(&name, &digest));
        }
    } else if let Some(digest) = query.parsed::<Digest>("digest", Code::DigestInvalid)? {
        let _receiving = registry.metrics.receiving();
        let (creation, to) = (registry.creation, name.clone());
        let sink =
            registry.store.write(move |store, content| creation.repository(store, &to)?.put_reader(content, digest));
        sink.send_stream(content(body)).await?;
        return Ok(created(&name, &digest));
    }
    let algorithm = algorithm(query)?;
    let (creation, to) = (registry.creation, name.clone());
    let id = registry.store.call(move |store| creation.repository(store, &to)?.begin_upload(algorithm)).await?;
    Ok(stands(StatusCode::ACCEPTED, &name, id, 0))
}

/// Whether the repository now has the blob, be it that it had it before.
async fn mount(registry: &Registry, to: RepositoryName, digest: Digest, from: Option<RepositoryName>) -> Result<bool> {
    let creation = registry.creation;
    let mount = move |store: &strongroom::Store| {
        let repository = creation.repository(store, &to)?;
        match repository.claim(&digest) {
            Err(Error::BlobNotFound { .. }) => {}
            // It has to be pushed again, wherever else it was.
            Err(error) if is_known_damage(&error) => return Ok(false),
            other => return other.map(|_| true),
        }
        let Some(from) = from else { return Ok(false) };
        match repository.mount(&digest, &from, may_pull) {
            Err(Error::BlobNotFound { .. } | Error::RepositoryNotFound { .. }) => Ok(false),
            Err(error) if is_known_damage(&error) => Ok(false),
            other => other.map(|()| true),
        }
    };
    registry.store.call(mount).await
}

/// Whether who pushes may pull from a repository: without that right a mount would tell what is in it. Here is no user, so
/// everybody may; a registry with users asks for the one of the request.
fn may_pull(_from: &RepositoryName) -> bool {
    true
}

/// `GET`: where an upload stands.
pub async fn status(registry: &Registry, name: RepositoryName, id: UploadId) -> Result<Response, Failure> {
    let offset = offset_of(registry, &name, id).await?;
    Ok(stands(StatusCode::NO_CONTENT, &name, id, offset))
}

/// `PATCH`: a chunk, at the place that `Content-Range` says, or a stream of what comes next.
pub async fn append(
    registry: &Registry,
    name: RepositoryName,
    id: UploadId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let offset = receive(registry, &name, id, headers, body).await?;
    Ok(stands(StatusCode::ACCEPTED, &name, id, offset))
}

/// `PUT`: perhaps the last chunk, and then the digest of all.
pub async fn finish(
    registry: &Registry,
    name: RepositoryName,
    id: UploadId,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let digest = query.parsed("digest", Code::DigestInvalid)?;
    let digest = digest.ok_or_else(|| Failure::bad_request(Code::DigestInvalid, "the parameter digest is missing"))?;
    if !body.is_end_stream() {
        receive(registry, &name, id, headers, body).await?;
    }
    let to = name.clone();
    let commit = move |store: &strongroom::Store| {
        let repository = store.repository(&to)?;
        match repository.commit_upload(id, &digest) {
            // The content will not become another.
            Err(error @ Error::DigestMismatch { .. }) => {
                repository.cancel_upload(id)?;
                Err(error)
            }
            // Perhaps this was done before, and the answer did not arrive.
            Err(error @ Error::UploadNotFound { .. }) => repository.claim(&digest).map(drop).map_err(|_| error),
            other => other,
        }
    };
    registry.store.call(commit).await?;
    Ok(created(&name, &digest))
}

/// `DELETE`: gives an upload up.
pub async fn cancel(registry: &Registry, name: RepositoryName, id: UploadId) -> Result<Response, Failure> {
    registry.store.call(move |store| store.repository(&name)?.cancel_upload(id)).await?;
    Ok(empty(StatusCode::NO_CONTENT, []))
}

/// Appends a body to an upload, and returns where it then stands.
async fn receive(
    registry: &Registry,
    name: &RepositoryName,
    id: UploadId,
    headers: &HeaderMap,
    body: Body,
) -> Result<u64, Failure> {
    let _receiving = registry.metrics.receiving();
    let offset = match headers.get(CONTENT_RANGE) {
        Some(range) => {
            let chunk = range.to_str().ok().and_then(chunk).ok_or_else(|| {
                Failure::bad_request(Code::BlobUploadInvalid, "Content-Range is not <first byte>-<last byte>")
            })?;
            let len = (chunk.end - chunk.start).to_string();
            if headers.get(CONTENT_LENGTH).is_some_and(|given| given.as_bytes() != len.as_bytes()) {
                return Err(Failure::bad_request(Code::SizeInvalid, "Content-Length and Content-Range differ"));
            }
            chunk.start
        }
        None => offset_of(registry, name, id).await?,
    };
    match registry.store.append_upload(Some(name), id, offset).send_stream(content(body)).await {
        Err(StreamError::Store(error @ Error::WrongOffset { expected, .. })) => {
            Err(Failure::from(error).header(LOCATION, location(name, id)).header(RANGE, received(expected)))
        }
        other => Ok(other?),
    }
}

/// The pieces of a body, and an error where none comes for too long.
fn content(body: Body) -> impl Stream<Item = Result<Bytes, BoxError>> {
    stream::unfold(body.into_data_stream(), |mut body| async {
        match tokio::time::timeout(IDLE, body.next()).await {
            Ok(piece) => Some((piece?.map_err(BoxError::from), body)),
            Err(elapsed) => Some((Err(elapsed.into()), body)),
        }
    })
}

async fn offset_of(registry: &Registry, name: &RepositoryName, id: UploadId) -> Result<u64> {
    let name = name.clone();
    let status = registry.store.call(move |store| store.repository(&name)?.upload_status(id)).await?;
    Ok(status.offset)
}

/// The algorithm that a client says it will use. Another one in the end works too: the content is then read again.
fn algorithm(query: &Query) -> Result<Algorithm, Failure> {
    let Some(name) = query.get("digest-algorithm") else { return Ok(Algorithm::Sha256) };
    let known =
        [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3].into_iter().find(|known| known.name() == name);
    known.ok_or_else(|| Failure::bad_request(Code::DigestInvalid, format!("no digest algorithm {name:?}")))
}

fn location(name: &RepositoryName, id: UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// The bytes that came so far, first to last. There is no way to write none; clients expect `0-0` then, as for one.
fn received(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

/// Tells where an upload stands.
fn stands(status: StatusCode, name: &RepositoryName, id: UploadId, offset: u64) -> Response {
    empty(status, [(LOCATION, location(name, id)), (RANGE, received(offset)), (UPLOAD_ID, id.to_string())])
}

/// Tells that the repository has a blob.
fn created(name: &RepositoryName, digest: &Digest) -> Response {
    let location = format!("/v2/{name}/blobs/{digest}");
    empty(StatusCode::CREATED, [(LOCATION, location), (DOCKER_CONTENT_DIGEST, digest.to_string())])
}
