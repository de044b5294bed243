//! Guards: a wrong clock or policy does not empty a repository, and a person can always go on.

use super::super::{Guard, Refusal};
use super::*;

/// A plan that acts on so many of so many images, the youngest of which was pushed so many days ago.
fn acting(acting: u64, of: u64, youngest: u64) -> Plan<u64> {
    let limit = r#""tagStatus": "any", "countType": "imageCountMoreThan", "countNumber":"#;
    let keep = (of - acting).max(1);
    let policy = Policy::parse(&policy(&[(&format!("{limit} {keep}"), EXPIRE)])).unwrap();
    let images = (0..of).map(|n| (Image::new(n, NOW - (youngest + of - 1 - n) * DAY), [""; 0]));
    let plan = evaluate(&policy, NOW, images);
    assert_eq!(plan.summary.acting() as u64, acting);
    plan
}

#[test]
fn a_large_share_asks_and_a_small_number_does_not() {
    let check = |plan: &Plan<u64>| Guard::new().check(plan);
    assert_eq!(check(&acting(10, 11, 1)), Ok(()));
    assert_eq!(check(&acting(11, 22, 1)), Ok(()), "half is not more than half");
    assert_eq!(check(&acting(11, 21, 1)), Err(Refusal::TooMany { acting: 11, of: 21, percent: 50 }));
    assert_eq!(Guard::new().max_percent(60).check(&acting(11, 21, 1)), Ok(()));
    assert_eq!(Guard::new().always_allowed(11).check(&acting(11, 21, 1)), Ok(()));
    assert_eq!(Guard::new().max_percent(100).check(&acting(999, 1000, 1)), Ok(()));
    assert!(Guard::new().always_allowed(0).max_percent(0).check(&acting(1, 1000, 1)).is_err());
    assert_eq!(Guard::new().always_allowed(0).max_percent(0).check(&acting(0, 1, 1)), Ok(()));
}

#[test]
fn a_confirmation_holds_for_what_was_confirmed_and_no_more() {
    let plan = acting(20, 30, 1);
    assert!(Guard::new().confirm(19).check(&plan).is_err());
    assert_eq!(Guard::new().confirm(20).check(&plan), Ok(()));
    assert_eq!(Guard::new().confirm(21).check(&plan), Ok(()));
}

#[test]
fn a_clock_that_went_back_refuses_whatever_is_confirmed() {
    let minutes = 60_000;
    let plan = acting(1, 30, 1);
    let behind = |noted_ms| Err(Refusal::ClockBehind { now_ms: NOW, noted_ms });
    let last = NOW + 5 * minutes + 1;
    assert_eq!(Guard::new().confirm(99).last_evaluated(last, 0).check(&plan), behind(last));
    assert_eq!(Guard::new().last_evaluated(NOW + 5 * minutes, 0).check(&plan), Ok(()), "clocks are set a bit");
    assert_eq!(Guard::new().last_evaluated(last, 0).trust_clock().check(&plan), Ok(()));

    let policy = Policy::parse(&policy(&[(
        r#""tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1"#,
        EXPIRE,
    )]));
    let future = NOW + DAY;
    let plan = evaluate(&policy.unwrap(), NOW, [(Image::new(0, future), [""; 0]), (Image::new(1, 0), [""; 0])]);
    assert_eq!(Guard::new().check(&plan), behind(future));
    assert_eq!(Guard::new().trust_clock().check(&plan), Ok(()));
}

#[test]
fn a_gap_in_which_the_store_was_not_open_asks_from_a_smaller_share_on() {
    let plan = acting(20, 100, 1);
    let year = 365 * DAY;
    let check = |open_ms| Guard::new().last_evaluated(NOW - year, open_ms).check(&plan);
    assert_eq!(check(year), Ok(()), "a year in which it was open");
    assert_eq!(check(year - DAY + 1), Ok(()));
    let refused = |gap_ms| Err(Refusal::AfterGap { acting: 20, of: 100, percent: 10, gap_ms });
    assert_eq!(check(year - DAY), refused(DAY));
    assert_eq!(check(1), refused(year - 1));
    assert_eq!(
        check(0).unwrap_err().to_string(),
        "20 of 100 images would be expired or archived, more than 10 %, \
        after 8760 hours by the clock in which the store was not open: check the clock, then review and confirm them"
    );
    let guard = Guard::new().last_evaluated(NOW - year, 0);
    assert_eq!(guard.confirm(20).check(&plan), Ok(()));
    assert_eq!(guard.max_percent_after_gap(20).check(&plan), Ok(()));
    assert_eq!(guard.check(&acting(10, 100, 1)), Ok(()));
    assert_eq!(Guard::new().check(&plan), Ok(()), "the first evaluation knows of no gap");
}
