//! A real registry server (`docker-registry`) that a test starts and fills.

use crate::base::base;
use crate::builder::run;
use crate::machine::{self, TempFolder};
use crate::{Result, bail};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A running registry; it ends with the value.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    folder: TempFolder,
    /// `127.0.0.1:PORT`.
    pub host: String,
    /// `user:password` where the registry asks for them.
    credentials: Option<&'static str>,
    /// How many requests were taken so far.
    seen: AtomicUsize,
}

/// The user and password of a registry that asks for them, as htpasswd (bcrypt) has them.
const CREDENTIALS: (&str, &str) = (
    "kiln:secret",
    "kiln:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n",
);

/// A TCP port that nobody uses just now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until something listens on an address.
pub fn wait_for(address: &str, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            bail!("nothing listens on {address} after {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl Registry {
    /// What is missing to start one and fill it, if anything is.
    pub fn obstacle() -> Option<String> {
        let missing = ["docker-registry", "skopeo"]
            .into_iter()
            .find(|name| machine::program(name).is_none());
        missing.map(|name| format!("{name} is not on the PATH"))
    }

    /// Starts one that anybody may use.
    pub fn start() -> Result<Self> {
        Self::start_with(None)
    }

    /// Starts one that asks for a user and a password.
    pub fn start_private() -> Result<Self> {
        Self::start_with(Some(CREDENTIALS.0))
    }

    fn start_with(credentials: Option<&'static str>) -> Result<Self> {
        let folder = TempFolder::new("registry")?;
        let host = format!("127.0.0.1:{}", free_port()?);
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: {host}}}\n",
            folder.join("data").display()
        );
        if credentials.is_some() {
            let passwords = folder.join("htpasswd");
            std::fs::write(&passwords, CREDENTIALS.1)?;
            let auth = format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                passwords.display()
            );
            config += &auth;
        }
        std::fs::write(folder.join("config.yml"), config)?;
        let program = machine::program("docker-registry").ok_or("docker-registry is not on the PATH")?;
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = machine::command(program, folder.path());
        command
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdout(std::fs::File::create(folder.join("requests"))?)
            .stderr(log);
        let registry = Self {
            child: command.spawn()?,
            folder,
            host,
            credentials,
            seen: AtomicUsize::new(0),
        };
        wait_for(&registry.host, Duration::from_mins(1))?;
        Ok(registry)
    }

    /// The requests since the last call, such as `GET /v2/app/blobs/sha256:…`, without the checks of `/v2/`.
    pub fn take_requests(&self) -> Result<Vec<String>> {
        let requests = self.requests()?;
        let seen = self.seen.swap(requests.len(), Ordering::Relaxed);
        let new = requests.into_iter().skip(seen);
        Ok(new.filter(|request| !request.ends_with(" /v2/")).collect())
    }

    /// Where the registry keeps a blob.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let folder = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.data().join(folder)
    }

    /// The manifest of a name, as the registry gives it.
    pub fn manifest(&self, name: &str) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.raw_manifest(name)?)?)
    }

    /// What `skopeo inspect` prints of a name.
    fn inspect(&self, name: &str, form: &[&str]) -> Result<String> {
        let program = machine::program("skopeo").ok_or("skopeo is not on the PATH")?;
        let mut command = machine::command(program, self.folder.path());
        command.args(["inspect", "--tls-verify=false"]).args(form);
        command.arg(format!("docker://{name}"));
        Ok(run(&mut command)?.success()?.stdout)
    }

    fn raw_manifest(&self, name: &str) -> Result<String> {
        self.inspect(name, &["--raw"])
    }

    /// The digest of what a name stands for, be it an image or not.
    pub fn raw_digest(&self, name: &str) -> Result<String> {
        Ok(format!(
            "sha256:{}",
            crate::oci::sha256(self.raw_manifest(name)?.as_bytes())
        ))
    }

    /// Uploads a blob; its digest is returned.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let digest = format!("sha256:{}", crate::oci::sha256(bytes));
        let started = self.curl(
            &["-X", "POST", "-D", "-", "-o", "/dev/null"],
            &format!("{repository}/blobs/uploads/"),
            None,
        )?;
        let location = started
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .ok_or("the registry opened no upload")?;
        let joint = if location.contains('?') { '&' } else { '?' };
        let url = format!("{}{joint}digest={digest}", location.trim());
        self.curl(
            &["-X", "PUT", "-H", "Content-Type: application/octet-stream"],
            &url,
            Some(bytes),
        )?;
        Ok(digest)
    }

    /// Gives a manifest a tag.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        manifest: &serde_json::Value,
    ) -> Result<()> {
        let header = format!("Content-Type: {media_type}");
        let path = format!("{repository}/manifests/{tag}");
        let bytes = serde_json::to_vec(manifest)?;
        self.curl(&["-X", "PUT", "-H", &header], &path, Some(&bytes))?;
        Ok(())
    }

    fn curl(&self, arguments: &[&str], path: &str, body: Option<&[u8]>) -> Result<String> {
        let program = machine::program("curl").ok_or("curl is not on the PATH")?;
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("http://{}/v2/{path}", self.host)
        };
        let mut command = machine::command(program, self.folder.path());
        command.args(["-sS", "--fail-with-body"]).args(arguments);
        if let Some(body) = body {
            let file = self.folder.join("body");
            std::fs::write(&file, body)?;
            command.arg("--data-binary").arg(format!("@{}", file.display()));
        }
        Ok(run(command.arg(url))?.success()?.stdout)
    }

    /// The requests that it was asked so far: method and path.
    pub fn requests(&self) -> Result<Vec<String>> {
        let mut requests = Vec::new();
        for log in ["requests", "log"] {
            let text = std::fs::read_to_string(self.folder.join(log))?;
            let lines = text.lines().filter_map(|line| line.split('"').nth(1));
            requests.extend(
                lines
                    .filter_map(|request| request.strip_suffix(" HTTP/1.1"))
                    .map(str::to_owned),
            );
        }
        Ok(requests)
    }

    /// Where the registry keeps its files.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Pushes a base image as `HOST/NAME`, with further arguments of `skopeo copy`; the name is returned in full.
    pub fn push_base(&self, reference: &str, name: &str, arguments: &[&str]) -> Result<String> {
        let archive = self.folder.join("base.oci.tar");
        base(reference)?.write_oci_archive(&archive)?;
        let program = machine::program("skopeo").ok_or("skopeo is not on the PATH")?;
        let mut command = machine::command(program, self.folder.path());
        command
            .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"])
            .args(arguments);
        if let Some(credentials) = self.credentials {
            command.args(["--dest-creds", credentials]);
        }
        let name = format!("{}/{name}", self.host);
        // As a folder: skopeo unpacks an archive with the owners of its entries, which only root may give.
        let layout = archive.with_extension("layout");
        std::fs::create_dir(&layout)?;
        run(machine::command("tar", self.folder.path())
            .args(["--no-same-owner", "-xf"])
            .arg(&archive)
            .arg("-C")
            .arg(&layout))?
        .success()?;
        run(command
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{name}")))?
        .success()?;
        std::fs::remove_dir_all(layout)?;
        std::fs::remove_file(archive)?;
        Ok(name)
    }

    /// The digest of a manifest in the registry.
    pub fn digest(&self, name: &str) -> Result<String> {
        Ok(self
            .inspect(name, &["--format", "{{.Digest}}"])?
            .trim()
            .to_owned())
    }

    /// Ends the server before the value goes away.
    pub fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
