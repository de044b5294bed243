//! Settings of the account, and principals whose pulls are not recorded.

use std::collections::BTreeMap;

use serde_json::json;
use strongroom::Store;

use super::call::{Answer, Call, time};
use super::error::ApiError;
use super::page::Pager;
use super::registry_documents::{EXCLUSIONS, SETTINGS, change, read_json};
use super::{Built, Service, Target};
use crate::access::now_ms;

pub const OPERATIONS: &[Built] = &[
    Service::Private.reads("GetAccountSetting", Target::Registry, get),
    Service::Private.writes("PutAccountSetting", Target::Registry, put),
    Service::Private.writes("RegisterPullTimeUpdateExclusion", Target::Registry, register),
    Service::Private.writes("DeregisterPullTimeUpdateExclusion", Target::Registry, deregister),
    Service::Private.reads("ListPullTimeUpdateExclusions", Target::Registry, list),
];

/// The settings, with the values that each may have; the first is what it is until it is set. (Amazon ECR does not
/// mount until that is set. Here a mount takes rights on the other repository, and costs nothing.)
const ALLOWED: [(&str, &[&str]); 3] = [
    ("BASIC_SCAN_TYPE_VERSION", &["AWS_NATIVE"]),
    ("REGISTRY_POLICY_SCOPE", &["V2"]),
    ("BLOB_MOUNTING", &["ENABLED", "DISABLED"]),
];

/// The most principals whose pulls are not recorded.
const MAX_EXCLUSIONS: usize = 100;

type Settings = BTreeMap<String, String>;

/// Principals whose pulls are not recorded, and since when, in milliseconds since 1970.
type Exclusions = BTreeMap<String, u64>;

/// Whether clients may mount blobs of other repositories.
pub fn is_mounting_on(store: &Store) -> Result<bool, ApiError> {
    let settings: Settings = read_json(store, SETTINGS)?;
    Ok(settings.get("BLOB_MOUNTING").is_none_or(|value| value == "ENABLED"))
}

/// Whether pulls by a principal are recorded.
pub fn counts_pulls_of(store: &Store, principal: &str) -> Result<bool, ApiError> {
    Ok(!read_json::<Exclusions>(store, EXCLUSIONS)?.contains_key(principal))
}

/// The setting that an input names, with its values.
fn setting(call: &Call<'_>) -> Result<(&'static str, &'static [&'static str]), ApiError> {
    let wanted = call.input.required("name");
    let known = ALLOWED.into_iter().find(|(name, _)| *name == wanted);
    known.ok_or_else(|| {
        let names = ALLOWED.map(|(name, _)| name).join(", ");
        let message =
            format!("Invalid parameter at 'name' failed to satisfy constraint: 'Member must be one of [{names}]'");
        ApiError::new("InvalidParameterException", message)
    })
}

fn get(call: &Call<'_>) -> Answer {
    let (name, allowed) = setting(call)?;
    let settings: Settings = read_json(call.store, SETTINGS)?;
    let value = settings.get(name).map(String::as_str).or_else(|| allowed.first().copied());
    Ok(json!({ "name": name, "value": value }))
}

fn put(call: &Call<'_>) -> Answer {
    let (name, allowed) = setting(call)?;
    let value = call.input.required("value");
    if !allowed.contains(&value) {
        return Err(ApiError::invalid_parameter("value", &format!("Member must be one of [{}]", allowed.join(", "))));
    }
    change(call.store, SETTINGS, |settings: &mut Settings| {
        settings.insert(name.to_owned(), value.to_owned());
        Ok(())
    })?;
    Ok(json!({ "name": name, "value": value }))
}

fn register(call: &Call<'_>) -> Answer {
    let principal = call.input.required("principalArn");
    let now = now_ms();
    change(call.store, EXCLUSIONS, |exclusions: &mut Exclusions| {
        if exclusions.contains_key(principal) {
            let message = format!("An exclusion for the principal {principal} already exists");
            return Err(ApiError::new("ExclusionAlreadyExistsException", message));
        }
        if exclusions.len() >= MAX_EXCLUSIONS {
            let message = format!("A registry has at most {MAX_EXCLUSIONS} exclusions");
            return Err(ApiError::new("LimitExceededException", message));
        }
        exclusions.insert(principal.to_owned(), now);
        Ok(())
    })?;
    Ok(json!({ "principalArn": principal, "createdAt": time(now) }))
}

fn deregister(call: &Call<'_>) -> Answer {
    let principal = call.input.required("principalArn");
    change(call.store, EXCLUSIONS, |exclusions: &mut Exclusions| match exclusions.remove(principal) {
        Some(_) => Ok(()),
        None => {
            let message = format!("There is no exclusion for the principal {principal}");
            Err(ApiError::new("ExclusionNotFoundException", message))
        }
    })?;
    Ok(json!({ "principalArn": principal }))
}

fn list(call: &Call<'_>) -> Answer {
    let pager = Pager::of(&call.input.0, call.built.name, 100)?;
    let all: Exclusions = read_json(call.store, EXCLUSIONS)?;
    let behind = all.keys().filter(|principal| pager.after.as_ref().is_none_or(|after| *principal > after));
    let mut page: Vec<&String> = behind.take(pager.limit.saturating_add(1)).collect();
    let is_more = page.len() > pager.limit;
    page.truncate(pager.limit);
    let end = page.last().filter(|_| is_more).map(|last| last.as_str());
    Ok(pager.answer("pullTimeUpdateExclusions", json!(page), end))
}
