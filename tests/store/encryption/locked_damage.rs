//! Damage to a store in which a domain is locked, or was: it costs what it hit, and what the domain has is neither lost
//! nor left out of a report.

use std::ops::ControlFlow;

use strongroom::vfs::SimVfs;
use strongroom::{CollectOptions, Error, Store};

use super::lab::{Mood, assert_sound};
use super::locked::{LOCKED, Subject, is_refused, locked_name, others_go_on};
use crate::salvage::lab::contents;

/// The runs of a store, each damaged in one page, and what that is called.
fn with_a_damaged_page(disk: &SimVfs) -> impl Iterator<Item = (SimVfs, String)> + '_ {
    let runs = disk.files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "run"));
    runs.flat_map(move |path| {
        let len = disk.read_file(&path).unwrap().len() as u64;
        (1..len / 4096).map(move |page| {
            let damaged = disk.restarted();
            damaged.flip_bit(&path, (page * 4096 + 77) * 8).unwrap();
            (damaged, format!("page {page} of {}", path.display()))
        })
    })
}

#[test]
fn a_damaged_page_of_anybody_keeps_neither_the_store_from_opening_nor_a_domain_from_being_unlocked() {
    let subject = Subject::killed();
    let store = subject.open_locked();
    others_go_on(&store, 1).unwrap();
    store.close().unwrap();
    let (mut opened, mut unlocked) = (0, 0);
    for (damaged, context) in with_a_damaged_page(&subject.disk) {
        subject.keeper.refuse_domain(LOCKED, Mood::Denied);
        if subject.options(&damaged.restarted()).open("/store").is_err() {
            continue; // its table or its footer: without them a run is not opened
        }
        subject.keeper.answer_again();
        let store = subject.options(&damaged).open("/store").unwrap_or_else(|error| panic!("{context}: {error}"));
        let stays_locked = store.unlock_domains();
        let is_damage = |error: &Error| matches!(error, Error::Corrupt { .. });
        assert!(stays_locked.iter().all(|domain| is_damage(&domain.error)), "{context}: {stays_locked:?}");
        let collected = store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(()));
        collected.unwrap_or_else(|error| panic!("{context}: {error}"));
        opened += 1;
        unlocked += usize::from(stays_locked.is_empty());
    }
    assert!(opened > 20 && unlocked > opened / 2, "{opened} opened, {unlocked} unlocked");
}

/// The store with zeros in the newest place of the log where they keep it from opening.
fn with_a_damaged_log(subject: &Subject, disk: &SimVfs) -> SimVfs {
    with_a_damaged_log_but_the_newest(subject, disk, usize::MAX)
}

/// The same in one of the oldest log files, so many.
fn with_a_damaged_log_but_the_newest(subject: &Subject, disk: &SimVfs, oldest: usize) -> SimVfs {
    subject.keeper.answer_again();
    let logs = disk.files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let logs: Vec<_> = logs.take(oldest).collect();
    for path in logs.into_iter().rev() {
        let used = disk.read_file(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
        for sector in (1..used / 512).rev() {
            let damaged = disk.restarted();
            damaged.tamper(&path, |content| content[sector * 512..][..512].fill(0)).unwrap();
            if matches!(subject.options(&damaged.restarted()).open("/store"), Err(Error::Corrupt { .. })) {
                return damaged;
            }
        }
    }
    panic!("no record of the log is needed");
}

#[test]
fn a_salvage_needs_the_keys_of_all_domains_and_keeps_what_they_have() {
    // What the domain has in the log is in front of the damage and behind it.
    let subject = Subject::killed();
    let store = refused_then_salvaged(&subject, &with_a_damaged_log(&subject, &subject.disk));
    let repository = store.repository(&locked_name()).unwrap();
    assert!(!repository.tags(None, 99).unwrap().items.is_empty());

    // The same, where the domain was locked in a session that was killed.
    let subject = Subject::killed();
    let store = subject.open_locked();
    others_go_on(&store, 1).unwrap();
    let disk = subject.disk.restarted();
    drop(store);
    let logs = |disk: &SimVfs| disk.files().iter().filter(|path| path.starts_with("/store/log")).count();
    let damaged = with_a_damaged_log_but_the_newest(&subject, &disk, logs(&disk) - 1);
    let store = refused_then_salvaged(&subject, &damaged);
    let repository = store.repository(&locked_name()).unwrap();
    assert!(!repository.tags(None, 99).unwrap().items.is_empty());

    // It is in front of it, and the domain was locked when what came later was written.
    let subject = Subject::killed();
    let store = subject.open_locked();
    for round in 2..5 {
        others_go_on(&store, round).unwrap();
        store.checkpoint().unwrap();
    }
    others_go_on(&store, 5).unwrap();
    let disk = subject.disk.restarted();
    drop(store);
    let store = refused_then_salvaged(&subject, &with_a_damaged_log(&subject, &disk));
    subject.assert_back(&store, "what was unread of a domain, and is older than the damage");
}

fn refused_then_salvaged(subject: &Subject, disk: &SimVfs) -> Store {
    let before = contents(disk);
    subject.keeper.refuse_domain(LOCKED, Mood::Denied);
    let refused = subject.options(disk).create(false).salvage("/store").map(|salvage| salvage.report().clone());
    assert!(is_refused(&refused, Mood::Denied), "{refused:?}");
    assert_eq!(before, contents(disk), "a salvage that is refused changes nothing");
    subject.keeper.answer_again();
    let salvage = subject.options(disk).create(false).salvage("/store").unwrap();
    let report = salvage.carry_out().unwrap();
    assert!(!report.damage.is_empty());
    let store = subject.open_unlocked_on(disk);
    assert_sound(&store);
    store
}
