//! Documents of repositories.

use bytes::Bytes;

#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::facts::{DocumentFact, Key, Lookup as _};
use crate::id::Lsn;
use crate::oci::ExpectDocument;
use crate::oci::attached::{NewDocument, check_name};
use crate::registry::Repository;
use crate::transaction::registry::{RemoveDocument, SetDocument};

/// A document of a repository: see [`Repository::set_document`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// Its name.
    pub name: String,
    /// What it says.
    pub content: Bytes,
    /// The commit that set it: for [`ExpectDocument::Is`].
    pub revision: Lsn,
    /// When it was set, by the wall clock, in milliseconds since 1970.
    pub updated_ms: u64,
}

impl From<DocumentFact> for Document {
    fn from(fact: DocumentFact) -> Self {
        Self { name: fact.name, content: fact.content, revision: fact.revision, updated_ms: fact.updated }
    }
}

impl Repository {
    /// A document of the repository, if there is one of this name.
    ///
    /// # Errors
    /// [`Error::InvalidDocumentName`].
    pub fn document(&self, name: &str) -> Result<Option<Document>> {
        check_name(name)?;
        let found = self.facts()?.decode(&Key::document(self.domain, self.id, name), DocumentFact::decode)?;
        Ok(found.map(Document::from))
    }

    /// All documents of the repository, by their names. There are at most 64.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn documents(&self) -> Result<Vec<Document>> {
        let snapshot = self.facts()?;
        let found = snapshot.all_of::<DocumentFact>(self.id)?.map(|fact| Ok(Document::from(fact?.1)));
        let mut documents = found.collect::<Result<Vec<_>>>()?;
        documents.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(documents)
    }

    /// Sets a document: a short text that belongs to the repository, such as its access policy, its resource tags, or
    /// what a server keeps of its settings. It goes with the repository. Returns its revision.
    ///
    /// A name is 1 to 128 bytes of printable ASCII, a document at most 1 MiB long; a repository has at most 64 of them.
    ///
    /// ```
    /// use strongroom::registry::{ExpectDocument, RepositorySettings};
    /// use strongroom::{Error, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let app = store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
    /// let first = app.set_document("policy", r#"{"Statement":[]}"#, ExpectDocument::Absent)?;
    /// assert_eq!(app.document("policy")?.unwrap().revision, first);
    ///
    /// // Compare-and-set: of two who change the same revision, one is told that it has changed.
    /// app.set_document("policy", "{}", ExpectDocument::Is(first))?;
    /// let lost = app.set_document("policy", "[]", ExpectDocument::Is(first));
    /// assert!(matches!(lost, Err(Error::DocumentChanged { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::DocumentChanged`] where it is not what was expected; [`Error::InvalidDocumentName`];
    /// [`Error::TooLarge`]; [`Error::RepositoryNotFound`] where the repository was deleted.
    pub fn set_document(&self, name: &str, content: impl AsRef<[u8]>, expect: ExpectDocument) -> Result<Lsn> {
        let document = NewDocument::new(name, content.as_ref())?;
        Ok(self.commit(SetDocument { repository: self.named(), document, expect })?.lsn)
    }

    /// Removes a document.
    ///
    /// # Errors
    /// [`Error::DocumentNotFound`] where there is none of this name; [`Error::DocumentChanged`] where it is not what
    /// was expected.
    pub fn remove_document(&self, name: &str, expect: ExpectDocument) -> Result<Lsn> {
        check_name(name)?;
        Ok(self.commit(RemoveDocument { repository: self.named(), name: name.to_owned(), expect })?.lsn)
    }
}
