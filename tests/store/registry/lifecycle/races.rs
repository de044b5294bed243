//! What happens to an image, or to others, between a plan and its execution.

use std::time::Duration;

use strongroom::registry::lifecycle::Carried;

use super::*;

/// An old image with a tag, its signature, a signature of that, and a newer image.
struct Scene {
    lab: Lab,
    app: Repository,
    old: Digest,
    signed: Digest,
    countersigned: Digest,
    new: Digest,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        let app = create(&lab.open(), "team/app");
        let old = image_of(&lab, &app, "old", &["v1"]);
        app.pull_manifest(&old.into()).unwrap();
        let signed = signature(&lab, &app, old, "signed");
        let countersigned = signature(&lab, &app, signed, "countersigned");
        let new = image_of(&lab, &app, "new", &["v2"]);
        lab.advance(1);
        Self { lab, app, old, signed, countersigned, new }
    }

    /// Plans, lets something happen, and executes the plan.
    fn run(&self, action: &str, happens: impl FnOnce(&Self)) -> Carried {
        let policy = keep(1, action);
        let plan = self.app.lifecycle_plan(&policy, later(&self.app)).unwrap();
        assert_eq!(plan.actions.len(), 3);
        happens(self);
        self.app.apply_lifecycle(&policy, &plan).unwrap()
    }

    fn classes(&self) -> [Option<StorageClass>; 4] {
        [self.old, self.signed, self.countersigned, self.new].map(|digest| class(&self.app, digest))
    }
}

#[test]
fn whatever_happens_to_an_image_after_the_plan_keeps_it_and_its_signatures() {
    type Happens = fn(&Scene);
    let cases: [Happens; 9] = [
        |scene| drop(scene.app.pull_manifest(&scene.old.into()).unwrap()),
        |scene| drop(scene.app.pull_manifest(&tag("v1").into()).unwrap()),
        |scene| {
            scene.app.pull_manifest(&scene.old.into()).unwrap();
            scene.lab.advance(60); // it is a fact by then
            push_image(&scene.app, "another", &[]);
        },
        |scene| {
            scene.app.tag(&tag("stable"), &scene.old, Default::default()).unwrap();
        },
        |scene| {
            scene.app.untag(&tag("v1")).unwrap();
        },
        |scene| {
            scene.app.tag(&tag("v1"), &scene.new, Default::default()).unwrap();
            scene.lab.advance(1);
            scene.app.tag(&tag("v1"), &scene.old, Default::default()).unwrap(); // as before, and set anew
        },
        |scene| {
            scene.app.set_storage_class(&scene.old, StorageClass::Archive).unwrap();
            scene.lab.clock.advance(Duration::from_millis(1));
            scene.app.set_storage_class(&scene.old, StorageClass::Standard).unwrap();
        },
        |scene| {
            scene.app.delete_manifest(&scene.old).unwrap();
            scene.lab.clock.advance(Duration::from_millis(1));
            assert_eq!(push_image(&scene.app, "old", &["v1"]), scene.old);
        },
        |scene| {
            push(&scene.app, index(&[scene.old], None), &["index"]);
        },
    ];
    for (number, happens) in cases.into_iter().enumerate() {
        for action in [EXPIRE, ARCHIVE] {
            let scene = Scene::new();
            let done = scene.run(action, happens);
            assert_eq!((done.expired, done.archived, done.skipped), (0, 0, 3), "{number} {action}");
            assert_eq!(scene.classes(), [HERE; 4], "{number} {action}");
        }
    }
}

#[test]
fn an_image_that_was_archived_or_deleted_after_the_plan_is_not_touched() {
    let archive = |scene: &Scene| {
        scene.app.set_storage_class(&scene.old, StorageClass::Archive).unwrap();
    };
    let delete = |scene: &Scene| {
        scene.app.delete_manifest(&scene.old).unwrap();
    };
    let scene = Scene::new();
    assert_eq!(scene.run(EXPIRE, archive).skipped, 3, "its signatures would be archived now, not expired");
    assert_eq!(scene.classes(), [ARCHIVED, HERE, HERE, HERE]);
    let scene = Scene::new();
    let done = scene.run(ARCHIVE, archive);
    assert_eq!((done.archived, done.skipped), (2, 1));
    assert_eq!(scene.classes(), [ARCHIVED, ARCHIVED, ARCHIVED, HERE]);
    // Its signature is an image of its own now, and younger than no other: the policy says of it what the plan did.
    let scene = Scene::new();
    let done = scene.run(EXPIRE, delete);
    assert_eq!((done.expired, done.skipped), (2, 1));
    assert_eq!(scene.classes(), [GONE, GONE, GONE, HERE]);
}

#[test]
fn a_signature_that_is_used_stays_alone_and_a_new_one_is_not_touched() {
    let scene = Scene::new();
    let done = scene.run(EXPIRE, |scene| drop(scene.app.pull_manifest(&scene.signed.into()).unwrap()));
    assert_eq!((done.expired, done.skipped), (1, 2), "what follows the used one stays with it");
    assert_eq!(scene.classes(), [GONE, HERE, HERE, HERE]);

    let scene = Scene::new();
    let mut late = None;
    let done = scene.run(EXPIRE, |scene| late = Some(signature(&scene.lab, &scene.app, scene.old, "late")));
    assert_eq!((done.expired, done.skipped), (3, 0));
    assert_eq!(class(&scene.app, late.unwrap()), HERE);
}

#[test]
fn where_newer_images_are_deleted_after_the_plan_the_older_ones_are_the_newest_and_stay() {
    let scene = Scene::new();
    let done = scene.run(EXPIRE, |scene| {
        scene.app.delete_manifest(&scene.new).unwrap();
    });
    assert_eq!((done.expired, done.skipped), (0, 3));
    assert_eq!(scene.classes(), [HERE, HERE, HERE, GONE]);
    // The same where a newer one no longer is what the rule is about.
    let lab = Lab::new();
    let app = create(&lab.open(), "team/app");
    let [old, new] = [("old", "prod-1"), ("new", "prod-2")].map(|(content, tag)| image_of(&lab, &app, content, &[tag]));
    let selection =
        r#""tagStatus": "tagged", "tagPatternList": ["prod*"], "countType": "imageCountMoreThan", "countNumber": 1"#;
    let policy = rule(selection, EXPIRE);
    let plan = app.lifecycle_plan(&policy, later(&app)).unwrap();
    assert_eq!(planned(&plan), [(old, ActionKind::Expire)]);
    app.untag(&tag("prod-2")).unwrap();
    assert_eq!(app.apply_lifecycle(&policy, &plan).unwrap().skipped, 1);
    assert_eq!([old, new].map(|digest| class(&app, digest)), [HERE, HERE]);
}

#[test]
fn of_a_plan_that_another_policy_made_only_what_both_say_is_done() {
    let scene = Scene::new();
    let plan = scene.app.lifecycle_plan(&keep(1, EXPIRE), later(&scene.app)).unwrap();
    for other in [keep(2, EXPIRE), keep(1, ARCHIVE)] {
        assert_eq!(scene.app.apply_lifecycle(&other, &plan).unwrap().skipped, 3);
    }
    assert_eq!(scene.classes(), [HERE; 4]);
}

/// Clients pull while policies are executed, over and over: a pull that was answered after the plan was made, and
/// before its execution began, keeps the image.
#[test]
fn pulls_that_are_answered_between_plan_and_execution_keep_their_images() {
    let lab = Lab::new();
    let store = strongroom::Options::new().create(true).vfs(std::sync::Arc::new(lab.disk.clone())).open("/a").unwrap();
    let app = create(&store, "team/app");
    let policy = rule(
        r#""tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1"#,
        EXPIRE,
    );
    for round in 0..30 {
        let images: Vec<Digest> = (0..20).map(|n| push_document(&app, &format!("{round} {n}"), &[])).collect();
        let plan = app.lifecycle_plan(&policy, later(&app)).unwrap();
        let answered = std::sync::Mutex::new(Vec::new());
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for digest in images.iter().cycle().skip(round) {
                    if stop.load(std::sync::atomic::Ordering::SeqCst) {
                        break;
                    }
                    if app.pull_manifest(&(*digest).into()).is_ok() {
                        answered.lock().unwrap().push(*digest);
                    }
                }
            });
            while round % 3 > 0 && answered.lock().unwrap().len() < 3 {
                std::thread::yield_now();
            }
            let before = answered.lock().unwrap().clone();
            app.apply_lifecycle(&policy, &plan).unwrap();
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
            before.into_iter().for_each(|digest| assert_eq!(class(&app, digest), HERE));
        });
    }
    assert_sound(&store);
}
