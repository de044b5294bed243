//! A client of the distribution API that takes as little of the processor as it can: one connection, no library.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use crate::Result;

pub struct Client {
    connection: BufReader<TcpStream>,
    head: Vec<u8>,
    scratch: Vec<u8>,
}

/// What is said at the beginning of an answer.
struct Answer {
    status: u16,
    len: usize,
    location: String,
}

impl Client {
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let connection = BufReader::with_capacity(16 << 10, stream);
        Ok(Self { connection, head: Vec::new(), scratch: vec![0; 1 << 20] })
    }

    /// Pushes a blob by `POST`, and then `PUT` with all of it.
    pub fn push(&mut self, repository: &str, content: &[u8], digest: &str) -> Result<()> {
        let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[])?;
        let location = begun.expect(202)?.location;
        let path = match location.strip_prefix("http://") {
            Some(rest) => &rest[rest.find('/').ok_or("a location without a path")?..],
            None => &location,
        };
        let separator = if path.contains('?') { '&' } else { '?' };
        self.ask("PUT", &format!("{path}{separator}digest={digest}"), content)?.expect(201)?;
        Ok(())
    }

    /// Reads a blob, and throws it away.
    pub fn pull(&mut self, repository: &str, digest: &str, len: usize) -> Result<()> {
        let answer = self.begin("GET", &format!("/v2/{repository}/blobs/{digest}"), &[])?.expect(200)?;
        if answer.len != len {
            return Err(format!("{len} bytes were pushed, and {} are there", answer.len).into());
        }
        self.skip(len)
    }

    /// Deletes a blob, where the registry lets one.
    pub fn delete(&mut self, repository: &str, digest: &str) -> Result<()> {
        self.ask("DELETE", &format!("/v2/{repository}/blobs/{digest}"), &[]).map(drop)
    }

    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let answer = self.begin(method, path, body)?;
        self.skip(answer.len)?;
        Ok(answer)
    }

    fn begin(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        self.head.clear();
        let len = body.len();
        write!(self.head, "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len}\r\n")?;
        write!(self.head, "Content-Type: application/octet-stream\r\n\r\n")?;
        let stream = self.connection.get_mut();
        if body.len() <= 64 << 10 {
            self.head.extend_from_slice(body);
            stream.write_all(&self.head)?;
        } else {
            stream.write_all(&self.head)?;
            stream.write_all(body)?;
        }
        let mut line = String::new();
        self.connection.read_line(&mut line)?;
        let status = line.split(' ').nth(1).ok_or_else(|| format!("no answer to {method} {path}: {line:?}"))?;
        let mut answer = Answer { status: status.parse()?, len: 0, location: String::new() };
        loop {
            line.clear();
            self.connection.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(answer) };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => answer.len = value.trim().parse()?,
                "location" => value.trim().clone_into(&mut answer.location),
                _ => {}
            }
        }
    }

    fn skip(&mut self, mut len: usize) -> Result<()> {
        while len > 0 {
            let most = len.min(self.scratch.len());
            match self.connection.read(&mut self.scratch[..most])? {
                0 => return Err("the answer was cut off".into()),
                read => len -= read,
            }
        }
        Ok(())
    }
}

impl Answer {
    fn expect(self, status: u16) -> Result<Self> {
        if self.status == status { Ok(self) } else { Err(format!("{} instead of {status}", self.status).into()) }
    }
}
