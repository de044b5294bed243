//! `strongroom gc`.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use strongroom::{CollectOptions, Collection, Stopped};

use crate::commands::Access;
use crate::encryption::locked;
use crate::failure::Failure;
use crate::output::{Output, size};
use crate::units::{bytes, duration, rate};

/// How to collect.
#[derive(Debug, Args)]
pub struct Collect {
    /// Only report what a collection would do.
    #[arg(long)]
    dry_run: bool,
    /// Grace period for unreferenced blobs, counted only while the store is open. With 0 all of them are removed, also
    /// those of pushes and uploads under way.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    retention: Duration,
    /// How many bytes of log files are kept for programs that follow events.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = bytes)]
    history: u64,
    /// The highest share of dead bytes that compaction leaves, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..100))]
    max_dead: u8,
    /// The most bytes that compaction may write; the next collection continues.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    max_bytes: Option<u64>,
    /// The longest that it may take.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_time: Option<Duration>,
    /// The most bytes that compaction writes in a second.
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<u64>,
}

/// Collects, in a store that it opens with these options.
pub fn collect(data: &Path, access: &Access, with: &Collect, output: &Output) -> Result<(), Failure> {
    let store = access.options()?.retention(with.retention).history(with.history).open(data)?;
    let mut collect = CollectOptions::new().dry_run(with.dry_run).max_dead(with.max_dead);
    if let Some(bytes) = with.max_bytes {
        collect = collect.max_bytes(bytes);
    }
    if let Some(time) = with.max_time {
        collect = collect.max_time(time);
    }
    if let Some(bytes) = with.rate {
        collect = collect.bytes_per_second(bytes);
    }
    let progress = output.bytes(0);
    let report = store.collect(&collect, |so_far| {
        progress.set_length(so_far.to_move_bytes);
        progress.set_position(so_far.moved_bytes);
        progress.set_message(format!("{} blobs forgotten", so_far.blobs));
        ControlFlow::Continue(())
    })?;
    progress.finish_and_clear();
    store.close()?;
    output.print(&document(&report), &text(&report));
    if report.damaged.is_empty() { Ok(()) } else { Err(Failure::Damaged(report.damaged.len())) }
}

fn stopped(stopped: Stopped) -> &'static str {
    match stopped {
        Stopped::Told => "it was told to",
        Stopped::Time => "its time was up",
        Stopped::Bytes => "it was to write no more",
        Stopped::Memory => "a dry run remembers no more",
        Stopped::Space => "there is no space for more",
        _ => "of something else",
    }
}

fn document(report: &Collection) -> Value {
    json!({
        "dry_run": report.dry_run,
        "pins": report.named, "uploads": report.uploads, "links": report.links,
        "repositories": report.repositories,
        "blobs": report.blobs, "blob_bytes": report.blob_bytes, "rescued": report.rescued,
        "moved": report.moved, "moved_bytes": report.moved_bytes,
        "files": report.files, "freed_bytes": report.freed_bytes, "run_bytes": report.run_bytes,
        "held_bytes": report.held_bytes, "live_bytes": report.live_bytes, "dead_bytes": report.dead_bytes,
        "stayed": {
            "scattered_bytes": report.stayed.scattered_bytes, "log_bytes": report.stayed.log_bytes,
            "damaged_bytes": report.stayed.damaged_bytes, "unreached_bytes": report.stayed.unreached_bytes,
            "recent_blobs": report.stayed.recent_blobs, "locked_bytes": report.stayed.locked_bytes,
        },
        "locked": locked(&report.locked),
        "damaged": report.damaged.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "stopped": report.stopped.map(stopped),
    })
}

fn text(report: &Collection) -> String {
    let mut lines = vec![
        format!(
            "expired    {} pins, {} uploads, {} links, {} repositories",
            report.named, report.uploads, report.links, report.repositories
        ),
        format!("forgotten  {} blobs, {}", report.blobs, size(report.blob_bytes)),
        format!("moved      {} blobs, {}", report.moved, size(report.moved_bytes)),
        format!("removed    {} files, {}", report.files, size(report.freed_bytes)),
        format!("live       {}", size(report.live_bytes)),
        format!("dead       {}", size(report.dead_bytes)),
    ];
    if report.dry_run {
        lines.insert(0, "nothing was done; this would be:".to_owned());
    }
    let stayed = &report.stayed;
    for (bytes, why) in [
        (stayed.scattered_bytes, "in files of which too much lives"),
        (stayed.log_bytes, "in log files that are kept for events, or not folded yet"),
        (stayed.damaged_bytes, "in files with damaged content"),
        (stayed.unreached_bytes, "that it did not come to"),
        (stayed.locked_bytes, "more may be dead in log files with content of locked key domains"),
        (report.held_bytes, "more come back when readers are done"),
    ] {
        if bytes > 0 {
            lines.push(format!("           {} {why}", size(bytes)));
        }
    }
    if stayed.recent_blobs > 0 {
        lines.push(format!("           {} blobs that nothing holds are too recent", stayed.recent_blobs));
    }
    lines.extend(report.damaged.iter().map(|error| format!("damaged    {error}")));
    lines.extend(locked(&report.locked));
    lines.extend(report.stopped.map(|why| format!("ended early: {}", stopped(why))));
    lines.join("\n")
}
