//! The credentials file: who there is, with which keys and which rights.
//!
//! ```json
//! {
//!   "account": "123456789012",
//!   "region": "eu-west-1",
//!   "publicAlias": "public",
//!   "users": [
//!     {
//!       "name": "ci",
//!       "accessKeys": [{ "id": "AKIA…", "secret": "…", "status": "Active" }],
//!       "groups": ["pushers"],
//!       "policies": ["AmazonEC2ContainerRegistryReadOnly", { "Version": "2012-10-17", "Statement": [] }],
//!       "tags": { "team": "build" }
//!     },
//!     { "name": "partner", "account": "210987654321", "accessKeys": [] }
//!   ],
//!   "groups": [{ "name": "pushers", "policies": ["AmazonEC2ContainerRegistryPowerUser"] }],
//!   "roles": [
//!     {
//!       "name": "deploy",
//!       "policies": ["pull-team-x"],
//!       "sessions": [{ "name": "cd", "id": "ASIA…", "secret": "…", "token": "…", "expires": "2027-01-01T00:00:00Z" }]
//!     }
//!   ],
//!   "accounts": { "123456789012": { "name": "build", "accessKeys": [] } },
//!   "policies": { "pull-team-x": { "Version": "2012-10-17", "Statement": [] } }
//! }
//! ```
//! - `account` is whose registry this is. It, `region` and `publicAlias` are read when the registry starts.
//! - Users, groups and roles belong to that account, unless they have an `account` of their own. Names are unique in an
//!   account.
//! - A policy is the name of one in `policies` or of one that [AWS manages](managed), or a document in its place.
//! - `accounts` gives accounts names, and their root users keys. A root user may do everything in its own account.
//! - A session of a role whose `token` is left out is used like a user's key; without `expires` it does not end.
//! - Unknown and duplicate members are refused: a misspelled one would otherwise grant or withhold rights silently.
//!
//! # Secrets
//! They are stored in plain text: Signature Version 4 is an HMAC, so verifying it takes the secret itself. The file has
//! to be accessible to its owner alone: one that others can read or write is refused ([`file`]). Encryption at rest is
//! the file system's matter.

pub mod edit;
pub mod file;
pub mod managed;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use strongroom::sigv4::Secret;

/// What the file says.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    pub account: String,
    pub region: String,
    #[serde(default = "public")]
    pub public_alias: String,
    #[serde(default)]
    pub users: Vec<User>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "each_once")]
    pub accounts: BTreeMap<String, Account>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "each_once")]
    pub policies: BTreeMap<String, Box<RawValue>>,
}

fn public() -> String {
    "public".to_owned()
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Account {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of the root user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_keys: Vec<AccessKey>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    #[serde(default)]
    pub access_keys: Vec<AccessKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyRef>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "each_once")]
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessKey {
    pub id: String,
    #[serde(with = "plain")]
    pub secret: Secret,
    #[serde(default)]
    pub status: Status,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Status {
    #[default]
    Active,
    Inactive,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Group {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    #[serde(default)]
    pub policies: Vec<PolicyRef>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyRef>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "each_once")]
    pub tags: BTreeMap<String, String>,
    #[serde(default)]
    pub sessions: Vec<Session>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Session {
    pub name: String,
    pub id: String,
    #[serde(with = "plain")]
    pub secret: Secret,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "plain_if_any")]
    pub token: Option<Secret>,
    /// As RFC 3339 writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A policy of a user, a group or a role.
#[derive(Clone, Debug)]
pub enum PolicyRef {
    /// One of the file's, or one that AWS manages.
    Named(String),
    /// The document, as it is written: what is there twice is for the policy language to refuse.
    Inline(Box<RawValue>),
}

impl PolicyRef {
    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Inline(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for PolicyRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Box::<RawValue>::deserialize(deserializer)?;
        match value.get().as_bytes().first() {
            Some(b'"') => serde_json::from_str(value.get()).map(Self::Named).map_err(D::Error::custom),
            Some(b'{') => Ok(Self::Inline(value)),
            _ => Err(D::Error::custom("a policy is the name of one, or a document")),
        }
    }
}

impl Serialize for PolicyRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => name.serialize(serializer),
            Self::Inline(document) => document.serialize(serializer),
        }
    }
}

/// Secrets, which are there in plain text.
mod plain {
    use super::{Deserialize as _, Deserializer, Secret, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

mod plain_if_any {
    use super::{Deserializer, Secret, Serializer, plain};

    pub(super) fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
        match secret {
            Some(secret) => plain::serialize(secret, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
        plain::deserialize(deserializer).map(Some)
    }
}

/// A map in which no name is there twice: of two, the first would be lost.
fn each_once<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Once<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Once<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((name, value)) = members.next_entry::<String, T>()? {
                if map.contains_key(&name) {
                    return Err(A::Error::custom(format!("{name:?} is there twice: keep one")));
                }
                map.insert(name, value);
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(Once(PhantomData))
}

impl Document {
    /// A file without anybody in it.
    pub fn new(account: &str, region: &str) -> Self {
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            public_alias: public(),
            users: Vec::new(),
            groups: Vec::new(),
            roles: Vec::new(),
            accounts: BTreeMap::new(),
            policies: BTreeMap::new(),
        }
    }

    /// The account of something that may have one of its own.
    pub fn account_of<'a>(&'a self, own: &'a Option<String>) -> &'a str {
        own.as_deref().unwrap_or(&self.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_or_there_twice_is_refused() {
        let problem = |text: &str| serde_json::from_str::<Document>(text).unwrap_err().to_string();
        for (text, expected) in [
            (r#"{"region":"us-east-1"}"#, "missing field `account`"),
            (r#"{"account":"1","region":"r","user":[]}"#, "unknown field `user`"),
            (r#"{"account":"1","account":"1","region":"r"}"#, "duplicate field `account`"),
            (r#"{"account":"1","region":"r","policies":{"a":{},"a":{}}}"#, "\"a\" is there twice"),
            (r#"{"account":"1","region":"r","users":[{"name":"a","policies":[1]}]}"#, "a policy is the name of one"),
            (r#"{"account":"1","region":"r","users":[{"name":"a","polices":[]}]}"#, "unknown field `polices`"),
        ] {
            assert!(problem(text).contains(expected), "{}", problem(text));
        }
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let text = concat!(
            r#"{"account":"123456789012","region":"us-east-1","publicAlias":"p","users":[{"name":"a","accessKeys":"#,
            r#"[{"id":"AKIA","secret":"sss","status":"Inactive"}],"policies":["X",{"Version":  "2012-10-17"}],"#,
            r#""tags":{"k":"v"}}],"roles":[{"name":"r","sessions":[{"name":"s","id":"ASIA","secret":"t","token":"u","#,
            r#""expires":"2027-01-01T00:00:00Z"}]}],"policies":{"p":{"Statement": []}}}"#,
        );
        let document: Document = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
        assert!(!format!("{document:?}").contains("sss"), "{document:?}");
    }
}
