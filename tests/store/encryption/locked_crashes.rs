//! Crashes while a domain is locked, and while it is unlocked: nothing of it is lost, and nothing of the others.

use strongroom::vfs::{Fault, SimVfs};
use strongroom::{Algorithm, Digest, Error};

use super::lab::{Mood, assert_sound};
use super::locked::{LOCKED, Subject, assert_kept, locked_name, others_go_on};
use crate::common::{Random, seed, tell};

/// Lets something happen to a store that is opened locked, with a power cut at each operation, and looks at what is
/// left locked and then unlocked.
fn cut_everywhere(subject: &Subject, what: &str, script: &(dyn Fn(&SimVfs) -> Result<(), Error> + Sync)) {
    let seed = seed(0x10c);
    strongroom::nonces::record();
    let disk = subject.disk.restarted();
    let first = disk.operations() + 1;
    script(&disk).unwrap();
    let points = first..=disk.operations();
    let most = if std::env::var_os("STRONGROOM_EXHAUSTIVE").is_some() { u64::MAX } else { 120 };
    let total = points.end() + 1 - first;
    let mut covered = 0;
    for k in points {
        let mut draws = Random(seed ^ k << 20);
        if draws.below(total) >= most {
            continue;
        }
        covered += 1;
        for fault in [Fault::PowerCut, Fault::PowerCut, Fault::FailedSync, Fault::Error, Fault::Full] {
            if fault != Fault::PowerCut && draws.below(4) > 0 {
                continue;
            }
            let draw = draws.next();
            let disk = subject.disk.restarted();
            disk.fault_at(k, fault);
            let result = script(&disk);
            let context = format!("seed {seed}: {what}: {fault:?} at {k}, draw {draw}: {result:?}");
            let left = if draw.is_multiple_of(2) { disk.restarted() } else { disk.power_cut(draw) };
            left.free_space();
            if draw.is_multiple_of(3) {
                let store = subject.open_locked_on(&left);
                let kept = others_go_on(&store, draw).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_kept(&store, &kept, &context);
                assert_sound(&store);
                store.checkpoint().unwrap();
                if draw.is_multiple_of(9) {
                    store.close().unwrap();
                }
            }
            let store = subject.open_unlocked_on(&left);
            subject.assert_back(&store, &context);
            // What was answered is durable, also of the domain that was locked.
            let own = store.repository(&locked_name()).unwrap();
            let digest = own.put("and on it goes", Algorithm::Sha256).unwrap().digest;
            let again = subject.open_unlocked_on(&left.power_cut(draw ^ 1));
            let read = again.repository(&locked_name()).unwrap().get(&digest).unwrap().bytes().unwrap();
            assert_eq!(read, "and on it goes", "{context}");
            assert_sound(&again);
        }
    }
    let (seen, repeated) = strongroom::nonces::recorded();
    assert_eq!(repeated, 0, "{what}: of {seen} pairs of key and nonce");
    tell(&format!("{what}: {covered} of {total} crash points"));
}

#[test]
fn a_crash_while_a_domain_is_locked_loses_nothing_of_it() {
    let subject = Subject::killed();
    cut_everywhere(&subject, "locked", &|disk| {
        subject.keeper.refuse_domain(LOCKED, Mood::Unreachable);
        let store = subject.options(disk).open("/store")?;
        others_go_on(&store, 1)?;
        store.checkpoint()?;
        others_go_on(&store, 2)?;
        store.close()
    });
}

#[test]
fn a_crash_while_a_domain_is_unlocked_loses_nothing_of_it() {
    let subject = Subject::killed();
    let store = subject.open_locked();
    others_go_on(&store, 1).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    cut_everywhere(&subject, "unlock", &|disk| {
        subject.keeper.refuse_domain(LOCKED, Mood::Unreachable);
        let store = subject.options(disk).open("/store")?;
        others_go_on(&store, 2)?;
        subject.keeper.answer_again();
        match store.unlock_domains().pop() {
            Some(locked) => Err(locked.error),
            None => store.close(),
        }
    });
    cut_everywhere(&subject, "unlock by opening", &|disk| {
        subject.keeper.answer_again();
        let store = subject.options(disk).open("/store")?;
        others_go_on(&store, 2)?;
        store.close()
    });
}

#[test]
fn a_push_that_a_power_cut_tore_is_whole_or_gone_also_where_the_key_is_out_of_reach_then() {
    let seed = seed(0x70e);
    let subject = Subject::new();
    let content = Random(seed).bytes(2000);
    let digest = Digest::of(Algorithm::Sha256, &content);
    let push = |disk: &SimVfs| {
        let store = subject.options(disk).open("/store")?;
        let own = store.repository(&locked_name())?;
        own.put(&content, Algorithm::Sha256)?;
        own.put(&content[..1500], Algorithm::Sha256)?;
        Ok::<_, Error>(())
    };
    subject.keeper.answer_again();
    let counting = subject.disk.restarted();
    let first = counting.operations() + 1;
    push(&counting).unwrap();
    let (mut there, mut gone) = (0, 0);
    for k in first..=counting.operations() {
        for draw in 0..12 {
            let disk = subject.disk.restarted();
            subject.keeper.answer_again();
            disk.fault_at(k, Fault::PowerCut);
            let result = push(&disk);
            let left = disk.power_cut(draw);
            let context = format!("seed {seed}: at {k}, draw {draw}: {result:?}");
            let store = subject.open_locked_on(&left);
            others_go_on(&store, draw).unwrap();
            drop(store);
            let store = subject.open_unlocked_on(&left.power_cut(draw + 1));
            let own = store.repository(&locked_name()).unwrap();
            match own.get(&digest) {
                Ok(blob) => {
                    assert!(blob.bytes().unwrap() == content, "{context}");
                    there += 1;
                }
                Err(Error::BlobNotFound { .. }) => {
                    assert!(result.is_err(), "{context}");
                    gone += 1;
                }
                Err(error) => panic!("{context}: {error}"),
            }
            assert_sound(&store);
        }
    }
    assert!(there > 10 && gone > 10, "{there} {gone}");
}
