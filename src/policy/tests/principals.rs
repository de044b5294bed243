//! Whom the elements `Principal` and `NotPrincipal` mean.

use super::*;

/// Whether a statement of a resource's policy applies, by its effect alone.
fn meets(statement: &Value, principal: &Principal) -> bool {
    let resource = [policy(Kind::Resource, statement)];
    let everything = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let identity = [policy(Kind::Identity, &everything)];
    match decide(&identity, &resource, principal, &Context::new()) {
        Decision::Denied(Refusal::Statement(_)) => true,
        Decision::Allowed(Grounds::Both { .. }) => true,
        Decision::Allowed(Grounds::Statement(statement)) => statement.side == Side::Resource,
        _ => false,
    }
}

fn principals() -> [(&'static str, Principal); 8] {
    [
        ("bob", user(OTHER, "bob")),
        ("alice", user(OTHER, "team/alice")),
        ("session", session(OTHER, "ci/deploy", "run-1")),
        ("root", root(OTHER)),
        ("stranger", user("333333333333", "bob")),
        ("nobody", Principal::Anonymous),
        ("service", Principal::Service("replication.ecr.amazonaws.com".into())),
        ("federated", Principal::Federated("accounts.google.com".into())),
    ]
}

#[test]
fn principal_means_whom_it_names() {
    let account_of = ["bob", "alice", "session", "root"].as_slice();
    let all = ["bob", "alice", "session", "root", "stranger", "nobody", "service", "federated"].as_slice();
    let table: [(Value, &[&str]); 13] = [
        (json!("*"), all),
        (json!({"AWS": "*"}), all),
        (json!({"AWS": "222222222222"}), account_of),
        (json!({"AWS": "arn:aws:iam::222222222222:root"}), account_of),
        (
            json!({"AWS": ["222222222222", "arn:aws:iam::333333333333:user/bob"]}),
            &["bob", "alice", "session", "root", "stranger"],
        ),
        (json!({"AWS": "arn:aws:iam::222222222222:user/bob"}), &["bob"]),
        (json!({"AWS": "arn:aws:iam::222222222222:user/BOB"}), &[]),
        (json!({"AWS": "arn:aws:iam::222222222222:user/team/alice"}), &["alice"]),
        (json!({"AWS": "arn:aws:iam::222222222222:user/alice"}), &[]),
        (json!({"AWS": "arn:aws:iam::222222222222:role/ci/deploy"}), &["session"]),
        (json!({"AWS": "arn:aws:sts::222222222222:assumed-role/deploy/run-1"}), &["session"]),
        (json!({"AWS": "arn:aws:sts::222222222222:assumed-role/deploy/run-2"}), &[]),
        (
            json!({"Service": "replication.ecr.amazonaws.com", "Federated": "accounts.google.com", "AWS": [
                "arn:aws:iam::222222222222:user/bob",
            ]}),
            &["bob", "service", "federated"],
        ),
    ];
    for (names, expected) in table {
        for effect in ["Allow", "Deny"] {
            let statement = json!({"Effect": effect, "Principal": names, "Action": "ecr:*"});
            let met = principals().into_iter().filter(|(_, principal)| meets(&statement, principal));
            let mut met: Vec<_> = met.map(|(name, _)| name).collect();
            if effect == "Allow" && expected.contains(&"root") {
                met.retain(|name| *name != "root"); // by the resource's statement alone
                met.push("root");
            }
            let (mut met, mut expected) = (met, expected.to_vec());
            met.sort_unstable();
            expected.sort_unstable();
            assert_eq!(met, expected, "{effect} {names}");
        }
    }
}

/// As the user guide explains: a user is excepted with its account, a session with its role and its account.
#[test]
fn not_principal_excepts_who_is_listed_with_its_account() {
    let (of_account, bob) = ("arn:aws:iam::222222222222:root", "arn:aws:iam::222222222222:user/bob");
    let role = "arn:aws:iam::222222222222:role/ci/deploy";
    let run = "arn:aws:sts::222222222222:assumed-role/deploy/run-1";
    let table: [(Value, &[&str]); 6] = [
        (json!({"AWS": [bob, of_account]}), &["bob", "root"]),
        (json!({"AWS": bob}), &[]),
        (json!({"AWS": of_account}), &["root"]),
        (json!({"AWS": [run, role, of_account]}), &["session", "root"]),
        (json!({"AWS": [run, of_account]}), &["root"]),
        (json!({"Service": "replication.ecr.amazonaws.com"}), &["service"]),
    ];
    for (names, excepted) in table {
        let statement = json!({"Effect": "Deny", "NotPrincipal": names, "Action": "*"});
        let spared = principals().into_iter().filter(|(_, principal)| !meets(&statement, principal));
        assert_eq!(spared.map(|(name, _)| name).collect::<Vec<_>>(), excepted, "{names}");
    }
}

#[test]
fn principals_that_cannot_be_meant_are_refused() {
    let wrong = [
        json!("arn:aws:iam::222222222222:user/bob"),
        json!({"AWS": "arn:aws:iam::222222222222:user/*"}),
        json!({"AWS": "arn:aws:iam::222222222222:user/b?b"}),
        json!({"AWS": "arn:aws:iam::222222222222:user/${aws:username}"}),
        json!({"AWS": "arn:aws:iam::*:root"}),
        json!({"AWS": "arn:aws:iam::222222222222:group/all"}),
        json!({"AWS": "arn:aws:iam::222222222222:user/"}),
        json!({"AWS": "arn:aws:iam::222222222222:root/"}),
        json!({"AWS": "arn:aws:sts::222222222222:assumed-role/deploy"}),
        json!({"AWS": "arn:aws:sts::222222222222:assumed-role/deploy/*"}),
        json!({"AWS": "arn:aws:s3:::bucket"}),
        json!({"AWS": "22222222222"}),
        json!({"AWS": "AIDAEXAMPLEID"}),
        json!({"AWS": 222_222_222_222_u64}),
        json!({"AWS": []}),
        json!({"aws": "*"}),
        json!({"CanonicalUser": "79a59df900b949e55d96a1e698fbaced"}),
        json!({"Service": "*"}),
        json!({}),
        json!([]),
        json!(["*"]),
        json!(null),
    ];
    for names in wrong {
        let text = document(&json!({"Effect": "Deny", "Principal": names, "Action": "*"}));
        let error = Policy::parse(&text, Kind::Resource).expect_err(&text);
        assert!(error.at.starts_with("/Statement/Principal"), "{error}");
    }
}

#[test]
fn identities_are_made_of_well_formed_names() {
    let account = account(OWNER);
    for name in ["", "*", "a b", "a:b", "a/", "/a", "a//b", "é"] {
        assert!(Identity::user(account, name).is_err(), "{name:?}");
        assert!(Identity::role_session(account, name, "s").is_err(), "{name:?}");
        assert!(Identity::role_session(account, "r", name).is_err(), "{name:?}");
    }
    assert!(Identity::role_session(account, "r", "a/b").is_err(), "sessions have no paths");
    for number in ["", "1", "1111111111111", "11111111111a", "１１１１"] {
        assert!(number.parse::<AccountId>().is_err(), "{number:?}");
    }
}
