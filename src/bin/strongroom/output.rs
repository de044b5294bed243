//! What a command prints: text or JSON, and progress where somebody watches.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// Where a command's answers go.
#[derive(Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints the one answer of a command.
    pub fn print(&self, document: &Value, text: &str) {
        if self.json {
            println!("{document}");
        } else if !text.is_empty() {
            println!("{text}");
        }
    }

    /// Prints one of many answers: in JSON, one document a line.
    pub fn row(&self, document: &Value, text: impl FnOnce() -> String) {
        if self.json {
            println!("{document}");
        } else {
            println!("{}", text());
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
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
