//! Who is in the credentials file, as the commands list it: never with a secret.

use serde_json::{Value, json};

use super::credentials::{Document, PolicyRef};

/// One that is listed, as a line of text and as JSON.
pub struct Listed {
    pub text: String,
    pub json: Value,
}

pub fn users(document: &Document) -> Vec<Listed> {
    let each = document.users.iter().map(|user| {
        let arn = arn(document, &user.account, "user", &user.name);
        let keys = user.access_keys.iter();
        let text: Vec<_> = keys.clone().map(|key| format!("{} ({:?})", key.id, key.status)).collect();
        let keys: Vec<_> = keys.map(|key| json!({ "id": key.id, "status": key.status })).collect();
        Listed {
            text: line([arn.clone(), text.join(", "), after("groups", &user.groups), policies(&user.policies)]),
            json: json!({ "name": user.name, "arn": arn, "groups": user.groups, "policies": user.policies,
                "accessKeys": keys }),
        }
    });
    each.collect()
}

pub fn groups(document: &Document) -> Vec<Listed> {
    let each = document.groups.iter().map(|group| {
        let arn = arn(document, &group.account, "group", &group.name);
        Listed {
            text: line([arn.clone(), policies(&group.policies)]),
            json: json!({ "name": group.name, "arn": arn, "policies": group.policies }),
        }
    });
    each.collect()
}

pub fn roles(document: &Document) -> Vec<Listed> {
    let each = document.roles.iter().map(|role| {
        let arn = arn(document, &role.account, "role", &role.name);
        let sessions = role.sessions.iter();
        let text = sessions.clone().map(|session| match &session.expires {
            Some(end) => format!("{}: {} (until {end})", session.name, session.id),
            None => format!("{}: {}", session.name, session.id),
        });
        let text: Vec<_> = text.collect();
        let sessions =
            sessions.map(|session| json!({ "name": session.name, "id": session.id, "expires": session.expires }));
        let sessions: Vec<_> = sessions.collect();
        Listed {
            text: line([arn.clone(), text.join(", "), policies(&role.policies)]),
            json: json!({ "name": role.name, "arn": arn, "policies": role.policies, "sessions": sessions }),
        }
    });
    each.collect()
}

fn arn(document: &Document, account: &Option<String>, kind: &str, name: &str) -> String {
    format!("arn:aws:iam::{}:{kind}/{name}", document.account_of(account))
}

fn policies(policies: &[PolicyRef]) -> String {
    let names = policies.iter().map(|policy| match policy {
        PolicyRef::Named(name) => name.as_str(),
        PolicyRef::Inline(_) => "(its own)",
    });
    after("policies", &names.collect::<Vec<_>>())
}

/// What a line has of several, after what they are.
fn after(title: &str, names: &[impl AsRef<str>]) -> String {
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { String::new() } else { format!("{title}: {}", names.join(", ")) }
}

fn line<const N: usize>(parts: [String; N]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}
