//! Changes of repositories at the ordering point.
//!
//! Each change is decided at its turn in the order of all commits, given every earlier one, and takes effect in one
//! record, of its repository's domain, or not at all. So nothing can come between a check and its effect: a manifest
//! whose blob was deleted a moment ago is refused, and its client pushes the blob again.
//!
//! # Invariants kept here
//! - **What a manifest holds exists, or is awaited**, where the push allowed that: [`add_awaited`]. It is checked in
//!   [`PutManifest`], and what is held can't be deleted: neither a link whose count is not 0 ([`Unlink`], [`Expire`])
//!   nor a manifest whose count is not 0 ([`deletion`]). A repository's contents are removed only after the repository
//!   itself was deleted ([`Purge`]), and then nothing is added to them: every other change begins with [`repository`].
//! - **A link's count is the number of its repository's manifests that hold the blob, a manifest's count that of those
//!   that hold it.** [`hold`] and [`release`] change them.
//! - **A blob or manifest is awaited only while its repository does not have it**: [`link`] and [`PutManifest`] take
//!   the count over. So a manifest holds what arrives later without being looked at again.
//! - **A link whose count is 0 is in the idle list**, under the time at which it was touched: [`set_link`]. So is a
//!   provisional repository: [`repositories`].
//! - **A blob's count includes one for each link and one for each manifest under its digest**: [`link`], [`unlink`],
//!   [`PutManifest`], [`deletion`].
//! - **No manifest holds itself, directly or through others.** It comes to hold another only while nothing holds it, or
//!   where the other holds no manifest: [`check_no_cycle`]. The last step of a ring would be neither.
//! - **A tag names an existing manifest**, and for each tag there is the fact that leads from its manifest to it:
//!   [`set_tag`] and [`remove_tag`].
//! - **What a manifest of the standard class holds is of that class**, so that it can be pulled as a whole: [`class`].
//! - **A repository's fact has the number of its documents**: [`documents`].
//! - **A link that no manifest holds has the time when a client last relied on it**: it is new, or [touched](touch), or
//!   was [released](release). No clock but the store's open time is used.

mod class;
mod conditional;
mod deletion;
mod documents;
mod owners;
mod repositories;
mod upkeep;

pub(crate) use class::SetStorageClass;
pub(crate) use conditional::{ActIfUnchanged, Following, Pulls};
pub use conditional::{ConditionalAction, ImageAction, ImageVersion};
pub(crate) use deletion::{DeleteReferences, MAX_TAGS_DELETED, TAGS, Untag};
pub(crate) use documents::{RemoveDocument, SetDocument};
pub(crate) use owners::{FreeNames, TakeName};
use repositories::keep;
pub(crate) use repositories::{Create, Delete, Exists, ExpireRepository, Keep, Set};
pub(crate) use upkeep::{Expire, NotePulls, Purge};

use std::collections::HashSet;

use crate::digest::Digest;
use crate::error::{Error, ManifestProblem, Result};
use crate::facts::find;
use crate::facts::{
    AwaitedFact, Family, Held, Idle, Key, LinkFact, Lookup, ManifestFact, Named, ReferrerFact, RepositoryFact, Storage,
    TagFact, Value,
};
use crate::id::{DomainId, RepositoryId};
use crate::oci::document::{Document, Reference as Referenced};
use crate::oci::{ExpectTag, Reference, RepositoryInfo, Tag};
use crate::transaction::{Apply, Changes, MANY, Op, one_less, one_more};

fn repository(facts: &Changes<'_>, named: &Named) -> Result<RepositoryFact> {
    find::repository(facts, named.id, &named.name)
}

fn link_of(facts: &Changes<'_>, repository: RepositoryId, digest: &Digest) -> Result<Option<LinkFact>> {
    Ok(find::link(facts, repository, digest)?.map(|(link, _)| link))
}

fn is_there(facts: &Changes<'_>, named: &Named) -> Result<bool> {
    match repository(facts, named) {
        Ok(_) => Ok(true),
        Err(Error::RepositoryNotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn link_key(facts: &Changes<'_>, repository: RepositoryId, digest: &Digest) -> Key {
    Key::of_digest(facts.domain(), Family::Link, repository, digest)
}

fn manifest_key(facts: &Changes<'_>, repository: RepositoryId, digest: &Digest) -> Key {
    Key::of_digest(facts.domain(), Family::Manifest, repository, digest)
}

/// Takes the count of those manifests that wait for what is about to be there.
fn take_awaited(facts: &mut Changes<'_>, id: RepositoryId, held: &Held) -> Result<u32> {
    let Some(awaited) = find::awaited(facts, id, held)? else { return Ok(0) };
    facts.set(held.awaited_key(facts.domain(), id), None);
    Ok(awaited.count)
}

fn manifest_not_found(reference: impl Into<Reference>) -> Error {
    Error::ManifestNotFound { reference: reference.into().to_string() }
}

/// Changes a link, and with it the list of those that no manifest holds.
pub(crate) fn set_link(facts: &mut Changes<'_>, key: Key, old: Option<&LinkFact>, new: Option<&LinkFact>) {
    let idle = |link: Option<&LinkFact>| link.and_then(|link| Idle::of_link(&key, link));
    facts.relist(idle(old), idle(new));
    facts.set(key, new.map(LinkFact::encode));
}

/// Gives a repository a blob that the store has, or notes that somebody relies on it again.
fn link(facts: &mut Changes<'_>, named: &Named, digest: &Digest) -> Result<Vec<Op>> {
    let key = link_key(facts, named.id, digest);
    if let Some(link) = link_of(facts, named.id, digest)? {
        facts.was_linked = true;
        touch(facts, key, &link);
        return Ok(Vec::new());
    }
    facts.hold(digest)?;
    let count = take_awaited(facts, named.id, &Held::Blob(*digest))?;
    let new = LinkFact { count, ..LinkFact::new(&Key::blob(facts.domain(), digest), facts.now()) };
    set_link(facts, key, None, Some(&new));
    Ok(vec![Op::Link { repository: named.clone(), digest: *digest }])
}

/// Notes that somebody relies on a link, unless that was noted a moment ago or a manifest holds it.
fn touch(facts: &mut Changes<'_>, key: Key, link: &LinkFact) {
    let touched = facts.now().open;
    if link.count == 0 && facts.retention().is_stale(link.touched, touched) {
        set_link(facts, key, Some(link), Some(&LinkFact { touched, ..*link }));
    }
}

/// Takes a blob from a repository that no manifest of it holds.
fn unlink(facts: &mut Changes<'_>, key: Key, link: &LinkFact) -> Result<()> {
    facts.release_key(link.blob(&key), &key)?;
    set_link(facts, key, Some(link), None);
    Ok(())
}

/// The keys of facts that change where something is held or released.
fn keys_of(domain: DomainId, id: RepositoryId, held: Held) -> Vec<Key> {
    let mut keys = vec![held.key(domain, id), held.awaited_key(domain, id)];
    if let Held::Blob(digest) = held {
        keys.push(Key::blob(domain, &digest));
    }
    keys
}

/// Counts one more manifest that holds something, which has the size that the manifest says, if it says one; `false`
/// where it is not there.
fn hold(facts: &mut Changes<'_>, id: RepositoryId, held: &Held, size: Option<u64>) -> Result<bool> {
    match held {
        Held::Blob(digest) => {
            let Some((link, blob)) = find::link(facts, id, digest)? else { return Ok(false) };
            check_size(digest, blob.len, size)?;
            let count = one_more(link.count)?;
            set_link(facts, link_key(facts, id, digest), Some(&link), Some(&LinkFact { count, ..link }));
        }
        Held::Manifest(digest) => {
            let Some(mut manifest) = find::manifest(facts, id, digest)? else { return Ok(false) };
            check_size(digest, manifest.len, size)?;
            manifest.count = one_more(manifest.count)?;
            facts.set(manifest_key(facts, id, digest), Some(manifest.encode()));
        }
    }
    Ok(true)
}

/// Counts one more manifest that waits for something.
fn add_awaited(facts: &mut Changes<'_>, id: RepositoryId, held: &Held) -> Result<()> {
    let count = one_more(find::awaited(facts, id, held)?.map_or(0, |awaited| awaited.count))?;
    let fact = AwaitedFact { count, digest: held.digest() };
    facts.set(held.awaited_key(facts.domain(), id), Some(fact.encode()));
    Ok(())
}

/// Counts one less manifest that waits for something, which the manifest under `holder` did.
fn release_awaited(facts: &mut Changes<'_>, id: RepositoryId, held: &Held, holder: &Key) -> Result<()> {
    let awaited = find::awaited(facts, id, held)?.ok_or_else(|| facts.holds_nothing(holder))?;
    let key = held.awaited_key(facts.domain(), id);
    let count = one_less(facts, &key, awaited.count)?;
    facts.set(key, (count > 0).then(|| AwaitedFact { count, ..awaited }.encode()));
    Ok(())
}

fn check_size(digest: &Digest, expected: u64, said: Option<u64>) -> Result<()> {
    match said {
        Some(found) if found != expected => {
            let problem = ManifestProblem::Size { digest: *digest, expected, found };
            Err(Error::InvalidManifest { problem })
        }
        _ => Ok(()),
    }
}

/// Counts one less of something that the manifest under `holder` holds. The grace period of a blob that no manifest
/// holds any more begins now, since clients may have been told of it.
fn release(facts: &mut Changes<'_>, id: RepositoryId, held: &Held, holder: &Key) -> Result<()> {
    match held {
        Held::Blob(digest) => {
            let Some(link) = link_of(facts, id, digest)? else { return release_awaited(facts, id, held, holder) };
            let key = link_key(facts, id, digest);
            let (count, touched) = (one_less(facts, &key, link.count)?, facts.now().open);
            set_link(facts, key, Some(&link), Some(&LinkFact { count, touched, ..link }));
        }
        Held::Manifest(digest) => {
            let found = find::manifest(facts, id, digest)?;
            let Some(mut manifest) = found else { return release_awaited(facts, id, held, holder) };
            let key = manifest_key(facts, id, digest);
            manifest.count = one_less(facts, &key, manifest.count)?;
            facts.set(key, Some(manifest.encode()));
        }
    }
    Ok(())
}

/// Lets a tag name a manifest that is there.
fn set_tag(
    facts: &mut Changes<'_>,
    repository: &RepositoryFact,
    named: &Named,
    tag: &Tag,
    digest: &Digest,
    expect: &ExpectTag,
) -> Result<Option<Op>> {
    let old = find::tag(facts, named.id, tag.as_str())?.map(|tag| tag.digest);
    let is_expected = match expect {
        ExpectTag::Any => true,
        ExpectTag::Absent => old.is_none(),
        ExpectTag::Is(expected) => old == Some(*expected),
    };
    if !is_expected {
        return Err(Error::TagMoved { tag: tag.to_string(), found: old });
    }
    if old == Some(*digest) {
        return Ok(None);
    }
    if let Some(old) = old {
        if RepositoryInfo::from_fact(repository)?.settings.is_immutable(tag) {
            return Err(Error::TagImmutable { tag: tag.to_string(), digest: old });
        }
        facts.set(Key::tag_of(facts.domain(), named.id, &old, tag.as_str()), None);
    }
    let fact = TagFact { updated: facts.now().wall, digest: *digest, tag: tag.to_string() };
    facts.set(Key::tag(facts.domain(), named.id, tag.as_str()), Some(fact.encode()));
    facts.set(Key::tag_of(facts.domain(), named.id, digest, tag.as_str()), Some(Value::new(tag.as_str().as_bytes())));
    Ok(Some(Op::Tag { repository: named.clone(), tag: tag.to_string(), digest: *digest, old }))
}

fn remove_tag(facts: &mut Changes<'_>, named: &Named, tag: &str) -> Result<Option<Op>> {
    let Some(TagFact { digest, tag, .. }) = find::tag(facts, named.id, tag)? else { return Ok(None) };
    facts.set(Key::tag(facts.domain(), named.id, &tag), None);
    facts.set(Key::tag_of(facts.domain(), named.id, &digest, &tag), None);
    Ok(Some(Op::Untag { repository: named.clone(), tag, digest }))
}

/// Gives a repository a blob that was just stored, or that it may have by another right.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) repository: Named,
    pub(crate) digest: Digest,
    /// The repository that must have the blob.
    pub(crate) from: Option<Named>,
}

impl Apply for Link {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        repository(facts, &self.repository)?;
        if let Some(from) = &self.from
            && (!is_there(facts, from)? || link_of(facts, from.id, &self.digest)?.is_none())
        {
            return Err(Error::BlobNotFound { digest: self.digest });
        }
        link(facts, &self.repository, &self.digest)
    }
}

/// Notes that somebody relies on blobs. Refuses those that are not there.
#[derive(Debug)]
pub(crate) struct Touch {
    pub(crate) repository: Named,
    pub(crate) digests: Vec<Digest>,
}

impl Apply for Touch {
    fn reads_much(&self) -> bool {
        self.digests.len() > MANY
    }

    fn reads(&self, domain: DomainId) -> Vec<Key> {
        self.digests.iter().flat_map(|digest| keys_of(domain, self.repository.id, Held::Blob(*digest))).collect()
    }

    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let Self { repository: named, digests } = self;
        repository(facts, named)?;
        for (part, digest) in digests.iter().enumerate() {
            match link_of(facts, named.id, digest)? {
                Some(link) => touch(facts, link_key(facts, named.id, digest), &link),
                None => facts.refuse(part, Error::BlobNotFound { digest: *digest }),
            }
        }
        Ok(Vec::new())
    }
}

/// Takes a blob from a repository, unless a manifest holds it.
#[derive(Debug)]
pub(crate) struct Unlink {
    pub(crate) repository: Named,
    pub(crate) digest: Digest,
}

impl Apply for Unlink {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let (named, digest) = (&self.repository, self.digest);
        repository(facts, named)?;
        match link_of(facts, named.id, &digest)? {
            None => Err(Error::BlobNotFound { digest }),
            Some(link @ LinkFact { count: 0, .. }) => {
                unlink(facts, link_key(facts, named.id, &digest), &link)?;
                Ok(vec![Op::Unlink { repository: named.clone(), digest }])
            }
            Some(LinkFact { count, .. }) => Err(Error::BlobInUse { digest, count }),
        }
    }

    fn frees_space(&self) -> bool {
        true
    }
}

/// Makes a document that was just stored a manifest: takes over what it references, its subject and its tags.
#[derive(Debug)]
pub(crate) struct PutManifest {
    pub(crate) repository: Named,
    pub(crate) digest: Digest,
    pub(crate) len: u64,
    pub(crate) media_type: String,
    pub(crate) document: Document,
    pub(crate) tags: Vec<Tag>,
    pub(crate) expect_tag: ExpectTag,
    /// Whether blobs that it references may be missing: it holds them from when they are there.
    pub(crate) awaits_blobs: bool,
    /// Whether manifests may.
    pub(crate) awaits_manifests: bool,
}

impl PutManifest {
    /// What it references, as what that may be held, in the order in which that is tried, and what becomes of it where
    /// it is missing. Not itself, which references that are given with a document can name: it is there when it is
    /// there, and if it held itself it could never be deleted.
    fn references(&self) -> impl Iterator<Item = (&Referenced, [Option<Held>; 2], Missing)> + '_ {
        let Document { blobs, manifests, others, .. } = &self.document;
        let unless = |awaits| if awaits { Missing::Awaited } else { Missing::Refused };
        let (blob_missing, missing) = (unless(self.awaits_blobs), unless(self.awaits_manifests));
        let blobs = blobs.iter().map(move |blob| {
            let missing = if blob.optional { Missing::LeftOut } else { blob_missing };
            (blob, [Some(Held::Blob(blob.digest)), None], missing)
        });
        let manifests = manifests.iter().filter(|manifest| manifest.digest != self.digest);
        let manifests = manifests.map(move |one| (one, [Some(Held::Manifest(one.digest)), None], missing));
        let either = |digest| [Some(Held::Manifest(digest)), Some(Held::Blob(digest))];
        let others = others.iter().map(move |other| (other, either(other.digest), missing));
        blobs.chain(manifests).chain(others)
    }

    /// Holds what is referenced and not held yet, and says what that is. `holders` of the repository's manifests hold
    /// this one.
    fn hold_new(&self, facts: &mut Changes<'_>, known: Option<&ManifestFact>, holders: u32) -> Result<Vec<Held>> {
        let id = self.repository.id;
        let already: HashSet<Held> = known.iter().flat_map(|known| known.held.iter().copied()).collect();
        let (mut blobs, mut manifests, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (reference, choices, missing) in self.references() {
            let choices = || choices.iter().flatten();
            let mut is_there = false;
            if choices().any(|held| already.contains(held)) {
                for held in choices().filter(|held| already.contains(held)) {
                    is_there |= missing != Missing::Refused || find::awaited(facts, id, held)?.is_none();
                }
            } else {
                for held in choices() {
                    if !is_there && hold(facts, id, held, reference.size)? {
                        check_no_cycle(facts, id, held, holders)?;
                        new.push(*held);
                        is_there = true;
                    }
                }
                if !is_there && missing == Missing::Awaited {
                    for held in choices() {
                        add_awaited(facts, id, held)?;
                        new.push(*held);
                    }
                }
                facts.check_size()?;
            }
            if !is_there && missing == Missing::Refused {
                match choices().next() {
                    Some(Held::Manifest(digest)) => manifests.push(*digest),
                    _ => blobs.push(reference.digest),
                }
            }
        }
        if blobs.is_empty() && manifests.is_empty() {
            Ok(new)
        } else {
            Err(Error::ReferencesMissing { blobs, manifests })
        }
    }
}

/// What becomes of a reference to what the repository does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// The manifest is refused.
    Refused,
    /// The manifest waits for it, and holds it from when it is there.
    Awaited,
    /// The manifest does not hold it.
    LeftOut,
}

/// Fails where a manifest that `holders` others hold would come to hold a manifest that holds some itself: this one may
/// be among those. What is awaited counts as held.
fn check_no_cycle(facts: &Changes<'_>, id: RepositoryId, held: &Held, holders: u32) -> Result<()> {
    let Held::Manifest(digest) = held else { return Ok(()) };
    let holds_some = |manifest: ManifestFact| manifest.held.iter().any(|held| held.manifest().is_some());
    if holders > 0 && find::manifest(facts, id, digest)?.is_some_and(holds_some) {
        return Err(Error::InvalidManifest { problem: ManifestProblem::References });
    }
    Ok(())
}

impl Apply for PutManifest {
    fn reads_much(&self) -> bool {
        self.references().count() + self.tags.len() > MANY
    }

    fn reads(&self, domain: DomainId) -> Vec<Key> {
        let own = Held::Manifest(self.digest);
        let held = self.references().flat_map(|(_, held, _)| held).flatten();
        held.chain([own]).flat_map(|held| keys_of(domain, self.repository.id, held)).collect()
    }

    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let (named, id) = (&self.repository, self.repository.id);
        let repository = repository(facts, named)?;
        let known = find::manifest(facts, id, &self.digest)?;
        facts.was_linked = known.is_some();
        if let Some(known) = known.as_ref().filter(|known| known.media_type != self.media_type) {
            let (expected, found) = (known.media_type.clone(), self.media_type.clone());
            return Err(Error::InvalidManifest { problem: ManifestProblem::MediaType { expected, found } });
        }
        let holders = match &known {
            Some(known) => known.count,
            None => take_awaited(facts, id, &Held::Manifest(self.digest))?,
        };
        let new = self.hold_new(facts, known.as_ref(), holders)?;
        keep(facts, &repository);
        let mut ops = Vec::new();
        for held in new.iter().filter_map(Held::manifest) {
            ops.extend(class::restore(facts, named, &held)?);
        }
        match known {
            Some(mut known) => {
                if !new.is_empty() {
                    known.held.extend(new);
                    facts.set(manifest_key(facts, id, &self.digest), Some(known.encode()));
                }
                ops.extend(class::restore(facts, named, &self.digest)?);
            }
            None => {
                facts.hold(&self.digest)?;
                let subject = self.document.subject;
                let fact = ManifestFact {
                    digest: self.digest,
                    len: self.len,
                    pushed: facts.now().wall,
                    count: holders,
                    storage: Storage::default(),
                    media_type: self.media_type.clone(),
                    artifact_type: self.document.artifact_type.clone(),
                    subject,
                    held: new,
                };
                facts.set(manifest_key(facts, id, &self.digest), Some(fact.encode()));
                if let Some(subject) = subject {
                    let referrer = ReferrerFact { subject, digest: self.digest };
                    facts.set(Key::referrer(facts.domain(), id, &subject, &self.digest), Some(referrer.encode()));
                }
                let (digest, media_type) = (self.digest, self.media_type.clone());
                ops.push(Op::PutManifest { repository: named.clone(), digest, media_type, subject });
            }
        }
        for tag in &self.tags {
            ops.extend(set_tag(facts, &repository, named, tag, &self.digest, &self.expect_tag)?);
        }
        Ok(ops)
    }
}

/// Lets a tag name a manifest of the repository.
#[derive(Debug)]
pub(crate) struct SetTag {
    pub(crate) repository: Named,
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
    pub(crate) expect: ExpectTag,
}

impl Apply for SetTag {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let repository = repository(facts, &self.repository)?;
        if find::manifest(facts, self.repository.id, &self.digest)?.is_none() {
            return Err(manifest_not_found(self.digest));
        }
        let op = set_tag(facts, &repository, &self.repository, &self.tag, &self.digest, &self.expect)?;
        Ok(op.into_iter().collect())
    }
}
