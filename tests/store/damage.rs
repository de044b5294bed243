//! Flipped bits, cut and lost files: the right answer, or an error that says what is damaged and where.
//!
//! Never a wrong answer, a panic, or "not found" for what the store knows.

use std::time::Duration;

use strongroom::registry::{PutManifest, Repository, RepositoryDeletion, RepositorySettings, Tag};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Error, PutNamed, ReadMode, Store};

use crate::common::file_names;
use crate::common::registry::{image, name, tag};
use crate::common::{Random, options, seed};

/// What the stores of these tests hold.
struct Known {
    blobs: Vec<(Digest, Vec<u8>)>,
    pins: Vec<String>,
    uploads: usize,
    /// The manifests that the tags of a repository name, in the order of the tags. Each refers to the first.
    images: Vec<(Tag, Digest, String)>,
}

/// A store with several runs, log files and segments, and facts in the log that no run has. Closed.
fn build() -> (SimVfs, Known) {
    let disk = SimVfs::new();
    let clock = Clock::manual();
    let store = options(&disk, &clock).open("/store").unwrap();
    let mut random = Random(1);
    let mut known = Known { blobs: Vec::new(), pins: Vec::new(), uploads: 1, images: Vec::new() };
    let repository = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    for n in 0..60usize {
        let len = [10, 400, 1500, 3000, 9000, 140_000][n % 6];
        let content = if n % 4 == 0 { vec![n as u8; len] } else { random.bytes(len) };
        let algorithm = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3][n % 3];
        let digest = store.put(&content, algorithm).unwrap().digest;
        if n % 5 == 0 {
            let name = format!("pin-{n:02}");
            store
                .named()
                .set(
                    &name,
                    &digest,
                    PutNamed::new().references(known.blobs.iter().map(|(digest, _)| *digest).collect::<Vec<_>>()),
                )
                .unwrap();
            known.pins.push(name);
        }
        if n % 6 == 1 {
            let layer = repository.put(&content, digest).unwrap().digest;
            let subject = known.images.first().map(|(_, digest, _)| *digest);
            let (media_type, document) = image(&[layer], subject.as_ref());
            let tag = tag(&format!("v{n:02}"));
            let image = repository.put_manifest(&document, PutManifest::new(media_type).tag(tag.clone())).unwrap();
            known.blobs.push((image.digest, document.clone().into_bytes()));
            known.images.push((tag, image.digest, document));
        }
        known.blobs.push((digest, content));
        if n == 40 {
            store.checkpoint().unwrap();
        }
    }
    let upload = store.begin_upload(Algorithm::Sha256).unwrap();
    store.append_upload(upload, 0, random.bytes(5000)).unwrap();
    store.close().unwrap();
    (disk, known)
}

fn is_typed(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::UnsupportedFormat { .. } | Error::Io { .. })
}

/// Asks a damaged store for everything it knows. Returns how many answers were errors.
fn interrogate(disk: &SimVfs, known: &Known, mode: ReadMode, context: &str) -> usize {
    let store = match options(disk, &Clock::manual()).create(false).read_mode(mode).open("/store") {
        Ok(store) => store,
        Err(error) => {
            assert!(is_typed(&error), "{context}: {error}");
            return 1;
        }
    };
    let mut errors = 0;
    let mut fails = |error: Error, what: &str| {
        assert!(is_typed(&error), "{context}: {what}: {error}");
        errors += 1;
    };
    for (digest, content) in &known.blobs {
        match store.exists(digest) {
            Ok(exists) => assert!(exists, "{context}: {digest} is said not to exist"),
            Err(error) => fails(error, "exists"),
        }
        match store.get(digest).and_then(|blob| blob.bytes()) {
            Ok(bytes) => assert!(bytes == content, "{context}: wrong content of {digest}"),
            Err(error) => fails(error, "get"),
        }
    }
    for name in &known.pins {
        if let Err(error) = store.named().stat(name) {
            fails(error, "pin");
        }
    }
    match file_names(&store) {
        Ok(pins) => assert_eq!(pins, known.pins, "{context}"),
        Err(error) => fails(error, "pins"),
    }
    match store.uploads(None, 100).map(|page| page.items) {
        Ok(uploads) => {
            assert_eq!(uploads.len(), known.uploads, "{context}");
            for upload in uploads {
                match store.append_upload(upload.id, 5000, b"more") {
                    Ok(offset) => assert_eq!(offset, 5004, "{context}"),
                    Err(error) => fails(error, "append"),
                }
            }
        }
        Err(error) => fails(error, "uploads"),
    }
    if let Err(error) = list(&store, known, context) {
        fails(error, "blobs");
    }
    match store.repository(&name("team/app")) {
        Ok(repository) => interrogate_repository(&repository, known, context, &mut fails),
        Err(error) => fails(error, "repository"),
    }
    if let Err(error) = store.expire(Duration::from_secs(1 << 30)) {
        fails(error, "expire");
    }
    errors
}

fn interrogate_repository(repository: &Repository, known: &Known, context: &str, fails: &mut dyn FnMut(Error, &str)) {
    for (tag, digest, document) in &known.images {
        match repository.get_manifest(&tag.into()) {
            Ok(manifest) => assert!(manifest.digest == *digest && manifest.content == *document, "{context}: {tag}"),
            Err(error) => fails(error, "manifest"),
        }
        match repository.tags_of(digest) {
            Ok(tags) => assert_eq!(tags, std::slice::from_ref(tag), "{context}"),
            Err(error) => fails(error, "tags of a manifest"),
        }
    }
    match repository.tags(None, 100) {
        Ok(tags) => assert!(tags.items.iter().eq(known.images.iter().map(|(tag, ..)| tag)), "{context}: {tags:?}"),
        Err(error) => fails(error, "tags"),
    }
    match repository.manifests(None, 100) {
        Ok(manifests) => assert_eq!(manifests.items.len(), known.images.len(), "{context}"),
        Err(error) => fails(error, "manifests"),
    }
    match repository.blobs(None, 100) {
        Ok(blobs) => assert_eq!(blobs.items.len(), known.images.len(), "{context}"),
        Err(error) => fails(error, "blobs of a repository"),
    }
    match repository.referrers(&known.images[0].1, None, None, 100) {
        Ok(page) => assert_eq!(page.items.len(), known.images.len() - 1, "{context}"),
        Err(error) => fails(error, "referrers"),
    }
}

/// Lists the blobs: all of them, or an error.
fn list(store: &Store, known: &Known, context: &str) -> Result<(), Error> {
    let listed = store.blobs().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(listed.len(), known.blobs.len(), "{context}");
    Ok(())
}

/// The store's files, without the lock and the reserve, which hold nothing.
fn files(disk: &SimVfs) -> Vec<std::path::PathBuf> {
    disk.files().into_iter().filter(|path| !path.ends_with("LOCK") && !path.ends_with("RESERVE")).collect()
}

#[test]
fn a_flipped_bit_is_found_or_harmless_wherever_it_is() {
    let seed = seed(0xb17);
    let (disk, known) = build();
    let mut random = Random(seed);
    let (mut flips, mut noticed) = (0, 0);
    for path in files(&disk) {
        let bits = disk.read_file(&path).unwrap().len() as u64 * 8;
        let is_small = bits < 8 * 600;
        let count = if is_small { bits } else { 150 };
        for n in 0..count {
            let bit = if is_small { n } else { random.below(bits) };
            let damaged = disk.restarted();
            damaged.flip_bit(&path, bit).unwrap();
            let mode = if n % 2 == 0 { ReadMode::Mapped } else { ReadMode::Positioned };
            let context = format!("seed {seed}: bit {bit} of {}", path.display());
            noticed += usize::from(interrogate(&damaged, &known, mode, &context) > 0);
            flips += 1;
        }
    }
    println!("{flips} flipped bits, {noticed} noticed, the others harmless");
    assert!(noticed > flips / 2);
}

#[test]
fn a_file_cut_anywhere_is_found() {
    let seed = seed(0xc07);
    let (disk, known) = build();
    let mut random = Random(seed);
    for path in files(&disk) {
        let len = disk.read_file(&path).unwrap().len() as u64;
        let cuts = [0, 1, len / 2, len - 1, random.below(len), random.below(len), random.below(len)];
        for cut in cuts {
            let damaged = disk.restarted();
            damaged.tamper(&path, |content| content.truncate(cut as usize)).unwrap();
            let context = format!("seed {seed}: {} cut to {cut} of {len}", path.display());
            let noticed = interrogate(&damaged, &known, ReadMode::Mapped, &context) > 0;
            // The last bytes of a sealed log file are padding.
            assert!(noticed || cut > len / 2, "{context}: not noticed");
        }
    }
}

#[test]
fn a_lost_file_is_found_and_named() {
    let (disk, known) = build();
    for path in files(&disk) {
        let damaged = disk.restarted();
        strongroom::vfs::Vfs::remove(&damaged, &path).unwrap();
        let context = format!("{} lost", path.display());
        assert!(interrogate(&damaged, &known, ReadMode::Mapped, &context) > 0, "{context}: not noticed");
    }
}

#[test]
fn damage_stays_with_the_blobs_it_hit() {
    let (disk, known) = build();
    let segment = files(&disk).into_iter().find(|path| path.extension().is_some_and(|ext| ext == "seg")).unwrap();
    disk.flip_bit(&segment, 8 * 5000).unwrap();
    let store = options(&disk, &Clock::manual()).open("/store").unwrap();
    let damaged: Vec<_> =
        known.blobs.iter().filter(|(digest, _)| store.get(digest).unwrap().bytes().is_err()).collect();
    assert_eq!(damaged.len(), 1);
    let error = store.get(&damaged[0].0).unwrap().bytes().unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, .. } if *file == segment), "{error}");
    let report = store.verify(|_| {}).unwrap();
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
}

#[test]
fn a_read_error_is_an_error_and_not_damage() {
    let (disk, known) = build();
    for path in files(&disk).into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg")) {
        let len = disk.read_file(&path).unwrap().len() as u64;
        let failing = disk.restarted();
        failing.fail_reads(&path, 0..len);
        let store = options(&failing, &Clock::manual()).open("/store").unwrap();
        for (digest, content) in &known.blobs {
            match store.get(digest).unwrap().bytes() {
                Ok(bytes) => assert_eq!(bytes, content),
                Err(Error::Io { path: found, .. }) => assert_eq!(found, path),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn an_empty_part_of_a_blob_takes_no_reading() {
    let disk = SimVfs::new();
    let store =
        options(&disk, &Clock::manual()).inline_max(10_000).read_mode(ReadMode::Positioned).open("/store").unwrap();
    let digest = store.put(vec![7; 4000], Algorithm::Sha256).unwrap().digest;
    let blob = store.get(&digest).unwrap();
    files(&disk).iter().for_each(|path| disk.fail_reads(path, 0..1 << 30));
    assert_eq!((blob.slice(9..9).unwrap().len(), blob.memory(&(9..9))), (0, 0));
    assert!(matches!(blob.slice(9..10), Err(Error::Io { .. })));
}

#[test]
fn bytes_after_the_last_group_may_be_anything() {
    // What a power cut leaves of a group that nobody was told of: nothing, zeros, garbage, half of it.
    let disk = SimVfs::new();
    let store = options(&disk, &Clock::manual()).open("/store").unwrap();
    let kept = store.put(b"kept", Algorithm::Sha256).unwrap().digest;
    let before = disk.restarted();
    store.put(b"torn", Algorithm::Sha256).unwrap();
    let log = files(&disk).into_iter().find(|path| path.extension().is_some_and(|ext| ext == "log")).unwrap();
    let (old, new) = (before.read_file(&log).unwrap(), disk.read_file(&log).unwrap());
    let mut random = Random(3);
    for _ in 0..200 {
        let torn = before.restarted();
        torn.tamper(&log, |content| {
            for (at, (old, new)) in old.iter().zip(&new).enumerate().filter(|(_, (old, new))| old != new) {
                content[at] = [*old, *new, random.next() as u8][random.below(3) as usize];
            }
        })
        .unwrap();
        let store = options(&torn, &Clock::manual()).open("/store").unwrap();
        assert_eq!(store.get(&kept).unwrap().bytes().unwrap(), &b"kept"[..]);
    }
}

/// Whatever page of a run is damaged: it costs what lies in it. Puts whose facts are not there go on, over many folds
/// and merges, and so do opening, closing and what collection does besides.
#[test]
fn a_damaged_page_of_a_run_stops_neither_writes_nor_folds_nor_openings() {
    let seed = seed(0xbad);
    let (disk, _) = build();
    let mut random = Random(seed);
    let runs = files(&disk).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "run"));
    let mut pages = 0;
    for path in runs {
        let len = disk.read_file(&path).unwrap().len() as u64;
        // All pages, but for the parts without which a run is not opened: header, table and footer.
        for page in 1..len / 4096 {
            let context = format!("seed {seed}: page {page} of {}", path.display());
            let damaged = disk.restarted();
            damaged.flip_bit(&path, page * 4096 * 8 + random.below(4096 * 8)).unwrap();
            let clock = Clock::manual();
            let options = || options(&damaged, &clock).retention(Duration::ZERO);
            let store = options().open("/store").unwrap_or_else(|error| panic!("{context}: {error}"));
            // What it has left is to go, as far as it can be read.
            for repository in store.repositories(None, 9).unwrap_or_default().items {
                let deleted = store.delete_repository(&repository, RepositoryDeletion::WithContents);
                assert!(deleted.as_ref().map_or_else(is_typed, |_| true), "{context}: {deleted:?}");
            }
            let mut done = 0;
            for n in 0..120u64 {
                match store.put(random.bytes(if n % 9 == 0 { 3000 } else { 200 }), Algorithm::Sha256) {
                    Ok(digest) => {
                        done += 1;
                        if n % 3 == 0 {
                            let removed = store.remove(&digest.digest);
                            assert!(removed.is_ok() || removed.is_err_and(|e| is_typed(&e)));
                        }
                    }
                    Err(error) => assert!(is_typed(&error), "{context}: {error}"),
                }
            }
            assert!(done > 100, "{context}: {done} of 120 puts");
            store.checkpoint().unwrap_or_else(|error| panic!("{context}: {error}"));
            clock.advance(Duration::from_secs(1));
            let collected = store.collect(&strongroom::CollectOptions::new(), |_| std::ops::ControlFlow::Continue(()));
            let collected = collected.unwrap_or_else(|error| panic!("{context}: {error}"));
            let is_complete = collected.blobs > 20 && collected.live_bytes > 0;
            assert!(is_complete || !collected.damaged.is_empty(), "{context}: {collected:?}");
            store.close().unwrap_or_else(|error| panic!("{context}: {error}"));
            let store = options().open("/store").unwrap_or_else(|error| panic!("{context}: {error}"));
            // Only what would be found in the damaged page can't be looked up.
            let puts = (0..16).map(|_| store.put(random.bytes(200), Algorithm::Sha256)).collect::<Vec<_>>();
            let refused = puts.iter().filter_map(|put| put.as_ref().err()).collect::<Vec<_>>();
            assert!(refused.len() < 8 && refused.iter().all(|error| is_typed(error)), "{context}: {refused:?}");
            pages += 1;
        }
    }
    println!("{pages} pages");
    assert!(pages > 20);
}
