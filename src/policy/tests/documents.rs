//! Which documents are policies.

use super::*;

/// The error for a document with this statement.
fn error(kind: Kind, statement: &Value) -> String {
    Policy::parse(&document(statement), kind).expect_err(&statement.to_string()).to_string()
}

#[test]
fn documents_of_the_user_guides_are_policies() {
    let of_resource = [
        // ECR's examples of repository policies
        r#"{"Version": "2008-10-17", "Statement": [{"Sid": "AllowPush", "Effect": "Allow", "Principal": {"AWS":
            ["arn:aws:iam::111111111111:user/push-pull-user-1", "arn:aws:iam::111111111111:user/push-pull-user-2"]},
            "Action": ["ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability", "ecr:CompleteLayerUpload",
            "ecr:GetDownloadUrlForLayer", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"]}]}"#,
        r#"{"Version": "2008-10-17", "Id": "x", "Statement": [{"Sid": "AllowCrossAccountPush", "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::222222222222:root"}, "Action": "ecr:PutImage"}]}"#,
        r#"{"Version": "2008-10-17", "Statement": [{"Sid": "AllowPull", "Effect": "Allow", "Principal": "*",
            "Action": "ecr:*", "Condition": {"NotIpAddress": {"aws:SourceIp": "54.240.143.188/32"},
            "IpAddress": {"aws:SourceIp": "54.240.143.0/24"}}}]}"#,
        r#"{"Version": "2012-10-17", "Statement": [{"Sid": "CodeBuildAccess", "Effect": "Allow",
            "Principal": {"Service": "codebuild.amazonaws.com"}, "Action": ["ecr:BatchGetImage"],
            "Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:codebuild:eu-west-1:123456789012:project/p"},
            "StringEquals": {"aws:SourceAccount": "123456789012"}}}]}"#,
        // two statements with one Sid, with spaces; several kinds of principals
        r#"{"Statement": [
            {"Sid": "a b", "Effect": "Deny", "Principal": {"AWS": "*", "Service": ["a.example"]}, "NotAction": "ecr:*"},
            {"Sid": "a b", "Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*", "Condition": {}}]}"#,
    ];
    for text in of_resource {
        assert!(Policy::parse(text, Kind::Resource).is_ok_and(|policy| policy.kind() == Kind::Resource), "{text}");
    }
    let of_identity = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "dynamodb:*",
        "Resource": "arn:aws:dynamodb:us-east-2:123456789012:table/${aws:username}"}}"#;
    assert!(Policy::parse(of_identity, Kind::Identity).is_ok());
}

#[test]
fn what_the_language_does_not_have_is_refused_with_its_place() {
    let whole = json!({"Effect": "Allow", "Action": "ecr:*", "Resource": "*"});
    // the member that is changed, its value (null: it is removed), the error
    let changes: &[(&str, Value, &str)] = &[
        ("Effect", json!(null), "at /Statement: Effect is missing"),
        ("Effect", json!("allow"), "at /Statement/Effect: \"allow\" is not valid: expected \"Allow\" or \"Deny\""),
        ("Effect", json!(["Allow"]), "at /Statement/Effect: expected a string, found a list"),
        ("Action", json!(null), "at /Statement: Action is missing"),
        ("Action", json!([]), "at /Statement/Action: the list is empty"),
        ("Action", json!(["ecr:*", 7]), "at /Statement/Action/1: expected a string, found a number"),
        ("Action", json!([["ecr:*"]]), "at /Statement/Action/0: expected a string, found a list"),
        ("Action", json!("BatchGetImage"), "at /Statement/Action: \"BatchGetImage\" is not valid"),
        ("Action", json!("e*:x"), "at /Statement/Action: "),
        ("Action", json!("ecr:${x:y}"), "at /Statement/Action: "),
        ("Action", json!(""), "at /Statement/Action: "),
        ("NotAction", json!("ecr:*"), "at /Statement: Action and NotAction exclude each other"),
        ("Resource", json!(null), "at /Statement: Resource is missing"),
        ("Resource", json!("repository/app"), "at /Statement/Resource: "),
        ("Resource", json!("arn:aws:ecr"), "at /Statement/Resource: "),
        ("Resource", json!("arn:aws:s:::${aws:username"), "at /Statement/Resource: "),
        ("Resource", json!("arn:aws:s:::${username}"), "at /Statement/Resource: "),
        ("Resource", json!("arn:aws:s:::${a:b, none}"), "at /Statement/Resource: "),
        ("Resource", json!("arn:aws:s:::${}"), "at /Statement/Resource: "),
        ("NotResource", json!("*"), "at /Statement: Resource and NotResource exclude each other"),
        ("Principal", json!("*"), "at /Statement: Principal is not allowed here"),
        ("NotPrincipal", json!({"AWS": OTHER}), "at /Statement: Principal is not allowed here"),
        ("Sid", json!(7), "at /Statement/Sid: expected a string, found a number"),
        ("action", json!("ecr:*"), "at /Statement: unknown element \"action\": expected one of Sid, Effect"),
        ("Conditions", json!({}), "at /Statement: unknown element \"Conditions\""),
        ("Condition", json!([]), "at /Statement/Condition: expected an object, found a list"),
        ("Condition", json!({"StringEqual": {}}), "at /Statement/Condition/StringEqual: unknown condition operator"),
        ("Condition", json!({"NullIfExists": {"a:b": true}}), "at /Statement/Condition/NullIfExists: unknown"),
        ("Condition", json!({"ForSomeValues:StringLike": {"a:b": "c"}}), "at /Statement/Condition/ForSome"),
        ("Condition", json!({"ForAllValues:Null": {"a:b": true}}), "at /Statement/Condition/ForAllValues:Null"),
        ("Condition", json!({"StringLike": {}}), "at /Statement/Condition/StringLike: the list is empty"),
        ("Condition", json!({"StringLike": {"a:b": []}}), "at /Statement/Condition/StringLike/a:b: the list is empty"),
        ("Condition", json!({"StringLike": {"a:b": null}}), "at /Statement/Condition/StringLike/a:b: expected"),
        ("Condition", json!({"StringLike": {"a:b": 1.5}}), "at /Statement/Condition/StringLike/a:b: expected"),
        ("Condition", json!({"StringLike": {"a/b~": "c"}}), "at /Statement/Condition/StringLike/a~1b~0: \"a/b~\" is"),
        ("Condition", json!({"StringLike": {"a:b": "x", "A:B": "y"}}), "at /Statement/Condition/StringLike: \"a:b\""),
        ("Condition", json!({"NumericEquals": {"a:b": "1e3"}}), "at /Statement/Condition/NumericEquals/a:b: "),
        ("Condition", json!({"NumericEquals": {"a:b": 1e300}}), "at /Statement/Condition/NumericEquals/a:b: "),
        ("Condition", json!({"NumericEquals": {"a:b": "${x:y}"}}), "at /Statement/Condition/NumericEquals/a:b: "),
        ("Condition", json!({"DateEquals": {"a:b": "2026-02-29"}}), "at /Statement/Condition/DateEquals/a:b: "),
        ("Condition", json!({"DateEquals": {"a:b": "2026-11-30T12:00:00"}}), "at /Statement/Condition/DateEquals/"),
        ("Condition", json!({"DateEquals": {"a:b": "tomorrow"}}), "at /Statement/Condition/DateEquals/a:b: "),
        ("Condition", json!({"IpAddress": {"a:b": "203.0.113.0/33"}}), "at /Statement/Condition/IpAddress/a:b: "),
        ("Condition", json!({"IpAddress": {"a:b": "203.0.113.0/+8"}}), "at /Statement/Condition/IpAddress/a:b: "),
        ("Condition", json!({"IpAddress": {"a:b": "203.0.113"}}), "at /Statement/Condition/IpAddress/a:b: "),
        ("Condition", json!({"Bool": {"a:b": "yes"}}), "at /Statement/Condition/Bool/a:b: "),
        ("Condition", json!({"Null": {"a:b": "maybe"}}), "at /Statement/Condition/Null/a:b: "),
        ("Condition", json!({"BinaryEquals": {"a:b": "%"}}), "at /Statement/Condition/BinaryEquals/a:b: "),
        ("Condition", json!({"ArnLike": {"a:b": "arn:aws:s3:*"}}), "at /Statement/Condition/ArnLike/a:b: "),
    ];
    for (name, value, expected) in changes {
        let mut statement = whole.clone();
        match value {
            Value::Null => drop(statement.as_object_mut().unwrap().remove(*name)),
            value => statement[*name] = value.clone(),
        }
        let found = error(Kind::Identity, &statement);
        assert!(found.starts_with(expected), "{found} is not {expected}");
    }
}

#[test]
fn policies_of_resources_say_whom_they_are_about() {
    let statement = json!({"Effect": "Deny", "Action": "*"});
    assert_eq!(error(Kind::Resource, &statement), "at /Statement: Principal is missing");
    let both = json!({"Effect": "Deny", "Action": "*", "Principal": "*", "NotPrincipal": {"AWS": OTHER}});
    assert!(error(Kind::Resource, &both).contains("Principal and NotPrincipal exclude each other"));
    let allow = json!({"Effect": "Allow", "Action": "*", "NotPrincipal": {"AWS": OTHER}});
    assert!(error(Kind::Resource, &json!([allow])).starts_with("at /Statement/0: NotPrincipal is not allowed here"));
    let nobody = json!({"Effect": "Deny", "Action": "*", "NotPrincipal": {"AWS": "*"}});
    assert!(error(Kind::Resource, &nobody).contains("never applies"));
}

#[test]
fn documents_that_are_no_policies_are_refused() {
    let statement = r#"{"Effect": "Allow", "Action": "*", "Resource": "*"}"#;
    let table = [
        (String::new(), "not valid JSON"),
        ("policy".into(), "not valid JSON"),
        (format!("{{\"Statement\": {statement}}} x"), "not valid JSON"),
        ("[]".into(), "expected an object, found a list"),
        ("{}".into(), "Statement is missing"),
        ("{\"Statement\": []}".into(), "at /Statement: the list is empty"),
        ("{\"Statement\": [7]}".into(), "at /Statement/0: expected an object, found a number"),
        (format!("{{\"Statement\": [{statement}, [{statement}]]}}"), "at /Statement/1: expected an object"),
        (format!("{{\"Version\": \"2012-10-18\", \"Statement\": {statement}}}"), "at /Version: \"2012-10-18\" is not"),
        (format!("{{\"Version\": 2012, \"Statement\": {statement}}}"), "at /Version: expected a string"),
        (format!("{{\"version\": \"2012-10-17\", \"Statement\": {statement}}}"), "unknown element \"version\""),
        (format!("{{\"Id\": null, \"Statement\": {statement}}}"), "at /Id: expected a string, found null"),
    ];
    for (text, expected) in table {
        let error = Policy::parse(&text, Kind::Identity).expect_err(&text).to_string();
        assert!(error.starts_with(expected), "{error} is not {expected}");
    }
}

#[test]
fn the_limit_counts_characters() {
    let text = |padding: usize| {
        let statement = r#"{"Effect": "Allow", "Action": "*", "Resource": "*"}"#;
        let empty = format!("{{\"Id\": \"\", \"Statement\": {statement}}}").len();
        format!("{{\"Id\": \"{}\", \"Statement\": {statement}}}", "é".repeat(padding - empty))
    };
    assert!(Policy::parse(&text(10_240), Kind::Identity).is_ok());
    let problem = Policy::parse(&text(10_241), Kind::Identity).unwrap_err().problem;
    assert!(matches!(problem, PolicyProblem::TooLong { length: 10_241, limit: 10_240 }), "{problem}");
    assert!(Policy::parse_within(&text(20_000), Kind::Identity, 20_000).is_ok());
    assert!(Policy::parse_within(&text(100), Kind::Identity, 99).is_err());
}
