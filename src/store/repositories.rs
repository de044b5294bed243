//! Repositories: creating, opening, deleting and listing them, and their events.

use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::id::Lsn;
use crate::oci::{RepositoryName, RepositorySettings};
use crate::page::Page;
use crate::registry::{Events, Repository, RepositoryDeletion};
use crate::store::Store;
use crate::tables::Watching;

impl Store {
    /// A repository whose handle keeps the store open, and writes as this one does.
    fn keeping(&self, repository: Repository) -> Repository {
        repository.with_durability(self.durability).keeping(Arc::clone(&self.open) as Arc<_>)
    }

    /// Creates a repository. An existing [provisional](Self::create_on_push) repository of that name in the same key
    /// domain becomes a permanent one with these settings, and keeps what is in it.
    ///
    /// # Errors
    /// [`Error::RepositoryExists`] where the name is in use; [`Error::DomainNotFound`] where there is no such key
    /// domain; [`Error::Key`] where that domain is [locked](Self::locked_domains), or the name may be in use in a
    /// domain that is locked.
    pub fn create_repository(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<Repository> {
        let inner = self.inner()?;
        inner.unlocking(|| inner.registry.create_repository(name, settings.clone())).map(|found| self.keeping(found))
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where there is none of that name; [`Error::Key`] where it is in a key domain
    /// that is [locked](Self::locked_domains).
    pub fn repository(&self, name: &RepositoryName) -> Result<Repository> {
        let inner = self.inner()?;
        inner.unlocking(|| inner.registry.repository(name)).map(|found| self.keeping(found))
    }

    /// Opens a repository, or creates it with these settings where there is none. An existing
    /// [provisional](Self::create_on_push) repository becomes a permanent one.
    ///
    /// # Errors
    /// As [`repository`](Self::repository); where the repository has to be created, also as
    /// [`create_repository`](Self::create_repository), and [`Error::Full`].
    pub fn ensure_repository(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<Repository> {
        let inner = self.inner()?;
        inner.unlocking(|| inner.registry.ensure_repository(name, settings.clone())).map(|found| self.keeping(found))
    }

    /// Opens a repository for a push, or creates it with these settings where there is none. A repository that this
    /// creates is *provisional* until a manifest is pushed to it. [Collection](Self::collect) deletes a provisional
    /// repository that has neither blobs nor uploads, once [`Options::retention`](crate::Options::retention) has passed
    /// since this was last called for it, or an upload into it was begun: so failed pushes leave nothing behind.
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
    pub fn create_on_push(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<Repository> {
        let inner = self.inner()?;
        inner.unlocking(|| inner.registry.create_on_push(name, settings.clone())).map(|found| self.keeping(found))
    }

    /// Deletes a repository. It is gone when this returns; its blobs, manifests and tags are removed in the background.
    ///
    /// # Errors
    /// As [`repository`](Self::repository); [`Error::RepositoryNotEmpty`] for [`RepositoryDeletion::IfEmpty`].
    pub fn delete_repository(&self, name: &RepositoryName, how: RepositoryDeletion) -> Result<Lsn> {
        let inner = self.inner()?;
        inner.unlocking(|| inner.registry.delete_repository(name, how))
    }

    /// A [page](Page) of the names of repositories, in order, those behind `after`. Repositories in
    /// [locked](Self::locked_domains) key domains are left out.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the view of names is being rebuilt, and facts that are read in its place are damaged.
    pub fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Page<RepositoryName, String>> {
        self.inner()?.registry.repositories(after, limit)
    }

    /// Waits for commits.
    pub(crate) fn watching(&self) -> Result<Watching> {
        Ok(Watching::new(&self.inner()?.tables))
    }

    /// As [`events`](Self::events), and waits at most this long until there are some; the page is empty where none have
    /// come. Pulls are noted durably, and told, within ten seconds. Beside another process that writes the store, its
    /// commits are looked for ten times a second.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strongroom::registry::RepositorySettings;
    /// # use strongroom::Options;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let (other, after) = (store.clone(), store.last_lsn());
    /// let follower = std::thread::spawn(move || other.wait_for_events(after, 100, Duration::from_secs(60)));
    /// store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
    /// assert_eq!(follower.join().unwrap()?.events.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`events`](Self::events); [`Error::Closed`] where the store is closed meanwhile.
    pub fn wait_for_events(&self, after: Lsn, limit: usize, at_most: Duration) -> Result<Events> {
        let until = Instant::now().checked_add(at_most);
        let watching = self.watching()?;
        let mut page = self.events(after, limit)?;
        while page.events.is_empty() && page.locked.is_empty() && watching.wait_past(page.next, until) {
            page = self.events(page.next, limit)?;
        }
        Ok(page)
    }

    /// The events of repositories, named files and blobs after a position, in order, as whole commits: commits are
    /// added until there are at least `limit` events, or no more commits. [`Events::next`] is the position to continue
    /// from: store it together with the result of processing the page. [`Lsn::default`] is the beginning,
    /// [`last_lsn`](Self::last_lsn) is now.
    ///
    /// Events are read from the log: they survive restarts, are complete, and none is returned before it is durable.
    /// [`Options::history`](crate::Options::history) says how far back they go. A store that is open for [reading
    /// only](crate::Options::read_only) is moved forward first, as by [`refresh`](Self::refresh).
    ///
    /// ```
    /// # use strongroom::registry::{EventKind, RepositorySettings};
    /// # use strongroom::{Lsn, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
    /// let page = store.events(Lsn::default(), 100)?;
    /// assert_eq!(page.events[0].repository().unwrap().as_str(), "team/app");
    /// assert_eq!(page.events[0].kind, EventKind::Created);
    /// assert!(store.events(page.next, 100)?.events.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Gap`] where the log no longer goes back to that position; [`Error::AheadOfStore`] where the position is
    /// after the last commit, as after a restore from an older copy; [`Error::Corrupt`] where the log is damaged; those
    /// of [`refresh`](Self::refresh).
    pub fn events(&self, after: Lsn, limit: usize) -> Result<Events> {
        let inner = self.inner()?;
        inner.refresh()?;
        inner.registry.events(after, limit)
    }
}
