//! Actions, resources and variables.

use super::*;

#[test]
fn actions_match_without_regard_to_case() {
    let table = [
        (json!("*"), true),
        (json!("ecr:*"), true),
        (json!("ecr:BatchGetImage"), true),
        (json!("ECR:batchgetimage"), true),
        (json!("ecr:Batch*Image"), true),
        (json!("ecr:BatchGetImag?"), true),
        (json!("ecr:BatchGetImage?"), false),
        (json!("ecr:Batch"), false),
        (json!("s3:BatchGetImage"), false),
        (json!(["ecr:PutImage", "ecr:BatchGet*"]), true),
    ];
    for (action, expected) in table {
        assert_eq!(applies(&json!({"Action": action}), &Context::new()), expected, "{action}");
        assert_eq!(applies(&json!({"NotAction": action}), &Context::new()), !expected, "{action}");
    }
}

#[test]
fn resources_match_with_regard_to_case() {
    let table = [
        (json!("*"), true),
        (json!(APP), true),
        (json!("arn:aws:ecr:eu-west-1:111111111111:repository/APP"), false),
        (json!("arn:aws:ecr:*:*:repository/*"), true),
        (json!("arn:aws:ecr:*:111111111111:repository/a?p"), true),
        (json!("arn:aws:ecr:*"), true),
        (json!("arn:aws:ecr:eu-west-1:*"), true),
        (json!("arn:aws:ecr:*:*:repository/ap"), false),
        (json!("arn:aws:ecr:*:*:repository/app/*"), false),
        (json!(["arn:aws:s3:::bucket", APP]), true),
    ];
    for (resource, expected) in table {
        for effect in ["Allow", "Deny"] {
            let one_of = json!({"Effect": effect, "Resource": resource});
            assert_eq!(applies(&one_of, &Context::new()), expected, "{resource}");
            let none_of = json!({"Effect": effect, "NotResource": resource});
            assert_eq!(applies(&none_of, &Context::new()), !expected, "{resource}");
        }
    }
}

#[test]
fn wildcards_match_whole_characters() {
    let table = [
        ("?", "é", true),
        ("??", "é", false),
        ("*?", "日本", true),
        ("???", "日本", false),
        ("日?", "日本", true),
        ("*本", "日本", true),
        ("*a*b*c", "xxaxxbxxbc", true),
        ("*a*b*c", "xxaxxcxxb", false),
        ("**", "", true),
        ("?*", "", false),
        ("*aab", "aaab", true),
        ("a*a", "a", false),
    ];
    for (pattern, value, expected) in table {
        let context = Context::new().with("x:y", value);
        assert_eq!(holds(&json!({"StringLike": {"x:y": pattern}}), &context), expected, "{pattern} {value}");
    }
}

#[test]
fn variables_are_replaced_by_the_values_of_keys() {
    let alice = Principal::from(
        Identity::user(account(OWNER), "team/app").unwrap().with_tag("Team", "ap*").with_user_id("AIDA1"),
    );
    let bot = session(OWNER, "deploy", "run-1");
    let resource = |end: &str| json!({"Resource": format!("arn:aws:ecr:*:*:repository/{end}")});
    let context = Context::new().with("x:one", "app").with_all("x:two", ["app", "app"]);
    // the pattern, whether it applies to alice and to a session, which has no user name
    let table = [
        ("${aws:username}", true, false),
        ("${AWS:UserName}", true, false),
        ("${aws:username, 'app'}", true, true),
        ("${aws:username,'ap'}", true, false),
        ("${aws:PrincipalTag/team}", false, false), // its value `ap*` is text
        ("${aws:PrincipalTag/none, 'app'}", true, true),
        ("${x:one}", true, true),
        ("${x:two}", false, false), // which of them?
        ("${x:none}", false, false),
        ("${*}", false, false),
        ("a${?}p", false, false),
        ("*${x:one}*", true, true),
        ("${x:one}${x:one}", false, false),
    ];
    for (end, of_alice, of_bot) in table {
        assert_eq!(applies_to(&resource(end), &alice, &context), of_alice, "{end}");
        assert_eq!(applies_to(&resource(end), &bot, &context), of_bot, "{end}");
    }
    let equal = |value: &str| json!({"Condition": {"StringEquals": {"x:literal": value}}});
    let context = context.with("x:literal", "a*b?c$d-AIDA1");
    assert!(applies_to(&equal("a${*}b${?}c${$}d-${aws:userid}"), &alice, &context));
    assert!(applies_to(&equal("a*b?c$d-${aws:userid}"), &alice, &context), "StringEquals has no wildcards");
}

#[test]
fn a_variable_without_a_value_matches_nothing_and_excludes_nothing() {
    let bot = session(OWNER, "deploy", "run-1");
    let context = Context::new().with("x:y", "z");
    let variable = "arn:aws:ecr:*:*:repository/${aws:username}";
    let other = "arn:aws:ecr:*:*:repository/other";
    // the element, whether it applies as Allow and as Deny
    let table = [
        (json!({"Resource": variable}), false, false),
        (json!({"Resource": [variable, APP]}), true, true),
        (json!({"NotResource": variable}), false, true),
        (json!({"NotResource": [other, variable]}), false, true),
        (json!({"NotResource": [variable, APP]}), false, false),
        (json!({"Condition": {"StringEquals": {"x:y": "${aws:username}"}}}), false, false),
        (json!({"Condition": {"StringNotEquals": {"x:y": "${aws:username}"}}}), false, true),
        (json!({"Condition": {"StringNotLike": {"x:y": ["${aws:username}", "z"]}}}), false, false),
        (json!({"Condition": {"ForAllValues:StringNotLike": {"x:y": "${aws:username}"}}}), false, true),
        (
            json!({"Condition": {"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/${aws:username}"}}}),
            false,
            true,
        ),
    ];
    for (element, as_allow, as_deny) in table {
        for (effect, expected) in [("Allow", as_allow), ("Deny", as_deny)] {
            let mut statement = element.clone();
            statement["Effect"] = json!(effect);
            assert_eq!(applies_to(&statement, &bot, &context), expected, "{statement}");
        }
    }
}

#[test]
fn the_older_version_has_no_variables() {
    let statement = json!({
        "Effect": "Allow", "Action": "*", "Resource": "*",
        "Condition": {"StringLike": {"x:y": "${aws:username}-*"}},
    });
    for version in [Some("2008-10-17"), None] {
        let mut whole = json!({"Statement": statement});
        if let Some(version) = version {
            whole["Version"] = json!(version);
        }
        let policies = [Arc::new(Policy::parse(&whole.to_string(), Kind::Identity).unwrap())];
        for (value, expected) in [("${aws:username}-1", true), ("alice-1", false)] {
            let context = Context::new().with("x:y", value);
            let decision = decide(&policies, &[], &user(OWNER, "alice"), &context);
            assert_eq!(decision.is_allowed(), expected, "{version:?} {value}");
        }
    }
}

#[test]
fn a_resource_policy_may_leave_the_resource_out() {
    for effect in ["Allow", "Deny"] {
        let statement = json!({"Effect": effect, "Principal": "*", "Action": "ecr:BatchGetImage"});
        let decision = decide(&[], &[policy(Kind::Resource, &statement)], &user(OWNER, "alice"), &Context::new());
        let decided = match decision {
            Decision::Allowed(Grounds::Statement(_)) => "Allow",
            Decision::Denied(Refusal::Statement(_)) => "Deny",
            other => panic!("{other}"),
        };
        assert_eq!(decided, effect);
    }
}
