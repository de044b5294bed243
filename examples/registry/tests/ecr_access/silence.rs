//! What those without rights are told: the same of what is there and of what is not, byte for byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use strongroom::{Algorithm, Digest};
use strongroom_registry::ecr::{Service, Target, operations};

use crate::client::{Client, Guarded, OWN, PARTNER, REGION, allow, arn, key_of, kind, user};
use crate::common::registry::IMAGE;
use crate::server::{Answer, image};

/// What requests name: all of it there, or some of it not. The names have the same lengths.
#[derive(Clone, Debug)]
struct Names {
    repository: &'static str,
    tag: &'static str,
    config: Digest,
    manifest: Digest,
    upload: String,
}

impl Names {
    fn fill(&self, text: &str) -> String {
        let (config, manifest, id) = (self.config.to_string(), self.manifest.to_string(), &self.upload);
        let uuid = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
        text.replace("NAME", self.repository)
            .replace("TAG", self.tag)
            .replace("CONFIG", &config)
            .replace("MANIFEST", &manifest)
            .replace("UPLOAD", id)
            .replace("UUID", &uuid)
    }

    /// An answer without what differs in any case: these names, and the time.
    fn shown(&self, answer: &Answer) -> String {
        let headers = answer.headers.iter().filter(|(name, _)| name != "date");
        let headers: String = headers.map(|(name, value)| format!("{name}: {value}\n")).collect();
        let text = format!("{}\n{headers}\n{}", answer.status, String::from_utf8_lossy(&answer.body));
        text.replace(self.repository, "NAME")
            .replace(&self.config.to_string(), "CONFIG")
            .replace(&self.manifest.to_string(), "MANIFEST")
            .replace(&self.upload, "UPLOAD")
    }
}

/// A registry with an image and an upload in `team/app`, with users who have no right to it, and one with all.
fn registry() -> (Guarded, Vec<Names>) {
    let deny =
        json!({ "Statement": { "Effect": "Deny", "Action": "*", "Resource": "arn:aws:ecr*:*:*:repository/*/app" } });
    let everything = allow(&["*"], &["*"]);
    let mut users = vec![
        user("nobody", OWN, &json!([])),
        user("partner", PARTNER, &json!([everything])),
        user("elsewhere", OWN, &json!([allow(&["ecr:*"], &[&arn("team/mine")])])),
        user("denied", OWN, &json!([everything, deny])),
        user("owner", OWN, &json!([everything])),
    ];
    let reader = allow(&["ecr:GetDownloadUrlForLayer"], &[&arn("team/app")]);
    users.push(user("mounter", OWN, &json!([allow(&["ecr:*"], &[&arn("team/mine")]), reader])));
    let guarded = Guarded::start(&json!({ "users": users }));
    let mut owner = guarded.client(&key_of("owner"));
    let (tag, config) = ("there-is-one", Digest::of(Algorithm::Sha256, b"a config"));
    let manifest = push(&mut owner, "team/app", tag, b"a config");
    push(&mut owner, "team/mine", "v1", b"another config");
    let begun = owner.oci("POST", "/v2/team/app/blobs/uploads/", &[], &[]);
    let upload = begun.header("docker-upload-uuid").unwrap().to_owned();
    let policy = allow(&["ecr:*"], &[]).to_string().replace("\"Resource\":[]", "\"Principal\":{\"AWS\":\"OWN\"}");
    owner.ok(
        "SetRepositoryPolicy",
        &json!({
            "repositoryName": "team/app", "force": true,
            "policyText": policy.replace("OWN", &format!("arn:aws:iam::{OWN}:user/owner")),
        }),
    );
    owner.ok("PutLifecyclePolicy", &json!({
        "repositoryName": "team/app", "lifecyclePolicyText": json!({ "rules": [{
            "rulePriority": 1, "selection": { "tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 9 },
            "action": { "type": "expire" },
        }] }).to_string(),
    }));
    let no = |byte: &[u8]| Digest::of(Algorithm::Sha256, byte);
    let there = Names { repository: "team/app", tag, config, manifest, upload };
    let empty = Names {
        tag: "there-is-no-",
        config: no(b"1"),
        manifest: no(b"2"),
        upload: "0123456789abcdef0123456789abcdef".to_owned(),
        ..there.clone()
    };
    let nowhere = Names { repository: "lost/app", ..empty.clone() };
    let of_other_things = Names { repository: "lost/app", ..there.clone() };
    (guarded, vec![there, empty, nowhere, of_other_things])
}

pub fn push(client: &mut Client, name: &str, tag: &str, config: &[u8]) -> Digest {
    let digest = Digest::of(Algorithm::Sha256, config);
    let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
    let pushed = client.oci("POST", &path, &[], config);
    assert_eq!(pushed.status, 201, "{pushed:?}");
    let (path, document) = (format!("/v2/{name}/manifests/{tag}"), image(digest, config.len()).to_string());
    let pushed = client.oci("PUT", &path, &[("content-type", IMAGE)], document.as_bytes());
    assert_eq!(pushed.status, 201, "{pushed:?}");
    pushed.header("docker-content-digest").unwrap().parse().unwrap()
}

/// Everybody without rights to `*/app`; `None` has no key.
const WITHOUT: [Option<&str>; 5] = [Some("nobody"), Some("partner"), Some("elsewhere"), Some("denied"), None];

/// What somebody is answered with each of the names: one text, with all that differs.
fn same(client: &mut Client, all: &[Names], what: &str, ask: impl Fn(&mut Client, &Names) -> Answer) -> Answer {
    let mut answers = all.iter().map(|names| {
        let answer = ask(client, names);
        (names.shown(&answer), answer)
    });
    let (first, answer) = answers.next().unwrap();
    for (other, _) in answers {
        assert_eq!(first, other, "{what}");
    }
    answer
}

#[test]
fn no_endpoint_tells_those_without_rights_what_is_there() {
    let (guarded, all) = registry();
    let paths = [
        "manifests/TAG",
        "manifests/MANIFEST",
        "manifests/CONFIG",
        "blobs/CONFIG",
        "blobs/MANIFEST",
        "referrers/MANIFEST",
        "referrers/MANIFEST?artifactType=a%2Fb&last=CONFIG",
        "tags/list",
        "tags/list?n=1&last=TAG",
        "blobs/uploads/",
        "blobs/uploads/?mount=CONFIG&from=NAME",
        "blobs/uploads/?mount=CONFIG&from=team/mine",
        "blobs/uploads/?digest=CONFIG",
        "blobs/uploads/UPLOAD",
        "blobs/uploads/UPLOAD?digest=CONFIG",
        "manifests/TAG?token=none",
        "blobs/CONFIG?token=none",
    ];
    for who in WITHOUT {
        let mut client = Client::new(guarded.server.address, who.map(key_of).as_deref());
        for path in paths {
            for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
                let headers = [("content-type", IMAGE), ("if-none-match", "*"), ("range", "bytes=0-0")];
                for body in [&b""[..], b"a config"] {
                    let answer = same(&mut client, &all, &format!("{who:?} {method} {path}"), |client, names| {
                        client.oci(method, &names.fill(&format!("/v2/NAME/{path}")), &headers, body)
                    });
                    let expected = match (method, who) {
                        ("OPTIONS", _) => 204,
                        (_, None) => 401,
                        _ => 403,
                    };
                    assert_eq!(answer.status, expected, "{who:?} {method} {path}: {answer:?}");
                }
            }
        }
        let listed = client.get("/v2/_catalog");
        match who {
            Some("elsewhere" | "denied") => assert_eq!(listed.json()["repositories"], json!(["team/mine"])),
            _ => assert_eq!(listed.json()["repositories"], json!([])),
        }
        assert_eq!(listed.header("link"), None);
    }
    // All of it is still there.
    let mut owner = guarded.client(&key_of("owner"));
    for path in ["manifests/TAG", "manifests/MANIFEST", "blobs/CONFIG", "blobs/uploads/UPLOAD"] {
        assert!(owner.get(&all[0].fill(&format!("/v2/NAME/{path}"))).status < 300, "{path}");
    }
    assert_eq!(owner.get("/v2/_catalog").json()["repositories"], json!(["team/app", "team/mine"]));
}

#[test]
fn no_operation_tells_those_without_rights_what_is_there() {
    let (guarded, all) = registry();
    let mut asked = 0;
    for who in WITHOUT {
        let mut client = Client::new(guarded.server.address, who.map(key_of).as_deref());
        for built in operations() {
            let service = if built.service == Service::Private { "ecr" } else { "ecr-public" };
            let is_of_admin = who == Some("denied") && built.target == Target::Registry;
            if built.target == Target::Caller
                || is_of_admin
                || built.service == Service::Public && who == Some("denied")
            {
                continue;
            }
            for registry_id in [None, Some(OWN), Some("999999999999")] {
                let ask = |client: &mut Client, names: &Names| {
                    let mut input: Value = serde_json::from_str(&names.fill(&input(built.name).to_string())).unwrap();
                    if built.target == Target::Resource {
                        let public = format!("arn:aws:ecr-public::{OWN}:repository/{}", names.repository);
                        input["resourceArn"] = json!(if service == "ecr" { arn(names.repository) } else { public });
                    }
                    if let Some(id) = registry_id {
                        input["registryId"] = json!(id);
                    }
                    client.call(service, built.name, &input)
                };
                let what = format!("{who:?} {service}:{} {registry_id:?}", built.name);
                let answer = same(&mut client, &all, &what, ask);
                let expected =
                    if who.is_none() { "MissingAuthenticationTokenException" } else { "AccessDeniedException" };
                assert_eq!((answer.status, kind(&answer).as_str()), (400, expected), "{what}: {answer:?}");
                asked += 1;
            }
        }
    }
    assert!(asked > 500, "{asked}");
}

/// An input that an operation takes, of something that is there.
fn input(operation: &str) -> Value {
    let mut input = match operation {
        "BatchCheckLayerAvailability" => json!({ "layerDigests": ["CONFIG", "MANIFEST"] }),
        "BatchDeleteImage" | "BatchGetImage" => json!({ "imageIds": [{ "imageTag": "TAG" }] }),
        "CompleteLayerUpload" => json!({ "uploadId": "UUID", "layerDigests": ["CONFIG"] }),
        "DescribeImages" | "DescribeImageTags" => json!({ "imageIds": [{ "imageDigest": "MANIFEST" }] }),
        "DescribeRepositories" => json!({ "repositoryNames": ["NAME"] }),
        "GetDownloadUrlForLayer" => json!({ "layerDigest": "CONFIG" }),
        "DeregisterPullTimeUpdateExclusion" | "RegisterPullTimeUpdateExclusion" => {
            json!({ "principalArn": format!("arn:aws:iam::{OWN}:user/owner") })
        }
        "GetAccountSetting" => json!({ "name": "BLOB_MOUNTING" }),
        "PutAccountSetting" => json!({ "name": "BLOB_MOUNTING", "value": "ENABLED" }),
        "ListImageReferrers" => json!({ "subjectId": { "imageDigest": "MANIFEST" } }),
        "PutImage" => json!({ "imageManifest": image(Digest::of(Algorithm::Sha256, b"a config"), 8).to_string() }),
        "PutImageScanningConfiguration" => json!({ "imageScanningConfiguration": { "scanOnPush": true } }),
        "PutImageTagMutability" => json!({ "imageTagMutability": "IMMUTABLE" }),
        "PutLifecyclePolicy" => json!({ "lifecyclePolicyText": "{}".repeat(100) }),
        "PutRegistryPolicy" | "SetRepositoryPolicy" => json!({ "policyText": "{}" }),
        "PutRepositoryCatalogData" => json!({ "catalogData": {} }),
        "TagResource" => json!({ "tags": [{ "Key": "team", "Value": "red" }] }),
        "UntagResource" => json!({ "tagKeys": ["team"] }),
        "UpdateImageStorageClass" => json!({ "imageId": { "imageTag": "TAG" }, "targetStorageClass": "ARCHIVE" }),
        "UploadLayerPart" => json!({
            "uploadId": "UUID", "partFirstByte": 0, "partLastByte": 1, "layerPartBlob": STANDARD.encode("{}"),
        }),
        _ => json!({}),
    };
    if operation != "DescribeRepositories" {
        input["repositoryName"] = json!("NAME");
    }
    input
}

#[test]
fn a_blob_that_one_may_not_read_is_mounted_as_if_it_were_not_there() {
    let (guarded, all) = registry();
    let secret = all[0].config;
    let mut elsewhere = guarded.client(&key_of("elsewhere"));
    let unknown = Digest::of(Algorithm::Sha256, b"3");
    let mut answers = Vec::new();
    for (digest, from) in [
        (secret, "team/app"),
        (secret, "lost/app"),
        (unknown, "team/app"),
        (secret, "team/mine"),
        (secret, "TEAM/APP"),
        (secret, "team/mine/../app"),
        (secret, &arn("team/app")),
        (secret, ""),
    ] {
        let path = format!("/v2/team/mine/blobs/uploads/?mount={digest}&from={from}");
        let answer = elsewhere.oci("POST", &path, &[], &[]);
        let id = answer.header("docker-upload-uuid").unwrap().to_owned();
        answers.push(Names { upload: id, ..all[1].clone() }.shown(&answer));
        assert_eq!(elsewhere.get(&format!("/v2/team/mine/blobs/{digest}")).status, 404, "{from}");
    }
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.starts_with("202")), "{answers:#?}");
    let path = format!("/v2/team/mine/blobs/uploads/?mount={secret}&from=team/app");
    assert_eq!(guarded.client(&key_of("mounter")).oci("POST", &path, &[], &[]).status, 201);
}

#[test]
fn no_spelling_of_a_name_leads_round_what_one_may_do() {
    let (guarded, all) = registry();
    let mut elsewhere = guarded.client(&key_of("elsewhere"));
    for name in [
        "team/mine/../app",
        "team/mine/%2e%2e/app",
        "team/mine%2f..%2fapp",
        "team%2fapp",
        "team%2Fapp",
        "%74eam/app",
        "team//app",
        "./team/app",
        "team/./app",
        "TEAM/APP",
        "team/app%00",
        "team\\app",
        &arn("team/app"),
        &format!("{OWN}/team/app"),
        &format!("team/mine/{}", arn("team/app")),
    ] {
        for rest in ["manifests/TAG", "tags/list", "blobs/CONFIG"] {
            let answer = elsewhere.get(&all[0].fill(&format!("/v2/{name}/{rest}")));
            assert!((400..500).contains(&answer.status), "{name} {rest}: {answer:?}");
        }
        let answer = elsewhere.call("ecr", "DescribeImages", &json!({ "repositoryName": name }));
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        let resource = json!({ "resourceArn": arn(name) });
        assert_eq!(elsewhere.call("ecr", "ListTagsForResource", &resource).status, 400, "{name}");
    }
    let own = arn("team/mine");
    for resource in [
        own.replace(OWN, PARTNER),
        own.replace(REGION, "us-west-2"),
        own.replace("arn:aws:", "arn:aws-cn:"),
        own.replace("ecr:", "ecr-public:"),
        own.replace("repository/", "repository/*"),
        format!("{own}/../app"),
        format!("{own}:v1"),
        "*".to_owned(),
    ] {
        let answer = elsewhere.call("ecr", "ListTagsForResource", &json!({ "resourceArn": resource }));
        assert_eq!(answer.status, 400, "{resource}: {answer:?}");
    }
    assert_eq!(elsewhere.call("ecr", "ListTagsForResource", &json!({ "resourceArn": own })).status, 200);
}

#[test]
fn another_registry_is_none_of_this_ones() {
    let (guarded, _) = registry();
    for who in ["owner", "partner"] {
        let mut client = guarded.client(&key_of(who));
        for operation in ["DescribeImages", "BatchGetImage", "GetRepositoryPolicy", "DeleteRepository"] {
            let kinds = ["team/app", "lost/app"].into_iter().map(|name| {
                let mut input = json!({ "repositoryName": name, "registryId": PARTNER });
                if operation == "BatchGetImage" {
                    input["imageIds"] = json!([{ "imageTag": "there-is-one" }]);
                }
                client.fails(operation, &input)
            });
            let kinds = kinds.collect::<Vec<_>>();
            let expected = if who == "owner" { "AccessDeniedException" } else { "RepositoryNotFoundException" };
            assert_eq!(kinds, [expected, expected], "{who} {operation}");
        }
    }
}

#[test]
fn logos_are_those_of_public_repositories_and_tell_of_no_others() {
    let (guarded, _) = registry();
    let mut owner = guarded.client(&key_of("owner"));
    let logo = STANDARD.encode(b"\x89PNG and more");
    for (service, name) in [("ecr-public", "free"), ("ecr-public", "bare"), ("ecr", "public/secret")] {
        let mut input = json!({ "repositoryName": name });
        if name == "free" {
            input["catalogData"] = json!({ "logoImageBlob": logo });
        }
        assert_eq!(owner.call(service, "CreateRepository", &input).status, 200);
    }
    for who in ["nobody", "owner"] {
        let mut client = guarded.client(&key_of(who));
        let found = client.get("/logos/public/free");
        assert_eq!((found.status, found.header("content-type")), (200, Some("image/png")));
        let names = ["public/bare", "public/secret", "public/none", "team/app", "lost/app"];
        let answers = names.map(|name| {
            let answer = client.get(&format!("/logos/{name}"));
            (answer.status, String::from_utf8(answer.body).unwrap())
        });
        assert!(answers.iter().all(|answer| answer.0 == 404 && *answer == answers[0]), "{answers:?}");
    }
}
