//! Stores with something of everything in three key domains, what they hold, and a keeper of keys that remembers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::keys::{DomainName, KeyContext, KeyError, KeyProvider, LocalKey, SecretKey};
use strongroom::registry::{Event, PutManifest, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{
    Algorithm, Clock, Digest, DomainInfo, Error, Finding, Lsn, NamedFiles, Options, PutNamed, Store, UploadId,
};

use crate::common::calls::{observe_repository, repositories};
use crate::common::registry::{image, name, tag};
use crate::common::repositories::Repository;
use crate::common::{self, Random, uploads_of};

/// The names of the domains that a store has besides the default one.
pub const DOMAINS: [&str; 2] = ["tenant-one", "tenant-two"];

pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3];

pub fn domain(name: &str) -> DomainName {
    name.parse().expect("a domain's name")
}

/// How a [`Keeper`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Denied,
    Gone,
    Unreachable,
}

/// What a data key is for, the key, and what it was wrapped as.
pub type SeenKey = (KeyContext, [u8; 32], Vec<u8>);

/// A local key that remembers each data key it was given, and what became of it; and that can refuse.
pub struct Keeper {
    pub secret: [u8; 32],
    key: LocalKey,
    /// The data keys seen, and what they were wrapped as.
    pub seen: Mutex<Vec<SeenKey>>,
    /// How many more calls it answers before it is in its mood, if it is to be.
    left: AtomicI64,
    mood: Mutex<Option<Mood>>,
    /// The domain whose keys alone it refuses, if it is one only.
    only: Mutex<Option<u32>>,
    /// How often it was asked to unwrap a key of that domain.
    pub asked: AtomicI64,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({:?})", self.key)
    }
}

impl Keeper {
    pub fn new(seed: u64) -> Arc<Self> {
        let secret: [u8; 32] = Random(seed).bytes(32).try_into().expect("32 bytes");
        Arc::new(Self {
            secret,
            key: LocalKey::new(SecretKey::from_bytes(secret)),
            seen: Mutex::default(),
            left: AtomicI64::new(0),
            mood: Mutex::default(),
            only: Mutex::default(),
            asked: AtomicI64::new(0),
        })
    }

    /// From the call after so many on it refuses.
    pub fn refuse_after(&self, calls: i64, mood: Mood) {
        self.left.store(calls, Ordering::SeqCst);
        *self.mood.lock().unwrap() = Some(mood);
    }

    /// From now on it refuses for one domain.
    pub fn refuse_domain(&self, domain: u32, mood: Mood) {
        *self.only.lock().unwrap() = Some(domain);
        self.refuse_after(0, mood);
    }

    pub fn answer_again(&self) {
        (*self.mood.lock().unwrap(), *self.only.lock().unwrap()) = (None, None);
    }

    /// All data keys it has seen.
    pub fn data_keys(&self) -> Vec<[u8; 32]> {
        let mut keys: Vec<_> = self.seen.lock().unwrap().iter().map(|(_, key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// What data keys of a domain were wrapped as.
    pub fn wrapped(&self, domain: u32) -> Vec<Vec<u8>> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(context, ..)| context.domain == domain).map(|(.., wrapped)| wrapped.clone()).collect()
    }

    fn check(&self, key_id: &str, context: &KeyContext) -> Result<(), KeyError> {
        if self.only.lock().unwrap().is_some_and(|only| only != context.domain) {
            return Ok(());
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let Some(mood) = *self.mood.lock().unwrap() else { return Ok(()) };
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        let reason = "as the test has it".to_owned();
        match mood {
            Mood::Denied => Err(KeyError::Denied { reason }),
            Mood::Gone => Err(KeyError::Gone { key_id: key_id.to_owned(), reason }),
            Mood::Unreachable => Err(KeyError::Unreachable { reason }),
        }
    }
}

impl KeyProvider for Keeper {
    fn key_id(&self) -> Result<String, KeyError> {
        self.key.key_id()
    }

    fn wrap(&self, key_id: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError> {
        self.check(key_id, context)?;
        let wrapped = self.key.wrap(key_id, key, context)?;
        self.seen.lock().unwrap().push((*context, *key.expose(), wrapped.clone()));
        Ok(wrapped)
    }

    fn unwrap(&self, key_id: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
        self.check(key_id, context)?;
        self.key.unwrap(key_id, wrapped, context)
    }
}

/// Options for a store on a simulated disk, with a key or without.
pub fn options(disk: &SimVfs, keeper: Option<&Arc<Keeper>>) -> Options {
    let options = common::options(disk, &Clock::manual());
    match keeper {
        Some(keeper) => options.key_provider(Arc::clone(keeper) as Arc<dyn KeyProvider>),
        None => options,
    }
}

pub fn open(disk: &SimVfs, keeper: Option<&Arc<Keeper>>) -> Result<Store, Error> {
    options(disk, keeper).open("/store")
}

/// Opens what is left of a store that may be encrypted by now or not, and with either key: the directory says.
pub fn open_any(disk: &SimVfs, keepers: &[&Arc<Keeper>]) -> Store {
    let mut errors = Vec::new();
    for keeper in keepers.iter().map(|keeper| Some(*keeper)).chain([None]) {
        match options(disk, keeper).create(false).open("/store") {
            Ok(store) => return store,
            Err(error) => {
                let is_told = matches!(error, Error::NotEncrypted { .. } | Error::KeyRequired { .. })
                    || matches!(error, Error::Key { source: KeyError::Wrong { .. }, .. });
                assert!(is_told, "{error}");
                errors.push(error);
            }
        }
    }
    panic!("neither with a key nor without: {errors:?}");
}

/// What was put into a store.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Contents of blobs, manifests among them.
    pub contents: Vec<Vec<u8>>,
    pub digests: Vec<Digest>,
    /// Uploads that are under way, and what was appended.
    pub uploads: BTreeMap<UploadId, Vec<u8>>,
    /// All ids of uploads there ever were.
    pub upload_ids: Vec<UploadId>,
    /// Names of everything.
    pub names: Vec<String>,
}

impl Known {
    pub fn content(&mut self, content: &[u8]) {
        self.contents.push(content.to_vec());
        self.digests.extend(ALGORITHMS.map(|algorithm| Digest::of(algorithm, content)));
    }

    fn named(&mut self, name: &str) {
        self.names.push(name.to_owned());
    }
}

/// The name of the repository of a domain.
pub fn repository_of(domain: Option<&str>) -> String {
    format!("{}/application", domain.unwrap_or("default"))
}

/// Puts something of everything into a domain: in a repository and, in the default domain, outside. `round` tells one
/// call from another.
pub fn fill(store: &Store, domain_name: Option<&str>, round: u64, known: &mut Known) {
    let own = domain_name.map_or(7, |name| name.bytes().map(u64::from).sum());
    let mut random = Random(own << 32 | round);
    let settings = RepositorySettings::new();
    let settings = domain_name.map_or(settings.clone(), |name| settings.domain(domain(name)));
    let repository_name = repository_of(domain_name);
    let repository = store.ensure_repository(&name(&repository_name), settings).expect("a repository");
    known.named(&repository_name);
    let mut layers = Vec::new();
    // The first two can be taken for each other by their lengths.
    for (n, len) in [24, 24, 900, 3000, 70_000].into_iter().enumerate() {
        let content = if len == 900 {
            format!("compressible content {round} {own} ").repeat(60).into_bytes()
        } else {
            random.bytes(len)
        };
        let algorithm = ALGORITHMS[(n + round as usize) % 3];
        layers.push(repository.put_reader(&content[..], algorithm).expect("space").digest);
        known.content(&content);
    }
    // The same in all domains.
    let shared = Random(round).bytes(1000);
    layers.push(repository.put(&shared, Algorithm::Sha256).expect("space").digest);
    known.content(&shared);
    let (media_type, document) = image(&layers, None);
    let tags = [format!("release-{round}-of-{own}"), format!("candidate-{round}-{own}")];
    let put = tags.iter().fold(PutManifest::new(media_type), |put, one| put.tag(tag(one)));
    let subject = repository.put_manifest(&document, put).expect("a manifest").digest;
    known.content(document.as_bytes());
    tags.iter().for_each(|tag| known.named(tag));
    let artifact_type = format!("application/vnd.signature-{round}");
    let config = common::registry::descriptor("application/vnd.oci.empty.v1+json", &layers[0]);
    let subject = common::registry::descriptor(media_type, &subject);
    let head = format!(r#""schemaVersion":2,"mediaType":"{media_type}","artifactType":"{artifact_type}""#);
    let annotations = format!(r#"{{"annotation":"value of {own} {round}"}}"#);
    let referrer =
        format!(r#"{{{head},"config":{config},"layers":[],"subject":{subject},"annotations":{annotations}}}"#);
    repository.put_manifest(&referrer, PutManifest::new(media_type)).expect("a referrer");
    known.content(referrer.as_bytes());
    [media_type, &artifact_type].iter().for_each(|one| known.named(one));
    let files = domain_name.map_or(Ok(store.named()), |name| store.named_in(&domain(name))).expect("a domain");
    for (n, len) in [60, 5000].into_iter().enumerate() {
        let (file, content) = (format!("named-file-{round}-of-{own}-{len}"), random.bytes(len));
        let put = PutNamed::new().references([layers[n]]).expires_after(Duration::from_secs(1 << 30));
        files.put(&file, &content, put).expect("space");
        known.named(&file);
        known.content(&content);
    }
    let mut begun = Vec::new();
    for pieces in [&[][..], &[3000], &[66_000, 100]] {
        let id = repository.begin_upload(ALGORITHMS[pieces.len()]).expect("an upload");
        let mut content = Vec::new();
        for len in pieces {
            let piece = random.bytes(*len);
            repository.append_upload(id, content.len() as u64, &piece).expect("space");
            content.extend(piece);
        }
        begun.push((id, content));
    }
    if domain_name.is_none() {
        for len in [40, 3000] {
            let content = random.bytes(len);
            let digest = store.put(&content, Algorithm::Sha512).expect("space").digest;
            known.content(&content);
            let pin = format!("pinned-by-{round}-{len}");
            store.named().set(&pin, &digest, PutNamed::new().references([layers[3]])).expect("it is there");
            known.named(&pin);
        }
        let id = store.begin_upload(Algorithm::Blake3).expect("an upload");
        let content = random.bytes(2500);
        store.append_upload(id, 0, &content).expect("space");
        begun.push((id, content));
    }
    for (id, content) in begun {
        known.upload_ids.push(id);
        known.uploads.insert(id, content);
    }
}

/// A store with two rounds of everything in each domain, one of them in runs. Without a key it has one domain. Closed.
pub fn build(keeper: Option<&Arc<Keeper>>) -> (SimVfs, Known) {
    build_with(keeper, &|disk| options(disk, keeper))
}

/// The same, opened with other options.
pub fn build_with(keeper: Option<&Arc<Keeper>>, options: &dyn Fn(&SimVfs) -> Options) -> (SimVfs, Known) {
    let disk = SimVfs::new();
    let store = options(&disk).open("/store").expect("a new store");
    let mut known = Known::default();
    if keeper.is_some() {
        DOMAINS.iter().for_each(|name| store.create_domain(&domain(name), None).expect("a new domain"));
    }
    let domains = [None, Some(DOMAINS[0]), Some(DOMAINS[1])];
    let domains = if keeper.is_some() { &domains[..] } else { &domains[..1] };
    for round in 0..2 {
        domains.iter().for_each(|domain| fill(&store, *domain, round, &mut known));
        if round == 0 {
            store.checkpoint().expect("space");
        }
    }
    store.close().expect("a clean close");
    (disk, known)
}

/// A repository: its domain, what it has, and the contents of its blobs.
pub type SeenRepository = (Option<String>, Repository, BTreeMap<Digest, Vec<u8>>);

/// The named files of all domains that are not locked.
fn named_files(store: &Store) -> Vec<(Option<String>, NamedFiles)> {
    let of = |info: DomainInfo| {
        let files = info.name.as_ref().map_or(Ok(store.named()), |name| store.named_in(name));
        files.ok().map(|files| (info.name.map(|name| name.to_string()), files))
    };
    store.domains().into_iter().filter_map(of).collect()
}

/// What a named file holds, and its content. They are told apart by their domains and names.
pub type SeenFile = (Vec<Digest>, Vec<u8>);

/// All that can be seen of a store, verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    pub files: BTreeMap<(Option<String>, String), SeenFile>,
    pub uploads: BTreeMap<UploadId, (Option<String>, u64)>,
    pub repositories: BTreeMap<String, SeenRepository>,
}

impl Seen {
    /// Where two differ, in few words.
    pub fn difference(&self, other: &Self) -> String {
        let mut told = Vec::new();
        if self.blobs != other.blobs {
            told.push(format!("blobs: {} and {}", self.blobs.len(), other.blobs.len()));
        }
        if self.files != other.files {
            told.push(format!("files: {:?} and {:?}", self.files.keys(), other.files.keys()));
        }
        if self.uploads != other.uploads {
            told.push(format!("uploads: {:?} and {:?}", self.uploads, other.uploads));
        }
        let names = self.repositories.keys().chain(other.repositories.keys());
        for name in names.filter(|name| self.repositories.get(*name) != other.repositories.get(*name)) {
            let tell = |one: &Self| one.repositories.get(name).map(|(domain, one, _)| format!("{domain:?} {one:#?}"));
            told.push(format!("{name}: {:?} and {:?}", tell(self), tell(other)));
        }
        told.join("; ")
    }
}

/// What a store holds, read back and verified in every way there is, in all its domains.
pub fn see(store: &Store) -> Seen {
    let mut seen = Seen::default();
    for stat in store.blobs() {
        let digest = stat.expect("undamaged facts").digest;
        let content = store.get(&digest).expect("a listed blob").bytes().expect("undamaged content").to_vec();
        assert_eq!(Digest::of(digest.algorithm(), &content), digest);
        seen.blobs.insert(digest, content);
    }
    for (domain, files) in named_files(store) {
        for file in files.iter("") {
            let found = files.get(&file.expect("a name").name).expect("a listed file");
            let (file, content) = (found.file, found.blob.bytes().expect("undamaged content").to_vec());
            let digests = std::iter::once(file.digest).chain(file.references).collect();
            seen.files.insert((domain.clone(), file.name), (digests, content));
        }
    }
    for (owner, upload) in uploads_of(store).unwrap() {
        seen.uploads.insert(upload.id, (owner, upload.offset));
    }
    for name in repositories(store).unwrap() {
        let observed = observe_repository(store, &name);
        let repository = store.repository(&common::registry::name(&name)).expect("listed");
        let domain = repository.info().expect("listed").settings.get_domain().map(ToString::to_string);
        let get =
            |digest: &Digest| (*digest, repository.get(digest).expect("linked").bytes().expect("content").to_vec());
        let blobs = observed.links.keys().map(get).collect();
        seen.repositories.insert(name, (domain, observed, blobs));
    }
    assert_sound(store);
    seen
}

pub fn assert_sound(store: &Store) {
    let report = store.verify(|_| {}).expect("verification");
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

/// Goes on with each upload, and ends it: its content is what was appended.
pub fn finish(store: &Store, known: &Known) {
    let mut found = 0;
    for (owner, upload) in uploads_of(store).unwrap() {
        let mut content = known.uploads.get(&upload.id).expect("an upload that was begun").clone();
        assert_eq!(content.len() as u64, upload.offset);
        content.extend(b"and its end");
        let digest = Digest::of(ALGORITHMS[found % 3], &content);
        let end = b"and its end";
        let bytes = match owner {
            None => {
                store.append_upload(upload.id, upload.offset, end).expect("it goes on");
                store.commit_upload(upload.id, digest).expect("the content appended");
                store.get(&digest).expect("committed").bytes()
            }
            Some(owner) => {
                let repository = store.repository(&name(&owner)).expect("listed");
                repository.append_upload(upload.id, upload.offset, end).expect("it goes on");
                repository.commit_upload(upload.id, digest).expect("the content appended");
                repository.get(&digest).expect("committed").bytes()
            }
        };
        assert_eq!(bytes.expect("undamaged content"), content);
        found += 1;
    }
    assert_eq!(found, known.uploads.len(), "all uploads are there");
}

/// Rewrites until all is done.
pub fn rewrite(store: &Store) {
    for _ in 0..3 {
        let report = store.rewrite(|_| ControlFlow::Continue(())).expect("a working disk");
        assert!(report.damaged.is_empty(), "{:#?}", report.damaged);
        if report.complete {
            let keys = store.domains();
            let is_one = |domain: &strongroom::DomainInfo| {
                domain.keys.len() == 1 && domain.keys[0].number == domain.current_key && domain.current_key > 0
            };
            assert!(keys.iter().all(is_one), "{keys:?}");
            return;
        }
    }
    panic!("not complete");
}

/// Whether an error says what is damaged.
fn is_told(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } | Error::UnsupportedFormat { .. } | Error::Key { .. } => true,
        // A cut upload, a length that no file has: the system says so.
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

/// What a store with damage says that holds this: the right answer, or an error that names the damage.
pub struct Interrogation<'a> {
    seen: &'a Seen,
    known: &'a Known,
    events: &'a [Event],
    context: String,
    pub errors: Vec<Error>,
}

/// All events that a store still tells.
pub fn events(store: &Store) -> Result<Vec<Event>, Error> {
    let (mut events, mut at) = (Vec::new(), Lsn::default());
    loop {
        match store.events(at, 100) {
            Ok(page) if page.events.is_empty() => return Ok(events),
            Ok(page) => {
                at = page.next;
                events.extend(page.events);
            }
            Err(Error::Gap { oldest }) => at = oldest,
            Err(error) => return Err(error),
        }
    }
}

impl<'a> Interrogation<'a> {
    pub fn new(seen: &'a Seen, known: &'a Known, events: &'a [Event], context: String) -> Self {
        Self { seen, known, events, context, errors: Vec::new() }
    }

    fn ask<T>(&mut self, what: &str, answer: Result<T, Error>, check: impl FnOnce(T) -> bool) {
        match answer {
            Ok(answer) => assert!(check(answer), "{}: a wrong answer: {what}", self.context),
            Err(error) => {
                assert!(is_told(&error), "{}: {what}: {error}", self.context);
                self.errors.push(error);
            }
        }
    }

    /// Opens a store and asks for everything.
    pub fn open(&mut self, options: Options) {
        match options.create(false).open("/store") {
            Ok(store) => self.everything(&store),
            Err(error) => {
                assert!(is_told(&error), "{}: {error}", self.context);
                self.errors.push(error);
            }
        }
    }

    fn everything(&mut self, store: &Store) {
        let seen = self.seen;
        for (digest, content) in &seen.blobs {
            self.ask("exists", store.exists(digest), |exists| exists);
            self.ask("get", store.get(digest).and_then(|blob| blob.bytes()), |bytes| bytes == *content);
        }
        self.ask("blobs", store.blobs().collect::<Result<Vec<_>, _>>(), |all| all.len() == seen.blobs.len());
        for (domain, files) in named_files(store) {
            let own: Vec<_> = seen.files.iter().filter(|((owner, _), _)| *owner == domain).collect();
            let listed = files.iter("").collect::<Result<Vec<_>, _>>();
            self.ask("names", listed, |all| {
                all.iter().map(|file| &file.name).eq(own.iter().map(|((_, name), _)| name))
            });
            for ((_, name), (digests, content)) in own {
                self.ask("file", files.stat(name), |file| {
                    std::iter::once(&file.digest).chain(&file.references).eq(digests)
                });
                self.ask("content", files.get(name).and_then(|found| found.blob.bytes()), |bytes| bytes == *content);
            }
        }
        let names = store.repositories(None, usize::MAX);
        self.ask("repositories", names, |names| {
            names.items.iter().map(ToString::to_string).eq(seen.repositories.keys().cloned())
        });
        for (owner, expected) in &seen.repositories {
            match store.repository(&name(owner)) {
                Ok(repository) => self.repository(&repository, expected),
                Err(error) => self.ask("repository", Err::<(), _>(error), |()| true),
            }
        }
        let expected = self.events;
        self.ask("events", events(store), |events| events == expected);
        match store.verify(|_| {}) {
            Ok(report) => {
                for finding in report.findings {
                    match finding {
                        Finding::Blob { error, .. }
                        | Finding::Segment { error }
                        | Finding::Run { error }
                        | Finding::Facts { error } => {
                            self.ask("verify", Err::<(), _>(error), |()| true);
                        }
                        other => panic!("{}: a wrong answer: {other:?}", self.context),
                    }
                }
            }
            Err(error) => self.ask("verify", Err::<(), _>(error), |()| true),
        }
        for (id, (owner, offset)) in &seen.uploads {
            self.upload(store, id, owner.as_deref(), *offset);
        }
    }

    fn repository(
        &mut self,
        repository: &strongroom::registry::Repository,
        (domain, expected, blobs): &SeenRepository,
    ) {
        let settings = repository.info().map(|info| info.settings);
        self.ask("info", settings, |found| found.get_domain().map(ToString::to_string) == *domain);
        for (digest, content) in blobs {
            self.ask("get", repository.get(digest).and_then(|blob| blob.bytes()), |bytes| bytes == *content);
            self.ask("stat", repository.stat(digest), |stat| stat.references == expected.links[digest].count);
        }
        let all = |digests: Vec<Digest>| digests.iter().eq(expected.links.keys());
        let listed = repository.blobs(None, usize::MAX);
        self.ask("blobs", listed.map(|all| all.items.iter().map(|one| one.digest).collect()), |mut digests: Vec<_>| {
            digests.sort_unstable();
            all(digests)
        });
        let manifests = repository.manifests(None, usize::MAX);
        self.ask("manifests", manifests, |all| all.items.len() == expected.manifests.len());
        for (digest, manifest) in &expected.manifests {
            self.ask("manifest", repository.get_manifest(&(*digest).into()), |found| {
                found.media_type == manifest.media_type && Digest::of(digest.algorithm(), &found.content) == *digest
            });
            let tags: Vec<_> = expected.tags.iter().filter(|(_, named)| *named == digest).map(|(tag, _)| tag).collect();
            self.ask("tags of", repository.tags_of(digest), |found| {
                found.iter().map(|tag| tag.as_str()).eq(tags.iter().map(|tag| tag.as_str()))
            });
            let referrers = expected.manifests.values().filter(|one| one.subject == Some(*digest)).count();
            let listed = repository.referrers(digest, None, None, usize::MAX);
            self.ask("referrers", listed, |found| found.items.len() == referrers);
        }
        let tags = repository.tags(None, usize::MAX);
        self.ask("tags", tags, |found| found.items.iter().map(|tag| tag.to_string()).eq(expected.tags.keys().cloned()));
        for (one, digest) in &expected.tags {
            self.ask("resolve", repository.resolve(&tag(one)), |found| found.digest == *digest);
        }
    }

    fn upload(&mut self, store: &Store, id: &UploadId, owner: Option<&str>, offset: u64) {
        let content = &self.known.uploads[id];
        let digest = Digest::of(Algorithm::Sha256, content);
        let read = match owner {
            None => store.upload_status(*id).and_then(|status| {
                assert_eq!(status.offset, offset, "{}", self.context);
                store.commit_upload(*id, digest)?;
                store.get(&digest)?.bytes()
            }),
            Some(owner) => store.repository(&name(owner)).and_then(|repository| {
                assert_eq!(repository.upload_status(*id)?.offset, offset, "{}", self.context);
                repository.commit_upload(*id, digest)?;
                repository.get(&digest)?.bytes()
            }),
        };
        self.ask("upload", read, |bytes| bytes == *content);
    }
}
