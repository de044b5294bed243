//! The `Condition` element: operators, their values, and whether they hold for a request.
//!
//! All conditions of a statement have to hold. A condition compares a key's values in the request with its own: one of
//! its own values has to match, or none if the operator is negated. `ForAllValues:` and `ForAnyValue:` say whether all
//! of the request's values have to satisfy that, or one. Without them, one has to match; of a negated operator, none
//! may.

use std::net::IpAddr;
use std::str::FromStr;

use super::context::{Key, Lookup};
use super::document::Effect;
use super::error::{PolicyError, PolicyProblem, cut, member};
use super::json::{Json, Names};
use super::operator::{Comparison, Family, Operator, Quantifier, Sense, WhenMissing};
use super::pattern::{ArnPattern, Case, Exhausted, Match, Pattern, Variables, Wildcards, Work};
use super::values::{AddressRange, Date, Number, is_base64};

/// The values that a condition compares with.
#[derive(Debug)]
enum Test {
    Text(Vec<Pattern>, Case),
    Arn(Vec<ArnPattern>),
    Number(Comparison, Vec<Number>),
    Date(Comparison, Vec<Date>),
    Address(Vec<AddressRange>),
    Null(Vec<bool>),
}

/// One operator with one key.
#[derive(Debug)]
pub(super) struct Condition {
    key: Key,
    sense: Sense,
    quantifier: Quantifier,
    when_missing: WhenMissing,
    test: Test,
}

/// Parses a `Condition` element. An empty one has no conditions.
pub(super) fn parse(json: Json, variables: Variables, at: &str) -> Result<Vec<Condition>, PolicyError> {
    let mut conditions = Vec::new();
    for (name, keys) in json.members(Names::IgnoreCase, at)? {
        let at = member(at, &name);
        let operator = Operator::parse(&name);
        let operator = operator.ok_or_else(|| PolicyProblem::UnknownOperator { name: cut(&name) }.at(&at))?;
        let keys = keys.members(Names::IgnoreCase, &at)?;
        if keys.is_empty() {
            return Err(PolicyProblem::Empty.at(&at));
        }
        for (key, values) in keys {
            let at = member(&at, &key);
            let parsed = Key::parse(&key);
            let key = parsed.ok_or_else(|| PolicyProblem::invalid(&key, "a key as aws:SourceIp").at(&at))?;
            let Operator { sense, quantifier, when_missing, family } = operator;
            let test = Test::parse(family, values, variables, &at)?;
            conditions.push(Condition { key, sense, quantifier, when_missing, test });
        }
    }
    Ok(conditions)
}

impl Test {
    fn parse(family: Family, json: Json, variables: Variables, at: &str) -> Result<Self, PolicyError> {
        let values = json.values(at)?;
        Ok(match family {
            Family::Text(wildcards, case) => {
                Self::Text(parse_each(values, |text, at| Pattern::parse(text, wildcards, variables, at))?, case)
            }
            Family::Arn => Self::Arn(parse_each(values, |text, at| ArnPattern::parse(text, variables, at))?),
            Family::Bool => Self::Text(
                parse_each(values, |text, at| {
                    let is_variable = matches!(variables, Variables::Active) && text.starts_with("${");
                    if !is_variable && boolean(text).is_none() {
                        return Err(PolicyProblem::invalid(text, "true, false or a variable").at(at));
                    }
                    Pattern::parse(text, Wildcards::Literal, variables, at)
                })?,
                Case::Ignored,
            ),
            Family::Binary => Self::Text(
                parse_each(values, |text, at| {
                    if !is_base64(text) {
                        return Err(PolicyProblem::invalid(text, "base64 with its padding").at(at));
                    }
                    Pattern::parse(text, Wildcards::Literal, Variables::Literal, at)
                })?,
                Case::Sensitive,
            ),
            Family::Number(comparison) => {
                let values = values.into_iter().map(|(at, value)| (at, decimal(value))).collect();
                Self::Number(comparison, parse_as(values, "a decimal number of at most 20 digits")?)
            }
            Family::Date(comparison) => {
                Self::Date(comparison, parse_as(values, "a date as 2026-11-30T16:53:20Z, or seconds since 1970")?)
            }
            Family::Address => Self::Address(parse_as(values, "an IP address or a range as 203.0.113.0/24")?),
            Family::Null => Self::Null(parse_each(values, |text, at| {
                boolean(text).ok_or_else(|| PolicyProblem::invalid(text, "true (no such key) or false").at(at))
            })?),
        })
    }

    /// Whether one of the values matches one of the request's.
    fn matches(&self, value: &str, lookup: &Lookup<'_>, work: &mut Work) -> Result<Match, Exhausted> {
        match self {
            Self::Text(patterns, case) => any(patterns, |pattern| pattern.matches(value, *case, lookup, work)),
            Self::Arn(patterns) => any(patterns, |pattern| pattern.matches(value, lookup, work)),
            Self::Number(comparison, numbers) => compare(value, numbers, *comparison, work),
            Self::Date(comparison, dates) => compare(value, dates, *comparison, work),
            Self::Address(ranges) => {
                work.spend(value.len() + ranges.len())?;
                let address = value.parse::<IpAddr>();
                Ok(address.is_ok_and(|address| ranges.iter().any(|range| range.contains(address))).into())
            }
            Self::Null(_) => Ok(Match::No), // it does not look at values
        }
    }
}

/// Parses the values of an operator. Numbers and booleans may be written as JSON has them.
fn parse_each<T>(
    values: Vec<(String, Json)>,
    mut parse: impl FnMut(&str, &str) -> Result<T, PolicyError>,
) -> Result<Vec<T>, PolicyError> {
    let mut parsed = Vec::with_capacity(values.len());
    for (at, value) in values {
        parsed.push(match value {
            Json::Text(text) => parse(&text, &at)?,
            Json::Whole(number) => parse(&number.to_string(), &at)?,
            Json::Negative(number) => parse(&number.to_string(), &at)?,
            Json::Bool(value) => parse(if value { "true" } else { "false" }, &at)?,
            other => return Err(other.expected("a string", &at)),
        });
    }
    Ok(parsed)
}

fn parse_as<T: FromStr>(values: Vec<(String, Json)>, expected: &'static str) -> Result<Vec<T>, PolicyError> {
    parse_each(values, |text, at| text.parse().map_err(|_| PolicyProblem::invalid(text, expected).at(at)))
}

/// A JSON number with a fraction as text, if it is small enough to be exact to the digit.
fn decimal(value: Json) -> Json {
    match value {
        Json::Float(number) if number.abs() < 1e15 => Json::Text(number.to_string()),
        other => other,
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Yes if one of the patterns says so.
pub(super) fn any<T>(
    patterns: &[T],
    mut matches: impl FnMut(&T) -> Result<Match, Exhausted>,
) -> Result<Match, Exhausted> {
    let mut answer = Match::No;
    for pattern in patterns {
        match matches(pattern)? {
            Match::Yes => return Ok(Match::Yes),
            Match::Unresolved => answer = Match::Unresolved,
            Match::No => {}
        }
    }
    Ok(answer)
}

fn compare<T: FromStr + Ord>(
    value: &str,
    others: &[T],
    comparison: Comparison,
    work: &mut Work,
) -> Result<Match, Exhausted> {
    work.spend(value.len() + others.len())?;
    let value = value.parse::<T>();
    Ok(value.is_ok_and(|value| others.iter().any(|other| comparison.holds(value.cmp(other)))).into())
}

/// What the negation of an answer comes to. Without a variable's value nothing can be excluded: an `Allow` does not
/// apply then, and a `Deny` does.
pub(super) fn negated(answer: Match, effect: Effect) -> bool {
    match answer {
        Match::Yes => false,
        Match::No => true,
        Match::Unresolved => effect == Effect::Deny,
    }
}

impl Condition {
    /// Whether it holds for a request.
    pub(super) fn holds(&self, effect: Effect, lookup: &Lookup<'_>, work: &mut Work) -> Result<bool, Exhausted> {
        let found = lookup.find(&self.key);
        if let Test::Null(expected) = &self.test {
            return Ok(expected.contains(&found.is_null()));
        }
        if found.is_missing() && matches!(self.when_missing, WhenMissing::Holds) {
            return Ok(true);
        }
        let is_for_all = match self.quantifier {
            Quantifier::ForAllValues if found.is_null() => return Ok(true),
            Quantifier::ForAnyValue if found.is_null() => return Ok(false),
            Quantifier::ForAllValues => true,
            Quantifier::ForAnyValue => false,
            Quantifier::None => self.sense == Sense::IsNot, // also without values: true if negated
        };
        for value in found.iter() {
            let answer = self.test.matches(value, lookup, work)?;
            let is_satisfied = match self.sense {
                Sense::Is => answer == Match::Yes,
                Sense::IsNot => negated(answer, effect),
            };
            if is_satisfied != is_for_all {
                return Ok(is_satisfied);
            }
        }
        Ok(is_for_all)
    }
}
