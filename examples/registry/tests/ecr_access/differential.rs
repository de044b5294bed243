//! Random callers, policies and requests on both APIs, each compared with the model.

use std::collections::HashMap;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use strongroom::registry::{PutManifest, RepositorySettings};
use strongroom::{Algorithm, Digest, Store};
use strongroom_registry::auth::Identity;
use strongroom_registry::http::Creation;

use crate::client::{Guarded, OWN, PARTNER, REGION, STRANGER, access_key, arn, basic, key_of, user};
use crate::common::registry::IMAGE;
use crate::common::{Random, seed, tell};
use crate::model::{Asked, Condition, Kind, Principal, Statement, Who, document, is_allowed};
use crate::server::{Answer, image};

/// How many requests are compared, unless `STRONGROOM_ACCESS_REQUESTS` says otherwise.
const REQUESTS: u64 = 20_000;

/// After so many the policies of the registry and of a repository are changed.
const CHANGED: u64 = 40;

const AGENTS: [Option<&str>; 3] = [None, Some("docker"), Some("drone")];

/// A repository that is asked for, by its name on `/v2`.
#[derive(Debug)]
struct Named {
    name: &'static str,
    /// Its tag `team`, if it is there.
    team: Option<&'static str>,
    is_there: bool,
}

static REPOSITORIES: [Named; 5] = [
    Named { name: "team/app", team: Some("red"), is_there: true },
    Named { name: "team/web", team: Some("blue"), is_there: true },
    Named { name: "lost/one", team: None, is_there: false },
    Named { name: "public/free", team: None, is_there: true },
    Named { name: "public/gone", team: None, is_there: false },
];

const FREE: &str = "public/free";

#[test]
fn both_apis_allow_what_a_naive_model_allows_and_nothing_else() {
    let seed = seed(20_260_514);
    let count = std::env::var("STRONGROOM_ACCESS_REQUESTS").ok().and_then(|count| count.parse().ok());
    let (count, begun) = (count.unwrap_or(REQUESTS), Instant::now());
    let mut run = Run::new(seed);
    for number in 0..count {
        if number % CHANGED == 0 {
            run.change_policies();
        }
        if run.random.below(2) == 0 { run.oci() } else { run.api() }
    }
    let Run { allowed, denied, .. } = run;
    tell(&format!("{count} requests compared in {:.1?}: {allowed} allowed, {denied} denied", begun.elapsed()));
    assert!(allowed.min(denied) > count / 10, "the menu is one-sided");
}

struct Run {
    random: Random,
    guarded: Guarded,
    client: crate::client::Client,
    everybody: Vec<Who>,
    /// The policies that repositories have, by name, and the registry, by the name "".
    policies: HashMap<&'static str, Vec<Statement>>,
    /// For logging in.
    tokens: HashMap<String, String>,
    allowed: u64,
    denied: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let everybody = everybody(&mut random);
        let guarded = Guarded::with(&credentials(&everybody), Creation::Never, prepare);
        let client = guarded.anonymous();
        Self {
            random,
            guarded,
            client,
            everybody,
            policies: HashMap::new(),
            tokens: HashMap::new(),
            allowed: 0,
            denied: 0,
        }
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.random.below(from.len() as u64) as usize]
    }

    /// As the root user, over the API.
    fn change_policies(&mut self) {
        self.client.becomes(Some(&key_of("root")));
        let named = [Some(&REPOSITORIES[0]), Some(&REPOSITORIES[1]), Some(&REPOSITORIES[3]), None];
        let of = *self.pick(&named);
        let name = of.map_or("", |named| named.name);
        let (service, shown) = match name.strip_prefix("public/") {
            Some(name) => ("ecr-public", name),
            None => ("ecr", name),
        };
        let kind = if of.is_some() { "RepositoryPolicy" } else { "RegistryPolicy" };
        let mut input = if of.is_some() { json!({ "repositoryName": shown }) } else { json!({}) };
        if self.random.below(4) == 0 && self.policies.contains_key(name) {
            let answer = self.client.call(service, &format!("Delete{kind}"), &input);
            assert_eq!(answer.status, 200, "{answer:?}");
            self.policies.remove(name);
            return;
        }
        let count = 1 + self.random.below(3);
        let statements: Vec<_> = (0..count).map(|_| statement(&mut self.random, &self.everybody, true)).collect();
        input["policyText"] = json!(document(&statements).to_string());
        let verb = if of.is_some() { "Set" } else { "Put" };
        let answer = self.client.call(service, &format!("{verb}{kind}"), &input);
        assert_eq!(answer.status, 200, "{input}: {}", String::from_utf8_lossy(&answer.body));
        self.policies.insert(name, statements);
    }

    /// What the model says of an action, `ecr:…` or `ecr-public:…`, on a repository of an account.
    fn may(&self, who: &Who, action: &str, named: &Named, account: &str, agent: Option<&str>) -> bool {
        let (mut resource, is_public): (Vec<&[Statement]>, _) = (Vec::new(), action.starts_with("ecr-public:"));
        if account == OWN {
            resource.extend(self.policies.get(named.name).map(Vec::as_slice));
            if !is_public {
                resource.extend(self.policies.get("").map(Vec::as_slice));
            }
        }
        let on = match named.name.strip_prefix("public/") {
            Some(name) if is_public => format!("arn:aws:ecr-public::{account}:repository/{name}"),
            _ => format!("arn:aws:ecr:{REGION}:{account}:repository/{}", named.name),
        };
        let team = named.team.filter(|_| account == OWN);
        is_allowed(who, &resource, &Asked { action: action.to_owned(), resource: on, account, team, agent })
    }

    /// The same of an action on the registry.
    fn may_in_registry(&self, who: &Who, action: &str, agent: Option<&str>) -> bool {
        let of_registry = self.policies.get("").map(Vec::as_slice).filter(|_| !action.starts_with("ecr-public:"));
        let resource: Vec<_> = of_registry.into_iter().collect();
        let asked = Asked { action: action.to_owned(), resource: "*".into(), account: OWN, team: None, agent };
        is_allowed(who, &resource, &asked)
    }

    /// Compares a request of the distribution API.
    fn oci(&mut self) {
        let everybody = self.everybody.clone();
        let (who, agent) = (self.pick(&everybody), *self.pick(&AGENTS));
        let (named, request) = (self.pick(&REPOSITORIES), *self.pick(OCI));
        let (method, rest, actions) = request;
        let path = format!("/v2/{}/{}", named.name, rest.replace("DIGEST", &unknown().to_string()));
        let may_describe = |own: &Self, named: &Named| {
            named.is_there && (named.name == FREE || own.may(who, "ecr:DescribeRepositories", named, OWN, agent))
        };
        let answer = |own: &mut Self, path: &str| {
            let authorization = own.authorization(who);
            let mut headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
            headers.extend(agent.map(|agent| ("user-agent", agent)));
            own.client.send(method, path, &headers, &[])
        };
        if actions.is_empty() {
            let names = REPOSITORIES.iter().filter(|named| may_describe(self, named)).map(|one| one.name);
            let mut names: Vec<_> = names.collect();
            names.sort_unstable();
            let answer = answer(self, "/v2/_catalog");
            assert_eq!(answer.json()["repositories"], json!(names), "{who:?} {:?}", self.policies);
            return;
        }
        let is_read = matches!(method, "GET" | "HEAD") && !rest.contains("uploads");
        let service = if named.name == FREE { "ecr-public" } else { "ecr" };
        let expected = (named.name == FREE && is_read)
            || (is_read || who.kind != Kind::Anonymous)
                && actions.iter().any(|action| self.may(who, &format!("{service}:{action}"), named, OWN, agent));
        let answer = answer(self, &path);
        let refused = if who.kind == Kind::Anonymous { 401 } else { 403 };
        self.compare(expected, answer.status != refused, &answer, &format!("{method} {path} {who:?} {agent:?}"));
    }

    /// Compares a call of the API.
    fn api(&mut self) {
        let everybody = self.everybody.clone();
        let (who, agent) = (self.pick(&everybody), *self.pick(&AGENTS));
        let Some(key) = who.key() else { return };
        let registry_id = *self.pick(&[None, None, None, Some(OWN), Some(PARTNER)]);
        let ((service, operation, on), named) = (*self.pick(API), self.pick(&REPOSITORIES[..3]));
        let named = if service == "ecr" { named } else { self.pick(&REPOSITORIES[3..]) };
        let name = named.name.strip_prefix("public/").unwrap_or(named.name);
        let action = format!("{service}:{operation}");
        let action = action.replace("ListImageReferrers", "BatchGetImage");
        let mut input = input(operation);
        let expected = match on {
            On::Repository | On::Name | On::Names => {
                let account = registry_id.filter(|_| on != On::Name).unwrap_or(OWN);
                match on {
                    On::Names => input["repositoryNames"] = json!([name]),
                    _ => input["repositoryName"] = json!(name),
                }
                if on != On::Name {
                    input["registryId"] = json!(registry_id.unwrap_or(OWN));
                }
                self.may(who, &action, named, account, agent)
            }
            On::Resource => {
                input["resourceArn"] = match service {
                    "ecr" => json!(arn(name)),
                    _ => json!(format!("arn:aws:ecr-public::{OWN}:repository/{name}")),
                };
                self.may(who, &action, named, OWN, agent)
            }
            On::Registry => self.may_in_registry(who, &action, agent),
            On::Caller => {
                let (resource, account) = ("*".into(), who.account);
                is_allowed(who, &[], &Asked { action: action.clone(), resource, account, team: None, agent })
            }
        };
        self.client.becomes(Some(&key));
        let headers: Vec<_> = agent.iter().map(|agent| ("user-agent", *agent)).collect();
        let answer = self.client.call_with(service, operation, input.to_string().as_bytes(), &headers);
        let is_allowed = answer.status == 200 || crate::client::kind(&answer) != "AccessDeniedException";
        self.compare(expected, is_allowed, &answer, &format!("{action} {input} {who:?} {agent:?}"));
    }

    fn compare(&mut self, expected: bool, found: bool, answer: &Answer, asked: &str) {
        let body = String::from_utf8_lossy(&answer.body);
        assert!(answer.status < 500 && answer.status != 429, "{asked}: {} {body}", answer.status);
        assert!(!body.contains("Signature") && !body.contains("SerializationException"), "{asked}: {body}");
        let policies = &self.policies;
        assert_eq!(found, expected, "allowed? {asked}: {} {body}\n{policies:?}", answer.status);
        if found { self.allowed += 1 } else { self.denied += 1 }
    }

    /// How somebody logs in: with their key, or with a token.
    fn authorization(&mut self, who: &Who) -> Option<String> {
        let key = who.key()?;
        if self.random.below(2) == 0 {
            return Some(basic(&key, &crate::client::secret_of(&key)));
        }
        let auth = &self.guarded.auth;
        let token = self.tokens.entry(key).or_insert_with(|| {
            let known = auth.by_arn(&who.arns()[0]).unwrap();
            auth.token_for(&Identity::Principal(known)).unwrap().text
        });
        Some(basic("AWS", token))
    }
}

fn unknown() -> Digest {
    Digest::of(Algorithm::Sha256, b"unknown")
}

/// What an operation is called on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// `repositoryName`, and `registryId`
    Repository,
    /// `repositoryName`
    Name,
    /// `repositoryNames`
    Names,
    /// `resourceArn`
    Resource,
    Registry,
    Caller,
}

type Oci = (&'static str, &'static str, &'static [&'static str]);

/// Requests that change nothing, and the actions of which they take one.
const OCI: &[Oci] = &[
    ("GET", "manifests/v1", &["BatchGetImage"]),
    ("HEAD", "manifests/v1", &["BatchGetImage"]),
    ("GET", "manifests/DIGEST", &["BatchGetImage"]),
    ("DELETE", "manifests/none", &["BatchDeleteImage"]),
    ("PUT", "manifests/v2", &["PutImage"]), // without a media type
    ("GET", "referrers/DIGEST", &["BatchGetImage"]),
    ("GET", "tags/list", &["ListImages"]),
    ("GET", "blobs/DIGEST", &["GetDownloadUrlForLayer"]),
    ("HEAD", "blobs/DIGEST", &["GetDownloadUrlForLayer", "BatchCheckLayerAvailability"]),
    ("DELETE", "blobs/DIGEST", &["BatchDeleteImage"]),
    ("POST", "blobs/uploads/?digest=none", &["InitiateLayerUpload"]),
    ("PATCH", "blobs/uploads/00000000000000000000000000000001", &["UploadLayerPart"]),
    ("GET", "blobs/uploads/00000000000000000000000000000001", &["UploadLayerPart"]),
    ("PUT", "blobs/uploads/00000000000000000000000000000001?digest=DIGEST", &["CompleteLayerUpload"]),
    ("GET", "_catalog", &[]), // a list
];

/// Operations with an input that changes nothing.
const API: &[(&str, &str, On)] = &[
    ("ecr", "BatchCheckLayerAvailability", On::Repository),
    ("ecr", "BatchDeleteImage", On::Repository),
    ("ecr", "BatchGetImage", On::Repository),
    ("ecr", "CompleteLayerUpload", On::Repository),
    ("ecr", "CreateRepository", On::Name),
    ("ecr", "DeleteLifecyclePolicy", On::Repository),
    ("ecr", "DeleteRepository", On::Repository),
    ("ecr", "DescribeImages", On::Repository),
    ("ecr", "DescribeRepositories", On::Names),
    ("ecr", "DescribeRepositories", On::Registry),
    ("ecr", "DeregisterPullTimeUpdateExclusion", On::Registry),
    ("ecr", "GetAccountSetting", On::Registry),
    ("ecr", "GetAuthorizationToken", On::Caller),
    ("ecr", "GetDownloadUrlForLayer", On::Repository),
    ("ecr", "GetLifecyclePolicy", On::Repository),
    ("ecr", "GetLifecyclePolicyPreview", On::Repository),
    ("ecr", "GetRegistryPolicy", On::Registry),
    ("ecr", "GetRepositoryPolicy", On::Repository),
    ("ecr", "ListImageReferrers", On::Repository),
    ("ecr", "ListImages", On::Repository),
    ("ecr", "ListPullTimeUpdateExclusions", On::Registry),
    ("ecr", "ListTagsForResource", On::Resource),
    ("ecr", "PutAccountSetting", On::Registry),
    ("ecr", "PutImage", On::Repository),
    ("ecr", "PutImageScanningConfiguration", On::Repository),
    ("ecr", "PutImageTagMutability", On::Repository),
    ("ecr", "PutLifecyclePolicy", On::Repository),
    ("ecr", "PutRegistryPolicy", On::Registry),
    ("ecr", "SetRepositoryPolicy", On::Repository),
    ("ecr", "StartLifecyclePolicyPreview", On::Repository),
    ("ecr", "TagResource", On::Resource),
    ("ecr", "UntagResource", On::Resource),
    ("ecr", "UpdateImageStorageClass", On::Repository),
    ("ecr", "UploadLayerPart", On::Repository),
    ("ecr-public", "BatchCheckLayerAvailability", On::Repository),
    ("ecr-public", "BatchDeleteImage", On::Repository),
    ("ecr-public", "DeleteRepository", On::Repository),
    ("ecr-public", "DescribeImages", On::Repository),
    ("ecr-public", "DescribeRegistries", On::Registry),
    ("ecr-public", "DescribeRepositories", On::Names),
    ("ecr-public", "GetAuthorizationToken", On::Caller),
    ("ecr-public", "GetRepositoryCatalogData", On::Repository),
    ("ecr-public", "GetRepositoryPolicy", On::Repository),
    ("ecr-public", "ListTagsForResource", On::Resource),
    ("ecr-public", "PutImage", On::Repository),
    ("ecr-public", "SetRepositoryPolicy", On::Repository),
];

/// What an operation is given beside what it is called on: something that it refuses once it has looked at rights.
fn input(operation: &str) -> Value {
    let (digest, upload) = (unknown().to_string(), "00000000-0000-0000-0000-000000000001");
    match operation {
        "BatchCheckLayerAvailability" => json!({ "layerDigests": [digest] }),
        "BatchDeleteImage" | "BatchGetImage" => json!({ "imageIds": [{ "imageTag": "none" }] }),
        "CompleteLayerUpload" => json!({ "uploadId": upload, "layerDigests": [digest] }),
        "CreateRepository" => json!({ "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION" }),
        "GetDownloadUrlForLayer" => json!({ "layerDigest": digest }),
        "DeregisterPullTimeUpdateExclusion" => json!({ "principalArn": "arn:aws:iam::111111111111:user/none" }),
        "GetAccountSetting" => json!({ "name": "BLOB_MOUNTING" }),
        "PutAccountSetting" => json!({ "name": "none", "value": "none" }),
        "ListImageReferrers" => json!({ "subjectId": { "imageDigest": digest } }),
        "PutImage" => json!({ "imageManifest": "{", "imageTag": "v2" }),
        "PutImageScanningConfiguration" => json!({ "imageScanningConfiguration": {} }), // taken, and changes nothing
        "PutImageTagMutability" => json!({ "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION" }),
        "PutLifecyclePolicy" => json!({ "lifecyclePolicyText": "{".repeat(100) }),
        "PutRegistryPolicy" | "SetRepositoryPolicy" => json!({ "policyText": "{" }),
        "StartLifecyclePolicyPreview" => json!({ "lifecyclePolicyText": "{".repeat(100) }),
        "TagResource" => json!({ "tags": [{ "Key": "aws:none", "Value": "" }] }),
        "UntagResource" => json!({ "tagKeys": ["none"] }),
        "UpdateImageStorageClass" => json!({ "imageId": { "imageTag": "none" }, "targetStorageClass": "ARCHIVE" }),
        "UploadLayerPart" => json!({
            "uploadId": upload, "partFirstByte": 0, "partLastByte": 1, "layerPartBlob": STANDARD.encode("{}"),
        }),
        _ => json!({}),
    }
}

/// The repositories that are there, with an image each.
fn prepare(store: &Store) {
    for named in REPOSITORIES.iter().filter(|named| named.is_there) {
        let mut settings = RepositorySettings::new();
        if let Some(team) = named.team {
            settings = settings.document("ecr/tags", json!({ "team": team }).to_string()).unwrap();
        }
        if named.name == FREE {
            settings = settings.document("ecr/public", "").unwrap();
        }
        let repository = store.create_repository(&named.name.parse().unwrap(), settings).unwrap();
        let config = Digest::of(Algorithm::Sha256, b"{}");
        repository.put(b"{}", config).unwrap();
        let put = PutManifest::new(IMAGE).tag("v1".parse().unwrap());
        repository.put_manifest(image(config, 2).to_string(), put).unwrap();
    }
}

/// Somebody of each kind, with random policies.
fn everybody(random: &mut Random) -> Vec<Who> {
    let nobody = |kind, account, name: &str| Who { kind, account, name: name.to_owned(), team: None, policies: vec![] };
    let mut everybody =
        vec![nobody(Kind::Anonymous, "", ""), nobody(Kind::Root, OWN, "root"), nobody(Kind::Root, PARTNER, "chief")];
    let teams = [None, Some("red"), Some("blue")];
    for (account, users) in [(OWN, 16), (PARTNER, 10), (STRANGER, 4)] {
        for number in 0..users {
            let kind = if number % 4 == 3 { Kind::Session } else { Kind::User };
            let mut one = nobody(kind, account, &format!("u{number}x{}", &account[..1]));
            one.team = teams[random.below(3) as usize];
            one.policies = (0..random.below(4)).map(|_| statement(random, &[], false)).collect();
            everybody.push(one);
        }
    }
    everybody
}

/// The file in which everybody is.
fn credentials(everybody: &[Who]) -> Value {
    let (mut users, mut roles, mut accounts) = (Vec::new(), Vec::new(), json!({}));
    for who in everybody {
        let policies = if who.policies.is_empty() { json!([]) } else { json!([document(&who.policies)]) };
        let tags = who.team.map_or(json!({}), |team| json!({ "Team": team }));
        match who.kind {
            Kind::Anonymous => {}
            Kind::Root => accounts[who.account] = json!({ "accessKeys": [access_key(&who.name)] }),
            Kind::User => {
                let mut user = user(&who.name, who.account, &policies);
                user["tags"] = tags;
                users.push(user);
            }
            Kind::Session => {
                let mut session = access_key(&who.name);
                session["name"] = json!(who.name);
                roles.push(json!({
                    "name": who.name, "account": who.account, "policies": policies, "tags": tags,
                    "sessions": [session],
                }));
            }
        }
    }
    json!({ "users": users, "roles": roles, "accounts": accounts })
}

/// A statement out of a menu: of a policy of an identity, or of a resource, which may be about some of these.
fn statement(random: &mut Random, everybody: &[Who], is_of_resource: bool) -> Statement {
    const ALLOWED: &[&[&str]] = &[
        &["*"],
        &["ecr:*"],
        &["ecr:*", "ecr-public:*"],
        &["ecr:Batch*"],
        &["ecr:batchgetimage", "ecr:GetDownloadUrlForLayer"],
        &["ecr:*Layer*", "ecr:PutImage", "ecr-public:*Layer*", "ecr-public:PutImage"],
        &["ecr:Describe*", "ecr:List*"],
        &["ecr:Get*"],
        &["ecr-public:*"],
        &["ecr:*Repositor*"],
    ];
    // None keeps the root user from changing policies.
    const DENIED: &[&[&str]] = &[
        &["ecr:Batch*"],
        &["ecr:BATCHGETIMAGE"],
        &["ecr:*Layer*"],
        &["ecr:DescribeRepositories", "ecr:GetAuthorizationToken"],
        &["ecr-public:*Layer*", "ecr-public:Describe*"],
        &["ecr:ListImage?"],
    ];
    let allows = random.below(4) != 0;
    let actions = if allows { ALLOWED } else { DENIED };
    let actions = actions[random.below(actions.len() as u64) as usize].to_vec();
    let resources = [
        vec!["*".to_owned()],
        vec!["*".to_owned()],
        vec!["*".to_owned()],
        vec![arn("team/*")],
        vec![arn("team/app"), format!("arn:aws:ecr-public::{OWN}:repository/free")],
        vec![format!("arn:aws:ecr:*:{OWN}:repository/*")],
        vec![format!("arn:aws:ecr:*:*:repository/lost/?ne"), arn("public/*")],
        vec![format!("arn:aws:ecr:{REGION}:{PARTNER}:repository/*")],
    ];
    let resources = resources[random.below(resources.len() as u64) as usize].clone();
    let condition = match random.below(10) {
        0 => Some(Condition::Team("red")),
        1 => Some(Condition::OwnTeam),
        2 => Some(Condition::Agent("drone")),
        3 => Some(Condition::NotAgent("docker")),
        _ => None,
    };
    if !is_of_resource {
        return Statement { allows, principals: None, actions, resources: Some(resources), condition };
    }
    let mut one = || match random.below(6) {
        0 => Principal::Everybody,
        1 => Principal::Account(OWN),
        2 | 3 => Principal::Account(PARTNER),
        _ => {
            // Not the anonymous one, and the ARNs of roles and sessions alike.
            let arns = everybody[1 + random.below(everybody.len() as u64 - 1) as usize].arns();
            Principal::Arn(arns[random.below(arns.len() as u64) as usize].clone())
        }
    };
    let principals = Some(vec![one(), one()]);
    let resources = Some(resources).filter(|_| random.below(3) == 0);
    Statement { allows, principals, actions, resources, condition }
}
