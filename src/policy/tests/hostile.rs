//! Documents and requests that are built to be slow, to be misread, or to break the parser.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// In the slowest build on a busy machine.
const BOUND: Duration = Duration::from_secs(5);

fn is_malformed(text: &str) -> bool {
    let started = Instant::now();
    let is_error = Policy::parse(text, Kind::Identity).is_err() && Policy::parse(text, Kind::Resource).is_err();
    assert!(started.elapsed() < BOUND);
    is_error
}

#[test]
fn a_member_that_occurs_twice_is_refused_at_every_level() {
    let texts = [
        r#"{"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}, "Statement": {}}"#,
        r#"{"Statement": {"Effect": "Deny", "Effect": "Allow", "Action": "*", "Resource": "*"}}"#,
        r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "\u0041ction": "a:b"}}"#,
        r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*",
            "Condition": {"Bool": {"a:b": "true"}, "Bool": {"a:c": "true"}}}}"#,
        r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*",
            "Condition": {"Bool": {"a:b": "true"}, "bool": {"a:c": "true"}}}}"#,
        r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*",
            "Condition": {"Bool": {"a:b": "true", "a:b": "false"}}}}"#,
    ];
    for text in texts {
        let problem = Policy::parse(text, Kind::Identity).expect_err(text).problem;
        assert!(matches!(problem, PolicyProblem::Duplicate { .. }), "{problem}: {text}");
    }
    let text = r#"{"Statement": {"Effect": "Allow", "Action": "a:b",
        "Principal": {"AWS": "*", "AWS": "111111111111"}}}"#;
    let problem = Policy::parse(text, Kind::Resource).unwrap_err().problem;
    assert!(matches!(problem, PolicyProblem::Duplicate { .. }), "{problem}");
}

#[test]
fn malformed_json_is_refused() {
    let statement = |action: &str| format!(r#"{{"Statement": {{"Effect": "Allow", "Action": {action}}}}}"#);
    for action in [r#""\ud800""#, r#""\udc00x""#, r#""\ud800\u0041""#, "\"\u{0}\"", "1e999999", "NaN", "'*'", "[*]"] {
        assert!(is_malformed(&statement(action)), "{action}");
    }
    assert!(is_malformed(&"[".repeat(10_000)));
    assert!(is_malformed(&"{\"Statement\":".repeat(700)));
    assert!(is_malformed(&format!("{}{}", "[".repeat(5_000), "]".repeat(5_000))));
    assert!(is_malformed("\u{feff}{}"));
    let condition = |number: &str| {
        let numeric = format!(r#"{{"NumericEquals": {{"a:b": {number}}}}}"#);
        format!(r#"{{"Statement": {{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {numeric}}}}}"#)
    };
    for number in ["1e400", "-1e400", "1e308", &"9".repeat(400), &format!("0.{}", "1".repeat(400)), "1e-300"] {
        let is_refused = Policy::parse(&condition(number), Kind::Identity).is_err();
        // what has no more than 17 significant digits is a number that can be written out
        assert!(is_refused || number.starts_with("0.1"), "{number}");
    }
    assert!(Policy::parse(&condition("18446744073709551615"), Kind::Identity).is_ok());
}

/// A decision that does not take long.
fn timed(identity: &[Arc<Policy>], request: &Request<'_>) -> Decision {
    let started = Instant::now();
    let decision = Policies { identity, resource: &[] }.decide(request);
    assert!(started.elapsed() < BOUND, "took {:?}", started.elapsed());
    decision
}

#[test]
fn policies_built_to_be_slow_decide_in_bounded_time() {
    let principal = user(OWNER, "alice");
    let name = "a".repeat(400);
    let resource = format!("arn:aws:ecr:eu-west-1:111111111111:repository/{name}");
    let context = Context::new().with("x:long", "a".repeat(100_000));
    let request = Request {
        principal: &principal,
        action: "ecr:BatchGetImage",
        resource: &resource,
        resource_account: account(OWNER),
        context: &context,
    };
    let of_patterns = |patterns: Vec<String>| {
        let resources: Vec<_> = patterns.iter().map(|pattern| format!("arn:*:*:*:*:{pattern}")).collect();
        [policy(Kind::Identity, &json!({"Effect": "Deny", "Action": "*", "Resource": resources}))]
    };
    // none matches, and each has as many ways to try as it can
    let patterns = [
        vec!["*a".repeat(5_000) + "b"],
        vec!["*".repeat(10_000) + "b"],
        vec!["*?".repeat(5_000)],
        vec!["*".to_owned() + &"a".repeat(10_000)],
        vec!["*?a".repeat(3_300) + "*b"],
        vec!["*".to_owned() + &"a".repeat(200) + "b"; 45],
        vec!["*?*a*".repeat(20) + &"?".repeat(100) + "b"; 45],
    ];
    for patterns in patterns {
        let decision = timed(&of_patterns(patterns), &request);
        assert_eq!(decision, Decision::Denied(Refusal::NoStatement), "a resource of 450 bytes is within bounds");
    }
    // a text that is long enough for more than the bound
    let slow = json!({"StringLike": {"x:long": format!("*{}b", "a".repeat(9_000))}});
    for effect in ["Allow", "Deny"] {
        let statement = json!({"Effect": effect, "Action": "*", "Resource": "*", "Condition": slow});
        let allow = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
        let decision = timed(&[policy(Kind::Identity, &json!([allow, statement]))], &request);
        let expected = match effect {
            "Allow" => decision.is_allowed(), // the first statement allows; the second one need not be looked at
            _ => decision == Decision::Denied(Refusal::TooMuchWork { side: Side::Identity, policy: 0 }),
        };
        assert!(expected, "{effect}: {decision}");
        let alone = timed(&[policy(Kind::Identity, &statement)], &request);
        assert!(!alone.is_allowed(), "{alone}");
    }
}

#[test]
fn many_values_and_variables_decide_in_bounded_time() {
    let principal = Principal::from(Identity::user(account(OWNER), "a").unwrap().with_tag("t", "a".repeat(100_000)));
    let context = Context::new().with_all("x:many", (0..100_000).map(|n| n.to_string()));
    let request = Request {
        principal: &principal,
        action: "ecr:BatchGetImage",
        resource: APP,
        resource_account: account(OWNER),
        context: &context,
    };
    let numbers: Vec<_> = (0..1_200).map(|n| n.to_string() + "x").collect();
    let tags = vec!["${aws:PrincipalTag/t}"; 300];
    let conditions = [
        json!({"ForAllValues:StringNotEquals": {"x:many": numbers}}),
        json!({"ForAllValues:NumericNotEquals": {"x:many": (100_000..101_200).collect::<Vec<_>>()}}),
        json!({"StringNotEquals": {"x:many": tags}}),
    ];
    for condition in conditions {
        let statement = json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition});
        let decision = timed(&[policy(Kind::Identity, &statement)], &request);
        assert_eq!(decision, Decision::Denied(Refusal::TooMuchWork { side: Side::Identity, policy: 0 }));
    }
}

#[test]
fn what_a_caller_names_is_text() {
    let statement = json!({
        "Effect": "Allow", "Action": "ecr:PutImage", "Resource": "arn:aws:ecr:eu-west-1:111111111111:repository/app",
    });
    let identity = [policy(Kind::Identity, &statement)];
    let (principal, context) = (user(OWNER, "alice"), Context::new());
    for (action, resource) in [
        ("ecr:*", APP),
        ("*", APP),
        ("ecr:PutImage", "arn:aws:ecr:eu-west-1:111111111111:repository/*"),
        ("ecr:PutImage", "*"),
        ("ecr:PutImage", "arn:aws:ecr:eu-west-1:111111111111:repository/app:arn:aws:ecr"),
        ("ecr:PutImage", "${*}"),
        ("", ""),
    ] {
        let resource_account = account(OWNER);
        let request = Request { principal: &principal, action, resource, resource_account, context: &context };
        let decision = Policies { identity: &identity, resource: &[] }.decide(&request);
        assert!(!decision.is_allowed(), "{action} {resource}");
    }
}

/// Mistakes found in other evaluators of this language, each of which lets somebody in or fails to keep somebody out.
#[test]
fn known_holes_of_other_evaluators_are_closed() {
    let (alice, context) = (user(OTHER, "alice"), Context::new());
    let admin = [policy(Kind::Identity, &json!({"Effect": "Allow", "Action": "*", "Resource": "*"}))];
    let allow = json!({"Effect": "Allow", "Principal": "*", "Action": "*"});
    let is_denied = |deny: Value| {
        let resource = [policy(Kind::Resource, &json!([allow, deny]))];
        !decide(&admin, &resource, &alice, &context).is_allowed()
    };
    // a statement without a resource is skipped, also a denial
    assert!(is_denied(json!({"Effect": "Deny", "Principal": "*", "Action": "ecr:BatchGetImage"})));
    // an account, or its root, does not mean the account's users
    assert!(is_denied(json!({"Effect": "Deny", "Principal": {"AWS": OTHER}, "Action": "*"})));
    let of_root = json!({"AWS": format!("arn:aws:iam::{OTHER}:root")});
    assert!(is_denied(json!({"Effect": "Deny", "Principal": of_root, "Action": "*"})));
    // several kinds of principals are not understood
    let kinds = json!({"AWS": OTHER, "Service": "codebuild.amazonaws.com"});
    assert!(is_denied(json!({"Effect": "Deny", "Principal": kinds, "Action": "*"})));
    // a document without a version is not understood
    let text = json!({"Statement": {"Effect": "Deny", "Principal": "*", "Action": "*"}}).to_string();
    let resource = [policy(Kind::Resource, &allow), Arc::new(Policy::parse(&text, Kind::Resource).unwrap())];
    assert!(!decide(&admin, &resource, &alice, &context).is_allowed());
    // a wildcard in a user's ARN matches users
    let users = json!({"AWS": format!("arn:aws:iam::{OTHER}:user/*")});
    let text = document(&json!({"Effect": "Allow", "Principal": users, "Action": "*"}));
    assert!(Policy::parse(&text, Kind::Resource).is_err());
}

const WHOLE: &str = r#"{"Version": "2012-10-17", "Id": "é", "Statement": [
    {"Sid": "a b", "Effect": "Allow", "Principal": {"AWS": ["111111111111", "arn:aws:iam::222222222222:user/a"],
     "Service": "s"}, "Action": ["ecr:Get*", "s3:?"], "Resource": "arn:aws:s3:::${aws:username, 'x'}/*${*}",
     "Condition": {"ForAllValues:StringLikeIfExists": {"a:b": ["c*", "${d:e}"]}, "Bool": {"f:g": true}}},
    {"Effect": "Deny", "NotPrincipal": {"AWS": "111111111111"}, "NotAction": "*", "NotResource": "*", "Condition":
     {"NumericLessThan": {"h:i": -1.5}, "DateEquals": {"j:k": "2026-11-30T16:53:20.25+01:00"},
      "NotIpAddress": {"l:m": ["203.0.113.0/24", "2001:db8::/32"]}, "BinaryEquals": {"n:o": "AAA="},
      "ArnNotLike": {"p:q": "arn:aws:*:::${r:s}"}, "Null": {"t:u": "false"}}}]}"#;

const PIECES: &[&str] = &["", "${", "}", ":", "*", "/", "\"", "-", "9e9"];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_document_panics(
        at in any::<prop::sample::Index>(),
        piece in prop_oneof![any::<String>(), prop::sample::select(PIECES).prop_map(str::to_owned)],
        skip in 0..20_usize,
        value in any::<String>(),
    ) {
        prop_assert!(Policy::parse(WHOLE, Kind::Resource).is_ok());
        let at = at.index(WHOLE.len());
        let (before, behind) = (WHOLE.get(..at).unwrap_or(""), WHOLE.get(at + skip..).unwrap_or(""));
        let text = format!("{before}{piece}{behind}");
        let keys = ["a:b", "f:g", "h:i", "j:k", "l:m", "n:o", "p:q", "t:u"];
        let context = keys.iter().fold(Context::new(), |context, key| context.with(key, value.clone()));
        for kind in [Kind::Identity, Kind::Resource] {
            if let Ok(policy) = Policy::parse(&text, kind) {
                let policies = [Arc::new(policy)];
                let _ = decide(&policies, &[], &user(OWNER, "a"), &context);
                let _ = decide(&[], &policies, &user(OWNER, "a"), &context);
            }
        }
    }
}
