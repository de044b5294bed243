//! The calls of a store.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::aio::arguments::calls;
use crate::aio::target::{Target, content};
use crate::aio::{AsyncRepository, AsyncStore, joined};
use crate::blobs::Stat;
use crate::check::{Scrub, ScrubOptions, Verification};
use crate::digest::Digest;
use crate::envelope::LockedDomain;
use crate::error::Result;
use crate::gc::{CollectOptions, Collection, Expired};
use crate::id::Lsn;
use crate::keys::{DomainName, KeyProvider};
use crate::oci::{RepositoryName, RepositorySettings};
use crate::page::Page;
use crate::registry::{Events, Repository, RepositoryDeletion};
use crate::store::{Health, Rewriting, SnapshotOptions, SnapshotReport, Store, Usage};
use crate::tables::Watching;

/// Content, outside of repositories.
impl AsyncStore {
    content!(Store);

    fn parts(&self) -> (Target, &Self) {
        (Target::from(self.blocking()), self)
    }

    calls! { Store:
        /// Whether the store has a blob.
        read exists(digest: &Digest) -> bool;
        /// Whether the store has each of several blobs, all as of one moment.
        read exists_many(digests: &[Digest]) -> Vec<bool>;
        /// What the store knows of a blob.
        read stat(digest: &Digest) -> Stat;
        /// Returns what the store knows of a blob, and keeps the blob from collection for the time of retention.
        call claim(digest: &Digest) -> Stat;
        /// What the store knows of several blobs as of one moment; `None` for those that it does not have.
        read stat_many(digests: &[Digest]) -> Vec<Option<Stat>>;
        /// Claims several blobs, with one commit at most.
        call claim_many(digests: &[Digest]) -> Vec<Result<Stat>>;
        /// Removes an unreferenced blob.
        call remove(digest: &Digest) -> Lsn;
    }
}

/// Repositories and their events.
impl AsyncStore {
    /// A repository that a blocking call has opened.
    pub fn wrap(&self, repository: Repository) -> AsyncRepository {
        AsyncRepository::new(repository, self.clone())
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// As [`Store::repository`] and [`read`](Self::read).
    pub async fn repository(&self, name: &RepositoryName) -> Result<AsyncRepository> {
        let name = name.clone();
        self.read(move |store| store.repository(&name)).await.map(|found| self.wrap(found))
    }

    /// Creates a repository.
    ///
    /// # Errors
    /// As [`Store::create_repository`] and [`call`](Self::call).
    pub async fn create_repository(
        &self,
        name: &RepositoryName,
        settings: RepositorySettings,
    ) -> Result<AsyncRepository> {
        let name = name.clone();
        self.call(move |store| store.create_repository(&name, settings)).await.map(|created| self.wrap(created))
    }

    /// Opens a repository, or creates it with these settings where there is none.
    ///
    /// # Errors
    /// As [`Store::ensure_repository`] and [`call`](Self::call).
    pub async fn ensure_repository(
        &self,
        name: &RepositoryName,
        settings: RepositorySettings,
    ) -> Result<AsyncRepository> {
        let name = name.clone();
        self.call(move |store| store.ensure_repository(&name, settings)).await.map(|found| self.wrap(found))
    }

    /// Opens a repository for a push, or creates it provisionally with these settings where there is none.
    ///
    /// # Errors
    /// As [`Store::create_on_push`] and [`call`](Self::call).
    pub async fn create_on_push(&self, name: &RepositoryName, settings: RepositorySettings) -> Result<AsyncRepository> {
        let name = name.clone();
        self.call(move |store| store.create_on_push(&name, settings)).await.map(|found| self.wrap(found))
    }

    /// As [`events`](Self::events), and waits until there are some. No permit is held meanwhile, and no thread, unless
    /// another process writes the store: then a thread of the runtime waits until it is time to look again.
    ///
    /// ```
    /// # use strongroom::{Options, aio::AsyncStore, registry::RepositorySettings};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
    /// # runtime.block_on(async {
    /// let (other, after) = (store.clone(), store.blocking().last_lsn());
    /// let follower = tokio::spawn(async move { other.wait_for_events(after, 100).await });
    /// store.create_repository(&"team/app".parse()?, RepositorySettings::new()).await?;
    /// assert_eq!(follower.await??.events.len(), 1);
    /// # Ok(()) })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`events`](Self::events); [`Error::Closed`](crate::Error::Closed) where the store is closed meanwhile.
    pub async fn wait_for_events(&self, after: Lsn, limit: usize) -> Result<Events> {
        let mut watching = self.blocking().watching()?;
        let mut page = self.events(after, limit).await?;
        while page.events.is_empty() && page.locked.is_empty() {
            watching = self.wait_past(watching, page.next).await?;
            page = self.events(page.next, limit).await?;
        }
        Ok(page)
    }

    /// Waits for a commit behind this one, or until it is time to look for those of another process. (The clock of the
    /// runtime may be off.)
    async fn wait_past(&self, watching: Watching, after: Lsn) -> Result<Watching> {
        if !watching.is_following() {
            poll_fn(|cx| watching.poll_past(after, cx)).await;
            return Ok(watching);
        }
        let waiting = self.shared.threads.spawn(move || {
            watching.wait_past(after, None);
            Ok(watching)
        })?;
        joined(waiting.await)
    }

    calls! { Store:
        /// Deletes a repository.
        call delete_repository(name: &RepositoryName, how: RepositoryDeletion) -> Lsn;
        /// At most `limit` names of repositories, in order, beginning after `after`.
        read repositories(after: Option<&str>, limit: usize) -> Page<RepositoryName, String>;
        /// The events of repositories, named files and content after a position, in order, as whole commits.
        read events(after: Lsn, limit: usize) -> Events;
    }
}

/// Collection, checks, keys and the store as a whole. What goes through all content takes a thread, and a permit of
/// [`calls`](crate::aio::Limits::calls), until it ends.
impl AsyncStore {
    /// Gives space back, with a report from time to time to `progress`, which can end it. Dropping the future does not.
    ///
    /// # Errors
    /// As [`Store::collect`] and [`call`](Self::call).
    pub async fn collect(
        &self,
        options: &CollectOptions,
        progress: impl FnMut(&Collection) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Collection> {
        let options = options.clone();
        self.call(move |store| store.collect(&options, progress)).await
    }

    /// Verifies the store, with a report from time to time to `progress`. Dropping the future does not end it.
    ///
    /// # Errors
    /// As [`Store::verify`] and [`call`](Self::call).
    pub async fn verify(&self, progress: impl FnMut(&Verification) + Send + 'static) -> Result<Verification> {
        self.call(move |store| store.verify(progress)).await
    }

    /// Verifies content at a limited rate and flags what is damaged, with a report from time to time to `progress`,
    /// which can end it. Dropping the future does not.
    ///
    /// # Errors
    /// As [`Store::scrub`] and [`call`](Self::call).
    pub async fn scrub(
        &self,
        options: &ScrubOptions,
        progress: impl FnMut(&Scrub) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Scrub> {
        let options = options.clone();
        self.call(move |store| store.scrub(&options, progress)).await
    }

    /// Encrypts content with the newest keys, with a report from time to time to `progress`, which can end it. Dropping
    /// the future does not.
    ///
    /// # Errors
    /// As [`Store::rewrite`] and [`call`](Self::call).
    pub async fn rewrite(
        &self,
        progress: impl FnMut(&Rewriting) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Rewriting> {
        self.call(move |store| store.rewrite(progress)).await
    }

    /// Asks for the keys of locked domains now, and returns those that stay locked: [`Store::unlock_domains`].
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn unlock_domains(&self) -> Result<Vec<LockedDomain>> {
        self.call(|store| Ok(store.unlock_domains())).await
    }

    /// What the store knows of its own health, without trying the disk: [`Store::health`].
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn health(&self) -> Result<Health> {
        self.read(|store| Ok(store.health())).await
    }

    calls! { Store:
        /// Makes all writes so far durable.
        call sync() -> ();
        /// Tries whether the store can write: for health checks.
        call probe() -> ();
        /// Moves a store that is open for reading only forward.
        read refresh() -> Lsn;
        /// The disk usage of the store.
        read usage() -> Usage;
        /// Removes what has expired, and uploads that were idle for so long.
        call expire(upload_age: Duration) -> Expired;
        /// Removes uploads that were idle for so long, and returns how many.
        call expire_uploads(idle: Duration) -> usize;
        /// Removes unreferenced blobs whose retention time is over, and returns how many.
        call expire_blobs() -> usize;
        /// Folds all facts into runs.
        call checkpoint() -> ();
        /// Merges all runs into one of each kind.
        call merge_runs() -> ();
        /// Makes a consistent copy of the store in another directory.
        call snapshot_to(dir: &Path, options: &SnapshotOptions) -> SnapshotReport;
        /// Turns encryption on.
        call encrypt(provider: Arc<dyn KeyProvider>) -> ();
        /// Wraps all data keys with another provider's key.
        call rewrap_keys(provider: Arc<dyn KeyProvider>) -> ();
        /// Creates a key domain.
        call create_domain(name: &DomainName, key_id: Option<&str>) -> ();
        /// Gives a key domain, or the default one, a new data key.
        call rotate_data_key(domain: Option<&DomainName>) -> ();
        /// Destroys the keys of a domain, and with them all that is in it.
        call shred_domain(name: &DomainName) -> ();
    }
}
