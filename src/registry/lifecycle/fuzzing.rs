//! The parser and the evaluator, as functions of bytes.
//!
//! Random bytes are rarely a policy. So they are read twice: as the text of one, and as choices of which one is made,
//! with images to evaluate it on.

use std::collections::BTreeSet;

use super::{Fingerprint, Guard, Image, ImageStatus, Parent, Policy, evaluate};

const DAY_MS: u64 = 86_400_000;

const STATUS: [&str; 5] = [
    r#""tagStatus":"any""#,
    r#""tagStatus":"untagged""#,
    r#""tagStatus":"tagged","tagPatternList":["a*"]"#,
    r#""tagStatus":"tagged","tagPatternList":["*b","a*"]"#,
    r#""tagStatus":"tagged","tagPrefixList":["ab"]"#,
];
const COUNT: [&str; 4] = [
    r#""countType":"imageCountMoreThan""#,
    r#""countType":"sinceImagePushed","countUnit":"days""#,
    r#""countType":"sinceImagePulled","countUnit":"days""#,
    r#""countType":"sinceImageTransitioned","countUnit":"days","storageClass":"archive""#,
];
const EXTENSION: [&str; 3] = ["", r#","signOfLife":"tag""#, r#","artifactTypeList":["x/*"]"#];
const ACTION: [&str; 2] = [r#""type":"expire""#, r#""type":"transition","targetStorageClass":"archive""#];
const TAGS: [&[&str]; 5] = [&[], &["a"], &["ab", "b"], &["b"], &["c", "abb"]];

/// One of them, chosen by a byte.
fn chosen<T: Copy + Default>(from: &[T], by: u8) -> T {
    from.iter().copied().cycle().nth(by.into()).unwrap_or_default()
}

/// Parses bytes as a policy, and evaluates one that is made of them.
pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(policy) = both(&text) {
        check(&policy, bytes);
    }
    let Some((rules, images)) = bytes.split_first().and_then(|(at, rest)| rest.split_at_checked(usize::from(*at)))
    else {
        return;
    };
    let rules = rules.chunks_exact(5).enumerate().map(|(at, choices)| {
        let &[status, count, number, extension, action] = choices else { return String::new() };
        format!(
            r#"{{"rulePriority":{},"selection":{{{},{},"countNumber":{number}{}}},"action":{{{}}}}}"#,
            at + 1,
            chosen(&STATUS, status),
            chosen(&COUNT, count),
            chosen(&EXTENSION, extension),
            chosen(&ACTION, action)
        )
    });
    let text = format!(r#"{{"rules":[{}]}}"#, rules.collect::<Vec<_>>().join(","));
    if let Ok(policy) = both(&text) {
        check(&policy, images);
    }
}

/// A text as both parsers read it, which agree on what Amazon ECR takes.
fn both(text: &str) -> Result<Policy, super::PolicyError> {
    let extended = Policy::parse_extended(text);
    if let Ok(strict) = Policy::parse(text) {
        assert_eq!(extended.as_ref(), Ok(&strict), "extensions change nothing of what ECR takes");
    }
    extended
}

/// Evaluates a policy on images that bytes describe.
fn check(policy: &Policy, bytes: &[u8]) {
    let now = 1_000 * DAY_MS;
    let images = bytes.chunks_exact(6).take(64).enumerate();
    let images: Vec<_> = images.filter_map(|(key, choices)| image(now, key, choices)).collect();
    let plan = evaluate(policy, now, images.iter().copied());
    let mut seen = BTreeSet::new();
    for action in &plan.actions {
        assert!(seen.insert(action.key), "an image is acted on once");
        let found = images.get(action.key);
        let is_left =
            |image: &Image<'_, usize>| image.parent == Parent::Index || image.status == ImageStatus::Activating;
        assert!(found.is_some_and(|(image, _)| !is_left(image)), "children and what is restored are left");
        assert_eq!(Some(action.fingerprint), found.map(|(image, tags)| Fingerprint::of(image, tags)));
        let is_of_policy = |priority| policy.rules().iter().any(|rule| rule.priority == priority);
        assert!(action.rule_priority.is_none_or(is_of_policy));
    }
    assert_eq!((plan.summary.evaluated, plan.summary.acting()), (images.len(), seen.len()));
    assert_eq!(plan, evaluate(policy, now, images.iter().rev().copied()), "the order does not matter");
    let _ = Guard::new().last_evaluated(now, 0).check(&plan);
}

fn image(now: u64, key: usize, choices: &[u8]) -> Option<(Image<'static, usize>, &'static [&'static str])> {
    let &[pushed, pulled, restored, kind, subject, tags] = choices else { return None };
    let ago = |days: u8| now - u64::from(days) * DAY_MS;
    let some = |days: u8| (days > 0).then(|| ago(days));
    let image = Image {
        pulled_ms: some(pulled),
        tagged_ms: some(pulled ^ pushed),
        archived_ms: some(restored ^ pushed),
        activated_ms: some(restored),
        status: chosen(&[ImageStatus::Active, ImageStatus::Archived, ImageStatus::Activating], kind),
        parent: chosen(&[Parent::None, Parent::None, Parent::Index], kind / 16),
        subject: (subject < 128).then_some(usize::from(subject)),
        artifact_type: (kind % 5 == 0).then_some("x/y"),
        ..Image::new(key, ago(pushed))
    };
    Some((image, chosen(&TAGS, tags)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_evaluated(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            super::run(&bytes);
        }

        #[test]
        fn rules_that_stand_together_are_evaluated(
            rules in 1..4_u8, bytes in proptest::collection::vec(any::<u8>(), 200),
        ) {
            let mut bytes = bytes;
            bytes.insert(0, rules * 5);
            super::run(&bytes);
        }
    }
}
