//! Clients that take much, each in a way that was not counted once: others are served, and memory stays with what is
//! counted.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Digest};

use crate::common::registry::{IMAGE, INDEX};
use crate::common::watched::Gate;
use crate::error;
use crate::hostile::{LONG, is_closed, limited, metric, raw, until};
use crate::server::{Answer, Server, image, options, settings};
use strongroom_registry::http::Settings;
use strongroom_registry::http::limits::Limits;

/// A registry behind a proxy, which says who asks. It compresses blobs.
fn behind_a_proxy(change: impl FnOnce(&mut Limits)) -> Server {
    let mut settings = settings();
    settings.proxies = vec!["127.0.0.1".parse().unwrap()];
    change(&mut settings.limits);
    let disk = SimVfs::new();
    let store = options(&disk).inline_max(4 << 20).open("/store").unwrap();
    Server::serve_with(disk, store, settings)
}

/// A connection from an address of this machine, that takes little at a time.
fn connect_from(server: &Server, address: &str) -> TcpStream {
    let address: IpAddr = address.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(server.address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

#[test]
fn what_a_client_sends_makes_no_long_answer() {
    let server = Server::start();
    let document = format!(r#"{{"schemaVersion":2,"mediaType":"{}"}}"#, "\u{7f}".repeat(4_000_000));
    let answer = server.send("PUT", "/v2/repo/manifests/v1", &[("Content-Type", IMAGE)], document.as_bytes());
    assert_eq!(answer.error(), error(400, "MANIFEST_INVALID"));
    assert!(answer.body.len() < 4000, "{} bytes", answer.body.len());
    let quotes = "\"".repeat(20_000);
    for path in [
        format!("/v2/repo/blobs/uploads/{quotes}"),
        format!("/v2/repo/manifests/{quotes}"),
        format!("/v2/repo/blobs/uploads/?digest={quotes}"),
        format!("/v2/repo/blobs/uploads/?digest-algorithm={quotes}"),
    ] {
        let answer = server.send("POST", &path, &[], &[]);
        assert!((400..500).contains(&answer.status));
        assert!(answer.body.len() < 8000, "{} bytes", answer.body.len());
    }
}

#[test]
fn a_head_is_short_and_so_is_the_list_of_its_parameters() {
    let server = Server::start();
    let many = format!("/v2/repo/tags/list?{}", "a&".repeat(300));
    assert_eq!(server.get(&many).error(), error(414, "UNSUPPORTED"));
    let long = "x".repeat(40_000);
    assert_eq!(server.send("GET", "/v2/", &[("X-Long", &long)], &[]).error(), error(431, "UNSUPPORTED"));
    assert_eq!(server.get(&format!("/v2/?{long}")).status, 431);
    assert_eq!(raw(&server, &format!("{long} /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).status, 431);
    assert_eq!(server.send("GET", "/v2/", &[("X-Long", &long[..30_000])], &[]).status, 200);
}

#[test]
fn pulls_and_lists_go_on_while_all_that_writes_waits_for_the_disk() {
    let (disk, gate) = (SimVfs::new(), Arc::new(Gate::default()));
    let options = options(&disk).log_file_size(16 << 10).vfs(Arc::new(gate.before(".log", &disk)));
    let settings = settings();
    let limits = Limits { wait: LONG, ..settings.limits };
    let server = Server::serve_with(disk, options.open("/store").unwrap(), Settings { limits, ..settings });
    let config = server.push_blob("repo", b"{}");
    let manifest = image(config, 2);
    assert_eq!(server.push_manifest("repo", "v1", &manifest).status, 201);
    let upload = server.upload("repo");
    gate.shut();
    // More than one client has turns, each with more than what is left of the log file.
    let pushes: Vec<_> = (0..60u8)
        .map(|n| {
            let digest = Digest::of(Algorithm::Sha256, &[n; 900]);
            let path = format!("/v2/repo/blobs/uploads/?digest={digest}");
            let mut stream = server.begin("POST", &path, &[], 900);
            stream.write_all(&[n; 900]).unwrap();
            stream
        })
        .collect();
    gate.wait();
    let blob = format!("/v2/repo/blobs/{config}");
    let referrers = format!("/v2/repo/referrers/{config}");
    for path in [&blob, "/v2/repo/manifests/v1", "/v2/repo/tags/list", "/v2/_catalog", &referrers, "/metrics"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.get(&upload).status, 204);
    assert_eq!(server.send("HEAD", "/v2/repo/manifests/v1", &[], &[]).status, 200);
    gate.open();
    assert!(pushes.into_iter().all(|push| Answer::read(push).status == 201));
}

#[test]
fn who_waits_for_memory_keeps_nobody_else_waiting() {
    let server = behind_a_proxy(|limits| {
        limits.memory = 1 << 20;
        (limits.wait, limits.silent) = (LONG, LONG);
    });
    let send = |client: &str, method: &str, path: &str| {
        let stream = server.begin(method, path, &[("X-Forwarded-For", client)], 0);
        stream.set_read_timeout(Some(LONG / 2)).unwrap();
        stream
    };
    // What is compressed is unpacked in memory; and referrers whose page is long.
    let layer = server.push_blob("repo", &vec![7; 900_000]);
    let config = server.push_blob("repo", b"{}");
    let subject = Digest::of(Algorithm::Sha256, b"subject");
    let mut signature = image(config, 2);
    signature["subject"] = json!({ "mediaType": IMAGE, "digest": subject.to_string(), "size": 7 });
    signature["annotations"] = json!({ "note": "x".repeat(100_000) });
    assert_eq!(server.push_manifest("repo", "signature", &signature).status, 201);
    let (layer, referrers) = (format!("/v2/repo/blobs/{layer}"), format!("/v2/repo/referrers/{subject}"));
    let others = format!("/v2/repo/referrers/{}", Digest::of(Algorithm::Sha256, b"other"));

    let body = vec![b' '; 400_000];
    let headers = [("Content-Type", IMAGE), ("X-Forwarded-For", "192.0.2.1")];
    let mut keeping = server.begin("PUT", "/v2/repo/manifests/v1", &headers, 520_000);
    keeping.write_all(&body).unwrap();
    until("memory is kept", || metric(&server, "registry_memory_kept_bytes") > 500_000);
    let _pulling: Vec<_> = (0..80).map(|_| send("192.0.2.1", "GET", &layer)).collect();
    let _listing: Vec<_> = (0..4).map(|_| send("192.0.2.1", "GET", &referrers)).collect();
    until("they wait", || metric(&server, "registry_requests_under_way") >= 85);
    for client in ["192.0.2.1", "192.0.2.2"] {
        for (method, path) in [("HEAD", &layer), ("GET", &others)] {
            assert_eq!(Answer::read(send(client, method, path)).status, 200, "{method} {path}");
        }
    }
    assert_eq!(server.get("/healthz").status, 200);
    // When there is some again, they have what they asked for.
    drop(keeping);
    let page = Answer::read(send("192.0.2.2", "GET", &referrers)).json();
    assert_eq!((page["mediaType"].as_str(), page["manifests"].as_array().unwrap().len()), (Some(INDEX), 1));
}

#[test]
fn who_wants_more_than_a_share_of_memory_takes_it_from_nobody_else() {
    let server = behind_a_proxy(|limits| {
        limits.memory = 16 << 20;
        limits.silent = Duration::from_millis(50);
        limits.wait = Duration::from_millis(500);
    });
    let layer = server.push_blob("repo", &vec![7; 3_000_000]);
    let get = |client: &str| {
        let mut stream = connect_from(&server, "127.0.0.1");
        let head = format!("GET /v2/repo/blobs/{layer} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n");
        stream.write_all(format!("{head}X-Forwarded-For: {client}\r\n\r\n").as_bytes()).unwrap();
        stream
    };
    // One pulls, and pauses; others hold a little each, and do not go on either.
    let mut honest = get("192.0.2.1");
    until("it is held", || metric(&server, "registry_memory_kept_bytes") >= 3_000_000);
    let _others: Vec<_> = (2..6)
        .map(|n| {
            let client = format!("192.0.2.{n}");
            let headers = [("Content-Type", IMAGE), ("X-Forwarded-For", client.as_str())];
            let mut stream = server.begin("PUT", "/v2/repo/manifests/v1", &headers, 100_000);
            stream.write_all(&[b' '; 80_000]).unwrap();
            stream
        })
        .collect();
    until("they have some", || metric(&server, "registry_memory_kept_bytes") >= 3_400_000);
    assert_eq!(Answer::read(get("192.0.2.2")).status, 503, "it is more than a share");
    let mut answer = Vec::new();
    honest.read_to_end(&mut answer).unwrap();
    assert!(answer.len() > 3_000_000, "{} bytes", answer.len());
}

#[test]
fn who_has_more_connections_than_a_share_loses_one_to_who_has_none() {
    let server = limited(|limits| {
        (limits.connections, limits.connections_per_client) = (6, 6);
        (limits.silent, limits.stalled) = (LONG, LONG);
    });
    let begin = |from: &str| {
        let mut stream = connect_from(&server, from);
        let head = "PUT /v2/repo/manifests/v1 HTTP/1.1\r\nHost: registry\r\nContent-Length: 1000\r\n";
        stream.write_all(format!("{head}Content-Type: {IMAGE}\r\n\r\n").as_bytes()).unwrap();
        stream
    };
    // They shut everybody out as long as they went on.
    let mut taken: Vec<_> =
        ["127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.4"].map(begin).into();
    let mut new = connect_from(&server, "127.0.0.5");
    new.write_all(b"GET /v2/ HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(Answer::read(new).status, 200);
    let closed: Vec<usize> = (0..6).filter(|n| is_closed(&mut taken[*n])).collect();
    assert!(matches!(closed[..], [0..3]), "one of who has most: {closed:?}");
}

#[test]
fn an_upload_to_which_something_comes_is_none_without_content() {
    let server = limited(|limits| {
        (limits.begun_uploads, limits.uploads) = (3, 3);
        limits.begun = Duration::from_secs(1);
    });
    let uploads: Vec<_> = (0..3).map(|_| server.upload("repo")).collect();
    let mut slow = server.begin("PATCH", &uploads[0], &[], 20);
    slow.write_all(b"0123456789").unwrap();
    for cut_off in &uploads[1..] {
        server.begin("PATCH", cut_off, &[], 200).write_all(&[7; 100]).unwrap();
        until("what came counts", || server.get(cut_off).header("range") == Some("0-99"));
    }
    std::thread::sleep(Duration::from_secs(2)); // those without content are given up meanwhile
    let more = server.send("POST", "/v2/repo/blobs/uploads/", &[], &[]);
    assert_eq!(more.error(), error(429, "TOOMANYREQUESTS"), "they count");
    assert_eq!(server.get(&uploads[1]).header("range"), Some("0-99"));
    slow.write_all(b"0123456789").unwrap();
    assert_eq!(Answer::read(slow).header("range"), Some("0-19"), "it goes on, however slowly");
}
