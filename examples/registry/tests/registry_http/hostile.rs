//! Clients that mean harm, or behave as if: nobody else is shut out, and nothing of them stays.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use serde_json::json;
use strongroom::{Algorithm, CollectOptions, Digest, Options};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::common::Random;
use crate::common::registry::{IMAGE, INDEX};
use crate::error;
use crate::server::{Answer, Server, image, settings};
use strongroom_registry::http::limits::Limits;
use strongroom_registry::http::{Admission, Settings};

pub const LONG: Duration = Duration::from_secs(60);

pub fn limited(change: impl FnOnce(&mut Limits)) -> Server {
    let mut settings = settings();
    change(&mut settings.limits);
    Server::configured(settings)
}

/// Waits until something holds.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number that the registry gives for Prometheus.
pub fn metric(server: &Server, name: &str) -> u64 {
    let text = String::from_utf8(server.get("/metrics").body).unwrap();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("{name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Whether the server has closed a connection on which it said nothing.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Whether something was answered.
fn is_answered(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    peeked.is_ok()
}

/// Sends bytes as they are, and reads what is answered until the end.
pub fn raw(server: &Server, request: &str) -> Answer {
    let mut stream = connect(server);
    stream.write_all(request.as_bytes()).unwrap();
    Answer::read(stream)
}

#[test]
fn connections_that_say_nothing_make_way_and_probes_are_always_served() {
    let places = 6;
    let server = limited(|limits| {
        (limits.connections, limits.connections_per_client) = (2 * places, places);
        limits.silent = Duration::from_millis(200);
        limits.refusals = 4;
    });
    let mut silent: Vec<_> = (0..places).map(|_| connect(&server)).collect();
    silent.iter_mut().take(3).for_each(|stream| stream.write_all(b"GET /v2/ HTTP/1.1\r\nHo").unwrap());
    // Nobody was silent for long: there is no place, which a probe does not need.
    until("all are accepted", || metric(&server, "registry_connections") > places as u64);
    assert_eq!(server.get("/healthz").status, 200);
    until("one makes way", || server.get("/v2/").status == 200);
    assert_eq!(server.get("/healthz").status, 200);
    until("the others stay until they are needed", || metric(&server, "registry_connections") <= 1 + places as u64);
}

#[test]
fn where_all_places_are_taken_by_requests_the_next_is_told_to_come_again() {
    let server = limited(|limits| {
        // One client may have half of them, so that there are some for the next.
        (limits.connections, limits.connections_per_client) = (6, 6);
        limits.stalled = Duration::from_millis(500);
    });
    // Three that begin to push a manifest shut everybody out.
    let headers = [("Content-Type", IMAGE)];
    let mut stalled: Vec<_> = (0..3).map(|_| server.begin("PUT", "/v2/repo/manifests/v1", &headers, 1000)).collect();
    until("they are under way", || metric(&server, "registry_requests_under_way") == 4);
    let refused = server.get("/v2/");
    assert_eq!((refused.error(), refused.header("retry-after")), (error(503, "UNAVAILABLE"), Some("1")));
    assert_eq!(server.get("/healthz").status, 200);
    until("one makes way", || server.get("/v2/").status == 200);
    assert!(stalled.iter_mut().any(is_closed));
}

#[test]
fn one_client_has_not_all_places_and_makes_way_for_itself() {
    let mut with = settings();
    (with.limits.connections, with.limits.connections_per_client) = (10, 2);
    with.limits.silent = Duration::from_millis(100);
    let server = Server::configured(with.clone());
    let mut own: Vec<_> = (0..3).map(|_| connect(&server)).collect();
    until("the third is surplus or takes another's place", || metric(&server, "registry_connections") >= 2);
    until("it is served in the end", || server.get("/v2/").status == 200);
    assert!(own.iter_mut().take(2).any(is_closed), "one of its own had to go");

    // A proxy is many clients.
    with.proxies = vec!["127.0.0.1".parse().unwrap()];
    let server = Server::configured(with);
    let _many: Vec<_> = (0..8).map(|_| connect(&server)).collect();
    until("all are accepted", || metric(&server, "registry_connections") >= 9);
    assert_eq!(server.get("/v2/").status, 200);
}

#[test]
fn bodies_that_do_not_come_or_come_too_slowly_are_given_up_and_of_a_blob_what_came_is_kept() {
    let server = limited(|limits| {
        limits.idle = Duration::from_millis(400);
        limits.rate = 100_000;
    });
    let upload = server.upload("repo");
    let mut idle = server.begin("PATCH", &upload, &[], 1000);
    idle.write_all(&[7; 500]).unwrap();
    assert_eq!(Answer::read(idle).error(), error(408, "BLOB_UPLOAD_INVALID"));
    assert_eq!(server.get(&upload).header("range"), Some("0-499"));

    // A byte now and then, more often than the time for which nothing may come.
    for (method, path, code) in [
        ("PATCH", upload.as_str(), "BLOB_UPLOAD_INVALID"),
        ("PUT", "/v2/repo/manifests/v1", "MANIFEST_INVALID"),
        (
            "POST",
            &format!("/v2/repo/blobs/uploads/?digest={}", Digest::of(Algorithm::Sha256, b"x")),
            "BLOB_UPLOAD_INVALID",
        ),
    ] {
        let mut slow = server.begin(method, path, &[("Content-Type", IMAGE)], 1_000_000);
        let begun = Instant::now();
        while !is_answered(&slow) {
            slow.write_all(b"x").unwrap();
            assert!(begun.elapsed() < LONG, "{method}");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(Answer::read(slow).error(), error(408, code), "{method}");
    }
    let kept: usize = server.get(&upload).header("range").unwrap()[2..].parse().unwrap();
    assert!(kept > 499, "what came slowly is kept too");

    // At a rate that is good enough, it may take as long as it takes.
    let upload = server.upload("repo");
    let mut steady = server.begin("PATCH", &upload, &[], 40 * 20_000);
    for _ in 0..40 {
        steady.write_all(&[7; 20_000]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(Answer::read(steady).status, 202);
}

#[test]
fn a_body_may_not_take_for_ever_at_whatever_rate() {
    let server =
        limited(|limits| (limits.blob, limits.manifest) = (Duration::from_millis(700), Duration::from_millis(300)));
    let begun = Instant::now();
    for (method, path, code) in [
        ("PUT", "/v2/repo/manifests/v1".to_owned(), "MANIFEST_INVALID"),
        ("PATCH", server.upload("repo"), "BLOB_UPLOAD_INVALID"),
    ] {
        let mut endless = server.begin(method, &path, &[("Content-Type", IMAGE), ("Transfer-Encoding", "chunked")], 0);
        while !is_answered(&endless) {
            endless.write_all(&[b"64\r\n", &[b' '; 100][..], b"\r\n"].concat()).unwrap();
            assert!(begun.elapsed() < LONG);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(Answer::read(endless).error(), error(408, code));
    }
}

#[test]
fn a_client_that_does_not_read_its_answer_is_given_up() {
    let server = limited(|limits| limits.idle = Duration::from_millis(300));
    let digest = server.push_blob("repo", &Random(1).bytes(24 << 20));
    let stuck: Vec<_> = (0..5).map(|_| server.begin("GET", &format!("/v2/repo/blobs/{digest}"), &[], 0)).collect();
    until("they are given up", || {
        metric(&server, "registry_requests_under_way") == 1 && metric(&server, "registry_connections") == 1
    });
    for mut stuck in stuck {
        let end = io::copy(&mut stuck, &mut io::sink()).map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::ConnectionReset), "the system keeps nothing for it");
    }
    assert!(server.get(&format!("/v2/repo/blobs/{digest}")).body.len() == 24 << 20);
}

#[test]
fn memory_is_for_all_and_who_holds_it_without_going_on_makes_way() {
    let memory = 16 << 20;
    let server = limited(|limits| {
        limits.memory = memory;
        limits.stalled = Duration::from_millis(300);
        limits.silent = Duration::from_millis(100);
    });
    let mut large = image(server.push_blob("repo", b"{}"), 2);
    large["padding"] = json!("x".repeat(4_000_000));
    assert_eq!(server.push_manifest("repo", "v1", &large).status, 201);
    let len = large.to_string().len();
    // 5 MB each for bodies that do not come to their end, and as much for answers that nobody reads.
    let mut pushing: Vec<_> = (0..6)
        .map(|_| {
            let mut stream = server.begin("PUT", "/v2/repo/manifests/v2", &[("Content-Type", IMAGE)], len);
            stream.write_all(&large.to_string().as_bytes()[..len - 1]).unwrap();
            stream
        })
        .collect();
    let _pulling: Vec<_> = (0..6).map(|_| server.begin("GET", "/v2/repo/manifests/v1", &[], 0)).collect();
    until("memory is taken", || metric(&server, "registry_memory_kept_bytes") > 0);
    for _ in 0..3 {
        let pulled = server.get("/v2/repo/manifests/v1");
        assert_eq!((pulled.status, pulled.body.len()), (200, len));
        assert!(metric(&server, "registry_memory_kept_bytes") <= memory as u64);
        assert_eq!(server.push_manifest("repo", "v3", &large).status, 201);
    }
    assert!(pushing.iter_mut().any(is_closed));

    // Where those that have it go on, and go on, the next is told to come again.
    let server = limited(|limits| {
        limits.memory = 1 << 20;
        limits.wait = Duration::from_millis(200);
    });
    server.push_blob("repo", b"{}");
    assert_eq!(server.push_manifest("repo", "v1", &large).status, 201, "what is more than all is all");
    let mut stream = server.begin("PUT", "/v2/repo/manifests/v1", &[("Content-Type", IMAGE)], len);
    stream.write_all(&[b' '; 100_000]).unwrap();
    until("memory is taken", || metric(&server, "registry_memory_kept_bytes") > 0);
    let refused = server.get("/v2/repo/manifests/v1");
    assert_eq!((refused.error(), refused.header("retry-after")), (error(503, "UNAVAILABLE"), Some("1")));
    assert_eq!(server.get("/v2/_catalog").status, 200, "what is short needs none of it");
}

#[test]
fn a_chunk_is_as_long_as_it_says_also_where_its_length_is_not_known_before() {
    let server = Server::start();
    let upload = server.upload("repo");
    let send = |range: &str, chunks: &[&[u8]]| {
        let mut stream = connect(&server);
        let head = format!(
            "PATCH {upload} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
             Content-Range: {range}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        for chunk in chunks.iter().chain(&[&b""[..]]) {
            // The answer may come before all was sent.
            let _ = stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes());
            let _ = stream.write_all(chunk).and_then(|()| stream.write_all(b"\r\n"));
        }
        Answer::read(stream)
    };
    let long = vec![7; 700_000];
    for (range, chunks) in
        [("0-9", [&b"12345"[..]].as_slice()), ("0-9", &[b"12345", b"678901"]), ("0-99", &[&long[..], &long[..]])]
    {
        assert_eq!(send(range, chunks).error(), error(400, "SIZE_INVALID"), "{range}");
        assert_eq!(server.get(&upload).header("range"), Some("0-0"), "nothing of it counts");
    }
    assert_eq!(send("0-9", &[b"12345", b"67890"]).header("range"), Some("0-9"));
    assert_eq!(send("10-1400009", &[&long, &long]).header("range"), Some("0-1400009"));
    assert_eq!(send("10-19", &[b"1234567890"]).status, 416);
    let finish =
        format!("{upload}?digest={}", Digest::of(Algorithm::Sha256, &[b"1234567890", &long[..], &long[..]].concat()));
    assert_eq!(server.send("PUT", &finish, &[], &[]).status, 201);
}

#[test]
fn a_request_says_where_it_is_sent_and_only_to_where_the_registry_is() {
    let server = Server::start();
    for (request, status) in [
        ("GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ("GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", 400),
        ("GET /v2/ HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n", 400),
        ("GET /v2/ HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n", 400),
        ("GET /v2/ HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", 200),
        ("GET /v2/ HTTP/1.0\r\n\r\n", 200),
        ("GET http://registry/v2/ HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n", 200),
    ] {
        assert_eq!(raw(&server, request).status, status, "{request:?}");
    }
    let admission = Admission { hosts: vec!["Registry:5000".to_owned()], ..Admission::default() };
    let server = Server::configured(Settings { admission, ..settings() });
    let of = |host: &str, path: &str| {
        raw(&server, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    assert_eq!(of("registry:5000", "/v2/").status, 200);
    assert_eq!(of("rebound.example:5000", "/v2/").error(), error(421, "DENIED"));
    assert_eq!(of("registry", "/v2/").status, 421);
    assert_eq!(of("10.0.0.7:5000", "/healthz").status, 200, "probes ask by address");
}

#[test]
fn a_page_of_another_origin_writes_nothing() {
    let server = Server::start();
    let upload = "/v2/repo/blobs/uploads/";
    for headers in [
        [("Origin", "http://evil.example")],
        [("Origin", "null")],
        [("Origin", "http://registry.evil.example")],
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "same-site")],
    ] {
        for (method, path) in [("POST", upload), ("PUT", "/v2/repo/manifests/v1"), ("DELETE", "/v2/repo/manifests/v1")]
        {
            assert_eq!(server.send(method, path, &headers, &[]).error(), error(403, "DENIED"), "{headers:?} {method}");
        }
        assert_eq!(server.send("GET", "/v2/", &headers, &[]).status, 200, "what it reads, the browser keeps from it");
    }
    assert_eq!(server.get("/v2/_catalog").json()["repositories"], json!([]));
    for headers in [[("Origin", "http://registry")], [("Sec-Fetch-Site", "same-origin")], [("Sec-Fetch-Site", "none")]]
    {
        assert_eq!(server.send("POST", upload, &headers, &[]).status, 202);
    }
    let preflight = server.send("OPTIONS", upload, &[("Origin", "http://evil.example")], &[]);
    assert_eq!((preflight.status, preflight.header("allow")), (204, Some("POST, OPTIONS")));
    assert_eq!(preflight.header("access-control-allow-origin"), None);

    let admission = Admission { origins: vec!["https://ui.example".to_owned()], ..Admission::default() };
    let server = Server::configured(Settings { admission, ..settings() });
    let ui = [("Origin", "https://ui.example")];
    let begun = server.send("POST", upload, &ui, &[]);
    assert_eq!((begun.status, begun.header("access-control-allow-origin")), (202, Some("https://ui.example")));
    assert_eq!(server.send("POST", upload, &[("Origin", "http://ui.example")], &[]).status, 403);
}

#[test]
fn a_path_means_what_it_says_and_no_content_is_taken_for_another_kind() {
    let server = Server::start();
    server.push_image("a/b", "v1", "config");
    for path in [
        "/v2/a%2Fb/manifests/v1",
        "/v2/a%2fb/tags/list",
        "/%76%32/a/b/tags/list",
        "/v2/a/b/%74ags/list",
        "/v2/a/b/manifests/v%31",
        "/v2/a/b/tags/list%00",
    ] {
        assert_eq!(server.get(path).error(), error(400, "UNSUPPORTED"), "{path}");
    }
    for path in [
        "/v2//a/b/tags/list",
        "/v2/./a/b/tags/list",
        "/v2/x/../a/b/tags/list",
        "//v2/a/b/tags/list",
        "/V2/a/b/tags/list",
        "/v2/a/b/tags/list/",
        "/v2/a/b;x/tags/list",
        "/v2/a\\b/tags/list",
    ] {
        assert!(matches!(server.get(path).status, 400 | 404), "{path}");
    }
    for path in [
        "/v2/",
        "/v2/a/b/manifests/v1",
        "/v2/_catalog",
        "/v2/none/tags/list",
        "/healthz",
        "/metrics",
        "/elsewhere",
        "/v2/a%2Fb/tags/list",
    ] {
        assert_eq!(server.get(path).header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(server.get(path).header("date").is_some_and(|date| date.ends_with(" GMT")));
    }
}

#[test]
fn an_answer_is_seen_also_by_who_still_sends() {
    let server = Server::start();
    let body = vec![0; 4_000_000];
    let unknown = "/v2/repo/blobs/uploads/00000000-0000-0000-0000-000000000000";
    for _ in 0..20 {
        let mut stream = server.begin("PATCH", unknown, &[], body.len());
        let _ = stream.write_all(&body);
        assert_eq!(Answer::read(stream).status, 404);
    }
}

#[test]
fn what_a_client_begins_and_leaves_is_bounded_and_goes_away() {
    let mut with = settings();
    let limits = &mut with.limits;
    (limits.begun_uploads, limits.uploads, limits.new_repositories) = (5, 8, 3);
    limits.begun = Duration::from_millis(1500);
    with.proxies = vec!["127.0.0.1".parse().unwrap()];
    let server = Server::configured(with);
    let begin = |client: &str, name: &str| {
        server.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[("X-Forwarded-For", client)], &[])
    };
    let uploads: Vec<_> = (0..5).map(|_| begin("192.0.2.1", "repo").header("location").unwrap().to_owned()).collect();
    let refused = begin("192.0.2.1", "repo");
    assert_eq!((refused.error(), refused.header("retry-after")), (error(429, "TOOMANYREQUESTS"), Some("60")));
    assert_eq!(begin("192.0.2.2", "repo").status, 202, "another client");
    // One that goes on counts less, one that ends not at all.
    for upload in &uploads[..3] {
        assert_eq!(server.send("PATCH", upload, &[], b"content").status, 202);
    }
    assert_eq!((begin("192.0.2.1", "repo").status, begin("192.0.2.1", "repo").status), (202, 202));
    assert_eq!(begin("192.0.2.1", "repo").status, 202);
    assert_eq!(begin("192.0.2.1", "repo").status, 429, "eight in all");
    let digest = Digest::of(Algorithm::Sha256, b"content");
    assert_eq!(server.send("PUT", &format!("{}?digest={digest}", uploads[0]), &[], &[]).status, 201);
    assert_eq!(server.send("DELETE", &uploads[1], &[], &[]).status, 204);
    until("those without content are given up", || server.get(&uploads[4]).status == 404);
    assert_eq!(server.get(&uploads[2]).header("range"), Some("0-6"), "the one with content stays");
    assert_eq!(begin("192.0.2.1", "repo").status, 202);

    // `repo` is one of them, until something was pushed to it.
    let missing = image(Digest::of(Algorithm::Sha256, b"missing"), 7).to_string();
    let push = |name: &str, document: &str| {
        let headers = [("Content-Type", IMAGE), ("X-Forwarded-For", "192.0.2.1")];
        server.send("PUT", &format!("/v2/{name}/manifests/v1"), &headers, document.as_bytes())
    };
    assert_eq!((push("new-1", &missing).status, push("new-2", &missing).status), (400, 400));
    assert_eq!(push("new-3", &missing).error(), error(429, "TOOMANYREQUESTS"));
    assert_eq!(push("new-1", &missing).status, 400, "it is there already");
    let config = server.push_blob("repo", b"{}");
    assert_eq!(push("repo", &image(config, 2).to_string()).status, 201);
    assert_eq!(push("new-3", &missing).status, 400);

    let disk = server.disk.clone();
    assert_eq!(server.get("/v2/_catalog").json()["repositories"], json!(["new-1", "new-2", "new-3", "repo"]));
    drop(server);
    let store = crate::server::options(&disk).retention(Duration::ZERO).open("/store").unwrap();
    assert_eq!(store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap().repositories, 3);
    assert_eq!(store.repositories(None, 9).unwrap().items, ["repo".parse().unwrap()]);
}

#[test]
fn documents_that_clients_read_differently_are_refused() {
    let server = Server::start();
    let config = server.push_blob("repo", b"{}");
    let away = json!({ "mediaType": "x/y", "digest": Digest::of(Algorithm::Sha256, b"away").to_string(), "size": 1 });
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut manifest = image(config, 2);
        change(&mut manifest);
        server.push_manifest("repo", "v1", &manifest).error()
    };
    let invalid = error(400, "MANIFEST_INVALID");
    assert_eq!(with(&|manifest| manifest["config"]["size"] = json!(3)), invalid);
    assert_eq!(with(&|manifest| manifest["config"]["size"] = json!(-1)), invalid);
    assert_eq!(with(&|manifest| manifest["config"]["size"] = json!(2.5)), invalid);
    assert_eq!(with(&|manifest| manifest["Layers"] = json!([away])), invalid);
    assert_eq!(with(&|manifest| manifest["annotations"] = json!({ "n": 1, "k": "v" })), invalid);
    let many: serde_json::Map<_, _> = (0..100_000).map(|n| (n.to_string(), json!(""))).collect();
    assert_eq!(with(&|manifest| manifest["annotations"] = json!(many)), invalid);
    assert_eq!(server.get("/v2/repo/tags/list").json()["tags"], json!([]));
}

#[test]
fn a_filter_over_many_referrers_that_matches_none_is_answered_in_pages() {
    let disk = strongroom::vfs::SimVfs::new();
    let subject = Digest::of(Algorithm::Sha256, b"subject");
    let server = Server::on(disk, |store| {
        let ours =
            store.ensure_repository(&"repo".parse().unwrap(), strongroom::registry::RepositorySettings::new()).unwrap();
        let config = ours.put("{}", Algorithm::Sha256).unwrap().digest;
        for n in 0..7000 {
            let mut manifest = image(config, 2);
            manifest["subject"] = json!({ "mediaType": IMAGE, "digest": subject.to_string(), "size": 7 });
            manifest["annotations"] = json!({ "n": n.to_string() });
            ours.put_manifest(manifest.to_string(), strongroom::registry::PutManifest::new(IMAGE)).unwrap();
        }
    });
    let pages = server.pages(&format!("/v2/repo/referrers/{subject}?artifactType=no/such"));
    assert!(pages.len() > 1, "{}", pages.len());
    assert!(pages.iter().all(|page| page["mediaType"] == INDEX && page["manifests"] == json!([])));
}

#[test]
fn health_is_tried_out() {
    let server = Server::start();
    assert_eq!(server.get("/healthz").body, b"ok\n");
    server.disk.set_read_only(true);
    until("it is known", || server.get("/healthz").status == 503);
    server.disk.set_read_only(false);
    until("it is over", || server.get("/healthz").status == 200);
    server.disk.set_capacity(Some(server.disk.used()));
    until("it is told", || server.get("/healthz").body.starts_with(b"ok, but the disk is full"));
    server.disk.set_capacity(None);
    drop(server);

    // On a real disk, the directory goes.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Options::new().create(true).open(&path).unwrap();
    let server = Server::serving(store);
    assert_eq!(server.get("/healthz").status, 200);
    std::fs::rename(&path, dir.path().join("away")).unwrap();
    until("it is known", || server.get("/healthz").status == 503);
    let _ = std::fs::remove_dir_all(&path); // the view of names, if it was just being made
    std::fs::rename(dir.path().join("away"), &path).unwrap();
    until("it is back", || server.get("/healthz").status == 200);
}

/// The log of all tests in this process.
static LOGGED: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

struct Collecting;

impl<S: Subscriber> Layer<S> for Collecting {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        LOGGED.lock().unwrap().push((*event.metadata().level(), text.0));
    }
}

#[test]
fn errors_in_the_log_are_the_operators_and_none_that_a_client_makes() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Collecting));
    });
    let server = Server::start();
    let missing = image(Digest::of(Algorithm::Sha256, b"a digest that nobody else logs"), 7);
    assert_eq!(server.push_manifest("of-a-client", "v1", &missing).status, 400);
    let path = format!("/v2/of-a-client/manifests/{}", "x".repeat(5000));
    assert_eq!(server.get(&path).status, 400);
    let answer = raw(
        &server,
        &format!(
            "{} /v2/of-a-client/\u{9b}31m\u{85}\u{202e}?\u{2028} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "M".repeat(9000)
        ),
    );
    assert_eq!(answer.status, 404);
    let about = |word: &str| {
        let logged = LOGGED.lock().unwrap();
        logged.iter().filter(|(_, text)| text.contains(word)).cloned().collect::<Vec<_>>()
    };
    until("all are logged", || about("of-a-client").len() >= 3);
    for (level, text) in about("of-a-client") {
        assert_eq!(level, Level::INFO, "{text}");
        assert!(text.len() < 700, "a client's path makes no long line: {}", text.len());
        assert!(
            text.chars().all(|c| c == ' ' || c == 'µ' || c.is_ascii_graphic()),
            "nor one that a terminal obeys: {text:?}"
        );
    }
    assert!(about("references 1 blobs").is_empty());

    let upload = server.upload("of-a-full-disk");
    server.disk.set_capacity(Some(server.disk.used() + 100_000));
    assert_eq!(server.send("PATCH", &upload, &[], &Random(4).bytes(3_000_000)).status, 507);
    until("a full disk is a warning", || about("nothing can be pushed").iter().any(|(level, _)| *level == Level::WARN));
}
