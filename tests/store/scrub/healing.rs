//! Damage of each kind, and each way in which content comes back.

use super::lab::{
    Content, Known, app, assert_sound, build, flip, is_damage, is_known, lose, open, read, scrub, segment, tags,
};
use crate::common::Random;
use crate::common::encrypted_disk;
use crate::common::registry::{image, name, push};
use strongroom::registry::{PutManifest, RepositorySettings};
use strongroom::vfs::{SimVfs, Vfs as _};
use strongroom::{Affected, Algorithm, Damage, Digest, Error, Finding, PutNamed, Store};

/// How content is pushed again.
#[derive(Clone, Copy, Debug)]
enum Way {
    Store,
    Reader,
    Repository,
    /// Another one, that had it as well or did not.
    Other,
    Upload,
    RepositoryUpload,
}

impl Way {
    const ALL: [Self; 6] =
        [Self::Store, Self::Reader, Self::Repository, Self::Other, Self::Upload, Self::RepositoryUpload];

    fn push(self, store: &Store, Content { digest, bytes }: &Content) {
        match self {
            Self::Store => drop(store.put(bytes, digest).unwrap()),
            Self::Reader => drop(store.put_reader(&bytes[..], Algorithm::Sha256).unwrap()),
            Self::Repository => drop(app(store).put(bytes, digest).unwrap()),
            Self::Other => drop(store.repository(&name("team/other")).unwrap().put(bytes, Algorithm::Sha256).unwrap()),
            Self::Upload => {
                let id = store.begin_upload(Algorithm::Sha256).unwrap();
                store.append_upload(id, 0, bytes).unwrap();
                store.commit_upload(id, digest).unwrap();
            }
            Self::RepositoryUpload => {
                let app = app(store);
                let id = app.begin_upload(Algorithm::Sha256).unwrap();
                app.append_upload(id, 0, bytes).unwrap();
                app.commit_upload(id, digest).unwrap();
            }
        }
    }
}

/// What the report says is affected, in the order of names.
fn affected(found: &[Affected]) -> Vec<(String, Vec<Digest>, Vec<String>)> {
    let text = |one: &Affected| {
        (one.repository.to_string(), one.manifests.clone(), one.tags.iter().map(ToString::to_string).collect())
    };
    let mut found: Vec<_> = found.iter().map(text).collect();
    found.sort();
    found
}

/// The image and the index over it.
fn both(known: &Known) -> (String, Vec<Digest>, Vec<String>) {
    let mut manifests = vec![known.image.digest, known.index];
    manifests.sort();
    ("team/app".into(), manifests, vec!["all".into(), "v1".into()])
}

/// Scrubs a store in which one blob is damaged, and looks at all that is said of it.
fn meets(store: &Store, known: &Known, damaged: &Content, context: &str) {
    let references = store.stat(&damaged.digest).unwrap().references;
    assert!(is_damage(read(store, &damaged.digest)), "{context}");
    for round in 0..2 {
        let report = scrub(store);
        assert!(report.complete && !report.is_sound() && report.all_listed, "{context}: {report:#?}");
        // Of a file that is lost, that it is.
        let is_loss = |finding: &Finding| {
            matches!(finding, Finding::Segment { error: Error::Corrupt { damage: Damage::Missing, .. } })
        };
        assert!(report.findings.iter().all(is_loss), "{context}: {:#?}", report.findings);
        let [blob] = &report.damaged[..] else { panic!("{context}: {report:#?}") };
        assert_eq!((report.damaged_blobs, blob.digest), (1, Some(damaged.digest)), "{context} {round}");
        assert!(matches!(blob.error, Error::Corrupt { .. }));
        let is_large = damaged.digest == known.large.digest;
        let mut expected = vec![both(known)];
        expected.extend(is_large.then(|| ("team/other".into(), Vec::new(), Vec::new())));
        assert_eq!(affected(&blob.affected), expected, "{context}");
        let is_pinned = is_large || damaged.digest == known.small.digest;
        assert_eq!(blob.named, if is_pinned { vec!["kept"] } else { Vec::new() }, "{context}");
    }
    let stat = store.stat(&damaged.digest).unwrap();
    assert_eq!((stat.damaged, stat.references), (true, references), "{context}");
    assert!(is_known(store.claim(&damaged.digest)) && is_damage(read(store, &damaged.digest)), "{context}");
    assert!(store.exists(&damaged.digest).unwrap(), "{context}: it is damaged, not gone");
}

#[test]
fn damage_of_every_kind_is_told_and_comes_back_in_every_way() {
    type Harm = fn(&SimVfs, &Content);
    type Which = fn(&Known) -> &Content;
    let kinds: [(&str, Which, Harm); 4] = [
        ("a frame in the log", |known| &known.small, flip),
        ("a segment", |known| &known.large, flip),
        ("a frame in a pack", |known| &known.packed, flip),
        ("a lost segment", |known| &known.large, lose),
    ];
    let sound = SimVfs::new();
    let known = build(&sound);
    assert_sound(&open(&sound));
    for (kind, which, harm) in kinds {
        let disk = sound.restarted();
        let damaged = which(&known);
        harm(&disk, damaged);
        let store = open(&disk);
        meets(&store, &known, damaged, kind);
        store.close().unwrap();
        for way in Way::ALL {
            let context = format!("{kind} {way:?}");
            let disk = disk.restarted();
            let store = open(&disk);
            let (before, in_app) = (store.stat(&damaged.digest).unwrap(), app(&store).stat(&damaged.digest).unwrap());
            assert!(before.damaged && in_app.damaged, "{context}: the flag is durable");
            way.push(&store, damaged);
            let is_new = matches!(way, Way::Other) && damaged.digest != known.large.digest;
            let after = store.stat(&damaged.digest).unwrap();
            assert!(!after.damaged, "{context}");
            assert_eq!(after.references, before.references + u32::from(is_new), "{context}");
            let again = app(&store).claim(&damaged.digest).unwrap();
            assert_eq!((again.references, again.damaged), (in_app.references, false), "{context}");
            assert_eq!(read(&store, &damaged.digest).unwrap(), damaged.bytes, "{context}");
            assert_sound(&store);
            store.close().unwrap();
            let store = open(&disk);
            assert_eq!(read(&store, &damaged.digest).unwrap(), damaged.bytes, "{context}: reopened");
            assert_sound(&store);
        }
    }
}

#[test]
fn a_damaged_document_comes_back_when_the_manifest_is_pushed_again() {
    let disk = SimVfs::new();
    let known = build(&disk);
    flip(&disk, &known.image);
    let store = open(&disk);
    let app = app(&store);
    let at = |text: &str| text.parse().unwrap();
    assert!(is_damage(app.get_manifest(&at("v1"))));
    let report = scrub(&store);
    assert_eq!(report.damaged[0].digest, Some(known.image.digest));
    assert_eq!(affected(&report.damaged[0].affected), [both(&known)]);
    let info = app.manifest_info(&at("v1")).unwrap();
    assert!(info.damaged && is_damage(app.get_manifest(&at("v1"))));
    let (kind, document) = image(&[known.small.digest, known.large.digest, known.packed.digest], None);
    app.put_manifest(document, PutManifest::new(kind)).unwrap();
    let healed = app.manifest_info(&at("v1")).unwrap();
    assert_eq!((healed.damaged, healed.references, healed.pushed_ms), (false, info.references, info.pushed_ms));
    assert_eq!(app.get_manifest(&at("v1")).unwrap().content, known.image.bytes);
    assert_eq!(app.tags_of(&known.image.digest).unwrap(), tags(&["v1"]));
    assert_sound(&store);
}

#[test]
fn what_is_known_to_be_damaged_is_not_mounted() {
    let disk = SimVfs::new();
    let known = build(&disk);
    flip(&disk, &known.small);
    let store = open(&disk);
    scrub(&store);
    let other = store.repository(&name("team/other")).unwrap();
    assert!(is_known(other.mount(&known.small.digest, &name("team/app"), |_| true)));
    let refused = other.mount(&known.small.digest, &name("team/app"), |_| false);
    assert!(matches!(refused, Err(Error::BlobNotFound { .. })), "who may not read there is told nothing");
}

#[test]
fn what_is_sound_after_all_is_not_suspected_any_more() {
    let disk = SimVfs::new();
    let known = build(&disk);
    for harmed in [&known.small, &known.large, &known.packed] {
        let (path, at) = super::lab::find(&disk, harmed);
        let flip = || disk.flip_bit(&path, 8 * (at + 700)).unwrap();
        flip();
        let store = open(&disk);
        assert_eq!(scrub(&store).damaged_blobs, 1);
        assert!(is_known(store.claim(&harmed.digest)));
        store.close().unwrap();
        flip();
        let store = open(&disk);
        let report = scrub(&store);
        assert_eq!((report.recovered, report.is_sound()), (1, true));
        store.claim(&harmed.digest).unwrap();
        assert_eq!(scrub(&store).recovered, 0);
        store.close().unwrap();
    }
}

#[test]
fn a_disk_that_says_no_is_told_and_nothing_is_flagged() {
    let disk = SimVfs::new();
    let known = build(&disk);
    let (path, at) = super::lab::find(&disk, &known.large);
    let failing = disk.restarted();
    failing.fail_reads(&path, at + 100_000..at + 100_001);
    let store = open(&failing);
    let report = scrub(&store);
    assert!(report.complete && report.damaged_blobs == 0, "{report:#?}");
    let [Finding::Blob { digest, error: Error::Io { .. } }] = &report.findings[..] else { panic!("{report:#?}") };
    assert_eq!(*digest, Some(known.large.digest));
    assert!(!store.stat(&known.large.digest).unwrap().damaged);
    store.close().unwrap();
    assert_sound(&open(&failing.restarted()));
}

#[test]
fn what_an_open_handle_and_what_was_verified_before_hide_is_found() {
    let disk = SimVfs::new();
    let known = build(&disk);
    let store = open(&disk);
    for content in [&known.small, &known.large, &known.packed] {
        assert_eq!(read(&store, &content.digest).unwrap(), content.bytes);
    }
    flip(&disk, &known.packed);
    lose(&disk, &known.large);
    let report = scrub(&store);
    let mut found: Vec<_> = report.damaged.iter().filter_map(|blob| blob.digest).collect();
    found.sort();
    let mut expected = [known.packed.digest, known.large.digest];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_digest_that_only_the_lost_file_had_is_known_from_who_holds_it() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let bytes = Random(5).bytes(90_000);
    let digest = store.put(&bytes, Algorithm::Sha512).unwrap().digest;
    store.named().set("one", &digest, PutNamed::new()).unwrap();
    store.close().unwrap();
    disk.remove(&segment(&disk, 90_000)).unwrap();
    let store = open(&disk);
    let report = scrub(&store);
    let [blob] = &report.damaged[..] else { panic!("{report:#?}") };
    assert_eq!((blob.digest, &blob.named[..]), (Some(digest), &["one".to_owned()][..]));
    store.put(&bytes, digest).unwrap();
    assert_eq!(read(&store, &digest).unwrap(), bytes);
    assert_sound(&store);
}

#[test]
fn an_encrypted_domain_is_scrubbed_and_heals_too() {
    if cfg!(not(feature = "encryption")) {
        return; // there is one domain only
    }
    let disk = encrypted_disk();
    let store = open(&disk);
    store.create_domain(&"tenant".parse().unwrap(), None).unwrap();
    let settings = RepositorySettings::new().domain("tenant".parse().unwrap());
    let inside = store.create_repository(&name("in/side"), settings).unwrap();
    let bytes = Random(6).bytes(90_000);
    let layer = inside.put(&bytes, Algorithm::Sha256).unwrap().digest;
    let config = inside.put("{}", Algorithm::Sha256).unwrap().digest;
    let manifest = push(&inside, image(&[config, layer], None), &["v1"]);
    // The same content in the default domain is stored once more, and sound.
    let outside = store.put(vec![1; 100], Algorithm::Sha256).unwrap().digest;
    store.close().unwrap();
    let path = segment(&disk, 90_000);
    for harm in 0..2 {
        match harm {
            0 => disk.flip_bit(&path, 8 * 50_000).unwrap(),
            _ => disk.remove(&segment(&disk, 90_000)).unwrap(),
        }
        let store = open(&disk);
        let report = scrub(&store);
        let [blob] = &report.damaged[..] else { panic!("{report:#?}") };
        assert_eq!(blob.digest, Some(layer));
        assert_eq!(affected(&blob.affected), [("in/side".into(), vec![manifest], vec!["v1".into()])]);
        let inside = store.repository(&name("in/side")).unwrap();
        assert!(is_known(inside.claim(&layer)));
        store.claim(&outside).unwrap();
        inside.put(&bytes, layer).unwrap();
        assert_eq!(inside.get(&layer).unwrap().bytes().unwrap(), bytes);
        assert_sound(&store);
        store.close().unwrap();
    }
}

#[test]
fn many_damaged_blobs_are_all_found_and_what_is_pushed_again_comes_back() {
    let disk = SimVfs::new();
    let mut random = Random(9);
    let store = open(&disk);
    let contents: Vec<Content> = (0..120)
        .map(|n| {
            let bytes = random.bytes([600, 1000, 3000][n % 3]);
            Content { digest: store.put(&bytes, Algorithm::Blake3).unwrap().digest, bytes }
        })
        .collect();
    store.close().unwrap();
    contents.iter().step_by(2).for_each(|content| flip(&disk, content));
    let store = open(&disk);
    let report = scrub(&store);
    assert_eq!((report.damaged_blobs, report.damaged.len(), report.blobs), (60, 60, 120));
    for content in &contents {
        store.put(&content.bytes, content.digest).unwrap();
    }
    contents.iter().for_each(|content| assert_eq!(read(&store, &content.digest).unwrap(), content.bytes));
    assert_sound(&store);
}
