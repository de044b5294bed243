//! A registry that is served to a client of its own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use strongroom::aio::AsyncStore;
use strongroom::keys::KeyProvider;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Compression, Digest, Options, Store};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::common::registry::IMAGE;
use strongroom_registry::auth::Auth;
use strongroom_registry::auth::token::TokenKey;
use strongroom_registry::http::limits::Limits;
use strongroom_registry::http::{Admission, Creation, Indexes, Settings};

/// How a store on a disk is opened.
pub fn options(disk: &SimVfs) -> Options {
    Options::new().create(true).vfs(Arc::new(disk.clone())).inline_max(1000).log_file_size(1 << 20)
}

/// How a registry behaves by default, and has little patience when it is stopped.
pub fn settings() -> Settings {
    Settings {
        auth: Arc::new(Auth::open(TokenKey::random().unwrap())),
        creation: Creation::OnPush,
        indexes: Indexes::Whole,
        admission: Admission::default(),
        proxies: Vec::new(),
        lifecycle: Default::default(),
        // Tests ask many times what they may not.
        limits: Limits { grace: Duration::from_secs(20), refusal: Duration::ZERO, ..Limits::default() },
        lost_lines: Arc::default(),
    }
}

/// A registry on a simulated disk.
pub struct Server {
    pub address: SocketAddr,
    pub disk: SimVfs,
    pub stop: Option<oneshot::Sender<()>>,
    pub thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(Creation::OnPush, Indexes::Whole, |_| {})
    }

    pub fn with(creation: Creation, indexes: Indexes, prepare: impl FnOnce(&Store)) -> Self {
        let disk = SimVfs::new();
        let store = options(&disk).open("/store").unwrap();
        prepare(&store);
        Self::serve(disk, store, creation, indexes)
    }

    /// Serves the store on a disk, with content as it is; creates it, if there is none.
    pub fn on(disk: SimVfs, prepare: impl FnOnce(&Store)) -> Self {
        let store = options(&disk).compression(Compression::Off).open("/store").unwrap();
        prepare(&store);
        Self::serve(disk, store, Creation::OnPush, Indexes::Whole)
    }

    /// Serves the encrypted store on a disk; creates it, if there is none.
    pub fn encrypted(disk: SimVfs, key: Arc<dyn KeyProvider>) -> Self {
        let store = options(&disk).key_provider(key).open("/store").unwrap();
        Self::serve(disk, store, Creation::OnPush, Indexes::Whole)
    }

    fn serve(disk: SimVfs, store: Store, creation: Creation, indexes: Indexes) -> Self {
        Self::serve_with(disk, store, Settings { creation, indexes, ..settings() })
    }

    /// Serves a store that lies elsewhere.
    pub fn serving(store: Store) -> Self {
        Self::serve_with(SimVfs::new(), store, settings())
    }

    /// Serves a new store in a way of its own.
    pub fn configured(settings: Settings) -> Self {
        let disk = SimVfs::new();
        let store = options(&disk).open("/store").unwrap();
        Self::serve_with(disk, store, settings)
    }

    pub fn serve_with(disk: SimVfs, store: Store, settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let store = AsyncStore::new(store);
                strongroom_registry::server::serve(store.clone(), settings, listener, async { drop(stopped.await) })
                    .await;
                store.close().await.unwrap();
            });
        });
        Self { address, disk, stop: Some(stop), thread: Some(thread) }
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.begin(method, path, headers, body.len());
        stream.write_all(body).unwrap();
        Answer::read(stream)
    }

    /// Sends the head of a request.
    pub fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], len: usize) -> TcpStream {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n");
        for (name, value) in headers.iter().chain(&[("Content-Length", len.to_string().as_str())]) {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all((head + "\r\n").as_bytes()).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], &[])
    }

    /// Begins an upload, and returns its location.
    pub fn upload(&self, name: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], &[]);
        assert_eq!((answer.status, answer.header("range")), (202, Some("0-0")));
        answer.header("location").unwrap().to_owned()
    }

    pub fn push_blob(&self, name: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        assert_eq!(self.send("POST", &path, &[], content).status, 201);
        digest
    }

    pub fn push_manifest(&self, name: &str, reference: &str, manifest: &Value) -> Answer {
        let media_type = manifest["mediaType"].as_str().unwrap();
        let path = format!("/v2/{name}/manifests/{reference}");
        self.send("PUT", &path, &[("Content-Type", media_type)], manifest.to_string().as_bytes())
    }

    /// Pushes a config and an image with it.
    pub fn push_image(&self, name: &str, tag: &str, config: &str) -> Digest {
        let image = image(self.push_blob(name, config.as_bytes()), config.len());
        let answer = self.push_manifest(name, tag, &image);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("docker-content-digest").unwrap().parse().unwrap()
    }

    /// All pages of a list, following the links.
    pub fn pages(&self, path: &str) -> Vec<Value> {
        let mut pages = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next {
            let answer = self.get(&path);
            assert_eq!(answer.status, 200, "{answer:?}");
            pages.push(answer.json());
            let link = answer.header("link").map(|link| link.strip_suffix(">; rel=\"next\"").unwrap());
            next = link.map(|link| link.strip_prefix('<').unwrap().to_owned());
        }
        pages
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take().filter(|_| !std::thread::panicking()) {
            thread.join().unwrap();
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // The server may have answered and closed before it had the whole body: what it said is there to be read.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and first code of an error.
    pub fn error(&self) -> (u16, String) {
        (self.status, self.json()["errors"][0]["code"].as_str().unwrap().to_owned())
    }
}

/// An image without layers.
pub fn image(config: Digest, len: usize) -> Value {
    let media_type = "application/vnd.oci.image.config.v1+json";
    json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": { "mediaType": media_type, "digest": config.to_string(), "size": len },
        "layers": [],
    })
}
