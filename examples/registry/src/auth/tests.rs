use axum::body::to_bytes;
use axum::http;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use strongroom::sigv4::{Scope, Secret, timestamp};
use tempfile::TempDir;

use super::credentials::file::write_for_tests;
use super::*;

const URL: &str = "https://registry.example.com";

/// A request of the distribution API.
fn asked(authorization: Option<&str>) -> Parts {
    let request =
        http::Request::get("/v2/").header("host", "registry.example.com").header("x-forwarded-proto", "https");
    let request = authorization.into_iter().fold(request, |request, value| request.header("authorization", value));
    request.body(()).unwrap().into_parts().0
}

/// A registry whose credentials file can be changed.
struct Registry {
    dir: TempDir,
    auth: Auth,
}

fn file(users: &str) -> String {
    format!(r#"{{"account":"123456789012","region":"eu-west-1","users":[{users}]}}"#)
}

const CI: &str =
    r#"{"name":"ci","accessKeys":[{"id":"AKIACI","secret":"secret-of-ci"}],"policies":["AdministratorAccess"]}"#;
const OTHER: &str = r#"{"name":"other","accessKeys":[{"id":"AKIAOTHER","secret":"secret-of-other"}]}"#;

impl Registry {
    fn new(users: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        write_for_tests(&path, &file(users));
        let auth = Auth::of_file(&path, TokenKey::new(&[7; 32])).unwrap();
        Self { dir, auth }
    }

    fn write(&self, text: &str) {
        write_for_tests(&self.dir.path().join("credentials.json"), text);
        self.look();
    }

    /// What the watch does each second.
    fn look(&self) {
        self.auth.watched.as_ref().unwrap().reload(&self.auth.settings, false);
    }

    fn oci(&self, authorization: &str) -> Result<Identity, Response> {
        self.auth.of_oci(&asked(Some(authorization))).map_err(Challenge::into_response)
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn arn(identity: &Identity) -> &str {
    match identity {
        Identity::Principal(principal) => principal.arn(),
        Identity::Open => "open",
        Identity::Anonymous => "anonymous",
    }
}

/// A request as the AWS CLI sends it.
fn signed(service: &str, region: &str, id: &str, secret: &str, body: &str) -> Parts {
    let time = timestamp(SystemTime::now());
    let media_type = if service == "sts" {
        "application/x-www-form-urlencoded; charset=utf-8"
    } else {
        "application/x-amz-json-1.1"
    };
    let sent: [(&str, &[u8]); 3] =
        [("content-type", media_type.as_bytes()), ("host", b"registry.example.com"), ("x-amz-date", time.as_bytes())];
    let request = Request::new("POST", "/").headers(&sent).body(body.as_bytes());
    let scope = Scope { region, service, time: &time };
    let authorization = sigv4::sign(&request, &scope, id, &Secret::new(secret));
    let request = http::Request::post("/").header("authorization", authorization);
    let request = sent.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(()).unwrap().into_parts().0
}

#[test]
fn a_signed_call_is_its_signers_and_no_other_is_taken() {
    let registry = Registry::new(&[CI, OTHER].join(","));
    let call = |parts: &Parts, body: &str, service: &str| registry.auth.of_api(parts, body.as_bytes(), service);
    let parts = signed("ecr", "eu-west-1", "AKIACI", "secret-of-ci", "{}");
    let identity = call(&parts, "{}", "ecr").unwrap();
    assert_eq!(arn(&identity), "arn:aws:iam::123456789012:user/ci");
    let Identity::Principal(principal) = &identity else { panic!("{identity:?}") };
    assert_eq!((principal.policies.len(), &*principal.access_key_id), (1, "AKIACI"));

    assert_eq!(call(&parts, "{ }", "ecr").unwrap_err(), SigV4Error::Mismatch);
    let other = signed("ecr", "eu-west-1", "AKIACI", "secret-of-other", "{}");
    assert_eq!(call(&other, "{}", "ecr").unwrap_err(), SigV4Error::Mismatch);
    let unknown = signed("ecr", "eu-west-1", "AKIANONE", "secret-of-ci", "{}");
    assert_eq!(call(&unknown, "{}", "ecr").unwrap_err(), SigV4Error::UnknownKey);
    let unsigned = http::Request::post("/").body(()).unwrap().into_parts().0;
    assert_eq!(call(&unsigned, "{}", "ecr").unwrap_err(), SigV4Error::Missing);

    // ecr-public and sts are signed for us-east-1, wherever the registry is said to be; ecr is not.
    for (service, region, is_taken) in [
        ("ecr", "us-east-1", false),
        ("ecr-public", "us-east-1", true),
        ("sts", "us-east-1", true),
        ("sts", "eu-west-1", true),
        ("sts", "eu-west-2", false),
    ] {
        let parts = signed(service, region, "AKIACI", "secret-of-ci", "{}");
        assert_eq!(call(&parts, "{}", service).is_ok(), is_taken, "{service} {region}");
        assert!(call(&parts, "{}", "other").is_err());
    }
}

#[test]
fn a_token_logs_in_until_its_key_is_gone() {
    let registry = Registry::new(&[CI, OTHER].join(","));
    let parts = signed("ecr", "eu-west-1", "AKIACI", "secret-of-ci", "{}");
    let identity = registry.auth.of_api(&parts, b"{}", "ecr").unwrap();
    let token = registry.auth.token_for(&identity).unwrap();
    assert_eq!(token.expires - token.issued, 12 * 60 * 60);
    let decoded = STANDARD.decode(token.authorization()).unwrap();
    assert_eq!(decoded, format!("AWS:{}", token.text).as_bytes());

    let bearer = format!("Bearer {}", token.text);
    for authorization in [basic("AWS", &token.text), bearer.clone(), basic("AKIACI", "secret-of-ci")] {
        assert_eq!(arn(&registry.oci(&authorization).unwrap()), "arn:aws:iam::123456789012:user/ci");
    }
    for authorization in [
        basic("AWS", "nonsense"),
        basic("ci", &token.text),
        basic("AKIACI", "secret-of-other"),
        basic("AKIACI", ""),
        "Bearer nonsense".to_owned(),
        "Basic nonsense".to_owned(),
        "Negotiate abc".to_owned(),
    ] {
        assert_eq!(registry.oci(&authorization).unwrap_err().status(), 401, "{authorization}");
    }
    assert_eq!(arn(&registry.auth.of_oci(&asked(None)).unwrap()), "anonymous");

    // The user is removed; then another one takes its key's id.
    registry.write(&file(OTHER));
    assert_eq!(registry.oci(&bearer).unwrap_err().status(), 401);
    registry.write(&file(&OTHER.replace("AKIAOTHER", "AKIACI")));
    assert_eq!(registry.oci(&bearer).unwrap_err().status(), 401);
    // The key is made inactive.
    registry.write(&file(&CI.replace("\"secret-of-ci\"", "\"secret-of-ci\",\"status\":\"Inactive\"")));
    assert_eq!(registry.oci(&bearer).unwrap_err().status(), 401);
    assert_eq!(registry.auth.of_api(&parts, b"{}", "ecr").unwrap_err(), SigV4Error::UnknownKey);
    registry.write(&file(CI));
    assert!(registry.oci(&bearer).is_ok());
}

#[test]
fn an_expired_password_is_denied_and_an_expired_bearer_token_asked_for_again() {
    let registry = Registry::new(CI);
    let claims = Claims {
        arn: "arn:aws:iam::123456789012:user/ci".into(),
        access_key_id: "AKIACI".into(),
        region: "eu-west-1".into(),
        issued: 0,
        expires: seconds(SystemTime::now()),
    };
    let token = registry.auth.tokens.seal(&claims).unwrap();
    assert_eq!(registry.oci(&basic("AWS", &token.text)).unwrap_err().status(), 403);
    assert_eq!(registry.oci(&format!("Bearer {}", token.text)).unwrap_err().status(), 401);
}

#[test]
fn bearer_tokens_are_given_to_who_has_credentials_and_to_nobody() {
    let registry = Registry::new(CI);
    let bearer = |authorization: &str| registry.auth.bearer(&asked(Some(authorization)));
    let of = |answer: &Value| {
        assert_eq!(answer["token"], answer["access_token"]);
        registry.oci(&format!("Bearer {}", answer["token"].as_str().unwrap())).unwrap()
    };
    let nobody = registry.auth.bearer(&asked(None)).unwrap();
    assert_eq!(arn(&of(&nobody)), "anonymous");
    assert_eq!(nobody["expires_in"], 43200);
    let ci = bearer(&basic("AKIACI", "secret-of-ci")).unwrap();
    assert_eq!(arn(&of(&ci)), "arn:aws:iam::123456789012:user/ci");
    assert!(ci["issued_at"].as_str().unwrap().ends_with('Z'));
    let refused = bearer(&basic("AWS", "nonsense")).unwrap_err().into_response();
    assert_eq!(refused.status(), 401);

    // A token that is got for a token lives no longer than that.
    let now = seconds(SystemTime::now());
    let identity = of(&ci);
    let short = registry.auth.token(&identity, SystemTime::now(), Some(now + 100)).unwrap();
    let renewed = bearer(&basic("AWS", &short.text)).unwrap();
    assert!(renewed["expires_in"].as_u64().unwrap() <= 100);
}

#[test]
fn the_challenge_is_basic_where_the_url_is_not_known() {
    let Registry { auth, dir: _dir } = Registry::new(CI);
    let challenge = |auth: &Auth| {
        let response = auth.challenge(&asked(None)).into_response();
        response.headers()["www-authenticate"].to_str().unwrap().to_owned()
    };
    assert_eq!(challenge(&auth), "Basic realm=\"https://registry.example.com/\",service=\"ecr.amazonaws.com\"");
    let auth = auth.at(Some(format!("{URL}/")));
    let bearer = "Bearer realm=\"https://registry.example.com/v2/token\",service=\"registry.example.com\"";
    assert_eq!(challenge(&auth), bearer);
    let refused = auth.of_oci(&asked(Some("Bearer nonsense"))).unwrap_err().into_response();
    let value = refused.headers()["www-authenticate"].to_str().unwrap();
    assert_eq!(value, format!("{bearer},error=\"invalid_token\""));
}

#[test]
fn a_bad_file_changes_nothing() {
    let registry = Registry::new(CI);
    let login = basic("AKIACI", "secret-of-ci");
    let path = registry.dir.path().join("credentials.json");
    for bad in [
        "",
        "{",
        &file(&[CI, CI].join(",")),
        &file(&CI.replace("AdministratorAccess", "None")),
        &file(OTHER).replace("123456789012", "210987654321"),
        &file(OTHER).replace("eu-west-1", "eu-west-2"),
    ] {
        registry.write(bad);
        assert!(registry.oci(&login).is_ok(), "{bad}");
        assert!(registry.oci(&basic("AKIAOTHER", "secret-of-other")).is_err(), "{bad}");
    }
    std::fs::remove_file(&path).unwrap();
    registry.look();
    assert!(registry.oci(&login).is_ok());
    registry.write(&file(OTHER));
    assert!(registry.oci(&login).is_err());
    assert!(registry.oci(&basic("AKIAOTHER", "secret-of-other")).is_ok());
    // One that others can read is as good as none; and it is read once they can't.
    let set = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        registry.look();
    };
    std::fs::write(&path, file(CI)).unwrap();
    set(0o644);
    assert!(registry.oci(&login).is_err());
    set(0o600);
    assert!(registry.oci(&login).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_is_read_within_seconds() {
    let registry = Arc::new(Registry::new(CI));
    let own = Arc::clone(&registry);
    let watching = tokio::spawn(async move { own.auth.watch().await });
    write_for_tests(&registry.dir.path().join("credentials.json"), &file(OTHER));
    let login = basic("AKIAOTHER", "secret-of-other");
    let read = async {
        while registry.oci(&login).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), read).await.unwrap();
    watching.abort();
}

#[test]
fn an_open_registry_asks_nobody() {
    let auth = Auth::open(TokenKey::random().unwrap());
    let unsigned = http::Request::post("/").body(()).unwrap().into_parts().0;
    assert_eq!(arn(&auth.of_api(&unsigned, b"{}", "ecr").unwrap()), "open");
    assert_eq!(arn(&auth.of_oci(&asked(Some("Basic nonsense"))).unwrap()), "open");
    assert!(auth.is_open() && !auth.token_for(&Identity::Open).unwrap().text.is_empty());
    assert_eq!((auth.account(), auth.region(), auth.alias()), ("000000000000", "us-east-1", "public"));
    assert!(auth.bearer(&asked(None)).is_ok());
}

async fn text(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn sts_says_who_asks() {
    let registry = Registry::new(CI);
    let form = "Action=GetCallerIdentity&Version=2011-06-15";
    let parts = signed("sts", "us-east-1", "AKIACI", "secret-of-ci", form);
    assert!(sts::is_query(&parts));
    let (status, body) = text(sts::answer(&registry.auth, &parts, form.as_bytes())).await;
    assert_eq!(status, 200);
    let start = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
        <GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/ci</Arn><UserId>AIDA";
    assert!(body.starts_with(start), "{body}");
    assert!(body.contains("<Account>123456789012</Account>") && body.contains("<RequestId>"), "{body}");

    let forged = signed("sts", "us-east-1", "AKIACI", "another secret", form);
    let (status, body) = text(sts::answer(&registry.auth, &forged, form.as_bytes())).await;
    assert_eq!(status, 403);
    assert!(body.contains("<Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code>"), "{body}");
    let form = "Action=%3CAssume+Role%3E&Version=2011-06-15";
    let parts = signed("sts", "us-east-1", "AKIACI", "secret-of-ci", form);
    let (status, body) = text(sts::answer(&registry.auth, &parts, form.as_bytes())).await;
    assert_eq!(status, 400);
    assert!(body.contains("<Code>InvalidAction</Code>") && body.contains("&lt;Assume Role&gt;"), "{body}");
}
