//! Each kind of damage, and what is left of a store that has it.

use std::ops::ControlFlow;
use std::path::PathBuf;

use strongroom::registry::{PutManifest, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{
    Algorithm, Clock, CollectOptions, Compression, Damage, Digest, Error, ExpectNamed, Lsn, Options, PutNamed, Store,
};

use super::lab::{contents, logs, lose, open, salvaging};
use crate::common::registry::{image, name, push, tag};
use crate::common::{Random, encrypted_disk, observe, options, seed};

/// Options under which everything stays in log files of their own, several of which no run has.
fn calm(disk: &SimVfs) -> Options {
    options(disk, &Clock::manual()).memtable_size(1 << 20).compression(Compression::Off)
}

/// What was put, in order: content, and the LSN of the commit.
struct Put {
    digest: Digest,
    content: Vec<u8>,
    lsn: Lsn,
}

fn put(store: &Store, random: &mut Random, len: usize) -> Put {
    let content = random.bytes(len);
    let digest = store.put(&content, Algorithm::Sha256).unwrap().digest;
    Put { digest, content, lsn: store.last_lsn() }
}

/// A store with thirty blobs, each pinned under its number: closed, with one log file, or killed, with several. No run
/// has anything.
fn pinned(is_closed: bool) -> (SimVfs, Vec<Put>) {
    let disk = SimVfs::new();
    let store = calm(&disk).log_file_size(if is_closed { 1 << 20 } else { 16 << 10 }).open("/store").unwrap();
    let mut random = Random(5);
    let puts: Vec<_> = (0..30)
        .map(|n| {
            let put = put(&store, &mut random, 1200);
            store.named().set(&format!("pin-{n:02}"), &put.digest, PutNamed::new()).unwrap();
            put
        })
        .collect();
    if is_closed {
        store.close().unwrap();
        return (disk, puts);
    }
    (disk.restarted(), puts)
}

/// Where content lies in a log file.
fn find(disk: &SimVfs, put: &Put) -> (PathBuf, usize) {
    let place = |path: PathBuf| {
        let bytes = disk.read_file(&path).unwrap();
        let at = bytes.windows(64).position(|window| window == &put.content[..64])?;
        Some((path, at))
    };
    logs(disk).into_iter().find_map(place).expect("in plain")
}

/// Damages what a record says, not its content.
fn harm_body(disk: &SimVfs, put: &Put) {
    let (path, at) = find(disk, put);
    disk.flip_bit(path, 8 * (at + put.content.len() + 40) as u64).unwrap();
}

/// Damages a record's header.
fn harm_header(disk: &SimVfs, put: &Put) {
    let (path, at) = find(disk, put);
    disk.flip_bit(path, 8 * (at - 128 - 64 + 20) as u64).unwrap();
}

/// Names of pins, by numbers.
fn pins(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("pin-{n:02}")).collect()
}

#[test]
fn a_damaged_record_costs_what_came_behind_it_and_content_that_can_be_read_is_kept() {
    for (is_header, harm) in [(false, harm_body as fn(&SimVfs, &Put)), (true, harm_header)] {
        let (disk, puts) = pinned(true);
        harm(&disk, &puts[12]);
        let refused = open(&disk).unwrap_err();
        let salvage = salvaging(&disk).salvage("/store").unwrap();
        let report = salvage.report().clone();
        assert_eq!((report.damage.len(), report.kept.get()), (1, puts[12].lsn.get() - 1), "{report:#?}");
        assert_eq!(report.damage[0].to_string(), refused.to_string());
        assert_eq!(report.unread, [puts[12].lsn..=puts[12].lsn]);
        assert_eq!(report.cut.named.iter().cloned().collect::<Vec<_>>(), pins(12..30));
        // The content of the damaged record proves itself, too.
        assert_eq!(report.recovered, puts[12..].iter().map(|put| put.digest).collect());
        assert!(report.gone.is_empty() && report.damaged.is_empty() && !report.may_be_more, "{is_header}: {report:#?}");
        salvage.carry_out().unwrap();
        let store = open(&disk).unwrap();
        let seen = observe(&store);
        assert_eq!(seen.files.into_keys().collect::<Vec<_>>(), pins(0..12));
        assert_eq!(seen.blobs.len(), 30);
        assert!(store.last_lsn() > puts[29].lsn, "no LSN comes again");
        // What is recovered is held by nothing, and whoever pins it again need not bring it.
        assert_eq!(store.stat(&puts[20].digest).unwrap().references, 0);
        store.named().set("again", &puts[20].digest, PutNamed::new()).unwrap();
    }
}

#[test]
fn several_damages_are_all_told() {
    let (disk, puts) = pinned(false);
    for n in [4, 15, 25] {
        harm_body(&disk, &puts[n]);
    }
    let report = salvaging(&disk).salvage("/store").unwrap().carry_out().unwrap();
    let at = |n: usize| puts[n].lsn..=puts[n].lsn;
    assert_eq!(report.unread, [at(4), at(15), at(25)]);
    let files: Vec<_> = report.damage.iter().map(ToString::to_string).collect();
    assert_eq!(files.len(), 3, "one for each file: {files:?}");
    assert_eq!(observe(&open(&disk).unwrap()).blobs.len(), 30);
}

#[test]
fn a_lost_log_file_costs_itself_and_what_came_behind_it() {
    let (disk, puts) = pinned(false);
    let lost = find(&disk, &puts[15]).0;
    lose(&disk, &lost);
    let report = salvaging(&disk).salvage("/store").unwrap().carry_out().unwrap();
    assert!(matches!(&report.damage[..], [Error::Corrupt { file, damage: Damage::Missing, .. }] if *file == lost));
    let [unread] = &report.unread[..] else { panic!("{report:#?}") };
    assert!(unread.contains(&puts[15].lsn) && *unread.start() == Lsn::from(report.kept.get() + 1));
    let seen = observe(&open(&disk).unwrap());
    let has = |put: &&Put| seen.blobs.contains_key(&put.digest);
    assert_eq!(puts.iter().filter(has).count(), puts.iter().filter(|put| !unread.contains(&put.lsn)).count());
}

#[test]
fn a_damaged_header_costs_the_records_and_not_the_content() {
    let (disk, puts) = pinned(false);
    let path = find(&disk, &puts[15]).0;
    disk.flip_bit(&path, 8 * 20).unwrap();
    let report = salvaging(&disk).salvage("/store").unwrap().carry_out().unwrap();
    let [unread] = &report.unread[..] else { panic!("{report:#?}") };
    let is_lost = |put: &&Put| unread.contains(&put.lsn);
    assert!(puts.iter().filter(is_lost).count() > 5);
    assert!(puts.iter().filter(is_lost).all(|put| report.recovered.contains(&put.digest)), "{report:#?}");
    assert_eq!(observe(&open(&disk).unwrap()).blobs.len(), 30);
}

#[test]
fn the_last_record_of_a_sealed_file_is_missed() {
    let (disk, puts) = pinned(true);
    let path = logs(&disk).pop().unwrap();
    for cut in [true, false] {
        let disk = disk.restarted();
        disk.tamper(&path, |content| {
            let len = content.len() - 64;
            if cut { content.truncate(len) } else { content[len..].fill(0) }
        })
        .unwrap();
        let report = salvaging(&disk).salvage("/store").unwrap().carry_out().unwrap();
        assert_eq!((report.kept.get(), report.last.get()), (puts[29].lsn.get(), puts[29].lsn.get() + 1));
        let seen = observe(&open(&disk).unwrap());
        assert_eq!((seen.blobs.len(), seen.files.into_keys().collect::<Vec<_>>()), (30, pins(0..29)));
    }
}

#[test]
fn damage_to_what_runs_have_loses_nothing_and_needs_no_salvage() {
    let (disk, puts) = pinned(false);
    let store = calm(&disk).open("/store").unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    harm_body(&disk, &puts[12]);
    let before = contents(&disk);
    let salvage = salvaging(&disk).salvage("/store").unwrap();
    assert!(!salvage.report().is_needed());
    assert!(!salvage.carry_out().unwrap().is_needed());
    assert_eq!(contents(&disk), before);
    assert_eq!(observe(&open(&disk).unwrap()).files.len(), 30);
}

#[test]
fn nothing_is_done_to_a_sound_store_also_after_a_kill() {
    let disk = SimVfs::new();
    let store = options(&disk, &Clock::manual()).open("/store").unwrap();
    store.put(b"content", Algorithm::Sha256).unwrap();
    let killed = disk.restarted();
    let before = contents(&killed);
    assert!(!salvaging(&killed).salvage("/store").unwrap().carry_out().unwrap().is_needed());
    assert_eq!(contents(&killed), before);
    assert!(matches!(salvaging(&disk).salvage("/store"), Err(Error::Locked { .. })), "while it is open");
    assert!(matches!(salvaging(&disk).salvage("/nothing"), Err(Error::NotAStore { .. })));
}

#[test]
fn a_damaged_list_or_format_is_refused_and_named() {
    let (disk, puts) = pinned(false);
    harm_body(&disk, &puts[12]);
    for path in ["/store/runs/LIST", "/store/FORMAT"] {
        let damaged = disk.restarted();
        damaged.flip_bit(path, 8 * 100).unwrap();
        let before = contents(&damaged);
        let error = salvaging(&damaged).salvage("/store").unwrap_err();
        assert!(matches!(&error, Error::Corrupt { file, .. } if file.to_str() == Some(path)), "{error}");
        assert_eq!(contents(&damaged), before);
    }
}

#[test]
fn without_copies_nothing_is_put_aside() {
    let (disk, puts) = pinned(false);
    harm_body(&disk, &puts[12]);
    let salvage = salvaging(&disk).salvage("/store").unwrap();
    assert!(salvage.report().copied_bytes > 30_000);
    let report = salvage.keep_copies(false).carry_out().unwrap();
    assert_eq!(report.copied_bytes, 0);
    assert!(!disk.files().iter().any(|path| path.starts_with("/store/salvage")));
    assert_eq!(observe(&open(&disk).unwrap()).blobs.len(), 30);
}

#[test]
fn a_salvaged_store_can_be_damaged_and_salvaged_again() {
    let (disk, puts) = pinned(false);
    harm_body(&disk, &puts[12]);
    let first = salvaging(&disk).salvage("/store").unwrap().carry_out().unwrap();
    let store = calm(&disk).log_file_size(1 << 20).open("/store").unwrap();
    let more: Vec<_> = (0..5).map(|_| put(&store, &mut Random(store.last_lsn().get()), 1200)).collect();
    store.close().unwrap();
    harm_body(&disk, &more[3]);
    let second = salvaging(&disk).salvage("/store").unwrap().carry_out().unwrap();
    assert_ne!(first.copies, second.copies);
    assert!(disk.files().iter().any(|path| path.starts_with(&first.copies)));
    let seen = observe(&open(&disk).unwrap());
    assert_eq!((seen.blobs.len(), seen.files.len()), (35, 12));
}

/// Content that later commits have removed or moved: those are cut, and the files are as they left them.
fn moved_and_removed(new: fn() -> SimVfs) {
    let seed = seed(0x6b1);
    let disk = new();
    let clock = Clock::manual();
    let open_calm =
        || options(&disk, &clock).memtable_size(1 << 20).compression(Compression::Off).history(0).open("/store");
    let store = open_calm().unwrap();
    let mut random = Random(seed);
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let layer = |content: &[u8]| app.put(content, Algorithm::Sha256).unwrap().digest;
    let (large, kept) = (random.bytes(9000), random.bytes(900));
    let (gone, stays) = (layer(&large), layer(&kept));
    let doomed = push(&app, image(&[gone, stays], None), &["doomed"]);
    let sound = push(&app, image(&[stays], None), &["sound"]);
    store.named().set("doomed", &gone, PutNamed::new()).unwrap();
    store.named().set("sound", &stays, PutNamed::new()).unwrap();
    let small: Vec<_> = (0..10).map(|_| put(&store, &mut random, 1000)).collect();
    store.named().set("packed", &small[0].digest, PutNamed::new()).unwrap();
    let upload = store.begin_upload(Algorithm::Sha256).unwrap();
    store.append_upload(upload, 0, random.bytes(3000)).unwrap();
    let uploaded = random.bytes(100_000);
    let committed = store.begin_upload(Algorithm::Sha256).unwrap();
    store.append_upload(committed, 0, &uploaded).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    let store = open_calm().unwrap();
    let app = store.repository(&name("team/app")).unwrap();
    // From here on all is to be cut.
    store.create_repository(&name("team/first"), RepositorySettings::new()).unwrap();
    store.commit_upload(committed, Digest::of(Algorithm::Sha256, &uploaded)).unwrap();
    store.named().set("uploaded", &Digest::of(Algorithm::Sha256, &uploaded), PutNamed::new()).unwrap();
    store.cancel_upload(upload).unwrap();
    store.named().remove("doomed", ExpectNamed::Any).unwrap();
    app.delete_manifest(&doomed).unwrap();
    app.remove_blob(&gone).unwrap();
    clock.advance(std::time::Duration::from_secs(10_000));
    small[1..].iter().for_each(|put| {
        store.remove(&put.digest).unwrap();
    });
    let collected = store.collect(&CollectOptions::new().max_dead(5), |_| ControlFlow::Continue(())).unwrap();
    assert!(collected.moved > 0 && collected.blobs > 0, "{collected:?}");
    store.close().unwrap();
    // The first record of the last log file.
    disk.flip_bit(logs(&disk).pop().unwrap(), 8 * 540).unwrap();
    let Err(Error::Corrupt { .. }) = open(&disk) else { panic!("it opens") };

    let report = salvaging(&disk).salvage("/store").unwrap().carry_out().unwrap();
    assert!(report.damaged.is_empty(), "{report:#?}");
    let store = open(&disk).unwrap();
    let seen = observe(&store);
    // What was moved is found where it lies now.
    assert_eq!(seen.blobs.get(&small[0].digest), Some(&small[0].content));
    assert!(seen.blobs.contains_key(&stays) && !seen.blobs.contains_key(&gone), "{report:#?}");
    // Content that is gone takes what held it along, and that is told.
    assert_eq!(seen.files.keys().collect::<Vec<_>>(), ["packed", "sound"]);
    let app = &seen.repositories["team/app"];
    assert!(app.manifests.contains_key(&sound) && !app.manifests.contains_key(&doomed));
    assert!(report.gone.blobs.contains(&gone) && report.gone.named.contains("doomed"), "{report:#?}");
    let changes = report.gone.repositories.values().next().unwrap();
    assert!(
        changes.manifests.contains(&doomed) && changes.tags.contains(&tag("doomed")) && changes.blobs.contains(&gone)
    );
    // The one upload is a blob, the other one was cancelled.
    assert!(seen.uploads.is_empty() && seen.blobs[&Digest::of(Algorithm::Sha256, &uploaded)] == uploaded);
    assert!(report.gone.uploads.contains(&upload) && report.gone.uploads.contains(&committed));
}

#[test]
fn content_that_was_moved_is_found_and_what_held_content_that_was_removed_goes() {
    moved_and_removed(SimVfs::new);
}

#[test]
fn so_it_is_in_an_encrypted_store() {
    moved_and_removed(encrypted_disk);
}

#[test]
fn a_manifest_that_awaits_a_blob_stays_where_another_repository_has_lost_it() {
    let disk = SimVfs::new();
    let store = calm(&disk).log_file_size(1 << 20).open("/store").unwrap();
    let mut random = Random(8);
    let create = |text: &str| store.create_repository(&name(text), RepositorySettings::new()).unwrap();
    let (cache, other) = (create("team/cache"), create("team/other"));
    let layer = other.put(random.bytes(50_000), Algorithm::Sha256).unwrap().digest;
    push(&other, image(&[layer], None), &["v1"]);
    let (media_type, document) = image(&[layer], None);
    let put_waiting = PutManifest::new(media_type).tag(tag("v1")).allow_missing_blobs();
    let waiting = cache.put_manifest(document, put_waiting).unwrap().digest;
    let last = put(&store, &mut random, 1200);
    drop((cache, other));
    store.close().unwrap();
    let segment = disk.files().into_iter().find(|path| path.extension().is_some_and(|end| end == "seg")).unwrap();
    harm_body(&disk, &last);
    lose(&disk, &segment);

    let report = salvaging(&disk).salvage("/store").unwrap().carry_out().unwrap();
    assert!(!report.gone.repositories.contains_key(&name("team/cache")), "{report:#?}");
    assert!(report.gone.repositories[&name("team/other")].blobs.contains(&layer), "{report:#?}");
    let store = open(&disk).unwrap();
    let (cache, other) =
        (store.repository(&name("team/cache")).unwrap(), store.repository(&name("team/other")).unwrap());
    assert_eq!(cache.resolve(&tag("v1")).unwrap().digest, waiting);
    assert!(other.resolve(&tag("v1")).is_err() && other.manifests(None, 9).unwrap().items.is_empty());
    assert!(store.verify(|_| ()).unwrap().findings.is_empty());
}
