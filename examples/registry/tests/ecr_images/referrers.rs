//! What refers to an image.

use serde_json::{Value, json};
use strongroom::{Algorithm, Digest};

use crate::api::{REPOSITORY, by_digest, registry};
use crate::common::registry::IMAGE;
use crate::server::{Server, image};

/// Pushes an artifact of a type that refers to an image.
fn refer(server: &Server, subject: &Digest, number: usize, artifact_type: &str) -> Value {
    let mut artifact = image(server.push_blob(REPOSITORY, b"{}"), 2);
    artifact["artifactType"] = json!(artifact_type);
    artifact["subject"] = json!({ "mediaType": IMAGE, "digest": subject.to_string(), "size": 1 });
    artifact["annotations"] = json!({ "number": number.to_string() });
    let text = artifact.to_string();
    let subject_size = server.get(&format!("/v2/{REPOSITORY}/manifests/{subject}")).body.len();
    let text = text.replace("\"size\":1}", &format!("\"size\":{subject_size}}}"));
    let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
    let path = format!("/v2/{REPOSITORY}/manifests/{digest}");
    assert_eq!(server.send("PUT", &path, &[("Content-Type", IMAGE)], text.as_bytes()).status, 201);
    json!({
        "digest": digest.to_string(), "mediaType": IMAGE, "artifactType": artifact_type, "size": text.len(),
        "annotations": { "number": number.to_string() }, "artifactStatus": "ACTIVE",
    })
}

fn sorted(mut referrers: Vec<Value>) -> Vec<Value> {
    referrers.sort_by_key(|referrer| referrer["digest"].as_str().unwrap().to_owned());
    referrers
}

#[test]
fn referrers_are_listed_by_type_and_by_page() {
    let server = registry();
    let subject = server.push_image_of("v1");
    let of_type = |number: usize| ["application/signature", "application/sbom", "application/other"][number % 3];
    let all = sorted((0..9).map(|number| refer(&server, &subject, number, of_type(number))).collect());
    let list = |filter: Value, limit: usize| {
        let input = json!({ "subjectId": by_digest(&subject), "filter": filter, "maxResults": limit });
        sorted(server.all("ListImageReferrers", "referrers", &input).concat())
    };
    for limit in [1, 4, 9, 50] {
        assert_eq!(list(json!({}), limit), all);
        for types in [vec![of_type(0)], vec![of_type(0), of_type(1)], vec![]] {
            let is_asked = |one: &&Value| types.is_empty() || types.iter().any(|of| one["artifactType"] == *of);
            let expected: Vec<Value> = all.iter().filter(is_asked).cloned().collect();
            assert_eq!(list(json!({ "artifactTypes": types }), limit), expected);
        }
    }
    let archived: Digest = all[0]["digest"].as_str().unwrap().parse().unwrap();
    server.archive(&by_digest(&archived));
    assert_eq!(list(json!({}), 50), all[1..]);
    assert_eq!(list(json!({ "artifactStatus": "ARCHIVED" }), 50)[0]["artifactStatus"], "ARCHIVED");
    assert_eq!(list(json!({ "artifactStatus": "ANY" }), 50).len(), 9);
}

#[test]
fn an_image_that_nothing_refers_to_has_an_empty_list() {
    let server = registry();
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    let none = server.ok("ListImageReferrers", json!({ "subjectId": by_digest(&missing) }));
    assert_eq!(none, json!({ "referrers": [] }));
    for input in [json!({}), json!({ "subjectId": {} }), json!({ "subjectId": { "imageDigest": "sha256:0" } })] {
        assert_eq!(server.error_of("ListImageReferrers", input), "InvalidParameterException");
    }
    let elsewhere = json!({ "repositoryName": "no/such", "subjectId": by_digest(&missing) });
    assert_eq!(server.error_of("ListImageReferrers", elsewhere), "RepositoryNotFoundException");
}
