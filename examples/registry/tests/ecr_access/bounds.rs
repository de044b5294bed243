//! Input and content beyond what clients send: it is refused, or answered in pages, and nothing is held for it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};
use strongroom::registry::{PutManifest, RepositorySettings};
use strongroom::{Algorithm, Digest, Store};
use strongroom_registry::http::{Creation, Indexes};

use crate::client::{Client, Guarded, Headers, OWN, allow, arn, basic, key_of, kind, secret_of, target, user};
use crate::common::registry::IMAGE;
use crate::common::{Random, seed};
use crate::server::{Answer, Server, image};
use crate::silence::push;

/// A repository with one image that has so many tags, and one that has 1,001.
fn tagged(store: &Store, count: usize) {
    let repository = store.create_repository(&"app".parse().unwrap(), RepositorySettings::new()).unwrap();
    for (prefix, content, tags) in [("t", &b"a"[..], count), ("u", b"b", 1001)] {
        let digest = Digest::of(Algorithm::Sha256, content);
        repository.put(content, digest).unwrap();
        let document = image(digest, content.len()).to_string();
        for from in (0..tags).step_by(1000) {
            let numbers = from..tags.min(from + 1000);
            let put = numbers
                .fold(PutManifest::new(IMAGE), |put, number| put.tag(format!("{prefix}{number:06}").parse().unwrap()));
            repository.put_manifest(&document, put).unwrap();
        }
    }
}

#[test]
fn an_image_with_20_000_tags_is_listed_in_bounded_pages_and_completely_by_docker_and_to_1_000_by_ecr() {
    const TAGS: usize = 20_000;
    let server = Server::with(Creation::OnPush, Indexes::Whole, |store| tagged(store, TAGS));
    let mut client = Client::new(server.address, None);
    let all = |client: &mut Client, operation: &str, member: &str, size: u64| {
        let (mut input, mut items, mut longest) = (json!({ "repositoryName": "app", "maxResults": size }), vec![], 0);
        loop {
            let answer = client.call("ecr", operation, &input);
            assert_eq!(answer.status, 200, "{answer:?}");
            longest = longest.max(answer.body.len());
            let page = answer.json();
            let found = page[member].as_array().unwrap();
            assert!(found.len() as u64 <= size);
            items.extend(found.clone());
            match page.get("nextToken") {
                Some(token) => input["nextToken"] = token.clone(),
                None => return (items, longest),
            }
        }
    };
    for size in [1000, 7] {
        let (ids, longest) = all(&mut client, "ListImages", "imageIds", size);
        let tags: BTreeSet<_> = ids.iter().map(|id| id["imageTag"].as_str().unwrap()).collect();
        assert_eq!((ids.len(), tags.len()), (2000, 2000), "each once");
        assert!(longest < 200 << 10, "{longest}");
        let (images, longest) = all(&mut client, "DescribeImages", "imageDetails", size);
        let counts: Vec<_> = images.iter().map(|image| image["imageTags"].as_array().unwrap().len()).collect();
        assert_eq!(counts, [1000, 1000]);
        assert!(longest < 200 << 10, "{longest}");
    }
    // Of those that are not listed each is there by its name, and the distribution API lists all.
    let named = json!({ "repositoryName": "app", "imageIds": [{ "imageTag": "t019999" }] });
    assert_eq!(client.ok("DescribeImages", &named)["imageDetails"].as_array().unwrap().len(), 1);
    let pages = server.pages("/v2/app/tags/list");
    let listed: usize = pages.iter().map(|page| page["tags"].as_array().unwrap().len()).sum();
    assert_eq!((listed, pages.len()), (TAGS + 1001, TAGS.div_ceil(1000) + 2));
    // It goes with all its tags.
    let deleted =
        json!({ "repositoryName": "app", "imageIds": [{ "imageTag": "u000000" }, { "imageTag": "u001000" }] });
    assert_eq!(client.ok("BatchDeleteImage", &deleted)["imageIds"].as_array().unwrap().len(), 2);
}

fn registry() -> Guarded {
    let guarded = Guarded::start(&json!({ "users": [
        user("admin", OWN, &json!([allow(&["*"], &["*"])])),
        user("limited", OWN, &json!([allow(&["ecr:*"], &[&arn("mine")])])),
    ] }));
    let mut admin = guarded.client(&key_of("admin"));
    push(&mut admin, "mine", "v1", b"a");
    push(&mut admin, "theirs", "v1", b"b");
    guarded
}

/// A text of JSON that is so many arrays in each other.
fn deep(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[test]
fn no_body_of_a_call_is_answered_by_a_failure_of_the_server() {
    let guarded = registry();
    let mut admin = guarded.client(&key_of("admin"));
    let member = |name: &str, value: &str| format!("{{\"repositoryName\":\"mine\",\"{name}\":{value}}}").into_bytes();
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{".to_vec(),
        b"\xff\xfe".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"{}{}".to_vec(),
        br#"{"repositoryName":"\ud800"}"#.to_vec(),
        br#"{"repositoryName":"mine\u0000"}"#.to_vec(),
        br#"{"repositoryName":null}"#.to_vec(),
        br#"{"repositoryName":["mine"]}"#.to_vec(),
        deep(100).into_bytes(),
        deep(100_000).into_bytes(),
        "{\"a\":".repeat(50_000).into_bytes(),
        member("x", &deep(126)),
        member("x", &deep(127)),
        member("x", "1e999"),
        member("x", &"9".repeat(10_000)),
        member("x", &format!("0.{}", "1".repeat(10_000))),
        member("maxResults", "1e999"),
        member("maxResults", "-1e999"),
        member("maxResults", "1e-999"),
        member("maxResults", "5.0"),
        member("maxResults", "5.5"),
        member("maxResults", "-1"),
        member("maxResults", "-0"),
        member("maxResults", "0"),
        member("maxResults", "1e2"),
        member("maxResults", "18446744073709551615"),
        member("maxResults", "18446744073709551616"),
        member("maxResults", "NaN"),
        member("nextToken", "\"\""),
        member("nextToken", "\"MQ\""),
        member("nextToken", "\"////\""),
        member("imageIds", "[{},null,1]"),
        member("imageIds", "[]"),
        member("imageIds", &format!("[{}]", vec!["{}"; 10_000].join(","))),
        member("layerDigests", "[\"sha256:\"]"),
        member("layerDigest", "\"sha256:\\u0000\""),
        member("policyText", "\"\""),
        member("policyText", &format!("\"{}\"", "{".repeat(10_241))),
        member("policyText", &json!(deep(5000)).to_string()),
        member("policyText", &json!(format!("{{\"Statement\":{}}}", deep(5000))).to_string()),
        member("policyText", &json!("{\"Statement\":{\"Effect\":1e999}}").to_string()),
        member("lifecyclePolicyText", &json!(deep(10_000)).to_string()),
        member("imageManifest", &json!(deep(100_000)).to_string()),
        member("imageManifest", "\"\""),
        member("tags", "[{\"Key\":\"\",\"Value\":\"\"}]"),
        member("tags", "[{\"Key\":\"a\"},{\"Key\":\"a\"}]"),
    ];
    let mut asked = 0;
    for built in strongroom_registry::ecr::operations() {
        let service = built.service.model().signing;
        for body in &bodies {
            let answer = admin.call_with(service, built.name, body, &[]);
            let shown = String::from_utf8_lossy(body);
            let shown = format!("{} {}: {answer:?}", built.name, &shown[..shown.len().min(60)]);
            assert!(answer.status == 200 || answer.status == 400, "{shown}");
            assert!(answer.body.len() < 100_000, "{shown}");
            asked += 1;
        }
        // Operations that take nothing have changed it.
        if matches!(built.name, "DeleteRepository" | "DeleteRepositoryPolicy") {
            let mut owner = guarded.client(&key_of("admin"));
            push(&mut owner, "mine", "v1", b"a");
        }
    }
    assert!(asked > 2000);
    assert_eq!(admin.get("/healthz").status, 200);
}

#[test]
fn of_a_member_that_is_there_twice_rights_are_looked_at_for_the_one_that_counts() {
    let guarded = registry();
    let mut limited = guarded.client(&key_of("limited"));
    for (body, is_allowed) in [
        (r#"{"repositoryName":"mine"}"#, true),
        (r#"{"repositoryName":"mine","repositoryName":"theirs"}"#, false),
        (r#"{"repositoryName":"theirs","repositoryName":"mine"}"#, true),
        (r#"{"repositoryName":"mine","RepositoryName":"theirs"}"#, true),
        (r#"{"repositoryName":"theirs","RepositoryName":"mine"}"#, false),
        (r#"{"repositoryName":"mine","repositoryNam\u0065":"theirs"}"#, false),
        (r#"{"repositoryName":"mine","repositoryNames":["theirs"]}"#, true),
    ] {
        let answer = limited.call_with("ecr", "ListImages", body.as_bytes(), &[]);
        match is_allowed {
            true => {
                let ids = answer.json()["imageIds"].clone();
                let document = image(Digest::of(Algorithm::Sha256, b"a"), 1).to_string();
                let mine = Digest::of(Algorithm::Sha256, document.as_bytes());
                assert_eq!(ids[0]["imageDigest"], mine.to_string(), "{body}");
            }
            false => assert_eq!(kind(&answer), "AccessDeniedException", "{body}"),
        }
    }
    // The empty list of names is no way to the list of all.
    for body in [json!({ "repositoryNames": [] }), json!({ "repositoryNames": ["mine", "theirs"] }), json!({})] {
        let answer = limited.call("ecr", "DescribeRepositories", &body);
        let shown = answer.json();
        assert!(answer.status == 400 || shown["repositories"] == json!([]), "{body}: {shown}");
    }
}

#[test]
fn a_page_of_another_origin_calls_no_operation() {
    let server = Server::start();
    let mut client = Client::new(server.address, None);
    let mut call = |headers: Headers<'_>| {
        let list = target("ecr", "DescribeRepositories");
        let all = [&[("x-amz-target", list.as_str()), ("content-type", "text/plain")][..], headers].concat();
        client.send("POST", "/", &all, b"{}").status
    };
    for (headers, status) in [
        (&[][..], 200),
        (&[("origin", "http://registry")], 200),
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "http://registry.evil.example")], 403),
        (&[("origin", "http://registry@evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("origin", "")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("sec-fetch-site", "same-site")], 403),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("origin", "http://evil.example"), ("sec-fetch-site", "same-origin")], 403),
    ] {
        assert_eq!(call(headers), status, "{headers:?}");
    }
}

/// A number of `/metrics`.
fn metric(client: &mut Client, name: &str) -> u64 {
    let answer = client.send("GET", "/metrics", &[], &[]);
    let text = String::from_utf8(answer.body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
    line.trim().parse().unwrap()
}

#[test]
fn bodies_that_are_refused_broken_off_or_without_a_length_leave_nothing_in_memory() {
    const KEPT: &str = "registry_memory_kept_bytes ";
    let guarded = registry();
    let mut client = guarded.anonymous();
    let mut admin = guarded.client(&key_of("admin"));
    let part = target("ecr", "UploadLayerPart");
    let big = vec![b'a'; 3 << 20];
    let expect = |answer: &Answer, statuses: &[u16]| assert!(statuses.contains(&answer.status), "{answer:?}");
    for _ in 0..10 {
        // Unsigned, signed but no JSON, too long, and of an operation that there is not.
        expect(&client.send("POST", "/", &[("x-amz-target", &part)], &big), &[400]);
        expect(&admin.call_with("ecr", "UploadLayerPart", &big, &[]), &[400]);
        expect(&client.send("POST", "/", &[("x-amz-target", &target("ecr", "ListImages"))], &big), &[400, 413]);
        expect(&client.send("POST", "/", &[("x-amz-target", &target("ecr", "None"))], &big), &[400]);
        expect(&client.oci("PUT", "/v2/mine/manifests/v1", &[("content-type", IMAGE)], &big), &[401]);
        expect(&admin.oci("PUT", "/v2/mine/manifests/v1", &[("content-type", IMAGE)], &big), &[400]);
        // A length that is never reached; and none, cut off in the middle of a piece.
        for head in ["content-length: 28000000", "transfer-encoding: chunked"] {
            let mut stream = TcpStream::connect(guarded.server.address).unwrap();
            let head = format!("POST / HTTP/1.1\r\nhost: registry\r\nx-amz-target: {part}\r\n{head}\r\n\r\n200000\r\n");
            stream.write_all(&[head.as_bytes(), &big[..1 << 20]].concat()).unwrap();
        }
        // Without a length, to its end, and with pieces that are none.
        for pieces in ["2\r\n{}\r\n0\r\n\r\n", "0\r\n\r\n", "zz\r\n", "ffffffffffffffffff\r\n"] {
            let head = format!("POST / HTTP/1.1\r\nhost: registry\r\nx-amz-target: {part}\r\n");
            let bytes = format!("{head}transfer-encoding: chunked\r\n\r\n{pieces}");
            let mut client = guarded.anonymous();
            expect(&client.raw("POST", bytes.as_bytes()), &[400]);
        }
    }
    let begun = std::time::Instant::now();
    while metric(&mut client, KEPT) > 0 {
        assert!(begun.elapsed().as_secs() < 20, "{} bytes are kept", metric(&mut client, KEPT));
    }
    assert_eq!(admin.get("/v2/mine/manifests/v1").status, 200);
}

#[test]
fn who_has_no_rights_has_nothing_of_a_body_kept_while_it_is_sent() {
    let guarded = registry();
    let mut limited = guarded.client(&key_of("limited"));
    let begun = limited.oci("POST", "/v2/theirs/blobs/uploads/?digest=sha256:00", &[], &vec![0; 8 << 20]);
    assert_eq!(begun.status, 403);
    let value: Value = begun.json();
    assert_eq!(value["errors"][0]["code"], "DENIED");
    assert_eq!(metric(&mut limited, "registry_memory_kept_bytes "), 0);
}

/// A text of a few pieces that mean something, and of some that do not.
fn pieces(random: &mut Random, of: &[&[u8]], count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.below(count) + 1 {
        match random.below(8) {
            0 => bytes.extend([b'!', 0x80, b'~', 0xff, b'%', b'\t', b'*', b'a'][random.below(8) as usize..].first()),
            _ => bytes.extend(of[random.below(of.len() as u64) as usize]),
        }
    }
    bytes
}

#[test]
fn random_requests_and_policies_are_answered_without_a_failure_of_the_server() {
    let mut random = Random(seed(20_260_515));
    let guarded = registry();
    let mut admin = guarded.client(&key_of("admin"));
    let login = basic(&key_of("admin"), &secret_of(&key_of("admin")));
    let digest = Digest::of(Algorithm::Sha256, b"a").to_string();
    let path: &[&[u8]] = &[
        b"/",
        b"mine",
        b"/v2/mine/",
        b"manifests/",
        b"blobs/",
        b"uploads/",
        b"v1",
        digest.as_bytes(),
        b"tags/list",
        b"..",
        b"referrers/",
        b"?n=",
        b"&last=",
        b"1",
        b"?mount=",
        b"&from=",
        b"&token=",
        b"?digest=",
        b"_catalog",
        b"sha256:",
        b"%3A",
        b"%2f",
        b"~",
        b"=",
        b"/v2/token",
        b"/logos/public/a",
        b"99999999999999999999",
    ];
    let values: &[&[u8]] = &[
        b"bytes=",
        b"0",
        b"-",
        b",",
        b"18446744073709551615",
        b"*",
        b"\"",
        digest.as_bytes(),
        b"application/",
        b"json",
        b"/",
        b";",
        b"http://registry",
        b"gzip",
        b"Bearer ",
        b"Basic ",
        b"QVdTOmE",
        b" ",
        b"AWS4-HMAC-SHA256 Credential=",
    ];
    let names = ["range", "content-range", "content-type", "accept", "if-match", "if-none-match", "x-amz-target"];
    let more = ["x-amz-date", "user-agent", "x-forwarded-for", "origin", "expect", "authorization", "x-amz-tagging"];
    let names = [names, more].concat();
    let mut statuses = BTreeSet::new();
    for number in 0..10_000 {
        let method = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "X"][random.below(7) as usize];
        let whole =
            ["manifests/v1", "manifests/DIGEST", "blobs/DIGEST", "blobs/uploads/", "tags/list", "referrers/DIGEST"];
        let mut path = pieces(&mut random, path, 6);
        if random.below(2) == 0 {
            let begin = whole[random.below(6) as usize].replace("DIGEST", &digest);
            path = if random.below(2) == 0 { begin.into() } else { [begin.as_bytes(), b"?", &path].concat() };
        }
        path.retain(|byte| byte.is_ascii_graphic());
        let mut head = [method.as_bytes(), b" /v2/mine/", &path, b" HTTP/1.1\r\nhost: registry\r\n"].concat();
        if random.below(3) == 0 {
            head = [method.as_bytes(), b" /", &path, b" HTTP/1.1\r\nhost: registry\r\n"].concat();
        }
        if random.below(8) > 0 {
            head.extend(format!("authorization: {login}\r\n").as_bytes());
        }
        for _ in 0..random.below(4) {
            let name = names[random.below(names.len() as u64) as usize];
            head.extend([name.as_bytes(), b": ", &pieces(&mut random, values, 4), b"\r\n"].concat());
        }
        let len = random.below(40) as usize;
        let body = random.bytes(len);
        head.extend(format!("content-length: {len}\r\n\r\n").as_bytes());
        let sent = [&head[..], &body].concat();
        let answer = admin.raw(method, &sent);
        let shown = String::from_utf8_lossy(&head).into_owned();
        assert!((200..500).contains(&answer.status), "{number}: {shown}: {answer:?}");
        statuses.insert(answer.status);
    }
    assert!(statuses.len() > 5 && statuses.contains(&200) && statuses.contains(&202), "{statuses:?}");
    let document: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"Statement\":",
        b"\"Effect\":\"Allow\"",
        b"\"Effect\":\"Deny\"",
        b"\"Action\":",
        b"\"ecr:*\"",
        b"\"*\"",
        b"\"Principal\":",
        b"\"AWS\":",
        b"\"Condition\":",
        b"\"StringLike\":",
        b"\"aws:UserAgent\":",
        b"\"${aws:username}\"",
        b"\"Resource\":",
        b"1e5",
        b"-0",
        b"null",
        b"\"\\ud800\"",
        b"\"${\"",
        b"\"arn:aws:ecr:::*\"",
    ];
    for _ in 0..1000 {
        let policy = String::from_utf8_lossy(&pieces(&mut random, document, 30)).into_owned();
        let input = json!({ "repositoryName": "mine", "policyText": format!("{{\"Statement\":{{{policy}}}}}") });
        let answer = admin.call("ecr", "SetRepositoryPolicy", &input);
        assert!(matches!(answer.status, 200 | 400), "{input}: {answer:?}");
    }
}
