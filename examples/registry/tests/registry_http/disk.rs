//! Disks that are full, encrypted, or damaged, under the registry.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use strongroom::keys::{KeyContext, KeyError, KeyProvider, LocalKey, SecretKey};
use strongroom::registry::RepositorySettings;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Error, ScrubOptions};

use crate::common::Random;
use crate::error;
use crate::server::{Server, options, settings};

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

/// A provider that refuses the keys of the domain 1, unless it is told not to.
#[derive(Debug)]
struct Refusing(LocalKey, AtomicBool);

impl KeyProvider for Refusing {
    fn key_id(&self) -> Result<String, KeyError> {
        self.0.key_id()
    }

    fn wrap(&self, key_id: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError> {
        self.0.wrap(key_id, key, context)
    }

    fn unwrap(&self, key_id: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
        if context.domain == 1 && self.1.load(Ordering::Relaxed) {
            return Err(KeyError::Denied { reason: "disabled by account 1234".into() });
        }
        self.0.unwrap(key_id, wrapped, context)
    }
}

#[test]
fn a_tenant_whose_key_is_disabled_gets_errors_and_no_other_tenant_does() {
    let key = Arc::new(Refusing(LocalKey::new(SecretKey::generate().unwrap()), AtomicBool::new(false)));
    let disk = SimVfs::new();
    let store = options(&disk).key_provider(key.clone()).open("/store").unwrap();
    store.create_domain(&"tenant".parse().unwrap(), None).unwrap();
    let tenants = RepositorySettings::new().domain("tenant".parse().unwrap());
    store.create_repository(&"tenant/app".parse().unwrap(), tenants).unwrap();
    store.close().unwrap();
    let server = Server::encrypted(disk.clone(), key.clone());
    let layer = server.push_blob("tenant/app", b"the tenant's layer");
    server.push_image("tenant/app", "v1", "{}");
    server.push_image("other/app", "v1", "{}");
    drop(server);
    key.1.store(true, Ordering::Relaxed);
    let clock = Clock::manual();
    let store = options(&disk).key_provider(key.clone()).clock(clock.clone()).open("/store").unwrap();
    let server = Server::serve_with(disk, store, settings());
    for path in ["manifests/v1", "tags/list", &format!("blobs/{layer}")] {
        let refused = server.get(&format!("/v2/tenant/app/{path}"));
        assert_eq!(refused.error(), error(503, "UNAVAILABLE"), "{path}");
        assert!(!String::from_utf8_lossy(&refused.body).contains("1234"));
    }
    assert_eq!(server.send("POST", "/v2/tenant/app/blobs/uploads/", &[], &[]).status, 503);
    assert_eq!(server.get("/v2/other/app/manifests/v1").status, 200);
    assert_eq!(server.get("/v2/nobody/knows/manifests/v1").status, 404);
    assert_eq!(server.get("/v2/_catalog").json()["repositories"], json!(["other/app"]));
    assert_eq!(server.get("/healthz").status, 200);
    server.push_image("other/new", "v1", "{}");
    let mount = format!("/v2/other/new/blobs/uploads/?mount={layer}&from=tenant/app");
    assert_eq!(server.send("POST", &mount, &[], &[]).status, 202, "it is pushed, then");
    key.1.store(false, Ordering::Relaxed);
    // A request has the provider asked beside it, at most every five seconds; one of the next finds the answer.
    let status = || {
        clock.advance(Duration::from_secs(5));
        server.get("/v2/tenant/app/manifests/v1").status
    };
    assert_eq!(std::iter::repeat_with(status).find(|status| *status != 503), Some(200));
    assert_eq!(server.get(&format!("/v2/tenant/app/blobs/{layer}")).body, b"the tenant's layer");
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
