//! Servers of files and of git repositories that a test starts and fills.

use crate::machine::TempFolder;
use crate::server::{free_port, wait_for};
use crate::{Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a path has.
#[derive(Debug, Clone, Default)]
struct Page {
    body: Vec<u8>,
    headers: Vec<(String, String)>,
}

/// A server of files, with entity tags; it serves until the process ends.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts one without files.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = Self {
            address: listener.local_addr()?,
            pages: Arc::default(),
            log: Arc::default(),
        };
        let (pages, log) = (Arc::clone(&server.pages), Arc::clone(&server.log));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pages, log) = (Arc::clone(&pages), Arc::clone(&log));
                // Clients may go away at any time.
                std::thread::spawn(move || drop(serve(&stream, &pages, &log)));
            }
        });
        Ok(server)
    }

    /// Puts a file, or another one in its place; `X-Token` among the headers is what a client must be authorized with.
    pub fn put(&self, path: &str, body: impl Into<Vec<u8>>, headers: &[(&str, &str)]) {
        let page = Page {
            body: body.into(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(path.to_owned(), page);
    }

    /// The address of a file.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests since the last call, as `METHOD /path`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(
    mut stream: &TcpStream,
    pages: &Mutex<BTreeMap<String, Page>>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(first) = lines.next().transpose()? {
        let (mut condition, mut shown) = (None, None);
        for line in lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            match line.to_lowercase().split_once(": ") {
                Some(("if-none-match", value)) => condition = Some(value.to_owned()),
                Some(("authorization", value)) => shown = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("{method} {path}"));
        let page = pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(path)
            .cloned();
        let (status, page) = match page {
            None => (404, Page::default()),
            Some(page) => {
                let wanted = page.headers.iter().find(|(name, _)| name == "X-Token");
                let tag = page.headers.iter().find(|(name, _)| name == "ETag");
                if wanted.is_some_and(|(_, token)| Some(token) != shown.as_ref()) {
                    (401, Page::default())
                } else if tag.is_some_and(|(_, tag)| Some(tag) == condition.as_ref()) {
                    (
                        304,
                        Page {
                            body: Vec::new(),
                            ..page
                        },
                    )
                } else {
                    (200, page)
                }
            }
        };
        let mut head = format!(
            "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n",
            page.body.len()
        );
        for (name, value) in &page.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        if method != "HEAD" {
            stream.write_all(&page.body)?;
        }
    }
    Ok(())
}

/// A repository and a daemon that gives it out until the value goes away.
#[derive(Debug)]
pub struct Repository {
    folder: TempFolder,
    daemon: Child,
    port: u16,
}

impl Repository {
    /// Starts one without commits.
    pub fn start(name: &str) -> Result<Self> {
        let folder = TempFolder::new(name)?;
        std::fs::create_dir(folder.join("r"))?;
        let port = free_port()?;
        // `git daemon` would be another process, which outlives the one that is killed.
        let programs = Command::new("git").arg("--exec-path").output()?.stdout;
        let programs = PathBuf::from(String::from_utf8(programs)?.trim());
        let daemon = Command::new(programs.join("git-daemon"))
            .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", folder.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs([
                ("GIT_CONFIG_COUNT", "1"),
                ("GIT_CONFIG_KEY_0", "safe.directory"),
                ("GIT_CONFIG_VALUE_0", "*"),
            ])
            .spawn()?;
        let repository = Self { folder, daemon, port };
        wait_for(&format!("127.0.0.1:{port}"), Duration::from_mins(1))?;
        repository.git(&["init", "-q", "-b", "main"])?;
        Ok(repository)
    }

    /// A path of the work tree.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join("r").join(name)
    }

    /// Runs git in the work tree; what it prints is returned.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(arguments)
            .current_dir(self.folder.join("r"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Commits all files; the commit's hash is returned.
    pub fn commit(&self) -> Result<String> {
        self.git(&["add", "-A"])?;
        self.git(&["commit", "-q", "-m", "x"])?;
        self.git(&["rev-parse", "HEAD"])
    }

    /// The repository's address.
    pub fn url(&self) -> String {
        format!("git://127.0.0.1:{}/r", self.port)
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // It serves nobody any more.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
