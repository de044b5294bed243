//! Power cuts at every operation of flagging and healing: the blob is damaged or it is back, and never anything else.

use super::lab::{Content, Known, app, assert_sound, build, flip, is_damage, lose, open, read, scrub};
use crate::common::{encrypted_disk, tell};
use std::ops::ControlFlow;
use strongroom::vfs::{Fault, SimVfs};
use strongroom::{Error, Finding, ScrubOptions};

/// Scrubs and pushes again what is damaged.
fn heal(disk: &SimVfs, damaged: &[&Content]) -> Result<(), Error> {
    let options = crate::common::options(disk, &strongroom::Clock::manual());
    let store = options.compression(strongroom::Compression::Off).open("/store")?;
    let early =
        |so_far: &strongroom::Scrub| if so_far.blobs < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    store.scrub(&ScrubOptions::new(), early)?;
    store.scrub(&ScrubOptions::new(), |_| ControlFlow::Continue(()))?;
    for (n, content) in damaged.iter().enumerate() {
        if n % 2 == 0 {
            store.put(&content.bytes, content.digest)?;
        } else {
            app(&store).put(&content.bytes, content.digest)?;
        }
    }
    store.scrub(&ScrubOptions::new(), |_| ControlFlow::Continue(()))?;
    store.checkpoint()?;
    store.close()
}

/// Looks at what a power cut has left, and heals it.
fn check(left: &SimVfs, damaged: &[&Content], counts: &[u32], context: &str) {
    let store = open(left);
    for (content, count) in damaged.iter().zip(counts) {
        let stat = store.stat(&content.digest).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(stat.references, *count, "{context}");
        match read(&store, &content.digest) {
            Ok(bytes) => assert!(bytes == content.bytes && !stat.damaged, "{context}"),
            error => assert!(is_damage(error), "{context}"),
        }
    }
    let findings = store.verify(|_| {}).unwrap().findings;
    let is_known = |finding: &Finding| match finding {
        Finding::Blob { digest, error: Error::Corrupt { .. } } => {
            damaged.iter().any(|content| Some(content.digest) == *digest)
        }
        // That of a file that is lost.
        Finding::Segment { error: Error::Corrupt { .. } } => true,
        _ => false,
    };
    assert!(findings.iter().all(is_known), "{context}: {findings:#?}");
    scrub(&store);
    for content in damaged {
        store.put(&content.bytes, content.digest).unwrap();
    }
    scrub(&store); // one may have gone on where that before the cut was
    assert_sound(&store);
}

fn cuts(sound: &SimVfs, known: &Known, harm: fn(&SimVfs, &Known), damaged: &[&Content]) -> u64 {
    let store = open(sound);
    let counts: Vec<u32> = damaged.iter().map(|content| store.stat(&content.digest).unwrap().references).collect();
    store.close().unwrap();
    let disk = sound.restarted();
    harm(&disk, known);
    let counting = disk.restarted();
    let before = counting.operations();
    heal(&counting, damaged).unwrap();
    let count = counting.operations() - before;
    for k in 1..=count {
        let cut = disk.restarted();
        cut.fault_at(cut.operations() + k, Fault::PowerCut);
        // The last ones may give back space, and nobody relies on that.
        let error = heal(&cut, damaged).map_or_else(|error| error.to_string(), |()| "done".into());
        for draw in [k, k << 20] {
            check(&cut.power_cut(draw), damaged, &counts, &format!("cut at {k} of {count}, draw {draw}: {error}"));
        }
        check(&cut.restarted(), damaged, &counts, &format!("killed at {k} of {count}: {error}"));
    }
    3 * count
}

#[test]
fn a_crash_while_flagging_or_healing_leaves_one_or_the_other() {
    let sound = SimVfs::new();
    let known = build(&sound);
    let flips = |disk: &SimVfs, known: &Known| {
        [&known.small, &known.packed, &known.large].into_iter().for_each(|content| flip(disk, content));
    };
    let mut covered = cuts(&sound, &known, flips, &[&known.small, &known.packed, &known.large]);
    covered += cuts(&sound, &known, |disk, known| lose(disk, &known.large), &[&known.large]);
    tell(&format!("crash points covered: {covered}"));
    assert!(covered > 100, "{covered}");
}

#[test]
fn nor_does_one_in_an_encrypted_store() {
    let sound = encrypted_disk();
    let store = open(&sound);
    let bytes = crate::common::Random(4).bytes(70_000);
    let content = Content { digest: store.put(&bytes, strongroom::Algorithm::Sha256).unwrap().digest, bytes };
    store.close().unwrap();
    let disk = sound.restarted();
    let segment = super::lab::segment(&disk, 70_000);
    disk.flip_bit(&segment, 8 * 30_000).unwrap();
    let counting = disk.restarted();
    let before = counting.operations();
    let heal = |disk: &SimVfs| -> Result<(), Error> {
        let store = crate::common::options(disk, &strongroom::Clock::manual()).open("/store")?;
        store.scrub(&ScrubOptions::new(), |_| ControlFlow::Continue(()))?;
        store.put(&content.bytes, content.digest)?;
        store.close()
    };
    heal(&counting).unwrap();
    for k in 1..=counting.operations() - before {
        let cut = disk.restarted();
        cut.fault_at(cut.operations() + k, Fault::PowerCut);
        let error = heal(&cut).map_or_else(|error| error.to_string(), |()| "done".into());
        check(&cut.power_cut(k), &[&content], &[0], &format!("cut at {k}: {error}"));
    }
}
