//! Handles: owned, shared, outliving each other; and what is left of a call that was under way when the store was
//! closed by another handle.

use std::collections::HashMap;
use std::io::{BufRead, Cursor, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};

use strongroom::registry::{PutManifest, Repository, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Blob, CollectOptions, Digest, Durability, Error, Options, Store};

use crate::common::registry::{blob, create, image, name, push, tag};
use crate::common::{Random, options};

fn open(disk: &SimVfs) -> Store {
    options(disk, &strongroom::Clock::manual()).open("/store").unwrap()
}

/// A source that ends when it is told to.
struct Held {
    head: Cursor<Vec<u8>>,
    has_begun: Sender<()>,
    goes_on: Receiver<()>,
}

impl Read for Held {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self.head.read(buf)? {
            0 => {
                let _ = self.has_begun.send(());
                let _ = self.goes_on.recv();
                Ok(0)
            }
            len => Ok(len),
        }
    }
}

#[test]
fn a_repository_is_kept_in_a_map_and_sent_to_threads() {
    fn is_handle<T: Clone + Send + Sync + 'static>() {}
    is_handle::<Repository>();
    is_handle::<Store>();
    let store = open(&SimVfs::new());
    let map: HashMap<String, Repository> =
        (0..4).map(|n| (n.to_string(), create(&store, &format!("team/app{n}")))).collect();
    let threads: Vec<_> = map
        .values()
        .cloned()
        .map(|repository| std::thread::spawn(move || repository.put("content", Algorithm::Sha256).unwrap()))
        .collect();
    let stored: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for stored in stored {
        assert!(!stored.existed, "that another repository has it is not told");
        assert!(map.values().all(|repository| repository.get(&stored.digest).unwrap().bytes().unwrap() == "content"));
    }
}

#[test]
fn the_last_handle_closes_the_store() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let repository = create(&store, "team/app");
    let (again, blobs) = (store.clone(), store.with_durability(Durability::Relaxed));
    drop(store);
    drop(blobs);
    repository.put("a", Algorithm::Sha256).unwrap();
    drop(again);
    // The repository is a handle as well.
    let digest = repository.put("b", Algorithm::Sha256).unwrap().digest;
    assert!(matches!(options(&disk, &strongroom::Clock::manual()).open("/store"), Err(Error::Locked { .. })));
    drop(repository);
    let store = open(&disk);
    assert_eq!(store.repository(&name("team/app")).unwrap().get(&digest).unwrap().bytes().unwrap(), "b");
}

#[test]
fn closing_ends_all_handles_and_frees_the_directory() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let (repository, other) = (create(&store, "team/app"), store.clone());
    let layer = blob(&repository, "a layer");
    let manifest = push(&repository, image(&[layer], None), &["v1"]);
    let upload = repository.begin_upload(Algorithm::Sha256).unwrap();
    let opened = repository.get(&layer).unwrap();
    store.close().unwrap();

    assert_eq!(opened.bytes().unwrap(), "a layer", "what was opened stays readable");
    let closed = [
        repository.put("x", Algorithm::Sha256).map(drop),
        repository.put(vec![7; 100_000], Algorithm::Sha256).map(drop),
        repository.get(&layer).map(drop),
        repository.get_many(&[layer]).map(drop),
        repository.stat(&layer).map(drop),
        repository.stat_many(&[layer]).map(drop),
        repository.claim(&layer).map(drop),
        repository.claim_many(&[layer]).map(drop),
        repository.put_many([("x", Algorithm::Sha256)]).map(drop),
        repository.snapshot().map(drop),
        repository.usage().map(drop),
        repository.count_uploads(9).map(drop),
        repository.open_manifest(&tag("v1").into()).map(drop),
        repository.delete_batch(&[tag("v1").into()]).map(drop),
        repository.info().map(drop),
        repository.blobs(None, 1).map(drop),
        repository.tags(None, 1).map(drop),
        repository.resolve(&tag("v1")).map(drop),
        repository.pull_manifest(&manifest.into()).map(drop),
        repository.manifests(None, 1).map(drop),
        repository.put_manifest("{}", PutManifest::new("a/b").references([], [])).map(drop),
        repository.delete_manifest(&manifest).map(drop),
        repository.untag(&tag("v1")).map(drop),
        repository.append_upload(upload, 0, "x").map(drop),
        repository.upload_status(upload).map(drop),
        repository.referrers(&manifest, None, None, 1).map(drop),
        repository.uploads(None, 9).map(drop),
        other.put("x", Algorithm::Sha256).map(drop),
        other.get(&layer).map(drop),
        other.get_many(&[layer]).map(drop),
        other.exists(&layer).map(drop),
        other.exists_many(&[layer]).map(drop),
        other.stat(&layer).map(drop),
        other.stat_many(&[layer]).map(drop),
        other.claim_many(&[layer]).map(drop),
        other.put_many([("x", Algorithm::Sha256)]).map(drop),
        other.snapshot().map(drop),
        other.snapshot_to(std::path::Path::new("/copy"), &strongroom::SnapshotOptions::new()).map(drop),
        other.count_uploads(9).map(drop),
        other.repository(&name("team/app")).map(drop),
        other.create_repository(&name("team/new"), RepositorySettings::new()).map(drop),
        other.repositories(None, 1).map(drop),
        other.events(strongroom::Lsn::default(), 1).map(drop),
        other.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).map(drop),
        other.verify(|_| ()).map(drop),
        other.usage().map(drop),
        other.checkpoint(),
        other.sync(),
        other.probe(),
    ];
    for (n, result) in closed.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Closed)), "call {n}: {result:?}");
    }
    other.close().unwrap();

    let store = open(&disk);
    let same = store.repository(&name("team/app")).unwrap();
    assert!(matches!(repository.info(), Err(Error::Closed)), "a handle belongs to one opening");
    assert_eq!(same.resolve(&tag("v1")).unwrap().digest, manifest);
    assert_eq!(same.append_upload(upload, 0, "x").unwrap(), 1);
}

/// A put and an append whose sources stall hold nothing up, and change nothing beside the one that opens the store
/// next: neither the file of the content, whose id may be another's by now, nor the upload, which goes on elsewhere.
#[test]
fn calls_under_way_change_nothing_after_the_store_was_closed() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let repository = create(&store, "team/app");
    let upload = repository.begin_upload(Algorithm::Sha256).unwrap();
    assert_eq!(repository.append_upload(upload, 0, vec![1; 70_000]).unwrap(), 70_000);
    let (begun, has_begun) = channel();
    let start = |appends: bool| {
        let (go, goes_on) = channel();
        let held = Held { head: Cursor::new(vec![2; 3 << 20]), has_begun: begun.clone(), goes_on };
        let repository = repository.clone();
        let call = std::thread::spawn(move || match appends {
            true => repository.append_upload_from(upload, 70_000, held).map(drop),
            false => repository.put_reader(held, Algorithm::Sha256).map(drop),
        });
        (call, go)
    };
    let calls = [start(true), start(false)];
    calls.iter().for_each(|_| has_begun.recv().unwrap());
    store.close().unwrap();

    let next = open(&disk);
    let same = next.repository(&name("team/app")).unwrap();
    let content = [vec![1; 70_000], vec![3; 100_000]].concat();
    let digest = Digest::of(Algorithm::Sha256, &content);
    assert_eq!(same.append_upload(upload, 70_000, &content[70_000..]).unwrap(), 170_000);
    let large: Vec<Digest> = (0..3).map(|n| same.put(vec![n; 200_000], Algorithm::Sha256).unwrap().digest).collect();
    let files = disk.files();
    for (call, go) in calls {
        drop(go);
        assert!(matches!(call.join().unwrap(), Err(Error::Closed)));
    }
    assert_eq!(disk.files(), files);
    same.commit_upload(upload, digest).unwrap();
    assert_eq!(same.get(&digest).unwrap().bytes().unwrap(), content);
    assert!(large.iter().all(|digest| same.get(digest).unwrap().verify().is_ok()));
    next.close().unwrap();
    let mut last = open(&disk);
    assert!(last.verify(|_| ()).unwrap().findings.is_empty());
    let report = last.repair(|_| ControlFlow::Continue(())).unwrap();
    assert!(report.mended == 0 && report.left.is_sound());
}

/// Whoever closes races those who write: what is acknowledged is there, whatever else is not.
#[test]
fn writers_race_closing() {
    for round in 0..20u8 {
        let disk = SimVfs::new();
        let store = open(&disk);
        let repository = create(&store, "team/app");
        let barrier = Arc::new(Barrier::new(4));
        let writers: Vec<_> = (0..3u8)
            .map(|writer| {
                let (repository, barrier) = (repository.clone(), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    let mut acknowledged = Vec::new();
                    for n in 0..255u8 {
                        let content = vec![[round, writer, n]; if n % 7 == 0 { 3000 } else { 10 }].concat();
                        match repository.put(&content, Algorithm::Blake3) {
                            Ok(stored) => acknowledged.push(stored.digest),
                            Err(Error::Closed) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        barrier.wait();
        std::thread::sleep(std::time::Duration::from_micros(u64::from(round) * 200));
        store.close().unwrap();
        let acknowledged: Vec<Digest> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        let store = open(&disk.power_cut(u64::from(round)));
        let same = store.repository(&name("team/app")).unwrap();
        assert!(acknowledged.iter().all(|digest| same.get(digest).unwrap().verify().is_ok()));
        assert!(store.verify(|_| ()).unwrap().findings.is_empty());
    }
}

#[test]
fn durability_is_chosen_by_handle() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let repository = create(&store, "team/app");
    let (relaxed, team) = (store.with_durability(Durability::Relaxed), repository.with_durability(Durability::Relaxed));
    let before = disk.operations();
    let loose = relaxed.put("loose", Algorithm::Sha256).unwrap();
    assert_eq!(disk.operations(), before + 1, "written, and not synced");
    let linked = team.put("linked", Algorithm::Sha256).unwrap();
    assert!(loose.lsn < linked.lsn && !loose.existed && !linked.existed);
    let is_there = |disk: &SimVfs| {
        let store = open(disk);
        let same = store.repository(&name("team/app")).unwrap();
        (store.exists(&loose.digest).unwrap(), same.stat(&linked.digest).is_ok())
    };
    assert!((0..20).any(|seed| is_there(&disk.power_cut(seed)) == (false, false)), "nothing was promised");

    // Who is told by a synced handle that it is there can rely on it.
    let answers: [&dyn Fn() -> bool; 4] = [
        &|| store.put("loose", Algorithm::Sha256).unwrap().existed,
        &|| store.claim(&loose.digest).is_ok(),
        &|| repository.put_reader(&b"linked"[..], linked.digest).unwrap().existed,
        &|| repository.claim(&linked.digest).is_ok(),
    ];
    for answer in answers {
        relaxed.put(format!("later {:p}", answer), Algorithm::Sha256).unwrap();
        assert!(answer());
        assert!((0..20).all(|seed| is_there(&disk.power_cut(seed)) == (true, true)));
    }
    let layer = team.put("a layer", Algorithm::Sha256).unwrap();
    let (media_type, document) = image(&[layer.digest], None);
    let put = |through: &Repository| through.put_manifest(&document, PutManifest::new(media_type)).unwrap();
    let (pushed, again) = (put(&team), put(&repository));
    assert!(!pushed.existed && again.existed && again.lsn >= pushed.lsn);
    for seed in 0..20 {
        let store = open(&disk.power_cut(seed));
        store.repository(&name("team/app")).unwrap().get_manifest(&pushed.digest.into()).unwrap();
    }
}

#[test]
fn a_write_says_whether_its_content_was_there() {
    let store = open(&SimVfs::new());
    let [ours, theirs] = ["team/ours", "team/theirs"].map(|name| create(&store, name));
    for len in [10, 100_000] {
        let content = vec![7; len];
        let first = theirs.put(&content, Algorithm::Sha256).unwrap();
        assert_eq!((first.len, first.existed), (len as u64, false));
        let own = ours.put(&content, Algorithm::Sha256).unwrap();
        assert!(!own.existed && own.lsn > first.lsn, "what others have is not told");
        let again = ours.put_reader(&content[..], own.digest).unwrap();
        assert!(again.existed && again.lsn >= own.lsn && again.len == len as u64);
        assert!(store.put(&content, Algorithm::Sha256).unwrap().existed);
        let id = ours.begin_upload(Algorithm::Sha256).unwrap();
        ours.append_upload(id, 0, &content).unwrap();
        assert!(ours.commit_upload(id, own.digest).unwrap().existed);
        let other = create(&store, &format!("team/other{len}"));
        assert!(!other.mount(&own.digest, ours.name(), |_| true).unwrap().existed);
        assert!(other.mount(&own.digest, ours.name(), |_| true).unwrap().existed);
    }
}

#[test]
fn a_repair_needs_the_store_for_itself() {
    let mut store = open(&SimVfs::new());
    let repository = create(&store, "team/app");
    assert!(matches!(store.repair(|_| ControlFlow::Continue(())), Err(Error::HandlesInUse)));
    drop(repository);
    store.repair(|_| ControlFlow::Continue(())).unwrap();
}

#[test]
fn an_upload_is_appended_to_where_it_ends() {
    let store = open(&SimVfs::new());
    let repository = create(&store, "team/app");
    for large in [1, 100_000] {
        let [own, outside] = [repository.begin_upload(Algorithm::Sha256), store.begin_upload(Algorithm::Sha256)];
        let (own, outside, piece) = (own.unwrap(), outside.unwrap(), vec![large as u8; large]);
        for n in 1..=4 {
            let appended = match n % 2 {
                0 => [repository.append_upload(own, None, &piece), store.append_upload_from(outside, None, &piece[..])],
                _ => [repository.append_upload_from(own, None, &piece[..]), store.append_upload(outside, None, &piece)],
            };
            assert!(appended.into_iter().all(|offset| offset.unwrap() == n * large as u64));
        }
        assert!(matches!(store.append_upload(outside, 0, "x"), Err(Error::WrongOffset { found: 0, .. })));
        let digest = Digest::of(Algorithm::Sha256, &piece.repeat(4));
        assert!(!repository.commit_upload(own, digest).unwrap().existed);
        store.commit_upload(outside, digest).unwrap();
        assert!(matches!(store.append_upload(outside, None, "x"), Err(Error::UploadNotFound { .. })));
    }
}

#[test]
fn a_blob_is_read_by_lines_from_any_place() {
    let store = open(&SimVfs::new());
    let lines: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
    let blob = store.get(&store.put(&lines, Algorithm::Sha256).unwrap().digest).unwrap();
    assert!(blob.reader().lines().map(|line| line.unwrap() + "\n").collect::<String>() == lines);
    let mut reader = blob.reader();
    reader.seek(SeekFrom::Start(lines.find("line 40000").unwrap() as u64)).unwrap();
    assert_eq!(reader.lines().nth(1).unwrap().unwrap(), "line 40001");
    let mut reader = blob.reader();
    reader.seek(SeekFrom::End(5)).unwrap();
    assert!(reader.fill_buf().unwrap().is_empty());
}

/// Blobs that a thread reads in its last moments.
#[derive(Default)]
struct LastReads(std::cell::RefCell<Vec<(Blob, Vec<u8>)>>);

impl Drop for LastReads {
    fn drop(&mut self) {
        for (blob, content) in self.0.take() {
            assert!(blob.bytes().unwrap() == content);
        }
    }
}

thread_local! {
    static LAST_READS: LastReads = LastReads::default();
}

#[test]
fn blobs_are_read_in_the_destructor_of_a_thread_local() {
    // That ended the process: what the crate keeps for a thread was gone by then.
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new().create(true).inline_max(8000).open(dir.path()).unwrap();
    let contents = [Random(1).bytes(100_000), Random(2).bytes(5000), "line ".repeat(1000).into_bytes()];
    let blobs: Vec<_> =
        contents.into_iter().map(|content| (store.put(&content, Algorithm::Sha256).unwrap().digest, content)).collect();
    store.close().unwrap();
    let store = Options::new().open(dir.path()).unwrap();
    std::thread::spawn(move || {
        LAST_READS.with(|_| ()); // what is made first goes last
        let warm = store.put(Random(3).bytes(100_000), Algorithm::Sha256).unwrap().digest;
        store.get(&warm).unwrap().bytes().unwrap();
        store.get(&blobs[2].0).unwrap().bytes().unwrap();
        let blobs = blobs.into_iter().map(|(digest, content)| (store.get(&digest).unwrap(), content));
        LAST_READS.with(|reads| reads.0.replace(blobs.collect()));
    })
    .join()
    .unwrap();
}
