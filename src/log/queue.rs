//! The commit queue: the order of requests, and which thread leads a group.
//!
//! Callers queue their requests. A caller that finds no leader becomes the leader, and takes the queued requests as a
//! group; the others wait for the result of theirs, or to become the leader. A single caller leads itself: no other
//! thread is involved.
//!
//! To wake a thread costs a leader several microseconds, and to wake twelve by one call hardly more. So those that
//! queue while a group is under way wait for one bell, which is rung when their own group is done; there are two of
//! them, for every other group. Only the first of them, who may have to lead, waits on its own.
//!
//! # Invariant kept here
//! While a request is queued there is a leader, even if a leader panics: a [`Lead`] that is dropped passes the lead on,
//! and answers those whose requests it had taken.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::facts::Known;
use crate::id::DomainId;
use crate::log::Durability;
use crate::sync::lock;
use crate::transaction::{Outcome, Request};

/// The most content that one group takes in, in bytes: bounds the time that those in it wait for each other.
const GROUP_BYTES: u64 = 8 << 20;

/// What becomes of a group's requests where its leader does not come to the end.
pub(super) const BROKEN: Error = Error::Internal { invariant: "a group of commits is carried to its end" };

/// What is to be committed.
#[derive(Debug)]
pub(super) struct Queued {
    /// The domain that it belongs to.
    pub(super) domain: DomainId,
    pub(super) request: Request,
    /// When its caller is told.
    pub(super) durability: Durability,
    /// What its caller has looked up of what it will read.
    pub(super) known: Option<Known>,
}

/// A request that waits for its turn, and then its result.
#[derive(Debug)]
struct Waiter {
    request: Mutex<Option<Queued>>,
    state: Mutex<Progress>,
    /// What it waits for.
    bell: Arc<Bell>,
}

/// What wakes all that wait for it.
#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<()>,
    changed: Condvar,
}

impl Bell {
    /// Rings, for those whose progress was set before.
    fn ring(&self) {
        // Who has looked at its progress before that was set waits by the time this lock is to be had.
        drop(lock(&self.rung));
        self.changed.notify_all();
    }
}

#[derive(Debug)]
enum Progress {
    Queued,
    /// The former leader has left the lead to this one.
    Lead,
    Done(Result<Outcome>),
}

impl Waiter {
    fn set(&self, progress: Progress) {
        *lock(&self.state) = progress;
    }

    /// Waits until it is done or to lead, and takes that.
    fn wait(&self) -> Progress {
        let mut rung = lock(&self.bell.rung);
        loop {
            match std::mem::replace(&mut *lock(&self.state), Progress::Queued) {
                Progress::Queued => {}
                progress => return progress,
            }
            rung = self.bell.changed.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Requests that wait.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Waiter>>,
    led: bool,
    /// What those wait for that come now, and those of the group before.
    bells: [Arc<Bell>; 2],
}

/// What a request comes to next.
pub(super) enum Turn<'q> {
    /// Somebody else has committed it.
    Done(Result<Outcome>),
    /// Its caller leads.
    Lead(Lead<'q>),
}

impl Queue {
    /// Queues a request, and waits until it is done or its caller leads.
    #[cfg(test)]
    pub(super) fn enter(&self, queued: Queued) -> Turn<'_> {
        self.enter_all(vec![queued]).next().unwrap()
    }

    /// Queues requests of one caller, nobody's between them, and waits in turn for each until it is done or its caller
    /// leads.
    pub(super) fn enter_all(&self, queued: Vec<Queued>) -> Turns<'_> {
        let mut queue = lock(&self.0);
        let is_first = queue.waiting.is_empty();
        let bell = if is_first {
            Arc::default()
        } else {
            let [bell, _] = &queue.bells;
            Arc::clone(bell)
        };
        let waiter = |queued| {
            let (request, state) = (Mutex::new(Some(queued)), Mutex::new(Progress::Queued));
            Arc::new(Waiter { request, state, bell: Arc::clone(&bell) })
        };
        let own: Vec<Arc<Waiter>> = queued.into_iter().map(waiter).collect();
        queue.waiting.extend(own.iter().map(Arc::clone));
        let leads = !queue.led && !own.is_empty();
        queue.led |= leads;
        drop(queue);
        Turns { queue: self, own: own.into_iter(), leads }
    }

    fn turn(&self, own: Arc<Waiter>, leads: bool) -> Turn<'_> {
        if !leads && let Progress::Done(result) = own.wait() {
            return Turn::Done(result);
        }
        Turn::Lead(Lead { queue: self, own, own_result: None, group: Vec::new(), leads: true })
    }
}

/// The turns of one caller's requests. Those that are not taken, since it panicked in one before, are passed on.
pub(super) struct Turns<'q> {
    queue: &'q Queue,
    own: std::vec::IntoIter<Arc<Waiter>>,
    /// Whether the first of them leads, since nobody else does.
    leads: bool,
}

impl<'q> Iterator for Turns<'q> {
    type Item = Turn<'q>;

    fn next(&mut self) -> Option<Turn<'q>> {
        let own = self.own.next()?;
        Some(self.queue.turn(own, std::mem::take(&mut self.leads)))
    }
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// The lead.
pub(super) struct Lead<'q> {
    queue: &'q Queue,
    own: Arc<Waiter>,
    own_result: Option<Result<Outcome>>,
    /// Those whose requests were taken, and that were not answered yet.
    group: Vec<Arc<Waiter>>,
    leads: bool,
}

impl Lead<'_> {
    /// Takes what is queued, from the front, up to the most that a group holds.
    pub(super) fn take_group(&mut self) -> Vec<Queued> {
        let mut queue = lock(&self.queue.0);
        let (mut bytes, mut requests) = (0, Vec::new());
        while let Some(waiter) = queue.waiting.front() {
            let mut request = lock(&waiter.request);
            let frame = request.as_ref().and_then(|queued| queued.request.frame());
            let frame = frame.map_or(0, |frame| frame.bytes.len() as u64);
            if !requests.is_empty() && bytes + frame > GROUP_BYTES {
                break;
            }
            bytes += frame;
            requests.extend(request.take());
            drop(request);
            self.group.extend(queue.waiting.pop_front());
        }
        queue.bells.rotate_left(1);
        requests
    }

    /// Tells those of the group what became of their requests.
    pub(super) fn answer(&mut self, results: Vec<Result<Outcome>>) {
        let mut results = results.into_iter();
        let mut bells: Vec<Arc<Bell>> = Vec::new();
        for waiter in self.group.drain(..) {
            let result = results.next().unwrap_or(Err(BROKEN));
            if Arc::ptr_eq(&waiter, &self.own) {
                self.own_result = Some(result);
                continue;
            }
            waiter.set(Progress::Done(result));
            if bells.last().is_none_or(|bell| !Arc::ptr_eq(bell, &waiter.bell)) {
                bells.push(Arc::clone(&waiter.bell));
            }
        }
        bells.iter().for_each(|bell| bell.ring());
    }

    /// Whether there is another group to lead; where this leader `stops`, the next one leads it.
    pub(super) fn goes_on(&mut self, stops: bool) -> bool {
        let mut queue = lock(&self.queue.0);
        match queue.waiting.front() {
            Some(_) if !stops => return true,
            Some(next) => {
                next.set(Progress::Lead);
                next.bell.ring();
            }
            None => queue.led = false,
        }
        self.leads = false;
        false
    }

    /// What became of the leader's own request.
    pub(super) fn result(mut self) -> Result<Outcome> {
        self.own_result.take().unwrap_or(Err(BROKEN))
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if self.leads {
            self.answer(Vec::new());
            self.goes_on(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Algorithm, Digest};

    fn enter(queue: &Queue) -> Turn<'_> {
        let request = Request::Remove(Digest::of(Algorithm::Blake3, b"x"));
        queue.enter(Queued { domain: DomainId::DEFAULT, request, durability: Durability::Synced, known: None })
    }

    #[test]
    fn a_leader_that_panics_answers_its_group_and_leaves_the_lead_to_the_next() {
        let queue = Queue::default();
        let Turn::Lead(mut lead) = enter(&queue) else { panic!("the first one leads") };
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| match enter(&queue) {
                        Turn::Done(result) => result.map(drop),
                        Turn::Lead(mut lead) => {
                            let count = lead.take_group().len();
                            lead.answer((0..count).map(|_| Ok(Outcome::default())).collect());
                            while lead.goes_on(false) {}
                            lead.result().map(drop)
                        }
                    })
                })
                .collect();
            while lock(&queue.0).waiting.len() < 3 {
                std::thread::yield_now();
            }
            // It takes its own and one more.
            let second = lock(&queue.0).waiting.pop_back();
            assert_eq!(lead.take_group().len(), 2);
            lock(&queue.0).waiting.extend(second);
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _lead = lead;
                std::panic::resume_unwind(Box::new("in the middle of a group"));
            }));
            assert!(panicked.is_err());
            let results: Vec<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
            assert!(results.iter().any(|result| matches!(result, Err(Error::Internal { .. }))));
        });
        assert!(matches!(enter(&queue), Turn::Lead(_)), "nobody leads any more");
    }

    #[test]
    fn a_group_that_was_not_answered_is_told_so() {
        let queue = Queue::default();
        let Turn::Lead(mut lead) = enter(&queue) else { panic!("the first one leads") };
        assert_eq!(lead.take_group().len(), 1);
        lead.answer(Vec::new());
        assert!(!lead.goes_on(false));
        assert!(matches!(lead.result(), Err(Error::Internal { .. })));
    }
}
