//! Previews.

use strongroom::Algorithm;

use super::*;
use crate::api::{ACCOUNT, by_digest, by_tag, registry};
use crate::server::image;

#[test]
fn a_preview_shows_each_image_with_what_is_done_to_it_and_changes_nothing() {
    let server = registry();
    let images = push(&server, &tags(0..4));
    let policy = keep(2, EXPIRE);
    let preview = server.preview(Some(&policy));
    let result = |n: usize| {
        let pushed = server.ok("DescribeImages", json!({ "imageIds": [by_digest(&images[n])] }));
        json!({
            "imageTags": [format!("v{n:02}")], "imageDigest": images[n].to_string(), "action": { "type": "EXPIRE" },
            "imagePushedAt": pushed["imageDetails"][0]["imagePushedAt"], "appliedRulePriority": 3,
            "storageClass": "STANDARD",
        })
    };
    let expected = json!({
        "registryId": ACCOUNT, "repositoryName": REPOSITORY, "lifecyclePolicyText": policy, "status": "COMPLETE",
        "previewResults": [result(0), result(1)],
        "summary": { "expiringImageTotalCount": 2, "transitioningImageTotalCounts": [] },
    });
    assert_eq!(preview, expected);
    assert_eq!(server.left(), tags(0..4));
    // Images that are named: those of them that something is done to.
    let ids = json!([by_tag("v01"), by_tag("v03"), by_tag("none"), by_digest(&images[0])]);
    let named = server.ok("GetLifecyclePolicyPreview", json!({ "imageIds": ids }));
    assert_eq!(named["previewResults"], json!([result(1), result(0)]));

    server.set_policy(&keep(3, ARCHIVE));
    let preview = server.preview(None);
    let action = json!({ "type": "TRANSITION", "targetStorageClass": "ARCHIVE" });
    assert_eq!(preview["previewResults"][0]["action"], action);
    let counts = json!([{ "targetStorageClass": "ARCHIVE", "imageTotalCount": 1 }]);
    assert_eq!(preview["summary"], json!({ "expiringImageTotalCount": 0, "transitioningImageTotalCounts": counts }));
}

#[test]
fn a_preview_is_read_in_pages_of_one_preview_and_by_the_status_of_tags() {
    let server = registry();
    let untagged = image(server.push_blob(REPOSITORY, b"{}"), 2);
    let digest = Digest::of(Algorithm::Sha256, untagged.to_string().as_bytes());
    assert_eq!(server.push_manifest(REPOSITORY, &digest.to_string(), &untagged).status, 201);
    push(&server, &tags(0..8));
    let policy = keep(2, EXPIRE);
    server.preview(Some(&policy));
    let all = |input: Value| server.all("GetLifecyclePolicyPreview", "previewResults", &input);
    let whole = all(json!({})).concat();
    assert_eq!(whole.len(), 7);
    let pages = all(json!({ "maxResults": 3 }));
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(pages.concat(), whole);
    // What was deleted since is left out, and each other is there once.
    let first = server.ok("GetLifecyclePolicyPreview", json!({ "maxResults": 2 }));
    let gone = &whole[3]["imageDigest"];
    server.ok("BatchDeleteImage", json!({ "imageIds": [{ "imageDigest": gone }] }));
    let rest = all(json!({ "nextToken": first["nextToken"] })).concat();
    assert_eq!(rest, [&whole[2..3], &whole[4..]].concat());
    for (status, count) in [("TAGGED", 5), ("UNTAGGED", 1), ("ANY", 6)] {
        assert_eq!(
            all(json!({ "filter": { "tagStatus": status }, "maxResults": 2 })).concat().len(),
            count,
            "{status}"
        );
    }
    // A token is good for the preview that gave it.
    server.preview(Some(&policy));
    let stale = json!({ "nextToken": first["nextToken"] });
    assert_eq!(server.error_of("GetLifecyclePolicyPreview", stale), "InvalidParameterException");
}

#[test]
fn a_preview_ends_with_its_repository() {
    let server = registry();
    let missing = "LifecyclePolicyPreviewNotFoundException";
    assert_eq!(server.error_of("GetLifecyclePolicyPreview", json!({})), missing);
    push(&server, &tags(0..3));
    server.preview(Some(&keep(1, EXPIRE)));
    server.ok("DeleteRepository", json!({ "force": true }));
    assert_eq!(server.error_of("GetLifecyclePolicyPreview", json!({})), "RepositoryNotFoundException");
    server.ok("CreateRepository", json!({}));
    assert_eq!(server.error_of("GetLifecyclePolicyPreview", json!({})), missing);
    assert_eq!(server.preview(Some(&keep(1, EXPIRE)))["summary"]["expiringImageTotalCount"], 0);
}

#[test]
fn many_previews_at_once_each_come_to_an_end() {
    let server = registry();
    let names: Vec<String> = (0..80).map(|n| format!("team/service-{n}")).collect();
    for name in &names {
        server.ok("CreateRepository", json!({ "repositoryName": name }));
    }
    let start = |name: &String| {
        let input = json!({ "repositoryName": name, "lifecyclePolicyText": keep(1, EXPIRE) });
        match server.ecr("StartLifecyclePolicyPreview", input) {
            (200, _) => true,
            (500, error) => {
                assert_eq!(error["__type"], "ServerException");
                false
            }
            other => panic!("{other:?}"),
        }
    };
    let started = std::thread::scope(|scope| {
        let threads = names.chunks(20).map(|some| scope.spawn(move || some.iter().filter(|name| start(name)).count()));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert!(started >= 64, "{started}");
    for name in &names {
        eventually(|| match server.ecr("GetLifecyclePolicyPreview", json!({ "repositoryName": name })) {
            (200, preview) => (preview["status"] == "COMPLETE").then_some(()),
            (400, error) => {
                assert_eq!(error["__type"], "LifecyclePolicyPreviewNotFoundException");
                Some(())
            }
            other => panic!("{other:?}"),
        });
    }
}
