//! The log, written by a thread of its own: a log without a reader, full or broken, delays no request and ends nothing.

use std::env;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// So many lines wait to be taken. Further ones are lost, and counted.
const WAITING: usize = 4096;

/// The longest line, in bytes; of a longer one the rest is left out.
const MAX_LINE: usize = 4096;

/// The lines of so long are written together.
const TOGETHER: Duration = Duration::from_millis(5);

/// For so long is waited, in the end, for what is left to be taken.
const END: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// All that was sent before is to be written. What is dropped with this tells that it was.
    Flush(SyncSender<()>),
}

/// Where lines go.
#[derive(Clone)]
pub struct Log {
    sender: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Begins the log, on standard error, at the levels that `RUST_LOG` says.
    pub fn begin() -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        thread::Builder::new().name("log".to_owned()).spawn(move || write(&receiver, &mut io::stderr()))?;
        let log = Self { sender, lost: Arc::default() };
        let levels = env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
        let levels = levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
        let lines = log.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || lines.clone()).log_internal_errors(false);
        tracing_subscriber::registry().with(levels).with(lines.with_ansi(io::stderr().is_terminal())).init();
        Ok(log)
    }

    /// Counts the lines that were lost.
    pub fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// Waits until what was logged is written, but not for long.
    pub fn end(&self) {
        let end = Instant::now() + END;
        let (done, is_done) = sync_channel(0);
        let mut message = Message::Flush(done);
        while let Err(error) = self.sender.try_send(message) {
            let (std::sync::mpsc::TrySendError::Full(back) | std::sync::mpsc::TrySendError::Disconnected(back)) = error;
            message = back;
            if Instant::now() >= end {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _: Result<(), RecvTimeoutError> = is_done.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Each call has a whole line.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let whole = match line.get(..MAX_LINE) {
            Some(cut) => [cut, b"...\n"].concat(),
            None => line.to_vec(),
        };
        if self.sender.try_send(Message::Line(whole)).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what comes, many lines at a time: to be woken for each costs more than to write it.
fn write(receiver: &Receiver<Message>, to: &mut impl Write) {
    while let Ok(first) = receiver.recv() {
        if matches!(first, Message::Line(_)) {
            thread::sleep(TOGETHER);
        }
        let mut lines = Vec::new();
        for message in std::iter::once(first).chain(receiver.try_iter().take(WAITING)) {
            match message {
                Message::Line(line) => lines.extend(line),
                Message::Flush(done) => {
                    let _ = to.write_all(&std::mem::take(&mut lines));
                    drop(done);
                }
            }
        }
        let _ = to.write_all(&lines); // there is nobody to tell that they could not be written
    }
}
