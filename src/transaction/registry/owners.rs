//! Which key domain a repository's name belongs to.
//!
//! No two repositories have one name, whichever domains they are in. The facts of a locked domain can't be read, so the
//! default domain has a fact, under the hash of the name, for each repository outside of it. One commit adds that fact
//! before the repository is created, another removes it after the deletion. A name with such a fact and without a
//! repository is free, unless its domain is locked.

use crate::error::{Error, Result};
use crate::facts::find::owner;
use crate::facts::{Family, Key, Lookup as _, Value};
use crate::id::DomainId;
use crate::transaction::{Apply, Changes, MANY, Op};

/// Fails where another repository has a name, or may have it: then with why it can't be told. Or where the name does
/// not belong to the domain at hand: somebody else is about to create a repository with it.
pub(super) fn check_free(facts: &Changes<'_>, name: &str) -> Result<()> {
    let taken = || Error::RepositoryExists { name: name.to_owned() };
    for domain in facts.domains() {
        if facts.get(&Key::repository(*domain, name))?.is_some() {
            return Err(taken());
        }
    }
    let (owner, own) = (owner(facts, &Key::owner(name))?, facts.domain());
    if let Some(why) = owner.filter(|owner| *owner != own).and_then(|owner| facts.lock_of(owner)) {
        return Err(why.clone());
    }
    if own == DomainId::DEFAULT || owner == Some(own) { Ok(()) } else { Err(taken()) }
}

/// Takes a name for a domain that is not the default one. A change of the default domain.
#[derive(Debug)]
pub(crate) struct TakeName {
    pub(crate) name: String,
    pub(crate) domain: DomainId,
}

impl Apply for TakeName {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let key = Key::owner(&self.name);
        if owner(facts, &key)? == Some(self.domain) {
            return Ok(Vec::new());
        }
        // Where the domain has the repository, a repair wants the name.
        if facts.get(&Key::repository(self.domain, &self.name))?.is_none() {
            check_free(facts, &self.name)?;
        }
        facts.set(key, Some(Value::new(&self.domain.0.to_le_bytes())));
        Ok(Vec::new())
    }
}

/// Lets go of names of which a domain has no repository any more. A change of the default domain.
#[derive(Debug)]
pub(crate) struct FreeNames {
    pub(crate) domain: DomainId,
    /// Those of the facts that say whose they are.
    pub(crate) keys: Vec<Key>,
}

impl Apply for FreeNames {
    fn reads_much(&self) -> bool {
        self.keys.len() > MANY
    }

    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        for key in &self.keys {
            let repository = Key { domain: self.domain, family: Family::Repository, bytes: key.bytes };
            if owner(facts, key)? == Some(self.domain) && facts.get(&repository)?.is_none() {
                facts.set(*key, None);
            }
        }
        Ok(Vec::new())
    }

    fn frees_space(&self) -> bool {
        true
    }
}
