//! Collections that are killed anywhere, twice, and disks that fill up under them.

use std::ops::ControlFlow;
use strongroom::registry::RepositoryDeletion;
use strongroom::vfs::{Fault, SimVfs};
use strongroom::{Algorithm, CollectOptions, Digest, Error, PutNamed, Store};

use super::{GONE, collect, is_whole};
use crate::common::file_names;
use crate::common::registry::{Lab, assert_sound, blob, create, image, name, push, push_image};
use crate::common::{Random, encrypted_disk, seed, tell};

/// What has to be there after any collection.
struct Kept {
    blobs: Vec<Digest>,
    manifest: Digest,
}

/// A store with all that a collection takes, and what it leaves, in files of every kind.
fn prepare(lab: &Lab) -> Kept {
    let store = super::open(lab);
    let ours = create(&store, "a/ours");
    let theirs = create(&store, "a/theirs");
    let mut random = Random(3);
    let mut kept = Vec::new();
    for n in 0..24 {
        let content = random.bytes(if n % 8 == 7 { 5000 } else { 900 });
        let digest = store.put(&content, [Algorithm::Sha256, Algorithm::Sha512][n % 2]).unwrap().digest;
        if n % 3 == 0 {
            store.named().set(&format!("kept {n}"), &digest, PutNamed::new()).unwrap();
            kept.push(digest);
        }
    }
    store.named().set("soon", &kept[0], PutNamed::new().expires_after(std::time::Duration::from_secs(1))).unwrap();
    let layers = [blob(&ours, "layer"), blob(&ours, &"long layer".repeat(500))];
    let manifest = push(&ours, image(&layers, None), &["v1"]);
    let gone = push_image(&ours, "image", &["v2"]);
    ours.delete_manifest(&gone).unwrap();
    for n in 0..3 {
        push_image(&theirs, &format!("their image {n}"), &["v1"]);
    }
    let upload = ours.begin_upload(Algorithm::Sha256).unwrap();
    ours.append_upload(upload, 0, random.bytes(3000)).unwrap();
    store.checkpoint().unwrap();
    store.delete_repository(&name("a/theirs"), RepositoryDeletion::WithContents).unwrap();
    kept.extend(layers);
    kept.push(manifest);
    lab.advance(GONE);
    store.close().unwrap();
    Kept { blobs: kept, manifest }
}

fn check(store: &Store, kept: &Kept, context: &str) {
    assert!(kept.blobs.iter().all(|digest| is_whole(store, digest)), "{context}: what is held is there");
    let ours = store.repository(&name("a/ours")).unwrap();
    assert!(ours.get_manifest(&kept.manifest.into()).is_ok());
    assert_sound(store);
}

/// Goes on to the end, after which nothing is left of what nothing holds.
fn finish(lab: &Lab, kept: &Kept, context: &str) {
    let store = super::open(lab);
    check(&store, kept, context);
    lab.advance(GONE);
    let report = collect(&store);
    assert!(report.stopped.is_none() && report.damaged.is_empty(), "{context}: {report:?}");
    check(&store, kept, context);
    assert_eq!(store.blobs().count(), kept.blobs.len(), "{context}: what nothing holds is gone");
    assert!(file_names(&store).unwrap().len() == 8 && store.uploads(None, 1000).unwrap().items.is_empty());
    let again = collect(&store);
    assert_eq!(
        (again.blobs, again.moved, again.dead_bytes - again.stayed.log_bytes),
        (0, 0, again.stayed.scattered_bytes)
    );
    store.close().unwrap();
    // Nothing lies there that nothing names: what a crash left would not be known.
    let usage = super::open(lab).usage().unwrap();
    let len = |path: &std::path::PathBuf| lab.disk.read_file(path).unwrap().len() as u64;
    let files = lab
        .disk
        .files()
        .into_iter()
        .filter(|path| path.starts_with("/store/segments") || path.starts_with("/store/log"));
    let on_disk: u64 = files.map(|path| len(&path)).sum();
    assert!(
        on_disk <= usage.live_bytes + usage.dead_bytes + 16 * 4096 + (16 << 10),
        "{context}: {on_disk} of {usage:?}"
    );
}

fn on(disk: SimVfs, lab: &Lab) -> Lab {
    Lab { disk, clock: lab.clock.clone() }
}

fn killed_twice(new: fn() -> SimVfs, stride: usize) -> u64 {
    let seed = seed(0x6c6);
    let mut draws = Random(seed);
    let lab = Lab { disk: new(), ..Lab::new() };
    let kept = prepare(&lab);
    // What it takes without a fault.
    let run = |lab: &Lab| {
        let Ok(store) = lab.options().history(0).open("/store") else { return };
        let _ = store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(()));
    };
    let calm = on(lab.disk.power_cut(0), &lab);
    run(&calm);
    let operations = calm.disk.operations();
    let mut cuts = 0;
    for first in 1..=operations {
        let draw = draws.next();
        let one = on(lab.disk.power_cut(0), &lab);
        one.disk.fault_at(first, Fault::PowerCut);
        run(&one);
        let context = format!("seed {seed} cut at {first} draw {draw}");
        finish(&on(one.disk.power_cut(draw), &lab), &kept, &context);
        let counting = on(one.disk.power_cut(draw), &lab);
        run(&counting);
        for second in (1 + first % stride as u64..=counting.disk.operations()).step_by(stride) {
            let two = on(one.disk.power_cut(draw), &lab);
            two.disk.fault_at(second, Fault::PowerCut);
            run(&two);
            let context = format!("{context}, again at {second}");
            finish(&on(two.disk.power_cut(draws.next()), &lab), &kept, &context);
            cuts += 1;
        }
        cuts += 1;
    }
    cuts
}

#[test]
fn a_collection_is_killed_anywhere_twice() {
    let cuts = killed_twice(SimVfs::new, 9);
    let encrypted = killed_twice(encrypted_disk, 60);
    tell(&format!("collections killed: {cuts}, and {encrypted} in an encrypted store"));
    assert!(cuts > 1000 && encrypted > 100, "{cuts} {encrypted}");
}

#[test]
fn the_disk_is_full_in_the_middle() {
    let lab = Lab::new();
    let kept = prepare(&lab);
    let calm = on(lab.disk.power_cut(0), &lab);
    drop(super::open(&calm));
    let first = calm.disk.operations() + 1;
    let store = super::open(&calm);
    collect(&store);
    let last = calm.disk.operations();
    drop(store);
    for k in first..=last {
        let one = on(lab.disk.power_cut(0), &lab);
        one.disk.fault_at(k, Fault::Full);
        let context = format!("full at {k}");
        if let Ok(store) = one.options().history(0).open("/store") {
            match store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())) {
                Ok(_) | Err(Error::Full { .. }) => {}
                Err(other) => panic!("{context}: {other}"),
            }
            check(&store, &kept, &context);
            one.disk.free_space();
            collect(&store);
            check(&store, &kept, &context);
        }
        one.disk.free_space();
        finish(&one, &kept, &context);
    }
}

#[test]
fn a_failed_sync_in_the_middle_ends_it_and_loses_nothing() {
    let lab = Lab::new();
    let kept = prepare(&lab);
    let calm = on(lab.disk.power_cut(0), &lab);
    collect(&super::open(&calm));
    for (k, fault) in (1..=calm.disk.operations()).flat_map(|k| [(k, Fault::FailedSync), (k, Fault::Error)]) {
        let one = on(lab.disk.power_cut(0), &lab);
        one.disk.fault_at(k, fault);
        if let Ok(store) = one.options().history(0).open("/store") {
            let _ = store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(()));
            assert!(kept.blobs.iter().all(|digest| is_whole(&store, digest)), "{fault:?} at {k}");
        }
        finish(&on(one.disk.power_cut(k), &lab), &kept, &format!("{fault:?} at {k}"));
    }
}
