//! Tests, by what they prove: AWS's own examples, what is refused, what is special to images, guards, an independent
//! model, and hostile input.

use super::{ActionKind, Image, Plan, Policy, evaluate};

mod examples;
mod guard;
mod hostile;
mod images;
mod model;
mod validation;

const DAY: u64 = 86_400_000;
const NOW: u64 = 10_000 * DAY;

/// An image that was pushed so many days ago.
fn pushed(key: &str, days: u64) -> Image<'_, &str> {
    Image::new(key, NOW - days * DAY)
}

/// What a plan does, in its order: `a` is expired, `(a)` is archived, each with the priority of the rule.
fn done(plan: &Plan<&str>) -> Vec<(String, Option<u32>)> {
    let actions = plan.actions.iter().map(|action| match action.kind {
        ActionKind::Expire => (action.key.to_owned(), action.rule_priority),
        ActionKind::Archive => (format!("({})", action.key), action.rule_priority),
    });
    actions.collect()
}

fn plan<'a>(policy: &str, images: &[(Image<'a, &'a str>, &[&'a str])]) -> Plan<&'a str> {
    let policy = Policy::parse_extended(policy).unwrap_or_else(|error| panic!("{error:#}: {policy}"));
    evaluate(&policy, NOW, images.iter().copied())
}

/// A policy of rules given by their selection and action, with the priorities 1, 2, …
fn policy(rules: &[(&str, &str)]) -> String {
    let rules = rules.iter().enumerate().map(|(at, (selection, action))| {
        format!(r#"{{"rulePriority": {}, "selection": {{{selection}}}, "action": {{{action}}}}}"#, at + 1)
    });
    format!(r#"{{"rules": [{}]}}"#, rules.collect::<Vec<_>>().join(", "))
}

const EXPIRE: &str = r#""type": "expire""#;
const ARCHIVE: &str = r#""type": "transition", "targetStorageClass": "archive""#;
