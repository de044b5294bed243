//! What a repository should hold, in plain maps, and what each call on it should come to.

use std::collections::{BTreeMap, BTreeSet};

use strongroom::registry::{
    ExpectDocument, ExpectTag, ImageAction, Reference, RepositorySettings, StorageClass, TagMutability,
};
use strongroom::{Algorithm, Digest};

use super::registry::tag;

/// For how long the stores of the tests keep blobs that nothing holds, in milliseconds.
pub const RETENTION: u64 = 100_000;

/// With this precision they note that somebody relies on a blob.
const PRECISION: u64 = RETENTION / 8;

/// Whether it is noted anew that somebody relies on what was relied on at a time.
pub fn is_stale(touched: u64, now: u64) -> bool {
    touched + PRECISION <= now
}

/// Whether nobody relies any more on what was relied on at a time.
pub fn has_expired(touched: u64, now: u64) -> bool {
    touched + RETENTION + PRECISION <= now
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    Blob(Digest),
    Manifest(Digest),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    pub immutable: bool,
    pub exclusions: Vec<String>,
}

impl Settings {
    pub fn for_store(&self) -> RepositorySettings {
        let mutability = if self.immutable { TagMutability::Immutable } else { TagMutability::Mutable };
        let exclusions: Vec<_> = self.exclusions.iter().map(|filter| filter.parse().expect("a filter")).collect();
        RepositorySettings::new().mutability(mutability).exclusions(exclusions).expect("few")
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link {
    pub count: u32,
    pub touched: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Manifest {
    pub media_type: String,
    pub artifact_type: Option<String>,
    pub subject: Option<Digest>,
    pub count: u32,
    /// What it holds: of this only the counts can be seen.
    pub held: BTreeSet<Held>,
    pub archived: bool,
    /// When it was pulled last.
    pub pulled: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Repository {
    pub settings: Settings,
    /// A push created it and none was completed: when an upload into it was last begun, as far as that is noted.
    pub provisional: Option<u64>,
    pub links: BTreeMap<Digest, Link>,
    pub manifests: BTreeMap<Digest, Manifest>,
    pub tags: BTreeMap<String, Digest>,
    pub documents: BTreeMap<String, Vec<u8>>,
}

/// A manifest that is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    pub content: Vec<u8>,
    pub algorithm: Algorithm,
    pub media_type: String,
    pub artifact_type: Option<String>,
    pub subject: Option<Digest>,
    /// The blobs that it references, and whether each may be absent.
    pub blobs: Vec<(Digest, bool)>,
    pub manifests: Vec<Digest>,
    /// Whether its references are given with it, since the document is none that is parsed.
    pub explicit: bool,
    pub sparse: bool,
    /// Whether blobs may be absent, and are held when they arrive.
    pub awaits: bool,
    pub tags: Vec<String>,
    pub expect: ExpectTag,
}

impl Push {
    pub fn digest(&self) -> Digest {
        Digest::of(self.algorithm, &self.content)
    }
}

/// What is called on a repository.
#[derive(Clone, Debug)]
pub enum Action {
    Create(Settings),
    CreateOnPush(Settings),
    Set(Settings),
    Delete {
        with_contents: bool,
    },
    Put {
        content: Vec<u8>,
        algorithm: Algorithm,
    },
    Mount {
        digest: Digest,
        from: String,
    },
    RemoveBlob(Digest),
    Claim(Digest),
    PutManifest(Push),
    Tag {
        tag: String,
        digest: Digest,
        expect: ExpectTag,
    },
    Untag(String),
    /// Sets a document, or removes it.
    Document {
        name: String,
        content: Option<Vec<u8>>,
        expect: ExpectDocument,
    },
    DeleteManifest(Digest),
    DeleteBatch(Vec<Reference>),
    /// Archives a manifest, or restores it.
    Archive {
        digest: Digest,
        class: StorageClass,
    },
    /// Deletes or archives manifests that have not changed since they were looked at.
    Act(Vec<(Digest, ImageAction)>),
    Pull(Reference),
    /// How many manifests hold a blob.
    Stat(Digest),
    /// How many hold a manifest.
    Info(Digest),
    Resolve(String),
    Tags,
}

/// What a call comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Refused(Refusal),
    /// What became of each part.
    Each(Vec<Option<Refusal>>),
    Count(u32),
    Found(Digest),
    Names(Vec<String>),
}

/// Why a call is refused: the errors that say something of what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    BlobNotFound(Digest),
    BlobInUse(Digest, u32),
    ManifestNotFound(String),
    ManifestInUse(Digest, u32),
    Archived(Digest),
    Missing { blobs: BTreeSet<Digest>, manifests: BTreeSet<Digest> },
    TagImmutable(String, Digest),
    TagMoved(String, Option<Digest>),
    MediaType,
    Held,
    NoRepository,
    Exists,
    NotEmpty,
    DocumentNotFound(String),
    DocumentChanged(String),
}

/// Does a call on the repository of a name, which is there or not. What is refused changes nothing.
pub fn apply(state: &mut Option<Repository>, action: &Action, source: Option<&Repository>, now: u64) -> Outcome {
    let mut changed = state.clone();
    match decide(&mut changed, action, source, now) {
        Ok(outcome) => {
            if let Some(repository) = &mut changed {
                repository.recount();
            }
            *state = changed;
            outcome
        }
        Err(refusal) => Outcome::Refused(refusal),
    }
}

fn decide(
    state: &mut Option<Repository>,
    action: &Action,
    source: Option<&Repository>,
    now: u64,
) -> Result<Outcome, Refusal> {
    if let Action::Create(settings) = action {
        let state = state.get_or_insert_with(|| Repository { provisional: Some(now), ..Repository::default() });
        if state.provisional.is_none() {
            return Err(Refusal::Exists);
        }
        (state.settings, state.provisional) = (settings.clone(), None);
        return Ok(Outcome::Done);
    }
    if let Action::CreateOnPush(settings) = action {
        let (settings, provisional) = (settings.clone(), Some(now));
        state.get_or_insert_with(|| Repository { settings, provisional, ..Repository::default() }).touch(now);
        return Ok(Outcome::Done);
    }
    let Some(repository) = state else {
        return Err(Refusal::NoRepository);
    };
    match action {
        Action::Create(_) | Action::CreateOnPush(_) => {}
        Action::Set(settings) => (repository.settings, repository.provisional) = (settings.clone(), None),
        Action::Delete { with_contents } => {
            if !with_contents && !repository.manifests.is_empty() {
                return Err(Refusal::NotEmpty);
            }
            *state = None;
        }
        Action::Put { content, algorithm } => repository.link(Digest::of(*algorithm, content), now),
        Action::Mount { digest, .. } => {
            if source.is_none_or(|source| !source.links.contains_key(digest)) {
                return Err(Refusal::BlobNotFound(*digest));
            }
            repository.link(*digest, now);
        }
        Action::RemoveBlob(digest) => match repository.count_of(digest)? {
            0 => drop(repository.links.remove(digest)),
            count => return Err(Refusal::BlobInUse(*digest, count)),
        },
        Action::Claim(digest) => {
            let count = repository.count_of(digest)?;
            repository.link(*digest, now);
            return Ok(Outcome::Count(count));
        }
        Action::PutManifest(push) => repository.push(push, now)?,
        Action::Tag { tag, digest, expect } => {
            if !repository.manifests.contains_key(digest) {
                return Err(Refusal::ManifestNotFound(digest.to_string()));
            }
            repository.set_tag(tag, digest, expect)?;
        }
        Action::Document { name, content, expect } => repository.set_document(name, content.as_ref(), *expect)?,
        Action::Untag(tag) => repository.delete(&Reference::Tag(super::registry::tag(tag)), now)?,
        Action::DeleteManifest(digest) => repository.delete(&Reference::Digest(*digest), now)?,
        Action::Archive { digest, class } => repository.set_class(digest, *class)?,
        Action::Act(actions) => return Ok(Outcome::Each(repository.act(actions, now))),
        Action::DeleteBatch(references) => return Ok(Outcome::Each(repository.delete_batch(references, now))),
        Action::Pull(reference) => {
            let digest = repository.find(reference)?;
            if repository.manifests[&digest].archived {
                return Err(Refusal::Archived(digest));
            }
            repository.manifests.get_mut(&digest).expect("found").pulled = Some(now);
            return Ok(Outcome::Found(digest));
        }
        Action::Stat(digest) => return repository.count_of(digest).map(Outcome::Count),
        Action::Info(digest) => {
            repository.find(&Reference::Digest(*digest))?;
            return Ok(Outcome::Count(repository.holders(Held::Manifest(*digest))));
        }
        Action::Resolve(tag) => {
            let found = repository.tags.get(tag).ok_or_else(|| Refusal::ManifestNotFound(tag.clone()))?;
            return Ok(Outcome::Found(*found));
        }
        Action::Tags => return Ok(Outcome::Names(repository.tags.keys().cloned().collect())),
    }
    Ok(Outcome::Done)
}

impl Repository {
    fn holders(&self, held: Held) -> u32 {
        self.manifests.values().filter(|manifest| manifest.held.contains(&held)).count() as u32
    }

    fn count_of(&self, digest: &Digest) -> Result<u32, Refusal> {
        let is_there = self.links.contains_key(digest);
        is_there.then(|| self.holders(Held::Blob(*digest))).ok_or(Refusal::BlobNotFound(*digest))
    }

    fn recount(&mut self) {
        let mut holders: BTreeMap<Held, u32> = BTreeMap::new();
        for held in self.manifests.values().flat_map(|manifest| &manifest.held) {
            *holders.entry(*held).or_default() += 1;
        }
        let count = |held| holders.get(&held).copied().unwrap_or_default();
        self.links.iter_mut().for_each(|(digest, link)| link.count = count(Held::Blob(*digest)));
        self.manifests.iter_mut().for_each(|(digest, manifest)| manifest.count = count(Held::Manifest(*digest)));
    }

    /// Somebody pushes, mounts or claims a blob.
    fn link(&mut self, digest: Digest, now: u64) {
        let held = self.holders(Held::Blob(digest)) > 0;
        let link = self.links.entry(digest).or_insert(Link { count: 0, touched: now });
        if !held && link.touched + PRECISION <= now {
            link.touched = now;
        }
    }

    fn find(&self, reference: &Reference) -> Result<Digest, Refusal> {
        let digest = match reference {
            Reference::Tag(tag) => self.tags.get(tag.as_str()),
            Reference::Digest(digest) => Some(digest),
        };
        let found = digest.filter(|digest| self.manifests.contains_key(digest));
        found.copied().ok_or_else(|| Refusal::ManifestNotFound(reference.to_string()))
    }

    fn push(&mut self, push: &Push, now: u64) -> Result<(), Refusal> {
        let digest = push.digest();
        if self.manifests.get(&digest).is_some_and(|known| known.media_type != push.media_type) {
            return Err(Refusal::MediaType);
        }
        // What others hold comes to hold no other manifest that holds some: it might be one of those.
        let known = self.manifests.get(&digest);
        let is_new = |other: &Digest| known.is_none_or(|known| !known.held.contains(&Held::Manifest(*other)));
        let holds_some = |other: &Manifest| other.held.iter().any(|held| matches!(held, Held::Manifest(_)));
        let mut others = push.manifests.iter().filter(|other| **other != digest && is_new(other));
        if self.holders(Held::Manifest(digest)) > 0
            && others.any(|other| self.manifests.get(other).is_some_and(holds_some))
        {
            return Err(Refusal::Held);
        }
        let (mut blobs, mut manifests, mut held) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (blob, may_be_absent) in &push.blobs {
            if self.links.contains_key(blob) || push.awaits && !may_be_absent {
                held.insert(Held::Blob(*blob));
            } else if !may_be_absent {
                blobs.insert(*blob);
            }
        }
        // It is there when it is there: that it references itself says nothing.
        for manifest in push.manifests.iter().filter(|manifest| **manifest != digest) {
            if self.manifests.contains_key(manifest) || push.sparse {
                held.insert(Held::Manifest(*manifest));
            } else {
                manifests.insert(*manifest);
            }
        }
        if !blobs.is_empty() || !manifests.is_empty() {
            return Err(Refusal::Missing { blobs, manifests });
        }
        let manifest = self.manifests.entry(digest).or_insert_with(|| Manifest {
            media_type: push.media_type.clone(),
            artifact_type: push.artifact_type.clone(),
            subject: push.subject,
            ..Manifest::default()
        });
        manifest.held.extend(held);
        self.restore(&digest);
        let _ = now; // what is held needs nobody who relies on it
        self.provisional = None;
        push.tags.iter().try_for_each(|tag| self.set_tag(tag, &digest, &push.expect))
    }

    fn act(&mut self, actions: &[(Digest, ImageAction)], now: u64) -> Vec<Option<Refusal>> {
        let mut act = |(digest, action): &(Digest, ImageAction)| match self.holders(Held::Manifest(*digest)) {
            count @ 1.. => Err(Refusal::ManifestInUse(*digest, count)),
            0 if *action == ImageAction::Archive => self.set_class(digest, StorageClass::Archive),
            0 => self.delete(&Reference::Digest(*digest), now),
        };
        actions.iter().map(|action| act(action).err()).collect()
    }

    fn set_class(&mut self, digest: &Digest, class: StorageClass) -> Result<(), Refusal> {
        let found = self.manifests.get(digest).ok_or_else(|| Refusal::ManifestNotFound(digest.to_string()))?;
        match class {
            StorageClass::Standard if found.archived => self.restore(digest),
            StorageClass::Archive if !found.archived => match self.holders(Held::Manifest(*digest)) {
                0 => self.archive(digest),
                count => return Err(Refusal::ManifestInUse(*digest, count)),
            },
            _ => {}
        }
        Ok(())
    }

    /// What a manifest holds is archived with it, where it alone holds it.
    fn archive(&mut self, digest: &Digest) {
        let Some(manifest) = self.manifests.get_mut(digest).filter(|one| !one.archived) else { return };
        manifest.archived = true;
        for held in manifest.held.clone() {
            if let (Held::Manifest(below), 1) = (held, self.holders(held)) {
                self.archive(&below);
            }
        }
    }

    /// What can be pulled holds nothing that can't be.
    fn restore(&mut self, digest: &Digest) {
        let Some(manifest) = self.manifests.get_mut(digest) else { return };
        manifest.archived = false;
        for held in manifest.held.clone() {
            if let Held::Manifest(below) = held {
                self.restore(&below);
            }
        }
    }

    /// A push begins.
    pub fn touch(&mut self, now: u64) {
        self.provisional = self.provisional.map(|touched| if is_stale(touched, now) { now } else { touched });
    }

    /// Whether a collection takes it, after what has expired in it. What is not empty, or has uploads, is looked at
    /// again later.
    pub fn expires(&mut self, has_uploads: bool, now: u64) -> bool {
        let expired = self.provisional.is_some_and(|touched| has_expired(touched, now));
        let is_empty = self.links.is_empty() && !has_uploads;
        if expired && !is_empty {
            self.provisional = Some(now);
        }
        expired && is_empty
    }

    fn set_tag(&mut self, name: &str, digest: &Digest, expect: &ExpectTag) -> Result<(), Refusal> {
        let old = self.tags.get(name).copied();
        let is_expected = match expect {
            ExpectTag::Any => true,
            ExpectTag::Absent => old.is_none(),
            ExpectTag::Is(expected) => old == Some(*expected),
        };
        if !is_expected {
            return Err(Refusal::TagMoved(name.to_owned(), old));
        }
        match old {
            Some(old) if old != *digest && self.settings.for_store().is_immutable(&tag(name)) => {
                Err(Refusal::TagImmutable(name.to_owned(), old))
            }
            _ => {
                self.tags.insert(name.to_owned(), *digest);
                Ok(())
            }
        }
    }

    fn set_document(&mut self, name: &str, content: Option<&Vec<u8>>, expect: ExpectDocument) -> Result<(), Refusal> {
        let is_there = self.documents.contains_key(name);
        if is_there && expect == ExpectDocument::Absent {
            return Err(Refusal::DocumentChanged(name.to_owned()));
        }
        match content {
            Some(content) => {
                self.documents.insert(name.to_owned(), content.clone());
                self.provisional = None;
            }
            None if is_there => drop(self.documents.remove(name)),
            None => return Err(Refusal::DocumentNotFound(name.to_owned())),
        }
        Ok(())
    }

    fn delete(&mut self, reference: &Reference, now: u64) -> Result<(), Refusal> {
        let not_found = || Refusal::ManifestNotFound(reference.to_string());
        match reference {
            Reference::Tag(tag) => self.tags.remove(tag.as_str()).map(drop).ok_or_else(not_found),
            Reference::Digest(digest) => {
                let held = self.manifests.get(digest).ok_or_else(not_found)?.held.clone();
                match self.holders(Held::Manifest(*digest)) {
                    0 => {}
                    count => return Err(Refusal::ManifestInUse(*digest, count)),
                }
                self.manifests.remove(digest);
                self.tags.retain(|_, named| named != digest);
                for held in held {
                    if let Held::Blob(blob) = held {
                        self.links.entry(blob).and_modify(|link| link.touched = now);
                    }
                }
                Ok(())
            }
        }
    }

    /// Deletes what can be deleted, in the order given, and again while that lets go of others.
    fn delete_batch(&mut self, references: &[Reference], now: u64) -> Vec<Option<Refusal>> {
        let mut results: Vec<_> = references.iter().map(|_| None).collect();
        for is_tag in [true, false] {
            for (reference, result) in references.iter().zip(&mut results) {
                if matches!(reference, Reference::Tag(_)) == is_tag {
                    *result = self.delete(reference, now).err();
                }
            }
        }
        loop {
            let mut progress = false;
            for (reference, result) in references.iter().zip(&mut results) {
                if matches!(result, Some(Refusal::ManifestInUse(..))) {
                    *result = self.delete(reference, now).err();
                    progress |= !matches!(result, Some(Refusal::ManifestInUse(..)));
                }
            }
            if !progress {
                return results;
            }
        }
    }

    /// The blobs that nobody relies on any more.
    pub fn expired(&self, now: u64) -> Vec<Digest> {
        let expired = |link: &Link| link.count == 0 && has_expired(link.touched, now);
        self.links.iter().filter(|(_, link)| expired(link)).map(|(digest, _)| *digest).collect()
    }

    /// What of it can be seen.
    pub fn outline(&self) -> Self {
        let mut seen = Self { provisional: None, ..self.clone() };
        seen.links.values_mut().for_each(|link| link.touched = 0);
        for manifest in seen.manifests.values_mut() {
            (manifest.held, manifest.pulled) = (BTreeSet::new(), None);
        }
        seen
    }
}
