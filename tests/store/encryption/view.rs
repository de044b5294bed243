//! Nothing of the view of names can be moved either, nor be put back.

use std::path::Path;

use strongroom::Algorithm;

use super::lab::Keeper;
use crate::common::file_names;

/// What lies in sled of the names, without the watermark.
fn pages_of_names(dir: &Path) -> Vec<(sled::IVec, sled::IVec)> {
    let pages = sled::open(dir).unwrap().scan_prefix([1]).map(Result::unwrap).collect::<Vec<_>>();
    assert!(!pages.is_empty());
    pages
}

/// A change of what lies in sled.
type Change<'a> = &'a dyn Fn(&sled::Db);

#[test]
fn the_view_of_names_can_not_be_taken_back_nor_any_page_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store_dir, kept) = (dir.path().join("store"), dir.path().join("kept"));
    let (names, keeper) = (store_dir.join("names"), Keeper::new(1));
    let open = || {
        let options = crate::common::small(strongroom::Options::new(), &strongroom::Clock::manual());
        options.key_provider(keeper.clone()).open(&store_dir).unwrap()
    };
    let store = open();
    let digest = store.put("content", Algorithm::Sha256).unwrap().digest;
    store.named().set("first", &digest, strongroom::PutNamed::new()).unwrap();
    store.close().unwrap();
    let old = pages_of_names(&names);
    let store = open();
    store.named().set("second", &digest, strongroom::PutNamed::new()).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    let new = pages_of_names(&names);
    assert_ne!(old, new);
    crate::common::copy(&store_dir, &kept);
    let put = |pages: &[(sled::IVec, sled::IVec)], db: &sled::Db| {
        pages.iter().for_each(|(under, value)| drop(db.insert(under, value).unwrap()));
    };
    let take = |db: &sled::Db| new.iter().for_each(|(under, _)| drop(db.remove(under).unwrap()));
    // With the newest watermark: none of the pages, the older ones beside the newer ones or in their place, one in
    // another's place.
    let changes: [Change<'_>; 4] = [
        &take,
        &|db| put(&old, db),
        &|db| {
            take(db);
            put(&old, db);
        },
        &|db| drop(db.insert([1, 0, 0, 0, 0, 0, 0, 0, 99], new[0].1.clone()).unwrap()),
    ];
    for (n, change) in changes.iter().enumerate() {
        std::fs::remove_dir_all(&store_dir).unwrap();
        crate::common::copy(&kept, &store_dir);
        let db = sled::open(&names).unwrap();
        change(&db);
        db.flush().unwrap();
        drop(db);
        let store = open();
        assert_eq!(file_names(&store).unwrap(), ["first", "second"], "change {n}");
        store.close().unwrap();
    }
    // Untouched, the view is opened as it was left: not one page of it is written anew.
    std::fs::remove_dir_all(&store_dir).unwrap();
    crate::common::copy(&kept, &store_dir);
    open().close().unwrap();
    assert_eq!(pages_of_names(&names), new);
}
