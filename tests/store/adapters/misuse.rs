//! Handles that are dropped anywhere, and calls after the end.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt, stream};
use strongroom::aio::AsyncStore;
use strongroom::registry::RepositorySettings;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, CollectOptions, Digest, Error, Options, Result, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::{PIECE, one_thread, open, options, pieces};
use crate::common::Random;
use crate::common::registry::name;
use crate::common::watched::Gate;

#[test]
fn after_the_end_every_call_says_so() {
    for by_another_handle in [false, true] {
        one_thread().block_on(async {
            let blocking = open();
            let store = AsyncStore::new(blocking.clone());
            let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
            let content = Random(1).bytes(3 * PIECE);
            let digest = app.put(content.clone(), Algorithm::Sha256).await.unwrap().digest;
            let id = app.begin_upload(Algorithm::Sha256).await.unwrap();
            let blob = app.get(&digest).await.unwrap();
            let mut writer = app.upload_writer(id, 0);
            if by_another_handle {
                writer.write(["under way".into()]).await.unwrap();
                blocking.close().unwrap();
            } else {
                store.close().await.unwrap();
            }
            let is_closed = |result: Result<()>| assert!(matches!(result, Err(Error::Closed)), "{result:?}");
            is_closed(store.put("x", Algorithm::Sha256).await.map(drop));
            is_closed(app.put("x", Algorithm::Sha256).await.map(drop));
            is_closed(store.put_reader(&content[..], Algorithm::Sha256).await.map(drop));
            is_closed(app.put_reader(&b"x"[..], Algorithm::Sha256).await.map(drop));
            is_closed(app.append_upload(id, None, "x").await.map(drop));
            is_closed(app.append_upload_from(id, None, &b"x"[..]).await.map(drop));
            // Short content is in memory until it is to be durable.
            is_closed(writer.write([content.clone().into()]).await);
            is_closed(writer.finish().await.map(drop));
            is_closed(app.commit_upload(id, &digest).await.map(drop));
            is_closed(app.commit_upload_with(id, None, "x", &digest).await.map(drop));
            is_closed(app.get(&digest).await.map(drop));
            is_closed(app.stat(&digest).await.map(drop));
            is_closed(app.tags(None, 10).await.map(drop));
            is_closed(store.repository(app.name()).await.map(drop));
            is_closed(store.sync().await);
            // What was opened stays readable where the runtime's threads still work for the store.
            let read = blob.bytes().await;
            assert!(if by_another_handle { read.unwrap() == content } else { matches!(read, Err(Error::Closed)) });
            assert_eq!(blob.blocking().bytes().unwrap(), content);
        });
    }
}

#[test]
fn nothing_is_taken_after_the_end_of_a_sink() {
    // It was acknowledged, and lost; or stored, where the end was not handed over yet.
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let is_refused = |written: std::io::Result<()>| {
            let error = written.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
            assert!(matches!(error.get_ref().unwrap().downcast_ref(), Some(Error::Closed)));
        };
        for is_pending in [false, true] {
            let mut sink = store.put_sink(Algorithm::Sha256);
            sink.write_all(b"one").await.unwrap();
            match is_pending {
                true => assert!(sink.shutdown().now_or_never().is_none()),
                false => sink.shutdown().await.unwrap(),
            }
            is_refused(sink.write_all(b" two").await);
            assert!(matches!(sink.send(" two".into()).await, Err(Error::Closed)));
            assert!(matches!(sink.start_send_unpin(" two".into()), Err(Error::Closed)));
            AsyncWriteExt::flush(&mut sink).await.unwrap();
            sink.shutdown().await.unwrap();
            assert_eq!(sink.finish().await.unwrap().digest, Digest::of(Algorithm::Sha256, b"one"));

            let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
            let mut sink = store.append_sink(id, 0);
            sink.send("one".into()).await.unwrap();
            match is_pending {
                true => assert!(Pin::new(&mut sink).close().now_or_never().is_none()),
                false => Pin::new(&mut sink).close().await.unwrap(),
            }
            assert!(matches!(sink.send(" two".into()).await, Err(Error::Closed)));
            is_refused(sink.write_all(b" two").await);
            assert_eq!(sink.finish().await.unwrap(), 3);
        }
    });
}

/// A store that stands while it is closed, until the gate is opened.
fn stuck_in_closing(disk: &SimVfs, gate: &Arc<Gate>) -> Store {
    let opened = options(disk).log_file_size(64 << 10).vfs(Arc::new(gate.before(".run", disk))).open("/store").unwrap();
    for n in 0..200u32 {
        opened.put(n.to_le_bytes().repeat(200), Algorithm::Blake3).unwrap();
    }
    opened
}

fn is_open(disk: &SimVfs) -> bool {
    matches!(options(disk).open("/store"), Err(Error::Locked { .. }))
}

fn runtimes() -> [Runtime; 2] {
    [one_thread(), Builder::new_multi_thread().worker_threads(1).build().unwrap()]
}

#[test]
fn dropping_the_last_handle_does_not_block_the_runtime() {
    for runtime in runtimes() {
        for kept in 0..6 {
            let (disk, gate) = (SimVfs::new(), Arc::new(Gate::default()));
            let opened = stuck_in_closing(&disk, &gate);
            runtime.block_on(async {
                let store = AsyncStore::new(opened);
                let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
                let id = app.begin_upload(Algorithm::Sha256).await.unwrap();
                let digest = app.put(vec![7; 3 * PIECE], Algorithm::Sha256).await.unwrap().digest;
                let blob = app.get(&digest).await.unwrap();
                let mut writer = app.upload_writer(id, 0);
                writer.write(["a".into()]).await.unwrap();
                let mut streaming = blob.stream(0..blob.len()).unwrap();
                streaming.next().await.unwrap().unwrap();
                let mut sink = app.put_sink(Algorithm::Sha256);
                sink.send(vec![8; 2 << 20].into()).await.unwrap();
                let mut handles: [Option<Box<dyn std::any::Any>>; 6] = [
                    Some(Box::new(store.named())),
                    Some(Box::new(store)),
                    Some(Box::new(app)),
                    Some(Box::new(writer)),
                    Some(Box::new((blob, streaming))),
                    Some(Box::new(sink)),
                ];
                gate.shut();
                let last = handles[kept].take();
                drop(handles);
                // On this one thread: what it waited for here would never come to pass.
                drop(last);
                while !gate.is_waited_for() {
                    tokio::task::yield_now().await;
                }
                gate.open();
                while is_open(&disk) {
                    tokio::task::yield_now().await;
                }
            });
            let store = options(&disk).open("/store").unwrap();
            let app = store.repository(&name("team/app")).unwrap();
            assert!(
                app.uploads(None, 10).unwrap().items.iter().any(|upload| upload.offset == 1),
                "what was written counts"
            );
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_file_of_a_removed_blob_is_closed_off_the_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let is_removed = |to: &std::path::Path| to.starts_with(dir.path()) && to.to_string_lossy().ends_with(" (deleted)");
    let links = || std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| std::fs::read_link(entry.path()));
    let open_files = || links().flatten().filter(|to| is_removed(to)).count();
    // The only thread for blocking work is busy while the handle is dropped.
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let options = Options::new().create(true).retention(Duration::ZERO).inline_max(1000);
        let blocking = options.open(dir.path()).unwrap();
        let store = AsyncStore::new(blocking.clone());
        for kept in 0..3 {
            let digest = store.put(Random(kept).bytes(3 * PIECE), Algorithm::Sha256).await.unwrap().digest;
            let blob = store.get(&digest).await.unwrap();
            let mut stream = blob.stream(0..blob.len()).unwrap();
            stream.next().await.unwrap().unwrap();
            let mut reader = blob.reader(0..blob.len()).unwrap();
            reader.read_u8().await.unwrap();
            blocking.remove(&digest).unwrap();
            blocking.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
            let mut handles: [Option<Box<dyn std::any::Any>>; 3] =
                [Some(Box::new(blob)), Some(Box::new(stream)), Some(Box::new(reader))];
            let last = handles[kept as usize].take();
            drop(handles);
            let (go, gate) = std::sync::mpsc::channel::<()>();
            let (begins, has_begun) = oneshot::channel();
            let mut busy = Box::pin(store.read(move |_| {
                begins.send(()).unwrap();
                gate.recv().map_err(|_| Error::Closed)
            }));
            assert!(poll_fn(|cx| Poll::Ready(busy.as_mut().poll(cx))).await.is_pending());
            has_begun.await.unwrap();
            assert_eq!(open_files(), 1);
            drop(last);
            assert_eq!(open_files(), 1, "it was closed here");
            go.send(()).unwrap();
            busy.await.unwrap();
            while open_files() > 0 {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn without_a_runtime_the_last_handle_closes_the_store_where_it_is_dropped() {
    let disk = SimVfs::new();
    let store = AsyncStore::new(options(&disk).open("/store").unwrap());
    let app = one_thread().block_on(store.create_repository(&name("team/app"), RepositorySettings::new())).unwrap();
    drop(store);
    assert!(is_open(&disk));
    drop(app);
    assert!(!is_open(&disk));
}

#[test]
fn a_runtime_that_ends_takes_its_handles_along_and_leaves_a_sound_store() {
    let content = Random(9).bytes(4 * PIECE);
    for runtime in runtimes() {
        for turns in [0, 1, 3, 10, 100] {
            let disk = SimVfs::new();
            let id = runtime.block_on(async {
                let store = AsyncStore::new(options(&disk).open("/store").unwrap());
                let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
                app.begin_upload(Algorithm::Sha256).await.unwrap()
            });
            while is_open(&disk) {}
            let ending = one_thread();
            let acknowledged = Arc::new(AtomicU32::new(0));
            ending.block_on(async {
                let store = AsyncStore::new(options(&disk).open("/store").unwrap());
                let app = store.repository(&name("team/app")).await.unwrap();
                let (sender, content) = (app.clone(), content.clone());
                tokio::spawn(async move {
                    let body = stream::iter(pieces(&content, 9000)).chain(stream::pending());
                    sender.append_upload_stream(id, None, body).await
                });
                let puts = Arc::clone(&acknowledged);
                tokio::spawn(async move {
                    for n in 0..u32::MAX {
                        app.put(n.to_le_bytes().repeat(500), Algorithm::Sha256).await.unwrap();
                        puts.store(n + 1, Ordering::SeqCst);
                    }
                });
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            });
            drop(ending);
            let store = options(&disk).open("/store").unwrap();
            let app = store.repository(&name("team/app")).unwrap();
            for n in 0..acknowledged.load(Ordering::SeqCst) {
                app.claim(&Digest::of(Algorithm::Sha256, &n.to_le_bytes().repeat(500))).unwrap();
            }
            let offset = app.upload_status(id).unwrap().offset;
            app.append_upload(id, None, &content[offset as usize..]).unwrap();
            app.commit_upload(id, Digest::of(Algorithm::Sha256, &content)).unwrap();
            assert!(store.verify(|_| ()).unwrap().findings.is_empty());
        }
    }
}
