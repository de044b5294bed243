//! Errors as the distribution specification writes them.
//!
//! | what | answer |
//! |---|---|
//! | not there | 404 `NAME_UNKNOWN`, `BLOB_UNKNOWN`, `BLOB_UPLOAD_UNKNOWN`, `MANIFEST_UNKNOWN` |
//! | malformed | 400 `NAME_INVALID`, `DIGEST_INVALID`, `MANIFEST_INVALID`, `BLOB_UPLOAD_INVALID`, `SIZE_INVALID` |
//! | content has another digest | 400 `DIGEST_INVALID` |
//! | a manifest refers to what is not there | 400, one `MANIFEST_BLOB_UNKNOWN` for each, the digest in `detail` |
//! | a manifest is too large | 413 `SIZE_INVALID` |
//! | a chunk out of order, a range outside of the blob | 416 `BLOB_UPLOAD_INVALID`, `SIZE_INVALID` |
//! | deleting what manifests refer to | 405 `DENIED`: with 400, all that the specification has for a deletion refused |
//! | an immutable tag would move | 400 `TAG_INVALID`, as from Amazon ECR: clients can tell it from a lack of rights |
//! | `If-Match`, `If-None-Match` do not hold | 412 `DENIED` |
//! | who asks may not | 403 `DENIED`; of who has not said who they are: 401 `UNAUTHORIZED`, and how to say it |
//! | a body that does not come | 408 `BLOB_UPLOAD_INVALID`, `MANIFEST_INVALID` |
//! | an upload is in use by another request, a client has too much unfinished | 429 `TOOMANYREQUESTS` and `Retry-After`: clients try again |
//! | there is no place, no memory, no turn | 503 `UNAVAILABLE` and `Retry-After` |
//! | the disk is full | 507 `UNAVAILABLE`, and a warning in the log |
//! | an earlier sync failed | 503 `UNAVAILABLE`, and an error in the log |
//! | the registry stops | 503 `UNAVAILABLE` |
//! | damage, I/O errors | 500 `UNKNOWN`, and an error in the log |
//!
//! What a client does wrong is no more than a line for its request: errors in the log are for the operator.

use axum::http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde_json::{Value, json};
use strongroom::{Digest, Error, ErrorKind};

use crate::access::Denied;

/// The codes of the specification, two for errors of the server, for which it has none, and one of its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    TagInvalid,
    Denied,
    Unauthorized,
    Unsupported,
    TooManyRequests,
    Unavailable,
    Unknown,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::Denied => "DENIED",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The longest message, in bytes. What a client has sent may be repeated in it, and is no longer for that.
const MAX_MESSAGE: usize = 1000;

/// An answer that is an error.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    errors: Vec<Value>,
    headers: Vec<(HeaderName, String)>,
}

impl Failure {
    pub fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        let end = (0..=MAX_MESSAGE).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
        let error = json!({ "code": code.name(), "message": message });
        Self { status, errors: vec![error], headers: Vec::new() }
    }

    pub fn bad_request(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub fn bad_query(message: String) -> Self {
        Self::bad_request(Code::Unsupported, message)
    }

    pub fn no_such_endpoint() -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::Unsupported, "no such endpoint")
    }

    pub fn upload_unknown(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::BlobUploadUnknown, format!("no upload {id:?}: begin a new one"))
    }

    pub fn method_not_allowed(methods: &'static str) -> Self {
        let message = format!("the methods of this endpoint are {methods}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message).header(ALLOW, methods.to_owned())
    }

    /// Who asks may not do what it asks for.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, Code::Denied, message)
    }

    /// There is no place, no memory or no turn for a request just now.
    pub fn busy() -> Self {
        let message = "the registry is busy: try again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, message).retry_after(1)
    }

    /// Says when to try again, in seconds.
    pub fn retry_after(self, seconds: u32) -> Self {
        self.header(RETRY_AFTER, seconds.to_string())
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What it says first.
    pub fn message(&self) -> String {
        let message = self.errors.first().and_then(|error| error.get("message")).and_then(Value::as_str);
        message.unwrap_or_default().to_owned()
    }

    /// Whether it says that.
    pub fn is(&self, code: Code) -> bool {
        self.errors.iter().any(|error| error["code"] == code.name())
    }

    /// Whether trying again comes to nothing else.
    pub fn is_final(&self) -> bool {
        matches!(self.status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND)
    }

    pub fn header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// One error for each blob and manifest missing. A manifest can name ten thousand; the first hundred will do.
    fn references_missing(blobs: &[Digest], manifests: &[Digest]) -> Self {
        let missing = |kind: &'static str| {
            move |digest: &Digest| {
                json!({
                    "code": Code::ManifestBlobUnknown.name(),
                    "message": format!(
                        "the manifest refers to {kind} {digest}, which the repository does not have: push it first"
                    ),
                    "detail": { "digest": digest.to_string(), "kind": kind },
                })
            }
        };
        let errors = blobs.iter().map(missing("blob")).chain(manifests.iter().map(missing("manifest")));
        Self { status: StatusCode::BAD_REQUEST, errors: errors.take(100).collect(), headers: Vec::new() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::InvalidInput | ErrorKind::DigestMismatch | ErrorKind::ReferencesMissing | ErrorKind::Source => {
                StatusCode::BAD_REQUEST
            }
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::OutOfRange => StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorKind::InUse => StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::Conflict if matches!(error, Error::TagMoved { .. }) => StatusCode::PRECONDITION_FAILED,
            ErrorKind::Conflict if matches!(error, Error::TagImmutable { .. }) => StatusCode::BAD_REQUEST,
            ErrorKind::Conflict | ErrorKind::AlreadyExists => StatusCode::CONFLICT,
            ErrorKind::Busy => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Shortage | ErrorKind::ReadOnly | ErrorKind::Closed | ErrorKind::Key => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let code = match &error {
            Error::RepositoryNotFound { .. } => Code::NameUnknown,
            Error::BlobNotFound { .. } => Code::BlobUnknown,
            Error::UploadNotFound { .. } => Code::BlobUploadUnknown,
            Error::ManifestNotFound { .. } | Error::ManifestArchived { .. } => Code::ManifestUnknown,
            Error::InvalidRepositoryName { .. } => Code::NameInvalid,
            Error::InvalidTag { .. } | Error::InvalidManifest { .. } => Code::ManifestInvalid,
            Error::TagImmutable { .. } => Code::TagInvalid,
            Error::InvalidDigest { .. } | Error::DigestMismatch { .. } => Code::DigestInvalid,
            Error::ReferencesMissing { .. } => Code::ManifestBlobUnknown,
            Error::Source { .. } | Error::WrongOffset { .. } => Code::BlobUploadInvalid,
            Error::TooLarge { .. } | Error::ContentTooLong { .. } | Error::OutOfRange { .. } => Code::SizeInvalid,
            _ => match status {
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Code::Denied,
                StatusCode::TOO_MANY_REQUESTS => Code::TooManyRequests,
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => Code::Unavailable,
                _ => Code::Unknown,
            },
        };
        match error.kind() {
            ErrorKind::Full => tracing::warn!(%error, "nothing can be pushed"),
            ErrorKind::Closed => {}
            ErrorKind::Shortage => tracing::warn!(%error, "a request is refused"),
            ErrorKind::Key => tracing::warn!(%error, "a key domain is locked"),
            _ if status.is_server_error() => tracing::error!(%error, "the store has failed"),
            _ => {}
        }
        let failure = Self::new(status, code, error.to_string());
        match error {
            Error::ReferencesMissing { blobs, manifests } => Self::references_missing(&blobs, &manifests),
            Error::OutOfRange { len, .. } => failure.header(CONTENT_RANGE, format!("bytes */{len}")),
            Error::BlobInUse { .. } | Error::ManifestInUse { .. } => failure.header(ALLOW, "GET, HEAD".to_owned()),
            // Clients that are told to ignore this (kaniko is one) look for the end of Amazon ECR's sentence.
            Error::TagImmutable { tag, digest } => {
                let why = "and cannot be overwritten because the tag is immutable";
                Self::new(status, code, format!("the image tag '{tag}' already exists, names {digest}, {why}"))
            }
            Error::UploadBusy { .. } => failure.retry_after(1),
            _ if error.is_shortage() => {
                Self::new(status, code, "the registry is short of files, threads or memory").retry_after(1)
            }
            // Where things lie on the server is for its log.
            _ if status == StatusCode::INTERNAL_SERVER_ERROR => {
                Self::new(status, code, "the registry has failed: its log says how")
            }
            Error::Full { .. } => Self::new(status, code, "no space left in the registry"),
            // What the keeper of the key says is for the log, too.
            Error::Key { .. } => Self::new(status, code, "the key of this repository can't be used now").retry_after(5),
            Error::Poisoned { .. } | Error::ReadOnly { .. } => {
                Self::new(status, code, "the registry takes no writes: its log says why")
            }
            _ => failure,
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(message) => Self::denied(message),
            Denied::Failed(error) => error.into(),
            Denied::Unreadable(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, "the registry has failed: its log says how")
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "errors": self.errors }).to_string();
        (self.status, [(CONTENT_TYPE, "application/json")], AppendHeaders(self.headers), body).into_response()
    }
}
