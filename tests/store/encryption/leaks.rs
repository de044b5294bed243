//! Of what a store holds nothing stands in any of its files: no content, no name, no digest, no hash of a name. What
//! was there before encryption was turned on is gone once it was rewritten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom::keys::KeyProvider;
use strongroom::registry::{Reference, RepositoryDeletion};
use strongroom::{Algorithm, Clock, Compression, Digest, Lsn, Options, Store, UploadId};

use super::lab::{ALGORITHMS, DOMAINS, Keeper, Known, domain, fill, finish, repository_of, rewrite};
use crate::common::registry::{name, tag};
use crate::common::tour::tour;
use crate::common::{Model, Pair, Random, copy, history, seed, small, tell};

/// The shortest thing that is looked for. Of less there may be some by chance.
const SHORTEST: usize = 6;

/// What is looked for, by its first bytes.
#[derive(Default)]
pub struct Needles(HashMap<[u8; SHORTEST], Vec<(&'static str, Vec<u8>)>>);

impl Needles {
    pub fn add(&mut self, kind: &'static str, bytes: &[u8]) {
        let Some(start) = bytes.first_chunk() else { return };
        let all = self.0.entry(*start).or_default();
        if !all.iter().any(|(known, needle)| *known == kind && needle == bytes) {
            all.push((kind, bytes.to_vec()));
        }
    }

    /// A content, parts of it, and its digests in all forms.
    pub fn content(&mut self, content: &[u8]) {
        let last = content.len().saturating_sub(16);
        for at in (0..content.len()).step_by(4096).chain([content.len() / 2, last]) {
            let window = content.get(at..at + 16).filter(|window| window.iter().any(|byte| *byte != window[0]));
            window.into_iter().for_each(|window| self.add("content", window));
        }
        if content.len() >= 16 {
            ALGORITHMS.map(|algorithm| Digest::of(algorithm, content)).iter().for_each(|digest| self.digest(digest));
        }
    }

    /// Facts have ten bytes of a digest or more in their keys.
    fn digest(&mut self, digest: &Digest) {
        let text = digest.to_string();
        let hex = text.split_once(':').expect("a digest").1;
        self.add("hex digest", &hex.as_bytes()[..20]);
        self.add("digest", &digest.as_bytes()[..10]);
        let context = "strongroom 2026-11 key of a SHA-512 digest";
        if digest.algorithm() == Algorithm::Sha512 {
            self.add("key of a digest", &blake3::derive_key(context, digest.as_bytes())[..10]);
        }
    }

    /// A name, and its hashes.
    pub fn name(&mut self, name: &str) {
        self.add("name", name.as_bytes());
        for algorithm in ALGORITHMS {
            self.add("hash of a name", &Digest::of(algorithm, name.as_bytes()).as_bytes()[..10]);
        }
    }

    pub fn upload(&mut self, id: &UploadId) {
        let text = id.to_string();
        let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        self.add("upload id", text.as_bytes());
        let bytes: Vec<u8> = (0..16).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).expect("hex")).collect();
        self.add("upload id in binary", &bytes);
    }

    pub fn known(&mut self, known: &Known) {
        known.contents.iter().chain(known.uploads.values()).for_each(|content| self.content(content));
        known.names.iter().for_each(|name| self.name(name));
        known.upload_ids.iter().for_each(|id| self.upload(id));
    }

    fn model(&mut self, model: &Model) {
        model.blobs.values().chain(model.uploads.values()).for_each(|content| self.content(content));
        model.pushes.iter().for_each(|push| self.content(&push.content));
        model.uploads.keys().for_each(|id| self.upload(id));
        for (name, repository) in &model.repositories {
            self.name(name);
            for manifest in repository.manifests.values() {
                self.name(&manifest.media_type);
                manifest.artifact_type.iter().for_each(|name| self.name(name));
            }
            repository.tags.keys().filter(|tag| tag.len() >= SHORTEST).for_each(|tag| self.name(tag));
        }
    }

    /// What of all that stands in some bytes.
    pub fn find(&self, bytes: &[u8]) -> BTreeMap<&'static str, Vec<usize>> {
        let mut found: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for at in 0..bytes.len().saturating_sub(SHORTEST - 1) {
            let start: &[u8; SHORTEST] = bytes[at..].first_chunk().expect("long enough");
            if *start == [0; SHORTEST] {
                continue;
            }
            for (kind, needle) in self.0.get(start).into_iter().flatten() {
                if bytes[at..].starts_with(needle) {
                    found.entry(*kind).or_default().push(at);
                }
            }
        }
        found
    }

    /// What of all that stands in the files of a directory.
    fn find_in(&self, dir: &Path) -> BTreeMap<&'static str, Vec<(PathBuf, usize)>> {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for path in files(dir) {
            let bytes = fs::read(&path).unwrap_or_default(); // the lock may not be read
            for (kind, places) in self.find(&bytes) {
                found.entry(kind).or_default().extend(places.into_iter().map(|at| (path.clone(), at)));
            }
        }
        found
    }

    fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// How the stores of these tests are opened.
fn options(keeper: Option<Arc<Keeper>>, clock: &Clock) -> Options {
    match keeper {
        Some(keeper) => small(Options::new(), clock).key_provider(keeper as Arc<dyn KeyProvider>),
        None => small(Options::new(), clock),
    }
}

/// Runs histories of a model. What was found at any time comes back.
fn run_histories(dir: &Path, keeper: Option<Arc<Keeper>>, needles: &mut Needles, seed: u64) -> Findings {
    let mut findings = Findings::default();
    let mut pair = Pair::at(dir, move |clock| options(keeper.clone(), clock)).unwrap();
    let steps = tour().into_iter().chain(history(&mut Random(seed), 150));
    for (n, step) in steps.enumerate() {
        pair.run(&step).unwrap();
        needles.model(&pair.model);
        if n % 25 == 24 {
            findings.extend(needles.find_in(dir));
        }
    }
    pair.store.take().unwrap().close().unwrap();
    findings.extend(needles.find_in(dir));
    findings
}

type Findings = BTreeMap<&'static str, Vec<(PathBuf, usize)>>;

/// A history in all domains there are, and of all kinds of calls. What was found at any time comes back.
fn run_own(dir: &Path, keeper: Option<&Arc<Keeper>>, needles: &mut Needles) -> Findings {
    let mut findings = Findings::default();
    // Compressed content could not be found in a plain store either.
    let open = |dir: &Path| {
        let options = options(keeper.cloned(), &Clock::manual()).compression(Compression::Off);
        options.open(dir).unwrap()
    };
    let mut store = open(dir);
    let mut domains = vec![None];
    if keeper.is_some() {
        for name in DOMAINS {
            store.create_domain(&domain(name), None).unwrap();
            needles.name(name);
            domains.push(Some(name));
        }
    }
    let mut known = Known::default();
    for round in 0..4 {
        for domain in &domains {
            fill(&store, *domain, round, &mut known);
            call_all(&store, *domain, round);
        }
        needles.known(&known);
        match round {
            0 => store.checkpoint().unwrap(),
            1 => {
                // Killed: all uploads have to be taken up again.
                let killed = dir.with_extension("killed");
                copy(dir, &killed);
                findings.extend(needles.find_in(&killed));
                let again = open(&killed);
                findings.extend(needles.find_in(&killed));
                finish(&again, &known);
                again.close().unwrap();
                findings.extend(needles.find_in(&killed));
            }
            2 => {
                store.close().unwrap();
                store = open(dir);
                finish(&store, &known);
                known.uploads.clear();
            }
            _ => store.merge_runs().unwrap(),
        }
        findings.extend(needles.find_in(dir));
    }
    store.close().unwrap();
    findings.extend(needles.find_in(dir));
    findings
}

/// Calls on the repository of a domain that leave their traces in facts and in the log.
fn call_all(store: &Store, domain: Option<&str>, round: u64) {
    let repository = store.repository(&name(&repository_of(domain))).unwrap();
    let tags = repository.tags(None, usize::MAX).unwrap().items;
    let digest = repository.pull_manifest(&Reference::Tag(tags[0].clone())).unwrap().digest;
    repository.tag(&tag(&format!("moved-tag-{round}")), &digest, strongroom::registry::ExpectTag::Any).unwrap();
    repository.untag(&tags[1]).unwrap();
    let other = name(&format!("{}-short-lived-{round}", repository_of(domain)));
    let settings = repository.info().unwrap().settings;
    let short_lived = store.create_repository(&other, settings).unwrap();
    let blob = repository.blobs(None, 1).unwrap().items[0].digest;
    short_lived.mount(&blob, repository.name(), |_| true).unwrap();
    let upload = short_lived.begin_upload(Algorithm::Sha256).unwrap();
    short_lived.append_upload(upload, 0, Random(round).bytes(70_000)).unwrap();
    short_lived.cancel_upload(upload).unwrap();
    store.delete_repository(&other, RepositoryDeletion::WithContents).unwrap();
    store.events(store.last_lsn().min(Lsn::default()), 10).unwrap_or_else(|error| {
        assert!(matches!(error, strongroom::Error::Gap { .. }), "{error}");
        store.events(store.last_lsn(), 10).unwrap()
    });
}

/// In how many places of which kind what was looked for stands.
fn counts(findings: &Findings) -> BTreeMap<&'static str, usize> {
    findings.iter().map(|(kind, places)| (*kind, places.len())).collect()
}

#[test]
fn nothing_of_what_a_store_holds_stands_in_its_files() {
    let seed = seed(0x1ea4);
    let dir = tempfile::tempdir().unwrap();
    let (keeper, mut needles) = (Keeper::new(seed), Needles::default());
    let findings = run_histories(&dir.path().join("model"), Some(keeper.clone()), &mut needles, seed);
    assert!(findings.is_empty(), "{findings:#?}");
    let findings = run_own(&dir.path().join("own"), Some(&keeper), &mut needles);
    assert!(findings.is_empty(), "{findings:#?}");
    // Sled has something to hide, too.
    let names: u64 = files(&dir.path().join("own/names")).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(names > 10_000, "{names} bytes of names");
    for key in keeper.data_keys().iter().chain([&keeper.secret]) {
        needles.add("key", key);
    }
    assert_eq!(counts(&needles.find_in(dir.path())), BTreeMap::new());
    tell(&format!("{} things looked for", needles.len()));
}

#[test]
fn the_same_search_finds_everything_in_a_plain_store() {
    let seed = seed(0x1ea4);
    let dir = tempfile::tempdir().unwrap();
    let mut needles = Needles::default();
    let findings = run_histories(&dir.path().join("model"), None, &mut needles, seed);
    let kinds: BTreeSet<_> = findings.keys().copied().collect();
    assert!(["content", "digest", "hash of a name", "name"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    let findings = run_own(&dir.path().join("own"), None, &mut needles);
    let kinds: Vec<_> = findings.keys().copied().collect();
    let all = ["content", "digest", "hash of a name", "hex digest", "key of a digest", "name", "upload id in binary"];
    assert_eq!(kinds, all);
    // Of sled's files, too.
    assert!(findings["name"].iter().any(|(path, _)| path.starts_with(dir.path().join("own/names"))));
    tell(&format!("in a plain store: {:?}", counts(&findings)));
}

#[test]
fn what_was_plain_is_gone_when_it_was_rewritten() {
    let seed = seed(0x9a1);
    let dir = tempfile::tempdir().unwrap();
    let (keeper, mut needles) = (Keeper::new(seed), Needles::default());
    for own in ["model", "own"] {
        let path = dir.path().join(own);
        let findings = match own {
            "model" => run_histories(&path, None, &mut needles, seed),
            _ => run_own(&path, None, &mut needles),
        };
        assert!(!findings.is_empty());
        let store = options(None, &Clock::manual()).open(&path).unwrap();
        assert!(!needles.find_in(&path).is_empty());
        store.encrypt(keeper.clone()).unwrap();
        // It stops after each blob, and goes on.
        let mut rounds = 0;
        while !store
            .rewrite(|done| if done.blobs < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            .unwrap()
            .complete
        {
            rounds += 1;
            assert!(rounds < 1000);
        }
        assert!(rounds > 1, "{own}: {rounds}");
        rewrite(&store);
        let findings = needles.find_in(&path);
        assert!(findings.is_empty(), "{own}, open: {:?} {findings:#?}", counts(&findings));
        store.close().unwrap();
        let findings = needles.find_in(&path);
        assert!(findings.is_empty(), "{own}, closed: {findings:#?}");
        let plain = options(None, &Clock::manual()).open(&path);
        assert!(matches!(plain, Err(strongroom::Error::KeyRequired { .. })), "{plain:?}");
        let store = options(Some(keeper.clone()), &Clock::manual()).open(&path).unwrap();
        super::lab::assert_sound(&store);
    }
}
