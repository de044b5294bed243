//! Import stores what is in its folder, and nothing else: no link is followed, and nothing makes it hang.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::lab::{Lab, skip, while_swapped};
use crate::command::{assert_alike, command, ends, refused};

/// Makes a pipe.
pub fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// The report of an import that ends.
pub fn import(lab: &Lab, more: &[&str]) -> Value {
    let output = ends(&command(&lab.data, &[&["--json", "import", &lab.text("from")], more].concat()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The names of what was left out.
pub fn left_out(report: &Value) -> Vec<&str> {
    report["left_out"].as_array().unwrap().iter().map(|left| left["path"].as_str().unwrap()).collect()
}

#[test]
fn what_is_no_file_directory_or_link_is_left_out_and_told() {
    let lab = Lab::new();
    let from = lab.path("from");
    fs::create_dir_all(from.join("d")).unwrap();
    fs::write(from.join("d/file"), "content").unwrap();
    symlink(lab.outside.join("secret"), from.join("link")).unwrap();
    pipe(&from.join("d/pipe\n"));
    let _socket = UnixListener::bind(from.join("socket")).unwrap();
    let mut expected = vec!["d/pipe\n", "socket"];
    match Command::new("mknod").arg(from.join("device")).args(["c", "1", "5"]).status() {
        Ok(status) if status.success() => expected.push("device"),
        _ => drop(skip::<()>("no device can be made here")),
    }
    let report = import(&lab, &[]);
    let mut named = left_out(&report);
    named.sort_unstable();
    expected.sort_unstable();
    assert_eq!(named, expected);
    assert_eq!((&report["files"], &report["left_out_count"]), (&1.into(), &expected.len().into()));
    let told = lab.ok(&["import", &lab.text("from"), "--name", "again"]);
    assert!(told.contains(r"left out: d/pipe\n: neither a file"), "{told}");

    assert_eq!(lab.export("from"), 0);
    assert_eq!(fs::read_link(lab.path("to/link")).unwrap(), lab.outside.join("secret"));
    expected.iter().for_each(|name| fs::remove_file(from.join(name)).unwrap());
    assert_alike(&from, &lab.path("to"));
    lab.assert_outside_is_untouched();
}

#[test]
fn of_much_that_is_left_out_a_thousand_names_are_told() {
    let lab = Lab::new();
    let from = lab.path("from");
    fs::create_dir(&from).unwrap();
    let names: Vec<_> = (0..1200).map(|n| from.join(format!("pipe-{n}"))).collect();
    assert!(Command::new("mkfifo").args(&names).status().unwrap().success());
    let report = import(&lab, &[]);
    assert_eq!((left_out(&report).len(), &report["left_out_count"]), (1000, &1200.into()));
    let told = lab.ok(&["import", &lab.text("from"), "--name", "again"]);
    assert!(told.contains("left out: 200 more"), "{told}");
}

#[test]
fn links_that_another_process_puts_into_the_folder_are_not_followed() {
    let lab = Lab::new();
    for dir in 0..50 {
        let dir = lab.path(&format!("from/{dir}"));
        fs::create_dir_all(dir.join("dir")).unwrap();
        fs::write(dir.join("secret"), "known").unwrap();
        fs::write(dir.join("dir/secret"), "known").unwrap();
    }
    while_swapped(&lab.path("from"), &lab.outside, || {
        for round in 0..40 {
            import(&lab, &["--name", &round.to_string()]);
        }
    });
    lab.assert_outside_is_untouched();
}

#[test]
fn a_file_that_grows_is_stored_as_long_as_it_was_when_it_was_opened() {
    const LEN: u64 = 64 << 20;
    let lab = Lab::new();
    fs::create_dir(lab.path("from")).unwrap();
    let file = File::create(lab.path("from/file")).unwrap();
    file.set_len(LEN).unwrap();
    let mut import = command(&lab.data, &["--json", "import", &lab.text("from")]);
    let mut child = import.spawn().unwrap();
    let descriptors = format!("/proc/{}/fd", child.id());
    let is_opened = || {
        let open = fs::read_dir(&descriptors).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == lab.path("from/file"))
    };
    while !is_opened() {
        assert!(child.try_wait().unwrap().is_none(), "it was over before it was seen");
    }
    file.set_len(1 << 42).unwrap();
    file.write_at(b"more", LEN).unwrap();
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if std::time::Instant::now() > limit {
            child.kill().unwrap();
            panic!("the import never ends");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let report: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!((&report["files"], &report["bytes_in"]), (&1.into(), &LEN.into()));
    let document: Value = serde_json::from_str(&lab.ok(&["cat", "from"])).unwrap();
    assert_eq!(document["entries"][0]["bytes"], LEN);
}

#[test]
fn a_file_for_which_there_is_no_space_is_refused_before_anything_is_stored() {
    let lab = Lab::new();
    fs::create_dir(lab.path("from")).unwrap();
    fs::write(lab.path("from/small"), "content").unwrap();
    File::create(lab.path("from/large\n")).unwrap().set_len(12 << 40).unwrap();
    let [from, small, large] = ["from", "from/small", "from/large\n"].map(|name| lab.text(name));
    for arguments in [&["import", &from][..], &["put", &small, &large]] {
        let output = ends(&command(&lab.data, arguments));
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(5), "{told}");
        let words = [r"large\n has 12.00 TiB", "free some space", lab.data.to_str().unwrap()];
        words.iter().for_each(|word| assert!(told.contains(word), "{told:?} has no {word:?}"));
        assert_eq!((lab.ok(&["ls", "--blobs"]), lab.ok(&["ls"])), (String::new(), String::new()));
    }
    // A hole of a length that there is space for is a file like any other.
    File::options().write(true).open(large).unwrap().set_len(64 << 20).unwrap();
    assert_eq!(import(&lab, &[])["bytes_in"], (64 << 20) + "content".len());
}

/// Takes a lease of a file that nobody else has open, or gives it up, or says which one there is or is to be soon.
fn lease(file: &File, command: i32, kind: i32) -> i32 {
    #[expect(unsafe_code, reason = "neither std nor rustix has leases")]
    // SAFETY: the descriptor is open, and the calls touch no memory. Without the first, whoever breaks the lease has
    // this process ended by a signal.
    unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
        libc::fcntl(file.as_raw_fd(), command, kind)
    }
}

#[test]
fn a_lease_of_a_file_is_waited_for_and_told_where_it_stays() {
    let lab = Lab::new();
    let from = lab.path("from");
    fs::create_dir(&from).unwrap();
    let files = ["given-up", "kept"].map(|name| File::create(from.join(name)).unwrap());
    fs::write(from.join("other"), "content").unwrap();
    if files.iter().any(|file| lease(file, libc::F_SETLEASE, libc::F_WRLCK) != 0) {
        skip::<()>("there are no leases here");
        return;
    }
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while lease(&files[0], libc::F_GETLEASE, 0) == libc::F_WRLCK {
                std::thread::yield_now(); // until somebody wants to open it
            }
            assert_eq!(lease(&files[0], libc::F_SETLEASE, libc::F_UNLCK), 0);
        });
        import(&lab, &[])
    });
    assert_eq!((&report["files"], left_out(&report)), (&2.into(), vec!["kept"]));
    assert_eq!(report["left_out"][0]["why"], "held by a lease of another process");
}

#[test]
fn a_file_whose_reading_fails_is_named() {
    // A folder of the kernel's with files that can be opened and fail when they are read.
    let from = "/sys/devices/virtual/net/lo";
    if !Path::new(from).join("speed").exists() || fs::read(format!("{from}/speed")).is_ok() {
        skip::<()>("there is no such file here");
        return;
    }
    refused(&Lab::new().data, &["import", from, "--name", "name"], 1, &[&format!("{from}/")]);
}

#[test]
fn names_of_any_bytes_come_back() {
    use std::os::unix::ffi::OsStrExt as _;
    let lab = Lab::new();
    let from = lab.path("from");
    fs::create_dir(&from).unwrap();
    for name in [&b"a\xff"[..], b"x\ny", b"-rf", b"\"\\", b"...", "gro\u{df}".as_bytes(), &[b'n'; 255]] {
        let name = std::ffi::OsStr::from_bytes(name);
        File::create(from.join(name)).unwrap().write_all(name.as_bytes()).unwrap();
        symlink(name, from.join("link")).unwrap();
        fs::rename(from.join("link"), from.join(format!("link-{}", name.len()))).unwrap();
    }
    assert_eq!(import(&lab, &[])["left_out_count"], 0);
    assert_eq!(lab.export("from"), 0);
    assert_alike(&from, &lab.path("to"));
}
