//! Storage classes.

use serde_json::{Value, json};
use strongroom::{Algorithm, Digest};

use crate::api::{ACCOUNT, REPOSITORY, by_digest, by_tag, image_id, manifest, registry};
use crate::server::Server;

fn update(server: &Server, id: &Value, class: &str) -> Value {
    server.ok("UpdateImageStorageClass", json!({ "imageId": id, "targetStorageClass": class }))
}

#[test]
fn an_archived_image_is_kept_and_not_pulled_until_it_is_restored() {
    let server = registry();
    let digest = server.push_image_of("v1");
    let archived = update(&server, &by_tag("v1"), "ARCHIVE");
    let expected = json!({
        "registryId": ACCOUNT, "repositoryName": REPOSITORY, "imageId": image_id(&digest, "v1"),
        "imageStatus": "ARCHIVED",
    });
    assert_eq!(archived, expected);
    let path = format!("/v2/{REPOSITORY}/manifests/v1");
    assert_eq!(server.get(&path).error(), (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(server.send("HEAD", &path, &[], &[]).status, 404);
    let pulled = server.ok("BatchGetImage", json!({ "imageIds": [by_tag("v1")] }));
    assert_eq!((&pulled["images"], &pulled["failures"][0]["failureCode"]), (&json!([]), &json!("ImageNotFound")));
    assert_eq!(update(&server, &by_digest(&digest), "ARCHIVE")["imageStatus"], "ARCHIVED");
    assert_eq!(update(&server, &by_digest(&digest), "STANDARD")["imageStatus"], "ACTIVE");
    assert_eq!(server.pull("v1"), 200);
    let [detail] = server.all("DescribeImages", "imageDetails", &json!({})).concat().try_into().unwrap();
    assert!(detail["lastActivatedAt"].as_f64().unwrap() >= detail["lastArchivedAt"].as_f64().unwrap());
}

#[test]
fn an_archived_image_that_is_pushed_again_is_restored() {
    let server = registry();
    let document = manifest(&server, "{}");
    let put = json!({ "imageManifest": document, "imageTag": "v1" });
    server.ok("PutImage", put.clone());
    server.archive(&by_tag("v1"));
    server.ok("PutImage", put.clone());
    assert_eq!(server.pull("v1"), 200);
    assert_eq!(server.error_of("PutImage", put), "ImageAlreadyExistsException");
}

#[test]
fn an_index_is_archived_with_the_images_that_it_alone_holds() {
    let server = registry();
    let (own, shared) = (server.push_image_of("own"), server.push_image_of("shared"));
    let index = server.push_index("all", &[own, shared]);
    server.push_index("other", &[shared]);
    let input = json!({ "imageId": by_digest(&own), "targetStorageClass": "ARCHIVE" });
    assert_eq!(server.error_of("UpdateImageStorageClass", input), "ImageStorageClassUpdateNotSupportedException");
    server.archive(&by_digest(&index));
    assert_eq!((server.pull("all"), server.pull("own"), server.pull("shared")), (404, 404, 200));
    update(&server, &by_tag("all"), "STANDARD");
    assert_eq!((server.pull("all"), server.pull("own")), (200, 200));
}

#[test]
fn an_image_that_is_not_there_is_not_archived() {
    let server = registry();
    let missing = by_digest(&Digest::of(Algorithm::Sha256, b"missing"));
    for (id, class, error) in [
        (missing, "ARCHIVE", "ImageNotFoundException"),
        (by_tag("no"), "STANDARD", "ImageNotFoundException"),
        (json!({}), "ARCHIVE", "InvalidParameterException"),
        (by_tag("no"), "COLD", "InvalidParameterException"),
    ] {
        let input = json!({ "imageId": id, "targetStorageClass": class });
        assert_eq!(server.error_of("UpdateImageStorageClass", input), error, "{id} {class}");
    }
    let elsewhere = json!({ "repositoryName": "no/such", "imageId": by_tag("v1"), "targetStorageClass": "ARCHIVE" });
    assert_eq!(server.error_of("UpdateImageStorageClass", elsewhere), "RepositoryNotFoundException");
}
