//! Power cuts, kills and damage.

use strongroom::registry::lifecycle::Carried;
use strongroom::vfs::{Fault, SimVfs};
use strongroom::{Clock, Error, Result, Store};

use super::*;
use crate::common::registry::{RETENTION, options};
use crate::common::{Random, seed};

/// A store in which a policy deletes and archives, and what it is to come to.
struct Work {
    store: Store,
    app: Repository,
    policy: Policy,
    plan: Plan<Digest>,
    /// Images with what follows them: first those that expire, each group as a whole, then those that are archived.
    expiring: Vec<Vec<Digest>>,
    archiving: Vec<Vec<Digest>>,
    kept: Vec<Digest>,
}

fn policy() -> Policy {
    let rule = |priority: u32, kind: &str, action: &str| {
        let limit = r#""countType": "imageCountMoreThan", "countNumber": 1"#;
        let selection = format!(r#""tagStatus": "tagged", "tagPatternList": ["{kind}*"], {limit}"#);
        format!(r#"{{"rulePriority": {priority}, "selection": {{{selection}}}, "action": {{{action}}}}}"#)
    };
    let rules = [rule(1, "old", EXPIRE), rule(2, "cold", ARCHIVE)].join(", ");
    Policy::parse(&format!(r#"{{"rules": [{rules}]}}"#)).unwrap()
}

/// Images with signatures, more than go in one commit.
fn prepare(disk: &SimVfs) -> Work {
    let lab = Lab { disk: disk.clone(), clock: Clock::manual() };
    let store = lab.open();
    let app = create(&store, "team/app");
    let group = |kind: &str, n: usize| {
        let subject = image_of(&lab, &app, &format!("{kind} {n}"), &[&format!("{kind}-{n}")]);
        let signed = signature(&lab, &app, subject, &format!("{kind} {n}, signed"));
        let countersigned = signature(&lab, &app, signed, &format!("{kind} {n}, countersigned"));
        vec![subject, signed, countersigned]
    };
    let mut expiring: Vec<_> = (0..40).map(|n| group("old", n)).collect();
    let mut archiving: Vec<_> = (0..4).map(|n| group("cold", n)).collect();
    let kept = [expiring.pop().unwrap(), archiving.pop().unwrap(), group("other", 0)].concat();
    let policy = policy();
    let plan = app.lifecycle_plan(&policy, later(&app)).unwrap();
    assert_eq!((plan.summary.expiring, plan.summary.archiving), (39 * 3, 3 * 3));
    Work { store, app, policy, plan, expiring, archiving, kept }
}

impl Work {
    fn run(&self) -> Result<Carried> {
        self.app.apply_lifecycle(&self.policy, &self.plan)
    }

    /// Opens what is left after an interruption: no image is half done, and it can be done to the end.
    fn check(&self, left: &SimVfs, context: &str) {
        let store = options(left, &Clock::manual())
            .retention(std::time::Duration::from_secs(RETENTION))
            .open("/store")
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        let app = store.repository(&name("team/app")).unwrap();
        for (groups, done) in [(&self.expiring, GONE), (&self.archiving, ARCHIVED)] {
            for group in groups {
                let classes: Vec<_> = group.iter().map(|digest| class(&app, *digest)).collect();
                let is_whole = classes.iter().all(|class| *class == HERE) || classes.iter().all(|class| *class == done);
                assert!(is_whole, "{context}: {classes:?}");
            }
        }
        for digest in &self.kept {
            app.pull_manifest(&(*digest).into()).unwrap_or_else(|error| panic!("{context}: {error}"));
        }
        assert_sound(&store);
        app.apply_lifecycle(&self.policy, &self.plan).unwrap();
        for digest in self.expiring.iter().flatten() {
            assert_eq!(class(&app, *digest), GONE, "{context}");
        }
        for digest in self.archiving.iter().flatten() {
            assert_eq!(class(&app, *digest), ARCHIVED, "{context}");
        }
        assert!(self.kept.iter().all(|digest| class(&app, *digest) == HERE), "{context}");
        assert!(app.lifecycle_plan(&self.policy, self.plan.now_ms).unwrap().actions.is_empty(), "{context}");
        assert_sound(&store);
    }
}

#[test]
fn nothing_is_half_done_at_any_power_cut_or_kill_and_the_same_plan_goes_on() {
    let seed = seed(0x11fe);
    let disk = SimVfs::new();
    let work = prepare(&disk);
    let first = disk.operations() + 1;
    let done = work.run().unwrap();
    assert_eq!((done.expired, done.archived, done.skipped), (39 * 3, 3 * 3, 0));
    let last = disk.operations();
    work.check(&disk.power_cut(seed), "whole");
    assert!(last - first > 10, "{first} to {last}");
    for k in first..=last {
        let disk = SimVfs::new();
        let work = prepare(&disk);
        disk.fault_at(k, Fault::PowerCut);
        let error = work.run().err();
        let context = format!("seed {seed} cut at {k} of {first} to {last}: {error:?}");
        let draw = Random(seed ^ k).next();
        work.check(&disk.power_cut(draw), &context);
        work.check(&disk.restarted(), &format!("{context}, killed"));
        // Again at some operation of the recovery.
        let counting = disk.power_cut(draw);
        drop(options(&counting, &Clock::manual()).open("/store"));
        let again = disk.power_cut(draw);
        again.fault_at(1 + draw % counting.operations(), Fault::PowerCut);
        drop(options(&again, &Clock::manual()).open("/store"));
        work.check(&again.power_cut(draw ^ 1), &format!("{context}, again"));
        std::mem::forget(work.store); // its disk is gone
    }
}

#[test]
fn a_full_disk_keeps_no_policy_from_expiring_images() {
    let disk = SimVfs::new();
    let work = prepare(&disk);
    disk.set_capacity(Some(disk.used()));
    let blob = work.store.put(Random(1).bytes(200_000), strongroom::Algorithm::Sha256);
    assert!(matches!(blob, Err(Error::Full { .. })), "{blob:?}");
    match work.run() {
        Ok(done) => assert_eq!(done.expired, 39 * 3),
        Err(error) => assert!(matches!(error, Error::Full { .. }), "{error}"),
    }
    disk.set_capacity(None);
    work.check(&disk.power_cut(3), "after a full disk");
}

#[test]
fn damage_is_an_error_and_never_an_image_that_goes_for_another() {
    let disk = SimVfs::new();
    let work = prepare(&disk);
    work.store.checkpoint().unwrap();
    work.store.close().unwrap();
    let runs: Vec<_> =
        disk.files().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "run")).collect();
    let mut draws = Random(seed(0xda3a));
    let (mut errors, mut plans) = (0, 0);
    for _ in 0..300 {
        let left = disk.restarted();
        let run = &runs[draws.next() as usize % runs.len()];
        let bits = left.read_file(run).unwrap().len() as u64 * 8;
        left.flip_bit(run, draws.next() % bits).unwrap();
        let Ok(store) = options(&left, &Clock::manual()).open("/store") else {
            errors += 1;
            continue;
        };
        let Ok(app) = store.repository(&name("team/app")) else { continue };
        match app.lifecycle_plan(&work.policy, work.plan.now_ms) {
            Ok(plan) => {
                plans += 1;
                assert_eq!(planned(&plan), planned(&work.plan));
            }
            Err(error) => {
                errors += 1;
                assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            }
        }
        match app.apply_lifecycle(&work.policy, &work.plan) {
            Ok(_) => {}
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
        }
        for digest in &work.kept {
            let info = app.manifest_info(&(*digest).into());
            assert!(matches!(info, Ok(_) | Err(Error::Corrupt { .. })), "{info:?}");
        }
    }
    assert!(errors > 0 && plans > 0, "{errors} errors, {plans} plans");
}
