//! Repositories: creating, describing and deleting them, the mutability of their tags, and whether pushes are scanned.

use serde_json::{Value, json};
use strongroom::Error;
use strongroom::registry::{
    Repository, RepositoryDeletion, RepositoryName, RepositorySettings, TagFilter, TagMutability,
};

use super::call::{Answer, Call, time};
use super::documents::{self, CONFIGURATION, Configuration, ResourceTags};
use super::error::ApiError;
use super::page::Pager;
use super::{Built, Service, Target};

pub const OPERATIONS: &[Built] = &[
    Service::Private.writes("CreateRepository", Target::Repository, create),
    Service::Private.writes("DeleteRepository", Target::Repository, delete),
    Service::Private.reads("DescribeRepositories", Target::Repositories, describe),
    Service::Private.writes("PutImageScanningConfiguration", Target::Repository, put_scanning),
    Service::Private.writes("PutImageTagMutability", Target::Repository, put_mutability),
];

fn create(call: &Call<'_>) -> Answer {
    let (name, input) = (call.name()?, &call.input);
    let tags = ResourceTags::of(input.list("tags"))?;
    if !tags.is_empty() {
        call.check_action("TagResource", call.own(name.as_str()))?;
    }
    let configuration = Configuration::of(input)?;
    let settings = mutability(call)?;
    let settings = documents::created(settings, &configuration, &tags)?;
    Ok(json!({ "repository": described(call, &create_repository(call, &name, settings)?)? }))
}

/// Creates a repository.
pub fn create_repository(
    call: &Call<'_>,
    name: &RepositoryName,
    settings: RepositorySettings,
) -> Result<Repository, ApiError> {
    match call.store.create_repository(name, settings) {
        Err(Error::RepositoryExists { .. }) => {
            let (name, account) = (call.shown_name(name), call.account());
            let message =
                format!("The repository with name '{name}' already exists in the registry with id '{account}'");
            Err(ApiError::new("RepositoryAlreadyExistsException", message))
        }
        created => Ok(created?),
    }
}

fn delete(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let description = described(call, &repository)?;
    delete_repository(call, &repository)?;
    Ok(json!({ "repository": description }))
}

/// Deletes a repository, if it is empty or that is forced.
pub fn delete_repository(call: &Call<'_>, repository: &Repository) -> Result<(), ApiError> {
    let how = if call.input.flag("force") { RepositoryDeletion::WithContents } else { RepositoryDeletion::IfEmpty };
    match call.store.delete_repository(repository.name(), how) {
        Err(Error::RepositoryNotEmpty { .. }) => {
            let (name, account) = (call.shown_name(repository.name()), call.account());
            let message = format!(
                "The repository with name '{name}' in registry with id '{account}' cannot be deleted because it still \
                 contains images"
            );
            Err(ApiError::new("RepositoryNotEmptyException", message))
        }
        Err(error) => Err(call.error(error)),
        Ok(_) => Ok(()),
    }
}

fn describe(call: &Call<'_>) -> Answer {
    describe_all(call, described)
}

/// Describes the repositories of the service that are named, or a page of all of them.
pub fn describe_all(call: &Call<'_>, described: impl Fn(&Call<'_>, &Repository) -> Result<Value, ApiError>) -> Answer {
    let input = &call.input;
    if input.has("repositoryNames") {
        if input.has("nextToken") || input.has("maxResults") {
            let constraint = "nextToken and maxResults must not be given with repositoryNames";
            return Err(ApiError::invalid_parameter("repositoryNames", constraint));
        }
        let named = input.texts("repositoryNames").map(|name| described(call, &call.repository_named(name)?));
        return Ok(json!({ "repositories": named.collect::<Result<Vec<_>, _>>()? }));
    }
    let pager = Pager::of(&input.0, call.built.name, 100)?;
    let (mut found, mut last, mut after) = (Vec::new(), None, pager.after.clone());
    while found.len() < pager.limit {
        let page = call.store.repositories(after.as_deref(), pager.limit - found.len())?;
        for name in &page.items {
            // One that was deleted since, and those of the other service, are no part of the list.
            if let Some(repository) = call.listed(name)? {
                found.push(described(call, &repository)?);
                last = Some(name.to_string());
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(pager.answer("repositories", found, None));
        }
    }
    // Not behind what was looked at last, which may be of the other service.
    Ok(pager.answer("repositories", found, last.as_deref()))
}

/// A repository as `Repository` of the model.
fn described(call: &Call<'_>, repository: &Repository) -> Result<Value, ApiError> {
    let info = repository.info().map_err(|error| call.error(error))?;
    let configuration = documents::configuration(repository)?;
    let mut members = call.of_repository(repository);
    members.extend([
        ("repositoryArn".to_owned(), json!(call.arn(info.name.as_str()))),
        ("repositoryUri".to_owned(), json!(call.uri(repository))),
        ("createdAt".to_owned(), time(info.created_ms)),
        ("imageScanningConfiguration".to_owned(), configuration.scanning()),
        ("encryptionConfiguration".to_owned(), configuration.encryption()),
    ]);
    members.extend(shown_mutability(&info.settings));
    Ok(Value::Object(members))
}

fn put_mutability(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let settings = mutability(call)?;
    repository.set_settings(settings.clone()).map_err(|error| call.error(error))?;
    let mut answer = call.of_repository(&repository);
    answer.extend(shown_mutability(&settings));
    Ok(Value::Object(answer))
}

/// Sets what [`create`] sets, too, and is only shown: programs that manage repositories change it after their creation.
fn put_scanning(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let configuration = documents::change(call, &repository, CONFIGURATION, |configuration: Configuration| {
        Ok(configuration.with_scanning_of(&call.input))
    })?;
    let mut answer = call.of_repository(&repository);
    answer.insert("imageScanningConfiguration".to_owned(), configuration.scanning());
    Ok(Value::Object(answer))
}

/// The mutability of tags that an input asks for.
fn mutability(call: &Call<'_>) -> Result<RepositorySettings, ApiError> {
    let input = &call.input;
    let (mutability, takes_filters) = match input.text("imageTagMutability") {
        Some("IMMUTABLE") => (TagMutability::Immutable, false),
        Some("IMMUTABLE_WITH_EXCLUSION") => (TagMutability::Immutable, true),
        Some("MUTABLE_WITH_EXCLUSION") => (TagMutability::Mutable, true),
        _ => (TagMutability::Mutable, false),
    };
    const FILTERS: &str = "imageTagMutabilityExclusionFilters";
    let filters = input.list(FILTERS).iter().filter_map(|filter| filter.get("filter").and_then(Value::as_str));
    let filters = filters.map(str::parse).collect::<Result<Vec<TagFilter>, _>>();
    let filters = filters.map_err(|error| ApiError::invalid_parameter(FILTERS, &error.to_string()))?;
    if takes_filters == filters.is_empty() {
        let constraint = if takes_filters {
            "Filters must be given with a mutability that has exclusions"
        } else {
            "Filters must not be given with a mutability that has no exclusions"
        };
        return Err(ApiError::invalid_parameter(FILTERS, constraint));
    }
    let settings = RepositorySettings::new().mutability(mutability).exclusions(filters);
    settings.map_err(|error| ApiError::invalid_parameter(FILTERS, &error.to_string()))
}

/// The mutability of tags, as the model's members.
fn shown_mutability(settings: &RepositorySettings) -> Vec<(String, Value)> {
    let filters = settings.get_exclusions();
    let shown = match (settings.get_mutability(), filters.is_empty()) {
        (TagMutability::Mutable, true) => "MUTABLE",
        (TagMutability::Mutable, false) => "MUTABLE_WITH_EXCLUSION",
        (TagMutability::Immutable, true) => "IMMUTABLE",
        (TagMutability::Immutable, false) => "IMMUTABLE_WITH_EXCLUSION",
    };
    let mut members = vec![("imageTagMutability".to_owned(), json!(shown))];
    if !filters.is_empty() {
        let filters = filters.iter().map(|filter| json!({ "filterType": "WILDCARD", "filter": filter.to_string() }));
        members.push(("imageTagMutabilityExclusionFilters".to_owned(), filters.collect()));
    }
    members
}
