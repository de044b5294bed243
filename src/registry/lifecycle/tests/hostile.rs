//! Hostile input: nothing panics, hangs, or costs more than its size warrants.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{Image, MAX_TEXT_LEN, Pattern};
use super::*;

#[test]
fn nesting_is_refused_and_not_followed() {
    for text in ["[".repeat(30_000), r#"{"rules":"#.repeat(3_000), format!("{}1{}", "[".repeat(200), "]".repeat(200))] {
        assert!(Policy::parse(&text).is_err());
    }
    let deep = format!(r#"{{"rules": [{}1{}]}}"#, "[".repeat(100), "]".repeat(100));
    assert!(Policy::parse(&deep).is_err());
}

#[test]
fn errors_quote_little() {
    let long = "x".repeat(30_000);
    for text in [format!(r#"{{"{long}": 1}}"#), policy(&[(&format!(r#""tagStatus": "{long}""#), EXPIRE)])] {
        assert!(Policy::parse(&text).unwrap_err().to_string().len() < 400);
    }
}

#[test]
fn many_equal_members_are_refused_at_once() {
    let start = Instant::now();
    let text = format!("{{{}\"rules\": []}}", r#""rules":[],"#.repeat(2_700));
    assert!(Policy::parse(&text).is_err());
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_pattern_that_nearly_matches_everywhere_is_fast() {
    let start = Instant::now();
    let tag = "a".repeat(30_000);
    for pattern in ["*a*a*a*b", "a*a*a*ab", "*ab*ab*ab*ab"] {
        assert!(!Pattern::new(pattern).matches(&tag));
    }
    let pattern = Pattern::new(&format!("*{}b*", "a".repeat(15_000)));
    assert!(!pattern.matches(&tag));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_policy_full_of_patterns_is_bounded_by_its_text() {
    // Each pattern is matched by the last of many tags only, but for one that none matches.
    let mut list = String::new();
    for n in 0.. {
        let next = format!(r#""*{n:x}*","#);
        if list.len() + next.len() > MAX_TEXT_LEN - 300 {
            break;
        }
        list += &next;
    }
    let rule = format!(
        r#""tagStatus": "tagged", "tagPatternList": [{list}"none"],
        "countType": "imageCountMoreThan", "countNumber": 1"#
    );
    let policy = Policy::parse(&policy(&[(&rule, EXPIRE)])).unwrap();
    let last: String = (0..4_000).map(|n| format!("{n:x}-")).collect();
    let mut tags = vec!["-".repeat(128); 999];
    tags.push(last);
    let start = Instant::now();
    let plan = evaluate(&policy, NOW, [(Image::new("A", 0), &tags[..])]);
    assert!(plan.actions.is_empty() && start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn long_chains_of_artifacts_are_followed_once_each() {
    let any = r#""tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1"#;
    let policy = Policy::parse(&policy(&[(any, EXPIRE)])).unwrap();
    let count = 100_000_u32;
    let start = Instant::now();
    let images = (0..count).rev().map(|n| (Image { subject: n.checked_sub(1), ..Image::new(n, 0) }, [""; 0]));
    let plan = evaluate(&policy, NOW, images);
    assert_eq!(plan.summary.expiring, 100_000);
    assert!(plan.actions.iter().map(|action| action.key).eq(0..count), "each follows its subject");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn times_at_the_ends_of_their_range_do_not_overflow() {
    let any = r#""tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 2147483647"#;
    let policy = Policy::parse(&policy(&[(any, EXPIRE)])).unwrap();
    let images = || [0, 1, u64::MAX].map(|pushed| (Image::new(pushed, pushed), [""; 0]));
    assert_eq!(evaluate(&policy, 0, images()).actions, []);
    assert_eq!(evaluate(&policy, u64::MAX, images()).summary.expiring, 2);
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,400}") {
        let _ = Policy::parse_extended(&text);
    }

    #[test]
    fn nearly_valid_texts_are_parsed_or_refused(
        cut in 0..400_usize, len in 0..8_usize, with in "[\\[\\]{}\",:0-9a-z*]{0,8}",
    ) {
        let tagged = r#""tagStatus": "tagged", "tagPatternList": ["a*"], "countType": "imageCountMoreThan",
            "countNumber": 1"#;
        let any = r#""tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 9"#;
        let text = policy(&[(tagged, EXPIRE), (any, ARCHIVE)]);
        let at = cut.min(text.len());
        let changed = format!("{}{with}{}", &text[..at], &text[(at + len).min(text.len())..]);
        if let Ok(strict) = Policy::parse(&changed) {
            prop_assert_eq!(Policy::parse_extended(&changed), Ok(strict));
        }
    }

    #[test]
    fn a_pattern_matches_what_its_stars_can_stand_for(
        parts in proptest::collection::vec("[ab]{0,3}", 1..6), fill in "[ab]{0,3}",
    ) {
        let pattern = Pattern::new(&parts.join("*"));
        prop_assert!(pattern.matches(&parts.join(&fill)));
    }
}
