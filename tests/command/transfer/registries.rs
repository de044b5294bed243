//! Directories of other registries, and repositories as image layouts.

use std::fs;

use serde_json::Value;
use strongroom::{Algorithm, Digest};

use super::lab::Lab;
use crate::command::{assert_alike, refused, rows, strongroom};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Makes a storage directory with one image and a tag of it, and one that is gone.
fn make(lab: &Lab) -> Digest {
    let root = lab.path("from/docker/registry/v2");
    let of = |content: &str| Digest::of(Algorithm::Sha256, content.as_bytes());
    let write = |path: String, content: &str| {
        fs::create_dir_all(root.join(&path).parent().unwrap()).unwrap();
        fs::write(root.join(path), content).unwrap();
    };
    let put = |kind: &str, content: &str| {
        let digest = of(content);
        let hex = digest.hex();
        write(format!("blobs/sha256/{}/{hex}/data", &hex[..2]), content);
        write(format!("repositories/team/app/{kind}/sha256/{hex}/link"), &digest.to_string());
        digest
    };
    let config = format!(r#"{{"mediaType":"x/y","digest":"{}","size":2}}"#, put("_layers", "{}"));
    let layer = format!(r#"{{"mediaType":"x/z","digest":"{}","size":5}}"#, put("_layers", "layer"));
    let image = format!(r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[{layer}]}}"#);
    let digest = put("_manifests/revisions", &image);
    for (tag, digest) in [("v1", digest), ("gone", of("gone"))] {
        write(format!("repositories/team/app/_manifests/tags/{tag}/current/link"), &digest.to_string());
    }
    write("repositories/team/app/_uploads/0/data".into(), "");
    digest
}

#[test]
fn a_storage_directory_of_another_registry_is_imported_and_its_repositories_exported() {
    let lab = Lab::new();
    let digest = make(&lab).to_string();
    let from = lab.text("from");
    // The tag whose manifest is gone is what it can't import.
    let output = strongroom(&lab.data, &["import", "--from", "distribution", &from]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{printed}");
    for words in ["1 repositories", "2 new", "gone: it names", "1 unfinished uploads"] {
        assert!(printed.contains(words), "{printed}");
    }
    let output = strongroom(&lab.data, &["--json", "import", "--from", "distribution", &from]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&report["blobs"]["existing"], &report["manifests"]["new"]), (&2.into(), &0.into()));
    assert_eq!(
        (&report["skipped"][0]["what"], &report["skipped"][0]["repository"]),
        (&"gone".into(), &"team/app".into())
    );
    fs::remove_dir_all(lab.path("from/docker/registry/v2/repositories/team/app/_manifests/tags/gone")).unwrap();
    fs::write(lab.path("from/docker/registry/v2/repositories/stray"), "").unwrap();
    let report = &rows(&lab.data, &["import", "--from", "distribution", &from])[0];
    assert_eq!((&report["skipped_count"], &report["uploads"]), (&1.into(), &1.into()));

    let [one, all] = ["one", "all"].map(|name| lab.text(name));
    let report = &rows(&lab.data, &["export", "--repository", "team/app", &one])[0];
    assert_eq!((&report["manifests"], &report["tags"]), (&1.into(), &1.into()));
    assert!(fs::read_to_string(lab.path("one/index.json")).unwrap().contains(&digest));
    assert!(lab.ok(&["export", "--all", &all]).contains("1 repositories, 1 manifests, 1 tags, 2 blobs"));
    assert_alike(&lab.path("one"), &lab.path("all/repositories/team+app"));

    lab.ok(&["import", "--repository", "team/copy", &one]);
    lab.ok(&["export", "--repository", "team/copy", &lab.text("copy")]);
    assert_alike(&lab.path("one"), &lab.path("copy"));
    lab.assert_outside_is_untouched();
}

#[test]
fn what_an_import_or_export_is_of_is_one_thing() {
    let lab = Lab::new();
    let (from, to) = (lab.text("from"), lab.text("to"));
    fs::create_dir(&from).unwrap();
    refused(&lab.data, &["import", "--from", "distribution", &from], 1, &["docker/registry/v2"]);
    refused(&lab.data, &["import", "--from", "distribution", "--name", "x", &from], 2, &["--name"]);
    refused(&lab.data, &["import", "--repository", "team/app", &from], 1, &["no image layout"]);
    refused(&lab.data, &["import", "--repository", "Team", &from], 2, &["Team"]);
    refused(&lab.data, &["export", "--repository", "team/none", &to], 3, &["team/none"]);
    refused(&lab.data, &["export", "--all", "name", &to], 2, &["folder alone"]);
    refused(&lab.data, &["export", &to], 2, &["a name and a folder"]);
    refused(&lab.data, &["export", "--all", "--repository", "team/app", &to], 2, &["cannot be used with"]);
}
