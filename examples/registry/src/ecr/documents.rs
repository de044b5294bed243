//! What belongs to a repository beside its images, as documents of the repository: set with it, and gone with it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom::Error;
use strongroom::registry::{Document, ExpectDocument, Repository, RepositorySettings};

use super::call::{Call, Input};
use super::error::ApiError;

/// The names of the documents.
pub const CONFIGURATION: &str = "ecr/configuration";
pub const TAGS: &str = "ecr/tags";
pub const POLICY: &str = "ecr/policy";
pub use strongroom::registry::lifecycle::DOCUMENT as LIFECYCLE;
/// How many images a preview of the policy showed that it acts on.
pub const CONFIRMED: &str = "ecr/lifecycle-confirmed";
/// When a lifecycle policy was carried out last.
pub const EVALUATED: &str = "ecr/lifecycle-evaluated";
/// Makes a repository a public one by being there. It says nothing, as every call and every pull look whether there is
/// one.
pub const PUBLIC: &str = "ecr/public";
/// What the catalogue says of a public repository, with its logo: only those have one.
pub const CATALOG: &str = "ecr/catalog";

/// The most resource tags.
const MAX_TAGS: usize = 50;
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;

/// What is set of a repository, and only shown by this registry.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Configuration {
    pub scan_on_push: bool,
    pub encryption_type: Option<String>,
    pub kms_key: Option<String>,
}

impl Configuration {
    pub fn of(input: &Input) -> Result<Self, ApiError> {
        let text = |inner| input.within("encryptionConfiguration", inner).and_then(Value::as_str).map(str::to_owned);
        let (encryption_type, kms_key) = (text("encryptionType"), text("kmsKey"));
        if kms_key.is_some() && !encryption_type.as_deref().is_some_and(|kind| kind.starts_with("KMS")) {
            let constraint = "A KMS key must be given with encryptionType KMS or KMS_DSSE only";
            return Err(ApiError::invalid_parameter("encryptionConfiguration", constraint));
        }
        Ok(Self { encryption_type, kms_key, ..Self::default() }.with_scanning_of(input))
    }

    /// With what an input says of scanning.
    pub fn with_scanning_of(self, input: &Input) -> Self {
        let scan = input.within("imageScanningConfiguration", "scanOnPush").and_then(Value::as_bool);
        Self { scan_on_push: scan.unwrap_or_default(), ..self }
    }

    pub fn scanning(&self) -> Value {
        json!({ "scanOnPush": self.scan_on_push })
    }

    pub fn encryption(&self) -> Value {
        let mut shown = json!({ "encryptionType": self.encryption_type.as_deref().unwrap_or("AES256") });
        if let (Some(key), Value::Object(members)) = (&self.kms_key, &mut shown) {
            members.insert("kmsKey".to_owned(), json!(key));
        }
        shown
    }
}

/// The resource tags of a repository, in order.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ResourceTags(pub BTreeMap<String, String>);

impl ResourceTags {
    /// The tags of an input.
    pub fn of(tags: &[Value]) -> Result<Self, ApiError> {
        let mut all = Self::default();
        for tag in tags {
            let text = |member| tag.get(member).and_then(Value::as_str).unwrap_or_default();
            let (key, value) = (text("Key"), text("Value"));
            let invalid = |message: String| Err(ApiError::new("InvalidTagParameterException", message));
            if key.is_empty() || key.chars().count() > MAX_TAG_KEY {
                return invalid(format!("A tag key must have 1 to {MAX_TAG_KEY} characters"));
            }
            if value.chars().count() > MAX_TAG_VALUE {
                return invalid(format!("A tag value must have at most {MAX_TAG_VALUE} characters"));
            }
            if key.to_ascii_lowercase().starts_with("aws:") {
                return invalid("Tag keys that begin with aws: are reserved".to_owned());
            }
            if all.0.insert(key.to_owned(), value.to_owned()).is_some() {
                return invalid(format!("Tag key {key} is given twice"));
            }
        }
        all.check()?;
        Ok(all)
    }

    /// Whether a repository may have these tags. No two keys may differ in case alone: policies do not tell such tags
    /// apart, so who may only set one value could set another beside it.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.0.len() > MAX_TAGS {
            return Err(ApiError::new("TooManyTagsException", format!("A repository has at most {MAX_TAGS} tags")));
        }
        let mut seen = BTreeSet::new();
        match self.0.keys().find(|key| !seen.insert(key.to_ascii_lowercase())) {
            None => Ok(()),
            Some(key) => {
                let message = format!("Tag key {key} differs from another one in case alone: remove that one first");
                Err(ApiError::new("InvalidTagParameterException", message))
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn shown(&self) -> Value {
        self.0.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect()
    }
}

/// The settings of a repository that is created with these documents.
pub fn created(
    settings: RepositorySettings,
    configuration: &Configuration,
    tags: &ResourceTags,
) -> Result<RepositorySettings, ApiError> {
    with_tags(settings.document(CONFIGURATION, json!(configuration).to_string())?, tags)
}

/// The same with these tags, if there are any.
pub fn with_tags(settings: RepositorySettings, tags: &ResourceTags) -> Result<RepositorySettings, ApiError> {
    Ok(if tags.is_empty() { settings } else { settings.document(TAGS, json!(tags).to_string())? })
}

/// What a document says; what an empty one says, where there is none.
fn parse<T>(repository: &Repository, name: &str, document: Option<&Document>) -> Result<T, ApiError>
where
    T: Default + for<'a> Deserialize<'a>,
{
    let Some(document) = document else { return Ok(T::default()) };
    serde_json::from_slice(&document.content).map_err(|error| {
        tracing::error!(repository = %repository.name(), document = name, %error, "a document can't be read");
        ApiError::server("a document of the repository can't be read")
    })
}

fn read<T: Default + for<'a> Deserialize<'a>>(repository: &Repository, name: &str) -> Result<T, ApiError> {
    parse(repository, name, repository.document(name)?.as_ref())
}

/// Changes a document as it is: again, where somebody else has changed it meanwhile. Returns what it says then.
pub fn change<T>(
    call: &Call<'_>,
    repository: &Repository,
    name: &str,
    change: impl Fn(T) -> Result<T, ApiError>,
) -> Result<T, ApiError>
where
    T: Default + Serialize + for<'a> Deserialize<'a>,
{
    loop {
        let before = repository.document(name)?;
        let changed = change(parse(repository, name, before.as_ref())?)?;
        let expect = before.map_or(ExpectDocument::Absent, |before| ExpectDocument::Is(before.revision));
        match repository.set_document(name, json!(changed).to_string(), expect) {
            Err(Error::DocumentChanged { .. }) => {}
            other => return other.map(|_| changed).map_err(|error| call.error(error)),
        }
    }
}

pub fn configuration(repository: &Repository) -> Result<Configuration, ApiError> {
    read(repository, CONFIGURATION)
}

pub fn tags(repository: &Repository) -> Result<ResourceTags, ApiError> {
    read(repository, TAGS)
}

/// Whether a repository is one of the public service.
pub fn is_public(repository: &Repository) -> strongroom::Result<bool> {
    Ok(repository.document(PUBLIC)?.is_some())
}
