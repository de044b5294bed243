//! From policies and a request to a decision.

use std::sync::Arc;

use super::condition::{any, negated};
use super::context::Lookup;
use super::decision::{Authorizer, Decision, Grounds, Refusal, Request, Side, StatementRef};
use super::document::{Effect, Element, Kind, Policy, Statement};
use super::pattern::{Case, Exhausted, Match, Pattern, Work};
use super::principal::{IdentityKind, Principal, excepts};

/// The policies that apply to a request, and what they come to.
///
/// 1. A `Deny` of any policy that applies: denied. This holds for the root user too.
/// 2. The resource is of the caller's account: allowed if any policy allows it, or the caller is the account's root. A
///    policy of the resource that names the account allows all its users.
/// 3. It is of another account: allowed if a policy of the identity and a policy of the resource each allow it. Another
///    account's root user needs no policy of its own.
/// 4. Who asks is anonymous, a service or federated: allowed if a policy of the resource allows it. Policies of
///    identities are not looked at.
/// 5. Otherwise: denied.
///
/// Without policies, everything is denied to all but the root user of the resource's account.
#[derive(Clone, Copy, Debug)]
pub struct Policies<'a> {
    /// The policies of the identity that asks: its own, those of its groups. Each of [`Kind::Identity`].
    pub identity: &'a [Arc<Policy>],
    /// The policies of the resource, and of what it stands in. Each of [`Kind::Resource`].
    pub resource: &'a [Arc<Policy>],
}

impl Authorizer for Policies<'_> {
    fn decide(&self, request: &Request<'_>) -> Decision {
        match decide(self, request) {
            Ok(grounds) => Decision::Allowed(grounds),
            Err(refusal) => Decision::Denied(refusal),
        }
    }
}

fn decide(policies: &Policies<'_>, request: &Request<'_>) -> Result<Grounds, Refusal> {
    let (is_root, is_own) = match request.principal {
        Principal::Identified(identity) => {
            (*identity.kind() == IdentityKind::Root, identity.account() == request.resource_account)
        }
        _ => {
            let resource = allowing(Side::Resource, policies.resource, request)?;
            return resource.map(Grounds::Statement).ok_or(Refusal::NoStatement);
        }
    };
    let identity = allowing(Side::Identity, policies.identity, request)?;
    let resource = allowing(Side::Resource, policies.resource, request)?;
    match (identity, resource) {
        _ if is_own && is_root => Ok(Grounds::Root),
        (Some(statement), _) | (None, Some(statement)) if is_own => Ok(Grounds::Statement(statement)),
        (Some(identity), Some(resource)) => Ok(Grounds::Both { identity, resource }),
        (None, Some(resource)) if is_root => Ok(Grounds::Statement(resource)),
        (None, Some(resource)) => Err(Refusal::NoIdentityStatement { resource }),
        (Some(identity), None) => Err(Refusal::NoResourceStatement { identity }),
        (None, None) => Err(Refusal::NoStatement),
    }
}

/// The first statement that allows a request, unless one denies it.
fn allowing(side: Side, policies: &[Arc<Policy>], request: &Request<'_>) -> Result<Option<StatementRef>, Refusal> {
    let mut allowed = None;
    for (index, policy) in policies.iter().enumerate() {
        if policy.kind() != (if side == Side::Identity { Kind::Identity } else { Kind::Resource }) {
            return Err(Refusal::Misplaced { side, policy: index });
        }
        let applying = policy.first_applying(request, allowed.is_none());
        let Some((statement, found)) = applying.map_err(|Exhausted| Refusal::TooMuchWork { side, policy: index })?
        else {
            continue;
        };
        let found_at = StatementRef { side, policy: index, statement, sid: found.sid.clone() };
        match found.effect {
            Effect::Deny => return Err(Refusal::Statement(found_at)),
            Effect::Allow => allowed = Some(found_at),
        }
    }
    Ok(allowed)
}

impl Policy {
    /// The first `Deny` that applies to a request; else, if it is asked for, the first `Allow`.
    fn first_applying(
        &self,
        request: &Request<'_>,
        is_allow_asked: bool,
    ) -> Result<Option<(usize, &Statement)>, Exhausted> {
        let mut work = Work::new();
        let mut allow = None;
        for (index, statement) in self.statements.iter().enumerate() {
            let is_asked = statement.effect == Effect::Deny || (is_allow_asked && allow.is_none());
            if is_asked && statement.applies(request, &mut work)? {
                match statement.effect {
                    Effect::Deny => return Ok(Some((index, statement))),
                    Effect::Allow => allow = Some((index, statement)),
                }
            }
        }
        Ok(allow)
    }
}

impl Statement {
    fn applies(&self, request: &Request<'_>, work: &mut Work) -> Result<bool, Exhausted> {
        let lookup = Lookup(request);
        let is_principal = match &self.principals {
            None => true, // that of the identity whose policy it is
            Some(Element::OneOf(names)) => {
                work.spend(names.len())?;
                names.iter().any(|name| name.includes(request.principal))
            }
            Some(Element::NoneOf(names)) => {
                work.spend(names.len())?;
                !excepts(names, request.principal)
            }
        };
        if !is_principal || !self.has(&self.actions, request.action, Case::Ignored, &lookup, work)? {
            return Ok(false);
        }
        if let Some(resources) = &self.resources
            && !self.has(resources, request.resource, Case::Sensitive, &lookup, work)?
        {
            return Ok(false);
        }
        for condition in &self.conditions {
            if !condition.holds(self.effect, &lookup, work)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether an element is about a text.
    fn has(
        &self,
        element: &Element<Pattern>,
        text: &str,
        case: Case,
        lookup: &Lookup<'_>,
        work: &mut Work,
    ) -> Result<bool, Exhausted> {
        let (Element::OneOf(patterns) | Element::NoneOf(patterns)) = element;
        let answer = any(patterns, |pattern| pattern.matches(text, case, lookup, work))?;
        Ok(match element {
            Element::OneOf(_) => answer == Match::Yes,
            Element::NoneOf(_) => negated(answer, self.effect),
        })
    }
}
