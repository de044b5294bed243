use super::*;
use crate::vfs::RealVfs;

fn disk_with(content: &[u8]) -> (SimVfs, Arc<dyn File>) {
    let disk = SimVfs::new();
    let file = disk.open(Path::new("/f"), OpenMode::CreateNew).unwrap();
    file.write_all_at(content, 0).unwrap();
    (disk, file)
}

#[test]
fn what_was_synced_survives_every_power_cut_and_the_rest_any_way() {
    let (disk, file) = disk_with(&[1; 2048]);
    file.sync().unwrap();
    disk.open_dir(Path::new("/")).unwrap().sync().unwrap();
    file.write_all_at(&[2; 1500], 1024).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let left = disk.power_cut(seed).read_file("/f").unwrap();
        assert_eq!(left[..1024], [1; 1024]);
        assert!(left.len() == 2048 || left.len() == 2524);
        seen.insert((left[1024], left[1536], left.get(2100).copied()));
        assert_eq!(left, disk.power_cut(seed).read_file("/f").unwrap(), "a seed draws the same again");
    }
    assert!(seen.contains(&(1, 1, None)) && seen.contains(&(2, 2, Some(2))));
    assert!(seen.contains(&(2, 1, None)) && seen.contains(&(1, 1, Some(0))), "{seen:?}");
}

#[test]
fn a_name_is_durable_only_after_its_directory_was_synced() {
    let (disk, file) = disk_with(b"x");
    file.sync().unwrap();
    let kept = |disk: &SimVfs| (0..100).filter(|seed| disk.power_cut(*seed).read_file("/f").is_ok()).count();
    assert!((1..100).contains(&kept(&disk)));
    disk.open_dir(Path::new("/")).unwrap().sync().unwrap();
    assert_eq!(kept(&disk), 100);
    disk.remove(Path::new("/f")).unwrap();
    assert!((1..100).contains(&kept(&disk)));
}

#[test]
fn a_rename_shows_the_old_file_or_the_new_one() {
    let (disk, old) = disk_with(b"old");
    let new = disk.open(Path::new("/new"), OpenMode::CreateNew).unwrap();
    new.write_all_at(b"new", 0).unwrap();
    [old, new].iter().for_each(|file| file.sync().unwrap());
    disk.open_dir(Path::new("/")).unwrap().sync().unwrap();
    disk.rename(Path::new("/new"), Path::new("/f")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let left = disk.power_cut(seed);
        let content = left.read_file("/f").unwrap();
        assert_eq!(content == b"old", left.read_file("/new").is_ok());
        seen.insert(content);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn after_a_failed_sync_a_later_one_makes_nothing_durable() {
    let (disk, file) = disk_with(&[1; 512]);
    file.sync().unwrap();
    disk.open_dir(Path::new("/")).unwrap().sync().unwrap();
    file.write_all_at(&[2; 512], 0).unwrap();
    disk.fault_at(disk.operations() + 1, Fault::FailedSync);
    assert!(file.sync().is_err());
    file.sync().unwrap();
    let lost = (0..100).filter(|seed| disk.power_cut(*seed).read_file("/f").unwrap() == [1; 512]).count();
    assert!((1..100).contains(&lost));
}

#[test]
fn faults_come_at_their_operation() {
    let (disk, file) = disk_with(b"content");
    disk.fault_at(disk.operations() + 1, Fault::ShortWrite);
    assert_eq!(file.write_at(&[IoSlice::new(b"1234")], 0).unwrap(), 2);
    disk.fault_at(disk.operations() + 1, Fault::Error);
    assert!(file.write_all_at(b"x", 0).is_err());
    disk.fault_at(disk.operations() + 1, Fault::Full);
    assert_eq!(file.write_all_at(b"x", 100).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_all_at(b"x", 0).unwrap();
    disk.free_space();
    file.write_all_at(b"x", 100).unwrap();
    disk.set_capacity(Some(101));
    assert_eq!(file.write_all_at(b"x", 101).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.fault_at(disk.operations() + 1, Fault::PowerCut);
    assert!(file.write_all_at(b"y", 0).is_err());
    assert!(file.read_exact_at(&mut [0], 0).is_err());
    assert_eq!(disk.restarted().operations(), 0);
}

#[test]
fn a_shortage_refuses_any_call_but_a_sync_and_has_no_effect() {
    let (disk, file) = disk_with(b"content");
    let path = Path::new("/f");
    let calls: [(i32, &dyn Fn() -> io::Result<()>); 12] = [
        (libc::EMFILE, &|| disk.open(path, OpenMode::Read).map(drop)),
        (libc::EMFILE, &|| disk.open(path, OpenMode::Write).map(drop)),
        (libc::EMFILE, &|| disk.open(Path::new("/new"), OpenMode::CreateNew).map(drop)),
        (libc::EMFILE, &|| disk.list(Path::new("/")).map(drop)),
        (libc::EMFILE, &|| disk.open_dir(Path::new("/")).map(drop)),
        (libc::EMFILE, &|| Vfs::lock(&disk, Path::new("/LOCK")).map(drop)),
        (libc::ENOMEM, &|| disk.create_dir(Path::new("/dir"))),
        (libc::ENOMEM, &|| file.write_at(&[IoSlice::new(b"other")], 0).map(drop)),
        (libc::ENOMEM, &|| file.set_len(1)),
        (libc::ENOMEM, &|| file.allocate(100)),
        (libc::ENOMEM, &|| disk.rename(path, Path::new("/g"))),
        (libc::ENOMEM, &|| disk.remove(path)),
    ];
    for (errno, call) in calls {
        let operations = disk.operations();
        disk.shortage_during(disk.calls() + 1..disk.calls() + 2);
        assert_eq!(call().unwrap_err().raw_os_error(), Some(errno));
        assert_eq!((disk.files(), disk.read_file(path).unwrap()), (vec!["/f".into()], b"content".to_vec()));
        assert_eq!(disk.operations(), operations);
    }
    let reads: [&dyn Fn() -> io::Result<()>; 3] =
        [&|| file.len().map(drop), &|| file.read_at(&mut [0], 0).map(drop), &|| file.map().map(drop)];
    for read in reads {
        disk.shortage_during(disk.calls() + 1..disk.calls() + 2);
        assert_eq!(read().unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        read().unwrap();
    }
    disk.shortage_during(1..u64::MAX);
    file.sync().unwrap();
}

#[test]
fn a_lock_is_held_once_until_it_is_dropped() {
    let disk = SimVfs::new();
    let held = disk.lock(Path::new("/LOCK")).unwrap();
    assert_eq!(disk.lock(Path::new("/LOCK")).map(drop).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(held);
    disk.lock(Path::new("/LOCK")).map(drop).unwrap();
}

#[test]
fn live_behaviour_is_that_of_the_real_file_system() {
    let real_dir = tempfile::tempdir().unwrap();
    let (sim, real) = (SimVfs::new(), RealVfs);
    let mut random = 7u64;
    let mut next = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    for _ in 0..2000 {
        let [a, b] = [next(5), next(5)].map(|n| format!("f{n}"));
        let (n, size) = (next(7), next(3000));
        let run = |vfs: &dyn Vfs, root: &Path| -> Result<Vec<u8>, ErrorKind> {
            let (a, b) = (root.join(&a), root.join(&b));
            let result = match n {
                0 => vfs.open(&a, OpenMode::CreateNew).map(|_| Vec::new()),
                1 => vfs.rename(&a, &b).map(|()| Vec::new()),
                2 => vfs.remove(&a).map(|()| Vec::new()),
                3 => vfs.open(&a, OpenMode::Write).and_then(|file| file.set_len(size)).map(|()| Vec::new()),
                4 => vfs
                    .open(&a, OpenMode::Write)
                    .and_then(|file| file.write_all_at(&[7; 700], size))
                    .map(|()| Vec::new()),
                5 => vfs.open(&a, OpenMode::Read).and_then(|file| file.map()).map(|map| map.to_vec()),
                _ => vfs.list(root).map(|mut names| {
                    names.sort();
                    names.concat().into_bytes()
                }),
            };
            result.map_err(|error| error.kind())
        };
        assert_eq!(run(&sim, Path::new("/")), run(&real, real_dir.path()), "operation {n} {a} {b} {size}");
    }
}
