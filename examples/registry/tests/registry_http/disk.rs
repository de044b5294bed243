//! Disks that are full, encrypted, or damaged, under the registry.

use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::json;
use strongroom::keys::{LocalKey, SecretKey};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Digest, Error, ScrubOptions};

use crate::common::Random;
use crate::error;
use crate::server::{Server, options};

#[test]
fn a_full_disk_refuses_pushes_and_goes_on_serving() {
    let server = Server::start();
    let digest = server.push_blob("repo", &[7; 50_000]);
    server.disk.set_capacity(Some(server.disk.used() + 100_000));
    let large = Random(4).bytes(3_000_000);
    let refused = server.send("PATCH", &server.upload("repo"), &[], &large);
    assert_eq!(refused.error(), error(507, "UNAVAILABLE"));
    assert_eq!(server.get(&format!("/v2/repo/blobs/{digest}")).body, [7; 50_000]);
    assert_eq!(server.get("/healthz").status, 200);
    server.disk.set_capacity(None);
    assert_eq!(server.send("PATCH", &server.upload("repo"), &[], &large).status, 202);
}

#[test]
fn on_an_encrypted_store_nothing_that_was_pushed_is_on_the_disk_and_all_of_it_is_served_after_a_restart() {
    let key = Arc::new(LocalKey::new(SecretKey::generate().unwrap()));
    let server = Server::encrypted(SimVfs::new(), key.clone());
    let layer = b"a layer of many secrets. ".repeat(1000);
    let digest = server.push_blob("secret/repository", &layer);
    let image = server.push_image("secret/repository", "secret-tag", r#"{"Env":["PASSWORD=secret"]}"#);
    let upload = server.upload("secret/repository");
    assert_eq!(server.send("PATCH", &upload, &[], &layer).status, 202);
    let disk = server.disk.clone();
    drop(server);

    let words = ["many secrets", "PASSWORD", "secret/repository", "secret-tag", &image.hex()];
    for file in disk.files() {
        let content = disk.read_file(&file).unwrap();
        let found = words.iter().find(|word| content.windows(word.len()).any(|bytes| bytes == word.as_bytes()));
        assert_eq!(found, None, "{}", file.display());
    }
    assert!(matches!(options(&disk).open("/store"), Err(Error::KeyRequired { .. })));

    let server = Server::encrypted(disk, key);
    assert!(server.get(&format!("/v2/secret/repository/blobs/{digest}")).body == layer);
    let pulled = server.get("/v2/secret/repository/manifests/secret-tag");
    assert_eq!(Digest::of(Algorithm::Sha256, &pulled.body), image);
    assert_eq!(server.get("/v2/secret/repository/tags/list").json()["tags"], json!(["secret-tag"]));
    assert_eq!(server.send("PUT", &format!("{upload}?digest={digest}"), &[], &[]).status, 201);
}

#[test]
fn what_is_known_to_be_damaged_is_pushed_again() {
    let (layer, config) = (Random(8).bytes(200_000), "{}");
    let disk = SimVfs::new();
    let server = Server::on(disk.clone(), |_| {});
    let digest = server.push_blob("a/b", &layer);
    let manifest = server.push_image("a/b", "v1", config);
    let document = server.get("/v2/a/b/manifests/v1").body;
    drop(server);
    let files = || disk.files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext != "run"));
    for (content, at) in [(&layer[..], 100_000), (&document[..], 20)] {
        let found = files().find_map(|path| {
            let bytes = disk.read_file(&path).unwrap();
            let head = &content[..32];
            Some((path, bytes.windows(32).position(|window| window == head)?))
        });
        let (path, begins) = found.unwrap();
        disk.flip_bit(path, 8 * (begins as u64 + at)).unwrap();
    }
    let server = Server::on(disk.clone(), |store| {
        let report = store.scrub(&ScrubOptions::new(), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(report.damaged_blobs, 2);
    });
    let head = |path: &str| server.send("HEAD", path, &[], &[]).status;
    let blob = format!("/v2/a/b/blobs/{digest}");
    // Who asks whether to push is told to; who pulls is not told that it never was there.
    assert_eq!((head(&blob), head("/v2/a/b/manifests/v1")), (404, 404));
    assert_ne!(server.get("/v2/a/b/manifests/v1").status, 404);
    let mount = |to: &str| {
        let path = format!("/v2/{to}/blobs/uploads/?mount={digest}&from=a/b");
        server.send("POST", &path, &[], &[]).status
    };
    assert_eq!((mount("c/d"), mount("a/b")), (202, 202), "an upload begins instead");
    assert_eq!(server.push_blob("a/b", &layer), digest);
    assert_eq!(server.push_image("a/b", "v2", config), manifest);
    assert_eq!((head(&blob), head("/v2/a/b/manifests/v1"), mount("c/d")), (200, 200, 201));
    assert!(server.get(&blob).body == layer && server.get("/v2/a/b/manifests/v1").body == document);
}
