//! Changing keys: turning encryption on, domains, new keys, shredding.
//!
//! All keys are stored in `FORMAT`, wrapped. It is replaced as a whole, and is durable before anything relies on what
//! it says. So a change of keys has happened or it has not, whenever a crash comes.
//!
//! # Invariants kept here
//! - **A key is kept as long as anything that is encrypted with it.** Keys are given up in one place
//!   ([`Inner::retire`]), after a look at everything that could need them, while nobody commits, folds or replaces the
//!   list. A commit that would publish a file whose key was given up is refused.
//! - **A key is used only after `FORMAT` has it**, durably.
//! - **After a domain was shredded its keys exist nowhere**: neither in a file nor in the keyring; handles that were
//!   opened before keep those of their file until they are dropped. What is left of the domain's files is removed after
//!   that; after a crash the domain is still marked as shredded, and the next opening removes the rest.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use crate::envelope::{Domain, DomainState, Keyring};
use crate::error::{Error, Result};
use crate::facts::{SegmentFact, SegmentKind};
use crate::files::Space;
use crate::files::layout::parse_id;
use crate::id::{DomainId, FileId};
use crate::keys::{DomainName, KeyProvider};
use crate::segment::parse_header;
use crate::store::format::{self, Old};
use crate::store::rewrite::Began;
use crate::store::{Inner, Store};
use crate::sync::lock;
use crate::vfs::OpenMode;

/// A key domain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DomainInfo {
    /// Its number.
    pub number: u32,
    /// Its name; none for the default domain.
    pub name: Option<DomainName>,
    /// The number of the data key that new files are encrypted with; 0 without encryption.
    pub current_key: u32,
    /// Its data keys.
    pub keys: Vec<DataKeyInfo>,
}

/// A data key of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataKeyInfo {
    /// Its number in its domain.
    pub number: u32,
    /// The id of the key that it is wrapped with.
    pub key_id: String,
}

impl Store {
    /// Whether the store encrypts what it writes.
    pub fn is_encrypted(&self) -> bool {
        self.open.inner.files.keys().is_encrypted()
    }

    /// Whether the store may have content that is not encrypted: always without encryption; otherwise from when
    /// encryption was [turned on](Self::encrypt) until older content has been [rewritten](Self::rewrite).
    pub fn holds_plain(&self) -> bool {
        self.open.inner.files.keys().accepts_plain
    }

    /// The key domains, the default one first, [locked](Self::locked_domains) ones too.
    pub fn domains(&self) -> Vec<DomainInfo> {
        let keys = self.open.inner.files.keys();
        keys.existing()
            .map(|(id, domain)| DomainInfo {
                number: id.0,
                name: domain.label.parse().ok(),
                current_key: domain.current.into(),
                keys: domain
                    .keys
                    .iter()
                    .map(|(number, key)| DataKeyInfo { number: (*number).into(), key_id: key.key_id.clone() })
                    .collect(),
            })
            .collect()
    }

    /// Turns encryption on for a store that is not encrypted. From now on all that is written is encrypted; what was
    /// written before is encrypted by [`rewrite`](Self::rewrite).
    ///
    /// # Errors
    /// [`Error::Key`] where the provider does not wrap a data key: nothing has changed then. A store that is encrypted
    /// already stays as it is.
    pub fn encrypt(&self, provider: Arc<dyn KeyProvider>) -> Result<()> {
        let inner = self.inner()?;
        let _one = lock(&inner.key_changes);
        let keys = inner.files.keys();
        if keys.is_encrypted() {
            return Ok(());
        }
        inner.install(keys.encrypted(&*provider, true)?)?;
        *lock(&inner.key_provider) = Some(provider);
        inner.renew_names();
        Ok(())
    }

    /// Creates a key domain, with a data key of its own. [Repositories](crate::registry::RepositorySettings::domain)
    /// can be created in it from then on.
    ///
    /// `key_id` names the key that wraps the domain's data key, for providers that have several, such as AWS KMS;
    /// without one it is the provider's [own](KeyProvider::key_id). Where that key can't be used when the store is
    /// opened, the domain is [locked](Self::locked_domains), and the others are not.
    ///
    /// # Errors
    /// [`Error::DomainExists`]; [`Error::NotEncrypted`]; [`Error::Key`]; [`Error::TooLarge`] for more than
    /// 1,024 domains.
    pub fn create_domain(&self, name: &DomainName, key_id: Option<&str>) -> Result<()> {
        let inner = self.inner()?;
        let _one = lock(&inner.key_changes);
        let (keys, provider) = (inner.files.keys(), inner.provider()?);
        if keys.find(name.as_str()).is_some() {
            return Err(Error::DomainExists { name: name.to_string() });
        }
        let key_id = match key_id {
            Some(key_id) => key_id.to_owned(),
            None => provider.key_id().map_err(|source| Error::Key { domain: 0, source })?,
        };
        inner.install(keys.with_domain(name.as_str(), &*provider, &key_id)?)
    }

    /// Gives a domain, or the default one, a new data key. From now on new files are encrypted with it; existing files
    /// are re-encrypted by [`rewrite`](Self::rewrite).
    ///
    /// # Errors
    /// [`Error::DomainNotFound`]; [`Error::NotEncrypted`]; [`Error::Key`], also where the domain is
    /// [locked](Self::locked_domains).
    pub fn rotate_data_key(&self, domain: Option<&DomainName>) -> Result<()> {
        let inner = self.inner()?;
        inner.unlocking(|| {
            let _one = lock(&inner.key_changes);
            let (keys, provider) = (inner.files.keys(), inner.provider()?);
            let domain = domain.map_or(Ok(DomainId::DEFAULT), |name| inner.files.domain_of(name))?;
            inner.install(keys.rotated(domain, &*provider)?)
        })
    }

    /// Wraps all data keys with the key of another provider, which is used from then on. Content is not rewritten. Data
    /// keys of domains that were [created](Self::create_domain) with a key id of their own stay wrapped with that key
    /// where the new provider can unwrap them, or the domain is [locked](Self::locked_domains); the others are wrapped
    /// with the new key too.
    ///
    /// # Errors
    /// In each case nothing has changed. [`Error::Key`] where a data key can't be wrapped, where it is wrapped with the
    /// old provider's own key and its domain is locked, or where the new provider can't reach a domain's own key or may
    /// not use it; [`Error::NotEncrypted`].
    pub fn rewrap_keys(&self, provider: Arc<dyn KeyProvider>) -> Result<()> {
        let inner = self.inner()?;
        let _one = lock(&inner.key_changes);
        let old = inner.provider()?;
        let keys = inner.files.keys();
        let old_id = old.key_id().map_err(|source| Error::Key { domain: 0, source })?;
        inner.install(keys.rewrapped(&*provider, &old_id)?)?;
        *lock(&inner.key_provider) = Some(provider);
        Ok(())
    }

    /// Destroys a domain: its keys, and thereby everything in it, including its repositories, for good. A backup can
    /// still be read by anyone who has the key that wraps the domain's keys in it: to prevent that too, create the
    /// domain with a key of its own, and destroy that key.
    ///
    /// The domain's files are removed too, which takes a look at each file of the store. A domain that is
    /// [locked](Self::locked_domains) can be destroyed as well.
    ///
    /// # Errors
    /// [`Error::DomainNotFound`]. Where removing files fails, the domain is destroyed all the same, and the next
    /// opening removes the rest.
    pub fn shred_domain(&self, name: &DomainName) -> Result<()> {
        let inner = self.inner()?;
        let _one = lock(&inner.key_changes);
        let id = inner.files.domain_of(name)?;
        let keys = inner.files.keys().shredding(id);
        {
            // No run of the domain is about to be published.
            let _folding = inner.tables.pause_folding();
            inner.files.within(Space::Reserve, || inner.install(keys.clone()))?;
        }
        inner.clear_shredded(id)
    }
}

impl Inner {
    pub(crate) fn provider(&self) -> Result<Arc<dyn KeyProvider>> {
        let provider = lock(&self.key_provider).clone();
        provider.ok_or_else(|| Error::NotEncrypted { path: self.files.layout().format() })
    }

    /// Makes keys durable, and then those that are used.
    fn install(&self, keys: Keyring) -> Result<()> {
        self.replace_keys(keys)?;
        // The list says how often the keys have changed: with that, an older `FORMAT` in the place of this one is
        // noticed. The change itself has happened; where this fails, the next list says so.
        let _ = self.tables.update_list(Space::Free, |_| {});
        Ok(())
    }

    /// Nobody commits or replaces the list meanwhile, and the next commit begins a new log file: none has records under
    /// two keys of a domain.
    fn replace_keys(&self, keys: Keyring) -> Result<()> {
        self.log.between_logs(|| {
            let list = self.tables.hold_list();
            let old = if self.files.keys().gives_up(&keys) { Old::Wipe } else { Old::Leave };
            let replaced = format::replace(self.files.vfs(), self.files.layout(), &keys, old);
            replaced.map_err(|error| self.files.fail_stop(error))?;
            self.files.set_keys(keys.clone());
            self.tables.retain_domains(&keys, &list);
            Ok(())
        })
    }

    /// Gives up the keys of a domain that nothing needs any more: all but the current one, and what is not encrypted at
    /// all, if so in all domains. `false` where something needs them still.
    pub(crate) fn retire(&self, domain: DomainId, began: &Began) -> Result<bool> {
        let _one = lock(&self.key_changes);
        // With a key that came since, files may be under the one that was current then.
        let keys = self.files.keys();
        if [domain, DomainId::DEFAULT].iter().any(|id| keys.current(*id) != began.keys.current(*id)) {
            return Ok(false);
        }
        // The list that stands now was written with the current key.
        self.tables.update_list(Space::Free, |_| {})?;
        let is_needed = |domain: DomainId| {
            let _folding = self.tables.pause_folding();
            self.needs_old_keys(&keys, domain, began.log)
        };
        if is_needed(domain)? {
            return Ok(false);
        }
        let mut accepts_plain = keys.accepts_plain;
        if accepts_plain {
            accepts_plain = keys.active().map(is_needed).collect::<Result<Vec<bool>>>()?.contains(&true);
        }
        let new = keys.retired(domain, accepts_plain);
        if new.accepts_plain != keys.accepts_plain || keys.gives_up(&new) {
            self.renew_names(); // its pages are encrypted with the keys that go
            self.install(new)?;
        }
        Ok(true)
    }

    /// Whether anything of a domain is encrypted with another key than its current one, or may be about to be.
    fn needs_old_keys(&self, keys: &Keyring, domain: DomainId, oldest_writer: FileId) -> Result<bool> {
        let current = keys.in_use(domain)?;
        // In this order: what is not written any more is in the snapshot.
        let is_written = self.files.oldest_written(&self.tables.dead_logs()) < oldest_writer;
        let snapshot = self.tables.snapshot_of(domain);
        let has_old_run = self.tables.list().runs.iter().any(|run| run.domain == domain && run.key != current);
        let has_old_log = self.tables.logs().iter().any(|log| log.id < oldest_writer);
        // The checks of records in all log files are under the default domain's key.
        let is_unread = domain == DomainId::DEFAULT && !self.tables.list().unread.is_empty();
        if has_old_run || has_old_log || is_written || is_unread {
            return Ok(true);
        }
        // Of a log file that is withheld nothing may be left to read.
        let is_old = |segment: &SegmentFact| {
            segment.key != current && (segment.kind != SegmentKind::Log || segment.live_frames > 0)
        };
        for segment in snapshot.segment_facts()? {
            if is_old(&segment?.1) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes what is left of domains that were being shredded when the store was open last. Where that fails, later.
    pub(crate) fn go_on_shredding(&self) {
        let keys = self.files.keys();
        let is_left = |(_, domain): &(&DomainId, &Domain)| domain.state == DomainState::Shredding;
        keys.domains.iter().filter(is_left).for_each(|(id, _)| drop(self.clear_shredded(*id)));
    }

    /// Removes what is left of a domain whose keys are gone.
    pub(crate) fn clear_shredded(&self, domain: DomainId) -> Result<()> {
        let folding = self.tables.pause_folding();
        self.blobs.forget_uploads(domain);
        self.tables.drop_runs(domain)?;
        self.files.forget_domain(domain);
        self.tables.forget_pages();
        let (found, is_all) = self.files_of(domain)?;
        self.files.remove_durably(&found).map_err(|error| self.files.fail_stop(error))?;
        drop(folding);
        self.release_withheld()?;
        self.registry.free_names(domain)?;
        self.renew_names();
        if !is_all {
            return Ok(()); // the next opening looks again
        }
        let keys = self.files.keys().without(domain);
        self.files.within(Space::Reserve, || self.install(keys.clone()))
    }

    /// The segments of a domain, and log files in which no domain has anything any more; and whether those are all. A
    /// look at all files.
    fn files_of(&self, domain: DomainId) -> Result<(Vec<FileId>, bool)> {
        let (mut found, mut is_all) = (Vec::new(), true);
        // Before the list: a log file that is begun meanwhile has a higher id, or is in the list.
        let floor = self.files.oldest_written(&self.tables.dead_logs());
        let withheld = self.tables.list().withheld();
        for (id, path) in self.all_files(&self.files.layout().segments())? {
            let file = match self.files.vfs().open(&path, OpenMode::Read) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue, // removed since
                other => other.map_err(Error::io("open", &path))?,
            };
            let mut header = [0; 512];
            let read = Error::unless_cut_off(&path, file.read_exact_at(&mut header, 0))?;
            let header = read.and_then(|()| parse_header(&header));
            // What a header says of itself is believed only where no other domain says otherwise.
            if header.is_some_and(|header| header.domain == domain) && self.tables.snapshot().segments(id)?.is_empty() {
                found.push(id);
            }
        }
        let listed: Vec<FileId> = self.tables.logs().iter().map(|log| log.id).collect();
        for (id, _) in self.all_files(&self.files.layout().logs())? {
            if listed.contains(&id) || !self.tables.snapshot().segments(id)?.is_empty() {
                continue;
            }
            if id < floor && id >= withheld { found.push(id) } else { is_all = false }
        }
        Ok((found, is_all))
    }

    /// The files in the shards of a directory.
    pub(super) fn all_files(&self, parent: &std::path::Path) -> Result<BTreeMap<FileId, PathBuf>> {
        let list = |dir: &std::path::Path| self.files.vfs().list(dir).map_err(Error::io("list", dir));
        let mut files = BTreeMap::new();
        for shard in list(parent)? {
            let dir = parent.join(shard);
            for name in list(&dir)? {
                files.extend(parse_id(&name).map(|id| (id, dir.join(&name))));
            }
        }
        Ok(files)
    }
}
