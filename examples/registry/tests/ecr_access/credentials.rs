//! Signatures, passwords and tokens that are forged, stale, somebody else's or another thing's.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use strongroom::sigv4::{Credentials, Expected, Request, Secret, verify};
use strongroom::{Algorithm, Digest};
use strongroom_registry::auth::token::{Claims, TokenKey, seconds};
use strongroom_registry::auth::{Auth, Identity};

use crate::client::{
    Client, Guarded, Headers, OWN, REGION, Signing, TOKEN_KEY, access_key, allow, basic, borrowed, document, key_of,
    kind, secret_of, signed, target, user,
};
use crate::server::Answer;
use crate::silence::push;

/// Users with all rights: `ci`, with a second key that is not active; and `other`. A role with three sessions.
fn users() -> Value {
    let everything = json!([allow(&["*"], &["*"])]);
    let mut ci = user("ci", OWN, &everything);
    ci["accessKeys"].as_array_mut().unwrap().push(json!({
        "id": key_of("old"), "secret": secret_of(&key_of("old")), "status": "Inactive",
    }));
    let session = |name: &str, more: Value| {
        let mut session = access_key(name);
        session["name"] = json!(name);
        session.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        session
    };
    let role = json!({ "name": "deploy", "policies": everything, "sessions": [
        session("now", json!({ "token": "session-token", "expires": "2999-01-01T00:00:00Z" })),
        session("over", json!({ "token": "session-token", "expires": "2020-01-01T00:00:00Z" })),
        session("bare", json!({ "expires": "2020-01-01T00:00:00Z" })),
    ] });
    json!({ "users": [ci, user("other", OWN, &everything)], "roles": [role] })
}

/// A registry with an image in `app`.
fn registry() -> Guarded {
    let guarded = Guarded::start(&users());
    push(&mut guarded.client(&key_of("ci")), "app", "v1", b"a config");
    guarded
}

const BODY: &[u8] = br#"{"repositoryName":"app"}"#;

fn headers() -> [(&'static str, &'static str); 2] {
    [
        ("x-amz-target", "AmazonEC2ContainerRegistry_V20150921.ListImages"),
        ("content-type", "application/x-amz-json-1.1"),
    ]
}

/// A call that is signed in some way.
fn call(client: &mut Client, signing: &Signing<'_>, more: Headers<'_>) -> Answer {
    let headers = [&headers()[..], more].concat();
    client.send("POST", "/", &borrowed(&signed(signing, &headers, BODY)), BODY)
}

/// A call whose headers are changed once they are signed.
fn changed(client: &mut Client, change: impl FnOnce(&mut Vec<(String, String)>), body: &[u8]) -> Answer {
    let key = key_of("ci");
    let mut signed = signed(&Signing::new(&key, "ecr"), &headers(), BODY);
    change(&mut signed);
    client.send("POST", "/", &borrowed(&signed), body)
}

fn refused(answer: &Answer, expected: &str, what: &str) {
    assert_eq!((answer.status, kind(answer).as_str()), (400, expected), "{what}: {answer:?}");
    let body = String::from_utf8_lossy(&answer.body);
    assert!(!body.contains("secret-of") && !body.contains("session-token"), "{body}");
}

const INVALID: &str = "InvalidSignatureException";
const INCOMPLETE: &str = "IncompleteSignatureException";
const UNKNOWN: &str = "UnrecognizedClientException";

#[test]
fn a_signature_is_good_for_its_key_time_scope_headers_and_body_alone() {
    let guarded = registry();
    let mut client = guarded.anonymous();
    let (ci, other) = (key_of("ci"), key_of("other"));
    let good = Signing::new(&ci, "ecr");
    assert_eq!(call(&mut client, &good, &[]).status, 200);
    for (minutes, is_good) in [(14, true), (16, false), (60 * 24, false), (60 * 24 * 365 * 40, false)] {
        let away = Duration::from_secs(minutes * 60);
        for at in [SystemTime::now() - away, SystemTime::now() + away] {
            let answer = call(&mut client, &Signing { at, ..good }, &[]);
            match is_good {
                true => assert_eq!(answer.status, 200),
                false => refused(&answer, INVALID, &format!("{minutes} minutes away")),
            }
        }
    }
    for (signing, expected) in [
        (Signing { region: "us-west-2", ..good }, INVALID),
        (Signing { region: "us-east-1", ..good }, INVALID),
        (Signing { region: "", ..good }, INCOMPLETE),
        (Signing { service: "ecr-public", ..good }, INVALID),
        (Signing { service: "sts", ..good }, INVALID),
        (Signing { service: "s3", ..good }, INVALID),
        (Signing { secret: Some("secret-of-somebody"), ..good }, INVALID),
        (Signing { secret: Some(&secret_of(&other)), ..good }, INVALID),
        (Signing { secret: Some(""), ..good }, INVALID),
        (Signing::new(&key_of("old"), "ecr"), UNKNOWN),
        (Signing::new("KEYUNKNOWN", "ecr"), UNKNOWN),
        (Signing::new("", "ecr"), UNKNOWN),
    ] {
        let answer = call(&mut client, &signing, &[]);
        let what = format!("{} {} {}", signing.key, signing.region, signing.service);
        assert!([expected, INVALID, INCOMPLETE].contains(&kind(&answer).as_str()), "{what}: {answer:?}");
        assert_eq!(answer.status, 400, "{what}");
    }
    let digits = |text: &str| text.len() - text.rfind('=').unwrap() - 1;
    for at in 0..64 {
        let answer = changed(
            &mut client,
            |all| {
                let value = &mut all.last_mut().unwrap().1;
                assert_eq!(digits(value), 64);
                let place = value.len() - 64 + at;
                let digit = if value.as_bytes()[place] == b'0' { "1" } else { "0" };
                value.replace_range(place..=place, digit);
            },
            BODY,
        );
        refused(&answer, INVALID, &format!("digit {at}"));
        let answer = changed(
            &mut client,
            |all| {
                let value = &mut all.last_mut().unwrap().1;
                value.truncate(value.len() - 64 + at);
            },
            BODY,
        );
        assert!([INVALID, INCOMPLETE].contains(&kind(&answer).as_str()), "{answer:?}");
    }
    let over = |all: &mut Vec<(String, String)>, name: &str, value: &str| {
        all.iter_mut().find(|(own, _)| own == name).unwrap().1 = value.to_owned();
    };
    let delete = target("ecr", "DeleteRepository");
    for body in [&br#"{"repositoryName":"abb"}"#[..], b"", br#"{"repositoryName":"app"} "#] {
        refused(&changed(&mut client, |_| {}, body), INVALID, "another body");
    }
    refused(&changed(&mut client, |all| over(all, "x-amz-target", &delete), BODY), INVALID, "another operation");
    refused(&changed(&mut client, |all| over(all, "content-type", "text/plain"), BODY), INVALID, "another type");
    refused(&changed(&mut client, |all| over(all, "host", "other"), BODY), INVALID, "another host");
    refused(&changed(&mut client, |all| all.retain(|one| one.0 != "x-amz-date"), BODY), INCOMPLETE, "no date");
    let add = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (name, value, expected) in [
        ("x-amz-target", delete.as_str(), INCOMPLETE),
        ("x-amz-target", headers()[0].1, INCOMPLETE),
        ("x-amz-security-token", "session-token", INVALID),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD", INVALID),
        ("x-amz-anything", "1", INVALID),
        ("authorization", "AWS4-HMAC-SHA256 Credential=", INCOMPLETE),
        ("authorization", &basic(&ci, &secret_of(&ci)), INCOMPLETE),
    ] {
        for first in [true, false] {
            let answer = changed(
                &mut client,
                |all| {
                    let place = if first { 0 } else { all.len() };
                    all.insert(place, add(name, value));
                },
                BODY,
            );
            assert!([expected, INVALID, INCOMPLETE].contains(&kind(&answer).as_str()), "{name} {value}: {answer:?}");
        }
    }
    for announced in ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", &"0".repeat(64)] {
        refused(&call(&mut client, &good, &[("x-amz-content-sha256", announced)]), INVALID, announced);
    }
    for authorization in ["", "AWS4-HMAC-SHA256", "Bearer x", &basic(&ci, &secret_of(&ci))] {
        let answer = client.send("POST", "/", &[&headers()[..], &[("authorization", authorization)]].concat(), BODY);
        assert!([INCOMPLETE, "MissingAuthenticationTokenException"].contains(&kind(&answer).as_str()), "{answer:?}");
    }
    refused(&client.send("POST", "/", &headers(), BODY), "MissingAuthenticationTokenException", "unsigned");
    // A signature in the query is none.
    let query = format!("/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={ci}&X-Amz-Signature=0");
    refused(&client.send("POST", &query, &headers(), BODY), "MissingAuthenticationTokenException", "in the query");
}

#[test]
fn a_session_signs_with_its_token_until_it_is_over() {
    let guarded = registry();
    let mut client = guarded.anonymous();
    let token = ("x-amz-security-token", "session-token");
    for (key, more, expected) in [
        ("now", &[token][..], ""),
        ("now", &[], UNKNOWN),
        ("now", &[("x-amz-security-token", "session-toke")], UNKNOWN),
        ("now", &[("x-amz-security-token", "")], UNKNOWN),
        ("ci", &[token], UNKNOWN),
        ("over", &[token], "ExpiredTokenException"),
        ("bare", &[], "ExpiredTokenException"),
    ] {
        let key = key_of(key);
        let answer = call(&mut client, &Signing::new(&key, "ecr"), more);
        match expected {
            "" => assert_eq!(answer.status, 200, "{answer:?}"),
            _ => refused(&answer, expected, &key),
        }
    }
    // That it is over is told to those alone who have its secret.
    let (over, secret) = (key_of("over"), Some("secret-of-somebody"));
    refused(&call(&mut client, &Signing { secret, ..Signing::new(&over, "ecr") }, &[token]), INVALID, "guessed");
    // Keys with tokens, and those that are over, are no passwords.
    for key in ["now", "over", "bare", "old", "unknown"] {
        let key = key_of(key);
        let password = basic(&key, &secret_of(&key));
        let answer = client.send("GET", "/v2/app/tags/list", &[("authorization", &password)], &[]);
        assert_eq!(answer.status, 401, "{key}");
    }
}

#[test]
fn an_unknown_key_and_a_wrong_secret_are_told_apart_by_nothing_but_what_aws_tells() {
    let guarded = registry();
    let mut client = guarded.anonymous();
    let (ci, secret) = (key_of("ci"), Some("secret-of-somebody"));
    // Signed: AWS has two names for it. All else is the same.
    let shape = |answer: &Answer| {
        let names = answer.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let members = answer.json().as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        (answer.status, names, members)
    };
    let wrong = call(&mut client, &Signing { secret, ..Signing::new(&ci, "ecr") }, &[]);
    let unknown = call(&mut client, &Signing { secret, ..Signing::new("KEYNO", "ecr") }, &[]);
    assert_eq!(shape(&wrong), shape(&unknown));
    // As a password: one answer.
    let mut answers = Vec::new();
    for (user, password) in [(ci.as_str(), "wrong"), ("KEYNO", "wrong"), ("KEYOLD", "secret-of-KEYOLD"), ("", "x")] {
        let mut answer = client.send("GET", "/v2/", &[("authorization", &basic(user, password))], &[]);
        answer.headers.retain(|(name, _)| name != "date");
        answers.push(format!("{answer:?}"));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.contains("401")), "{answers:#?}");
}

/// Knows one key, and counts how often it is asked.
struct Counting(AtomicUsize);

impl Credentials for Counting {
    fn secret(&self, access_key_id: &str, _: Option<&str>) -> Option<Secret> {
        self.0.fetch_add(1, Relaxed);
        (access_key_id == "KEYCI").then(|| Secret::new("secret-of-KEYCI"))
    }
}

#[test]
fn a_signature_is_worked_on_once_whether_the_key_is_known_or_not() {
    for (key, secret, expected) in
        [("KEYCI", "secret-of-KEYCI", true), ("KEYCI", "secret-of-KEYNO", false), ("KEYNO", "secret-of-KEYNO", false)]
    {
        let signing = Signing { secret: Some(secret), ..Signing::new(key, "ecr") };
        let signed = signed(&signing, &headers(), BODY);
        let signed: Vec<_> = signed.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let request = Request::new("POST", "/").headers(&signed).body(BODY);
        let counting = Counting(AtomicUsize::new(0));
        let verified = verify(&request, &counting, signing.at, &Expected::new(&[("ecr", REGION)]));
        assert_eq!((verified.is_ok(), counting.0.into_inner()), (expected, 1), "{key}");
    }
}

/// The status of a request of the distribution API with a password for `AWS`, and as a bearer.
fn logged_in(client: &mut Client, token: &str) -> u16 {
    let of = |client: &mut Client, value: &str| {
        client.send("GET", "/v2/app/manifests/v1", &[("authorization", value)], &[]).status
    };
    let basic = of(client, &basic("AWS", token));
    let bearer = of(client, &format!("Bearer {token}"));
    assert!(basic == bearer || basic == 403, "{basic} {bearer}");
    basic
}

#[test]
fn no_token_but_one_that_was_given_out_is_taken() {
    let guarded = registry();
    let mut client = guarded.anonymous();
    let identity = |name: &str| {
        let arn = format!("arn:aws:iam::{OWN}:user/{name}");
        Identity::Principal(guarded.auth.by_arn(&arn).unwrap())
    };
    let token = guarded.auth.token_for(&identity("ci")).unwrap().text;
    assert_eq!(logged_in(&mut client, &token), 200);
    let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
    for at in 0..bytes.len() {
        for bit in [1, 0x80] {
            bytes[at] ^= bit;
            assert_eq!(logged_in(&mut client, &URL_SAFE_NO_PAD.encode(&bytes)), 401, "byte {at}");
            bytes[at] ^= bit;
        }
        assert_eq!(logged_in(&mut client, &URL_SAFE_NO_PAD.encode(&bytes[..at])), 401, "cut at {at}");
    }
    // The text has one spelling: else what was taken back could come again in another.
    for at in 0..token.len() {
        let mut text = token.clone().into_bytes();
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(logged_in(&mut client, &String::from_utf8(text).unwrap()), 401, "character {at}");
    }
    for text in [format!("{token}="), format!("{token}A"), format!(" {token}x"), format!("{token}:x"), String::new()] {
        assert_eq!(logged_in(&mut client, &text), 401, "{text}");
    }
    // What the key of tokens would make, had it been asked: each claim counts.
    let now = seconds(SystemTime::now());
    let good = Claims {
        arn: format!("arn:aws:iam::{OWN}:user/ci"),
        access_key_id: key_of("ci"),
        region: REGION.into(),
        issued: now,
        expires: now + 60,
    };
    let sealed = |key: [u8; 32], claims: Claims| TokenKey::new(&key).seal(&claims).unwrap().text;
    assert_eq!(logged_in(&mut client, &sealed(TOKEN_KEY, good.clone())), 200);
    assert_eq!(logged_in(&mut client, &sealed([8; 32], good.clone())), 401);
    for claims in [
        Claims { arn: format!("arn:aws:iam::{OWN}:user/other"), ..good.clone() },
        Claims { arn: format!("arn:aws:iam::{OWN}:root"), ..good.clone() },
        Claims { arn: String::new(), ..good.clone() },
        Claims { access_key_id: key_of("old"), ..good.clone() },
        Claims { access_key_id: key_of("over"), ..good.clone() },
        Claims { access_key_id: String::new(), ..good.clone() },
        Claims { region: "us-west-2".into(), ..good.clone() },
    ] {
        assert_eq!(logged_in(&mut client, &sealed(TOKEN_KEY, claims.clone())), 401, "{claims:?}");
    }
    // An expired password is told so; it is no better for that.
    assert_eq!(logged_in(&mut client, &sealed(TOKEN_KEY, Claims { expires: now - 1, ..good })), 403);
}

#[test]
fn tokens_for_blobs_places_and_logging_in_do_not_do_for_each_other() {
    let guarded = registry();
    let mut ci = guarded.client(&key_of("ci"));
    push(&mut ci, "app", "v2", b"another config");
    push(&mut ci, "copy", "v1", b"a config");
    let [config, another] = [&b"a config"[..], b"another config"].map(|bytes| Digest::of(Algorithm::Sha256, bytes));
    let url = ci.ok("GetDownloadUrlForLayer", &json!({ "repositoryName": "app", "layerDigest": config.to_string() }));
    let download = url["downloadUrl"].as_str().unwrap().split_once("?token=").unwrap().1.to_owned();
    let known = guarded.auth.by_arn(&format!("arn:aws:iam::{OWN}:user/ci")).unwrap();
    let login = guarded.auth.token_for(&Identity::Principal(known)).unwrap().text;
    let nobody = guarded.auth.token_for(&Identity::Anonymous).unwrap().text;
    let place = guarded.auth.place("app").unwrap();
    let mut client = guarded.anonymous();
    for token in [&download, &place, &nobody] {
        assert_eq!(logged_in(&mut client, token), 401);
    }
    assert_eq!(logged_in(&mut client, &login), 200);
    let read = |client: &mut Client, method: &str, path: &str, token: &str| {
        client.send(method, &format!("/v2/{path}?token={token}"), &[], &[]).status
    };
    for method in ["GET", "HEAD"] {
        assert_eq!(read(&mut client, method, &format!("app/blobs/{config}"), &download), 200);
        for token in [&login, &place, &nobody, &download[1..], &download[..download.len() - 1], ""] {
            assert_eq!(read(&mut client, method, &format!("app/blobs/{config}"), token), 401);
        }
    }
    for (method, path) in [
        ("GET", format!("app/blobs/{another}")),
        ("GET", format!("copy/blobs/{config}")),
        ("GET", format!("app/manifests/{config}")),
        ("GET", "app/tags/list".to_owned()),
        ("DELETE", format!("app/blobs/{config}")),
        ("PUT", format!("app/blobs/{config}")),
        ("POST", "app/blobs/uploads/".to_owned()),
    ] {
        assert_eq!(read(&mut client, method, &path, &download), 401, "{method} {path}");
    }
    for last in [&download, &login] {
        let answer = ci.get(&format!("/v2/_catalog?last=~{last}"));
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    // With a token, and a password that is wrong: it is the password that counts.
    let wrong = [("authorization", "Basic eDp5")];
    let path = format!("/v2/app/blobs/{config}?token={download}");
    assert_eq!(client.send("GET", &path, &wrong, &[]).status, 401);
}

#[test]
fn a_header_that_is_too_long_doubled_or_no_text_is_refused_before_it_is_worked_on() {
    let guarded = registry();
    let mut client = guarded.anonymous();
    let ci = basic(&key_of("ci"), &secret_of(&key_of("ci")));
    let tags = "/v2/app/tags/list";
    assert_eq!(client.send("GET", tags, &[("authorization", &ci)], &[]).status, 200);
    for value in [
        format!("Bearer {}", "a".repeat(9000)),
        basic("AWS", &"a".repeat(7000)),
        "Basic".to_owned(),
        "Basic ====".to_owned(),
        "Basic \u{fffd}".to_owned(),
        format!("Basic {}", STANDARD.encode("no colon")),
        format!("Basic {}", STANDARD.encode(b"\xff:\xff")),
        ci.replace("Basic ", "Basic"),
        ci.replace("Basic ", "Digest "),
        format!("{ci}, {ci}"),
    ] {
        assert_eq!(client.send("GET", tags, &[("authorization", &value)], &[]).status, 401, "{value}");
    }
    let twice = [("authorization", ci.as_str()), ("authorization", ci.as_str())];
    assert_eq!(client.send("GET", tags, &twice, &[]).status, 401);
    let long = [("authorization", "a".repeat(40_000))];
    assert_eq!(client.send("GET", tags, &[(long[0].0, &long[0].1)], &[]).status, 431);
    let raw = |client: &mut Client, header: &[u8]| {
        let head = [b"GET /v2/app/tags/list HTTP/1.1\r\nhost: registry\r\n", header, b"\r\n\r\n"].concat();
        client.raw("GET", &head).status
    };
    assert_eq!(raw(&mut client, b"authorization: Basic \xff\xfe"), 401);
    assert_eq!(raw(&mut client, b"authorization: \xff"), 401);
    assert_eq!(raw(&mut client, b"authorization:"), 401);
    // The same before the API.
    for header in [&b"authorization: \xff\xfe"[..], b"x-amz-target: \xff", b"x-amz-date: \xff", b"host: \xff"] {
        let head = b"POST / HTTP/1.1\r\nhost: registry\r\ncontent-length: 2\r\n";
        let status = client.raw("POST", &[&head[..], header, b"\r\n\r\n{}"].concat()).status;
        assert!((400..500).contains(&status), "{header:?}: {status}");
    }
}

/// Asks until an answer is another one.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn who_is_removed_is_out_with_their_tokens_and_a_file_that_turns_bad_changes_nothing() {
    let guarded = registry();
    let mut ci = guarded.client(&key_of("ci"));
    let config = Digest::of(Algorithm::Sha256, b"a config");
    let url = ci.ok("GetDownloadUrlForLayer", &json!({ "repositoryName": "app", "layerDigest": config.to_string() }));
    let download = url["downloadUrl"].as_str().unwrap().split_once("/v2/").unwrap().1.to_owned();
    let known = guarded.auth.by_arn(&format!("arn:aws:iam::{OWN}:user/ci")).unwrap();
    let token = guarded.auth.token_for(&Identity::Principal(known)).unwrap().text;
    let mut client = guarded.anonymous();
    let ways = |client: &mut Client| {
        let own = basic(&key_of("ci"), &secret_of(&key_of("ci")));
        let (key, path) = (key_of("ci"), format!("/v2/{download}"));
        let signed = call(client, &Signing::new(&key, "ecr"), &[]).status;
        let secret = client.send("GET", "/v2/app/tags/list", &[("authorization", &own)], &[]).status;
        [signed, secret, logged_in(client, &token), client.send("GET", &path, &[], &[]).status]
    };
    assert_eq!(ways(&mut client), [200; 4]);
    let is_in = |name: &str| {
        let (mut client, key) = (guarded.anonymous(), key_of(name));
        client.send("GET", "/v2/", &[("authorization", &basic(&key, &secret_of(&key)))], &[]).status == 200
    };
    // Files that are no good; that each was looked at is known from the one after it, which is.
    let good = document(&users());
    let mut other_region = good.clone();
    other_region["region"] = json!("us-west-2");
    let mut nobody = good.clone();
    nobody["users"] = json!([]);
    for (at, (text, mode)) in [
        ("{".to_owned(), 0o600),
        (String::new(), 0o600),
        (nobody.to_string(), 0o644),
        (other_region.to_string(), 0o600),
        (good.to_string().replace("\"users\"", "\"user\""), 0o600),
    ]
    .into_iter()
    .enumerate()
    {
        guarded.write(&text, mode);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            assert_eq!(ways(&mut client), [200; 4], "file {at}");
        }
        let mut next = good.clone();
        let name = format!("new{at}");
        next["users"].as_array_mut().unwrap().push(user(&name, OWN, &json!([])));
        guarded.write(&next.to_string(), 0o600);
        wait_until("the next file is read", || is_in(&name));
    }
    // The key is made inactive, then it comes back, then its user goes.
    let mut inactive = good.clone();
    inactive["users"][0]["accessKeys"][0]["status"] = json!("Inactive");
    for gone in [inactive, nobody] {
        guarded.write(&good.to_string(), 0o600);
        wait_until("it is there", || is_in("ci"));
        assert_eq!(ways(&mut client), [200; 4]);
        guarded.write(&gone.to_string(), 0o600);
        wait_until("it is gone", || !is_in("ci"));
        assert_eq!(ways(&mut client), [400, 401, 401, 401]);
    }
}

#[test]
fn no_registry_starts_with_a_file_that_others_can_read() {
    let guarded = registry();
    let path = guarded.dir.path().join("credentials.json");
    for mode in [0o640, 0o604, 0o660, 0o666, 0o601] {
        guarded.write(&document(&users()).to_string(), mode);
        let problem = Auth::of_file(&path, TokenKey::new(&TOKEN_KEY)).unwrap_err().to_string();
        assert!(problem.contains("chmod 600"), "{problem}");
    }
}
