//! Layers: in parts, in order, of the length and the digest that they should have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use strongroom::{Algorithm, Digest};

use crate::api::{ACCOUNT, REPOSITORY, registry};
use crate::common::Random;
use crate::server::{Server, image};

const MIB: usize = 1 << 20;

fn begin(server: &Server) -> String {
    let begun = server.ok("InitiateLayerUpload", json!({}));
    assert_eq!(begun["partSize"], 10 * MIB);
    let id = begun["uploadId"].as_str().unwrap().to_owned();
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12]);
    id
}

fn part(id: &str, first: usize, content: &[u8]) -> Value {
    json!({
        "uploadId": id, "partFirstByte": first, "partLastByte": (first + content.len()).saturating_sub(1),
        "layerPartBlob": STANDARD.encode(content),
    })
}

fn completed(id: &str, digest: &Digest) -> Value {
    json!({ "uploadId": id, "layerDigests": [digest.to_string()] })
}

#[test]
fn a_layer_comes_in_parts_and_is_then_available() {
    let server = registry();
    let content = Random(1).bytes(5 * MIB + 1000);
    let digest = Digest::of(Algorithm::Sha256, &content);
    let id = begin(&server);
    let (first, second) = content.split_at(5 * MIB);
    let taken = server.ok("UploadLayerPart", part(&id, 0, first));
    let expected = json!({
        "registryId": ACCOUNT, "repositoryName": REPOSITORY, "uploadId": id, "lastByteReceived": 5 * MIB - 1
    });
    assert_eq!(taken, expected);
    // Ids are UUIDs, whose digits are of either case.
    server.ok("UploadLayerPart", part(&id.to_uppercase(), 5 * MIB, second));
    let done = server.ok("CompleteLayerUpload", completed(&id, &digest));
    assert_eq!((&done["layerDigest"], &done["uploadId"]), (&json!(digest.to_string()), &json!(id)));

    let missing = Digest::of(Algorithm::Sha256, b"missing");
    let digests = json!([digest.to_string(), missing.to_string(), "", "sha256:12", "md5:00"]);
    let checked = server.ok("BatchCheckLayerAvailability", json!({ "layerDigests": digests }));
    let layers = json!([
        { "layerDigest": digest.to_string(), "layerAvailability": "AVAILABLE", "layerSize": content.len() },
        { "layerDigest": missing.to_string(), "layerAvailability": "UNAVAILABLE" },
    ]);
    assert_eq!(checked["layers"], layers);
    let codes: Vec<_> = checked["failures"].as_array().unwrap().iter().map(|failure| &failure["failureCode"]).collect();
    assert_eq!(codes, ["MissingLayerDigest", "InvalidLayerDigest", "InvalidLayerDigest"]);
    assert_eq!(server.get(&format!("/v2/{REPOSITORY}/blobs/{digest}")).body, content);
}

#[test]
fn a_part_that_does_not_follow_the_last_is_refused_with_the_byte_to_go_on_behind() {
    let server = registry();
    let id = begin(&server);
    for (first, last) in [(1, 3), (0, 1), (0, 3), (2, 1)] {
        let mut input = part(&id, first, b"abc");
        input["partLastByte"] = json!(last);
        let (status, error) = server.ecr("UploadLayerPart", input);
        assert_eq!((status, &error["__type"]), (400, &json!("InvalidLayerPartException")), "{error}");
        assert!(error.get("lastValidByteReceived").is_none(), "{error}");
    }
    assert_eq!(server.error_of("UploadLayerPart", part(&id, 0, b"")), "InvalidLayerPartException");
    server.ok("UploadLayerPart", part(&id, 0, b"abc"));
    // Again, as after an answer that did not arrive.
    let (_, error) = server.ecr("UploadLayerPart", part(&id, 0, b"abc"));
    assert_eq!(error["lastValidByteReceived"], 2);
    assert_eq!((&error["uploadId"], &error["repositoryName"]), (&json!(id), &json!(REPOSITORY)));
    let mut broken = part(&id, 3, b"def");
    broken["layerPartBlob"] = json!("ZGV*");
    assert_eq!(server.error_of("UploadLayerPart", broken), "SerializationException");
    // Nothing of what was refused was taken.
    server.ok("CompleteLayerUpload", completed(&id, &Digest::of(Algorithm::Sha256, b"abc")));
}

#[test]
fn only_the_last_part_may_be_short() {
    let server = registry();
    let id = begin(&server);
    server.ok("UploadLayerPart", part(&id, 0, b"short"));
    server.ok("UploadLayerPart", part(&id, 5, b", and more"));
    let digest = Digest::of(Algorithm::Sha256, b"short, and more");
    assert_eq!(server.error_of("CompleteLayerUpload", completed(&id, &digest)), "LayerPartTooSmallException");
    assert_eq!(server.error_of("CompleteLayerUpload", completed(&id, &digest)), "UploadNotFoundException");
}

#[test]
fn what_is_no_upload_or_has_no_content_or_another_digest_becomes_no_layer() {
    let server = registry();
    let (content, other) = (Digest::of(Algorithm::Sha256, b"content"), Digest::of(Algorithm::Sha256, b"other"));
    let unknown = "00000000-0000-0000-0000-000000000000";
    assert_eq!(server.error_of("UploadLayerPart", part(unknown, 0, b"content")), "UploadNotFoundException");
    assert_eq!(server.error_of("CompleteLayerUpload", completed(unknown, &content)), "UploadNotFoundException");
    let id = begin(&server);
    assert_eq!(server.error_of("CompleteLayerUpload", completed(&id, &content)), "EmptyUploadException");
    server.ok("UploadLayerPart", part(&id, 0, b"content"));
    for digests in [json!(["sha256:00"]), json!([content.to_string(), other.to_string()])] {
        let input = json!({ "uploadId": id, "layerDigests": digests });
        assert_eq!(server.error_of("CompleteLayerUpload", input), "InvalidParameterException");
    }
    assert_eq!(server.error_of("CompleteLayerUpload", completed(&id, &other)), "InvalidLayerException");
    assert_eq!(server.error_of("UploadLayerPart", part(&id, 7, b"more")), "UploadNotFoundException");
    // An upload is one of its repository alone.
    let id = begin(&server);
    let mut input = part(&id, 0, b"content");
    input["repositoryName"] = json!("team/other");
    assert_eq!(server.error_of("UploadLayerPart", input.clone()), "RepositoryNotFoundException");
    server.push_blob("team/other", b"a blob");
    assert_eq!(server.error_of("UploadLayerPart", input), "UploadNotFoundException");
}

#[test]
fn a_layer_that_the_repository_has_is_not_pushed_twice() {
    let server = registry();
    let digest = Digest::of(Algorithm::Sha256, b"content");
    for error in [None, Some("LayerAlreadyExistsException")] {
        let id = begin(&server);
        server.ok("UploadLayerPart", part(&id, 0, b"content"));
        match error {
            None => drop(server.ok("CompleteLayerUpload", completed(&id, &digest))),
            Some(error) => assert_eq!(server.error_of("CompleteLayerUpload", completed(&id, &digest)), error),
        }
        // Once more, as after an answer that did not arrive.
        assert_eq!(server.error_of("CompleteLayerUpload", completed(&id, &digest)), "LayerAlreadyExistsException");
    }
}

#[test]
fn layers_of_images_alone_are_read_by_an_address() {
    let server = registry();
    let digest = server.push_blob(REPOSITORY, b"a config");
    let layer = |digest: &str| json!({ "layerDigest": digest });
    let of = digest.to_string();
    assert_eq!(server.error_of("GetDownloadUrlForLayer", layer(&of)), "LayerInaccessibleException");
    let missing = Digest::of(Algorithm::Sha256, b"missing").to_string();
    assert_eq!(server.error_of("GetDownloadUrlForLayer", layer(&missing)), "LayersNotFoundException");
    assert_eq!(server.error_of("GetDownloadUrlForLayer", layer("sha256:00")), "LayersNotFoundException");
    assert_eq!(server.push_manifest(REPOSITORY, "v1", &image(digest, 8)).status, 201);
    let given = server.ok("GetDownloadUrlForLayer", layer(&of));
    let path = given["downloadUrl"].as_str().unwrap().strip_prefix("http://registry").unwrap();
    assert_eq!((server.get(path).body.as_slice(), &given["layerDigest"]), (b"a config".as_slice(), &json!(of)));
}

#[test]
fn nothing_is_created_by_layers_of_a_repository_that_is_not_there() {
    let server = registry();
    let digest = Digest::of(Algorithm::Sha256, b"content").to_string();
    let id = "00000000-0000-0000-0000-000000000000";
    for (operation, input) in [
        ("BatchCheckLayerAvailability", json!({ "layerDigests": [digest] })),
        ("InitiateLayerUpload", json!({})),
        ("UploadLayerPart", part(id, 0, b"content")),
        ("CompleteLayerUpload", json!({ "uploadId": id, "layerDigests": [digest] })),
        ("GetDownloadUrlForLayer", json!({ "layerDigest": digest })),
    ] {
        let mut input = input;
        input["repositoryName"] = json!("no/such");
        let (kind, message) = server.fails(operation, input);
        let expected = format!("The repository with name 'no/such' does not exist in the registry with id '{ACCOUNT}'");
        assert_eq!((kind.as_str(), message), ("RepositoryNotFoundException", expected), "{operation}");
    }
    assert_eq!(server.get("/v2/_catalog").json()["repositories"], json!([REPOSITORY]));
}
