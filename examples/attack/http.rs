//! As much of HTTP/1.1 as the clients here need, on plain sockets: attackers have to be able to break it.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Connects from an address.
pub fn connect(registry: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(registry), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&registry.into(), Duration::from_secs(10))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// The head of a request with a body of a length, or without one.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)], len: Option<usize>) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: registry\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(len) = len {
        head += &format!("Content-Length: {len}\r\n");
    }
    head + "\r\n"
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Reads an answer to a request with a method.
pub fn read(stream: &mut BufReader<TcpStream>, method: &str) -> io::Result<Answer> {
    let mut line = String::new();
    let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
    if stream.read_line(&mut line)? == 0 {
        return Err(broken());
    }
    let status: u16 = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let mut answer = Answer { status, headers: Vec::new(), body: Vec::new() };
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => answer.headers.push((name.to_owned(), value.to_owned())),
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    let len = answer.header("content-length").and_then(|len| len.parse::<usize>().ok()).unwrap_or(0);
    if method != "HEAD" && status != 204 {
        answer.body = vec![0; len];
        stream.read_exact(&mut answer.body)?;
    }
    Ok(answer)
}

/// Sends a request on a connection of its own, and reads the answer.
pub fn once(
    registry: SocketAddr,
    from: IpAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = connect(registry, from)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.set_write_timeout(Some(Duration::from_secs(120)))?;
    let headers = [headers, &[("Connection", "close")]].concat();
    stream.write_all(head(method, path, &headers, Some(body.len())).as_bytes())?;
    let sent = stream.write_all(body); // the answer may come before all was sent
    read(&mut BufReader::new(stream), method).or_else(|error| sent.and(Err(error)))
}
