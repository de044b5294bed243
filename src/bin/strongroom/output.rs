//! What a command prints: text or JSON, and progress on a terminal.

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::thread::Builder;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use strongroom::transfer::Progress;

/// Where a command's answers go.
#[derive(Debug)]
pub struct Output {
    json: bool,
    /// Why something could not be printed.
    failure: RefCell<Option<io::Error>>,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, failure: RefCell::default() }
    }

    /// Prints the one answer of a command.
    pub fn print(&self, document: &Value, text: &str) {
        if self.json {
            self.line(&document.to_string());
        } else if !text.is_empty() {
            self.line(text);
        }
    }

    /// Prints one of many answers: in JSON, one document a line.
    pub fn row(&self, document: &Value, text: impl FnOnce() -> String) {
        self.line(&if self.json { document.to_string() } else { text() });
    }

    fn line(&self, text: &str) {
        if let Err(error) = writeln!(io::stdout(), "{text}") {
            self.failure.borrow_mut().get_or_insert(error);
        }
    }

    /// Says whether all was printed. A reader that has seen enough, as `head` has, is no failure.
    pub fn finish(self) -> io::Result<()> {
        let failure = self.failure.into_inner().or(io::stdout().flush().err());
        match failure {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }

    /// What moves a bar.
    pub fn progress(&self, bar: &ProgressBar) -> impl Fn(Progress) -> ControlFlow<()> + Sync {
        let bar = bar.clone();
        move |progress| {
            if let Some(total) = progress.total_bytes.filter(|total| bar.length() != Some(*total)) {
                bar.set_length(total);
            }
            bar.set_position(progress.bytes);
            ControlFlow::Continue(())
        }
    }

    /// A progress bar over bytes; nothing where standard error is not a terminal.
    pub fn bytes(&self, total: u64) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(total);
        let style = "{elapsed_precise} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {msg}";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        // The bar panics where its thread can't be had; without one, it shows what it is told when it is told.
        if Builder::new().spawn(|| {}).is_ok_and(|thread| thread.join().is_ok()) {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }
}

/// Tells something beside the answer. Where standard error is closed or full, the command goes on without.
pub fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "strongroom: {text}");
}

/// A path for people.
pub fn shown(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

/// A text for people. A name that somebody else chose does not get control characters to their terminal, nor what has
/// it show letters in another order.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if letter.is_control() || is_bidi_control(letter) {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// Unicode's `Bidi_Control`.
fn is_bidi_control(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_or_the_order_of_letters_is_escaped() {
        assert_eq!(shown(Path::new("a\n\u{1b}[2J\u{7f}\u{9b}")), r"a\n\u{1b}[2J\u{7f}\u{9b}");
        assert_eq!(escaped("a\u{202e}b\u{2066}\u{2069}\u{200f}\u{61c}"), r"a\u{202e}b\u{2066}\u{2069}\u{200f}\u{61c}");
        assert_eq!(escaped("größe, \u{5d0}\u{5d1} \u{200d}"), "größe, \u{5d0}\u{5d1} \u{200d}");
    }
}
