//! `strongroom lifecycle`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use humantime::format_rfc3339_seconds;
use serde_json::json;
use strongroom::registry::lifecycle::{Action, ActionKind, DOCUMENT, Guard, Plan, Policy, PolicyError, Refusal};
use strongroom::registry::{Repository, RepositoryName, Tag};
use strongroom::{Digest, Error, Store};

use crate::failure::{Failure, at};
use crate::output::{Output, escaped, shown};

/// The last second of the year 9999, in milliseconds since 1970: later times are not shown.
const LAST_MS: u64 = 253_402_300_799_000;

/// What to do with a lifecycle policy.
#[derive(Debug, Subcommand)]
pub enum LifecycleCommand {
    /// List the images that a policy would expire or archive. Also while another process has the store open.
    Preview(Which),
    /// Expire and archive the images that a policy says. One that is used meanwhile is left.
    Apply {
        #[command(flatten)]
        which: Which,
        /// Act on up to so many images. Without it, a policy that acts on more than half of the images is refused.
        #[arg(long, value_name = "COUNT")]
        confirm: Option<usize>,
        /// The clock is right, although images were pushed after the time that it shows.
        #[arg(long)]
        trust_clock: bool,
    },
}

/// Which policy, of which repository.
#[derive(Debug, Args)]
pub struct Which {
    /// The repository.
    repository: RepositoryName,
    /// A file with the policy, as Amazon ECR has it. Without it, the policy that is set for the repository.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Allow what Amazon ECR does not have: expiry by the last pull, tags as a sign of life, rules for artifact types.
    #[arg(long)]
    extended: bool,
}

/// Runs a command.
pub fn run(store: &Store, command: LifecycleCommand, output: &Output) -> Result<(), Failure> {
    match command {
        LifecycleCommand::Preview(which) => {
            let (repository, _, plan) = which.plan(store)?;
            list(&repository, &plan, output)
        }
        LifecycleCommand::Apply { which, confirm, trust_clock } => {
            let (repository, policy, plan) = which.plan(store)?;
            let mut guard = Guard::new();
            if let Some(images) = confirm {
                guard = guard.confirm(images);
            }
            if trust_clock {
                guard = guard.trust_clock();
            }
            guard.check(&plan).map_err(|refusal| refused(&refusal, plan.summary.acting()))?;
            let done = repository.apply_lifecycle(&policy, &plan)?;
            let document = json!({ "expired": done.expired, "archived": done.archived, "skipped": done.skipped });
            let text = format!("expired   {}\narchived  {}\nleft      {}", done.expired, done.archived, done.skipped);
            output.print(&document, &text);
            Ok(())
        }
    }
}

fn refused(refusal: &Refusal, acting: usize) -> Failure {
    Failure::Document(match refusal {
        Refusal::ClockBehind { now_ms, noted_ms } => {
            let time = |ms: &u64| format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(*ms.min(&LAST_MS)));
            let (now, noted) = (time(now_ms), time(noted_ms));
            format!(
                "the clock says {now}, an image was pushed at {noted}: set it, or if it is right give --trust-clock"
            )
        }
        other => format!("{other} with --confirm {acting}, after `strongroom lifecycle preview`"),
    })
}

impl Which {
    fn plan(&self, store: &Store) -> Result<(Repository, Policy, Plan<Digest>), Failure> {
        let repository = store.repository(&self.repository)?;
        let text = match &self.policy {
            Some(path) => fs::read_to_string(path).map_err(at(path))?,
            None => {
                let set = repository.document(DOCUMENT)?;
                let none =
                    || Failure::Document("the repository has no lifecycle policy: give one with --policy".into());
                String::from_utf8_lossy(&set.ok_or_else(none)?.content).into_owned()
            }
        };
        let parsed = if self.extended { Policy::parse_extended(&text) } else { Policy::parse(&text) };
        let invalid = |error: PolicyError| {
            let from = self.policy.as_deref().map_or_else(|| "the repository's lifecycle policy".to_owned(), shown);
            Failure::Document(format!("{from}: {}", escaped(&format!("{error:#}"))))
        };
        let policy = parsed.map_err(invalid)?;
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let plan = repository.lifecycle_plan(&policy, u64::try_from(now).unwrap_or(u64::MAX))?;
        Ok((repository, policy, plan))
    }
}

fn list(repository: &Repository, plan: &Plan<Digest>, output: &Output) -> Result<(), Failure> {
    for Action { key: digest, kind, rule_priority, .. } in &plan.actions {
        let tags = match repository.image(&(*digest).into()) {
            Err(Error::ManifestNotFound { .. }) => continue, // deleted since
            image => image?.tags,
        };
        let tags: Vec<_> = tags.iter().map(Tag::as_str).collect();
        let what = if *kind == ActionKind::Expire { "expire" } else { "archive" };
        let document = json!({
            "digest": digest.to_string(), "tags": tags, "action": what, "rule_priority": rule_priority,
        });
        output.row(&document, || {
            let rule = rule_priority.map_or_else(|| "-".to_owned(), |rule| rule.to_string());
            format!("{what:<8} rule {rule:<4} {digest}  {}", tags.join(" "))
        });
    }
    let summary = &plan.summary;
    let (expiring, archiving, of) = (summary.expiring, summary.archiving, summary.evaluated);
    let document = json!({ "expiring": expiring, "archiving": archiving, "images": of });
    output.row(&document, || format!("{expiring} of {of} images expire, {archiving} are archived"));
    Ok(())
}
