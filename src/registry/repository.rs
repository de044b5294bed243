//! Creating, opening, deleting and listing repositories.

use crate::error::{Error, Result};
use crate::facts::{Family, RepositoryFact};
use crate::id::{DomainId, RepositoryId};
use crate::log::Named;
use crate::names::{NameKind, first_names};
use crate::oci::{RepositoryInfo, RepositoryName, RepositorySettings};
use crate::store::{Inner, Store};
use crate::tables::view::{Snapshot, decoded};
use crate::transaction::find;
use crate::transaction::registry::{Create, Delete, Exists, Keep, Set};
use crate::transaction::{Apply, Outcome, Request};

/// Whether a repository may be deleted that holds manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryDeletion {
    /// Only one without manifests is deleted. (Blobs that no manifest references do not count.)
    IfEmpty,
    /// It is deleted with all that is in it.
    WithContents,
}

/// A repository of an open store.
///
/// It means the repository that had the name when it was opened: once that is deleted, all calls fail with
/// [`Error::RepositoryNotFound`], also if there is a new one of that name.
#[derive(Clone, Debug)]
pub struct Repository<'a> {
    pub(crate) inner: &'a Inner,
    /// The domain that all of it is in.
    pub(crate) domain: DomainId,
    pub(crate) id: RepositoryId,
    pub(crate) name: RepositoryName,
}

impl Store {
    /// Creates a repository. One that is there [provisionally](Self::create_on_push), in the same key domain, becomes
    /// it, with what is in it.
    ///
    /// # Errors
    /// [`Error::RepositoryExists`] where the name is taken; [`Error::DomainNotFound`] where there is no such key
    /// domain.
    pub fn create_repository(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<Repository<'_>> {
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
        let create = Create { name: name.to_string(), settings: settings.clone(), provisional };
        // Not looked up: it may have been deleted since, and another one have its name.
        let id = RepositoryId(self.inner.commit(domain, Request::Apply(Box::new(create)))?.lsn.0);
        Ok(Repository { inner: &self.inner, domain, id, name: name.clone() })
    }

    fn domain_of(&self, settings: &RepositorySettings) -> Result<DomainId> {
        settings.get_domain().map_or(Ok(DomainId::DEFAULT), |domain| self.inner.domain_of(domain))
    }

    /// Makes of a provisional repository one that was created with these settings.
    fn take_over(&self, name: &RepositoryName, settings: &RepositorySettings) -> Result<Repository<'_>> {
        let found = self.find(name)?.0;
        if found.domain != self.domain_of(settings)? {
            // Who is told that it exists may rely on that.
            found.commit(Keep(found.named()))?;
            return Err(Error::RepositoryExists { name: name.to_string() });
        }
        found.commit(Set { repository: found.named(), settings: settings.clone(), creates: true })?;
        Ok(found)
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where there is none of that name.
    pub fn repository(&self, name: &RepositoryName) -> Result<Repository<'_>> {
        Ok(self.find(name)?.0)
    }

    /// A repository, and if it is provisional, when it was touched.
    fn find(&self, name: &RepositoryName) -> Result<(Repository<'_>, Option<u64>)> {
        let fact = find::repository_of_name(&self.inner.snapshot(), name.as_str())?;
        let RepositoryFact { domain, id, .. } = fact;
        Ok((Repository { inner: &self.inner, domain, id, name: name.clone() }, fact.provisional))
    }

    /// Opens a repository, or creates it with these settings where there is none.
    ///
    /// # Errors
    /// [`Error::Full`] and the like, where it has to be created.
    pub fn ensure_repository(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<Repository<'_>> {
        until_it_stands_still(|| {
            let (repository, provisional) = self.find_or_create(name, &settings, false)?;
            if provisional.is_some() {
                repository.commit(Keep(repository.named()))?;
            }
            Ok(repository)
        })
    }

    /// Opens a repository for a push, or creates it with these settings where there is none. One that comes to be in
    /// this way is *provisional*: it stays once a manifest was pushed to it. Until then a [collection](Self::collect)
    /// deletes it where nobody called this, or began an upload into it, for
    /// [`Options::retention`](crate::Options::retention), and it has neither blobs nor uploads: so pushes that fail
    /// leave nothing behind.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strongroom::registry::RepositorySettings;
    /// # use strongroom::{Algorithm, CollectOptions, GoOn, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).retention(Duration::ZERO).open(dir.path())?;
    /// let name = "team/app".parse()?;
    /// let app = store.create_on_push(&name, RepositorySettings::new())?;
    /// assert!(app.put_manifest("no manifest", strongroom::registry::PutManifest::new("text/plain")).is_err());
    /// assert_eq!(store.collect(&CollectOptions::new(), |_| GoOn::Yes)?.repositories, 1);
    /// assert!(store.repository(&name).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`ensure_repository`](Self::ensure_repository).
    pub fn create_on_push(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<Repository<'_>> {
        until_it_stands_still(|| {
            let (repository, provisional) = self.find_or_create(name, &settings, true)?;
            let retention = self.inner.options.retention_time();
            if provisional.is_some_and(|touched| retention.is_stale(touched, self.inner.open_time())) {
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

    /// Deletes a repository. It is gone when this returns; what was in it goes in the background.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`]; [`Error::RepositoryNotEmpty`] for [`RepositoryDeletion::IfEmpty`].
    pub fn delete_repository(&self, name: &RepositoryName, how: RepositoryDeletion) -> Result<()> {
        let domain = find::repository_of_name(&self.inner.snapshot(), name.as_str())?.domain;
        let delete = Delete { name: name.to_string(), with_contents: how == RepositoryDeletion::WithContents };
        self.inner.commit(domain, Request::Apply(Box::new(delete)))?;
        self.inner.purge_later();
        Ok(())
    }

    /// The names of repositories in order, those behind `after`, at most `limit` of them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged that are needed because the derived view of names is being rebuilt.
    pub fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryName>> {
        let view = self.inner.view();
        let names = match self.inner.names.list(&view.domains, NameKind::Repository, after, limit) {
            Some(names) => names,
            None => self.inner.repositories_from_facts(after, limit)?,
        };
        names.iter().map(|name| name.parse()).collect()
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
        let snapshot = self.inner.snapshot_of(self.domain);
        let mut info = RepositoryInfo::from_fact(&find::repository(&snapshot, self.id, self.name.as_str())?)?;
        if let Ok(name) = self.inner.files.keys.get().label(self.domain).parse() {
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
        let snapshot = self.inner.snapshot_of(self.domain);
        find::repository(&snapshot, self.id, self.name.as_str())?;
        Ok(snapshot)
    }

    pub(crate) fn commit(&self, change: impl Apply + 'static) -> Result<Outcome> {
        self.inner.commit(self.domain, Request::Apply(Box::new(change)))
    }
}

impl Snapshot {
    /// All repositories of the domain, in no order that means anything.
    pub(crate) fn repositories(&self) -> Result<impl Iterator<Item = Result<RepositoryFact>> + '_> {
        let facts = self.facts(Family::Repository, [0; 32])?;
        Ok(facts.map(|fact| decoded(RepositoryFact::decode(fact?.1.as_bytes()))))
    }
}

impl Inner {
    /// What the view of names would answer, while it is being rebuilt.
    fn repositories_from_facts(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        let snapshots: Vec<Snapshot> = self.snapshot().each_domain().collect();
        let repositories = snapshots.iter().map(Snapshot::repositories).collect::<Result<Vec<_>>>()?;
        let names = repositories.into_iter().flatten().map(|repository| Ok(repository?.name));
        first_names(names, after, limit)
    }
}
