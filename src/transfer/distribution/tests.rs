//! Storage directories as a registry leaves them, and as nobody should.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::clock::Clock;
use crate::digest::Algorithm;
use crate::error::Error;
use crate::oci::document::{OCI_INDEX, OCI_MANIFEST};
use crate::registry::Repository;
use crate::store::Options;
use crate::transfer::{Counts, Reason};

const SECRET: &str = "the secret of somebody else";

/// A storage directory that is made, and a store to import it into.
struct Lab {
    dir: tempfile::TempDir,
    store: Store,
}

fn of(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn digest_path(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm().name(), digest.hex())
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Options::new().create(true).open(dir.path().join("store")).unwrap();
        fs::create_dir_all(dir.path().join("from/docker/registry/v2/repositories")).unwrap();
        fs::create_dir_all(dir.path().join("from/docker/registry/v2/blobs")).unwrap();
        fs::write(dir.path().join("secret"), SECRET).unwrap();
        Self { dir, store }
    }

    fn from(&self) -> PathBuf {
        self.dir.path().join("from")
    }

    fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = self.from().join("docker/registry/v2").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn data(&self, digest: &Digest, content: &str) -> PathBuf {
        let hex = digest.hex();
        self.write(&format!("blobs/{}/{}/{hex}/data", digest.algorithm().name(), &hex[..2]), content)
    }

    fn link(&self, path: &str, digest: &Digest) -> PathBuf {
        self.write(&format!("repositories/{path}/link"), &digest.to_string())
    }

    fn blob(&self, repository: &str, content: &str) -> Digest {
        let digest = of(content);
        self.data(&digest, content);
        self.link(&format!("{repository}/_layers/{}", digest_path(&digest)), &digest);
        digest
    }

    fn manifest(&self, repository: &str, content: &str) -> Digest {
        let digest = of(content);
        self.data(&digest, content);
        self.link(&format!("{repository}/_manifests/revisions/{}", digest_path(&digest)), &digest);
        digest
    }

    fn tag(&self, repository: &str, tag: &str, digest: &Digest) {
        self.link(&format!("{repository}/_manifests/tags/{tag}/current"), digest);
        self.link(&format!("{repository}/_manifests/tags/{tag}/index/{}", digest_path(digest)), digest);
    }

    /// An image of a repository, with a layer of its own.
    fn image(&self, repository: &str, layer: &str, more: &str) -> Digest {
        let (config, layer) = (self.blob(repository, "{}"), self.blob(repository, layer));
        self.manifest(repository, &image(&config, &layer, more))
    }

    fn import(&self) -> RegistryImport {
        self.try_import().unwrap()
    }

    fn try_import(&self) -> Result<RegistryImport, TransferError> {
        import_distribution(&self.store, &self.from(), &RepositorySettings::new(), |_| ControlFlow::Continue(()))
    }

    fn repository(&self, name: &str) -> Repository {
        self.store.repository(&name.parse().unwrap()).unwrap()
    }

    fn tagged(&self, name: &str, tag: &str) -> Option<Digest> {
        self.repository(name).resolve(&tag.parse().unwrap()).ok().map(|info| info.digest)
    }
}

fn image(config: &Digest, layer: &Digest, more: &str) -> String {
    let layers = format!(r#"[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}"}}]"#);
    format!(r#"{{"schemaVersion":2,{more}"config":{{"mediaType":"x/y","digest":"{config}"}},"layers":{layers}}}"#)
}

fn index(children: &[Digest]) -> String {
    let listed: Vec<_> =
        children.iter().map(|child| format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{child}"}}"#)).collect();
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(","))
}

/// An index of indexes: their media type is in the descriptor.
fn outer(children: &[Digest]) -> String {
    index(children).replace(OCI_MANIFEST, OCI_INDEX)
}

fn counts(new: u64, existing: u64) -> Counts {
    Counts { new, existing }
}

fn skipped(report: &RegistryImport) -> Vec<(&str, &str, &Reason)> {
    assert_eq!(report.skipped.count(), report.skipped.listed().len() as u64);
    report.skipped.listed().iter().map(|one| (&*one.repository, &*one.what, &one.reason)).collect()
}

#[test]
fn repositories_with_all_that_is_in_them_are_imported_and_what_comes_later_is_added() {
    let lab = Lab::new();
    let docker = r#""mediaType":"application/vnd.docker.distribution.manifest.v2+json","#;
    let (amd, arm) = (lab.image("team/app", "amd", docker), lab.image("team/app", "arm", ""));
    let inner = lab.manifest("team/app", &index(&[amd, arm]));
    let outer = lab.manifest("team/app", &outer(&[inner]));
    let untagged = lab.image("team/app", "untagged", "");
    let signature = format!(r#""subject":{{"digest":"{inner}"}},"artifactType":"x/signature","#);
    let signature = lab.image("team/app", "signature", &signature);
    let other = lab.image("team", "amd", "");
    for (tag, digest) in [("v1", &outer), ("arm", &arm), ("latest", &outer)] {
        lab.tag("team/app", tag, digest);
    }
    lab.tag("team", "v1", &other);
    let sha512 = Digest::of(Algorithm::Sha512, b"by another digest");
    lab.data(&sha512, "by another digest");
    lab.link(&format!("team/_layers/{}", digest_path(&sha512)), &sha512);
    lab.write("repositories/team/_uploads/3f/data", "what came so far");
    for (kind, content) in [("_layers", "a deleted layer"), ("_manifests/revisions", "a deleted manifest")] {
        let link = lab.link(&format!("team/{kind}/{}", digest_path(&of(content))), &of(content));
        fs::remove_file(link).unwrap();
    }

    let report = lab.import();
    assert_eq!(skipped(&report), []);
    assert_eq!((report.repositories, report.uploads), (2, 1));
    assert_eq!((report.blobs, report.manifests, report.tags), (counts(8, 0), counts(7, 0), counts(4, 0)));
    let app = lab.repository("team/app");
    assert_eq!(lab.tagged("team/app", "v1"), Some(outer));
    assert_eq!(lab.tagged("team", "v1"), Some(other));
    for digest in [amd, arm, inner, outer, untagged, signature] {
        let manifest = app.get_manifest(&digest.into()).unwrap();
        assert_eq!(Digest::of(Algorithm::Sha256, &manifest.content), digest);
    }
    assert!(app.get_manifest(&amd.into()).unwrap().media_type.contains("docker"));
    assert_eq!(app.get_manifest(&outer.into()).unwrap().media_type, OCI_INDEX);
    assert!(matches!(app.delete_manifest(&inner), Err(Error::ManifestInUse { .. })), "the outer index holds it");
    assert!(matches!(app.remove_blob(&of("amd")), Err(Error::BlobInUse { .. })));
    let referrers = app.referrers(&inner, Some("x/signature"), None, 10).unwrap().items;
    assert_eq!(Vec::from_iter(referrers.iter().map(|one| one.digest)), [signature]);
    assert_eq!(lab.repository("team").get(&sha512).unwrap().bytes().unwrap(), "by another digest");
    assert!(app.get(&sha512).is_err(), "it is in the other repository alone");
    assert!(lab.store.verify(|_| {}).unwrap().findings.is_empty());

    let again = lab.import();
    assert_eq!((again.blobs, again.manifests, again.tags), (counts(0, 8), counts(0, 7), counts(0, 4)));
    let new = lab.image("team/app", "new", "");
    lab.tag("team/app", "latest", &new);
    let again = lab.import();
    assert_eq!((again.blobs, again.manifests, again.tags), (counts(1, 8), counts(1, 7), counts(1, 3)));
    assert_eq!(lab.tagged("team/app", "latest"), Some(new));
}

#[test]
fn its_root_is_found_where_it_may_be_and_nothing_else_is_taken_for_one() {
    let lab = Lab::new();
    lab.image("app/a", "layer", "");
    for from in ["from", "from/docker", "from/docker/registry/v2"] {
        let from = lab.dir.path().join(from);
        let settings = RepositorySettings::new();
        let report = import_distribution(&lab.store, &from, &settings, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(report.repositories, 1, "{from:?}");
    }
    fs::rename(lab.from(), lab.dir.path().join("aside")).unwrap();
    fs::create_dir(lab.from()).unwrap();
    assert!(matches!(lab.try_import(), Err(TransferError::Unsuitable { .. })));
    symlink(lab.dir.path().join("aside/docker"), lab.from().join("docker")).unwrap();
    assert!(matches!(lab.try_import(), Err(TransferError::Unsuitable { .. })), "links are not followed");
}

#[test]
fn what_is_missing_or_damaged_is_reported_and_the_rest_is_imported() {
    let lab = Lab::new();
    let good = lab.image("app/a", "good", "");
    let [missing, damaged] = ["missing", "damaged"].map(|layer| lab.image("app/a", layer, ""));
    for (tag, digest) in [("good", &good), ("missing", &missing), ("damaged", &damaged), ("gone", &of("gone"))] {
        lab.tag("app/a", tag, digest);
    }
    fs::remove_file(lab.data(&of("missing"), "")).unwrap();
    lab.data(&of("damaged"), "DAMAGED");
    let old = lab.manifest("app/a", r#"{"schemaVersion":1,"fsLayers":[]}"#);
    let bad = lab.manifest("app/a", "no manifest");
    let changed = of("changed");
    lab.manifest("app/a", "changed");
    lab.data(&changed, "CHANGED");
    let sparse = lab.manifest("app/a", &index(&[good, of("elsewhere")]));
    // It says that the repository has a blob, which another one has.
    lab.blob("app/b", "private");
    let stolen = lab.manifest("app/a", &image(&of("{}"), &of("private"), ""));

    let report = lab.import();
    let mut skipped = skipped(&report);
    skipped.sort_by_key(|(_, what, _)| what.to_owned());
    let reason = |what: &Digest| {
        let what = what.to_string();
        skipped.iter().find(|(_, skipped, _)| *skipped == what).map(|(_, _, reason)| Reason::clone(reason)).unwrap()
    };
    let lacks = |blob: &str| Reason::ReferencesMissing { count: 1, first: of(blob) };
    assert_eq!(reason(&of("missing")), Reason::Missing);
    assert_eq!(reason(&of("damaged")), Reason::WrongDigest { found: of("DAMAGED") });
    assert_eq!(reason(&missing), lacks("missing"));
    assert_eq!(reason(&damaged), lacks("damaged"));
    assert_eq!(reason(&stolen), lacks("private"));
    assert_eq!(reason(&old), Reason::OldManifest);
    assert!(matches!(reason(&bad), Reason::InvalidManifest { .. }));
    assert_eq!(reason(&changed), Reason::WrongDigest { found: of("CHANGED") });
    let tags: Vec<_> = skipped.iter().filter(|(_, what, _)| !what.contains(':')).map(|(_, what, _)| *what).collect();
    assert_eq!(tags, ["damaged", "gone", "missing"]);
    assert_eq!(skipped.len(), 11);
    assert_eq!(report.manifests, counts(2, 0));
    assert_eq!(lab.tagged("app/a", "good"), Some(good));
    assert!(lab.repository("app/a").get_manifest(&sparse.into()).is_ok(), "it is pulled for what is there");

    // What was missing is there now: a repeated import adds it.
    lab.data(&of("missing"), "missing");
    lab.image("app/a", "elsewhere", "");
    let again = lab.import();
    assert_eq!((again.manifests, lab.tagged("app/a", "missing")), (counts(2, 2), Some(missing)));
}

#[test]
fn what_a_repository_has_no_content_of_does_not_come_from_another_one() {
    let lab = Lab::new();
    let (dangling, deleted) = (of("dangling"), of("deleted"));
    for name in ["app/a", "app/c"] {
        lab.link(&format!("{name}/_layers/{}", digest_path(&dangling)), &dangling);
        fs::remove_file(lab.link(&format!("{name}/_layers/{}", digest_path(&deleted)), &deleted)).unwrap();
    }
    lab.blob("app/b", "deleted");
    let other = lab.store.create_repository(&"other".parse().unwrap(), RepositorySettings::new()).unwrap();
    other.put("dangling", Algorithm::Sha256).unwrap();
    for counts in [counts(1, 0), counts(0, 1)] {
        let report = lab.import();
        assert_eq!(report.blobs, counts, "that of app/b alone");
        let what = dangling.to_string();
        assert_eq!(skipped(&report), ["app/a", "app/c"].map(|name| (name, &*what, &Reason::Missing)));
    }
}

#[test]
fn an_index_holds_what_comes_after_it() {
    let lab = Lab::new();
    let later = image(&of("{}"), &of("later"), "");
    let list = lab.manifest("app/a", &index(&[of(&later)]));
    assert_eq!(lab.import().manifests, counts(1, 0));
    assert_eq!(lab.image("app/a", "later", ""), of(&later));
    assert_eq!(lab.import().manifests, counts(1, 1));
    assert!(matches!(lab.repository("app/a").delete_manifest(&of(&later)), Err(Error::ManifestInUse { .. })));
    assert!(lab.repository("app/a").get_manifest(&list.into()).is_ok());
}

#[test]
fn names_and_links_that_are_none_lead_nowhere() {
    let lab = Lab::new();
    let image = lab.image("app/a", "layer", "");
    lab.image("App/Big", "layer", "");
    lab.image("app/a__b---c..d", "layer", "");
    lab.tag("app/a", "-x", &image);
    lab.write("repositories/app/a/_manifests/tags/text/current/link", "../../../../../../secret");
    lab.write("repositories/app/a/_manifests/tags/long/current/link", &"a".repeat(1 << 20));
    lab.write("repositories/app/a/_manifests/tags/empty/current/link", "");
    fs::create_dir_all(lab.from().join("docker/registry/v2/repositories/app/a/_manifests/tags/none")).unwrap();
    lab.write("repositories/app/a/_layers/sha256/ab/link", "sha256:ab");
    lab.write("repositories/app/a/_layers/md5/00/link", "md5:00");
    lab.write("repositories/app/a/_more/file", "");
    lab.write("repositories/file", "");
    lab.write("repositories/app/a/_layers/file", "");
    // Data that is a link, a directory, a pipe, not readable.
    let secret = lab.dir.path().join("secret");
    let replace = |content: &str, make: &dyn Fn(&Path)| {
        let digest = lab.blob("app/a", content);
        let data = lab.data(&digest, content);
        fs::remove_file(&data).unwrap();
        make(&data);
    };
    replace(SECRET, &|data| symlink(&secret, data).unwrap());
    replace("dir", &|data| fs::create_dir(data).unwrap());
    replace("pipe", &|data| assert!(std::process::Command::new("mkfifo").arg(data).status().unwrap().success()));
    // One that says that it is longer than the disk.
    replace("huge", &|data| fs::File::create(data).unwrap().set_len(8 << 40).unwrap());
    // A tag whose directory is a link.
    let elsewhere = lab.dir.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("current")).unwrap();
    fs::write(elsewhere.join("current/link"), image.to_string()).unwrap();
    symlink(&elsewhere, lab.from().join("docker/registry/v2/repositories/app/a/_manifests/tags/through")).unwrap();
    // A repository that is a link to one.
    symlink("a", lab.from().join("docker/registry/v2/repositories/app/linked")).unwrap();

    let report = lab.import();
    let mut reasons: Vec<_> = skipped(&report).into_iter().map(|(_, what, reason)| (what, reason.clone())).collect();
    reasons.sort_by_key(|(what, _)| *what);
    let reason = |what: &str| reasons.iter().find(|(skipped, _)| skipped.ends_with(what)).unwrap().1.clone();
    for (what, expected) in [
        ("App/Big", Reason::InvalidName),
        ("a__b---c..d", Reason::InvalidName),
        ("-x", Reason::InvalidName),
        ("text", Reason::InvalidLink),
        ("long", Reason::InvalidLink),
        ("empty", Reason::InvalidLink),
        ("none", Reason::Missing),
        ("through", Reason::Missing),
        ("_layers/sha256/ab", Reason::Stray),
        ("_layers/md5/00", Reason::Stray),
        ("_more", Reason::Stray),
        ("_layers/file", Reason::Stray),
        ("repositories/file", Reason::Stray),
        ("app/linked", Reason::Stray),
        (&of(SECRET).to_string(), Reason::Missing),
        (&of("dir").to_string(), Reason::Missing),
        (&of("pipe").to_string(), Reason::Missing),
        (&of("huge").to_string(), Reason::NoSpace { len: 8 << 40 }),
    ] {
        assert_eq!(reason(what), expected, "{what}");
    }
    assert_eq!((report.repositories, report.manifests, report.tags), (1, counts(1, 0), counts(0, 0)));
    assert!(!lab.store.exists(&of(SECRET)).unwrap());
}

#[test]
fn what_stands_in_the_place_of_a_directory_is_reported() {
    let pipe = |path: &Path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    let link = |path: &Path| symlink("elsewhere", path).unwrap();
    let kinds: [&dyn Fn(&Path); 2] = [&pipe, &link];
    let places = [
        "_layers",
        "_layers/sha256",
        "_manifests",
        "_manifests/tags",
        "_manifests/revisions",
        "_manifests/revisions/sha256",
    ];
    for (place, make) in places.iter().flat_map(|place| kinds.map(|kind| (place, kind))) {
        let lab = Lab::new();
        let image = lab.image("app/a", "layer", "");
        lab.tag("app/a", "v1", &image);
        let path = lab.from().join("docker/registry/v2/repositories/app/a").join(place);
        fs::rename(&path, path.with_file_name("elsewhere")).unwrap();
        make(&path);
        let report = lab.import();
        let listed = skipped(&report);
        let is_told = |(name, what, reason): &(&str, &str, &Reason)| {
            *name == "app/a" && what.ends_with(place) && **reason == Reason::NoDirectory
        };
        assert!(listed.iter().any(is_told), "{place}: {listed:?}");
    }
}

#[test]
fn uploads_that_can_not_be_listed_do_not_end_the_import() {
    let lab = Lab::new();
    lab.image("app/a", "layer", "");
    let uploads = lab.from().join("docker/registry/v2/repositories/app/a/_uploads");
    fs::create_dir(&uploads).unwrap();
    fs::set_permissions(&uploads, fs::Permissions::from_mode(0o000)).unwrap();
    let report = lab.import();
    assert_eq!((report.uploads, report.manifests, report.skipped.count()), (0, counts(1, 0), 0));
}

#[test]
fn a_link_may_name_content_by_another_digest() {
    let lab = Lab::new();
    let (by512, by256) = (Digest::of(Algorithm::Sha512, b"layer"), of("layer"));
    lab.data(&by256, "layer");
    lab.link(&format!("app/a/_layers/{}", digest_path(&by512)), &by256);
    let wrong = of("another");
    lab.link(&format!("app/a/_layers/{}", digest_path(&wrong)), &by256);
    let report = lab.import();
    assert_eq!(skipped(&report), [("app/a", &*wrong.to_string(), &Reason::WrongDigest { found: by256 })]);
    assert_eq!(lab.repository("app/a").get(&by512).unwrap().bytes().unwrap(), "layer");
}

#[test]
fn indexes_in_indexes_are_pushed_from_the_inside_however_deep_they_are() {
    let lab = Lab::new();
    let mut last = lab.image("app/a", "layer", "");
    for _ in 0..300 {
        last = lab.manifest("app/a", &outer(&[last]));
    }
    // One that names itself: its content is another then.
    let own = of("itself");
    lab.manifest("app/a", "itself");
    lab.data(&own, &outer(&[own]));
    lab.tag("app/a", "deep", &last);
    let report = lab.import();
    assert_eq!((report.manifests, report.skipped.count()), (counts(301, 0), 1));
    assert_eq!(lab.tagged("app/a", "deep"), Some(last));
}

#[test]
fn an_import_that_was_stopped_goes_on_where_it_ended() {
    let lab = Lab::new();
    for number in 0..40 {
        let image = lab.image("app/a", &format!("layer {number}"), "");
        lab.tag("app/a", &format!("v{number}"), &image);
    }
    let done = AtomicU64::new(0);
    let stops = |progress: Progress| {
        done.store(progress.items, Ordering::Relaxed);
        if progress.items < 50 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let stopped = import_distribution(&lab.store, &lab.from(), &RepositorySettings::new(), stops);
    assert!(matches!(stopped, Err(TransferError::Stopped)));
    assert!(done.load(Ordering::Relaxed) < 80, "it ends soon");
    let report = lab.import();
    assert!(report.blobs.existing + report.manifests.existing >= 50, "{report:?}");
    assert_eq!(report.manifests.new + report.manifests.existing, 40);
    assert_eq!(report.tags.new + report.tags.existing, 40);
}

#[test]
fn what_is_damaged_in_the_store_is_repaired_and_tags_that_may_not_move_stay() {
    let lab = Lab::new();
    let (old, new) = (lab.image("app/a", "old", ""), lab.image("app/a", "new", ""));
    lab.tag("app/a", "v1", &old);
    lab.import();
    let settings = RepositorySettings::new().mutability(crate::oci::TagMutability::Immutable);
    lab.repository("app/a").set_settings(settings).unwrap();
    lab.tag("app/a", "v1", &new);
    let report = lab.import();
    assert_eq!(skipped(&report), [("app/a", "v1", &Reason::Immutable { digest: old })]);
    assert_eq!(lab.tagged("app/a", "v1"), Some(old));
}

#[test]
fn what_was_imported_outlives_collections() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual();
    let options = Options::new().create(true).clock(clock.clone());
    let lab = Lab { store: options.open(dir.path().join("store")).unwrap(), ..Lab::new() };
    let untagged = lab.image("app/a", "layer", "");
    lab.import();
    clock.advance(std::time::Duration::from_secs(1 << 20));
    lab.store.collect(&crate::gc::CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert!(lab.repository("app/a").get_manifest(&untagged.into()).is_ok());
    assert_eq!(lab.import().blobs, counts(0, 2));
}

#[test]
fn a_file_that_may_not_be_read_does_not_end_the_import() {
    let lab = Lab::new();
    let digest = lab.blob("app/a", "private");
    lab.blob("app/a", "public");
    let data = lab.data(&digest, "private");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o000)).unwrap();
    let report = lab.import();
    if fs::File::open(&data).is_ok() {
        return; // root reads all
    }
    assert!(matches!(skipped(&report)[..], [("app/a", _, Reason::Unreadable { .. })]));
    assert_eq!(report.blobs, counts(1, 0));
}
