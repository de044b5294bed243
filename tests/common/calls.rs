//! Calls on repositories: drawn from numbers, done on a store, and what a store's repositories hold, read back.

use std::collections::{BTreeMap, BTreeSet};

use strongroom::registry::{
    ConditionalAction, ExpectDocument, ExpectTag, ImageAction, PutManifest, Reference, RepositoryDeletion,
    StorageClass, TagMutability,
};
use strongroom::{Algorithm, Digest, Error, ManifestProblem, Page, Result, Store};

use super::registry::{IMAGE, INDEX, descriptor, name, tag};
use super::repositories::{Action, Link, Manifest, Outcome, Push, Refusal, Repository, Settings};
use super::{Model, Random, content, nth, staged};

pub const NAMES: [&str; 3] = ["team/app", "team/other", "library/base"];
const TAGS: [&str; 4] = ["v1", "v2", "latest", "dev-1"];

/// A call on the repository of a name.
#[derive(Clone, Debug)]
pub struct Call {
    pub repository: String,
    pub action: Action,
}

/// What kind of call is to be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Create,
    CreateOnPush,
    Set,
    Delete,
    Put,
    Mount,
    RemoveBlob,
    Claim,
    Image,
    Index,
    Document,
    Again,
    Tag,
    Untag,
    Policy,
    DeleteManifest,
    DeleteBatch,
    Archive,
    Restore,
    Act,
    Pull,
    Look,
    /// A manifest with so many tags that its repository goes in several steps.
    ManyTags,
}

/// Kinds as often as they are drawn.
pub const KINDS: [Kind; 40] = {
    use Kind::*;
    [
        Create,
        Create,
        CreateOnPush,
        CreateOnPush,
        Set,
        Delete,
        Put,
        Put,
        Put,
        Put,
        Put,
        Put,
        Mount,
        Mount,
        RemoveBlob,
        Claim,
        Image,
        Image,
        Image,
        Image,
        Image,
        Index,
        Index,
        Index,
        Document,
        Document,
        Again,
        Again,
        Tag,
        Tag,
        Untag,
        Policy,
        DeleteManifest,
        DeleteBatch,
        Archive,
        Archive,
        Restore,
        Act,
        Act,
        Pull,
    ]
};

fn one<T: Clone>(random: &mut Random, of: &[T]) -> Option<T> {
    of.get((random.next() as usize).checked_rem(of.len())?).cloned()
}

/// A digest among these, or now and then one of all blobs that there are.
fn digest<V>(random: &mut Random, among: &BTreeMap<Digest, V>, model: &Model) -> Option<Digest> {
    let own = if random.below(16) == 0 { None } else { nth(among, random.next()) };
    own.or_else(|| nth(&model.blobs, random.next()))
}

/// A tag, rather one that there is.
fn some_tag(random: &mut Random, own: &Repository) -> String {
    let known = if random.below(3) == 0 { None } else { nth(&own.tags, random.next()) };
    known.unwrap_or_else(|| TAGS[random.below(TAGS.len() as u64) as usize].to_owned())
}

impl Kind {
    /// Draws a call of this kind; none where there is nothing that it could be about.
    pub fn draw(self, model: &Model, repository: u64, random: &mut Random) -> Option<Call> {
        let repository = NAMES[(repository % NAMES.len() as u64) as usize].to_owned();
        let nothing = Repository::default();
        let own = model.repositories.get(&repository).unwrap_or(&nothing);
        let action = match self {
            Self::Create => Action::Create(settings(random)),
            Self::CreateOnPush => Action::CreateOnPush(settings(random)),
            Self::Set => Action::Set(settings(random)),
            Self::Delete => Action::Delete { with_contents: random.below(2) == 0 },
            Self::Put => Action::Put { content: content(random), algorithm: algorithm(random) },
            Self::Mount => {
                let from = one(random, &NAMES)?.to_owned();
                let links = model.repositories.get(&from).map(|source| &source.links).unwrap_or(&nothing.links);
                Action::Mount { digest: digest(random, links, model)?, from }
            }
            Self::RemoveBlob => Action::RemoveBlob(digest(random, &own.links, model)?),
            Self::Claim => Action::Claim(digest(random, &own.links, model)?),
            Self::Image => Action::PutManifest(image(model, own, random)?),
            Self::Index => Action::PutManifest(index(model, own, random)?),
            Self::Document => Action::PutManifest(document(model, own, random)?),
            Self::Again => Action::PutManifest(with_tags(one(random, &model.pushes)?, own, random)),
            Self::Tag => {
                let tag = some_tag(random, own);
                Action::Tag { digest: digest(random, &own.manifests, model)?, expect: expect(own, &tag, random), tag }
            }
            Self::ManyTags => {
                let mut push = document(model, own, random)?;
                push.tags = (0..140).map(|n| format!("tag-{n}")).collect();
                Action::PutManifest(push)
            }
            Self::Untag => Action::Untag(some_tag(random, own)),
            Self::Policy => {
                let content = (random.below(3) > 0).then(|| content(random));
                let expect = [ExpectDocument::Any, ExpectDocument::Absent][random.below(2) as usize];
                Action::Document { name: format!("policy {}", random.below(3)), content, expect }
            }
            Self::DeleteManifest => Action::DeleteManifest(digest(random, &own.manifests, model)?),
            Self::DeleteBatch => Action::DeleteBatch(references(model, own, random)),
            Self::Archive => {
                Action::Archive { digest: digest(random, &own.manifests, model)?, class: StorageClass::Archive }
            }
            Self::Restore => {
                let archived = own.manifests.iter().filter(|(_, one)| one.archived).map(|(digest, one)| (*digest, one));
                let digest = digest(random, &archived.collect(), model)?;
                Action::Archive { digest, class: StorageClass::Standard }
            }
            Self::Act => {
                let digests: BTreeSet<Digest> =
                    (0..1 + random.below(3)).filter_map(|_| nth(&own.manifests, random.next())).collect();
                let actions = [ImageAction::Expire, ImageAction::Expire, ImageAction::Archive];
                let action = |digest| (digest, actions[random.below(3) as usize]);
                let mut actions: Vec<_> = digests.into_iter().map(action).collect();
                if random.below(2) == 0 {
                    actions.reverse();
                }
                Some(Action::Act(actions)).filter(|_| !own.manifests.is_empty())?
            }
            Self::Pull => Action::Pull(references(model, own, random).pop()?),
            Self::Look => match random.below(4) {
                0 => Action::Stat(digest(random, &own.links, model)?),
                1 => Action::Info(digest(random, &own.manifests, model)?),
                2 => Action::Resolve(some_tag(random, own)),
                _ => Action::Tags,
            },
        };
        Some(Call { repository, action })
    }
}

fn settings(random: &mut Random) -> Settings {
    let all = [(false, vec![]), (false, vec![]), (true, vec!["latest", "dev-*"]), (false, vec!["v*"])];
    let (immutable, exclusions) = one(random, &all).expect("some");
    Settings { immutable, exclusions: exclusions.into_iter().map(str::to_owned).collect() }
}

fn algorithm(random: &mut Random) -> Algorithm {
    [Algorithm::Sha256, Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3][random.below(4) as usize]
}

fn references(model: &Model, own: &Repository, random: &mut Random) -> Vec<Reference> {
    let mut references = BTreeSet::new();
    for _ in 0..1 + random.below(4) {
        if random.below(3) == 0 {
            references.insert(Reference::Tag(tag(&some_tag(random, own))));
        } else {
            references.extend(digest(random, &own.manifests, model).map(Reference::Digest));
        }
    }
    let mut references: Vec<_> = references.into_iter().collect();
    if random.below(2) == 0 {
        references.reverse();
    }
    references
}

fn expect(own: &Repository, tag: &str, random: &mut Random) -> ExpectTag {
    match random.below(8) {
        0 => ExpectTag::Absent,
        1 => nth(&own.manifests, random.next()).map_or(ExpectTag::Absent, ExpectTag::Is),
        2 | 3 => own.tags.get(tag).map_or(ExpectTag::Absent, |now| ExpectTag::Is(*now)),
        _ => ExpectTag::Any,
    }
}

fn with_tags(mut push: Push, own: &Repository, random: &mut Random) -> Push {
    push.tags.clear();
    for _ in 0..random.below(3) {
        push.tags.extend(Some(some_tag(random, own)).filter(|tag| !push.tags.contains(tag)));
    }
    push.expect = match push.tags.first() {
        Some(tag) => expect(own, tag, random),
        None => ExpectTag::Any,
    };
    push
}

fn push(media_type: &str, random: &mut Random) -> Push {
    Push {
        content: Vec::new(),
        algorithm: algorithm(random),
        media_type: media_type.to_owned(),
        artifact_type: None,
        subject: None,
        blobs: Vec::new(),
        manifests: Vec::new(),
        explicit: false,
        sparse: false,
        awaits: false,
        tags: Vec::new(),
        expect: ExpectTag::Any,
    }
}

/// A subject, there or not, and the end of a document that has it.
fn end(push: &mut Push, own: &Repository, random: &mut Random) -> String {
    let n = random.below(3);
    if random.below(3) == 0 {
        let absent = Digest::of(Algorithm::Sha256, &[n as u8]);
        push.subject = Some(nth(&own.manifests, random.next()).filter(|_| n > 0).unwrap_or(absent));
    }
    let subject = push.subject.map(|subject| format!(r#","subject":{}"#, descriptor(IMAGE, &subject)));
    // Long enough, sometimes, that it comes after other content of its group in the log.
    format!(r#"{},"annotations":{{"n":"{}"}}}}"#, subject.unwrap_or_default(), "x".repeat(n as usize * 300))
}

fn image(model: &Model, own: &Repository, random: &mut Random) -> Option<Push> {
    let mut push = push(IMAGE, random);
    let config = digest(random, &own.links, model)?;
    push.blobs.push((config, false));
    let mut layers = Vec::new();
    for _ in 0..random.below(4) {
        let layer = digest(random, &own.links, model)?;
        let may_be_absent = random.below(4) == 0;
        push.blobs.push((layer, may_be_absent));
        let kind = if may_be_absent { "nondistributable.v1.tar" } else { "v1.tar" };
        layers.push(descriptor(&format!("application/vnd.oci.image.layer.{kind}"), &layer));
    }
    push.awaits = random.below(4) == 0;
    let kind = "application/vnd.oci.image.config.v1+json";
    push.artifact_type = Some(kind.to_owned());
    let (config, layers, end) = (descriptor(kind, &config), layers.join(","), end(&mut push, own, random));
    push.content = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]{end}"#).into_bytes();
    Some(with_tags(push, own, random))
}

fn index(model: &Model, own: &Repository, random: &mut Random) -> Option<Push> {
    let mut push = push(INDEX, random);
    for _ in 0..1 + random.below(3) {
        push.manifests.push(digest(random, &own.manifests, model)?);
    }
    push.sparse = random.below(2) == 0;
    push.artifact_type = (random.below(2) == 0).then(|| "example/sbom".to_owned());
    let kind = push.artifact_type.as_ref().map(|kind| format!(r#""artifactType":"{kind}","#)).unwrap_or_default();
    let manifests: Vec<_> = push.manifests.iter().map(|digest| descriptor(IMAGE, digest)).collect();
    let (manifests, end) = (manifests.join(","), end(&mut push, own, random));
    push.content = format!(r#"{{"schemaVersion":2,{kind}"manifests":[{manifests}]{end}"#).into_bytes();
    Some(with_tags(push, own, random))
}

/// A document of a type that is not parsed, whose references come with it, others each time.
fn document(model: &Model, own: &Repository, random: &mut Random) -> Option<Push> {
    let kind = if random.below(6) == 0 { "example/other" } else { "example/document" };
    let mut push = push(kind, random);
    (push.explicit, push.algorithm) = (true, Algorithm::Sha256);
    push.content = format!("document {}", random.below(3)).into_bytes();
    for _ in 0..random.below(3) {
        push.blobs.push((digest(random, &own.links, model)?, false));
    }
    for _ in 0..random.below(3) {
        push.manifests.push(digest(random, &own.manifests, model)?);
    }
    if random.below(8) == 0 {
        push.manifests.push(push.digest());
    }
    push.sparse = random.below(3) == 0;
    push.awaits = random.below(4) == 0;
    Some(with_tags(push, own, random))
}

impl Call {
    /// Does the call on a store. An error is one of the store, not one of what it holds.
    pub fn run(&self, store: &Store) -> Result<Outcome> {
        self.attempt(store).or_else(|error| refusal(error).map(Outcome::Refused))
    }

    fn attempt(&self, store: &Store) -> Result<Outcome> {
        let named = name(&self.repository);
        match &self.action {
            Action::Create(settings) => {
                store.create_repository(&named, settings.for_store())?;
                return Ok(Outcome::Done);
            }
            Action::CreateOnPush(settings) => {
                store.create_on_push(&named, settings.for_store())?;
                return Ok(Outcome::Done);
            }
            Action::Delete { with_contents } => {
                let how = if *with_contents { RepositoryDeletion::WithContents } else { RepositoryDeletion::IfEmpty };
                store.delete_repository(&named, how)?;
                return Ok(Outcome::Done);
            }
            _ => {}
        }
        let repository = store.repository(&named)?;
        match &self.action {
            Action::Create(_) | Action::CreateOnPush(_) | Action::Delete { .. } => {}
            Action::Set(settings) => drop(repository.set_settings(settings.for_store())?),
            Action::Put { content, algorithm } => {
                let digest = Digest::of(*algorithm, content);
                let stored = match (staged(&digest, content), way(&digest)) {
                    (Some(file), _) => repository.put_file(file.path(), *algorithm)?,
                    (None, Way::Many) => repository.put_many([(content, *algorithm)])?.remove(0)?,
                    (None, Way::One) => repository.put_reader(&content[..], *algorithm)?,
                };
                assert_eq!(stored.digest, digest);
            }
            Action::Mount { digest, from } => drop(repository.mount(digest, &name(from), |_| true)?),
            Action::RemoveBlob(digest) => drop(repository.remove_blob(digest)?),
            Action::Claim(digest) => {
                let claimed = match way(digest) {
                    Way::Many => repository.claim_many(&[*digest])?.remove(0)?,
                    Way::One => repository.claim(digest)?,
                };
                return Ok(Outcome::Count(claimed.references));
            }
            Action::PutManifest(push) => {
                let mut put = PutManifest::new(&push.media_type).expect(push.algorithm).expect_tag(push.expect);
                if push.explicit {
                    let blobs: Vec<_> = push.blobs.iter().map(|(digest, _)| *digest).collect();
                    put = put.references(blobs, push.manifests.clone());
                }
                if push.sparse {
                    put = put.allow_missing_manifests();
                }
                if push.awaits {
                    put = put.allow_missing_blobs();
                }
                put = push.tags.iter().fold(put, |put, name| put.tag(tag(name)));
                let pushed = repository.put_manifest(&push.content, put)?;
                assert_eq!((pushed.digest, pushed.subject), (push.digest(), push.subject));
            }
            Action::Tag { tag: name, digest, expect } => drop(repository.tag(&tag(name), digest, *expect)?),
            Action::Untag(name) => drop(repository.untag(&tag(name))?),
            Action::Document { name, content: Some(content), expect } => {
                let revision = repository.set_document(name, content, *expect)?;
                assert_eq!(repository.document(name)?.map(|document| document.revision), Some(revision));
            }
            Action::Document { name, content: None, expect } => drop(repository.remove_document(name, *expect)?),
            Action::DeleteManifest(digest) => drop(repository.delete_manifest(digest)?),
            Action::DeleteBatch(references) => {
                let results = repository.delete_batch(references)?.into_iter();
                let each = results.map(|result| result.err().map(refusal).transpose());
                return each.collect::<Result<_>>().map(Outcome::Each);
            }
            Action::Archive { digest, class } => drop(repository.set_storage_class(digest, *class)?),
            Action::Act(actions) => {
                let images = match way(&actions[0].0) {
                    Way::Many => {
                        let digests: Vec<_> = actions.iter().map(|(digest, _)| *digest).collect();
                        repository.image_facts_many(&digests)?.into_iter().flatten().collect()
                    }
                    Way::One => all(|after| repository.image_facts(after, 2))?,
                };
                let decided = |(digest, action): &(Digest, ImageAction)| {
                    let image = images.iter().find(|image| image.digest == *digest).expect("it is there");
                    ConditionalAction { digest: *digest, expect: image.version, action: *action }
                };
                let decided: Vec<_> = actions.iter().map(decided).collect();
                let results = repository.apply_if_unchanged(&decided)?.into_iter();
                let each = results.map(|result| result.err().map(refusal).transpose());
                return each.collect::<Result<_>>().map(Outcome::Each);
            }
            Action::Pull(reference) => return Ok(Outcome::Found(repository.pull_manifest(reference)?.digest)),
            Action::Stat(digest) => {
                let missing = Error::BlobNotFound { digest: *digest };
                let found = match way(digest) {
                    Way::Many => repository.stat_many(&[*digest])?.remove(0).ok_or(missing)?,
                    Way::One => repository.snapshot()?.stat(digest)?,
                };
                return Ok(Outcome::Count(found.references));
            }
            Action::Info(digest) => return Ok(Outcome::Count(repository.manifest_info(&digest.into())?.references)),
            Action::Resolve(name) => return Ok(Outcome::Found(repository.resolve(&tag(name))?.digest)),
            Action::Tags => {
                let tags = repository.tags(None, usize::MAX)?.items;
                return Ok(Outcome::Names(tags.iter().map(ToString::to_string).collect()));
            }
        }
        Ok(Outcome::Done)
    }
}

/// How a call is made that there is for one and for many.
enum Way {
    One,
    Many,
}

/// The same for the same content.
fn way(digest: &Digest) -> Way {
    if digest.as_bytes()[0].is_multiple_of(2) { Way::One } else { Way::Many }
}

fn refusal(error: Error) -> Result<Refusal> {
    Ok(match error {
        Error::BlobNotFound { digest } => Refusal::BlobNotFound(digest),
        Error::BlobInUse { digest, count } => Refusal::BlobInUse(digest, count),
        Error::ManifestNotFound { reference } => Refusal::ManifestNotFound(reference),
        Error::ManifestInUse { digest, count } => Refusal::ManifestInUse(digest, count),
        Error::ManifestArchived { digest } => Refusal::Archived(digest),
        Error::ReferencesMissing { blobs, manifests } => {
            let count = blobs.len() + manifests.len();
            let (blobs, manifests) = (BTreeSet::from_iter(blobs), BTreeSet::from_iter(manifests));
            assert_eq!(blobs.len() + manifests.len(), count, "each is named once");
            Refusal::Missing { blobs, manifests }
        }
        Error::TagImmutable { tag, digest } => Refusal::TagImmutable(tag, digest),
        Error::TagMoved { tag, found } => Refusal::TagMoved(tag, found),
        Error::InvalidManifest { problem: ManifestProblem::MediaType { .. } } => Refusal::MediaType,
        Error::InvalidManifest { problem: ManifestProblem::References } => Refusal::Held,
        Error::RepositoryNotFound { .. } => Refusal::NoRepository,
        Error::RepositoryExists { .. } => Refusal::Exists,
        Error::RepositoryNotEmpty { .. } => Refusal::NotEmpty,
        Error::DocumentNotFound { name } => Refusal::DocumentNotFound(name),
        Error::DocumentChanged { name, .. } => Refusal::DocumentChanged(name),
        other => return Err(other),
    })
}

/// Reads all pages of something.
fn all<T, C>(list: impl FnMut(Option<&C>) -> Result<Page<T, C>>) -> Result<Vec<T>> {
    Page::all(list).collect()
}

/// The names of all repositories.
pub fn repositories(store: &Store) -> Result<Vec<String>> {
    let names = all(|after: Option<&String>| store.repositories(after.map(String::as_str), 2))?;
    Ok(names.iter().map(ToString::to_string).collect())
}

/// What a repository holds, read in every way there is.
pub fn observe_repository(store: &Store, repository: &str) -> Repository {
    let repository = store.repository(&name(repository)).expect("a listed repository");
    let settings = repository.info().expect("listed").settings;
    let mut seen = Repository {
        settings: Settings {
            immutable: settings.get_mutability() == TagMutability::Immutable,
            exclusions: settings.get_exclusions().iter().map(ToString::to_string).collect(),
        },
        ..Repository::default()
    };
    let blobs = all(|after| repository.blobs(after, 3)).expect("undamaged facts");
    let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    let opened = repository.get_many(&digests).expect("undamaged facts");
    for (blob, opened) in blobs.into_iter().zip(opened) {
        assert_eq!(repository.stat(&blob.digest).expect("listed"), blob);
        assert_eq!(opened.expect("listed").len(), blob.len);
        seen.links.insert(blob.digest, Link { count: blob.references, touched: 0 });
    }
    let manifests = all(|after| repository.manifests(after, 2)).expect("undamaged facts");
    for info in manifests {
        let manifest = repository.get_manifest(&info.digest.into()).expect("listed");
        assert_eq!((&manifest.media_type, manifest.content.len() as u64), (&info.media_type, info.len));
        assert_eq!(Digest::of(info.digest.algorithm(), &manifest.content), info.digest);
        let opened = repository.open_manifest(&info.digest.into()).expect("listed");
        assert_eq!((opened.media_type, opened.blob.len()), (manifest.media_type, info.len));
        let (media_type, artifact_type, subject) = (info.media_type, info.artifact_type, info.subject);
        let (count, held, pulled) = (info.references, BTreeSet::new(), None);
        let archived = info.storage_class == StorageClass::Archive;
        assert!(!archived || info.archived_ms.is_some());
        let manifest = Manifest { media_type, artifact_type, subject, count, held, archived, pulled };
        seen.manifests.insert(info.digest, manifest);
    }
    for name in all(|after: Option<&String>| repository.tags(after.map(String::as_str), 2)).expect("undamaged facts") {
        seen.tags.insert(name.to_string(), repository.resolve(&name).expect("a listed tag").digest);
    }
    for document in repository.documents().expect("undamaged facts") {
        assert_eq!(repository.document(&document.name).expect("listed"), Some(document.clone()));
        seen.documents.insert(document.name, document.content.to_vec());
    }
    for digest in seen.manifests.keys() {
        let tags: Vec<_> = repository.tags_of(digest).expect("facts").iter().map(ToString::to_string).collect();
        let expected = seen.tags.iter().filter(|(_, named)| *named == digest).map(|(tag, _)| tag.clone());
        assert_eq!(tags, expected.collect::<Vec<_>>(), "the tags of {digest}");
    }
    let images = all(|after| repository.images(after, 2)).expect("undamaged facts");
    let references: Vec<Reference> = images.iter().map(|image| image.digest.into()).collect();
    let again = repository.snapshot().and_then(|moment| moment.image_many(&references)).expect("undamaged facts");
    assert_eq!(again, images.iter().cloned().map(Some).collect::<Vec<_>>());
    assert!(images.iter().map(|image| &image.digest).eq(seen.manifests.keys()) || images.len() == seen.manifests.len());
    for image in images {
        let (one, info) = (&seen.manifests[&image.digest], repository.manifest_info(&image.digest.into()));
        let info = info.expect("listed");
        let tags = repository.tags_of(&image.digest).expect("undamaged facts");
        assert_eq!((image.tags, image.has_more_tags, image.holders), (tags, false, one.count));
        assert_eq!((image.pushed_ms, image.pulled_ms, image.subject), (info.pushed_ms, info.pulled_ms, info.subject));
        assert_eq!((image.storage_class, image.archived_ms), (info.storage_class, info.archived_ms));
    }
    let subjects: BTreeSet<Digest> =
        seen.manifests.iter().flat_map(|(digest, one)| one.subject.into_iter().chain([*digest])).collect();
    for subject in subjects {
        let listed = super::registry::referrer_pages(&repository, &subject, None, 2).concat();
        let listed: BTreeMap<_, _> = listed.into_iter().map(|one| (one.digest, one.artifact_type)).collect();
        let expected = seen.manifests.iter().filter(|(_, manifest)| manifest.subject == Some(subject));
        let expected: BTreeMap<_, _> = expected.map(|(digest, one)| (*digest, one.artifact_type.clone())).collect();
        assert_eq!(listed, expected, "the referrers of {subject}");
    }
    seen
}

/// When manifests were pulled last, as far as the store knows.
pub fn pulls(store: &Store) -> BTreeMap<(String, Digest), u64> {
    let mut pulls = BTreeMap::new();
    for name in repositories(store).expect("undamaged facts") {
        let repository = store.repository(&super::registry::name(&name)).expect("listed");
        for info in repository.manifests(None, usize::MAX).expect("facts").items {
            pulls.extend(info.pulled_ms.map(|time| ((name.clone(), info.digest), time)));
        }
    }
    pulls
}
