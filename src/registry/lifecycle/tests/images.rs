//! What is special to an image: children of an index, artifacts, restored ones, and what extensions look at.

use super::super::{Image, ImageStatus, Parent, evaluate};
use super::*;

const KEEP_ONE: (&str, &str) = (r#""tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1"#, EXPIRE);
const PULLED: &str = r#""tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 30"#;
const PUSHED: &str = r#""tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 30"#;
const GONE: &str = r#""tagStatus": "any", "storageClass": "archive", "countType": "sinceImageTransitioned",
    "countUnit": "days", "countNumber": 90"#;

fn days_ago(days: u64) -> Option<u64> {
    Some(NOW - days * DAY)
}

fn keys(plan: &Plan<&str>) -> Vec<String> {
    done(plan).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn exactly_so_many_days_are_not_older() {
    let text = policy(&[(PUSHED, EXPIRE)]);
    let at = |key, ms| (Image::new(key, NOW - 30 * DAY - ms), &[][..]);
    assert_eq!(keys(&plan(&text, &[at("A", 0), at("B", 1)])), ["B"]);
    assert_eq!(keys(&plan(&text, &[(Image::new("A", NOW + 400 * DAY), &[])])), [""; 0], "the future is new");
}

#[test]
fn children_of_an_index_are_neither_counted_nor_acted_on() {
    let child = |key, days| (Image { parent: Parent::Index, ..pushed(key, days) }, &["v"][..]);
    // A user's account: 26 images, 2 of them children, "keep 20" expires 4.
    let names: Vec<String> = (0..26).map(|n| format!("{n:02}")).collect();
    let images = names
        .iter()
        .zip(0..)
        .map(|(name, n)| if n % 13 == 0 { child(name, 100 - n) } else { (pushed(name, 100 - n), &["v"][..]) });
    let images: Vec<_> = images.collect();
    let twenty = r#""tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 20"#;
    assert_eq!(keys(&plan(&policy(&[(twenty, EXPIRE)]), &images)), ["01", "02", "03", "04"]);
}

#[test]
fn artifacts_follow_their_subjects_and_are_not_counted() {
    let about = |key, days, subject| (Image { subject: Some(subject), ..pushed(key, days) }, &[][..]);
    let images = [
        about("signature of the signature", 1, "signature"),
        about("signature", 2, "old"),
        (pushed("old", 9), &["v1"][..]),
        (pushed("new", 8), &["v2"]),
        about("other", 3, "new"),
        about("list", 7, "old"),
    ];
    let plan = plan(&policy(&[KEEP_ONE]), &images);
    assert_eq!(keys(&plan), ["old", "list", "signature", "signature of the signature"]);
    let subjects: Vec<_> = plan.actions.iter().map(|action| action.subject).collect();
    assert_eq!(subjects, [None, Some("old"), Some("old"), Some("signature")]);
    assert!(plan.actions.iter().all(|action| action.rule_priority == Some(1)));
}

#[test]
fn an_artifact_without_its_subject_is_an_image_of_its_own() {
    let images = [
        (Image { subject: Some("missing"), ..pushed("A", 9) }, &[][..]),
        (Image { subject: Some("missing"), ..pushed("B", 8) }, &[]),
    ];
    assert_eq!(keys(&plan(&policy(&[KEEP_ONE]), &images)), ["A"]);
}

#[test]
fn artifacts_of_what_stays_stay() {
    let index = Image { parent: Parent::Index, ..pushed("child", 900) };
    let restoring = Image { status: ImageStatus::Activating, ..pushed("restoring", 900) };
    let about = |key, subject| (Image { subject: Some(subject), ..pushed(key, 900) }, &[][..]);
    let images = [(index, &[][..]), (restoring, &[]), about("a", "child"), about("b", "restoring")];
    assert_eq!(keys(&plan(&policy(&[(PUSHED, EXPIRE)]), &images)), [""; 0]);
}

#[test]
fn artifacts_of_an_archived_image_are_archived_and_then_expire_with_it() {
    let archived = |key, days| Image { status: ImageStatus::Archived, archived_ms: days_ago(days), ..pushed(key, 900) };
    let artifact = Image { subject: Some("image"), ..pushed("artifact", 1) };
    let text = policy(&[(PUSHED, ARCHIVE), (GONE, EXPIRE)]);
    let plan = |images: &[_]| done(&super::plan(&text, images));
    let to = |key: &str, priority| (key.to_owned(), priority);
    assert_eq!(
        plan(&[(pushed("image", 31), &[]), (artifact, &[])]),
        [to("(image)", Some(1)), to("(artifact)", Some(1))]
    );
    // Somebody archived the image alone.
    assert_eq!(plan(&[(archived("image", 1), &[]), (artifact, &[])]), [to("(artifact)", None)]);
    assert_eq!(
        plan(&[(archived("image", 1), &[]), (Image { subject: Some("image"), ..archived("artifact", 1) }, &[])]),
        []
    );
    let artifact = Image { subject: Some("image"), ..archived("artifact", 2) };
    assert_eq!(plan(&[(archived("image", 91), &[]), (artifact, &[])]), [to("image", Some(2)), to("artifact", Some(2))]);
}

#[test]
fn a_restored_image_is_as_young_as_its_restoration() {
    let restored =
        |key, pushed_days, restored_days| Image { activated_ms: days_ago(restored_days), ..pushed(key, pushed_days) };
    let images = [
        (restored("A", 900, 10), &[][..]),
        (restored("B", 900, 31), &[]),
        (Image { pulled_ms: days_ago(700), ..restored("C", 900, 10) }, &[]),
        (Image { pulled_ms: days_ago(10), ..restored("D", 900, 600) }, &[]),
        (pushed("E", 20), &[]),
    ];
    assert_eq!(keys(&plan(&policy(&[(PULLED, ARCHIVE)]), &images)), ["(B)"]);
    assert_eq!(keys(&plan(&policy(&[(PUSHED, ARCHIVE)]), &images)), ["(D)", "(B)"]);
    let two = r#""tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 2"#;
    assert_eq!(keys(&plan(&policy(&[(two, EXPIRE)]), &images)), ["D", "B", "E"]);
}

#[test]
fn what_is_being_restored_is_left_and_not_counted() {
    let images = [
        (Image { status: ImageStatus::Activating, archived_ms: days_ago(900), ..pushed("A", 1) }, &[][..]),
        (pushed("B", 2), &[]),
    ];
    assert_eq!(keys(&plan(&policy(&[KEEP_ONE, (GONE, EXPIRE)]), &images)), [""; 0]);
}

#[test]
fn an_archived_image_without_a_time_stays() {
    let images = [(Image { status: ImageStatus::Archived, ..pushed("A", 900) }, &[][..])];
    assert_eq!(keys(&plan(&policy(&[(GONE, EXPIRE)]), &images)), [""; 0]);
}

#[test]
fn images_of_one_age_are_ordered_by_their_keys() {
    let images = [(pushed("B", 1), &[][..]), (pushed("C", 1), &[]), (pushed("A", 1), &[])];
    assert_eq!(keys(&plan(&policy(&[KEEP_ONE]), &images)), ["A", "B"]);
}

#[test]
fn extended_a_tag_is_a_sign_of_life() {
    let tag = |key, pushed_days, tagged_days| {
        (Image { tagged_ms: days_ago(tagged_days), ..pushed(key, pushed_days) }, &["t"][..])
    };
    let images = [tag("A", 900, 1), tag("B", 2, 2), tag("C", 3, 3), tag("D", 900, 40)];
    let selection = |rest: &str| policy(&[(&format!(r#""signOfLife": "tag", {rest}"#), EXPIRE)]);
    assert_eq!(keys(&plan(&selection(KEEP_ONE.0), &images)), ["D", "C", "B"]);
    assert_eq!(keys(&plan(&policy(&[KEEP_ONE]), &images)), ["A", "D", "C"]);
    assert_eq!(keys(&plan(&selection(PUSHED), &images)), ["D"]);
    assert_eq!(keys(&plan(&selection(PULLED), &images)), ["D"]);
}

#[test]
fn extended_rules_for_artifacts_see_those_that_have_a_subject() {
    let of = |key, kind, days| Image { artifact_type: Some(kind), ..pushed(key, days) };
    let about = |key, kind, days| (Image { subject: Some("image"), ..of(key, kind, days) }, &[][..]);
    let images = [
        (of("image", "application/vnd.oci.image.config.v1+json", 1), &["v1"][..]),
        about("old sbom", "application/spdx+json", 40),
        about("new sbom", "application/spdx+json", 4),
        about("old signature", "application/vnd.dev.cosign.simplesigning.v1+json", 40),
        (of("chart", "application/spdx+json", 50), &[]),
        (pushed("no type", 29), &[]),
    ];
    let sboms = format!(r#""artifactTypeList": ["application/spdx*", "text/spdx"], {PUSHED}"#);
    let result = plan(&policy(&[(&sboms, EXPIRE), (PUSHED, EXPIRE)]), &images);
    assert_eq!(keys(&result), ["chart", "old sbom"]);
    assert!(result.actions.iter().all(|action| action.subject.is_none()));

    // Where the subject is expired, what a rule would archive or keep is expired with it.
    let images = [(of("image", "x", 900), &[][..]), about("old sbom", "application/spdx+json", 40)];
    let result = plan(&policy(&[(&sboms, ARCHIVE), (PUSHED, EXPIRE)]), &images);
    assert_eq!(done(&result), [("image".to_owned(), Some(2)), ("old sbom".to_owned(), Some(2))]);
}

#[test]
fn in_circles_of_subjects_none_follows_another() {
    let about = |key, subject| (Image { subject: Some(subject), ..pushed(key, 900) }, [""; 0]);
    let policy = Policy::parse(&policy(&[(PUSHED, EXPIRE)])).unwrap();
    let images = [about("A", "B"), about("B", "A"), about("C", "C"), about("D", "A")];
    assert_eq!(keys(&evaluate(&policy, NOW, images)), [""; 0]);

    // Whichever comes first: A is expired by a rule for artifacts, and what is not in the circle follows it.
    let text = super::policy(&[(&format!(r#""artifactTypeList": ["a"], {PUSHED}"#), EXPIRE)]);
    let policy = Policy::parse_extended(&text).unwrap();
    let mut images = images;
    images[0].0.artifact_type = Some("a");
    for _ in 0..images.len() {
        images.rotate_left(1);
        assert_eq!(keys(&evaluate(&policy, NOW, images)), ["A", "D"]);
    }
}
