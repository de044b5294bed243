//! Repositories: creating, changing and deleting them.
//!
//! A repository that a push created is *provisional* until a manifest is pushed to it, so that pushes without one leave
//! no repository behind. Collection removes a provisional repository that is empty and that no push has touched for the
//! retention time.
//!
//! # Invariant kept here
//! A provisional repository is in the idle list, under the time at which it was touched, and no other
//! is: [`set`] changes both.

use super::documents;
use super::owners::check_free;
use super::{is_there, repository};
use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{Family, Idle, Key, Lookup, Named, Prefix, RepositoryFact, Value};
use crate::id::RepositoryId;
use crate::oci::RepositorySettings;
use crate::transaction::{Apply, Changes, Op};

/// Changes a repository, and with it the idle list.
pub(super) fn set(facts: &mut Changes<'_>, name: &str, old: Option<&RepositoryFact>, new: Option<&RepositoryFact>) {
    let key = Key::repository(facts.domain(), name);
    let idle = |repository: Option<&RepositoryFact>| repository.and_then(|fact| Idle::of_repository(&key, fact));
    facts.relist(idle(old), idle(new));
    facts.set(key, new.map(RepositoryFact::encode));
}

/// A push was completed, or somebody wants the repository: it stays.
pub(super) fn keep(facts: &mut Changes<'_>, repository: &RepositoryFact) {
    if repository.provisional.is_some() {
        let kept = RepositoryFact { provisional: None, ..repository.clone() };
        set(facts, &repository.name, Some(repository), Some(&kept));
    }
}

/// Somebody is about to push: a provisional repository stays for a while, which is noted unless that was a moment ago.
fn touch(facts: &mut Changes<'_>, repository: &RepositoryFact) {
    let now = facts.now().open;
    if repository.provisional.is_some_and(|touched| facts.retention().is_stale(touched, now)) {
        let touched = RepositoryFact { provisional: Some(now), ..repository.clone() };
        set(facts, &repository.name, Some(repository), Some(&touched));
    }
}

/// Takes a repository's name away. What is in it goes in later commits.
fn remove(facts: &mut Changes<'_>, repository: &RepositoryFact) -> Vec<Op> {
    set(facts, &repository.name, Some(repository), None);
    facts.set(Key::deleted(facts.domain(), repository.id), Some(Value::new(&[])));
    vec![Op::DeleteRepository { repository: repository.named() }]
}

/// Creates a repository, in the domain of the commit.
#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) name: String,
    pub(crate) settings: RepositorySettings,
    /// Whether it is provisional.
    pub(crate) provisional: bool,
}

impl Apply for Create {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        check_free(facts, &self.name)?;
        let (id, now) = (RepositoryId(facts.lsn().0), facts.now());
        let mut fact = self.settings.to_fact(facts.domain(), id, &self.name, now.wall);
        fact.provisional = self.provisional.then_some(now.open);
        let mut ops = vec![Op::CreateRepository { repository: fact.named() }];
        ops.extend(documents::put(facts, &mut fact, self.settings.documents())?);
        set(facts, &self.name, None, Some(&fact));
        Ok(ops)
    }
}

/// Lets a provisional repository stay.
#[derive(Debug)]
pub(crate) struct Keep(pub(crate) Named);

impl Apply for Keep {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let found = repository(facts, &self.0)?;
        keep(facts, &found);
        Ok(Vec::new())
    }
}

/// Changes a repository's settings.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) repository: Named,
    pub(crate) settings: RepositorySettings,
    /// Whether it is to be created by that: one that is not provisional is there already.
    pub(crate) creates: bool,
}

impl Apply for Set {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let old = repository(facts, &self.repository)?;
        if self.creates && old.provisional.is_none() {
            return Err(Error::RepositoryExists { name: old.name });
        }
        let mut new = self.settings.to_fact(old.domain, old.id, &old.name, old.created);
        new.documents = old.documents;
        let mut ops = Vec::new();
        if new != old {
            ops.push(Op::SetRepository { repository: self.repository.clone() });
        }
        if self.creates {
            ops.extend(documents::put(facts, &mut new, self.settings.documents())?);
        }
        if new != old {
            set(facts, &old.name, Some(&old), Some(&new));
        }
        Ok(ops)
    }
}

/// Deletes a repository: its name is free at once, its contents go in later commits.
#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) name: String,
    pub(crate) with_contents: bool,
}

impl Apply for Delete {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let found = find::repository_in_domain(facts, &self.name)?;
        if !self.with_contents && has_any(facts, Family::Manifest, found.id)? {
            return Err(Error::RepositoryNotEmpty { name: self.name.clone() });
        }
        Ok(remove(facts, &found))
    }

    fn frees_space(&self) -> bool {
        true
    }
}

/// Deletes a provisional repository that is empty and to which nothing was pushed for the retention time.
#[derive(Debug)]
pub(crate) struct ExpireRepository {
    pub(crate) repository: Named,
    /// Whether there are uploads into it. One that was begun since has touched it.
    pub(crate) in_use: bool,
}

impl Apply for ExpireRepository {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let now = facts.now().open;
        if !is_there(facts, &self.repository)? {
            return Ok(Vec::new()); // deleted meanwhile
        }
        let found = repository(facts, &self.repository)?;
        if !found.provisional.is_some_and(|touched| facts.retention().has_expired(touched, now)) {
            return Ok(Vec::new());
        }
        if self.in_use || has_any(facts, Family::Link, found.id)? || has_any(facts, Family::Manifest, found.id)? {
            touch(facts, &found); // to be looked at again when that may have gone
            return Ok(Vec::new());
        }
        facts.tally.repositories += 1;
        Ok(remove(facts, &found))
    }

    fn frees_space(&self) -> bool {
        true
    }
}

/// Whether a repository has facts of a family.
fn has_any(facts: &Changes<'_>, family: Family, id: RepositoryId) -> Result<bool> {
    Ok(!facts.scan(Prefix::of(facts.domain(), family, id), 1)?.is_empty())
}

/// Goes with what may only take place in a repository that is there: an upload that is begun.
#[derive(Debug)]
pub(crate) struct Exists(pub(crate) Named);

impl Apply for Exists {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let found = repository(facts, &self.0)?;
        touch(facts, &found);
        Ok(Vec::new())
    }
}
