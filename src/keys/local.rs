//! A key that the process holds: from a file, an environment variable, or the caller.
//!
//! ```text
//! wrapped: version 1 (u8)  nonce 12  ciphertext 32  tag 16          61 bytes; see `seal`
//! id:      "local:" and 16 hex digits, a fingerprint of the key
//! ```
//!
//! The key itself is never used: the fingerprint and the key that wraps are both derived from it (BLAKE3's mode for
//! deriving keys), so that neither says anything of the other.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::seal::{SEALED_LEN, Sealing};
use super::{KeyContext, KeyError, KeyProvider, SecretKey};
use crate::digest::{decode_hex, encode_hex};
use crate::wire::Fields;

const VERSION: u8 = 1;
const FINGERPRINT: &str = "strongroom: the fingerprint of a local key, version 1";
const WRAPPING: &str = "strongroom: the wrapping key of a local key, version 1";

/// How long a key is as hex.
const HEX_LEN: usize = 2 * SecretKey::LEN;

/// What a file that holds a key has at most: the hex and the end of a line.
const FILE_LEN: usize = HEX_LEN + 2;

/// A key-encryption key that the process holds.
///
/// # What it protects
/// It protects against anyone who obtains the store's directory without the key (a disk that was sent in, a backup, a
/// copy), and not against anyone who obtains both: **a key file beside the store, on the same disk or in the same
/// backup, protects nothing**. Keep it on another medium, or let the orchestrator mount it (a secret of Kubernetes, a
/// credential of systemd), and keep a copy where the store's backups are not: without the key, the content is lost.
///
/// An environment variable can be read by all processes of the same user (`/proc/<pid>/environ`), is inherited by every
/// program that the process starts, and tends to show up in the output of `docker inspect`, in crash reports and in
/// unit files. Prefer a file.
///
/// # Example
/// ```
/// use strongroom::keys::{KeyContext, KeyProvider, LocalKey, SecretKey};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("store.key");
/// // Once, when the store is set up …
/// let made = LocalKey::create_file(&path)?;
/// // … and whenever it is opened.
/// let local = LocalKey::from_file(&path)?;
/// assert_eq!(local.key_id()?, made.key_id()?);
///
/// let (context, data_key) = (KeyContext::new([7; 16], 0, 1), SecretKey::generate()?);
/// let wrapped = local.wrap(&local.key_id()?, &data_key, &context)?;
/// assert_eq!(local.unwrap(&local.key_id()?, &wrapped, &context)?.expose(), data_key.expose());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LocalKey {
    id: String,
    wrapping: SecretKey,
}

impl LocalKey {
    /// The provider that has this key. It has to be random, as [`SecretKey::generate`] makes it; for what people
    /// remember there is [`Passphrase`](super::Passphrase).
    ///
    /// ```
    /// use strongroom::keys::{KeyProvider, LocalKey, SecretKey};
    ///
    /// let local = LocalKey::new(SecretKey::generate()?);
    /// assert!(local.key_id()?.starts_with("local:"));
    /// # Ok::<(), strongroom::keys::KeyError>(())
    /// ```
    pub fn new(key: SecretKey) -> Self {
        let fingerprint = blake3::derive_key(FINGERPRINT, key.expose());
        let shown = fingerprint.first_chunk::<8>().map_or_else(String::new, |bytes| encode_hex(bytes));
        let wrapping = Zeroizing::new(blake3::derive_key(WRAPPING, key.expose()));
        Self { id: format!("local:{shown}"), wrapping: SecretKey::from_bytes(*wrapping) }
    }

    /// The key in a file: 32 bytes as they are, or 64 hex digits, with or without the end of a line.
    ///
    /// Whether others may read the file is not checked, as age and restic don't either: files that orchestrators mount
    /// as secrets belong to another user and are often readable by a group, and a check of the mode says nothing about
    /// who else can read the disk. Anyone who can read the file can read the store; [`create_file`](Self::create_file)
    /// gives access to the owner only.
    ///
    /// # Errors
    /// [`KeyError::File`]; [`KeyError::Invalid`] where the file holds something else. A file of 32 characters of text
    /// is not taken for a key: it is a password, or the hex of half a key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let mut content = Zeroizing::new([0; FILE_LEN + 1]);
        let length = fs::File::open(path).and_then(|file| read(file, &mut *content)).map_err(|e| failed(path, &e))?;
        let key = content.get(..length).and_then(parse);
        key.map(Self::new).ok_or_else(|| KeyError::Invalid {
            reason: format!("{} should have 32 random bytes or 64 hex digits", path.display()),
        })
    }

    /// The key in an environment variable: 64 hex digits.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where there is no such variable, or where it holds something else.
    ///
    /// ```
    /// use strongroom::keys::{KeyError, LocalKey};
    ///
    /// assert!(matches!(LocalKey::from_env("NOT_SET"), Err(KeyError::Invalid { .. })));
    /// ```
    pub fn from_env(variable: &str) -> Result<Self, KeyError> {
        let invalid = |what: &str| KeyError::Invalid { reason: format!("the environment variable {variable} {what}") };
        let value = std::env::var_os(variable).ok_or_else(|| invalid("is not set"))?;
        let value = Zeroizing::new(value.into_vec());
        parse_hex(&value).map(Self::new).ok_or_else(|| invalid("should have 64 hex digits"))
    }

    /// Makes a new key and writes it to a new file, as hex, which the owner alone may read. When this returns, the file
    /// survives a power cut, so that no store comes to rely on a key that is gone.
    ///
    /// # Errors
    /// [`KeyError::File`], with `AlreadyExists` where there is a file: no key is ever written over.
    /// [`KeyError::Unreachable`] where the system has no random numbers.
    pub fn create_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let key = SecretKey::generate()?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(path, &error))?;
        let written = file.write_all(&to_line(&key)).and_then(|()| file.sync_all()).and_then(|()| sync_parent(path));
        written.map_err(|error| {
            let _ = fs::remove_file(path); // half a key is none, and would be in the way of the next attempt
            failed(path, &error)
        })?;
        Ok(Self::new(key))
    }

    fn sealing<'a>(&'a self, key_id: &'a str, context: &'a KeyContext) -> Result<Sealing<'a>, KeyError> {
        if key_id != self.id {
            return Err(KeyError::Wrong { expected: key_id.to_owned(), found: self.id.clone() });
        }
        Ok(Sealing { with: &self.wrapping, key_id, context, header: &[VERSION] })
    }
}

impl KeyProvider for LocalKey {
    fn key_id(&self) -> Result<String, KeyError> {
        Ok(self.id.clone())
    }

    fn wrap(&self, key_id: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError> {
        self.sealing(key_id, context)?.seal(key)
    }

    fn unwrap(&self, key_id: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
        let sealing = self.sealing(key_id, context)?;
        sealing.open(&sealed(wrapped).ok_or(KeyError::Damaged)?)
    }
}

/// What follows the version.
fn sealed(wrapped: &[u8]) -> Option<[u8; SEALED_LEN]> {
    let mut fields = Fields(wrapped);
    (fields.u8()? == VERSION).then_some(())?;
    let sealed = fields.array()?;
    fields.end()?;
    Some(sealed)
}

/// The key in the content of a file.
pub(crate) fn parse(content: &[u8]) -> Option<SecretKey> {
    // One of 10¹³ random keys looks like text.
    let text = content.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    if text { parse_hex(content) } else { SecretKey::copied(content) }
}

/// The key in 64 hex digits, upper or lower case, behind which a line may end.
fn parse_hex(text: &[u8]) -> Option<SecretKey> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let digits: &[u8; HEX_LEN] = line.strip_suffix(b"\r").unwrap_or(line).try_into().ok()?;
    let lower = Zeroizing::new(digits.to_ascii_lowercase());
    let mut key = Zeroizing::new([0; SecretKey::LEN]);
    decode_hex(std::str::from_utf8(&lower).ok()?, &mut *key)?;
    SecretKey::copied(&*key)
}

/// The key as a line of hex.
fn to_line(key: &SecretKey) -> Zeroizing<Vec<u8>> {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let mut line = Zeroizing::new(Vec::with_capacity(FILE_LEN)); // all of it at once: growing leaves copies behind
    line.extend(key.expose().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    line.push(b'\n');
    line
}

/// Reads until the buffer is full or the file ends.
fn read(mut file: fs::File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match file.read(buffer.get_mut(length..).unwrap_or_default()) {
            Ok(0) => return Ok(length),
            Ok(n) => length += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a file's name durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}

fn failed(path: &Path, error: &io::Error) -> KeyError {
    KeyError::File { path: path.to_owned(), kind: error.kind() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const CONTEXT: KeyContext = KeyContext { store: [3; 16], domain: 5, key: 7 };

    fn local(byte: u8) -> LocalKey {
        LocalKey::new(SecretKey::from_bytes([byte; 32]))
    }

    fn unwrap(local: &LocalKey, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
        local.unwrap(&local.id, wrapped, context)
    }

    #[test]
    fn what_was_wrapped_is_unwrapped() {
        let (local, key) = (local(1), SecretKey::from_bytes([9; 32]));
        let wrapped = local.wrap(&local.id, &key, &CONTEXT).unwrap();
        assert_eq!(wrapped.len(), 61);
        assert_eq!(unwrap(&local, &wrapped, &CONTEXT).unwrap().expose(), key.expose());
        assert_ne!(wrapped, local.wrap(&local.id, &key, &CONTEXT).unwrap(), "each wrap has a nonce of its own");
        let (made, wrapped) = local.generate(&local.id, &CONTEXT).unwrap();
        assert_eq!(unwrap(&local, &wrapped, &CONTEXT).unwrap().expose(), made.expose());
    }

    /// What is on disk stays readable.
    #[test]
    fn keys_that_were_wrapped_once_are_unwrapped_for_ever() {
        let local = local(1);
        assert_eq!(local.id, "local:e2f8101c90a511d2");
        let mut wrapped = [0; 61];
        let hex = concat!(
            "019c3d51d0d305de85983980aad6071ea6bcb05680fe897a55ba6fa72cc4c59e8d",
            "7773337ab8f2493616ab908e3da3fb7eb35a7c7a007ffcc2375e4cb3",
        );
        decode_hex(hex, &mut wrapped).unwrap();
        assert_eq!(unwrap(&local, &wrapped, &CONTEXT).unwrap().expose(), &[9; 32]);
    }

    #[test]
    fn another_context_is_refused() {
        let local = local(1);
        let wrapped = local.wrap(&local.id, &SecretKey::from_bytes([9; 32]), &CONTEXT).unwrap();
        for other in [
            KeyContext { store: [4; 16], ..CONTEXT },
            KeyContext { domain: 7, key: 5, ..CONTEXT },
            KeyContext { key: 8, ..CONTEXT },
        ] {
            assert_eq!(unwrap(&local, &wrapped, &other).unwrap_err(), KeyError::Damaged);
        }
    }

    #[test]
    fn every_changed_bit_and_every_other_length_is_refused() {
        let local = local(1);
        let mut wrapped = local.wrap(&local.id, &SecretKey::from_bytes([9; 32]), &CONTEXT).unwrap();
        for bit in 0..wrapped.len() * 8 {
            wrapped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unwrap(&local, &wrapped, &CONTEXT).unwrap_err(), KeyError::Damaged, "bit {bit}");
            wrapped[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..wrapped.len() {
            assert_eq!(unwrap(&local, &wrapped[..length], &CONTEXT).unwrap_err(), KeyError::Damaged);
        }
        for more in [1, 100, 1 << 20] {
            let longer = [wrapped.clone(), vec![0; more]].concat();
            assert_eq!(unwrap(&local, &longer, &CONTEXT).unwrap_err(), KeyError::Damaged);
        }
    }

    #[test]
    fn another_key_is_told_from_damage() {
        let (mine, other) = (local(1), local(2));
        let wrong = KeyError::Wrong { expected: mine.id.clone(), found: other.id.clone() };
        let wrapped = mine.wrap(&mine.id, &SecretKey::from_bytes([9; 32]), &CONTEXT).unwrap();
        assert_eq!(other.unwrap(&mine.id, &wrapped, &CONTEXT).unwrap_err(), wrong);
        assert_eq!(other.wrap(&mine.id, &SecretKey::from_bytes([9; 32]), &CONTEXT).unwrap_err(), wrong);
        // A forged id does not help.
        assert_eq!(unwrap(&other, &wrapped, &CONTEXT).unwrap_err(), KeyError::Damaged);
    }

    #[test]
    fn the_key_the_fingerprint_and_the_wrapping_key_have_nothing_in_common() {
        let local = local(1);
        assert!(!encode_hex(local.wrapping.expose()).contains(local.id.strip_prefix("local:").unwrap()));
        assert_ne!(local.wrapping.expose(), &[1; 32]);
        assert!(!local.id.contains("0101"));
    }

    #[test]
    fn a_file_may_hold_bytes_or_hex() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key: [u8; 32] = std::array::from_fn(|i| i as u8 * 8 + 3);
        let hex = encode_hex(&key);
        let id = LocalKey::new(SecretKey::from_bytes(key)).id;
        let upper = hex.to_uppercase();
        for content in
            [&key[..], hex.as_bytes(), upper.as_bytes(), format!("{hex}\n").as_bytes(), format!("{hex}\r\n").as_bytes()]
        {
            fs::write(&path, content).unwrap();
            assert_eq!(LocalKey::from_file(&path).unwrap().id, id);
        }
        let half = &hex[..32];
        let no_hex = hex.replace('b', "g");
        for content in [
            &b""[..],
            &key[..31],
            &[&key[..], b"\n"].concat(),
            half.as_bytes(),
            b"correct horse battery staple ...",
            no_hex.as_bytes(),
            format!("{hex}\n\n").as_bytes(),
            format!(" {hex}").as_bytes(),
            format!("{hex}00").as_bytes(),
            &[200; 4096],
        ] {
            fs::write(&path, content).unwrap();
            let error = LocalKey::from_file(&path).unwrap_err();
            assert!(matches!(error, KeyError::Invalid { .. }), "{content:?}: {error}");
            assert!(!error.to_string().contains(half) && !error.to_string().contains("horse"));
        }
    }

    #[test]
    fn a_new_file_is_the_owners_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let missing = LocalKey::from_file(&path).unwrap_err();
        assert_eq!(missing, KeyError::File { path: path.clone(), kind: io::ErrorKind::NotFound });
        let made = LocalKey::create_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let content = fs::read(&path).unwrap();
        assert_eq!((content.len(), content[64]), (65, b'\n'));
        assert_eq!(LocalKey::from_file(&path).unwrap().id, made.id);
        let again = LocalKey::create_file(&path).unwrap_err();
        assert_eq!(again, KeyError::File { path: path.clone(), kind: io::ErrorKind::AlreadyExists });
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(
            LocalKey::create_file(dir.path().join("no/dir")).unwrap_err().to_string().matches("not found").count(),
            1
        );
    }

    #[test]
    fn a_variable_holds_hex() {
        // Cargo sets this one, to something else.
        let error = LocalKey::from_env("CARGO_PKG_NAME").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no key can be had from what was given: the environment variable CARGO_PKG_NAME should have 64 hex digits"
        );
        assert!(parse_hex(&[1; 32]).is_none(), "no raw bytes");
        // A process can't set its own safely: this test runs itself anew.
        let variable = "STRONGROOM_TEST_LOCAL_KEY";
        if std::env::var_os(variable).is_some() {
            assert_eq!(LocalKey::from_env(variable).unwrap().id, local(1).id);
            return;
        }
        let this = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(this);
        child.args(["--exact", "keys::local::tests::a_variable_holds_hex"]).env(variable, "01".repeat(32));
        let output = child.output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    }

    #[test]
    fn nothing_that_is_shown_has_the_key() {
        let key: [u8; 32] = std::array::from_fn(|i| i as u8 * 3 + 130);
        let (mine, other) = (LocalKey::new(SecretKey::from_bytes(key)), local(2));
        let data = SecretKey::from_bytes([0xa7; 32]);
        let wrapped = mine.wrap(&mine.id, &data, &CONTEXT).unwrap();
        let mut shown = format!("{mine:?} {mine:#?} {:?} {CONTEXT:?}", SecretKey::from_bytes(key));
        for error in [
            mine.unwrap(&other.id, &wrapped, &CONTEXT).unwrap_err(),
            unwrap(&mine, &wrapped[1..], &CONTEXT).unwrap_err(),
            unwrap(&mine, &wrapped, &KeyContext { key: 1, ..CONTEXT }).unwrap_err(),
        ] {
            shown += &format!("{error} {error:?}");
        }
        for secret in [&key[..], &mine.wrapping.expose()[..], &data.expose()[..]] {
            for piece in secret.chunks(4) {
                assert!(!shown.contains(&encode_hex(piece)) && !shown.contains(&format!("{piece:?}")[1..8]), "{shown}");
            }
        }
    }
}
