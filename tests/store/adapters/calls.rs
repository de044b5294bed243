//! Each async call does what the blocking call of its name does.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use strongroom::aio::{AsyncNamedFiles, AsyncStore, StreamError};
use strongroom::registry::lifecycle::Policy;
use strongroom::registry::{PutManifest, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Digest, Error, ExpectNamed, PutNamed, ScrubOptions, SnapshotOptions};

use super::{PIECE, one_thread, open, options, pieces};
use crate::common::Random;
use crate::common::registry::name;

const POLICY: &str = r#"{"rules": [{"rulePriority": 1,
    "selection": {"tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 1},
    "action": {"type": "transition", "targetStorageClass": "archive"}}]}"#;

const NONE: &[u8] = b"is not there";

fn file_of(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

#[test]
fn batches_and_files_of_a_store() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let stored = store.put_many(["one", "two"].map(|content| (content, Algorithm::Sha256))).await.unwrap();
        let mut digests: Vec<_> = stored.into_iter().map(|stored| stored.unwrap().digest).collect();
        digests.push(Digest::of(Algorithm::Sha256, NONE));
        assert_eq!(store.exists_many(&digests).await.unwrap(), [true, true, false]);
        let lens = store.stat_many(&digests).await.unwrap().into_iter().map(|stat| stat.map(|stat| stat.len));
        assert_eq!(lens.collect::<Vec<_>>(), [Some(3), Some(3), None]);
        assert_eq!(store.stat(&digests[0]).await.unwrap().len, 3);
        let claimed = store.claim_many(&digests).await.unwrap();
        assert!(claimed[0].as_ref().unwrap().len == 3 && claimed[1].is_ok() && claimed[2].is_err());
        assert_eq!(store.claim(&digests[1]).await.unwrap().len, 3);
        let blobs = store.get_many(&digests).await.unwrap();
        assert!(matches!(blobs[2], Err(Error::BlobNotFound { .. })));
        for (blob, content) in blobs.iter().zip(["one", "two"]) {
            assert_eq!(blob.as_ref().unwrap().bytes().await.unwrap(), content);
        }
        let staged = file_of(b"staged");
        assert_eq!(store.put_file(staged.path(), Algorithm::Sha256).await.unwrap().len, 6);

        let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
        app.put_many([("three", Algorithm::Sha256)]).await.unwrap().pop().unwrap().unwrap();
        assert!(!app.put_file(staged.path(), Algorithm::Sha256).await.unwrap().existed);
        let digests = [Digest::of(Algorithm::Sha256, b"three"), digests[2]];
        let lens = app.stat_many(&digests).await.unwrap().into_iter().map(|stat| stat.map(|stat| stat.len));
        assert_eq!(lens.collect::<Vec<_>>(), [Some(5), None]);
        assert!(app.claim_many(&digests).await.unwrap()[1].is_err());
        assert_eq!(app.get_many(&digests).await.unwrap()[0].as_ref().unwrap().len(), 5);
        assert_eq!(app.usage().await.unwrap(), app.blocking().usage().unwrap());
        let pushed = app.put_manifest("a document", PutManifest::new("text/plain").references([], [])).await.unwrap();
        let (media_type, document) = app.open_manifest(&pushed.digest.into()).await.unwrap();
        assert_eq!((&*media_type, document.bytes().await.unwrap()), ("text/plain", "a document".into()));
        let policy = Policy::parse(POLICY).unwrap();
        let plan = app.lifecycle_plan(&policy, 1 << 50).await.unwrap();
        assert_eq!(plan, app.blocking().lifecycle_plan(&policy, 1 << 50).unwrap());
        assert_eq!(app.apply_lifecycle(&policy, &plan).await.unwrap().archived, 1);
        app.set_settings(RepositorySettings::new()).await.unwrap();
        assert_eq!(app.info().await.unwrap(), app.blocking().info().unwrap());
    });
}

#[test]
fn maintenance_of_a_store() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let blocking = options(&disk).retention(Duration::ZERO).open("/store").unwrap();
        let store = AsyncStore::new(blocking.clone());
        let reader = options(&disk).create(false).read_only(true).open("/store").unwrap();
        let kept = store.named().put("kept", "kept", PutNamed::new()).await.unwrap().file.digest;
        let stored = store.put("x", Algorithm::Sha256).await.unwrap();
        assert_eq!(AsyncStore::new(reader).refresh().await.unwrap(), stored.lsn);
        store.begin_upload(Algorithm::Sha256).await.unwrap();
        assert_eq!(store.expire_uploads(Duration::ZERO).await.unwrap(), 1);
        store.begin_upload(Algorithm::Sha256).await.unwrap();
        store.expire(Duration::ZERO).await.unwrap();
        assert!(store.uploads(None, 10).await.unwrap().items.is_empty());
        store.expire_blobs().await.unwrap();
        let runs = || disk.files().iter().filter(|path| path.extension().is_some_and(|kind| kind == "run")).count();
        let before = runs();
        store.checkpoint().await.unwrap();
        assert!(runs() > before);
        store.merge_runs().await.unwrap();
        store.probe().await.unwrap();
        assert!(store.health().await.unwrap().is_good());
        assert_eq!(store.usage().await.unwrap(), blocking.usage().unwrap());
        assert!(store.verify(|_| ()).await.unwrap().findings.is_empty());
        let scrubbed = store.scrub(&ScrubOptions::new(), |_| ControlFlow::Continue(())).await.unwrap();
        assert!(scrubbed.complete && scrubbed.is_sound());
        assert!(store.unlock_domains().await.unwrap().is_empty());
        let report = store.snapshot_to(Path::new("/copy"), &SnapshotOptions::new()).await.unwrap();
        assert_eq!(report.lsn, blocking.last_lsn());
        assert!(options(&disk).open("/copy").unwrap().exists(&kept).unwrap());
    });
}

#[cfg(feature = "encryption")]
#[test]
fn keys_of_a_store() {
    use crate::common::known_key;

    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let team = "team".parse().unwrap();
        store.named().put("file", "content", PutNamed::new()).await.unwrap();
        assert!(matches!(store.create_domain(&team, None).await, Err(Error::NotEncrypted { .. })));
        store.encrypt(known_key([1; 32])).await.unwrap();
        assert!(store.blocking().is_encrypted());
        assert!(store.rewrite(|_| ControlFlow::Continue(())).await.unwrap().complete);
        store.create_domain(&team, None).await.unwrap();
        let files = store.named_in(&team).await.unwrap();
        files.put("file", "of the team", PutNamed::new()).await.unwrap();
        store.rotate_data_key(Some(&team)).await.unwrap();
        assert_eq!(store.blocking().domains()[1].keys.len(), 2);
        store.rewrap_keys(known_key([2; 32])).await.unwrap();
        let (_, content) = files.get("file").await.unwrap();
        assert_eq!(content.bytes().await.unwrap(), "of the team");
        store.shred_domain(&team).await.unwrap();
        assert!(files.get("file").await.is_err() && store.named_in(&team).await.is_err());
        store.named().get("file").await.unwrap();
    });
}

async fn content_of(files: &AsyncNamedFiles, name: &str) -> Bytes {
    let (file, blob) = files.get(name).await.unwrap();
    assert_eq!((file.len, file.digest), (blob.len(), *blob.digest()));
    blob.bytes().await.unwrap()
}

#[test]
fn named_files() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let files = store.named().with_durability(strongroom::Durability::Relaxed);
        let first = files.put("a/1", "one", PutNamed::new()).await.unwrap();
        assert_eq!(files.stat("a/1").await.unwrap(), files.blocking().stat("a/1").unwrap());
        let expects = PutNamed::new().expect(ExpectNamed::Absent);
        assert!(matches!(files.put("a/1", "two", expects).await, Err(Error::NamedChanged { .. })));
        files.set("a/2", &first.file.digest, PutNamed::new()).await.unwrap();
        let id = files.begin_upload(Algorithm::Sha256).await.unwrap();
        assert_eq!(files.append_upload(id, 0, "an ").await.unwrap(), 3);
        assert_eq!(files.upload_status(id).await.unwrap().offset, 3);
        assert_eq!(files.append_upload_from(id, None, &b"upl"[..]).await.unwrap(), 6);
        assert_eq!(files.append_upload_stream(id, 6, stream::iter(pieces(b"oa", 1))).await.unwrap(), 8);
        let mut writer = files.upload_writer(id, None);
        writer.write(["d".into()]).await.unwrap();
        assert_eq!(writer.finish().await.unwrap(), 9);
        let digest = Digest::of(Algorithm::Sha256, b"an upload");
        files.put_upload("b", id, &digest, PutNamed::new()).await.unwrap();
        assert_eq!(content_of(&files, "b").await, "an upload");
        let id = files.begin_upload(Algorithm::Sha256).await.unwrap();
        files.cancel_upload(id).await.unwrap();
        assert!(matches!(files.upload_status(id).await, Err(Error::UploadNotFound { .. })));
        let page = files.list("a/", None, 1).await.unwrap();
        assert_eq!((page.items.len(), page.next.as_deref()), (1, Some("a/1")));
        files.remove("b", ExpectNamed::Is(digest)).await.unwrap();
        files.discarding().remove_many(&["a/1"]).await.unwrap();
        files.remove_prefix("a/").await.unwrap();
        assert!(files.list("", None, 10).await.unwrap().items.is_empty());
        assert!(files.call(|files| Ok::<_, Error>(files.iter("").count())).await.unwrap() == 0);
    });
}

#[test]
fn content_from_readers_and_streams_becomes_named_files_whatever_its_length() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let files = store.named();
        for len in [0, 10, 70_000, 1 << 20, (1 << 20) + 1, 5 * PIECE + 3] {
            let content = Random(len as u64).bytes(len);
            let digest = Digest::of(Algorithm::Sha256, &content);
            let written = files.put_reader("file", &content[..], PutNamed::new()).await.unwrap();
            assert_eq!((written.file.digest, written.file.len), (digest, len as u64));
            assert!(content_of(&files, "file").await == content);
            let put = PutNamed::new().digest(digest).expect(ExpectNamed::Is(digest));
            let again = files.put_stream("file", stream::iter(pieces(&content, 5000)), put).await.unwrap();
            assert!(again.existed && again.replaced == Some(digest));

            // Nothing of it is stored under a name that has changed, or where it breaks off.
            let put = PutNamed::new().expect(ExpectNamed::Absent);
            let changed = files.put_reader("file", &content[..], put).await;
            assert!(matches!(changed, Err(Error::NamedChanged { .. })), "{changed:?}");
            let wrong = PutNamed::new().digest(Digest::of(Algorithm::Sha256, NONE));
            let wrong = files.put_reader("file", &content[..], wrong).await;
            assert!(matches!(wrong, Err(Error::DigestMismatch { .. })), "{wrong:?}");
            let body = stream::iter([Ok(content.into()), Err("broke off")]);
            let failed = files.put_stream("file", body, PutNamed::new()).await;
            assert!(matches!(failed, Err(StreamError::Source("broke off"))));
            assert_eq!(files.stat("file").await.unwrap().digest, digest);
        }
        let too_long = files.put_sink("file", PutNamed::new()).limit(3).send_reader(&b"four"[..]).await;
        assert!(matches!(too_long, Err(Error::ContentTooLong { limit: 3 })));
        assert!(matches!(files.put_reader("", &b"x"[..], PutNamed::new()).await, Err(Error::InvalidName { .. })));
        assert!(store.uploads(None, 10).await.unwrap().items.is_empty());
    });
}
