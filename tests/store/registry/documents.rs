//! What a manifest may look like, and that what came in comes out.

use strongroom::registry::{PutManifest, Repository};
use strongroom::{Algorithm, Digest, Error, ManifestProblem};

use crate::common::registry::{
    IMAGE, INDEX, Lab, assert_sound, blob, create, image, index, is_gone, is_unknown, missing, push, push_image, tag,
    try_push,
};

fn problem(repository: &Repository, media_type: &str, document: &str) -> ManifestProblem {
    match repository.put_manifest(document, PutManifest::new(media_type)) {
        Err(Error::InvalidManifest { problem }) => problem,
        other => panic!("{document}: {other:?}"),
    }
}

fn layer(media_type: &str, digest: &Digest) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}"}}"#)
}

fn document(config: &Digest, layers: &[String]) -> String {
    let (config, layers) = (layer("a/b", config), layers.join(","));
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#)
}

#[test]
fn layers_that_registries_need_not_have_may_be_absent_and_are_held_where_they_are_there() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let (config, here) = (blob(&ours, "config"), blob(&ours, "here"));
    let away = Digest::of(Algorithm::Sha256, b"away");
    let kinds = [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ];
    for kind in kinds {
        let document = document(&config, &[layer(kind, &here), layer(kind, &away)]);
        let manifest = push(&ours, (IMAGE, document.clone()), &[]);
        assert_eq!(ours.stat(&here).unwrap().references, 1);
        assert!(matches!(ours.remove_blob(&here), Err(Error::BlobInUse { .. })));
        // It comes after all, and is held from the next push on.
        blob(&ours, "away");
        assert_eq!(ours.stat(&away).unwrap().references, 0);
        push(&ours, (IMAGE, document), &[]);
        assert_eq!(ours.stat(&away).unwrap().references, 1);
        ours.delete_manifest(&manifest).unwrap();
        ours.remove_blob(&away).unwrap();
        assert_sound(&store);
    }
    let both = document(&config, &[layer(kinds[0], &away), layer("a/layer", &away)]);
    assert_eq!(missing(try_push(&ours, (IMAGE, both), &[])), (vec![away], vec![]));
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    // CVE-2021-41190: one document, an image to one reader and an index to another.
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let config = layer("a/b", &blob(&ours, "config"));
    let field = |media_type, document: &str, expected: &str| match problem(&ours, media_type, document) {
        ManifestProblem::Field { field } => assert_eq!(field, expected),
        other => panic!("{document}: {other:?}"),
    };
    field(IMAGE, &format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#), "manifests");
    field(INDEX, r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "layers");
    field(INDEX, &format!(r#"{{"schemaVersion":2,"manifests":[],"config":{config}}}"#), "config");
    field(IMAGE, r#"{"schemaVersion":2,"layers":[]}"#, "config");
    field(IMAGE, &format!(r#"{{"schemaVersion":1,"config":{config}}}"#), "schemaVersion");
    field(INDEX, r#"{"manifests":[]}"#, "schemaVersion");
    for twice in [
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"layers":[]}}"#),
        format!(r#"{{"schemaVersion":2,"config":{config},"config":{config}}}"#),
        format!(r#"{{"schemaVersion":2,"config":{config}}}{{}}"#),
        format!(r#"[2,"{IMAGE}",null,{config},[],null,null]"#),
        String::new(),
    ] {
        assert!(matches!(problem(&ours, IMAGE, &twice), ManifestProblem::Syntax { .. }), "{twice}");
    }
    assert!(ours.manifests(None, 9).unwrap().items.is_empty());
    assert_eq!(store.usage().unwrap().blobs, 1, "nothing was stored");
}

#[test]
fn keys_that_some_clients_read_as_others_are_refused() {
    // Go's parser takes a key in any case: to it this image has a layer, which the registry did not hold.
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let config = layer("a/b", &blob(&ours, "config"));
    let away = layer("a/b", &Digest::of(Algorithm::Sha256, b"away"));
    for (media_type, document) in [
        (IMAGE, format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"Layers":[{away}]}}"#)),
        (IMAGE, format!(r#"{{"schemaVersion":2,"config":{config},"layer\u017f":[{away}]}}"#)),
        (IMAGE, format!(r#"{{"schemaVersion":2,"config":{config},"FSLAYERS":[]}}"#)),
        (IMAGE, format!(r#"{{"schemaVersion":2,"config":{}}}"#, config.replace("digest", "Digest"))),
        (INDEX, format!(r#"{{"schemaVersion":2,"manifests":[],"Manifests":[{away}]}}"#)),
        (INDEX, format!(r#"{{"schemaVersion":2,"manifests":[],"subject":{}}}"#, away.replace("digest", "DIGEST"))),
    ] {
        assert!(matches!(problem(&ours, media_type, &document), ManifestProblem::Ambiguous { .. }), "{document}");
    }
    let platform =
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, away.replacen('{', r#"{"platform":{"OS":"x"},"#, 1));
    assert!(matches!(problem(&ours, INDEX, &platform), ManifestProblem::Ambiguous { key: "os", .. }));
    let old = format!(r#"{{"schemaVersion":2,"config":{config},"fsLayers":[{{"blobSum":"x"}}]}}"#);
    assert!(matches!(problem(&ours, IMAGE, &old), ManifestProblem::Field { field: "fsLayers" }));
    for annotations in [r#"{"n":1}"#, r#"{"n":null}"#, r#"["n"]"#, r#"{"n":"1","n":"2"}"#] {
        let top = format!(r#"{{"schemaVersion":2,"config":{config},"annotations":{annotations}}}"#);
        let inner = config.replacen('{', &format!(r#"{{"annotations":{annotations},"#), 1);
        for document in [top, format!(r#"{{"schemaVersion":2,"config":{inner}}}"#)] {
            assert!(matches!(problem(&ours, IMAGE, &document), ManifestProblem::Syntax { .. }), "{document}");
        }
    }
    let mut no_text = format!(r#"{{"schemaVersion":2,"config":{config},"anything":"?"}}"#).into_bytes();
    *no_text.iter_mut().rfind(|byte| **byte == b'?').unwrap() = 0xff;
    let refused = ours.put_manifest(&no_text, PutManifest::new(IMAGE));
    assert!(matches!(refused, Err(Error::InvalidManifest { problem: ManifestProblem::Syntax { line: 1, .. } })));
    assert_eq!(store.usage().unwrap().blobs, 1, "nothing was stored");
}

#[test]
fn sizes_are_those_of_what_is_referenced() {
    // containerd pulls no image whose manifest gives a layer another size than it has.
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let (config, child) = (blob(&ours, "config"), push_image(&ours, "image", &[]));
    let len = ours.manifest_info(&child.into()).unwrap().len;
    let sized = |digest: &Digest, size: &str| format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":{size}}}"#);
    let image = |config: &str, more: &str| format!(r#"{{"schemaVersion":2,"config":{config}{more}}}"#);
    for size in ["-1", "6.0", "6e0", "9223372036854775808"] {
        for document in [
            image(&sized(&config, size), ""),
            image(&sized(&config, "6"), &format!(r#","subject":{}"#, sized(&child, size))),
        ] {
            assert!(matches!(problem(&ours, IMAGE, &document), ManifestProblem::Field { field: "size" }), "{document}");
        }
    }
    let differs = |media_type: &str, document: &str, digest: Digest, expected: u64, found: u64| {
        assert_eq!(problem(&ours, media_type, document), ManifestProblem::Size { digest, expected, found });
    };
    differs(IMAGE, &image(&sized(&config, "7"), ""), config, 6, 7);
    differs(IMAGE, &image(&sized(&config, "6"), &format!(r#","layers":[{}]"#, sized(&config, "5"))), config, 6, 5);
    let list = |kind: &str, size: u64| {
        let listed = sized(&child, &size.to_string()).replace("a/b", kind);
        format!(r#"{{"schemaVersion":2,"manifests":[{listed}]}}"#)
    };
    for kind in [IMAGE, "a/b"] {
        differs(INDEX, &list(kind, len + 1), child, len, len + 1);
        push(&ours, (INDEX, list(kind, len)), &[]);
    }
    push(&ours, (IMAGE, image(&sized(&config, "6"), "")), &[]);
    // Of what is not there, and need not be, nobody knows better.
    let away = sized(&Digest::of(Algorithm::Sha256, b"away"), "5")
        .replace("a/b", "application/vnd.docker.image.rootfs.foreign.x");
    push(&ours, (IMAGE, image(&sized(&config, "6"), &format!(r#","layers":[{away}]"#))), &[]);
    assert_sound(&store);
}

#[test]
fn a_manifest_has_one_media_type() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let config = blob(&ours, "config");
    let (_, says_what_it_is) = image(&[config], None);
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    assert!(matches!(problem(&ours, docker, &says_what_it_is), ManifestProblem::MediaType { .. }));
    let silent = document(&config, &[]);
    let digest = push(&ours, (docker, silent.clone()), &[]);
    assert!(
        matches!(problem(&ours, IMAGE, &silent), ManifestProblem::MediaType { expected, .. } if expected == docker)
    );
    assert_eq!(ours.get_manifest(&digest.into()).unwrap().media_type, docker);
    push(&ours, (docker, silent), &["v1"]);
    for bad in ["", "json", "a/", "/b", "a/b c", "a/\n"] {
        assert!(matches!(problem(&ours, bad, "{}"), ManifestProblem::UnknownMediaType { .. }), "{bad:?}");
    }
    assert!(matches!(
        problem(&ours, &format!("a/{}", "b".repeat(254)), "{}"),
        ManifestProblem::UnknownMediaType { .. }
    ));
    assert!(matches!(problem(&ours, "application/json", "{}"), ManifestProblem::UnknownMediaType { .. }));
}

fn subject_of(repository: &Repository, digest: &Digest) -> Digest {
    repository.manifest_info(&digest.into()).unwrap().subject.unwrap()
}

#[test]
fn deep_nesting_does_no_harm_and_digests_that_are_none_are_refused() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let config = blob(&ours, "config");
    // Nobody's stack overflows: neither where it is skipped nor where annotations are looked for.
    let subject = push_image(&ours, "subject", &[]);
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let with = |field: &str| document(&config, &[]).replacen('{', &format!(r#"{{"{field}":{deep},"#), 1);
        for field in ["mediaType", "config", "layers", "annotations"] {
            assert!(matches!(problem(&ours, IMAGE, &with(field)), ManifestProblem::Syntax { .. }));
        }
        let no_descriptor = problem(&ours, IMAGE, &with("subject"));
        assert!(matches!(no_descriptor, ManifestProblem::Syntax { .. } | ManifestProblem::Field { field: "digest" }));
        let subject = format!(r#"{{"subject":{},"#, layer("a/b", &subject));
        let digest = push(&ours, (IMAGE, with("anything").replacen('{', &subject, 1)), &[]);
        let referrers = ours.referrers(&subject_of(&ours, &digest), None, None, 9).unwrap().items;
        assert!(referrers.iter().any(|found| found.digest == digest && found.annotations.is_empty()));
        ours.put_manifest(&deep, PutManifest::new("a/b").references([], [])).unwrap();
    }
    let bad = [
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        format!("sha256:{}", "A".repeat(64)),
        format!("sha256:{}", "a".repeat(63)),
        format!("sha512:{}", "a".repeat(64)),
        "a".repeat(64),
        "ü".repeat(300),
        String::new(),
    ];
    for digest in bad {
        let descriptor = format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":1}}"#);
        let images = [
            document(&config, std::slice::from_ref(&descriptor)),
            format!(r#"{{"schemaVersion":2,"config":{descriptor}}}"#),
            document(&config, &[]).replacen('{', &format!(r#"{{"subject":{descriptor},"#), 1),
        ];
        for document in images {
            assert!(matches!(problem(&ours, IMAGE, &document), ManifestProblem::Digest { .. }), "{document}");
        }
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#);
        assert!(matches!(problem(&ours, INDEX, &index), ManifestProblem::Digest { .. }), "{index}");
    }
}

#[test]
fn a_manifest_has_up_to_4_mib() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let mut document = document(&blob(&ours, "config"), &[]);
    document.push_str(&" ".repeat((4 << 20) - document.len()));
    let digest = push(&ours, (IMAGE, document.clone()), &["v1"]);
    assert_eq!(ours.get_manifest(&digest.into()).unwrap().content.len(), 4 << 20);
    document.push(' ');
    let refused = try_push(&ours, (IMAGE, document), &[]);
    assert!(matches!(refused, Err(Error::TooLarge { limit, found, .. }) if (limit, found) == (4 << 20, (4 << 20) + 1)));
    assert_sound(&store);
}

#[test]
fn a_manifest_may_have_thousands_of_layers_and_the_same_one_many_times() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let config = blob(&ours, "config");
    let layers: Vec<_> = (0..3000).map(|n| blob(&ours, &n.to_string())).collect();
    let one = layer("a/layer", &layers[0]);
    let same = push(&ours, (IMAGE, document(&config, &vec![one; 5000])), &[]);
    assert_eq!(ours.stat(&layers[0]).unwrap().references, 1);
    let different: Vec<_> = layers.iter().map(|digest| layer("a/layer", digest)).collect();
    let all = push(&ours, (IMAGE, document(&config, &different)), &[]);
    assert!(layers[1..].iter().all(|digest| ours.stat(digest).unwrap().references == 1));
    assert_eq!(ours.stat(&config).unwrap().references, 2);
    assert_sound(&store);
    ours.delete_batch(&[same.into(), all.into()]).unwrap().into_iter().for_each(|done| {
        done.unwrap();
    });
    assert!(layers.iter().all(|digest| ours.remove_blob(digest).is_ok()));
    assert_sound(&store);
}

#[test]
fn an_index_of_children_too_large_for_one_step_is_refused_and_changes_nothing() {
    let lab = Lab::new();
    let store = lab.options().memtable_size(64 << 20).log_file_size(1 << 20).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    // A child is of what it references, so these are not small: an index changes the count in each.
    let layers: Vec<_> = (0..9000).map(|n| ours.put(n.to_string(), Algorithm::Sha512).unwrap().digest).collect();
    let put = || PutManifest::new("a/b").references(&layers[..], []);
    let children: Vec<_> = (0..64).map(|n| ours.put_manifest(format!("{n}"), put()).unwrap().digest).collect();
    let before = store.last_lsn();
    assert!(matches!(try_push(&ours, index(&children, None), &["v1"]), Err(Error::TooLarge { .. })));
    assert_eq!((store.last_lsn(), ours.manifest_info(&children[0].into()).unwrap().references), (before, 0));
    let parent = push(&ours, index(&children[..20], None), &["v1"]);
    assert_eq!(ours.manifest_info(&children[0].into()).unwrap().references, 1);
    ours.delete_manifest(&parent).unwrap();
    assert_eq!(ours.manifest_info(&children[0].into()).unwrap().references, 0);
}

#[test]
fn digests_of_all_algorithms_may_stand_everywhere() {
    let lab = Lab::new();
    for algorithm in [Algorithm::Sha512, Algorithm::Blake3] {
        let store = lab.open();
        let ours = create(&store, &format!("a/{algorithm:?}").to_lowercase());
        let put = |content: &str| ours.put(content, algorithm).unwrap().digest;
        let push = |(media_type, document): (&str, String)| {
            ours.put_manifest(document, PutManifest::new(media_type).expect(algorithm).tag(tag("v1"))).unwrap().digest
        };
        let (config, layer) = (put("config"), put(&"layer".repeat(1000)));
        let child = push(image(&[config, layer], None));
        let parent = push(index(&[child], None));
        let referrer = push(image(&[config], Some(&parent)));
        assert!([config, layer, child, parent, referrer].iter().all(|digest| digest.algorithm() == algorithm));
        assert_eq!(ours.referrers(&parent, None, None, 9).unwrap().items[0].digest, referrer);
        assert!(matches!(ours.delete_manifest(&child), Err(Error::ManifestInUse { .. })));
        assert_eq!(ours.tags_of(&referrer).unwrap(), [tag("v1")]);
        assert!(is_unknown(&ours.get_manifest(&Digest::of(Algorithm::Sha256, b"x").into())));
        // The same bytes as a digest of another algorithm name something else.
        if algorithm == Algorithm::Blake3 {
            let other = |digest: &Digest| Digest::from_bytes(Algorithm::Sha256, digest.as_bytes()).unwrap();
            assert!(is_gone(&ours.stat(&other(&layer))) && is_gone(&ours.claim(&other(&layer))));
            assert!(is_gone(&ours.remove_blob(&other(&layer))) && is_unknown(&ours.delete_manifest(&other(&child))));
            assert!(ours.referrers(&other(&parent), None, None, 9).unwrap().items.is_empty());
            assert!(ours.tags_of(&other(&referrer)).unwrap().is_empty());
            let absent = [other(&config)];
            assert_eq!(missing(try_push(&ours, image(&absent, None), &[])).0, absent);
            assert_eq!(missing(try_push(&ours, index(&[other(&child)], None), &[])).1, [other(&child)]);
        }
        let mut blobs: Vec<_> = ours.blobs(None, 9).unwrap().items.iter().map(|blob| blob.digest).collect();
        blobs.sort_unstable();
        let mut expected = vec![config, layer];
        expected.sort_unstable();
        assert_eq!(blobs, expected);
        let first = ours.manifests(None, 2).unwrap().items;
        let rest = ours.manifests(Some(&first[1].digest), 9).unwrap().items;
        assert_eq!((first.len(), rest.len()), (2, 1));
        assert_sound(&store);
        store.close().unwrap();
        let store = lab.open();
        assert_sound(&store);
        let ours = store.repository(&format!("a/{algorithm:?}").to_lowercase().parse().unwrap()).unwrap();
        for digest in [referrer, parent, child] {
            ours.delete_manifest(&digest).unwrap();
        }
        lab.advance(1 << 20);
        assert_eq!(store.expire_blobs().unwrap(), 2);
    }
}

#[test]
fn a_manifest_keeps_every_byte() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let config = blob(&ours, "config");
    let plain = document(&config, &[]);
    let odd = [
        format!("\r\n\t {plain}\n\n"),
        plain.replace("\":", "\" :\t\n "),
        plain.replacen('{', r#"{"annotations":{"ключ":"值 \u0000 \ud83d\ude00 é e\u0301 é"},"#, 1),
        plain.replacen('{', r#"{"size":1e400000,"x":-0.0,"y":123456789012345678901234567890,"#, 1),
    ];
    for document in odd {
        let digest = push(&ours, (IMAGE, document.clone()), &[]);
        assert_eq!(digest, Digest::of(Algorithm::Sha256, document.as_bytes()));
        assert_eq!(ours.get_manifest(&digest.into()).unwrap().content, document.as_bytes());
        assert_eq!(ours.manifest_info(&digest.into()).unwrap().len, document.len() as u64);
    }
    let wrong = Digest::of(Algorithm::Sha256, b"another");
    let refused = ours.put_manifest(&plain, PutManifest::new(IMAGE).expect(wrong));
    assert!(matches!(refused, Err(Error::DigestMismatch { expected, .. }) if expected == wrong));
    assert!(ours.put_manifest(b"\xef\xbb\xbf{}", PutManifest::new(IMAGE)).is_err(), "a byte order mark is no JSON");
    assert_sound(&store);
}

#[test]
fn documents_of_any_kind_hold_what_is_said_that_they_reference() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let (part, child) = (blob(&ours, "part"), push_image(&ours, "image", &[]));
    let put = || PutManifest::new("application/x-build").references([part, part], [child, child]).tag(tag("build"));
    let digest = ours.put_manifest(b"\x00\xff no JSON", put()).unwrap().digest;
    assert_eq!(ours.put_manifest(b"\x00\xff no JSON", put()).unwrap().digest, digest);
    assert_eq!(ours.get_manifest(&digest.into()).unwrap().content, &b"\x00\xff no JSON"[..]);
    assert!(matches!(ours.remove_blob(&part), Err(Error::BlobInUse { count: 1, .. })));
    assert!(matches!(ours.delete_manifest(&child), Err(Error::ManifestInUse { count: 1, .. })));
    let (no_blob, no_manifest) = (Digest::of(Algorithm::Sha256, b"1"), Digest::of(Algorithm::Sha512, b"2"));
    let put = PutManifest::new("a/b").references([part, no_blob], [no_manifest, child]);
    assert_eq!(missing(ours.put_manifest("x", put)), (vec![no_blob], vec![no_manifest]));
    let many = vec![no_blob; 65_537];
    let put = PutManifest::new("a/b").references(many, []);
    assert!(matches!(ours.put_manifest("x", put), Err(Error::TooLarge { .. })));
    ours.delete_manifest(&digest).unwrap();
    ours.delete_manifest(&child).unwrap();
    ours.remove_blob(&part).unwrap();
    assert_sound(&store);
}
