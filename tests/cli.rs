//! The command line, as a user meets it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn strongroom(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.arg("--data").arg(data).args(arguments).output().unwrap()
}

/// Runs a command that has to succeed, and returns what it printed.
fn ok(data: &Path, arguments: &[&str]) -> String {
    let output = strongroom(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn code(data: &Path, arguments: &[&str]) -> i32 {
    strongroom(data, arguments).status.code().unwrap()
}

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
fn a_folder_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (data, from, to) = (dir.path().join("data"), dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("sub/empty")).unwrap();
    fs::write(from.join("a"), "same").unwrap();
    fs::write(from.join("sub/b"), "same").unwrap();
    fs::write(from.join("sub/große"), vec![7; 5 << 20]).unwrap();
    fs::write(from.join("nothing"), "").unwrap();
    std::os::unix::fs::symlink("../a", from.join("sub/link")).unwrap();
    fs::set_permissions(from.join("a"), fs::Permissions::from_mode(0o750)).unwrap();
    ok(&data, &["init"]);
    let report: serde_json::Value =
        serde_json::from_str(&ok(&data, &["--json", "import", from.to_str().unwrap(), "--name", "f"])).unwrap();
    assert_eq!(report["files"], 4);
    ok(&data, &["export", "f", to.to_str().unwrap()]);
    let diff = Command::new("diff").args(["-r", "--no-dereference"]).arg(&from).arg(&to).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
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
    let diff = Command::new("diff").arg("-r").arg(&from).arg(&to).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    fs::write(blobs.join("ab".repeat(32)), "another").unwrap();
    assert_eq!(code(&data, &["import", from.to_str().unwrap(), "--name", "image"]), 4);
}

#[test]
fn a_document_that_leads_out_of_the_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file, to) = (dir.path().join("data"), dir.path().join("file"), dir.path().join("to"));
    ok(&data, &["init"]);
    for entries in [
        r#"[{"path":"../evil","mode":420,"type":"dir"}]"#,
        r#"[{"path":"/evil","mode":420,"type":"dir"}]"#,
        r#"[{"path":"l","mode":511,"type":"link","target":"/tmp"},{"path":"l/evil","mode":420,"type":"dir"}]"#,
    ] {
        fs::write(&file, format!(r#"{{"strongroom":"folder","entries":{entries}}}"#)).unwrap();
        ok(&data, &["put", file.to_str().unwrap(), "--pin", "evil"]);
        assert_eq!(code(&data, &["export", "evil", to.to_str().unwrap()]), 1);
        fs::remove_dir_all(&to).unwrap();
    }
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
fn a_reader_that_has_seen_enough_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    ok(&data, &["init"]);
    let files: Vec<String> = (0..2000).map(|n| dir.path().join(n.to_string()).to_str().unwrap().to_owned()).collect();
    files.iter().for_each(|file| fs::write(file, file).unwrap());
    let arguments: Vec<&str> = std::iter::once("put").chain(files.iter().map(String::as_str)).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    let mut child = command.arg("--data").arg(&data).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(ok(&data, &["stat"]).contains("2000"), "all were stored");
}
