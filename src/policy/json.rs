//! A JSON document as a tree that keeps repeated members, so that they can be refused where they stand.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{PolicyError, PolicyProblem, cut, member};

/// A JSON value. Integers are kept as text.
#[derive(Debug)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Integer(String),
    Float(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Whether names that differ in case only are the same.
#[derive(Clone, Copy)]
pub(super) enum Names {
    CaseSensitive,
    IgnoreCase,
}

impl Json {
    /// Parses one document, nested at most 127 deep.
    pub(super) fn parse(text: &str) -> Result<Self, PolicyError> {
        serde_json::from_str(text).map_err(|source| PolicyProblem::NotJson { source: Arc::new(source) }.at(""))
    }

    /// The error that a value of another type belongs here.
    pub(super) fn expected(&self, expected: &'static str, at: &str) -> PolicyError {
        let found = match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        };
        PolicyProblem::WrongType { expected, found }.at(at)
    }

    pub(super) fn text(self, at: &str) -> Result<String, PolicyError> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.expected("a string", at)),
        }
    }

    /// The members of an object, none of which occurs twice.
    pub(super) fn members(self, names: Names, at: &str) -> Result<Vec<(String, Self)>, PolicyError> {
        let members = match self {
            Self::Object(members) => members,
            other => return Err(other.expected("an object", at)),
        };
        let mut seen = BTreeSet::new();
        for (name, _) in &members {
            let compared = match names {
                Names::CaseSensitive => name.clone(),
                Names::IgnoreCase => name.to_ascii_lowercase(),
            };
            if !seen.insert(compared) {
                return Err(PolicyProblem::Duplicate { name: cut(name) }.at(at));
            }
        }
        Ok(members)
    }

    /// The values of a list, or the value itself, each with its place. A list is not empty.
    pub(super) fn values(self, at: &str) -> Result<Vec<(String, Self)>, PolicyError> {
        match self {
            Self::List(list) if list.is_empty() => Err(PolicyProblem::Empty.at(at)),
            Self::List(list) => {
                let numbered = list.into_iter().enumerate();
                Ok(numbered.map(|(index, value)| (member(at, &index.to_string()), value)).collect())
            }
            value => Ok(vec![(at.to_owned(), value)]),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Json::Object(object))
    }
}
