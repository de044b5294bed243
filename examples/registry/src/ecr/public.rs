//! Amazon ECR Public: repositories that everybody may pull from, with what a catalogue says of them.
//!
//! The store has a public repository `app` under the registry's alias, such as `public/app`, which is also what clients
//! pull. What makes it public is a document, which only `ecr-public:CreateRepository` gives it: a private repository
//! with such a name stays private.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use strongroom::registry::{ExpectDocument, Repository, RepositoryName, RepositorySettings};
use strongroom::{Error, Store};

use super::call::{Answer, Call, time};
use super::documents::{CATALOG, PUBLIC, ResourceTags, with_tags};
use super::error::ApiError;
use super::page::Pager;
use super::registry_documents as registry;
use super::repositories::{create_repository, delete_repository, describe_all};
use super::{Built, Service, Target};
use crate::auth::Identity;
use crate::http::failure::{Code, Failure};
use crate::http::limits::UNCOUNTED;
use crate::http::memory::keeping;
use crate::http::peer::Peer;
use crate::http::{Caller, Registry};

pub const OPERATIONS: &[Built] = &[
    Service::Public.writes("CreateRepository", Target::Repository, create),
    Service::Public.writes("DeleteRepository", Target::Repository, delete),
    Service::Public.reads("DescribeRepositories", Target::Repositories, describe),
    Service::Public.reads("DescribeRegistries", Target::Registry, describe_registries),
    Service::Public.reads("GetRegistryCatalogData", Target::Registry, get_registry_catalog),
    Service::Public.writes("PutRegistryCatalogData", Target::Registry, put_registry_catalog),
    Service::Public.reads("GetRepositoryCatalogData", Target::Repository, get_catalog),
    Service::Public.writes("PutRepositoryCatalogData", Target::Repository, put_catalog),
];

/// What the catalogue says of a repository, as the model has it but for the logo, which is its base64.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct Catalog {
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    architectures: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    operating_systems: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    about_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logo_image_blob: Option<String>,
}

impl Catalog {
    fn of(call: &Call<'_>) -> Result<Self, ApiError> {
        let Some(given) = call.input.0.get("catalogData") else { return Ok(Self::default()) };
        let catalog =
            Self::deserialize(given).map_err(|error| ApiError::new("SerializationException", error.to_string()))?;
        let is_base64 = |logo: &String| STANDARD.decode(logo).is_ok();
        if !catalog.logo_image_blob.as_ref().is_none_or(is_base64) {
            return Err(ApiError::new("SerializationException", "catalogData.logoImageBlob must be base64"));
        }
        Ok(catalog)
    }

    fn read(repository: &Repository) -> Result<Self, ApiError> {
        let document = repository.document(CATALOG)?;
        let parsed = document.map(|document| serde_json::from_slice(&document.content)).transpose();
        Ok(parsed.map_err(|_| ApiError::server("the catalogue entry can't be read"))?.unwrap_or_default())
    }

    fn document(&self) -> String {
        json!(self).to_string()
    }

    fn shown(&self, call: &Call<'_>, repository: &Repository) -> Value {
        let mut shown = json!(self);
        if let Value::Object(members) = &mut shown
            && members.remove("logoImageBlob").is_some()
        {
            let url = format!("{}{LOGOS}{}", call.origin, repository.name());
            members.insert("logoUrl".to_owned(), json!(url));
        }
        shown
    }
}

/// Where logos are: what follows is the name of the repository.
const LOGOS: &str = "/logos/";
pub const LOGOS_PATH: &str = "/logos/{*name}";

/// Serves the logo of a public repository. It is somebody's upload: a browser is to take it for a picture or for
/// nothing.
pub async fn logo(
    State(registry): State<Arc<Registry>>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, _) = request.into_parts();
    let caller = Caller::new(peer, &parts, Identity::Anonymous);
    let name: RepositoryName = name.parse()?;
    let alias = registry.auth.alias().to_owned();
    let read = move |store: &Store| {
        // What else is looked for could tell by how it fails that it is there.
        if name.as_str().strip_prefix(&alias).is_none_or(|rest| !rest.starts_with('/')) {
            return Ok(None);
        }
        // A private repository is told apart from none by nobody.
        match store.repository(&name).and_then(|repository| repository.document(CATALOG)) {
            Ok(document) => Ok(document.and_then(|document| logo_in(&document.content))),
            Err(Error::RepositoryNotFound { .. }) => Ok(None),
            Err(error) => Err(Failure::from(error)),
        }
    };
    let logo = registry.reading(&caller).await?.read(read).await?;
    let logo = logo.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, Code::NameUnknown, "no such logo"))?;
    let kind = match logo.get(..4) {
        Some(b"\x89PNG") => "image/png",
        Some([0xff, 0xd8, 0xff, _]) => "image/jpeg",
        _ => "application/octet-stream",
    };
    // Clients may take their time to read it.
    let held = match logo.len() {
        ..=UNCOUNTED => None,
        len => Some(registry.memory.keep_now(len, &caller).ok_or_else(Failure::busy)?),
    };
    let headers = [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox")];
    Ok((headers, keeping(Body::from(logo), held)).into_response())
}

fn logo_in(catalog: &[u8]) -> Option<Vec<u8>> {
    let catalog: Catalog = serde_json::from_slice(catalog).ok()?;
    STANDARD.decode(catalog.logo_image_blob?).ok()
}

fn create(call: &Call<'_>) -> Answer {
    let (name, catalog, tags) = (call.name()?, Catalog::of(call)?, ResourceTags::of(call.input.list("tags"))?);
    if !tags.is_empty() {
        call.check_action("TagResource", call.own(call.input.required("repositoryName")))?;
    }
    let public = RepositorySettings::new().document(PUBLIC, "")?.document(CATALOG, catalog.document())?;
    let settings = with_tags(public, &tags)?;
    let created = create_repository(call, &name, settings)?;
    Ok(json!({ "repository": described(call, &created)?, "catalogData": catalog.shown(call, &created) }))
}

fn delete(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let description = described(call, &repository)?;
    delete_repository(call, &repository)?;
    Ok(json!({ "repository": description }))
}

fn describe(call: &Call<'_>) -> Answer {
    describe_all(call, described)
}

fn described(call: &Call<'_>, repository: &Repository) -> Result<Value, ApiError> {
    let info = repository.info().map_err(|error| call.error(error))?;
    let mut members = call.of_repository(repository);
    members.extend([
        ("repositoryArn".to_owned(), json!(call.arn(call.shown_name(&info.name)))),
        ("repositoryUri".to_owned(), json!(call.uri(repository))),
        ("createdAt".to_owned(), time(info.created_ms)),
    ]);
    Ok(Value::Object(members))
}

fn describe_registries(call: &Call<'_>) -> Answer {
    Pager::of(&call.input.0, call.built.name, 100)?; // there is one
    let (account, alias) = (call.account(), call.alias());
    let alias_of =
        json!({ "name": alias, "status": "ACTIVE", "primaryRegistryAlias": true, "defaultRegistryAlias": true });
    let registry = json!({
        "registryId": account,
        "registryArn": format!("arn:aws:ecr-public::{account}:registry/{account}"),
        "registryUri": format!("{}/{alias}", call.origin.authority),
        "verified": false,
        "aliases": [alias_of],
    });
    Ok(json!({ "registries": [registry] }))
}

type RegistryCatalog = Map<String, Value>;

fn get_registry_catalog(call: &Call<'_>) -> Answer {
    let catalog: RegistryCatalog = registry::read_json(call.store, registry::CATALOG)?;
    Ok(json!({ "registryCatalogData": catalog }))
}

fn put_registry_catalog(call: &Call<'_>) -> Answer {
    let name = call.input.text("displayName");
    let catalog = registry::change(call.store, registry::CATALOG, |catalog: &mut RegistryCatalog| {
        if let Some(name) = name {
            catalog.insert("displayName".to_owned(), json!(name));
        }
        Ok(catalog.clone())
    })?;
    Ok(json!({ "registryCatalogData": catalog }))
}

fn get_catalog(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let catalog = Catalog::read(&repository)?;
    if catalog.document() == Catalog::default().document() {
        let (name, account) = (call.shown_name(repository.name()), call.account());
        let message = format!(
            "Catalog data does not exist for the repository with name '{name}' in the registry with id '{account}'"
        );
        return Err(ApiError::new("RepositoryCatalogDataNotFoundException", message));
    }
    Ok(json!({ "catalogData": catalog.shown(call, &repository) }))
}

fn put_catalog(call: &Call<'_>) -> Answer {
    let (repository, catalog) = (call.repository()?, Catalog::of(call)?);
    let set = repository.set_document(CATALOG, catalog.document(), ExpectDocument::Any);
    set.map_err(|error| call.error(error))?;
    Ok(json!({ "catalogData": catalog.shown(call, &repository) }))
}
