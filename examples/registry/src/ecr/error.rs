//! Errors as AWS has them: a type, by which clients tell them apart, and a message.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use strongroom::ErrorKind;

use super::model::{Invalid, Operation};
use crate::access::Denied;
use crate::http::failure::Failure;

/// The media type of requests and answers.
pub const JSON: &str = "application/x-amz-json-1.1";

/// An error of an operation.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    kind: String,
    message: String,
    /// Further members.
    members: Map<String, Value>,
}

impl ApiError {
    /// An error by its name in the model.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        let status =
            if kind == "ServerException" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
        Self { status, kind: kind.to_owned(), message: message.into(), members: Map::new() }
    }

    /// With a member beside the message.
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// A member that the table allows, and the operation does not take.
    pub fn invalid_parameter(member: &str, constraint: &str) -> Self {
        let message = format!("Invalid parameter at '{member}' failed to satisfy constraint: '{constraint}'");
        Self::new("InvalidParameterException", message)
    }

    /// A token could not be made.
    pub fn no_token(error: &std::io::Error) -> Self {
        tracing::error!(%error, "no token can be made");
        Self::server("the registry has failed: its log says how")
    }

    pub fn server(message: &str) -> Self {
        Self::new("ServerException", message)
    }

    /// Whether the caller may not do what it asked for.
    pub fn is_denied(&self) -> bool {
        self.kind == "AccessDeniedException"
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What the table does not allow, as the operation says it.
    pub fn invalid(invalid: Invalid, operation: &Operation) -> Self {
        match invalid {
            Invalid::Type(message) => Self::new("SerializationException", message),
            Invalid::Constraint { member, constraint } => {
                let error = Self::invalid_parameter(&member, &constraint);
                if operation.errors.contains(&"InvalidParameterException") {
                    return error;
                }
                Self::new("ValidationException", error.message)
            }
        }
    }
}

/// What no operation has an error of its own for.
impl From<strongroom::Error> for ApiError {
    fn from(error: strongroom::Error) -> Self {
        match error.kind() {
            ErrorKind::Busy => Self::new("ThrottlingException", "Rate exceeded"),
            ErrorKind::Full => {
                tracing::warn!(%error, "nothing can be written");
                Self::server("no space left in the registry")
            }
            ErrorKind::Shortage | ErrorKind::ReadOnly | ErrorKind::Closed | ErrorKind::Key => {
                tracing::warn!(%error, "a request is refused");
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self { status, ..Self::server("the registry can't do that now") }
            }
            _ => {
                tracing::error!(%error, "the store has failed");
                Self::server("the registry has failed: its log says how")
            }
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(message) => Self::new("AccessDeniedException", message),
            Denied::Failed(error) => error.into(),
            Denied::Unreadable(error) => error,
        }
    }
}

/// What befalls a request before an operation has it.
impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let kind = match failure.status() {
            StatusCode::TOO_MANY_REQUESTS => "ThrottlingException",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableException",
            status if status.is_server_error() => "ServerException",
            _ => "InvalidParameterException",
        };
        Self { status: failure.status(), ..Self::new(kind, failure.message()) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body =
            Map::from_iter([("__type".to_owned(), json!(self.kind)), ("message".to_owned(), json!(self.message))]);
        body.extend(self.members);
        (self.status, [(CONTENT_TYPE, JSON)], Value::Object(body).to_string()).into_response()
    }
}
