//! How inputs name images: by digest, by tag, or by both, which must then be one image.
//!
//! The operations on many images answer for each what kept it from being done, as an `ImageFailure`; the others fail.

use serde_json::{Value, json};
use strongroom::registry::{Reference, Repository, Tag};
use strongroom::{Digest, Error};

use super::call::{Call, digest};
use super::error::ApiError;

/// What a digest looks like, as the model says.
const DIGEST: &str = "[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+";

/// What a tag looks like, as the distribution specification says.
const TAG: &str = "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}";

/// A name of an image that names something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageId {
    Digest(Digest),
    /// By its tag, with the digest that it must have, if one was given.
    Tag(Tag, Option<Digest>),
}

/// Why an image that was named is not taken.
#[derive(Debug)]
pub enum Unfound {
    /// A code of `ImageFailureCode`, and its reason.
    Failure(&'static str, String),
    /// The store has failed.
    Error(Error),
}

impl From<Error> for Unfound {
    fn from(error: Error) -> Self {
        match error {
            Error::ManifestNotFound { .. } => Self::not_found(),
            error => Self::Error(error),
        }
    }
}

impl Unfound {
    pub fn not_found() -> Self {
        Self::Failure("ImageNotFound", "Requested image not found".to_owned())
    }
}

impl ImageId {
    pub fn parse(given: &Value) -> Result<Self, Unfound> {
        let text = |member| given.get(member).and_then(Value::as_str);
        let invalid = |code, what, pattern| {
            Unfound::Failure(
                code,
                format!("Invalid request parameters: image {what} should satisfy the regex '{pattern}'"),
            )
        };
        let (of_digest, of_tag) = (text("imageDigest"), text("imageTag"));
        let of_digest =
            of_digest.map(|text| digest(text).ok_or_else(|| invalid("InvalidImageDigest", "digest", DIGEST)));
        let of_digest = of_digest.transpose()?;
        let of_tag = of_tag.map(|text| text.parse::<Tag>().map_err(|_| invalid("InvalidImageTag", "tag", TAG)));
        match (of_digest, of_tag.transpose()?) {
            (digest, Some(tag)) => Ok(Self::Tag(tag, digest)),
            (Some(digest), None) => Ok(Self::Digest(digest)),
            (None, None) => {
                let reason = "Invalid request parameters: both tag and digest cannot be null";
                Err(Unfound::Failure("MissingDigestAndTag", reason.to_owned()))
            }
        }
    }

    /// The digest of the image. Whether there is an image of a digest is not looked up.
    pub fn digest(&self, repository: &Repository) -> Result<Digest, Unfound> {
        let (tag, expected) = match self {
            Self::Digest(digest) => return Ok(*digest),
            Self::Tag(tag, expected) => (tag, expected),
        };
        let found = repository.resolve(tag)?.digest;
        match expected {
            Some(expected) if *expected != found => {
                let reason = format!("The image tag '{tag}' does not match the image digest '{expected}'");
                Err(Unfound::Failure("ImageTagDoesNotMatchDigest", reason))
            }
            _ => Ok(found),
        }
    }

    /// What the image is looked up by.
    pub fn reference(&self) -> Reference {
        match self {
            Self::Digest(digest) => Reference::Digest(*digest),
            Self::Tag(tag, _) => Reference::Tag(tag.clone()),
        }
    }

    /// Whether it may name an image of this digest.
    pub fn is_of(&self, found: &Digest) -> bool {
        match self {
            Self::Digest(digest) | Self::Tag(_, Some(digest)) => digest == found,
            Self::Tag(_, None) => true,
        }
    }

    pub fn tag(&self) -> Option<&Tag> {
        match self {
            Self::Digest(_) => None,
            Self::Tag(tag, _) => Some(tag),
        }
    }
}

/// An image as `ImageIdentifier` of the model.
pub fn shown(digest: &Digest, tag: Option<&Tag>) -> Value {
    match tag {
        Some(tag) => json!({ "imageDigest": digest.to_string(), "imageTag": tag.as_str() }),
        None => json!({ "imageDigest": digest.to_string() }),
    }
}

/// Does something for each image that an input names, and returns what kept it from being done.
///
/// # Errors
/// Where the store has failed.
pub fn each(
    call: &Call<'_>,
    mut work: impl FnMut(&Value, ImageId) -> Result<(), Unfound>,
) -> Result<Vec<Value>, ApiError> {
    let mut failures = Vec::new();
    for given in call.input.list("imageIds") {
        match ImageId::parse(given).and_then(|id| work(given, id)) {
            Ok(()) => {}
            Err(Unfound::Failure(code, reason)) => failures.push(failure(given, code, &reason)),
            Err(Unfound::Error(error)) => return Err(call.error(error)),
        }
    }
    Ok(failures)
}

/// `ImageFailure` of the model, for an image as it was named.
pub fn failure(given: &Value, code: &str, reason: &str) -> Value {
    json!({ "imageId": given, "failureCode": code, "failureReason": reason })
}

/// The image that an input names, for operations that fail where there is none.
///
/// # Errors
/// `ImageNotFoundException`; `InvalidParameterException` for what names none.
pub fn the_image(call: &Call<'_>, repository: &Repository, given: &Value) -> Result<(ImageId, Digest), ApiError> {
    let found = ImageId::parse(given).and_then(|id| id.digest(repository).map(|digest| (id, digest)));
    found.map_err(|unfound| unnamed(call, given, unfound))
}

/// The error of an operation that fails where an image is not found.
pub fn unnamed(call: &Call<'_>, given: &Value, unfound: Unfound) -> ApiError {
    match unfound {
        Unfound::Failure("ImageNotFound" | "ImageTagDoesNotMatchDigest", _) => image_not_found(call, given),
        Unfound::Failure("InvalidImageTag", _) => must_match("imageTag", TAG),
        Unfound::Failure("InvalidImageDigest", _) => must_match("imageDigest", DIGEST),
        Unfound::Failure(_, reason) => ApiError::new("InvalidParameterException", reason),
        Unfound::Error(error) => call.error(error),
    }
}

pub fn image_not_found(call: &Call<'_>, given: &Value) -> ApiError {
    let text = |member| given.get(member).and_then(Value::as_str).unwrap_or("null");
    let (digest, tag) = (text("imageDigest"), text("imageTag"));
    let (name, account) = (call.input.required("repositoryName"), call.account());
    let message = format!(
        "The image with imageId {{imageDigest:'{digest}', imageTag:'{tag}'}} does not exist within the repository with \
         name '{name}' in the registry with id '{account}'"
    );
    ApiError::new("ImageNotFoundException", message)
}

fn must_match(member: &str, pattern: &str) -> ApiError {
    ApiError::invalid_parameter(member, &format!("must satisfy regular expression '{pattern}'"))
}

/// The tag that an input gives to an image.
pub fn given_tag(text: &str) -> Result<Tag, ApiError> {
    text.parse().map_err(|_| must_match("imageTag", TAG))
}

/// The digest that an input says something has.
pub fn given_digest(member: &str, text: &str) -> Result<Digest, ApiError> {
    digest(text).ok_or_else(|| must_match(member, DIGEST))
}

/// An output of a repository, with the members that those begin with.
pub fn output<const N: usize>(call: &Call<'_>, members: [(&str, Value); N]) -> Value {
    let mut output = call.of_named(call.input.required("repositoryName"));
    output.extend(members.map(|(member, value)| (member.to_owned(), value)));
    Value::Object(output)
}
