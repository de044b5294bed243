//! The parsers of all that lies on disk, each as a function of bytes: for fuzzing. Not part of the API.
//!
//! Each accepts any bytes, and must not panic, hang, or allocate more than its input warrants.

use std::path::{Path, PathBuf};

use crate::clock::Times;
use crate::envelope::{Keyring, Purpose, Sealing, Table};
use crate::facts::{
    BlobFact, DocumentFact, Family, Idle, Key, LinkFact, ManifestFact, NamedFact, PullFact, ReferrerFact,
    RepositoryFact, SegmentFact, TagFact, UploadFact,
};
use crate::id::{DomainId, FileId, StoreId};
use crate::keys::InPlain;
use crate::log::record::{Header, parse_facts};
use crate::log::replay::{Extent, Replay};
use crate::log::{ActiveLog, Body, LogHeader, Position, frames};
use crate::oci::document::{Document, annotations};
use crate::oci::{Reference, RepositoryName, TagFilter};
use crate::sealed::{MappingBudget, ReadMode};
use crate::segment::{Frame, parse_footer, parse_header};
use crate::tables::{Footer, PageCache, Probe, Run, RunId, RunList, RunMeta, open_file};
use crate::transaction::Op;
use crate::vfs::{OpenMode, RealVfs, Vfs as _};

/// A digest's text.
pub fn digest(bytes: &[u8]) {
    let _ = String::from_utf8_lossy(bytes).parse::<crate::Digest>();
}

/// A manifest of each kind, its annotations, and the text as the names and references of repositories.
pub fn manifest(bytes: &[u8]) {
    for media_type in ["application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"] {
        let _ = Document::parse(media_type, bytes);
    }
    let _ = annotations(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = text.parse::<RepositoryName>();
    let _ = text.parse::<Reference>();
    if let (Ok(filter), Ok(tag)) = (text.parse::<TagFilter>(), text.replace('*', "x").parse()) {
        assert!(filter.matches(&tag), "a filter matches what its stars can stand for");
    }
}

/// A lifecycle policy, and its evaluation on images that the bytes describe.
pub fn lifecycle(bytes: &[u8]) {
    crate::registry::lifecycle::fuzzing::run(bytes);
}

/// A log record: header, operations, facts, and the values of facts.
pub fn record(bytes: &[u8]) {
    let _ = Header::parse(bytes, &[0; 32]);
    let _ = Op::parse_all(bytes);
    let _ = parse_facts(bytes, DomainId::DEFAULT);
    let _ = BlobFact::decode(bytes);
    let _ = SegmentFact::decode(bytes);
    let _ = NamedFact::decode(bytes);
    let _ = UploadFact::decode(bytes);
    let _ = RepositoryFact::decode(bytes);
    let _ = LinkFact::decode(bytes);
    let _ = ManifestFact::decode(bytes);
    let _ = TagFact::decode(bytes);
    let _ = ReferrerFact::decode(bytes);
    let _ = PullFact::decode(bytes);
    let _ = DocumentFact::decode(bytes);
    if let Some((key, value)) = bytes.split_first_chunk() {
        let at = Key { domain: DomainId::DEFAULT, family: Family::Idle, bytes: *key };
        let _ = Idle::decode(&at, value);
    }
}

/// A frame with its descriptor, table and content.
pub fn frame(bytes: &[u8]) {
    let _ = Frame::read(bytes, None, 128);
    let _ = crate::blobs::unpack(bytes, 4 << 20);
}

/// A segment's header, footer and trailer.
pub fn segment(bytes: &[u8]) {
    let _ = parse_header(bytes);
    let _ = parse_footer(bytes.len() as u64, None, |offset, len| {
        let offset = usize::try_from(offset).ok()?;
        bytes.get(offset..offset.checked_add(len)?).map(<[u8]>::to_vec)
    });
}

/// The list of runs, the format file, a log file's header, and a run's footer.
pub fn list(bytes: &[u8]) {
    let _ = RunList::parse(bytes, &plain());
    let _ = crate::store::format::parse(bytes, Path::new("FORMAT"), crate::store::format::Access::Read);
    let _ = LogHeader::parse(bytes);
    let _ = Footer::parse(bytes, 0);
    let _ = Footer::parse(bytes, 1);
}

/// A wrapped key, for each provider, a key file, and with `kms` what the service answers. Argon2id is not run.
#[cfg(feature = "encryption")]
pub fn wrapped_key(bytes: &[u8]) {
    use crate::keys::{KeyContext, KeyProvider as _, LocalKey, SecretKey, fuzzing as keys};
    let local = LocalKey::new(SecretKey::from_bytes([1; 32]));
    if let Ok(id) = local.key_id() {
        let context = KeyContext::new([2; 16], 3, 4);
        assert!(local.unwrap(&id, bytes, &context).is_err(), "nobody guesses a tag of 128 bits");
    }
    let _ = keys::Wrapped::parse(bytes);
    let _ = keys::key_file(bytes);
    #[cfg(feature = "kms")]
    keys::kms_answer(bytes);
}

/// A whole run, read in every way.
pub fn run(bytes: &[u8]) {
    let Some(path) = scratch(bytes) else { return };
    let len = bytes.len() as u64;
    let budget = MappingBudget::new(ReadMode::Positioned, 0);
    let id = RunId { file: FileId(1), at: 0 };
    let (domain, lsn) = (DomainId::DEFAULT, crate::Lsn(1));
    let meta = RunMeta { id, level: 0, domain, key: 0, entries: 0, tombstones: 0, lsn_min: lsn, lsn_max: lsn, len };
    let open = |file| Run::open(&file, &meta, &plain(), &PageCache::new(0));
    if let Ok(run) = open_file(&RealVfs, &path, &budget).and_then(open) {
        for family in Family::ALL {
            for fact in run.iter(family, [0; 32]) {
                let Ok((key, _)) = fact else { break };
                let _ = run.get(&Probe::new(&key), None, crate::facts::Value::new);
            }
        }
    }
    let _ = std::fs::remove_file(path);
}

/// A whole log file, replayed, and looked through for frames.
pub fn log(bytes: &[u8]) {
    let Some(path) = scratch(bytes) else { return };
    if let Ok(file) = RealVfs.open(&path, OpenMode::Read)
        && let Ok(header) = LogHeader::read(&path, &*file, FileId(1), StoreId([0; 16]))
        && frames(&path, &*file, bytes.len() as u64, &header, &plain(), |_, _, _| {}).is_ok()
        && let Ok(mut replay) =
            Replay::new(&path, &*file, header, &plain(), Extent::Open { durable: crate::Lsn(0) }, crate::Lsn(2))
    {
        while let Ok(Some(record)) = replay.next() {
            let _ = replay.frame(&record);
        }
    }
    let _ = std::fs::remove_file(path);
}

/// What is encrypted, with keys that are known: the table of keys, frames, and what comes out of a list, a record and a
/// page of names that somebody with the keys has made.
pub fn envelope(bytes: &[u8]) {
    let keys = Keyring::known(StoreId([0; 16]), &[0, 3]);
    if let Some(table) = Table::parse(bytes) {
        let _ = table.open(keys.store, &InPlain, Path::new("FORMAT"), &[]);
    }
    let _ = RunList::parse(bytes, &keys);
    let _ = RunList::parse(&RunList::sealed(&keys, bytes), &keys);
    for domain in [0, 3].map(DomainId) {
        let Some(cipher) = keys.cipher(domain, 1, &[0; 32], Purpose::Content, FileId(1)) else { continue };
        let sealing = Sealing { cipher, domain, key: 1 };
        let _ = Frame::read(bytes, Some(&sealing), 128);
        let len = bytes.len() as u64;
        let _ = parse_footer(len, Some(&sealing), |offset, len| {
            let offset = usize::try_from(offset).ok()?;
            bytes.get(offset..offset.checked_add(len)?).map(<[u8]>::to_vec)
        });
    }
    #[cfg(feature = "sled")]
    crate::names::parse_page(bytes);
}

/// The keys of a store that is not encrypted.
fn plain() -> Keyring {
    Keyring::plain(StoreId([0; 16]))
}

/// Bytes as a file.
fn scratch(bytes: &[u8]) -> Option<PathBuf> {
    let name = blake3::hash(bytes).to_hex();
    let path = std::env::temp_dir().join(format!("strongroom-fuzz-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).ok()?;
    Some(path)
}

/// A small valid run and log file, to begin from.
pub fn seeds() -> Vec<Vec<u8>> {
    let sim = std::env::temp_dir().join(format!("strongroom-seeds-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&sim);
    let path = sim.join("seed.log");
    let header = LogHeader {
        file: FileId(1),
        store: StoreId([0; 16]),
        session: crate::id::SessionId([0; 16]),
        first_lsn: crate::Lsn(1),
        capacity: 8192,
        key: 0,
        salt: [0; 32],
    };
    let _ = std::fs::remove_file(&path);
    if let Ok(mut log) = ActiveLog::create(&RealVfs, path.clone(), header, &plain()) {
        let domain = DomainId::DEFAULT;
        let key = crate::facts::Key { domain, family: Family::Named, bytes: [1; 32] };
        let body = Body { domain, ops: Vec::new(), facts: vec![(key, None)] };
        let (lsn, durable) = (crate::Lsn(1), crate::Lsn(0));
        let at = Position { lsn, durable, times: Times::default(), offset: 512 };
        if let Ok((head, rest)) = body.encode(at, 0, &header.salt, None) {
            let len = (head.len() + rest.len()) as u64;
            let _ = log.append(&mut [&head, &rest].map(|piece| std::io::IoSlice::new(piece)).to_vec(), len);
        }
    }
    let seeds = std::fs::read(&path).into_iter().collect();
    let _ = std::fs::remove_dir_all(sim);
    seeds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_parser_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let small = [super::digest, super::manifest, super::record, super::frame, super::segment, super::list];
            for parse in small.into_iter().chain([super::envelope, super::run, super::log, super::lifecycle]) {
                parse(&bytes);
            }
            #[cfg(feature = "encryption")]
            super::wrapped_key(&bytes);
        }

        #[test]
        fn no_parser_panics_on_nearly_valid_bytes(
            at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            for mut seed in super::seeds() {
                let place = at.index(seed.len());
                seed[place] = value;
                super::log(&seed);
                seed.truncate(cut.index(seed.len()));
                super::log(&seed);
            }
        }
    }
}
