//! Lifecycle policies, as Amazon ECR has them: which images of a repository expire, and which are archived.
//!
//! A [`Policy`] is parsed from ECR's JSON. [`evaluate`], or an [`Evaluation`] that takes images one by one, gives the
//! [`Plan`]: what the policy does to a repository at a given time. A [`Guard`] decides whether the plan may be carried
//! out, and the [`Fingerprint`] of each [`Action`] tells whether its image is still what the decision rests on. All of
//! this is pure: it reads no clock, no file and no fact, and the same input always gives the same plan.
//!
//! ```
//! use strongroom::registry::lifecycle::{ActionKind, Fingerprint, Guard, Image, Policy, evaluate};
//!
//! let policy = Policy::parse(
//!     r#"{"rules": [
//!         {"rulePriority": 1, "description": "Keep the newest release",
//!          "selection": {"tagStatus": "tagged", "tagPatternList": ["v*"],
//!                        "countType": "imageCountMoreThan", "countNumber": 1},
//!          "action": {"type": "expire"}},
//!         {"rulePriority": 2, "description": "Archive the rest after a week",
//!          "selection": {"tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7},
//!          "action": {"type": "transition", "targetStorageClass": "archive"}}]}"#,
//! )?;
//!
//! let day = 86_400_000;
//! let now = 100 * day;
//! let images = [
//!     (Image::new("a", now - 40 * day), vec!["v1"]),
//!     (Image::new("b", now - 30 * day), vec!["v2", "stable"]),
//!     (Image::new("c", now - 20 * day), vec!["nightly"]),
//!     (Image::new("d", now - 7 * day), vec![]), // not older than 7 days
//! ];
//! let plan = evaluate(&policy, now, images.clone());
//! let done: Vec<_> = plan.actions.iter().map(|action| (action.key, action.kind, action.rule_priority)).collect();
//! assert_eq!(done, [("a", ActionKind::Expire, Some(1)), ("c", ActionKind::Archive, Some(2))]);
//!
//! // Nothing speaks against carrying it out; unless somebody uses an image meanwhile.
//! Guard::new().last_evaluated(now - day, day).check(&plan)?;
//! let (mut image, tags) = images[2].clone();
//! assert_eq!(Fingerprint::of(&image, &tags), plan.actions[1].fingerprint);
//! image.pulled_ms = Some(now + 1);
//! assert_ne!(Fingerprint::of(&image, &tags), plan.actions[1].fingerprint);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Evaluation
//! 1. Each rule *identifies* the images of its storage class with the tags that it names: each pattern must match one
//!    of the image's tags. Every rule sees all images, as if nothing had been marked.
//! 2. Among those it *marks* all but the newest so many, or those that are older than so many days. A day has 86,400
//!    seconds, and exactly so many days is not older.
//! 3. A mark counts unless a rule of higher priority, which is one with a lower number, identified the image, whether
//!    or not it marked it. So one rule at most acts on an image, and one that keeps it protects it from those below.
//!
//! | count type | class | actions | age counts from |
//! |---|---|---|---|
//! | `imageCountMoreThan` | standard | both | the push, or the restoration after it; the youngest are kept |
//! | `sinceImagePushed` | standard | both | the push, or the restoration after it |
//! | `sinceImagePulled` | standard | transition | the last pull, or the restoration after it; without both, the push |
//! | `sinceImageTransitioned` | archive | expire, from 90 days on | the last transition |
//!
//! # What ECR's documentation leaves open
//! - **Children of an index** are not acted on while an index of the repository references them, archived or not, and
//!   no rule counts them: "keep 20" keeps 20 images and what belongs to them.
//! - **Artifacts with a subject** (signatures, attestations) share the fate of a subject that the repository has: they
//!   are expired or archived with it, right after it, and no rule identifies or counts them. One whose subject is
//!   missing is an image of its own: the subject may be pushed after it, or was deleted before.
//! - **Images that are being restored** are left alone, and no rule counts them.
//! - **Ages of zero**: an image whose time is ahead of the clock is new. Of images of one age, the one with the lesser
//!   key counts as older.
//! - **A tag prefix** is the pattern with `*` behind it, also where it has a `*` itself. A list that has a pattern
//!   twice means it once. Two rules of a storage class may not have equal lists, however they are written.
//! - **Numbers** are whole ones of 32 bits, without a point or an exponent. A member that is `null` is refused.
//!
//! # Extensions
//! What ECR's users ask for and can't have, for policies that [`Policy::parse_extended`] reads. [`Policy::parse`]
//! refuses each by name.
//! - `expire` with `sinceImagePulled`: delete what nobody pulls, without archiving it for 90 days before.
//! - `"signOfLife": "tag"` in a selection: setting a tag makes an image young again, as a push does.
//! - `"artifactTypeList": ["application/vnd.example.sbom*"]` in a selection: only manifests whose artifact type one of
//!   the patterns matches. Such a rule identifies artifacts that have a subject, too; of what it says and what they
//!   take over from their subject, `expire` wins. What must be unique for a storage class, and last in it, is so for
//!   each such list separately.
//!
//! # Bounds
//! A text has at most [`MAX_TEXT_LEN`] characters and [`MAX_RULES`] rules. An evaluation keeps 56 bytes of each image,
//! its key, and that of its subject: with digests as keys, 100,000 images cost up to 16 MB, however many tags they
//! have. It takes one pass over the images for each rule. Comparing a tag with a pattern costs the product of their
//! lengths at most.

/// The name of the document in which a repository has its policy: the text, as it was given.
pub const DOCUMENT: &str = "lifecycle-policy";

mod error;
mod evaluate;
mod follow;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod guard;
mod image;
mod members;
mod parse;
mod plan;
mod policy;
mod repository;

#[cfg(test)]
mod tests;

pub use error::{PolicyError, PolicyProblem};
pub use evaluate::{Evaluation, evaluate};
pub use guard::{Guard, Refusal};
pub use image::{Fingerprint, Image, ImageStatus, Parent};
pub use plan::{Action, Plan, Summary};
pub use policy::{
    ActionKind, Limit, MAX_NUMBER, MAX_RULES, MAX_TEXT_LEN, MAX_WILDCARDS, MIN_ARCHIVED_DAYS, MIN_TEXT_LEN, Pattern,
    Policy, Rule, Selection, SignOfLife, StorageClass, TagSelection,
};
pub use repository::Carried;
