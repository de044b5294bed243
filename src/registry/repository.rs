//! Creating, opening, deleting and listing repositories.

use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{Family, Key, Named, NamesOf, Reader as _, RepositoryFact};
use crate::id::{DomainId, RepositoryId};
use crate::oci::{RepositoryInfo, RepositoryName, RepositorySettings};
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

/// A repository of an open store.
///
/// A handle stays with the repository that had the name when the handle was opened: once that repository is deleted,
/// all calls fail with [`Error::RepositoryNotFound`], even if a new one has the name.
#[derive(Clone, Debug)]
pub struct Repository<'a> {
    pub(super) registry: &'a Registry,
    /// The domain that all of it is in.
    pub(super) domain: DomainId,
    pub(super) id: RepositoryId,
    pub(super) name: RepositoryName,
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

impl Repository<'_> {
    /// The repository's name.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// What is known of the repository.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where it was deleted.
    pub fn info(&self) -> Result<RepositoryInfo> {
        let snapshot = self.registry.tables.snapshot_of(self.domain);
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
    pub fn set_settings(&self, settings: RepositorySettings) -> Result<()> {
        self.commit(Set { repository: self.named(), settings, creates: false }).map(drop)
    }

    pub(crate) fn named(&self) -> Named {
        Named { id: self.id, name: self.name.to_string() }
    }

    /// The facts as of now, in which the repository is still there.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let snapshot = self.registry.tables.snapshot_of(self.domain);
        find::repository(&snapshot, self.id, self.name.as_str())?;
        Ok(snapshot)
    }

    pub(crate) fn commit(&self, change: impl Apply + 'static) -> Result<Outcome> {
        self.registry.log.commit(self.domain, Request::Apply(Box::new(change)))
    }
}

impl Registry {
    /// [`Store::create_repository`](crate::Store::create_repository).
    pub(crate) fn create_repository(
        &self,
        name: &RepositoryName,
        settings: RepositorySettings,
    ) -> Result<Repository<'_>> {
        until_it_stands_still(|| match self.create(name, &settings, false) {
            Err(Error::RepositoryExists { .. }) => self.take_over(name, &settings),
            other => other,
        })
    }

    fn create(
        &self,
        name: &RepositoryName,
        settings: &RepositorySettings,
        provisional: bool,
    ) -> Result<Repository<'_>> {
        let domain = self.domain_of(settings)?;
        self.files.keys().in_use(domain)?;
        if domain != DomainId::DEFAULT {
            let take = TakeName { name: name.to_string(), domain };
            self.log.commit(DomainId::DEFAULT, Request::Apply(Box::new(take)))?;
        }
        let create = Create { name: name.to_string(), settings: settings.clone(), provisional };
        // Not looked up: it may have been deleted since, and another one have its name.
        let id = RepositoryId(self.log.commit(domain, Request::Apply(Box::new(create)))?.lsn.0);
        Ok(Repository { registry: self, domain, id, name: name.clone() })
    }

    fn domain_of(&self, settings: &RepositorySettings) -> Result<DomainId> {
        settings.get_domain().map_or(Ok(DomainId::DEFAULT), |domain| self.files.domain_of(domain))
    }

    /// Makes of a provisional repository one that was created with these settings.
    fn take_over(&self, name: &RepositoryName, settings: &RepositorySettings) -> Result<Repository<'_>> {
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
    pub(crate) fn repository(&self, name: &RepositoryName) -> Result<Repository<'_>> {
        Ok(self.find(name)?.0)
    }

    /// A repository, and if it is provisional, when it was touched.
    fn find(&self, name: &RepositoryName) -> Result<(Repository<'_>, Option<u64>)> {
        let fact = self.tables.snapshot().repository_of_name(name.as_str())?;
        let RepositoryFact { domain, id, .. } = fact;
        Ok((Repository { registry: self, domain, id, name: name.clone() }, fact.provisional))
    }

    /// [`Store::ensure_repository`](crate::Store::ensure_repository).
    pub(crate) fn ensure_repository(
        &self,
        name: &RepositoryName,
        settings: RepositorySettings,
    ) -> Result<Repository<'_>> {
        until_it_stands_still(|| {
            let (repository, provisional) = self.find_or_create(name, &settings, false)?;
            if provisional.is_some() {
                repository.commit(Keep(repository.named()))?;
            }
            Ok(repository)
        })
    }

    /// [`Store::create_on_push`](crate::Store::create_on_push).
    pub(crate) fn create_on_push(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<Repository<'_>> {
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
        &self,
        name: &RepositoryName,
        settings: &RepositorySettings,
        provisional: bool,
    ) -> Result<(Repository<'_>, Option<u64>)> {
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
    pub(crate) fn delete_repository(&self, name: &RepositoryName, how: RepositoryDeletion) -> Result<()> {
        let domain = self.tables.snapshot().repository_of_name(name.as_str())?.domain;
        let delete = Delete { name: name.to_string(), with_contents: how == RepositoryDeletion::WithContents };
        self.log.commit(domain, Request::Apply(Box::new(delete)))?;
        // It is deleted, whatever becomes of this: the name is free also where it is taken.
        let _ = self.free_name(domain, name.as_str());
        self.purge_later();
        Ok(())
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
    pub(crate) fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryName>> {
        let names = self.tables.snapshot().names(NamesOf::Repositories, after, limit)?;
        names.iter().map(|name| name.parse()).collect()
    }
}
