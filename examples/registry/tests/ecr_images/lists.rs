//! Lists of images, and pages of them.

use serde_json::{Value, json};
use strongroom::Digest;

use crate::api::{by_digest, by_tag, image_id, registry};
use crate::server::Server;

/// Images with tags, in the order in which they are listed: each tag of the first number twice, and one without a tag.
fn fill(server: &Server, count: usize) -> Vec<Value> {
    let mut images: Vec<(Digest, Vec<String>)> = (0..count)
        .map(|number| {
            let (tag, other) = (format!("v{number}"), format!("also-{number}"));
            let digest = server.push_image_of(&tag);
            server.tag(&digest, &other);
            (digest, vec![other, tag])
        })
        .collect();
    let untagged = server.push_image_of("moves");
    server.tag(&images[0].0, "moves");
    images[0].1.insert(1, "moves".to_owned());
    images.push((untagged, Vec::new()));
    images.sort_by_key(|(digest, _)| *digest);
    let entry = |(digest, tags): &(Digest, Vec<String>)| match tags.as_slice() {
        [] => vec![by_digest(digest)],
        tags => tags.iter().map(|tag| image_id(digest, tag)).collect(),
    };
    images.iter().flat_map(entry).collect()
}

fn list(server: &Server, input: Value) -> Vec<Value> {
    server.all("ListImages", "imageIds", &input).concat()
}

#[test]
fn each_tag_is_listed_once_and_each_image_without_tags() {
    let server = registry();
    assert_eq!(server.ok("ListImages", json!({})), json!({ "imageIds": [] }));
    let all = fill(&server, 9);
    assert_eq!(all.len(), 20);
    for limit in [1, 2, 3, 7, 19, 20, 1000] {
        let pages = server.all("ListImages", "imageIds", &json!({ "maxResults": limit }));
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit), "{limit}: {pages:?}");
        assert_eq!(pages.concat(), all, "{limit}");
    }
    let tagged = list(&server, json!({ "filter": { "tagStatus": "TAGGED" }, "maxResults": 4 }));
    assert_eq!(tagged, all.iter().filter(|id| id.get("imageTag").is_some()).cloned().collect::<Vec<_>>());
    let untagged = list(&server, json!({ "filter": { "tagStatus": "UNTAGGED" }, "maxResults": 4 }));
    assert_eq!(untagged, all.iter().filter(|id| id.get("imageTag").is_none()).cloned().collect::<Vec<_>>());
}

#[test]
fn what_is_there_all_along_is_listed_once_whatever_comes_and_goes() {
    let server = registry();
    let all = fill(&server, 6);
    for cut in 1..all.len() {
        // The page ends behind an entry, whose tag or image goes then, and comes back.
        let first = server.ok("ListImages", json!({ "maxResults": cut }));
        let last = first["imageIds"][cut - 1].clone();
        let digest: Digest = last["imageDigest"].as_str().unwrap().parse().unwrap();
        let manifest = server.ok("BatchGetImage", json!({ "imageIds": [by_digest(&digest)] }))["images"][0].clone();
        server.ok("BatchDeleteImage", json!({ "imageIds": [last] }));
        let rest = list(&server, json!({ "maxResults": 2, "nextToken": first["nextToken"] }));
        assert_eq!(rest, all[cut..], "{cut}");
        // With another tag, which comes before, it is as if it had been there late.
        let mut again = json!({ "imageManifest": manifest["imageManifest"] });
        if let Some(tag) = last.get("imageTag") {
            again["imageTag"] = tag.clone();
        }
        server.ok("PutImage", again);
        assert_eq!(list(&server, json!({})), all, "{cut}");
    }
}

#[test]
fn archived_images_are_listed_where_they_are_asked_for() {
    let server = registry();
    let (active, archived) = (server.push_image_of("v1"), server.push_image_of("v2"));
    server.archive(&by_tag("v2"));
    let of = |status: &str| {
        let mut ids = list(&server, json!({ "filter": { "imageStatus": status } }));
        ids.sort_by_key(|id| id["imageTag"].as_str().unwrap().to_owned());
        ids
    };
    assert_eq!(list(&server, json!({})), [image_id(&active, "v1")]);
    assert_eq!(of("ACTIVE"), [image_id(&active, "v1")]);
    assert_eq!(of("ARCHIVED"), [image_id(&archived, "v2")]);
    assert_eq!(of("ANY"), [image_id(&active, "v1"), image_id(&archived, "v2")]);
    assert!(of("ACTIVATING").is_empty());
}

#[test]
fn a_token_is_good_for_the_list_that_gave_it() {
    let server = registry();
    fill(&server, 2);
    let token = server.ok("ListImages", json!({ "maxResults": 1 }))["nextToken"].clone();
    server.push_image("team/other", "v1", "{}");
    let elsewhere = json!({ "repositoryName": "team/other", "nextToken": token });
    for (operation, input) in [
        ("ListImages", json!({ "nextToken": "made up" })),
        ("ListImages", elsewhere),
        ("DescribeImages", json!({ "nextToken": token })),
    ] {
        let (kind, message) = server.fails(operation, input);
        assert_eq!(kind, "InvalidParameterException");
        assert!(message.starts_with("Invalid parameter at 'nextToken'"), "{message}");
    }
    let elsewhere = json!({ "repositoryName": "no/such" });
    assert_eq!(server.error_of("ListImages", elsewhere), "RepositoryNotFoundException");
}
