//! What a policy may say: each rule of ECR's, refused with the place and, where it is known, ECR's text.

use super::super::{
    Limit, MAX_RULES, MAX_TEXT_LEN, PolicyError, PolicyProblem, SignOfLife, StorageClass, TagSelection,
};
use super::*;

const COUNT: &str = r#""tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1"#;

fn refused(text: &str) -> PolicyError {
    let error = Policy::parse(text).expect_err(text);
    assert_eq!(Policy::parse_extended(text).as_ref(), Err(&error), "extensions change no other answer: {text}");
    error
}

/// The text with the place of the error in a policy that has this selection.
fn refused_selection(selection: &str, action: &str) -> String {
    format!("{:#}", refused(&policy(&[(selection, action)])))
}

#[test]
fn a_document_is_an_object_with_rules() {
    for (text, expected) in [
        ("", "Could not map policyString into LifecyclePolicy. See line 1, column 0."),
        ("{\n \"rules\": [}", "Could not map policyString into LifecyclePolicy. See line 2, column 12."),
        ("{\"rules\": []} x", "Could not map policyString into LifecyclePolicy. See line 1, column 15."),
        ("[]", "Could not map policyString into LifecyclePolicy."),
        ("null", "Could not map policyString into LifecyclePolicy."),
        ("{}", r#"object has missing required properties (["rules"])"#),
        (
            r#"{"rules": {}}"#,
            r#"rules: instance type (object) does not match any allowed primitive type (allowed: ["array"])"#,
        ),
        (r#"{"rules": []}"#, "rules: array is too short: must have at least 1 elements but instance has 0 elements"),
        (r#"{"rules": [], "x": 1}"#, r#"object instance has properties which are not allowed by the schema: (["x"])"#),
        (r#"{"rules": [], "rules": []}"#, r#""rules" appears more than once in an object: keep one of them"#),
        (r#"{"Rules": []}"#, r#"object instance has properties which are not allowed by the schema: (["Rules"])"#),
        (
            r#"{"rules": [1]}"#,
            r#"rule 1: instance type (integer) does not match any allowed primitive type (allowed: ["object"])"#,
        ),
        (r#"{"rules": [{}]}"#, r#"rule 1: object has missing required properties (["rulePriority"])"#),
        (
            r#"{"rules": [{"rulePriority": 3, "selection": {}}]}"#,
            r#"rule 1 (rulePriority 3), selection: object has missing required properties (["tagStatus"])"#,
        ),
    ] {
        assert_eq!(format!("{:#}", refused(text)), expected, "{text}");
    }
}

#[test]
fn ecr_answers_with_its_own_text() {
    let text = |text: &str| refused(text).to_string();
    assert_eq!(text("x"), "Could not map policyString into LifecyclePolicy.");
    let tagged = r#""tagStatus": "tagged", "countType": "imageCountMoreThan", "countNumber": 1"#;
    assert_eq!(
        text(&policy(&[(tagged, EXPIRE)])),
        "Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED."
    );
    let untagged = r#""tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 1"#;
    assert_eq!(
        text(&policy(&[(COUNT, EXPIRE), (untagged, EXPIRE)])),
        "Rule for tagStatus=ANY must have the lowest priority per storage class"
    );
    assert_eq!(
        text(&policy(&[(untagged, EXPIRE), (untagged, ARCHIVE)])),
        "Only one rule can select Untagged images per storage class"
    );
    assert_eq!(
        text(&policy(&[(COUNT, r#""type": "delete""#)])),
        r#"instance value ("delete") not found in enum (possible values: ["expire", "transition"])"#
    );
}

#[test]
fn each_rule_of_a_selection_is_checked() {
    let tagged =
        |list: &str| format!(r#""tagStatus": "tagged", {list}, "countType": "imageCountMoreThan", "countNumber": 1"#);
    let since = |count_type: &str, rest: &str| format!(r#""tagStatus": "any", "countType": "{count_type}"{rest}"#);
    let days = r#", "countUnit": "days", "countNumber": 90"#;
    let place = "rule 1 (rulePriority 1), selection";
    for (selection, action, expected) in [
        (
            tagged(r#""tagPatternList": []"#),
            EXPIRE,
            ".tagStatus: Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED.",
        ),
        (
            tagged(r#""tagPatternList": ["a"], "tagPrefixList": ["a"]"#),
            EXPIRE,
            ".tagPrefixList: tagPrefixList is not allowed with tagPatternList: remove it",
        ),
        (
            tagged(r#""tagPrefixList": ["a", ""]"#),
            EXPIRE,
            ".tagPrefixList: a pattern must not be empty: use tagStatus any to select all images",
        ),
        (
            tagged(r#""tagPatternList": ["*test*1*2*3*4*5*6"]"#),
            EXPIRE,
            r#".tagPatternList: "*test*1*2*3*4*5*6" has 7 wildcards: use at most 4"#,
        ),
        (
            tagged(r#""tagPatternList": "a""#),
            EXPIRE,
            r#".tagPatternList: instance type (string) does not match any allowed primitive type (allowed: ["array"])"#,
        ),
        (
            tagged(r#""tagPatternList": [null]"#),
            EXPIRE,
            r#".tagPatternList: instance type (null) does not match any allowed primitive type (allowed: ["string"])"#,
        ),
        (
            format!(r#"{COUNT}, "tagPrefixList": []"#),
            EXPIRE,
            ".tagPrefixList: tagPrefixList is not allowed with tagStatus any: remove it",
        ),
        (
            format!(r#"{}, "tagPatternList": ["a"]"#, COUNT.replace("any", "untagged")),
            EXPIRE,
            ".tagPatternList: tagPatternList is not allowed with tagStatus untagged: remove it",
        ),
        (
            COUNT.replace("any", "all"),
            EXPIRE,
            r#".tagStatus: instance value ("all") not found in enum (possible values: ["tagged", "untagged", "any"])"#,
        ),
        (
            format!(r#"{COUNT}, "countUnit": "days""#),
            EXPIRE,
            ".countUnit: countUnit is not allowed with countType imageCountMoreThan: remove it",
        ),
        (
            format!(r#"{COUNT}, "countUnit": null"#),
            EXPIRE,
            r#".countUnit: instance type (null) does not match any allowed primitive type (allowed: ["string"])"#,
        ),
        (
            since("sinceImagePushed", r#", "countNumber": 1"#),
            EXPIRE,
            ".countUnit: countType sinceImagePushed requires countUnit days: add it",
        ),
        (
            since("sinceImagePushed", r#", "countUnit": "hours", "countNumber": 1"#),
            EXPIRE,
            r#".countUnit: instance value ("hours") not found in enum (possible values: ["days"])"#,
        ),
        (
            since("sinceImageTransitioned", days),
            EXPIRE,
            ".storageClass: countType sinceImageTransitioned requires storageClass archive: add it",
        ),
        (
            since("sinceImagePushed", &format!(r#"{days}, "storageClass": "archive""#)),
            EXPIRE,
            ".storageClass: storageClass archive is not allowed with countType sinceImagePushed: remove it",
        ),
        (
            since("sinceImageTransitioned", r#", "storageClass": "archive", "countUnit": "days", "countNumber": 89"#),
            EXPIRE,
            ".countNumber: numeric instance is lower than the required minimum (minimum: 90, found: 89)",
        ),
        (
            COUNT.replace(": 1", ": 0"),
            EXPIRE,
            ".countNumber: numeric instance is lower than the required minimum (minimum: 1, found: 0)",
        ),
        (
            COUNT.replace(": 1", ": -7"),
            EXPIRE,
            ".countNumber: numeric instance is lower than the required minimum (minimum: 1, found: -7)",
        ),
        (
            COUNT.replace(": 1", ": 2147483648"),
            EXPIRE,
            ".countNumber: numeric instance is greater than the required maximum \
             (maximum: 2147483647, found: 2147483648)",
        ),
        (
            COUNT.replace(": 1", ": 1.0"),
            EXPIRE,
            r#".countNumber: instance type (number) does not match any allowed primitive type (allowed: ["integer"])"#,
        ),
        (
            COUNT.replace("countNumber", "count"),
            EXPIRE,
            r#": object instance has properties which are not allowed by the schema: (["count"])"#,
        ),
    ] {
        assert_eq!(refused_selection(&selection, action), format!("{place}{expected}"), "{selection}");
    }
}

#[test]
fn each_rule_of_an_action_is_checked() {
    let transitioned = r#""tagStatus": "any", "storageClass": "archive", "countType": "sinceImageTransitioned",
        "countUnit": "days", "countNumber": 90"#;
    for (selection, action, expected) in [
        (
            COUNT,
            r#""type": "transition""#,
            ".targetStorageClass: type transition requires targetStorageClass archive: add it",
        ),
        (
            COUNT,
            r#""type": "expire", "targetStorageClass": "archive""#,
            ".targetStorageClass: targetStorageClass is not allowed with type expire: remove it",
        ),
        (
            COUNT,
            r#""type": "expire", "targetStorageClass": null"#,
            ".targetStorageClass: instance type (null) does not match any allowed primitive type \
             (allowed: [\"string\"])",
        ),
        (
            COUNT,
            r#""type": "transition", "targetStorageClass": "standard""#,
            r#".targetStorageClass: instance value ("standard") not found in enum (possible values: ["archive"])"#,
        ),
        (COUNT, "", r#": object has missing required properties (["type"])"#),
        (
            transitioned,
            ARCHIVE,
            ".type: type transition is not allowed with countType sinceImageTransitioned: remove it",
        ),
    ] {
        assert_eq!(
            refused_selection(selection, action),
            format!("rule 1 (rulePriority 1), action{expected}"),
            "{action}"
        );
    }
}

#[test]
fn rules_are_checked_together() {
    let tagged =
        |list: &str| format!(r#""tagStatus": "tagged", {list}, "countType": "imageCountMoreThan", "countNumber": 1"#);
    let text = policy(&[(&tagged(r#""tagPrefixList": ["a"]"#), EXPIRE), (COUNT, EXPIRE)]);
    let error = refused(&text.replace(r#""rulePriority": 2"#, r#""rulePriority": 1"#));
    assert_eq!((error.rule, error.priority), (Some(2), Some(1)));
    assert_eq!(error.problem, PolicyProblem::SamePriority { priority: 1 });

    let a_then_b = tagged(r#""tagPatternList": ["a*", "b*"]"#);
    let b_then_a = tagged(r#""tagPrefixList": ["b", "a", "b"]"#);
    let error = refused(&policy(&[(&a_then_b, EXPIRE), (&b_then_a, ARCHIVE)]));
    assert_eq!(error.problem, PolicyProblem::SameTags { first: 1, second: 2 });
    assert!(Policy::parse(&policy(&[(&a_then_b, EXPIRE), (&tagged(r#""tagPatternList": ["a*"]"#), EXPIRE)])).is_ok());

    // Two rules for all images are one too many, whichever is last; of each class there may be one.
    assert_eq!(refused(&policy(&[(COUNT, EXPIRE), (COUNT, ARCHIVE)])).problem, PolicyProblem::AnyNotLast);
    let archived = r#""tagStatus": "any", "storageClass": "archive", "countType": "sinceImageTransitioned",
        "countUnit": "days", "countNumber": 365"#;
    for rules in [[(COUNT, EXPIRE), (archived, EXPIRE)], [(archived, EXPIRE), (COUNT, EXPIRE)]] {
        assert!(Policy::parse(&policy(&rules)).is_ok());
    }
    let archived = archived.replace("any", "untagged");
    let untagged = COUNT.replace("any", "untagged");
    assert!(Policy::parse(&policy(&[(&untagged, EXPIRE), (&archived, EXPIRE), (COUNT, EXPIRE)])).is_ok());
}

#[test]
fn the_order_in_the_document_does_not_matter() {
    let untagged = COUNT.replace("any", "untagged");
    let text =
        policy(&[(COUNT, EXPIRE), (&untagged, EXPIRE)]).replace(r#""rulePriority": 1"#, r#""rulePriority": 1000"#);
    let policy = Policy::parse(&text).unwrap();
    let priorities: Vec<_> = policy.rules().iter().map(|rule| rule.priority).collect();
    assert_eq!(priorities, [2, 1000]);
}

#[test]
fn lengths_are_bounded() {
    let rules = |count: usize| {
        let count_type = r#""countType": "imageCountMoreThan", "countNumber": 1"#;
        let list = |n| format!(r#""tagStatus": "tagged", "tagPrefixList": ["{n}"], {count_type}"#);
        let lists: Vec<_> = (0..count).map(list).collect();
        policy(&lists.iter().map(|list| (&list[..], EXPIRE)).collect::<Vec<_>>())
    };
    assert_eq!(Policy::parse(&rules(MAX_RULES)).unwrap().rules().len(), MAX_RULES);
    assert_eq!(refused(&rules(MAX_RULES + 1)).problem, PolicyProblem::TooMany { max: 50, found: 51 });

    let padded = |len: usize| {
        let text = policy(&[(COUNT, EXPIRE)]).replace("}]", r#", "description": ""}]"#);
        text.replace(r#""""#, &format!(r#""{}""#, "é".repeat(len - text.len())))
    };
    assert!(Policy::parse(&padded(MAX_TEXT_LEN)).is_ok(), "characters, not bytes");
    let found = MAX_TEXT_LEN + 1;
    assert_eq!(refused(&padded(found)).problem, PolicyProblem::TooLong { found, max: MAX_TEXT_LEN });
}

#[test]
fn a_policy_reads_as_it_is_written() {
    let text = r#"{"rules": [{"rulePriority": 5, "description": "d", "selection": {"tagStatus": "tagged",
        "tagPrefixList": ["v", "a*b"], "storageClass": "standard", "countType": "sinceImagePulled",
        "countUnit": "days", "countNumber": 30}, "action": {"type": "transition", "targetStorageClass": "archive"}}]}"#;
    let policy = Policy::parse(text).unwrap();
    let rule = &policy.rules()[0];
    assert_eq!((rule.priority, rule.description.as_deref(), rule.action), (5, Some("d"), ActionKind::Archive));
    let selection = &rule.selection;
    assert_eq!((selection.class, selection.limit), (StorageClass::Standard, Limit::Pulled { days: 30 }));
    let TagSelection::Tagged(patterns) = &selection.tags else { panic!("{selection:?}") };
    assert_eq!(patterns.iter().map(|pattern| pattern.as_str()).collect::<Vec<_>>(), ["a*b*", "v*"]);
    assert_eq!((selection.sign_of_life, selection.artifact_types.len()), (SignOfLife::None, 0));
    assert_eq!(Policy::parse_extended(text), Ok(policy));
}

#[test]
fn extensions_are_refused_by_name_unless_asked_for() {
    let pulled = r#""tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 1"#;
    for (selection, name) in [
        (pulled.to_owned(), "expire with countType sinceImagePulled"),
        (format!(r#"{COUNT}, "signOfLife": "tag""#), "signOfLife"),
        (format!(r#"{COUNT}, "artifactTypeList": ["a/*"]"#), "artifactTypeList"),
    ] {
        let text = policy(&[(&selection, EXPIRE)]);
        let error = Policy::parse(&text).unwrap_err();
        assert_eq!(error.problem, PolicyProblem::Extension { name });
        assert!(error.to_string().contains("remove it, or allow extensions"), "{error}");
        assert!(Policy::parse_extended(&text).is_ok(), "{text}");
    }
    let extended =
        |selection: &str| format!("{:#}", Policy::parse_extended(&policy(&[(selection, EXPIRE)])).unwrap_err());
    let place = "rule 1 (rulePriority 1), selection.";
    assert_eq!(
        extended(&format!(r#"{COUNT}, "signOfLife": "pull""#)),
        format!(r#"{place}signOfLife: instance value ("pull") not found in enum (possible values: ["tag"])"#)
    );
    assert_eq!(
        extended(&format!(r#"{COUNT}, "artifactTypeList": []"#)),
        format!(
            "{place}artifactTypeList: array is too short: must have at least 1 elements but instance has 0 elements"
        )
    );
    let archived = r#""tagStatus": "any", "storageClass": "archive", "countType": "sinceImageTransitioned",
        "countUnit": "days", "countNumber": 365, "signOfLife": "tag""#;
    assert_eq!(
        extended(archived),
        format!("{place}signOfLife: signOfLife is not allowed with countType sinceImageTransitioned: remove it")
    );

    // Rules for artifacts are a group of their own.
    let sboms = format!(r#"{COUNT}, "artifactTypeList": ["application/spdx*"]"#);
    let others = format!(r#"{COUNT}, "artifactTypeList": ["application/vnd.*"]"#);
    let rules = [(&sboms[..], EXPIRE), (&others, EXPIRE), (COUNT, EXPIRE)];
    assert!(Policy::parse_extended(&policy(&rules)).is_ok());
    let error = Policy::parse_extended(&policy(&[(&sboms, EXPIRE), (&sboms, EXPIRE)])).unwrap_err();
    assert_eq!(error.problem, PolicyProblem::AnyNotLast);
}
