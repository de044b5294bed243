//! What clients have begun and not finished: uploads, and repositories that a push created. Bounded for each client,
//! and given up in time.
//!
//! The counts are in memory: what was begun before a restart no longer counts against a client, and is removed by the
//! store's collection.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;
use strongroom::registry::RepositoryName;
use strongroom::{Error, Store, UploadId};

use super::failure::{Code, Failure};
use super::limits::Limits;
use super::peer::Client;

#[derive(Debug, Default)]
pub struct Unfinished(Mutex<Begun>);

#[derive(Debug, Default)]
struct Begun {
    uploads: HashMap<UploadId, Upload>,
    /// How many of those are each client's.
    counts: HashMap<Client, Count>,
    repositories: HashMap<RepositoryName, (Client, Instant)>,
}

#[derive(Clone, Debug)]
struct Upload {
    client: Client,
    repository: RepositoryName,
    begun: Instant,
    has_content: bool,
    parts: Parts,
}

/// What is known of the parts of an upload that comes in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Parts {
    /// None was short.
    #[default]
    Long,
    /// The last one was short, as the last one may be.
    LastIsShort,
    /// One was short, and others came after it.
    ShortWithin,
}

/// How many uploads a client has begun, and how many of them have no content yet.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: usize,
    empty: usize,
}

impl Begun {
    fn insert(&mut self, id: UploadId, upload: Upload) {
        let count = self.counts.entry(upload.client).or_default();
        count.all += 1;
        count.empty += usize::from(!upload.has_content);
        self.uploads.insert(id, upload);
    }

    fn remove(&mut self, id: UploadId) -> Option<Upload> {
        let upload = self.uploads.remove(&id)?;
        if let Some(count) = self.counts.get_mut(&upload.client) {
            count.all -= 1;
            count.empty -= usize::from(!upload.has_content);
            if count.all == 0 {
                self.counts.remove(&upload.client);
            }
        }
        Some(upload)
    }
}

impl Unfinished {
    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a client may begin one more upload.
    ///
    /// # Errors
    /// 429, to try again.
    pub fn check_upload(&self, client: Client, limits: &Limits) -> Result<(), Failure> {
        let count = self.lock().counts.get(&client).copied().unwrap_or_default();
        if count.all >= limits.uploads || count.empty >= limits.begun_uploads {
            return Err(too_many("uploads: finish those that were begun, or cancel them"));
        }
        Ok(())
    }

    pub fn upload_begun(&self, client: Client, repository: RepositoryName, id: UploadId) {
        let upload = Upload { client, repository, begun: Instant::now(), has_content: false, parts: Parts::Long };
        self.lock().insert(id, upload);
    }

    pub fn upload_continued(&self, id: UploadId) {
        let mut begun = self.lock();
        if let Some(upload) = begun.remove(id) {
            begun.insert(id, Upload { has_content: true, ..upload });
        }
    }

    /// Notes that a part of an upload came, and whether it is shorter than all but the last have to be.
    pub fn part_received(&self, id: UploadId, is_short: bool) {
        self.upload_continued(id);
        if let Some(upload) = self.lock().uploads.get_mut(&id) {
            upload.parts = match upload.parts {
                Parts::Long if is_short => Parts::LastIsShort,
                Parts::Long => Parts::Long,
                Parts::LastIsShort | Parts::ShortWithin => Parts::ShortWithin,
            };
        }
    }

    /// Whether a part of an upload that others followed was short. Of uploads that were begun before the registry was
    /// started that is not known.
    pub fn has_short_part_within(&self, id: UploadId) -> bool {
        self.lock().uploads.get(&id).is_some_and(|upload| upload.parts == Parts::ShortWithin)
    }

    pub fn upload_ended(&self, id: UploadId) {
        self.lock().remove(id);
    }

    /// Notes that a client's push creates a repository.
    ///
    /// # Errors
    /// 429, where too many that this client has created were not completed.
    pub fn create_repository(&self, client: Client, name: &RepositoryName, limits: &Limits) -> Result<(), Failure> {
        let mut begun = self.lock();
        if begun.repositories.values().filter(|(own, _)| *own == client).count() >= limits.new_repositories {
            return Err(too_many("new repositories: complete a push to those that were created"));
        }
        begun.repositories.insert(name.clone(), (client, Instant::now()));
        Ok(())
    }

    /// A push to a repository was completed, or the repository was not created after all.
    pub fn repository_settled(&self, name: &RepositoryName) {
        self.lock().repositories.remove(name);
    }

    /// Gives up uploads that nothing came for, and forgets what is over: to be called now and then. The store's
    /// collection deletes repositories.
    ///
    /// # Errors
    /// What giving one up meets. The others are given up the next time.
    pub fn sweep(&self, store: &Store, limits: &Limits) -> strongroom::Result<()> {
        let uploads = self.lock().uploads.clone();
        for (id, upload) in uploads.into_iter().filter(|(_, upload)| upload.begun.elapsed() > limits.begun) {
            match give_up_if_empty(store, &upload, id) {
                Ok(true) | Err(Error::RepositoryNotFound { .. } | Error::UploadNotFound { .. }) => {
                    self.upload_ended(id)
                }
                // Something came by a request that was cut off.
                Ok(false) if !upload.has_content => self.upload_continued(id),
                Ok(false) | Err(Error::UploadBusy { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let repositories: Vec<RepositoryName> = self.lock().repositories.keys().cloned().collect();
        for name in repositories {
            if let Err(Error::RepositoryNotFound { .. }) = store.repository(&name) {
                self.repository_settled(&name);
            }
        }
        Ok(())
    }
}

/// Gives an upload up to which nothing came; says whether it did.
fn give_up_if_empty(store: &Store, upload: &Upload, id: UploadId) -> strongroom::Result<bool> {
    let repository = store.repository(&upload.repository)?;
    let is_empty = repository.upload_status(id)?.offset == 0 && !upload.has_content;
    if is_empty {
        repository.cancel_upload(id)?;
    }
    Ok(is_empty)
}

fn too_many(what: &str) -> Failure {
    Failure::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, format!("too many unfinished {what}"))
        .retry_after(60)
}
