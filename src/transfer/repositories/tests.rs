//! What is exported is all there is, and can be imported again.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::digest::Algorithm;
use crate::oci::document::{OCI_INDEX, OCI_MANIFEST};
use crate::oci::{ExpectDocument, RepositorySettings};
use crate::registry::PutManifest;
use crate::store::Options;
use crate::transfer::import_layout;
use crate::transfer::registries::RegistryImport;

fn goes_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn store(dir: &Path) -> Store {
    Options::new().create(true).open(dir.join("store")).unwrap()
}

fn repository(store: &Store, name: &str) -> Repository {
    store.create_repository(&name.parse().unwrap(), RepositorySettings::new()).unwrap()
}

fn import(to: &Repository, store: &Store, from: &Path) -> RegistryImport {
    import_layout(store, from, to.name(), &RepositorySettings::new(), goes_on).unwrap()
}

fn image(to: &Repository, layer: &str, tags: &[&str], more: &str) -> Digest {
    let (config, len) = (to.put("{}", Algorithm::Sha256).unwrap().digest, layer.len());
    let layer = to.put(layer, Algorithm::Sha256).unwrap().digest;
    let config = format!(r#"{{"mediaType":"x/y","digest":"{config}","size":2}}"#);
    let layers = format!(r#"[{{"mediaType":"x/z","digest":"{layer}","size":{len}}}]"#);
    let content = format!(r#"{{"schemaVersion":2,{more}"config":{config},"layers":{layers}}}"#);
    push(to, OCI_MANIFEST, &content, tags)
}

fn push(to: &Repository, media_type: &str, content: &str, tags: &[&str]) -> Digest {
    let put = tags.iter().fold(PutManifest::new(media_type), |put, tag| put.tag(tag.parse().unwrap()));
    to.put_manifest(content, put).unwrap().digest
}

/// An index of two images, tagged twice; a signature of it; an untagged image.
fn fill(to: &Repository) -> [Digest; 5] {
    let (amd, arm) = (image(to, "amd", &[], ""), image(to, "arm", &["arm"], ""));
    let listed = [amd, arm].map(|child| format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{child}"}}"#));
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(","));
    let index = push(to, OCI_INDEX, &index, &["v1", "latest"]);
    let subject = format!(r#""artifactType":"x/signature","subject":{{"digest":"{index}"}},"#);
    [amd, arm, index, image(to, "signature", &[], &subject), image(to, "untagged", &[], "")]
}

#[test]
fn a_repository_comes_back_from_its_layout() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (from, to) = (repository(&store, "app/a"), repository(&store, "app/b"));
    let digests = fill(&from);
    from.put("of no manifest", Algorithm::Blake3).unwrap();
    let layout = dir.path().join("layout");
    let report = export_repository(&from, &layout, goes_on).unwrap();
    assert_eq!((report.manifests, report.tags, report.blobs, report.skipped.count()), (5, 3, 6, 0));
    let index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let listed = index["manifests"].as_array().unwrap();
    let tagged: Vec<_> = listed.iter().filter_map(|one| one["annotations"][TAG].as_str()).collect();
    assert_eq!((listed.len(), tagged.len()), (5, 3), "one for each tag, the signature, the untagged one: {index}");
    assert!(listed.iter().any(|one| one["artifactType"] == "x/signature"));
    assert_eq!(fs::read_dir(&layout).unwrap().count(), 3);

    let report = import(&to, &store, &layout);
    assert_eq!((report.manifests.new, report.tags.new, report.blobs.new, report.skipped.count()), (5, 3, 5, 0));
    for digest in digests {
        let [one, other] = [&from, &to].map(|of| of.get_manifest(&digest.into()).unwrap());
        assert_eq!(one, other);
    }
    assert_eq!(tags(&from).unwrap(), tags(&to).unwrap());
    assert_eq!(to.referrers(&digests[2], None, None, 10).unwrap().items.len(), 1);
    let again = import(&to, &store, &layout);
    assert_eq!((again.manifests.existing, again.tags.existing, again.blobs.existing), (5, 3, 5));
}

#[test]
fn a_layout_gives_a_repository_no_blob_of_another_one_that_it_only_names() {
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new().create(true).inline_max(1000).open(dir.path().join("store")).unwrap();
    let (victim, layout) = (repository(&store, "victim/private"), dir.path().join("layout"));
    let large = "large".repeat(1000);
    let layers = ["small", &large];
    let digests = layers.map(|layer| Digest::of(Algorithm::Sha256, layer.as_bytes()));
    for layer in layers {
        image(&victim, layer, &[layer.get(..5).unwrap()], "");
    }
    export_repository(&victim, &layout, goes_on).unwrap();
    let path = |digest: &Digest| layout.join("blobs/sha256").join(digest.hex());
    for content in [None, Some("another")] {
        for digest in &digests {
            match content {
                None => fs::remove_file(path(digest)).unwrap(),
                Some(content) => fs::write(path(digest), content).unwrap(),
            }
        }
        let attacker = repository(&store, content.unwrap_or("nothing"));
        let report = import(&attacker, &store, &layout);
        assert_eq!((report.blobs.new, report.manifests.new, report.tags.new), (1, 0, 0), "the configuration alone");
        for digest in &digests {
            assert!(matches!(attacker.get(digest), Err(Error::BlobNotFound { .. })));
            assert!(report.skipped.listed().iter().any(|skipped| skipped.what == digest.to_string()));
        }
    }

    // Whoever has the content gets it, and it is stored once.
    for (digest, layer) in digests.iter().zip(layers) {
        fs::write(path(digest), layer).unwrap();
    }
    let before = store.usage().unwrap().live_bytes;
    let owner = repository(&store, "owner");
    assert_eq!(import(&owner, &store, &layout).manifests.new, 2);
    assert_eq!(owner.get(&digests[1]).unwrap().bytes().unwrap(), large);
    assert_eq!(store.usage().unwrap().live_bytes, before);
}

#[test]
fn what_is_no_layout_creates_no_repository() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (layout, name) = (dir.path().join("layout"), "app/new".parse().unwrap());
    let import = || import_layout(&store, &layout, &name, &RepositorySettings::new(), goes_on);
    fs::create_dir(&layout).unwrap();
    assert!(matches!(import(), Err(TransferError::Unsuitable { .. })));
    fs::write(layout.join(MARKER), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(layout.join(INDEX), "{}").unwrap();
    assert!(matches!(import(), Err(TransferError::Unsuitable { .. })));
    assert!(matches!(store.repository(&name), Err(Error::RepositoryNotFound { .. })));
    fs::write(layout.join(INDEX), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    assert_eq!(import().unwrap().repositories, 1);
    assert!(store.repository(&name).is_ok());
}

#[test]
fn annotations_that_are_null_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (from, to) = (repository(&store, "app/a"), repository(&store, "app/b"));
    fill(&from);
    let layout = dir.path().join("layout");
    export_repository(&from, &layout, goes_on).unwrap();
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join(INDEX)).unwrap()).unwrap();
    let listed = index["manifests"].as_array_mut().unwrap();
    let untagged = listed.iter_mut().find(|one| one.get("annotations").is_none()).unwrap();
    untagged["annotations"] = serde_json::Value::Null;
    fs::write(layout.join(INDEX), index.to_string()).unwrap();
    assert_eq!(import(&to, &store, &layout).manifests.new, 5);
}

#[test]
fn everything_is_exported_and_content_that_several_have_is_linked() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let plain = store.put("plain", Algorithm::Sha512).unwrap().digest;
    let names = ["app", "app/blobs", "app/blobs/sha256", "app/index.json"];
    for name in names {
        fill(&repository(&store, name));
    }
    repository(&store, "app/empty");
    let to = dir.path().join("to");
    let report = export_all(&store, &to, goes_on).unwrap();
    assert_eq!((report.repositories, report.manifests, report.tags, report.skipped.count()), (5, 20, 12, 0));
    assert_eq!(report.left_behind, None);
    assert_eq!(fs::read_to_string(to.join("blobs/sha512").join(plain.hex())).unwrap(), "plain");
    let layer = Digest::of(Algorithm::Sha256, b"amd").hex();
    assert_eq!(fs::metadata(to.join("blobs/sha256").join(&layer)).unwrap().nlink(), 5);
    let other = Options::new().create(true).open(dir.path().join("other")).unwrap();
    for name in names {
        let dir = to.join("repositories").join(name.replace('/', "+"));
        assert_eq!(fs::read(dir.join("blobs/sha256").join(&layer)).unwrap(), b"amd");
        let report = import(&repository(&other, name), &other, &dir);
        assert_eq!((report.manifests.new, report.tags.new, report.skipped.count()), (5, 3, 0));
    }
    let empty = import(&repository(&other, "app/empty"), &other, &to.join("repositories/app+empty"));
    assert_eq!(empty.manifests.new, 0);
    assert!(matches!(export_all(&store, &to, goes_on), Err(TransferError::File { .. })), "it is not empty");
}

#[test]
fn an_export_that_fails_or_is_stopped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    fill(&repository(&store, "app/a"));
    let to = dir.path().join("to");
    for most in 0..20 {
        let stops =
            |progress: Progress| if progress.items < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        assert!(matches!(export_all(&store, &to, stops), Err(TransferError::Stopped)), "{most}");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    }
}

#[test]
fn what_is_damaged_is_reported_and_all_else_exported() {
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new().create(true).inline_max(0).open(dir.path().join("store")).unwrap();
    let app = repository(&store, "app/a");
    fill(&app);
    let damaged = app.put(vec![7; 100_000], Algorithm::Sha256).unwrap().digest;
    store.close().unwrap();
    let mut dirs = vec![dir.path().join("store/segments")];
    while let Some(path) = dirs.pop() {
        if path.is_dir() {
            dirs.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if fs::metadata(&path).unwrap().len() > 100_000 {
            let mut bytes = fs::read(&path).unwrap();
            bytes[90_000] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let store = Store::open(dir.path().join("store")).unwrap();
    let to = dir.path().join("to");
    let report = export_all(&store, &to, goes_on).unwrap();
    let skipped: Vec<_> = report.skipped.listed().iter().map(|one| (&*one.repository, one.what.clone())).collect();
    assert_eq!(skipped, [("", damaged.to_string()), ("app/a", damaged.to_string())]);
    assert!(!to.join("blobs/sha256").join(damaged.hex()).exists());
    assert_eq!((report.manifests, report.blobs), (5, 5));
}

#[test]
fn documents_come_back_with_their_repository_and_what_is_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (from, to) = (repository(&store, "app/a"), repository(&store, "app/b"));
    fill(&from);
    from.set_document("policy", "{\"a\":\n1}", ExpectDocument::Any).unwrap();
    from.set_document("binary", [0xff, 0, b'\n'], ExpectDocument::Any).unwrap();
    from.set_document("resource tags", "[]", ExpectDocument::Any).unwrap();
    to.set_document("resource tags", "[1]", ExpectDocument::Any).unwrap();
    let (one, all) = (dir.path().join("one"), dir.path().join("all"));
    assert_eq!(export_repository(&from, &one, goes_on).unwrap().documents, 3);
    assert_eq!(export_all(&store, &all, goes_on).unwrap().documents, 4);
    let report = import(&to, &store, &one);
    assert_eq!((report.documents.new, report.documents.existing, report.skipped.count()), (2, 1, 0));
    let content = |name: &str| to.document(name).unwrap().unwrap().content;
    assert_eq!(
        [content("policy"), content("binary"), content("resource tags")],
        [&b"{\"a\":\n1}"[..], &[0xff, 0, b'\n'], b"[1]"]
    );
    let report = import(&repository(&store, "app/c"), &store, &all.join("repositories/app+a"));
    assert_eq!(report.documents.new, 3);
    // Lines that say nothing cost themselves.
    let good = r#"{"document":"new","text":"x"}"#;
    let bad = ["[]", "{}", "", r#"{"document":"a\n","text":""}"#, r#"{"document":"a","hex":"abc"}"#];
    let long = "x".repeat(7 << 20);
    for (number, lines) in [(5, format!("{}\n{good}", bad.join("\n"))), (1, format!("{good}\n{long}\n{good}\n"))] {
        fs::write(one.join("strongroom.jsonl"), lines).unwrap();
        let to = repository(&store, &format!("app/bad-{number}"));
        let report = import(&to, &store, &one);
        assert_eq!((report.documents.new, report.skipped.count()), (1, number), "{:?}", report.skipped.listed());
        assert_eq!(to.document("new").unwrap().unwrap().content, "x");
    }
}

#[test]
fn archived_images_are_archived_where_they_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (from, to) = (repository(&store, "app/a"), repository(&store, "app/b"));
    let [amd, arm, index, signature, untagged] = fill(&from);
    for digest in [index, untagged] {
        from.set_storage_class(&digest, StorageClass::Archive).unwrap();
    }
    export_repository(&from, &dir.path().join("layout"), goes_on).unwrap();
    assert_eq!(import(&to, &store, &dir.path().join("layout")).skipped.count(), 0);
    let is_archived = |digest: Digest| to.manifest_info(&digest.into()).unwrap().storage_class == StorageClass::Archive;
    assert_eq!([amd, arm, index, signature, untagged].map(is_archived), [true, true, true, false, true]);
}
