//! Documents of repositories: setting and removing them.
//!
//! # Invariant kept here
//! A repository's fact has the number of its documents, so that setting one more needs not read the others.

use super::repositories::set;
use super::repository;
use crate::error::{Error, Result};
use crate::facts::{DocumentFact, Key, Lookup, Named, RepositoryFact};
use crate::id::Lsn;
use crate::oci::ExpectDocument;
use crate::oci::attached::{MAX_DOCUMENTS, NewDocument};
use crate::transaction::{Apply, Changes, Op};

fn revision(facts: &Changes<'_>, key: &Key) -> Result<Option<Lsn>> {
    facts.decode(key, DocumentFact::revision_of)
}

/// Sets documents of a repository, whose fact the caller sets.
pub(super) fn put(
    facts: &mut Changes<'_>,
    repository: &mut RepositoryFact,
    documents: &[NewDocument],
) -> Result<Vec<Op>> {
    let mut ops = Vec::new();
    for NewDocument { name, content } in documents {
        let key = Key::document(facts.domain(), repository.id, name);
        if facts.get(&key)?.is_none() {
            let count = usize::from(repository.documents) + 1;
            Error::check_limit("the number of a repository's documents", count, MAX_DOCUMENTS)?;
            repository.documents += 1;
        }
        let (revision, updated) = (facts.lsn(), facts.now().wall);
        let fact = DocumentFact { revision, updated, name: name.clone(), content: content.clone() };
        facts.set(key, Some(fact.encode()));
        facts.check_size()?;
        ops.push(Op::Document { repository: repository.named(), name: name.clone() });
    }
    Ok(ops)
}

/// Sets a document. A provisional repository stays: somebody wants it.
#[derive(Debug)]
pub(crate) struct SetDocument {
    pub(crate) repository: Named,
    pub(crate) document: NewDocument,
    pub(crate) expect: ExpectDocument,
}

impl Apply for SetDocument {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let old = repository(facts, &self.repository)?;
        let name = &self.document.name;
        self.expect.check(name, revision(facts, &Key::document(facts.domain(), old.id, name))?)?;
        let mut new = RepositoryFact { provisional: None, ..old.clone() };
        let ops = put(facts, &mut new, std::slice::from_ref(&self.document))?;
        if new != old {
            set(facts, &old.name, Some(&old), Some(&new));
        }
        Ok(ops)
    }
}

/// Removes a document.
#[derive(Debug)]
pub(crate) struct RemoveDocument {
    pub(crate) repository: Named,
    pub(crate) name: String,
    pub(crate) expect: ExpectDocument,
}

impl Apply for RemoveDocument {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let (named, name) = (&self.repository, &self.name);
        let old = repository(facts, named)?;
        let key = Key::document(facts.domain(), old.id, name);
        let found = revision(facts, &key)?;
        self.expect.check(name, found)?;
        if found.is_none() {
            return Err(Error::DocumentNotFound { name: name.clone() });
        }
        let fewer = || facts.miscounted(&Key::repository(facts.domain(), &old.name), "count of documents");
        let documents = old.documents.checked_sub(1).ok_or_else(fewer)?;
        set(facts, &old.name, Some(&old), Some(&RepositoryFact { documents, ..old.clone() }));
        facts.set(key, None);
        Ok(vec![Op::Document { repository: named.clone(), name: name.clone() }])
    }

    fn frees_space(&self) -> bool {
        true
    }
}
