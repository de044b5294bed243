//! Logging in: tokens for the distribution API.

use serde_json::json;

use super::call::{Answer, Call};
use super::{Built, Service, Target};

pub const OPERATIONS: &[Built] = &[Built {
    service: Service::Private,
    name: "GetAuthorizationToken",
    target: Target::Registry,
    reads: true,
    run: authorize,
}];

fn authorize(call: &Call<'_>) -> Answer {
    Ok(
        json!({ "authorizationData": [{ "proxyEndpoint": format!("{}://{}", call.origin.scheme, call.origin.authority) }] }),
    )
}
