//! The key that a command line names.
//!
//! It is read when it is needed, from where the command line says, and wiped once it was handed on; nothing prints it.
//! A key itself, or a passphrase, is never an argument: every user of the machine can read those.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
#[cfg(feature = "kms")]
use strongroom::keys::{AwsKms, KmsKey};
use strongroom::keys::{KeyProvider, LocalKey, Passphrase};
use zeroize::Zeroizing;

use crate::failure::{Failure, at};
use crate::output::{shown, tell};

/// The options that give a key, for messages.
#[cfg(not(feature = "kms"))]
pub const OPTIONS: &str = "--key-file, --key-env, --passphrase or --passphrase-file";
#[cfg(feature = "kms")]
pub const OPTIONS: &str = "--key-file, --key-env, --passphrase, --passphrase-file or --kms-key-id";

/// The longest passphrase, in bytes.
const PASSPHRASE_MAX: usize = 4096;

/// The key of an encrypted store.
#[derive(Debug, Args)]
#[command(next_help_heading = "Key of an encrypted store")]
pub struct KeyOptions {
    /// A file with the key: 32 random bytes or 64 hex digits.
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// An environment variable with the key: 64 hex digits.
    #[arg(long, global = true, value_name = "VARIABLE")]
    key_env: Option<String>,
    /// Ask for the passphrase; where standard input is no terminal, read one line from it.
    #[arg(long, global = true)]
    passphrase: bool,
    /// A file with the passphrase, in one line.
    #[arg(long, global = true, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// A key that AWS KMS keeps; region and credentials come from the environment (AWS_REGION, AWS_ACCESS_KEY_ID …).
    #[cfg(feature = "kms")]
    #[arg(long, global = true, value_name = "ID")]
    kms_key_id: Option<String>,
}

/// The key that a store is to have from now on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct NewKeyOptions {
    /// A file with the new key; made if it does not exist.
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// An environment variable with the new key.
    #[arg(long, value_name = "VARIABLE")]
    new_key_env: Option<String>,
    /// Ask for a new passphrase; where standard input is no terminal, read one line from it.
    #[arg(long)]
    new_passphrase: bool,
    /// A file with the new passphrase, in one line.
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// A key that AWS KMS keeps.
    #[cfg(feature = "kms")]
    #[arg(long, value_name = "ID")]
    new_kms_key_id: Option<String>,
}

/// Where a key comes from.
#[derive(Debug)]
pub enum KeySource {
    File(PathBuf),
    Variable(String),
    Passphrase,
    PassphraseFile(PathBuf),
    #[cfg(feature = "kms")]
    Kms(String),
}

impl KeyOptions {
    /// Where the key comes from, if one is given. The options are global ones, which clap does not hold to exclude each
    /// other when some stand before the command and some behind it.
    pub fn source(self) -> Result<Option<KeySource>, Failure> {
        let sources = [
            self.key_file.map(KeySource::File),
            self.key_env.map(KeySource::Variable),
            self.passphrase.then_some(KeySource::Passphrase),
            self.passphrase_file.map(KeySource::PassphraseFile),
            #[cfg(feature = "kms")]
            self.kms_key_id.map(KeySource::Kms),
        ];
        let mut given = sources.into_iter().flatten();
        match (given.next(), given.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => Err(Failure::Usage(format!("there is one key: give one of {OPTIONS}"))),
        }
    }
}

impl NewKeyOptions {
    /// Where the key comes from.
    pub fn source(self) -> Option<KeySource> {
        let sources = [
            self.new_key_file.map(KeySource::File),
            self.new_key_env.map(KeySource::Variable),
            self.new_passphrase.then_some(KeySource::Passphrase),
            self.new_passphrase_file.map(KeySource::PassphraseFile),
            #[cfg(feature = "kms")]
            self.new_kms_key_id.map(KeySource::Kms),
        ];
        sources.into_iter().flatten().next()
    }
}

impl KeySource {
    /// The key that a store has already.
    pub fn existing(&self) -> Result<Arc<dyn KeyProvider>, Failure> {
        Ok(match self {
            Self::File(path) => Arc::new(LocalKey::from_file(path)?),
            Self::Variable(name) => Arc::new(LocalKey::from_env(name)?),
            Self::Passphrase => Arc::new(passphrase(ask("Passphrase of the store: ")?)),
            Self::PassphraseFile(path) => Arc::new(passphrase(line_of(path)?)),
            #[cfg(feature = "kms")]
            Self::Kms(id) => Arc::new(KmsKey::new(AwsKms::from_env()?, id)),
        })
    }

    /// The key that the store in a directory is to get. A key file that does not exist is made, and a passphrase that
    /// is typed is asked for twice.
    pub fn for_new(&self, data: &Path) -> Result<Arc<dyn KeyProvider>, Failure> {
        match self {
            Self::File(path) if !path.try_exists().map_err(at(path))? => make(path, data),
            Self::Passphrase if io::stdin().is_terminal() => {
                let typed = ask("New passphrase: ")?;
                let same = ask("The same once more: ")? == typed;
                let typed = same.then_some(typed);
                let typed =
                    typed.ok_or_else(|| Failure::Document("the passphrases differ: nothing was done".into()))?;
                Ok(Arc::new(passphrase(typed)))
            }
            _ => self.existing(),
        }
    }
}

/// Makes a key file, and tells what it means to have one.
fn make(path: &Path, data: &Path) -> Result<Arc<dyn KeyProvider>, Failure> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let (Ok(parent), Ok(data)) = (fs::canonicalize(parent), fs::canonicalize(data))
        && parent.starts_with(data)
    {
        let problem = "a key beside what it encrypts protects nothing: let the key file be outside of the store";
        return Err(Failure::Document(problem.into()));
    }
    let key = LocalKey::create_file(path)?;
    tell(&format!(
        "made the key file {}. Keep a copy of it elsewhere, apart from the store's backups: without it, what is in the \
         store is lost.",
        shown(path)
    ));
    Ok(Arc::new(key))
}

/// Takes the bytes over: no copy of them stays behind.
fn passphrase(mut bytes: Zeroizing<Vec<u8>>) -> Passphrase {
    Passphrase::new(std::mem::take(&mut *bytes))
}

/// Asks on the terminal, without echo; where standard input is none, reads a line of it.
fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let input = io::stdin();
    let line = if input.is_terminal() {
        rpassword::prompt_password(prompt).map(|typed| Zeroizing::new(typed.into_bytes()))
    } else {
        // Not through the buffer of `io::stdin`, which nobody wipes; what comes behind the line is left to others.
        input.as_fd().try_clone_to_owned().and_then(|input| line(&mut File::from(input)))
    };
    line.map_err(at(Path::new("the passphrase")))
}

/// The one line of a file.
fn line_of(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut file = File::open(path).map_err(at(path))?;
    let first = line(&mut file).map_err(at(path))?;
    let is_more = file.read(&mut [0]).map_err(at(path))? > 0;
    if is_more {
        return Err(Failure::Document(format!("{} should have the passphrase in one line", shown(path))));
    }
    Ok(first)
}

/// Reads a line, byte by byte, and nothing behind it.
fn line(from: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // All of it at once: growing leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_MAX));
    let mut byte = Zeroizing::new([0]);
    loop {
        match from.read_exact(&mut *byte) {
            Ok(()) if *byte == *b"\n" => break,
            Ok(()) if line.len() == PASSPHRASE_MAX => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a passphrase has at most 4096 bytes"));
            }
            Ok(()) => line.extend_from_slice(&*byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// Has the user type a name before what can't be undone; `false` where something else was typed. Fails where there is
/// no terminal to do it on.
pub fn is_confirmed(what: &str, name: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("{what} Give --yes where nobody is there to be asked.")));
    }
    let terminal = || at(Path::new("the terminal"));
    write!(io::stderr(), "{what} Type {name} to go on: ").map_err(terminal())?;
    let mut typed = String::new();
    io::stdin().read_line(&mut typed).map_err(terminal())?;
    Ok(typed.trim() == name)
}
