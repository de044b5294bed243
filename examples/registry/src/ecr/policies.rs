//! Access policies of repositories and of the registry.

use std::sync::Arc;

use serde_json::{Value, json};
use strongroom::Error;
use strongroom::policy::{Kind, Policy};
use strongroom::registry::{ExpectDocument, Repository};

use super::call::{Answer, Call};
use super::documents::POLICY;
use super::error::ApiError;
use super::registry_documents as registry;
use super::{Built, Service, Target};
use crate::access::On;

pub const OPERATIONS: &[Built] = &[
    Service::Private.writes("SetRepositoryPolicy", Target::Repository, set),
    Service::Private.reads("GetRepositoryPolicy", Target::Repository, get),
    Service::Private.writes("DeleteRepositoryPolicy", Target::Repository, delete),
    Service::Public.writes("SetRepositoryPolicy", Target::Repository, set),
    Service::Public.reads("GetRepositoryPolicy", Target::Repository, get),
    Service::Public.writes("DeleteRepositoryPolicy", Target::Repository, delete),
    Service::Private.writes("PutRegistryPolicy", Target::Registry, put_of_registry),
    Service::Private.reads("GetRegistryPolicy", Target::Registry, get_of_registry),
    Service::Private.writes("DeleteRegistryPolicy", Target::Registry, delete_of_registry),
];

fn set(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let text = call.input.required("policyText");
    let policy = parse(text, "repository")?;
    // Who sets it could otherwise not mend it.
    let on = call.own(call.shown_name(repository.name()));
    if !call.input.flag("force") && !call.may_under("SetRepositoryPolicy", on, policy)? {
        let constraint = "The policy would keep you from setting another one. Set it with force to do so all the same";
        return Err(ApiError::invalid_parameter("PolicyText", constraint));
    }
    repository.set_document(POLICY, text, ExpectDocument::Any).map_err(|error| call.error(error))?;
    Ok(answer(call, &repository, text))
}

fn get(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let text = policy_text(call, &repository)?;
    Ok(answer(call, &repository, &text))
}

fn delete(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let text = policy_text(call, &repository)?;
    match repository.remove_document(POLICY, ExpectDocument::Any) {
        Err(Error::DocumentNotFound { .. }) => Err(not_found(call, &repository)),
        other => other.map(|_| answer(call, &repository, &text)).map_err(|error| call.error(error)),
    }
}

fn policy_text(call: &Call<'_>, repository: &Repository) -> Result<String, ApiError> {
    let found = repository.document(POLICY)?.ok_or_else(|| not_found(call, repository))?;
    Ok(String::from_utf8_lossy(&found.content).into_owned())
}

fn not_found(call: &Call<'_>, repository: &Repository) -> ApiError {
    let (name, account) = (call.shown_name(repository.name()), call.account());
    let message = format!(
        "Repository policy does not exist for the repository with name '{name}' in the registry with id '{account}'"
    );
    ApiError::new("RepositoryPolicyNotFoundException", message)
}

fn answer(call: &Call<'_>, repository: &Repository, text: &str) -> Value {
    let mut answer = call.of_repository(repository);
    answer.insert("policyText".to_owned(), json!(text));
    Value::Object(answer)
}

/// A policy of a repository or a registry.
fn parse(text: &str, of: &str) -> Result<Arc<Policy>, ApiError> {
    let policy = Policy::parse(text, Kind::Resource).map_err(|error| {
        ApiError::invalid_parameter("PolicyText", &format!("Invalid {of} policy provided: {error}"))
    })?;
    Ok(Arc::new(policy))
}

fn put_of_registry(call: &Call<'_>) -> Answer {
    let text = call.input.required("policyText");
    if !call.may_under("PutRegistryPolicy", On::Registry, parse(text, "registry")?)? {
        let constraint = "The policy would keep you from setting another one";
        return Err(ApiError::invalid_parameter("PolicyText", constraint));
    }
    registry::write(call.store, registry::POLICY, text.as_bytes())?;
    Ok(answer_of_registry(call, text))
}

fn get_of_registry(call: &Call<'_>) -> Answer {
    Ok(answer_of_registry(call, &text_of_registry(call)?))
}

fn delete_of_registry(call: &Call<'_>) -> Answer {
    let text = text_of_registry(call)?;
    registry::remove(call.store, registry::POLICY)?.ok_or_else(|| not_found_of_registry(call))?;
    Ok(answer_of_registry(call, &text))
}

fn text_of_registry(call: &Call<'_>) -> Result<String, ApiError> {
    let found = registry::read(call.store, registry::POLICY)?.ok_or_else(|| not_found_of_registry(call))?;
    Ok(String::from_utf8_lossy(&found.content).into_owned())
}

fn not_found_of_registry(call: &Call<'_>) -> ApiError {
    let message = format!("Registry policy does not exist in the registry with id '{}'", call.account());
    ApiError::new("RegistryPolicyNotFoundException", message)
}

fn answer_of_registry(call: &Call<'_>, text: &str) -> Value {
    json!({ "registryId": call.account(), "policyText": text })
}
