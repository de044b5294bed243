//! A naive model of access control: policies as data, and who may do what by them, in a few lines.
//!
//! It shares nothing with the evaluator but what IAM's guide says.

use serde_json::{Value, json};

use crate::client::{OWN, key_of};

/// Somebody who asks.
#[derive(Clone, Debug)]
pub struct Who {
    pub kind: Kind,
    pub account: &'static str,
    pub name: String,
    /// The value of its tag `team`.
    pub team: Option<&'static str>,
    pub policies: Vec<Statement>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Anonymous,
    Root,
    User,
    /// Of a role of the same name.
    Session,
}

impl Who {
    pub fn key(&self) -> Option<String> {
        (self.kind != Kind::Anonymous).then(|| key_of(&self.name))
    }

    /// The ARN that it has, first, and others by which policies may name it.
    pub fn arns(&self) -> Vec<String> {
        let (account, name) = (self.account, &self.name);
        match self.kind {
            Kind::Anonymous => vec![],
            Kind::Root => vec![format!("arn:aws:iam::{account}:root")],
            Kind::User => vec![format!("arn:aws:iam::{account}:user/{name}")],
            Kind::Session => vec![
                format!("arn:aws:sts::{account}:assumed-role/{name}/{name}"),
                format!("arn:aws:iam::{account}:role/{name}"),
            ],
        }
    }
}

/// One statement; a policy is a list of them.
#[derive(Clone, Debug)]
pub struct Statement {
    pub allows: bool,
    /// None in a policy of an identity.
    pub principals: Option<Vec<Principal>>,
    pub actions: Vec<&'static str>,
    pub resources: Option<Vec<String>>,
    pub condition: Option<Condition>,
}

#[derive(Clone, Debug)]
pub enum Principal {
    Everybody,
    Account(&'static str),
    Arn(String),
}

#[derive(Clone, Copy, Debug)]
pub enum Condition {
    /// The repository's tag `team` has this value.
    Team(&'static str),
    /// The repository's tag `team` has the value that the caller's has.
    OwnTeam,
    /// The client calls itself so.
    Agent(&'static str),
    NotAgent(&'static str),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    pub action: String,
    pub resource: String,
    pub account: &'a str,
    /// The repository's tag `team`.
    pub team: Option<&'a str>,
    pub agent: Option<&'a str>,
}

/// Whether somebody may do what they ask for, where the resource has these policies.
pub fn is_allowed(who: &Who, resource: &[&[Statement]], asked: &Asked<'_>) -> bool {
    let own = who.policies.iter().filter(|statement| statement.is_about(who, asked));
    let others = resource.iter().copied().flatten().filter(|statement| statement.is_about(who, asked));
    let (own, others): (Vec<_>, Vec<_>) = (own.collect(), others.collect());
    if own.iter().chain(&others).any(|statement| !statement.allows) {
        return false;
    }
    let is_root = who.kind == Kind::Root;
    if who.kind == Kind::Anonymous {
        !others.is_empty()
    } else if who.account == asked.account {
        is_root || !own.is_empty() || !others.is_empty()
    } else {
        (is_root || !own.is_empty()) && !others.is_empty()
    }
}

impl Statement {
    fn is_about(&self, who: &Who, asked: &Asked<'_>) -> bool {
        let is_named = |principal: &Principal| match principal {
            Principal::Everybody => true,
            Principal::Account(account) => who.account == *account,
            // The root user's ARN stands for the account.
            Principal::Arn(arn) if arn.ends_with(":root") => arn.split(':').nth(4) == Some(who.account),
            Principal::Arn(arn) => who.arns().contains(arn),
        };
        let is_met = match self.condition {
            None => true,
            Some(Condition::Team(team)) => asked.team == Some(team),
            Some(Condition::OwnTeam) => who.team.is_some() && asked.team == who.team,
            Some(Condition::Agent(agent)) => asked.agent == Some(agent),
            Some(Condition::NotAgent(agent)) => asked.agent != Some(agent),
        };
        let action = asked.action.to_lowercase();
        self.principals.as_ref().is_none_or(|principals| principals.iter().any(is_named))
            && self.actions.iter().any(|pattern| matches(&pattern.to_lowercase(), &action))
            && self.resources.as_ref().is_none_or(|all| all.iter().any(|pattern| matches(pattern, &asked.resource)))
            && is_met
    }

    fn json(&self) -> Value {
        let mut json = json!({ "Effect": if self.allows { "Allow" } else { "Deny" }, "Action": self.actions });
        if let Some(principals) = &self.principals {
            let shown = |principal: &Principal| match principal {
                Principal::Everybody => "*".to_owned(),
                Principal::Account(account) => (*account).to_owned(),
                Principal::Arn(arn) => arn.clone(),
            };
            json["Principal"] = json!({ "AWS": principals.iter().map(shown).collect::<Vec<_>>() });
        }
        if let Some(resources) = &self.resources {
            json["Resource"] = json!(resources);
        }
        if let Some(condition) = self.condition {
            json["Condition"] = match condition {
                Condition::Team(team) => json!({ "StringEquals": { "aws:ResourceTag/team": team } }),
                Condition::OwnTeam => {
                    json!({ "StringEquals": { "ecr:ResourceTag/Team": "${aws:PrincipalTag/team}" } })
                }
                Condition::Agent(agent) => json!({ "StringEquals": { "aws:useragent": agent } }),
                Condition::NotAgent(agent) => json!({ "StringNotEquals": { "aws:UserAgent": agent } }),
            };
        }
        json
    }
}

pub fn document(statements: &[Statement]) -> Value {
    let statements: Vec<_> = statements.iter().map(Statement::json).collect();
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// Whether a pattern with `*` and `?` matches a text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => (0..=text.len()).any(|at| matches(&pattern[1..], &text[at..])),
        Some('?') => !text.is_empty() && matches(&pattern[1..], &text[1..]),
        Some(first) => text.starts_with(first) && matches(&pattern[1..], &text[1..]),
    }
}

#[test]
fn the_model_itself_keeps_the_four_rules() {
    let who = |kind, account, policies| Who { kind, account, name: "a".into(), team: None, policies };
    let statement = |allows, principals| Statement {
        allows,
        principals,
        actions: vec!["ecr:Put*"],
        resources: None,
        condition: None,
    };
    let asked = Asked { action: "ecr:putimage".into(), resource: "r".into(), account: OWN, team: None, agent: None };
    let (own, other) = (statement(true, None), statement(true, Some(vec![Principal::Everybody])));
    let deny = statement(false, Some(vec![Principal::Everybody]));
    for (kind, account, policies, resource, expected) in [
        (Kind::User, OWN, vec![own.clone()], vec![], true),
        (Kind::User, OWN, vec![], vec![other.clone()], true),
        (Kind::User, OWN, vec![], vec![], false),
        (Kind::User, "2", vec![own.clone()], vec![], false),
        (Kind::User, "2", vec![own.clone()], vec![other.clone()], true),
        (Kind::User, "2", vec![], vec![other.clone()], false),
        (Kind::Root, OWN, vec![], vec![], true),
        (Kind::Root, OWN, vec![], vec![deny.clone()], false),
        (Kind::Root, "2", vec![], vec![other.clone()], true),
        (Kind::Anonymous, "", vec![], vec![other.clone()], true),
        (Kind::Anonymous, "", vec![], vec![other, deny], false),
    ] {
        assert_eq!(is_allowed(&who(kind, account, policies), &[&resource], &asked), expected, "{kind:?} {account}");
    }
}
