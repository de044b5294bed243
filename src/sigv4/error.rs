//! Why a request is not taken for one that was signed.

use std::time::Duration;

/// Why a request was not verified.
///
/// The texts are those of AWS, since clients show them and users look them up; [`code`](Self::code) is the name of the
/// exception that carries them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigV4Error {
    /// The request is not signed. Give the client credentials.
    #[error("Missing Authentication Token")]
    Missing,
    /// The header `authorization`, or one that belongs to it, is malformed, too long or missing.
    #[error("{reason}")]
    Incomplete {
        /// What is wrong with which.
        reason: String,
    },
    /// A header that has to be signed is not. `name` has no more than 64 characters.
    #[error("'{name}' must be a 'SignedHeader' in the AWS Authorization.")]
    NotSigned {
        /// The header, in lower case.
        name: String,
    },
    /// The signature is for another date, service or region.
    #[error("{reason}")]
    Scope {
        /// What was expected.
        reason: String,
    },
    /// The signature is too old. Set the client's clock, or the server's.
    #[error("Signature expired: {signed} is now earlier than {earliest} ({now} - {} min.)", skew.as_secs() / 60)]
    Expired {
        /// When the request was signed.
        signed: String,
        /// The earliest time that is accepted.
        earliest: String,
        /// The server's time.
        now: String,
        /// How far from it a signature may be.
        skew: Duration,
    },
    /// The signature is from the future. Set the client's clock, or the server's.
    #[error("Signature not yet current: {signed} is still later than {latest} ({now} + {} min.)", skew.as_secs() / 60)]
    NotYetCurrent {
        /// When the request was signed.
        signed: String,
        /// The latest time that is accepted.
        latest: String,
        /// The server's time.
        now: String,
        /// How far from it a signature may be.
        skew: Duration,
    },
    /// There is no such access key, or no such session.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// The key signed something else, or another secret signed this.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    /// The session that signed this is over. Get new temporary credentials.
    #[error("The security token included in the request is expired")]
    ExpiredSession,
}

impl SigV4Error {
    /// The name of the exception, as AWS's JSON services have it. The query protocol has other names.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Incomplete { .. } => "IncompleteSignatureException",
            Self::UnknownKey => "UnrecognizedClientException",
            Self::ExpiredSession => "ExpiredTokenException",
            Self::NotSigned { .. }
            | Self::Scope { .. }
            | Self::Expired { .. }
            | Self::NotYetCurrent { .. }
            | Self::Mismatch => "InvalidSignatureException",
        }
    }

    pub(super) fn incomplete(reason: impl Into<String>) -> Self {
        Self::Incomplete { reason: reason.into() }
    }
}
