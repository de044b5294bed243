//! What keeps a wrong clock, or a mistake in a policy, from emptying a repository.

use super::plan::Plan;

/// How far the clock may be behind a time that was noted before: machines that set their clock do so by less.
const SKEW_MS: u64 = 5 * 60_000;

/// How much more time may have passed by the clock than while the store was open, without a question.
const GAP_MS: u64 = 24 * 3_600_000;

/// Checks a [`Plan`] before it is carried out.
///
/// Ages are differences of the wall clock, and a clock can be wrong: a machine that starts with a date years ahead
/// would expire everything by age. A guard compares the clock with what else is known, and refuses
///
/// - [a clock that is behind](Refusal::ClockBehind) the last evaluation, or behind the push of the youngest image, by
///   more than 5 minutes;
/// - [a plan that acts on too many images](Refusal::TooMany): more than 10, and more than 50 % of all;
/// - [the same from 10 % on](Refusal::AfterGap) where the clock went on by a day or more while the store was not open:
///   the machine was off, or the clock jumped.
///
/// # Confirmation
/// The last two are questions. Somebody who has seen the plan, in a preview, answers by [`confirm`](Self::confirm) with
/// the number of images: so many may be acted on, and no more. This is how a first policy cleans up a repository that
/// was never cleaned up. A server may take a preview of the same policy as the confirmation of what it showed. Up to
/// the limits, policies are carried out without a question, as in Amazon ECR.
///
/// ```
/// use strongroom::registry::lifecycle::{Guard, Image, Policy, Refusal, evaluate};
///
/// let policy = Policy::parse(
///     r#"{"rules": [{"rulePriority": 1,
///         "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 5},
///         "action": {"type": "expire"}}]}"#,
/// )?;
/// let plan = evaluate(&policy, 1_000, (0..100).map(|n| (Image::new(n, n), [""; 0])));
/// let refusal = Guard::new().check(&plan).unwrap_err();
/// assert_eq!(refusal, Refusal::TooMany { acting: 95, of: 100, percent: 50 });
/// assert_eq!(Guard::new().confirm(95).check(&plan), Ok(()));
/// assert!(Guard::new().confirm(94).check(&plan).is_err());
/// # Ok::<(), strongroom::registry::lifecycle::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    last: Option<Last>,
    percent: u8,
    percent_after_gap: u8,
    always: usize,
    confirmed: Option<usize>,
    is_clock_trusted: bool,
}

/// The last evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    at_ms: u64,
    open_ms: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { last: None, percent: 50, percent_after_gap: 10, always: 10, confirmed: None, is_clock_trusted: false }
    }
}

impl Guard {
    /// A guard that knows of no evaluation before.
    pub fn new() -> Self {
        Self::default()
    }

    /// When the repository was evaluated last, in milliseconds since 1970, and for how many milliseconds the store has
    /// been open since: time that no setting of the clock changes.
    pub fn last_evaluated(mut self, at_ms: u64, open_ms: u64) -> Self {
        self.last = Some(Last { at_ms, open_ms });
        self
    }

    /// Up to which share of the images, in percent, a plan is carried out without a question: 50 unless set. 100 asks
    /// never.
    pub fn max_percent(mut self, percent: u8) -> Self {
        self.percent = percent;
        self
    }

    /// The same for when the clock went on by a day or more while the store was not open: 10 unless set.
    pub fn max_percent_after_gap(mut self, percent: u8) -> Self {
        self.percent_after_gap = percent;
        self
    }

    /// Up to how many images a plan is carried out without a question, whatever share they are: 10 unless set.
    pub fn always_allowed(mut self, images: usize) -> Self {
        self.always = images;
        self
    }

    /// Somebody has seen a plan that acts on so many images: up to so many are acted on.
    pub fn confirm(mut self, images: usize) -> Self {
        self.confirmed = Some(images);
        self
    }

    /// Somebody has looked at the clock, and it is right: the times that lie ahead of it are not. This is the way out
    /// where images were pushed while the clock was ahead.
    pub fn trust_clock(mut self) -> Self {
        self.is_clock_trusted = true;
        self
    }

    /// Whether a plan may be carried out.
    ///
    /// # Errors
    /// [`Refusal`], which says what was found and what allows it.
    pub fn check<K>(&self, plan: &Plan<K>) -> Result<(), Refusal> {
        let noted_ms = self.last.map(|last| last.at_ms).max(plan.youngest_push_ms);
        if let Some(noted_ms) = noted_ms
            && noted_ms > plan.now_ms.saturating_add(SKEW_MS)
            && !self.is_clock_trusted
        {
            return Err(Refusal::ClockBehind { now_ms: plan.now_ms, noted_ms });
        }
        let (acting, of) = (plan.summary.acting(), plan.summary.evaluated);
        if acting <= self.always || self.confirmed.is_some_and(|confirmed| acting <= confirmed) {
            return Ok(());
        }
        let is_more_than = |percent: u8| acting.saturating_mul(100) > of.saturating_mul(percent.into());
        let gap_ms = self.last.map_or(0, |last| plan.now_ms.saturating_sub(last.at_ms).saturating_sub(last.open_ms));
        if is_more_than(self.percent) {
            Err(Refusal::TooMany { acting, of, percent: self.percent })
        } else if gap_ms >= GAP_MS && is_more_than(self.percent_after_gap) {
            Err(Refusal::AfterGap { acting, of, percent: self.percent_after_gap, gap_ms })
        } else {
            Ok(())
        }
    }
}

/// Why a [`Guard`] does not let a plan be carried out. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The clock is behind a time that was noted before, so ages mean nothing. Set the clock right. If it is right, and
    /// was wrong before, [`trust_clock`](Guard::trust_clock).
    #[error(
        "the clock says {now_ms}, but {noted_ms} was noted before (milliseconds since 1970): \
         set the clock, or confirm that it is right"
    )]
    ClockBehind {
        /// What the clock says, in milliseconds since 1970.
        now_ms: u64,
        /// When the last evaluation, or the youngest image's push, was.
        noted_ms: u64,
    },
    /// The plan acts on more than the share that is allowed without a question. Look at it, and
    /// [`confirm`](Guard::confirm) the number of images.
    #[error("{acting} of {of} images would be expired or archived, more than {percent} %: review and confirm them")]
    TooMany {
        /// How many images it acts on.
        acting: usize,
        /// How many there are.
        of: usize,
        /// The share that is allowed, in percent.
        percent: u8,
    },
    /// The clock went on while the store was not open: it was off, or the clock jumped. Look at the clock and the plan,
    /// and [`confirm`](Guard::confirm) the number of images.
    #[error(
        "{acting} of {of} images would be expired or archived, more than {percent} %, after {} hours by the clock in \
         which the store was not open: check the clock, then review and confirm them",
        gap_ms / 3_600_000
    )]
    AfterGap {
        /// How many images it acts on.
        acting: usize,
        /// How many there are.
        of: usize,
        /// The share that is allowed, in percent.
        percent: u8,
        /// How long, in milliseconds.
        gap_ms: u64,
    },
}
