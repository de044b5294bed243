//! What a registry does by policies while it runs.

use strongroom::registry::ExpectDocument;
use strongroom_registry::ecr::documents::EVALUATED;

use super::*;

#[test]
fn a_policy_that_is_set_expires_and_archives_images_and_says_when_it_was_evaluated() {
    let server = running(50);
    push(&server, &tags(0..5));
    let before = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    server.set_policy(&keep(3, EXPIRE));
    eventually(|| (server.left() == tags(2..5)).then_some(()));
    let at = eventually(|| server.evaluated());
    assert!((before - 1.0..before + 60.0).contains(&at), "{at} after {before}");
    push(&server, &tags(5..7));
    eventually(|| (server.left() == tags(4..7)).then_some(()));

    server.set_policy(&keep(1, ARCHIVE));
    eventually(|| (server.pull("v05") == 404).then_some(()));
    server.evaluation();
    assert_eq!((server.pull("v04"), server.pull("v06"), server.left()), (404, 200, tags(4..7)));
    let removed = server.ok("DeleteLifecyclePolicy", json!({}));
    assert!(removed["lastEvaluatedAt"].as_f64().unwrap() >= at);
    push(&server, &tags(7..9));
    assert_eq!((server.pull("v06"), server.pull("v07")), (200, 200));
}

#[test]
fn a_policy_that_acts_on_much_waits_until_a_preview_of_it_has_shown_that() {
    let server = running(50);
    push(&server, &tags(0..14));
    let policy = keep(1, EXPIRE);
    server.set_policy(&policy);
    server.evaluation();
    assert_eq!(server.left().len(), 14, "nobody has seen what it does");
    // A preview of another policy confirms nothing, and neither does one that is not complete when the policy is set.
    assert_eq!(server.preview(Some(&keep(2, EXPIRE)))["summary"]["expiringImageTotalCount"], 12);
    server.set_policy(&policy);
    server.evaluation();
    assert_eq!(server.left().len(), 14);
    let preview = server.preview(None);
    assert_eq!((&preview["status"], &preview["summary"]["expiringImageTotalCount"]), (&json!("COMPLETE"), &json!(13)));
    server.evaluation();
    assert_eq!(server.left().len(), 14, "it was previewed, and not set again");
    // A confirmation is for the policy that it was given with.
    server.set_policy(&policy);
    eventually(|| (server.left() == tags(13..14)).then_some(()));
}

#[test]
fn a_confirmation_holds_for_one_time() {
    let server = running(10);
    push(&server, &tags(0..13));
    let policy = keep(1, EXPIRE);
    server.preview(Some(&policy));
    server.set_policy(&policy);
    eventually(|| (server.left() == tags(12..13)).then_some(()));
    server.evaluation();
    server.ok("DeleteLifecyclePolicy", json!({}));
    push(&server, &tags(13..25));
    server.ok("DeleteRepository", json!({ "repositoryName": REPOSITORY, "force": true }));
    server.ok("CreateRepository", json!({ "repositoryName": REPOSITORY }));
    push(&server, &tags(25..38));
    server.set_policy(&policy);
    server.evaluation();
    assert_eq!(server.left().len(), 13, "the preview was one of another repository");
}

#[test]
fn all_repositories_have_their_turn_and_what_is_wrong_with_one_keeps_no_other() {
    let server = running(100);
    for n in 0..5 {
        let name = format!("team/service-{n}");
        server.ok("CreateRepository", json!({ "repositoryName": name }));
        for tag in ["one", "two", "three"] {
            server.push_image(&name, tag, &format!("{n} {tag}"));
        }
        server.ok("PutLifecyclePolicy", json!({ "repositoryName": name, "lifecyclePolicyText": keep(1, EXPIRE) }));
        if n == 2 {
            server.ok("DeleteRepository", json!({ "repositoryName": name, "force": true }));
        }
    }
    for n in [0, 1, 3, 4] {
        let input = json!({ "repositoryName": format!("team/service-{n}") });
        eventually(|| (server.all("DescribeImages", "imageDetails", &input).concat().len() == 1).then_some(()));
    }
}

#[test]
fn after_a_gap_of_the_clock_a_smaller_share_is_asked_about_whatever_was_refused_before() {
    let (disk, clock) = (SimVfs::new(), "team/clock");
    let store = options(&disk).open("/store").unwrap();
    for name in [REPOSITORY, clock] {
        let repository = store.create_repository(&name.parse().unwrap(), RepositorySettings::new()).unwrap();
        // Ten days ago, in which the registry was not open.
        let at_ms = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 - 10 * 86_400_000;
        let evaluated = json!({ "at_ms": at_ms }).to_string();
        repository.set_document(EVALUATED, evaluated, ExpectDocument::Any).unwrap();
    }
    let server = running_on(disk, store, 50);
    server.ok("PutLifecyclePolicy", json!({ "repositoryName": clock, "lifecyclePolicyText": keep(1, EXPIRE) }));
    let runs = |count: usize| {
        let last = || server.ok("GetLifecyclePolicy", json!({ "repositoryName": clock }))["lastEvaluatedAt"].as_f64();
        for _ in 0..count {
            let before = last();
            eventually(|| (last() > before).then_some(()));
        }
    };
    push(&server, &tags(0..30));
    server.set_policy(&keep(1, EXPIRE));
    let old = server.evaluated();
    runs(2);
    assert_eq!((server.left().len(), server.evaluated()), (30, old), "29 of 30");
    server.set_policy(&keep(18, EXPIRE));
    runs(2);
    assert_eq!((server.left().len(), server.evaluated()), (30, old), "12 of 30, after a gap");
    server.preview(None);
    server.set_policy(&keep(18, EXPIRE));
    eventually(|| (server.left() == tags(12..30)).then_some(()));
    eventually(|| server.evaluated().filter(|now| Some(*now) > old));
}
