//! Looking repositories' facts up: for readers in a snapshot, for changes at the ordering point.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::{BlobFact, Family, Key, LinkFact, ManifestFact, RepositoryFact, TagFact};
use crate::id::RepositoryId;
use crate::store::view::Lookup;

/// The repository that has a name now.
pub(crate) fn repository_of_name(facts: &impl Lookup, name: &str) -> Result<RepositoryFact> {
    let found = facts.decode(&Key::repository(name), RepositoryFact::decode)?;
    found.ok_or_else(|| Error::RepositoryNotFound { name: name.to_owned() })
}

/// The repository, if it is still the one that was opened.
pub(crate) fn repository(facts: &impl Lookup, id: RepositoryId, name: &str) -> Result<RepositoryFact> {
    let found = repository_of_name(facts, name)?;
    if found.id == id { Ok(found) } else { Err(Error::RepositoryNotFound { name: name.to_owned() }) }
}

/// A repository's link to a blob, and the blob. Digests of different algorithms may have one key: which of them it is, the
/// blob says.
pub(crate) fn link(
    facts: &impl Lookup,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<Option<(LinkFact, BlobFact)>> {
    let key = Key::of_digest(Family::Link, repository, digest);
    let link = facts.decode(&key, LinkFact::decode)?.filter(|link| link.blob(&key) == Key::blob(digest));
    let Some(link) = link else { return Ok(None) };
    Ok(facts.blob(digest)?.map(|blob| (link, blob)))
}

/// A manifest of a repository.
pub(crate) fn manifest(facts: &impl Lookup, repository: RepositoryId, digest: &Digest) -> Result<Option<ManifestFact>> {
    let found = facts.decode(&Key::of_digest(Family::Manifest, repository, digest), ManifestFact::decode)?;
    Ok(found.filter(|manifest| manifest.digest == *digest))
}

/// What a tag of a repository names.
pub(crate) fn tag(facts: &impl Lookup, repository: RepositoryId, tag: &str) -> Result<Option<TagFact>> {
    facts.decode(&Key::tag(repository, tag), TagFact::decode)
}
