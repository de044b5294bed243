//! The members of an object of a policy, read once and with their place in each error.

use super::error::{PolicyError, PolicyProblem};
use crate::json::Json;

/// Where in a policy something is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The number of the rule, from 1.
    pub(super) rule: Option<usize>,
    pub(super) priority: Option<u32>,
}

impl Place {
    pub(super) fn error(self, member: &str, problem: PolicyProblem) -> PolicyError {
        PolicyError { rule: self.rule, priority: self.priority, member: member.to_owned(), problem }
    }
}

/// The members of one object, all of which are known, and each of which is there once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'a> {
    pub(super) place: Place,
    /// The name of the object in its rule, empty for the rule and for the document.
    path: &'static str,
    members: &'a [(String, Json)],
}

/// As much of a text as an error quotes.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(200).collect()
}

fn wrong_type(expected: &'static str, found: &Json) -> PolicyProblem {
    PolicyProblem::Type { expected, found: found.type_name() }
}

impl<'a> Members<'a> {
    /// Those of an object that has no others than these.
    pub(super) fn of(
        json: &'a Json,
        place: Place,
        path: &'static str,
        known: &[&'static str],
    ) -> Result<Self, PolicyError> {
        let Json::Object(members) = json else { return Err(place.error(path, wrong_type("object", json))) };
        let read = Self { place, path, members };
        for (at, (name, _)) in members.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(read.error("", PolicyProblem::Unknown { name: quoted(name) }));
            }
            // What is known is few, so this ends early.
            if members.iter().skip(at + 1).any(|(other, _)| other == name) {
                return Err(read.error("", PolicyProblem::Duplicate { name: quoted(name) }));
            }
        }
        Ok(read)
    }

    /// An error about one of the members, or about the object where no name is given.
    pub(super) fn error(&self, name: &str, problem: PolicyProblem) -> PolicyError {
        let between = if self.path.is_empty() || name.is_empty() { "" } else { "." };
        self.place.error(&format!("{}{between}{name}", self.path), problem)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Json> {
        self.members.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    pub(super) fn required(&self, name: &'static str) -> Result<&'a Json, PolicyError> {
        self.get(name).ok_or_else(|| self.error("", PolicyProblem::Missing { name }))
    }

    fn as_text(&self, name: &str, value: &'a Json) -> Result<&'a str, PolicyError> {
        match value {
            Json::Text(text) => Ok(text),
            other => Err(self.error(name, wrong_type("string", other))),
        }
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'a str>, PolicyError> {
        self.get(name).map(|value| self.as_text(name, value)).transpose()
    }

    /// A text that stands for one of these values, if the member is there.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &'static str,
        allowed: &'static [&'static str],
        values: &[T],
    ) -> Result<Option<T>, PolicyError> {
        let Some(found) = self.text(name)? else { return Ok(None) };
        let value = allowed.iter().zip(values).find(|(text, _)| **text == found).map(|(_, value)| *value);
        let problem = || PolicyProblem::Value { found: quoted(found), allowed };
        value.map(Some).ok_or_else(|| self.error(name, problem()))
    }

    /// The same of a member that must be there.
    pub(super) fn required_choice<T: Copy>(
        &self,
        name: &'static str,
        allowed: &'static [&'static str],
        values: &[T],
    ) -> Result<T, PolicyError> {
        let missing = || self.error("", PolicyProblem::Missing { name });
        self.choice(name, allowed, values)?.ok_or_else(missing)
    }

    /// A whole number within bounds, which must be there.
    pub(super) fn number(&self, name: &'static str, minimum: u32, maximum: u32) -> Result<u32, PolicyError> {
        let problem = match self.required(name)? {
            Json::Negative(found) => PolicyProblem::TooSmall { minimum, found: *found },
            Json::Whole(found) => match u32::try_from(*found) {
                Ok(found) if found < minimum => PolicyProblem::TooSmall { minimum, found: found.into() },
                Ok(found) if found <= maximum => return Ok(found),
                _ => PolicyProblem::TooLarge { maximum, found: *found },
            },
            other => wrong_type("integer", other),
        };
        Err(self.error(name, problem))
    }

    pub(super) fn list(&self, name: &'static str) -> Result<Option<&'a [Json]>, PolicyError> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::List(list)) => Ok(Some(list)),
            Some(other) => Err(self.error(name, wrong_type("array", other))),
        }
    }

    /// A list of texts, if the member is there.
    pub(super) fn texts(&self, name: &'static str) -> Result<Option<Vec<&'a str>>, PolicyError> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        list.iter().map(|value| self.as_text(name, value)).collect::<Result<_, _>>().map(Some)
    }
}

impl Json {
    /// The name of its type, as JSON schemas have it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Whole(_) | Self::Negative(_) => "integer",
            Self::Float(_) => "number",
            Self::Text(_) => "string",
            Self::List(_) => "array",
            Self::Object(_) => "object",
        }
    }
}
