//! Callers who have some rights, and try to have the registry do for them what they have none for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::scope;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use strongroom::registry::RepositorySettings;
use strongroom::{Algorithm, Digest, Store};
use strongroom_registry::auth::Auth;
use strongroom_registry::auth::token::TokenKey;
use strongroom_registry::http::{Creation, Settings};

use crate::client::{Client, Guarded, OWN, PARTNER, access_key, allow, arn, key_of, kind, user};
use crate::common::registry::IMAGE;
use crate::common::tell;
use crate::server::{Server, image, options, settings};
use crate::silence::push;

const ADMIN: &[&str] = &["ecr:*", "ecr-public:*"];

/// An administrator and these users.
fn registry(mut users: Vec<Value>) -> Guarded {
    users.push(user("admin", OWN, &json!([allow(ADMIN, &["*"])])));
    let root = json!({ OWN: { "accessKeys": [access_key("root")] } });
    Guarded::start(&json!({ "users": users, "accounts": root }))
}

#[test]
fn a_tag_beside_the_one_that_may_be_set_is_refused_whatever_its_case() {
    let tagging = json!({ "Statement": {
        "Effect": "Allow", "Action": ["ecr:TagResource", "ecr:CreateRepository"], "Resource": "*",
        "Condition": { "StringEquals": { "aws:RequestTag/team": "mine" } },
    } });
    let by_tag = json!({ "Statement": {
        "Effect": "Allow", "Action": "ecr:DeleteRepository", "Resource": "*",
        "Condition": { "StringEquals": { "aws:ResourceTag/team": "theirs" } },
    } });
    let guarded = registry(vec![user("tagger", OWN, &json!([tagging, by_tag]))]);
    let mut admin = guarded.client(&key_of("admin"));
    admin.ok("CreateRepository", &json!({ "repositoryName": "victim" }));
    let mut tagger = guarded.client(&key_of("tagger"));
    let tag = |key: &str, value: &str| json!({ "Key": key, "Value": value });
    let both = json!([tag("team", "theirs"), tag("TEAM", "mine")]);
    let input = json!({ "resourceArn": arn("victim"), "tags": both });
    assert_eq!(tagger.fails("TagResource", &input), "InvalidTagParameterException");
    let input = json!({ "repositoryName": "another", "tags": both });
    assert_eq!(tagger.fails("CreateRepository", &input), "InvalidTagParameterException");
    // One after the other does not do either.
    tagger.ok("TagResource", &json!({ "resourceArn": arn("victim"), "tags": [tag("Team", "mine")] }));
    let input = json!({ "resourceArn": arn("victim"), "tags": [tag("team", "mine")] });
    assert_eq!(tagger.fails("TagResource", &input), "InvalidTagParameterException");
    assert_eq!(tagger.fails("DeleteRepository", &json!({ "repositoryName": "victim" })), "AccessDeniedException");
    let tags = admin.ok("ListTagsForResource", &json!({ "resourceArn": arn("victim") }));
    assert_eq!(tags["tags"], json!([tag("Team", "mine")]));
}

#[test]
fn the_tags_that_a_policy_guards_can_not_be_removed() {
    let guard = json!({ "Statement": {
        "Effect": "Deny", "Action": ["ecr:TagResource", "ecr:UntagResource"], "Resource": "*",
        "Condition": { "ForAnyValue:StringEquals": { "aws:TagKeys": ["team"] } },
    } });
    let guarded = registry(vec![user("tagger", OWN, &json!([allow(ADMIN, &["*"]), guard]))]);
    let mut admin = guarded.client(&key_of("admin"));
    let tags = json!([{ "Key": "team", "Value": "a" }, { "Key": "stage", "Value": "b" }]);
    admin.ok("CreateRepository", &json!({ "repositoryName": "app", "tags": tags }));
    let mut tagger = guarded.client(&key_of("tagger"));
    let untag = |keys: &[&str]| json!({ "resourceArn": arn("app"), "tagKeys": keys });
    for keys in [&["team"][..], &["stage", "team"]] {
        assert_eq!(tagger.fails("UntagResource", &untag(keys)), "AccessDeniedException");
    }
    tagger.ok("UntagResource", &untag(&["stage"]));
}

#[test]
fn pages_of_lists_name_nothing_that_one_may_not_see() {
    // The catalogue looks at 5,000 repositories for a page.
    const HIDDEN: usize = 5100;
    let seer = allow(&["ecr:DescribeRepositories"], &[&arn("z/seen")]);
    let publisher = allow(&["ecr-public:*"], &["*"]);
    let users = json!({ "users": [
        user("seer", OWN, &json!([seer])), user("publisher", OWN, &json!([publisher])),
    ] });
    let guarded = Guarded::with(&users, Creation::OnPush, |store: &Store| {
        let create = |name: &str, settings| drop(store.create_repository(&name.parse().unwrap(), settings).unwrap());
        for number in 0..HIDDEN {
            create(&format!("hidden/{number:04}"), RepositorySettings::new());
        }
        create("z/seen", RepositorySettings::new());
        for (name, is_public) in [("a", true), ("b", false), ("c", true), ("d", false)] {
            let settings = RepositorySettings::new();
            let settings = if is_public { settings.document("ecr/public", "").unwrap() } else { settings };
            create(&format!("public/{name}"), settings);
        }
    });
    let mut seer = guarded.client(&key_of("seer"));
    let (mut path, mut seen, mut pages) = (Some("/v2/_catalog".to_owned()), Vec::new(), 0);
    while let Some(next) = path {
        let answer = seer.get(&next);
        assert_eq!(answer.status, 200, "{answer:?}");
        seen.extend(answer.json()["repositories"].as_array().unwrap().clone());
        let link = answer.header("link").unwrap_or_default();
        assert!(!link.contains("hidden") && !link.contains("%2F"), "{link}");
        path = link.strip_prefix('<').and_then(|link| link.split_once('>')).map(|(path, _)| path.to_owned());
        pages += 1;
    }
    assert_eq!((seen, pages), (vec![json!("public/a"), json!("public/c"), json!("z/seen")], 2));
    for bad in ["~", "~abc", "~~", &format!("~{}", guarded.auth.place("x").unwrap().replace('A', "B"))] {
        let answer = seer.get(&format!("/v2/_catalog?last={bad}"));
        assert!(answer.status == 400, "{bad}: {answer:?}");
    }

    let mut publisher = guarded.client(&key_of("publisher"));
    let mut input = json!({ "maxResults": 1 });
    let mut seen = Vec::new();
    loop {
        let page = publisher.call("ecr-public", "DescribeRepositories", &input).json();
        seen.extend(page["repositories"].as_array().unwrap().iter().map(|one| one["repositoryName"].clone()));
        let Some(token) = page["nextToken"].as_str() else { break };
        let position = URL_SAFE_NO_PAD.decode(token).unwrap();
        let position = String::from_utf8(position).unwrap();
        assert!(position.ends_with("public/a") || position.ends_with("public/c"), "{position:?}");
        input["nextToken"] = json!(token);
    }
    assert_eq!(seen, [json!("a"), json!("c")]);
}

#[test]
fn what_one_identity_may_read_another_one_of_the_same_person_can_not_mount() {
    let pusher = allow(&["ecr:*"], &[&arn("mine")]);
    let reader = allow(&["ecr:*"], &[&arn("theirs")]);
    let guarded = registry(vec![user("pusher", OWN, &json!([pusher])), user("reader", OWN, &json!([reader]))]);
    let mut admin = guarded.client(&key_of("admin"));
    push(&mut admin, "theirs", "v1", b"secret");
    push(&mut admin, "mine", "v1", b"other");
    let secret = Digest::of(Algorithm::Sha256, b"secret");
    let mount = format!("/v2/mine/blobs/uploads/?mount={secret}&from=theirs");
    let mut reader = guarded.client(&key_of("reader"));
    assert_eq!(reader.get(&format!("/v2/theirs/blobs/{secret}")).status, 200);
    let url =
        reader.ok("GetDownloadUrlForLayer", &json!({ "repositoryName": "theirs", "layerDigest": secret.to_string() }));
    let token = url["downloadUrl"].as_str().unwrap().split_once("token=").unwrap().1.to_owned();
    let mut pusher = guarded.client(&key_of("pusher"));
    // Neither with the address that the reader got: that is for reading there.
    for path in [mount.clone(), format!("{mount}&token={token}")] {
        assert_eq!(pusher.oci("POST", &path, &[], &[]).status, 202);
        assert_eq!(pusher.get(&format!("/v2/mine/blobs/{secret}?token={token}")).status, 404);
    }
    assert_eq!(reader.oci("POST", &mount, &[], &[]).status, 403);
}

#[test]
fn an_upload_is_of_its_repository_on_both_apis() {
    let guarded = registry(vec![user("pusher", OWN, &json!([allow(&["ecr:*"], &[&arn("mine")])]))]);
    let mut admin = guarded.client(&key_of("admin"));
    for name in ["mine", "theirs"] {
        admin.ok("CreateRepository", &json!({ "repositoryName": name }));
    }
    let begun = admin.oci("POST", "/v2/theirs/blobs/uploads/", &[], &[]);
    let (id, location) = (begun.header("docker-upload-uuid").unwrap(), begun.header("location").unwrap());
    assert_eq!(admin.oci("PATCH", location, &[], b"secret").status, 202);
    let uuid = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
    let secret = Digest::of(Algorithm::Sha256, b"secret");
    let mut pusher = guarded.client(&key_of("pusher"));
    let wrong = format!("/v2/mine/blobs/uploads/{id}");
    for (method, path, body) in [
        ("GET", wrong.clone(), &b""[..]),
        ("PATCH", wrong.clone(), b"more"),
        ("PUT", format!("{wrong}?digest={secret}"), b""),
        ("DELETE", wrong.clone(), b""),
    ] {
        assert_eq!(pusher.oci(method, &path, &[], body).status, 404, "{method}");
        assert_eq!(pusher.oci(method, &path.replace("mine", "theirs"), &[], body).status, 403, "{method}");
    }
    let part = json!({
        "repositoryName": "mine", "uploadId": uuid, "partFirstByte": 6, "partLastByte": 7,
        "layerPartBlob": STANDARD.encode("xx"),
    });
    assert_eq!(pusher.fails("UploadLayerPart", &part), "UploadNotFoundException");
    let complete = json!({ "repositoryName": "mine", "uploadId": uuid, "layerDigests": [secret.to_string()] });
    assert_eq!(pusher.fails("CompleteLayerUpload", &complete), "UploadNotFoundException");
    // Nothing has happened to it.
    assert_eq!(admin.oci("PUT", &format!("{location}?digest={secret}"), &[], &[]).status, 201);
}

#[test]
fn an_image_of_blobs_that_another_repository_has_is_refused() {
    let guarded = registry(vec![user("pusher", OWN, &json!([allow(&["ecr:*"], &[&arn("mine")])]))]);
    let mut admin = guarded.client(&key_of("admin"));
    push(&mut admin, "theirs", "v1", b"secret");
    admin.ok("CreateRepository", &json!({ "repositoryName": "mine" }));
    let mut pusher = guarded.client(&key_of("pusher"));
    let refused = |pusher: &mut Client, config: &[u8]| {
        let document = image(Digest::of(Algorithm::Sha256, config), config.len()).to_string();
        let put = pusher.oci("PUT", "/v2/mine/manifests/v1", &[("content-type", IMAGE)], document.as_bytes());
        assert_eq!((put.status, put.error().1.as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
        pusher.fails("PutImage", &json!({ "repositoryName": "mine", "imageManifest": document }))
    };
    assert_eq!(refused(&mut pusher, b"secret"), refused(&mut pusher, b"absent"));
}

#[test]
fn a_policy_that_locks_everybody_out_takes_force_and_is_undone_without_credentials() {
    let guarded = registry(vec![]);
    let deny = json!({ "Statement": { "Effect": "Deny", "Principal": "*", "Action": "*" } }).to_string();
    let mut root = guarded.client(&key_of("root"));
    root.ok("CreateRepository", &json!({ "repositoryName": "app" }));
    let mut input = json!({ "repositoryName": "app", "policyText": deny });
    assert_eq!(root.fails("SetRepositoryPolicy", &input), "InvalidParameterException");
    assert_eq!(root.fails("PutRegistryPolicy", &json!({ "policyText": deny })), "InvalidParameterException");
    input["force"] = json!(true);
    root.ok("SetRepositoryPolicy", &input);
    // A denial holds for the root user too.
    let app = json!({ "repositoryName": "app" });
    for operation in ["GetRepositoryPolicy", "DeleteRepositoryPolicy", "DeleteRepository", "DescribeImages"] {
        assert_eq!(root.fails(operation, &app), "AccessDeniedException");
    }
    assert_eq!(root.get("/v2/app/tags/list").status, 403);
    // Who runs the registry serves the store without credentials, where only they reach it.
    let disk = guarded.server.disk.clone();
    drop(root);
    drop(guarded);
    let auth = Arc::new(Auth::open(TokenKey::random().unwrap()));
    let store = options(&disk).open("/store").unwrap();
    let server = Server::serve_with(disk, store, Settings { auth, ..settings() });
    let mut operator = Client::new(server.address, None);
    operator.ok("DeleteRepositoryPolicy", &app);
    operator.ok("DescribeImages", &app);
}

/// A policy of the greatest length whose patterns are built to be slow: none is found not to match before its end.
fn slow() -> String {
    let pattern = format!("*{}b*", "a".repeat(490));
    let mut patterns = vec![pattern.clone()];
    loop {
        let text = json!({ "Statement": [
            { "Effect": "Allow", "Principal": { "AWS": OWN }, "Action": "ecr:*" },
            { "Effect": "Deny", "Principal": "*", "Action": "*", "Condition": {
                "StringLike": { "aws:UserAgent": patterns },
            } },
        ] });
        if text.to_string().len() + pattern.len() + 3 > 10_240 {
            return text.to_string();
        }
        patterns.push(pattern.clone());
    }
}

#[test]
fn a_policy_that_is_built_to_be_slow_bounds_a_request_and_leaves_others_served() {
    let guarded = registry(vec![user("attacker", OWN, &json!([allow(&["ecr:*"], &[&arn("attack*")])]))]);
    let mut admin = guarded.client(&key_of("admin"));
    push(&mut admin, "attack", "v1", b"a");
    push(&mut admin, "team/app", "v1", b"b");
    let mut attacker = guarded.client(&key_of("attacker"));
    let policy = slow();
    assert!(policy.len() > 9_500, "{}", policy.len());
    let set = json!({ "repositoryName": "attack", "policyText": policy, "force": true });
    attacker.ok("SetRepositoryPolicy", &set);
    let agent = "a".repeat(8000);
    let pull = |client: &mut Client| {
        let begun = Instant::now();
        let answer = client.oci("GET", "/v2/attack/manifests/v1", &[("user-agent", &agent)], &[]);
        assert_eq!(answer.status, 403, "{answer:?}");
        begun.elapsed()
    };
    assert_eq!(attacker.get("/v2/attack/manifests/v1").status, 200, "without so long a name of the client");
    let longest = (0..20).map(|_| pull(&mut attacker)).max().unwrap();
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    // Sixteen connections of the attacker, and one of somebody else.
    let done = AtomicBool::new(false);
    scope(|scope| {
        let (done, guarded) = (&done, &guarded);
        for _ in 0..16 {
            scope.spawn(move || {
                let mut attacker = guarded.client(&key_of("attacker"));
                while !done.load(Relaxed) {
                    pull(&mut attacker);
                }
            });
        }
        let begun = Instant::now();
        let served = (0..50).filter(|_| admin.get("/v2/team/app/manifests/v1").status == 200).count();
        done.store(true, Relaxed);
        let each = begun.elapsed() / 50;
        assert_eq!(served, 50);
        tell(&format!(
            "a request that a slow policy decides took up to {longest:.1?}, one beside 16 of them {each:.1?}"
        ));
        assert!(each < Duration::from_secs(1), "{each:?}");
    });
}

#[test]
fn an_account_policy_names_neither_another_accounts_users_nor_anonymous_ones() {
    let partner = allow(&["ecr:*"], &["*"]);
    let guarded = registry(vec![user("partner", PARTNER, &json!([partner])), user("idle", PARTNER, &json!([]))]);
    let mut admin = guarded.client(&key_of("admin"));
    push(&mut admin, "app", "v1", b"a");
    let statement = |principal: &str| {
        let text = json!({ "Statement": { "Effect": "Allow", "Principal": { "AWS": principal }, "Action": "ecr:*" } });
        json!({ "repositoryName": "app", "policyText": text.to_string() })
    };
    let pull = |who: Option<&str>| {
        Client::new(guarded.server.address, who.map(key_of).as_deref()).get("/v2/app/manifests/v1").status
    };
    for (principal, partner, idle, anonymous) in [(OWN, 403, 403, 401), (PARTNER, 200, 403, 401), ("*", 200, 403, 200)]
    {
        admin.ok("SetRepositoryPolicy", &statement(principal));
        assert_eq!([pull(Some("partner")), pull(Some("idle")), pull(None)], [partner, idle, anonymous], "{principal}");
    }
    // What the repository allows does not let anybody into the registry's own settings.
    let mut partner = guarded.client(&key_of("partner"));
    for operation in ["GetRegistryPolicy", "DescribeRepositories", "ListPullTimeUpdateExclusions"] {
        assert_eq!(kind(&partner.call("ecr", operation, &json!({}))), "AccessDeniedException");
    }
    // Each account lets its own log in.
    assert_eq!(partner.call("ecr", "GetAuthorizationToken", &json!({})).status, 200);
}

#[test]
fn a_push_creates_no_repository_for_who_may_not_create_one() {
    let push_rights = ["ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage"];
    let read = allow(&["ecr:GetDownloadUrlForLayer"], &[&arn("app")]);
    let guarded = registry(vec![user("pusher", OWN, &json!([allow(&push_rights, &["*"]), read]))]);
    let mut admin = guarded.client(&key_of("admin"));
    push(&mut admin, "app", "v1", b"a config");
    let mut pusher = guarded.client(&key_of("pusher"));
    let digest = Digest::of(Algorithm::Sha256, b"a config");
    let document = image(digest, 8).to_string();
    for name in ["new", "public/new"] {
        for (method, rest, body) in [
            ("POST", "blobs/uploads/".to_owned(), &b""[..]),
            ("POST", format!("blobs/uploads/?digest={digest}"), b"a config"),
            ("POST", format!("blobs/uploads/?mount={digest}&from=app"), b""),
            ("PUT", "manifests/v1".to_owned(), document.as_bytes()),
        ] {
            let answer = pusher.oci(method, &format!("/v2/{name}/{rest}"), &[("content-type", IMAGE)], body);
            assert_eq!(answer.status, 403, "{method} {name} {rest}: {answer:?}");
        }
    }
    assert_eq!(admin.get("/v2/_catalog").json()["repositories"], json!(["app"]));
    assert_eq!(pusher.oci("POST", "/v2/app/blobs/uploads/", &[], &[]).status, 202);
}

#[test]
fn policies_know_a_client_by_its_address_and_its_transport_as_the_proxy_says_them() {
    let one = json!({ "Statement": [
        { "Effect": "Allow", "Action": "ecr:*", "Resource": "*",
          "Condition": { "IpAddress": { "aws:SourceIp": ["2001:db8::/64", "198.51.100.7"] } } },
        { "Effect": "Deny", "Action": "ecr:*", "Resource": "*",
          "Condition": { "IpAddress": { "aws:SourceIp": "2001:db8::bad" } } },
        { "Effect": "Deny", "Action": "ecr:*", "Resource": "*",
          "Condition": { "Bool": { "aws:SecureTransport": "false" } } },
    ] });
    let guarded = Guarded::behind_proxy(&json!({ "users": [user("limited", OWN, &json!([one]))] }));
    let mut limited = guarded.client(&key_of("limited"));
    let (https, http) = (("x-forwarded-proto", "https"), ("x-forwarded-proto", "http"));
    let from = |address| ("x-forwarded-for", address);
    for (headers, status) in [
        (&[https, from("2001:db8::1")][..], 404),
        (&[https, from("2001:db8::bad")], 403),
        (&[https, from("2001:db8:0:0:1::1")], 404),
        (&[https, from("2001:db8:0:1::1")], 403),
        (&[https, from("198.51.100.7")], 404),
        (&[https, from("::ffff:198.51.100.7")], 404),
        (&[https, from("198.51.100.8")], 403),
        (&[https, from("198.51.100.7, 198.51.100.8")], 403),
        (&[https, from("198.51.100.7"), from("198.51.100.8")], 403),
        (&[https, from("198.51.100.7 junk")], 403),
        (&[https], 403),
        (&[from("198.51.100.7")], 403),
        (&[http, from("198.51.100.7")], 403),
        (&[https, http, from("198.51.100.7")], 403),
    ] {
        assert_eq!(limited.oci("GET", "/v2/none/tags/list", headers, &[]).status, status, "{headers:?}");
    }
    // Who comes directly says nothing of that.
    let guarded = Guarded::start(&json!({ "users": [user("limited", OWN, &json!([one]))] }));
    let headers = [https, from("198.51.100.7")];
    assert_eq!(guarded.client(&key_of("limited")).oci("GET", "/v2/none/tags/list", &headers, &[]).status, 403);
}

#[test]
fn a_repository_inherits_nothing_from_one_that_had_its_name() {
    let guarded = registry(vec![user("heir", OWN, &json!([]))]);
    let mut admin = guarded.client(&key_of("admin"));
    push(&mut admin, "app", "v1", b"secret");
    let heir = format!("arn:aws:iam::{OWN}:user/heir");
    let policy = json!({ "Statement": { "Effect": "Allow", "Principal": { "AWS": heir }, "Action": "ecr:*" } });
    let app = json!({ "repositoryName": "app" });
    let with = |member: &str, text: String| json!({ "repositoryName": "app", member: text });
    admin.ok("SetRepositoryPolicy", &with("policyText", policy.to_string()));
    admin.ok("TagResource", &json!({ "resourceArn": arn("app"), "tags": [{ "Key": "team", "Value": "a" }] }));
    let rules = json!({ "rules": [{
        "rulePriority": 1, "selection": { "tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1 },
        "action": { "type": "expire" },
    }] });
    admin.ok("StartLifecyclePolicyPreview", &with("lifecyclePolicyText", rules.to_string()));
    let begun = Instant::now();
    while admin.ok("GetLifecyclePolicyPreview", &app)["status"] == "IN_PROGRESS" {
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    let mut heir = guarded.client(&key_of("heir"));
    assert_eq!(heir.get("/v2/app/manifests/v1").status, 200);
    let config = Digest::of(Algorithm::Sha256, b"secret");
    let upload = admin.oci("POST", "/v2/app/blobs/uploads/", &[], &[]).header("location").unwrap().to_owned();
    admin.ok("DeleteRepository", &json!({ "repositoryName": "app", "force": true }));
    admin.ok("CreateRepository", &app);
    assert_eq!(heir.get("/v2/app/manifests/v1").status, 403);
    assert_eq!(admin.fails("GetRepositoryPolicy", &app), "RepositoryPolicyNotFoundException");
    assert_eq!(admin.fails("GetLifecyclePolicyPreview", &app), "LifecyclePolicyPreviewNotFoundException");
    assert_eq!(admin.ok("ListTagsForResource", &json!({ "resourceArn": arn("app") }))["tags"], json!([]));
    for path in ["/v2/app/manifests/v1", &format!("/v2/app/blobs/{config}"), &upload] {
        assert_eq!(admin.get(path).status, 404, "{path}");
    }
}

#[test]
fn who_pushes_a_blob_does_not_learn_that_another_repository_has_it() {
    let guarded = registry(vec![user("pusher", OWN, &json!([allow(&["ecr:*"], &[&arn("mine")])]))]);
    let mut admin = guarded.client(&key_of("admin"));
    push(&mut admin, "theirs", "v1", b"a guess");
    admin.ok("CreateRepository", &json!({ "repositoryName": "mine" }));
    let mut pusher = guarded.client(&key_of("pusher"));
    let mut complete = |content: &[u8]| {
        let mine = json!({ "repositoryName": "mine" });
        let id = pusher.ok("InitiateLayerUpload", &mine)["uploadId"].clone();
        let (last, blob) = (content.len() - 1, STANDARD.encode(content));
        let mut part = json!({ "uploadId": id, "partFirstByte": 0, "partLastByte": last, "layerPartBlob": blob });
        part["repositoryName"] = json!("mine");
        pusher.ok("UploadLayerPart", &part);
        let digest = Digest::of(Algorithm::Sha256, content).to_string();
        let complete = json!({ "repositoryName": "mine", "uploadId": id, "layerDigests": [digest] });
        let answer = pusher.call("ecr", "CompleteLayerUpload", &complete);
        if answer.status == 200 { String::new() } else { kind(&answer) }
    };
    for content in [&b"a guess"[..], b"a miss"] {
        assert_eq!(complete(content), "");
        assert_eq!(complete(content), "LayerAlreadyExistsException");
    }
}
