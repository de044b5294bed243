//! The attackers: each does one thing, again and again, from an address of its own or one that it shares with some of
//! the others.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use strongroom::{Algorithm, Digest};

use crate::good::{IMAGE, bytes, manifest};
use crate::http::{self, connect, head, once};

/// How many bytes a blob has that is pulled and not read, and a long manifest.
const LARGE: usize = 24 << 20;
const LONG: usize = 4_100_000;

/// What an attacker does.
type Attack = Box<dyn Fn(&Attacker, &AtomicBool) + Sync>;

pub struct Attacker {
    name: &'static str,
    registry: SocketAddr,
    from: IpAddr,
    attack: Attack,
    /// How often something came of it.
    counts: Mutex<BTreeMap<String, usize>>,
    serial: AtomicU64,
}

impl Attacker {
    pub fn run(&self, stop: &AtomicBool) {
        (self.attack)(self, stop);
    }

    pub fn print(&self) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<String> = counts.iter().map(|(what, count)| format!("{count} × {what}")).collect();
        println!("  {:<20} {}", self.name, all.join(", "));
    }

    fn count(&self, what: impl Into<String>) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what.into()).or_default() += 1;
    }

    /// A number that no other call gets.
    fn next(&self) -> u64 {
        self.serial.fetch_add(1, Relaxed)
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<http::Answer> {
        match once(self.registry, self.from, method, path, headers, body) {
            Ok(answer) => {
                self.count(answer.status.to_string());
                Some(answer)
            }
            Err(error) => {
                self.count(error.kind().to_string());
                None
            }
        }
    }

    /// Does something so many times a second, from so many threads.
    fn repeat(&self, stop: &AtomicBool, threads: usize, rate: u32, act: impl Fn() + Sync) {
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        let begun = Instant::now();
                        act();
                        thread::sleep((Duration::from_secs(1) / rate).saturating_sub(begun.elapsed()));
                    }
                });
            }
        });
    }

    /// Has so many connections at a time, opened in one way, and tended in another, each once in a while.
    fn hold(
        &self,
        stop: &AtomicBool,
        count: usize,
        every: Duration,
        open: impl Fn() -> io::Result<TcpStream>,
        tend: impl Fn(&mut TcpStream) -> io::Result<()>,
    ) {
        let mut held: Vec<(TcpStream, Instant)> = Vec::new();
        while !stop.load(Relaxed) {
            for _ in 0..(count - held.len()).min(40) {
                match open() {
                    Ok(stream) if stream.set_nonblocking(true).is_ok() => held.push((stream, Instant::now())),
                    Ok(_) => {}
                    Err(error) => self.count(format!("not opened: {}", error.kind())),
                }
            }
            let before = held.len();
            held.retain_mut(|(stream, tended)| {
                if tended.elapsed() < every {
                    return is_open(stream);
                }
                *tended = Instant::now();
                tend(stream).map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |()| true)
            });
            for _ in held.len()..before {
                self.count("closed by the registry");
            }
            thread::sleep(Duration::from_millis(250));
        }
    }
}

/// Whether the other end has not closed, nor answered and closed.
fn is_open(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(peeked) => peeked > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Pushes what the attacks need, and says which there are: all, or those that are named.
pub fn prepare(registry: SocketAddr, only: &[String]) -> Vec<Attacker> {
    let home = address(2);
    let put = |content: &[u8]| {
        let digest = Digest::of(Algorithm::Sha256, content);
        let path = format!("/v2/bad/things/blobs/uploads/?digest={digest}");
        let pushed = once(registry, home, "POST", &path, &[], content);
        assert!(pushed.as_ref().is_ok_and(|answer| answer.status == 201), "{pushed:?}");
        digest
    };
    let push = |document: &str| {
        let digest = Digest::of(Algorithm::Sha256, document.as_bytes());
        let path = format!("/v2/bad/things/manifests/{digest}");
        let pushed = once(registry, home, "PUT", &path, &[("Content-Type", IMAGE)], document.as_bytes());
        assert!(pushed.as_ref().is_ok_and(|answer| answer.status == 201), "{pushed:?}");
        digest
    };
    let (config, large, compressed) = (put(b"{}"), put(&bytes(1, LARGE)), put(&vec![b'c'; 4 << 20]));
    let of = move |more: &str| manifest((&config, 2), (&large, LARGE), more);
    let padded = push(&of(&format!(r#","padding":"{}""#, "x".repeat(LONG))));
    let subject = Digest::of(Algorithm::Sha256, b"subject");
    let descriptor = format!(r#","subject":{{"mediaType":"{IMAGE}","digest":"{subject}","size":7}}"#);
    for n in 0..16 {
        let annotations: Vec<String> = (0..990).map(|k| format!(r#""{n}-{k}":"{}""#, "x".repeat(4000))).collect();
        push(&of(&format!(r#"{descriptor},"annotations":{{{}}}"#, annotations.join(","))));
    }
    for n in 0..3000 {
        push(&of(&format!(r#"{descriptor},"annotations":{{"n":"{n}"}}"#)));
    }
    let second = Duration::from_secs(1);
    let ever = Duration::from_secs(1 << 30);
    let nothing = |_: &mut TcpStream| Ok(());
    let get = move |this: &Attacker, path: &str| {
        let mut stream = connect(registry, this.from)?;
        stream.write_all(head("GET", path, &[], None).as_bytes())?;
        Ok(stream)
    };
    let list = format!("/v2/bad/things/referrers/{subject}");
    let (blob, long) = (format!("/v2/bad/things/blobs/{large}"), format!("/v2/bad/things/manifests/{padded}"));
    let compressed = format!("/v2/bad/things/blobs/{compressed}");
    let unread = [blob.clone(), long.clone(), list.clone()];
    let filtered = format!("{list}?artifactType=no/such");
    let mut attacks: Vec<(&'static str, u8, Attack)> = vec![
        (
            "silence",
            2,
            Box::new(move |this, stop| this.hold(stop, 600, ever, || connect(registry, this.from), nothing)),
        ),
        (
            "half heads",
            3,
            Box::new(move |this, stop| {
                let open = || {
                    let mut stream = connect(registry, this.from)?;
                    // As long as is taken, and a header that never ends.
                    let begun = format!("GET /v2/ HTTP/1.1\r\nLong: {}", "x".repeat(120 << 10));
                    stream.write_all(begun.as_bytes()).map(|()| stream)
                };
                this.hold(stop, 300, 5 * second, open, |stream| stream.write_all(b"s"));
            }),
        ),
        (
            "slow uploads",
            4,
            Box::new(move |this, stop| {
                this.hold(stop, 256, 20 * second, || slow_upload(this), |stream| stream.write_all(b"x"))
            }),
        ),
        (
            "stalled manifests",
            5,
            Box::new(move |this, stop| {
                let open = || {
                    let mut stream = connect(registry, this.from)?;
                    stream.set_write_timeout(Some(second))?;
                    let head = head("PUT", "/v2/bad/things/manifests/v1", &[("Content-Type", IMAGE)], Some(LONG));
                    stream.write_all(head.as_bytes())?;
                    stream.write_all(&vec![b' '; 1 << 20]).map(|()| stream)
                };
                this.hold(stop, 64, ever, open, nothing);
            }),
        ),
        (
            "unread answers",
            6,
            Box::new(move |this, stop| {
                let open =
                    || get(this, unread.get(usize::try_from(this.next() % 3).unwrap_or(0)).map_or("/", String::as_str));
                this.hold(stop, 96, ever, open, nothing);
            }),
        ),
        (
            "slow readers",
            6,
            Box::new(move |this, stop| {
                this.hold(stop, 64, second, || get(this, &blob), |stream| stream.read(&mut [0; 16]).map(drop))
            }),
        ),
        (
            "referrers",
            7,
            Box::new(move |this, stop| this.repeat(stop, 8, 5, || drop(this.send("GET", &list, &[], &[])))),
        ),
        (
            "filtered referrers",
            7,
            Box::new(move |this, stop| this.repeat(stop, 4, 10, || drop(this.send("GET", &filtered, &[], &[])))),
        ),
        (
            "long manifests",
            8,
            Box::new(move |this, stop| this.repeat(stop, 4, 4, || drop(this.send("GET", &long, &[], &[])))),
        ),
        (
            "begun uploads",
            8,
            Box::new(move |this, stop| {
                this.repeat(stop, 2, 50, || {
                    let path = format!("/v2/bad/begun-{}/blobs/uploads/", this.next());
                    this.send("POST", &path, &[], &[]);
                });
            }),
        ),
        (
            "failed pushes",
            9,
            Box::new(move |this, stop| {
                this.repeat(stop, 2, 50, || {
                    let missing = Digest::of(Algorithm::Sha256, &this.next().to_le_bytes());
                    let path = format!("/v2/bad/failed-{}/manifests/v1", this.next());
                    let document = manifest((&missing, 1), (&missing, 1), "");
                    this.send("PUT", &path, &[("Content-Type", IMAGE)], document.as_bytes());
                });
            }),
        ),
        (
            "documents",
            9,
            Box::new(move |this, stop| {
                let documents = documents(&of);
                this.repeat(stop, 2, 4, || {
                    let at = usize::try_from(this.next()).unwrap_or(0) % documents.len();
                    let document = documents.get(at).map_or(&[][..], Vec::as_slice);
                    this.send("PUT", "/v2/bad/things/manifests/v2", &[("Content-Type", IMAGE)], document);
                });
            }),
        ),
        ("requests", 10, Box::new(|this, stop| this.repeat(stop, 2, 50, || odd_request(this)))),
        (
            "unwanted bodies",
            10,
            Box::new(|this, stop| {
                let body = bytes(2, 4 << 20);
                this.repeat(stop, 2, 2, || {
                    let path = "/v2/bad/things/blobs/uploads/00000000-0000-0000-0000-000000000000";
                    this.send("PATCH", path, &[], &body);
                });
            }),
        ),
        (
            "wrong content",
            11,
            Box::new(|this, stop| {
                this.repeat(stop, 2, 5, || {
                    let (content, wrong) = (bytes(this.next(), 1 << 20), Digest::of(Algorithm::Sha256, b"wrong"));
                    let path = format!("/v2/bad/things/blobs/uploads/?digest={wrong}");
                    this.send("POST", &path, &[], &content);
                });
            }),
        ),
        (
            "churn",
            11,
            Box::new(move |this, stop| {
                this.repeat(stop, 2, 100, || {
                    let made = connect(registry, this.from);
                    this.count(if made.is_ok() { "made" } else { "not made" });
                });
            }),
        ),
        (
            "unread and compressed",
            12,
            Box::new(move |this, stop| this.hold(stop, 200, ever, || get(this, &compressed), nothing)),
        ),
        (
            "tiny chunks",
            13,
            Box::new(move |this, stop| {
                let chunks = b"1\r\nx\r\n".repeat(60_000);
                let open = || {
                    let mut stream = connect(registry, this.from)?;
                    stream.set_write_timeout(Some(second))?;
                    let digest = Digest::of(Algorithm::Sha256, b"tiny");
                    let path = format!("/v2/bad/things/blobs/uploads/?digest={digest}");
                    stream.write_all(head("POST", &path, &[("Transfer-Encoding", "chunked")], None).as_bytes())?;
                    stream.write_all(&chunks).map(|()| stream)
                };
                this.hold(stop, 32, ever, open, nothing);
            }),
        ),
        (
            "parameters",
            13,
            Box::new(move |this, stop| {
                let path = format!("/v2/bad/things/manifests/v4?{}", "a&".repeat(15_000));
                this.repeat(stop, 2, 20, || drop(this.send("PUT", &path, &[("Content-Type", IMAGE)], b"{}")));
            }),
        ),
        (
            "probes",
            12,
            Box::new(|this, stop| this.repeat(stop, 2, 20, || drop(this.send("GET", "/healthz", &[], &[])))),
        ),
    ];
    // They go on, a little at a time, with as many connections as they get.
    for from in 14..17 {
        let open = move |this: &Attacker| {
            let mut stream = connect(registry, this.from)?;
            let head = head("PUT", "/v2/bad/things/manifests/v5", &[("Content-Type", IMAGE)], Some(LONG));
            stream.write_all(head.as_bytes()).map(|()| stream)
        };
        let drip = move |this: &Attacker, stop: &AtomicBool| {
            this.hold(stop, 256, Duration::ZERO, || open(this), |stream| stream.write_all(b"    "));
        };
        attacks.push(("drips", from, Box::new(drip)));
    }
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let attacks = attacks.into_iter().filter(|(name, ..)| is_wanted(name));
    let attackers = attacks.map(|(name, from, attack)| Attacker {
        name,
        registry,
        from: address(from),
        attack,
        counts: Mutex::default(),
        serial: AtomicU64::new(0),
    });
    attackers.collect()
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// Begins an upload, and the body of what it is continued with.
fn slow_upload(this: &Attacker) -> io::Result<TcpStream> {
    let begun = once(this.registry, this.from, "POST", "/v2/bad/things/blobs/uploads/", &[], &[])?;
    let Some(upload) = begun.header("location") else {
        this.count(begun.status.to_string());
        return Err(io::ErrorKind::Other.into());
    };
    let mut stream = connect(this.registry, this.from)?;
    stream.write_all(head("PATCH", upload, &[], Some(1 << 30)).as_bytes())?;
    stream.write_all(b"x").map(|()| stream)
}

/// Documents that are not what they seem, or much of it.
fn documents(of: &impl Fn(&str) -> String) -> Vec<Vec<u8>> {
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(",");
    let away = format!(r#"{{"mediaType":"a/b","digest":"{}","size":1}}"#, Digest::of(Algorithm::Sha256, b"away"));
    let mut not_text = of(r#","x":"?""#).into_bytes();
    if let Some(byte) = not_text.iter_mut().rfind(|byte| **byte == b'?') {
        *byte = 0xff;
    }
    let texts = [
        of(&format!(r#","Layers":[{away}]"#)),
        of(&format!(r#","annotations":{{{}}}"#, many(300_000, &|n| format!(r#""{n}":"""#)))),
        of(&format!(r#","x":{}{}"#, "[".repeat(1_000_000), "]".repeat(1_000_000))),
        of("").replace(r#""size":2"#, r#""size":-2"#),
        of("").replace(r#""size":2"#, r#""size":2.5"#),
        of("").replace(r#""layers":["#, &format!(r#""layers":[{},"#, many(40_000, &|_| away.clone()))),
        of(r#","annotations":{"a":1}"#),
        "{".repeat(100_000),
        format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, many(1_300_000, &|_| "{}".to_owned())),
        format!(r#"{{"schemaVersion":2,"mediaType":"{}"}}"#, "\u{7f}".repeat(4_000_000)),
        format!("{}{}", of(""), " ".repeat(4_000_000)),
    ];
    texts.into_iter().map(String::into_bytes).chain([not_text]).collect()
}

/// A request that is none, or is not meant well.
fn odd_request(this: &Attacker) {
    let odd = [
        "GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /v2/bad%2Fthings/tags/list HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n",
        "POST /v2/bad/things/blobs/uploads/ HTTP/1.1\r\nHost: registry\r\nOrigin: http://evil.example\r\n\
         Connection: close\r\n\r\n",
        "GARBAGE\r\n\r\n",
        "PUT /v2/bad/things/manifests/v3 HTTP/1.1\r\nHost: registry\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "PUT /v2/bad/things/manifests/v3 HTTP/1.1\r\nHost: registry\r\nTransfer-Encoding: chunked\r\n\r\n\
         ffffffffffffffff\r\n",
        "GET /v2/_catalog?n=99999999 HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n",
    ];
    let long = format!("GET /v2/{} HTTP/1.1\r\nHost: registry\r\n\r\n", "a/".repeat(100_000));
    let method = format!("{} /v2/ HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n", "M".repeat(100_000));
    let odd: Vec<&str> = odd.into_iter().chain([long.as_str(), method.as_str()]).collect();
    let at = usize::try_from(this.next()).unwrap_or(0) % odd.len();
    let sent = connect(this.registry, this.from).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(odd.get(at).map_or(&[][..], |odd| odd.as_bytes()))?;
        http::read(&mut BufReader::new(stream), "GET")
    });
    this.count(sent.map_or_else(|error| error.kind().to_string(), |answer| answer.status.to_string()));
}
