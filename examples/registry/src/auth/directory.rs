//! All principals, by their keys and by their ARNs: what the credentials file says, checked and resolved.
//!
//! A directory is never changed: when the file changes, a new one takes its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use ring::hmac;
use strongroom::sigv4::{self, Secret};

use super::credentials::Document;
use super::credentials::file::CredentialsError;
use super::principal::Known;
use super::resolve::Resolving;

/// Which registry this is, in the terms of AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whose registry it is.
    pub account: String,
    /// The region that it is said to be in.
    pub region: String,
    /// The name under which public repositories are reached.
    pub public_alias: String,
}

#[derive(Debug)]
pub struct Directory {
    settings: Settings,
    keys: Keys,
    arns: Principals,
}

/// By the ids of keys.
pub(super) type Keys = HashMap<String, Key>;

/// By ARN.
pub(super) type Principals = HashMap<String, Arc<Known>>;

/// A key that may be used.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) secret: Secret,
    /// Of a session.
    pub(super) token: Option<Secret>,
    pub(super) expires: Option<SystemTime>,
    pub(super) principal: Arc<Known>,
}

impl Key {
    fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Directory {
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many keys may be used.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Whose key this is, unless it is inactive, gone or over.
    pub fn by_key(&self, access_key_id: &str, now: SystemTime) -> Option<&Arc<Known>> {
        let key = self.keys.get(access_key_id).filter(|key| !key.has_expired(now))?;
        Some(&key.principal)
    }

    /// A principal that has a key, by its ARN.
    pub fn by_arn(&self, arn: &str) -> Option<&Arc<Known>> {
        self.arns.get(arn)
    }

    /// Whose key this is, if the secret is the key's. It takes the same work for a key that there is none of; keys of
    /// sessions with tokens do not do.
    pub fn by_secret(&self, access_key_id: &str, secret: &str, now: SystemTime) -> Option<&Arc<Known>> {
        let key = self.keys.get(access_key_id).filter(|key| !key.has_expired(now) && key.token.is_none());
        let known = key.map_or("0123456789012345678901234567890123456789", |key| key.secret.expose());
        let is_same = is_same(known, secret);
        key.filter(|_| is_same).map(|key| &key.principal)
    }

    /// What a document says.
    pub fn resolve(document: &Document) -> Result<Self, CredentialsError> {
        let (keys, arns) = Resolving::resolve(document)?;
        let settings = Settings {
            account: document.account.clone(),
            region: document.region.clone(),
            public_alias: document.public_alias.clone(),
        };
        Ok(Self { settings, keys, arns })
    }
}

impl sigv4::Credentials for Directory {
    fn secret(&self, access_key_id: &str, session_token: Option<&str>) -> Option<Secret> {
        let key = self.keys.get(access_key_id)?;
        let is_its_token = match (&key.token, session_token) {
            (None, None) => true,
            (Some(token), Some(given)) => is_same(token.expose(), given),
            _ => false,
        };
        let secret = is_its_token.then_some(&key.secret)?;
        let has_expired = key.has_expired(SystemTime::now());
        Some(if has_expired { Secret::expired(secret.expose()) } else { secret.clone() })
    }
}

/// Whether two texts are the same, in a time that says nothing of where they differ.
pub fn is_same(one: &str, other: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    hmac::verify(&key, other.as_bytes(), hmac::sign(&key, one.as_bytes()).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use strongroom::sigv4::Credentials as _;

    use super::*;

    fn directory(text: &str) -> Result<Directory, CredentialsError> {
        let head = r#"{"account":"123456789012","region":"us-east-1""#;
        Directory::resolve(&serde_json::from_str(&format!("{head}{text}}}")).unwrap())
    }

    const USERS: &str = r#","users":[
        {"name":"ci","accessKeys":[{"id":"AKIAONE","secret":"secret-one"},
            {"id":"AKIATWO","secret":"secret-two","status":"Inactive"}],
         "groups":["g"],"policies":["mine","AmazonEC2ContainerRegistryPullOnly",
            {"Statement":{"Effect":"Allow","Action":"ecr:*","Resource":"*"}}],"tags":{"team":"x"}},
        {"name":"other","account":"210987654321","accessKeys":[{"id":"AKIATHREE","secret":"secret-three"}]}],
      "groups":[{"name":"g","policies":["AdministratorAccess"]}],
      "accounts":{"210987654321":{"name":"partner","accessKeys":[{"id":"AKIAROOT","secret":"secret-root"}]}},
      "roles":[{"name":"deploy","policies":["mine"],"sessions":[
        {"name":"cd","id":"ASIAONE","secret":"secret-asia","token":"token","expires":"2020-01-01T00:00:00Z"},
        {"name":"long","id":"ASIATWO","secret":"secret-long"}]}],
      "policies":{"mine":{"Statement":{"Effect":"Deny","Action":"ecr:Delete*","Resource":"*"}}}"#;

    #[test]
    fn keys_lead_to_principals_with_the_policies_of_their_groups() {
        let directory = directory(USERS).unwrap();
        let now = SystemTime::now();
        let ci = directory.by_key("AKIAONE", now).unwrap();
        assert_eq!(ci.arn(), "arn:aws:iam::123456789012:user/ci");
        assert_eq!((ci.policies.len(), &*ci.access_key_id), (4, "AKIAONE"));
        assert!(ci.user_id().starts_with("AIDA"));
        assert_eq!(directory.by_arn(ci.arn()).unwrap().arn(), ci.arn());
        assert!(directory.by_key("AKIATWO", now).is_none());
        assert_eq!(directory.by_key("AKIATHREE", now).unwrap().account().as_str(), "210987654321");
        assert_eq!(directory.by_key("AKIAROOT", now).unwrap().arn(), "arn:aws:iam::210987654321:root");
        assert_eq!(directory.by_key("AKIAROOT", now).unwrap().user_id(), "210987654321");
        let long = directory.by_key("ASIATWO", now).unwrap();
        assert_eq!(long.arn(), "arn:aws:sts::123456789012:assumed-role/deploy/long");
        assert!(long.user_id().starts_with("AROA") && long.user_id().ends_with(":long"));
        assert_eq!(directory.keys(), 5);
    }

    #[test]
    fn a_session_is_known_by_its_token_until_it_is_over() {
        let directory = directory(USERS).unwrap();
        assert!(directory.secret("ASIAONE", Some("token")).is_some());
        for (id, token) in [("ASIAONE", None), ("ASIAONE", Some("other")), ("AKIAONE", Some("token")), ("X", None)] {
            assert!(directory.secret(id, token).is_none());
        }
        let before = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
        assert!(directory.by_key("ASIAONE", before).is_some());
        assert!(directory.by_key("ASIAONE", SystemTime::now()).is_none());
    }

    #[test]
    fn a_secret_is_as_good_as_a_token_but_for_sessions() {
        let (directory, now) = (directory(USERS).unwrap(), SystemTime::UNIX_EPOCH);
        assert!(directory.by_secret("AKIAONE", "secret-one", now).is_some());
        for (id, secret) in [
            ("AKIAONE", "secret-onf"),
            ("AKIAONE", ""),
            ("AKIATWO", "secret-two"),
            ("ASIAONE", "secret-asia"),
            ("AKIAFOUR", "0123456789012345678901234567890123456789"),
        ] {
            assert!(directory.by_secret(id, secret, now).is_none(), "{id} {secret}");
        }
    }
}
