//! Collection in the background, where the options ask for it.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::gc::Collections;
use crate::gc::options::CollectOptions;
use crate::tables::Signal;

/// How often, and how.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    pub(crate) every: Duration,
    pub(crate) options: CollectOptions,
}

/// The thread of it.
pub(crate) fn run_thread(collections: &Collections, background: &Background, signal: &Signal) {
    while signal.wait(background.every) {
        // What it met, whoever writes meets too; damage is left where it is, and told by the next collection that
        // somebody asks for.
        let _ = collections.collect(&background.options, &mut |_| ControlFlow::Continue(()));
    }
}
