//! Changes of named files at the ordering point.
//!
//! # Invariants kept here
//! - **What a named file holds exists.** It is checked in the commit that sets the name, and what is held can't be
//!   removed.
//! - **A blob's count includes one for each time that a named file holds it**: [`SetNamed`], [`release`].
//! - **A named file that expires is in the idle list**, under that time: [`Changes::set_named`].
//! - **A blob that a named file lets go of stays for the grace period**, unless the caller says that nobody relies on
//!   it or the file has expired: then it is due as soon as nothing else holds it, except where a client stored or
//!   claimed it by itself, from when it stays for the grace period all the same.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::{Expiry, Key, Lookup as _, NamedFact};
use crate::id::DomainId;
use crate::transaction::op::Gone;
use crate::transaction::{Apply, Changes, Op};

/// So many blobs are let go of in a commit that removes several named files: other commits wait for it.
const MAX_RELEASED: usize = 4096;

/// What a named file has to be for a change to take place: compare-and-set.
///
/// ```
/// use strongroom::{Error, ExpectNamed, Options, PutNamed};
///
/// # let dir = tempfile::tempdir()?;
/// # let store = Options::new().create(true).open(dir.path())?;
/// let files = store.named();
/// let first = files.put("counter", "1", PutNamed::new().expect(ExpectNamed::Absent))?;
/// files.put("counter", "2", PutNamed::new().expect(ExpectNamed::Is(first.file.digest)))?;
/// let late = files.put("counter", "2", PutNamed::new().expect(ExpectNamed::Is(first.file.digest)));
/// assert!(matches!(late, Err(Error::NamedChanged { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpectNamed {
    /// Whatever it is, or nothing.
    #[default]
    Any,
    /// There is none of that name.
    Absent,
    /// It has this content.
    Is(Digest),
}

/// No digest: there is none of that name.
impl From<Option<Digest>> for ExpectNamed {
    fn from(digest: Option<Digest>) -> Self {
        digest.map_or(Self::Absent, Self::Is)
    }
}

impl ExpectNamed {
    fn check(self, name: &str, found: Option<&NamedFact>) -> Result<()> {
        let found = found.map(|file| file.digest);
        let is_met = match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Is(digest) => found == Some(digest),
        };
        if is_met { Ok(()) } else { Err(Error::NamedChanged { name: name.to_owned(), found }) }
    }
}

/// What becomes of content that a named file lets go of, and that nothing else holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// It stays for the grace period.
    Kept,
    /// The next collection removes it.
    Discarded,
}

/// When a named file is to expire, from the commit on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lifetime {
    #[default]
    Unlimited,
    /// After so many milliseconds of open time.
    OpenTime(u64),
    /// At this time by the wall clock, in milliseconds since 1970.
    Until(u64),
}

/// What became of a named file.
#[derive(Clone, Debug)]
pub(crate) struct NamedOutcome {
    /// What it is now.
    pub(crate) file: NamedFact,
    /// The content that it had before.
    pub(crate) replaced: Option<Digest>,
}

/// Sets a named file, which then holds a blob that is there and others.
#[derive(Clone, Debug)]
pub(crate) struct SetNamed {
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) references: Vec<Digest>,
    pub(crate) lifetime: Lifetime,
    pub(crate) expect: ExpectNamed,
    pub(crate) released: Released,
}

impl Apply for SetNamed {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let old = facts.named(&self.name)?;
        self.expect.check(&self.name, old.as_ref())?;
        let now = facts.now();
        let expires = match self.lifetime {
            Lifetime::Unlimited => Expiry::Never,
            Lifetime::OpenTime(after) => Expiry::OpenTime(now.open.saturating_add(after.max(1)).min(crate::clock::MAX)),
            Lifetime::Until(time) => Expiry::WallClock(time),
        };
        let len = facts.blob(&self.digest)?.ok_or(Error::BlobNotFound { digest: self.digest })?.len;
        let file = NamedFact {
            name: self.name.clone(),
            created: old.as_ref().map_or(now.wall, |old| old.created),
            modified: now.wall,
            expires,
            len,
            digest: self.digest,
            references: self.references.clone(),
        };
        file.held().try_for_each(|digest| facts.hold(digest))?;
        if let Some(old) = &old {
            release(facts, old, self.released, &file.held().collect())?;
        }
        facts.set_named(old.as_ref(), Some(&file));
        let replaced = old.map(|old| old.digest);
        let op = Op::SetNamed { name: file.name.clone(), len, replaced, digests: file.held().copied().collect() };
        facts.note_named(NamedOutcome { file, replaced });
        Ok(vec![op])
    }

    fn reads_much(&self) -> bool {
        true // the file of before may hold many
    }

    fn reads(&self, domain: DomainId) -> Vec<Key> {
        std::iter::once(&self.digest).chain(&self.references).map(|digest| Key::blob(domain, digest)).collect()
    }
}

/// Lets go of all that a named file holds. What its successor holds too has not been let go of.
fn release(facts: &mut Changes<'_>, file: &NamedFact, released: Released, kept: &BTreeSet<&Digest>) -> Result<()> {
    let key = Key::named(facts.domain(), &file.name);
    file.held().try_for_each(|digest| {
        let released = if kept.contains(digest) { Released::Discarded } else { released };
        facts.release_named(digest, &key, released)
    })
}

/// Removes a named file.
fn remove(facts: &mut Changes<'_>, file: &NamedFact, released: Released, why: Gone) -> Result<Op> {
    release(facts, file, released, &BTreeSet::new())?;
    facts.set_named(Some(file), None);
    Ok(Op::RemoveNamed { name: file.name.clone(), digest: file.digest, why })
}

/// Removes one named file.
#[derive(Debug)]
pub(crate) struct RemoveNamed {
    pub(crate) name: String,
    pub(crate) expect: ExpectNamed,
    pub(crate) released: Released,
}

impl Apply for RemoveNamed {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let file = facts.named(&self.name)?;
        self.expect.check(&self.name, file.as_ref())?;
        let file = file.ok_or_else(|| Error::NamedNotFound { name: self.name.clone() })?;
        Ok(vec![remove(facts, &file, self.released, Gone::Removed)?])
    }

    fn frees_space(&self) -> bool {
        true
    }

    fn reads_much(&self) -> bool {
        true
    }
}

/// Removes several named files, those that there are. Where they hold very much, the rest of them is left, from the
/// first on that is [refused](Changes::refuse).
#[derive(Debug)]
pub(crate) struct RemoveSeveral {
    pub(crate) names: Vec<String>,
    /// Whether only those that have expired are removed.
    pub(crate) only_expired: bool,
    pub(crate) released: Released,
}

impl Apply for RemoveSeveral {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let (mut ops, mut held) = (Vec::new(), 0);
        let why = if self.only_expired { Gone::Expired } else { Gone::Removed };
        for (part, name) in self.names.iter().enumerate() {
            let Some(file) = facts.named(name)? else { continue };
            if self.only_expired && !file.expires.is_due(facts.now()) {
                continue;
            }
            held += file.held().count();
            if held > MAX_RELEASED && !ops.is_empty() {
                let limit = Error::check_limit("the number of blobs that go in one step", held, MAX_RELEASED);
                limit.err().into_iter().for_each(|error| facts.refuse(part, error));
                break;
            }
            ops.push(remove(facts, &file, self.released, why)?);
        }
        Ok(ops)
    }

    fn frees_space(&self) -> bool {
        true
    }

    fn reads_much(&self) -> bool {
        true
    }
}
