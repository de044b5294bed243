//! Layers and images of public repositories.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use strongroom::{Algorithm, Digest};

use crate::api::{ACCOUNT, OF_IMAGE, by_digest, by_tag, image_id, registry};
use crate::server::{Server, image};

const NAME: &str = "base";

fn ok(server: &Server, operation: &str, input: Value) -> Value {
    let mut input = input;
    input["repositoryName"] = json!(NAME);
    let (status, output) = server.ecr_public(operation, input);
    assert_eq!(status, 200, "{operation}: {output}");
    output
}

fn fails(server: &Server, operation: &str, input: Value) -> Value {
    let mut input = input;
    input["repositoryName"] = json!(NAME);
    let (status, error) = server.ecr_public(operation, input);
    assert_eq!(status, 400, "{operation}: {error}");
    error["__type"].clone()
}

#[test]
fn an_image_of_a_public_repository_is_pushed_described_and_deleted() {
    let server = registry();
    ok(&server, "CreateRepository", json!({}));
    let config = Digest::of(Algorithm::Sha256, b"{}");
    let digests = json!([config.to_string()]);
    let checked = ok(&server, "BatchCheckLayerAvailability", json!({ "layerDigests": digests }));
    assert_eq!(checked["layers"][0]["layerAvailability"], "UNAVAILABLE");
    let id = ok(&server, "InitiateLayerUpload", json!({}))["uploadId"].clone();
    let part = json!({ "uploadId": id, "partFirstByte": 0, "partLastByte": 1, "layerPartBlob": STANDARD.encode("{}") });
    assert_eq!(ok(&server, "UploadLayerPart", part)["repositoryName"], NAME);
    ok(&server, "CompleteLayerUpload", json!({ "uploadId": id, "layerDigests": digests }));

    let document = image(config, 2).to_string();
    let digest = Digest::of(Algorithm::Sha256, document.as_bytes());
    for tag in ["v1", "v2"] {
        let put = json!({ "imageManifest": document, "imageTag": tag });
        let pushed = ok(&server, "PutImage", put.clone());
        assert_eq!(
            (&pushed["image"]["imageId"], &pushed["image"]["repositoryName"]),
            (&image_id(&digest, tag), &json!(NAME))
        );
        assert_eq!(fails(&server, "PutImage", put), "ImageAlreadyExistsException");
    }
    assert_eq!(server.get(&format!("/v2/public/{NAME}/manifests/v1")).status, 200);

    let described = ok(&server, "DescribeImages", json!({}))["imageDetails"].clone();
    let expected = json!([{
        "registryId": ACCOUNT, "repositoryName": NAME, "imageDigest": digest.to_string(), "imageTags": ["v1", "v2"],
        "imageSizeInBytes": 2, "imagePushedAt": described[0]["imagePushedAt"], "imageManifestMediaType": OF_IMAGE,
        "artifactMediaType": "application/vnd.oci.image.config.v1+json",
    }]);
    assert_eq!(described, expected);
    let first = ok(&server, "DescribeImageTags", json!({ "maxResults": 1 }));
    let next = ok(&server, "DescribeImageTags", json!({ "maxResults": 1, "nextToken": first["nextToken"] }));
    assert!(next.get("nextToken").is_none(), "{next}");
    for (page, tag) in [(first, "v1"), (next, "v2")] {
        let detail = &page["imageTagDetails"][0];
        assert!(detail["createdAt"].as_f64().unwrap() > 1e9, "{page}");
        assert_eq!((&detail["imageTag"], &detail["imageDetail"]["imageSizeInBytes"]), (&json!(tag), &json!(2)));
        assert_eq!(detail["imageDetail"]["imageDigest"], digest.to_string());
    }

    let deleted = ok(&server, "BatchDeleteImage", json!({ "imageIds": [by_digest(&digest), by_tag("no")] }));
    assert_eq!(deleted["imageIds"], json!([image_id(&digest, "v1"), image_id(&digest, "v2")]));
    assert_eq!(deleted["failures"][0]["failureCode"], "ImageNotFound");
    let named = json!({ "imageIds": [by_tag("v1")] });
    assert_eq!(fails(&server, "DescribeImages", named), "ImageNotFoundException");
}

#[test]
fn each_service_has_its_own_repositories() {
    let server = registry();
    ok(&server, "CreateRepository", json!({}));
    for name in [NAME.to_owned(), format!("public/{NAME}")] {
        let input = json!({ "repositoryName": name });
        assert_eq!(server.error_of("ListImages", input), "RepositoryNotFoundException", "{name}");
    }
    let input = json!({ "repositoryName": "team/app" });
    assert_eq!(server.ecr_public("DescribeImages", input).1["__type"], "RepositoryNotFoundException");
}
