//! Garbage collection in the background: [`Options::collect_every`](crate::Options::collect_every).

use std::ops::ControlFlow;
use std::time::Duration;

use crate::gc::Collections;
use crate::gc::options::CollectOptions;
use crate::tables::Signal;

/// How often to collect, and with which options.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    pub(crate) every: Duration,
    pub(crate) options: CollectOptions,
}

/// Runs the thread that collects in the background.
pub(crate) fn run_thread(collections: &Collections, background: &Background, signal: &Signal) {
    while signal.wait(background.every) {
        // Other writers meet the same errors. Damage stays where it is, and the next collection that somebody calls for
        // reports it.
        let _ = collections.collect(&background.options, &mut |_| ControlFlow::Continue(()));
    }
}
