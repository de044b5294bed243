//! What AWS KMS answers: bodies of successes, and which error a refusal is.
//!
//! <https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html> and the pages of `Encrypt`, `Decrypt` and
//! `GenerateDataKey`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::super::{KeyError, SecretKey};

/// The body of a success. Texts are those of the body, which its owner wipes.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    plaintext: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ciphertext_blob: Option<Cow<'a, str>>,
}

impl Drop for Answer<'_> {
    /// A text with escapes, which base64 has not, but may be written with, is a copy.
    fn drop(&mut self) {
        if let Some(Cow::Owned(text)) = &mut self.plaintext {
            text.zeroize();
        }
    }
}

impl<'a> Answer<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, KeyError> {
        // The error of `serde_json` can quote what it found: not shown.
        serde_json::from_slice(body).map_err(|_| unexpected("an answer that is no JSON of KMS"))
    }

    /// The data key. With 32 bytes encrypted, any other number means that this is not what was wrapped.
    pub(super) fn key(&self) -> Result<SecretKey, KeyError> {
        let text = self.plaintext.as_deref().ok_or_else(|| unexpected("an answer without Plaintext"))?;
        let mut bytes = Zeroizing::new([0; 2 * SecretKey::LEN]);
        let length = STANDARD.decode_slice(text, &mut *bytes).map_err(|_| KeyError::Damaged)?;
        bytes.get(..length).and_then(SecretKey::copied).ok_or(KeyError::Damaged)
    }

    /// The wrapped key.
    pub(super) fn ciphertext(&self) -> Result<Vec<u8>, KeyError> {
        let text = self.ciphertext_blob.as_deref().ok_or_else(|| unexpected("an answer without CiphertextBlob"))?;
        STANDARD.decode(text).map_err(|_| unexpected("a CiphertextBlob that is no base64"))
    }
}

fn unexpected(what: &str) -> KeyError {
    KeyError::Unreachable { reason: what.to_owned() }
}

/// The body of a refusal.
#[derive(Default, Deserialize)]
struct Body {
    #[serde(rename = "__type")]
    code: Option<String>,
    message: Option<String>,
    #[serde(rename = "Message")]
    capital_message: Option<String>,
}

/// An answer that is no success.
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    /// The header `x-amzn-errortype`.
    pub(super) error_type: Option<&'a str>,
    pub(super) body: &'a [u8],
    /// The key that was asked for.
    pub(super) key_id: &'a str,
}

/// The most that is told of what a service says, in characters.
const MAX_REASON: usize = 300;

impl Refusal<'_> {
    /// The error that this is. A message which has one of `secrets` in it, as when what was sent is sent back, is
    /// withheld.
    pub(super) fn error(&self, secrets: &[&str]) -> KeyError {
        let body: Body = serde_json::from_slice(self.body).unwrap_or_default();
        let code = self.error_type.or(body.code.as_deref()).unwrap_or_default();
        // Both `NotFoundException:http://…` and `com.amazonaws.kms#NotFoundException` occur.
        let code = code.split(':').next().and_then(|code| code.rsplit('#').next()).unwrap_or_default();
        let message = body.message.or(body.capital_message).unwrap_or_default();
        let reason = shown(self.status, code, &message, secrets);
        let key_id = self.key_id.to_owned();
        match code {
            "NotFoundException" => KeyError::Gone { key_id, reason },
            "KMSInvalidStateException" if message.to_lowercase().replace(' ', "").contains("deletion") => {
                KeyError::Gone { key_id, reason }
            }
            "IncorrectKeyException" => KeyError::Wrong { expected: key_id, found: String::new() },
            "InvalidCiphertextException" => KeyError::Damaged,
            "ValidationException" | "InvalidArnException" | "InvalidKeyUsageException" => KeyError::Invalid { reason },
            "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "KeyUnavailableException"
            | "DependencyTimeoutException" => KeyError::Unreachable { reason },
            _ if self.status >= 500 || self.status == 429 || self.status < 400 => KeyError::Unreachable { reason },
            // A proxy, or something that is no KMS at all.
            "" if !matches!(self.status, 401 | 403) => KeyError::Unreachable { reason },
            _ => KeyError::Denied { reason },
        }
    }
}

/// What is told of a refusal: the first line of the message, since those that follow quote the request.
fn shown(status: u16, code: &str, message: &str, secrets: &[&str]) -> String {
    let line = |text: &str| text.lines().next().unwrap_or_default().replace(char::is_control, "");
    let (code, message) = (line(code), line(message));
    let repeats = |secret: &&str| !secret.is_empty() && (code.contains(*secret) || message.contains(*secret));
    if secrets.iter().any(repeats) {
        return format!("status {status}, and a message that repeats a secret, withheld");
    }
    let whole = match (code.is_empty(), message.is_empty()) {
        (true, _) => format!("an answer of status {status} that is not KMS's"),
        (false, true) => code,
        (false, false) => format!("{code}: {message}"),
    };
    whole.chars().take(MAX_REASON).collect()
}

/// All of the above, for fuzzing.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(body: &[u8]) {
    if let Ok(answer) = Answer::parse(body) {
        let _ = answer.key();
        let _ = answer.ciphertext();
    }
    let _ = Refusal { status: 400, error_type: None, body, key_id: "" }.error(&["secret"]);
}
