//! Who asks: signatures and tokens, checked against the credentials file.
//!
//! ```text
//! POST / (ecr, ecr-public, sts)  signature ─► sigv4 ──────┐
//!                                                          ├─► directory ─► Identity
//! /v2/…  Basic AWS:token, Basic key:secret, Bearer token ──┘   (the file, checked and resolved)
//! ```
//! What somebody may do is not decided here: an [`Identity`] brings its policies along. Without a credentials file the
//! registry is [open](Identity::Open): nobody is asked who they are.
//!
//! The file is read again when it changes ([`Auth::watch`]). Rights are looked up at each request, so a user or a key
//! that is removed is out within a second, tokens included. A file that can't be read, or says what can't be, changes
//! nothing, and is told in the log.

pub mod challenge;
pub mod command;
pub mod credentials;
pub mod directory;
pub mod listing;
pub mod principal;
mod random;
mod resolve;
pub mod sts;
pub mod token;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::http::request::Parts;
use serde_json::{Value, json};
use strongroom::sigv4::{self, Expected, Request, SigV4Error};
use tokio::signal::unix::{SignalKind, signal};

use crate::ecr::call::Origin;
use crate::ecr::error::ApiError;
use challenge::{Challenge, Presented};
use credentials::file::{self, CredentialsError, Stamp};
use directory::Directory;
pub use directory::Settings;
pub use principal::{Identity, Known};
use token::{Claims, LIFETIME, Token, TokenKey, TokenProblem, seconds};

/// How often the file is looked at.
const WATCH: Duration = Duration::from_secs(1);

/// For how long an address of a blob is good that a client was given.
const DOWNLOAD_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// What stands in a download token in the place of an ARN, which begins otherwise.
fn download(repository: &str, digest: &str) -> String {
    format!("download {digest} {repository}")
}

/// What the place of a list begins with, there.
const PLACE: &str = "place ";

/// Finds out who asks.
#[derive(Debug)]
pub struct Auth {
    settings: Settings,
    tokens: TokenKey,
    /// None of a registry that is open.
    watched: Option<Arc<Watched>>,
    /// Where clients reach the registry, if the operator has said so.
    url: Option<String>,
}

/// The credentials file, and what it said when it was last right.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    current: RwLock<Arc<Directory>>,
    /// What was there when it was last read. `None`: there was no file.
    seen: Mutex<Option<Stamp>>,
}

impl Auth {
    /// Of a registry without credentials.
    pub fn open(tokens: TokenKey) -> Self {
        let (account, region, public_alias) = ("000000000000".into(), "us-east-1".into(), "public".into());
        let settings = Settings { account, region, public_alias };
        Self { settings, tokens, watched: None, url: None }
    }

    /// With the credentials in a file.
    pub fn of_file(path: &Path, tokens: TokenKey) -> Result<Self, CredentialsError> {
        let (document, stamp) = file::read(path)?;
        let directory = Directory::resolve(&document)?;
        let settings = directory.settings().clone();
        let (current, seen) = (RwLock::new(Arc::new(directory)), Mutex::new(Some(stamp)));
        let watched = Some(Arc::new(Watched { path: path.to_owned(), current, seen }));
        Ok(Self { settings, tokens, watched, url: None })
    }

    /// Account, region and alias. They do not change while the registry runs.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The account whose registry this is.
    pub fn account(&self) -> &str {
        &self.settings.account
    }

    /// The region that the registry is said to be in.
    pub fn region(&self) -> &str {
        &self.settings.region
    }

    /// The name under which public repositories are reached.
    pub fn alias(&self) -> &str {
        &self.settings.public_alias
    }

    /// Whether nobody is asked who they are.
    pub fn is_open(&self) -> bool {
        self.watched.is_none()
    }

    /// A principal that has a key, by its ARN.
    pub fn by_arn(&self, arn: &str) -> Option<Arc<Known>> {
        self.watched.as_ref()?.directory().by_arn(arn).cloned()
    }

    /// With the URL at which clients reach the registry: `https://registry.example.com`. With one, they are asked for
    /// bearer tokens: [`challenge`] says why.
    pub fn at(self, url: Option<String>) -> Self {
        let url = url.map(|url| url.trim_end_matches('/').to_owned());
        Self { url, ..self }
    }

    /// The URL at which clients reach the registry, if the operator has said so.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Who signed a request of the API of a service: `ecr`, `ecr-public` or `sts`. The body is all of it.
    pub fn of_api(&self, parts: &Parts, body: &[u8], service: &str) -> Result<Identity, SigV4Error> {
        let Some(watched) = &self.watched else { return Ok(Identity::Open) };
        let headers: Vec<_> = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let request = Request::new(parts.method.as_str(), parts.uri.path()).query(parts.uri.query().unwrap_or(""));
        let request = request.headers(&headers).body(body);
        // Clients sign for us-east-1 where a service is one for all regions.
        let scopes = [(service, self.region()), (service, if service == "ecr" { self.region() } else { "us-east-1" })];
        let (directory, now) = (watched.directory(), SystemTime::now());
        let verified = sigv4::verify(&request, &*directory, now, &Expected::new(&scopes))?;
        let principal = directory.by_key(&verified.access_key_id, now).ok_or(SigV4Error::UnknownKey)?;
        Ok(Identity::Principal(Arc::clone(principal)))
    }

    /// Who sends a request of the distribution API.
    ///
    /// A request without credentials is [`Identity::Anonymous`]'s. The caller answers it by [`Self::challenge`] where
    /// what it asks for is not public, and always at `/v2/`, which clients ask to learn how to authenticate.
    pub fn of_oci(&self, parts: &Parts) -> Result<Identity, Challenge> {
        let Some(watched) = &self.watched else { return Ok(Identity::Open) };
        self.presented(watched, parts, SystemTime::now()).map(|(identity, _)| identity)
    }

    /// Asks for credentials.
    pub fn challenge(&self, parts: &Parts) -> Challenge {
        self.url.as_deref().map_or_else(|| Challenge::basic(&Origin::of(parts).to_string()), Challenge::bearer)
    }

    /// The answer at [`TOKEN_PATH`](challenge::TOKEN_PATH): a bearer token for who presents credentials, or for nobody.
    /// It lives as long as the token that it is got for: else one could be renewed for ever.
    pub fn bearer(&self, parts: &Parts) -> Result<Value, Challenge> {
        let (now, basic) = (SystemTime::now(), || Challenge::basic(&Origin::of(parts).to_string()));
        let (identity, expires) = match &self.watched {
            None => (Identity::Open, None),
            Some(watched) => self.presented(watched, parts, now).map_err(|_| basic())?,
        };
        let token = self.token(&identity, now, expires).map_err(|error| {
            tracing::error!(%error, "no token can be made");
            basic()
        })?;
        let issued = SystemTime::UNIX_EPOCH + Duration::from_secs(token.issued);
        Ok(json!({
            "token": token.text,
            "access_token": token.text,
            "expires_in": token.expires.saturating_sub(token.issued),
            "issued_at": humantime::format_rfc3339_seconds(issued).to_string(),
        }))
    }

    /// A password for the distribution API: what `GetAuthorizationToken` gives.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn token_for(&self, identity: &Identity) -> std::io::Result<Token> {
        self.token(identity, SystemTime::now(), None)
    }

    /// A token by which whoever has it may read one blob of one repository, for as long as the key that it was asked
    /// for with is there. What it is for stands where other tokens have a principal: so neither does for the other.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn download_token(&self, known: &Known, repository: &str, digest: &str) -> std::io::Result<String> {
        let issued = seconds(SystemTime::now());
        let claims = Claims {
            arn: download(repository, digest),
            access_key_id: known.access_key_id.clone(),
            region: self.region().to_owned(),
            issued,
            expires: issued + DOWNLOAD_LIFETIME.as_secs(),
        };
        Ok(self.tokens.seal(&claims)?.text)
    }

    /// Whether a token is one by which this blob of this repository may be read.
    pub fn may_download(&self, token: &str, repository: &str, digest: &str) -> bool {
        let now = SystemTime::now();
        let Some(watched) = &self.watched else { return true };
        let Ok(claims) = self.tokens.open(token, self.region(), now) else { return false };
        claims.arn == download(repository, digest) && watched.directory().by_key(&claims.access_key_id, now).is_some()
    }

    /// The place in the list of repositories behind a name, without the name: it may be one that who asks may not see.
    /// What stands where other tokens have a principal keeps it from being one of those.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn place(&self, name: &str) -> std::io::Result<String> {
        let issued = seconds(SystemTime::now());
        let claims = Claims {
            arn: format!("{PLACE}{name}"),
            access_key_id: String::new(),
            region: self.region().to_owned(),
            issued,
            expires: issued + LIFETIME.as_secs(),
        };
        Ok(self.tokens.seal(&claims)?.text)
    }

    /// The name behind which a place is.
    pub fn name_before(&self, place: &str) -> Option<String> {
        let claims = self.tokens.open(place, self.region(), SystemTime::now()).ok()?;
        claims.arn.strip_prefix(PLACE).map(str::to_owned)
    }

    fn token(&self, identity: &Identity, now: SystemTime, expires: Option<u64>) -> std::io::Result<Token> {
        let (arn, access_key_id) = match identity {
            Identity::Open | Identity::Anonymous => (String::new(), String::new()),
            Identity::Principal(principal) => (principal.arn().to_owned(), principal.access_key_id.clone()),
        };
        let issued = seconds(now);
        let expires = expires.unwrap_or(issued + LIFETIME.as_secs());
        let region = self.region().to_owned();
        self.tokens.seal(&Claims { arn, access_key_id, region, issued, expires })
    }

    /// Who presents this, and when the token expires that was presented.
    fn presented(
        &self,
        watched: &Watched,
        parts: &Parts,
        now: SystemTime,
    ) -> Result<(Identity, Option<u64>), Challenge> {
        let (directory, presented) = (watched.directory(), Presented::of(&parts.headers));
        let refused = || self.challenge(parts);
        let token = match &presented {
            Presented::Nothing => return Ok((Identity::Anonymous, None)),
            Presented::Malformed => return Err(refused()),
            Presented::Basic { user, password } if user.as_str() != "AWS" => {
                let principal = directory.by_secret(user, password, now).ok_or_else(refused)?;
                return Ok((Identity::Principal(Arc::clone(principal)), None));
            }
            Presented::Basic { password, .. } => password,
            Presented::Bearer(token) => token,
        };
        let is_bearer = matches!(presented, Presented::Bearer(_));
        let claims = self.tokens.open(token, self.region(), now).map_err(|problem| match problem {
            TokenProblem::Expired if !is_bearer => Challenge::expired(),
            _ => refused().invalid_token(),
        })?;
        if claims.arn.is_empty() {
            return Ok((Identity::Anonymous, Some(claims.expires)));
        }
        let principal = directory.by_key(&claims.access_key_id, now).filter(|principal| principal.arn() == claims.arn);
        let principal = principal.ok_or_else(|| refused().invalid_token())?;
        Ok((Identity::Principal(Arc::clone(principal)), Some(claims.expires)))
    }

    /// Reads the file again whenever it has changed, and on SIGHUP. It does not end.
    pub async fn watch(&self) {
        let Some(watched) = &self.watched else { return std::future::pending().await };
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let is_asked = tokio::time::timeout(WATCH, asked).await.is_ok();
            let (own, settings) = (Arc::clone(watched), self.settings.clone());
            let _ = tokio::task::spawn_blocking(move || own.reload(&settings, is_asked)).await;
        }
    }
}

impl Watched {
    fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn seen(&self) -> MutexGuard<'_, Option<Stamp>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file again if it is another one than was seen, or if it is asked for.
    fn reload(&self, settings: &Settings, is_asked: bool) {
        let stamp = Stamp::of_path(&self.path);
        if !is_asked && stamp == *self.seen() {
            return;
        }
        let read = file::read(&self.path).and_then(|(document, stamp)| {
            let directory = Directory::resolve(&document)?;
            if directory.settings() != settings {
                let problem = "it takes a restart to change them; the rest was not read either";
                return Err(CredentialsError::invalid("account, region, publicAlias", problem));
            }
            Ok((directory, stamp))
        });
        match read {
            Ok((directory, stamp)) => {
                tracing::info!(keys = directory.keys(), "the credentials were read again");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
                *self.seen() = Some(stamp);
            }
            Err(error) => {
                tracing::error!(%error, "the credentials can't be read: those read before go on to be valid");
                *self.seen() = stamp;
            }
        }
    }
}

impl From<SigV4Error> for ApiError {
    fn from(error: SigV4Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests;
