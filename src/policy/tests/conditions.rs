//! The operators of the `Condition` element.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// Each row: operator, the policy's values, the request's values, whether it holds.
fn check(key: &str, table: &[(&str, Value, &[&str], bool)]) {
    for (operator, values, given, expected) in table {
        let mut context = Context::new();
        if !given.is_empty() {
            context = context.with_all(key, given.iter().copied());
        }
        let condition = json!({ *operator: {key: values} });
        assert_eq!(holds(&condition, &context), *expected, "{condition} {given:?}");
    }
}

#[test]
fn texts_are_compared() {
    check(
        "x:s",
        &[
            ("StringEquals", json!("a"), &["a"], true),
            ("StringEquals", json!("a"), &["A"], false),
            ("StringEquals", json!(["b", "a"]), &["a"], true),
            ("StringEquals", json!("a*"), &["ab"], false),
            ("StringEquals", json!(7), &["7"], true),
            ("StringEquals", json!(true), &["true"], true),
            ("StringNotEquals", json!("a"), &["b"], true),
            ("StringNotEquals", json!(["a", "b"]), &["b"], false),
            ("StringEqualsIgnoreCase", json!("aBc"), &["AbC"], true),
            ("StringEqualsIgnoreCase", json!("k"), &["\u{212a}"], false), // the sign for kelvin is not the letter K
            ("StringNotEqualsIgnoreCase", json!("aBc"), &["AbC"], false),
            ("StringLike", json!("a*c"), &["abbc"], true),
            ("StringLike", json!("a?c"), &["abbc"], false),
            ("StringLike", json!("A*"), &["ab"], false),
            ("StringNotLike", json!("a*"), &["ab"], false),
            ("StringNotLike", json!("a*"), &["b"], true),
            ("stringequals", json!("a"), &["a"], true),
            ("BinaryEquals", json!("QmluYXJ5VmFsdWVJbkJhc2U2NA=="), &["QmluYXJ5VmFsdWVJbkJhc2U2NA=="], true),
            ("BinaryEquals", json!("QmluYXJ5VmFsdWVJbkJhc2U2NA=="), &["QmluYXJ5VmFsdWVJbkJhc2U2NB=="], false),
            ("Bool", json!("true"), &["true"], true),
            ("Bool", json!(true), &["true"], true),
            ("Bool", json!("TRUE"), &["true"], true),
            ("Bool", json!(false), &["true"], false),
        ],
    );
}

#[test]
fn numbers_are_compared_exactly() {
    check(
        "x:n",
        &[
            ("NumericEquals", json!("10"), &["10.0"], true),
            ("NumericEquals", json!(10), &["1e1"], false),
            ("NumericEquals", json!("-0"), &["0"], true),
            ("NumericEquals", json!(1.5), &["1.50"], true),
            ("NumericEquals", json!("9007199254740993"), &["9007199254740992"], false),
            ("NumericEquals", json!("0.1"), &["0.100000000000000001"], false),
            ("NumericNotEquals", json!(["1", "2"]), &["3"], true),
            ("NumericNotEquals", json!(["1", "2"]), &["2"], false),
            ("NumericLessThan", json!("10"), &["9"], true),
            ("NumericLessThan", json!("10"), &["10"], false),
            ("NumericLessThan", json!("-1"), &["-1.5"], true),
            ("NumericLessThanEquals", json!("10"), &["10"], true),
            ("NumericGreaterThan", json!("10"), &["10.5"], true),
            ("NumericGreaterThan", json!("10"), &["10"], false),
            ("NumericGreaterThanEquals", json!("10"), &["10"], true),
            ("NumericEquals", json!("1"), &["one"], false),
            ("NumericEquals", json!("1"), &[""], false),
            ("NumericNotEquals", json!("1"), &["one"], true),
        ],
    );
}

#[test]
fn dates_are_compared() {
    let noon = "2026-11-30T12:00:00Z";
    check(
        "x:d",
        &[
            ("DateEquals", json!(noon), &["2026-11-30T13:00:00+01:00"], true),
            ("DateEquals", json!(noon), &["2026-11-30T06:30-05:30"], true),
            ("DateEquals", json!(noon), &["2026-11-30T12:00:00.000Z"], true),
            ("DateEquals", json!(noon), &["1796040000"], true),
            ("DateEquals", json!(1_796_040_000_u64), &[noon], true),
            ("DateEquals", json!("2026-11-30"), &["2026-11-30T00:00:00Z"], true),
            ("DateEquals", json!("2026-11"), &["2026-11-01T00:00:00Z"], true),
            ("DateEquals", json!("2026"), &["1970-01-01T00:33:46Z"], true), // a number alone is seconds
            ("DateNotEquals", json!(noon), &["2026-11-30T12:00:01Z"], true),
            ("DateLessThan", json!(noon), &["2026-11-30T11:59:59.999Z"], true),
            ("DateLessThan", json!(noon), &[noon], false),
            ("DateLessThanEquals", json!(noon), &[noon], true),
            ("DateGreaterThan", json!("2020-01-01T00:00:01Z"), &[noon], true),
            ("DateGreaterThan", json!(noon), &[noon], false),
            ("DateGreaterThanEquals", json!(noon), &[noon], true),
            ("DateEquals", json!("2024-02-29"), &["1709164800"], true),
            ("DateEquals", json!("1969-12-31T23:59:59Z"), &["1969-12-31T23:59:59Z"], true),
            ("DateLessThan", json!(0), &["1969-12-31T23:59:59Z"], true),
            ("DateLessThan", json!(noon), &["soon"], false),
        ],
    );
    let context = Context::new().with_time(UNIX_EPOCH + Duration::from_millis(1_796_040_000_999));
    assert_eq!(context.get("aws:CurrentTime"), [noon]);
    assert!(holds(&json!({"DateGreaterThanEquals": {"aws:CurrentTime": noon}}), &context));
    assert!(holds(&json!({"NumericLessThanEquals": {"aws:EpochTime": 1_796_040_000}}), &context));
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ] {
        let context = Context::new().with_time(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(context.get("aws:CurrentTime"), [text]);
        assert!(holds(&json!({"DateEquals": {"aws:CurrentTime": seconds}}), &context));
    }
}

#[test]
fn addresses_are_compared() {
    check(
        "aws:SourceIp",
        &[
            ("IpAddress", json!("203.0.113.0/24"), &["203.0.113.255"], true),
            ("IpAddress", json!("203.0.113.0/24"), &["203.0.114.0"], false),
            ("IpAddress", json!("203.0.113.77/24"), &["203.0.113.1"], true),
            ("IpAddress", json!("203.0.113.7"), &["203.0.113.7"], true),
            ("IpAddress", json!("203.0.113.7"), &["203.0.113.8"], false),
            ("IpAddress", json!("0.0.0.0/0"), &["203.0.113.8"], true),
            ("IpAddress", json!("0.0.0.0/0"), &["2001:db8::1"], false),
            ("IpAddress", json!("::/0"), &["2001:db8::1"], true),
            ("IpAddress", json!(["203.0.113.0/24", "2001:DB8:1234:5678::/64"]), &["2001:db8:1234:5678::9"], true),
            ("IpAddress", json!("2001:DB8:1234:5678::/64"), &["2001:db8:1234:5679::"], false),
            ("IpAddress", json!("203.0.113.0/24"), &["::ffff:203.0.113.9"], true),
            ("IpAddress", json!("::ffff:203.0.113.0/120"), &["203.0.113.9"], true),
            ("NotIpAddress", json!("203.0.113.0/24"), &["203.0.113.9"], false),
            ("NotIpAddress", json!("203.0.113.0/24"), &["::ffff:203.0.113.9"], false),
            ("NotIpAddress", json!(["203.0.113.0/24", "10.0.0.0/8"]), &["10.9.9.9"], false),
            ("NotIpAddress", json!("203.0.113.0/24"), &["198.51.100.1"], true),
            ("IpAddress", json!("0.0.0.0/0"), &["nowhere"], false),
        ],
    );
    let mapped = Context::new().with_source_ip("::ffff:203.0.113.9".parse().unwrap());
    assert_eq!(mapped.get("aws:sourceip"), ["203.0.113.9"]);
}

#[test]
fn arns_are_compared_part_by_part() {
    let pattern = "arn:aws:someservice:*:111122223333:finance/*";
    check(
        "aws:SourceArn",
        &[
            ("ArnLike", json!(pattern), &["arn:aws:someservice:us-east-2:111122223333:finance/document.txt"], true),
            // the user guide's example: a string operator matches here
            (
                "ArnLike",
                json!(pattern),
                &["arn:aws:someservice:us-east-2:999999999999:store/abc:111122223333:finance/document.txt"],
                false,
            ),
            (
                "StringLike",
                json!(pattern),
                &["arn:aws:someservice:us-east-2:999999999999:store/abc:111122223333:finance/document.txt"],
                true,
            ),
            ("ArnEquals", json!(pattern), &["arn:aws:someservice:us-east-2:111122223333:finance/x:y"], true),
            ("ArnEquals", json!(pattern), &["arn:aws:SomeService:us-east-2:111122223333:finance/x"], false),
            ("ArnNotEquals", json!(pattern), &["arn:aws:someservice:us-east-2:111122223333:finance/x"], false),
            ("ArnNotLike", json!(pattern), &["arn:aws:other:us-east-2:111122223333:finance/x"], true),
            ("ArnLike", json!("*"), &["arn:aws:other:us-east-2:111122223333:finance/x"], true),
            ("ArnLike", json!("*"), &["finance"], false),
        ],
    );
    let mine = json!({"ArnLike": {"aws:SourceArn": "arn:aws:s:*:*:home/${aws:username}"}});
    assert!(holds(&mine, &Context::new().with("aws:SourceArn", "arn:aws:s:::home/alice")));
    assert!(!holds(&mine, &Context::new().with("aws:SourceArn", "arn:aws:s:::home/bob")));
}

#[test]
fn a_missing_key_is_no_match_and_negated_one() {
    let operators = [
        ("StringEquals", json!("a"), false),
        ("StringEqualsIgnoreCase", json!("a"), false),
        ("StringLike", json!("*"), false),
        ("ArnLike", json!("*"), false),
        ("NumericLessThan", json!(1), false),
        ("DateLessThan", json!(1), false),
        ("IpAddress", json!("0.0.0.0/0"), false),
        ("Bool", json!(false), false),
        ("BinaryEquals", json!("AAAA"), false),
        ("StringNotEquals", json!("a"), true),
        ("StringNotEqualsIgnoreCase", json!("a"), true),
        ("StringNotLike", json!("*"), true),
        ("ArnNotEquals", json!("*"), true),
        ("NumericNotEquals", json!(1), true),
        ("DateNotEquals", json!(1), true),
        ("NotIpAddress", json!("0.0.0.0/0"), true),
    ];
    for (operator, value, expected) in operators {
        assert_eq!(holds(&json!({operator: {"x:missing": value}}), &Context::new()), expected, "{operator}");
        let if_exists = json!({format!("{operator}IfExists"): {"x:missing": value}});
        assert!(holds(&if_exists, &Context::new()), "{operator}");
        for (set, expected) in [("ForAllValues", true), ("ForAnyValue", false)] {
            let of_set = json!({format!("{set}:{operator}"): {"x:missing": value}});
            assert_eq!(holds(&of_set, &Context::new()), expected, "{of_set}");
            let of_set = json!({format!("{set}:{operator}IfExists"): {"x:missing": value}});
            assert!(holds(&of_set, &Context::new()), "{of_set}");
        }
    }
    let there = Context::new().with("x:there", "b");
    assert!(!holds(&json!({"StringEqualsIfExists": {"x:there": "a"}}), &there));
    assert!(holds(&json!({"StringNotEqualsIfExists": {"x:there": "a"}}), &there));
}

/// The user guide's tables of keys with several values.
#[test]
fn keys_with_several_values_are_compared_as_sets() {
    let wanted = json!(["PostDateTime", "Message", "Tags"]);
    check(
        "dynamodb:requestedAttributes",
        &[
            ("ForAllValues:StringLike", wanted.clone(), &["PostDateTime", "Message"], true),
            ("ForAllValues:StringLike", wanted.clone(), &["PostDateTime", "UserName"], false),
            ("ForAllValues:StringLike", wanted.clone(), &[], true),
            ("ForAllValues:StringLike", wanted.clone(), &[""], true),
            ("ForAnyValue:StringLike", json!(["ID", "PostDateTime"]), &["UserName", "Message", "PostDateTime"], true),
            ("ForAnyValue:StringLike", json!(["ID", "PostDateTime"]), &["UserName"], false),
            ("ForAnyValue:StringLike", json!(["ID", "PostDateTime"]), &[], false),
            ("ForAnyValue:StringLike", json!("*"), &[""], false),
        ],
    );
    check(
        "aws:TagKeys",
        &[
            ("ForAllValues:StringNotLike", json!("key1*"), &["key1:legal"], false),
            ("ForAllValues:StringNotLike", json!("key1*"), &["key1:hr", "key1:personnel"], false),
            ("ForAllValues:StringNotLike", json!("key1*"), &["key2:audit"], true),
            ("ForAllValues:StringNotLike", json!("key1*"), &[], true),
            ("ForAnyValue:StringNotEquals", json!(["a", "b"]), &["a", "c"], true),
            ("ForAnyValue:StringNotEquals", json!(["a", "b"]), &["a", "b"], false),
            ("ForAnyValue:StringNotEquals", json!(["a", "b"]), &[], false),
            ("ForAllValues:StringNotEquals", json!(["a", "b"]), &["c", "a"], false),
            ("foranyvalue:stringequals", json!("a"), &["b", "a"], true),
            // without a set operator: one value for a match, none for its negation
            ("StringEquals", json!("a"), &["b", "a"], true),
            ("StringNotEquals", json!("a"), &["b", "a"], false),
            ("StringNotEquals", json!("a"), &["b", "c"], true),
        ],
    );
}

#[test]
fn null_asks_whether_a_key_has_a_value() {
    check(
        "x:k",
        &[
            ("Null", json!("true"), &[], true),
            ("Null", json!(true), &[], true),
            ("Null", json!("false"), &[], false),
            ("Null", json!("true"), &["a"], false),
            ("Null", json!("false"), &["a"], true),
            ("Null", json!("false"), &[""], false),
            ("Null", json!("false"), &["", "a"], true),
            ("Null", json!(["true", "false"]), &[], true),
        ],
    );
    assert!(holds(&json!({"Null": {"aws:username": false}}), &Context::new()));
    assert!(holds(&json!({"Null": {"aws:PrincipalTag/team": true}}), &Context::new()));
}

#[test]
fn all_operators_and_keys_of_a_condition_have_to_hold() {
    let context = Context::new().with("x:a", "1").with("x:b", "2");
    let equal = |a: &str, b: &str| json!({"StringEquals": {"x:a": a, "x:b": b}});
    assert!(holds(&equal("1", "2"), &context));
    assert!(!holds(&equal("1", "3"), &context));
    let two = |a: &str, b: &str| json!({"StringEquals": {"x:a": a}, "NumericEquals": {"X:B": b}});
    assert!(holds(&two("1", "2"), &context));
    assert!(!holds(&two("0", "2"), &context));
    assert!(!holds(&two("1", "3"), &context));
    assert!(holds(&json!({}), &context), "without conditions");
}

#[test]
fn keys_of_the_principal_can_be_neither_forgotten_nor_forged() {
    let forged = Context::new()
        .with("aws:PrincipalArn", "arn:aws:iam::111111111111:root")
        .with("aws:principalaccount", OWNER)
        .with("AWS:USERNAME", "admin")
        .with("aws:userid", "admin")
        .with("aws:PrincipalTag/team", "admins")
        .with("aws:PrincipalType", "Account");
    let key = |key: &str, values: &[&str], principal: &Principal| {
        let null = json!({"Condition": {"Null": {key: true}}});
        let is_null = is_met(&null, principal, &forged);
        assert_eq!(is_null, values.is_empty(), "{key} of {principal:?}");
        for value in values {
            let equal = json!({"Condition": {"StringEquals": {key: value}}});
            assert!(is_met(&equal, principal, &forged), "{key} of {principal:?}");
        }
    };
    fn is_met(statement: &Value, principal: &Principal, context: &Context) -> bool {
        let mut whole = statement.clone();
        whole["Effect"] = json!("Deny");
        whole["Action"] = json!("*");
        whole["Principal"] = json!("*");
        let decision = decide(&[], &[policy(Kind::Resource, &whole)], principal, context);
        matches!(decision, Decision::Denied(Refusal::Statement(_)))
    }
    let alice = Identity::user(account(OTHER), "team/alice").unwrap().with_user_id("AIDA1").with_tag("Team", "blue");
    let deploy = Identity::role_session(account(OTHER), "ci/deploy", "run").unwrap().with_user_id("AROA1:run");
    let service = Principal::Service("s.amazonaws.com".into());
    let principals = [alice.into(), deploy.into(), root(OTHER), Principal::Anonymous, service];
    let user_arn = "arn:aws:iam::222222222222:user/team/alice";
    let role_arn = "arn:aws:iam::222222222222:role/ci/deploy";
    let root_arn = "arn:aws:iam::222222222222:root";
    let table: [(&str, [&[&str]; 5]); 6] = [
        ("aws:PrincipalArn", [&[user_arn], &[role_arn], &[root_arn], &[], &[]]),
        ("aws:PrincipalAccount", [&[OTHER], &[OTHER], &[OTHER], &[], &[]]),
        ("aws:PrincipalType", [&["User"], &["AssumedRole"], &["Account"], &["Anonymous"], &[]]),
        ("aws:username", [&["alice"], &[], &[], &[], &[]]),
        ("aws:userid", [&["AIDA1"], &["AROA1:run"], &[OTHER], &["anonymous"], &[]]),
        ("aws:PrincipalTag/team", [&["blue"], &[], &[], &[], &[]]),
    ];
    for (name, expected) in table {
        for (principal, values) in principals.iter().zip(expected) {
            key(name, values, principal);
        }
    }
}
