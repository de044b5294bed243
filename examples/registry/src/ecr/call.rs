//! A call of an operation: who calls, with what input, and what every operation needs to answer.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use axum::http::request::Parts;
use serde_json::{Map, Value, json};
use strongroom::policy::Policy;
use strongroom::registry::{Repository, RepositoryName};
use strongroom::{Digest, Error, Store};

use super::documents;
use super::error::ApiError;
use super::{Built, Service, Target};
use crate::access::{Access, Denied, On, private_arn, public_arn};
use crate::http::failure::Failure;
use crate::http::limits::UNCOUNTED;
use crate::http::memory::Held;
use crate::http::{Caller, Registry};

/// The result of an operation: the members of its output.
pub type Answer = Result<Value, ApiError>;

/// A call whose input was checked against the table, and whose caller may call the operation on what it names.
pub struct Call<'a> {
    pub registry: &'a Arc<Registry>,
    pub store: &'a Store,
    pub caller: &'a Caller,
    pub access: Access<'a>,
    pub built: &'static Built,
    /// Where the caller reaches the registry: scheme and authority.
    pub origin: &'a Origin,
    pub input: Input,
    /// The memory that the answer takes, if it is much: kept until it was sent.
    pub kept: Cell<Option<Held>>,
}

/// Where clients reach the registry.
#[derive(Clone, Debug)]
pub struct Origin {
    pub scheme: &'static str,
    pub authority: String,
}

/// The members of an input, which the table has checked: a member is of the type that is asked for, or absent.
#[derive(Debug, Default)]
pub struct Input(pub Map<String, Value>);

impl Input {
    pub fn text(&self, member: &str) -> Option<&str> {
        self.0.get(member).and_then(Value::as_str)
    }

    /// A member that the table requires.
    pub fn required(&self, member: &str) -> &str {
        self.text(member).unwrap_or_default()
    }

    pub fn flag(&self, member: &str) -> bool {
        self.0.get(member).and_then(Value::as_bool).unwrap_or_default()
    }

    pub fn number(&self, member: &str) -> Option<u64> {
        self.0.get(member).and_then(Value::as_u64)
    }

    pub fn list(&self, member: &str) -> &[Value] {
        self.0.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// The texts of a list of texts.
    pub fn texts(&self, member: &str) -> impl Iterator<Item = &str> {
        self.list(member).iter().filter_map(Value::as_str)
    }

    /// A member of a member that is a structure.
    pub fn within(&self, member: &str, inner: &str) -> Option<&Value> {
        self.0.get(member)?.get(inner)
    }

    pub fn has(&self, member: &str) -> bool {
        self.0.contains_key(member)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

impl Origin {
    /// The origin that a request names. TLS is for a proxy, which says so.
    pub fn of(parts: &Parts) -> Self {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let authority = parts.uri.authority().map(|authority| authority.as_str()).or_else(|| header("host"));
        let scheme = if header("x-forwarded-proto") == Some("https") { "https" } else { "http" };
        Self { scheme, authority: authority.unwrap_or("localhost").to_owned() }
    }
}

impl Call<'_> {
    /// Whether the caller may call the operation on what it names. That does not depend on whether that is there.
    pub fn check_rights(&self) -> Result<(), ApiError> {
        let (input, own) = (&self.input, self.account());
        let account = input.text("registryId").unwrap_or(own);
        let on = |name| On::Repository { account, name };
        match self.built.target {
            Target::Registry => self.check(On::Registry)?,
            Target::Caller => self.check(On::Caller)?,
            Target::Repository => self.check(on(input.required("repositoryName")))?,
            Target::Repositories if !input.has("repositoryNames") => self.check(On::Registry)?,
            Target::Repositories => input.texts("repositoryNames").try_for_each(|name| self.check(on(name)))?,
            Target::Resource => {
                let name = self.resource_name()?;
                self.check(On::Repository { account: own, name })?;
            }
        }
        match self.built.target {
            _ if account == own => Ok(()),
            Target::Repository => Err(self.repository_not_found(input.required("repositoryName"))),
            _ => Err(ApiError::invalid_parameter("registryId", "This registry has one account's repositories only")),
        }
    }

    /// A repository of this registry, as what an action is done to.
    pub fn own<'n>(&'n self, name: &'n str) -> On<'n> {
        On::Repository { account: self.account(), name }
    }

    /// Whether the caller may do what the operation is called.
    fn check(&self, on: On<'_>) -> Result<(), ApiError> {
        let name = match self.built.name {
            "ListImageReferrers" => "BatchGetImage", // as the model says
            name => name,
        };
        self.check_action(name, on)
    }

    /// Whether the caller may do something else that the call comes to.
    pub fn check_action(&self, name: &str, on: On<'_>) -> Result<(), ApiError> {
        Ok(self.access.check(&self.action(name), on)?)
    }

    fn action(&self, name: &str) -> String {
        format!("{}:{name}", self.built.service.model().signing)
    }

    /// Whether the caller could do something if this were the policy of what it is done to.
    pub fn may_under(&self, name: &str, on: On<'_>, policy: Arc<Policy>) -> Result<bool, ApiError> {
        match self.access.check_under(&self.action(name), on, policy) {
            Ok(()) => Ok(true),
            Err(Denied::Refused(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The ARN of a repository.
    pub fn arn(&self, name: &str) -> String {
        match self.built.service {
            Service::Private => private_arn(self.region(), self.account(), name),
            Service::Public => public_arn(self.account(), name),
        }
    }

    /// The name of the repository that the input names by `resourceArn`.
    ///
    /// # Errors
    /// For what is no name of a repository of this registry.
    pub fn resource_name(&self) -> Result<&str, ApiError> {
        let arn = self.input.required("resourceArn");
        let name = arn.strip_prefix(self.arn("").as_str()).filter(|name| repository_name(name).is_ok());
        name.ok_or_else(|| ApiError::invalid_parameter("resourceArn", "Invalid ARN"))
    }

    /// Keeps memory for an answer of so many bytes until it was sent: for its members, and for its text.
    ///
    /// # Errors
    /// 503, to try again, where there is none at once. Answers that are short need none.
    pub fn keep(&self, bytes: u64) -> Result<(), ApiError> {
        if let bytes @ UNCOUNTED.. = usize::try_from(bytes).unwrap_or(usize::MAX) {
            let held = self.registry.memory.keep_now(bytes.saturating_mul(4), self.caller);
            self.kept.set(Some(held.ok_or_else(Failure::busy)?));
        }
        Ok(())
    }

    /// The account whose registry this is.
    pub fn account(&self) -> &str {
        self.access.account()
    }

    pub fn region(&self) -> &str {
        self.access.region()
    }

    /// What the names of public repositories begin with.
    pub fn alias(&self) -> &str {
        self.access.alias()
    }

    /// The name under which the store has the repository that the input names.
    ///
    /// # Errors
    /// For one that the table allows and the store does not.
    pub fn name(&self) -> Result<RepositoryName, ApiError> {
        self.stored_name(self.input.required("repositoryName"))
    }

    fn stored_name(&self, name: &str) -> Result<RepositoryName, ApiError> {
        match self.built.service {
            Service::Private => repository_name(name),
            Service::Public => repository_name(&format!("{}/{name}", self.alias())),
        }
    }

    /// The repository that the input names.
    ///
    /// # Errors
    /// `RepositoryNotFoundException`, also for one of the other service.
    pub fn repository(&self) -> Result<Repository, ApiError> {
        self.repository_named(self.input.required("repositoryName"))
    }

    /// A repository of the service.
    ///
    /// # Errors
    /// As [`repository`](Self::repository).
    pub fn repository_named(&self, name: &str) -> Result<Repository, ApiError> {
        let found = match self.store.repository(&self.stored_name(name)?) {
            Ok(found) if self.is_of_service(&found)? => Some(found),
            Ok(_) | Err(Error::RepositoryNotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        found.ok_or_else(|| self.repository_not_found(name))
    }

    /// A repository of the store, if it is one of the service and still there.
    pub fn listed(&self, name: &RepositoryName) -> Result<Option<Repository>, ApiError> {
        match self.store.repository(name) {
            Ok(found) => Ok(self.is_of_service(&found)?.then_some(found)),
            Err(Error::RepositoryNotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn is_of_service(&self, repository: &Repository) -> Result<bool, ApiError> {
        Ok(documents::is_public(repository)? == (self.built.service == Service::Public))
    }

    /// The name that the service has for a repository.
    pub fn shown_name<'n>(&self, name: &'n RepositoryName) -> &'n str {
        match self.built.service {
            Service::Private => name.as_str(),
            Service::Public => name.as_str().split_once('/').map_or(name.as_str(), |(_, name)| name),
        }
    }

    /// The members that most outputs begin with.
    pub fn of_repository(&self, repository: &Repository) -> Map<String, Value> {
        self.of_named(self.shown_name(repository.name()))
    }

    /// The same of the repository that has a name in the service.
    pub fn of_named(&self, name: &str) -> Map<String, Value> {
        Map::from_iter([("registryId".to_owned(), json!(self.account())), ("repositoryName".to_owned(), json!(name))])
    }

    /// An error of the store, as the operation has it.
    pub fn error(&self, error: Error) -> ApiError {
        match &error {
            Error::RepositoryNotFound { .. } => self.repository_not_found(self.input.required("repositoryName")),
            _ => error.into(),
        }
    }

    pub fn repository_not_found(&self, name: &str) -> ApiError {
        let account = self.input.text("registryId").unwrap_or(self.account());
        let message = format!("The repository with name '{name}' does not exist in the registry with id '{account}'");
        ApiError::new("RepositoryNotFoundException", message)
    }

    /// Where clients of the distribution API reach a repository.
    pub fn uri(&self, repository: &Repository) -> String {
        format!("{}/{}", self.origin.authority, repository.name())
    }
}

pub fn repository_name(name: &str) -> Result<RepositoryName, ApiError> {
    name.parse().map_err(|error: Error| ApiError::invalid_parameter("repositoryName", &error.to_string()))
}

/// A time of the store as AWS writes it: seconds since 1970, with a fraction.
#[expect(clippy::cast_precision_loss, reason = "exact to the millisecond for 285,000 years")]
pub fn time(milliseconds: u64) -> Value {
    json!(milliseconds as f64 / 1000.0)
}

/// A digest that an input names.
pub fn digest(text: &str) -> Option<Digest> {
    text.parse().ok()
}
