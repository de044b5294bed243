//! Resource tags of repositories.

use serde_json::json;
use strongroom::registry::Repository;

use super::call::{Answer, Call};
use super::documents::{self, ResourceTags, TAGS};
use super::error::ApiError;
use super::{Built, Service, Target};

const fn built(service: Service, name: &'static str, reads: bool, run: fn(&Call<'_>) -> Answer) -> Built {
    Built { service, name, target: Target::Resource, reads, run }
}

pub const OPERATIONS: &[Built] = &[
    built(Service::Private, "TagResource", false, tag),
    built(Service::Private, "UntagResource", false, untag),
    built(Service::Private, "ListTagsForResource", true, list),
    built(Service::Public, "TagResource", false, tag),
    built(Service::Public, "UntagResource", false, untag),
    built(Service::Public, "ListTagsForResource", true, list),
];

fn tag(call: &Call<'_>) -> Answer {
    let new = ResourceTags::of(call.input.list("tags"))?;
    change(call, |tags| tags.0.extend(new.0.clone()))
}

fn untag(call: &Call<'_>) -> Answer {
    change(call, |tags| call.input.texts("tagKeys").for_each(|key| drop(tags.0.remove(key))))
}

fn list(call: &Call<'_>) -> Answer {
    Ok(json!({ "tags": documents::tags(&repository(call)?)?.shown() }))
}

fn repository(call: &Call<'_>) -> Result<Repository, ApiError> {
    call.repository_named(call.resource_name()?)
}

fn change(call: &Call<'_>, change: impl Fn(&mut ResourceTags)) -> Answer {
    documents::change(call, &repository(call)?, TAGS, |mut tags| {
        change(&mut tags);
        tags.check()?;
        Ok(tags)
    })?;
    Ok(json!({}))
}
