//! `strongroom fsck --salvage`.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Value, json};
use strongroom::{ChangedNames, Error, Finding, Lsn, SalvageReport};

use crate::commands::Access;
use crate::failure::Failure;
use crate::output::{Output, escaped, shown, size};

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Only tell.
    pub dry_run: bool,
    /// Copy aside what is cut.
    pub copies: bool,
}

/// Tells what a salvage keeps and cuts and, but for a dry run, carries it out. A store that can't be salvaged is
/// damaged in something else than its log.
pub fn salvage(data: &Path, access: &Access, how: How, output: &Output) -> Result<(), Failure> {
    let salvage = match access.options()?.salvage(data) {
        Err(error @ Error::Corrupt { .. }) => return Err(Failure::CantOpen(error)),
        other => other?.keep_copies(how.copies),
    };
    if !salvage.report().is_needed() {
        output.print(&json!({ "needed": false }), "the log is not damaged: there is nothing to salvage");
        return Ok(());
    }
    if how.dry_run {
        tell(salvage.report(), how, output);
        return Err(Failure::Damaged(salvage.report().damage.len()));
    }
    let report = salvage.carry_out()?;
    tell(&report, how, output);
    // That it opens is what this was for. It also removes what nothing refers to any more.
    access.open(data)?.close()?;
    if report.damaged.is_empty() { Ok(()) } else { Err(Failure::Damaged(report.damaged.len())) }
}

fn tell(report: &SalvageReport, how: How, output: &Output) {
    output.print(&document(report, how), &text(report, how));
}

fn texts(things: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    things.into_iter().map(|thing| thing.to_string()).collect()
}

fn document(report: &SalvageReport, how: How) -> Value {
    let range = |range: &RangeInclusive<Lsn>| [range.start().get(), range.end().get()];
    json!({
        "needed": true, "dry_run": how.dry_run, "damage": texts(&report.damage),
        "kept": report.kept.get(), "last": report.last.get(), "may_be_more": report.may_be_more,
        "unread": report.unread.iter().map(range).collect::<Vec<_>>(),
        "cut": changes(&report.cut), "gone": changes(&report.gone), "unnamed": report.unnamed,
        "recovered": texts(&report.recovered), "damaged": texts(&report.damaged),
        "copies": how.copies.then(|| report.copies.display().to_string()),
        "copied_bytes": if how.copies { report.copied_bytes } else { 0 },
    })
}

fn changes(changes: &ChangedNames) -> Value {
    let repositories = changes.repositories.iter().map(|(name, one)| {
        json!({
            "repository": name.to_string(), "itself": one.itself, "blobs": texts(&one.blobs),
            "manifests": texts(&one.manifests), "tags": texts(&one.tags),
            "documents": one.documents,
        })
    });
    json!({
        "blobs": texts(&changes.blobs), "pins": changes.named, "uploads": texts(&changes.uploads),
        "repositories": repositories.collect::<Vec<_>>(),
    })
}

fn text(report: &SalvageReport, how: How) -> String {
    let mut lines: Vec<String> =
        report.damage.iter().map(|error| format!("damaged    {}", escaped(&error.to_string()))).collect();
    if how.dry_run {
        lines.insert(0, "nothing was done; this would be:".to_owned());
    }
    lines.push(format!("kept       commits up to {}", report.kept));
    lines.push(format!("cut        {}", commits(report.kept.get() + 1, report.last.get())));
    for range in &report.unread {
        let commits = commits(range.start().get(), range.end().get());
        lines.push(format!("           {commits} could not be read: anything written in them may be missing"));
    }
    if report.may_be_more {
        lines.push("           and commits behind those, if there were any".to_owned());
    }
    add(&mut lines, "may be missing, or as before those commits:", &report.cut);
    add(&mut lines, "gone, with the content that it was about:", &report.gone);
    if report.unnamed > 0 {
        lines.push(format!("  {} more blobs, whose SHA-512 digests are not known", report.unnamed));
    }
    if !report.recovered.is_empty() {
        lines.push("recovered, and held by nothing:".to_owned());
        lines.extend(report.recovered.iter().map(|digest| format!("  blob {digest}")));
    }
    lines.extend(report.damaged.iter().map(|finding| format!("damaged    {}", damage(finding))));
    if how.copies {
        lines.push(format!("copies     {}, {}", shown(&report.copies), size(report.copied_bytes)));
    }
    lines.join("\n")
}

fn commits(first: u64, last: u64) -> String {
    if first == last { format!("commit {first}") } else { format!("commits {first} to {last}") }
}

fn damage(finding: &Finding) -> String {
    escaped(&finding.to_string())
}

fn add(lines: &mut Vec<String>, title: &str, changes: &ChangedNames) {
    if changes.is_empty() {
        return;
    }
    lines.push(title.to_owned());
    lines.extend(changes.named.iter().map(|pin| format!("  pin {}", escaped(pin))));
    for (name, one) in &changes.repositories {
        let all = if one.itself { ", with all that is in it" } else { "" };
        lines.push(format!("  repository {name}{all}"));
        lines.extend(one.tags.iter().map(|tag| format!("    tag {tag}")));
        lines.extend(one.documents.iter().map(|name| format!("    document {name}")));
        lines.extend(one.manifests.iter().map(|digest| format!("    manifest {digest}")));
        lines.extend(one.blobs.iter().map(|digest| format!("    blob {digest}")));
    }
    lines.extend(changes.uploads.iter().map(|upload| format!("  upload {upload}")));
    lines.extend(changes.blobs.iter().map(|digest| format!("  blob {digest}")));
}
