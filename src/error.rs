//! What can go wrong, as one enum that a caller can match on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::id::{Lsn, UploadId};
use crate::keys::KeyError;
use crate::vfs::{Shut, is_full};

mod damage;
mod image;
mod kind;
mod manifest;
mod target;

pub use damage::Damage;
pub use image::ImageChange;
pub use kind::ErrorKind;
pub use manifest::ManifestProblem;
pub use target::TargetProblem;

/// The result of the engine's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
///
/// An error of a write means that nothing of it is visible, unless the variant says otherwise. [`kind`](Self::kind)
/// says what a caller can do about an error.
///
/// The section *Errors* of a call names the errors that are its own. Besides, any call may fail with [`Io`](Self::Io)
/// and, where it needs what is damaged, with [`Corrupt`](Self::Corrupt); any write with [`Full`](Self::Full),
/// [`Poisoned`](Self::Poisoned), [`ReadOnly`](Self::ReadOnly) and [`Internal`](Self::Internal); any call on a
/// repository with [`RepositoryNotFound`](Self::RepositoryNotFound) once it was deleted, with [`Key`](Self::Key) while
/// its key domain is locked, and with [`DomainShredded`](Self::DomainShredded) when that was shredded; and any call on
/// a store that was closed with [`Closed`](Self::Closed).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation. The path and the operation say which; the source says why.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb: `open`, `read`, `write`, `sync`, …
        operation: &'static str,
        /// The operating system's error.
        source: Arc<io::Error>,
    },
    /// The disk is full, or the quota, or the process may not write longer files (`ulimit -f`). Nothing acknowledged is
    /// lost, reads and deletions still work, and writes succeed again once there is space.
    #[error("no space left for {}: free some space or remove content, then try again", path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Bytes on disk are not what was written. Only what is stored there is affected. Keep the file, restore it from a
    /// backup if there is one, or push the content again.
    #[error("{} is damaged at byte {offset}: {damage}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in the file the damaged structure begins, in bytes.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// A text is not a digest that the store knows: `sha256:`, `sha512:` or `blake3:` and lower-case hex of the full
    /// length.
    #[error("invalid digest {text:?}: expected sha256:<64 hex>, sha512:<128 hex> or blake3:<64 hex>, in lower case")]
    InvalidDigest {
        /// The text, cut to 200 characters.
        text: String,
    },
    /// A text is not an upload id: 32 lower-case hex digits.
    #[error("invalid upload id {text:?}: expected 32 lower-case hex digits")]
    InvalidUploadId {
        /// The text, cut to 200 characters.
        text: String,
    },
    /// A text is not the name of a digest algorithm: `sha256`, `sha512` or `blake3`.
    #[error("unknown algorithm {text:?}: expected sha256, sha512 or blake3")]
    InvalidAlgorithm {
        /// The text, cut to 200 characters.
        text: String,
    },
    /// Content does not have the digest it was said to have. Nothing was stored.
    #[error("content has the digest {found}, not {expected}: nothing was stored")]
    DigestMismatch {
        /// The digest that the caller gave.
        expected: Digest,
        /// The digest that the content has.
        found: Digest,
    },
    /// Another process, or another handle in this one, has the store open. The file `LOCK` is no sign of that, and
    /// never stale: it stays when the store is closed, and the operating system gives the lock itself back when the
    /// process ends, however it does. There is no need to delete it.
    #[error("{} is in use: by another process, or by another handle in this one", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The directory holds no store.
    #[error("{} holds no strongroom store: create one with Options::create", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds another store than the one that was opened there for reading only: it was replaced
    /// meanwhile. Open it anew. (A copy of the same store is followed.)
    #[error("{} holds another store than the one that was opened: open it anew", path.display())]
    OtherStore {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot become a store, since something is there already: another store, a file, anything else.
    #[error("{} is there already and is no empty directory: choose an empty or a new one", path.display())]
    NotEmpty {
        /// The directory, or the file in its place.
        path: PathBuf,
    },
    /// A [snapshot](crate::Store::snapshot_to) can't be made in this place. Nothing was written; the problem says which
    /// place to choose instead.
    #[error("no snapshot can be made at {}: {problem}", path.display())]
    SnapshotTarget {
        /// Where it was to be.
        path: PathBuf,
        /// Why it can't be there.
        problem: TargetProblem,
    },
    /// The store was written by another version of the format.
    #[error(
        "{} has format version {version}, incompatible features {features:#x}; this program reads version {supported}: \
         use the version of strongroom that wrote it, or export with that and import with this", path.display()
    )]
    UnsupportedFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version found.
        version: u32,
        /// The incompatible feature bits found that this program does not know.
        features: u64,
        /// The version this program reads and writes.
        supported: u32,
    },
    /// The store is encrypted, and no key was given: see [`Options::key_provider`](crate::Options::key_provider).
    #[error("{} is encrypted: the key {key_id:?} is needed to open it", path.display())]
    KeyRequired {
        /// The file that says so.
        path: PathBuf,
        /// The id of the key that the store's data keys are wrapped with.
        key_id: String,
    },
    /// A key was given for a store that is not encrypted, or such a store was asked to change its keys. Open it without
    /// a key, and turn encryption on with [`Store::encrypt`](crate::Store::encrypt).
    #[error("{} is not encrypted: open it without a key, and turn encryption on", path.display())]
    NotEncrypted {
        /// The file that says so.
        path: PathBuf,
    },
    /// The store is encrypted, or was to be, and the program was built without the crate's feature `encryption`, which
    /// is on by default. Nothing has changed; build it with that.
    #[error("this program was built without encryption: build it with the feature \"encryption\" of strongroom")]
    EncryptionLeftOut,
    /// A data key can't be wrapped or unwrapped. Nothing is lost: with the right key the store opens. From a call on an
    /// open store: the key domain is [locked](crate::Store::locked_domains), since its keys could not be unwrapped when
    /// the store was opened; try again later.
    #[error("cannot use the keys of domain {domain}: {source}")]
    Key {
        /// The number of the key domain; 0 is the default one.
        domain: u32,
        /// Why.
        source: KeyError,
    },
    /// No key domain has this name.
    #[error("no key domain {name:?}")]
    DomainNotFound {
        /// The name asked for.
        name: String,
    },
    /// A key domain has this name already.
    #[error("there is a key domain {name:?} already")]
    DomainExists {
        /// The name.
        name: String,
    },
    /// The keys of the domain were destroyed, and with them all that was in it.
    #[error("key domain {domain} was shredded: what was in it is gone for good")]
    DomainShredded {
        /// The number of the key domain.
        domain: u32,
    },
    /// The store, or the repository that was asked, does not have this blob.
    #[error("no blob {digest}")]
    BlobNotFound {
        /// The digest asked for.
        digest: Digest,
    },
    /// The blob is referenced and can't be removed: by named files, repositories or manifests; in a repository, by its
    /// manifests. Remove those first.
    #[error("{digest} is held by {count} references: remove them first")]
    BlobInUse {
        /// The blob.
        digest: Digest,
        /// How many of them reference it.
        count: u32,
    },
    /// No named file has this name.
    #[error("no file {name:?}")]
    NamedNotFound {
        /// The name asked for.
        name: String,
    },
    /// The named file is not what the caller expected it to be. Nothing was stored, and nothing was changed.
    #[error(
        "file {name:?} is {}, not what was expected",
        found.map_or_else(|| "not there".to_owned(), |found| found.to_string())
    )]
    NamedChanged {
        /// The file's name.
        name: String,
        /// The content that it has; none where there is no such file.
        found: Option<Digest>,
    },
    /// A name is empty, too long, or holds control characters.
    #[error("invalid name {name:?}: 1 to {max} bytes of UTF-8 without control characters")]
    InvalidName {
        /// The name, cut to 200 characters.
        name: String,
        /// The longest name allowed, in bytes.
        max: usize,
    },
    /// No upload has this id: it was never begun, or it was committed, cancelled or has expired.
    #[error("no upload {id}: begin a new one")]
    UploadNotFound {
        /// The id asked for.
        id: UploadId,
    },
    /// Content was appended to an upload at another offset than its length.
    #[error("the upload stands at byte {expected}, not {found}: continue from there")]
    WrongOffset {
        /// The upload's length in bytes.
        expected: u64,
        /// The offset that the caller gave.
        found: u64,
    },
    /// Another call is working on the same upload.
    #[error("upload {id} is in use by another call: wait for it to finish")]
    UploadBusy {
        /// The upload.
        id: UploadId,
    },
    /// Something is larger than the format or the options allow.
    #[error("{what} is {found}, more than the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
        /// What was asked for.
        found: u64,
    },
    /// More content came than the limit that the caller has set. Nothing of it was stored; of an upload, see where the
    /// limit is set.
    #[error("the content is longer than the limit of {limit} bytes")]
    ContentTooLong {
        /// The most that was to be taken, in bytes.
        limit: u64,
    },
    /// A range does not lie within the blob.
    #[error("range {start}..{end} lies outside of the blob's {len} bytes")]
    OutOfRange {
        /// The range's first byte.
        start: u64,
        /// The byte after its last.
        end: u64,
        /// The blob's length in bytes.
        len: u64,
    },
    /// The file system lacks something that the store needs: put the store on another one.
    #[error("the file system of {} can not do {lacks}: put the store on another one", path.display())]
    UnsupportedFileSystem {
        /// A directory on it.
        path: PathBuf,
        /// What it can't do.
        lacks: &'static str,
    },
    /// An earlier write could not be made durable, so the store refuses writes. Reads continue. Find out what is wrong
    /// with the disk, then open the store again.
    #[error("the store refuses writes since an earlier one failed: {cause}")]
    Poisoned {
        /// The failure that came first.
        cause: Arc<Error>,
    },
    /// An invariant of the engine does not hold: a bug in it. The store refuses writes from then on, as after a failed
    /// sync; open it again, and please report this.
    #[error("an invariant of the engine does not hold: {invariant}; please report this")]
    Internal {
        /// What should hold.
        invariant: &'static str,
    },
    /// The store was opened for reading only, so it refuses writes.
    #[error("the store is open for reading only{cause}")]
    ReadOnly {
        /// Why.
        cause: ReadOnlyCause,
    },
    /// No repository has this name, or the one that had it when the handle was opened was deleted.
    #[error("no repository {name:?}: create it first")]
    RepositoryNotFound {
        /// The name.
        name: String,
    },
    /// A repository has this name already.
    #[error("repository {name:?} exists already: open it")]
    RepositoryExists {
        /// The name.
        name: String,
    },
    /// The repository holds manifests, and was to be deleted only if it holds none.
    #[error("repository {name:?} holds manifests: delete them first, or delete it with its contents")]
    RepositoryNotEmpty {
        /// The name.
        name: String,
    },
    /// The repository has no document of this name.
    #[error("no document {name:?}: set it first")]
    DocumentNotFound {
        /// The name asked for.
        name: String,
    },
    /// The document is not what the caller expected it to be. Nothing was changed: read it again, then decide.
    #[error(
        "document {name:?} {}, not what was expected: read it again",
        found.map_or_else(|| "is not there".to_owned(), |found| format!("has revision {found}"))
    )]
    DocumentChanged {
        /// The document's name.
        name: String,
        /// The revision that it has; none where there is no such document.
        found: Option<Lsn>,
    },
    /// A text is not the name of a document.
    #[error("invalid document name {name:?}: expected 1 to 128 bytes of printable ASCII")]
    InvalidDocumentName {
        /// The text, cut to 200 characters.
        name: String,
    },
    /// A text is not a repository's name.
    #[error(
        "invalid repository name {name:?}: expected 1 to 256 characters, lower-case letters and digits, with single \
         separators (. _ __ -) inside the parts between slashes"
    )]
    InvalidRepositoryName {
        /// The text, cut to 300 characters.
        name: String,
    },
    /// A text is not a tag.
    #[error("invalid tag {tag:?}: expected 1 to 128 letters, digits, _ . and -, not beginning with . or -")]
    InvalidTag {
        /// The text, cut to 300 characters.
        tag: String,
    },
    /// A text is not a filter of tags.
    #[error("invalid tag filter {filter:?}: expected 1 to 128 letters, digits, _ . - and *")]
    InvalidTagFilter {
        /// The text, cut to 300 characters.
        filter: String,
    },
    /// The repository has no manifest, or no tag, of this name.
    #[error("no manifest {reference}")]
    ManifestNotFound {
        /// The tag or the digest asked for.
        reference: String,
    },
    /// The manifest is part of an index and can't be deleted. Delete the index first.
    #[error("{digest} is part of {count} indexes: delete them first")]
    ManifestInUse {
        /// The manifest.
        digest: Digest,
        /// How many manifests of the repository hold it.
        count: u32,
    },
    /// The manifest is archived, and can't be pulled: restore it first, with
    /// [`set_storage_class`](crate::registry::Repository::set_storage_class) or by a push of it.
    #[error("{digest} is archived: restore it before it is pulled")]
    ManifestArchived {
        /// The manifest.
        digest: Digest,
    },
    /// The image is not as it was when it was decided what is to become of it. Nothing was changed: decide anew.
    #[error("{digest} {change} since it was decided what is to become of it: decide anew")]
    ImageChanged {
        /// The image.
        digest: Digest,
        /// What has changed.
        change: ImageChange,
    },
    /// A document is not a manifest of the media type it was said to have. Nothing was stored.
    #[error("invalid manifest: {problem}")]
    InvalidManifest {
        /// What is wrong with it.
        problem: ManifestProblem,
    },
    /// A manifest references blobs or manifests that its repository does not have. Nothing was stored: push those
    /// first.
    #[error(
        "the manifest references {} blobs and {} manifests that the repository does not have",
        blobs.len(), manifests.len()
    )]
    ReferencesMissing {
        /// The blobs that are missing.
        blobs: Vec<Digest>,
        /// The manifests that are missing.
        manifests: Vec<Digest>,
    },
    /// The tag names another manifest and may not be moved, by the settings of its repository. Nothing was stored.
    #[error("tag {tag} is immutable and names {digest}: use another tag")]
    TagImmutable {
        /// The tag.
        tag: String,
        /// The manifest it names.
        digest: Digest,
    },
    /// The tag does not name what the caller expected it to. Nothing was stored.
    #[error(
        "tag {tag} names {}, not what was expected",
        found.map_or_else(|| "nothing".to_owned(), |found| found.to_string())
    )]
    TagMoved {
        /// The tag.
        tag: String,
        /// The manifest it names; none where there is no such tag.
        found: Option<Digest>,
    },
    /// The log no longer has the events right after this position. List the store's contents again, then continue from
    /// `oldest`.
    #[error("what happened before LSN {oldest} was given up: list the contents again and go on from there")]
    Gap {
        /// The position from which on the log has all events.
        oldest: Lsn,
    },
    /// The position that events were asked for after is ahead of the store's last commit: it is another store's, or
    /// this one was restored from an older copy of itself. What was seen of the commits since that copy is gone from
    /// the store. List its contents again, then continue from `last`.
    #[error(
        "position {position} is ahead of the last commit, {last}: the store was restored from an older copy; list its \
         contents again and go on from there"
    )]
    AheadOfStore {
        /// The position asked for.
        position: Lsn,
        /// The last commit, up to which the log has all events.
        last: Lsn,
    },
    /// The store was closed, by [`Store::close`](crate::Store::close) on any of its handles; or the async runtime is
    /// shutting down, or there is none. A write that was under way when the store was closed may have become durable
    /// all the same. Open the store again.
    #[error("the store was closed, or no async runtime is there to call it: open the store again")]
    Closed,
    /// Other handles of the store exist, and the call needs it for itself. Drop them, and call again.
    #[error("the call needs the store for itself: drop all other handles of it")]
    HandlesInUse,
    /// The source of content that the caller handed in failed. Nothing was stored.
    #[error("cannot read the content to store: {source}")]
    Source {
        /// The reader's error.
        source: Arc<io::Error>,
    },
}

/// Why a store is open for reading only.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReadOnlyCause {
    /// [`Options::read_only`](crate::Options::read_only) was asked for. Write through the process that has the store
    /// open for writing, or open it without that option.
    Asked,
    /// The log is damaged, and the store was opened for reading up to the damage
    /// ([`Recovery::ReadOnlyUpToDamage`](crate::Recovery)). [`Options::salvage`](crate::Options::salvage) makes it
    /// writable again, without what can't be read.
    Damage(Arc<Error>),
}

impl std::fmt::Display for ReadOnlyCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked => f.write_str(", as was asked for: open it without that to write"),
            Self::Damage(damage) => write!(f, ", up to damage in its log: {damage}; salvage it to write again"),
        }
    }
}

impl Error {
    /// Whether the process, or the machine, was temporarily out of file descriptors, threads, mappings or memory.
    /// Nothing is wrong with the store; the same call works once they are available again. Out of disk space is
    /// [`Error::Full`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = strongroom::Options::new().create(true).open(dir.path())?;
    /// match store.put("content", strongroom::Algorithm::Sha256) {
    ///     Err(error) if error.is_shortage() => println!("try again in a moment: {error}"),
    ///     other => println!("stored {}", other?.digest),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_shortage(source))
    }

    /// Whether what is on disk is damaged, or could not be read.
    pub(crate) fn is_of_disk(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_unreadable(source),
            other => matches!(other, Self::Corrupt { .. }),
        }
    }

    /// What a [blob's reader](crate::BlobReader) met, where it was the source of content to be stored.
    pub(crate) fn of_reader(error: &Arc<io::Error>) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Self>());
        cause.cloned().unwrap_or_else(|| Self::Source { source: Arc::clone(error) })
    }

    /// What failed for want of memory.
    pub(crate) fn no_memory(path: &Path) -> Self {
        Self::io("find memory to read", path)(io::ErrorKind::OutOfMemory.into())
    }

    /// Wraps an operating system error with the operation and the path. A full disk becomes [`Error::Full`].
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            _ if Shut::is_why(&source) => Self::Closed,
            // A failed sync stops all writes, whatever made it fail.
            _ if is_full(&source) && operation != "sync" => Self::Full { path: path.to_path_buf() },
            io::ErrorKind::UnexpectedEof => {
                Self::Corrupt { file: path.to_path_buf(), offset: 0, damage: Damage::Truncated }
            }
            _ => Self::Io { path: path.to_path_buf(), operation, source: Arc::new(source) },
        }
    }

    /// Wraps the failure to open a file that the store refers to: a missing one is damage.
    pub(crate) fn opening(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::corrupt(path, 0, Damage::Missing),
            _ => Self::io("open", path)(source),
        }
    }

    /// Wraps the failure to read what some other part of the file says is there: `None` where the file ends before.
    pub(crate) fn unless_cut_off<T>(path: &Path, read: io::Result<T>) -> Result<Option<T>> {
        match read {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            other => other.map(Some).map_err(Self::io("read", path)),
        }
    }

    /// Fails where something is larger than it may be.
    pub(crate) fn check_limit(what: &'static str, found: usize, limit: usize) -> Result<()> {
        if found <= limit { Ok(()) } else { Err(Self::TooLarge { what, limit: limit as u64, found: found as u64 }) }
    }

    /// Damage at a place.
    pub(crate) fn corrupt(file: &Path, offset: u64, damage: Damage) -> Self {
        Self::Corrupt { file: file.to_path_buf(), offset, damage }
    }
}

/// Whether a call failed for want of file descriptors, threads, mappings or memory.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let is_short = |errno| matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::ENOBUFS);
    error.kind() == io::ErrorKind::OutOfMemory || error.raw_os_error().is_some_and(is_short)
}

/// Whether a disk could not read what is there: as disks say it, and file systems that have checksums.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EBADMSG | libc::ENODATA))
}

/// Memory for so many bytes, or an error where there is not as much: what is as long as content may not end the process
/// that asks for it.
pub(crate) fn room(path: &Path, len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Error::no_memory(path))?;
    Ok(bytes)
}
