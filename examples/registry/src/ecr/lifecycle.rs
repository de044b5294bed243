//! Lifecycle policies: setting them, and previews of what they do.

use serde_json::{Map, Value, json};
use strongroom::registry::lifecycle::{Action, ActionKind, MIN_TEXT_LEN, Policy};
use strongroom::registry::{ImageInfo, Reference, Repository, StorageClass, Tag};
use strongroom::{Digest, Error};

use super::call::{Answer, Call, time};
use super::error::ApiError;
use super::image_lists::Filter;
use super::page::Pager;
use super::{Built, Service, Target};
use crate::lifecycle::{self, Begun, Preview, State};

pub const OPERATIONS: &[Built] = &[
    Service::Private.writes("PutLifecyclePolicy", Target::Repository, put),
    Service::Private.reads("GetLifecyclePolicy", Target::Repository, get),
    Service::Private.writes("DeleteLifecyclePolicy", Target::Repository, delete),
    Service::Private.writes("StartLifecyclePolicyPreview", Target::Repository, start_preview),
    Service::Private.reads("GetLifecyclePolicyPreview", Target::Repository, get_preview),
];

fn parse(call: &Call<'_>, text: &str) -> Result<Policy, ApiError> {
    debug_assert!(text.chars().count() >= MIN_TEXT_LEN, "the table has seen to it");
    call.registry.lifecycle.language().parse(text).map_err(|error| {
        let constraint = format!("Lifecycle policy validation failure: {error}");
        ApiError::invalid_parameter("LifecyclePolicyText", &constraint)
    })
}

fn put(call: &Call<'_>) -> Answer {
    let (repository, text) = (call.repository()?, call.input.required("lifecyclePolicyText"));
    parse(call, text)?;
    let confirmed = call.registry.lifecycle.previews.shown(repository.name(), text)?;
    lifecycle::set_policy(&repository, text, confirmed).map_err(|error| call.error(error))?;
    Ok(answer(call, &repository, text))
}

fn get(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    with_evaluated(call, &repository, &text(call, &repository)?)
}

fn delete(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let answer = with_evaluated(call, &repository, &text(call, &repository)?)?;
    match lifecycle::remove_policy(&repository) {
        Err(Error::DocumentNotFound { .. }) => Err(not_found(call, &repository)),
        other => other.map(|()| answer).map_err(|error| call.error(error)),
    }
}

fn with_evaluated(call: &Call<'_>, repository: &Repository, text: &str) -> Answer {
    let mut answer = answer(call, repository, text);
    if let (Some(last), Value::Object(members)) = (lifecycle::evaluated(repository)?, &mut answer) {
        members.insert("lastEvaluatedAt".to_owned(), time(last.at_ms));
    }
    Ok(answer)
}

fn text(call: &Call<'_>, repository: &Repository) -> Result<String, ApiError> {
    lifecycle::policy_of(repository)?.ok_or_else(|| not_found(call, repository))
}

fn not_found(call: &Call<'_>, repository: &Repository) -> ApiError {
    let (name, account) = (repository.name(), call.account());
    let message = format!(
        "Lifecycle policy does not exist for the repository with name '{name}' in the registry with id '{account}'"
    );
    ApiError::new("LifecyclePolicyNotFoundException", message)
}

fn answer(call: &Call<'_>, repository: &Repository, text: &str) -> Value {
    let mut answer = call.of_repository(repository);
    answer.insert("lifecyclePolicyText".to_owned(), json!(text));
    Value::Object(answer)
}

fn start_preview(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let text = match call.input.text("lifecyclePolicyText") {
        Some(given) => given.to_owned(),
        None => text(call, &repository)?,
    };
    let policy = parse(call, &text)?;
    let mut answer = answer(call, &repository, &text);
    let name = repository.name().clone();
    match call.registry.lifecycle.previews.begin(repository, &text, policy)? {
        Begun::Begun => {}
        Begun::InProgress => {
            let account = call.account();
            let message = format!(
                "The lifecycle policy preview for the repository with name '{name}' in the registry with id \
                 '{account}' is in progress"
            );
            return Err(ApiError::new("LifecyclePolicyPreviewInProgressException", message));
        }
        // Clients try again for a while.
        Begun::TooMany => {
            return Err(ApiError::server("too many lifecycle policy previews are in progress: try again"));
        }
    }
    if let Value::Object(members) = &mut answer {
        members.insert("status".to_owned(), json!("IN_PROGRESS"));
    }
    Ok(answer)
}

fn get_preview(call: &Call<'_>) -> Answer {
    let (repository, input) = (call.repository()?, &call.input);
    let Some(preview) = call.registry.lifecycle.previews.get(repository.name())? else {
        let (name, account) = (repository.name(), call.account());
        let message = format!(
            "There is no lifecycle policy preview for the repository with name '{name}' in the registry with id \
             '{account}'"
        );
        return Err(ApiError::new("LifecyclePolicyPreviewNotFoundException", message));
    };
    let mut answer = call.of_repository(&repository);
    answer.insert("lifecyclePolicyText".to_owned(), json!(preview.text));
    let status = match &preview.state {
        State::InProgress => "IN_PROGRESS",
        State::Complete(_) => "COMPLETE",
        State::Failed => "FAILED",
    };
    answer.insert("status".to_owned(), json!(status));
    if let State::Complete(plan) = &preview.state {
        let archiving = json!([{ "targetStorageClass": "ARCHIVE", "imageTotalCount": plan.summary.archiving }]);
        let summary = json!({
            "expiringImageTotalCount": plan.summary.expiring,
            "transitioningImageTotalCounts": if plan.summary.archiving > 0 { archiving } else { json!([]) },
        });
        answer.insert("summary".to_owned(), summary);
        if input.has("imageIds") {
            let named = of_images(&repository, input.list("imageIds"), &plan.actions)?;
            answer.insert("previewResults".to_owned(), json!(named));
        } else {
            page(call, &repository, &preview, &plan.actions, &mut answer)?;
        }
    }
    Ok(Value::Object(answer))
}

/// The results about images that are named; none for the others.
fn of_images(repository: &Repository, ids: &[Value], actions: &[Action<Digest>]) -> Result<Vec<Value>, ApiError> {
    let mut results = Vec::new();
    for id in ids {
        let text = |member| id.get(member).and_then(Value::as_str);
        let by_tag = text("imageTag").and_then(|tag| tag.parse::<Tag>().ok()).map(Reference::from);
        let by_digest = text("imageDigest").and_then(|digest| digest.parse::<Digest>().ok()).map(Reference::from);
        let Some(reference) = by_digest.or(by_tag) else { continue };
        let info = match repository.image(&reference) {
            Err(Error::ManifestNotFound { .. }) => continue,
            info => info?,
        };
        let action = actions.iter().find(|action| action.key == info.digest);
        results.extend(action.map(|action| result(action, &info)));
    }
    Ok(results)
}

/// So many actions are looked at for a page, which ends there although it may have few results, or none.
const MAX_LOOKED_AT: usize = 1000;

/// A page of results. The token is the number of the action before the next page: the plan stays as it is.
fn page(
    call: &Call<'_>,
    repository: &Repository,
    preview: &Preview,
    actions: &[Action<Digest>],
    answer: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let pager = Pager::of(&call.input.0, format!("{}/{}", call.built.name, preview.id), 100)?;
    let begin = pager.parsed::<usize>()?.unwrap_or(0);
    let filter = Filter::of_named(&call.input);
    let (mut results, mut next) = (Vec::new(), None);
    for (number, action) in actions.iter().enumerate().skip(begin) {
        if results.len() >= pager.limit || number - begin >= MAX_LOOKED_AT {
            next = Some(number);
            break;
        }
        let info = match repository.image(&action.key.into()) {
            Err(Error::ManifestNotFound { .. }) => continue, // deleted since
            info => info.map_err(|error| call.error(error))?,
        };
        if filter.takes(info.storage_class, &info.tags) {
            results.push(result(action, &info));
        }
    }
    answer.insert("previewResults".to_owned(), json!(results));
    if let Some(next) = next {
        answer.insert("nextToken".to_owned(), pager.token(&next.to_string()));
    }
    Ok(())
}

fn result(action: &Action<Digest>, info: &ImageInfo) -> Value {
    let done = match action.kind {
        ActionKind::Expire => json!({ "type": "EXPIRE" }),
        ActionKind::Archive => json!({ "type": "TRANSITION", "targetStorageClass": "ARCHIVE" }),
    };
    let class = if info.storage_class == StorageClass::Archive { "ARCHIVE" } else { "STANDARD" };
    let mut result = json!({
        "imageTags": info.tags.iter().map(Tag::as_str).collect::<Vec<_>>(),
        "imageDigest": info.digest.to_string(),
        "imagePushedAt": time(info.pushed_ms),
        "action": done,
        "storageClass": class,
    });
    if let (Some(priority), Value::Object(members)) = (action.rule_priority, &mut result) {
        members.insert("appliedRulePriority".to_owned(), json!(priority));
    }
    result
}
