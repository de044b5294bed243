//! Lifecycle policies over the images of a store: what happens between a plan and its execution keeps what it is about,
//! and whatever interrupts the execution leaves nothing half done.

mod crash;
mod guard;
mod races;

use strongroom::Digest;
use strongroom::registry::lifecycle::{ActionKind, Plan, Policy};
use strongroom::registry::{Repository, RepositoryDeletion, StorageClass};

use crate::common::registry::{
    Lab, assert_sound, create, image, index, is_unknown, name, push, push_document, push_image, tag,
};

const DAY_MS: u64 = 86_400_000;
const EXPIRE: &str = r#""type": "expire""#;
const ARCHIVE: &str = r#""type": "transition", "targetStorageClass": "archive""#;

/// A policy that keeps the newest so many images, and does this with the others.
fn keep(count: usize, action: &str) -> Policy {
    rule(&format!(r#""tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": {count}"#), action)
}

/// A policy of one rule.
fn rule(selection: &str, action: &str) -> Policy {
    let rule = format!(r#"{{"rulePriority": 1, "selection": {{{selection}}}, "action": {{{action}}}}}"#);
    Policy::parse(&format!(r#"{{"rules": [{rule}]}}"#)).unwrap()
}

/// An image that nobody else has, of a later moment than those before.
fn image_of(lab: &Lab, app: &Repository, content: &str, tags: &[&str]) -> Digest {
    lab.advance(1);
    push_image(app, content, tags)
}

/// A signature, or a signature of a signature: what it is about is its subject.
fn signature(lab: &Lab, app: &Repository, subject: Digest, content: &str) -> Digest {
    lab.advance(1);
    let blob = app.put(content, strongroom::Algorithm::Sha256).unwrap().digest;
    push(app, image(&[blob], Some(&subject)), &[])
}

/// A time at which every image is older than a day.
fn later(app: &Repository) -> u64 {
    app.images(None, 1000).unwrap().items.iter().map(|image| image.pushed_ms).max().unwrap_or(0) + 2 * DAY_MS
}

fn planned(plan: &Plan<Digest>) -> Vec<(Digest, ActionKind)> {
    plan.actions.iter().map(|action| (action.key, action.kind)).collect()
}

/// The storage class of an image, if it is there.
fn class(app: &Repository, digest: Digest) -> Option<StorageClass> {
    let info = app.manifest_info(&digest.into());
    if is_unknown(&info) { None } else { Some(info.unwrap().storage_class) }
}

const HERE: Option<StorageClass> = Some(StorageClass::Standard);
const ARCHIVED: Option<StorageClass> = Some(StorageClass::Archive);
const GONE: Option<StorageClass> = None;

#[test]
fn an_image_expires_with_its_signatures_and_a_second_time_changes_nothing() {
    let lab = Lab::new();
    let store = lab.open();
    let app = create(&store, "team/app");
    let old = image_of(&lab, &app, "old", &["v1", "v1.0"]);
    let signed = signature(&lab, &app, old, "signed");
    let countersigned = signature(&lab, &app, signed, "countersigned");
    let new = image_of(&lab, &app, "new", &["v2"]);
    let of_new = signature(&lab, &app, new, "of the new one");
    let policy = keep(1, EXPIRE);
    let plan = app.lifecycle_plan(&policy, later(&app)).unwrap();
    assert_eq!(planned(&plan), [old, signed, countersigned].map(|digest| (digest, ActionKind::Expire)));
    assert_eq!((plan.summary.evaluated, plan.youngest_push_ms.is_some()), (5, true));

    let moment = app.snapshot().unwrap();
    let before = store.last_lsn();
    let done = app.apply_lifecycle(&policy, &plan).unwrap();
    assert_eq!((done.expired, done.archived, done.skipped), (3, 0, 0));
    assert_eq!(store.last_lsn().get() - before.get(), 1, "one commit");
    assert_eq!([old, signed, countersigned, new, of_new].map(|one| class(&app, one)), [GONE, GONE, GONE, HERE, HERE]);
    assert_eq!(app.tags(None, 9).unwrap().items, [tag("v2")]);

    let again = app.apply_lifecycle(&policy, &plan).unwrap();
    assert_eq!((again.expired, again.skipped), (0, 3));
    assert!(app.lifecycle_plan(&policy, plan.now_ms).unwrap().actions.is_empty());
    assert_eq!(moment.lifecycle_plan(&policy, plan.now_ms).unwrap(), plan, "as of the moment before");
    assert_sound(&store);
}

#[test]
fn an_index_goes_before_what_it_holds_and_is_archived_with_it() {
    for action in [EXPIRE, ARCHIVE] {
        let lab = Lab::new();
        let store = lab.open();
        let app = create(&store, "team/app");
        let [one, two] = ["one", "two"].map(|content| image_of(&lab, &app, content, &[]));
        lab.advance(1);
        let over = push(&app, index(&[one, two], None), &["v1"]);
        let signed = signature(&lab, &app, over, "signed");
        let signed_child = signature(&lab, &app, one, "signed, too");
        image_of(&lab, &app, "new", &["v2"]);
        let policy = keep(1, action);
        let all = || [over, signed, one, two, signed_child].map(|digest| class(&app, digest));
        let run = || {
            let plan = app.lifecycle_plan(&policy, later(&app)).unwrap();
            (planned(&plan).len(), app.apply_lifecycle(&policy, &plan).unwrap())
        };
        let (planned, done) = run();
        assert_eq!((planned, done.skipped), (2, 0), "the index and its signature");
        if action == ARCHIVE {
            assert_eq!(all(), [ARCHIVED, ARCHIVED, ARCHIVED, ARCHIVED, HERE]);
            // The signature of what was archived with the index follows it the next time.
            let (planned, done) = run();
            assert_eq!((planned, done.archived, done.skipped), (1, 1, 0));
            assert_eq!(all(), [ARCHIVED; 5]);
        } else {
            assert_eq!(all(), [GONE, GONE, HERE, HERE, HERE]);
            // They are images of their own now: the newest of them is the one that is kept.
            assert_eq!(run().1.expired, 3);
            assert_eq!(all(), [GONE; 5]);
        }
        assert_eq!(run().0, 0);
        assert_sound(&store);
    }
}

#[test]
fn signatures_of_an_image_that_somebody_archived_are_archived_after_it() {
    let lab = Lab::new();
    let store = lab.open();
    let app = create(&store, "team/app");
    let old = image_of(&lab, &app, "old", &["v1"]);
    let signed = signature(&lab, &app, old, "signed");
    let countersigned = signature(&lab, &app, signed, "countersigned");
    app.set_storage_class(&old, StorageClass::Archive).unwrap();
    let policy = keep(9, EXPIRE);
    let plan = app.lifecycle_plan(&policy, later(&app)).unwrap();
    assert_eq!(planned(&plan), [signed, countersigned].map(|digest| (digest, ActionKind::Archive)));
    assert_eq!(plan.actions[0].rule_priority, None);
    // It is restored meanwhile: so its signature stays.
    app.set_storage_class(&old, StorageClass::Standard).unwrap();
    assert_eq!(app.apply_lifecycle(&policy, &plan).unwrap().skipped, 2);
    assert_eq!([signed, countersigned].map(|digest| class(&app, digest)), [HERE; 2]);
    app.set_storage_class(&old, StorageClass::Archive).unwrap();
    assert_eq!(app.apply_lifecycle(&policy, &plan).unwrap().archived, 2);
    assert_eq!([signed, countersigned].map(|digest| class(&app, digest)), [ARCHIVED; 2]);
}

#[test]
fn an_image_with_more_than_a_thousand_tags_is_left_with_its_signatures() {
    let lab = Lab::new();
    let store = lab.options().memtable_size(1 << 20).log_file_size(1 << 20).open("/store").unwrap();
    let app = create(&store, "team/app");
    let tags: Vec<String> = (0..1200).map(|n| format!("t{n}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    for some in tags.chunks(400) {
        push_document(&app, "many", some);
    }
    let many = push_document(&app, "many", &[]);
    let signed = signature(&lab, &app, many, "signed");
    let [old, new] = ["old", "new"].map(|content| image_of(&lab, &app, content, &[]));
    let policy = keep(1, EXPIRE);
    let plan = app.lifecycle_plan(&policy, later(&app)).unwrap();
    assert_eq!(planned(&plan), [(old, ActionKind::Expire)]);
    assert_eq!(app.apply_lifecycle(&policy, &plan).unwrap().expired, 1);
    assert_eq!([many, signed, old, new].map(|digest| class(&app, digest)), [HERE, HERE, GONE, HERE]);
}

#[test]
fn a_repository_that_was_deleted_after_the_plan_is_not_found_and_its_successor_is_left_alone() {
    let lab = Lab::new();
    let store = lab.open();
    let app = create(&store, "team/app");
    let old = image_of(&lab, &app, "old", &[]);
    image_of(&lab, &app, "new", &[]);
    let policy = keep(1, EXPIRE);
    let plan = app.lifecycle_plan(&policy, later(&app)).unwrap();
    store.delete_repository(&name("team/app"), RepositoryDeletion::WithContents).unwrap();
    let next = create(&store, "team/app");
    assert_eq!(push_image(&next, "old", &[]), old);
    for error in [app.apply_lifecycle(&policy, &plan).err(), app.lifecycle_plan(&policy, 0).err()] {
        assert!(matches!(error, Some(strongroom::Error::RepositoryNotFound { .. })), "{error:?}");
    }
    assert_eq!(class(&next, old), HERE);
    assert_sound(&store);
}
