//! What access policies cost: parsing one, and deciding by one. `cargo bench --bench policy`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use strongroom::policy::{
    AccountId, Authorizer, Context, Decision, Grounds, Identity, Kind, Policies, Policy, Principal, Refusal, Request,
    Side, Transport,
};

/// A policy of so many statements, the last of which allows pulls. The others name another principal, another resource
/// or another client in turn.
fn document(statements: usize) -> String {
    let mut text = String::from(r#"{"Version": "2012-10-17", "Statement": ["#);
    for n in 1..statements {
        let (principal, rest) = match n % 3 {
            0 => (format!("arn:aws:iam::222222222222:role/a-team-with-a-longer-name-{n}"), ""),
            1 => ("222222222222".into(), r#", "Resource": "arn:aws:ecr:*:*:repository/${aws:username}/*""#),
            _ => ("222222222222".into(), r#", "Condition": {"StringLike": {"aws:UserAgent": "*podman*"}}"#),
        };
        let actions = r#"["ecr:Put*", "ecr:BatchGetImage"]"#;
        write!(text, r#"{{"Effect": "Allow", "Principal": {{"AWS": "{principal}"}}, "Action": {actions}{rest}}},"#)
            .unwrap();
    }
    text += r#"{"Effect": "Allow", "Principal": {"AWS": "222222222222"}, "Action": "ecr:Batch*",
        "Resource": "arn:aws:ecr:*:*:repository/${aws:PrincipalTag/team}/*", "Condition": {
        "IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "2001:db8::/32"]}, "Bool": {"aws:SecureTransport": true},
        "DateLessThan": {"aws:CurrentTime": "2999-01-01T00:00:00Z"}, "StringLike": {"aws:UserAgent": "*docker*"}}}]}"#;
    text
}

/// A pattern that is built to be slow takes all the work that a policy may.
fn slow() -> String {
    let pattern = format!("*{}b", "a".repeat(9_000));
    format!(
        r#"{{"Statement": {{"Effect": "Allow", "Action": "*", "Resource": "*",
            "Condition": {{"StringLike": {{"x:long": "{pattern}"}}}}}}}}"#
    )
}

fn policies(criterion: &mut Criterion) {
    let mut text = document(60);
    let padding = Policy::MAX_CHARACTERS - text.chars().count();
    assert!(padding < 500, "{padding} characters are missing");
    text += &" ".repeat(padding);
    criterion.bench_function("parse a policy of 10,240 characters, 60 statements", |bencher| {
        bencher.iter(|| Policy::parse(black_box(&text), Kind::Resource).unwrap());
    });

    let own: AccountId = "111111111111".parse().unwrap();
    let user = Identity::user("222222222222".parse().unwrap(), "alice").unwrap().with_tag("team", "storage");
    let principal = Principal::from(user);
    let context = Context::new()
        .with_source_ip("203.0.113.7".parse().unwrap())
        .with_time(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .with_secure_transport(Transport::Encrypted)
        .with("aws:UserAgent", "docker/27.0")
        .with("x:long", "a".repeat(100_000));
    let request = Request {
        principal: &principal,
        action: "ecr:BatchGetImage",
        resource: "arn:aws:ecr:eu-west-1:111111111111:repository/storage/app",
        resource_account: own,
        context: &context,
    };
    let readers = r#"{"Statement": {"Effect": "Allow", "Action": "ecr:Batch*", "Resource": "*"}}"#;
    let readers = [Arc::new(Policy::parse(readers, Kind::Identity).unwrap())];
    let fifty = [Arc::new(Policy::parse(&document(50), Kind::Resource).unwrap())];
    let policies = Policies { identity: &readers, resource: &fifty };
    assert!(matches!(policies.decide(&request), Decision::Allowed(Grounds::Both { .. })));
    criterion.bench_function("decide by 50 statements, across accounts, allowed by the last", |bencher| {
        bencher.iter(|| policies.decide(black_box(&request)));
    });

    let slow = [Arc::new(Policy::parse(&slow(), Kind::Identity).unwrap())];
    let policies = Policies { identity: &slow, resource: &[] };
    let exhausted = Decision::Denied(Refusal::TooMuchWork { side: Side::Identity, policy: 0 });
    assert_eq!(policies.decide(&request), exhausted);
    criterion.bench_function("decide by a policy that is built to be slow, until it is given up", |bencher| {
        bencher.iter(|| policies.decide(black_box(&request)));
    });
}

criterion_group!(benches, policies);
criterion_main!(benches);
