//! The idle list: the named files, links, blobs and repositories that garbage collection may remove once they are due,
//! so that its cost is proportional to what there is to collect.
//!
//! An entry has its time in its key, so those that are due are the first of their kind:
//!
//! ```text
//! key: kind u8 (1 named file, 2 link, 3 blob, 4 repository, 5 named file by the wall clock) |
//!   time u48, big-endian | the first 25 bytes of the key
//! value: the last 7 bytes of the key | condemned u8
//! ```
//!
//! A named file that expires has an entry, under the open time when it does, or of the fifth kind under the wall
//! clock's time. A link that no manifest holds, a blob that nothing holds, and a repository that a push created and
//! that has no manifest have one, under the open time when a client last relied on them. That time is in their own
//! facts, so the entry can be found from there, and there is exactly one.

use super::{BlobFact, Expiry, Fact, Family, Key, LinkFact, NamedFact, Prefix, RepositoryFact, Value};
use crate::id::DomainId;
use crate::wire::{Fields, PutFields};

/// What an entry is of. The numbers stand in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum IdleKind {
    /// A named file that expires by open time.
    Named = 1,
    /// A link that no manifest of its repository holds.
    Link = 2,
    /// A blob that nothing holds.
    Blob = 3,
    /// A repository that a push created and none completed.
    Repository = 4,
    /// A named file that expires by the wall clock.
    NamedByClock = 5,
}

impl IdleKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 5] = [Self::Named, Self::Link, Self::Blob, Self::Repository, Self::NamedByClock];

    /// The family of what its entries are of.
    fn family(self) -> Family {
        match self {
            Self::Named | Self::NamedByClock => Family::Named,
            Self::Link => Family::Link,
            Self::Blob => Family::Blob,
            Self::Repository => Family::Repository,
        }
    }
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    /// The time that counts, in milliseconds: of open time, when it expires, or was last relied on (0: no client was
    /// told of it); or by the wall clock, when it expires.
    pub(crate) time: u64,
    kind: IdleKind,
    /// The key of what nothing holds.
    pub(crate) key: Key,
    /// Whether it goes in a later commit, unless somebody asks for it before.
    pub(crate) condemned: bool,
}

/// How much of a key stands in an entry's key.
const HEAD: usize = 25;

impl Idle {
    /// The length of an encoded value in bytes.
    pub(crate) const LEN: usize = 8;

    fn new(time: u64, kind: IdleKind, key: &Key) -> Self {
        debug_assert!(kind.family() == key.family, "the key of a {kind:?}");
        Self { time, kind, key: *key, condemned: false }
    }

    /// The entry of a named file, if it expires.
    pub(crate) fn of_named(key: &Key, file: &NamedFact) -> Option<Self> {
        match file.expires {
            Expiry::Never => None,
            Expiry::OpenTime(time) => Some(Self::new(time, IdleKind::Named, key)),
            Expiry::WallClock(time) => Some(Self::new(time, IdleKind::NamedByClock, key)),
        }
    }

    /// The entry of a link, if no manifest holds it.
    pub(crate) fn of_link(key: &Key, link: &LinkFact) -> Option<Self> {
        (link.count == 0).then(|| Self::new(link.touched, IdleKind::Link, key))
    }

    /// The entry of a blob, if nothing holds it.
    pub(crate) fn of_blob(key: &Key, blob: &BlobFact) -> Option<Self> {
        (blob.count == 0).then(|| Self::new(blob.touched, IdleKind::Blob, key))
    }

    /// The entry of a repository, if no push to it was completed.
    pub(crate) fn of_repository(key: &Key, repository: &RepositoryFact) -> Option<Self> {
        repository.provisional.map(|touched| Self::new(touched, IdleKind::Repository, key))
    }

    /// The same, to go in a later commit.
    pub(crate) fn condemn(self) -> Self {
        Self { condemned: true, ..self }
    }

    /// The entries of a kind in a domain.
    pub(crate) fn all(domain: DomainId, kind: IdleKind) -> Prefix {
        let mut from = [0; 32];
        from[0] = kind as u8;
        Prefix { domain, family: Family::Idle, from, len: 1 }
    }

    /// What it is of.
    pub(crate) fn kind(&self) -> IdleKind {
        self.kind
    }

    /// The key that the entry stands under.
    pub(crate) fn at(&self) -> Key {
        let [_, _, time @ ..] = self.time.to_be_bytes();
        let parts = [self.kind() as u8].into_iter().chain(time).chain(self.key.bytes);
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        Key { domain: self.key.domain, family: Family::Idle, bytes }
    }

    /// The entry as a fact.
    pub(crate) fn fact(&self) -> Fact {
        let mut value = Vec::with_capacity(Self::LEN);
        value.put(self.key.bytes.split_at(HEAD).1);
        value.put_u8(u8::from(self.condemned));
        (self.at(), Some(Value::new(&value)))
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(at: &Key, value: &[u8]) -> Option<Self> {
        let mut fields = Fields(&at.bytes);
        let code = fields.u8()?;
        let kind = IdleKind::ALL.into_iter().find(|kind| *kind as u8 == code)?;
        let time = fields.bytes(6)?.iter().fold(0, |time, byte| time << 8 | u64::from(*byte));
        let (rest, condemned) = value.split_at_checked(Self::LEN - 1)?;
        let bytes = [fields.0, rest].concat().try_into().ok()?;
        let &[condemned] = condemned else { return None };
        let key = Key { domain: at.domain, family: kind.family(), bytes };
        Some(Self { time, kind, key, condemned: condemned == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_sort_by_time() {
        let key = |family, byte| Key { domain: DomainId(2), family, bytes: [byte; 32] };
        let mut last = None;
        for kind in IdleKind::ALL {
            for (time, byte) in [(0, 9), (1, 8), (255, 7), (256, 6), ((1 << 48) - 1, 0)] {
                let idle = Idle { condemned: byte == 7, ..Idle::new(time, kind, &key(kind.family(), byte)) };
                let (at, value) = idle.fact();
                assert_eq!(Idle::decode(&at, value.unwrap().as_bytes()), Some(idle));
                assert!(last < Some(at.bytes));
                last = Some(at.bytes);
            }
        }
        let all = Idle::all(DomainId(2), IdleKind::Link);
        assert!(all.contains(&Idle::new(7, IdleKind::Link, &key(Family::Link, 1)).at()));
        assert!(!all.contains(&Idle::new(7, IdleKind::Blob, &key(Family::Blob, 1)).at()));
        assert_eq!(Idle::decode(&all_zeros(), &[0; Idle::LEN]), None);
    }

    fn all_zeros() -> Key {
        Key { domain: DomainId(2), family: Family::Idle, bytes: [0; 32] }
    }
}
