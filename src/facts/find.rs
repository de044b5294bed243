//! Looking up facts of repositories: for readers in a snapshot, for changes at the ordering point. A repository's facts
//! are in its domain; no two repositories have one name, whichever domains they are in.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::{
    AwaitedFact, BlobFact, Family, Held, Key, LinkFact, Lookup, ManifestFact, Reader, RepositoryFact, TagFact, Value,
};
use crate::id::{DomainId, RepositoryId};
use crate::wire::Fields;

/// The domain that a name belongs to, if it is not the default one.
pub(crate) fn owner(facts: &impl Lookup, key: &Key) -> Result<Option<DomainId>> {
    facts.decode(key, |value| Fields(value).u32().map(DomainId))
}

/// Whether it is known that the name of a repository belongs to its domain.
pub(crate) fn is_owned(facts: &impl Lookup, domain: DomainId, name: &str) -> Result<bool> {
    Ok(domain == DomainId::DEFAULT || owner(facts, &Key::owner(name))? == Some(domain))
}

/// Fails where a name may be that of a repository of a locked domain.
pub(crate) fn check_locked(facts: &(impl Lookup + Reader), name: &str) -> Result<()> {
    let owner = owner(facts, &Key::owner(name))?;
    owner.and_then(|owner| facts.lock_of(owner)).map_or(Ok(()), |why| Err(why.clone()))
}

/// The repository of the domain at hand that has a name now.
pub(crate) fn repository_in_domain(facts: &impl Lookup, name: &str) -> Result<RepositoryFact> {
    let found = facts.decode(&Key::repository(facts.domain(), name), RepositoryFact::decode)?;
    found.ok_or_else(|| Error::RepositoryNotFound { name: name.to_owned() })
}

/// The repository, if it is still the one that was opened.
pub(crate) fn repository(facts: &impl Lookup, id: RepositoryId, name: &str) -> Result<RepositoryFact> {
    let found = repository_in_domain(facts, name)?;
    if found.id == id { Ok(found) } else { Err(Error::RepositoryNotFound { name: name.to_owned() }) }
}

/// A repository's link to a blob, and the blob. Digests of different algorithms may have one key: which of them it is,
/// the blob says.
pub(crate) fn link(
    facts: &impl Lookup,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<Option<(LinkFact, BlobFact)>> {
    let key = Key::of_digest(facts.domain(), Family::Link, repository, digest);
    let link =
        facts.decode(&key, LinkFact::decode)?.filter(|link| link.blob(&key) == Key::blob(facts.domain(), digest));
    let Some(link) = link else { return Ok(None) };
    Ok(facts.blob(digest)?.map(|blob| (link, blob)))
}

/// How many manifests of a repository wait for what it does not have.
pub(crate) fn awaited(facts: &impl Lookup, repository: RepositoryId, held: &Held) -> Result<Option<AwaitedFact>> {
    let found = facts.decode(&held.awaited_key(facts.domain(), repository), AwaitedFact::decode)?;
    Ok(found.filter(|awaited| awaited.digest == held.digest()))
}

/// A manifest of a repository.
pub(crate) fn manifest(facts: &impl Lookup, repository: RepositoryId, digest: &Digest) -> Result<Option<ManifestFact>> {
    let key = Key::of_digest(facts.domain(), Family::Manifest, repository, digest);
    let found = facts.decode(&key, ManifestFact::decode)?;
    Ok(found.filter(|manifest| manifest.digest == *digest))
}

/// The tags that name a manifest, among those that facts of the family `TagOf` lead to: another digest may begin with
/// the same bytes.
pub(crate) fn tags_among(
    facts: &impl Lookup,
    repository: RepositoryId,
    digest: &Digest,
    scanned: &[(Key, Value)],
    invalid: impl Fn(&Key) -> Error,
) -> Result<Vec<TagFact>> {
    let mut tags = Vec::with_capacity(scanned.len());
    for (key, text) in scanned {
        let text = str::from_utf8(text.as_bytes()).map_err(|_| invalid(key))?;
        tags.extend(tag(facts, repository, text)?.filter(|tag| tag.digest == *digest));
    }
    Ok(tags)
}

/// What a tag of a repository names.
pub(crate) fn tag(facts: &impl Lookup, repository: RepositoryId, tag: &str) -> Result<Option<TagFact>> {
    facts.decode(&Key::tag(facts.domain(), repository, tag), TagFact::decode)
}
