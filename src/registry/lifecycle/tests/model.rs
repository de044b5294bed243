//! An evaluator written as the documentation reads, image by image and without a thought for cost, against ours.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::{Fingerprint, ImageStatus, Parent};
use super::*;

const TAGS: [&str; 6] = ["a-1", "a-2", "b-1", "b-2", "ab", "c"];
const PATTERNS: [&str; 7] = ["a*", "b*", "*-1", "*-2", "ab", "*", "z*"];
const TYPES: [&str; 2] = ["app/x", "app/y"];

#[derive(Clone, Debug)]
struct Rule {
    priority: u32,
    archive: bool,
    /// `None`: any; empty: untagged.
    patterns: Option<Vec<&'static str>>,
    types: Vec<&'static str>,
    count_type: &'static str,
    number: u32,
    tag_is_life: bool,
    expire: bool,
}

impl Rule {
    fn json(&self) -> String {
        let quoted = |list: &[&str]| list.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(",");
        let mut selection = match &self.patterns {
            None => r#""tagStatus":"any""#.to_owned(),
            Some(list) if list.is_empty() => r#""tagStatus":"untagged""#.to_owned(),
            Some(list) => format!(r#""tagStatus":"tagged","tagPatternList":[{}]"#, quoted(list)),
        };
        selection += &format!(r#","countType":"{}","countNumber":{}"#, self.count_type, self.number);
        if self.count_type != "imageCountMoreThan" {
            selection += r#","countUnit":"days""#;
        }
        if self.archive {
            selection += r#","storageClass":"archive""#;
        }
        if self.tag_is_life {
            selection += r#","signOfLife":"tag""#;
        }
        if !self.types.is_empty() {
            selection += &format!(r#","artifactTypeList":[{}]"#, quoted(&self.types));
        }
        let action = if self.expire { EXPIRE } else { ARCHIVE };
        format!(r#"{{"rulePriority":{},"selection":{{{selection}}},"action":{{{action}}}}}"#, self.priority)
    }
}

#[derive(Clone, Debug)]
struct Sample {
    image: Image<'static, u8>,
    tags: Vec<&'static str>,
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        Some((byte, rest)) => text.first() == Some(byte) && glob(rest, &text[1..]),
    }
}

/// The documentation, followed to the letter.
struct Model<'a> {
    rules: &'a [Rule],
    samples: &'a BTreeMap<u8, Sample>,
}

impl Model<'_> {
    fn subject(&self, key: u8) -> Option<u8> {
        self.samples[&key].image.subject.filter(|subject| self.samples.contains_key(subject))
    }

    fn identifies(&self, rule: &Rule, key: u8) -> bool {
        let Sample { image, tags } = &self.samples[&key];
        let class = if rule.archive { ImageStatus::Archived } else { ImageStatus::Active };
        let by_tags = match &rule.patterns {
            None => true,
            Some(list) if list.is_empty() => tags.is_empty(),
            Some(list) => list.iter().all(|pattern| tags.iter().any(|tag| glob(pattern.as_bytes(), tag.as_bytes()))),
        };
        let by_type = match image.artifact_type {
            _ if rule.types.is_empty() => self.subject(key).is_none(),
            None => false,
            Some(kind) => rule.types.contains(&kind),
        };
        image.status == class && image.parent == Parent::None && by_tags && by_type
    }

    /// The time from which a rule counts an image's age.
    fn since(&self, rule: &Rule, key: u8) -> Option<u64> {
        let image = &self.samples[&key].image;
        let stored = match image.activated_ms {
            Some(activated) if activated > image.pushed_ms => activated,
            _ => image.pushed_ms,
        };
        let since = match rule.count_type {
            "sinceImageTransitioned" => image.archived_ms?,
            "sinceImagePulled" => match (image.pulled_ms, image.activated_ms) {
                (Some(pulled), Some(activated)) if activated > pulled => activated,
                (Some(pulled), _) => pulled,
                (None, Some(activated)) => activated,
                (None, None) => image.pushed_ms,
            },
            _ => stored,
        };
        Some(if rule.tag_is_life { since.max(image.tagged_ms.unwrap_or(0)) } else { since })
    }

    fn marks(&self, rule: &Rule, key: u8) -> bool {
        if rule.count_type != "imageCountMoreThan" {
            return self.since(rule, key).is_some_and(|since| since + u64::from(rule.number) * DAY < NOW);
        }
        let mut identified: Vec<_> = self.samples.keys().copied().filter(|key| self.identifies(rule, *key)).collect();
        identified.sort_by_key(|key| (self.since(rule, *key), *key));
        identified.reverse();
        identified[(rule.number as usize).min(identified.len())..].contains(&key)
    }

    fn by_rules(&self, key: u8) -> Option<(ActionKind, Option<u32>, Option<u8>)> {
        let mut rules: Vec<_> = self.rules.iter().filter(|rule| self.identifies(rule, key)).collect();
        rules.sort_by_key(|rule| rule.priority);
        let rule = rules.first().filter(|rule| self.marks(rule, key))?;
        Some((if rule.expire { ActionKind::Expire } else { ActionKind::Archive }, Some(rule.priority), None))
    }

    /// What happens to an image, whose subjects have lesser keys.
    fn outcome(&self, key: u8) -> Option<(ActionKind, Option<u32>, Option<u8>)> {
        let own = self.by_rules(key);
        let image = &self.samples[&key].image;
        let Some(subject) = self.subject(key) else { return own };
        if image.parent == Parent::Index || image.status == ImageStatus::Activating {
            return own;
        }
        let is_archived = self.samples[&subject].image.status == ImageStatus::Archived;
        let inherited = match self.outcome(subject) {
            Some((ActionKind::Expire, priority, _)) => Some((ActionKind::Expire, priority, Some(subject))),
            Some((ActionKind::Archive, priority, _)) => Some((ActionKind::Archive, priority, Some(subject))),
            None if is_archived => Some((ActionKind::Archive, None, None)),
            None => None,
        };
        let inherited =
            inherited.filter(|(kind, ..)| *kind == ActionKind::Expire || image.status == ImageStatus::Active);
        match (own, inherited) {
            (Some((ActionKind::Archive, ..)), Some((ActionKind::Expire, ..))) => inherited,
            (Some(_), _) => own,
            (None, inherited) => inherited,
        }
    }
}

fn rule() -> impl Strategy<Value = Rule> {
    let tags = prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        3 => subsequence(PATTERNS.to_vec(), 1..=2).prop_map(Some),
    ];
    let kinds = ["imageCountMoreThan", "sinceImagePushed", "sinceImagePulled", "sinceImageTransitioned"];
    let types = prop_oneof![4 => Just(Vec::new()), 1 => subsequence(TYPES.to_vec(), 1..=2)];
    (tags, select(kinds.to_vec()), 1..6_u32, any::<bool>(), any::<bool>(), types).prop_map(
        |(patterns, count_type, number, expire, tag_is_life, types)| {
            let archive = count_type == "sinceImageTransitioned";
            let number = if archive { 88 + number.max(2) } else { number };
            let (tag_is_life, expire) = (tag_is_life && !archive, expire || archive);
            Rule { priority: 0, archive, patterns, types, count_type, number, tag_is_life, expire }
        },
    )
}

/// Rules that may stand together, in any order.
fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rules = vec(rule(), 1..8).prop_map(|mut rules| {
        let mut seen = Vec::new();
        rules.retain(|rule| {
            let group = (rule.archive, rule.types.clone(), rule.patterns.clone());
            let is_new = !seen.contains(&group);
            seen.push(group);
            is_new
        });
        rules.sort_by_key(|rule| rule.patterns.is_none());
        for (rule, priority) in rules.iter_mut().zip(1..) {
            rule.priority = priority * 3;
        }
        rules
    });
    rules.prop_shuffle()
}

/// A time within days that rules tell apart, often at their exact ends.
fn time(days: std::ops::Range<u64>) -> impl Strategy<Value = u64> {
    (days, 0..3_u64).prop_map(|(days, off)| NOW + 1 - days * DAY - off)
}

fn sample() -> impl Strategy<Value = Sample> {
    use ImageStatus::{Activating, Active, Archived};
    let status = select(vec![Active, Active, Active, Active, Archived, Archived, Activating]);
    let parent = select(vec![Parent::None, Parent::None, Parent::None, Parent::None, Parent::Index]);
    let sometimes = || option::of(time(0..8));
    let times = (time(0..8), sometimes(), sometimes(), option::of(time(86..96)), sometimes());
    let place = (status, parent, option::weighted(0.4, 0..12_u8), option::of(select(&TYPES)));
    let tags = subsequence(TAGS.to_vec(), 0..3).prop_shuffle();
    (times, place, tags).prop_map(|(times, (status, parent, subject, artifact_type), tags)| {
        let (pushed_ms, pulled_ms, tagged_ms, archived_ms, activated_ms) = times;
        let image = Image {
            key: 0,
            pushed_ms,
            pulled_ms,
            tagged_ms,
            archived_ms,
            activated_ms,
            status,
            parent,
            subject,
            artifact_type,
        };
        Sample { image, tags }
    })
}

fn samples() -> impl Strategy<Value = BTreeMap<u8, Sample>> {
    btree_map(0..12_u8, sample(), 0..12).prop_map(|mut samples| {
        for (key, sample) in &mut samples {
            sample.image.key = *key;
            sample.image.subject = sample.image.subject.filter(|subject| subject < key);
        }
        samples
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn evaluation_does_what_the_documentation_says(rules in rules(), samples in samples()) {
        let text = format!(r#"{{"rules":[{}]}}"#, rules.iter().map(Rule::json).collect::<Vec<_>>().join(","));
        let policy = Policy::parse_extended(&text);
        prop_assert!(policy.is_ok(), "{policy:?}: {text}");
        let policy = policy.unwrap();
        let images = || samples.values().map(|sample| (sample.image, &sample.tags[..]));
        let plan = evaluate(&policy, NOW, images());

        let model = Model { rules: &rules, samples: &samples };
        let expected: BTreeMap<_, _> =
            samples.keys().filter_map(|key| Some((*key, model.outcome(*key)?))).collect();
        let found = plan.actions.iter().map(|found| (found.key, (found.kind, found.rule_priority, found.subject)));
        let found: BTreeMap<_, _> = found.collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(found.len(), plan.actions.len(), "each image once");
        prop_assert_eq!(plan.summary.acting(), plan.actions.len());
        prop_assert_eq!(plan.summary.evaluated, samples.len());

        // The order in which images come changes nothing, and a plan says what it rests on.
        prop_assert_eq!(&evaluate(&policy, NOW, images().rev()), &plan);
        let mut before = Vec::new();
        for action in &plan.actions {
            let Sample { image, tags } = &samples[&action.key];
            prop_assert_eq!(action.fingerprint, Fingerprint::of(image, tags));
            // What follows comes after its subject.
            prop_assert!(action.subject.is_none_or(|subject| before.contains(&subject)));
            before.push(action.key);
        }
    }
}
