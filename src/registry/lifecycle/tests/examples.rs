//! The worked examples of the Amazon ECR user guide, "Examples of lifecycle policies in Amazon ECR".
//!
//! Where the guide gives images and a result, those are here. Where it gives a policy alone, images stand on both sides
//! of its limits.

use super::super::{Image, ImageStatus};
use super::*;

const TAGGED: &str = r#""tagStatus": "tagged", "tagPatternList""#;
const UNTAGGED: &str = r#""tagStatus": "untagged""#;
const ANY: &str = r#""tagStatus": "any""#;

fn newest(tags: &str, count: u32) -> String {
    format!(r#"{tags}, "countType": "imageCountMoreThan", "countNumber": {count}"#)
}

fn days(tags: &str, count_type: &str, days: u32) -> String {
    format!(r#"{tags}, "countType": "{count_type}", "countUnit": "days", "countNumber": {days}"#)
}

struct Example {
    name: &'static str,
    rules: Vec<(String, &'static str)>,
    images: Vec<(Image<'static, &'static str>, &'static [&'static str])>,
    result: &'static [&'static str],
}

fn with_prefixes(policy: &str) -> String {
    policy.replace("tagPatternList", "tagPrefixList").replace("*\"", "\"")
}

#[test]
fn each_example_comes_to_the_result_that_aws_gives() {
    let releases = vec![
        (pushed("A", 10), &["beta-1", "prod-1"][..]),
        (pushed("B", 9), &["beta-2", "prod-2"]),
        (pushed("C", 8), &["beta-3"]),
    ];
    let archived =
        |key, days| Image { status: ImageStatus::Archived, archived_ms: Some(NOW - days * DAY), ..pushed(key, 5_000) };
    let pulled = |key, days| Image { pulled_ms: Some(NOW - days * DAY), ..pushed(key, 5_000) };
    let not_pulled = vec![(pulled("A", 91), &["v1"][..]), (pulled("B", 90), &[]), (pushed("C", 91), &[])];
    let examples = [
        Example {
            name: "filtering on image age",
            rules: vec![(days(&format!(r#"{TAGGED}: ["prod*"]"#), "sinceImagePushed", 14), EXPIRE)],
            images: vec![
                (pushed("A", 15), &["prod-1"]),
                (pushed("B", 14), &["prod-2"]),
                (pushed("C", 15), &["dev"]),
                (pushed("D", 15), &[]),
            ],
            result: &["A"],
        },
        Example {
            name: "filtering on last pulled time",
            rules: vec![(days(ANY, "sinceImagePulled", 90), ARCHIVE)],
            images: not_pulled.clone(),
            result: &["(A)", "(C)"],
        },
        Example {
            name: "filtering on archive transition time",
            rules: vec![(days(&format!(r#"{ANY}, "storageClass": "archive""#), "sinceImageTransitioned", 365), EXPIRE)],
            images: vec![(archived("A", 366), &["v1"]), (archived("B", 365), &[]), (pushed("C", 400), &[])],
            result: &["A"],
        },
        Example {
            name: "filtering on image count",
            rules: vec![(newest(UNTAGGED, 1), EXPIRE)],
            images: vec![(pushed("A", 3), &[]), (pushed("B", 2), &[]), (pushed("C", 1), &[]), (pushed("D", 9), &["t"])],
            result: &["A", "B"],
        },
        Example {
            name: "multiple rules, A",
            rules: vec![
                (newest(&format!(r#"{TAGGED}: ["prod*"]"#), 1), EXPIRE),
                (newest(&format!(r#"{TAGGED}: ["beta*"]"#), 1), EXPIRE),
            ],
            images: releases.clone(),
            result: &["A"],
        },
        Example {
            name: "multiple rules, B",
            rules: vec![
                (newest(&format!(r#"{TAGGED}: ["beta*"]"#), 1), EXPIRE),
                (newest(&format!(r#"{TAGGED}: ["prod*"]"#), 1), EXPIRE),
            ],
            images: releases,
            result: &["A", "B"],
        },
        Example {
            name: "multiple tags in a single rule, A",
            rules: vec![(days(&format!(r#"{TAGGED}: ["alpha*", "beta*"]"#), "sinceImagePushed", 5), EXPIRE)],
            images: vec![
                (pushed("A", 12), &["alpha-1"]),
                (pushed("B", 11), &["beta-1"]),
                (pushed("C", 10), &["alpha-2", "beta-2"]),
                (pushed("D", 4), &["alpha-3"]),
                (pushed("E", 3), &["beta-3"]),
                (pushed("F", 2), &["alpha-4", "beta-4"]),
            ],
            result: &["C"],
        },
        Example {
            name: "multiple tags in a single rule, B",
            rules: vec![(newest(&format!(r#"{TAGGED}: ["alpha*", "beta*"]"#), 1), EXPIRE)],
            images: vec![
                (pushed("A", 10), &["alpha-1", "beta-1", "gamma-1"]),
                (pushed("B", 9), &["alpha-2", "beta-2"]),
                (pushed("C", 8), &["alpha-3", "beta-3", "gamma-2"]),
            ],
            result: &["A", "B"],
        },
        Example {
            name: "all images, A",
            rules: vec![(newest(ANY, 1), EXPIRE)],
            images: vec![
                (pushed("A", 4), &["alpha-1"]),
                (pushed("B", 3), &["beta-1"]),
                (pushed("C", 2), &[]),
                (pushed("D", 1), &["alpha-2"]),
            ],
            result: &["A", "B", "C"],
        },
        Example {
            name: "all images, B",
            rules: vec![
                (newest(&format!(r#"{TAGGED}: ["alpha*"]"#), 1), EXPIRE),
                (days(UNTAGGED, "sinceImagePushed", 1), EXPIRE),
                (newest(ANY, 1), EXPIRE),
            ],
            images: vec![
                (pushed("A", 4), &["alpha-1", "beta-1"]),
                (pushed("B", 3), &[]),
                (pushed("C", 2), &["alpha-2"]),
                (pushed("D", 1), &["git hash"]),
                (pushed("E", 1), &[]),
            ],
            result: &["A", "B", "D"],
        },
        Example {
            name: "archiving images older than a specified number of days",
            rules: vec![(days(&format!(r#"{TAGGED}: ["prod*"]"#), "sinceImagePushed", 30), ARCHIVE)],
            images: vec![
                (pushed("A", 31), &["prod"]),
                (pushed("B", 30), &["prod-2"]),
                (pushed("C", 31), &["dev-1"]),
                (archived("D", 31), &["prod-3"]),
            ],
            result: &["(A)"],
        },
        Example {
            name: "archiving images not pulled in a specified number of days",
            rules: vec![(days(ANY, "sinceImagePulled", 90), ARCHIVE)],
            images: not_pulled,
            result: &["(A)", "(C)"],
        },
        Example {
            name: "combining archive and expire rules",
            rules: vec![
                (days(ANY, "sinceImagePushed", 30), ARCHIVE),
                (days(&format!(r#"{ANY}, "storageClass": "archive""#), "sinceImageTransitioned", 365), EXPIRE),
            ],
            images: vec![
                (pushed("A", 31), &["v1"]),
                (pushed("B", 29), &[]),
                (archived("C", 366), &["v0"]),
                (archived("D", 300), &[]),
            ],
            result: &["C", "(A)"],
        },
    ];
    for Example { name, rules, images, result } in examples {
        let rules: Vec<_> = rules.iter().map(|(selection, action)| (&selection[..], *action)).collect();
        let text = policy(&rules);
        for text in [with_prefixes(&text), text] {
            let strict = Policy::parse(&text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let plan = evaluate(&strict, NOW, images.iter().copied());
            let done = done(&plan).into_iter().map(|(image, _)| image).collect::<Vec<_>>();
            assert_eq!(done, result, "{name}");
            let summary = plan.summary;
            assert_eq!((summary.evaluated, summary.acting()), (images.len(), result.len()), "{name}");
        }
    }
}

#[test]
fn a_rule_that_keeps_images_protects_them_from_those_below() {
    // AWS's answer to "expire all but prod and dev after 60 days": rules that never mark come first.
    let text = policy(&[
        (&days(&format!(r#"{TAGGED}: ["prod*"]"#), "sinceImagePushed", 10_950), EXPIRE),
        (&days(&format!(r#"{TAGGED}: ["dev*"]"#), "sinceImagePushed", 10_950), EXPIRE),
        (&days(ANY, "sinceImagePushed", 60), EXPIRE),
    ]);
    let images = [
        (pushed("A", 900), &["prod"][..]),
        (pushed("B", 900), &["dev", "test"]),
        (pushed("C", 900), &["test-2"]),
        (pushed("D", 900), &[]),
        (pushed("E", 60), &[]),
    ];
    assert_eq!(done(&plan(&text, &images)), [("C".to_owned(), Some(3)), ("D".to_owned(), Some(3))]);
}
