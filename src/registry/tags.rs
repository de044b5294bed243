//! Tags.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{Family, NamesOf, Prefix, Reader as _};
use crate::id::Lsn;
use crate::oci::{ExpectTag, Reference, Tag};
use crate::page::Page;
use crate::registry::Repository;
use crate::transaction::registry::SetTag;

/// What a tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagInfo {
    /// The tag.
    pub tag: Tag,
    /// The manifest that it names.
    pub digest: Digest,
    /// When it was set to that manifest, by the wall clock, in milliseconds since 1970.
    pub updated_ms: u64,
}

impl Repository {
    /// Sets a tag to a manifest that the repository has.
    ///
    /// # Errors
    /// [`Error::ManifestNotFound`]; [`Error::TagMoved`] where the tag does not name what was expected;
    /// [`Error::TagImmutable`].
    pub fn tag(&self, tag: &Tag, digest: &Digest, expect: ExpectTag) -> Result<Lsn> {
        Ok(self.commit(SetTag { repository: self.named(), tag: tag.clone(), digest: *digest, expect })?.lsn)
    }

    /// Removes a tag. The manifest stays.
    ///
    /// # Errors
    /// [`Error::ManifestNotFound`] where there is no such tag.
    pub fn untag(&self, tag: &Tag) -> Result<Lsn> {
        self.delete_one(Reference::Tag(tag.clone()))
    }

    /// What a tag names.
    ///
    /// # Errors
    /// [`Error::ManifestNotFound`] where there is no such tag.
    pub fn resolve(&self, tag: &Tag) -> Result<TagInfo> {
        let fact = find::tag(&self.facts()?, self.id, tag.as_str())?;
        let fact = fact.ok_or_else(|| Error::ManifestNotFound { reference: tag.to_string() })?;
        Ok(TagInfo { tag: tag.clone(), digest: fact.digest, updated_ms: fact.updated })
    }

    /// A [page](Page) of the repository's tags, in order, those behind `after`. The cost is that of the page, however
    /// many tags there are.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the view of names is being rebuilt, and facts that are read in its place are damaged.
    pub fn tags(&self, after: Option<&str>, limit: usize) -> Result<Page<Tag, String>> {
        let of = NamesOf::Tags(self.domain, self.id);
        Page::of_names(limit, |count| {
            let names = self.facts()?.names(of, after, count)?;
            self.facts()?; // were it deleted by now, some of its tags might have been gone before
            Ok(names)
        })
    }

    /// The tags that name a manifest, in order.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn tags_of(&self, digest: &Digest) -> Result<Vec<Tag>> {
        let snapshot = self.facts()?;
        let mut tags = Vec::new();
        for fact in snapshot.scan_all(Prefix::under(self.domain, Family::TagOf, self.id, digest))? {
            let (key, text) = fact?;
            let tag = str::from_utf8(text.as_bytes()).ok().and_then(|text| text.parse().ok());
            let tag: Tag = snapshot.decoded(&key, tag)?;
            let named = find::tag(&snapshot, self.id, tag.as_str())?;
            if named.is_some_and(|named| named.digest == *digest) {
                tags.push(tag);
            }
        }
        tags.sort_unstable();
        Ok(tags)
    }
}
