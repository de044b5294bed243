//! The distribution API's side of logging in: what a client presents, and what one without credentials is told.
//!
//! # Which challenge is sent
//! One, never two: docker and containerd answer each challenge that they see, and give up on pulls without credentials
//! when one of them is `Basic`.
//!
//! | | `Basic`, as Amazon ECR | `Bearer`, as Amazon ECR Public |
//! |---|---|---|
//! | docker, podman, skopeo, crane, oras, regctl with credentials | yes | yes |
//! | podman, skopeo, crane, oras, regctl without credentials, of public repositories | yes | yes |
//! | docker and containerd without credentials, of public repositories | no: "no basic auth credentials" | yes, with a token for nobody |
//! | clients send their password to | where they sent the request | the URL in the challenge |
//!
//! So it is `Bearer` where the operator has said at which URL the registry is reached, and `Basic` otherwise. That URL
//! is never derived from a request or from what a proxy says: a wrong one breaks every login, or has passwords sent
//! elsewhere.
//!
//! # What is accepted
//! Both, whichever was asked for: `Basic` with `AWS` and a token, or with an access key's id and its secret; `Bearer`
//! with a token.

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::json;
use zeroize::Zeroizing;

/// The path at which clients get bearer tokens.
pub const TOKEN_PATH: &str = "/v2/token";

/// Why a request is refused, and how to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    status: StatusCode,
    /// The header `www-authenticate`; none where asking for other credentials would lead to nothing.
    authenticate: Option<String>,
    body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    /// As Amazon ECR says it.
    NotAuthorized,
    Error {
        code: &'static str,
        message: &'static str,
    },
}

impl Challenge {
    /// Asks for a password. `origin` is only a label that clients show: `https://registry.example.com`.
    pub fn basic(origin: &str) -> Self {
        let authenticate = Some(format!("Basic realm=\"{origin}/\",service=\"ecr.amazonaws.com\""));
        Self { status: StatusCode::UNAUTHORIZED, authenticate, body: Body::NotAuthorized }
    }

    /// Asks for a token, which clients get at the registry's URL.
    pub fn bearer(url: &str) -> Self {
        let service = url.split_once("://").map_or(url, |(_, authority)| authority);
        let authenticate = Some(format!("Bearer realm=\"{url}{TOKEN_PATH}\",service=\"{service}\""));
        let body = Body::Error { code: "UNAUTHORIZED", message: "authentication required" };
        Self { status: StatusCode::UNAUTHORIZED, authenticate, body }
    }

    /// Asks for another token in place of one that can't be used: a client gets one by itself.
    pub fn invalid_token(mut self) -> Self {
        if let Some(authenticate) = self.authenticate.as_mut().filter(|text| text.starts_with("Bearer")) {
            authenticate.push_str(",error=\"invalid_token\"");
        }
        self
    }

    /// Says that a password has expired: as Amazon ECR, not by asking, since clients would send the same again.
    pub fn expired() -> Self {
        let message = "Your authorization token has expired. Reauthenticate and try again.";
        Self { status: StatusCode::FORBIDDEN, authenticate: None, body: Body::Error { code: "DENIED", message } }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Challenge {
    fn into_response(self) -> Response {
        let authenticate = AppendHeaders(self.authenticate.map(|value| (WWW_AUTHENTICATE, value)));
        match self.body {
            Body::NotAuthorized => {
                (self.status, authenticate, [(CONTENT_TYPE, "text/plain; charset=utf-8")], "Not Authorized\n")
                    .into_response()
            }
            Body::Error { code, message } => {
                let body = json!({ "errors": [{ "code": code, "message": message }] }).to_string();
                (self.status, authenticate, [(CONTENT_TYPE, "application/json")], body).into_response()
            }
        }
    }
}

/// What a client presents.
pub enum Presented {
    Nothing,
    Basic {
        user: Zeroizing<String>,
        password: Zeroizing<String>,
    },
    Bearer(Zeroizing<String>),
    /// Something that is neither, or two of them.
    Malformed,
}

/// The longest header that is looked at, in bytes.
const MAX: usize = 8 << 10;

/// Some clients leave the padding out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Presented {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Nothing,
            (Some(value), None) if value.len() <= MAX => {
                value.to_str().ok().and_then(Self::parse).unwrap_or(Self::Malformed)
            }
            _ => Self::Malformed,
        }
    }

    fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(Zeroizing::new(rest.to_owned())));
        }
        let pair = scheme.eq_ignore_ascii_case("basic").then(|| LENIENT.decode(rest).ok())??;
        let pair = Zeroizing::new(String::from_utf8(pair).ok()?);
        let (user, password) = pair.split_once(':')?;
        let owned = |text: &str| Zeroizing::new(text.to_owned());
        // docker sends an empty pair where it has no credentials.
        match (user, password) {
            ("", "") => Some(Self::Nothing),
            _ => Some(Self::Basic { user: owned(user), password: owned(password) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn presented(values: &[&str]) -> Presented {
        let values = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
        Presented::of(&values.fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        }))
    }

    #[test]
    fn credentials_are_taken_as_clients_send_them() {
        assert!(matches!(presented(&[]), Presented::Nothing));
        // "AWS:a:b", with padding and without, and in the other case.
        for header in ["Basic QVdTOmE6Yg==", "Basic QVdTOmE6Yg", "basic QVdTOmE6Yg=="] {
            let Presented::Basic { user, password } = presented(&[header]) else { panic!("{header}") };
            assert_eq!((&**user, &**password), ("AWS", "a:b"));
        }
        assert!(matches!(presented(&["Basic Og=="]), Presented::Nothing));
        assert!(matches!(presented(&["Bearer abc"]), Presented::Bearer(token) if *token == "abc"));
        let long = format!("Bearer {}", "a".repeat(MAX));
        for headers in
            [&["Basic"][..], &["Basic !"], &["Basic QVdT"], &["Digest a"], &["Bearer a", "Bearer a"], &[&long]]
        {
            assert!(matches!(presented(headers), Presented::Malformed), "{headers:?}");
        }
    }

    #[test]
    fn challenges_are_those_of_ecr_and_of_ecr_public() {
        let response = Challenge::basic("https://r.example.com").into_response();
        assert_eq!(response.status(), 401);
        let basic = "Basic realm=\"https://r.example.com/\",service=\"ecr.amazonaws.com\"";
        assert_eq!(response.headers()[WWW_AUTHENTICATE], basic);
        let response = Challenge::bearer("http://127.0.0.1:5000").invalid_token().into_response();
        let bearer =
            "Bearer realm=\"http://127.0.0.1:5000/v2/token\",service=\"127.0.0.1:5000\",error=\"invalid_token\"";
        assert_eq!(response.headers()[WWW_AUTHENTICATE], bearer);
        let response = Challenge::expired().into_response();
        assert_eq!((response.status().as_u16(), response.headers().get(WWW_AUTHENTICATE)), (403, None));
    }
}
