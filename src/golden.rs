//! The formats, pinned: every structure with fixed content, byte for byte as `tests/golden/structures.txt` has it,
//! and `encrypted.txt` as it is encrypted with known keys.
//!
//! A change here is a change of the format: it needs a new version, or a feature bit, and a line in the changelog. Then
//! `STRONGROOM_BLESS=1 cargo test --lib golden` writes the file anew. `tests/store/golden.rs` opens a store that an
//! earlier build wrote.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::{Seconds, Times};
use crate::digest::{Algorithm, Digest};
use crate::envelope::{KeyNumber, Keyring};
use crate::facts::{
    BlobFact, Codec, DocumentFact, Expiry, Fact, Family, Held, Idle, Key, LinkFact, ManifestFact, Named, NamedFact,
    Place, ProgressFact, PullFact, ReferrerFact, RepositoryFact, SegmentFact, SegmentKind, Storage, StorageClass,
    TagFact, UploadFact, Value,
};
use crate::id::{DomainId, FileId, Lsn, RepositoryId, SessionId, StoreId, UploadId};
use crate::log::{ActiveLog, Body, LogHeader, Position};
use crate::random::NOT_RANDOM;
use crate::segment::{Frame, Pack, SegmentWriter};
use crate::tables::{Expected, LogEntry, RunFile, RunId, RunList, RunMeta, Unread};
use crate::transaction::{Gone, Op};
use crate::vfs::{File, OpenMode, SimVfs, Vfs};

const STORE: StoreId = StoreId([0x5a; 16]);
const DOMAIN: DomainId = DomainId::DEFAULT;
const UPLOAD: UploadId = UploadId([0xab; 16]);

fn repository() -> Named {
    Named { id: RepositoryId(12), name: "team/app".into() }
}

fn digest(algorithm: Algorithm) -> Digest {
    Digest::of(algorithm, b"golden")
}

fn facts() -> Vec<Fact> {
    let place = Place { file: FileId(3), offset: 4096, stored_len: 70_000, block_log2: 16, crc: 0x0102_0304, key: 0 };
    let blob = |algorithm| BlobFact {
        algorithm,
        codec: Codec::Zstd,
        place,
        len: 100_000,
        count: 2,
        touched: 0x0a0b_0c0d,
        stored: Seconds(1_700_000_000),
        damaged: algorithm == Algorithm::Sha512,
    };
    let segment =
        SegmentFact { kind: SegmentKind::Sealed, live_frames: 1, live_bytes: 70_136, frame_bytes: 70_136, key: 0 };
    let named = NamedFact {
        name: "a/b:c".into(),
        created: 1_700_000_000_000,
        modified: 1_700_000_000_005,
        expires: Expiry::OpenTime(60_000),
        len: 6,
        digest: digest(Algorithm::Sha256),
        references: vec![digest(Algorithm::Sha512)],
    };
    let cached = NamedFact { name: "cache/x".into(), expires: Expiry::WallClock(1_700_000_000_006), ..named.clone() };
    let upload = UploadFact {
        file: Some(FileId(9)),
        offset: 70_000,
        block_crc: 7,
        created: 1_700_000_000_000,
        touched: 5_000,
        algorithm: Algorithm::Blake3,
        repository: None,
        hash_state: vec![1, 2, 3],
        key: 0,
        rest: Vec::new(),
    };
    let progress = ProgressFact {
        domain: DOMAIN,
        from: [7; 32],
        began: 1_700_000_000_004,
        blobs: 1,
        bytes: 100_000,
        read_bytes: 70_136,
        findings: 2,
    };
    let mut facts = vec![
        (Key::blob(DOMAIN, &digest(Algorithm::Sha256)), Some(blob(Algorithm::Sha256).encode())),
        (Key::blob(DOMAIN, &digest(Algorithm::Sha512)), Some(blob(Algorithm::Sha512).encode())),
        (Key::blob(DOMAIN, &digest(Algorithm::Blake3)), None),
        (Key::segment(DOMAIN, FileId(3)), Some(segment.encode())),
        (Key::named(DOMAIN, &named.name), Some(named.encode())),
        (Key::named(DOMAIN, &cached.name), Some(cached.encode())),
        (Key::upload(DOMAIN, UPLOAD), Some(upload.encode())),
        (Key::upload_part(DOMAIN, UPLOAD, 1), Some(Value::new(&[9; 8]))),
        Idle::of_named(&Key::named(DOMAIN, &named.name), &named).unwrap().fact(),
        Idle::of_named(&Key::named(DOMAIN, &cached.name), &cached).unwrap().fact(),
        (Key::progress(DOMAIN), Some(progress.encode())),
        (Key::owner("tenant/app"), Some(Value::new(&1u32.to_le_bytes()))),
    ];
    facts.extend(repository_facts());
    facts.sort_by_key(|(key, _)| *key);
    facts
}

fn repository_facts() -> Vec<Fact> {
    let id = RepositoryId(12);
    let (manifest, blob) = (digest(Algorithm::Sha256), digest(Algorithm::Sha512));
    let repository = RepositoryFact {
        domain: DOMAIN,
        id,
        created: 1_700_000_000_000,
        immutable: true,
        provisional: Some(77_001),
        documents: 1,
        name: "team/app".into(),
        exclusions: vec!["dev-*".into(), "latest".into()],
    };
    let link = LinkFact {
        count: 3,
        ..LinkFact::new(&Key::blob(DOMAIN, &blob), Times { wall: 1_700_000_000_123, open: 77_000 })
    };
    let fact = ManifestFact {
        digest: manifest,
        len: 700,
        pushed: 1_700_000_000_001,
        count: 1,
        storage: Storage::default()
            .moved(StorageClass::Standard, 1_700_000_000_009)
            .moved(StorageClass::Archive, 1_700_000_000_010),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        artifact_type: Some("a/b".into()),
        subject: Some(blob),
        held: vec![Held::Blob(blob), Held::Manifest(manifest)],
    };
    let document = DocumentFact {
        revision: Lsn(14),
        updated: 1_700_000_000_007,
        name: "policy".into(),
        content: "a policy".into(),
    };
    let tag = TagFact { updated: 1_700_000_000_002, digest: manifest, tag: "v1".into() };
    vec![
        (Key::repository(DOMAIN, "team/app"), Some(repository.encode())),
        (Key::deleted(DOMAIN, RepositoryId(11)), Some(Value::new(&[]))),
        Idle::of_repository(&Key::repository(DOMAIN, "team/app"), &repository).unwrap().fact(),
        (Key::of_digest(DOMAIN, Family::Link, id, &blob), Some(link.encode())),
        (Key::of_digest(DOMAIN, Family::Manifest, id, &manifest), Some(fact.encode())),
        (Key::of_digest(DOMAIN, Family::Pull, id, &manifest), Some(PullFact { pulled: 1_700_000_000_003 }.encode())),
        (Key::referrer(DOMAIN, id, &blob, &manifest), Some(ReferrerFact { subject: blob, digest: manifest }.encode())),
        (Key::tag(DOMAIN, id, "v1"), Some(tag.encode())),
        (Key::tag_of(DOMAIN, id, &manifest, "v1"), Some(Value::new(b"v1"))),
        (Key::document(DOMAIN, id, "policy"), Some(document.encode())),
    ]
}

fn operations() -> Vec<u8> {
    let mut bytes = Vec::new();
    for op in [
        Op::Put { digest: digest(Algorithm::Sha256), len: 6 },
        Op::Remove { digest: digest(Algorithm::Sha512) },
        Op::SetNamed {
            name: "a/b:c".into(),
            len: 6,
            replaced: Some(digest(Algorithm::Sha512)),
            digests: vec![digest(Algorithm::Blake3)],
        },
        Op::RemoveNamed { name: "a/b:c".into(), digest: digest(Algorithm::Blake3), why: Gone::Expired },
        Op::BeginUpload { id: UPLOAD, algorithm: Algorithm::Sha512 },
        Op::AppendUpload { id: UPLOAD, offset: 1, len: 2 },
        Op::CommitUpload { id: UPLOAD, digest: digest(Algorithm::Sha256), len: 3 },
        Op::CancelUpload { id: UPLOAD },
        Op::DropFile { file: FileId(5) },
        Op::Link { repository: repository(), digest: digest(Algorithm::Sha256) },
        Op::Unlink { repository: repository(), digest: digest(Algorithm::Sha256) },
        Op::CreateRepository { repository: repository() },
        Op::DeleteRepository { repository: repository() },
        Op::SetRepository { repository: repository() },
        Op::PutManifest {
            repository: repository(),
            digest: digest(Algorithm::Sha256),
            media_type: "a/b".into(),
            subject: Some(digest(Algorithm::Sha512)),
        },
        Op::DeleteManifest { repository: repository(), digest: digest(Algorithm::Sha256) },
        Op::Tag { repository: repository(), tag: "v1".into(), digest: digest(Algorithm::Sha256), old: None },
        Op::Untag { repository: repository(), tag: "v1".into(), digest: digest(Algorithm::Sha256) },
        Op::Pull { repository: repository(), digest: digest(Algorithm::Sha256), time: 1_700_000_000_003 },
        Op::Purge { repository: RepositoryId(11), tags: vec!["v1".into()] },
        Op::Document { repository: repository(), name: "policy".into() },
        Op::SetStorageClass {
            repository: repository(),
            digest: digest(Algorithm::Sha256),
            class: StorageClass::Archive,
        },
    ] {
        op.encode(&mut bytes);
    }
    bytes
}

fn list(key: KeyNumber) -> RunList {
    let mut list = RunList::empty(STORE);
    (list.generation, list.folded, list.durable) = (8, Lsn(20), Lsn(30));
    (list.next_file, list.orphan_floor) = (FileId(12), FileId(11));
    (list.session, list.open_time_ms) = (SessionId([0xcd; 16]), 123_456);
    list.logs = vec![
        LogEntry { id: FileId(7), first_lsn: Lsn(15), sealed: Some((8192, Lsn(25))) },
        LogEntry { id: FileId(10), first_lsn: Lsn(26), sealed: None },
    ];
    let (domain, lsn_min, lsn_max) = (DOMAIN, Lsn(1), Lsn(20));
    let (entries, tombstones, len) = (7, 2, 20_000);
    let id = |file| RunId { file: FileId(file), at: 8192 };
    let run = |file, level| RunMeta { id: id(file), domain, key, level, entries, tombstones, lsn_min, lsn_max, len };
    list.runs = vec![run(8, 0), run(6, 1)];
    let (from, files, logs) = (Lsn(14), FileId(9), list.logs[..1].to_vec());
    list.unread = vec![Unread { domain: DomainId(3), from, files, logs }];
    list
}

/// What a writer puts into a file.
fn file(write: impl FnOnce(&SimVfs, &Path)) -> Vec<u8> {
    let (vfs, path) = (SimVfs::new(), Path::new("/file"));
    write(&vfs, path);
    let file = vfs.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn create(vfs: &SimVfs, path: &Path) -> (PathBuf, Arc<dyn File>) {
    (path.into(), vfs.open(path, OpenMode::CreateNew).unwrap())
}

/// Every structure, as it is written with these keys where what is random is always the same.
fn structures(keys: &Keyring) -> Vec<(&'static str, Vec<u8>)> {
    NOT_RANDOM.set(true);
    let key = keys.current(DOMAIN).unwrap();
    let salt = [0x11; 32];
    let header = LogHeader {
        file: FileId(7),
        store: STORE,
        session: SessionId([0xcd; 16]),
        first_lsn: Lsn(15),
        capacity: 1 << 20,
        key,
        salt,
    };
    let log = ActiveLog::create(&SimVfs::new(), "/log".into(), header, keys).unwrap();
    let frame = Frame::new(digest(Algorithm::Sha512), 6, Codec::Plain, b"golden");
    let body = Body { domain: DOMAIN, ops: operations(), facts: facts() };
    let times = Times { wall: 1_700_000_000_000, open: 9 };
    let at = Position { lsn: Lsn(15), durable: Lsn(14), times, offset: 512 };
    let record = log.encode(keys, &body, at, Some(&frame), 704).unwrap().pieces().concat();
    let blocks = Frame::new(digest(Algorithm::Sha256), 9000, Codec::Plain, &[5; 9000]);
    let at = Position { offset: 4096, ..at };
    let blocks = log.encode(keys, &body, at, Some(&blocks), 4288).unwrap().frame.into_owned();
    let run = file(|vfs, path| {
        let facts = facts();
        let facts = facts.iter().map(|(key, value)| (key, value.as_ref().map(Value::as_bytes)));
        let lsns = (Lsn(1), Lsn(20));
        let expected = Expected::of_facts(facts.clone());
        let mut runs = RunFile::create(vfs, path, FileId(8)).unwrap();
        let mut writer = runs.begin(keys, DOMAIN, lsns, expected).unwrap();
        facts.for_each(|(key, value)| writer.push(key, value).unwrap());
        writer.finish(0).unwrap();
    });
    let segment = file(|vfs, path| {
        let content = [5; 70_000];
        let mut writer = SegmentWriter::begin(create(vfs, path), FileId(3), keys, DOMAIN).unwrap();
        writer.append(&content).unwrap();
        writer.seal(Digest::of(Algorithm::Sha256, &content)).unwrap();
    });
    let pack = file(|vfs, path| {
        let mut pack = Pack::begin(create(vfs, path), FileId(4), keys, DOMAIN).unwrap();
        pack.append(&frame).unwrap();
        pack.append(&Frame::new(digest(Algorithm::Sha256), 9000, Codec::Plain, &[5; 9000])).unwrap();
        pack.finish().unwrap();
    });
    let structures = vec![
        ("FORMAT", crate::store::format::encode(keys).unwrap()),
        ("log header", header.encode()),
        ("log record", record),
        ("frame of several blocks", blocks),
        ("run", run),
        ("list", list(key).encode(keys).unwrap()),
        ("segment", segment),
        ("segment of two frames", pack),
    ];
    NOT_RANDOM.set(false);
    structures
}

/// Sixteen bytes a line, at most so many of a structure; of equal lines the first, then `*`, as `hexdump` does.
fn dump(structures: &[(&str, Vec<u8>)], most: usize) -> String {
    let mut text = String::new();
    for (name, bytes) in structures {
        writeln!(text, "{name}, {} bytes, blake3 {}", bytes.len(), blake3::hash(bytes)).unwrap();
        let (mut last, mut skipped) = (None, false);
        for (number, line) in bytes.chunks(16).enumerate().take(most) {
            if last == Some(line) {
                if !std::mem::replace(&mut skipped, true) {
                    text.push_str("*\n");
                }
                continue;
            }
            (last, skipped) = (Some(line), false);
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{:06x}  {}", 16 * number, hex.join(" ")).unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn every_structure_is_written_as_the_golden_file_has_it() {
    compare("structures.txt", &Keyring::plain(STORE), usize::MAX);
}

#[test]
#[cfg(feature = "encryption")]
fn every_encrypted_structure_is_written_as_the_golden_file_has_it() {
    // No two lines are equal: what is not shown is in the hash.
    compare("encrypted.txt", &Keyring::known(STORE, &[0, 3]), 64);
}

fn compare(name: &str, keys: &Keyring, most: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let found = dump(&structures(keys), most);
    if std::env::var_os("STRONGROOM_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    let differs = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    assert_eq!(differs, None, "the format has changed: see the head of this file");
    assert_eq!(expected.len(), found.len());
}
