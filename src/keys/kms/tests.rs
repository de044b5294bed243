//! The client against a server that answers what a test says, and the provider against a service in memory.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::answer::Refusal;
use super::*;
use crate::sync::lock;

const CONTEXT: KeyContext = KeyContext { store: [3; 16], domain: 5, key: 7 };
const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "AQoDYXdzEPTtoken";

fn data_key() -> SecretKey {
    SecretKey::from_bytes(std::array::from_fn(|i| i as u8 * 3 + 130))
}

/// Answers with these, in turn, then with the last one for ever; keeps what it is asked. It lives as long as the
/// process.
fn server(answers: Vec<String>) -> (AwsKms, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = read(&stream);
            let at = {
                let mut asked = lock(&keep);
                asked.push(request);
                asked.len() - 1
            };
            let _ = stream.write_all(answers[at.min(answers.len() - 1)].as_bytes());
        }
    });
    (client().endpoint(&url).unwrap(), asked)
}

fn client() -> AwsKms {
    AwsKms::new("eu-west-1", AwsCredentials::new("AKIDEXAMPLE", SECRET).session_token(TOKEN)).unwrap()
}

fn read(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn http(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn refusal(status: u16, code: &str, message: &str) -> String {
    http(status, &serde_json::json!({ "__type": code, "message": message }).to_string())
}

#[test]
fn requests_are_those_of_the_protocol() {
    let key = STANDARD.encode(data_key().expose());
    let body = format!(r#"{{"KeyId":"{ARN}","Plaintext":"{key}","CiphertextBlob":"AQID"}}"#);
    let (client, asked) = server(vec![http(200, &body)]);
    let provider = KmsKey::new(client, ARN);
    assert_eq!(provider.wrap(ARN, &data_key(), &CONTEXT).unwrap(), [1, 2, 3]);
    assert_eq!(provider.unwrap(ARN, &[1, 2, 3], &CONTEXT).unwrap().expose(), data_key().expose());
    let (made, wrapped) = provider.generate(ARN, &CONTEXT).unwrap();
    assert_eq!((made.expose(), &wrapped[..]), (data_key().expose(), &[1, 2, 3][..]));

    let asked = lock(&asked);
    let context = format!(r#""strongroom:store":"{}","strongroom:domain":"5","strongroom:key":"7""#, "03".repeat(16));
    let common = format!(r#""KeyId":"{ARN}","EncryptionContext":{{{context}}}"#);
    for (request, action, rest) in [
        (&asked[0], "Encrypt", format!(r#""Plaintext":"{key}""#)),
        (&asked[1], "Decrypt", r#""CiphertextBlob":"AQID""#.to_owned()),
        (&asked[2], "GenerateDataKey", r#""KeySpec":"AES_256""#.to_owned()),
    ] {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, format!("{{{common},{rest}}}"));
        assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
        for header in [
            "content-type: application/x-amz-json-1.1",
            &format!("x-amz-target: TrentService.{action}"),
            &format!("x-amz-security-token: {TOKEN}"),
            "authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/2",
        ] {
            assert!(head.contains(header), "{header}: {head}");
        }
        let signed = "/eu-west-1/kms/aws4_request, \
                      SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=";
        assert!(head.contains(signed) && !head.contains(SECRET), "{head}");
    }
}

#[test]
fn refusals_are_the_errors_that_they_mean() {
    let error = |status, code: &str, message: &str| {
        let body = serde_json::json!({ "__type": code, "message": message }).to_string();
        Refusal { status, error_type: None, body: body.as_bytes(), key_id: ARN }.error(&[])
    };
    for (status, code) in [
        (400, "AccessDeniedException"),
        (400, "DisabledException"),
        (400, "KMSInvalidStateException"),
        (400, "ExpiredTokenException"),
        (400, "UnrecognizedClientException"),
        (403, "InvalidSignatureException"),
        (400, "SomethingNewException"),
        (403, ""),
    ] {
        assert!(matches!(error(status, code, "a reason"), KeyError::Denied { .. }), "{code}");
    }
    for (status, code) in [
        (400, "ThrottlingException"),
        (500, "KeyUnavailableException"),
        (503, "DependencyTimeoutException"),
        (500, "KMSInternalException"),
        (503, "SomethingNewException"),
        (302, ""),
        (404, ""),
        (407, ""),
        (429, ""),
    ] {
        assert!(matches!(error(status, code, "a reason"), KeyError::Unreachable { .. }), "{code}");
    }
    let gone = |reason: String| KeyError::Gone { key_id: ARN.into(), reason };
    let pending = format!("{ARN} is pending deletion.");
    assert_eq!(error(400, "KMSInvalidStateException", &pending), gone(format!("KMSInvalidStateException: {pending}")));
    assert!(matches!(error(400, "KMSInvalidStateException", "state PendingReplicaDeletion"), KeyError::Gone { .. }));
    assert_eq!(error(400, "NotFoundException", "none"), gone("NotFoundException: none".into()));
    assert_eq!(error(400, "com.amazonaws.kms#NotFoundException", "none"), gone("NotFoundException: none".into()));
    let wrong = KeyError::Wrong { expected: ARN.into(), found: String::new() };
    assert_eq!(error(400, "IncorrectKeyException", ""), wrong);
    assert_eq!(error(400, "InvalidCiphertextException", ""), KeyError::Damaged);
    assert!(matches!(error(400, "ValidationException", "a key id is too long"), KeyError::Invalid { .. }));

    // The header comes before the body, and bodies may be anything.
    let by_header = |body: &[u8]| {
        let error_type = Some("NotFoundException:http://internal.amazon.com/coral/com.amazonaws.kms/");
        Refusal { status: 400, error_type, body, key_id: ARN }.error(&[])
    };
    assert_eq!(by_header(br#"{"Message":"none"}"#), gone("NotFoundException: none".into()));
    assert_eq!(by_header(b"<html>"), gone("NotFoundException".into()));
}

#[test]
fn what_passes_is_tried_again() {
    let good = http(200, r#"{"CiphertextBlob":"AQID"}"#);
    let busy = refusal(400, "ThrottlingException", "Rate exceeded");
    let (client, asked) = server(vec![busy.clone(), http(502, "<html>"), good.clone()]);
    assert_eq!(client.encrypt(ARN, &data_key(), &[]).unwrap(), [1, 2, 3]);
    assert_eq!(lock(&asked).len(), 3);

    let (client, asked) = server(vec![busy.clone(), busy.clone(), busy, good.clone()]);
    assert!(matches!(client.encrypt(ARN, &data_key(), &[]), Err(KeyError::Unreachable { .. })));
    assert_eq!(lock(&asked).len(), 3);

    let (client, asked) = server(vec![refusal(400, "AccessDeniedException", "no"), good]);
    assert!(matches!(client.encrypt(ARN, &data_key(), &[]), Err(KeyError::Denied { .. })));
    assert_eq!(lock(&asked).len(), 1, "a refusal is final");
}

#[test]
fn nothing_hangs_or_fills_memory() {
    // A port where nobody listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = client().endpoint(&format!("http://127.0.0.1:{port}")).unwrap();
    assert!(matches!(nobody.decrypt(ARN, &[1], &[]), Err(KeyError::Unreachable { .. })));

    // Who listens, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let client = client().endpoint(&url).unwrap().timeout(Duration::from_millis(100));
    let began = Instant::now();
    assert!(matches!(client.decrypt(ARN, &[1], &[]), Err(KeyError::Unreachable { .. })));
    assert!(began.elapsed() < Duration::from_secs(5));

    for answer in [
        http(200, &"x".repeat(1 << 20)),
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{".to_owned(),
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            .to_owned(),
        "no HTTP\r\n\r\n".to_owned(),
        http(200, ""),
        http(200, "null"),
        http(200, "[1]"),
        http(200, r#"{"Plaintext":7}"#),
        http(200, "{}"),
    ] {
        let (client, _) = server(vec![answer]);
        let error = client.decrypt(ARN, &[1], &[]).unwrap_err();
        assert!(matches!(error, KeyError::Unreachable { .. }), "{error}");
    }
}

#[test]
fn a_key_of_another_length_is_damage() {
    for length in [0, 16, 31, 33, 64, 4096] {
        let (client, _) =
            server(vec![http(200, &format!(r#"{{"Plaintext":"{}"}}"#, STANDARD.encode(vec![7; length])))]);
        assert_eq!(client.decrypt(ARN, &[1], &[]).unwrap_err(), KeyError::Damaged, "{length}");
    }
    let escaped = STANDARD.encode([255; 32]).replace('/', "\\/");
    let (client, _) = server(vec![http(200, &format!(r#"{{"Plaintext":"{escaped}"}}"#))]);
    assert_eq!(client.decrypt(ARN, &[1], &[]).unwrap().expose(), &[255; 32]);
}

#[test]
fn a_key_of_another_region_is_not_taken_for_destroyed() {
    let (client, asked) = server(vec![refusal(400, "NotFoundException", "Invalid arn us-west-2")]);
    let elsewhere = ARN.replace("eu-west-1", "us-west-2");
    let error = client.decrypt(&elsewhere, &[1], &[]).unwrap_err();
    assert!(matches!(&error, KeyError::Invalid { reason } if reason.contains("eu-west-1")), "{error}");
    assert!(lock(&asked).is_empty());
    assert!(matches!(client.decrypt("alias/mine", &[1], &[]), Err(KeyError::Gone { .. })));
}

#[test]
fn endpoints_are_hosts() {
    for url in ["http://127.0.0.1:5000", "https://kms.eu-west-1.amazonaws.com/", "https://[::1]:8443"] {
        client().endpoint(url).unwrap();
    }
    for url in
        ["", "kms.eu-west-1.amazonaws.com", "ftp://a", "https://a/b", "https://a/?b", "https://u:p@a", "https://"]
    {
        assert!(matches!(client().endpoint(url), Err(KeyError::Invalid { .. })), "{url}");
    }
    let china = AwsKms::new("cn-north-1", AwsCredentials::new("a", "b")).unwrap();
    assert!(format!("{china:?}").contains("https://kms.cn-north-1.amazonaws.com.cn/"));
}

#[test]
fn nothing_that_is_shown_has_a_secret() {
    let key = STANDARD.encode(data_key().expose());
    let mut shown = format!("{:?} {:#?}", client(), KmsKey::new(client(), ARN));
    let mut tell = |error: KeyError| shown += &format!("{error} {error:?}\n");
    for leak in [&key, SECRET, TOKEN] {
        for answer in [
            refusal(400, "AccessDeniedException", &format!("you sent {leak}")),
            refusal(400, &format!("{leak}Exception"), "you sent"),
            refusal(400, "InvalidSignatureException", &format!("does not match\n\nThe Canonical String was {leak}")),
            refusal(500, "KMSInternalException", leak),
            http(200, &format!("{{\"CiphertextBlob\":\"{leak}!\",\"Plaintext\":\"{leak}!\"}}")),
            http(200, &format!("{{\"{leak}\": x")),
            http(400, &format!("<html>{leak}")),
            format!("HTTP/1.1 {leak}\r\n\r\n"),
        ] {
            let (client, _) = server(vec![answer]);
            tell(client.encrypt(ARN, &data_key(), &[]).unwrap_err());
            if leak != key {
                tell(client.decrypt(ARN, &[1], &[]).unwrap_err());
                tell(client.generate_data_key(ARN, &[]).unwrap_err());
            }
        }
    }
    let unfit = AwsKms::new("eu-west-1", AwsCredentials::new("a\nb", SECRET).session_token("t\nt")).unwrap();
    tell(unfit.encrypt(ARN, &data_key(), &[]).unwrap_err());
    assert!(shown.contains("does not match") && shown.contains("withheld"), "{shown}");
    for secret in [&key, SECRET, TOKEN, &key[..12], &SECRET[..12], &encode_hex(&data_key().expose()[..4]), "t\\nt"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

/// A service that keeps what it is given, and returns where that is.
#[derive(Debug, Default)]
struct Memory(Mutex<Vec<(String, String, SecretKey)>>);

impl Kms for Memory {
    fn encrypt(&self, key_id: &str, plaintext: &SecretKey, context: &[(&str, String)]) -> Result<Vec<u8>, KeyError> {
        let mut kept = lock(&self.0);
        kept.push((key_id.to_owned(), format!("{context:?}"), plaintext.clone()));
        Ok(vec![kept.len() as u8 - 1])
    }

    fn decrypt(&self, key_id: &str, ciphertext: &[u8], context: &[(&str, String)]) -> Result<SecretKey, KeyError> {
        let &[place] = ciphertext else { return Err(KeyError::Damaged) };
        let kept = lock(&self.0);
        let (id, bound, key) = kept.get(usize::from(place)).ok_or(KeyError::Damaged)?;
        if id != key_id {
            return Err(KeyError::Wrong { expected: key_id.to_owned(), found: String::new() });
        }
        if *bound == format!("{context:?}") { Ok(key.clone()) } else { Err(KeyError::Damaged) }
    }

    fn generate_data_key(&self, key_id: &str, context: &[(&str, String)]) -> Result<(SecretKey, Vec<u8>), KeyError> {
        let key = SecretKey::from_bytes([0x77; 32]);
        Ok((key.clone(), self.encrypt(key_id, &key, context)?))
    }
}

#[test]
fn the_provider_hands_over_key_and_context() {
    let provider = KmsKey::new(Memory::default(), "one");
    let id = provider.key_id().unwrap();
    let wrapped = provider.wrap(&id, &data_key(), &CONTEXT).unwrap();
    let by_old_id = provider.wrap("old", &data_key(), &CONTEXT).unwrap();
    assert_eq!(provider.unwrap(&id, &wrapped, &CONTEXT).unwrap().expose(), data_key().expose());
    assert_eq!(provider.unwrap("old", &by_old_id, &CONTEXT).unwrap().expose(), data_key().expose());
    assert!(matches!(provider.unwrap(&id, &by_old_id, &CONTEXT), Err(KeyError::Wrong { .. })));
    for other in [
        KeyContext { store: [4; 16], ..CONTEXT },
        KeyContext { domain: 7, key: 5, ..CONTEXT },
        KeyContext { key: 8, ..CONTEXT },
    ] {
        assert_eq!(provider.unwrap(&id, &wrapped, &other).unwrap_err(), KeyError::Damaged);
    }
    let (made, wrapped) = provider.generate(&id, &CONTEXT).unwrap();
    assert_eq!(made.expose(), &[0x77; 32], "the service makes the key");
    assert_eq!(provider.unwrap(&id, &wrapped, &CONTEXT).unwrap().expose(), made.expose());
}
