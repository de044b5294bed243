//! What who asks may do: identity, repository and registry policies, on both APIs.
//!
//! Whoever may not learn of a repository gets one answer, whether there is one or not: rights are looked at before the
//! repository is, and the message says nothing of policies. Which statement decided is for the log.
//!
//! Without credentials ([`Identity::Open`]) everybody may do everything.

mod policies;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::request::Parts;
use strongroom::policy::{self, AccountId, Authorizer as _, Context, Decision, Policies, Policy, Principal, Transport};
use strongroom::registry::{Manifest, Reference, Repository, RepositoryName, StorageClass};
use strongroom::{Digest, Error, Store};

use crate::auth::{Auth, Identity};
use crate::ecr::account;
use crate::ecr::documents::{self, POLICY};
use crate::ecr::error::ApiError;
use crate::ecr::registry_documents as registry;
use crate::http::peer::Peer;
pub use policies::ParsedPolicies;

/// Who asks, and what policies may ask of the request.
#[derive(Clone, Debug)]
pub struct Asker {
    pub identity: Identity,
    context: Context,
}

impl Asker {
    pub fn new(identity: Identity, parts: &Parts, peer: &Peer) -> Self {
        if matches!(identity, Identity::Open) {
            return Self { identity, context: Context::new() }; // no policy asks
        }
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        // TLS ends at a proxy, whose word is the last: what is before it may be the client's.
        let protocol = parts.headers.get_all("x-forwarded-proto").iter().next_back();
        let is_encrypted = peer.is_proxy && protocol.is_some_and(|protocol| protocol.as_bytes() == b"https");
        let mut context = Context::new()
            .with_source_ip(peer.address_of(&parts.headers))
            .with_time(SystemTime::now())
            .with_secure_transport(if is_encrypted { Transport::Encrypted } else { Transport::Plain });
        if let Some(agent) = header("user-agent") {
            context = context.with("aws:UserAgent", agent);
        }
        Self { identity, context }
    }

    /// With the resource tags that the request sets, and the keys of those that it removes.
    pub fn with_request_tags<'t>(
        mut self,
        tags: impl Iterator<Item = (&'t str, &'t str)>,
        removed: impl Iterator<Item = &'t str>,
    ) -> Self {
        let mut keys: Vec<_> = removed.collect();
        for (key, value) in tags {
            self.context = self.context.with(&format!("aws:RequestTag/{key}"), value);
            keys.push(key);
        }
        self.context = self.context.with_all("aws:TagKeys", keys);
        self
    }
}

/// The parameter of a query that has a download token.
pub const DOWNLOAD: &str = "token";

/// What an action is done to.
#[derive(Clone, Copy, Debug)]
pub enum On<'a> {
    /// The registry as a whole.
    Registry,
    /// Who asks, about nothing but themselves: what their own account allows, wherever they ask.
    Caller,
    /// A repository of an account, whether there is one or not. A public one is called without the alias.
    Repository { account: &'a str, name: &'a str },
}

/// That somebody may not do something, or that it could not be found out.
#[derive(Debug)]
pub enum Denied {
    /// Who asks may not: with what it says.
    Refused(String),
    /// The policies could not be read.
    Failed(Error),
    /// What a policy may ask for could not be read.
    Unreadable(ApiError),
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The rights of who asks.
pub struct Access<'a> {
    auth: &'a Auth,
    parsed: &'a ParsedPolicies,
    store: &'a Store,
    asker: &'a Asker,
}

impl<'a> Access<'a> {
    pub fn new(auth: &'a Auth, parsed: &'a ParsedPolicies, store: &'a Store, asker: &'a Asker) -> Self {
        Self { auth, parsed, store, asker }
    }

    /// Whether an action may be done, such as `ecr:PutImage`.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(&self, action: &str, on: On<'_>) -> Result<(), Denied> {
        if matches!(self.asker.identity, Identity::Open) {
            return Ok(());
        }
        let (of_repository, context) = self.of_repository(action, on)?;
        self.decide(action, on, (of_repository, self.of_registry(action, on)?), &context)
    }

    /// Whether an action could be done if this were the policy of what it is done to: a repository or the registry.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check_under(&self, action: &str, on: On<'_>, policy: Arc<Policy>) -> Result<(), Denied> {
        if matches!(self.asker.identity, Identity::Open) {
            return Ok(());
        }
        let (_, context) = self.of_repository(action, on)?;
        match on {
            On::Repository { .. } => self.decide(action, on, (Some(policy), self.of_registry(action, on)?), &context),
            On::Registry | On::Caller => self.decide(action, on, (None, Some(policy)), &context),
        }
    }

    /// Whether one of these actions may be done to a repository of the store, by its name there. What `reads` is free
    /// in a public one.
    ///
    /// # Errors
    /// [`Denied`], where the first of the actions may not be done, nor any of the others.
    pub fn check_stored(&self, actions: &[&str], name: &RepositoryName, reads: Reads) -> Result<(), Denied> {
        if matches!(self.asker.identity, Identity::Open) {
            return Ok(());
        }
        // A policy that names everybody means readers: who changes something has a name.
        if matches!(self.asker.identity, Identity::Anonymous) && reads == Reads::No {
            return Err(Denied::Refused("who changes something has to say who they are".to_owned()));
        }
        let public = name.as_str().strip_prefix(self.alias()).and_then(|rest| rest.strip_prefix('/'));
        let public = match public {
            Some(name_of_public) if self.is_public(name)? => Some(name_of_public),
            _ => None,
        };
        if public.is_some() && reads == Reads::Yes {
            return Ok(());
        }
        let (service, name) = public.map_or(("ecr", name.as_str()), |name| ("ecr-public", name));
        let on = On::Repository { account: self.account(), name };
        let mut checked = actions.iter().map(|action| self.check(&format!("{service}:{action}"), on));
        let first = checked.next().unwrap_or(Ok(()));
        first.or_else(|denied| checked.find(Result::is_ok).unwrap_or(Err(denied)))
    }

    fn is_public(&self, name: &RepositoryName) -> Result<bool, Denied> {
        match self.store.repository(name) {
            Ok(found) => Ok(documents::is_public(&found)?),
            Err(Error::RepositoryNotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The policy of a repository, and what policies may ask of it.
    fn of_repository(&self, action: &str, on: On<'_>) -> Result<(Option<Arc<Policy>>, Context), Denied> {
        let (mut policy, mut context) = (None, self.asker.context.clone());
        context = context.with("aws:RequestedRegion", self.region());
        let On::Repository { account, name } = on else { return Ok((None, context)) };
        if account != self.account() {
            return Ok((None, context));
        }
        let stored = if is_of_public(action) { format!("{}/{name}", self.alias()) } else { name.to_owned() };
        let Ok(name) = stored.parse() else { return Ok((None, context)) };
        match self.store.repository(&name) {
            Ok(found) => {
                if let Some(document) = found.document(POLICY)? {
                    policy = Some(self.parsed.of_repository(&document));
                }
                // A denial may depend on them.
                for (key, value) in documents::tags(&found).map_err(Denied::Unreadable)?.0 {
                    context = context.with(&format!("aws:ResourceTag/{key}"), value.clone());
                    context = context.with(&format!("ecr:ResourceTag/{key}"), value);
                }
            }
            Err(Error::RepositoryNotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok((policy, context))
    }

    /// The registry's policy, which says nothing of public repositories, nor of other accounts' registries.
    fn of_registry(&self, action: &str, on: On<'_>) -> Result<Option<Arc<Policy>>, Denied> {
        let is_own = match on {
            On::Registry => true,
            On::Caller => false,
            On::Repository { account, .. } => account == self.account(),
        };
        if is_of_public(action) || !is_own {
            return Ok(None);
        }
        Ok(registry::read(self.store, registry::POLICY)?.map(|found| self.parsed.of_registry(&found)))
    }

    fn decide(
        &self,
        action: &str,
        on: On<'_>,
        (of_repository, of_registry): (Option<Arc<Policy>>, Option<Arc<Policy>>),
        context: &Context,
    ) -> Result<(), Denied> {
        let anonymous = Principal::Anonymous;
        let (principal, identity) = match &self.asker.identity {
            Identity::Open => return Ok(()),
            Identity::Anonymous => (&anonymous, &[][..]),
            Identity::Principal(known) => (&known.principal, &known.policies[..]),
        };
        let resource: Vec<_> = of_repository.into_iter().chain(of_registry).collect();
        let own = self.asker.identity.account();
        let (account, arn) = match on {
            On::Registry => (self.account(), "*".to_owned()),
            On::Caller => (own.as_ref().map_or(self.account(), AccountId::as_str), "*".to_owned()),
            On::Repository { account, name } if is_of_public(action) => (account, public_arn(account, name)),
            On::Repository { account, name } => (account, private_arn(self.region(), account, name)),
        };
        let who = self.asker.identity.arn();
        let refused =
            || Denied::Refused(format!("User: {who} is not authorized to perform: {action} on resource: {arn}"));
        let Ok(resource_account) = account.parse() else { return Err(refused()) };
        let request = policy::Request { principal, action, resource: &arn, resource_account, context };
        let decision = Policies { identity, resource: &resource }.decide(&request);
        tracing::debug!(%who, action, resource = arn, %decision, "access");
        match decision {
            Decision::Allowed(_) => Ok(()),
            Decision::Denied(_) => Err(refused()),
        }
    }

    /// Whether what is read counts as a pull of it: unless who asks is registered as an exclusion.
    pub fn counts_pulls(&self) -> bool {
        match &self.asker.identity {
            Identity::Principal(known) => account::counts_pulls_of(self.store, known.policy_arn()).unwrap_or(true),
            Identity::Open | Identity::Anonymous => true,
        }
    }

    /// The query by which whoever has an address may read a blob of a repository there for a while; empty where
    /// everybody may.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn download_token(&self, name: &RepositoryName, digest: &Digest) -> std::io::Result<String> {
        match &self.asker.identity {
            Identity::Principal(known) => {
                let token = self.auth.download_token(known, name.as_str(), &digest.to_string())?;
                Ok(format!("{DOWNLOAD}={token}"))
            }
            Identity::Open | Identity::Anonymous => Ok(String::new()),
        }
    }

    /// The account whose registry this is.
    pub fn account(&self) -> &str {
        self.auth.account()
    }

    pub fn region(&self) -> &str {
        self.auth.region()
    }

    /// What the names of public repositories begin with.
    pub fn alias(&self) -> &str {
        self.auth.alias()
    }

    pub fn identity(&self) -> &Identity {
        &self.asker.identity
    }

    pub fn auth(&self) -> &Auth {
        self.auth
    }
}

/// A manifest as a client pulls it; the pull is recorded if it `counts`.
///
/// # Errors
/// As [`Repository::pull_manifest`]'s.
pub fn pull_manifest(repository: &Repository, reference: &Reference, counts: bool) -> strongroom::Result<Manifest> {
    if counts {
        return repository.pull_manifest(reference);
    }
    let info = repository.manifest_info(reference)?;
    match info.storage_class {
        StorageClass::Standard => repository.get_manifest(&info.digest.into()),
        StorageClass::Archive => Err(Error::ManifestArchived { digest: info.digest }),
    }
}

/// Whether something only reads what is in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Yes,
    No,
}

/// The ARN of a repository, which policies know it by.
pub fn private_arn(region: &str, account: &str, name: &str) -> String {
    format!("arn:aws:ecr:{region}:{account}:repository/{name}")
}

/// That of a public one, by its name without the alias.
pub fn public_arn(account: &str, name: &str) -> String {
    format!("arn:aws:ecr-public::{account}:repository/{name}")
}

fn is_of_public(action: &str) -> bool {
    action.starts_with("ecr-public:")
}

/// The time, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
