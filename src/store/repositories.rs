//! Repositories: creating, opening, deleting and listing them, and what happened to them.

use crate::error::Result;
use crate::id::Lsn;
use crate::oci::{RepositoryName, RepositorySettings};
use crate::registry::{Events, Repository, RepositoryDeletion};
use crate::store::Store;

impl Store {
    /// Creates a repository. One that is there [provisionally](Self::create_on_push), in the same key domain, becomes
    /// it, with what is in it.
    ///
    /// # Errors
    /// [`Error::RepositoryExists`] where the name is taken; [`Error::DomainNotFound`] where there is no such key
    /// domain; [`Error::Key`] where that is [locked](Self::locked_domains), or the name may be taken in one that is.
    pub fn create_repository(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<Repository<'_>> {
        self.inner.unlocking(|| self.inner.registry.create_repository(name, settings.clone()))
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where there is none of that name; [`Error::Key`] where it is in a key domain that is
    /// [locked](Self::locked_domains).
    pub fn repository(&self, name: &RepositoryName) -> Result<Repository<'_>> {
        self.inner.unlocking(|| self.inner.registry.repository(name))
    }

    /// Opens a repository, or creates it with these settings where there is none.
    ///
    /// # Errors
    /// [`Error::Full`] and the like, where it has to be created; else as [`repository`](Self::repository).
    pub fn ensure_repository(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<Repository<'_>> {
        self.inner.unlocking(|| self.inner.registry.ensure_repository(name, settings.clone()))
    }

    /// Opens a repository for a push, or creates it with these settings where there is none. One that comes to be in
    /// this way is *provisional*: it stays once a manifest was pushed to it. Until then a [collection](Self::collect)
    /// deletes it where nobody called this, or began an upload into it, for
    /// [`Options::retention`](crate::Options::retention), and it has neither blobs nor uploads: so pushes that fail
    /// leave nothing behind.
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use std::time::Duration;
    /// # use strongroom::registry::RepositorySettings;
    /// # use strongroom::{Algorithm, CollectOptions, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).retention(Duration::ZERO).open(dir.path())?;
    /// let name = "team/app".parse()?;
    /// let app = store.create_on_push(&name, RepositorySettings::new())?;
    /// assert!(app.put_manifest("no manifest", strongroom::registry::PutManifest::new("text/plain")).is_err());
    /// assert_eq!(store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(()))?.repositories, 1);
    /// assert!(store.repository(&name).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`ensure_repository`](Self::ensure_repository).
    pub fn create_on_push(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<Repository<'_>> {
        self.inner.unlocking(|| self.inner.registry.create_on_push(name, settings.clone()))
    }

    /// Deletes a repository. It is gone when this returns; what was in it goes in the background.
    ///
    /// # Errors
    /// As [`repository`](Self::repository); [`Error::RepositoryNotEmpty`] for [`RepositoryDeletion::IfEmpty`].
    pub fn delete_repository(&self, name: &RepositoryName, how: RepositoryDeletion) -> Result<()> {
        self.inner.unlocking(|| self.inner.registry.delete_repository(name, how))
    }

    /// The names of repositories in order, those behind `after`, at most `limit` of them. Those of
    /// [locked](Self::locked_domains) key domains are left out.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged that are needed because the derived view of names is being rebuilt.
    pub fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryName>> {
        self.inner.registry.repositories(after, limit)
    }

    /// What happened to repositories behind a position, in order, as whole commits: so many that there are at least
    /// `limit` events, or all there are. [`Events::next`] is the position to go on from; to be kept with what was done
    /// about them. [`Lsn::default`] is the beginning, [`last_lsn`](Self::last_lsn) is now.
    ///
    /// Events are read from the log, so they survive restarts, are complete, and none is told before it is durable. How
    /// far back they go, [`Options::history`](crate::Options::history) says.
    ///
    /// ```
    /// # use strongroom::registry::{EventKind, RepositorySettings};
    /// # use strongroom::{Lsn, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
    /// let page = store.events(Lsn::default(), 100)?;
    /// assert_eq!(page.events[0].repository.as_str(), "team/app");
    /// assert_eq!(page.events[0].kind, EventKind::Created);
    /// assert!(store.events(page.next, 100)?.events.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Gap`] where the log no longer goes back so far, or the store has not come so far; [`Error::Corrupt`]
    /// where it is damaged.
    pub fn events(&self, after: Lsn, limit: usize) -> Result<Events> {
        self.inner.registry.events(after, limit)
    }
}
