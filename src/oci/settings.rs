//! Settings of a repository.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::RepositoryFact;
use crate::id::{DomainId, RepositoryId};
use crate::keys::DomainName;
use crate::oci::attached::NewDocument;
use crate::oci::{RepositoryName, Tag, TagFilter};

/// The most exclusions a repository has, as in Amazon ECR.
pub(crate) const MAX_EXCLUSIONS: usize = 5;

/// Whether a tag, once it names a manifest, may be moved to another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TagMutability {
    /// Tags may be moved.
    #[default]
    Mutable,
    /// Tags may not be moved. (They can be deleted, as in Amazon ECR, and then set again.)
    Immutable,
}

/// The manifest that a tag has to name for it to be moved: compare-and-set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpectTag {
    /// Any manifest, or none.
    #[default]
    Any,
    /// None: the tag must not exist.
    Absent,
    /// This manifest.
    Is(Digest),
}

/// What is set for a repository.
///
/// ```
/// use strongroom::registry::{RepositorySettings, TagMutability};
///
/// // Releases stay as they are; what is being worked on moves.
/// let moving = ["latest".parse()?, "dev-*".parse()?];
/// let settings = RepositorySettings::new().mutability(TagMutability::Immutable).exclusions(moving)?;
/// assert!(settings.is_immutable(&"v1".parse()?));
/// assert!(!settings.is_immutable(&"dev-7".parse()?));
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct RepositorySettings {
    mutability: TagMutability,
    exclusions: Vec<TagFilter>,
    domain: Option<DomainName>,
    documents: Vec<NewDocument>,
}

impl RepositorySettings {
    /// All tags may be moved; the repository is in the default key domain.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether tags may be moved.
    pub fn mutability(mut self, mutability: TagMutability) -> Self {
        self.mutability = mutability;
        self
    }

    /// Exceptions: tags that match one of these filters, of which there are at most five, are mutable if the others are
    /// not, and the reverse.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more.
    pub fn exclusions(mut self, exclusions: impl Into<Vec<TagFilter>>) -> Result<Self> {
        self.exclusions = exclusions.into();
        Error::check_limit("the number of tag filters", self.exclusions.len(), MAX_EXCLUSIONS)?;
        Ok(self)
    }

    /// The [key domain](crate::Store::create_domain) of the repository. It is set when the repository is created, and
    /// changing its settings does not change it.
    pub fn domain(mut self, domain: DomainName) -> Self {
        self.domain = Some(domain);
        self
    }

    /// A [document](crate::registry::Repository::set_document) that the repository has from the beginning: it is set in
    /// the commit that creates the repository. As with the domain, changing the settings of a repository changes none,
    /// and those that are read back have none. A second document of a name takes the place of the first.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = strongroom::Options::new().create(true).open(dir.path())?;
    /// let settings = strongroom::registry::RepositorySettings::new().document("policy", "{}")?;
    /// let repository = store.create_repository(&"team/app".parse()?, settings)?;
    /// assert_eq!(repository.document("policy")?.unwrap().content, "{}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidDocumentName`]; [`Error::TooLarge`] for a document of more than 1 MiB. Creating the repository
    /// fails with that where there are more than 64, or where they do not fit into one commit: 32 MiB.
    pub fn document(mut self, name: &str, content: impl AsRef<[u8]>) -> Result<Self> {
        let document = NewDocument::new(name, content.as_ref())?;
        self.documents.retain(|known| known.name != name);
        self.documents.push(document);
        Ok(self)
    }

    pub(crate) fn documents(&self) -> &[NewDocument] {
        &self.documents
    }

    /// The key domain; none: the default one.
    pub fn get_domain(&self) -> Option<&DomainName> {
        self.domain.as_ref()
    }

    /// Whether tags may be moved, except for the exceptions.
    pub fn get_mutability(&self) -> TagMutability {
        self.mutability
    }

    /// The filters of the tags that are exceptions.
    pub fn get_exclusions(&self) -> &[TagFilter] {
        &self.exclusions
    }

    /// Whether a tag may not be moved.
    pub fn is_immutable(&self, tag: &Tag) -> bool {
        let is_excluded = self.exclusions.iter().any(|filter| filter.matches(tag));
        (self.mutability == TagMutability::Immutable) != is_excluded
    }
}

/// A repository: its name, settings and when it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryInfo {
    /// Its name.
    pub name: RepositoryName,
    /// When it was created, by the wall clock, in milliseconds since 1970.
    pub created_ms: u64,
    /// Its settings.
    pub settings: RepositorySettings,
}

impl RepositorySettings {
    pub(crate) fn to_fact(&self, domain: DomainId, id: RepositoryId, name: &str, created: u64) -> RepositoryFact {
        let exclusions = self.exclusions.iter().map(TagFilter::to_string).collect();
        let immutable = self.mutability == TagMutability::Immutable;
        RepositoryFact {
            domain,
            id,
            created,
            immutable,
            provisional: None,
            documents: 0,
            name: name.to_owned(),
            exclusions,
        }
    }
}

impl RepositoryInfo {
    /// What a fact says; which is not what its domain is called.
    pub(crate) fn from_fact(fact: &RepositoryFact) -> Result<Self> {
        let mutability = if fact.immutable { TagMutability::Immutable } else { TagMutability::Mutable };
        let exclusions = fact.exclusions.iter().map(|filter| filter.parse()).collect::<Result<_>>()?;
        let settings = RepositorySettings { mutability, exclusions, domain: None, documents: Vec::new() };
        Ok(Self { name: fact.name.parse()?, created_ms: fact.created, settings })
    }
}
