//! `kill -9` of an import at random moments, again and again, until one gets through: then everything is there, once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strongroom::Store;

use crate::command::{assert_alike, command, ok};
use crate::common::{Random, copy, tell};

/// A folder of random files, or the one that `STRONGROOM_KILL_FOLDER` names.
fn folder(dir: &Path, random: &mut Random) -> PathBuf {
    if let Some(named) = std::env::var_os("STRONGROOM_KILL_FOLDER") {
        return named.into();
    }
    let from = dir.join("from");
    fs::create_dir(&from).unwrap();
    for n in 0..600 {
        let len = [200, 5_000, 60_000, 300_000, 5_000_000][usize::try_from((n % 50) / 12).unwrap()];
        fs::write(from.join(format!("{n}")), random.bytes(len)).unwrap();
    }
    from
}

#[test]
fn an_import_that_is_killed_at_random_moments_ends_with_everything_there() {
    let mut random = Random(42);
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let from = folder(dir.path(), &mut random);
    ok(&data, &["init"]);
    let import = ["import", from.to_str().unwrap(), "--name", "f", "--replace"];
    let start = Instant::now();
    ok(&data, &import);
    let whole = u64::try_from(start.elapsed().as_micros()).unwrap();
    fs::remove_dir_all(&data).unwrap();
    ok(&data, &["init"]);
    let mut kills = 0;
    let mut known: BTreeMap<_, _> = BTreeMap::new();
    for round in 0..25 {
        let mut child = command(&data, &import).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.below(whole + 1)));
        child.kill().unwrap();
        if !child.wait().unwrap().success() {
            kills += 1;
        }
        // Once there, a blob stays.
        let store = Store::open(&data).unwrap();
        let now: BTreeMap<_, _> = store.blobs().map(|stat| stat.map(|stat| (stat.digest, stat.len)).unwrap()).collect();
        assert!(known.keys().all(|digest| now.contains_key(digest)), "round {round}: a blob was lost");
        if round % 5 == 0 {
            assert!(store.verify(|_| {}).unwrap().findings.is_empty(), "round {round}");
        }
        known = now;
    }
    let told = format!("{kills} imports killed; {}", ok(&data, &import).trim());
    tell(&told);
    assert!(ok(&data, &["verify"]).contains("all sound"));
    ok(&data, &["export", "f", to.to_str().unwrap()]);
    assert_alike(&from, &to);
}

#[test]
fn names_are_right_after_kills_with_the_view_as_it_was_left_deleted_or_of_an_older_moment() {
    let mut random = Random(7);
    let dir = tempfile::tempdir().unwrap();
    let (data, names, old) = (dir.path().join("data"), dir.path().join("data/names"), dir.path().join("old"));
    ok(&data, &["init"]);
    let file = dir.path().join("file");
    let (mut pinned, mut perhaps) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..120u64 {
        fs::write(&file, round.to_le_bytes()).unwrap();
        let name = format!("name-{:03}", random.below(60));
        let arguments = match pinned.contains(&name) {
            true => ["rm", &name].map(str::to_owned).to_vec(),
            false => ["put", file.to_str().unwrap(), "--pin", &name, "--replace"].map(str::to_owned).to_vec(),
        };
        let mut child = command(&data, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
        if random.below(2) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(12_000)));
            let _ = child.kill();
        }
        let done = child.wait().unwrap().success();
        match (done, arguments.len()) {
            (true, 2) => drop(pinned.remove(&name)),
            (true, _) => drop(pinned.insert(name)),
            (false, _) => drop(perhaps.insert(name)),
        }
        match random.below(8) {
            0 => drop(fs::remove_dir_all(&names)),
            1 => {
                let _ = fs::remove_dir_all(&old);
                if names.exists() {
                    copy(&names, &old);
                }
            }
            2 if old.exists() => {
                let _ = fs::remove_dir_all(&names);
                copy(&old, &names);
            }
            _ => {}
        }
        if round % 3 == 0 {
            let store = Store::open(&data).unwrap();
            let listed: BTreeSet<_> = crate::common::file_names(&store).unwrap().into_iter().collect();
            for name in &listed ^ &pinned {
                assert!(perhaps.contains(&name), "round {round}: {name}");
                assert_eq!(store.named().stat(&name).is_ok(), listed.contains(&name), "round {round}: {name}");
            }
            (pinned, perhaps) = (listed, BTreeSet::new());
        }
    }
}
