//! The view of names, on sled and in memory.

#[cfg(feature = "sled")]
mod links;
mod mishaps;

#[cfg(feature = "sled")]
use std::path::Path;

use super::*;
use crate::envelope::Keyring;
use crate::id::StoreId;
use crate::keys::InPlain;
use std::collections::BTreeSet;

fn keys() -> Keys {
    Keys::new(Keyring::plain(StoreId([1; 16])))
}

fn trust(session: u8, folded: u64, last: u64) -> Trust {
    Trust {
        store: StoreId([1; 16]),
        session: SessionId([session; 16]),
        folded: Lsn(folded),
        last: Lsn(last),
        boot: BootId(Some(b"boot".to_vec())),
    }
}

const DOMAIN: DomainId = DomainId(3);

#[cfg(feature = "sled")]
fn apply(names: &Names, lsn: u64, name: &str, change: Change) {
    apply_to(names, DOMAIN, lsn, name, change);
}

fn apply_to(names: &Names, domain: DomainId, lsn: u64, name: &str, change: Change) {
    let kind = NameKind::Named;
    names.apply(&[(Lsn(lsn), NameChange { domain, kind, name: name.to_owned(), change })], || {});
}

/// Opens the view, and fills it with these names where it was not trusted.
fn rebuild(names: &Names, all: &[&str]) {
    let backend = names.prepare().expect("a view that is to be filled");
    names.rebuild(backend, all.iter().map(|name| Ok::<_, ()>((DOMAIN, NameKind::Named, (*name).to_owned())))).unwrap();
}

/// A view in `dir` with the names a, b and c, written by session 7 at LSN 3, and closed.
#[cfg(feature = "sled")]
fn written(dir: &Path) {
    let names = Names::new(Some(dir.to_path_buf()), SessionId([7; 16]), trust(0, 0, 0), keys());
    rebuild(&names, &[]);
    for (lsn, name) in [(1, "c"), (2, "a"), (3, "b")] {
        apply(&names, lsn, name, Change::Set);
    }
    assert_eq!(names.list(&[DOMAIN], NameKind::Named, None, 2).unwrap(), ["a", "b"]);
    names.close(Lsn(3));
}

#[cfg(feature = "sled")]
fn is_trusted(dir: &Path, trust: &Trust) -> bool {
    Names::new(Some(dir.to_path_buf()), SessionId([8; 16]), trust.clone(), keys()).prepare().is_none()
}

#[test]
#[cfg(feature = "sled")]
fn a_view_is_trusted_where_session_lsn_store_and_boot_agree_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names");
    written(&path);
    let names = Names::new(Some(path.clone()), SessionId([8; 16]), trust(7, 2, 5), keys());
    assert_eq!(names.list(&[DOMAIN], NameKind::Named, None, 10), None, "not open yet");
    assert!(names.prepare().is_none());
    assert_eq!(names.list(&[DOMAIN], NameKind::Named, Some("a"), 10).unwrap(), ["b", "c"]);
    drop(names);
    let other_boot = Trust { boot: BootId(Some(b"later".to_vec())), ..trust(7, 2, 5) };
    let no_boot = Trust { boot: BootId(None), ..trust(7, 2, 5) };
    let other_store = Trust { store: StoreId([2; 16]), ..trust(7, 2, 5) };
    for wrong in [trust(6, 2, 5), trust(7, 4, 5), trust(7, 0, 2), other_boot, no_boot, other_store] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        written(&path);
        assert!(!is_trusted(&path, &wrong), "{wrong:?}");
    }
}

#[test]
#[cfg(feature = "sled")]
fn a_view_stays_trusted_over_a_session_in_which_no_name_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names");
    written(&path);
    let names = Names::new(Some(path.clone()), SessionId([8; 16]), trust(7, 2, 5), keys());
    assert!(names.prepare().is_none());
    names.close(Lsn(90));
    drop(names);
    assert!(is_trusted(&path, &trust(8, 90, 90)), "all is folded, and another session wrote last");
}

#[test]
fn an_error_while_names_are_read_leaves_the_view_without_answers() {
    let names = Names::new(None, SessionId([7; 16]), trust(0, 0, 0), keys());
    let read = (0..5000).map(|n| if n < 3000 { Ok((DOMAIN, NameKind::Named, n.to_string())) } else { Err(n) });
    assert_eq!(names.rebuild(names.prepare().unwrap(), read), Err(3000));
    assert!(!names.needs_rebuild(), "not before the next opening");
    assert_eq!(names.list(&[DOMAIN], NameKind::Named, None, 1), None);
}

#[test]
#[cfg(feature = "sled")]
fn a_damaged_or_missing_view_is_rebuilt() {
    let spoil: [&dyn Fn(&Path); 4] = [
        &|path| std::fs::remove_dir_all(path).unwrap(),
        &|path| std::fs::write(path.join("db"), b"garbage").unwrap(),
        &|path| std::fs::write(path.join("conf"), b"garbage").unwrap(),
        &|path| {
            std::fs::remove_dir_all(path).unwrap();
            std::fs::write(path, b"a file in its place").unwrap();
        },
    ];
    for (number, spoil) in spoil.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        written(&path);
        spoil(&path);
        let names = Names::new(Some(path), SessionId([8; 16]), trust(7, 2, 5), keys());
        if names.prepare().is_some() {
            assert_eq!(names.list(&[DOMAIN], NameKind::Named, None, 9), None, "spoilt in way {number}");
            apply(&names, 6, "b", Change::Remove);
            apply(&names, 6, "d", Change::Set);
            rebuild(&names, &["a", "b", "c"]);
            assert_eq!(names.list(&[DOMAIN], NameKind::Named, None, 9).unwrap(), ["a", "c", "d"], "the overlay wins");
        } else {
            assert_eq!(names.list(&[DOMAIN], NameKind::Named, None, 9).unwrap(), ["a", "b", "c"]);
        }
    }
}

#[test]
#[cfg(feature = "sled")]
fn a_snapshot_that_a_kill_left_half_written_does_not_keep_the_view_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names");
    written(&path);
    std::fs::write(path.join("snap.00000000000FFFFF.generating"), b"half").unwrap();
    assert!(is_trusted(&path, &trust(7, 2, 5)));
}

#[test]
fn pages_equal_those_of_a_sorted_set() {
    let dir = tempfile::tempdir().unwrap();
    let encrypted = Keyring::plain(StoreId([1; 16])).encrypted(&InPlain, false);
    let encrypted = encrypted.map(|keys| (Some(dir.path().join("encrypted")), Keys::new(keys), DomainId::DEFAULT));
    let plain = [(None, keys(), DOMAIN), (Some(dir.path().join("names")), keys(), DOMAIN)];
    for (dir, keys, domain) in plain.into_iter().chain(encrypted) {
        let names = Names::new(dir, SessionId([7; 16]), trust(0, 0, 0), keys);
        rebuild(&names, &[]);
        let mut model = BTreeSet::new();
        let mut random = 1u64;
        for lsn in 1..3000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let name = format!("team-{}/app", random >> 54);
            let change = if random >> 40 & 3 == 0 { Change::Remove } else { Change::Set };
            match change {
                Change::Set => model.insert(name.clone()),
                Change::Remove => model.remove(&name),
            };
            apply_to(&names, domain, lsn, &name, change);
            if lsn % 100 == 0 {
                names.maintain();
            }
            if lsn % 37 == 0 {
                let expected: Vec<_> = model
                    .range::<String, _>((std::ops::Bound::Excluded(&name), std::ops::Bound::Unbounded))
                    .take(7)
                    .cloned()
                    .collect();
                assert_eq!(names.list(&[domain], NameKind::Named, Some(&name), 7).unwrap(), expected);
            }
        }
    }
}

#[test]
fn names_are_listed_of_the_domains_asked_for_and_of_no_other() {
    let names = Names::new(None, SessionId([7; 16]), trust(0, 0, 0), keys());
    let backend = names.prepare().unwrap();
    let all = [(1, "c"), (2, "a"), (2, "d"), (3, "b")];
    let name = |(domain, name): (u32, &str)| (DomainId(domain), NameKind::Repository, name.to_owned());
    names.rebuild(backend, all.map(|one| Ok::<_, ()>(name(one)))).unwrap();
    let (domain, kind, name) = name((1, "e"));
    names.apply(&[(Lsn(1), NameChange { domain, kind, name, change: Change::Set })], || {});
    let list = |domains: &[u32], after, limit| {
        let domains: Vec<DomainId> = domains.iter().copied().map(DomainId).collect();
        names.list(&domains, NameKind::Repository, after, limit).unwrap()
    };
    assert_eq!(list(&[1], None, 9), ["c", "e"]);
    assert_eq!(list(&[2], Some("a"), 9), ["d"]);
    assert_eq!(list(&[1, 2, 3], Some("a"), 3), ["b", "c", "d"]);
}
