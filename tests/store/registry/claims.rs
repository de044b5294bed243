//! What a client stored, or was told exists, stays for the retention time, counted in the store's open time.

use std::ops::ControlFlow;
use std::time::Duration;

use strongroom::registry::Repository;
use strongroom::{Algorithm, CollectOptions, Digest, Options, Store};

use crate::common::registry::{
    Lab, RETENTION, assert_sound, blob, create, image, index, is_gone, missing, name, push, push_image, try_push,
};

/// Past this, what nobody relied on since 0 is gone: retention, and how exactly its beginning is noted.
const GONE: u64 = RETENTION + RETENTION / 8;

fn stays(store: &Store, repository: &Repository, digest: &Digest) -> bool {
    store.expire_blobs().unwrap();
    !is_gone(&repository.get(digest))
}

#[test]
fn a_pushed_blob_stays_for_the_retention_time_and_then_goes() {
    // quay#6318: an upload answered with 201, collected 115 ms later, and a manifest refused.
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let upload = ours.begin_upload(Algorithm::Sha256).unwrap();
    ours.append_upload(upload, 0, "uploaded").unwrap();
    let uploaded = Digest::of(Algorithm::Sha256, b"uploaded");
    ours.commit_upload(upload, uploaded).unwrap();
    let large = blob(&ours, &"large".repeat(1000));
    let digests = [blob(&ours, "small"), large, uploaded, ours.put("other", Algorithm::Sha512).unwrap().digest];
    lab.advance(RETENTION - 1);
    assert!(digests.iter().all(|digest| stays(&store, &ours, digest)));
    lab.advance(GONE - RETENTION + 1);
    assert_eq!(store.expire_blobs().unwrap(), 4);
    assert!(digests.iter().all(|digest| is_gone(&ours.stat(digest))));
    assert_eq!(store.expire_blobs().unwrap(), 0);
    assert_sound(&store);
}

#[test]
fn a_push_of_what_is_there_counts_as_a_push() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let contents = ["small".to_owned(), "large".repeat(1000)];
    let digests = contents.each_ref().map(|content| blob(&ours, content));
    lab.advance(700);
    for (content, digest) in contents.iter().zip(&digests) {
        ours.put(content, digest).unwrap();
    }
    lab.advance(RETENTION - 1);
    assert!(digests.iter().all(|digest| stays(&store, &ours, digest)));
    lab.advance(GONE);
    assert_eq!(store.expire_blobs().unwrap(), 2);
}

#[test]
fn a_claimed_blob_stays_for_the_retention_time_from_the_claim_on_whenever_that_is() {
    // harbor#23116: a layer that HEAD had found, collected before the manifest came.
    for claimed_at in [0, 1, 99, 100, 101, 799] {
        let lab = Lab::new();
        let store = lab.open();
        let ours = create(&store, "a/ours");
        let layer = blob(&ours, "layer");
        lab.advance(claimed_at);
        let info = ours.claim(&layer).unwrap();
        assert_eq!((info.digest, info.len, info.references), (layer, 5, 0));
        lab.advance(RETENTION - 1);
        assert!(stays(&store, &ours, &layer), "claimed at {claimed_at}");
        push(&ours, image(&[layer], None), &[]);
        lab.advance(10 * GONE);
        assert!(stays(&store, &ours, &layer), "a manifest holds it");
    }
}

#[test]
fn a_claim_that_nobody_makes_use_of_ends() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let layer = blob(&ours, "layer");
    lab.advance(700);
    ours.claim(&layer).unwrap();
    lab.advance(GONE);
    assert!(!stays(&store, &ours, &layer));
    assert!(is_gone(&ours.claim(&layer)));
}

#[test]
fn claiming_again_and_again_costs_no_commit() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let (loose, held) = (blob(&ours, "loose"), blob(&ours, "held"));
    push(&ours, image(&[held], None), &[]);
    lab.advance(200);
    ours.claim(&loose).unwrap();
    let before = store.last_lsn();
    for _ in 0..100 {
        ours.claim(&loose).unwrap();
        ours.claim(&held).unwrap();
    }
    assert_eq!(store.last_lsn(), before);
}

#[test]
fn neither_a_jump_of_the_clock_nor_a_restart_shortens_retention() {
    let mut lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let (pushed, claimed) = (blob(&ours, "pushed"), blob(&ours, "claimed"));
    lab.advance(300);
    ours.claim(&claimed).unwrap();
    let ends = [
        |store: Store, _: &mut Lab| store.close().unwrap(),
        |store: Store, lab: &mut Lab| {
            let killed = lab.disk.restarted();
            drop(store);
            lab.disk = killed;
        },
        |store: Store, lab: &mut Lab| {
            let cut = lab.disk.power_cut(1);
            drop(store);
            lab.disk = cut;
        },
    ];
    let mut open = Some(store);
    for end in ends {
        end(open.take().unwrap(), &mut lab);
        lab.advance(100 * GONE); // while it is closed
        open = Some(lab.open());
        lab.advance(100);
        let store = open.as_ref().unwrap();
        let ours = store.repository(&name("a/ours")).unwrap();
        assert!(stays(store, &ours, &pushed) && stays(store, &ours, &claimed));
        blob(&ours, "the open time is noted with each commit");
    }
    let store = open.unwrap();
    let ours = store.repository(&name("a/ours")).unwrap();
    lab.advance(400);
    assert!(!stays(&store, &ours, &pushed), "open for at least 900 s");
    assert!(stays(&store, &ours, &claimed));
    lab.advance(300);
    assert!(!stays(&store, &ours, &claimed));
}

#[test]
fn a_mounted_blob_stays_for_the_retention_time() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let layer = blob(&theirs, "layer");
    lab.advance(500);
    ours.mount(&layer, theirs.name(), |_| true).unwrap();
    lab.advance(RETENTION - 1);
    assert!(stays(&store, &ours, &layer), "mounted at 500");
    assert!(is_gone(&theirs.get(&layer)), "pushed at 0");
    ours.mount(&layer, ours.name(), |_| true).unwrap();
    lab.advance(RETENTION - 1);
    assert!(stays(&store, &ours, &layer));
    lab.advance(GONE);
    assert!(!stays(&store, &ours, &layer));
}

#[test]
fn a_blob_whose_manifest_was_deleted_a_moment_ago_stays_for_the_retention_time() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let layer = blob(&ours, "layer");
    let manifest = push(&ours, image(&[layer], None), &[]);
    lab.advance(10 * GONE);
    ours.delete_manifest(&manifest).unwrap();
    lab.advance(RETENTION - 1);
    assert!(stays(&store, &ours, &layer));
    lab.advance(GONE);
    assert!(!stays(&store, &ours, &layer));
}

#[test]
fn a_claim_of_a_referenced_blob_holds_when_the_manifest_is_deleted() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let layer = blob(&ours, "layer");
    let manifest = push(&ours, image(&[layer], None), &[]);
    lab.advance(10 * GONE);
    assert_eq!(ours.claim(&layer).unwrap().references, 1);
    ours.delete_manifest(&manifest).unwrap();
    assert!(stays(&store, &ours, &layer));
    lab.advance(RETENTION - 1);
    assert!(stays(&store, &ours, &layer));
    push_image(&ours, "layer", &[]);
    assert_sound(&store);
}

#[test]
fn a_deletion_between_head_and_manifest_is_told_with_exactly_what_to_push_again() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let blobs: Vec<_> = (0..5).map(|n| blob(&ours, &n.to_string())).collect();
    let children: Vec<_> = (0..3).map(|n| push_image(&ours, &format!("child {n}"), &[])).collect();
    assert!(blobs.iter().all(|digest| ours.claim(digest).is_ok()));
    ours.remove_blob(&blobs[1]).unwrap();
    ours.remove_blob(&blobs[4]).unwrap();
    let mut expected = vec![blobs[1], blobs[4]];
    expected.sort_unstable();
    let before = store.last_lsn();
    assert_eq!(missing(try_push(&ours, image(&blobs, None), &["v1"])), (expected, vec![]));
    assert_eq!(store.last_lsn(), before, "nothing has changed");
    assert!(ours.tags(None, 9).unwrap().items.is_empty());
    assert!(blobs.iter().all(|digest| ours.stat(digest).map_or(0, |info| info.references) == 0));
    blob(&ours, "1");
    blob(&ours, "4");
    push(&ours, image(&blobs, None), &["v1"]);

    ours.delete_manifest(&children[2]).unwrap();
    assert_eq!(missing(try_push(&ours, index(&children, None), &[])), (vec![], vec![children[2]]));
    push_image(&ours, "child 2", &[]);
    push(&ours, index(&children, None), &[]);
    assert_sound(&store);
}

#[test]
fn a_blob_expires_in_one_repository_and_stays_in_another() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let layer = blob(&ours, "layer");
    theirs.mount(&layer, ours.name(), |_| true).unwrap();
    push(&theirs, image(&[layer], None), &[]);
    lab.advance(GONE);
    assert_eq!(store.expire_blobs().unwrap(), 1);
    assert!(is_gone(&ours.get(&layer)));
    assert_eq!(theirs.get(&layer).unwrap().bytes().unwrap(), "layer");
    assert_sound(&store);
}

#[test]
fn more_blobs_than_go_in_one_commit_expire() {
    let lab = Lab::new();
    let store = lab.open();
    let repositories = ["a/a", "a/b", "a/c"].map(|name| create(&store, name));
    for (repository, count) in repositories.iter().zip([256, 600, 1]) {
        for n in 0..count {
            blob(repository, &format!("{n}"));
        }
    }
    lab.advance(GONE);
    let kept = push_image(&repositories[1], "kept", &[]);
    assert_eq!(store.expire_blobs().unwrap(), 857);
    assert!(repositories[1].get_manifest(&kept.into()).is_ok());
    assert_eq!(repositories[1].blobs(None, 9).unwrap().items.len(), 1);
    assert_sound(&store);
}

#[test]
fn damage_to_a_blob_keeps_neither_it_nor_the_others_from_expiring() {
    // harbor#18381: one object that was missing, and collecting never ended.
    let lab = Lab::new();
    let store = lab.options().inline_max(0).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let digests: Vec<_> = (0..9).map(|n| ours.put(format!("{n}"), Algorithm::Sha512).unwrap().digest).collect();
    store.close().unwrap();
    let segments = lab.disk.files().into_iter().filter(|path| path.to_string_lossy().contains("/segments/"));
    let damaged = segments.clone().nth(4).unwrap();
    assert_eq!(segments.count(), 9);
    lab.disk.tamper(&damaged, |bytes| bytes.fill(0)).unwrap();
    let store = lab.open();
    let ours = store.repository(&name("a/ours")).unwrap();
    lab.advance(GONE);
    // Its digest stands in what is damaged, but nobody needs to know it.
    let report = store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.links, report.blobs), (9, 9), "{report:?}");
    assert!(digests.iter().all(|digest| is_gone(&ours.stat(digest))));
    assert!(!lab.disk.files().contains(&damaged), "a damaged file goes as others do");
}

#[test]
fn retention_may_be_nothing_or_for_ever() {
    let lab = Lab::new();
    let store = lab.options().retention(Duration::ZERO).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let (loose, held) = (blob(&ours, "loose"), blob(&ours, "held"));
    push(&ours, image(&[held], None), &[]);
    ours.claim(&loose).unwrap();
    assert_eq!(store.expire_blobs().unwrap(), 1);
    assert!(is_gone(&ours.claim(&loose)));
    assert_eq!(ours.claim(&held).unwrap().references, 1);
    store.close().unwrap();

    let for_ever: fn(&Lab) -> Options = |lab| lab.options().retention(Duration::MAX);
    let store = for_ever(&lab).open("/store").unwrap();
    let ours = store.repository(&name("a/ours")).unwrap();
    let loose = blob(&ours, "loose");
    lab.advance(1 << 32);
    ours.claim(&loose).unwrap();
    assert!(stays(&store, &ours, &loose));
    assert_sound(&store);
}
