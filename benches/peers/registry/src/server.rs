//! Registries: how each is started, and what processor time it has taken.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Result;

pub struct Server {
    pub name: &'static str,
    pub port: u16,
    process: Child,
}

impl Server {
    /// Starts one on a port that is free, with an empty directory.
    pub fn start(kind: &str, program: &Path, dir: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (data, config) = (dir.join(kind), dir.join(format!("{kind}.config")));
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new(program);
        let name = match kind {
            "strongroom" => {
                command.arg("--data").arg(&data).arg("--listen").arg(format!("127.0.0.1:{port}"));
                "strongroom"
            }
            "zot" => {
                let document = format!(
                    r#"{{"distSpecVersion": "1.1.1", "storage": {{"rootDirectory": {data:?}, "dedupe": false,
                    "commit": true, "gc": false}}, "http": {{"address": "127.0.0.1", "port": "{port}"}},
                    "log": {{"level": "error"}}}}"#
                );
                std::fs::write(&config, document)?;
                command.arg("serve").arg(&config);
                "zot"
            }
            _ => {
                let document = format!(
                    "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                    storage: {{filesystem: {{rootdirectory: {data:?}}}, delete: {{enabled: true}}}}\n\
                    http: {{addr: '127.0.0.1:{port}'}}\n"
                );
                std::fs::write(&config, document)?;
                command.arg("serve").arg(&config);
                "distribution"
            }
        };
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { name, port, process };
        for _ in 0..200 {
            if let Some(status) = server.process.try_wait()? {
                return Err(format!("{name} has ended: {status}").into());
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("{name} does not answer").into())
    }

    /// The processor time that it has taken, in seconds, that of the kernel for it included.
    pub fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = [11, 12].iter().map(|at| fields.get(*at).ok_or("a short stat")?.parse::<u64>().map_err(Into::into));
        Ok(ticks.sum::<Result<u64>>()? as f64 / 100.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
