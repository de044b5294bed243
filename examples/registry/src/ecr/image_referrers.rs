//! What refers to an image: signatures, attestations, and whatever else names it as its subject.

use serde_json::{Map, Value, json};
use strongroom::registry::{Reference, Referrer, StorageClass};
use strongroom::{Digest, Error};

use super::call::{Answer, Call};
use super::image_ids::given_digest;
use super::image_status::{StatusFilter, shown_status};
use super::page::Pager;
use super::{Built, Service, Target};
use crate::http::limits::REFERRERS_MEMORY;

/// How many referrers are listed where no number is asked for.
const DEFAULT: usize = 20;

pub const OPERATIONS: &[Built] = &[Service::Private.reads("ListImageReferrers", Target::Repository, list)];

/// A page may have fewer than were asked for, even none, although more follow: it ends where enough was read for it.
fn list(call: &Call<'_>) -> Answer {
    let (repository, input) = (call.repository()?, &call.input);
    let subject = input.within("subjectId", "imageDigest").and_then(Value::as_str).unwrap_or_default();
    let subject = given_digest("subjectId.imageDigest", subject)?;
    let types = input.within("filter", "artifactTypes").and_then(Value::as_array);
    let types: Vec<&str> = types.into_iter().flatten().filter_map(Value::as_str).collect();
    let scope = format!("ListImageReferrers/{}/{subject}", repository.name());
    let pager = Pager::of(&input.0, scope, DEFAULT)?;
    let after = pager.parsed::<Digest>()?;
    let _work = call.registry.memory.work_now(REFERRERS_MEMORY)?;
    // The store looks for one type; more are looked for here.
    let one_type = if let [one] = types.as_slice() { Some(*one) } else { None };
    let page = repository.referrers(&subject, one_type, after.as_ref(), pager.limit);
    let page = page.map_err(|error| call.error(error))?;
    let is_asked = |referrer: &&Referrer| {
        types.is_empty() || referrer.artifact_type.as_deref().is_some_and(|of| types.contains(&of))
    };
    let status = StatusFilter::of(input.within("filter", "artifactStatus"));
    let mut referrers = Vec::new();
    for referrer in page.items.iter().filter(is_asked) {
        let class = match repository.manifest_info(&Reference::Digest(referrer.digest)) {
            Err(Error::ManifestNotFound { .. }) => continue, // deleted since
            info => info.map_err(|error| call.error(error))?.storage_class,
        };
        if status.takes(class) {
            referrers.push(described(referrer, class));
        }
    }
    let end = page.next.map(|next| next.to_string());
    Ok(pager.answer("referrers", referrers, end.as_deref()))
}

/// A referrer as `ImageReferrer` of the model.
fn described(referrer: &Referrer, class: StorageClass) -> Value {
    let mut members = Map::from_iter([
        ("digest".to_owned(), json!(referrer.digest.to_string())),
        ("mediaType".to_owned(), json!(referrer.media_type)),
        ("size".to_owned(), json!(referrer.len)),
        ("artifactStatus".to_owned(), json!(shown_status(class))),
    ]);
    if let Some(artifact_type) = &referrer.artifact_type {
        members.insert("artifactType".to_owned(), json!(artifact_type));
    }
    if !referrer.annotations.is_empty() {
        members.insert("annotations".to_owned(), json!(referrer.annotations));
    }
    Value::Object(members)
}
