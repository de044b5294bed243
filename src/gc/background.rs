//! Collection in the background, where the options ask for it.

use std::time::Duration;

use crate::gc::options::CollectOptions;
use crate::store::{GoOn, Inner};

/// How often, and how.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    pub(crate) every: Duration,
    pub(crate) options: CollectOptions,
}

/// The thread of it.
pub(crate) fn run_thread(inner: &Inner, background: &Background) {
    while inner.collector.wait(background.every) {
        // What it met, whoever writes meets too; damage is left where it is, and told by the next collection that
        // somebody asks for.
        let _ = inner.collect(&background.options, &mut |_| GoOn::Yes);
    }
}
