//! Lifecycle policies over HTTP: setting them, previews, and what a registry does by them while it runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    dead_code,
    unreachable_pub,
    reason = "a test"
)]

#[path = "ecr_images/api.rs"]
mod api;
#[allow(unexpected_cfgs, reason = "the features that it asks for are the crate's")]
#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "ecr_lifecycle/policies.rs"]
mod policies;
#[path = "ecr_lifecycle/previews.rs"]
mod previews;
#[path = "ecr_lifecycle/runs.rs"]
mod runs;
#[path = "registry_http/server.rs"]
mod server;

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use strongroom::registry::RepositorySettings;
use strongroom::vfs::SimVfs;
use strongroom::{Digest, Store};
use strongroom_registry::http::Settings;
use strongroom_registry::lifecycle;

use api::REPOSITORY;
use server::{Server, options, settings};

const EXPIRE: &str = r#""type": "expire""#;
const ARCHIVE: &str = r#""type": "transition", "targetStorageClass": "archive""#;

/// A policy that keeps the newest so many images, and does this with the others.
fn keep(count: usize, action: &str) -> String {
    let selection = format!(r#""tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": {count}"#);
    format!(r#"{{"rules": [{{"rulePriority": 3, "selection": {{{selection}}}, "action": {{{action}}}}}]}}"#)
}

/// A registry with an empty repository that carries out policies every few milliseconds.
fn running(max_percent: u8) -> Server {
    let disk = SimVfs::new();
    let store = options(&disk).open("/store").unwrap();
    drop(store.create_repository(&REPOSITORY.parse().unwrap(), RepositorySettings::new()).unwrap());
    running_on(disk, store, max_percent)
}

fn running_on(disk: SimVfs, store: Store, max_percent: u8) -> Server {
    let every = Some(Duration::from_millis(5));
    let lifecycle = lifecycle::Settings { every, max_percent, ..Default::default() };
    Server::serve_with(disk, store, Settings { lifecycle, ..settings() })
}

/// Pushes images with these tags, each at a moment of its own.
fn push(server: &Server, tags: &[String]) -> Vec<Digest> {
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let push = |tag: &String| {
        let digest = server.push_image_of(tag);
        let pushed = now();
        while now() <= pushed {}
        digest
    };
    tags.iter().map(push).collect()
}

fn tags(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("v{n:02}")).collect()
}

/// Waits for something that the registry does by itself.
fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not happen");
    }
}

impl Server {
    fn set_policy(&self, policy: &str) {
        let set = self.ok("PutLifecyclePolicy", json!({ "lifecyclePolicyText": policy }));
        assert_eq!(set["lifecyclePolicyText"], policy);
    }

    /// The tags of the repository's images.
    fn left(&self) -> Vec<String> {
        let all = json!({ "filter": { "imageStatus": "ANY" } });
        let images = self.all("DescribeImages", "imageDetails", &all).concat();
        let mut tags: Vec<_> =
            images.iter().map(|image| image["imageTags"][0].as_str().unwrap_or_default().to_owned()).collect();
        tags.sort();
        tags
    }

    /// When the repository's policy was evaluated last, in seconds.
    fn evaluated(&self) -> Option<f64> {
        self.ok("GetLifecyclePolicy", json!({}))["lastEvaluatedAt"].as_f64()
    }

    /// Waits until the policy was evaluated from now on.
    fn evaluation(&self) {
        let before = self.evaluated();
        let first = eventually(|| self.evaluated().filter(|now| Some(*now) > before));
        // That one may have begun before.
        eventually(|| self.evaluated().filter(|now| *now > first));
    }

    /// Starts a preview, of a policy if one is given, and waits for it: the answer of its first page.
    fn preview(&self, policy: Option<&str>) -> Value {
        let input = policy.map_or(json!({}), |policy| json!({ "lifecyclePolicyText": policy }));
        assert_eq!(self.ok("StartLifecyclePolicyPreview", input)["status"], "IN_PROGRESS");
        eventually(|| {
            Some(self.ok("GetLifecyclePolicyPreview", json!({}))).filter(|preview| preview["status"] != "IN_PROGRESS")
        })
    }
}
