//! A second evaluator, as plain as can be, over the JSON document itself; random policies and requests must come to the
//! same decision by both.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

/// Who asks, for the model: a map of the keys that the evaluator derives, and the names a policy may use.
struct Caller {
    account: Option<&'static str>,
    is_root: bool,
    /// All that have to be excepted, and each of which can be named.
    names: Vec<String>,
    keys: Vec<(&'static str, &'static str)>,
}

const USER: &str = "arn:aws:iam::222222222222:user/ann";
const ROLE: &str = "arn:aws:iam::111111111111:role/r";
const RUN: &str = "arn:aws:sts::111111111111:assumed-role/r/s";

fn callers() -> Vec<(Principal, Caller)> {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let ann = Identity::user(account(OTHER), "ann").unwrap().with_tag("t", "b");
    let own = Identity::user(account(OWNER), "a").unwrap().with_tag("t", "a*");
    let run = Identity::role_session(account(OWNER), "r", "s").unwrap();
    vec![
        (
            ann.into(),
            Caller {
                account: Some(OTHER),
                is_root: false,
                names: strings(&[OTHER, USER]),
                keys: vec![("username", "ann"), ("tag", "b"), ("arn", USER)],
            },
        ),
        (
            own.into(),
            Caller {
                account: Some(OWNER),
                is_root: false,
                names: strings(&[OWNER, "arn:aws:iam::111111111111:user/a"]),
                keys: vec![("username", "a"), ("tag", "a*"), ("arn", "arn:aws:iam::111111111111:user/a")],
            },
        ),
        (
            run.into(),
            Caller {
                account: Some(OWNER),
                is_root: false,
                names: strings(&[OWNER, ROLE, RUN]),
                keys: vec![("arn", ROLE)],
            },
        ),
        (
            root(OTHER),
            Caller {
                account: Some(OTHER),
                is_root: true,
                names: strings(&[OTHER]),
                keys: vec![("arn", "arn:aws:iam::222222222222:root")],
            },
        ),
        (
            root(OWNER),
            Caller {
                account: Some(OWNER),
                is_root: true,
                names: strings(&[OWNER]),
                keys: vec![("arn", "arn:aws:iam::111111111111:root")],
            },
        ),
        (Principal::Anonymous, Caller { account: None, is_root: false, names: vec![], keys: vec![] }),
        (
            Principal::Service("svc".into()),
            Caller { account: None, is_root: false, names: strings(&["svc"]), keys: vec![] },
        ),
    ]
}

struct Asked<'a> {
    caller: &'a Caller,
    action: &'a str,
    resource: &'a str,
    context: &'a [(&'a str, Vec<&'a str>)],
}

impl Asked<'_> {
    fn values(&self, key: &str) -> Vec<String> {
        let name = match key.to_lowercase().as_str() {
            "aws:username" => "username",
            "aws:principaltag/t" => "tag",
            "aws:principalarn" => "arn",
            other => {
                let found = self.context.iter().find(|(name, _)| *name == other);
                return found.map_or(vec![], |(_, values)| values.iter().map(|value| (*value).to_owned()).collect());
            }
        };
        self.caller.keys.iter().filter(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()).collect()
    }

    /// The pattern's characters, wildcards as `None` (`*`) and `Some(None)` (`?`); nothing if a variable has no value.
    fn pattern(&self, text: &str, wildcards: bool) -> Option<Vec<Option<Option<char>>>> {
        let mut pattern = Vec::new();
        let mut rest: Vec<char> = text.chars().collect();
        while !rest.is_empty() {
            if rest.starts_with(&['$', '{']) {
                let end = rest.iter().position(|char| *char == '}').unwrap();
                let name: String = rest[2..end].iter().collect();
                rest.drain(..=end);
                let value = match name.as_str() {
                    "*" => "*".to_owned(),
                    name => {
                        let (key, default) = name.split_once(", ").map_or((name, None), |(k, d)| (k, Some(d)));
                        match (&*self.values(key), default) {
                            ([value], _) => value.clone(),
                            (_, Some(default)) => default.trim_matches('\'').to_owned(),
                            _ => return None,
                        }
                    }
                };
                pattern.extend(value.chars().map(|char| Some(Some(char))));
            } else {
                pattern.push(match rest.remove(0) {
                    '*' if wildcards => None,
                    '?' if wildcards => Some(None),
                    char => Some(Some(char)),
                });
            }
        }
        Some(pattern)
    }

    fn like(&self, pattern: &str, text: &str, wildcards: bool, fold: bool) -> Option<bool> {
        let text: Vec<char> = text.chars().collect();
        Some(glob(&self.pattern(pattern, wildcards)?, &text, fold))
    }
}

fn glob(pattern: &[Option<Option<char>>], text: &[char], fold: bool) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((None, behind)), rest) => {
            glob(behind, text, fold) || rest.is_some_and(|(_, rest)| glob(pattern, rest, fold))
        }
        (Some((Some(expected), behind)), Some((char, rest))) => {
            let is_same = |other: &char| other == char || fold && other.eq_ignore_ascii_case(char);
            expected.as_ref().is_none_or(is_same) && glob(behind, rest, fold)
        }
        _ => false,
    }
}

/// A value that stands alone is a list of one.
fn list(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    value.as_array().map_or_else(|| vec![text(value)], |values| values.iter().map(text).collect())
}

/// One of the values says yes; else nothing, if one of them can't be compared.
fn one(answers: Vec<Option<bool>>) -> Option<bool> {
    if answers.contains(&Some(true)) {
        return Some(true);
    }
    if answers.contains(&None) { None } else { Some(false) }
}

/// The seconds of the dates that the policies below use.
fn seconds(text: &str) -> Option<i64> {
    match text {
        "2026-01-01" | "2026-01-01T01:00:00+01:00" => Some(1_767_225_600),
        "2026-01-01T00:00:01Z" => Some(1_767_225_601),
        other => other.parse().ok(),
    }
}

/// The bits of an address, with its family before them.
fn bits(text: &str) -> Option<String> {
    let family = |number: u128, width: usize, name: char| format!("{name}{number:0width$b}");
    match text.parse().ok()? {
        std::net::IpAddr::V4(address) => Some(family(u32::from(address).into(), 32, '4')),
        std::net::IpAddr::V6(address) => Some(family(u128::from(address), 128, '6')),
    }
}

fn compared(asked: &Asked<'_>, operator: &str, expected: &str, value: &str) -> Option<bool> {
    let order = |left: Option<f64>, right: Option<f64>| {
        let order = left.zip(right).and_then(|(left, right)| left.partial_cmp(&right));
        Some(order.is_some_and(|order| match operator.trim_start_matches("Numeric").trim_start_matches("Date") {
            "LessThan" => order.is_lt(),
            "LessThanEquals" => order.is_le(),
            "GreaterThan" => order.is_gt(),
            "GreaterThanEquals" => order.is_ge(),
            _ => order.is_eq(),
        }))
    };
    match operator {
        "StringEquals" | "BinaryEquals" => asked.like(expected, value, false, false),
        "StringEqualsIgnoreCase" | "Bool" => asked.like(expected, value, false, true),
        "StringLike" => asked.like(expected, value, true, false),
        "ArnEquals" | "ArnLike" => {
            let (parts, patterns) = (value.splitn(6, ':'), expected.splitn(6, ':'));
            if parts.clone().count() < 6 {
                return Some(false);
            }
            if expected == "*" {
                return Some(true);
            }
            let answers: Vec<_> = patterns.zip(parts).map(|(p, part)| asked.like(p, part, true, false)).collect();
            if answers.contains(&Some(false)) {
                return Some(false);
            }
            if answers.contains(&None) { None } else { Some(true) }
        }
        "IpAddress" => {
            let (address, prefix) = expected.split_once('/').unwrap_or((expected, "128"));
            let (range, address) = (bits(address).unwrap(), bits(value));
            let digits = (prefix.parse::<usize>().unwrap() + 1).min(range.len());
            Some(address.is_some_and(|address| address.starts_with(&range[..digits])))
        }
        numeric if numeric.starts_with("Numeric") => order(value.parse().ok(), expected.parse().ok()),
        _ => order(seconds(value).map(|s| s as f64), seconds(expected).map(|s| s as f64)),
    }
}

fn condition_holds(asked: &Asked<'_>, operator: &str, key: &str, expected: &Value, is_deny: bool) -> bool {
    let (set, name) = operator.split_once(':').unwrap_or(("", operator));
    let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
    let positive = name.replace("Not", "");
    let is_negated = positive != name;
    let values = asked.values(key);
    let is_empty = values.iter().all(String::is_empty);
    if name == "Null" {
        return list(expected).contains(&is_empty.to_string());
    }
    if values.is_empty() && if_exists {
        return true;
    }
    let satisfied = |value: &String| {
        let answers = list(expected).iter().map(|expected| compared(asked, &positive, expected, value)).collect();
        match one(answers) {
            None => is_negated && is_deny,
            Some(answer) => answer != is_negated,
        }
    };
    match (set, is_negated) {
        ("ForAllValues", _) => is_empty || values.iter().all(satisfied),
        ("ForAnyValue", _) => !is_empty && values.iter().any(satisfied),
        (_, false) => values.iter().any(satisfied),
        (_, true) => values.iter().all(satisfied),
    }
}

fn statement_applies(asked: &Asked<'_>, statement: &Value) -> bool {
    let is_deny = statement["Effect"] == "Deny";
    let named = |name: &str| {
        let account = name.strip_prefix("arn:aws:iam::").and_then(|rest| rest.strip_suffix(":root"));
        name == "*" || asked.caller.names.iter().any(|own| own == account.unwrap_or(name))
    };
    let of_principal = |element: &Value| match element.as_object() {
        None => list(element),
        Some(kinds) => kinds.values().flat_map(list).collect(),
    };
    if let Some(principal) = statement.get("Principal")
        && !of_principal(principal).iter().any(|name| named(name))
    {
        return false;
    }
    if let Some(not) = statement.get("NotPrincipal") {
        let excepted = of_principal(not);
        let excepted: Vec<_> =
            excepted.iter().map(|name| name.replace("arn:aws:iam::222222222222:root", OTHER)).collect();
        if !asked.caller.names.is_empty() && asked.caller.names.iter().all(|own| excepted.contains(own)) {
            return false;
        }
    }
    let element = |name: &str, text: &str, fold: bool| {
        let answers = |patterns: &Value| one(list(patterns).iter().map(|p| asked.like(p, text, true, fold)).collect());
        if let Some(patterns) = statement.get(name) {
            return answers(patterns) == Some(true);
        }
        statement.get(format!("Not{name}")).is_none_or(|patterns| match answers(patterns) {
            None => is_deny,
            Some(answer) => !answer,
        })
    };
    let conditions = statement.get("Condition").and_then(Value::as_object);
    element("Action", asked.action, true)
        && element("Resource", asked.resource, false)
        && conditions.into_iter().flatten().all(|(operator, keys)| {
            let mut keys = keys.as_object().unwrap().iter();
            keys.all(|(key, expected)| condition_holds(asked, operator, key, expected, is_deny))
        })
}

/// Whether the request is allowed, by the words of the documentation.
fn model(asked: &Asked<'_>, identity: &Value, resource: &Value) -> bool {
    let says = |statements: &Value, effect: &str| {
        let statements = statements.as_array().unwrap().iter();
        statements
            .filter(|statement| statement["Effect"] == effect)
            .any(|statement| statement_applies(asked, statement))
    };
    let has_identity = asked.caller.account.is_some();
    if says(resource, "Deny") || has_identity && says(identity, "Deny") {
        return false;
    }
    let by_resource = says(resource, "Allow");
    let by_identity = has_identity && (asked.caller.is_root || says(identity, "Allow"));
    match asked.caller.account {
        None => by_resource,
        Some(OWNER) => by_resource || by_identity,
        Some(_) => by_resource && by_identity,
    }
}

fn one_or_more<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> impl Strategy<Value = Value>
where
    Value: From<Vec<T>> + From<T>,
{
    subsequence(values, 1..=2)
        .prop_map(|mut chosen| if chosen.len() == 1 { Value::from(chosen.remove(0)) } else { Value::from(chosen) })
}

fn texts() -> Vec<&'static str> {
    vec![
        "a",
        "A",
        "ann",
        "b",
        "a*",
        "?",
        "*n",
        "",
        "${aws:username}",
        "${aws:username, 'b'}*",
        "${x:one}",
        "${x:many}",
        "${*}",
        "a${*}",
        "${aws:PrincipalTag/t}",
    ]
}

fn condition() -> impl Strategy<Value = Value> {
    let operators = vec![
        ("StringEquals", texts()),
        ("StringNotEquals", texts()),
        ("StringEqualsIgnoreCase", texts()),
        ("StringNotEqualsIgnoreCase", texts()),
        ("StringLike", texts()),
        ("StringNotLike", texts()),
        ("ArnLike", vec!["*", "arn:aws:iam::*:*", "arn:*:iam::*:user/${aws:username}", "arn:aws:iam:::role/r"]),
        ("ArnNotEquals", vec!["*", "arn:aws:iam::111111111111:*", "arn:*:iam::*:*/${aws:username}"]),
        ("NumericEquals", vec!["1", "1.5", "-2"]),
        ("NumericNotEquals", vec!["1", "1.5", "-2"]),
        ("NumericLessThan", vec!["1", "1.5", "-2"]),
        ("NumericLessThanEquals", vec!["1", "1.5"]),
        ("NumericGreaterThan", vec!["1", "1.5", "-2"]),
        ("NumericGreaterThanEquals", vec!["1", "1.5"]),
        ("DateEquals", vec!["2026-01-01", "1767225601", "1"]),
        ("DateNotEquals", vec!["2026-01-01", "1767225601"]),
        ("DateLessThan", vec!["2026-01-01T00:00:01Z", "1767225601"]),
        ("DateGreaterThanEquals", vec!["2026-01-01T01:00:00+01:00", "2"]),
        ("IpAddress", vec!["10.0.0.0/8", "10.0.0.1", "10.0.0.0/31", "fd00::/8", "0.0.0.0/0"]),
        ("NotIpAddress", vec!["10.0.0.0/8", "10.0.0.1/32", "fd00::/127", "::/0"]),
        ("Bool", vec!["true", "false", "${x:one}"]),
        ("BinaryEquals", vec!["AAAA", "AAE="]),
        ("Null", vec!["true", "false"]),
    ];
    let keys = vec!["x:one", "X:Many", "x:none", "aws:UserName", "aws:PrincipalTag/T", "aws:PrincipalArn"];
    (select(operators), select(keys), select(&["", "", "ForAllValues:", "ForAnyValue:"][..]), any::<bool>())
        .prop_flat_map(|((name, values), key, set, if_exists)| {
            let operator = match name {
                "Null" => name.to_owned(),
                _ => format!("{set}{name}{}", if if_exists { "IfExists" } else { "" }),
            };
            one_or_more(values).prop_map(move |values| json!({ operator.clone(): {key: values} }))
        })
}

fn statement(kind: Kind) -> impl Strategy<Value = Value> {
    let actions = vec!["*", "a:*", "A:x", "a:?", "b:y", "b:?y"];
    let resources = vec![
        "*",
        "arn:aws:s:::ann",
        "arn:aws:s:::a*",
        "arn:*:*:*:*:${aws:username}",
        "arn:aws:s:::${aws:username, 'b'}",
        "arn:aws:s:::?",
        "arn:aws:s:::${x:one}*",
        "arn:aws:s:::${*}",
    ];
    let principals = vec![
        json!("*"),
        json!({"AWS": "*"}),
        json!({"AWS": OTHER}),
        json!({"AWS": OWNER}),
        json!({"AWS": [USER, "arn:aws:iam::222222222222:root"]}),
        json!({"AWS": [USER, RUN]}),
        json!({"AWS": [ROLE, RUN, OWNER], "Service": "svc"}),
        json!({"AWS": ROLE}),
        json!({"Service": ["svc", "other"]}),
        json!({"Federated": "f"}),
    ];
    let parts = (
        select(&["Allow", "Allow", "Deny"][..]),
        (one_or_more(actions), prop::bool::weighted(0.2)),
        (one_or_more(resources), select(&["Resource", "Resource", "NotResource", ""][..])),
        (select(principals), prop::bool::weighted(0.3)),
        proptest::option::weighted(0.6, condition()),
    );
    parts.prop_map(move |(effect, (action, not_action), (resource, member), (principal, not_principal), condition)| {
        let mut statement = json!({"Effect": effect});
        statement[if not_action { "NotAction" } else { "Action" }] = action;
        if kind == Kind::Resource {
            let is_not = not_principal && effect == "Deny" && principal != "*" && principal["AWS"] != "*";
            statement[if is_not { "NotPrincipal" } else { "Principal" }] = principal;
        }
        match member {
            "" if kind == Kind::Resource => {}
            "" => statement["Resource"] = resource,
            member => statement[member] = resource,
        }
        if let Some(condition) = condition {
            statement["Condition"] = condition;
        }
        statement
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn decisions_agree_with_a_plain_evaluator(
        identity in prop::collection::vec(statement(Kind::Identity), 0..4),
        resource in prop::collection::vec(statement(Kind::Resource), 0..4),
        one in select(&["a", "A", "ann", "a*", "true", "1", "1.50", "-3", "10.0.0.1", "fd00::1", "AAAA", "",
            "2026-01-01", "2026-01-01T00:00:01Z", "arn:aws:iam:::role/r"][..]),
        many in subsequence(vec!["a", "ann", "b", "", "1", "2"], 0..4),
    ) {
        let (identity, resource) = (Value::from(identity), Value::from(resource));
        let load = |kind, statements: &Value| match statements.as_array().unwrap().len() {
            0 => vec![],
            _ => vec![policy(kind, statements)],
        };
        let (of_identity, of_resource) = (load(Kind::Identity, &identity), load(Kind::Resource, &resource));
        let policies = Policies { identity: &of_identity, resource: &of_resource };
        let context = Context::new().with("x:one", one).with_all("x:many", many.clone());
        for (principal, caller) in callers() {
            for action in ["a:x", "b:Y"] {
                for resource_arn in ["arn:aws:s:::ann", "arn:aws:s:::a", "arn:aws:s:::b", "*"] {
                    let asked = Asked {
                        caller: &caller,
                        action,
                        resource: resource_arn,
                        context: &[("x:one", vec![one]), ("x:many", many.clone())],
                    };
                    let decision = policies.decide(&Request {
                        principal: &principal,
                        action,
                        resource: resource_arn,
                        resource_account: account(OWNER),
                        context: &context,
                    });
                    prop_assert_eq!(
                        decision.is_allowed(),
                        model(&asked, &identity, &resource),
                        "{:?} {} {}: {}\n{}\n{}", principal, action, resource_arn, decision, identity, resource
                    );
                }
            }
        }
    }
}
