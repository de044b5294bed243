//! Nothing can be moved: what was written for one place, file, domain or store is not taken for anything else, nor are
//! older keys and lists for newer ones. What whoever writes to the directory can do all the same stands in the last
//! tests.

use std::ops::ControlFlow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use strongroom::keys::KeyError;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Damage, Error, Store};

use super::disk::{
    RUN_PAGES, exchange, exchange_between, exchange_files, files, fix_crc, put_back, records, run_parts, runs_in,
};
use super::flips::Subject;
use super::lab::{DOMAINS, Keeper, build, domain, open, options, see};
use crate::common::{Random, seed, tell};

/// A part of a file.
type Part = (PathBuf, Range<usize>);

/// Pairs of parts of one length, at most so many, of one file and of different ones.
fn pairs(parts: &[Part], most: usize, random: &mut Random) -> Vec<(Part, Part)> {
    let mut pairs = [Vec::new(), Vec::new()];
    for (n, one) in parts.iter().enumerate() {
        for other in parts[n + 1..].iter().filter(|other| other.1.len() == one.1.len()) {
            pairs[usize::from(one.0 == other.0)].push((one.clone(), other.clone()));
        }
    }
    let mut picked = Vec::new();
    for pairs in &mut pairs {
        assert!(!pairs.is_empty(), "nothing to exchange");
        for _ in 0..most.min(pairs.len()) {
            picked.push(pairs.swap_remove(random.below(pairs.len() as u64) as usize));
        }
    }
    picked
}

fn parts_of_logs(disk: &SimVfs, part: impl Fn(&super::disk::Record) -> Range<usize>) -> Vec<Part> {
    let logs = files(disk, "log").into_iter().flat_map(|path| {
        let records = records(&disk.read_file(&path).unwrap());
        records.into_iter().map(move |record| (path.clone(), record)).collect::<Vec<_>>()
    });
    logs.map(|(path, record)| (path, part(&record))).filter(|(_, range)| !range.is_empty()).collect()
}

/// Exchanges parts of files, and expects that this is found.
fn exchange_all(subject: &Subject, what: &str, pairs: &[(Part, Part)]) {
    for (one, other) in pairs {
        let disk = subject.disk.restarted();
        exchange_between(&disk, (&one.0, one.1.clone()), (&other.0, other.1.clone()));
        let context = format!("{what}: {one:?} and {other:?}");
        assert!(!subject.ask(&disk, context.clone()).is_empty(), "{context}: not found");
    }
    tell(&format!("{what}: {} pairs exchanged", pairs.len()));
}

#[test]
fn nothing_in_a_log_file_is_taken_for_what_stands_elsewhere() {
    let mut random = Random(seed(0x10a));
    let subject = Subject::new(1 << 40);
    let disk = &subject.disk;
    let frames = parts_of_logs(disk, |record| record.frame.clone());
    exchange_all(&subject, "frames", &pairs(&frames, 12, &mut random));
    let descriptors: Vec<Part> = frames.iter().map(|(path, at)| (path.clone(), at.start..at.start + 128)).collect();
    exchange_all(&subject, "descriptors of frames", &pairs(&descriptors, 6, &mut random));
    let contents: Vec<Part> = frames.iter().map(|(path, at)| (path.clone(), at.start + 128..at.end)).collect();
    exchange_all(&subject, "contents of frames", &pairs(&contents, 6, &mut random));
    let whole = parts_of_logs(disk, |record| record.whole.clone());
    exchange_all(&subject, "records", &pairs(&whole, 12, &mut random));
    let bodies = parts_of_logs(disk, |record| record.body.clone());
    exchange_all(&subject, "operations and facts", &pairs(&bodies, 12, &mut random));
    let heads = parts_of_logs(disk, |record| record.whole.start..record.whole.start + 64);
    exchange_all(&subject, "headers of records", &pairs(&heads, 6, &mut random));
    let headers: Vec<Part> = files(disk, "log").into_iter().map(|path| (path, 0..512)).collect();
    exchange_each(&subject, "headers of log files", &headers);
}

/// Exchanges each part with the next.
fn exchange_each(subject: &Subject, what: &str, parts: &[Part]) {
    let pairs: Vec<_> = parts.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    exchange_all(subject, what, &pairs);
}

#[test]
fn no_page_of_a_run_is_taken_for_another() {
    let mut random = Random(seed(0x10b));
    let subject = Subject::new(0);
    let mut pages: Vec<(PathBuf, Range<usize>, Range<usize>)> = Vec::new();
    for path in files(&subject.disk, "run") {
        let bytes = subject.disk.read_file(&path).unwrap();
        for run in runs_in(&bytes) {
            let (count, table, _) = run_parts(&bytes[run.clone()]);
            let (first, table) = (run.start + RUN_PAGES, run.start + table);
            let page = |n: usize| first + n * 4096..first + (n + 1) * 4096;
            let place = |n: usize| (path.clone(), page(n), table + n * 16..table + (n + 1) * 16);
            pages.extend((0..count).map(place));
        }
    }
    for is_with_tags in [false, true] {
        for n in 0..24 {
            let [one, other] = [(), ()].map(|()| pages[random.below(pages.len() as u64) as usize].clone());
            if one == other {
                continue;
            }
            let disk = subject.disk.restarted();
            exchange_between(&disk, (&one.0, one.1.clone()), (&other.0, other.1.clone()));
            if is_with_tags {
                exchange_between(&disk, (&one.0, one.2.clone()), (&other.0, other.2.clone()));
            }
            let context = format!("{n}: pages {one:?} and {other:?}, with tags: {is_with_tags}");
            assert!(!subject.ask(&disk, context.clone()).is_empty(), "{context}: not found");
        }
    }
}

#[test]
fn no_block_of_a_segment_is_taken_for_another() {
    // Three blocks, of which two are whole; twice in one domain, and once in another.
    let keeper = Keeper::new(1);
    let disk = SimVfs::new();
    let store = open(&disk, Some(&keeper)).unwrap();
    store.create_domain(&domain(DOMAINS[0]), None).unwrap();
    let settings = strongroom::registry::RepositorySettings::new().domain(domain(DOMAINS[0]));
    let other = store.create_repository(&"other/one".parse().unwrap(), settings).unwrap();
    let contents: Vec<_> = (0..3).map(|n| Random(n).bytes(140_000)).collect();
    let mut segments = Vec::new();
    let mut digests = Vec::new();
    for (n, content) in contents.iter().enumerate() {
        let put = |content: &[u8]| match n {
            2 => other.put(content, Algorithm::Blake3),
            _ => store.put(content, Algorithm::Blake3),
        };
        digests.push(put(content).unwrap());
        segments.extend(files(&disk, "seg").into_iter().filter(|path| !segments.contains(path)).collect::<Vec<_>>());
    }
    store.close().unwrap();
    let table = 4096 + 140_000;
    let block = |n: usize| 4096 + n * 65_536..4096 + (n + 1) * 65_536;
    let entry = |n: usize| table + 24 * n..table + 24 * (n + 1);
    let mut places = Vec::new();
    for segment in &segments {
        places.extend([(segment, 0), (segment, 1)]);
    }
    let mut count = 0;
    for (n, one) in places.iter().enumerate() {
        for two in &places[n + 1..] {
            for (with_blocks, with_entries) in [(true, false), (false, true), (true, true)] {
                let disk = disk.restarted();
                if with_blocks {
                    exchange_between(&disk, (one.0, block(one.1)), (two.0, block(two.1)));
                }
                if with_entries {
                    exchange_between(&disk, (one.0, entry(one.1)), (two.0, entry(two.1)));
                }
                let store = open(&disk, Some(&keeper)).unwrap();
                let other = store.repository(&"other/one".parse().unwrap()).unwrap();
                for (m, (digest, content)) in digests.iter().zip(&contents).enumerate() {
                    let is_changed = segments[m] == *one.0 || segments[m] == *two.0;
                    let blob = if m == 2 { other.get(&digest.digest) } else { store.get(&digest.digest) };
                    match blob.unwrap().bytes() {
                        Ok(bytes) => assert!(!is_changed && bytes == content, "{one:?} and {two:?}"),
                        Err(Error::Corrupt { file, .. }) => assert!(is_changed && file == segments[m]),
                        Err(error) => panic!("{error}"),
                    }
                }
                count += 1;
            }
        }
    }
    tell(&format!("{count} exchanges of blocks"));
}

#[test]
fn no_file_is_taken_for_another() {
    let subject = Subject::new(1 << 40);
    let mut count = 0;
    for ending in ["log", "run", "seg"] {
        let paths = files(&subject.disk, ending);
        assert!(paths.len() > 2);
        for (n, one) in paths.iter().enumerate() {
            // Of segments there are many, of all domains: each with the next three.
            for other in paths[n + 1..].iter().take(if ending == "seg" { 3 } else { usize::MAX }) {
                let disk = subject.disk.restarted();
                exchange_files(&disk, one, other);
                let context = format!("{} and {}", one.display(), other.display());
                assert!(!subject.ask(&disk, context.clone()).is_empty(), "{context}: not found");
                count += 1;
            }
        }
    }
    tell(&format!("{count} pairs of files exchanged"));
}

#[test]
fn no_file_of_another_store_with_the_same_key_is_taken_for_one_of_this() {
    let subject = Subject::new(1 << 40);
    let (other, _) =
        super::lab::build_with(Some(&subject.keeper), &|disk| options(disk, Some(&subject.keeper)).history(1 << 40));
    let mut count = 0;
    for path in other.files().iter().filter(|path| !path.ends_with("LOCK") && !path.ends_with("RESERVE")) {
        let disk = subject.disk.restarted();
        if disk.read_file(path).is_err() {
            continue;
        }
        put_back(&disk, &other, path.to_str().unwrap());
        let context = format!("{} of another store", path.display());
        assert!(!subject.ask(&disk, context.clone()).is_empty(), "{context}: not found");
        count += 1;
    }
    assert!(count > 20, "{count}");
}

/// Changes `FORMAT`, and makes its checksums right.
fn forge(disk: &SimVfs, change: impl FnOnce(&mut Vec<u8>)) {
    disk.tamper("/store/FORMAT", |bytes| {
        change(bytes);
        fix_crc(bytes, 0..124);
        let end = bytes.len() - 4;
        fix_crc(bytes, 128..end);
    })
    .unwrap();
}

fn find(bytes: &[u8], needle: &[u8]) -> Range<usize> {
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("it is there");
    at..at + needle.len()
}

#[test]
fn nothing_in_the_table_of_keys_can_be_changed() {
    let keeper = Keeper::new(1);
    let (disk, _) = build(Some(&keeper));
    let refused = |disk: &SimVfs, context: &str| match open(disk, Some(&keeper)) {
        Err(error) => error,
        Ok(_) => panic!("{context}: not found"),
    };
    let wrapped: Vec<_> = (0..3).map(|domain| keeper.wrapped(domain)[0].clone()).collect();
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        let disk = disk.restarted();
        forge(&disk, |bytes| {
            let (one, other) = (find(bytes, &wrapped[one]), find(bytes, &wrapped[other]));
            exchange(bytes, &one, &other);
        });
        let error = refused(&disk, "wrapped keys of two domains exchanged");
        let is_told = match one {
            0 => matches!(error, Error::Key { domain: 0, source: KeyError::Damaged }),
            _ => matches!(error, Error::Corrupt { damage: Damage::Seal, .. }), // before the keeper is asked for them
        };
        assert!(is_told, "{error}");
        let disk = disk.restarted();
        forge(&disk, |bytes| {
            let copy = wrapped[one].clone();
            let place = bytes.windows(copy.len()).position(|window| window == copy);
            if let Some(at) = place {
                bytes[at..at + copy.len()].copy_from_slice(&wrapped[other]);
            }
        });
        refused(&disk, "one domain's key in the place of another's");
    }
    // Each bit of it, with checksums that are right.
    let len = disk.read_file("/store/FORMAT").unwrap().len();
    for bit in 0..len * 8 {
        let disk = disk.restarted();
        forge(&disk, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let opened = open(&disk, Some(&keeper));
        let is_checksum = (124..128).contains(&(bit / 8)) || bit / 8 >= len - 4;
        assert!(is_checksum == opened.is_ok(), "bit {bit} of {len}: {:?}", opened.err());
    }
    // A table cut off, and made longer.
    for change in [-1isize, -16, -48, 1, 16] {
        let disk = disk.restarted();
        forge(&disk, |bytes| {
            let (len, body) = (bytes.len(), bytes.len() - 8 - 128);
            let new = body.checked_add_signed(change).unwrap();
            bytes.truncate(len - 4);
            bytes.resize(132 + new, 0);
            bytes[128..132].copy_from_slice(&(new as u32).to_le_bytes());
            bytes.extend([0; 4]);
        });
        let error = refused(&disk, "a table of another length");
        assert!(matches!(&error, Error::Corrupt { file, .. } if file.ends_with("FORMAT")), "{error}");
    }
}

#[test]
fn headers_whose_checksums_were_made_right_open_nothing() {
    let subject = Subject::new(1 << 40);
    let mut random = Random(seed(0x10c));
    let last = files(&subject.disk, "log").into_iter().max().unwrap();
    for ending in ["log", "run", "seg"] {
        for path in files(&subject.disk, ending) {
            for n in 0..6 {
                // Of the numbers of domains and keys, and of the salt; of the rest.
                let bit = if n < 3 { random.below(112) * 8 + random.below(8) } else { random.below(508 * 8) };
                let disk = subject.disk.restarted();
                disk.tamper(&path, |bytes| {
                    bytes[bit as usize / 8] ^= 1 << (bit % 8);
                    fix_crc(bytes, 0..508);
                })
                .unwrap();
                let context = format!("bit {bit} of the header of {}", path.display());
                let errors = subject.ask(&disk, context.clone());
                // The segment of an upload that has no whole block yet holds nothing: it goes on in what it finds. In
                // the last log file no content lives, and its records do not depend on what is reserved in the header.
                let (len, byte) = (subject.disk.read_file(&path).unwrap().len(), bit / 8);
                let is_free = match ending {
                    "log" => path == last && (byte >= 112 || (12..16).contains(&byte)),
                    "seg" => len <= 4096,
                    _ => false,
                };
                assert!(is_free || !errors.is_empty(), "{context}: not found");
            }
        }
    }
    // The same key number, or none: what is plain is not believed.
    for path in files(&subject.disk, "log") {
        let disk = subject.disk.restarted();
        disk.tamper(&path, |bytes| {
            bytes[72..76].fill(0);
            fix_crc(bytes, 0..508);
        })
        .unwrap();
        let errors = subject.ask(&disk, format!("{} said to be plain", path.display()));
        assert!(
            errors.iter().any(|error| matches!(error, Error::Corrupt { damage: Damage::NotSealed, .. })),
            "{errors:?}"
        );
    }
}

#[test]
fn a_plain_file_is_not_believed_in_an_encrypted_store() {
    // An attacker who may write what they like: the whole store without encryption, under the same id, but for
    // `FORMAT`.
    let subject = Subject::new(1 << 40);
    let (plain, _) = build(None);
    let id = subject.disk.read_file("/store/FORMAT").unwrap()[48..64].to_vec();
    let old = plain.read_file("/store/FORMAT").unwrap()[48..64].to_vec();
    let refused = |paths: &[PathBuf], what: &str| {
        let disk = subject.disk.restarted();
        let paths: Vec<_> = paths.iter().filter(|path| disk.read_file(path).is_ok()).collect();
        if paths.is_empty() {
            return;
        }
        for path in paths {
            put_back(&disk, &plain, path.to_str().unwrap());
            disk.tamper(path, |bytes| {
                let places: Vec<_> = (0..bytes.len() - 16).filter(|at| bytes[*at..].starts_with(&old)).collect();
                places.iter().for_each(|at| bytes[*at..*at + 16].copy_from_slice(&id));
                match path.ends_with("LIST") {
                    true => {
                        let end = bytes.len() - 4;
                        fix_crc(bytes, 0..end);
                    }
                    false => fix_crc(bytes, 0..508),
                }
            })
            .unwrap();
        }
        assert!(!subject.ask(&disk, what.to_owned()).is_empty(), "{what}: not found");
    };
    for path in plain.files().iter().filter(|path| {
        ["log", "run", "seg"].iter().any(|ending| path.extension().is_some_and(|e| e == *ending))
            || path.ends_with("LIST")
    }) {
        refused(std::slice::from_ref(path), &format!("{} without encryption", path.display()));
    }
    let all: Vec<_> =
        plain.files().into_iter().filter(|path| path.extension().is_some() || path.ends_with("LIST")).collect();
    refused(&all, "all files without encryption");
}

/// What comes of it when older keys are put back after a change, the process having been killed right after it.
fn put_older_keys_back(change: impl Fn(&Store, &Arc<Keeper>)) -> Result<(), Error> {
    let keeper = Keeper::new(1);
    let (before, _) = build(Some(&keeper));
    let disk = before.restarted();
    let store = open(&disk, Some(&keeper)).unwrap();
    change(&store, &keeper);
    let killed = disk.restarted();
    drop(store);
    put_back(&killed, &before, "/store/FORMAT");
    open(&killed, Some(&keeper)).map(drop)
}

#[test]
fn an_older_table_of_keys_is_refused_whatever_changed_since() {
    let is_refused = |outcome: Result<(), Error>, what: &str| {
        let error = outcome.expect_err(what);
        let is_told = matches!(&error, Error::Corrupt { file, .. } if file.ends_with("LIST"));
        assert!(is_told, "{what}: {error}");
    };
    let tenant = domain(DOMAINS[0]);
    is_refused(put_older_keys_back(|store, _| store.create_domain(&domain("new"), None).unwrap()), "a new domain");
    is_refused(put_older_keys_back(|store, _| store.rotate_data_key(None).unwrap()), "a new key");
    is_refused(put_older_keys_back(|store, _| store.rotate_data_key(Some(&tenant)).unwrap()), "a domain's new key");
    is_refused(put_older_keys_back(|store, _| store.shred_domain(&tenant).unwrap()), "a domain shredded");
    is_refused(put_older_keys_back(|store, keeper| store.rewrap_keys(keeper.clone()).unwrap()), "keys wrapped anew");
    let rewritten = |store: &Store, _: &Arc<Keeper>| {
        store.rotate_data_key(None).unwrap();
        assert!(store.rewrite(|_| ControlFlow::Continue(())).unwrap().complete);
    };
    is_refused(put_older_keys_back(rewritten), "old keys given up");
}

#[test]
fn a_store_that_was_rewritten_does_not_believe_again_what_is_plain() {
    let keeper = Keeper::new(1);
    let (disk, _) = build(None);
    let store = open(&disk, None).unwrap();
    store.encrypt(keeper.clone()).unwrap();
    let mut believing = disk.restarted();
    // The table that believes what is plain, as late as there is one.
    let done = store.rewrite(|_| {
        believing = disk.restarted();
        ControlFlow::Continue(())
    });
    assert!(done.unwrap().complete);
    let killed = disk.restarted();
    drop(store);
    put_back(&killed, &believing, "/store/FORMAT");
    let error = open(&killed, Some(&keeper)).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, .. } if file.ends_with("LIST")), "{error}");
}

#[test]
fn an_older_list_is_refused_or_the_store_is_as_it_was_then() {
    // Who keeps a copy of the list can take the store back to that moment, as far as the files are still there that it
    // names.
    let keeper = Keeper::new(1);
    let (disk, _) = build(Some(&keeper));
    let mut lists = Vec::new();
    let store = open(&disk, Some(&keeper)).unwrap();
    let mut states = vec![see(&store)];
    for n in 0..6u8 {
        lists.push(disk.restarted());
        store.put(vec![n; 1000], Algorithm::Sha256).unwrap();
        if n % 2 == 1 {
            store.checkpoint().unwrap();
        }
        states.push(see(&store));
    }
    store.close().unwrap();
    let (mut refused, mut older) = (0, 0);
    for list in &lists {
        let disk = disk.restarted();
        put_back(&disk, list, "/store/runs/LIST");
        match open(&disk, Some(&keeper)) {
            Ok(store) => {
                let seen = see(&store);
                assert!(states.contains(&seen), "a state that there never was");
                older += usize::from(seen != states[6]);
            }
            Err(error) => {
                assert!(matches!(error, Error::Corrupt { .. }), "{error}");
                refused += 1;
            }
        }
    }
    tell(&format!("of {} older lists {refused} are refused, {older} take the store back", lists.len()));
}

#[test]
fn who_cuts_the_log_of_a_killed_process_takes_back_commits_from_the_end_and_no_others() {
    let keeper = Keeper::new(1);
    let disk = SimVfs::new();
    // The list says up to where all was durable when it was replaced last: here, before all of it.
    let store = options(&disk, Some(&keeper)).log_file_size(64 << 10).memtable_size(1 << 20).open("/store").unwrap();
    let contents: Vec<_> = (0..12).map(|n| Random(n).bytes(300)).collect();
    let digests: Vec<_> =
        contents.iter().map(|content| store.put(content, Algorithm::Blake3).unwrap().digest).collect();
    let killed = disk.restarted();
    drop(store);
    let log = files(&killed, "log").pop().unwrap();
    let records = records(&killed.read_file(&log).unwrap());
    for kept in 0..=records.len() {
        let disk = killed.restarted();
        let end = records.get(kept).map_or(usize::MAX, |record| record.whole.start);
        disk.tamper(&log, |bytes| bytes.iter_mut().skip(end).for_each(|byte| *byte = 0)).unwrap();
        let store = open(&disk, Some(&keeper)).unwrap();
        let found: Vec<bool> = digests.iter().map(|digest| store.exists(digest).unwrap()).collect();
        assert!(found.iter().enumerate().all(|(n, found)| *found == (n < kept)), "{kept}: {found:?}");
    }
    // One out of the middle is missed.
    for n in 0..records.len() - 1 {
        let disk = killed.restarted();
        disk.tamper(&log, |bytes| bytes[records[n].whole.clone()].fill(0)).unwrap();
        let error = open(&disk, Some(&keeper)).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { file, .. } if file == &log), "{n}: {error}");
    }
}
