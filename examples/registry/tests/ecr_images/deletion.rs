//! Deleting images.

use serde_json::{Value, json};
use strongroom::{Algorithm, Digest};

use crate::api::{OF_IMAGE, REPOSITORY, by_digest, by_tag, image_id, registry};
use crate::server::Server;

fn delete(server: &Server, ids: Value) -> (Value, Value) {
    let output = server.ok("BatchDeleteImage", json!({ "imageIds": ids }));
    (output["imageIds"].clone(), output["failures"].clone())
}

#[test]
fn a_tag_is_removed_and_the_last_one_takes_the_image_along() {
    let server = registry();
    let digest = server.push_image_of("v1");
    server.tag(&digest, "v2");
    server.tag(&digest, "v3");
    assert_eq!(delete(&server, json!([by_tag("v1")])), (json!([image_id(&digest, "v1")]), json!([])));
    assert_eq!((server.pull("v1"), server.pull("v2"), server.pull(&digest.to_string())), (404, 200, 200));
    // All that it has left, named at once, one of them twice and with the digest.
    let rest = json!([by_tag("v2"), image_id(&digest, "v3"), by_tag("v3")]);
    let deleted = json!([image_id(&digest, "v2"), image_id(&digest, "v3")]);
    assert_eq!(delete(&server, rest), (deleted, json!([])));
    assert_eq!(server.pull(&digest.to_string()), 404);
}

#[test]
fn an_image_is_deleted_by_its_digest_with_all_its_tags() {
    let server = registry();
    let (digest, other) = (server.push_image_of("v1"), server.push_image_of("other"));
    server.tag(&digest, "v2");
    let deleted = json!([image_id(&digest, "v1"), image_id(&digest, "v2")]);
    assert_eq!(delete(&server, json!([by_digest(&digest), by_tag("v1")])), (deleted, json!([])));
    assert_eq!((server.pull("v1"), server.pull("v2"), server.pull("other")), (404, 404, 200));
    // One without tags is answered once.
    let untagged = server.push_image_of("other2");
    server.tag(&other, "other2");
    assert_eq!(delete(&server, json!([by_digest(&untagged)])), (json!([by_digest(&untagged)]), json!([])));
}

#[test]
fn an_index_is_deleted_before_its_images_or_together_with_them() {
    let server = registry();
    let (one, other) = (server.push_image_of("one"), server.push_image_of("other"));
    let index = server.push_index("all", &[one, other]);
    let (deleted, failures) = delete(&server, json!([by_digest(&one), by_tag("other")]));
    assert_eq!(deleted, json!([]));
    for (failure, id) in failures.as_array().unwrap().iter().zip([by_digest(&one), by_tag("other")]) {
        assert_eq!(failure["failureCode"], "ImageReferencedByManifestList");
        assert!([by_digest(&one), by_tag("other")].contains(&failure["imageId"]), "{failure} {id}");
    }
    assert_eq!((server.pull("one"), server.pull("other")), (200, 200));
    let (deleted, failures) = delete(&server, json!([by_digest(&one), by_tag("other"), by_tag("all")]));
    assert_eq!((deleted.as_array().unwrap().len(), failures), (3, json!([])));
    assert_eq!((server.pull(&index.to_string()), server.pull(&one.to_string())), (404, 404));
}

#[test]
fn each_image_that_is_not_deleted_is_a_failure_of_its_own() {
    let server = registry();
    let (one, other) = (server.push_image_of("v1"), server.push_image_of("v2"));
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    let ids = json!([
        {}, { "imageDigest": "sha256:12" }, { "imageTag": "-" }, image_id(&one, "v2"), by_digest(&missing),
        by_tag("v3"), by_tag("v2")
    ]);
    let (deleted, failures) = delete(&server, ids.clone());
    assert_eq!(deleted, json!([image_id(&other, "v2")]));
    let codes: Vec<_> = failures.as_array().unwrap().iter().map(|failure| failure["failureCode"].clone()).collect();
    let expected = [
        "MissingDigestAndTag",
        "InvalidImageDigest",
        "InvalidImageTag",
        "ImageTagDoesNotMatchDigest",
        "ImageNotFound",
        "ImageNotFound",
    ];
    assert_eq!(codes, expected);
    for (failure, id) in failures.as_array().unwrap().iter().zip(ids.as_array().unwrap()) {
        assert_eq!(&failure["imageId"], id);
    }
    assert_eq!((server.pull("v1"), server.pull("v2")), (200, 404));
    let elsewhere = json!({ "repositoryName": "no/such", "imageIds": [by_tag("v1")] });
    assert_eq!(server.error_of("BatchDeleteImage", elsewhere), "RepositoryNotFoundException");
}

#[test]
fn a_push_that_gives_an_image_another_tag_is_not_undone_by_the_deletion_of_its_last() {
    let server = registry();
    let digest = server.push_image_of("v0");
    let manifest = server.get(&format!("/v2/{REPOSITORY}/manifests/v0")).body;
    for number in 0..40 {
        let (old, new) = (format!("v{number}"), format!("v{}", number + 1));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let path = format!("/v2/{REPOSITORY}/manifests/{new}");
                assert_eq!(server.send("PUT", &path, &[("Content-Type", OF_IMAGE)], &manifest).status, 201);
            });
            let deleted = delete(&server, json!([by_tag(&old)]));
            assert_eq!(deleted, (json!([image_id(&digest, &old)]), json!([])));
        });
        assert_eq!((server.pull(&old), server.pull(&new)), (404, 200), "{number}");
    }
}
