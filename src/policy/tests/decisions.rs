//! The rules by which the policies of an identity and of a resource come together.

use super::*;

const NONE: &str = "none";
const ALLOW: &str = "allow";
const DENY: &str = "deny";

/// Policies of a side that say so about the request.
fn side(kind: Kind, says: &str) -> Vec<Arc<Policy>> {
    let mut statement = json!({"Effect": "Allow", "Action": "ecr:BatchGetImage", "Resource": "*"});
    if kind == Kind::Resource {
        statement["Principal"] = json!("*");
    }
    match says {
        NONE => vec![],
        DENY => {
            let allow = statement.clone();
            statement["Effect"] = json!("Deny");
            vec![policy(kind, &json!([allow, statement]))] // the denial stands behind, and wins
        }
        _ => vec![policy(kind, &statement)],
    }
}

#[test]
fn policies_of_identities_and_resources_combine_as_documented() {
    // identity, resource; whether alice of the same account, alice of another one, and nobody in particular may
    let table = [
        (NONE, NONE, [false, false, false]),
        (NONE, ALLOW, [true, false, true]),
        (NONE, DENY, [false, false, false]),
        (ALLOW, NONE, [true, false, false]),
        (ALLOW, ALLOW, [true, true, true]),
        (ALLOW, DENY, [false, false, false]),
        (DENY, NONE, [false, false, false]),
        (DENY, ALLOW, [false, false, true]), // those without an identity have no policies of one
        (DENY, DENY, [false, false, false]),
    ];
    for (identity, resource, expected) in table {
        let (of_identity, of_resource) = (side(Kind::Identity, identity), side(Kind::Resource, resource));
        let principals = [user(OWNER, "alice"), user(OTHER, "alice"), Principal::Anonymous];
        let decided =
            principals.map(|principal| decide(&of_identity, &of_resource, &principal, &Context::new()).is_allowed());
        assert_eq!(decided, expected, "identity: {identity}, resource: {resource}");
        let service = Principal::Service("replication.example.com".into());
        let is_allowed = decide(&of_identity, &of_resource, &service, &Context::new()).is_allowed();
        assert_eq!(is_allowed, expected[2], "a service is judged by the resource's policies alone");
    }
}

#[test]
fn the_root_user_may_do_in_its_account_what_nothing_denies() {
    let allow = side(Kind::Resource, ALLOW);
    let deny = side(Kind::Resource, DENY);
    let table = [
        (OWNER, vec![], Decision::Allowed(Grounds::Root)),
        (OWNER, deny.clone(), decide(&[], &deny, &user(OWNER, "alice"), &Context::new())),
        (OTHER, vec![], Decision::Denied(Refusal::NoStatement)),
        (OTHER, deny.clone(), decide(&[], &deny, &user(OWNER, "alice"), &Context::new())),
        (OTHER, allow.clone(), decide(&[], &allow, &user(OWNER, "alice"), &Context::new())),
    ];
    for (of, resource, expected) in table {
        assert_eq!(decide(&[], &resource, &root(of), &Context::new()), expected);
    }
}

#[test]
fn a_decision_names_the_statement() {
    let identity = policy(
        Kind::Identity,
        &json!([
            {"Effect": "Allow", "Action": "ecr:PutImage", "Resource": "*"},
            {"Sid": "pull all", "Effect": "Allow", "Action": "ecr:Batch*", "Resource": "*"},
        ]),
    );
    let resource = policy(
        Kind::Resource,
        &json!({"Sid": "pull all", "Effect": "Allow", "Action": "*", "Principal": {"AWS": OTHER}}),
    );
    let of_identity = StatementRef { side: Side::Identity, policy: 1, statement: 1, sid: Some("pull all".into()) };
    let of_resource = StatementRef { side: Side::Resource, policy: 0, statement: 0, sid: Some("pull all".into()) };
    let empty = policy(Kind::Identity, &json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"}));
    let identities = [empty, identity];
    let (bob, context) = (user(OTHER, "bob"), Context::new());
    let ask = |identity: &[Arc<Policy>], resource: &[Arc<Policy>]| decide(identity, resource, &bob, &context);
    assert_eq!(
        ask(&identities, std::slice::from_ref(&resource)),
        Decision::Allowed(Grounds::Both { identity: of_identity.clone(), resource: of_resource.clone() })
    );
    assert_eq!(ask(&identities, &[]), Decision::Denied(Refusal::NoResourceStatement { identity: of_identity.clone() }));
    assert_eq!(ask(&[], &[resource]), Decision::Denied(Refusal::NoIdentityStatement { resource: of_resource }));
    assert_eq!(
        decide(&identities, &[], &user(OWNER, "bob"), &context),
        Decision::Allowed(Grounds::Statement(of_identity))
    );
    assert_eq!(
        ask(&identities, &[]).to_string(),
        "denied: statement 1 of identity policy 1 (\"pull all\") allows it, but no policy of the resource, which \
         another account owns, does"
    );
}

#[test]
fn a_policy_of_the_wrong_kind_allows_nothing() {
    let of_identity = side(Kind::Identity, ALLOW);
    let of_resource = side(Kind::Resource, ALLOW);
    let misplaced = |side| Decision::Denied(Refusal::Misplaced { side, policy: 0 });
    for principal in [user(OWNER, "alice"), user(OTHER, "alice"), root(OWNER), Principal::Anonymous] {
        let decided = decide(&[], &of_identity, &principal, &Context::new());
        assert_eq!(decided, misplaced(Side::Resource), "it has no principal, and would admit everyone");
    }
    assert_eq!(decide(&of_resource, &[], &user(OWNER, "alice"), &Context::new()), misplaced(Side::Identity));
}

#[test]
fn no_policies_allow_nothing() {
    let anyone = [Principal::Anonymous, user(OWNER, "alice"), session(OWNER, "deploy", "1"), root(OTHER)];
    for principal in anyone {
        assert_eq!(decide(&[], &[], &principal, &Context::new()), Decision::Denied(Refusal::NoStatement));
    }
}

#[test]
fn a_policy_that_locks_its_author_out_is_seen() {
    let keeps = json!({"Effect": "Allow", "Principal": {"AWS": OTHER}, "Action": "ecr:*"});
    let drops = json!({"Effect": "Allow", "Principal": {"AWS": OTHER}, "Action": "ecr:BatchGetImage"});
    let denies = json!([keeps, {"Effect": "Deny", "Principal": "*", "Action": "ecr:SetRepositoryPolicy"}]);
    let admin = [policy(Kind::Identity, &json!({"Effect": "Allow", "Action": "*", "Resource": "*"}))];
    for (statements, of_owner, of_other) in [(&keeps, true, true), (&drops, true, false), (&denies, false, false)] {
        for (of, expected) in [(OWNER, of_owner), (OTHER, of_other)] {
            let request = Request {
                principal: &user(of, "admin"),
                action: "ecr:SetRepositoryPolicy",
                resource: APP,
                resource_account: account(OWNER),
                context: &Context::new(),
            };
            let new = [policy(Kind::Resource, statements)];
            let decision = Policies { identity: &admin, resource: &new }.decide(&request);
            assert_eq!(decision.is_allowed(), expected, "{of}: {statements}");
        }
    }
}

#[test]
fn an_authorizer_is_an_object() {
    let policies = Policies { identity: &[], resource: &[] };
    let authorizer: &dyn Authorizer = &policies;
    let (principal, context) = (Principal::Anonymous, Context::new());
    let request = Request {
        principal: &principal,
        action: "ecr:GetAuthorizationToken",
        resource: "*",
        resource_account: account(OWNER),
        context: &context,
    };
    assert!(!authorizer.decide(&request).is_allowed());
}
