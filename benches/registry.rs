//! A registry at 1,000 and at 100,000 manifests and tags in one repository, with 1,000 repositories beside it: `cargo
//! bench --bench registry [MANIFESTS]`. Prints what a page, a push, a pull, a delete, a lifecycle policy and an opening
//! take, and memory and space, as `docs/performance.md` reports them. Writes are durable ones; what is loaded before is
//! not measured. With `REGISTRY_LINKS` set, and perhaps `REGISTRY_MANIFESTS` (a tenth of that), what look-ups take in
//! 1,000 repositories with so many in all, and with a hundredth of it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a benchmark")]

mod measure;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use measure::{anonymous_mib, size};
use strongroom::registry::lifecycle::Policy;
use strongroom::registry::{
    PutManifest, Reference, Repository, RepositoryDeletion, RepositoryName, RepositorySettings, Tag,
};
use strongroom::{Algorithm, Digest, Durability, Options, Store};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const REPOSITORIES: u64 = 1000;

/// The median time of doing something, in µs, with the first and the last of ten parts of the times.
fn median(times: u64, mut work: impl FnMut(u64)) -> String {
    let mut taken: Vec<Duration> = (0..times)
        .map(|n| {
            let start = Instant::now();
            work(n);
            start.elapsed()
        })
        .collect();
    taken.sort();
    let at = |part: usize| taken.get(taken.len() * part / 10).map_or(0.0, |time| time.as_secs_f64() * 1e6);
    format!("{:8.1} µs ({:.1} to {:.1})", at(5), at(1), at(9))
}

fn name(n: u64) -> RepositoryName {
    format!("team-{:02}/service-{n:04}", n % 40).parse().unwrap()
}

fn tag(n: u64) -> Tag {
    format!("build-{n:07}").parse().unwrap()
}

/// An image of a layer that all share and one of its own, with a subject for every second one.
fn manifest(config: &Digest, layers: &[Digest], subject: Option<&Digest>, n: u64) -> String {
    let descriptor = |digest: &Digest| format!(r#"{{"mediaType":"application/octet-stream","digest":"{digest}"}}"#);
    let layers: Vec<String> = layers.iter().map(descriptor).collect();
    let subject = subject.map_or_else(String::new, |subject| format!(r#","subject":{}"#, descriptor(subject)));
    let (config, layers) = (descriptor(config), layers.join(","));
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}],"annotations":{{"build":"{n}"}}{subject}}}"#)
}

/// Pushes an image: a layer, then the manifest under a tag.
fn push(store: &Store, repository: &RepositoryName, shared: &Digest, subject: Option<&Digest>, n: u64) -> Digest {
    let repository = store.repository(repository).unwrap();
    let layer = repository.put(n.to_le_bytes(), Algorithm::Sha256).unwrap().digest;
    let document = manifest(shared, &[*shared, layer], subject, n);
    repository.put_manifest(&document, PutManifest::new(IMAGE).tag(tag(n))).unwrap().digest
}

/// What one overwrite and fdatasync of 4 KiB takes here.
fn raw_sync(dir: &Path) -> String {
    let file = File::create(dir.join("raw")).unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    median(200, |n| {
        file.write_all_at(&[2; 4096], n % 256 * 4096).unwrap();
        file.sync_data().unwrap();
    })
}

/// A lifecycle policy over all images: the plan, and its execution on a hundred of them.
fn lifecycle(repository: &Repository) {
    let policy = |keep: usize| {
        let limit = format!(r#""tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": {keep}"#);
        let rule = format!(r#"{{"rulePriority": 1, "selection": {{{limit}}}, "action": {{"type": "expire"}}}}"#);
        Policy::parse(&format!(r#"{{"rules": [{rule}]}}"#)).unwrap()
    };
    let plan = |keep| repository.lifecycle_plan(&policy(keep), u64::MAX).unwrap();
    println!("lifecycle plan      {}", median(5, |_| drop(plan(1))));
    let before = anonymous_mib();
    let all = plan(1);
    println!("memory: {before} MiB, {} with a plan that acts on {}", anonymous_mib(), all.summary.acting());
    let ranked = 1 + all.actions.iter().filter(|action| action.subject.is_none()).count();
    drop(all);
    let policy = policy(ranked - 100);
    let plan = repository.lifecycle_plan(&policy, u64::MAX).unwrap();
    let start = Instant::now();
    let done = repository.apply_lifecycle(&policy, &plan).unwrap();
    println!("lifecycle apply     {:8.1} ms for {done:?}", start.elapsed().as_secs_f64() * 1e3);
}

fn measure(manifests: u64) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("store");
    let big = name(7);
    let store = Options::new().create(true).durability(Durability::Relaxed).open(&path).unwrap();
    for n in 0..REPOSITORIES {
        store.create_repository(&name(n), RepositorySettings::new()).unwrap();
    }
    let shared = store.repository(&big).unwrap().put("shared", Algorithm::Sha256).unwrap().digest;
    let start = Instant::now();
    let mut subject = None;
    for n in 0..manifests {
        let digest = push(&store, &big, &shared, subject.as_ref().filter(|_| n < 200), n);
        subject.get_or_insert(digest);
    }
    let subject = subject.unwrap();
    let loaded = start.elapsed().as_secs_f64();
    println!(
        "\n{manifests} manifests and tags in one of {REPOSITORIES} repositories, loaded without syncs at {:.0} a \
         second",
        manifests as f64 / loaded
    );
    println!("memory: {} MiB", anonymous_mib());
    let start = Instant::now();
    store.close().unwrap();
    println!("close: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let (names, runs) = (size(&path.join("names")), size(&path.join("runs")));
    println!(
        "on disk: runs/ {} MiB, names/ {} MiB, {} bytes of facts a manifest",
        runs >> 20,
        names >> 20,
        runs / manifests
    );

    println!("raw 4 KiB + fdatasync {}", raw_sync(dir.path()));
    let start = Instant::now();
    let store = Store::open(&path).unwrap();
    println!("open, clean: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    // The view of names is opened beside.
    while store.repository(&big).unwrap().tags(None, 1).is_ok_and(|tags| tags.items.is_empty()) {}
    std::thread::sleep(Duration::from_millis(1500));
    let repository = store.repository(&big).unwrap();
    let spread = |n: u64| n * 7919 % manifests;
    println!(
        "push of an image    {}",
        median(200, |n| assert!(push(&store, &big, &shared, None, manifests + n) != shared))
    );
    println!("HEAD of a blob      {}", median(2000, |_| assert!(repository.claim(&shared).is_ok())));
    println!(
        "pull by tag         {}",
        median(2000, |n| {
            repository.pull_manifest(&tag(spread(n)).into()).unwrap();
        })
    );
    println!(
        "page of 100 tags    {}",
        median(200, |n| {
            let after = tag(spread(n));
            assert!(!repository.tags(Some(after.as_str()), 100).unwrap().items.is_empty() || n == manifests - 1);
        })
    );
    println!(
        "page of 100 manif.  {}",
        median(200, |n| {
            let after = Digest::of(Algorithm::Sha256, &n.to_le_bytes());
            assert!(repository.manifests(Some(&after), 100).unwrap().items.len() <= 100);
        })
    );
    println!(
        "page of 100 images  {}",
        median(200, |n| {
            let after = Digest::of(Algorithm::Sha256, &n.to_le_bytes());
            assert!(repository.images(Some(&after), 100).unwrap().items.len() <= 100);
        })
    );
    println!(
        "page of 100 facts   {}",
        median(200, |n| {
            let after = Digest::of(Algorithm::Sha256, &n.to_le_bytes());
            assert!(repository.image_facts(Some(&after), 100).unwrap().items.len() <= 100);
        })
    );
    println!(
        "page of 100 referr. {}",
        median(200, |_| {
            assert_eq!(repository.referrers(&subject, None, None, 100).unwrap().items.len(), 100);
        })
    );
    println!(
        "page of 100 reposi. {}",
        median(200, |n| {
            assert_eq!(store.repositories(Some(name(n % 30).as_str()), 100).unwrap().items.len(), 100);
        })
    );
    println!(
        "untag               {}",
        median(200, |n| {
            repository.untag(&tag(spread(n))).unwrap();
        })
    );
    let doomed: Vec<Digest> =
        repository.manifests(None, 200).unwrap().items.into_iter().map(|info| info.digest).collect();
    println!(
        "delete of a manif.  {}",
        median(200, |n| {
            let doomed = doomed.get(usize::try_from(n).unwrap_or_default()).unwrap();
            repository.delete_manifest(doomed).unwrap();
        })
    );
    lifecycle(&repository);
    println!("memory: {} MiB", anonymous_mib());
    let gone = repository.manifest_info(&Reference::Digest(*doomed.first().unwrap())).is_err();
    assert!(gone);
    let start = Instant::now();
    store.delete_repository(&big, RepositoryDeletion::WithContents).unwrap();
    println!("delete of the repository: {:.2} ms until it is gone", start.elapsed().as_secs_f64() * 1e3);
    drop(store);
}

/// Look-ups in a registry of so many links and manifests, spread over all repositories.
fn measure_scale(links: u64, manifests: u64) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Options::new().create(true).durability(Durability::Relaxed).open(dir.path().join("store")).unwrap();
    let start = Instant::now();
    let layer = |repository: u64, n: u64| [repository, n].map(u64::to_le_bytes).concat();
    for number in 0..REPOSITORIES {
        let repository = store.create_repository(&name(number), RepositorySettings::new()).unwrap();
        let own = links / REPOSITORIES;
        let mut layers = Vec::new();
        for first in (0..own).step_by(1000) {
            let contents = (first..own.min(first + 1000)).map(|n| (layer(number, n), Algorithm::Sha256));
            layers.extend(repository.put_many(contents).unwrap().into_iter().map(|stored| stored.unwrap().digest));
        }
        for n in 0..manifests / REPOSITORIES {
            let own = layers.get(usize::try_from(n).unwrap() % layers.len()).unwrap();
            let document = manifest(own, &[*own], None, n);
            repository.put_manifest(&document, PutManifest::new(IMAGE).tag(tag(n))).unwrap();
        }
    }
    println!(
        "\n{REPOSITORIES} repositories with {links} links and {manifests} manifests, loaded in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    let repositories: Vec<Repository> = (0..REPOSITORIES).map(|n| store.repository(&name(n)).unwrap()).collect();
    let spread = |n: u64| {
        let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        (repositories.get(usize::try_from(n % REPOSITORIES).unwrap()).unwrap(), n % REPOSITORIES, n / REPOSITORIES)
    };
    let digests: Vec<Digest> = (0..20_000)
        .map(|n| {
            let (_, repository, n) = spread(n);
            Digest::of(Algorithm::Sha256, &layer(repository, n % (links / REPOSITORIES)))
        })
        .collect();
    let tags: Vec<Reference> = (0..20_000).map(|n| tag(spread(n).2 % (manifests / REPOSITORIES)).into()).collect();
    for state in ["just loaded", "all merged"] {
        if state == "all merged" {
            store.merge_runs().unwrap();
        }
        println!("{state}:");
        let at = |n: u64| usize::try_from(n % 20_000).unwrap();
        println!(
            "HEAD of a blob      {}",
            median(20_000, |n| {
                spread(n).0.claim(digests.get(at(n)).unwrap()).unwrap();
            })
        );
        println!(
            "pull by tag         {}",
            median(20_000, |n| {
                spread(n).0.pull_manifest(tags.get(at(n)).unwrap()).unwrap();
            })
        );
    }
}

fn main() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    if let Some(links) = number("REGISTRY_LINKS") {
        let manifests = number("REGISTRY_MANIFESTS").unwrap_or(links / 10);
        return [links / 100, links]
            .into_iter()
            .for_each(|links_now| measure_scale(links_now, manifests * links_now / links));
    }
    let most = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    for manifests in [1000, most] {
        measure(manifests);
    }
}
