//! AWS Signature Version 4: signing requests, and verifying signed ones.
//!
//! A server that speaks an AWS protocol gives [`verify`] what it received, its [`Credentials`] and what it
//! [expects](Expected). The answer is whose key signed the request, or a [`SigV4Error`] with the code and the text that
//! AWS has for it.
//!
//! ```text
//! canonical request   method, path, query, the lines of the signed headers, their names, SHA-256 of the body
//! string to sign      AWS4-HMAC-SHA256, time, date/region/service/aws4_request, SHA-256 of the canonical request
//! signing key         HMAC("AWS4" + secret, date), then of that the region, the service and "aws4_request"
//! signature           HMAC(signing key, string to sign)
//! ```
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
//!
//! # What is accepted
//! Requests signed by the header `authorization`, with one HMAC key for one region. Signed query parameters (presigned
//! URLs), signatures in chunks, unsigned bodies and the asymmetric variant are refused. Paths are normalized, and what
//! is encoded in them is encoded once more, as for all services but S3.
//!
//! # What is proven by `Ok`
//! The holder of the secret signed this method, path, query, body, `host`, and every header `x-amz-*`; for this service
//! and this region; at a time no further from now than the skew. Other headers are proven only where they were signed.
//! A request can be repeated by whoever saw it for as long as the skew allows: use TLS.
//!
//! A key that is not known costs the same work as a wrong signature, and signatures are compared in constant time.
//!
//! # Example
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use strongroom::sigv4::{self, Credentials, Expected, Request, Scope, Secret, SigV4Error};
//!
//! struct One;
//!
//! impl Credentials for One {
//!     fn secret(&self, access_key_id: &str, session_token: Option<&str>) -> Option<Secret> {
//!         (access_key_id == "AKIDEXAMPLE00000" && session_token.is_none()).then(|| Secret::new("example secret"))
//!     }
//! }
//!
//! // What a client does.
//! let now = SystemTime::now();
//! let time = sigv4::timestamp(now);
//! let mut headers: Vec<(&str, &[u8])> = vec![("host", b"localhost:5000"), ("x-amz-date", time.as_bytes())];
//! let scope = Scope { region: "us-east-1", service: "ecr", time: &time };
//! let request = Request::new("POST", "/").headers(&headers).body(b"{}");
//! let authorization = sigv4::sign(&request, &scope, "AKIDEXAMPLE00000", &Secret::new("example secret"));
//!
//! // What a server does.
//! headers.push(("authorization", authorization.as_bytes()));
//! let expected = Expected::new(&[("ecr", "us-east-1")]);
//! let received = Request::new("POST", "/").headers(&headers).body(b"{}");
//! let verified = sigv4::verify(&received, &One, now, &expected)?;
//! assert_eq!((&*verified.access_key_id, &*verified.service), ("AKIDEXAMPLE00000", "ecr"));
//!
//! let forged = Request::new("POST", "/").headers(&headers).body(b"{ }");
//! assert_eq!(sigv4::verify(&forged, &One, now, &expected).unwrap_err(), SigV4Error::Mismatch);
//! let late = sigv4::verify(&received, &One, now + Duration::from_secs(3600), &expected);
//! assert_eq!(late.unwrap_err().code(), "InvalidSignatureException");
//! # Ok::<(), SigV4Error>(())
//! ```

use std::fmt;

use ring::{digest, hmac};

use crate::digest::encode_hex;
use crate::zeroing::Zeroizing;

mod authorization;
mod canonical;
mod error;
#[cfg(test)]
mod tests;
mod time;
mod verify;

pub use error::SigV4Error;
pub use time::timestamp;
pub use verify::{Credentials, Expected, Verified, verify};

/// The only algorithm: HMAC with SHA-256.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What ends the scope of each signature.
const TERMINATOR: &str = "aws4_request";

/// A request as it is sent, or as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: &'a [(&'a str, &'a [u8])],
    body_hash: Option<[u8; 32]>,
}

impl<'a> Request<'a> {
    /// A request without query, headers and body. The path is as in the request line: what is percent-encoded there
    /// is so here.
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Self { method, path, query: "", headers: &[], body_hash: None }
    }

    /// What follows the `?` in the request line.
    pub fn query(self, query: &'a str) -> Self {
        Self { query, ..self }
    }

    /// All headers, in their order. Names are compared without regard to case.
    pub fn headers(self, headers: &'a [(&'a str, &'a [u8])]) -> Self {
        Self { headers, ..self }
    }

    /// The body. It is hashed by this call.
    pub fn body(self, body: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.iter_mut().zip(sha256(body).as_ref()).for_each(|(to, from)| *to = *from);
        self.body_hash(hash)
    }

    /// The SHA-256 of a body that was read in pieces.
    pub fn body_hash(self, sha256: [u8; 32]) -> Self {
        Self { body_hash: Some(sha256), ..self }
    }

    /// The values of all headers of this name, which is in lower case.
    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

/// Where and when a signature is valid.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Such as `us-east-1`.
    pub region: &'a str,
    /// Such as `ecr`.
    pub service: &'a str,
    /// As [`timestamp`] shows it, and as the header `x-amz-date` has it.
    pub time: &'a str,
}

impl Scope<'_> {
    /// The first eight digits of the time.
    fn date(&self) -> &str {
        self.time.get(..8).unwrap_or_default()
    }

    /// `date/region/service/aws4_request`.
    fn place(&self) -> String {
        format!("{}/{}/{}/{TERMINATOR}", self.date(), self.region, self.service)
    }
}

/// The secret of an access key. Its memory is wiped when it is dropped, and nothing prints it.
#[derive(Clone)]
pub struct Secret {
    text: Zeroizing<String>,
    has_expired: bool,
}

impl Secret {
    /// The secret, as the client has it.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: Zeroizing::new(text.into()), has_expired: false }
    }

    /// The secret of a session that is over: who signs with it is told [`SigV4Error::ExpiredSession`], anyone else a
    /// [`SigV4Error::Mismatch`].
    pub fn expired(text: impl Into<String>) -> Self {
        Self { has_expired: true, ..Self::new(text) }
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("has_expired", &self.has_expired).finish_non_exhaustive()
    }
}

/// Signs a request with all its headers, among which are `host` and `x-amz-date` with the time of the scope: the value
/// of the header `authorization`. Where the credentials have a session token, `x-amz-security-token` is among them too.
pub fn sign(request: &Request<'_>, scope: &Scope<'_>, access_key_id: &str, secret: &Secret) -> String {
    let mut names: Vec<_> = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (key, text) = (signing_key(scope, secret), string_to_sign(request, &names, scope));
    let signature = encode_hex(hmac::sign(&key, text.as_bytes()).as_ref());
    let (place, names) = (scope.place(), names.join(";"));
    format!("{ALGORITHM} Credential={access_key_id}/{place}, SignedHeaders={names}, Signature={signature}")
}

/// What the signature is of. The names are those of the signed headers, in lower case and in order.
fn string_to_sign(request: &Request<'_>, names: &[&str], scope: &Scope<'_>) -> String {
    let hash = encode_hex(canonical::hash(request, names).as_ref());
    format!("{ALGORITHM}\n{}\n{}\n{hash}", scope.time, scope.place())
}

/// The key that is good for one day, region and service.
fn signing_key(scope: &Scope<'_>, secret: &Secret) -> hmac::Key {
    let key = Zeroizing::new([b"AWS4", secret.text.as_bytes()].concat());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    [scope.date(), scope.region, scope.service, TERMINATOR].into_iter().fold(key, |key, part| {
        let next = hmac::sign(&key, part.as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, next.as_ref())
    })
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}
