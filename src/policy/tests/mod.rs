//! What policies decide: tables from the user guide of IAM, a model, and hostile documents.

mod conditions;
mod decisions;
mod documents;
mod hostile;
mod model;
mod principals;
mod resources;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

const OWNER: &str = "111111111111";
const OTHER: &str = "222222222222";
const APP: &str = "arn:aws:ecr:eu-west-1:111111111111:repository/app";

fn account(number: &str) -> AccountId {
    number.parse().unwrap()
}

fn user(account_number: &str, name: &str) -> Principal {
    Identity::user(account(account_number), name).unwrap().into()
}

fn root(account_number: &str) -> Principal {
    Identity::root(account(account_number)).into()
}

fn session(account_number: &str, role: &str, session: &str) -> Principal {
    Identity::role_session(account(account_number), role, session).unwrap().into()
}

/// A policy of version 2012-10-17 with these statements.
fn document(statements: &Value) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

fn policy(kind: Kind, statements: &Value) -> Arc<Policy> {
    let parsed = Policy::parse(&document(statements), kind);
    Arc::new(parsed.unwrap_or_else(|error| panic!("{error}: {}", error::cut(&statements.to_string()))))
}

/// A request to pull `app` from the account [`OWNER`].
fn decide(identity: &[Arc<Policy>], resource: &[Arc<Policy>], principal: &Principal, context: &Context) -> Decision {
    let request =
        Request { principal, action: "ecr:BatchGetImage", resource: APP, resource_account: account(OWNER), context };
    Policies { identity, resource }.decide(&request)
}

/// Whether one statement of an identity's policy applies to alice's request, be it `Allow` or `Deny`.
fn applies(statement: &Value, context: &Context) -> bool {
    applies_to(statement, &user(OWNER, "alice"), context)
}

fn applies_to(statement: &Value, principal: &Principal, context: &Context) -> bool {
    let mut whole = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    whole.as_object_mut().unwrap().extend(statement.as_object().unwrap().clone());
    if whole.get("NotResource").is_some() {
        whole.as_object_mut().unwrap().remove("Resource");
    }
    if whole.get("NotAction").is_some() {
        whole.as_object_mut().unwrap().remove("Action");
    }
    let is_deny = whole["Effect"] == "Deny";
    match decide(&[policy(Kind::Identity, &whole)], &[], principal, context) {
        Decision::Allowed(Grounds::Statement(_)) if !is_deny => true,
        Decision::Denied(Refusal::Statement(_)) if is_deny => true,
        Decision::Denied(Refusal::NoStatement) => false,
        other => panic!("{other}: {statement}"),
    }
}

/// Whether a condition holds.
fn holds(condition: &Value, context: &Context) -> bool {
    applies(&json!({"Condition": condition}), context)
}
