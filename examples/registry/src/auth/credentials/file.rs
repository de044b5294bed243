//! Reading the credentials file, and replacing it.
//!
//! Others than its owner may neither read nor write it: who can read it has all secrets, who can write it all rights.
//!
//! It is replaced whole: written beside, synced, renamed. Readers see the old one or the new one. Commands exclude each
//! other by a lock on `FILE.lock`, so that none loses what another has just written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use super::Document;
use crate::auth::random;

/// The longest file, in bytes.
const MAX: u64 = 16 << 20;

/// For how long to wait for another command.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Why the credentials can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot {attempt} {}: {source}", path.display())]
    Io { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no {}: `registry user add NAME --credentials FILE` creates it", path.display())]
    Missing { path: PathBuf },
    #[error("{} can be read or written by others than its owner (mode {mode:o}): chmod 600 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{} is no file", path.display())]
    NoFile { path: PathBuf },
    #[error("{} has more than {MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("{} is no credentials file: {source}", path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
    #[error("{} is being changed by another command: try again, or end it", path.display())]
    Locked { path: PathBuf },
    #[error("there is {} already: remove it, or add users to it", path.display())]
    Exists { path: PathBuf },
    /// What it says can't be.
    #[error("{place}: {problem}")]
    Invalid { place: String, problem: String },
}

impl CredentialsError {
    pub fn invalid(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { place: place.into(), problem: problem.into() }
    }

    fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { attempt, path: path.to_owned(), source }
    }
}

/// By what a file is known to be another one, or to have been written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of the file that is there now; `None` where there is none, or it can't be looked at.
    pub fn of_path(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// What a file says, and what it looked like before it was read: if it is written to meanwhile, it looks otherwise.
pub fn read(path: &Path) -> Result<(Document, Stamp), CredentialsError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CredentialsError::Missing { path: path.to_owned() },
        _ => CredentialsError::io("read", path)(error),
    })?;
    let metadata = file.metadata().map_err(CredentialsError::io("read", path))?;
    if !metadata.is_file() {
        return Err(CredentialsError::NoFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CredentialsError::Open { path: path.to_owned(), mode });
    }
    if metadata.len() > MAX {
        return Err(CredentialsError::TooLong { path: path.to_owned() });
    }
    // With room for all of it: what does not grow leaves no copies of secrets behind.
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 64));
    file.take(MAX).read_to_end(&mut text).map_err(CredentialsError::io("read", path))?;
    let malformed = |source| CredentialsError::Malformed { path: path.to_owned(), source };
    Ok((serde_json::from_slice(&text).map_err(malformed)?, Stamp::of(&metadata)))
}

/// The right to change the file, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    /// The file, not a link to it, which a rename would replace.
    path: PathBuf,
    _file: File,
}

impl Lock {
    pub fn take(path: &Path) -> Result<Self, CredentialsError> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()); // there may be none yet
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let beside = path.with_file_name(name);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&beside);
        let file = file.map_err(CredentialsError::io("open", &beside))?;
        let begun = Instant::now();
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(CredentialsError::io("lock", &beside)(error.into()));
            }
            if begun.elapsed() > LOCK_WAIT {
                return Err(CredentialsError::Locked { path });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { path, _file: file })
    }

    /// What the file says; `None` where there is none yet.
    pub fn read(&self) -> Result<Option<Document>, CredentialsError> {
        match read(&self.path) {
            Err(CredentialsError::Missing { .. }) => Ok(None),
            read => read.map(|(document, _)| Some(document)),
        }
    }

    /// Creates the file.
    pub fn create(&self, document: &Document) -> Result<(), CredentialsError> {
        let beside = self.written(document, None)?;
        // A link is not made over what is there.
        let created = fs::hard_link(&beside, &self.path);
        let removed = fs::remove_file(&beside);
        created.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => CredentialsError::Exists { path: self.path.clone() },
            _ => CredentialsError::io("create", &self.path)(error),
        })?;
        removed.map_err(CredentialsError::io("remove", &beside))?;
        self.sync_directory()
    }

    /// Replaces the file. It stays its owner's.
    pub fn replace(&self, document: &Document) -> Result<(), CredentialsError> {
        let old = fs::metadata(&self.path).map_err(CredentialsError::io("read", &self.path))?;
        let beside = self.written(document, Some(&old))?;
        fs::rename(&beside, &self.path).map_err(|error| {
            let _ = fs::remove_file(&beside);
            CredentialsError::io("replace", &self.path)(error)
        })?;
        self.sync_directory()
    }

    /// A file with this content, synced, beside the file.
    fn written(&self, document: &Document, old: Option<&fs::Metadata>) -> Result<PathBuf, CredentialsError> {
        let number =
            random::text(8, random::LETTERS).map_err(CredentialsError::io("draw a name beside", &self.path))?;
        let beside = self.path.with_file_name(format!(".credentials-{}", *number));
        let failed = |source| CredentialsError::Io { attempt: "write", path: beside.clone(), source };
        let mut text = Zeroizing::new(Vec::with_capacity(64 << 10));
        serde_json::to_writer_pretty(&mut *text, document).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let write = || {
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
            if let Some(old) = old {
                let made = file.metadata()?;
                if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
                    fchown(&file, Some(old.uid()), Some(old.gid()))?;
                }
            }
            file.write_all(&text)?;
            file.sync_all()
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&beside);
            failed(error)
        })?;
        Ok(beside)
    }

    fn sync_directory(&self) -> Result<(), CredentialsError> {
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(CredentialsError::io("sync", directory))
    }
}

/// Makes a file that only its owner may read: for tests.
#[cfg(test)]
pub fn write_for_tests(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    fs::rename(beside, path).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        assert!(matches!(read(&path), Err(CredentialsError::Missing { .. })));
        write_for_tests(&path, r#"{"account":"123456789012","region":"us-east-1"}"#);
        assert_eq!(read(&path).unwrap().0.account, "123456789012");
        for mode in [0o640, 0o604, 0o620, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let problem = read(&path).unwrap_err().to_string();
            assert!(problem.ends_with(&format!("(mode {mode:o}): chmod 600 it")), "{problem}");
        }
        assert!(read(dir.path()).unwrap_err().to_string().ends_with("is no file"));
    }

    #[test]
    fn a_file_is_created_once_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        let lock = Lock::take(&path).unwrap();
        assert!(lock.read().unwrap().is_none());
        let document = Document::new("123456789012", "us-east-1");
        lock.create(&document).unwrap();
        assert!(matches!(lock.create(&document), Err(CredentialsError::Exists { .. })));
        let first = Stamp::of_path(&path).unwrap();
        lock.replace(&Document::new("210987654321", "us-east-1")).unwrap();
        assert_ne!(Stamp::of_path(&path), Some(first));
        assert_eq!(lock.read().unwrap().unwrap().account, "210987654321");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Nothing is left beside but the lock.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_file_behind_a_link_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        Lock::take(&file).unwrap().create(&Document::new("123456789012", "us-east-1")).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        Lock::take(&link).unwrap().replace(&Document::new("210987654321", "us-east-1")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&file).unwrap().0.account, "210987654321");
    }
}
