//! Named files: names that keep blobs.

use std::io::Read;

use crate::blobs::{
    Blob, BlobStore, Expect, NamedBlob, NamedFile, NamedIn, NamedRemoval, NamedWrite, Outside, PutNamed, UploadStatus,
};
use crate::digest::{Algorithm, Digest};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::id::{DomainId, Lsn, UploadId};
use crate::keys::DomainName;
use crate::log::Durability;
use crate::page::Page;
use crate::store::Store;
use crate::transaction::ExpectNamed;
use crate::transaction::named::Released;

/// How many files an iterator reads at a time.
pub(super) const PAGE: usize = 1000;

impl Store {
    /// The named files of the default key domain.
    pub fn named(&self) -> NamedFiles {
        self.named_files(DomainId::DEFAULT)
    }

    /// The named files of a key domain, whose names and content are encrypted with that domain's keys and shared with
    /// no other domain.
    ///
    /// # Errors
    /// [`Error::DomainNotFound`] where there is no such domain; [`Error::Key`] where it is
    /// [locked](Self::locked_domains).
    pub fn named_in(&self, domain: &DomainName) -> Result<NamedFiles> {
        let inner = self.inner()?;
        inner.unlocking(|| {
            let id = inner.files.domain_of(domain)?;
            inner.files.keys().in_use(id)?;
            Ok(self.named_files(id))
        })
    }

    fn named_files(&self, domain: DomainId) -> NamedFiles {
        let (released, durability) = (Released::Kept, self.durability);
        NamedFiles { store: self.clone(), within: NamedIn { domain, released, durability } }
    }
}

/// Named files: content under names that can be replaced. For mutable files beside blobs, such as indexes, metadata and
/// configuration; for cache keys; and to keep blobs in a program without manifests.
///
/// A name holds its content, which is a blob like others, and the blobs that it is said to
/// [reference](PutNamed::references): none of them is collected. A write of a name is one commit: readers see the old
/// content or the new, and where content is replaced at the same time as it is read, the read is of one of the two.
/// Names have 1 to 1,024 bytes of UTF-8 without control characters, and are listed in the order of their bytes.
///
/// The handle is cheap to clone, and keeps the store open.
///
/// ```
/// use strongroom::{Error, ExpectNamed, Options, PutNamed};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Options::new().create(true).open(dir.path().join("store"))?;
/// let files = store.named();
/// files.put("npm/left-pad/index.json", r#"{"latest":"1.0"}"#, PutNamed::new())?;
///
/// // The file and its content, of one moment; then a change of what was read, unless somebody else has changed it.
/// let found = files.get("npm/left-pad/index.json")?;
/// let new = String::from_utf8_lossy(&found.blob.bytes()?).replace("1.0", "1.1");
/// let put = PutNamed::new().expect(ExpectNamed::Is(found.file.digest));
/// let written = files.put("npm/left-pad/index.json", new, put)?;
/// assert_eq!(written.replaced, Some(found.file.digest));
///
/// let page = files.list("npm/", None, 100)?;
/// assert_eq!((page.items[0].len, page.next), (16, None));
/// files.remove("npm/left-pad/index.json", ExpectNamed::Any)?;
/// assert!(matches!(files.get("npm/left-pad/index.json"), Err(Error::NamedNotFound { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NamedFiles {
    store: Store,
    within: NamedIn,
}

impl NamedFiles {
    fn blobs(&self) -> Result<&BlobStore> {
        let inner = self.store.inner()?;
        // Nothing of a domain that was shredded meanwhile is read or written.
        inner.files.keys().in_use(self.within.domain)?;
        Ok(&inner.blobs)
    }

    /// The blobs of the store, for what belongs to these files.
    #[cfg(feature = "tokio")]
    pub(crate) fn blob_store(&self) -> &BlobStore {
        self.store.blob_store()
    }

    /// Where uploads go, unless their domain was shredded.
    #[cfg(feature = "tokio")]
    pub(crate) fn destination(&self) -> Result<Outside<'_>> {
        self.blobs().map(|blobs| self.outside(blobs))
    }

    /// Where uploads go.
    fn outside<'a>(&self, blobs: &'a BlobStore) -> Outside<'a> {
        blobs.outside_in(self.within.durability, self.within.domain)
    }

    /// The same files, with other [durability](Store::with_durability) for writes through the new handle.
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self { store: self.store.clone(), within: NamedIn { durability, ..self.within } }
    }

    /// The same files, whose content goes with the next collection when it is replaced or removed through the new
    /// handle. Without this it stays for [`Options::retention`](crate::Options::retention), for those who were told of
    /// its digest.
    ///
    /// Content that something else keeps stays, and content that a client [stored](Store::put) or
    /// [claimed](Store::claim) by itself stays for the retention time after that.
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use strongroom::{CollectOptions, Options, PutNamed};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let files = store.named().discarding();
    /// let old = files.put("status", "starting", PutNamed::new())?.file.digest;
    /// files.put("status", "running", PutNamed::new())?;
    /// store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(()))?;
    /// assert!(!store.exists(&old)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn discarding(&self) -> Self {
        Self { store: self.store.clone(), within: NamedIn { released: Released::Discarded, ..self.within } }
    }

    /// Sets a name to content, which is stored unless it is there already.
    ///
    /// # Errors
    /// In each case nothing is stored, and the name is as it was. [`Error::NamedChanged`] where the name is not what
    /// was [expected](PutNamed::expect); [`Error::InvalidName`]; [`Error::BlobNotFound`] for a missing
    /// [reference](PutNamed::references); [`Error::DigestMismatch`] where the content does not have the digest given;
    /// [`Error::TooLarge`] for more than 65,535 references; [`Error::Full`]; [`Error::Poisoned`].
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>, put: PutNamed) -> Result<NamedWrite> {
        self.blobs()?.put_named(self.within, name, content.as_ref(), &put)
    }

    /// Sets a name to what a reader yields, to its end. Memory use does not depend on the length.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Error::Source`] where the reader fails.
    pub fn put_reader(&self, name: &str, mut content: impl Read, put: PutNamed) -> Result<NamedWrite> {
        self.blobs()?.put_named_reader(self.within, name, &mut content, &put)
    }

    /// Sets a name to the content of an upload, if it is what is expected, as [`Store::commit_upload`]. The upload ends
    /// in the same commit. (The digest or algorithm that `put` has is not used.)
    ///
    /// ```
    /// # use strongroom::{Algorithm, Digest, Options, PutNamed};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let files = store.named();
    /// let upload = files.begin_upload(Algorithm::Sha256)?;
    /// files.append_upload(upload, 0, "an archive")?;
    /// let digest = Digest::of(Algorithm::Sha256, b"an archive");
    /// files.put_upload("dist/app.tar", upload, &digest, PutNamed::new())?;
    /// assert_eq!(files.get("dist/app.tar")?.blob.bytes()?, "an archive");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`Store::commit_upload`]; in each case the upload stays as it is.
    pub fn put_upload(&self, name: &str, id: UploadId, expect: impl Into<Expect>, put: PutNamed) -> Result<NamedWrite> {
        self.blobs()?.put_named_upload(self.within, name, id, expect.into(), &put)
    }

    /// Sets a name to a blob that is there. (The digest or algorithm that `put` has is not used.)
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::BlobNotFound`] where the blob is missing.
    pub fn set(&self, name: &str, digest: &Digest, put: PutNamed) -> Result<NamedWrite> {
        self.blobs()?.set_named(self.within, name, digest, &put)
    }

    /// A file and its content, of one moment: it never fails because the file is replaced meanwhile and its content
    /// collected.
    ///
    /// # Errors
    /// [`Error::NamedNotFound`] where there is none of that name; [`Error::Corrupt`] where facts are damaged or the
    /// content's file is missing.
    pub fn get(&self, name: &str) -> Result<NamedBlob> {
        self.blobs()?.get_named(self.within.domain, name)
    }

    /// Opens a blob of the key domain: for exports, of what files reference.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<Blob> {
        self.blobs()?.get(self.within.domain, digest)
    }

    /// What is known of a file.
    ///
    /// # Errors
    /// [`Error::NamedNotFound`] where there is none of that name; [`Error::Corrupt`] where facts are damaged.
    pub fn stat(&self, name: &str) -> Result<NamedFile> {
        self.blobs()?.stat_named(self.within.domain, name)
    }

    /// At most `limit` files whose names begin with `prefix`, in order, behind the name `after`. A page costs what is
    /// in it, and ends early where its files have very many references.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page<NamedFile, String>> {
        self.blobs()?.list_named(self.within.domain, prefix, after, limit)
    }

    /// All files whose names begin with `prefix`, in order. They are read in pages, each as of the moment when the
    /// iterator comes to it: files may be put and removed meanwhile.
    ///
    /// ```
    /// # use strongroom::{Options, PutNamed};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let files = store.named();
    /// for name in ["a/1", "a/2", "b/1"] {
    ///     files.put(name, name, PutNamed::new())?;
    /// }
    /// let names = files.iter("a/").map(|file| Ok(file?.name)).collect::<strongroom::Result<Vec<_>>>()?;
    /// assert_eq!(names, ["a/1", "a/2"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self, prefix: &str) -> impl Iterator<Item = Result<NamedFile>> + use<> {
        let (files, prefix) = (self.clone(), prefix.to_owned());
        Page::all(move |after: Option<&String>| files.list(&prefix, after.map(String::as_str), PAGE))
    }

    /// Removes a file. Its content, unless something else keeps it, stays for
    /// [`Options::retention`](crate::Options::retention), or goes with the next collection where this handle is
    /// [discarding](Self::discarding).
    ///
    /// # Errors
    /// [`Error::NamedNotFound`] where there is none of that name; [`Error::NamedChanged`] where it is not what was
    /// expected.
    pub fn remove(&self, name: &str, expect: ExpectNamed) -> Result<Lsn> {
        self.blobs()?.remove_named(self.within, name, expect)
    }

    /// Removes those files of several that there are. Up to 1,000 names go in one commit, unless they have more than
    /// 4,096 references; more go in several commits.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Poisoned`], [`Error::Closed`]. Files that were removed before the error stay removed.
    pub fn remove_many(&self, names: &[impl AsRef<str>]) -> Result<NamedRemoval> {
        self.blobs()?.remove_several_named(self.within, names)
    }

    /// Removes all files whose names begin with `prefix`, in commits as [`remove_many`](Self::remove_many). Files that
    /// are put meanwhile may stay.
    ///
    /// # Errors
    /// As [`remove_many`](Self::remove_many); [`Error::Corrupt`] where facts are damaged.
    pub fn remove_prefix(&self, prefix: &str) -> Result<NamedRemoval> {
        self.blobs()?.remove_named_prefix(self.within, prefix)
    }

    /// Begins an upload in the files' key domain, as [`Store::begin_upload`].
    ///
    /// # Errors
    /// As [`Store::begin_upload`].
    pub fn begin_upload(&self, algorithm: Algorithm) -> Result<UploadId> {
        let blobs = self.blobs()?;
        blobs.begin_upload(algorithm, &self.outside(blobs))
    }

    /// Appends content to an upload, as [`Store::append_upload`].
    ///
    /// # Errors
    /// As [`Store::append_upload`].
    pub fn append_upload(
        &self,
        id: UploadId,
        offset: impl Into<Option<u64>>,
        content: impl AsRef<[u8]>,
    ) -> Result<u64> {
        let blobs = self.blobs()?;
        blobs.append_upload(id, offset.into(), &mut content.as_ref(), &self.outside(blobs))
    }

    /// Appends what a reader yields to an upload, as [`Store::append_upload_from`].
    ///
    /// # Errors
    /// As [`Store::append_upload_from`].
    pub fn append_upload_from(
        &self,
        id: UploadId,
        offset: impl Into<Option<u64>>,
        mut content: impl Read,
    ) -> Result<u64> {
        let blobs = self.blobs()?;
        blobs.append_upload(id, offset.into(), &mut content, &self.outside(blobs))
    }

    /// The status of an upload, as [`Store::upload_status`].
    ///
    /// # Errors
    /// As [`Store::upload_status`].
    pub fn upload_status(&self, id: UploadId) -> Result<UploadStatus> {
        let blobs = self.blobs()?;
        blobs.upload_status(id, &self.outside(blobs))
    }

    /// Cancels an upload, as [`Store::cancel_upload`].
    ///
    /// # Errors
    /// As [`Store::cancel_upload`].
    pub fn cancel_upload(&self, id: UploadId) -> Result<()> {
        let blobs = self.blobs()?;
        blobs.cancel_upload(id, &self.outside(blobs))
    }

    /// How many uploads are unfinished in the files' key domain, outside of repositories, counted up to `limit`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn count_uploads(&self, limit: usize) -> Result<usize> {
        let blobs = self.blobs()?;
        blobs.count_uploads_of(&self.outside(blobs), limit)
    }
}
