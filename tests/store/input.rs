//! Bad input and bad surroundings: each is a clear error, and loses nothing.

use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::vfs::{OpenMode, SimVfs};
use strongroom::{
    Algorithm, Clock, Damage, Digest, Durability, Error, Maintenance, Options, PutNamed, ReadMode, Store,
};

use crate::common::copy;
use crate::common::file_names;
use crate::common::watched::Watched;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new().create(true).open(dir.path().join("store")).unwrap();
    (dir, store)
}

#[test]
fn content_unlike_its_digest_is_refused_and_nothing_stored() {
    let (_dir, store) = store();
    for len in [10, 6 << 20] {
        let content = vec![1; len];
        let [own, other] = [&content[..], b"other"].map(|content| Digest::of(Algorithm::Sha256, content));
        for error in [store.put(&content, other).unwrap_err(), store.put_reader(&content[..], other).unwrap_err()] {
            let Error::DigestMismatch { expected, found } = error else { panic!("{error}") };
            assert_eq!((expected, found), (other, own));
        }
        assert_eq!(store.blobs().count(), 0);
        assert!(!store.exists(&own).unwrap());
    }
    assert_eq!(store.usage().unwrap().live_bytes, 0);
}

#[test]
fn content_that_is_the_digest_of_a_blob_does_not_take_its_place() {
    let (_dir, store) = store();
    let secret = store.put("somebody's", Algorithm::Sha512).unwrap().digest;
    let forged = store.put(secret.as_bytes(), Algorithm::Blake3).unwrap().digest;
    assert_eq!(store.get(&secret).unwrap().bytes().unwrap(), "somebody's");
    assert_eq!(store.get(&forged).unwrap().bytes().unwrap(), secret.as_bytes());
    assert_eq!(store.blobs().count(), 2);
}

#[test]
fn a_reader_that_fails_leaves_nothing_of_a_put_and_what_came_of_an_upload() {
    struct Failing(u64);
    impl Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.0.min(buf.len() as u64);
            self.0 -= n;
            match usize::try_from(n).unwrap() {
                0 => Err(io::Error::other("the client went away")),
                n => Ok(n),
            }
        }
    }
    let (_dir, store) = store();
    for len in [100, 9 << 20] {
        assert!(matches!(store.put_reader(Failing(len), Algorithm::Sha256), Err(Error::Source { .. })));
        let id = store.begin_upload(Algorithm::Sha256).unwrap();
        assert!(matches!(store.append_upload_from(id, 0, Failing(len)), Err(Error::Source { .. })));
        assert_eq!(store.upload_status(id).unwrap().offset, len);
        store.cancel_upload(id).unwrap();
    }
    assert_eq!(store.blobs().count(), 0);
}

#[test]
fn a_second_opening_is_told_that_the_store_is_in_use() {
    let (dir, store) = store();
    let path = dir.path().join("store");
    assert!(matches!(Store::open(&path), Err(Error::Locked { path: found }) if found == path));
    store.close().unwrap();
    Store::open(&path).unwrap();
}

/// Somebody takes `LOCK` for stale and removes it beside a running process.
#[test]
fn removing_the_lock_file_lets_no_second_writer_in() {
    let (dir, store) = store();
    let path = dir.path().join("store");
    for replace in [
        |lock: &Path| std::fs::remove_file(lock),
        |lock: &Path| {
            std::fs::write(lock.with_extension("new"), "")?;
            std::fs::rename(lock.with_extension("new"), lock)
        },
    ] {
        replace(&path.join("LOCK")).unwrap();
        assert!(matches!(Store::open(&path), Err(Error::Locked { path: found }) if found == path));
        store.probe().unwrap();
        std::fs::write(path.join("LOCK"), "").unwrap();
    }
    let kept = store.put("content", Algorithm::Sha256).unwrap().digest;
    store.close().unwrap();
    assert_eq!(Store::open(&path).unwrap().get(&kept).unwrap().bytes().unwrap(), "content");
}

/// Opening a pipe waits for somebody who writes to it.
#[test]
fn a_pipe_in_the_place_of_a_file_is_an_error_at_once() {
    for name in ["FORMAT", "LOCK", "runs/LIST", "runs", "segments"] {
        let (dir, store) = store();
        let path = dir.path().join("store");
        store.close().unwrap();
        std::fs::rename(path.join(name), dir.path().join("aside")).unwrap();
        assert!(Command::new("mkfifo").arg(path.join(name)).status().unwrap().success());
        let is_told = |opened: Result<Store, Error>| match opened {
            Err(Error::Io { .. } | Error::Corrupt { .. }) => {}
            other => panic!("{name}: {other:?}"),
        };
        is_told(Store::open(&path));
        if !matches!(name, "LOCK" | "segments") {
            is_told(Options::new().read_only(true).open(&path));
        }
    }
}

#[test]
fn opening_waits_for_the_lock_as_long_as_it_is_told_to() {
    let (dir, store) = store();
    let path = dir.path().join("store");
    let waiting = |time| Options::new().wait_for_lock(time).open(&path);
    let began = Instant::now();
    assert!(matches!(waiting(Duration::from_millis(30)), Err(Error::Locked { .. })));
    assert!(began.elapsed() >= Duration::from_millis(30), "it gave up early");
    assert!(matches!(Options::new().wait_for_lock(Duration::from_millis(5)).salvage(&path), Err(Error::Locked { .. })));
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| waiting(Duration::MAX));
        let stored = store.put("written meanwhile", Algorithm::Sha256).unwrap();
        store.close().unwrap();
        let next = opened.join().unwrap().unwrap();
        assert_eq!(next.get(&stored.digest).unwrap().bytes().unwrap(), "written meanwhile");
    });
}

#[test]
fn what_is_no_store_is_not_made_one_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::NotAStore { .. })));
    assert!(matches!(Store::open(dir.path().join("missing")), Err(Error::NotAStore { .. })));
    std::fs::write(dir.path().join("thesis.txt"), "important").unwrap();
    let refused = Options::new().create(true).open(dir.path());
    assert!(matches!(refused, Err(Error::NotEmpty { .. })), "{refused:?}");
}

#[test]
fn a_newer_format_is_refused_with_what_to_do() {
    let (dir, store) = store();
    store.close().unwrap();
    let path = dir.path().join("store/FORMAT");
    let mut format = std::fs::read(&path).unwrap();
    format[16] += 1;
    let newer = u32::from(format[16]);
    let crc = crc32c(&format[..124]);
    format[124..128].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, format).unwrap();
    let error = Store::open(dir.path().join("store")).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFormat { version, .. } if version == newer));
    assert!(error.to_string().contains("export"), "{error}");
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[test]
fn a_read_only_directory_is_an_error_with_the_path() {
    let disk = SimVfs::new();
    let options = || Options::new().create(true).vfs(Arc::new(disk.clone())).maintenance(Maintenance::Inline);
    options().open("/store").unwrap().close().unwrap();
    disk.set_read_only(true);
    let error = options().create(false).open("/store").unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.starts_with("/store")), "{error}");
    assert!(error.to_string().contains("permission denied"), "{error}");
}

#[test]
fn names_of_pins_are_checked() {
    let (_dir, store) = store();
    let digest = store.put("x", Algorithm::Sha256).unwrap().digest;
    for name in ["", "a\nb", "a\0", &"x".repeat(1025)] {
        assert!(matches!(store.named().set(name, &digest, PutNamed::new()), Err(Error::InvalidName { .. })));
    }
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    assert!(matches!(store.named().set("a", &missing, PutNamed::new()), Err(Error::BlobNotFound { .. })));
    let references = PutNamed::new().references([missing]);
    assert!(matches!(store.named().set("a", &digest, references), Err(Error::BlobNotFound { .. })));
    assert_eq!(store.stat(&digest).unwrap().references, 0);
    store.named().set("größe/ü", &digest, PutNamed::new()).unwrap();
    assert_eq!(file_names(&store).unwrap(), ["größe/ü"]);
}

#[test]
fn ranges_outside_of_a_blob_are_refused_and_those_inside_right() {
    for mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let dir = tempfile::tempdir().unwrap();
        let store = Options::new().create(true).read_mode(mode).inline_max(1000).open(dir.path().join("s")).unwrap();
        let content: Vec<u8> = (0..300_000u32).map(|i| i.to_le_bytes()[1]).collect();
        for len in [0usize, 1, 999, 65_536, 65_537, 300_000] {
            let content = &content[..len];
            let blob = store.get(&store.put(content, Algorithm::Sha256).unwrap().digest).unwrap();
            for (start, end) in [(0, len), (0, 0), (len, len), (len / 2, len), (len / 3, len / 2)] {
                assert_eq!(blob.slice(start as u64..end as u64).unwrap(), content[start..end]);
            }
            let end = len as u64 + 1;
            assert!(matches!(blob.slice(0..end), Err(Error::OutOfRange { .. })));
            assert!(matches!(blob.slice(end..end), Err(Error::OutOfRange { .. })));
            let mut read = Vec::new();
            blob.reader().read_to_end(&mut read).unwrap();
            assert!(read == content && blob.bytes_unverified().unwrap() == content);
            // The first may be what was read to verify it, the second is what is mapped.
            assert!((0..2).all(|_| *blob.view().unwrap() == *content));
        }
    }
}

#[test]
fn two_writers_of_one_blob_store_it_once() {
    let (_dir, store) = store();
    for len in [5000, 6 << 20] {
        let content = vec![9; len];
        let digests: Vec<_> = std::thread::scope(|scope| {
            let put = || store.put(&content, Algorithm::Sha256).unwrap().digest;
            let writers: Vec<_> = (0..8).map(|_| scope.spawn(put)).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
    }
    assert_eq!(store.blobs().count(), 2);
    assert_eq!(store.usage().unwrap().segments, 2);
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
}

#[test]
fn a_handle_stays_readable_when_its_blob_is_removed() {
    for mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let dir = tempfile::tempdir().unwrap();
        let store = Options::new().create(true).read_mode(mode).open(dir.path().join("s")).unwrap();
        for len in [100, 6 << 20] {
            let content = vec![3; len];
            let digest = store.put(&content, Algorithm::Blake3).unwrap().digest;
            let blob = store.get(&digest).unwrap();
            store.remove(&digest).unwrap();
            assert!(matches!(store.get(&digest), Err(Error::BlobNotFound { .. })));
            assert_eq!(blob.bytes().unwrap(), content);
        }
        let usage = store.usage().unwrap();
        assert_eq!(usage.live_bytes, 0);
    }
}

#[test]
fn pins_hold_until_they_expire_in_open_time() {
    let disk = SimVfs::new();
    let clock = Clock::manual();
    let open = || {
        let options = Options::new().create(true).vfs(Arc::new(disk.clone())).clock(clock.clone());
        options.maintenance(Maintenance::Inline).open("/store").unwrap()
    };
    let store = open();
    let digest = store.put("x", Algorithm::Sha256).unwrap().digest;
    store.named().set("brief", &digest, PutNamed::new().expires_after(Duration::from_secs(10))).unwrap();
    clock.advance(Duration::from_secs(6));
    assert_eq!(store.expire(Duration::MAX).unwrap().named, 0);
    assert!(matches!(store.remove(&digest), Err(Error::BlobInUse { count: 1, .. })));
    store.close().unwrap();
    let store = open();
    clock.advance(Duration::from_secs(5));
    let expired = store.expire(Duration::MAX).unwrap();
    assert_eq!((expired.named, expired.uploads), (1, 0));
    store.remove(&digest).unwrap();
}

#[test]
fn relaxed_commits_are_durable_after_a_sync_and_lost_as_a_suffix_otherwise() {
    for seed in 0..50 {
        let disk = SimVfs::new();
        let open = |disk: &SimVfs| {
            let options = Options::new().create(true).vfs(Arc::new(disk.clone())).durability(Durability::Relaxed);
            options.maintenance(Maintenance::Inline).log_file_size(1 << 16).open("/store").unwrap()
        };
        let store = open(&disk);
        let put = |n: u32| store.put(n.to_le_bytes(), Algorithm::Sha256).unwrap().digest;
        let synced: Vec<_> = (0..10).map(put).collect();
        store.sync().unwrap();
        let unsynced: Vec<_> = (10..20).map(put).collect();
        let store = open(&disk.power_cut(seed));
        assert!(synced.iter().all(|digest| store.exists(digest).unwrap()));
        let kept = store.exists_many(&unsynced).unwrap();
        assert!(kept.is_sorted_by(|before, after| before >= after), "{kept:?}");
    }
}

#[test]
fn an_upload_by_one_algorithm_can_end_by_another_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Options::new().create(true).open(dir.path().join("store")).unwrap();
    for len in [1000usize, 5 << 20] {
        let content: Vec<u8> = (0..len).map(|i| (i / 7).to_le_bytes()[0]).collect();
        for declared in [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3] {
            for wanted in [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3] {
                let store = open();
                let id = store.begin_upload(declared).unwrap();
                let half = (len / 2) as u64;
                store.append_upload(id, 0, &content[..len / 2]).unwrap();
                store.close().unwrap();
                let store = open();
                assert_eq!(store.upload_status(id).unwrap().offset, half);
                store.append_upload(id, half, &content[len / 2..]).unwrap();
                let wrong = Digest::of(wanted, b"wrong");
                assert!(matches!(store.commit_upload(id, wrong), Err(Error::DigestMismatch { .. })));
                let digest = Digest::of(wanted, &content);
                store.commit_upload(id, digest).unwrap();
                assert_eq!(store.get(&digest).unwrap().bytes().unwrap(), content);
                assert!(matches!(store.upload_status(id), Err(Error::UploadNotFound { .. })));
            }
        }
    }
    let store = open();
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
}

#[test]
fn everything_derived_may_vanish_or_be_of_another_day() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let names = path.join("names");
    let open = || Options::new().create(true).maintenance(Maintenance::Inline).open(&path).unwrap();
    let store = open();
    let digest = store.put("x", Algorithm::Sha256).unwrap().digest;
    store.named().set("first", &digest, PutNamed::new()).unwrap();
    store.close().unwrap();
    let old = dir.path().join("old");
    copy(&names, &old);
    let store = open();
    store.named().set("second", &digest, PutNamed::new()).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    let spoil: [&dyn Fn(); 4] = [
        &|| std::fs::remove_dir_all(&names).unwrap(),
        &|| {
            std::fs::remove_dir_all(&names).unwrap();
            copy(&old, &names);
        },
        &|| {
            for file in std::fs::read_dir(&names).unwrap().flatten().filter(|file| file.path().is_file()) {
                std::fs::write(file.path(), b"garbage").unwrap();
            }
        },
        &|| {},
    ];
    for (number, spoil) in spoil.iter().enumerate() {
        spoil();
        let store = open();
        assert_eq!(file_names(&store).unwrap(), ["first", "second"], "spoilt in way {number}");
        store.close().unwrap();
    }
}

#[test]
#[cfg(not(feature = "sled"))]
fn what_sled_has_left_is_removed_and_its_names_come_from_the_facts() {
    let dir = tempfile::tempdir().unwrap();
    let (path, names) = (dir.path().join("store"), dir.path().join("store/names"));
    let open = || Options::new().create(true).maintenance(Maintenance::Inline).open(&path).unwrap();
    let store = open();
    let digest = store.put("x", Algorithm::Sha256).unwrap().digest;
    store.named().set("first", &digest, PutNamed::new()).unwrap();
    store.close().unwrap();
    std::fs::write(names.join("db"), b"names in plain").unwrap();
    let store = open();
    assert_eq!(file_names(&store).unwrap(), ["first"]);
    assert_eq!(std::fs::read_dir(&names).unwrap().count(), 0);
}

#[test]
#[cfg(not(feature = "encryption"))]
fn without_encryption_no_store_becomes_an_encrypted_one() {
    use std::sync::Arc;

    use strongroom::keys::{KeyContext, KeyError, KeyProvider, SecretKey};

    #[derive(Debug)]
    struct InPlain;

    impl KeyProvider for InPlain {
        fn key_id(&self) -> Result<String, KeyError> {
            Ok("none".into())
        }

        fn wrap(&self, _: &str, key: &SecretKey, _: &KeyContext) -> Result<Vec<u8>, KeyError> {
            Ok(key.expose().to_vec())
        }

        fn unwrap(&self, _: &str, wrapped: &[u8], _: &KeyContext) -> Result<SecretKey, KeyError> {
            wrapped.try_into().map(SecretKey::from_bytes).map_err(|_| KeyError::Damaged)
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let create = || Options::new().create(true);
    let created = create().key_provider(Arc::new(InPlain)).open(dir.path());
    assert!(matches!(created, Err(Error::EncryptionLeftOut)), "{created:?}");
    let store = create().open(dir.path()).unwrap();
    assert!(matches!(store.encrypt(Arc::new(InPlain)), Err(Error::EncryptionLeftOut)));
    let digest = store.put("x", Algorithm::Sha256).unwrap().digest;
    assert_eq!(store.get(&digest).unwrap().bytes().unwrap(), "x");
}

/// Names the directory for the part of a test that runs in a process of its own, with limits.
const LIMITED: &str = "STRONGROOM_TEST_LIMITED";

#[test]
fn a_file_that_may_not_grow_longer_is_a_full_disk_and_not_the_end_of_the_process() {
    let Some(dir) = std::env::var_os(LIMITED) else {
        let dir = tempfile::tempdir().unwrap();
        let name = "input::a_file_that_may_not_grow_longer_is_a_full_disk_and_not_the_end_of_the_process";
        // Blocks of 512 bytes or of 1,024, as the shell has it: 16 or 32 MiB.
        let mut limited = Command::new("sh");
        limited.args(["-c", r#"ulimit -f 32768; exec "$@""#, "sh"]).arg(std::env::current_exe().unwrap());
        let output = limited.args(["--exact", name, "--nocapture"]).env(LIMITED, dir.path()).output().unwrap();
        assert!(output.status.success(), "{} {}", output.status, String::from_utf8_lossy(&output.stderr));
        return;
    };
    let dir = Path::new(&dir).join("store");
    let open = |create| Options::new().create(create).log_file_size(1 << 20).open(&dir).unwrap();
    let store = open(true);
    let small = store.put("small", Algorithm::Sha256).unwrap().digest;
    let large = vec![7; 40 << 20];
    for _ in 0..3 {
        assert!(matches!(store.put(&large, Algorithm::Sha256), Err(Error::Full { .. })));
        let upload = store.begin_upload(Algorithm::Sha256).unwrap();
        assert!(matches!(store.append_upload(upload, 0, &large), Err(Error::Full { .. })));
        store.cancel_upload(upload).unwrap();
    }
    let more = store.put(vec![7; 6 << 20], Algorithm::Sha256).unwrap().digest;
    store.remove(&small).unwrap();
    store.probe().unwrap();
    store.close().unwrap();
    let store = open(false);
    assert_eq!(store.get(&more).unwrap().bytes().unwrap(), vec![7; 6 << 20]);
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
    // A log file of the usual length would be too long: it is as long as it may be.
    let usual = Options::new().create(true).open(dir.with_file_name("usual")).unwrap();
    usual.put("small", Algorithm::Sha256).unwrap();
    usual.close().unwrap();
}

#[test]
fn a_probe_tells_that_the_directory_is_gone_replaced_or_not_to_be_written() {
    let (dir, store) = store();
    let path = dir.path().join("store");
    let probe = path.join("PROBE");
    store.probe().unwrap();
    std::fs::write(&probe, "left by a crash").unwrap();
    store.probe().unwrap();
    assert!(!probe.exists());

    let away = dir.path().join("away");
    std::fs::rename(&path, &away).unwrap();
    assert!(matches!(store.probe(), Err(Error::Corrupt { damage: Damage::Missing, .. })));
    copy(&away, &path);
    assert!(matches!(store.probe(), Err(Error::Corrupt { file, .. }) if file.ends_with("LOCK")), "a copy");
    std::fs::remove_dir_all(&path).unwrap();
    drop(Options::new().create(true).open(&path).unwrap());
    assert!(matches!(store.probe(), Err(Error::Corrupt { damage: Damage::Invalid("store id"), .. })), "another one");
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(&away, &path).unwrap();
    store.probe().unwrap();
    store.close().unwrap();
    std::fs::write(&probe, "left by a crash").unwrap();
    drop(Options::new().open(&path).unwrap());
    assert!(!probe.exists());

    let disk = SimVfs::new();
    let opening = |path: &Path, mode: OpenMode| match mode {
        OpenMode::CreateNew if path.ends_with("PROBE") => Err(io::Error::from_raw_os_error(30)), // EROFS
        _ => Ok(()),
    };
    let read_only = Watched { opening: Box::new(opening), ..Watched::new(&disk) };
    let store = Options::new().create(true).vfs(Arc::new(read_only)).open("/store").unwrap();
    assert!(matches!(store.probe(), Err(Error::Io { operation: "create", .. })));

    let disk = SimVfs::new();
    let store = Options::new().create(true).vfs(Arc::new(disk.clone())).open("/store").unwrap();
    disk.set_capacity(Some(disk.used()));
    assert!(matches!(store.probe(), Err(Error::Full { .. })));
    disk.set_capacity(None);
    store.probe().unwrap();
    let digest = store.put("content", Algorithm::Sha256).unwrap().digest;
    assert!(store.exists(&digest).unwrap());
}
