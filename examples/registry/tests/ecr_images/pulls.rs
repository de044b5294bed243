//! Pulling images.

use serde_json::{Value, json};
use strongroom::{Algorithm, Digest};

use crate::api::{OF_IMAGE, REPOSITORY, by_digest, by_tag, image_id, registry};
use crate::common::registry::INDEX;

fn codes(output: &Value) -> Vec<&str> {
    let failures = output["failures"].as_array().unwrap();
    failures.iter().map(|failure| failure["failureCode"].as_str().unwrap()).collect()
}

#[test]
fn images_are_pulled_by_tag_and_by_digest_as_they_were_pushed() {
    let server = registry();
    let (one, other) = (server.push_image_of("v1"), server.push_image_of("v2"));
    let ids = json!([by_tag("v1"), by_digest(&other), image_id(&other, "v2")]);
    let pulled = server.ok("BatchGetImage", json!({ "imageIds": ids }));
    assert_eq!(pulled["failures"], json!([]));
    let images = pulled["images"].as_array().unwrap();
    let given: Vec<_> = images.iter().map(|image| image["imageId"].clone()).collect();
    assert_eq!(given, [image_id(&one, "v1"), by_digest(&other), image_id(&other, "v2")]);
    for image in images {
        let document = image["imageManifest"].as_str().unwrap();
        let digest = Digest::of(Algorithm::Sha256, document.as_bytes()).to_string();
        assert_eq!(
            (&image["imageId"]["imageDigest"], &image["imageManifestMediaType"]),
            (&json!(digest), &json!(OF_IMAGE))
        );
    }
}

#[test]
fn each_image_that_is_not_pulled_is_a_failure_of_its_own() {
    let server = registry();
    let (one, other) = (server.push_image_of("v1"), server.push_image_of("v2"));
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    let ids = json!([
        {}, { "imageDigest": "sha256:12" }, { "imageTag": "-" }, image_id(&one, "v2"), by_digest(&missing),
        by_tag("v3"), image_id(&one, "v3"), by_digest(&other)
    ]);
    let pulled = server.ok("BatchGetImage", json!({ "imageIds": ids }));
    assert_eq!(pulled["images"].as_array().unwrap().len(), 1);
    let expected = [
        "MissingDigestAndTag",
        "InvalidImageDigest",
        "InvalidImageTag",
        "ImageTagDoesNotMatchDigest",
        "ImageNotFound",
        "ImageNotFound",
        "ImageNotFound",
    ];
    assert_eq!(codes(&pulled), expected);
    let failure = json!({
        "imageId": by_tag("v3"), "failureCode": "ImageNotFound", "failureReason": "Requested image not found"
    });
    assert_eq!(pulled["failures"][5], failure);
    let elsewhere = json!({ "repositoryName": "no/such", "imageIds": [by_tag("v1")] });
    assert_eq!(server.error_of("BatchGetImage", elsewhere), "RepositoryNotFoundException");
}

#[test]
fn only_what_is_of_an_accepted_type_is_pulled() {
    let server = registry();
    let one = server.push_image_of("v1");
    let index = server.push_index("all", &[one]);
    let ids = json!([by_digest(&one), by_digest(&index)]);
    for (accepted, found) in [(json!([INDEX]), vec![index]), (json!([INDEX, OF_IMAGE]), vec![one, index])] {
        let pulled = server.ok("BatchGetImage", json!({ "imageIds": ids, "acceptedMediaTypes": accepted }));
        let images: Vec<_> = pulled["images"].as_array().unwrap().iter().map(|image| &image["imageId"]).collect();
        assert_eq!(images, found.iter().map(by_digest).collect::<Vec<_>>().iter().collect::<Vec<_>>());
        assert_eq!(codes(&pulled).len(), 2 - found.len());
    }
}

#[test]
fn no_more_manifests_are_answered_at_once_than_memory_is_kept_for() {
    let server = registry();
    let config = server.push_blob(REPOSITORY, b"{}");
    let ids: Vec<_> = (0..4)
        .map(|number| {
            let mut image = crate::server::image(config, 2);
            image["annotations"] = json!({ "long": "\"".repeat(1 << 20), "number": number.to_string() });
            let answer = server.push_manifest(REPOSITORY, &format!("v{number}"), &image);
            assert_eq!(answer.status, 201);
            by_tag(&format!("v{number}"))
        })
        .collect();
    assert_eq!(server.ok("BatchGetImage", json!({ "imageIds": ids[..3] }))["images"].as_array().unwrap().len(), 3);
    assert_eq!(server.error_of("BatchGetImage", json!({ "imageIds": ids })), "LimitExceededException");
}
