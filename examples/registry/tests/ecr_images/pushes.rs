//! Pushing images: what is there is told, what is missing is named, and nothing is created.

use serde_json::{Value, json};
use strongroom::registry::{RepositorySettings, TagMutability};
use strongroom::{Algorithm, Digest};
use strongroom_registry::http::Indexes;

use crate::api::{ACCOUNT, OF_IMAGE, REPOSITORY, index, manifest, registry, registry_with};
use crate::common::registry::INDEX;
use crate::server::image;

fn put(document: &str, tag: &str) -> Value {
    json!({ "imageManifest": document, "imageTag": tag })
}

#[test]
fn an_image_is_pushed_as_it_is_written() {
    let server = registry();
    // Spaces and the order of members are part of what has the digest.
    let document = format!("{}\n ", manifest(&server, "{}"));
    let digest = Digest::of(Algorithm::Sha256, document.as_bytes());
    let pushed = server.ok("PutImage", put(&document, "v1"));
    let expected = json!({
        "registryId": ACCOUNT, "repositoryName": REPOSITORY,
        "imageId": { "imageDigest": digest.to_string(), "imageTag": "v1" },
        "imageManifest": document, "imageManifestMediaType": OF_IMAGE,
    });
    assert_eq!(pushed, json!({ "image": expected }));
    let pulled = server.get(&format!("/v2/{REPOSITORY}/manifests/v1"));
    assert_eq!((pulled.body.as_slice(), pulled.header("content-type")), (document.as_bytes(), Some(OF_IMAGE)));
}

#[test]
fn an_image_that_is_there_under_its_tag_is_not_pushed_again() {
    let server = registry();
    let document = manifest(&server, "{}");
    let digest = Digest::of(Algorithm::Sha256, document.as_bytes());
    server.ok("PutImage", put(&document, "v1"));
    let exists = |tag: &str| {
        format!(
            "Image with digest '{digest}' and tag '{tag}' already exists in the repository with name '{REPOSITORY}' \
             in registry with id '{ACCOUNT}'"
        )
    };
    let again = server.fails("PutImage", put(&document, "v1"));
    assert_eq!(again, ("ImageAlreadyExistsException".to_owned(), exists("v1")));
    let untagged = server.fails("PutImage", json!({ "imageManifest": document }));
    assert_eq!(untagged, ("ImageAlreadyExistsException".to_owned(), exists("null")));
    server.ok("PutImage", put(&document, "v2"));
    // A tag moves, and the image that it leaves stays.
    server.ok("PutImage", put(&manifest(&server, "[]"), "v1"));
    assert_eq!((server.pull("v1"), server.pull("v2"), server.pull(&digest.to_string())), (200, 200, 200));
}

#[test]
fn an_immutable_tag_stays() {
    let settings = RepositorySettings::new().mutability(TagMutability::Immutable);
    let server = registry_with(Indexes::Whole, settings);
    let (one, other) = (manifest(&server, "{}"), manifest(&server, "[]"));
    server.ok("PutImage", put(&one, "v1"));
    let message = format!(
        "The image tag 'v1' already exists in the '{REPOSITORY}' repository and cannot be overwritten because the tag \
         is immutable."
    );
    assert_eq!(server.fails("PutImage", put(&other, "v1")), ("ImageTagAlreadyExistsException".to_owned(), message));
    assert_eq!(server.error_of("PutImage", put(&one, "v1")), "ImageAlreadyExistsException");
    server.ok("PutImage", put(&other, "v2"));
}

#[test]
fn what_an_image_references_must_be_there() {
    let server = registry();
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    let required = |what: &str| {
        format!(
            "{what} with digests '[{missing}]' required for pushing image into repository with name '{REPOSITORY}' in \
             the registry with id '{ACCOUNT}' do not exist"
        )
    };
    let refused = server.fails("PutImage", put(&image(missing, 7).to_string(), "v1"));
    assert_eq!(refused, ("LayersNotFoundException".to_owned(), required("Layers")));
    let mut listed = index(&server, &[]);
    listed["manifests"] = json!([{ "mediaType": OF_IMAGE, "digest": missing.to_string(), "size": 7 }]);
    let refused = server.fails("PutImage", put(&listed.to_string(), "v1"));
    assert_eq!(refused, ("ReferencedImagesNotFoundException".to_owned(), required("Images")));
    // Where indexes may be sparse, they may be so here, too.
    let sparse = registry_with(Indexes::Sparse, RepositorySettings::new());
    sparse.ok("PutImage", put(&listed.to_string(), "v1"));
}

#[test]
fn a_digest_that_is_given_must_be_that_of_the_manifest() {
    let server = registry();
    let document = manifest(&server, "{}");
    let with = |digest: &str| json!({ "imageManifest": document, "imageDigest": digest });
    let other = Digest::of(Algorithm::Sha256, b"other").to_string();
    assert_eq!(server.error_of("PutImage", with(&other)), "ImageDigestDoesNotMatchException");
    assert_eq!(server.error_of("PutImage", with("sha256:00")), "InvalidParameterException");
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, document.as_bytes()).to_string();
        let pushed = server.ok("PutImage", with(&digest));
        assert_eq!(pushed["image"]["imageId"], json!({ "imageDigest": digest }));
    }
}

#[test]
fn a_media_type_is_given_where_the_manifest_has_none() {
    let server = registry();
    let mut document = image(server.push_blob(REPOSITORY, b"{}"), 2);
    document.as_object_mut().unwrap().remove("mediaType");
    let without = json!({ "imageManifest": document.to_string(), "imageTag": "v1" });
    let (kind, message) = server.fails("PutImage", without.clone());
    assert_eq!(kind, "InvalidParameterException");
    assert!(message.contains("'imageManifestMediaType'"), "{message}");
    let mut with = without;
    with["imageManifestMediaType"] = json!(OF_IMAGE);
    assert_eq!(server.ok("PutImage", with)["image"]["imageManifestMediaType"], OF_IMAGE);
    let other = json!({ "imageManifest": manifest(&server, "[]"), "imageManifestMediaType": INDEX });
    assert_eq!(server.error_of("PutImage", other), "InvalidParameterException");
}

#[test]
fn what_is_no_manifest_or_no_tag_is_refused() {
    let server = registry();
    for document in ["{", "[]", r#"{"mediaType":1}"#, "\u{0}"] {
        let (kind, message) = server.fails("PutImage", put(document, "v1"));
        assert_eq!(kind, "InvalidParameterException", "{document}: {message}");
    }
    let message = "Invalid parameter at 'imageManifest' failed to satisfy constraint: 'Invalid JSON syntax'";
    assert_eq!(server.fails("PutImage", put("{", "v1")).1, message);
    let unknown = json!({ "imageManifest": "{}", "imageManifestMediaType": "text/plain", "imageTag": "v1" });
    assert_eq!(server.error_of("PutImage", unknown), "InvalidParameterException");
    for tag in ["-v1", "a b", &"v".repeat(129)] {
        let (kind, message) = server.fails("PutImage", put(&manifest(&server, "{}"), tag));
        assert_eq!(kind, "InvalidParameterException");
        assert!(message.contains("Invalid parameter at 'imageTag'"), "{message}");
    }
    let mut elsewhere = put(&manifest(&server, "{}"), "v1");
    elsewhere["repositoryName"] = json!("no/such");
    assert_eq!(server.error_of("PutImage", elsewhere), "RepositoryNotFoundException");
}
