//! The command line, as a user meets it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use crate::command::{assert_alike, code, command, ends, limited, ok, refused, rows, strongroom};

#[test]
fn a_file_goes_in_and_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file, out) = (dir.path().join("data"), dir.path().join("file"), dir.path().join("out"));
    assert_eq!(code(&data, &["ls"]), 3, "there is no store yet");
    ok(&data, &["init"]);
    fs::write(&file, "content").unwrap();
    let path = file.to_str().unwrap();
    let digest = ok(&data, &["put", path, "--pin", "it"]).split_whitespace().next().unwrap().to_owned();
    assert!(digest.starts_with("sha256:"));
    ok(&data, &["get", "it", out.to_str().unwrap()]);
    assert_eq!(fs::read(&out).unwrap(), b"content");
    assert_eq!(ok(&data, &["cat", &digest]), "content");
    assert!(ok(&data, &["ls"]).contains("it"));
    assert!(ok(&data, &["ls", "--blobs"]).contains(&digest));
    let stat: serde_json::Value = serde_json::from_str(&ok(&data, &["--json", "stat", &digest])).unwrap();
    assert_eq!((&stat["bytes"], &stat["references"]), (&7.into(), &1.into()));
    assert_eq!(code(&data, &["rm", &digest]), 1, "it is held");
    ok(&data, &["rm", "it", "--blobs"]);
    assert_eq!(code(&data, &["cat", &digest]), 3);
    assert_eq!(code(&data, &["cat", "sha256:xyz"]), 1);
    assert_eq!(code(&data, &["cat"]), 2);
    assert!(ok(&data, &["verify"]).contains("all sound"));
}

#[test]
fn a_named_file_is_put_replaced_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file, out) = (dir.path().join("data"), dir.path().join("file"), dir.path().join("out"));
    ok(&data, &["init"]);
    let path = file.to_str().unwrap();
    let put = |content: &str, more: &[&str]| {
        fs::write(&file, content).unwrap();
        let arguments = [&["--json", "file", "put", "npm/index.json", path], more].concat();
        serde_json::from_str::<serde_json::Value>(&ok(&data, &arguments)).unwrap()
    };
    let first = put("one", &["--if-absent"]);
    assert_eq!((&first["bytes"], &first["replaced"]), (&3.into(), &().into()));
    let digest = first["digest"].as_str().unwrap();
    assert_eq!(code(&data, &["file", "put", "npm/index.json", path, "--if-absent"]), 1);
    let second = put("two", &["--if-digest", digest, "--discard", "--expires", "1h"]);
    assert_eq!(second["replaced"], first["digest"]);
    assert!((3500..=3600).contains(&second["expires_in_seconds"].as_u64().unwrap()));
    assert_eq!(code(&data, &["file", "put", "npm/index.json", path, "--if-digest", digest]), 1);
    assert_eq!(ok(&data, &["file", "get", "npm/index.json"]), "two");
    ok(&data, &["file", "get", "npm/index.json", out.to_str().unwrap()]);
    assert_eq!(fs::read(&out).unwrap(), b"two");
    assert_eq!(code(&data, &["file", "get", "npm/none"]), 3);
    ok(&data, &["gc"]);
    assert_eq!(code(&data, &["cat", digest]), 3, "what was replaced is gone");
    ok(&data, &["file", "put", "pypi/index.html", path]);
    let listed = ok(&data, &["file", "ls", "npm/"]);
    assert!(listed.contains("npm/index.json") && !listed.contains("pypi"), "{listed}");
    assert!(ok(&data, &["ls"]).contains("pypi/index.html"), "pins are named files");
    assert_eq!(code(&data, &["file", "rm", "npm/index.json", "--if-digest", digest]), 1);
    ok(&data, &["file", "rm", "npm/index.json"]);
    let removed = ok(&data, &["--json", "file", "rm", "--prefix", "pypi/", "npm/"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&removed).unwrap()["removed"], 1);
    assert_eq!((ok(&data, &["file", "ls"]), code(&data, &["file", "rm", "none"])), (String::new(), 3));
    assert_eq!(code(&data, &["file", "ls", "--domain", "nowhere"]), 3);
    assert!(ok(&data, &["verify"]).contains("all sound"));
}

#[test]
fn what_nothing_holds_is_collected() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("file"));
    ok(&data, &["init"]);
    let put = |content: &str, more: &[&str]| {
        fs::write(&file, content).unwrap();
        let arguments = [&["put", file.to_str().unwrap()], more].concat();
        ok(&data, &arguments).split_whitespace().next().unwrap().to_owned()
    };
    let (kept, loose) = (put("kept", &["--pin", "it"]), put("loose", &[]));
    assert!(ok(&data, &["gc"]).contains("1 blobs that nothing holds are too recent"));
    let would = ok(&data, &["gc", "--retention", "0", "--dry-run"]);
    assert!(would.contains("nothing was done") && would.contains("forgotten  1 blobs"), "{would}");
    assert_eq!(ok(&data, &["cat", &loose]), "loose");
    let report =
        ok(&data, &["--json", "gc", "--retention", "0", "--history", "0", "--max-dead", "0", "--rate", "9999999"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["blobs"], &report["dry_run"], &report["stopped"]), (&1.into(), &false.into(), &().into()));
    assert_eq!(code(&data, &["cat", &loose]), 3);
    assert_eq!(ok(&data, &["cat", &kept]), "kept");
    assert_eq!(code(&data, &["gc", "--max-dead", "100"]), 2);
    assert!(ok(&data, &["verify"]).contains("all sound"));
}

#[test]
fn durations_and_sizes_are_given_as_people_write_them() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("not yet there").join("data");
    ok(&data, &["init"]);
    ok(&data, &["gc", "--retention", "1h 30m", "--history", "1MiB", "--max-bytes", "1.5G", "--max-time", "90s"]);
    for bad in [
        ["gc", "--retention", "10"],
        ["gc", "--max-time", "soon"],
        ["gc", "--history", "much"],
        ["gc", "--max-bytes", "1 hour"],
        ["gc", "--rate", "0"],
        ["--wait-lock", "1", "ls"],
    ] {
        refused(&data, &bad, 2, &["invalid value", "try "]);
    }
    let help = ok(&data, &["gc", "--help"]);
    assert!(help.contains("[default: 24h]") && help.contains("[default: 64MiB]"), "{help}");
}

#[test]
fn a_command_waits_for_the_lock_as_long_as_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = strongroom::Options::new().create(true).open(&data).unwrap();
    assert_eq!(code(&data, &["gc"]), 6);
    assert_eq!(code(&data, &["gc", "--wait-lock", "20ms"]), 6);
    assert_eq!(code(&data, &["--wait-lock", "20ms", "fsck", "--salvage"]), 6);
    std::fs::remove_file(data.join("LOCK")).unwrap();
    assert_eq!(code(&data, &["gc"]), 6, "the directory is locked as well");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ok(&data, &["gc", "--wait-lock", "5min"]));
        store.close().unwrap();
        waiting.join().unwrap();
    });
}

#[test]
fn a_folder_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (data, from, to) = (dir.path().join("data"), dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("sub/empty")).unwrap();
    fs::write(from.join("a"), "same").unwrap();
    fs::write(from.join("sub/b"), "same").unwrap();
    fs::write(from.join("sub/große"), vec![7; 5 << 20]).unwrap();
    fs::write(from.join("nothing"), "").unwrap();
    symlink("../a", from.join("sub/link")).unwrap();
    fs::set_permissions(from.join("a"), fs::Permissions::from_mode(0o750)).unwrap();
    ok(&data, &["init"]);
    let report: serde_json::Value =
        serde_json::from_str(&ok(&data, &["--json", "import", from.to_str().unwrap(), "--name", "f"])).unwrap();
    assert_eq!(report["files"], 4);
    ok(&data, &["export", "f", to.to_str().unwrap()]);
    assert_alike(&from, &to);
    assert_eq!(fs::metadata(to.join("a")).unwrap().permissions().mode() & 0o777, 0o750);
    assert!(to.join("sub/empty").is_dir());
    let again: serde_json::Value =
        serde_json::from_str(&ok(&data, &["--json", "import", from.to_str().unwrap(), "--name", "g"])).unwrap();
    assert_eq!(again["bytes_stored"], 0, "everything was there");
}

#[test]
fn an_image_layout_comes_back_as_it_was_and_a_blob_unlike_its_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, from, to) = (dir.path().join("data"), dir.path().join("from"), dir.path().join("to"));
    let blobs = from.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(from.join("oci-layout"), "{\"imageLayoutVersion\": \"1.0.0\"}\n").unwrap();
    fs::write(from.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    for content in ["config", "layer"] {
        let digest = strongroom::Digest::of(strongroom::Algorithm::Sha256, content.as_bytes());
        fs::write(blobs.join(digest.hex()), content).unwrap();
    }
    ok(&data, &["init"]);
    ok(&data, &["import", from.to_str().unwrap(), "--name", "image"]);
    ok(&data, &["export", "image", to.to_str().unwrap()]);
    assert_alike(&from, &to);
    fs::write(blobs.join("ab".repeat(32)), "another").unwrap();
    assert_eq!(code(&data, &["import", from.to_str().unwrap(), "--name", "another"]), 4);
}

#[test]
fn damage_is_told_by_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("file"));
    ok(&data, &["init"]);
    fs::write(&file, vec![7; 5 << 20]).unwrap();
    let digest = ok(&data, &["put", file.to_str().unwrap()]).split_whitespace().next().unwrap().to_owned();
    let shard = data.join("segments/0000000000");
    let segment = fs::read_dir(&shard).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&segment, bytes).unwrap();
    assert_eq!(code(&data, &["verify"]), 4);
    assert_eq!(code(&data, &["cat", &digest]), 4);
    assert_eq!(code(&data, &["get", &digest, dir.path().join("out").to_str().unwrap()]), 4);
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_scrub_flags_damage_and_a_push_brings_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("file"));
    ok(&data, &["init"]);
    fs::write(&file, vec![7; 5 << 20]).unwrap();
    let path = file.to_str().unwrap();
    let digest = ok(&data, &["put", path, "--pin", "it"]).split_whitespace().next().unwrap().to_owned();
    assert!(ok(&data, &["scrub"]).contains("all sound"));
    let report = &rows(&data, &["scrub", "--rate", "2000M", "--restart"])[0];
    assert_eq!((&report["complete"], &report["blobs"], &report["damaged_blobs"]), (&true.into(), &1.into(), &0.into()));
    refused(&data, &["scrub", "--rate", "fast"], 2, &["try 50M"]);
    refused(&data, &["scrub", "--rate", "0"], 2, &["try 50M"]);

    let shard = data.join("segments/0000000000");
    let segment = fs::read_dir(&shard).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let output = strongroom(&data, &["scrub"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(told.contains(&digest) && told.contains("pin it") && told.contains("damage found"), "{told}");
    let output = strongroom(&data, &["--json", "scrub"]);
    let report: serde_json::Value =
        serde_json::from_str(String::from_utf8(output.stdout).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!((&report["damaged"][0]["digest"], &report["damaged"][0]["pins"][0]), (&digest.into(), &"it".into()));
    assert_eq!(code(&data, &["fsck"]), 4);
    assert_eq!(code(&data, &["fsck", "--repair"]), 4, "content comes from who has it");

    ok(&data, &["put", path]);
    assert!(ok(&data, &["scrub"]).contains("all sound"));
    assert!(ok(&data, &["fsck"]).contains("all sound"));
    let repaired = ok(&data, &["fsck", "--repair"]);
    assert!(repaired.contains("0 facts mended") && repaired.contains("all sound"), "{repaired}");
    assert_eq!(rows(&data, &["fsck", "--repair"])[0]["left"]["complete"], true);
}

#[test]
fn a_store_that_does_not_open_is_checked_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("file"));
    assert_eq!(code(&data, &["fsck"]), 3, "there is none");
    ok(&data, &["init"]);
    fs::write(&file, "content").unwrap();
    ok(&data, &["put", file.to_str().unwrap()]);
    let list = data.join("runs/LIST");
    let sound = fs::read(&list).unwrap();
    let mut bytes = sound.clone();
    bytes[40] ^= 1;
    fs::write(&list, bytes).unwrap();
    refused(&data, &["fsck"], 4, &["can't be opened", "LIST", "backup"]);
    refused(&data, &["fsck", "--repair"], 4, &["can't be opened", "LIST"]);
    fs::write(&list, sound).unwrap();
    ok(&data, &["fsck"]);
}

#[test]
fn a_store_with_a_damaged_log_is_salvaged_and_what_may_be_missing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    ok(&data, &["init"]);
    let files = ["first", "second", "third"].map(|name| {
        fs::write(dir.path().join(name), name).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    });
    let [first, second, third] = &files;
    let put = ok(&data, &["put", first, second, third]);
    let digests: Vec<&str> = put.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(ok(&data, &["fsck", "--salvage"]).contains("nothing to salvage"));
    assert_eq!(rows(&data, &["fsck", "--salvage"])[0]["needed"], false);
    let log = fs::read_dir(data.join("log/0000000000")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&log).unwrap();
    let at = bytes.windows(6).position(|bytes| bytes == b"second").unwrap();
    bytes[at + 30] ^= 1;
    fs::write(&log, bytes).unwrap();

    refused(&data, &["fsck"], 4, &["can't be opened", ".log", "fsck --salvage --dry-run"]);
    refused(&data, &["fsck", "--salvage", "--repair"], 2, &["cannot be used with"]);
    refused(&data, &["fsck", "--dry-run"], 2, &["--salvage"]);
    let told = String::from_utf8(strongroom(&data, &["fsck", "--salvage", "--dry-run"]).stdout).unwrap();
    for what in ["nothing was done", ".log is damaged", "kept       commits up to 1", "may be missing", digests[2]] {
        assert!(told.contains(what), "{what}: {told}");
    }
    refused(&data, &["ls"], 4, &[".log"]);
    let report = &rows(&data, &["fsck", "--salvage"])[0];
    assert_eq!((&report["kept"], &report["unread"][0][0]), (&1.into(), &2.into()), "{report}");
    assert!(fs::read_dir(report["copies"].as_str().unwrap()).unwrap().count() >= 2);
    assert!(ok(&data, &["fsck"]).contains("all sound"));
    assert_eq!(ok(&data, &["ls", "--blobs"]).lines().count(), 3, "content of the others is kept");
}

#[test]
fn names_of_others_have_no_power_over_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(format!("{name}\u{1b}[2J\u{202e}"));
    let (data, file, key) = (path("data"), path("file"), path("key"));
    let [file, key] = [&file, &key].map(|path| path.to_str().unwrap());
    fs::write(file, "content").unwrap();
    let printed = |arguments: &[&str]| {
        let output = strongroom(&data, arguments);
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(printed.contains(r"\u{1b}[2J\u{202e}"), "{arguments:?}: {printed:?}");
        assert!(!printed.contains(['\u{1b}', '\u{202e}']), "{arguments:?}: {printed:?}");
    };
    printed(&["ls"]);
    ok(&data, &["init"]);
    printed(&["init", "--encrypt", "--key-file", key]);
    printed(&["put", file, "/nowhere"]);
    printed(&["ls", "--key-file", key]);
    fs::write(key, "no key").unwrap();
    printed(&["ls", "--key-file", key]);
    fs::remove_file(data.join("runs/LIST")).unwrap();
    printed(&["ls"]);
    printed(&["fsck"]);
}

#[test]
fn a_link_in_the_place_of_a_file_of_the_store_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file, outside) = (dir.path().join("data"), dir.path().join("file"), dir.path().join("outside"));
    ok(&data, &["init"]);
    fs::write(&file, vec![7; 5 << 20]).unwrap();
    ok(&data, &["put", file.to_str().unwrap(), "--pin", "it"]);
    let segment = fs::read_dir(data.join("segments/0000000000")).unwrap().next().unwrap().unwrap().path();
    for path in [data.join("FORMAT"), data.join("LOCK"), data.join("runs/LIST"), segment] {
        fs::rename(&path, &outside).unwrap();
        symlink(&outside, &path).unwrap();
        // What only reads takes no lock.
        let arguments = if path.ends_with("LOCK") { ["put", file.to_str().unwrap()] } else { ["cat", "it"] };
        let output = strongroom(&data, &arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains(path.to_str().unwrap()) && told.contains("link"), "{told}");
        fs::rename(&outside, &path).unwrap();
        ok(&data, &["cat", "it"]);
    }
    // The directory itself may be reached through one.
    symlink(&data, &outside).unwrap();
    ok(&outside, &["cat", "it"]);
    fs::remove_file(data.join("LOCK")).unwrap();
    symlink(dir.path().join("new"), data.join("LOCK")).unwrap();
    refused(&data, &["put", file.to_str().unwrap()], 1, &["LOCK"]);
    assert!(!dir.path().join("new").exists());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    ok(&data, &["init"]);
    let files: Vec<String> = (0..2000).map(|n| dir.path().join(n.to_string()).to_str().unwrap().to_owned()).collect();
    files.iter().for_each(|file| fs::write(file, file).unwrap());
    let arguments: Vec<&str> = std::iter::once("put").chain(files.iter().map(String::as_str)).collect();
    let mut child = command(&data, &arguments).stderr(Stdio::inherit()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(ok(&data, &["stat"]).contains("2000"), "all were stored");

    fs::write(&files[0], vec![7; 5 << 20]).unwrap();
    ok(&data, &["put", &files[0], "--pin", "long"]);
    let mut child = command(&data, &["cat", "long"]).stderr(Stdio::inherit()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 1000]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_a_name_stands_for_is_replaced_only_when_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (data, from, file) = (dir.path().join("data"), dir.path().join("from"), dir.path().join("file"));
    fs::create_dir(&from).unwrap();
    ok(&data, &["init"]);
    let [from, file] = [&from, &file].map(|path| path.to_str().unwrap());
    let put = |content: &str, more: &[&str]| {
        fs::write(file, content).unwrap();
        let printed = ok(&data, &[&["put", file], more].concat());
        printed.split_whitespace().next().unwrap().to_owned()
    };
    let (first, other) = (put("first", &["--pin", "f"]), put("other", &[]));
    for arguments in [
        &["pin", "f", &other][..],
        &["put", file, "--pin", "f"],
        &["import", from, "--name", "f"],
        // Nothing is read before the name was looked at.
        &["put", "/nowhere", "--pin", "f"],
        &["import", "/nowhere", "--name", "f"],
    ] {
        refused(&data, arguments, 1, &["already", "--replace", &first]);
    }
    assert_eq!(ok(&data, &["cat", "f"]), "first");

    let replaced = |arguments: &[&str]| rows(&data, arguments)[0]["replaced"].clone();
    assert_eq!(replaced(&["pin", "f", &other, "--replace"]), first);
    assert_eq!(replaced(&["put", file, "--pin", "f", "--replace"]), other);
    assert!(ok(&data, &["pin", "f", &first, "--replace"]).contains(&other));
    assert!(ok(&data, &["put", file, "--pin", "f", "--replace"]).contains(&first));
    assert_eq!(replaced(&["import", from, "--name", "f", "--replace"]), other);
    assert!(ok(&data, &["import", from, "--name", "f", "--replace"]).contains("replaced sha256:"));
    assert_eq!(replaced(&["import", from, "--name", "new", "--replace"]), serde_json::Value::Null);
    assert_eq!(replaced(&["put", file]), serde_json::Value::Null);
    assert_eq!(code(&data, &["put", file, "--replace"]), 2, "there is nothing to replace");
    for pin in ["f", "another"] {
        refused(&data, &["put", file, file, "--pin", pin], 2, &["one file"]);
    }
}

#[test]
fn a_full_standard_error_changes_no_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let (data, key) = (dir.path().join("data"), dir.path().join("key"));
    let code = |arguments: &[&str]| {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        command(&data, arguments).stderr(full).status().unwrap().code()
    };
    assert_eq!(code(&["init", "--encrypt", "--key-file", key.to_str().unwrap()]), Some(0), "it tells of the new key");
    assert_eq!(code(&["ls"]), Some(7));
    assert_eq!(code(&["cat", "nothing", "--key-file", key.to_str().unwrap()]), Some(3));
    assert_eq!(code(&["get", "nothing", "out", "--key-file", key.to_str().unwrap()]), Some(3));
    assert_eq!(code(&["no-command"]), Some(2));
}

#[test]
fn a_full_disk_is_told_by_the_exit_code_whichever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file, out) = (dir.path().join("data"), dir.path().join("file"), dir.path().join("out"));
    ok(&data, &["init"]);
    fs::write(&file, vec![7; 100_000]).unwrap();
    ok(&data, &["put", file.to_str().unwrap(), "--pin", "it"]);
    let to_full = |arguments: &[&str]| {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        command(&data, arguments).stdout(full).status().unwrap().code()
    };
    for arguments in [&["cat", "it"][..], &["ls"], &["--json", "stat"]] {
        assert_eq!(to_full(arguments), Some(5), "{arguments:?}");
    }
    let output = ends(&limited("-f 20", &data, &["get", "it", out.to_str().unwrap()]));
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!out.exists());
}

/// A command with a key.
fn with<'a>(key: &[&'a str], arguments: &[&'a str]) -> Vec<&'a str> {
    [key, arguments].concat()
}

/// What is looked for in the files of encrypted stores.
const SECRET: &[u8] = b"attack at dawn, by the old mill";

/// Whether any file below a directory has these bytes.
fn is_on_disk(dir: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => is_on_disk(&path, bytes),
        false => fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes),
    })
}

/// Stores the secret in a small blob and in a large one, with a pin that is called by it too; returns their digests.
fn put_secrets(dir: &Path, data: &Path, key: &[&str]) -> [String; 2] {
    let large = SECRET.repeat((5 << 20) / SECRET.len());
    [SECRET, &large].map(|content| {
        let file = dir.join("file");
        fs::write(&file, content).unwrap();
        let name = String::from_utf8(SECRET.to_vec()).unwrap();
        let put = ok(data, &[key, &["put", file.to_str().unwrap(), "--pin", &name, "--replace"]].concat());
        put.split_whitespace().next().unwrap().to_owned()
    })
}

fn with_input(data: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(data, arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn an_encrypted_store_opens_with_its_key_and_says_what_is_missing_without() {
    let dir = tempfile::tempdir().unwrap();
    let (data, key, other) = (dir.path().join("data"), dir.path().join("key"), dir.path().join("other"));
    let (key, other) = (key.to_str().unwrap(), other.to_str().unwrap());
    refused(&data, &["init", "--encrypt"], 2, &["--key-file", "--passphrase-file"]);
    refused(&data, &["init", "--key-file", key], 2, &["--encrypt"]);
    refused(&data, &["--passphrase", "init", "--encrypt", "--key-file", key], 2, &["one of"]);
    assert!(!data.exists() && !Path::new(key).exists());

    let made = strongroom(&data, &["init", "--encrypt", "--key-file", key]);
    assert!(made.status.success());
    assert!(String::from_utf8(made.stderr).unwrap().contains("Keep a copy of it elsewhere"));
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    refused(&data, &["init", "--encrypt", "--key-file", key], 1, &["is a store already"]);
    refused(&data, &["init"], 1, &["is a store already"]);

    let digests = put_secrets(dir.path(), &data, &["--key-file", key]);
    assert_eq!(ok(&data, &["cat", &digests[0], "--key-file", key]).as_bytes(), SECRET);
    assert_eq!(ok(&data, &["--key-file", key, "cat", &digests[1]]).len(), (5 << 20) / SECRET.len() * SECRET.len());
    let hex = fs::read_to_string(key).unwrap();
    let mut verify = command(&data, &["verify", "--key-env", "STORE_KEY"]);
    assert!(verify.env("STORE_KEY", hex.trim()).status().unwrap().success());
    assert!(!is_on_disk(&data, SECRET));

    refused(&data, &["cat", &digests[0]], 7, &["is encrypted", "--key-file"]);
    refused(&data, &["ls", "--key-file", other], 7, &[other]);
    fs::write(other, "1".repeat(64)).unwrap();
    refused(&data, &["ls", "--key-file", other], 7, &["another key", "--key-file"]);
    fs::write(other, "a word\n").unwrap();
    refused(&data, &["ls", "--key-file", other], 7, &["64 hex digits"]);
    refused(&data, &["ls", "--passphrase-file", other], 7, &["another key", "--key-file"]);
    refused(&data, &["ls", "--key-env", "NOT_SET"], 7, &["NOT_SET"]);

    let plain = dir.path().join("plain");
    ok(&plain, &["init"]);
    refused(&plain, &["ls", "--key-file", key], 7, &["not encrypted", "strongroom encrypt"]);
    refused(&plain, &["key", "list"], 1, &["strongroom encrypt"]);
    refused(&plain, &["domain", "create", "tenant"], 1, &["strongroom encrypt"]);
    let inside = plain.join("key");
    refused(&plain, &["encrypt", "--key-file", inside.to_str().unwrap()], 1, &["outside of the store"]);
    assert!(!inside.exists());
}

#[test]
fn data_keys_are_rotated_and_wrapped_by_another_key_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (data, key, words) = (dir.path().join("data"), dir.path().join("key"), dir.path().join("words"));
    let (key, words) = (key.to_str().unwrap(), words.to_str().unwrap());
    ok(&data, &["init", "--encrypt", "--key-file", key]);
    let digests = put_secrets(dir.path(), &data, &["--key-file", key]);

    ok(&data, &["key", "rotate", "--key-file", key]);
    let listed = rows(&data, &["key", "list", "--key-file", key]);
    assert_eq!((listed.len(), &listed[0]["rewritten"]), (1, &false.into()));
    assert_eq!(listed[0]["keys"].as_array().unwrap().len(), 2);
    assert!(ok(&data, &["key", "list", "--key-file", key]).contains("strongroom key rewrite"));
    ok(&data, &["key", "rewrite", "--key-file", key]);
    let report = &rows(&data, &["key", "rotate", "--rewrite", "--key-file", key])[0];
    assert_eq!((&report["blobs"], &report["complete"]), (&2.into(), &true.into()));
    let listed = rows(&data, &["key", "list", "--key-file", key]);
    assert_eq!((listed[0]["keys"].as_array().unwrap().len(), &listed[0]["rewritten"]), (1, &true.into()));
    assert_eq!(listed[0]["keys"][0]["key"], 3);

    // To a passphrase …
    fs::write(words, "tidal canoe verb ochre plank mimic\n").unwrap();
    refused(&data, &["key", "rewrap", "--key-file", key], 2, &["--new-key-file"]);
    ok(&data, &["key", "rewrap", "--key-file", key, "--new-passphrase-file", words]);
    refused(&data, &["ls", "--key-file", key], 7, &["another key", "--passphrase"]);
    let typed = with_input(&data, &["cat", &digests[0], "--passphrase"], b"tidal canoe verb ochre plank mimic\n");
    assert_eq!(typed.stdout, SECRET);
    let wrong = with_input(&data, &["cat", &digests[0], "--passphrase"], b"tidal canoe\n");
    assert_eq!((wrong.status.code(), wrong.stdout), (Some(7), vec![]));
    // What comes behind the line is the content.
    let put = with_input(&data, &["put", "-", "--passphrase"], b"tidal canoe verb ochre plank mimic\nthe content");
    let digest = strongroom::Digest::of(strongroom::Algorithm::Sha256, b"the content").to_string();
    assert!(String::from_utf8(put.stdout).unwrap().contains(&digest));

    // … and to a new key file, and to the first one.
    let new = dir.path().join("new");
    let new = new.to_str().unwrap();
    ok(&data, &["key", "rewrap", "--passphrase-file", words, "--new-key-file", new]);
    ok(&data, &["key", "rewrap", "--key-file", new, "--new-key-file", key]);
    refused(&data, &["ls", "--key-file", new], 7, &["another key"]);
    refused(&data, &["ls", "--passphrase-file", words], 7, &["another key"]);
    assert!(ok(&data, &["verify", "--key-file", key]).contains("all sound"));
    assert_eq!(ok(&data, &["cat", &digests[0], "--key-file", key]).as_bytes(), SECRET);
    assert!(!is_on_disk(&data, SECRET) && !is_on_disk(&data, b"tidal canoe"));
    fs::write(words, "two\nlines\n").unwrap();
    refused(&data, &["ls", "--passphrase-file", words], 1, &["one line"]);
}

#[test]
fn a_key_domain_is_created_listed_and_shredded_only_with_a_yes() {
    let dir = tempfile::tempdir().unwrap();
    let (data, key) = (dir.path().join("data"), dir.path().join("key"));
    let key = ["--key-file", key.to_str().unwrap()];
    ok(&data, &with(&key, &["init", "--encrypt"]));
    let digests = put_secrets(dir.path(), &data, &key);
    ok(&data, &with(&key, &["domain", "create", "tenant"]));
    refused(&data, &with(&key, &["domain", "create", "tenant"]), 1, &["already"]);
    refused(&data, &with(&key, &["domain", "create", "no/name"]), 2, &["no/name"]);
    refused(&data, &with(&key, &["domain", "create", "b", "--key-id", "local:0"]), 7, &["another key"]);
    ok(&data, &with(&key, &["key", "rotate", "--domain", "tenant", "--rewrite"]));
    let listed = rows(&data, &with(&key, &["domain", "list"]));
    let names: Vec<_> = listed.iter().map(|row| (&row["name"], &row["key"])).collect();
    assert_eq!(names, [(&serde_json::Value::Null, &1.into()), (&"tenant".into(), &2.into())]);

    refused(&data, &with(&key, &["domain", "shred", "tenant"]), 2, &["for good", "--yes"]);
    refused(&data, &with(&key, &["domain", "shred", "another", "--yes"]), 3, &["another"]);
    ok(&data, &with(&key, &["domain", "shred", "tenant", "--yes"]));
    assert_eq!(rows(&data, &with(&key, &["domain", "list"])).len(), 1);
    assert_eq!(rows(&data, &with(&key, &["key", "list"])).len(), 1);
    refused(&data, &with(&key, &["domain", "shred", "tenant", "--yes"]), 3, &["tenant"]);
    assert_eq!(ok(&data, &with(&key, &["cat", &digests[0]])).as_bytes(), SECRET);
}

#[test]
fn a_store_that_is_there_is_encrypted_and_goes_on_with_it_where_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, key) = (dir.path().join("data"), dir.path().join("key"));
    let key = ["--key-file", key.to_str().unwrap()];
    ok(&data, &["init"]);
    let digests = put_secrets(dir.path(), &data, &[]);
    assert!(is_on_disk(&data, SECRET));
    refused(&data, &["encrypt"], 2, &["--key-file"]);
    refused(&data, &["encrypt", "--passphrase-file", "/nowhere"], 1, &["/nowhere"]);
    ok(&data, &["ls"]);

    // As a kill after the first step leaves it.
    let store = strongroom::Store::open(&data).unwrap();
    store.encrypt(Arc::new(strongroom::keys::LocalKey::create_file(key[1]).unwrap())).unwrap();
    drop(store);
    refused(&data, &["ls"], 7, &["is encrypted"]);
    assert!(ok(&data, &with(&key, &["key", "list"])).contains("not encrypted"));
    assert_eq!(rows(&data, &with(&key, &["key", "list"]))[0]["rewritten"], false);
    assert!(is_on_disk(&data, SECRET));

    let report = &rows(&data, &with(&key, &["encrypt"]))[0];
    assert_eq!((&report["blobs"], &report["complete"]), (&2.into(), &true.into()));
    assert_eq!(rows(&data, &with(&key, &["key", "list"]))[0]["rewritten"], true);
    assert!(!is_on_disk(&data, SECRET));
    assert!(ok(&data, &with(&key, &["verify"])).contains("all sound"));
    assert_eq!(ok(&data, &with(&key, &["cat", &digests[0]])).as_bytes(), SECRET);
    assert!(ok(&data, &with(&key, &["ls"])).contains(std::str::from_utf8(SECRET).unwrap()));
    // Again: there is nothing left to do.
    assert_eq!(rows(&data, &with(&key, &["encrypt"]))[0]["blobs"], 0);

    let fresh = dir.path().join("fresh");
    ok(&fresh, &["init"]);
    let digests = put_secrets(dir.path(), &fresh, &[]);
    ok(&fresh, &with(&key, &["encrypt"]));
    assert!(!is_on_disk(&fresh, SECRET));
    assert_eq!(ok(&fresh, &with(&key, &["cat", &digests[0]])).as_bytes(), SECRET);
}
