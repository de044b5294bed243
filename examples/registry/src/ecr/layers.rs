//! Layers: asking for them, pushing them in parts, and where to read them.
//!
//! | operation | what it does to the store |
//! |---|---|
//! | `BatchCheckLayerAvailability` | claims the layers: a client does not push what is said to be there |
//! | `InitiateLayerUpload` | begins an upload; its id is shown as a UUID |
//! | `UploadLayerPart` | appends to it, at its end |
//! | `CompleteLayerUpload` | commits it as a blob |
//! | `GetDownloadUrlForLayer` | nothing: the blob is read by the distribution API |
//!
//! Uploads begun here are those of the distribution API, and count as those do. A part must follow the one before, and
//! all but the last must have 5 MiB. The store knows how far an upload came, and not in how many parts: so the registry
//! notes short parts in memory, and after it was started anew it takes layers whose earlier parts were short. Nothing
//! depends on that here: the rule is that of the storage behind ECR.

use std::io;

use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use serde_json::json;
use strongroom::registry::Repository;
use strongroom::{Algorithm, Digest, Error, UploadId};

use super::call::{Answer, Call, digest};
use super::error::ApiError;
use super::image_ids::output;
use super::{Built, Service, Target};
use crate::http::limits::{GATHERED, UNCOUNTED, memory_to_commit};
use crate::oci::blobs::is_known_damage;

/// The least length of a part that is not the last.
const MIN_PART: u64 = 5 << 20;

/// The length of parts that clients are told to send.
const PART: u64 = 10 << 20;

pub const OPERATIONS: &[Built] = &[
    Service::Private.writes("BatchCheckLayerAvailability", Target::Repository, check),
    Service::Public.writes("BatchCheckLayerAvailability", Target::Repository, check),
    Service::Private.writes("InitiateLayerUpload", Target::Repository, initiate),
    Service::Public.writes("InitiateLayerUpload", Target::Repository, initiate),
    Service::Private.writes("UploadLayerPart", Target::Repository, upload_part),
    Service::Public.writes("UploadLayerPart", Target::Repository, upload_part),
    Service::Private.writes("CompleteLayerUpload", Target::Repository, complete),
    Service::Public.writes("CompleteLayerUpload", Target::Repository, complete),
    Service::Private.reads("GetDownloadUrlForLayer", Target::Repository, download_url),
];

/// A layer that is known to be damaged is not said to be there, so that a client who has it pushes it again.
fn check(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let (mut asked, mut failures) = (Vec::new(), Vec::new());
    for text in call.input.texts("layerDigests") {
        let (code, reason) = match digest(text) {
            Some(digest) => {
                asked.push(digest);
                continue;
            }
            None if text.is_empty() => ("MissingLayerDigest", "Invalid request parameters: layer digest is missing"),
            None => ("InvalidLayerDigest", "Invalid request parameters: layer digest is not valid"),
        };
        failures.push(json!({ "layerDigest": text, "failureCode": code, "failureReason": reason }));
    }
    let claimed = repository.claim_many(&asked).map_err(|error| call.error(error))?;
    let mut layers = Vec::new();
    for (digest, claimed) in asked.iter().zip(claimed) {
        let digest = digest.to_string();
        layers.push(match claimed {
            Ok(blob) => json!({ "layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": blob.len }),
            Err(error) if is_missing(&error) => json!({ "layerDigest": digest, "layerAvailability": "UNAVAILABLE" }),
            Err(error) => return Err(call.error(error)),
        });
    }
    Ok(json!({ "layers": layers, "failures": failures }))
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::BlobNotFound { .. }) || is_known_damage(error)
}

fn initiate(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let unfinished = &call.registry.unfinished;
    unfinished.check_upload(call.caller.client, &call.registry.limits)?;
    let id = repository.begin_upload(Algorithm::Sha256).map_err(|error| call.error(error))?;
    unfinished.upload_begun(call.caller.client, repository.name().clone(), id);
    Ok(json!({ "uploadId": shown(id), "partSize": PART }))
}

fn upload_part(call: &Call<'_>) -> Answer {
    let (repository, input) = (call.repository()?, &call.input);
    let id = upload_id(call)?;
    let (first, last) = (input.number("partFirstByte").unwrap_or(0), input.number("partLastByte").unwrap_or(0));
    let stands = repository.upload_status(id).map_err(|error| upload_error(call, error))?.offset;
    let len = part(call, io::sink())?;
    if first != stands || len == 0 || last.checked_sub(first).and_then(|len| len.checked_add(1)) != Some(len) {
        return Err(invalid_part(call, stands));
    }
    let _work = match usize::try_from(len).unwrap_or(usize::MAX) {
        ..=UNCOUNTED => None,
        _ => Some(call.registry.memory.work_now(3 * GATHERED)?),
    };
    // The text is decoded as it is written: what is in memory is the request, once.
    let appended = repository.append_upload_from(id, first, decoder(call));
    let end = appended.map_err(|error| match error {
        Error::WrongOffset { expected, .. } => invalid_part(call, expected),
        error => upload_error(call, error),
    })?;
    call.registry.unfinished.part_received(id, len < MIN_PART);
    Ok(output(call, [("uploadId", json!(shown(id))), ("lastByteReceived", json!(end.saturating_sub(1)))]))
}

/// The bytes of the part that an input has.
fn decoder<'c>(call: &'c Call<'_>) -> impl io::Read + use<'c> {
    DecoderReader::new(call.input.required("layerPartBlob").as_bytes(), &STANDARD)
}

/// Writes the bytes of the part, and says how many they are.
fn part(call: &Call<'_>, mut to: impl io::Write) -> Result<u64, ApiError> {
    let not_base64 = |_| ApiError::new("SerializationException", "layerPartBlob must be base64");
    io::copy(&mut decoder(call), &mut to).map_err(not_base64)
}

/// The error of a part that is not what follows the bytes that came.
fn invalid_part(call: &Call<'_>, stands: u64) -> ApiError {
    let message = "The layer part size is not valid, or the first byte specified is not consecutive to the last byte \
                   of a previous layer part upload.";
    let error = ApiError::new("InvalidLayerPartException", message)
        .with("registryId", call.account())
        .with("repositoryName", call.input.required("repositoryName"))
        .with("uploadId", call.input.required("uploadId"));
    match stands.checked_sub(1) {
        Some(last) => error.with("lastValidByteReceived", last),
        None => error,
    }
}

fn complete(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let id = upload_id(call)?;
    let digest = layer_digest(call)?;
    let (registry, too_small) = (call.registry, call.registry.unfinished.has_short_part_within(id));
    let stands = match repository.upload_status(id) {
        // Perhaps it was completed, and the answer did not arrive.
        Err(error @ Error::UploadNotFound { .. }) => {
            let is_there = repository.claim(&digest).is_ok();
            return Err(if is_there { layer_exists() } else { upload_error(call, error) });
        }
        status => status.map_err(|error| upload_error(call, error))?.offset,
    };
    if stands == 0 {
        let message = "The specified layer upload does not contain any layer parts.";
        return Err(ApiError::new("EmptyUploadException", message));
    }
    if too_small {
        give_up(call, &repository, id)?;
        return Err(ApiError::new("LayerPartTooSmallException", "Layer parts must be at least 5 MiB in size."));
    }
    let _work = memory_to_commit(stands).map(|bytes| registry.memory.work_now(bytes)).transpose()?;
    match repository.commit_upload(id, digest) {
        Ok(stored) => {
            registry.unfinished.upload_ended(id);
            if stored.existed {
                return Err(layer_exists());
            }
            Ok(output(call, [("uploadId", json!(shown(id))), ("layerDigest", json!(digest.to_string()))]))
        }
        Err(Error::DigestMismatch { .. }) => {
            // The content will not become another.
            give_up(call, &repository, id)?;
            let message = "The layer digest calculation performed by Amazon ECR upon receipt of the image layer does \
                           not match the digest specified.";
            Err(ApiError::new("InvalidLayerException", message))
        }
        Err(error) => Err(upload_error(call, error)),
    }
}

/// Cancels an upload that can't become a layer.
fn give_up(call: &Call<'_>, repository: &Repository, id: UploadId) -> Result<(), ApiError> {
    repository.cancel_upload(id).map_err(|error| upload_error(call, error))?;
    call.registry.unfinished.upload_ended(id);
    Ok(())
}

/// The digest that a layer is said to have. A list of several is none: a layer has one.
fn layer_digest(call: &Call<'_>) -> Result<Digest, ApiError> {
    let mut digests = call.input.texts("layerDigests");
    let (first, others) = (digests.next().unwrap_or_default(), digests);
    if others.into_iter().any(|other| other != first) {
        return Err(ApiError::invalid_parameter("layerDigests", "An upload must be completed with one digest"));
    }
    digest(first).ok_or_else(|| {
        ApiError::invalid_parameter("layerDigests", "The digest must be sha256: and 64 lower-case hexadecimal digits")
    })
}

fn layer_exists() -> ApiError {
    ApiError::new("LayerAlreadyExistsException", "The image layer already exists in the associated repository.")
}

/// Only of layers that an image references: others may be gone before they are read.
fn download_url(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let not_found = || {
        let message = "The specified layers could not be found, or the specified layer is not valid for this \
                       repository.";
        ApiError::new("LayersNotFoundException", message)
    };
    let digest = digest(call.input.required("layerDigest")).ok_or_else(not_found)?;
    let layer = repository.stat(&digest).map_err(|error| match error {
        Error::BlobNotFound { .. } => not_found(),
        error => call.error(error),
    })?;
    if layer.references == 0 {
        let message = "The specified layer is not available because it is not associated with an image. Unassociated \
                       image layers may be cleaned up at any time.";
        return Err(ApiError::new("LayerInaccessibleException", message));
    }
    let name = repository.name();
    let token = call.access.download_token(name, &digest).map_err(|error| ApiError::no_token(&error))?;
    let query = if token.is_empty() { token } else { format!("?{token}") };
    let url = format!("{}/v2/{name}/blobs/{digest}{query}", call.origin);
    Ok(json!({ "downloadUrl": url, "layerDigest": digest.to_string() }))
}

/// An upload's id as a UUID: the store's 32 digits, in groups.
fn shown(id: UploadId) -> String {
    let digits = id.to_string();
    let mut shown = String::with_capacity(36);
    for (place, digit) in digits.chars().enumerate() {
        if matches!(place, 8 | 12 | 16 | 20) {
            shown.push('-');
        }
        shown.push(digit);
    }
    shown
}

fn upload_id(call: &Call<'_>) -> Result<UploadId, ApiError> {
    let digits = call.input.required("uploadId").replace('-', "").to_ascii_lowercase();
    digits.parse().map_err(|_| upload_not_found())
}

fn upload_not_found() -> ApiError {
    let message = "The upload could not be found, or the specified upload ID is not valid for this repository.";
    ApiError::new("UploadNotFoundException", message)
}

fn upload_error(call: &Call<'_>, error: Error) -> ApiError {
    match error {
        Error::UploadNotFound { .. } => upload_not_found(),
        error => call.error(error),
    }
}
