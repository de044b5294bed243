//! Logging in: tokens for the distribution API.

use serde_json::json;

use super::call::{Answer, Call};
use super::error::ApiError;
use super::{Built, Service, Target};
use crate::auth::token::Token;

pub const OPERATIONS: &[Built] = &[
    Service::Private.reads("GetAuthorizationToken", Target::Caller, authorize),
    Service::Public.reads("GetAuthorizationToken", Target::Caller, authorize_for_public),
];

/// One token for the registry. It is in a list: once there could be several registries, and clients take the first.
fn authorize(call: &Call<'_>) -> Answer {
    let token = token(call)?;
    let url = call.access.auth().url().map_or_else(|| call.origin.to_string(), str::to_owned);
    let (text, expires) = (token.authorization(), token.expires);
    Ok(json!({ "authorizationData": [{ "authorizationToken": text, "expiresAt": expires, "proxyEndpoint": url }] }))
}

/// The same without a list, and without the registry, which clients know.
fn authorize_for_public(call: &Call<'_>) -> Answer {
    let token = token(call)?;
    Ok(json!({ "authorizationData": { "authorizationToken": token.authorization(), "expiresAt": token.expires } }))
}

fn token(call: &Call<'_>) -> Result<Token, ApiError> {
    call.access.auth().token_for(call.access.identity()).map_err(|error| ApiError::no_token(&error))
}
