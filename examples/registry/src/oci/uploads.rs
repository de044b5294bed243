//! Pushing blobs: at once, in chunks, or by mounting them from another repository.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::header::{CONTENT_RANGE, LOCATION, RANGE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;
use strongroom::registry::{Repository, RepositoryName};
use strongroom::{Algorithm, Digest, Durability, Error, Store, UploadId};

use super::DOCKER_CONTENT_DIGEST;
use super::blobs::is_known_damage;
use super::query::Query;
use super::range::chunk;
use crate::access::Reads;
use crate::ecr::account;
use crate::http::body::{Gathered, Incoming, Kind};
use crate::http::failure::{Code, Failure};
use crate::http::limits::{GATHERED, UNCOUNTED, memory_to_commit};
use crate::http::memory::Held;
use crate::http::{Caller, Registry, empty};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// A thread that writes waits for so long for more: who sends fast is written without a pause.
const MOMENT: Duration = Duration::from_millis(1);

/// A body that is no longer is written in one step, once all of it has come; and so much of a longer one is gathered
/// without being counted.
const SHORT: usize = UNCOUNTED / 2;

/// After so many bytes it lets others write.
const MAX_STEP: usize = 8 << 20;

/// `POST`: mounts a blob (`?mount=&from=`), takes it whole (`?digest=`), or begins an upload.
pub async fn begin(
    registry: &Arc<Registry>,
    caller: &Caller,
    name: RepositoryName,
    query: &Query,
    body: Body,
) -> Result<Response, Failure> {
    if let Some(digest) = query.parsed("mount", Code::DigestInvalid)? {
        // A name that can't be one is one that has nothing.
        let from = query.get("from").and_then(|from| from.parse().ok());
        if mount(registry, caller, name.clone(), digest, from).await? {
            return Ok(created(&name, &digest));
        }
    } else if let Some(digest) = query.parsed::<Digest>("digest", Code::DigestInvalid)? {
        take_whole(registry, caller, &name, digest, body).await?;
        return Ok(created(&name, &digest));
    }
    let id = begin_upload(registry, caller, &name, algorithm(query)?).await?;
    Ok(stands(StatusCode::ACCEPTED, &name, id, 0))
}

async fn begin_upload(
    registry: &Arc<Registry>,
    caller: &Caller,
    name: &RepositoryName,
    algorithm: Algorithm,
) -> Result<UploadId, Failure> {
    let (own, to, by) = (Arc::clone(registry), name.clone(), caller.clone());
    let begin = move |store: &Store| {
        let client = by.client;
        own.unfinished.check_upload(client, &own.limits)?;
        // Nothing to rely on yet: where a power cut takes it back, the client is told that there is none, and begins
        // again. What comes is synced with it.
        let begin = |repository: &Repository| repository.with_durability(Durability::Relaxed).begin_upload(algorithm);
        let id = own.push(store, &to, &by, begin)?;
        own.unfinished.upload_begun(client, to, id);
        Ok(id)
    };
    registry.writing(caller).await?.call(begin).await
}

/// Takes a blob in one body. A short one is stored when it is there; a longer one is an upload that nobody else knows
/// of.
async fn take_whole(
    registry: &Arc<Registry>,
    caller: &Caller,
    name: &RepositoryName,
    digest: Digest,
    body: Body,
) -> Result<(), Failure> {
    let _receiving = registry.metrics.receiving();
    let mut incoming = registry.incoming(body, Kind::Blob, caller);
    let (first, mut held) = (Gathered::default(), None);
    while first.len() < GATHERED {
        if !incoming.some(&first, GATHERED).await? {
            let _work = registry.memory.work(3 * first.len()).await?;
            let content = first.take().concat();
            let (own, to, by) = (Arc::clone(registry), name.clone(), caller.clone());
            let put = move |store: &Store| own.push(store, &to, &by, |repository| repository.put(&content, digest));
            return registry.writing(caller).await?.call(put).await.map(drop);
        }
        if held.is_none() && first.len() > UNCOUNTED {
            held = Some(registry.memory.keep(GATHERED + UNCOUNTED, caller).await?);
        }
    }
    let id = begin_upload(registry, caller, name, digest.algorithm()).await?;
    let received = async {
        write(registry, caller, (name, id, Some(0)), (first, held), incoming).await?;
        commit(registry, caller, (name, id, None), Bytes::new(), digest).await
    };
    if let Err(failure) = received.await {
        // Where this fails the upload expires.
        let _ = cancel_upload(registry, caller, name, id).await;
        registry.unfinished.upload_ended(id);
        return Err(failure);
    }
    Ok(())
}

/// Whether the repository now has the blob, be it that it had it before.
async fn mount(
    registry: &Arc<Registry>,
    caller: &Caller,
    to: RepositoryName,
    digest: Digest,
    from: Option<RepositoryName>,
) -> Result<bool, Failure> {
    let (own, by) = (Arc::clone(registry), caller.clone());
    let mount = move |store: &Store| {
        // Without that right on the other repository, a mount would tell what is in it.
        let access = own.access(store, &by);
        let may_pull = |from: &RepositoryName| {
            let may_read = access.check_stored(&["GetDownloadUrlForLayer"], from, Reads::Yes).is_ok();
            may_read && account::is_mounting_on(store).unwrap_or(false)
        };
        own.push(store, &to, &by, |repository| {
            match repository.claim(&digest) {
                Err(Error::BlobNotFound { .. }) => {}
                // It has to be pushed again, wherever else it was.
                Err(error) if is_known_damage(&error) => return Ok(false),
                other => return other.map(|_| true),
            }
            let Some(from) = &from else { return Ok(false) };
            match repository.mount(&digest, from, may_pull) {
                // The other repository's key is out of reach: the blob is pushed.
                Err(Error::BlobNotFound { .. } | Error::Key { .. }) => Ok(false),
                Err(error) if is_known_damage(&error) => Ok(false),
                other => other.map(|_| true),
            }
        })
    };
    registry.writing(caller).await?.call(mount).await
}

/// `GET`: where an upload stands.
pub async fn status(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    id: UploadId,
) -> Result<Response, Failure> {
    let of = name.clone();
    let find = move |store: &Store| store.repository(&of)?.upload_status(id);
    let upload = registry.reading(caller).await?.read(find).await?;
    Ok(stands(StatusCode::NO_CONTENT, &name, id, upload.offset))
}

/// `PATCH`: a chunk, at the place that `Content-Range` says, or a stream of what comes next.
pub async fn append(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    id: UploadId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let offset = match receive(registry, caller, &name, id, headers, body).await? {
        Received::Whole(offset, piece) => append_short(registry, caller, (&name, id, offset), piece).await?,
        Received::Appended(offset) => offset,
    };
    Ok(stands(StatusCode::ACCEPTED, &name, id, offset))
}

/// `PUT`: perhaps the last chunk, and then the digest of all.
pub async fn finish(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    id: UploadId,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let digest = query.parsed("digest", Code::DigestInvalid)?;
    let digest = digest.ok_or_else(|| Failure::bad_request(Code::DigestInvalid, "the parameter digest is missing"))?;
    let (mut offset, mut last) = (None, Bytes::new());
    if !body.is_end_stream() || headers.contains_key(CONTENT_RANGE) {
        match receive(registry, caller, &name, id, headers, body).await {
            Ok(Received::Whole(at, piece)) => (offset, last) = (at, piece),
            // Perhaps this was done before, and the answer did not arrive.
            Err(failure) if failure.is(Code::BlobUploadUnknown) => {}
            other => drop(other?),
        }
    }
    commit(registry, caller, (&name, id, offset), last, digest).await?;
    Ok(created(&name, &digest))
}

/// `DELETE`: gives an upload up.
pub async fn cancel(
    registry: &Registry,
    caller: &Caller,
    name: RepositoryName,
    id: UploadId,
) -> Result<Response, Failure> {
    cancel_upload(registry, caller, &name, id).await?;
    registry.unfinished.upload_ended(id);
    Ok(empty(StatusCode::NO_CONTENT, []))
}

async fn cancel_upload(
    registry: &Registry,
    caller: &Caller,
    name: &RepositoryName,
    id: UploadId,
) -> Result<(), Failure> {
    let name = name.clone();
    let cancel = move |store: &Store| store.repository(&name)?.cancel_upload(id);
    Ok(registry.writing(caller).await?.call(cancel).await?)
}

/// What was received of a body.
enum Received {
    /// All of it, which is short, and where it is to be appended.
    Whole(Option<u64>, Bytes),
    /// It was appended as it came, and the upload stands there.
    Appended(u64),
}

/// Takes a short body whole, and appends a longer one to an upload as it comes.
async fn receive(
    registry: &Registry,
    caller: &Caller,
    name: &RepositoryName,
    id: UploadId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, Failure> {
    let _receiving = registry.metrics.receiving();
    let incoming = registry.incoming(body, Kind::Blob, caller);
    let (offset, mut incoming) = match headers.get(CONTENT_RANGE) {
        Some(range) => {
            let chunk = range.to_str().ok().and_then(chunk).ok_or_else(|| {
                Failure::bad_request(Code::BlobUploadInvalid, "Content-Range is not <first byte>-<last byte>")
            })?;
            let len = chunk.end - chunk.start;
            if incoming.expected().is_some_and(|given| given != len) {
                return Err(Failure::bad_request(Code::SizeInvalid, "Content-Length and Content-Range differ"));
            }
            (Some(chunk.start), incoming.expect(len))
        }
        None => (None, incoming),
    };
    let first = Gathered::default();
    while first.len() < SHORT {
        match incoming.some(&first, SHORT).await {
            // However slowly the rest comes, this is no upload without content.
            Ok(true) => registry.unfinished.upload_continued(id),
            Ok(false) => return Ok(Received::Whole(offset, joint(first.take()))),
            Err(failure) => {
                if !incoming.is_misfit() && !first.is_empty() {
                    // What came counts. If the store fails here, the client is told when it asks how far it came.
                    let _ = append_short(registry, caller, (name, id, offset), joint(first.take())).await;
                }
                return Err(failure);
            }
        }
    }
    write(registry, caller, (name, id, offset), (first, None), incoming).await.map(Received::Appended)
}

/// Appends what is short, in one step, and returns where the upload then stands.
async fn append_short(
    registry: &Registry,
    caller: &Caller,
    (name, id, offset): (&RepositoryName, UploadId, Option<u64>),
    piece: Bytes,
) -> Result<u64, Failure> {
    let to = name.clone();
    let append = move |store: &Store| store.repository(&to)?.append_upload(id, offset, piece);
    let appended = registry.writing(caller).await?.call(append).await;
    appended.map_err(|error| append_failed(error, name, id))
}

/// Pieces as one.
fn joint(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() > 1 { pieces.concat().into() } else { pieces.pop().unwrap_or_default() }
}

/// The answer to an append that failed: where the offset is wrong, it says which is right.
fn append_failed(error: Error, name: &RepositoryName, id: UploadId) -> Failure {
    match error {
        Error::WrongOffset { expected, .. } => {
            Failure::from(error).header(LOCATION, location(name, id)).header(RANGE, received(expected))
        }
        other => other.into(),
    }
}

/// Appends to an upload, at its end if it is not said where, first what has come already, with the memory that it
/// keeps, then the rest of the body. Where that breaks off, what came counts; where the body is another than was said,
/// nothing of it does.
async fn write(
    registry: &Registry,
    caller: &Caller,
    (name, id, offset): (&RepositoryName, UploadId, Option<u64>),
    (gathered, mut held): (Gathered, Option<Held>),
    mut incoming: Incoming,
) -> Result<u64, Failure> {
    let failed = |error| append_failed(error, name, id);
    let mut writer = registry.reading(caller).await?.repository(name).await?.upload_writer(id, offset);
    let (mut work, mut has_content) = (None, false);
    loop {
        // While there is something, the next is gathered as it is written. To wait for the client takes no memory.
        while !gathered.is_empty() {
            if work.is_none() && gathered.len() >= SHORT {
                work = Some(registry.memory.work(3 * GATHERED).await?);
                drop(held.take());
            }
            let most = if work.is_some() { GATHERED } else { SHORT };
            // What is more than a little is counted first.
            let (from, mut left) = (gathered.clone(), if work.is_some() { MAX_STEP } else { 1 });
            let written = writer.write_from(move || {
                let pieces = if left > 0 { from.take_soon(most, MOMENT) } else { Vec::new() };
                left = left.saturating_sub(pieces.iter().map(Bytes::len).sum());
                pieces
            });
            incoming.some_during(written, &gathered, most).await.map_err(failed)?;
            if !has_content {
                has_content = true;
                registry.unfinished.upload_continued(id);
            }
        }
        work = None;
        match incoming.some(&gathered, SHORT).await {
            Ok(false) => break,
            Ok(true) => {}
            Err(failure) => {
                // How far it came, the client asks for. If the store fails here, it is told then.
                let _ = if incoming.is_misfit() { writer.discard().await } else { writer.finish().await.map(drop) };
                return Err(failure);
            }
        };
    }
    writer.finish().await.map_err(failed)
}

/// Appends the last piece of an upload, and ends it as a blob, in one step.
async fn commit(
    registry: &Registry,
    caller: &Caller,
    (name, id, offset): (&RepositoryName, UploadId, Option<u64>),
    last: Bytes,
    digest: Digest,
) -> Result<(), Failure> {
    let (mut _work, mut counted) = (None, 0);
    let committed = loop {
        let (name, last) = (name.clone(), last.clone());
        let end = move |store: &Store| {
            let repository = store.repository(&name)?;
            if let Ok(upload) = repository.upload_status(id)
                && let Some(bytes) = memory_to_commit(upload.offset + last.len() as u64)
                && bytes > counted
            {
                return Ok(Some(bytes));
            }
            let committed = match repository.commit_upload_with(id, offset, last, digest) {
                // The content will not become another.
                Err(error @ Error::DigestMismatch { .. }) => repository.cancel_upload(id).and(Err(error)),
                // Perhaps this was done before, and the answer did not arrive.
                Err(error @ Error::UploadNotFound { .. }) => repository.claim(&digest).map(drop).map_err(|_| error),
                other => other.map(drop),
            };
            committed.map(|()| None)
        };
        match registry.writing(caller).await?.call(end).await {
            // Without the turn: memory may have to be waited for.
            Ok(Some(bytes)) => (_work, counted) = (Some(registry.memory.work(bytes).await?), bytes),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let committed = committed.map_err(|error| append_failed(error, name, id));
    if committed.as_ref().err().is_none_or(Failure::is_final) {
        registry.unfinished.upload_ended(id);
    }
    committed
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
