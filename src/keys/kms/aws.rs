//! A blocking client of AWS KMS: three actions of its JSON protocol, signed, over HTTPS.

use std::fmt;
use std::io::Read as _;
use std::thread;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use ureq::http::{self, HeaderValue, Uri};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use super::super::{KeyError, SecretKey};
use super::Kms;
use super::answer::{Answer, Refusal};
use crate::sigv4::{Request, Scope, Secret, sign, timestamp};

/// The longest body that is read. An answer has a wrapped key of at most 8 KiB, as base64.
const MAX_ANSWER: usize = 64 << 10;

/// Room for any request: key ids have 2 KiB, wrapped keys 8 KiB. What does not grow leaves no copies behind.
const REQUEST_ROOM: usize = 32 << 10;

/// For how long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For how long to wait before each further attempt: shorter in tests, which are not about that.
const PAUSES: [Duration; 2] =
    if cfg!(test) { [Duration::from_millis(1); 2] } else { [Duration::from_millis(100), Duration::from_millis(500)] };

/// What requests to AWS are signed with.
#[derive(Clone)]
pub struct AwsCredentials {
    access_key_id: String,
    secret_access_key: Secret,
    session_token: Option<Zeroizing<String>>,
}

impl AwsCredentials {
    /// Long-lived credentials.
    ///
    /// ```
    /// use strongroom::keys::AwsCredentials;
    ///
    /// let credentials = AwsCredentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    /// assert_eq!(format!("{credentials:?}"), "AwsCredentials { access_key_id: \"AKIDEXAMPLE\", .. }");
    /// ```
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: Secret::new(secret_access_key),
            session_token: None,
        }
    }

    /// Makes them temporary credentials, which have a token besides.
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(Zeroizing::new(token.into()));
        self
    }

    /// From `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, and `AWS_SESSION_TOKEN` if there is one.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where one of the first two is not set.
    pub fn from_env() -> Result<Self, KeyError> {
        let credentials = Self::new(needed("AWS_ACCESS_KEY_ID")?, needed("AWS_SECRET_ACCESS_KEY")?);
        Ok(match variable("AWS_SESSION_TOKEN") {
            Some(token) => credentials.session_token(token),
            None => credentials,
        })
    }
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsCredentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// A variable that is set, and not to nothing.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn needed(name: &str) -> Result<String, KeyError> {
    variable(name).ok_or_else(|| invalid(format!("the environment variable {name} is not set")))
}

fn invalid(reason: String) -> KeyError {
    KeyError::Invalid { reason }
}

/// AWS KMS, or what speaks its protocol.
///
/// A call is one request over HTTPS, signed with Signature Version 4. Where the service is not reached, is overloaded
/// or fails, two more attempts are made. One attempt may take 10 s ([`timeout`](Self::timeout)). The proxy of the
/// environment (`HTTPS_PROXY`, `NO_PROXY`) is used. Certificates are checked with the roots that Mozilla trusts, which
/// come with the crate.
///
/// The credentials need `kms:Encrypt`, `kms:Decrypt` and `kms:GenerateDataKey` for the key. They are used as they are
/// given: temporary ones are not renewed, and once they have expired, calls fail with [`KeyError::Denied`]. Where a
/// program runs for longer, implement [`Kms`] with AWS's SDK.
///
/// # Example
/// ```no_run
/// use strongroom::keys::{AwsKms, KmsKey};
///
/// let kms = AwsKms::from_env()?;
/// let key = KmsKey::new(kms, "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab");
/// # Ok::<(), strongroom::keys::KeyError>(())
/// ```
#[derive(Clone)]
pub struct AwsKms {
    region: String,
    endpoint: Endpoint,
    credentials: AwsCredentials,
    agent: Agent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    url: String,
    /// As the header `host` has it.
    host: String,
}

impl AwsKms {
    /// The service in a region, such as `eu-west-1`.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where that can't be the name of a region.
    ///
    /// ```
    /// use strongroom::keys::{AwsCredentials, AwsKms};
    ///
    /// let credentials = AwsCredentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    /// assert!(AwsKms::new("eu-west-1", credentials.clone()).is_ok());
    /// assert!(AwsKms::new("eu-west-1.example.org/", credentials).is_err());
    /// # Ok::<(), strongroom::keys::KeyError>(())
    /// ```
    pub fn new(region: impl Into<String>, credentials: AwsCredentials) -> Result<Self, KeyError> {
        let region = region.into();
        if region.is_empty() || !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(invalid(format!("{region:?} is no region of AWS")));
        }
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        let endpoint = Endpoint::parse(&format!("https://kms.{region}.amazonaws.com{suffix}"))?;
        Ok(Self { region, endpoint, credentials, agent: agent(TIMEOUT) })
    }

    /// From the environment: [`AwsCredentials::from_env`]; the region from `AWS_REGION` or `AWS_DEFAULT_REGION`; the
    /// endpoint from `AWS_ENDPOINT_URL_KMS` or `AWS_ENDPOINT_URL`, if one of them is set. Configuration files are not
    /// read, and no service that hands out credentials is asked.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where one is missing or can't be what it should be.
    pub fn from_env() -> Result<Self, KeyError> {
        let region = variable("AWS_DEFAULT_REGION").map_or_else(|| needed("AWS_REGION"), Ok);
        let region = variable("AWS_REGION").map_or(region, Ok)?;
        let kms = Self::new(region, AwsCredentials::from_env()?)?;
        match variable("AWS_ENDPOINT_URL_KMS").or_else(|| variable("AWS_ENDPOINT_URL")) {
            Some(url) => kms.endpoint(&url),
            None => Ok(kms),
        }
    }

    /// Asks another endpoint than the region's own, such as that of a private network or a simulator. **By `http://`,
    /// data keys go over the network in plain**: for simulators alone.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where this is no URL with a host, and nothing behind it.
    pub fn endpoint(mut self, url: &str) -> Result<Self, KeyError> {
        self.endpoint = Endpoint::parse(url)?;
        Ok(self)
    }

    /// For how long one attempt may take, from resolving the name to the end of the answer; 10 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.agent = agent(timeout);
        self
    }

    /// The body of the answer to an action; `plaintext` is what of the request is secret, as it stands there.
    fn call(&self, action: &str, request: &Parameters<'_>, plaintext: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.is_of_region(request.key_id)?;
        let mut body = Zeroizing::new(Vec::with_capacity(REQUEST_ROOM));
        serde_json::to_writer(&mut *body, request).map_err(|_| invalid("a request that is no JSON".to_owned()))?;
        let mut pauses = PAUSES.iter();
        loop {
            let answer = self.attempt(action, request.key_id, &body, plaintext);
            match (answer, pauses.next()) {
                (Err(KeyError::Unreachable { .. }), Some(pause)) => thread::sleep(*pause),
                (answer, _) => return answer,
            }
        }
    }

    fn attempt(
        &self,
        action: &str,
        key_id: &str,
        body: &[u8],
        plaintext: &str,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let failed =
            |error: &dyn fmt::Display| KeyError::Unreachable { reason: format!("{}: {error}", self.endpoint.url) };
        let mut response = self.agent.run(self.request(action, body)?).map_err(|error| failed(&error))?;
        let answer = bounded(response.body_mut()).map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(answer);
        }
        let token = self.credentials.session_token.as_ref().map_or("", |token| token.as_str());
        let error_type = response.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let refusal = Refusal { status, error_type, body: &answer, key_id };
        Err(refusal.error(&[plaintext, self.credentials.secret_access_key.expose(), token]))
    }

    /// The signed request.
    fn request<'a>(&self, action: &str, body: &'a [u8]) -> Result<http::Request<&'a [u8]>, KeyError> {
        let time = timestamp(SystemTime::now());
        let target = format!("TrentService.{action}");
        let token = self.credentials.session_token.as_ref().map(|token| ("x-amz-security-token", token.as_str()));
        let headers: Vec<_> = [
            ("content-type", "application/x-amz-json-1.1"),
            ("host", self.endpoint.host.as_str()),
            ("x-amz-date", time.as_str()),
        ]
        .into_iter()
        .chain(token)
        .chain([("x-amz-target", target.as_str())])
        .collect();
        let signed: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let signed = Request::new("POST", "/").headers(&signed).body(body);
        let scope = Scope { region: &self.region, service: "kms", time: &time };
        let AwsCredentials { access_key_id, secret_access_key, .. } = &self.credentials;
        let authorization = sign(&signed, &scope, access_key_id, secret_access_key);

        let mut request = http::Request::post(&self.endpoint.url);
        // Errors are not shown, since they could show the header.
        let unfit = || invalid("credentials with characters that no header can have".to_owned());
        for (name, value) in headers.iter().copied().chain([("authorization", authorization.as_str())]) {
            let mut value = HeaderValue::from_str(value).map_err(|_| unfit())?;
            value.set_sensitive(matches!(name, "authorization" | "x-amz-security-token"));
            request = request.header(name, value);
        }
        request.body(body).map_err(|_| unfit())
    }

    /// KMS says of a key of another region that there is none, as if it were destroyed.
    fn is_of_region(&self, key_id: &str) -> Result<(), KeyError> {
        let region = key_id.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(2));
        match region {
            Some(region) if region != self.region => {
                Err(invalid(format!("the key {key_id:?} is in another region than {}, which is asked", self.region)))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint.url)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl Kms for AwsKms {
    fn encrypt(&self, key_id: &str, plaintext: &SecretKey, context: &[(&str, String)]) -> Result<Vec<u8>, KeyError> {
        let mut text = Zeroizing::new(String::with_capacity(2 * SecretKey::LEN));
        STANDARD.encode_string(plaintext.expose(), &mut text);
        let request = Parameters { plaintext: Some(&text), ..Parameters::new(key_id, context) };
        Answer::parse(&self.call("Encrypt", &request, &text)?)?.ciphertext()
    }

    fn decrypt(&self, key_id: &str, ciphertext: &[u8], context: &[(&str, String)]) -> Result<SecretKey, KeyError> {
        let ciphertext = STANDARD.encode(ciphertext);
        let request = Parameters { ciphertext_blob: Some(&ciphertext), ..Parameters::new(key_id, context) };
        Answer::parse(&self.call("Decrypt", &request, "")?)?.key()
    }

    fn generate_data_key(&self, key_id: &str, context: &[(&str, String)]) -> Result<(SecretKey, Vec<u8>), KeyError> {
        let request = Parameters { key_spec: Some("AES_256"), ..Parameters::new(key_id, context) };
        let body = self.call("GenerateDataKey", &request, "")?;
        let answer = Answer::parse(&body)?;
        Ok((answer.key()?, answer.ciphertext()?))
    }
}

/// The body of a request.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Parameters<'a> {
    key_id: &'a str,
    #[serde(serialize_with = "as_map")]
    encryption_context: &'a [(&'a str, String)],
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext_blob: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_spec: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    fn new(key_id: &'a str, context: &'a [(&'a str, String)]) -> Self {
        Self { key_id, encryption_context: context, plaintext: None, ciphertext_blob: None, key_spec: None }
    }
}

fn as_map<S: Serializer>(pairs: &[(&str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

impl Endpoint {
    fn parse(url: &str) -> Result<Self, KeyError> {
        let parse = || {
            let uri: Uri = url.parse().ok()?;
            let authority = uri.authority()?.as_str();
            let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
            let plain = uri.path() == "/" && uri.query().is_none() && !authority.contains('@');
            plain.then(|| Self { url: format!("{scheme}://{authority}/"), host: authority.to_owned() })
        };
        parse().ok_or_else(|| invalid("an endpoint should look like https://kms.eu-west-1.amazonaws.com".to_owned()))
    }
}

fn agent(timeout: Duration) -> Agent {
    Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0) // a redirected request would carry keys to where nobody configured
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// A body, in memory that is wiped and does not grow.
fn bounded(body: &mut Body) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER + 64)); // it never gets so full that it would grow
    body.as_reader().take(MAX_ANSWER as u64 + 1).read_to_end(&mut answer)?;
    if answer.len() > MAX_ANSWER {
        return Err(std::io::Error::other(format!("an answer of more than {MAX_ANSWER} bytes")));
    }
    Ok(answer)
}
