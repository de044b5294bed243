//! Numbers for Prometheus.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};

use strongroom::StoreState;

use super::Registry;
use super::failure::Failure;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "other"];
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "cut off"];

/// The upper ends of the histogram's buckets, in milliseconds.
const BUCKETS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 1000, 5000, 30_000, 120_000];

/// What is counted of requests.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [[AtomicU64; CLASSES.len()]; METHODS.len()],
    /// How many requests took no longer than a bucket says, and longer than the one before.
    buckets: [AtomicU64; BUCKETS.len()],
    microseconds: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    pub under_way: AtomicU64,
    receiving: AtomicU64,
}

/// A blob's content is being received for as long as this lives.
pub struct Receiving<'a>(&'a Metrics);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.receiving.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// Counts a request that has ended, with the status that was sent, if any was.
    pub fn count(&self, method: &Method, status: Option<StatusCode>, took: Duration, bytes_in: u64, bytes_out: u64) {
        let class = match status.map(|status| status.as_u16()) {
            Some(..300) => 0,
            Some(300..400) => 1,
            Some(400..500) => 2,
            Some(500..) => 3,
            None => 4,
        };
        let number = METHODS.iter().position(|name| *name == method.as_str());
        let requests = self.requests.get(number.unwrap_or(METHODS.len() - 1));
        if let Some(requests) = requests.and_then(|classes| classes.get(class)) {
            requests.fetch_add(1, Relaxed);
        }
        let bucket = BUCKETS.iter().position(|end| took <= Duration::from_millis(*end));
        if let Some(bucket) = bucket.and_then(|bucket| self.buckets.get(bucket)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.microseconds.fetch_add(took.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
        self.bytes_in.fetch_add(bytes_in, Relaxed);
        self.bytes_out.fetch_add(bytes_out, Relaxed);
    }

    /// Counts content that is being received.
    pub fn receiving(&self) -> Receiving<'_> {
        self.receiving.fetch_add(1, Relaxed);
        Receiving(self)
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        head(text, "registry_requests_total", "counter", "Requests that have ended.")?;
        let mut total = 0;
        for (method, classes) in METHODS.iter().zip(&self.requests) {
            for (class, count) in CLASSES.iter().zip(classes).map(|(class, count)| (class, count.load(Relaxed))) {
                total += count;
                if count > 0 {
                    writeln!(text, "registry_requests_total{{method=\"{method}\",status=\"{class}\"}} {count}")?;
                }
            }
        }
        let name = "registry_request_duration_seconds";
        head(text, name, "histogram", "From a request's head to the end of its answer.")?;
        let mut below = 0;
        for (end, count) in BUCKETS.iter().zip(&self.buckets) {
            below += count.load(Relaxed);
            writeln!(text, "{name}_bucket{{le=\"{}\"}} {below}", Duration::from_millis(*end).as_secs_f64())?;
        }
        writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {total}")?;
        let sum = Duration::from_micros(self.microseconds.load(Relaxed)).as_secs_f64();
        writeln!(text, "{name}_sum {sum}\n{name}_count {total}")?;
        let bytes = self.bytes_in.load(Relaxed);
        value(text, "registry_received_bytes_total", "counter", "Bytes of requests' bodies.", bytes)?;
        let bytes = self.bytes_out.load(Relaxed);
        value(text, "registry_sent_bytes_total", "counter", "Bytes of answers' bodies.", bytes)?;
        let under_way = self.under_way.load(Relaxed);
        value(text, "registry_requests_under_way", "gauge", "Requests that have not ended.", under_way)?;
        let receiving = self.receiving.load(Relaxed);
        value(text, "registry_uploads_under_way", "gauge", "Requests that bring content of blobs just now.", receiving)
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn value(text: &mut String, name: &str, kind: &str, help: &str, value: u64) -> fmt::Result {
    head(text, name, kind, help)?;
    writeln!(text, "{name} {value}")
}

/// `GET /metrics`
pub async fn show(State(registry): State<Arc<Registry>>) -> Result<Response, Failure> {
    let (usage, health) = (registry.store.usage().await?, registry.store.health().await?);
    let last = registry.store.blocking().last_collection();
    let mut text = String::new();
    let failed = matches!(last, Some(Err(_)));
    let last = last.and_then(Result::ok).unwrap_or_default();
    let (is_writable, is_behind) = (matches!(health.state, StoreState::Writable), health.maintenance.is_some());
    let uploads = health.uploads.unwrap_or(0);
    let gauges = [
        (
            "registry_connections",
            "Connections, those included that are told to come again.",
            registry.places.taken() as u64,
        ),
        (
            "registry_memory_kept_bytes",
            "Memory that bodies and answers hold, beyond what each may.",
            registry.memory.kept() as u64,
        ),
        ("strongroom_collection_failed", "Whether the last collection failed.", u64::from(failed)),
        (
            "strongroom_collection_repositories",
            "Repositories that it deleted, since no push completed them.",
            last.repositories,
        ),
        ("strongroom_collection_blobs", "Blobs that the last collection forgot.", last.blobs),
        ("strongroom_collection_freed_bytes", "Bytes that the last collection gave back.", last.freed_bytes),
        ("strongroom_collection_damaged", "Blobs that the last collection found damaged.", last.damaged.len() as u64),
        ("strongroom_held_bytes", "Bytes of removed files that readers still hold.", last.held_bytes),
        ("strongroom_blobs", "Blobs stored.", usage.blobs),
        ("strongroom_live_bytes", "Bytes of blobs as stored.", usage.live_bytes),
        ("strongroom_dead_bytes", "Bytes that no blob has any more, in files that hold others too.", usage.dead_bytes),
        ("strongroom_run_bytes", "Bytes of what is known of blobs, repositories and uploads.", usage.run_bytes),
        ("strongroom_files", "Files that hold blobs.", usage.segments),
        ("strongroom_writable", "Whether the store takes writes.", u64::from(is_writable)),
        ("strongroom_maintenance_failed", "Whether the last round of maintenance failed.", u64::from(is_behind)),
        ("strongroom_unfolded_facts", "Facts that are in memory and in the log alone.", health.unfolded_facts),
        ("strongroom_log_bytes", "Bytes of the log.", health.log_bytes),
        ("strongroom_uploads", "Unfinished uploads, counted up to 1,000.", uploads as u64),
        ("strongroom_locked_domains", "Key domains whose keys can't be had.", health.locked.len() as u64),
    ];
    // Writing to a string does not fail.
    let _ = registry.metrics.write(&mut text);
    let lost = registry.lost_lines.load(Relaxed);
    let _ = value(&mut text, "registry_log_lines_lost_total", "counter", "Lines of the log that nobody took.", lost);
    for (name, help, gauge) in gauges {
        let _ = value(&mut text, name, "gauge", help, gauge);
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
