//! Resource tags of repositories.

use serde_json::json;
use strongroom::registry::Repository;

use super::call::{Answer, Call};
use super::documents::{self, ResourceTags, TAGS};
use super::error::ApiError;
use super::{Built, Service, Target};

pub const OPERATIONS: &[Built] = &[
    Service::Private.writes("TagResource", Target::Resource, tag),
    Service::Private.writes("UntagResource", Target::Resource, untag),
    Service::Private.reads("ListTagsForResource", Target::Resource, list),
    Service::Public.writes("TagResource", Target::Resource, tag),
    Service::Public.writes("UntagResource", Target::Resource, untag),
    Service::Public.reads("ListTagsForResource", Target::Resource, list),
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
