//! A clock that jumps, with a guard before each execution.

use strongroom::registry::lifecycle::{Guard, Refusal};

use super::*;

/// Expires what was pushed more than a week before.
fn week() -> Policy {
    rule(r#""tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7"#, EXPIRE)
}

#[test]
fn a_clock_that_jumps_ahead_or_back_expires_nothing_unasked() {
    let lab = Lab::new();
    let store = lab.open();
    let app = create(&store, "team/app");
    let images: Vec<_> = (0..30).map(|n| image_of(&lab, &app, &format!("image {n}"), &[])).collect();
    let policy = week();
    let now = app.image(&images[29].into()).unwrap().pushed_ms;
    let hour = DAY_MS / 24;
    let plan = |now_ms| app.lifecycle_plan(&policy, now_ms).unwrap();

    // Ten years ahead, an hour after the last evaluation: all are old, and it asks.
    let ahead = plan(now + 3650 * DAY_MS);
    assert_eq!(ahead.summary.expiring, 30);
    let refused = Guard::new().last_evaluated(now, hour).check(&ahead);
    assert_eq!(refused, Err(Refusal::TooMany { acting: 30, of: 30, percent: 50 }));
    let refused = Guard::new().max_percent(100).last_evaluated(now, hour).check(&ahead);
    assert!(matches!(refused, Err(Refusal::AfterGap { acting: 30, .. })), "{refused:?}");

    // An image is pushed while the clock is ahead, and the clock is set right: nothing is done until somebody says so.
    lab.clock.advance(std::time::Duration::from_secs(86_400));
    let young = push_image(&app, "pushed ahead of time", &[]);
    let back = plan(now);
    assert_eq!(back.summary.acting(), 0, "nothing is older than a week");
    assert!(matches!(Guard::new().check(&back), Err(Refusal::ClockBehind { .. })));
    assert_eq!(Guard::new().trust_clock().check(&back), Ok(()));

    // The years have passed indeed, and the store was open: the share is asked about, and confirmed.
    let late = plan(now + 8 * DAY_MS);
    let guard = Guard::new().last_evaluated(now, 8 * DAY_MS);
    assert_eq!(guard.check(&late), Err(Refusal::TooMany { acting: 30, of: 31, percent: 50 }));
    guard.confirm(30).check(&late).unwrap();
    assert_eq!(app.apply_lifecycle(&policy, &late).unwrap().expired, 30);
    assert_eq!(class(&app, young), HERE);
}

#[test]
fn ages_count_to_the_time_that_is_given_and_not_to_a_clock() {
    let lab = Lab::new();
    let app = create(&lab.open(), "team/app");
    let old = image_of(&lab, &app, "old", &[]);
    let pushed = app.image(&old.into()).unwrap().pushed_ms;
    for (now, count) in [(0, 0), (pushed, 0), (pushed + 7 * DAY_MS, 0), (pushed + 7 * DAY_MS + 1, 1)] {
        assert_eq!(app.lifecycle_plan(&week(), now).unwrap().summary.expiring, count);
    }
}
