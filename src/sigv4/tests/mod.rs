mod vectors;

use std::process::Command;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use vectors::{ACCESS_KEY_ID, DATE, HOST, SECRET, VECTORS};

use super::time::parse;
use super::*;

/// One key, with the token of its session if it has one.
struct One<'a> {
    id: &'a str,
    secret: Secret,
    token: Option<&'a str>,
}

impl<'a> One<'a> {
    fn new(id: &'a str, secret: &str) -> Self {
        Self { id, secret: Secret::new(secret), token: None }
    }
}

impl Credentials for One<'_> {
    fn secret(&self, access_key_id: &str, session_token: Option<&str>) -> Option<Secret> {
        (access_key_id == self.id && session_token == self.token).then(|| self.secret.clone())
    }
}

type Headers = Vec<(String, Vec<u8>)>;

/// A request that owns what it is made of, so that it can be changed.
#[derive(Clone, Debug)]
struct Owned {
    method: String,
    path: String,
    query: String,
    headers: Headers,
    body: Vec<u8>,
}

impl Owned {
    /// A call as the AWS CLI sends it, signed.
    fn call() -> Self {
        let mut call = Self {
            method: "POST".into(),
            path: "/".into(),
            query: String::new(),
            headers: Vec::new(),
            body: b"{\"repositoryName\": \"team/x\"}".to_vec(),
        };
        call.set("host", "127.0.0.1:5000");
        call.set("x-amz-target", "AmazonEC2ContainerRegistry_V20150921.DescribeImages");
        call.set("content-type", "application/x-amz-json-1.1");
        call.set("x-amz-date", DATE.1);
        call.sign("us-east-1", "ecr");
        call
    }

    fn with<T>(&self, work: impl FnOnce(&Request<'_>) -> T) -> T {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        work(&Request::new(&self.method, &self.path).query(&self.query).headers(&headers).body(&self.body))
    }

    fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.into(), value.into()));
    }

    fn get(&self, name: &str) -> String {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name).unwrap();
        String::from_utf8(value.clone()).unwrap()
    }

    fn sign(&mut self, region: &str, service: &str) {
        self.headers.retain(|(name, _)| name != "authorization");
        let time = self.get("x-amz-date");
        let scope = Scope { region, service, time: &time };
        let authorization = self.with(|request| sign(request, &scope, ACCESS_KEY_ID, &Secret::new(SECRET)));
        self.set("authorization", &authorization);
    }

    /// Replaces a part of the header `authorization`.
    fn edit(mut self, from: &str, to: &str) -> Self {
        let authorization = self.get("authorization");
        assert!(authorization.contains(from), "{authorization}");
        self.set("authorization", &authorization.replace(from, to));
        self
    }

    fn verify(&self) -> Result<Verified, SigV4Error> {
        self.verify_at(parse(DATE.1).unwrap())
    }

    fn verify_at(&self, now: SystemTime) -> Result<Verified, SigV4Error> {
        self.verify_for(&One::new(ACCESS_KEY_ID, SECRET), now)
    }

    fn verify_for(&self, credentials: &One<'_>, now: SystemTime) -> Result<Verified, SigV4Error> {
        let expected =
            Expected::new(&[("ecr", "us-east-1"), ("ecr", "us-east-1"), ("sts", "us-east-1"), ("sts", "eu-west-3")]);
        self.with(|request| verify(request, credentials, now, &expected))
    }
}

/// The code and the text.
fn told(error: SigV4Error) -> String {
    format!("{}: {error}", error.code())
}

#[test]
fn signs_and_verifies_as_published() {
    for vector in VECTORS {
        let (path, query) = vector.target.split_once('?').unwrap_or((vector.target, ""));
        let fields = vector.headers.iter().chain(&[HOST, DATE]);
        let mut headers: Vec<_> = fields.map(|(name, value)| (*name, value.as_bytes())).collect();
        let request = Request::new(vector.method, path).query(query).body(vector.body.as_bytes());
        let scope = Scope { region: "us-east-1", service: "service", time: DATE.1 };
        let signed = sign(&request.headers(&headers), &scope, ACCESS_KEY_ID, &Secret::new(SECRET));
        let expected = format!(", Signature={}", vector.signature);
        assert!(signed.ends_with(&expected), "{}: {signed}", vector.name);

        headers.push(("Authorization", signed.as_bytes()));
        let token = vector.headers.iter().find(|(name, _)| *name == "X-Amz-Security-Token").map(|(_, token)| *token);
        let credentials = One { token, ..One::new(ACCESS_KEY_ID, SECRET) };
        let expected = Expected::new(&[("service", "us-east-1")]);
        let verified = verify(&request.headers(&headers), &credentials, parse(DATE.1).unwrap(), &expected);
        let verified = verified.unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        assert_eq!(verified.session_token.as_deref(), token);
    }
}

#[test]
fn spellings_that_mean_the_same_are_one() {
    for (given, path) in [("", "/"), ("/a%2Fb", "/a%252Fb"), ("/..", "/"), ("/a/", "/a/"), ("/a/.", "/a"), ("//", "/")]
    {
        assert_eq!(canonical::path(given), path);
    }
    for (given, query) in [
        ("", ""),
        ("b&a=1", "a=1&b="),
        ("a=1=2", "a=1%3D2"),
        ("a=%7e%2f&A=%zz", "A=%25zz&a=~%2F"),
        ("a=10&a=9&a=1", "a=1&a=10&a=9"),
        ("a+b=%20", "a%2Bb=%20"),
        ("%", "%25="),
        ("a=%F", "a=%25F"),
    ] {
        assert_eq!(canonical::query(given), query);
    }
}

#[test]
fn a_call_is_verified_and_says_whose_it_is() {
    let verified = Owned::call().verify().unwrap();
    let expected = Verified {
        access_key_id: ACCESS_KEY_ID.into(),
        service: "ecr".into(),
        region: "us-east-1".into(),
        session_token: None,
    };
    assert_eq!(verified, expected);
    // Headers on the way that are not signed do no harm.
    let mut call = Owned::call();
    call.set("x-forwarded-for", "10.0.0.1");
    call.set("amz-sdk-request", "attempt=1");
    assert!(call.verify().is_ok());
}

#[test]
fn what_is_malformed_is_incomplete() {
    let text = |call: Owned| told(call.verify().unwrap_err());
    let mut unsigned = Owned::call();
    unsigned.headers.retain(|(name, _)| name != "authorization");
    assert_eq!(text(unsigned), "MissingAuthenticationTokenException: Missing Authentication Token");

    let with = |header: &str| {
        let mut call = Owned::call();
        call.set("authorization", header);
        text(call)
    };
    for (header, reason) in [
        ("", "Unsupported AWS 'algorithm': ''."),
        ("Basic QVdTOng=", "Unsupported AWS 'algorithm': 'Basic'."),
        ("AWS4-ECDSA-P256-SHA256 Credential=a", "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256'."),
        (
            "AWS4-HMAC-SHA256",
            "Authorization header requires 'Credential' parameter. Authorization header requires \
            'SignedHeaders' parameter. Authorization header requires 'Signature' parameter.",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a, Signature=",
            "Authorization header requires 'SignedHeaders' parameter. \
            Authorization header requires 'Signature' parameter.",
        ),
        ("AWS4-HMAC-SHA256 Credential=a, Nonsense", "'Nonsense' not a valid key in Authorization header."),
        ("AWS4-HMAC-SHA256 Signature=a, Signature=b", "Authorization header has 'Signature' more than once."),
        (
            "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=a",
            "Credential must have exactly 5 \
            slash-delimited elements, e.g. keyid/date/region/service/aws4_request, got 'a/b/c'.",
        ),
    ] {
        assert_eq!(with(header), format!("IncompleteSignatureException: {reason}"));
    }
    let long = with(&"A".repeat(5000));
    assert_eq!(long, "IncompleteSignatureException: Authorization header is longer than 4096 bytes.");

    let names = "SignedHeaders=content-type;host;x-amz-date;x-amz-target";
    for bad in ["host;content-type;x-amz-date;x-amz-target", "Host;x-amz-date;x-amz-target", "host;host", "a;;b"] {
        let problem = text(Owned::call().edit(names, &format!("SignedHeaders={bad}")));
        assert!(problem.contains("must be at most 100 lower-case names in order"), "{problem}");
    }
    let many: Vec<_> = (100..201).map(|number| format!("h{number}")).collect();
    assert!(text(Owned::call().edit(names, &format!("SignedHeaders={}", many.join(";")))).contains("at most 100"));

    let absent = text(Owned::call().edit("x-amz-target,", "x-amz-target;zzz,"));
    assert_eq!(absent, "IncompleteSignatureException: The signed header 'zzz' is missing.");
    let mut huge = Owned::call();
    huge.query = "a".repeat(40_000);
    assert!(text(huge).starts_with("IncompleteSignatureException: Path, query and headers"));
    for date in ["", "20150830", "20151330T000000Z", "Sun, 30 Aug 2015 12:36:00 GMT"] {
        let mut call = Owned::call();
        call.set("x-amz-date", date);
        assert!(text(call).starts_with("IncompleteSignatureException: Authorization header requires existence of a"));
    }
}

#[test]
fn what_a_service_acts_on_has_to_be_signed_and_there_once() {
    for (name, value) in [("x-amz-target", "Other.Delete"), ("X-Amz-Date", DATE.1), ("host", "other")] {
        let mut call = Owned::call();
        call.headers.push((name.into(), value.into()));
        let problem = told(call.verify().unwrap_err());
        assert!(problem.ends_with("is there more than once."), "{problem}");
    }
    let mut call = Owned::call();
    call.headers.push(("authorization".into(), b"Basic QVdTOng=".to_vec()));
    assert!(matches!(call.verify(), Err(SigV4Error::Incomplete { .. })));

    let mut call = Owned::call();
    call.set("X-Amz-Security-Token", "added");
    assert_eq!(call.verify(), Err(SigV4Error::NotSigned { name: "x-amz-security-token".into() }));
    for (names, name) in [
        ("content-type;x-amz-date;x-amz-target", "host"),
        ("content-type;host;x-amz-target", "x-amz-date"),
        ("content-type;host;x-amz-date", "x-amz-target"),
    ] {
        let call = Owned::call().edit("content-type;host;x-amz-date;x-amz-target", names);
        assert_eq!(call.verify(), Err(SigV4Error::NotSigned { name: name.into() }));
    }
    let mut call = Owned::call();
    call.headers.retain(|(name, _)| name != "host");
    assert!(call.verify().is_err());
}

#[test]
fn a_signature_is_for_one_day_service_and_region() {
    let text = |call: Owned| told(call.verify().unwrap_err());
    let dated = text(Owned::call().edit("/20150830/", "/20150829/"));
    assert_eq!(
        dated,
        "InvalidSignatureException: Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date \
         from HTTP: '20150829' != '20150830', from '20150830T123600Z'."
    );
    let mut other = Owned::call();
    other.sign("us-east-1", "s3");
    let correct = "Credential should be scoped to correct service: 'ecr', 'sts'.";
    assert_eq!(text(other.clone()), format!("InvalidSignatureException: {correct}"));
    other.sign("eu-west-3", "ecr");
    let valid = "Credential should be scoped to a valid region. This one is 'us-east-1', not 'eu-west-3'.";
    assert_eq!(text(other.clone()), format!("InvalidSignatureException: {valid}"));
    other.sign("eu-west-3", "sts");
    assert_eq!(other.verify().unwrap().region, "eu-west-3");
    // The scope is signed: a signature for one service is none for another.
    assert_eq!(Owned::call().edit("/ecr/", "/sts/").verify(), Err(SigV4Error::Mismatch));
    assert!(matches!(Owned::call().edit("aws4_request", "aws4").verify(), Err(SigV4Error::Incomplete { .. })));
}

#[test]
fn a_signature_is_good_for_a_quarter_of_an_hour_before_and_after() {
    let (call, time, minute) = (Owned::call(), parse(DATE.1).unwrap(), Duration::from_secs(60));
    let (second, part) = (Duration::from_secs(1), Duration::from_millis(999));
    for now in [time + 15 * minute, time + 15 * minute + part, time - 15 * minute] {
        assert!(call.verify_at(now).is_ok());
    }
    assert_eq!(
        told(call.verify_at(time + 15 * minute + second).unwrap_err()),
        "InvalidSignatureException: Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z \
         (20150830T125101Z - 15 min.)"
    );
    assert_eq!(
        told(call.verify_at(time - 15 * minute - second).unwrap_err()),
        "InvalidSignatureException: Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z \
         (20150830T122059Z + 15 min.)"
    );
    assert!(call.verify_at(SystemTime::UNIX_EPOCH).is_err());
}

#[test]
fn another_key_secret_token_or_body_is_refused() {
    let (call, now) = (Owned::call(), parse(DATE.1).unwrap());
    let with = |credentials: &One<'_>| call.verify_for(credentials, now);
    assert_eq!(with(&One::new("AKIDOTHER", SECRET)), Err(SigV4Error::UnknownKey));
    assert_eq!(with(&One::new(ACCESS_KEY_ID, "another secret")), Err(SigV4Error::Mismatch));
    assert_eq!(with(&One { token: Some("t"), ..One::new(ACCESS_KEY_ID, SECRET) }), Err(SigV4Error::UnknownKey));
    // What is tried for a key that is not known opens nothing.
    let mut forged = Owned::call();
    let scope = Scope { region: "us-east-1", service: "ecr", time: DATE.1 };
    forged.headers.retain(|(name, _)| name != "authorization");
    let stand_in = Secret::new("0123456789012345678901234567890123456789");
    let authorization = forged.with(|request| sign(request, &scope, "AKIDOTHER", &stand_in));
    forged.set("authorization", &authorization);
    assert_eq!(forged.verify(), Err(SigV4Error::UnknownKey));

    for signature in ["0".repeat(64), "F".repeat(64), "zz".into(), "0".repeat(63), "é".repeat(32)] {
        let known = call.get("authorization");
        let (head, _) = known.split_once("Signature=").unwrap();
        let mut forged = call.clone();
        forged.set("authorization", &format!("{head}Signature={signature}"));
        assert!(matches!(forged.verify(), Err(SigV4Error::Mismatch | SigV4Error::Incomplete { .. })));
    }
    for announced in ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", &"0".repeat(64)] {
        let mut call = call.clone();
        call.set("x-amz-content-sha256", announced);
        call.sign("us-east-1", "ecr");
        assert_eq!(call.verify(), Err(SigV4Error::Mismatch));
    }
}

#[test]
fn only_the_holder_of_a_session_hears_that_it_is_over() {
    let (mut call, now) = (Owned::call(), parse(DATE.1).unwrap());
    call.set("x-amz-security-token", "token");
    call.sign("us-east-1", "ecr");
    let session = |secret| One { id: ACCESS_KEY_ID, secret, token: Some("token") };
    assert_eq!(call.verify_for(&session(Secret::new(SECRET)), now).unwrap().session_token.as_deref(), Some("token"));
    assert_eq!(call.verify_for(&session(Secret::expired(SECRET)), now), Err(SigV4Error::ExpiredSession));
    assert_eq!(call.verify_for(&session(Secret::expired("other")), now), Err(SigV4Error::Mismatch));
    assert_eq!(format!("{:?}", Secret::new("x")), "Secret { has_expired: false, .. }");
}

fn word() -> impl Strategy<Value = String> {
    "[a-z0-9]{1,8}"
}

prop_compose! {
    fn signed_request()(
        method in "GET|POST|PUT",
        segments in prop::collection::vec("[a-zA-Z0-9%~ä ]{1,6}", 0..4),
        pairs in prop::collection::vec(("[a-z%0-9+ä]{1,4}", "[a-z%0-9+ä]{0,4}"), 0..4),
        headers in prop::collection::btree_map("(x-amz-|x-|my-)[a-z0-9]{1,8}", "[!-~]{1,12}( [!-~]{1,5})?", 0..5),
        host in word(),
        body in prop::collection::vec(any::<u8>(), 0..40),
    ) -> Owned {
        let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let headers = headers.into_iter().filter(|(name, _)| name != "x-amz-date");
        let headers = headers.map(|(name, value)| (name, value.into_bytes())).collect();
        let path = format!("/{}", segments.join("/"));
        let mut request = Owned { method, path, query: query.join("&"), headers, body };
        request.set("host", &host);
        request.set("x-amz-date", DATE.1);
        request.sign("us-east-1", "ecr");
        request
    }
}

/// Changes a byte of a text to another, if that leaves a text.
fn change(text: &mut String, at: prop::sample::Index, by: u8) -> bool {
    let mut bytes = std::mem::take(text).into_bytes();
    let before = bytes.clone();
    if !bytes.is_empty() {
        let at = at.index(bytes.len());
        bytes[at] ^= by;
    }
    *text = String::from_utf8(bytes).unwrap_or_default();
    !text.is_empty() && text.as_bytes() != before
}

proptest! {
    #[test]
    fn what_is_signed_is_verified_and_any_other_byte_is_refused(
        request in signed_request(),
        part in 0usize..5,
        header in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        by in 1u8..=255,
    ) {
        prop_assert!(request.verify().is_ok(), "{:?}", request.verify());
        let mut other = request.clone();
        let is_changed = match part {
            0 => change(&mut other.method, at, by),
            1 => change(&mut other.path, at, by),
            2 => change(&mut other.query, at, by),
            3 => {
                let header = header.index(other.headers.len());
                let (_, value) = &mut other.headers[header];
                let at = at.index(value.len());
                value[at] ^= by;
                true
            }
            _ => {
                other.body.push(by);
                let at = at.index(other.body.len());
                other.body[at] ^= by;
                true
            }
        };
        // Spellings that mean the same, such as %7E and ~, are signed alike.
        let means_the_same = |owned: &Owned| owned.with(|request| {
            let names = ["host", "x-amz-date"];
            (canonical::hash(request, &names).as_ref().to_vec(), owned.headers.iter().map(|(name, value)| {
                (name.clone(), value.split(u8::is_ascii_whitespace).map(<[u8]>::to_vec).collect::<Vec<_>>())
            }).collect::<Vec<_>>())
        });
        prop_assume!(is_changed && means_the_same(&request) != means_the_same(&other));
        prop_assert!(other.verify().is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(
        header in prop::collection::vec(any::<u8>(), 0..200),
        tail in "AWS4-HMAC-SHA256 (Credential=|SignedHeaders=|Signature=|[a-z0-9/;, =é]){0,12}",
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = Owned::call().get("authorization").into_bytes();
        for bytes in [header, tail.into_bytes(), whole[..cut.index(whole.len())].to_vec()] {
            let mut call = Owned::call();
            call.headers.retain(|(name, _)| name != "authorization");
            call.headers.push(("authorization".into(), bytes));
            prop_assert!(call.verify().is_err());
        }
    }
}

/// botocore signs; a request that it signed is verified, and with another secret it is not.
#[test]
fn what_botocore_signs_is_verified() {
    let has_botocore = Command::new("python3").args(["-c", "import botocore.auth"]).output();
    if !has_botocore.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: there is no python3 with botocore");
        return;
    }
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos().to_string();
    println!("seed {seed}");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sigv4/tests/oracle.py");
    let output = Command::new("python3").args([script, &seed, "300"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 300);
    for line in lines.lines() {
        let signed: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| signed[name].as_str().unwrap();
        let headers: Vec<(String, String)> = serde_json::from_value(signed["headers"].clone()).unwrap();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let mut body = vec![0; text("body").len() / 2];
        crate::digest::decode_hex(text("body"), &mut body).unwrap();
        let request = Request::new(text("method"), text("path")).query(text("query")).headers(&headers).body(&body);
        let token = signed["token"].as_str();
        let scopes = [(text("service"), text("region"))];
        let with = |secret| {
            let credentials = One { token, ..One::new(text("key"), secret) };
            verify(&request, &credentials, SystemTime::now(), &Expected::new(&scopes))
        };
        let verified = with(text("secret")).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!((&*verified.access_key_id, verified.session_token.as_deref()), (text("key"), token));
        assert_eq!(with("another"), Err(SigV4Error::Mismatch));
    }
}
