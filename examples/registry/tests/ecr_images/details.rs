//! Descriptions of images.

use serde_json::{Value, json};
use strongroom::{Algorithm, Digest};

use crate::api::{ACCOUNT, OF_IMAGE, REPOSITORY, by_digest, by_tag, image_id, registry};
use crate::common::registry::INDEX;
use crate::server::{Server, image};

fn details(server: &Server, input: Value) -> Vec<Value> {
    server.all("DescribeImages", "imageDetails", &input).concat()
}

#[test]
fn an_image_is_described_with_its_size_its_tags_and_its_times() {
    let server = registry();
    let layer = server.push_blob(REPOSITORY, &[7; 5000]);
    let mut document = image(server.push_blob(REPOSITORY, b"{}"), 2);
    let layer = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.to_string(), "size": 5000
    });
    document["layers"] = json!([layer]);
    let pushed = server.ok("PutImage", json!({ "imageManifest": document.to_string(), "imageTag": "v1" }));
    let digest: Digest = pushed["image"]["imageId"]["imageDigest"].as_str().unwrap().parse().unwrap();
    server.tag(&digest, "also");
    let (small, index) = (server.push_image_of("small"), server.push_index("all", &[digest]));
    let described = details(&server, json!({ "imageIds": [by_tag("v1")] }));
    let [detail] = described.as_slice() else { panic!("{described:?}") };
    let mut expected = json!({
        "registryId": ACCOUNT, "repositoryName": REPOSITORY, "imageDigest": digest.to_string(),
        "imageTags": ["also", "v1"], "imageSizeInBytes": 5002, "imageStatus": "ACTIVE",
        "imageManifestMediaType": OF_IMAGE, "artifactMediaType": "application/vnd.oci.image.config.v1+json",
    });
    for time in ["imagePushedAt", "lastRecordedPullTime"] {
        assert!(detail[time].as_f64().unwrap() > 1e9, "{detail}"); // in seconds; it was pulled by the helper
        expected[time] = detail[time].clone();
    }
    assert_eq!(*detail, expected);
    // An index is as large as the largest of its images.
    let [index] = details(&server, json!({ "imageIds": [by_digest(&index)] })).try_into().unwrap();
    assert_eq!((&index["imageSizeInBytes"], &index["imageManifestMediaType"]), (&json!(5002), &json!(INDEX)));
    assert!(index.get("lastRecordedPullTime").is_none() && index.get("lastArchivedAt").is_none(), "{index}");
    // Without a tag there is no list of them.
    server.ok("BatchDeleteImage", json!({ "imageIds": [by_tag("v1")] }));
    server.tag(&small, "also");
    let [detail] = details(&server, json!({ "imageIds": [by_digest(&digest)] })).try_into().unwrap();
    assert!(detail.get("imageTags").is_none(), "{detail}");
}

#[test]
fn images_are_described_by_pages_or_by_name() {
    let server = registry();
    let mut digests: Vec<Digest> = (0..7).map(|number| server.push_image_of(&format!("v{number}"))).collect();
    let (first, second) = (digests[0], digests[1]);
    digests.sort_unstable();
    let of = |details: Vec<Value>| details.iter().map(|detail| detail["imageDigest"].clone()).collect::<Vec<_>>();
    let all: Vec<Value> = digests.iter().map(|digest| json!(digest.to_string())).collect();
    for limit in [1, 3, 7, 1000] {
        let pages = server.all("DescribeImages", "imageDetails", &json!({ "maxResults": limit }));
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit));
        assert_eq!(of(pages.concat()), all);
    }
    // Each once, in the order of their first names.
    let ids = json!([by_tag("v1"), by_digest(&first), image_id(&second, "v1"), by_tag("v0")]);
    let named = of(details(&server, json!({ "imageIds": ids })));
    assert_eq!(named, [json!(second.to_string()), json!(first.to_string())]);
    for member in ["maxResults", "nextToken"] {
        let mut input = json!({ "imageIds": [by_tag("v1")] });
        input[member] = if member == "maxResults" { json!(5) } else { json!("token") };
        assert_eq!(server.error_of("DescribeImages", input), "InvalidParameterException");
    }
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let server = registry();
    let (one, missing) = (server.push_image_of("v1"), Digest::of(Algorithm::Sha256, b"missing"));
    server.push_image_of("v2");
    let not_found = |digest: &str, tag: &str| {
        let message = format!(
            "The image with imageId {{imageDigest:'{digest}', imageTag:'{tag}'}} does not exist within the repository \
             with name '{REPOSITORY}' in the registry with id '{ACCOUNT}'"
        );
        ("ImageNotFoundException".to_owned(), message)
    };
    for (id, digest, tag) in [
        (by_tag("no"), "null".to_owned(), "no"),
        (by_digest(&missing), missing.to_string(), "null"),
        (image_id(&one, "v2"), one.to_string(), "v2"),
        (image_id(&one, "no"), one.to_string(), "no"),
    ] {
        let found = server.fails("DescribeImages", json!({ "imageIds": [by_tag("v1"), id] }));
        assert_eq!(found, not_found(&digest, tag));
    }
    for id in [json!({}), json!({ "imageDigest": "sha256:00" }), json!({ "imageTag": "-" })] {
        assert_eq!(server.error_of("DescribeImages", json!({ "imageIds": [id] })), "InvalidParameterException");
    }
    let elsewhere = json!({ "repositoryName": "no/such" });
    assert_eq!(server.error_of("DescribeImages", elsewhere), "RepositoryNotFoundException");
}

#[test]
fn only_images_of_the_status_that_is_asked_for_are_described() {
    let server = registry();
    let (active, archived) = (server.push_image_of("v1"), server.push_image_of("v2"));
    server.archive(&by_digest(&archived));
    let of = |filter: Value| {
        let details = details(&server, json!({ "filter": filter }));
        details.iter().map(|detail| detail["imageDigest"].as_str().unwrap().parse().unwrap()).collect::<Vec<Digest>>()
    };
    assert_eq!(of(json!({})), [active]);
    assert_eq!(of(json!({ "imageStatus": "ARCHIVED" })), [archived]);
    assert_eq!(of(json!({ "imageStatus": "ANY", "tagStatus": "UNTAGGED" })), []);
    assert_eq!(of(json!({ "imageStatus": "ANY", "tagStatus": "TAGGED" })).len(), 2);
    // By name it is described whatever it is.
    let [detail] = details(&server, json!({ "imageIds": [by_tag("v2")] })).try_into().unwrap();
    assert_eq!(detail["imageStatus"], "ARCHIVED");
    assert!(detail["lastArchivedAt"].as_f64().unwrap() >= detail["imagePushedAt"].as_f64().unwrap());
    let active = json!({ "imageIds": [by_tag("v2")], "filter": { "imageStatus": "ACTIVE" } });
    assert!(details(&server, active).is_empty());
}
