//! The policy document: JSON in, statements out, or an error that names the place.
//!
//! What the language does not have is refused: an element that is skipped, a misspelt operator or the second of two
//! members with one name would leave a policy that says something else than its author reads.

use std::sync::Arc;

use super::condition::{self, Condition};
use super::error::{PolicyError, PolicyProblem, member};
use super::json::{Json, Names};
use super::pattern::{Pattern, Variables, Wildcards, split_arn};
use super::principal::PrincipalName;

/// What a policy is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An identity: a user, a group, a role. It has no `Principal`, and names resources.
    Identity,
    /// A resource, or a group of them. It names principals, and may leave out `Resource`, which is then the requested
    /// resource.
    Resource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// An element, or its `Not…` form.
#[derive(Debug)]
pub(super) enum Element<T> {
    OneOf(Vec<T>),
    NoneOf(Vec<T>),
}

#[derive(Debug)]
pub(super) struct Statement {
    pub(super) sid: Option<Arc<str>>,
    pub(super) effect: Effect,
    /// None in policies of identities.
    pub(super) principals: Option<Element<PrincipalName>>,
    pub(super) actions: Element<Pattern>,
    /// None: the requested resource.
    pub(super) resources: Option<Element<Pattern>>,
    pub(super) conditions: Vec<Condition>,
}

/// An access policy, parsed and ready to decide.
///
/// It is immutable and is shared as `Arc<Policy>`: parse a document when it changes, not for each request.
#[derive(Debug)]
pub struct Policy {
    kind: Kind,
    pub(super) statements: Vec<Statement>,
}

impl Policy {
    /// How long a policy may be, in characters, where nothing else is said.
    pub const MAX_CHARACTERS: usize = 10_240;

    /// Parses a document of at most [`MAX_CHARACTERS`](Self::MAX_CHARACTERS).
    ///
    /// ```
    /// use strongroom::policy::{Kind, Policy};
    ///
    /// let text = r#"{
    ///     "Version": "2012-10-17",
    ///     "Statement": {"Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage"}
    /// }"#;
    /// assert!(Policy::parse(text, Kind::Resource).is_ok());
    /// assert!(Policy::parse(text, Kind::Identity).is_err(), "it has a principal");
    /// ```
    ///
    /// # Errors
    /// [`PolicyError`] for a text that is too long, no JSON, or not a policy of this kind.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, PolicyError> {
        Self::parse_within(text, kind, Self::MAX_CHARACTERS)
    }

    /// Parses a document of at most so many characters.
    pub fn parse_within(text: &str, kind: Kind, max_characters: usize) -> Result<Self, PolicyError> {
        // No character has more than four bytes: a long text is not counted.
        let is_long = text.len() > max_characters.saturating_mul(4);
        let length = if is_long { text.len() / 4 } else { text.chars().count() };
        if is_long || length > max_characters {
            return Err(PolicyProblem::TooLong { length, limit: max_characters }.at(""));
        }
        let mut variables = Variables::Literal;
        let mut statements = None;
        for (name, value) in Json::parse(text)?.members(Names::CaseSensitive, "")? {
            let at = member("", &name);
            match name.as_str() {
                "Version" => variables = version(&value.text(&at)?, &at)?,
                "Id" => drop(value.text(&at)?),
                "Statement" => statements = Some(value),
                _ => return Err(unknown(&name, "Version, Id, Statement", "")),
            }
        }
        let statements = statements.ok_or_else(|| PolicyProblem::Missing { name: "Statement" }.at(""))?;
        let statements = statements.values("/Statement")?.into_iter();
        let statements = statements.map(|(at, json)| Statement::parse(json, kind, variables, &at));
        Ok(Self { kind, statements: statements.collect::<Result<_, _>>()? })
    }

    /// What it is attached to.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

fn unknown(name: &str, known: &'static str, at: &str) -> PolicyError {
    PolicyProblem::UnknownElement { name: super::error::cut(name), known }.at(at)
}

fn version(text: &str, at: &str) -> Result<Variables, PolicyError> {
    match text {
        "2012-10-17" => Ok(Variables::Active),
        "2008-10-17" => Ok(Variables::Literal),
        _ => Err(PolicyProblem::invalid(text, "\"2012-10-17\" or \"2008-10-17\"").at(at)),
    }
}

impl Statement {
    fn parse(json: Json, kind: Kind, variables: Variables, at: &str) -> Result<Self, PolicyError> {
        const KNOWN: &str = "Sid, Effect, Principal, NotPrincipal, Action, NotAction, Resource, NotResource, Condition";
        let (mut sid, mut effect, mut conditions) = (None, None, Vec::new());
        let (mut principal, mut not_principal) = (None, None);
        let (mut action, mut not_action) = (None, None);
        let (mut resource, mut not_resource) = (None, None);
        for (name, value) in json.members(Names::CaseSensitive, at)? {
            let at_member = member(at, &name);
            match name.as_str() {
                "Sid" => sid = Some(value.text(&at_member)?.into()),
                "Effect" => effect = Some(parse_effect(&value.text(&at_member)?, &at_member)?),
                "Principal" => principal = Some(principals(value, &at_member)?),
                "NotPrincipal" => not_principal = Some(principals(value, &at_member)?),
                "Action" => action = Some(actions(value, &at_member)?),
                "NotAction" => not_action = Some(actions(value, &at_member)?),
                "Resource" => resource = Some(resources(value, variables, &at_member)?),
                "NotResource" => not_resource = Some(resources(value, variables, &at_member)?),
                "Condition" => conditions = condition::parse(value, variables, &at_member)?,
                _ => return Err(unknown(&name, KNOWN, at)),
            }
        }
        let effect = effect.ok_or_else(|| PolicyProblem::Missing { name: "Effect" }.at(at))?;
        let principals = either(principal, not_principal, ["Principal", "NotPrincipal"], at)?;
        let resources = either(resource, not_resource, ["Resource", "NotResource"], at)?;
        let actions = either(action, not_action, ["Action", "NotAction"], at)?;
        let actions = actions.ok_or_else(|| PolicyProblem::Missing { name: "Action" }.at(at))?;
        let problem = match (kind, &principals, &resources) {
            (Kind::Identity, Some(_), _) => Some(PolicyProblem::NotAllowed {
                name: "Principal",
                remedy: "a policy of an identity is about that identity; remove the element",
            }),
            (Kind::Identity, None, None) => Some(PolicyProblem::Missing { name: "Resource" }),
            (Kind::Resource, None, _) => Some(PolicyProblem::Missing { name: "Principal" }),
            (_, Some(Element::NoneOf(_)), _) if effect == Effect::Allow => Some(PolicyProblem::NotAllowed {
                name: "NotPrincipal",
                remedy: "with Allow it would admit everyone else, also anonymous; use Principal and a condition",
            }),
            (_, Some(Element::NoneOf(names)), _) if names.contains(&PrincipalName::Anyone) => {
                Some(PolicyProblem::NotAllowed {
                    name: "NotPrincipal",
                    remedy: "with \"*\" it excepts everyone, and the statement never applies; remove the statement",
                })
            }
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(problem.at(at));
        }
        Ok(Self { sid, effect, principals, actions, resources, conditions })
    }
}

fn parse_effect(text: &str, at: &str) -> Result<Effect, PolicyError> {
    match text {
        "Allow" => Ok(Effect::Allow),
        "Deny" => Ok(Effect::Deny),
        _ => Err(PolicyProblem::invalid(text, "\"Allow\" or \"Deny\"").at(at)),
    }
}

/// An element or its negation, of which a statement has one.
fn either<T>(
    one_of: Option<Vec<T>>,
    none_of: Option<Vec<T>>,
    [one, other]: [&'static str; 2],
    at: &str,
) -> Result<Option<Element<T>>, PolicyError> {
    match (one_of, none_of) {
        (Some(_), Some(_)) => Err(PolicyProblem::Conflict { one, other }.at(at)),
        (Some(values), None) => Ok(Some(Element::OneOf(values))),
        (None, Some(values)) => Ok(Some(Element::NoneOf(values))),
        (None, None) => Ok(None),
    }
}

fn principals(json: Json, at: &str) -> Result<Vec<PrincipalName>, PolicyError> {
    const KINDS: &str = "AWS, Service, Federated";
    if let Json::Text(text) = &json {
        let is_anyone = text == "*";
        let invalid = || PolicyProblem::invalid(text, "\"*\", or an object as {\"AWS\": \"123456789012\"}").at(at);
        return if is_anyone { Ok(vec![PrincipalName::Anyone]) } else { Err(invalid()) };
    }
    let kinds = match json {
        Json::Object(_) => json.members(Names::CaseSensitive, at)?,
        other => return Err(other.expected("\"*\" or an object", at)),
    };
    if kinds.is_empty() {
        return Err(PolicyProblem::Empty.at(at));
    }
    let mut names = Vec::new();
    for (kind, values) in kinds {
        let of_provider = |text: String, at: &str| {
            let is_name = !text.is_empty() && !text.contains(['*', '?', '$']);
            if is_name { Ok(text) } else { Err(PolicyProblem::invalid(&text, "a name without wildcards").at(at)) }
        };
        for (at, value) in values.values(&member(at, &kind))? {
            let text = value.text(&at)?;
            names.push(match kind.as_str() {
                "AWS" => PrincipalName::parse_aws(&text, &at)?,
                "Service" => PrincipalName::Service(of_provider(text, &at)?),
                "Federated" => PrincipalName::Federated(of_provider(text, &at)?),
                _ => return Err(unknown(&kind, KINDS, &at)),
            });
        }
    }
    Ok(names)
}

fn actions(json: Json, at: &str) -> Result<Vec<Pattern>, PolicyError> {
    const EXPECTED: &str = "\"*\" or an action as service:Action, whose part behind the colon may have * and ?";
    let mut patterns = Vec::new();
    for (at, value) in json.values(at)? {
        let text = value.text(&at)?;
        let is_word = |text: &str, others: &[u8]| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
        };
        let parts = text.split_once(':');
        if text != "*" && !parts.is_some_and(|(service, name)| is_word(service, b"-") && is_word(name, b"-_*?")) {
            return Err(PolicyProblem::invalid(&text, EXPECTED).at(&at));
        }
        patterns.push(Pattern::parse(&text, Wildcards::Active, Variables::Literal, &at)?);
    }
    Ok(patterns)
}

fn resources(json: Json, variables: Variables, at: &str) -> Result<Vec<Pattern>, PolicyError> {
    const EXPECTED: &str = "\"*\" or an ARN with six parts, fewer if it ends in *";
    let mut patterns = Vec::new();
    for (at, value) in json.values(at)? {
        let text = value.text(&at)?;
        let is_whole = text.ends_with('*') || split_arn(&text, variables).len() == 6;
        if text != "*" && !(text.starts_with("arn:") && is_whole) {
            return Err(PolicyProblem::invalid(&text, EXPECTED).at(&at));
        }
        patterns.push(Pattern::parse(&text, Wildcards::Active, variables, &at)?);
    }
    Ok(patterns)
}
