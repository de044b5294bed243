//! Futures that are dropped at any await.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt, stream};
use strongroom::aio::{AsyncRepository, AsyncStore, Limits, StreamError};
use strongroom::registry::{ExpectTag, PutManifest, RepositoryDeletion, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, CollectOptions, Digest, Error, ExpectNamed, Lsn, PutNamed, Result, UploadId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use super::{PIECE, options, pieces};
use crate::common::registry::{image, name, tag};
use crate::common::{Random, tell};

/// A runtime whose only thread for blocking work can be [kept busy](cut).
fn one_of_each() -> Runtime {
    Builder::new_current_thread().max_blocking_threads(1).build().unwrap()
}

/// Polls a future so many times, each time that it is woken, and drops it: none if it had not come to its end. While it
/// is polled no thread takes its work: so it is pending at least once for each call that it makes.
async fn cut<T>(future: impl Future<Output = T>, polls: u32) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = polls;
    poll_fn(|cx| {
        left -= 1;
        let (_shut, gate) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || gate.recv());
        match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Cuts an operation after its first poll, its second, … until it comes to its end, each time on a new store, which is
/// then as it should be.
fn cut_everywhere<F: Future<Output = Result<()>>, G: Future<Output = ()>>(
    operation: impl Fn(AsyncStore, AsyncRepository, UploadId) -> F,
    check: impl Fn(AsyncStore, AsyncRepository, UploadId, bool) -> G,
) {
    for limits in [Limits::new(), Limits::new().calls(1).reads(1).writes(1)] {
        let mut polls = 1;
        loop {
            let disk = SimVfs::new();
            let ended = one_of_each().block_on(async {
                let store = AsyncStore::with_limits(options(&disk).open("/store").unwrap(), limits);
                let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
                let id = app.begin_upload(Algorithm::Sha256).await.unwrap();
                app.append_upload(id, 0, "begun, ").await.unwrap();
                let ended = cut(operation(store.clone(), app.clone(), id), polls).await;
                check(store.clone(), app.clone(), id, ended.is_some()).await;
                drop(app);
                store.close().await.unwrap();
                ended
            });
            let mut store = options(&disk).open("/store").unwrap();
            assert!(store.verify(|_| ()).unwrap().findings.is_empty());
            let report = store.repair(|_| ControlFlow::Continue(())).unwrap();
            assert!(report.mended == 0 && report.left.is_sound(), "cut after {polls}: {report:?}");
            if let Some(result) = ended {
                result.unwrap();
                break;
            }
            polls += 1;
        }
        assert!(polls > 1, "nothing was cut");
        tell(&format!("cut after {} polls at most", polls - 1));
    }
}

/// A source that pauses each time.
struct Pausing<'a>(&'a [u8], bool);

impl AsyncRead for Pausing<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let n = self.0.len().min(buf.remaining());
        let (front, rest) = self.0.split_at(n);
        buf.put_slice(front);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// An upload can be continued from where it stands, which is somewhere in what was sent.
async fn continues(app: &AsyncRepository, id: UploadId, sent: &[u8], ended: bool) {
    let whole = [b"begun, ", sent].concat();
    let go_on = async || {
        let offset = app.append_upload(id, None, Bytes::new()).await?;
        let rest = whole.get(offset as usize..).expect("no more than was sent").to_vec();
        assert!(offset >= 7 && (!ended || rest.is_empty()), "{offset}");
        app.append_upload(id, offset, rest).await?;
        app.commit_upload(id, &Digest::of(Algorithm::Sha256, &whole)).await
    };
    loop {
        match go_on().await {
            // What was dropped may be at work for a moment yet, or being made durable.
            Err(Error::UploadBusy { .. } | Error::WrongOffset { .. }) => tokio::task::yield_now().await,
            committed => return assert_eq!(committed.unwrap().len, whole.len() as u64),
        }
    }
}

#[test]
fn appending_is_cut_at_every_await() {
    let content = &*Random(1).bytes(PIECE + 100_000).leak();
    cut_everywhere(
        |_, app, id| async move { app.append_upload_from(id, None, Pausing(content, false)).await.map(drop) },
        |_, app, id, ended| async move { continues(&app, id, content, ended).await },
    );
    cut_everywhere(
        |_, app, id| async move {
            let mut writer = app.upload_writer(id, 7);
            for piece in content.chunks(100_000) {
                writer.write([Bytes::from_static(piece)]).await?;
            }
            writer.finish().await.map(drop)
        },
        |_, app, id, ended| async move { continues(&app, id, content, ended).await },
    );
    cut_everywhere(
        |_, app, id| async move {
            let mut sink = app.append_sink(id, 7);
            for piece in content.chunks(100_000) {
                sink.write_all(piece).await.map_err(|error| panic!("{error}"))?;
                AsyncWriteExt::flush(&mut sink).await.map_err(|error| panic!("{error}"))?;
            }
            sink.finish().await.map(drop)
        },
        |_, app, id, ended| async move { continues(&app, id, content, ended).await },
    );
    cut_everywhere(
        |_, app, id| async move {
            app.append_upload(id, 7, content).await?;
            app.commit_upload(id, &Digest::of(Algorithm::Sha256, &[b"begun, ", content].concat())).await.map(drop)
        },
        |_, app, id, _| async move {
            let digest = Digest::of(Algorithm::Sha256, &[b"begun, ", content].concat());
            loop {
                match app.upload_status(id).await {
                    Ok(status) if status.offset == 7 => return continues(&app, id, content, false).await,
                    // The commit may be under way.
                    Ok(_) => match app.commit_upload(id, &digest).await {
                        Err(Error::UploadBusy { .. }) => tokio::task::yield_now().await,
                        Err(Error::UploadNotFound { .. }) => {}
                        other => {
                            other.unwrap();
                            return;
                        }
                    },
                    Err(_) => {
                        app.claim(&digest).await.unwrap();
                        return;
                    }
                }
            }
        },
    );
}

#[test]
fn putting_is_cut_at_every_await() {
    for len in [10usize, 100_000, 1_200_000] {
        let content = &*Random(len as u64).bytes(len).leak();
        let check = move |app: AsyncRepository, ended: bool| async move {
            let digest = Digest::of(Algorithm::Sha256, content);
            assert!(!ended || app.claim(&digest).await.is_ok());
            // No upload is left but the one that was there, once the one that was cut off has been cancelled.
            while app.uploads(None, 10).await.unwrap().items.len() > 1 {
                tokio::task::yield_now().await;
            }
            assert_eq!(app.put(content, digest).await.unwrap().digest, digest);
            assert!(app.get(&digest).await.unwrap().bytes().await.unwrap() == content);
        };
        cut_everywhere(
            |_, app, _| async move { app.put(content, Algorithm::Sha256).await.map(drop) },
            |_, app, _, ended| check(app, ended),
        );
        cut_everywhere(
            |_, app, _| async move { app.put_reader(Pausing(content, false), Algorithm::Sha256).await.map(drop) },
            |_, app, _, ended| check(app, ended),
        );
    }
}

#[test]
fn pushing_and_pulling_is_cut_at_every_await() {
    let layer = &*Random(3).bytes(2 * PIECE + 10).leak();
    cut_everywhere(
        |store, app, _| async move {
            let app = store.ensure_repository(app.name(), RepositorySettings::new()).await?;
            let config = app.put("{}", Algorithm::Sha256).await?;
            let layer = app.put(layer, Algorithm::Sha256).await?;
            let (media_type, document) = image(&[config.digest, layer.digest], None);
            let pushed = app.put_manifest(document, PutManifest::new(media_type).tag(tag("v1"))).await?;
            app.tag(&tag("v2"), &pushed.digest, ExpectTag::Any).await?;
            let pulled = app.pull_manifest(&tag("v2").into()).await?;
            assert_eq!(pulled.digest, pushed.digest);
            let blob = app.get(&layer.digest).await?;
            let stream = blob.open_stream(0..blob.len()).await?;
            assert_eq!(stream.try_fold(0, |len, piece| async move { Ok(len + piece.len()) }).await?, 2 * PIECE + 10);
            let mut read = Vec::new();
            blob.reader(5..blob.len())?.read_to_end(&mut read).await.map_err(|error| panic!("{error}"))?;
            app.delete_manifest(&pushed.digest).await?;
            app.remove_blob(&layer.digest).await.map(drop)
        },
        |_, app, _, _| async move {
            // A tag names a manifest that is there, with all that it holds.
            for tag in app.tags(None, 10).await.unwrap().items {
                match app.get_manifest(&tag.into()).await {
                    Err(Error::ManifestNotFound { .. }) => {} // what was cut off ran to its end meanwhile
                    found => drop(found.unwrap()),
                }
            }
        },
    );
}

#[test]
fn sending_is_cut_at_every_await() {
    let content = &*Random(4).bytes(PIECE + 100_000).leak();
    let body = || stream::iter(pieces(content, 100_000));
    let is_store = |error| match error {
        StreamError::Store(error) => error,
        StreamError::Source(never) => match never {},
    };
    cut_everywhere(
        |_, app, id| async move { app.append_upload_stream(id, 7, body()).await.map(drop).map_err(is_store) },
        |_, app, id, ended| async move { continues(&app, id, content, ended).await },
    );
    cut_everywhere(
        |_, app, id| async move {
            let mut writer = app.upload_writer(id, None);
            let mut pieces = vec![vec![Bytes::from_static(content)]].into_iter();
            writer.write_from(move || pieces.next().unwrap_or_default()).await?;
            writer.finish().await.map(drop)
        },
        |_, app, id, ended| async move { continues(&app, id, content, ended).await },
    );
    cut_everywhere(
        |_, app, id| async move {
            let mut writer = app.upload_writer(id, 7);
            writer.write([Bytes::from_static(content)]).await?;
            writer.discard().await
        },
        |_, app, id, _| async move { continues(&app, id, content, false).await },
    );
    let long = &*Random(5).bytes(1_200_000).leak();
    cut_everywhere(
        |store, _, _| async move {
            let body = stream::iter(pieces(long, 100_000));
            store.put_stream(body, Algorithm::Sha256).await.map_err(is_store)?;
            let mut sink = store.put_sink(Algorithm::Blake3);
            sink.send(Bytes::from_static(long)).await?;
            sink.finish().await.map(drop)
        },
        |store, _, _, ended| async move {
            while !store.uploads(None, 10).await.unwrap().items.is_empty() {
                tokio::task::yield_now().await;
            }
            for algorithm in [Algorithm::Sha256, Algorithm::Blake3] {
                let digest = Digest::of(algorithm, long);
                assert!(!ended || store.exists(&digest).await.unwrap());
                store.put(long, digest).await.unwrap();
            }
        },
    );
}

#[test]
fn writing_named_files_is_cut_at_every_await() {
    let long = &*Random(6).bytes(1_200_000).leak();
    cut_everywhere(
        |store, _, _| async move {
            let files = store.named();
            let digest = files.put("a/put", "x", PutNamed::new()).await?.file.digest;
            files.set("a/set", &digest, PutNamed::new()).await?;
            files.put_reader("long", Pausing(long, false), PutNamed::new()).await?;
            let id = files.begin_upload(Algorithm::Sha256).await?;
            files.append_upload_from(id, None, &b"x"[..]).await?;
            files.put_upload("uploaded", id, &digest, PutNamed::new()).await?;
            assert_eq!(files.get("long").await?.1.len(), long.len() as u64);
            assert_eq!(files.list("a/", None, 10).await?.items.len(), 2);
            files.stat("a/set").await?;
            files.remove("uploaded", ExpectNamed::Any).await?;
            files.remove_many(&["long"]).await?;
            files.remove_prefix("a/").await.map(drop)
        },
        |store, _, _, ended| async move {
            let files = store.named();
            let found = files.list("", None, 10).await.unwrap().items;
            assert!(!ended || found.is_empty());
            for file in found {
                // What was cut off may go on meanwhile, and remove it.
                if let Ok((file, blob)) = files.get(&file.name).await {
                    let expected = if file.name == "long" { long } else { b"x" };
                    assert!(blob.bytes().await.unwrap() == expected);
                }
            }
        },
    );
}

#[test]
fn batches_repositories_and_collections_are_cut_at_every_await() {
    cut_everywhere(
        |store, app, _| async move {
            let other = store.create_repository(&name("team/other"), RepositorySettings::new()).await?;
            let stored = app.put_many(["one", "two"].map(|content| (content, Algorithm::Sha256))).await?;
            let digests = stored.into_iter().map(|stored| Ok(stored?.digest)).collect::<Result<Vec<_>>>()?;
            assert_eq!(app.get_many(&digests).await?.len(), 2);
            app.stat_many(&digests).await?;
            app.claim_many(&digests).await?;
            app.claim(&digests[0]).await?;
            other.mount(&digests[0], app.name(), |_| true).await?;
            let pushed = app.put_manifest("a document", PutManifest::new("text/plain").references([], [])).await?;
            app.delete_batch(&[pushed.digest.into()]).await?;
            store.delete_repository(other.name(), RepositoryDeletion::IfEmpty).await.or_else(|error| match error {
                Error::RepositoryNotEmpty { .. } => Ok(Lsn::default()),
                error => Err(error),
            })?;
            store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).await.map(drop)
        },
        |store, app, _, ended| async move {
            let blobs = app.blobs(None, 10).await.unwrap().items;
            assert!(blobs.len() == 2 || (blobs.is_empty() && !ended), "a batch is stored as a whole");
            let names = store.repositories(None, 10).await.unwrap().items;
            assert!(names.contains(app.name()));
        },
    );
}

#[test]
fn waiting_for_events_is_cut_at_every_await() {
    cut_everywhere(
        |store, app, _| async move {
            let after = store.blocking().last_lsn();
            let put = async {
                tokio::task::yield_now().await;
                app.put("content", Algorithm::Sha256).await
            };
            let (events, put) = tokio::join!(store.wait_for_events(after, 10), put);
            assert!(!events?.events.is_empty());
            put.map(drop)
        },
        |store, _, _, _| async move { drop(store.events(Lsn::default(), 10).await.unwrap()) },
    );
}

#[test]
fn closing_is_cut_at_every_await() {
    for polls in 1..100 {
        let disk = SimVfs::new();
        let ended = one_of_each().block_on(async {
            let store = AsyncStore::new(options(&disk).open("/store").unwrap());
            store.put("content", Algorithm::Sha256).await.unwrap();
            let ended = cut(store.close(), polls).await;
            // Where it had begun it goes on; else the store is open, and can be closed.
            match store.close().await {
                Ok(()) | Err(Error::Closed) => {}
                Err(error) => panic!("{error}"),
            }
            ended
        });
        let store = options(&disk).open("/store").unwrap();
        assert!(store.exists(&Digest::of(Algorithm::Sha256, b"content")).unwrap());
        if ended.is_some() {
            assert!(polls > 1, "nothing was cut");
            return;
        }
    }
    panic!("it does not end");
}
