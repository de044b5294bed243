//! Setting, getting and removing policies.

use super::*;
use crate::api::{ACCOUNT, registry};

#[test]
fn a_policy_is_set_replaced_got_and_removed() {
    let server = registry();
    let absent = ("LifecyclePolicyNotFoundException".to_owned(), {
        format!(
            "Lifecycle policy does not exist for the repository with name '{REPOSITORY}' in the registry with id \
             '{ACCOUNT}'"
        )
    });
    for operation in ["GetLifecyclePolicy", "DeleteLifecyclePolicy", "StartLifecyclePolicyPreview"] {
        assert_eq!(server.fails(operation, json!({})), absent, "{operation}");
    }
    for policy in [keep(1, EXPIRE), keep(2, ARCHIVE)] {
        server.set_policy(&policy);
        let expected = json!({
            "registryId": ACCOUNT, "repositoryName": REPOSITORY, "lifecyclePolicyText": policy,
        });
        assert_eq!(server.ok("GetLifecyclePolicy", json!({})), expected, "it was never evaluated");
    }
    assert_eq!(server.ok("DeleteLifecyclePolicy", json!({}))["lifecyclePolicyText"], keep(2, ARCHIVE));
    assert_eq!(server.fails("GetLifecyclePolicy", json!({})), absent);
}

#[test]
fn a_policy_that_is_none_is_refused_and_what_was_set_stays() {
    let server = registry();
    let policy = keep(1, EXPIRE);
    server.set_policy(&policy);
    let pulled = r#""tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 3"#;
    let extended =
        format!(r#"{{"rules": [{{"rulePriority": 1, "selection": {{{pulled}}}, "action": {{{EXPIRE}}}}}]}}"#);
    for operation in ["PutLifecyclePolicy", "StartLifecyclePolicyPreview"] {
        for bad in [keep(0, EXPIRE), keep(1, r#""type": "keep""#), "x".repeat(200), extended.clone()] {
            let (kind, message) = server.fails(operation, json!({ "lifecyclePolicyText": bad }));
            assert_eq!(kind, "InvalidParameterException");
            assert!(message.contains("'Lifecycle policy validation failure: "), "{message}");
        }
        for bad in [json!("{}"), json!("x".repeat(30_721))] {
            let error = server.error_of(operation, json!({ "lifecyclePolicyText": bad }));
            assert_eq!(error, "InvalidParameterException");
        }
        let elsewhere = json!({ "repositoryName": "no/such", "lifecyclePolicyText": policy });
        assert_eq!(server.error_of(operation, elsewhere), "RepositoryNotFoundException");
    }
    assert_eq!(server.ok("GetLifecyclePolicy", json!({}))["lifecyclePolicyText"], policy);
}
