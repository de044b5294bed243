//! The keys that an open store has.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use super::{Cipher, Identity, KeyNumber, Purpose, Suite, subkey};
use crate::error::{Error, Result};
use crate::id::{DomainId, FileId, StoreId};
use crate::keys::{KeyContext, KeyError, KeyProvider, SecretKey};
use crate::sync::{read, write};
use crate::zeroing::Zeroizing;

/// So many domains a store has at most.
pub(crate) const MAX_DOMAINS: usize = 1024;

/// A data key, and what it is on disk.
#[derive(Clone)]
pub(crate) struct DataKey {
    pub(crate) suite: Suite,
    /// None while its domain is locked.
    pub(crate) secret: Option<SecretKey>,
    /// The key that it is wrapped with.
    pub(crate) key_id: String,
    pub(crate) wrapped: Vec<u8>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({:?}, wrapped with {:?})", self.suite, self.key_id)
    }
}

/// What became of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum DomainState {
    /// It is in use.
    Active = 1,
    /// Its keys are destroyed. Files of it may still be there; when they are gone, so is what the table has of it.
    Shredding = 2,
}

/// A key domain.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) state: DomainState,
    /// What its users call it; empty for the default domain and for one whose keys are gone.
    pub(crate) label: String,
    /// The key that new files get; 0 where there is no encryption.
    pub(crate) current: KeyNumber,
    pub(crate) keys: BTreeMap<KeyNumber, DataKey>,
    /// Why it is [locked](crate::store::locked), if it is: then none of its keys has its secret.
    pub(crate) lock: Option<Error>,
}

impl Domain {
    /// A domain without a key.
    fn new(state: DomainState, label: &str) -> Self {
        Self { state, label: label.to_owned(), current: 0, keys: BTreeMap::new(), lock: None }
    }

    /// The same domain without the secrets of its keys.
    pub(crate) fn locked(&self, why: Error) -> Self {
        let mut locked = Self { lock: Some(why), ..self.clone() };
        locked.keys.values_mut().for_each(|key| key.secret = None);
        locked
    }

    /// Unwraps the keys that the domain with this number has.
    pub(crate) fn unwrapped(&self, store: StoreId, id: DomainId, provider: &dyn KeyProvider) -> Result<Self> {
        let mut open = Self { lock: None, ..self.clone() };
        for (number, key) in &mut open.keys {
            let secret = provider.unwrap(&key.key_id, &key.wrapped, &context(store, id, *number));
            key.secret = Some(secret.map_err(|source| Error::Key { domain: id.0, source })?);
        }
        Ok(open)
    }
}

/// All keys, as of one moment. Replaced as a whole, after what it says is durable.
#[derive(Clone, Debug)]
pub(crate) struct Keyring {
    pub(crate) store: StoreId,
    /// How often the keys changed.
    pub(crate) generation: u64,
    /// Whether what is not encrypted is believed: without encryption, and until all that was there when it was turned
    /// on has been rewritten.
    pub(crate) accepts_plain: bool,
    /// The number that the next domain gets. One below it that is none of the domains was shredded.
    pub(crate) next_domain: DomainId,
    pub(crate) domains: BTreeMap<DomainId, Domain>,
}

impl Keyring {
    /// The keyring of a store that is not encrypted.
    pub(crate) fn plain(store: StoreId) -> Self {
        let domains = BTreeMap::from([(DomainId::DEFAULT, Domain::new(DomainState::Active, ""))]);
        Self { store, generation: 0, accepts_plain: true, next_domain: DomainId(1), domains }
    }

    /// Keys that everybody knows: data key 1 of each of these domains.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn known(store: StoreId, domains: &[u32]) -> Self {
        let key = |id: u32| DataKey {
            suite: Suite::Aes256Gcm,
            secret: Some(SecretKey::from_bytes([id.to_le_bytes()[0] + 0x70; 32])),
            key_id: "known".into(),
            wrapped: vec![0; 48],
        };
        let domain = |id: &u32| {
            let label = if *id == 0 { String::new() } else { format!("domain-{id}") };
            let keys = BTreeMap::from([(1, key(*id))]);
            (DomainId(*id), Domain { state: DomainState::Active, label, current: 1, keys, lock: None })
        };
        let next_domain = DomainId(domains.iter().max().map_or(1, |last| last + 1));
        let domains = domains.iter().map(domain).collect();
        Self { store, generation: 7, accepts_plain: false, next_domain, domains }
    }

    /// Whether new files are encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.current(DomainId::DEFAULT).is_some_and(|key| key != 0)
    }

    /// The domains that were not shredded, locked ones too, the default one first.
    pub(crate) fn existing(&self) -> impl Iterator<Item = (DomainId, &Domain)> {
        self.domains.iter().filter(|(_, domain)| domain.state == DomainState::Active).map(|(id, domain)| (*id, domain))
    }

    /// The domains in use, the default one first.
    pub(crate) fn active(&self) -> impl Iterator<Item = DomainId> + '_ {
        self.existing().filter(|(_, domain)| domain.lock.is_none()).map(|(id, _)| id)
    }

    /// The domains that are locked, and why.
    pub(crate) fn locked(&self) -> impl Iterator<Item = (DomainId, &Error)> {
        self.existing().filter_map(|(id, domain)| Some((id, domain.lock.as_ref()?)))
    }

    /// Why a domain is locked, if it is.
    pub(crate) fn lock_of(&self, domain: DomainId) -> Option<&Error> {
        self.domains.get(&domain)?.lock.as_ref()
    }

    /// The key that new files of a domain get, 0 for none; `None` where there is no such domain in use.
    pub(crate) fn current(&self, domain: DomainId) -> Option<KeyNumber> {
        self.in_use(domain).ok()
    }

    /// [`current`](Self::current), or the error that the domain was shredded, or why it is locked.
    pub(crate) fn in_use(&self, domain: DomainId) -> Result<KeyNumber> {
        match self.domains.get(&domain) {
            Some(Domain { lock: Some(why), .. }) => Err(why.clone()),
            Some(Domain { state: DomainState::Active, current, .. }) => Ok(*current),
            _ => Err(Error::DomainShredded { domain: domain.0 }),
        }
    }

    /// Whether a domain's keys were destroyed.
    pub(crate) fn is_shredded(&self, domain: DomainId) -> bool {
        let is_gone = |found: &Domain| found.state == DomainState::Shredding;
        domain < self.next_domain && self.domains.get(&domain).is_none_or(is_gone)
    }

    /// Whether what a domain has can be read.
    pub(crate) fn is_open(&self, domain: DomainId) -> bool {
        self.current(domain).is_some()
    }

    /// The domain that is called this.
    pub(crate) fn find(&self, label: &str) -> Option<DomainId> {
        self.existing().map(|(id, _)| id).find(|id| *id != DomainId::DEFAULT && self.label(*id) == label)
    }

    /// The same keys with another state of one domain.
    pub(crate) fn with(&self, id: DomainId, domain: Domain) -> Self {
        let mut new = self.clone();
        new.domains.insert(id, domain);
        new
    }

    pub(crate) fn label(&self, domain: DomainId) -> &str {
        self.domains.get(&domain).map_or("", |domain| &domain.label)
    }

    pub(crate) fn data_key(&self, domain: DomainId, number: KeyNumber) -> Option<&DataKey> {
        self.domains.get(&domain)?.keys.get(&number)
    }

    /// Whether what is encrypted with a key of a domain, or with none (0), can be read and is believed.
    pub(crate) fn has(&self, domain: DomainId, number: KeyNumber) -> bool {
        let has_key = || self.data_key(domain, number).is_some_and(|key| key.secret.is_some());
        if number == 0 { self.accepts_plain } else { has_key() }
    }

    /// A cipher under a salt; `None` where there is no such key (any more).
    pub(crate) fn cipher(
        &self,
        domain: DomainId,
        key: KeyNumber,
        salt: &[u8; 32],
        purpose: Purpose,
        file: FileId,
    ) -> Option<Arc<Cipher>> {
        let suite = self.data_key(domain, key)?.suite;
        Cipher::new(suite, &*self.subkey(domain, key, salt, purpose, file)?).map(Arc::new)
    }

    fn subkey(
        &self,
        domain: DomainId,
        key: KeyNumber,
        salt: &[u8; 32],
        purpose: Purpose,
        file: FileId,
    ) -> Option<Zeroizing<[u8; 32]>> {
        let identity = Identity { store: self.store, domain, key, file };
        subkey(self.data_key(domain, key)?.secret.as_ref()?, salt, &identity.info(purpose))
    }

    /// Another domain of this name, in use from now on, with a key of its own.
    pub(crate) fn with_domain(&self, label: &str, provider: &dyn KeyProvider, key_id: &str) -> Result<Self> {
        let id = self.next_domain;
        Error::check_limit("the number of key domains", self.domains.len() + 1, MAX_DOMAINS)?;
        let mut new = self.next();
        new.next_domain = DomainId(id.0.saturating_add(1));
        new.domains.insert(id, Domain::new(DomainState::Active, label));
        new.add_key(id, provider, key_id)?;
        Ok(new)
    }

    /// The keys with encryption turned on.
    pub(crate) fn encrypted(&self, provider: &dyn KeyProvider, accepts_plain: bool) -> Result<Self> {
        if !super::IS_THERE {
            return Err(Error::EncryptionLeftOut);
        }
        let mut new = self.next();
        new.accepts_plain = accepts_plain;
        new.add_key(DomainId::DEFAULT, provider, &key_id_of(provider, DomainId::DEFAULT)?)?;
        Ok(new)
    }

    /// The keys with another current key for a domain, wrapped by the same key as the one before.
    pub(crate) fn rotated(&self, domain: DomainId, provider: &dyn KeyProvider) -> Result<Self> {
        let key_id = match self.data_key(domain, self.in_use(domain)?) {
            Some(key) => key.key_id.clone(),
            None => key_id_of(provider, domain)?,
        };
        let mut new = self.next();
        new.add_key(domain, provider, &key_id)?;
        Ok(new)
    }

    /// The keys wrapped by the provider's key. Those that another key than `old` wraps stay as they are where the
    /// provider can unwrap them, or their domain is locked.
    pub(crate) fn rewrapped(&self, provider: &dyn KeyProvider, old: &str) -> Result<Self> {
        let mut new = self.next();
        for (id, domain) in &mut new.domains {
            let failed = |source| Error::Key { domain: id.0, source };
            for (number, key) in &mut domain.keys {
                let context = context(self.store, *id, *number);
                let secret = match (&key.secret, &domain.lock) {
                    (Some(secret), _) => secret,
                    (None, _) if key.key_id != old => continue,
                    (None, Some(why)) => return Err(why.clone()),
                    (None, None) => return Err(Error::DomainShredded { domain: id.0 }),
                };
                if key.key_id != old {
                    match provider.unwrap(&key.key_id, &key.wrapped, &context) {
                        Ok(_) => continue,
                        // Nothing is known of that key. It must not be exchanged for another because a network was
                        // down, or a permission missing.
                        Err(source @ (KeyError::Unreachable { .. } | KeyError::Denied { .. })) => {
                            return Err(failed(source));
                        }
                        Err(_) => {}
                    }
                }
                let key_id = key_id_of(provider, *id)?;
                key.wrapped = provider.wrap(&key_id, secret, &context).map_err(failed)?;
                check_wrapped(provider, &key_id, secret, &key.wrapped, &context).map_err(failed)?;
                key.key_id = key_id;
            }
        }
        Ok(new)
    }

    /// The keys without those of a domain, of which files may be left.
    pub(crate) fn shredding(&self, domain: DomainId) -> Self {
        let mut new = self.next();
        new.domains.insert(domain, Domain::new(DomainState::Shredding, ""));
        new
    }

    /// The keys without a domain of which nothing is left.
    pub(crate) fn without(&self, domain: DomainId) -> Self {
        let mut new = self.next();
        new.domains.remove(&domain);
        new
    }

    /// The keys without those of a domain that are not its current one.
    pub(crate) fn retired(&self, domain: DomainId, accepts_plain: bool) -> Self {
        let mut new = self.next();
        new.accepts_plain = accepts_plain;
        if let Some(domain) = new.domains.get_mut(&domain) {
            let current = domain.current;
            domain.keys.retain(|number, _| *number == current);
        }
        new
    }

    /// Whether a wrapped key is not in these keys any more.
    pub(crate) fn gives_up(&self, new: &Self) -> bool {
        let is_kept = |id: &DomainId, number: &KeyNumber, key: &DataKey| {
            new.data_key(*id, *number).is_some_and(|kept| kept.wrapped == key.wrapped)
        };
        self.domains.iter().any(|(id, domain)| domain.keys.iter().any(|(number, key)| !is_kept(id, number, key)))
    }

    fn next(&self) -> Self {
        Self { generation: self.generation + 1, ..self.clone() }
    }

    fn add_key(&mut self, id: DomainId, provider: &dyn KeyProvider, key_id: &str) -> Result<()> {
        let failed = |source| Error::Key { domain: id.0, source };
        let store = self.store;
        let domain = self.domains.get_mut(&id);
        let domain = domain.ok_or(Error::Internal { invariant: "a key is added to a domain that there is" })?;
        let number = domain.keys.last_key_value().map_or(domain.current, |(last, _)| *last).checked_add(1);
        let number = number.ok_or(Error::TooLarge {
            what: "the number of data keys of a domain",
            limit: KeyNumber::MAX.into(),
            found: u64::from(KeyNumber::MAX) + 1,
        })?;
        let context = context(store, id, number);
        let (secret, wrapped) = provider.generate(key_id, &context).map_err(failed)?;
        check_wrapped(provider, key_id, &secret, &wrapped, &context).map_err(failed)?;
        let key = DataKey { suite: Suite::best(), secret: Some(secret), key_id: key_id.to_owned(), wrapped };
        domain.keys.insert(number, key);
        domain.current = number;
        Ok(())
    }
}

/// What a data key is bound to when it is wrapped.
pub(super) fn context(store: StoreId, domain: DomainId, number: KeyNumber) -> KeyContext {
    KeyContext::new(store.0, domain.0, number.into())
}

fn key_id_of(provider: &dyn KeyProvider, domain: DomainId) -> Result<String> {
    provider.key_id().map_err(|source| Error::Key { domain: domain.0, source })
}

/// Makes sure that what was wrapped fits into the table and can be unwrapped again: a provider that may encrypt and not
/// decrypt would leave a store that nobody can open.
fn check_wrapped(
    provider: &dyn KeyProvider,
    key_id: &str,
    secret: &SecretKey,
    wrapped: &[u8],
    context: &KeyContext,
) -> Result<(), KeyError> {
    if key_id.len() > MAX_KEY_ID || wrapped.len() > MAX_WRAPPED {
        let reason = format!("a key id has at most {MAX_KEY_ID} bytes, and a wrapped key {MAX_WRAPPED}");
        return Err(KeyError::Invalid { reason });
    }
    let unwrapped = provider.unwrap(key_id, wrapped, context)?;
    if unwrapped.expose() == secret.expose() { Ok(()) } else { Err(KeyError::Damaged) }
}

/// The longest id of a key that wraps others, and the longest wrapped key, in bytes.
const MAX_KEY_ID: usize = 2048;
const MAX_WRAPPED: usize = 8 << 10;

/// What the keys make of a file: its salt, and what was derived with it.
pub(crate) struct FileEnvelope {
    file: FileId,
    salt: [u8; 32],
    sealings: RwLock<Vec<(Purpose, Sealing)>>,
    checks: RwLock<Vec<(DomainId, KeyNumber, CheckKey)>>,
}

/// A key for [checks](Purpose::Check).
pub(crate) type CheckKey = Arc<Zeroizing<[u8; 32]>>;

impl fmt::Debug for FileEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileEnvelope({:?})", self.file)
    }
}

impl FileEnvelope {
    /// The envelope of a file with this header, in which something random stands.
    pub(crate) fn new(file: FileId, header: &[u8]) -> Self {
        Self { file, salt: *blake3::hash(header).as_bytes(), sealings: RwLock::default(), checks: RwLock::default() }
    }

    /// How what is in the file was encrypted with a key, for one of its purposes; `None` where there is no such key
    /// (any more).
    pub(crate) fn opening(
        &self,
        keys: &Keyring,
        domain: DomainId,
        key: KeyNumber,
        purpose: Purpose,
    ) -> Option<Sealing> {
        let matches = |(of, known): &&(Purpose, Sealing)| (*of, known.domain, known.key) == (purpose, domain, key);
        if let Some((_, sealing)) = read(&self.sealings).iter().find(matches) {
            return Some(sealing.clone());
        }
        let sealing = Sealing { cipher: keys.cipher(domain, key, &self.salt, purpose, self.file)?, domain, key };
        write(&self.sealings).push((purpose, sealing.clone()));
        Some(sealing)
    }

    /// The key for checks of the tables of frames; `None` where there is no such key (any more).
    pub(crate) fn check_key(&self, keys: &Keyring, domain: DomainId, key: KeyNumber) -> Option<CheckKey> {
        if let Some((.., known)) = read(&self.checks).iter().find(|(of, number, _)| (*of, *number) == (domain, key)) {
            return Some(Arc::clone(known));
        }
        let check_key = Arc::new(self.subkey(keys, domain, key, Purpose::Check)?);
        write(&self.checks).push((domain, key, Arc::clone(&check_key)));
        Some(check_key)
    }

    /// Forgets what was derived from the keys of a domain.
    pub(crate) fn forget(&self, domain: DomainId) {
        write(&self.checks).retain(|(of, ..)| *of != domain);
        write(&self.sealings).retain(|(_, sealing)| sealing.domain != domain);
    }

    /// How what is written to the file is encrypted; none without encryption.
    ///
    /// # Errors
    /// [`Error::DomainShredded`] where the domain has no key any more; why it is locked, where it is.
    pub(crate) fn sealing(&self, keys: &Keyring, domain: DomainId, purpose: Purpose) -> Result<Option<Sealing>> {
        match keys.in_use(domain)? {
            0 => Ok(None),
            key => {
                let sealing = self.opening(keys, domain, key, purpose);
                sealing.map(Some).ok_or(Error::DomainShredded { domain: domain.0 })
            }
        }
    }

    /// A subkey for something else than a cipher; `None` where there is no such key (any more).
    pub(crate) fn subkey(
        &self,
        keys: &Keyring,
        domain: DomainId,
        key: KeyNumber,
        purpose: Purpose,
    ) -> Option<Zeroizing<[u8; 32]>> {
        keys.subkey(domain, key, &self.salt, purpose, self.file)
    }
}

/// How what is written is encrypted.
#[derive(Clone, Debug)]
pub(crate) struct Sealing {
    pub(crate) cipher: Arc<Cipher>,
    pub(crate) domain: DomainId,
    pub(crate) key: KeyNumber,
}

/// The keyring as it is now, for all who need it.
#[derive(Clone, Debug)]
pub(crate) struct Keys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    keyring: RwLock<Arc<Keyring>>,
    /// What the keyring says of it: each look at plain content asks.
    accepts_plain: AtomicBool,
}

impl Keys {
    pub(crate) fn new(keyring: Keyring) -> Self {
        let accepts_plain = AtomicBool::new(keyring.accepts_plain);
        Self(Arc::new(Shared { keyring: RwLock::new(Arc::new(keyring)), accepts_plain }))
    }

    pub(crate) fn get(&self) -> Arc<Keyring> {
        Arc::clone(&read(&self.0.keyring))
    }

    /// Whether what is not encrypted is read.
    pub(crate) fn accepts_plain(&self) -> bool {
        self.0.accepts_plain.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, keyring: Keyring) {
        let mut shared = write(&self.0.keyring);
        self.0.accepts_plain.store(keyring.accepts_plain, Ordering::Release);
        *shared = Arc::new(keyring);
    }
}
