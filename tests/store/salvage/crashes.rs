//! Power cuts at every operation of a salvage, and again at every operation of the next one: the store is as it was, or
//! it is salvaged.

use std::path::PathBuf;

use strongroom::vfs::{Fault, SimVfs};
use strongroom::{Error, SalvageReport};

use super::lab::{contents, damage, heal, make, open, salvaging};
use crate::common::{Model, Random, encrypted_disk, history, observe, outline, tell};

fn salvage(disk: &SimVfs) -> Result<SalvageReport, Error> {
    salvaging(disk).salvage("/store")?.carry_out()
}

/// What a salvage that comes to its end leads to.
struct Expected {
    report: String,
    model: Model,
    copies: Vec<(PathBuf, Vec<u8>)>,
}

fn copies(disk: &SimVfs) -> Vec<(PathBuf, Vec<u8>)> {
    contents(disk).into_iter().filter(|(path, _)| path.starts_with("/store/salvage")).collect()
}

/// Looks at what a power cut has left, salvages it if that was not done, and says whether it was.
fn check(left: &SimVfs, expected: &Expected, context: &str) -> bool {
    let is_done = match open(left) {
        Ok(_) => true,
        Err(Error::Corrupt { .. }) => {
            let report = salvage(left).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(format!("{report:?}"), expected.report, "{context}");
            false
        }
        Err(error) => panic!("{context}: {error}"),
    };
    assert!(copies(left) == expected.copies, "{context}: what was cut is kept");
    let store = open(left).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(observe(&store), expected.model, "{context}");
    store.close().unwrap();
    is_done
}

/// A damaged store that can be salvaged, in which nothing is left that has to be healed.
fn damaged(seed: u64, new: fn() -> SimVfs) -> (SimVfs, Expected, String) {
    for round in 0..1000 {
        let mut random = Random(seed + round);
        let made = make(&new(), &history(&mut random, 40), 12 << 10, round % 2 == 0);
        let (path, how) = damage(&made.disk, &mut random);
        let done = made.disk.restarted();
        let Err(Error::Corrupt { .. }) = open(&done) else { continue };
        let report = salvage(&done).unwrap();
        // Something of each kind, so that there is something to lose.
        if !report.damaged.is_empty() || report.recovered.is_empty() || report.cut.is_empty() {
            continue;
        }
        // A file whose removal was not synced comes back with a power cut, and what was in it is not gone then.
        let comes_back = |draw| {
            let again = salvage(&made.disk.restarted().power_cut(draw));
            again.is_ok_and(|again| again.gone != report.gone)
        };
        if !report.gone.is_empty() && (0..8).any(comes_back) {
            continue;
        }
        let Some(seen) = heal(&open(&done).unwrap(), &made, &report, &[path], &how) else { continue };
        let expected = Expected { report: format!("{report:?}"), model: outline(&seen), copies: copies(&done) };
        return (made.disk.restarted(), expected, how);
    }
    panic!("seed {seed}: no store was damaged in such a way")
}

fn cuts(seed: u64, new: fn() -> SimVfs) {
    let (mut covered, mut done) = (0, 0);
    for round in 0..3 {
        let (disk, expected, how) = damaged(seed + (round << 16), new);
        let counting = disk.restarted();
        let before = counting.operations();
        salvage(&counting).unwrap();
        drop(open(&counting).unwrap());
        let count = counting.operations() - before;
        for k in 1..=count {
            let cut = disk.restarted();
            cut.fault_at(cut.operations() + k, Fault::PowerCut);
            let error = salvage(&cut)
                .and_then(|_| open(&cut).map(drop))
                .map_or_else(|error| error.to_string(), |()| "done".into());
            let context = format!("seed {seed} round {round}, {how}, cut at {k} of {count}: {error}");
            let draw = seed ^ k << 20;
            for left in [cut.power_cut(draw), cut.restarted()] {
                done += u64::from(check(&left, &expected, &context));
                covered += 1;
            }
            let counting = cut.power_cut(draw);
            let before = counting.operations();
            let again = |disk: &SimVfs| {
                if let Err(Error::Corrupt { .. }) = open(disk) {
                    salvage(disk)?;
                }
                open(disk).map(drop)
            };
            again(&counting).unwrap();
            let after = counting.operations();
            for j in (1 + k % 3..=after - before).step_by(3) {
                let twice = cut.power_cut(draw);
                twice.fault_at(twice.operations() + j, Fault::PowerCut);
                let _ = again(&twice);
                let context = format!("{context}, again at {j}");
                done += u64::from(check(&twice.power_cut(draw ^ j), &expected, &context));
                covered += 1;
            }
        }
    }
    tell(&format!("crash points covered: {covered}, at {done} the salvage was done"));
    assert!(covered > 300 && done > 50 && done < covered - 50, "{covered}, {done}");
}

#[test]
fn a_crash_leaves_the_store_as_it_was_or_salvaged() {
    cuts(crate::common::seed(0x5c1), SimVfs::new);
}

#[test]
fn so_it_does_in_an_encrypted_store() {
    cuts(crate::common::seed(0x5c2), encrypted_disk);
}

#[test]
fn a_full_disk_leaves_the_store_as_it_was() {
    let (disk, expected, how) = damaged(crate::common::seed(0x5c3), SimVfs::new);
    let counting = disk.restarted();
    let before = counting.operations();
    salvage(&counting).unwrap();
    for k in 1..=counting.operations() - before {
        let full = disk.restarted();
        full.fault_at(full.operations() + k, Fault::Full);
        match salvage(&full) {
            Ok(_) | Err(Error::Full { .. }) => {}
            Err(error) => panic!("{how}, full at {k}: {error}"),
        }
        full.free_space();
        check(&full, &expected, &format!("{how}, full at {k}"));
    }
}
