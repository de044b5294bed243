//! Access policies: who may do what, in the language of Amazon's IAM and of ECR's repository policies.
//!
//! A [`Policy`] is a JSON document, parsed once. [`Policies`] are those that apply to a [`Request`]; they decide it,
//! and the [`Decision`] says which statement decided. [`Authorizer`] is the interface behind which a program can put
//! other rules. The module knows no action, resource or service by name.
//!
//! ```
//! use std::sync::Arc;
//! use strongroom::policy::{
//!     Authorizer, Context, Decision, Grounds, Identity, Kind, Policies, Policy, Principal, Refusal, Request,
//! };
//!
//! // Another account may pull, but only from one network.
//! let policy = Policy::parse(
//!     r#"{
//!         "Version": "2012-10-17",
//!         "Statement": [
//!             {
//!                 "Sid": "partners pull",
//!                 "Effect": "Allow",
//!                 "Principal": {"AWS": "arn:aws:iam::222222222222:root"},
//!                 "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
//!             },
//!             {
//!                 "Sid": "from the office",
//!                 "Effect": "Deny",
//!                 "Principal": "*",
//!                 "Action": "ecr:*",
//!                 "Condition": {"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}
//!             }
//!         ]
//!     }"#,
//!     Kind::Resource,
//! )?;
//! let readers = Policy::parse(
//!     r#"{"Statement": {"Effect": "Allow", "Action": "ecr:Batch*", "Resource": "*"}}"#,
//!     Kind::Identity,
//! )?;
//!
//! let bob = Principal::Identified(Identity::user("222222222222".parse()?, "bob")?);
//! let context = Context::new().with_source_ip("203.0.113.7".parse()?);
//! let request = Request {
//!     principal: &bob,
//!     action: "ecr:BatchGetImage",
//!     resource: "arn:aws:ecr:eu-west-1:111111111111:repository/app",
//!     resource_account: "111111111111".parse()?,
//!     context: &context,
//! };
//! let resource = [Arc::new(policy)];
//!
//! // Across accounts, both sides have to allow.
//! let decision = Policies { identity: &[], resource: &resource }.decide(&request);
//! assert!(matches!(decision, Decision::Denied(Refusal::NoIdentityStatement { .. })));
//! let policies = Policies { identity: &[Arc::new(readers)], resource: &resource };
//! let Decision::Allowed(Grounds::Both { resource: statement, .. }) = policies.decide(&request) else { panic!() };
//! assert_eq!(statement.sid.as_deref(), Some("partners pull"));
//!
//! // A denial wins, from wherever it comes.
//! let elsewhere = Context::new().with_source_ip("198.51.100.1".parse()?);
//! let decision = policies.decide(&Request { context: &elsewhere, ..request });
//! assert_eq!(decision.to_string(), r#"denied: statement 1 of resource policy 0 ("from the office")"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The language
//! As the user guide of IAM describes it. Element names are case-sensitive; actions, condition keys and operators are
//! not; ARNs and values are, but for the operators that end in `IgnoreCase`.
//!
//! | element | values |
//! |---|---|
//! | `Version` | `2012-10-17`; or `2008-10-17`, which a policy without it has: there `${…}` is text |
//! | `Id`, `Sid` | any text, `Sid`s also repeatedly |
//! | `Statement` | one, or a list |
//! | `Effect` | `Allow`, `Deny` |
//! | `Principal` | `"*"`, everyone, also anonymous; `{"AWS": …}`: `*`, an account by its number or `…:root`, meaning all its principals, a user, a role (all its sessions) or one session; `{"Service": …}`, `{"Federated": …}` |
//! | `NotPrincipal` | the same but `*`, and only with `Deny`. It excepts a caller if its account *and* its user, or its account, role *and* session are listed |
//! | `Action`, `NotAction` | `service:Name` with `*` and `?`, or `*` |
//! | `Resource`, `NotResource` | ARNs with `*`, `?` and variables; `*` reaches across `:` and `/`. Policies of resources may leave it out |
//! | `Condition` | operators, keys, and one value or several |
//!
//! Operators: `StringEquals`, `StringEqualsIgnoreCase`, `StringLike` (`*` and `?`), `ArnEquals` = `ArnLike` (each of
//! the six parts by itself), `NumericEquals`, `DateEquals`, their negations (`StringNotEquals`, …, `DateNotEquals`),
//! `…LessThan`, `…LessThanEquals`, `…GreaterThan`, `…GreaterThanEquals` of numbers and dates, `Bool`, `BinaryEquals`,
//! `IpAddress`, `NotIpAddress`, `Null`; all but `Null` also with `IfExists` behind them and with `ForAllValues:` or
//! `ForAnyValue:` before them. A key that the request lacks makes a condition false, and a negated one true.
//!
//! Variables: `${aws:username}`, `${aws:PrincipalTag/team, 'none'}` with a default, and any other key with one value,
//! in resources and in the values of string, ARN and `Bool` operators. Wildcards in a variable's value are text. **If a
//! variable has no value, its pattern matches nothing**, in a `Deny` too, as at AWS: give such variables a default. In
//! a negation (`NotResource`, `StringNotLike`), a pattern that can't be compared leads to denial: the `Allow` does not
//! apply, the `Deny` does.
//!
//! # What is refused
//! A policy that says something else than its author reads is a hole, so [`Policy::parse`] refuses what AWS might
//! ignore: unknown elements, operators and kinds of principals, members that occur twice, empty lists, wildcards in the
//! ARNs of principals, and ARNs that can't match. [`PolicyError`] names the place.
//!
//! # Bounds
//! A document has at most 10,240 characters, unless [`Policy::parse_within`] says otherwise. To match a pattern takes
//! no more steps than its length times the text's, and to decide by a policy takes at most four million, some 10 ms. A
//! policy that needs more, as only a hostile one does, denies ([`Refusal::TooMuchWork`]).
//!
//! # Changing a policy without locking oneself out
//! Before a caller's new policy for a resource is stored, ask [`Policies`] with the new one in place of the old one
//! whether the caller may set policies. If not, the caller would not be able to take it back.

mod condition;
mod context;
mod decision;
mod document;
mod error;
mod evaluate;
mod json;
mod operator;
mod pattern;
mod principal;
#[cfg(test)]
mod tests;
mod values;

pub use context::{Context, Transport};
pub use decision::{Authorizer, Decision, Grounds, Refusal, Request, Side, StatementRef};
pub use document::{Kind, Policy};
pub use error::{PolicyError, PolicyProblem};
pub use evaluate::Policies;
pub use principal::{AccountId, Identity, IdentityKind, InvalidPrincipal, Principal};
