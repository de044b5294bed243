//! Checking a store: `verify`, `scrub`, `fsck`.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Value, json};
use strongroom::{DamagedBlob, Error, Finding, Scrub, ScrubOptions, Store};

use crate::commands::{Access, after_reading};
use crate::encryption::locked;
use crate::failure::Failure;
use crate::output::{Output, escaped, size};

/// So many names of what is affected are printed of each damaged blob.
const SHOWN: usize = 10;

/// What a command answers, and how much damage that tells of.
pub struct Answer {
    pub document: Value,
    pub text: String,
    pub findings: usize,
}

impl Answer {
    /// Adds what another one says.
    pub fn and(mut self, other: Self) -> Self {
        if let (Value::Object(fields), Value::Object(more)) = (&mut self.document, other.document) {
            fields.extend(more);
        }
        Self {
            document: self.document,
            text: format!("{}\n{}", self.text, other.text),
            findings: self.findings + other.findings,
        }
    }

    /// Prints it, and fails where it tells of damage.
    pub fn give(&self, output: &Output) -> Result<(), Failure> {
        output.print(&self.document, &self.text);
        if self.findings == 0 { Ok(()) } else { Err(Failure::Damaged(self.findings)) }
    }
}

pub fn verify(store: &Store, output: &Output) -> Result<(), Failure> {
    verified(store, output)?.give(output)
}

/// Reads all of a store.
pub fn verified(store: &Store, output: &Output) -> Result<Answer, Failure> {
    let progress = output.bytes(store.usage()?.live_bytes);
    let report = store.verify(|so_far| progress.set_position(so_far.stored_bytes))?;
    progress.finish_and_clear();
    let findings = texts(&report.findings, report.more_findings);
    let document = json!({
        "blobs": report.blobs, "bytes": report.bytes, "stored_bytes": report.stored_bytes, "findings": findings,
        "locked": locked(&report.locked),
    });
    let mut text = format!("{} blobs, {}: ", report.blobs, size(report.bytes));
    text.push_str(if findings.is_empty() { "all sound" } else { "damage found\n" });
    text.push_str(&findings.join("\n"));
    locked(&report.locked).iter().for_each(|line| text = format!("{text}\n{line}"));
    Ok(Answer { document, text, findings: findings.len() })
}

pub fn scrub(store: &Store, rate: Option<u64>, restart: bool, output: &Output) -> Result<(), Failure> {
    let mut options = ScrubOptions::new().restart(restart);
    if let Some(rate) = rate {
        options = options.bytes_per_second(rate);
    }
    let (progress, mut tell) = bar(output);
    let report = store.scrub(&options, &mut tell)?;
    progress.finish_and_clear();
    output.print(&document(&report), &text(&report));
    ended(&report)
}

/// What `verify` does and, where it is asked for, a repair. A store that can't be opened is damaged in what would say
/// what is in it.
pub fn fsck(data: &Path, access: &Access, repair: bool, output: &Output) -> Result<(), Failure> {
    let mut store = match access.open(data) {
        Err(Failure::Store(error @ Error::Corrupt { .. })) => return Err(Failure::CantOpen(error)),
        other => other?,
    };
    if !repair {
        verify(&store, output)?;
        return after_reading(store.close());
    }
    let (progress, mut tell) = bar(output);
    let report = store.repair(&mut tell)?;
    progress.finish_and_clear();
    let was_wrong = texts(&report.was_wrong, 0);
    let told = json!({
        "mended": report.mended, "was_wrong": was_wrong, "merged_runs": report.merged_runs,
        "left": document(&report.left),
    });
    let mut lines = was_wrong.iter().map(|wrong| format!("mended: {wrong}")).collect::<Vec<_>>();
    lines.push(format!("{} facts mended, {} runs merged", report.mended, report.merged_runs));
    lines.push(text(&report.left));
    output.print(&told, &lines.join("\n"));
    store.close()?;
    ended(&report.left)
}

/// A progress bar of a scrub, and who is told how far it is.
fn bar(output: &Output) -> (indicatif::ProgressBar, impl FnMut(&Scrub) -> ControlFlow<()>) {
    let progress = output.bytes(0);
    let shown = progress.clone();
    let tell = move |so_far: &Scrub| {
        shown.set_length(so_far.total_bytes);
        shown.set_position(so_far.read_bytes);
        if so_far.damaged_blobs > 0 {
            shown.set_message(format!("{} damaged", so_far.damaged_blobs));
        }
        ControlFlow::Continue(())
    };
    (progress, tell)
}

/// The exit code's part: as `verify` has it.
fn ended(report: &Scrub) -> Result<(), Failure> {
    if report.is_sound() {
        return Ok(());
    }
    let findings = report.damaged_blobs + report.more_findings;
    Err(Failure::Damaged(report.findings.len() + usize::try_from(findings).unwrap_or(usize::MAX)))
}

fn texts(findings: &[Finding], more: u64) -> Vec<String> {
    let more = (more > 0).then(|| format!("{more} more"));
    findings.iter().map(|finding| escaped(&finding.to_string())).chain(more).collect()
}

fn document(report: &Scrub) -> Value {
    let damaged = report.damaged.iter().map(|blob| {
        let affected = blob.affected.iter().map(|one| {
            json!({
                "repository": one.repository.to_string(),
                "manifests": one.manifests.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "tags": one.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        });
        json!({
            "digest": blob.digest.map(|digest| digest.to_string()), "error": blob.error.to_string(),
            "affected": affected.collect::<Vec<_>>(), "pins": blob.named,
        })
    });
    json!({
        "resumed": report.resumed, "complete": report.complete, "blobs": report.blobs, "bytes": report.bytes,
        "read_bytes": report.read_bytes, "damaged_blobs": report.damaged_blobs, "damaged": damaged.collect::<Vec<_>>(),
        "recovered": report.recovered, "findings": texts(&report.findings, report.more_findings),
        "all_listed": report.all_listed, "locked": locked(&report.locked),
    })
}

fn text(report: &Scrub) -> String {
    let resumed = if report.resumed { ", in several parts" } else { "" };
    let verdict = match (report.is_sound(), report.complete) {
        (true, true) => "all sound",
        (true, false) => "sound as far as it was read",
        (false, _) => "damage found",
    };
    let mut lines = vec![format!("{} blobs, {}{resumed}: {verdict}", report.blobs, size(report.bytes))];
    if report.recovered > 0 {
        lines.push(format!("{} blobs that were flagged as damaged are sound", report.recovered));
    }
    report.damaged.iter().for_each(|blob| lines.extend(lines_of(blob)));
    if !report.all_listed {
        lines.push("more is damaged or affected than is listed here".into());
    }
    lines.extend(texts(&report.findings, report.more_findings));
    lines.extend(locked(&report.locked));
    lines.join("\n")
}

/// What is said of a damaged blob.
fn lines_of(blob: &DamagedBlob) -> Vec<String> {
    let name = blob.digest.map_or_else(|| "a blob".into(), |digest| digest.to_string());
    let mut lines = vec![format!("{name}: {}", escaped(&blob.error.to_string()))];
    let pins = blob.named.iter().map(|pin| format!("  pin {}", escaped(pin)));
    lines.extend(pins.take(SHOWN));
    for affected in &blob.affected {
        let repository = &affected.repository;
        lines.push(format!("  repository {repository}, {} manifests", affected.manifests.len()));
        lines.extend(affected.tags.iter().take(SHOWN).map(|tag| format!("    {repository}:{tag}")));
        if affected.tags.len() > SHOWN {
            lines.push(format!("    and {} more tags", affected.tags.len() - SHOWN));
        }
    }
    lines
}
