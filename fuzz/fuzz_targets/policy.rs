#![no_main]

use std::sync::Arc;

use strongroom::policy::{AccountId, Authorizer, Context, Identity, Kind, Policies, Policy, Principal, Request};

/// Decides by a document, as a policy of either kind, about requests whose parts are a text.
fn decide(document: &str, text: &str) -> Option<()> {
    let account: AccountId = "111111111111".parse().ok()?;
    let user = Identity::user(account, "alice").ok()?.with_tag("team", text);
    let session = Identity::role_session("222222222222".parse().ok()?, "deploy", "run").ok()?;
    let principals = [user.into(), session.into(), Identity::root(account).into(), Principal::Anonymous];
    let keys = ["aws:SourceIp", "aws:CurrentTime", "a:b", "c:d"];
    let context = keys.iter().fold(Context::new(), |context, key| context.with(key, text));
    let context = context.with_all("e:f", [text, "", "x"]);
    let deny = r#"{"Statement": {"Effect": "Deny", "Principal": "*", "Action": "*"}}"#;
    let deny = Arc::new(Policy::parse(deny, Kind::Resource).ok()?);
    let identity: Vec<_> = Policy::parse(document, Kind::Identity).ok().map(Arc::new).into_iter().collect();
    let resource: Vec<_> = Policy::parse(document, Kind::Resource).ok().map(Arc::new).into_iter().collect();
    for principal in &principals {
        for resource_text in [text, "*", "arn:aws:ecr:eu-west-1:111111111111:repository/app"] {
            let request = Request {
                principal,
                action: "ecr:PutImage",
                resource: resource_text,
                resource_account: account,
                context: &context,
            };
            let decision = Policies { identity: &identity, resource: &resource }.decide(&request);
            assert_eq!(decision, Policies { identity: &identity, resource: &resource }.decide(&request));
            let denying: Vec<_> = resource.iter().cloned().chain([deny.clone()]).collect();
            assert!(!Policies { identity: &identity, resource: &denying }.decide(&request).is_allowed());
        }
    }
    Some(())
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (document, text) = text.split_once("\n\n").unwrap_or((&text, "203.0.113.7"));
    decide(document, text);
});
