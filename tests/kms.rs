//! The client of AWS KMS against moto, a simulator of AWS in Python: its KMS, and its check of signatures, which is
//! botocore's.
//!
//! moto is no part of a machine with Rust. `MOTO_SERVER` names its program, which the tests start; without it, they say
//! that they were skipped, and pass:
//!
//! ```text
//! python3 -m venv target/moto
//! target/moto/bin/pip install 'moto[server]==5.2.5'
//! MOTO_SERVER=target/moto/bin/moto_server cargo test --features kms --test kms -- --nocapture
//! ```
//!
//! moto knows no states of keys when it encrypts, and answers a wrong key with `AccessDeniedException`: what KMS
//! answers there is tested where the answers are read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

use std::ffi::OsString;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use strongroom::keys::{AwsCredentials, AwsKms, KeyContext, KeyError, KeyProvider as _, Kms as _, KmsKey, SecretKey};
use ureq::Agent;

const REGION: &str = "eu-west-1";

/// A running moto, which ends with the test.
struct Moto {
    server: Child,
    url: String,
    agent: Agent,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Moto {
    fn start(arguments: &[&str]) -> Option<Self> {
        let Some(program) = std::env::var_os("MOTO_SERVER").filter(|program| !program.is_empty()) else {
            println!("SKIPPED: MOTO_SERVER does not name moto's server; the head of tests/kms.rs says how to get it");
            return None;
        };
        // Tests run in the folder of the crate, where a relative path is meant, too.
        let program = if Path::new(&program).components().count() > 1 {
            Path::new(env!("CARGO_MANIFEST_DIR")).join(program).into_os_string()
        } else {
            program
        };
        Some(Self::run(&program, arguments))
    }

    fn run(program: &OsString, arguments: &[&str]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let agent = Agent::config_builder().proxy(None).http_status_as_error(false).build().new_agent();
        let mut moto = Self { server, url: format!("http://{address}"), agent };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(moto.server.try_wait().unwrap().is_none(), "moto has ended");
            assert!(began.elapsed() < Duration::from_secs(60), "moto does not listen");
            sleep(Duration::from_millis(50));
        }
        moto
    }

    /// A request as moto takes it while it checks no signatures.
    fn post(&self, path: &str, service: &str, target: &str, body: &str) -> String {
        let kind = match service {
            "kms" => "application/x-amz-json-1.1",
            "iam" => "application/x-www-form-urlencoded",
            _ => "text/plain",
        };
        let scope = format!("AWS4-HMAC-SHA256 Credential=any/20200101/{REGION}/{service}/aws4_request, Signature=none");
        let mut request = self.agent.post(format!("{}{path}", self.url)).header("content-type", kind);
        if !service.is_empty() {
            request = request.header("authorization", scope);
        }
        if !target.is_empty() {
            request = request.header("x-amz-target", format!("TrentService.{target}"));
        }
        let mut answer = request.send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status(), 200, "{target} {body}: {text}");
        text
    }

    /// The ARN of a new key.
    fn create_key(&self) -> String {
        let made: serde_json::Value = serde_json::from_str(&self.post("/", "kms", "CreateKey", "{}")).unwrap();
        made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
    }

    /// A new user's credentials; with a policy that allows these actions.
    fn create_user(&self, name: &str, actions: &str) -> (String, String) {
        let iam = |body: &str| self.post("/", "iam", "", &format!("{body}&UserName={name}&Version=2010-05-08"));
        iam("Action=CreateUser");
        // {"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"…","Resource":"*"}]}
        let policy = format!(
            "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C\
             %22Action%22%3A%22{actions}%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D"
        );
        iam(&format!("Action=PutUserPolicy&PolicyName=p&PolicyDocument={policy}"));
        let made = iam("Action=CreateAccessKey");
        let field = |name: &str| made.split(&format!("<{name}>")).nth(1).unwrap().split('<').next().unwrap().to_owned();
        (field("AccessKeyId"), field("SecretAccessKey"))
    }

    fn client(&self, id: &str, secret: &str) -> AwsKms {
        AwsKms::new(REGION, AwsCredentials::new(id, secret)).unwrap().endpoint(&self.url).unwrap()
    }
}

#[test]
fn keys_are_wrapped_and_unwrapped() {
    let Some(moto) = Moto::start(&[]) else { return };
    let (arn, other) = (moto.create_key(), moto.create_key());
    let context = KeyContext::new([3; 16], 5, 7);
    let provider = KmsKey::new(moto.client("any", "any"), &arn);
    assert_eq!(provider.key_id().unwrap(), arn);

    let key = SecretKey::generate().unwrap();
    let wrapped = provider.wrap(&arn, &key, &context).unwrap();
    assert_eq!(provider.unwrap(&arn, &wrapped, &context).unwrap().expose(), key.expose());
    assert!(!wrapped.windows(32).any(|window| window == key.expose()));

    let (made, by_service) = provider.generate(&arn, &context).unwrap();
    assert_ne!(made.expose(), key.expose());
    assert_eq!(provider.unwrap(&arn, &by_service, &context).unwrap().expose(), made.expose());

    for swapped in [KeyContext::new([4; 16], 5, 7), KeyContext::new([3; 16], 7, 5), KeyContext::new([3; 16], 5, 8)] {
        assert_eq!(provider.unwrap(&arn, &wrapped, &swapped).unwrap_err(), KeyError::Damaged);
    }
    // moto's format: the key's id, then what is authenticated.
    for bit in (40 * 8)..wrapped.len() * 8 {
        let mut changed = wrapped.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(provider.unwrap(&arn, &changed, &context).unwrap_err(), KeyError::Damaged, "bit {bit}");
    }
    for length in [1, 20, 60] {
        assert_eq!(provider.unwrap(&arn, &wrapped[..length], &context).unwrap_err(), KeyError::Damaged);
    }
    let error = provider.unwrap(&other, &wrapped, &context).unwrap_err();
    assert!(matches!(error, KeyError::Denied { .. } | KeyError::Wrong { .. }), "{error}");

    let nobody = arn.replace(&arn[arn.len() - 12..], "000000000000");
    for key_id in [&nobody, "alias/none"] {
        let error = provider.wrap(key_id, &key, &context).unwrap_err();
        assert!(matches!(&error, KeyError::Gone { key_id: gone, .. } if gone == key_id), "{error}");
    }
    moto.post("/", "kms", "CreateAlias", &format!(r#"{{"AliasName":"alias/mine","TargetKeyId":"{arn}"}}"#));
    let by_alias = provider.wrap("alias/mine", &key, &context).unwrap();
    assert_eq!(provider.unwrap("alias/mine", &by_alias, &context).unwrap().expose(), key.expose());
}

#[test]
fn signatures_are_those_that_aws_computes() {
    let Some(moto) = Moto::start(&[]) else { return };
    let arn = moto.create_key();
    let (id, secret) = moto.create_user("allowed", "kms%3A%2A");
    let (denied_id, denied_secret) = moto.create_user("denied", "s3%3AGetObject");
    // From here on, moto computes each signature, by botocore, and compares.
    moto.post("/moto-api/reset-auth", "", "", "0");

    let context = [("strongroom:store", "a \"b\" é/+=".to_owned())];
    let key = SecretKey::generate().unwrap();
    let client = moto.client(&id, &secret);
    let wrapped = client.encrypt(&arn, &key, &context).unwrap();
    assert_eq!(client.decrypt(&arn, &wrapped, &context).unwrap().expose(), key.expose());
    client.generate_data_key(&arn, &context).unwrap();

    let other_secret: String = secret.chars().rev().collect();
    for (id, secret) in [(&id, &other_secret), (&denied_id, &denied_secret), (&"AKIANOBODY".to_owned(), &secret)] {
        let error = moto.client(id, secret).decrypt(&arn, &wrapped, &context).unwrap_err();
        assert!(matches!(error, KeyError::Denied { .. }), "{error}");
        println!("refused, as it should be: {error}");
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let Some(moto) = Moto::start(&["--ssl"]) else { return };
    let url = moto.url.replace("http://", "https://");
    let client = moto.client("any", "any").endpoint(&url).unwrap();
    let error = client.generate_data_key("alias/mine", &[]).unwrap_err();
    assert!(matches!(&error, KeyError::Unreachable { reason } if reason.contains("certificate")), "{error}");
}
