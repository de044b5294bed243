//! Clients that push and pull small images, now and then, as people and their build machines do.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use strongroom::{Algorithm, Digest};

use crate::client::Client;
use crate::report::Latencies;

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image whose push was acknowledged.
#[derive(Debug)]
pub struct Pushed {
    repository: String,
    tag: String,
    manifest: Vec<u8>,
    layer: Digest,
}

/// Random bytes, the same for a seed.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// A manifest of a config and a layer.
pub fn manifest(config: (&Digest, usize), layer: (&Digest, usize), more: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"a/config","digest":"{}","size":{}}},
        "layers":[{{"mediaType":"a/layer","digest":"{}","size":{}}}]{more}}}"#,
        config.0, config.1, layer.0, layer.1
    )
}

pub fn run(
    registry: SocketAddr,
    number: u32,
    [alone, attacked]: &[Latencies; 2],
    is_attacked: &AtomicBool,
    stop: &AtomicBool,
) -> Vec<Pushed> {
    let mut pushed = Vec::new();
    for round in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        // As a program that is run for each image: it connects anew.
        let mut client = Client::new(registry);
        let latencies = if is_attacked.load(Relaxed) { attacked } else { alone };
        pushed.extend(image(&mut client, number, round, latencies));
        std::thread::sleep(Duration::from_millis(100 + (round * 37) % 100));
    }
    pushed
}

/// Pushes an image, and pulls it.
fn image(client: &mut Client, number: u32, round: u64, latencies: &Latencies) -> Option<Pushed> {
    let repository = format!("good/{number}");
    let tag = format!("v{}", round % 20);
    let len = match round % 3 {
        0 => 2_000,
        1 => 50_000,
        _ => 300_000,
    };
    let layer = bytes(u64::from(number) << 32 | round, len);
    let config = format!(r#"{{"number":{number},"round":{round}}}"#);
    let digest = Digest::of(Algorithm::Sha256, &layer);
    let config_digest = Digest::of(Algorithm::Sha256, config.as_bytes());
    let uploads = format!("/v2/{repository}/blobs/uploads/");
    let octets = [("Content-Type", "application/octet-stream")];

    let begun = client.send("begin an upload", 202, ("POST", &uploads, &[], &[]), latencies)?;
    let upload = begun.header("location")?.to_owned();
    client.send("push content", 202, ("PATCH", &upload, &octets, &layer), latencies)?;
    client.send("end an upload", 201, ("PUT", &format!("{upload}?digest={digest}"), &[], &[]), latencies)?;
    let whole = format!("{uploads}?digest={config_digest}");
    client.send("push a config", 201, ("POST", &whole, &octets, config.as_bytes()), latencies)?;
    let manifest = manifest((&config_digest, config.len()), (&digest, len), "").into_bytes();
    let path = format!("/v2/{repository}/manifests/{tag}");
    client.send("push a manifest", 201, ("PUT", &path, &[("Content-Type", IMAGE)], &manifest), latencies)?;

    let pulled = client.send("pull a manifest", 200, ("GET", &path, &[], &[]), latencies)?;
    let blob = format!("/v2/{repository}/blobs/{digest}");
    client.send("ask for a blob", 200, ("HEAD", &blob, &[], &[]), latencies)?;
    let content = client.send("pull a blob", 200, ("GET", &blob, &[], &[]), latencies)?;
    client.send("probe", 200, ("GET", "/healthz", &[], &[]), latencies)?;
    client.send("list tags", 200, ("GET", &format!("/v2/{repository}/tags/list"), &[], &[]), latencies)?;
    if pulled.body != manifest || content.body != layer {
        latencies.refuse("pull", "other content than was pushed");
    }
    Some(Pushed { repository, tag, manifest, layer: digest })
}

/// How many of the images are not there as they were acknowledged.
pub fn lost(registry: SocketAddr, pushed: &[Pushed]) -> usize {
    let mut client = Client::new(registry);
    let ignored = Latencies::default();
    let mut lost = 0;
    let mut named = HashSet::new();
    for Pushed { repository, tag, manifest, layer } in pushed.iter().rev() {
        // A tag names the last one that was pushed to it; all are there by their digest.
        let is_last = named.insert((repository, tag));
        let digest = Digest::of(Algorithm::Sha256, manifest);
        let references = [Some(digest.to_string()), is_last.then(|| tag.clone())];
        let is_there = references.iter().flatten().all(|reference| {
            let path = format!("/v2/{repository}/manifests/{reference}");
            client.send("check", 200, ("GET", &path, &[], &[]), &ignored).is_some_and(|found| found.body == *manifest)
        });
        let blob = format!("/v2/{repository}/blobs/{layer}");
        let content = client.send("check", 200, ("GET", &blob, &[], &[]), &ignored);
        let is_whole = content.is_some_and(|found| Digest::of(Algorithm::Sha256, &found.body) == *layer);
        lost += usize::from(!is_there || !is_whole);
    }
    lost
}
