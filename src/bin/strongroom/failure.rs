//! Why commands fail, and what somebody at a command line is told of it.

use std::io;
use std::path::{Path, PathBuf};

use strongroom::Error;
use strongroom::keys::KeyError;
use strongroom::transfer::TransferError;

use crate::keys::OPTIONS;
use crate::output::{escaped, shown, size};

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// The store says no.
    Store(Error),
    /// There is no key where the command line says.
    Key(KeyError),
    /// A file that is not the store's.
    File(PathBuf, io::Error),
    /// There is not enough space for a file.
    Full(String),
    /// A document that is not what it should be.
    Document(String),
    /// So much damage was found. The answer, which was printed, says what.
    Damaged(usize),
    /// An import or an export had to leave out so much.
    Incomplete(u64),
    /// The store can't be opened: what would say what is in it is damaged.
    CantOpen(Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => f.write_str(&escaped(&told(error))),
            Self::Key(error) => f.write_str(&escaped(&error.to_string())),
            Self::File(path, error) => write!(f, "{}: {error}", shown(path)),
            Self::Document(problem) | Self::Usage(problem) | Self::Full(problem) => f.write_str(problem),
            Self::CantOpen(error) => {
                let error_text = escaped(&error.to_string());
                write!(f, "the store can't be opened: {error_text}; what that said is not known from elsewhere: ")?;
                let is_log = |file: &Path| file.extension().is_some_and(|extension| extension == "log");
                match error {
                    Error::Corrupt { file, .. } if is_log(file) => f.write_str(
                        "restore the file from a backup, or see what `strongroom fsck --salvage --dry-run` can keep",
                    ),
                    _ => f.write_str("restore the file from a backup"),
                }
            }
            Self::Damaged(count) => write!(f, "{count} findings: the store is damaged"),
            Self::Incomplete(count) => write!(f, "{count} left out that should be there: see what was skipped"),
        }
    }
}

/// An error as someone with a command line is told it.
fn told(error: &Error) -> String {
    let dir = |format: &Path| format.parent().unwrap_or(format).display().to_string();
    match error {
        Error::NotAStore { path } => {
            format!("{} holds no strongroom store: create one with `strongroom init`", path.display())
        }
        Error::KeyRequired { path, key_id } => {
            format!("{} is encrypted: give its key, {key_id:?}, with {OPTIONS}", dir(path))
        }
        Error::NotEncrypted { path } => format!(
            "{} is not encrypted: leave the key out, or turn encryption on with `strongroom encrypt`",
            dir(path)
        ),
        Error::Key { source: KeyError::Wrong { expected, found }, .. }
            if expected == "passphrase" && found.is_empty() =>
        {
            "this is not the store's passphrase: give the right one".to_owned()
        }
        Error::Key { source: KeyError::Wrong { expected, .. }, .. } => {
            let options = match expected.as_str() {
                "passphrase" => "--passphrase or --passphrase-file",
                local if local.starts_with("local:") => "--key-file or --key-env",
                _ => "--kms-key-id",
            };
            format!("{error}: give the right one with {options}")
        }
        other => other.to_string(),
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        let text = escaped(&error.to_string());
        match error {
            TransferError::Store(error) => Self::Store(error),
            TransferError::File { path, source, .. } => Self::File(path, source),
            TransferError::NotEnoughSpace { path, len, store, free, .. } => {
                let (file, data, len, free) = (shown(&path), shown(&store), size(len), size(free));
                Self::Full(format!("{file} has {len}, and there are {free} left for {data}: free some space"))
            }
            TransferError::NameInUse { .. } => Self::Document(format!("{text} with --replace")),
            TransferError::NotAnImport { .. } => Self::Document(format!("{text}: use get or cat")),
            _ => Self::Document(text),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Adds the path to an error of a file that is not the store's.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |error| Failure::File(path.to_path_buf(), error)
}
