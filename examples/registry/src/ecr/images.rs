//! Images: pushing their manifests, and pulling them.

use serde_json::{Value, json};
use strongroom::registry::{Manifest, PutManifest, Reference, Repository, StorageClass, Tag};
use strongroom::{Algorithm, Digest, Error};

use super::call::{Answer, Call};
use super::error::ApiError;
use super::image_ids::{ImageId, Unfound, each, given_digest, given_tag, output, shown};
use super::{Built, Service, Target};
use crate::access::pull_manifest;
use crate::http::Indexes;
use crate::http::limits::UNCOUNTED;

/// The most bytes of manifests in one answer: an image alone may have so many.
const MAX_ANSWER: u64 = 8 << 20;

pub const OPERATIONS: &[Built] = &[
    Service::Private.writes("PutImage", Target::Repository, put),
    Service::Public.writes("PutImage", Target::Repository, put),
    Service::Private.reads("BatchGetImage", Target::Repository, get),
];

/// Pushes a manifest of what the repository has. Unlike pushes by the distribution API, it creates no repository, and
/// refuses what is there already; an archived image, or one that is known to be damaged, is brought back.
fn put(call: &Call<'_>) -> Answer {
    let (repository, input) = (call.repository()?, &call.input);
    let document = input.required("imageManifest");
    let media_type = match input.text("imageManifestMediaType") {
        Some(media_type) => media_type.to_owned(),
        None => stated_media_type(document)?,
    };
    let tag = input.text("imageTag").map(given_tag).transpose()?;
    let expected = input.text("imageDigest").map(|text| given_digest("imageDigest", text)).transpose()?;
    // It is parsed, compressed and framed.
    let _work = match document.len() {
        ..=UNCOUNTED => None,
        len => Some(call.registry.memory.work_now(3 * len)?),
    };
    let digest = Digest::of(expected.map_or(Algorithm::Sha256, |digest| digest.algorithm()), document.as_bytes());
    if expected.is_some_and(|expected| expected != digest) {
        return Err(other_digest());
    }
    if is_there(&repository, &digest, tag.as_ref()).map_err(|error| call.error(error))? {
        return Err(image_exists(call, &digest, tag.as_ref()));
    }
    let mut put = PutManifest::new(media_type.clone()).expect(digest);
    if let Some(tag) = &tag {
        put = put.tag(tag.clone());
    }
    if call.registry.indexes == Indexes::Sparse {
        put = put.allow_missing_manifests();
    }
    repository.put_manifest(document, put).map_err(|error| push_error(call, error))?;
    call.registry.unfinished.repository_settled(repository.name());
    let image = output(
        call,
        [
            ("imageId", shown(&digest, tag.as_ref())),
            ("imageManifest", json!(document)),
            ("imageManifestMediaType", json!(media_type)),
        ],
    );
    Ok(json!({ "image": image }))
}

/// The media type that a document says it has.
fn stated_media_type(document: &str) -> Result<String, ApiError> {
    #[derive(serde::Deserialize)]
    struct Stated {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
    }
    let stated: Stated = serde_json::from_str(document).map_err(|_| invalid_syntax())?;
    stated.media_type.ok_or_else(|| {
        let constraint = "must be given for a manifest that does not say its mediaType";
        ApiError::invalid_parameter("imageManifestMediaType", constraint)
    })
}

/// Whether an image is there under a tag, or at all where none is given, as it should be.
fn is_there(repository: &Repository, digest: &Digest, tag: Option<&Tag>) -> strongroom::Result<bool> {
    let reference = tag.map_or(Reference::Digest(*digest), |tag| Reference::Tag(tag.clone()));
    match repository.manifest_info(&reference) {
        Ok(info) => Ok(info.digest == *digest && info.storage_class == StorageClass::Standard && !info.damaged),
        Err(Error::ManifestNotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What keeps a manifest from being pushed, as the operation has it.
fn push_error(call: &Call<'_>, error: Error) -> ApiError {
    let (name, account) = (call.input.required("repositoryName"), call.account());
    let missing = |what: &str, digests: &[Digest]| {
        let digests: Vec<String> = digests.iter().take(100).map(Digest::to_string).collect();
        let digests = digests.join(", ");
        format!(
            "{what} with digests '[{digests}]' required for pushing image into repository with name '{name}' in the \
             registry with id '{account}' do not exist"
        )
    };
    match error {
        Error::ReferencesMissing { blobs, .. } if !blobs.is_empty() => {
            ApiError::new("LayersNotFoundException", missing("Layers", &blobs))
        }
        Error::ReferencesMissing { manifests, .. } => {
            ApiError::new("ReferencedImagesNotFoundException", missing("Images", &manifests))
        }
        Error::TagImmutable { tag, .. } => {
            let message = format!(
                "The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because the \
                 tag is immutable."
            );
            ApiError::new("ImageTagAlreadyExistsException", message)
        }
        Error::DigestMismatch { .. } => other_digest(),
        Error::InvalidManifest { problem: strongroom::ManifestProblem::Syntax { .. } } => invalid_syntax(),
        Error::InvalidManifest { .. } | Error::TooLarge { .. } => {
            ApiError::invalid_parameter("imageManifest", &error.to_string())
        }
        error => call.error(error),
    }
}

fn invalid_syntax() -> ApiError {
    ApiError::invalid_parameter("imageManifest", "Invalid JSON syntax")
}

fn other_digest() -> ApiError {
    let message = "The specified image digest does not match the digest that Amazon ECR calculated for the image.";
    ApiError::new("ImageDigestDoesNotMatchException", message)
}

fn image_exists(call: &Call<'_>, digest: &Digest, tag: Option<&Tag>) -> ApiError {
    let (name, account) = (call.input.required("repositoryName"), call.account());
    let tag = tag.map_or("null", Tag::as_str);
    let message = format!(
        "Image with digest '{digest}' and tag '{tag}' already exists in the repository with name '{name}' in registry \
         with id '{account}'"
    );
    ApiError::new("ImageAlreadyExistsException", message)
}

/// Pulls manifests. Those of media types that are not accepted are not found, as are archived ones.
fn get(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let accepted: Vec<&str> = call.input.texts("acceptedMediaTypes").collect();
    let (mut wanted, mut bytes) = (Vec::new(), 0);
    let mut failures = each(call, |given, id| {
        let digest = id.digest(&repository)?;
        let info = repository.manifest_info(&Reference::Digest(digest))?;
        if info.storage_class == StorageClass::Archive {
            return Err(archived());
        }
        if !accepted.is_empty() && !accepted.contains(&info.media_type.as_str()) {
            return Err(Unfound::not_found());
        }
        bytes += info.len;
        wanted.push((given.clone(), id, digest));
        Ok(())
    })?;
    if bytes > MAX_ANSWER && wanted.len() > 1 {
        let message = format!("The images have more than {MAX_ANSWER} bytes of manifests: ask for fewer at once");
        return Err(ApiError::new("LimitExceededException", message));
    }
    call.keep(bytes)?;
    let mut images = Vec::new();
    for (given, id, digest) in wanted {
        match pulled(call, &repository, &digest) {
            Ok(manifest) => images.push(image(call, &manifest, &id)),
            Err(Unfound::Failure(code, reason)) => failures.push(super::image_ids::failure(&given, code, &reason)),
            Err(Unfound::Error(error)) => return Err(call.error(error)),
        }
    }
    Ok(json!({ "images": images, "failures": failures }))
}

fn pulled(call: &Call<'_>, repository: &Repository, digest: &Digest) -> Result<Manifest, Unfound> {
    let reference = Reference::Digest(*digest);
    match pull_manifest(repository, &reference, call.access.counts_pulls()) {
        Err(error @ Error::Corrupt { .. }) => {
            tracing::error!(repository = %repository.name(), %digest, %error, "a manifest can't be read");
            Err(Unfound::Failure("ImageInaccessible", "The image is damaged in the registry: push it again".to_owned()))
        }
        Err(Error::ManifestArchived { .. }) => Err(archived()),
        other => Ok(other?),
    }
}

fn archived() -> Unfound {
    Unfound::Failure("ImageNotFound", "Requested image not found: it is archived".to_owned())
}

fn image(call: &Call<'_>, manifest: &Manifest, id: &ImageId) -> Value {
    output(
        call,
        [
            ("imageId", shown(&manifest.digest, id.tag())),
            ("imageManifest", json!(String::from_utf8_lossy(&manifest.content))),
            ("imageManifestMediaType", json!(manifest.media_type)),
        ],
    )
}
