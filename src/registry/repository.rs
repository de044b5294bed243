//! Creating, opening, deleting and listing repositories.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{Family, Key, Named, NamesOf, Reader as _, RepositoryFact};
use crate::id::{DomainId, Lsn, RepositoryId};
use crate::log::Durability;
use crate::oci::{RepositoryInfo, RepositoryName, RepositorySettings};
use crate::page::Page;
use crate::registry::Registry;
use crate::tables::Snapshot;
use crate::transaction::registry::{Create, Delete, Exists, FreeNames, Keep, Set, TakeName};
use crate::transaction::{Apply, Outcome, Request};

/// The most names that one commit frees: other commits wait for it.
const NAMES_AT_ONCE: usize = 256;

/// Whether a repository that has manifests is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryDeletion {
    /// Only one without manifests is deleted. (Blobs that no manifest references do not count.)
    IfEmpty,
    /// It is deleted with all that is in it.
    WithContents,
}

/// A handle to a repository of an open store. It is cheap to clone, can be kept and sent to other threads, and keeps
/// the store open, as a [`Store`](crate::Store) does.
///
/// A handle stays with the repository that had the name when the handle was opened: once that repository is deleted,
/// all calls fail with [`Error::RepositoryNotFound`], even if a new one has the name.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(super) registry: Arc<Registry>,
    /// When writes through this handle return.
    pub(super) durability: Durability,
    /// The moment that reads are as of; none: each as of now.
    as_of: Option<Snapshot>,
    /// What has to live as long as users have the handle.
    #[expect(dead_code, reason = "held, not read")]
    keeper: Keeper,
    /// The domain that all of it is in.
    pub(super) domain: DomainId,
    pub(super) id: RepositoryId,
    pub(super) name: RepositoryName,
}

/// Keeps the store open: it is closed when the last of these is dropped. What rooms below open for themselves has none,
/// else the store's own threads would keep it open.
#[derive(Clone, Default)]
struct Keeper(#[expect(dead_code, reason = "held, not read")] Option<Arc<dyn Send + Sync>>);

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}

/// Tries again where a repository that was there was deleted meanwhile.
fn until_it_stands_still<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    loop {
        match attempt() {
            Err(Error::RepositoryNotFound { .. }) => {}
            other => return other,
        }
    }
}

impl Repository {
    /// A handle to the repository of a fact, for rooms that keep the store open otherwise.
    pub(super) fn new(registry: &Arc<Registry>, domain: DomainId, id: RepositoryId, name: RepositoryName) -> Self {
        let durability = registry.log.durability();
        let (as_of, keeper) = (None, Keeper::default());
        Self { registry: Arc::clone(registry), durability, as_of, keeper, domain, id, name }
    }

    /// A handle that keeps the store open.
    pub(crate) fn keeping(self, open: Arc<dyn Send + Sync>) -> Self {
        Self { keeper: Keeper(Some(open)), ..self }
    }

    /// The same repository, whose writes through the new handle return when this says, as
    /// [`Store::with_durability`](crate::Store::with_durability).
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self { durability, ..self.clone() }
    }

    /// The repository's name.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// What is known of the repository.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where it was deleted.
    pub fn info(&self) -> Result<RepositoryInfo> {
        let snapshot = self.facts()?;
        let mut info = RepositoryInfo::from_fact(&find::repository(&snapshot, self.id, self.name.as_str())?)?;
        if let Ok(name) = self.registry.files.keys().label(self.domain).parse() {
            info.settings = info.settings.domain(name);
        }
        Ok(info)
    }

    /// Changes the repository's settings. Tags that are there stay as they are.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where it was deleted.
    pub fn set_settings(&self, settings: RepositorySettings) -> Result<Lsn> {
        Ok(self.commit(Set { repository: self.named(), settings, creates: false })?.lsn)
    }

    pub(crate) fn named(&self) -> Named {
        Named { id: self.id, name: self.name.to_string() }
    }

    /// The same repository, whose reads are as of one moment, in which it is there.
    pub(super) fn as_of(&self, moment: Snapshot) -> Self {
        Self { as_of: Some(moment), ..self.clone() }
    }

    /// The moment that all reads are as of, if they are.
    pub(super) fn moment(&self) -> Option<&Snapshot> {
        self.as_of.as_ref()
    }

    /// The facts as of now, in which the repository is still there.
    pub(crate) fn facts(&self) -> Result<Snapshot> {
        self.registry.files.check_open()?;
        if let Some(moment) = &self.as_of {
            return Ok(moment.clone());
        }
        let snapshot = self.registry.tables.snapshot_of(self.domain);
        find::repository(&snapshot, self.id, self.name.as_str())?;
        Ok(snapshot)
    }

    pub(crate) fn commit(&self, change: impl Apply + 'static) -> Result<Outcome> {
        self.registry.log.commit_as(self.durability, self.domain, Request::Apply(Box::new(change)))
    }
}

impl Registry {
    /// [`Store::create_repository`](crate::Store::create_repository).
    pub(crate) fn create_repository(
        self: &Arc<Self>,
        name: &RepositoryName,
        settings: RepositorySettings,
    ) -> Result<Repository> {
        until_it_stands_still(|| match self.create(name, &settings, false) {
            Err(Error::RepositoryExists { .. }) => self.take_over(name, &settings),
            other => other,
        })
    }

    fn create(
        self: &Arc<Self>,
        name: &RepositoryName,
        settings: &RepositorySettings,
        provisional: bool,
    ) -> Result<Repository> {
        let domain = self.domain_of(settings)?;
        self.files.keys().in_use(domain)?;
        if domain != DomainId::DEFAULT {
            let take = TakeName { name: name.to_string(), domain };
            self.log.commit(DomainId::DEFAULT, Request::Apply(Box::new(take)))?;
        }
        let create = Create { name: name.to_string(), settings: settings.clone(), provisional };
        // Not looked up: it may have been deleted since, and another one have its name.
        let id = RepositoryId(self.log.commit(domain, Request::Apply(Box::new(create)))?.lsn.0);
        Ok(Repository::new(self, domain, id, name.clone()))
    }

    fn domain_of(&self, settings: &RepositorySettings) -> Result<DomainId> {
        settings.get_domain().map_or(Ok(DomainId::DEFAULT), |domain| self.files.domain_of(domain))
    }

    /// Makes of a provisional repository one that was created with these settings.
    fn take_over(self: &Arc<Self>, name: &RepositoryName, settings: &RepositorySettings) -> Result<Repository> {
        let found = self.find(name)?.0;
        if found.domain != self.domain_of(settings)? {
            // A caller that is told that it exists may rely on that.
            found.commit(Keep(found.named()))?;
            return Err(Error::RepositoryExists { name: name.to_string() });
        }
        found.commit(Set { repository: found.named(), settings: settings.clone(), creates: true })?;
        Ok(found)
    }

    /// [`Store::repository`](crate::Store::repository).
    pub(crate) fn repository(self: &Arc<Self>, name: &RepositoryName) -> Result<Repository> {
        Ok(self.find(name)?.0)
    }

    /// A repository, and if it is provisional, when it was touched.
    fn find(self: &Arc<Self>, name: &RepositoryName) -> Result<(Repository, Option<u64>)> {
        let fact = self.tables.snapshot().repository_of_name(name.as_str())?;
        let RepositoryFact { domain, id, .. } = fact;
        Ok((Repository::new(self, domain, id, name.clone()), fact.provisional))
    }

    /// [`Store::ensure_repository`](crate::Store::ensure_repository).
    pub(crate) fn ensure_repository(
        self: &Arc<Self>,
        name: &RepositoryName,
        settings: RepositorySettings,
    ) -> Result<Repository> {
        until_it_stands_still(|| {
            let (repository, provisional) = self.find_or_create(name, &settings, false)?;
            if provisional.is_some() {
                repository.commit(Keep(repository.named()))?;
            }
            Ok(repository)
        })
    }

    /// [`Store::create_on_push`](crate::Store::create_on_push).
    pub(crate) fn create_on_push(
        self: &Arc<Self>,
        name: &RepositoryName,
        settings: RepositorySettings,
    ) -> Result<Repository> {
        until_it_stands_still(|| {
            let (repository, provisional) = self.find_or_create(name, &settings, true)?;
            let now = self.clock.open_time();
            if provisional.is_some_and(|touched| self.retention.is_stale(touched, now)) {
                repository.commit(Exists(repository.named()))?;
            }
            Ok(repository)
        })
    }

    fn find_or_create(
        self: &Arc<Self>,
        name: &RepositoryName,
        settings: &RepositorySettings,
        provisional: bool,
    ) -> Result<(Repository, Option<u64>)> {
        match self.find(name) {
            Err(Error::RepositoryNotFound { .. }) => {}
            other => return other,
        }
        match self.create(name, settings, provisional) {
            Err(Error::RepositoryExists { .. }) => self.find(name),
            other => Ok((other?, None)),
        }
    }

    /// [`Store::delete_repository`](crate::Store::delete_repository).
    pub(crate) fn delete_repository(&self, name: &RepositoryName, how: RepositoryDeletion) -> Result<Lsn> {
        let domain = self.tables.snapshot().repository_of_name(name.as_str())?.domain;
        let delete = Delete { name: name.to_string(), with_contents: how == RepositoryDeletion::WithContents };
        let lsn = self.log.commit(domain, Request::Apply(Box::new(delete)))?.lsn;
        // It is deleted, whatever becomes of this: the name is free also where it is taken.
        let _ = self.free_name(domain, name.as_str());
        self.purge_later();
        Ok(lsn)
    }

    /// Lets go of the name of a repository that a domain does not have any more.
    pub(crate) fn free_name(&self, domain: DomainId, name: &str) -> Result<()> {
        self.free_these(domain, vec![Key::owner(name)])
    }

    /// Lets go of all names of a domain that was shredded.
    pub(crate) fn free_names(&self, domain: DomainId) -> Result<()> {
        let snapshot = self.tables.snapshot();
        let keys = snapshot.facts(Family::Owner, [0; 32])?.map(|fact| Ok(fact?.0)).collect::<Result<Vec<_>>>()?;
        keys.chunks(NAMES_AT_ONCE).try_for_each(|keys| self.free_these(domain, keys.to_vec()))
    }

    fn free_these(&self, domain: DomainId, keys: Vec<Key>) -> Result<()> {
        if domain == DomainId::DEFAULT || keys.is_empty() {
            return Ok(());
        }
        let free = Request::Apply(Box::new(FreeNames { domain, keys }));
        self.log.commit_unthrottled(DomainId::DEFAULT, free).map(drop)
    }

    /// [`Store::repositories`](crate::Store::repositories).
    pub(crate) fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Page<RepositoryName, String>> {
        self.repositories_as_of(&self.tables.snapshot(), after, limit)
    }

    /// [`Snapshot::repositories`](crate::Snapshot::repositories).
    pub(crate) fn repositories_as_of(
        &self,
        moment: &Snapshot,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName, String>> {
        Page::of_names(limit, |count| moment.names(NamesOf::Repositories, after, count))
    }
}
