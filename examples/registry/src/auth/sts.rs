//! `GetCallerIdentity` of AWS STS, for scripts that ask which account they are in before they log in.
//!
//! STS speaks the query protocol: a form comes in, XML goes out, and errors have other names than those of JSON
//! services. <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>

use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::percent_decode_str;
use strongroom::sigv4::SigV4Error;

use super::{Auth, Identity, random};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

const VERSION: &str = "2011-06-15";

/// Whether a request to `/` is one of the query protocol.
pub fn is_query(parts: &Parts) -> bool {
    if parts.headers.contains_key("x-amz-target") {
        return false; // curl says that everything is a form
    }
    let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Answers a request, whose body is all of it.
pub fn answer(auth: &Auth, parts: &Parts, body: &[u8]) -> Response {
    let identity = match auth.of_api(parts, body, "sts") {
        Ok(identity) => identity,
        Err(error) => {
            let (status, code) = code(&error);
            return failure(status, code, &error.to_string());
        }
    };
    let (action, version) = (parameter(body, "Action"), parameter(body, "Version"));
    let (action, version) = (action.unwrap_or_default(), version.unwrap_or_default());
    if action != "GetCallerIdentity" || version != VERSION {
        let message = format!("Could not find operation {action} for version {version}");
        return failure(StatusCode::BAD_REQUEST, "InvalidAction", &message);
    }
    let (arn, user_id, account) = match &identity {
        Identity::Principal(principal) => {
            (principal.arn().to_owned(), principal.user_id().to_owned(), principal.account().to_string())
        }
        Identity::Open | Identity::Anonymous => {
            let account = auth.account();
            (format!("arn:aws:iam::{account}:root"), account.to_owned(), account.to_owned())
        }
    };
    let result = format!(
        "<GetCallerIdentityResult><Arn>{}</Arn><UserId>{}</UserId><Account>{}</Account></GetCallerIdentityResult>",
        escaped(&arn),
        escaped(&user_id),
        escaped(&account)
    );
    let id = request_id();
    let metadata = format!("<ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata>");
    xml(StatusCode::OK, &id, "GetCallerIdentityResponse", &format!("{result}{metadata}"))
}

/// How STS calls what is wrong with a signature.
fn code(error: &SigV4Error) -> (StatusCode, &'static str) {
    match error {
        SigV4Error::Missing => (StatusCode::FORBIDDEN, "MissingAuthenticationToken"),
        SigV4Error::Incomplete { .. } => (StatusCode::BAD_REQUEST, "IncompleteSignature"),
        SigV4Error::UnknownKey => (StatusCode::FORBIDDEN, "InvalidClientTokenId"),
        SigV4Error::ExpiredSession => (StatusCode::FORBIDDEN, "ExpiredToken"),
        _ => (StatusCode::FORBIDDEN, "SignatureDoesNotMatch"),
    }
}

/// The first value of a name in a form.
fn parameter(form: &[u8], name: &str) -> Option<String> {
    let form = std::str::from_utf8(form).ok()?;
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| decoded(key) == name)
        .map(|(_, value)| decoded(value))
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response {
    let id = request_id();
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{}</Message></Error>", escaped(message));
    xml(status, &id, "ErrorResponse", &format!("{error}<RequestId>{id}</RequestId>"))
}

fn xml(status: StatusCode, id: &str, element: &str, content: &str) -> Response {
    let body = format!("<{element} xmlns=\"https://sts.amazonaws.com/doc/{VERSION}/\">{content}</{element}>\n");
    (status, [(CONTENT_TYPE, "text/xml"), (REQUEST_ID, id)], body).into_response()
}

/// A text between tags.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            // XML has no way to write others.
            char if char.is_control() && !matches!(char, '\t' | '\n' | '\r') => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

/// A number in the form of a UUID, by which a client can tell of a request.
fn request_id() -> String {
    let bytes = random::bytes::<16>().unwrap_or_default(); // an id that is not unique does no harm
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}
