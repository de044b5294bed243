//! `kill -9` of an import at random moments, again and again, until one gets through: then everything is there, once.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use strongroom::Store;

fn strongroom(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.arg("--data").arg(data).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ok(data: &Path, arguments: &[&str]) -> String {
    let output = strongroom(data, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Numbers from a seed, as in `tests/common`.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 29
}

#[test]
fn an_import_that_is_killed_at_random_moments_ends_with_everything_there() {
    let mut random = 42;
    let dir = tempfile::tempdir().unwrap();
    let (data, from, to) = (dir.path().join("data"), dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    for n in 0..600 {
        let len = [200, 5_000, 60_000, 300_000, 5_000_000][usize::try_from((n % 50) / 12).unwrap()];
        let content: Vec<u8> = std::iter::repeat_with(|| next(&mut random).to_le_bytes()).flatten().take(len).collect();
        fs::write(from.join(format!("{n}")), content).unwrap();
    }
    ok(&data, &["init"]);
    let import = ["import", from.to_str().unwrap(), "--name", "f"];
    let start = Instant::now();
    ok(&data, &import);
    let whole = u64::try_from(start.elapsed().as_micros()).unwrap();
    fs::remove_dir_all(&data).unwrap();
    ok(&data, &["init"]);
    let mut kills = 0;
    let mut known: BTreeMap<_, _> = BTreeMap::new();
    for round in 0..25 {
        let mut child = strongroom(&data, &import).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(next(&mut random) % (whole + 1)));
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
    println!("{kills} imports killed");
    ok(&data, &import);
    assert!(ok(&data, &["verify"]).contains("all sound"));
    ok(&data, &["export", "f", to.to_str().unwrap()]);
    let diff = Command::new("diff").arg("-r").arg(&from).arg(&to).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}
