//! A registry with credentials, and clients of it that sign and log in.

use std::fs::{OpenOptions, rename};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use strongroom::Store;
use strongroom::sigv4::{Request, Scope, Secret, sign, timestamp};
use strongroom::vfs::SimVfs;
use strongroom_registry::auth::Auth;
use strongroom_registry::auth::token::TokenKey;
use strongroom_registry::http::{Creation, Settings};
use tempfile::TempDir;

use crate::server::{Answer, Server, options, settings};

/// The account whose registry it is, and two others.
pub const OWN: &str = "111111111111";
pub const PARTNER: &str = "222222222222";
pub const STRANGER: &str = "333333333333";
pub const REGION: &str = "eu-west-1";

/// The key of its tokens, which tests forge some with.
pub const TOKEN_KEY: [u8; 32] = [7; 32];

/// A registry with a file of credentials.
pub struct Guarded {
    pub server: Server,
    pub auth: Arc<Auth>,
    pub dir: TempDir,
}

impl Guarded {
    pub fn start(users: &Value) -> Self {
        Self::with(users, Creation::OnPush, |_| {})
    }

    /// With a proxy before it, which is the client of the test.
    pub fn behind_proxy(users: &Value) -> Self {
        Self::configured(users, |_| {}, |settings| settings.proxies = vec![Ipv4Addr::LOCALHOST.into()])
    }

    pub fn with(users: &Value, creation: Creation, prepare: impl FnOnce(&Store)) -> Self {
        Self::configured(users, prepare, |settings| settings.creation = creation)
    }

    fn configured(users: &Value, prepare: impl FnOnce(&Store), configure: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        write(&path, &document(users).to_string(), 0o600);
        let auth = Arc::new(Auth::of_file(&path, TokenKey::new(&TOKEN_KEY)).unwrap());
        let disk = SimVfs::new();
        let store = options(&disk).open("/store").unwrap();
        prepare(&store);
        let mut settings = Settings { auth: Arc::clone(&auth), ..settings() };
        configure(&mut settings);
        let server = Server::serve_with(disk, store, settings);
        Self { server, auth, dir }
    }

    /// Replaces the file of credentials.
    pub fn write(&self, text: &str, mode: u32) {
        write(&self.dir.path().join("credentials.json"), text, mode);
    }

    pub fn client(&self, key: &str) -> Client {
        Client::new(self.server.address, Some(key))
    }

    pub fn anonymous(&self) -> Client {
        Client::new(self.server.address, None)
    }
}

/// A file of credentials with these users, roles and accounts.
pub fn document(users: &Value) -> Value {
    let mut document = json!({ "account": OWN, "region": REGION });
    document.as_object_mut().unwrap().extend(users.as_object().unwrap().clone());
    document
}

fn write(path: &Path, text: &str, mode: u32) {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&beside).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    rename(beside, path).unwrap();
}

/// A user with one key, `KEY` and the name in capitals.
pub fn user(name: &str, account: &str, policies: &Value) -> Value {
    json!({ "name": name, "account": account, "accessKeys": [access_key(name)], "policies": policies })
}

pub fn access_key(name: &str) -> Value {
    let key = key_of(name);
    json!({ "id": key, "secret": secret_of(&key) })
}

pub fn key_of(name: &str) -> String {
    format!("KEY{}", name.to_uppercase())
}

pub fn secret_of(key: &str) -> String {
    format!("secret-of-{key}")
}

/// A policy of an identity that allows actions on resources.
pub fn allow(actions: &[&str], resources: &[&str]) -> Value {
    json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Action": actions, "Resource": resources } })
}

/// The ARN of a repository of the registry.
pub fn arn(name: &str) -> String {
    format!("arn:aws:ecr:{REGION}:{OWN}:repository/{name}")
}

pub type Headers<'a> = &'a [(&'a str, &'a str)];

/// Somebody on a connection of their own, which is kept.
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    key: Option<String>,
}

impl Client {
    pub fn new(address: SocketAddr, key: Option<&str>) -> Self {
        Self { address, stream: None, key: key.map(str::to_owned) }
    }

    /// The same connection, for somebody else.
    pub fn becomes(&mut self, key: Option<&str>) {
        self.key = key.map(str::to_owned);
    }

    /// Sends a request of the distribution API, with key and secret as user and password.
    pub fn oci(&mut self, method: &str, path: &str, headers: Headers<'_>, body: &[u8]) -> Answer {
        let authorization = self.key.as_deref().map(|key| basic(key, &secret_of(key)));
        let own = authorization.as_deref().map(|value| ("authorization", value));
        self.send(method, path, &headers.iter().copied().chain(own).collect::<Vec<_>>(), body)
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.oci("GET", path, &[], &[])
    }

    /// Calls an operation of ECR, `ecr` or `ecr-public`, signed.
    pub fn call(&mut self, service: &str, operation: &str, input: &Value) -> Answer {
        self.call_with(service, operation, input.to_string().as_bytes(), &[])
    }

    pub fn call_with(&mut self, service: &str, operation: &str, body: &[u8], more: Headers<'_>) -> Answer {
        let target = target(service, operation);
        let mut headers = vec![("x-amz-target", &*target), ("content-type", "application/x-amz-json-1.1")];
        headers.extend(more);
        let Some(key) = self.key.clone() else { return self.send("POST", "/", &headers, body) };
        let signed = signed(&Signing::new(&key, service), &headers, body);
        self.send("POST", "/", &borrowed(&signed), body)
    }

    /// The output of an operation that does not fail.
    pub fn ok(&mut self, operation: &str, input: &Value) -> Value {
        let answer = self.call("ecr", operation, input);
        assert_eq!(answer.status, 200, "{operation} {input}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// The type of the error of an operation that fails.
    pub fn fails(&mut self, operation: &str, input: &Value) -> String {
        kind(&self.call("ecr", operation, input))
    }

    /// Sends a request as it is, but for `host` and `content-length`, which it is given if it has none.
    pub fn send(&mut self, method: &str, path: &str, headers: Headers<'_>, body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += "host: registry\r\n";
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")) {
            head += &format!("content-length: {}\r\n", body.len());
        }
        self.raw(method, &[(head + "\r\n").as_bytes(), body].concat())
    }

    /// Sends bytes, and reads one answer to a request with this method.
    pub fn raw(&mut self, method: &str, bytes: &[u8]) -> Answer {
        // The registry may have closed the connection since.
        let kept = self.stream.take().and_then(|stream| exchange(stream, method, bytes));
        let (answer, stream) = kept.unwrap_or_else(|| {
            let stream = TcpStream::connect(self.address).unwrap();
            stream.set_nodelay(true).unwrap();
            exchange(BufReader::new(stream), method, bytes).expect("an answer")
        });
        self.stream = stream;
        answer
    }
}

/// One request and its answer; with the connection, if it is kept.
fn exchange(
    mut stream: BufReader<TcpStream>,
    method: &str,
    bytes: &[u8],
) -> Option<(Answer, Option<BufReader<TcpStream>>)> {
    // It may have been answered, and closed, before all was sent.
    let _ = stream.get_mut().write_all(bytes);
    let mut line = String::new();
    if stream.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let status: u16 = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if method != "HEAD" && status != 204 {
        match answer.header("content-length") {
            Some(len) => {
                answer.body = vec![0; len.parse().unwrap()];
                stream.read_exact(&mut answer.body).ok()?;
            }
            None => assert_eq!(answer.header("transfer-encoding"), None, "a length"),
        }
    }
    let is_kept = answer.header("connection") != Some("close");
    Some((answer, is_kept.then_some(stream)))
}

/// How a request is signed.
#[derive(Clone, Copy)]
pub struct Signing<'a> {
    pub key: &'a str,
    pub secret: Option<&'a str>,
    pub service: &'a str,
    pub region: &'a str,
    pub at: SystemTime,
}

impl<'a> Signing<'a> {
    pub fn new(key: &'a str, service: &'a str) -> Self {
        Self { key, secret: None, service, region: REGION, at: SystemTime::now() }
    }
}

/// The headers with those that sign a `POST /` with this body.
pub fn signed(signing: &Signing<'_>, headers: Headers<'_>, body: &[u8]) -> Vec<(String, String)> {
    let time = timestamp(signing.at);
    let mut all: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    all.push(("host".into(), "registry".into()));
    all.push(("x-amz-date".into(), time.clone()));
    let shown: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let request = Request::new("POST", "/").headers(&shown).body(body);
    let scope = Scope { region: signing.region, service: signing.service, time: &time };
    let secret = Secret::new(signing.secret.map_or_else(|| secret_of(signing.key), str::to_owned));
    let authorization = sign(&request, &scope, signing.key, &secret);
    all.push(("authorization".into(), authorization));
    all
}

pub fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

pub fn target(service: &str, operation: &str) -> String {
    let prefix = if service == "ecr" { "AmazonEC2ContainerRegistry_V20150921" } else { "SpencerFrontendService" };
    format!("{prefix}.{operation}")
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The type of an error of the API.
pub fn kind(answer: &Answer) -> String {
    assert!(answer.status >= 400, "{answer:?}");
    answer.json()["__type"].as_str().unwrap().to_owned()
}
