//! Very many key domains. Their facts share files, so that what a store costs does not grow with how many domains there
//! are; and each is as much by itself as if it had files of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use strongroom::registry::RepositorySettings;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Digest, Durability, Error, Finding, Options, Store};

use super::disk::{RUN_PAGES, files, run_parts, runs_in};
use super::lab::{Keeper, assert_sound, domain, open, options};
use crate::common::registry::name;

/// More files of runs than this a store never has.
const MOST_RUN_FILES: usize = 40;

fn repository(n: usize) -> strongroom::registry::RepositoryName {
    name(&format!("tenant-{n}/application"))
}

/// Creates domains, with a repository in each.
fn create(store: &Store, domains: usize) {
    for n in 0..domains {
        let own = domain(&format!("tenant-{n}"));
        store.create_domain(&own, None).unwrap();
        store.create_repository(&repository(n), RepositorySettings::new().domain(own)).unwrap();
    }
}

fn content(n: usize, round: usize) -> Vec<u8> {
    format!("what {n} has put in round {round}").into_bytes()
}

/// A put in each domain, whose facts become runs.
fn put_in_each(store: &Store, domains: usize, round: usize) {
    for n in 0..domains {
        let repository = store.repository(&repository(n)).unwrap();
        repository.put(content(n, round), Algorithm::Blake3).unwrap();
    }
    store.checkpoint().unwrap();
}

fn get(store: &Store, n: usize, round: usize) -> Result<bytes::Bytes, Error> {
    let digest = Digest::of(Algorithm::Blake3, &content(n, round));
    store.repository(&repository(n))?.get(&digest)?.bytes()
}

/// As many domains as a store may have beside the default one, in a process that may have few descriptors.
#[cfg(target_os = "linux")]
#[test]
fn a_thousand_domains_take_no_more_open_files_than_a_few() {
    const DOMAINS: usize = 1023;
    const ROUNDS: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let keeper = Keeper::new(7);
    let options = Options::new()
        .create(true)
        .key_provider(keeper)
        .durability(Durability::Relaxed)
        .max_open_files(16)
        .maintenance(strongroom::Maintenance::Inline);
    let held = || crate::common::open_files(dir.path());
    let store = options.clone().open(dir.path()).unwrap();
    create(&store, DOMAINS);
    let mut most = held();
    for round in 0..ROUNDS {
        put_in_each(&store, DOMAINS, round);
        most = most.max(held());
    }
    store.close().unwrap();
    let store = options.open(dir.path()).unwrap();
    for round in 0..ROUNDS {
        (0..DOMAINS).for_each(|n| assert_eq!(get(&store, n, round).unwrap(), content(n, round)));
    }
    most = most.max(held());
    assert!(most < MOST_RUN_FILES + 16 + 16, "{most} descriptors");
    assert!(matches!(store.create_domain(&domain("one-more"), None), Err(Error::TooLarge { .. })));
    store.close().unwrap();
}

#[test]
fn a_damaged_page_costs_its_domain_and_no_other_in_the_same_file() {
    const DOMAINS: usize = 6;
    let keeper = Keeper::new(7);
    let disk = SimVfs::new();
    let store = open(&disk, Some(&keeper)).unwrap();
    create(&store, DOMAINS);
    (0..2).for_each(|round| put_in_each(&store, DOMAINS, round));
    store.merge_runs().unwrap();
    store.close().unwrap();
    let paths = files(&disk, "run");
    let runs_of = |path: &PathBuf| runs_in(&disk.read_file(path).unwrap());
    assert!(paths.iter().any(|path| runs_of(path).len() >= DOMAINS / 2), "several share a file");
    let mut damaged = 0;
    let runs = paths.iter().flat_map(|path| runs_of(path).into_iter().map(move |run| (path, run)));
    for (path, run) in runs {
        let (pages, ..) = run_parts(&disk.read_file(path).unwrap()[run.clone()]);
        for page in 0..pages {
            let hit = disk.restarted();
            hit.flip_bit(path, 8 * (run.start + RUN_PAGES + page * 4096 + 99) as u64).unwrap();
            let store = open(&hit, Some(&keeper)).unwrap();
            // Folds and merges go on.
            let mut refused = BTreeSet::new();
            for round in 2..10 {
                for n in 0..DOMAINS {
                    let own = store.repository(&repository(n));
                    let put = own.and_then(|own| own.put(content(n, round), Algorithm::Blake3));
                    if put.map_err(is_told).is_err() {
                        refused.insert((n, round));
                    }
                }
                store.checkpoint().unwrap();
            }
            let is_lost = |n, round| refused.contains(&(n, round)) || get(&store, n, round).map_err(is_told).is_err();
            let lost: Vec<usize> = (0..DOMAINS).filter(|n| (0..10).any(|round| is_lost(*n, round))).collect();
            let is_default = disk.read_file(path).unwrap()[run.start + 12..run.start + 16] == [0; 4];
            // What the default one has of each is who owns its name.
            assert!(lost.len() <= 1 || is_default, "page {page} of {run:?} of {path:?}: {lost:?}");
            damaged += lost.len();
            let is_found = |finding: &Finding| matches!(finding, Finding::Facts { .. } | Finding::Run { .. });
            store.verify(|_| {}).map_or_else(is_told, |report| assert!(report.findings.iter().any(is_found)));
            store.merge_runs().unwrap_or_else(is_told);
            let left = files(&hit, "run").len();
            assert!(left <= 6, "{left} files: what the one has stays where it is, and the others are merged");
        }
    }
    assert!(damaged >= DOMAINS, "{damaged}");
}

fn is_told(error: Error) {
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn what_is_left_of_domains_that_were_shredded_is_merged_away_and_the_others_keep_what_they_have() {
    const DOMAINS: usize = 12;
    let keeper = Keeper::new(7);
    let disk = SimVfs::new();
    let store = options(&disk, Some(&keeper)).retention(Duration::ZERO).open("/store").unwrap();
    create(&store, DOMAINS);
    (0..3).for_each(|round| put_in_each(&store, DOMAINS, round));
    store.merge_runs().unwrap();
    let len = |disk: &SimVfs| files(disk, "run").iter().map(|run| disk.read_file(run).unwrap().len()).sum::<usize>();
    let before = len(&disk);
    for n in (0..DOMAINS).filter(|n| n % 4 != 0) {
        store.shred_domain(&domain(&format!("tenant-{n}"))).unwrap();
    }
    store.checkpoint().unwrap();
    assert!(len(&disk) < before / 2, "{} of {before} bytes", len(&disk));
    store.close().unwrap();
    let store = open(&disk, Some(&keeper)).unwrap();
    for round in 0..3 {
        for n in 0..DOMAINS {
            match get(&store, n, round) {
                Ok(found) => assert!(n % 4 == 0 && found == content(n, round)),
                Err(error) => assert!(n % 4 != 0 && matches!(error, Error::RepositoryNotFound { .. }), "{error}"),
            }
        }
    }
    assert_sound(&store);
}
