//! What is set of a repository.

use serde_json::{Value, json};

use crate::api::{REPOSITORY, registry};
use crate::server::Server;

fn described(server: &Server, name: &str) -> Value {
    server.ok("DescribeRepositories", json!({ "repositoryNames": [name] }))["repositories"][0].clone()
}

#[test]
fn scanning_on_push_is_set_at_creation_and_later_and_changes_nothing_else() {
    let server = registry();
    let encryption = json!({ "encryptionType": "KMS", "kmsKey": "arn:aws:kms:us-east-1:123456789012:key/abc" });
    let scanning = |scan: bool| json!({ "scanOnPush": scan });
    let made = json!({ "repositoryName": "scanned", "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": scanning(true), "encryptionConfiguration": encryption });
    let before = server.ok("CreateRepository", made)["repository"].clone();
    assert_eq!(
        (&before["imageScanningConfiguration"], &before["encryptionConfiguration"]),
        (&scanning(true), &encryption)
    );

    let input = json!({ "repositoryName": "scanned", "imageScanningConfiguration": scanning(false) });
    let put = server.ok("PutImageScanningConfiguration", input);
    assert_eq!(
        put,
        json!({ "registryId": before["registryId"], "repositoryName": "scanned",
        "imageScanningConfiguration": scanning(false) })
    );
    let mut expected = before;
    expected["imageScanningConfiguration"] = scanning(false);
    assert_eq!(described(&server, "scanned"), expected);

    let input = json!({ "imageScanningConfiguration": scanning(true) });
    server.ok("PutImageScanningConfiguration", input);
    assert_eq!(described(&server, REPOSITORY)["imageScanningConfiguration"], scanning(true));
    let missing = json!({ "repositoryName": "none", "imageScanningConfiguration": scanning(true) });
    assert_eq!(server.error_of("PutImageScanningConfiguration", missing), "RepositoryNotFoundException");
}
