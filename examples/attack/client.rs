//! A client that behaves well: keeps its connection, and makes a new one where the registry has closed it.

use std::io::{self, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::http::{self, Answer};
use crate::report::Latencies;

pub struct Client {
    registry: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// Where good clients are.
pub const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Client {
    pub fn new(registry: SocketAddr) -> Self {
        Self { registry, stream: None }
    }

    /// Sends a request until it is answered with a status that is expected, and notes how long that took.
    pub fn send(
        &mut self,
        what: &'static str,
        expected: u16,
        request: (&str, &str, &[(&str, &str)], &[u8]),
        latencies: &Latencies,
    ) -> Option<Answer> {
        let begun = Instant::now();
        for _ in 0..20 {
            let answer = self.attempt(request);
            match answer {
                Ok(answer) if answer.status == expected => {
                    latencies.note(what, begun.elapsed());
                    return Some(answer);
                }
                Ok(answer) => {
                    latencies.refuse(what, &format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)))
                }
                Err(error) => latencies.refuse(what, &error.to_string()),
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        None
    }

    fn attempt(&mut self, request: (&str, &str, &[(&str, &str)], &[u8])) -> io::Result<Answer> {
        if let Some(mut stream) = self.stream.take() {
            // It may have been closed while nothing was asked: no more than that is forgiven.
            match exchange(&mut stream, request) {
                Ok(answer) => return Ok(self.keep(stream, answer)),
                Err(error) if is_stale(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let stream = http::connect(self.registry, HOME)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        let mut stream = BufReader::new(stream);
        let answer = exchange(&mut stream, request)?;
        Ok(self.keep(stream, answer))
    }

    fn keep(&mut self, stream: BufReader<TcpStream>, answer: Answer) -> Answer {
        if answer.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        answer
    }
}

fn exchange(
    stream: &mut BufReader<TcpStream>,
    (method, path, headers, body): (&str, &str, &[(&str, &str)], &[u8]),
) -> io::Result<Answer> {
    let head = http::head(method, path, headers, (!body.is_empty() || method != "GET").then_some(body.len()));
    stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
    http::read(stream, method)
}

fn is_stale(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
