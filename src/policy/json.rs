//! What a policy takes of a JSON document, and how it refuses the rest.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::{PolicyError, PolicyProblem, cut, member};
pub(super) use crate::json::Json;

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
            Self::Whole(_) | Self::Negative(_) | Self::Float(_) => "a number",
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
