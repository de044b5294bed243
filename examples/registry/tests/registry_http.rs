//! The registry of `examples/registry` over HTTP: what the OCI distribution specification and its conformance tests
//! want, and what clients do that go away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

#[allow(unexpected_cfgs, reason = "the features that it asks for are the crate's")]
#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "registry_http/disk.rs"]
mod disk;
#[path = "registry_http/hostile.rs"]
mod hostile;
#[path = "registry_http/server.rs"]
mod server;
#[path = "registry_http/shares.rs"]
mod shares;

use std::io::Write as _;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::Random;
use common::registry::{IMAGE, INDEX};
use serde_json::json;
use strongroom::registry::{RepositorySettings, TagMutability};
use strongroom::{Algorithm, Digest};
use strongroom_registry::http::{Creation, Indexes};

use server::{Answer, Server, image};

fn error(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn chunks_out_of_order_are_refused_with_the_place_to_go_on() {
    let server = Server::start();
    let content = Random(1).bytes(300_000);
    let digest = Digest::of(Algorithm::Sha256, &content);
    let upload = server.upload("a/b");
    let chunk = |method: &str, path: &str, from: usize, to: usize| {
        let range = format!("{from}-{}", to - 1);
        server.send(method, path, &[("Content-Range", &range)], &content[from..to])
    };
    for (from, to) in [(1, 10), (100_000, 200_000)] {
        let refused = chunk("PATCH", &upload, from, to);
        assert_eq!(refused.error(), error(416, "BLOB_UPLOAD_INVALID"));
        assert_eq!((refused.header("location"), refused.header("range")), (Some(upload.as_str()), Some("0-0")));
    }
    let taken = chunk("PATCH", &upload, 0, 100_000);
    assert_eq!((taken.status, taken.header("range")), (202, Some("0-99999")));
    assert_eq!(taken.header("docker-upload-uuid"), upload.rsplit('/').next());
    for (from, to) in [(0, 100_000), (100_001, 200_000), (99_999, 200_000)] {
        let refused = chunk("PATCH", &upload, from, to);
        assert_eq!((refused.status, refused.header("range")), (416, Some("0-99999")));
    }
    let status = server.get(&upload);
    assert_eq!((status.status, status.header("range")), (204, Some("0-99999")));
    assert_eq!(status.header("location"), Some(upload.as_str()));

    let finish = format!("{upload}?digest={digest}");
    assert_eq!(chunk("PUT", &finish, 200_000, 300_000).status, 416);
    assert_eq!(chunk("PATCH", &upload, 100_000, 200_000).status, 202);
    let done = chunk("PUT", &finish, 200_000, 300_000);
    assert_eq!(done.status, 201);
    let pulled = server.get(done.header("location").unwrap());
    assert!((pulled.status, pulled.body) == (200, content));
    // The answer may have been lost: asking again without a body is no error.
    assert_eq!(server.send("PUT", &finish, &[], &[]).status, 201);

    for (range, len, code) in
        [("0-9", 11, "SIZE_INVALID"), ("9-0", 1, "BLOB_UPLOAD_INVALID"), ("x", 1, "BLOB_UPLOAD_INVALID")]
    {
        let upload = server.upload("a/b");
        let refused = server.send("PATCH", &upload, &[("Content-Range", range)], &vec![0; len]);
        assert_eq!(refused.error(), error(400, code));
    }
}

#[test]
fn an_upload_whose_body_was_cut_off_goes_on_where_it_got_to() {
    let server = Server::start();
    let content = Random(2).bytes(3 << 20);
    let upload = server.upload("repo");
    let mut stream = server.begin("PATCH", &upload, &[], content.len());
    stream.write_all(&content[..1 << 20]).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    drop(stream);

    let begun = Instant::now();
    let offset = loop {
        let status = server.get(&upload);
        let last: usize = status.header("range").unwrap().strip_prefix("0-").unwrap().parse().unwrap();
        if last > 0 {
            break last + 1;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing of the upload was kept");
    };
    assert!(offset <= 1 << 20);
    assert_eq!(server.send("PATCH", &upload, &[], &content[offset..]).status, 202);
    let digest = Digest::of(Algorithm::Sha256, &content);
    assert_eq!(server.send("PUT", &format!("{upload}?digest={digest}"), &[], &[]).status, 201);
    assert!(server.get(&format!("/v2/repo/blobs/{digest}")).body == content);
}

#[test]
fn a_blob_is_pushed_in_each_way_there_is_by_each_algorithm() {
    let server = Server::start();
    for (n, algorithm) in [Algorithm::Sha256, Algorithm::Sha512].into_iter().enumerate() {
        for len in [0, 5, 5000] {
            let content = Random(n as u64).bytes(len);
            let digest = Digest::of(algorithm, &content);
            let check = |answer: Answer| {
                assert_eq!(answer.status, 201, "{answer:?}");
                assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
                let location = answer.header("location").unwrap();
                let pulled = server.get(location);
                assert_eq!(pulled.header("content-type"), Some("application/octet-stream"));
                assert!((pulled.status, &pulled.body) == (200, &content));
                let head = server.send("HEAD", location, &[], &[]);
                assert_eq!(head.header("content-length"), Some(len.to_string().as_str()));
                assert_eq!((head.status, head.body.len()), (200, 0));
                assert_eq!(server.send("DELETE", location, &[], &[]).status, 202);
                assert_eq!(server.get(location).error(), error(404, "BLOB_UNKNOWN"));
            };
            check(server.send("POST", &format!("/v2/r0/blobs/uploads/?digest={digest}"), &[], &content));
            check(server.send("PUT", &format!("{}?digest={digest}", server.upload("r0")), &[], &content));
            let begun = server.send("POST", &format!("/v2/r0/blobs/uploads?digest-algorithm={algorithm}"), &[], &[]);
            let upload = begun.header("location").unwrap();
            assert_eq!(server.send("PATCH", upload, &[], &content).status, 202);
            check(server.send("PUT", &format!("{upload}?digest={digest}"), &[], &[]));
        }
    }
    let refused = server.send("POST", "/v2/r0/blobs/uploads/?digest-algorithm=md5", &[], &[]);
    assert_eq!(refused.error(), error(400, "DIGEST_INVALID"));
}

#[test]
fn an_upload_is_ended_once_by_what_its_range_says_and_may_be_told_so_again() {
    let server = Server::start();
    let digest = Digest::of(Algorithm::Sha256, b"content");
    let upload = server.upload("repo");
    let finish = format!("{upload}?digest={digest}");
    let range = [("Content-Range", "0-6")];
    assert_eq!(server.send("PUT", &finish, &range, b"").error(), error(400, "SIZE_INVALID"), "nothing came");
    assert_eq!(server.send("PUT", &finish, &range, b"content").status, 201);
    // The answer did not arrive.
    assert_eq!(server.send("PUT", &finish, &range, b"content").status, 201);
    assert_eq!(server.send("PUT", &finish, &[], b"content").status, 201);
    assert_eq!(server.send("PUT", &finish, &[], b"").status, 201);
    let other = Digest::of(Algorithm::Sha256, b"other");
    let unknown = server.send("PUT", &format!("{upload}?digest={other}"), &[], b"other");
    assert_eq!(unknown.error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
}

#[test]
fn content_of_another_digest_is_refused_and_the_upload_is_over() {
    let server = Server::start();
    let other = Digest::of(Algorithm::Sha256, b"other");
    let upload = server.upload("repo");
    assert_eq!(server.send("PATCH", &upload, &[], b"content").status, 202);
    for missing in ["", "?digest=sha256:12"] {
        assert_eq!(server.send("PUT", &format!("{upload}{missing}"), &[], &[]).error(), error(400, "DIGEST_INVALID"));
    }
    let refused = server.send("PUT", &format!("{upload}?digest={other}"), &[], &[]);
    assert_eq!(refused.error(), error(400, "DIGEST_INVALID"));
    assert_eq!(server.get(&upload).error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
    let refused = server.send("POST", &format!("/v2/repo/blobs/uploads/?digest={other}"), &[], b"content");
    assert_eq!(refused.error(), error(400, "DIGEST_INVALID"));
    assert_eq!(server.get(&format!("/v2/repo/blobs/{other}")).status, 404);
}

#[test]
fn an_upload_that_is_given_up_is_gone() {
    let server = Server::start();
    let upload = server.upload("repo");
    assert_eq!(server.send("DELETE", &upload, &[], &[]).status, 204);
    for (method, path) in
        [("GET", upload.as_str()), ("PATCH", &upload), ("DELETE", &upload), ("GET", &format!("{upload}0"))]
    {
        assert_eq!(server.send(method, path, &[], &[]).error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
    }
}

#[test]
fn ranges_of_a_blob_are_those_of_rfc_9110() {
    let server = Server::start();
    let content = Random(3).bytes(2048);
    let path = format!("/v2/repo/blobs/{}", server.push_blob("repo", &content));
    let ranged = |range: &str| server.send("GET", &path, &[("Range", range)], &[]);
    for (range, from, to) in [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 2048),
        ("bytes=-500", 1548, 2048),
        ("bytes=2000-5000", 2000, 2048),
        ("bytes=0-0", 0, 1),
        ("bytes=-5000", 0, 2048),
        ("bytes=0-18446744073709551615", 0, 2048),
    ] {
        let answer = ranged(range);
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.header("content-range").unwrap(), format!("bytes {from}-{}/2048", to - 1));
        assert_eq!(answer.header("content-length").unwrap(), (to - from).to_string());
        assert!(answer.body == content[from..to], "{range}");
    }
    for range in ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0"] {
        let answer = ranged(range);
        assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */2048")), "{range}");
    }
    for range in ["bytes=0-1,5-6", "lines=1-2", "bytes=+1-2", "bytes=a-b", "bytes=99999999999999999999-"] {
        assert!(ranged(range).body == content, "{range}");
    }
    let tag = server.get(&path).header("etag").unwrap().to_owned();
    for (tag, status) in [(tag.as_str(), 206), ("\"another\"", 200)] {
        let answer = server.send("GET", &path, &[("Range", "bytes=0-1"), ("If-Range", tag)], &[]);
        assert_eq!(answer.status, status);
    }
}

#[test]
fn a_blob_is_mounted_where_it_is_and_uploaded_where_it_is_not() {
    let server = Server::start();
    let digest = server.push_blob("from/here", b"content");
    let other = Digest::of(Algorithm::Sha256, b"other");
    let post = |query: String| server.send("POST", &format!("/v2/to/there/blobs/uploads/?{query}"), &[], &[]);
    let upload = post(format!("mount={digest}"));
    assert_eq!(upload.status, 202, "not without the name of where it is");
    for from in ["from/nowhere", "NOT-A-NAME"] {
        assert_eq!(post(format!("mount={digest}&from={from}")).status, 202);
    }
    let missing = post(format!("mount={other}&from=from/here"));
    assert_eq!(missing.status, 202);
    assert_eq!(server.send("PATCH", missing.header("location").unwrap(), &[], b"other").status, 202);

    let mounted = post(format!("mount={digest}&from=from%2Fhere"));
    assert_eq!(mounted.status, 201);
    assert_eq!(server.get(mounted.header("location").unwrap()).body, b"content");
    assert_eq!(post(format!("mount={digest}")).status, 201, "it has it");
    assert_eq!(post("mount=sha256:1&from=from/here".to_owned()).error(), error(400, "DIGEST_INVALID"));
}

#[test]
fn manifests_come_back_as_they_were_pushed() {
    let server = Server::start();
    let config = server.push_blob("repo", b"{}");
    let manifest = image(config, 2).to_string();
    let digest = Digest::of(Algorithm::Sha256, manifest.as_bytes());
    let content_type = format!("{IMAGE}; charset=utf-8");
    let put = |reference: &str| {
        server.send(
            "PUT",
            &format!("/v2/repo/manifests/{reference}"),
            &[("Content-Type", &content_type)],
            manifest.as_bytes(),
        )
    };
    let pushed = put("v1");
    assert_eq!(pushed.status, 201, "{pushed:?}");
    assert_eq!(pushed.header("docker-content-digest").unwrap(), digest.to_string());
    assert_eq!(pushed.header("location").unwrap(), format!("/v2/repo/manifests/{digest}"));
    assert_eq!(pushed.header("oci-tag"), Some("v1"));
    assert_eq!(pushed.header("oci-subject"), None);
    for reference in ["v1".to_owned(), digest.to_string()] {
        let path = format!("/v2/repo/manifests/{reference}");
        for method in ["GET", "HEAD"] {
            let pulled = server.send(method, &path, &[], &[]);
            assert_eq!((pulled.status, pulled.header("content-type")), (200, Some(IMAGE)));
            assert_eq!(pulled.header("content-length").unwrap(), manifest.len().to_string());
            assert_eq!(pulled.header("docker-content-digest").unwrap(), digest.to_string());
            assert_eq!(pulled.body, if method == "GET" { manifest.as_bytes() } else { b"" });
        }
    }
    let tagged = put(&format!("{digest}?tag=v2&tag=v3"));
    let tags: Vec<_> =
        tagged.headers.iter().filter(|(name, _)| name == "oci-tag").map(|(_, tag)| tag.as_str()).collect();
    assert_eq!((tagged.status, tags), (201, vec!["v2", "v3"]));
    let sha512 = Digest::of(Algorithm::Sha512, manifest.as_bytes()).to_string();
    assert_eq!(put(&sha512).header("docker-content-digest"), Some(sha512.as_str()));

    // A tag goes alone, a digest with its tags.
    let delete = |reference: &str| server.send("DELETE", &format!("/v2/repo/manifests/{reference}"), &[], &[]);
    assert_eq!(delete("v1").status, 202);
    assert_eq!(delete("v1").error(), error(404, "MANIFEST_UNKNOWN"));
    assert_eq!(server.get("/v2/repo/manifests/v2").status, 200);
    assert_eq!(delete(&digest.to_string()).status, 202);
    for reference in ["v2".to_owned(), "v3".to_owned(), digest.to_string()] {
        assert_eq!(server.get(&format!("/v2/repo/manifests/{reference}")).error(), error(404, "MANIFEST_UNKNOWN"));
    }
}

#[test]
fn a_manifest_that_cannot_be_is_refused() {
    let server = Server::start();
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    let refused = server.push_manifest("repo", "v1", &image(missing, 7));
    assert_eq!(refused.error(), error(400, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(refused.json()["errors"][0]["detail"]["digest"], missing.to_string());
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{ "mediaType": IMAGE, "digest": missing.to_string(), "size": 7 }] });
    let refused = server.push_manifest("repo", "v1", &index);
    assert_eq!(refused.error(), error(400, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(refused.json()["errors"][0]["detail"]["kind"], "manifest");

    let good = image(server.push_blob("repo", b"{}"), 2);
    let path = "/v2/repo/manifests/v1";
    let put = |path: &str, media_type: &str, content: &[u8]| {
        server.send("PUT", path, &[("Content-Type", media_type)], content).error()
    };
    assert_eq!(put(path, IMAGE, b"no json"), error(400, "MANIFEST_INVALID"));
    assert_eq!(put(path, "text/plain", good.to_string().as_bytes()), error(400, "MANIFEST_INVALID"));
    assert_eq!(put(path, "", good.to_string().as_bytes()), error(400, "MANIFEST_INVALID"));
    let by_digest = format!("/v2/repo/manifests/{missing}");
    assert_eq!(put(&by_digest, IMAGE, good.to_string().as_bytes()), error(400, "DIGEST_INVALID"));
    assert_eq!(put("/v2/repo/manifests/sha256:bad", IMAGE, b"{}"), error(400, "DIGEST_INVALID"));
    assert_eq!(put(path, IMAGE, &vec![b' '; (4 << 20) + 1]), error(413, "SIZE_INVALID"));
    assert_eq!(server.get("/v2/repo/tags/list").json()["tags"], json!([]));
}

#[test]
fn an_index_may_come_before_what_it_lists_where_that_is_allowed() {
    let server = Server::with(Creation::OnPush, Indexes::Sparse, |_| {});
    let image = image(server.push_blob("repo", b"{}"), 2);
    let digest = Digest::of(Algorithm::Sha256, image.to_string().as_bytes());
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{ "mediaType": IMAGE, "digest": digest.to_string(), "size": image.to_string().len() }] });
    assert_eq!(server.push_manifest("repo", "v1", &index).status, 201);
    assert_eq!(server.get(&format!("/v2/repo/manifests/{digest}")).error(), error(404, "MANIFEST_UNKNOWN"));
    assert_eq!(server.push_manifest("repo", &digest.to_string(), &image).status, 201);
}

#[test]
fn a_tag_moves_only_as_is_allowed_and_expected() {
    let server = Server::with(Creation::OnPush, Indexes::Whole, |store| {
        let settings = RepositorySettings::new().mutability(TagMutability::Immutable);
        let settings = settings.exclusions(["latest".parse().unwrap()]).unwrap();
        store.create_repository(&"fixed".parse().unwrap(), settings).unwrap();
    });
    for tag in ["v1", "latest"] {
        server.push_image("fixed", tag, "one");
    }
    server.push_image("fixed", "v1", "one"); // the same again
    server.push_image("fixed", "latest", "two");
    let two = image(Digest::of(Algorithm::Sha256, b"two"), 3);
    assert_eq!(server.push_manifest("fixed", "v1", &two).error(), error(400, "TAG_INVALID"));

    let one = server.push_image("free", "v1", "one");
    server.push_blob("free", b"two");
    let put = |header: (&str, &str)| {
        let headers = [("Content-Type", IMAGE), header];
        server.send("PUT", "/v2/free/manifests/v1", &headers, two.to_string().as_bytes())
    };
    assert_eq!(put(("If-None-Match", "*")).error(), error(412, "DENIED"));
    let other = Digest::of(Algorithm::Sha256, b"other");
    assert_eq!(put(("If-Match", &format!("\"{other}\""))).error(), error(412, "DENIED"));
    assert_eq!(put(("If-Match", &format!("\"{one}\""))).status, 201);
}

#[test]
fn what_manifests_refer_to_is_not_deleted() {
    let server = Server::start();
    let digest = server.push_image("repo", "v1", "config");
    let config = Digest::of(Algorithm::Sha256, b"config");
    let len = image(config, 6).to_string().len();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{ "mediaType": IMAGE, "digest": digest.to_string(), "size": len }] });
    let pushed = server.push_manifest("repo", "index", &index);
    let delete = |path: String| server.send("DELETE", &path, &[], &[]);
    let refused = delete(format!("/v2/repo/blobs/{config}"));
    assert_eq!((refused.error(), refused.header("allow")), (error(405, "DENIED"), Some("GET, HEAD")));
    assert_eq!(delete(format!("/v2/repo/manifests/{digest}")).error(), error(405, "DENIED"));
    let index = pushed.header("docker-content-digest").unwrap();
    for path in [format!("manifests/{index}"), format!("manifests/{digest}"), format!("blobs/{config}")] {
        assert_eq!(delete(format!("/v2/repo/{path}")).status, 202);
    }
}

#[test]
fn tags_and_repositories_are_listed_in_pages() {
    let server = Server::start();
    let names: Vec<String> = (0..7).map(|n| format!("team/app-{n}")).collect();
    for name in &names {
        server.push_image(name, "latest", "config");
    }
    let manifest = image(Digest::of(Algorithm::Sha256, b"config"), 6);
    let tags = ["0", "A", "a", "b", "latest", "v1.0_x-y"];
    for tag in tags {
        assert_eq!(server.push_manifest("team/app-0", tag, &manifest).status, 201);
    }
    let list = |path: &str, field: &str| -> Vec<Vec<String>> {
        let pages = server.pages(path).into_iter();
        pages.map(|page| serde_json::from_value(page[field].clone()).unwrap()).collect()
    };
    let path = "/v2/team/app-0/tags/list";
    assert_eq!(list(path, "tags"), [tags]);
    assert_eq!(server.get(path).json()["name"], "team/app-0");
    assert_eq!(list(&format!("{path}?n=4"), "tags"), [&tags[..4], &tags[4..]]);
    assert_eq!(list(&format!("{path}?n=6"), "tags"), [tags], "no link to an empty page");
    assert_eq!(list(&format!("{path}?last=a"), "tags"), [&tags[3..]]);
    assert_eq!(list(&format!("{path}?n=0"), "tags"), [Vec::<String>::new()]);
    assert_eq!(server.get(&format!("{path}?n=-1")).error(), error(400, "UNSUPPORTED"));
    assert_eq!(server.get("/v2/team/none/tags/list").error(), error(404, "NAME_UNKNOWN"));

    assert_eq!(list("/v2/_catalog", "repositories"), [&names[..]]);
    assert_eq!(list("/v2/_catalog?n=3", "repositories"), [&names[..3], &names[3..6], &names[6..]]);
    assert_eq!(list("/v2/_catalog?n=0", "repositories"), [Vec::<String>::new()]);
}

#[test]
fn referrers_are_listed_by_type_and_in_pages() {
    let server = Server::start();
    let config = server.push_blob("repo", b"{}");
    let subject = Digest::of(Algorithm::Sha256, b"not pushed yet");
    let list = format!("/v2/repo/referrers/{subject}");
    let push = |kind: &str, number: usize, note: usize| {
        let mut manifest = image(config, 2);
        manifest["subject"] = json!({ "mediaType": IMAGE, "digest": subject.to_string(), "size": 14 });
        manifest["artifactType"] = json!(kind);
        manifest["annotations"] = json!({ "number": number.to_string(), "note": "n".repeat(note) });
        let pushed = server.push_manifest("repo", &format!("r{number}"), &manifest);
        assert_eq!(pushed.status, 201, "{pushed:?}");
        assert_eq!(pushed.header("oci-subject").unwrap(), subject.to_string());
        pushed.header("docker-content-digest").unwrap().to_owned()
    };
    let empty = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    for path in [list.clone(), format!("/v2/no/such/referrers/{subject}")] {
        let answer = server.get(&path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(INDEX)));
        assert_eq!(answer.json(), empty);
    }
    assert_eq!(server.get("/v2/repo/referrers/sha256:1").error(), error(400, "DIGEST_INVALID"));

    let digest = push("application/vnd.example.sbom+json", 0, 10);
    push("application/vnd.example.signature", 1, 10);
    assert_eq!(server.get(&list).json()["manifests"].as_array().unwrap().len(), 2);
    for filter in ["application/vnd.example.sbom%2Bjson", "application/vnd.example.sbom+json"] {
        let answer = server.get(&format!("{list}?artifactType={filter}"));
        assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
        let manifests = answer.json()["manifests"].clone();
        assert_eq!(manifests.as_array().unwrap().len(), 1);
        assert_eq!(manifests[0]["digest"], digest);
        assert_eq!(manifests[0]["mediaType"], IMAGE);
        assert_eq!(manifests[0]["artifactType"], "application/vnd.example.sbom+json");
        assert_eq!(manifests[0]["annotations"]["number"], "0");
    }

    // More than an answer may hold.
    for number in 2..42 {
        push("application/vnd.example.sbom+json", number, 60_000);
    }
    for (path, count) in [(list.clone(), 42), (format!("{list}?artifactType=application/vnd.example.sbom%2Bjson"), 41)]
    {
        let pages = server.pages(&path);
        assert!(pages.len() > 1);
        assert!(pages.iter().all(|page| page.to_string().len() < 2 << 20));
        let digests = pages.iter().flat_map(|page| page["manifests"].as_array().unwrap());
        let digests: std::collections::BTreeSet<&str> = digests.map(|one| one["digest"].as_str().unwrap()).collect();
        assert_eq!(digests.len(), count);
    }
}

#[test]
fn errors_are_written_as_the_specification_says() {
    let server = Server::start();
    server.push_image("repo", "v1", "config");
    let digest = Digest::of(Algorithm::Sha256, b"none");
    for (method, path, status, code) in [
        ("GET", "/v2/no/such/manifests/v1", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/repo/manifests/v2", 404, "MANIFEST_UNKNOWN"),
        ("GET", &format!("/v2/repo/manifests/{digest}"), 404, "MANIFEST_UNKNOWN"),
        ("GET", &format!("/v2/repo/blobs/{digest}"), 404, "BLOB_UNKNOWN"),
        ("DELETE", &format!("/v2/repo/blobs/{digest}"), 404, "BLOB_UNKNOWN"),
        ("DELETE", &format!("/v2/no/such/manifests/{digest}"), 404, "NAME_UNKNOWN"),
        ("GET", "/v2/repo/blobs/sha256:12", 400, "DIGEST_INVALID"),
        ("GET", "/v2/Repo/manifests/v1", 400, "NAME_INVALID"),
        ("POST", "/v2/a//b/blobs/uploads/", 400, "NAME_INVALID"),
        ("GET", "/v2/repo/manifests/-v1", 400, "MANIFEST_INVALID"),
        ("GET", "/v2/repo/elsewhere/v1", 404, "UNSUPPORTED"),
        ("GET", "/v1/", 404, "UNSUPPORTED"),
        ("POST", "/v2/repo/manifests/v1", 405, "UNSUPPORTED"),
        ("PUT", "/v2/repo/tags/list", 405, "UNSUPPORTED"),
        ("GET", "/v2/repo/blobs/uploads/", 405, "UNSUPPORTED"),
    ] {
        let answer = server.send(method, path, &[], &[]);
        assert_eq!(answer.error(), error(status, code), "{method} {path}");
        assert!(answer.json()["errors"][0]["message"].is_string());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("allow").is_some(), status == 405);
    }
    assert_eq!(server.send("HEAD", &format!("/v2/repo/blobs/{digest}"), &[], &[]).status, 404);
    let version = server.get("/v2/");
    assert_eq!((version.status, version.header("docker-distribution-api-version")), (200, Some("registry/2.0")));
}

#[test]
fn a_name_may_hold_the_words_of_the_api() {
    let server = Server::start();
    for name in ["a/blobs/b", "v2/manifests", "tags/list", "x/blobs/uploads", "referrers/blobs"] {
        let digest = server.push_image(name, "v1", name);
        assert_eq!(server.get(&format!("/v2/{name}/manifests/{digest}")).status, 200, "{name}");
        assert_eq!(server.get(&format!("/v2/{name}/tags/list")).json()["name"], name);
        let config = Digest::of(Algorithm::Sha256, name.as_bytes()).to_string().replace(':', "%3A");
        assert_eq!(server.get(&format!("/v2/{name}/blobs/{config}")).body, name.as_bytes());
    }
}

#[test]
fn pushing_creates_no_repository_where_that_is_off() {
    let server = Server::with(Creation::Never, Indexes::Whole, |store| {
        store.create_repository(&"there".parse().unwrap(), RepositorySettings::new()).unwrap();
    });
    let digest = Digest::of(Algorithm::Sha256, b"content");
    for query in [String::new(), format!("?digest={digest}"), format!("?mount={digest}&from=there")] {
        let refused = server.send("POST", &format!("/v2/not/there/blobs/uploads/{query}"), &[], b"content");
        assert_eq!(refused.error(), error(404, "NAME_UNKNOWN"));
    }
    assert_eq!(server.push_manifest("not/there", "v1", &image(digest, 7)).error(), error(404, "NAME_UNKNOWN"));
    server.push_image("there", "v1", "config");
}

#[test]
fn stopping_lets_what_is_under_way_end() {
    let mut server = Server::start();
    let upload = server.upload("repo");
    let content = Random(5).bytes(2 << 20);
    let mut stream = server.begin("PATCH", &upload, &[], content.len());
    stream.write_all(&content[..1 << 20]).unwrap();
    // The request has been taken when it counts.
    let begun = Instant::now();
    while !String::from_utf8(server.get("/metrics").body).unwrap().contains("registry_uploads_under_way 1") {
        assert!(begun.elapsed() < Duration::from_secs(60), "the request is not seen");
    }
    server.stop.take().unwrap().send(()).unwrap();
    stream.write_all(&content[1 << 20..]).unwrap();
    let answer = Answer::read(stream);
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-2097151")));
}

#[test]
fn numbers_for_prometheus_count_requests_and_content() {
    let server = Server::start();
    let content = Random(6).bytes(100_000);
    let digest = server.push_blob("repo", &content);
    assert!(server.get(&format!("/v2/repo/blobs/{digest}")).body == content);
    assert_eq!(server.send("HEAD", "/v2/repo/manifests/none", &[], &[]).status, 404);
    server.upload("repo");
    let expected = [
        "registry_requests_total{method=\"POST\",status=\"2xx\"} 2",
        "registry_requests_total{method=\"HEAD\",status=\"4xx\"} 1",
        "registry_received_bytes_total 100000",
        "strongroom_blobs 1",
        "strongroom_writable 1",
        "strongroom_maintenance_failed 0",
        "registry_uploads_under_way 0",
    ];
    // A request counts when its answer has left, which may be after it was read.
    let begun = Instant::now();
    loop {
        let text = String::from_utf8(server.get("/metrics").body).unwrap();
        if expected.iter().all(|expected| text.lines().any(|line| line == *expected)) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{text}");
    }
}
