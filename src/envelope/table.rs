//! The table of wrapped keys, in `FORMAT`.
//!
//! ```text
//! version u16 (1) | flags u16 (bit 0: what is not encrypted is believed) | generation u64 | next domain u32 |
//! domains u32 | for each:
//!   domain u32 | state u8 (1 active, 2 shredding) | current u16 | keys u16 |
//!   for each: number u16 | suite u8 | key id text | wrapped: length u16, bytes |
//!   label: length u16 (0: none), then salt 32, ciphertext, tag 16, under the default domain's current key
//! salt 32 | tag 16
//! ```
//!
//! The tag is over all that stands before it in `FORMAT`, under the default domain's current key. So a change without
//! the keys is noticed. (An older table that was put back as a whole is noticed too: the list names the generation that
//! it was written under, and an older table than that is refused.) Labels are under that key as well: a domain's name
//! can be read while its own keys are out of reach.

use std::path::Path;

use super::keyring::DataKey;
use super::keyring::MAX_DOMAINS;
use super::{Domain, DomainState, KeyNumber, Keyring, Nonce, Purpose, Suite, TAG_LEN};
use crate::error::{Damage, Error, Result};
use crate::id::{DomainId, FileId, StoreId};
use crate::keys::{KeyError, KeyProvider};
use crate::random::random;
use crate::wire::{Fields, PutFields};

const VERSION: u16 = 1;
const ACCEPTS_PLAIN: u16 = 1;

/// The table as it stands on disk, before any key is unwrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) accepts_plain: bool,
    pub(crate) generation: u64,
    pub(crate) next_domain: DomainId,
    pub(crate) domains: Vec<TableDomain>,
    salt: [u8; 32],
    tag: [u8; TAG_LEN],
    /// What of the table the tag is over.
    body: Vec<u8>,
}

/// A domain in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableDomain {
    pub(crate) id: DomainId,
    pub(crate) state: DomainState,
    pub(crate) current: KeyNumber,
    pub(crate) keys: Vec<TableKey>,
    label: Option<([u8; 32], Vec<u8>)>,
}

/// A wrapped key in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableKey {
    pub(crate) number: KeyNumber,
    suite: Suite,
    pub(crate) key_id: String,
    wrapped: Vec<u8>,
}

impl Table {
    /// Parses a table; `None` where the bytes are none. Nothing is believed before it is [opened](Self::open).
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        (fields.u16()? == VERSION).then_some(())?;
        let accepts_plain = fields.u16()? & ACCEPTS_PLAIN != 0;
        let generation = fields.u64().filter(|generation| *generation < 1 << 60)?;
        let next_domain = DomainId(fields.u32()?);
        let count = usize::try_from(fields.u32()?).ok().filter(|count| *count <= MAX_DOMAINS)?;
        let mut domains: Vec<TableDomain> = Vec::new();
        for _ in 0..count {
            let domain = TableDomain::parse(&mut fields)?;
            let is_behind = domains.last().is_none_or(|last| last.id < domain.id) && domain.id < next_domain;
            domains.push(Some(domain).filter(|_| is_behind)?);
        }
        let body = bytes.get(..bytes.len() - fields.0.len() + 32)?.to_vec();
        let (salt, tag) = (fields.array()?, fields.array()?);
        fields.end()?;
        let default = domains.first().filter(|domain| domain.id == DomainId::DEFAULT)?;
        (default.state == DomainState::Active).then_some(())?;
        Some(Self { accepts_plain, generation, next_domain, domains, salt, tag, body })
    }

    /// The id of the key that the default domain's current key is wrapped with.
    pub(crate) fn key_id(&self) -> String {
        let current = |domain: &TableDomain| domain.keys.iter().find(|key| key.number == domain.current).cloned();
        self.domains.first().and_then(current).map(|key| key.key_id).unwrap_or_default()
    }

    /// Unwraps the keys, and verifies the table with those of the default domain. A domain of which not all can be
    /// unwrapped is locked. `before` is what stands in front of the table in the file at `path`.
    ///
    /// # Errors
    /// [`Error::Key`] where it is the default domain's.
    pub(crate) fn open(
        &self,
        store: StoreId,
        provider: &dyn KeyProvider,
        path: &Path,
        before: &[u8],
    ) -> Result<Keyring> {
        // Else somebody who has another key that the provider may use could let the store go on under a data key that
        // they know.
        let found = provider.key_id().map_err(|source| Error::Key { domain: 0, source })?;
        let expected = self.key_id();
        if expected != found {
            return Err(Error::Key { domain: 0, source: KeyError::Wrong { expected, found } });
        }
        let mut keyring = Keyring {
            store,
            generation: self.generation,
            accepts_plain: self.accepts_plain,
            next_domain: self.next_domain,
            domains: Default::default(),
        };
        for domain in &self.domains {
            let wrapped = domain.wrapped();
            let is_default = domain.id == DomainId::DEFAULT;
            let known = if is_default { wrapped.unwrapped(store, domain.id, provider)? } else { wrapped };
            keyring.domains.insert(domain.id, known);
        }
        let forged = || Error::corrupt(path, before.len() as u64, Damage::Seal);
        let current = keyring.current(DomainId::DEFAULT).ok_or_else(forged)?;
        let cipher = keyring.cipher(DomainId::DEFAULT, current, &self.salt, Purpose::Table, FileId(0));
        let body = [before, &self.body].concat();
        cipher.ok_or_else(forged)?.open(Nonce::ONLY, &body, &mut [], self.tag).map_err(|_| forged())?;
        for domain in &self.domains {
            let Some((salt, sealed)) = &domain.label else { continue };
            let cipher = keyring.cipher(DomainId::DEFAULT, current, salt, Purpose::Label, FileId(0));
            let label = cipher.ok_or_else(forged)?.open_vec(Nonce::ONLY, &[], sealed).map_err(|_| forged())?;
            let label = String::from_utf8(label).map_err(|_| forged())?;
            keyring.domains.entry(domain.id).and_modify(|domain| domain.label = label);
        }
        // Only now: what was changed by somebody else is not for the provider.
        for (id, domain) in keyring.domains.iter_mut().filter(|(id, _)| **id != DomainId::DEFAULT) {
            *domain = match domain.unwrapped(store, *id, provider) {
                Ok(open) => open,
                Err(why) => domain.locked(why),
            };
        }
        Ok(keyring)
    }

    /// The table of a keyring, as it stands behind `before`.
    pub(crate) fn encode(keyring: &Keyring, before: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.put_u16(VERSION);
        out.put_u16(if keyring.accepts_plain { ACCEPTS_PLAIN } else { 0 });
        out.put_u64(keyring.generation);
        out.put_u32(keyring.next_domain.0);
        out.put_len32(keyring.domains.len());
        for (id, domain) in &keyring.domains {
            out.put_u32(id.0);
            out.put_u8(domain.state as u8);
            out.put_u16(domain.current);
            out.put_len16(domain.keys.len());
            for (number, key) in &domain.keys {
                out.put_u16(*number);
                out.put_u8(key.suite as u8);
                out.put_text(&key.key_id);
                out.put_len16(key.wrapped.len());
                out.put(&key.wrapped);
            }
            put_label(&mut out, keyring, domain)?;
        }
        let salt: [u8; 32] = random()?;
        out.put(&salt);
        let current = keyring.in_use(DomainId::DEFAULT)?;
        let cipher = keyring.cipher(DomainId::DEFAULT, current, &salt, Purpose::Table, FileId(0));
        let tag = cipher.map(|cipher| cipher.seal(Nonce::ONLY, &[before, &out].concat(), &mut []));
        out.put(&tag.ok_or(Error::DomainShredded { domain: 0 })??);
        Ok(out)
    }
}

impl TableDomain {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let id = DomainId(fields.u32()?);
        let state = match fields.u8()? {
            1 => DomainState::Active,
            2 => DomainState::Shredding,
            _ => return None,
        };
        let current = fields.u16()?;
        let mut keys: Vec<TableKey> = Vec::new();
        for _ in 0..fields.u16()? {
            let (number, suite) = (fields.u16()?, Suite::from_code(fields.u8()?)?);
            let (key_id, wrapped) = (fields.text()?, fields.bytes16()?.to_vec());
            let is_behind = keys.last().map_or(0, |last| last.number) < number;
            keys.push(Some(TableKey { number, suite, key_id, wrapped }).filter(|_| is_behind)?);
        }
        let label = match usize::from(fields.u16()?) {
            0 => None,
            len => Some((fields.array()?, fields.bytes(len)?.to_vec())),
        };
        let has_current = keys.iter().any(|key| key.number == current);
        (has_current == (state == DomainState::Active)).then_some(Self { id, state, current, keys, label })
    }

    /// The domain before its keys are unwrapped.
    fn wrapped(&self) -> Domain {
        let key = |key: &TableKey| {
            let (key_id, wrapped) = (key.key_id.clone(), key.wrapped.clone());
            (key.number, DataKey { suite: key.suite, secret: None, key_id, wrapped })
        };
        let keys = self.keys.iter().map(key).collect();
        Domain { state: self.state, label: String::new(), current: self.current, keys, lock: None }
    }
}

fn put_label(out: &mut Vec<u8>, keyring: &Keyring, domain: &Domain) -> Result<()> {
    if domain.label.is_empty() {
        out.put_u16(0);
        return Ok(());
    }
    let (default, salt) = (DomainId::DEFAULT, random::<32>()?);
    let cipher = keyring.cipher(default, keyring.in_use(default)?, &salt, Purpose::Label, FileId(0));
    let mut label = domain.label.clone().into_bytes();
    cipher.ok_or(Error::DomainShredded { domain: default.0 })?.seal_vec(Nonce::ONLY, &[], &mut label)?;
    out.put_len16(label.len());
    out.put(&salt);
    out.put(&label);
    Ok(())
}
