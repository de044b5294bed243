//! Patterns with `*`, `?` and variables, matched in bounded work.
//!
//! A pattern is matched with two pointers and one place to return to, the last `*`: never more steps than its length
//! times the text's. All steps of a policy's decision are counted by [`Work`], which ends a decision that costs more
//! than any real policy's does.

use std::str::Chars;

use super::context::{Key, Lookup};
use super::error::{PolicyError, PolicyProblem};

/// The steps that one policy may take to decide on one request: some 10 ms. A policy of 10,240 characters whose
/// patterns are all compared with texts of 400 bytes, each in the slowest way, takes less.
const STEPS: u32 = 4 << 20;

/// How many steps are left.
pub(super) struct Work(u32);

/// A decision took more steps than it may.
#[derive(Debug)]
pub(super) struct Exhausted;

impl Work {
    pub(super) fn new() -> Self {
        Self(STEPS)
    }

    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Exhausted> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.0.checked_sub(steps));
        self.0 = left.ok_or(Exhausted)?;
        Ok(())
    }
}

/// Whether letters are compared with regard to case. Without it, of ASCII letters only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    Ignored,
}

/// Whether `*` and `?` stand for others.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wildcards {
    Active,
    Literal,
}

/// Whether `${…}` is a variable: from version 2012-10-17 on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Variables {
    Active,
    Literal,
}

/// The answer of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    /// A variable has no value in this request: the pattern matches nothing.
    Unresolved,
}

impl From<bool> for Match {
    fn from(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Byte(u8),
    /// `?`, one character.
    One,
    /// `*`, any number of characters.
    Many,
}

#[derive(Debug)]
pub(super) enum Part {
    Text(Vec<Unit>),
    Variable { key: Key, default: Option<String> },
}

/// A pattern, parsed once.
#[derive(Debug)]
pub(super) enum Pattern {
    Fixed(Vec<Unit>),
    Template(Vec<Part>),
}

const VARIABLE: &str = "variables as ${aws:username}, ${aws:username, 'default'}, ${*}, ${?} or ${$}";

impl Pattern {
    pub(super) fn parse(text: &str, wildcards: Wildcards, variables: Variables, at: &str) -> Result<Self, PolicyError> {
        let mut parts = vec![];
        let mut units = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if let (Variables::Active, Some(behind)) = (variables, rest.strip_prefix("${")) {
                let variable = behind.find('}').and_then(|end| behind.split_at_checked(end));
                let (name, behind) = variable.ok_or_else(|| PolicyProblem::invalid(text, VARIABLE).at(at))?;
                rest = behind.strip_prefix('}').unwrap_or(behind);
                match name {
                    "*" | "?" | "$" => units.extend(name.bytes().map(Unit::Byte)),
                    _ => {
                        let part = variable_of(name).ok_or_else(|| PolicyProblem::invalid(text, VARIABLE).at(at))?;
                        parts.push(Part::Text(std::mem::take(&mut units)));
                        parts.push(part);
                    }
                }
                continue;
            }
            let (char, behind) = rest.split_at_checked(next.len_utf8()).unwrap_or((rest, ""));
            match (wildcards, next) {
                (Wildcards::Active, '?') => units.push(Unit::One),
                (Wildcards::Active, '*') => units.push(Unit::Many),
                _ => units.extend(char.bytes().map(Unit::Byte)),
            }
            rest = behind;
        }
        if parts.is_empty() {
            return Ok(Self::Fixed(units));
        }
        parts.push(Part::Text(units));
        Ok(Self::Template(parts))
    }

    /// Whether a text matches.
    pub(super) fn matches(
        &self,
        text: &str,
        case: Case,
        lookup: &Lookup<'_>,
        work: &mut Work,
    ) -> Result<Match, Exhausted> {
        match self {
            Self::Fixed(units) => Ok(glob(units, text, case, work)?.into()),
            Self::Template(parts) => match resolve(parts, lookup, work)? {
                Some(units) => Ok(glob(&units, text, case, work)?.into()),
                None => Ok(Match::Unresolved),
            },
        }
    }
}

/// The variable that stands between `${` and `}`.
fn variable_of(name: &str) -> Option<Part> {
    let (key, default) = match name.split_once(',') {
        Some((key, default)) => {
            let default = default.trim().strip_prefix('\'')?.strip_suffix('\'')?;
            (key.trim(), Some(default.to_owned()))
        }
        None => (name, None),
    };
    Some(Part::Variable { key: Key::parse(key)?, default })
}

/// The pattern with its variables' values, whose wildcards are text; none if one has no value, or several.
fn resolve(parts: &[Part], lookup: &Lookup<'_>, work: &mut Work) -> Result<Option<Vec<Unit>>, Exhausted> {
    let mut units = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => {
                work.spend(text.len())?;
                units.extend_from_slice(text);
            }
            Part::Variable { key, default } => {
                let Some(value) = lookup.single(key).or(default.as_deref()) else { return Ok(None) };
                work.spend(value.len())?;
                units.extend(value.bytes().map(Unit::Byte));
            }
        }
    }
    Ok(Some(units))
}

/// Whether a text matches. `text` is walked by characters, so `?` takes a whole one.
fn glob(units: &[Unit], text: &str, case: Case, work: &mut Work) -> Result<bool, Exhausted> {
    let mut unit = 0;
    let mut at = 0;
    let mut star: Option<(usize, Chars<'_>)> = None; // the unit behind the last `*`, and the text that it left
    loop {
        work.spend(1)?;
        let byte = text.as_bytes().get(at);
        let is_match = match (units.get(unit), byte) {
            (Some(Unit::Many), _) => {
                unit += 1;
                if unit == units.len() {
                    return Ok(true);
                }
                star = Some((unit, text.get(at..).unwrap_or_default().chars()));
                continue;
            }
            (None, None) => return Ok(true),
            (Some(_), None) => return Ok(false), // starting later leaves even less text
            (Some(Unit::Byte(expected)), Some(byte)) => match case {
                Case::Sensitive => expected == byte,
                Case::Ignored => expected.eq_ignore_ascii_case(byte),
            },
            (Some(Unit::One), Some(_)) => true,
            (None, Some(_)) => false,
        };
        if is_match {
            let is_one = matches!(units.get(unit), Some(Unit::One));
            let char = if is_one { text.get(at..).and_then(|rest| rest.chars().next()) } else { None };
            at += char.map_or(1, char::len_utf8);
            unit += 1;
            continue;
        }
        // The last `*` takes one character more.
        let Some((behind, rest)) = &mut star else { return Ok(false) };
        if rest.next().is_none() {
            return Ok(false);
        }
        unit = *behind;
        at = text.len() - rest.as_str().len();
    }
}

/// An ARN's pattern, whose six parts are compared one by one: a `*` does not reach across a colon.
#[derive(Debug)]
pub(super) enum ArnPattern {
    Any,
    Parts(Vec<Pattern>),
}

/// The number of an ARN's parts. The last one may have colons.
const PARTS: usize = 6;

impl ArnPattern {
    pub(super) fn parse(text: &str, variables: Variables, at: &str) -> Result<Self, PolicyError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let parts = split_arn(text, variables);
        if parts.len() < PARTS {
            return Err(PolicyProblem::invalid(text, "\"*\" or an ARN with six parts, each of which may be *").at(at));
        }
        let parsed = parts.into_iter().map(|part| Pattern::parse(part, Wildcards::Active, variables, at));
        Ok(Self::Parts(parsed.collect::<Result<_, _>>()?))
    }

    pub(super) fn matches(&self, text: &str, lookup: &Lookup<'_>, work: &mut Work) -> Result<Match, Exhausted> {
        let parts: Vec<&str> = text.splitn(PARTS, ':').collect();
        if parts.len() < PARTS {
            return Ok(Match::No);
        }
        let Self::Parts(patterns) = self else { return Ok(Match::Yes) };
        let mut matched = Match::Yes;
        for (pattern, part) in patterns.iter().zip(parts) {
            match pattern.matches(part, Case::Sensitive, lookup, work)? {
                Match::No => return Ok(Match::No),
                Match::Unresolved => matched = Match::Unresolved,
                Match::Yes => {}
            }
        }
        Ok(matched)
    }
}

/// An ARN's parts, at the first five colons outside of variables.
pub(super) fn split_arn(text: &str, variables: Variables) -> Vec<&str> {
    let mut parts = Vec::with_capacity(PARTS);
    let mut rest = text;
    let mut is_variable = false;
    let mut from = 0;
    while parts.len() + 1 < PARTS {
        let Some(found) = rest.get(from..).and_then(|rest| rest.find([':', '{', '}'])) else { break };
        let at = from + found;
        let (before, behind) = rest.split_at_checked(at).unwrap_or((rest, ""));
        from = at + 1;
        match behind.as_bytes().first() {
            Some(b'{') => is_variable |= matches!(variables, Variables::Active) && before.ends_with('$'),
            Some(b'}') => is_variable = false,
            _ if is_variable => {}
            _ => {
                parts.push(before);
                rest = behind.get(1..).unwrap_or_default();
                from = 0;
            }
        }
    }
    parts.push(rest);
    parts
}
