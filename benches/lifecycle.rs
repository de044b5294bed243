//! Lifecycle policies at the limits of Amazon ECR: `cargo bench --bench lifecycle`.
//!
//! A policy of 50 rules is parsed, and evaluated on a repository of 100,000 images with three tags each, of which every
//! tenth is an artifact of another one.

#![allow(missing_docs, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use strongroom::registry::lifecycle::{Evaluation, Image, Policy};
use strongroom::{Algorithm, Digest};

const DAY_MS: u64 = 86_400_000;
const NOW_MS: u64 = 20_000 * DAY_MS;

/// 49 rules for tags, by turns of the newest and of an age, and one for all images.
fn text() -> String {
    let mut rules: Vec<_> = (1..50)
        .map(|n| {
            let limit = match n % 2 {
                0 => r#""countType": "imageCountMoreThan", "countNumber": 100"#,
                _ => r#""countType": "sinceImagePushed", "countUnit": "days", "countNumber": 300"#,
            };
            format!(
                r#"{{"rulePriority": {n},
                "selection": {{"tagStatus": "tagged", "tagPatternList": ["team-{n}-*"], {limit}}},
                "action": {{"type": "expire"}}}}"#
            )
        })
        .collect();
    rules.push(
        r#"{"rulePriority": 50, "selection": {"tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days",
        "countNumber": 90}, "action": {"type": "transition", "targetStorageClass": "archive"}}"#
            .to_owned(),
    );
    format!(r#"{{"rules": [{}]}}"#, rules.join(",\n"))
}

fn lifecycle(criterion: &mut Criterion) {
    let text = text();
    criterion.bench_function("lifecycle: parse 50 rules", |bench| bench.iter(|| Policy::parse(black_box(&text))));

    let Ok(policy) = Policy::parse(&text) else { return };
    let images: Vec<_> = (0..100_000_u64)
        .map(|n| {
            let key = |n: u64| Digest::of(Algorithm::Sha256, &n.to_le_bytes());
            let image = Image {
                pulled_ms: (n % 3 == 0).then_some(NOW_MS - n % 200 * DAY_MS),
                subject: (n % 10 == 1).then(|| key(n - 1)),
                ..Image::new(key(n), NOW_MS - n % 400 * DAY_MS)
            };
            (image, [format!("team-{}-{n}", n % 70), format!("build-{n}"), format!("commit-{:012x}", n * 7919)])
        })
        .collect();
    let mut group = criterion.benchmark_group("lifecycle: evaluate");
    group.sample_size(10).bench_function("100,000 images, 50 rules", |bench| {
        bench.iter(|| {
            let mut evaluation = Evaluation::new(&policy, NOW_MS);
            images.iter().for_each(|(image, tags)| evaluation.add(*image, tags));
            evaluation.finish()
        });
    });
}

criterion_group!(benches, lifecycle);
criterion_main!(benches);
