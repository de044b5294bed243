//! Referrers: listed under their subject, whichever comes first, and no burden to it.

use strongroom::registry::{PutManifest, Referrer, Repository};
use strongroom::{Algorithm, Compression, Digest, Error, ManifestProblem};

use crate::common::registry::{
    IMAGE, Lab, assert_sound, blob, create, image, index, is_unknown, name, push, push_image, referrer_pages, try_push,
};

fn referrers(repository: &Repository, subject: &Digest) -> Vec<Digest> {
    let mut digests: Vec<_> =
        repository.referrers(subject, None, None, 99).unwrap().items.iter().map(|referrer| referrer.digest).collect();
    digests.sort_unstable();
    digests
}

fn sorted<const N: usize>(mut digests: [Digest; N]) -> [Digest; N] {
    digests.sort_unstable();
    digests
}

/// An artifact of a type with an annotation.
fn artifact(config: &Digest, of: &Digest, kind: &str, note: &str) -> (&'static str, String) {
    let (media_type, document) = image(&[*config], Some(of));
    let fields = format!(r#"{{"artifactType":"{kind}","annotations":{{"note":"{note}"}},"#);
    (media_type, document.replacen('{', &fields, 1))
}

#[test]
fn a_referrer_is_listed_whether_its_subject_comes_before_it_or_after_or_never() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let config = blob(&ours, "config");
    let subject = Digest::of(Algorithm::Sha256, image(&[config], None).1.as_bytes());
    let pushed = try_push(&ours, image(&[config], Some(&subject)), &[]).unwrap();
    assert_eq!(pushed.subject, Some(subject), "what the OCI-Subject header says");
    let before = pushed.digest;
    assert_eq!(referrers(&ours, &subject), [before]);
    assert_eq!(push(&ours, image(&[config], None), &[]), subject);
    let after = push(&ours, artifact(&config, &subject, "a/b", "x"), &[]);
    assert_eq!(referrers(&ours, &subject), sorted([before, after]));
    assert_eq!(ours.manifest_info(&after.into()).unwrap().subject, Some(subject));
    assert!(referrers(&ours, &after).is_empty());
    assert_sound(&store);
}

#[test]
fn a_subject_that_goes_leaves_its_referrers_and_finds_them_when_it_comes_back() {
    // harbor#18014: a signature kept the image from being deleted.
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let subject = push_image(&ours, "subject", &["v1"]);
    let config = blob(&ours, "config");
    let signature = push(&ours, image(&[config], Some(&subject)), &[]);
    assert_eq!(ours.manifest_info(&subject.into()).unwrap().references, 0);
    ours.delete_manifest(&subject).unwrap();
    assert_eq!(referrers(&ours, &subject), [signature]);
    store.checkpoint().unwrap();
    lab.advance(1 << 20);
    store.expire_blobs().unwrap();
    assert!(
        ours.get_manifest(&signature.into()).is_ok() && ours.get(&config).is_ok(),
        "a referrer holds its own blobs"
    );
    assert_eq!(push_image(&ours, "subject", &[]), subject);
    assert_eq!(referrers(&ours, &subject), [signature]);
    ours.delete_manifest(&signature).unwrap();
    assert!(referrers(&ours, &subject).is_empty());
    assert_sound(&store);
}

#[test]
fn a_referrer_may_have_referrers_and_be_held_by_an_index() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let config = blob(&ours, "config");
    let subject = push_image(&ours, "subject", &[]);
    let report = push(&ours, image(&[config], Some(&subject)), &[]);
    let signature = push(&ours, image(&[config], Some(&report)), &[]);
    let list = push(&ours, index(&[report], Some(&subject)), &[]);
    assert_eq!(referrers(&ours, &subject), sorted([report, list]));
    assert_eq!(referrers(&ours, &report), [signature]);
    ours.delete_manifest(&list).unwrap();
    ours.delete_manifest(&report).unwrap();
    assert!(referrers(&ours, &subject).is_empty());
    assert_eq!(referrers(&ours, &report), [signature]);
    assert_sound(&store);
}

#[test]
fn referrers_are_listed_by_type_in_pages_with_what_their_descriptors_say() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let subject = push_image(&ours, "subject", &[]);
    let kinds = ["application/spdx+json", "application/vnd.dev.cosign"];
    for repository in [&ours, &theirs] {
        let config = blob(repository, "config");
        for n in 0..25 {
            push(repository, artifact(&config, &subject, kinds[usize::from(n % 5 == 0)], &n.to_string()), &[]);
        }
    }
    // Those of an untyped image are of its config's type.
    push(&ours, image(&[blob(&ours, "config")], Some(&subject)), &[]);
    let config_type = "application/vnd.oci.image.config.v1+json";
    let paged = |kind, limit| referrer_pages(&ours, &subject, kind, limit).concat();
    for limit in [1, 4, 100] {
        let counts =
            [Some(kinds[0]), Some(kinds[1]), Some(config_type), Some("a/b"), None].map(|kind| paged(kind, limit).len());
        assert_eq!(counts, [20, 5, 1, 0, 26]);
    }
    let mut notes: Vec<usize> = Vec::new();
    for referrer in paged(Some(kinds[1]), 2) {
        assert_eq!((referrer.media_type.as_str(), referrer.artifact_type.as_deref()), (IMAGE, Some(kinds[1])));
        assert_eq!(referrer.len, ours.get_manifest(&referrer.digest.into()).unwrap().content.len() as u64);
        notes.push(referrer.annotations["note"].parse().unwrap());
    }
    notes.sort_unstable();
    assert_eq!(notes, [0, 5, 10, 15, 20]);
    assert_eq!(
        ours.referrers(&subject, None, None, 0).unwrap().items,
        ours.referrers(&subject, None, None, 1).unwrap().items
    );
}

#[test]
fn a_manifest_pushed_again_is_listed_once_and_in_its_own_repository() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let subject = push_image(&ours, "subject", &[]);
    push_image(&theirs, "subject", &[]);
    let config = blob(&ours, "config");
    let signature = push(&ours, image(&[config], Some(&subject)), &[]);
    assert_eq!(push(&ours, image(&[config], Some(&subject)), &["sig"]), signature);
    assert_eq!(referrers(&ours, &subject), [signature]);
    assert!(referrers(&theirs, &subject).is_empty());
    // A document of explicit references has no subject.
    let put = PutManifest::new("a/b").references([config], []);
    let other = ours.put_manifest(format!(r#"{{"subject":{{"digest":"{subject}"}}}}"#), put).unwrap();
    assert_eq!(other.subject, None);
    assert_eq!(referrers(&ours, &subject), [signature]);
    assert!(is_unknown(&theirs.get_manifest(&signature.into())));
    assert_sound(&store);
}

#[test]
fn a_page_costs_no_more_than_a_page_whatever_was_pushed() {
    // 64 MiB of tiny annotations, read by one request, took 900 MB.
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let (config, subject) = (blob(&ours, "config"), Digest::of(Algorithm::Sha256, b"subject"));
    let tiny = |from: usize, count: usize| {
        let all: Vec<String> = (from..from + count).map(|n| format!(r#""{n}":"""#)).collect();
        artifact(&config, &subject, "a/b", "x").1.replacen(r#""note":"x""#, &all.join(","), 1)
    };
    let refused = try_push(&ours, (IMAGE, tiny(0, 300_000)), &[]);
    assert!(matches!(refused, Err(Error::InvalidManifest { problem: ManifestProblem::Annotations })), "{refused:?}");

    let mut pushed: Vec<Digest> = (0..20).map(|n| push(&ours, (IMAGE, tiny(n, 1000)), &[])).collect();
    for n in 0..20 {
        pushed.push(push(&ours, artifact(&config, &subject, "a/long", &"x".repeat(100_000 + n)), &[]));
        let spaces = " ".repeat((3 << 20) + n);
        pushed.push(push(&ours, (IMAGE, artifact(&config, &subject, "a/spaces", "x").1 + &spaces), &[]));
    }
    let pages = referrer_pages(&ours, &subject, None, usize::MAX);
    for page in &pages {
        let documents: u64 = page.iter().map(|one| one.len).sum();
        let notes =
            |one: &Referrer| one.annotations.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let annotations: usize = page.iter().map(notes).sum();
        assert!(documents <= 12 << 20 && annotations <= 512 << 10, "{documents} {annotations}");
    }
    let mut listed: Vec<Digest> = pages.concat().iter().map(|one| one.digest).collect();
    assert!(pages.len() > 5, "{}", pages.len());
    listed.sort_unstable();
    pushed.sort_unstable();
    assert_eq!(listed, pushed);
}

#[test]
fn a_filter_that_matches_none_ends_where_enough_was_looked_at() {
    let lab = Lab::new();
    let store = lab.options().memtable_size(64 << 20).log_file_size(16 << 20).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let (config, subject) = (blob(&ours, "config"), Digest::of(Algorithm::Sha256, b"subject"));
    for n in 0..12_000 {
        push(&ours, artifact(&config, &subject, "a/b", &n.to_string()), &[]);
    }
    let pages = referrer_pages(&ours, &subject, Some("no/such"), 100);
    assert!(pages.len() > 2 && pages.iter().all(Vec::is_empty), "{}", pages.len());
    let last = push(&ours, artifact(&config, &subject, "such/a-one", "x"), &[]);
    let found = referrer_pages(&ours, &subject, Some("such/a-one"), 100).concat();
    assert_eq!(found.iter().map(|one| one.digest).collect::<Vec<_>>(), [last]);
}

#[test]
fn a_damaged_referrer_is_listed_as_one_and_hides_no_other() {
    let lab = Lab::new();
    let store = lab.options().compression(Compression::Off).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let (config, subject) = (blob(&ours, "config"), Digest::of(Algorithm::Sha256, b"subject"));
    let note = |n: u32| format!("note {n} of nine that nothing makes shorter");
    let pushed: Vec<Digest> = (0..9).map(|n| push(&ours, artifact(&config, &subject, "a/b", &note(n)), &[])).collect();
    store.close().unwrap();
    let mut hits = 0;
    for path in lab.disk.files() {
        let wanted = note(4).into_bytes();
        let tampered = lab.disk.tamper(&path, |bytes| {
            if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
                bytes[at] ^= 1;
                hits += 1;
            }
        });
        tampered.unwrap();
    }
    assert_eq!(hits, 1);
    let store = lab.open();
    let ours = store.repository(&name("a/ours")).unwrap();
    let listed = referrer_pages(&ours, &subject, Some("a/b"), 2).concat();
    assert_eq!(listed.len(), 9);
    for referrer in listed {
        let is_damaged = referrer.digest == pushed[4];
        assert_eq!((referrer.is_damaged, referrer.annotations.is_empty()), (is_damaged, is_damaged));
    }
}
