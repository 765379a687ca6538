//! Builds that push what is only in a registry: its layers stay there.

use super::{build, id, says, stored_layers, text};
use kiln_e2e::builder::run;
use kiln_e2e::machine::TempFolder;
use kiln_e2e::project::Project;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;

/// A registry with a base image and the cache of an app, and the machine that made it.
struct Site {
    registry: Registry,
    base: String,
    first: Project,
}

const APP: &str = "WORKDIR /app\nCOPY requirements.txt .\n\
    RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token\nCOPY . .\n";

const FILES: [(&str, &str); 2] = [("requirements.txt", "b\na\n"), ("app.py", "one\n")];

impl Site {
    /// `more` are attributes of the cache.
    fn new(more: &str) -> Result<Self> {
        let registry = Registry::start()?;
        let base = registry.push_base("busybox:latest", "busybox:latest", &[])?;
        let first = app("first", &base)?;
        let to = format!("type=registry,ref={}/cache:1,mode=max{more}", registry.host);
        first.build(&["--cache-to", &to])?;
        Ok(Self {
            registry,
            base,
            first,
        })
    }

    /// A machine with an empty store whose image has this name.
    fn machine(&self, tag: String) -> Result<Project> {
        let mut project = app("second", &self.base)?;
        project.request.tag = tag;
        Ok(project)
    }

    fn from(&self) -> String {
        format!("type=registry,ref={}/cache:1", self.registry.host)
    }

    /// The digests of the blobs of all layers: the cache's and the base's.
    fn layers(&self) -> Result<Vec<String>> {
        let mut digests = Vec::new();
        for name in [format!("{}/cache:1", self.registry.host), self.base.clone()] {
            let manifest = self.registry.manifest(&name)?;
            let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
            let layers = layers
                .iter()
                .filter(|blob| !text(&blob["mediaType"]).contains("listing"));
            digests.extend(layers.map(|blob| text(&blob["digest"])));
        }
        ensure!(digests.len() == 5, "layers: {digests:?}");
        Ok(digests)
    }

    /// The layers that were downloaded since the requests were taken last.
    fn downloaded(&self) -> Result<Vec<String>> {
        self.downloads(&self.registry.take_requests()?)
    }

    fn downloads(&self, requests: &[String]) -> Result<Vec<String>> {
        let is_download = |digest: &String| {
            requests
                .iter()
                .any(|request| request.starts_with("GET ") && request.ends_with(digest.as_str()))
        };
        Ok(self.layers()?.into_iter().filter(is_download).collect())
    }
}

fn app(name: &str, base: &str) -> Result<Project> {
    let dockerfile = format!("FROM {base}\n{APP}");
    let mut files = vec![
        ("Dockerfile", dockerfile.as_str()),
        (".dockerignore", "Dockerfile\n"),
    ];
    files.extend(FILES);
    Project::with_bases(name, &[], &files)
}

pub(super) fn push_without_layers() -> TestResult {
    let site = Site::new("")?;
    let name = format!("{}/app:1", site.registry.host);
    let second = site.machine(name.clone())?;
    // An image of that name that is here, and is not what the name will stand for.
    let old = TempFolder::new("old")?;
    std::fs::write(old.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /old\n")?;
    let mut request = second.request.clone();
    old.path().clone_into(&mut request.context);
    run(&mut second.kiln.build_command(&request))?.success()?;
    let layers = stored_layers(&second)?;
    site.registry.take_requests()?;
    let ended = build(&second, &["--push", "--cache-from", &site.from()], &[])?;
    says(&ended, "not kept here: 5 layers are only in a registry")?;
    let requests = site.registry.take_requests()?;
    let downloaded = site.downloads(&requests)?;
    ensure!(downloaded.is_empty(), "downloaded: {downloaded:?}");
    // One after the other of the layers is mounted; what is uploaded is the configuration.
    let count = |start: &str, part: &str| {
        let found = requests.iter().filter(|request| request.starts_with(start));
        found.filter(|request| request.contains(part)).count()
    };
    ensure!(
        count("POST /v2/app/", "?mount=") == 5 && count("PUT /v2/app/blobs/", "digest=") == 1,
        "{requests:#?}"
    );
    ensure!(
        stored_layers(&second)? == layers,
        "layers are in the store: {}",
        stored_layers(&second)?
    );
    // It is the very image, whole, and the same as where its layers are.
    let manifest = site.registry.manifest(&name)?;
    ensure!(
        text(&manifest["config"]["digest"]) == id(&site.first)?,
        "the pushed image is another one: {manifest}"
    );
    // The name is not that of the old image any more: whoever wants the new one gets it.
    second
        .kiln
        .run(["run", "--rm", "--pull", "never", &name, "true"])?
        .failure(125)?;
    let told = second.kiln.run(["save", "-o", "/dev/null", &name])?.failure(1)?;
    ensure!(told.contains("kiln pull"), "{told}");
    let token = second.shell("cat /app/token")?;
    ensure!(token == site.first.shell("cat /app/token")?, "another token");
    second.kiln.run(["cache", "verify"])?.success()?;
    // Again, from what is here now.
    site.registry.take_requests()?;
    build(&second, &["--push", "--cache-from", &site.from()], &[])?;
    ensure!(site.downloaded()?.is_empty(), "layers were downloaded");
    Ok(Outcome::Passed)
}

pub(super) fn push_elsewhere() -> TestResult {
    let site = Site::new("")?;
    let other = Registry::start()?;
    let second = site.machine(format!("{}/deep/app:1", other.host))?;
    site.registry.take_requests()?;
    let metadata = second.scratch("metadata");
    let metadata = metadata.to_string_lossy();
    let arguments = [
        "--push",
        "--metadata-file",
        &metadata,
        "--cache-from",
        &site.from(),
    ];
    build(&second, &arguments, &[])?;
    ensure!(site.downloaded()?.len() == 5, "not all layers were copied");
    ensure!(stored_layers(&second)? == 0, "layers were unpacked");
    let written: Value = serde_json::from_slice(&std::fs::read(&*metadata)?)?;
    let digest = other.raw_digest(&second.request.tag)?;
    ensure!(
        text(&written["containerimage.digest"]) == digest,
        "{digest}: {written}"
    );
    let token = second.shell("cat /app/token")?;
    ensure!(token == site.first.shell("cat /app/token")?, "another token");
    second.kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

pub(super) fn lost_blob() -> TestResult {
    let site = Site::new("")?;
    let cache = format!("{}/cache:1", site.registry.host);
    let manifest = site.registry.manifest(&cache)?;
    let document = site.registry.blob_path(&text(&manifest["config"]["digest"]));
    let document: Value = serde_json::from_slice(&std::fs::read(document)?)?;
    let records = document["records"].as_array().cloned().unwrap_or_default();
    let install = records
        .iter()
        .find(|record| text(&record["step"]).contains("sort requirements"))
        .ok_or("no record of the step")?;
    let last = install["output"].as_array().and_then(|output| output.last());
    let at = usize::try_from(last.and_then(Value::as_u64).ok_or("no layer")?)?;
    let blob = text(&document["layers"][at]["blob"]);
    std::fs::remove_file(site.registry.blob_path(&blob))?;
    let name = format!("{}/app:1", site.registry.host);
    let second = site.machine(name.clone())?;
    let ended = second
        .try_build(&["--push", "--cache-from", &site.from()])?
        .success()?;
    says(&ended, "cannot be used")?;
    let third = site.machine(name)?;
    ensure!(
        third.shell("cat /app/token")? != site.first.shell("cat /app/token")?,
        "the step did not run"
    );
    let shown = third.shell("cat /app/installed /app/app.py")?;
    ensure!(shown == "a\nb\none\n", "the pushed image has {shown:?}");
    Ok(Outcome::Passed)
}

pub(super) fn cache_only() -> TestResult {
    let site = Site::new("")?;
    let second = site.machine("app:1".to_owned())?;
    site.registry.take_requests()?;
    let id_file = second.scratch("id");
    let id_file = id_file.to_string_lossy();
    let arguments = [
        "-o",
        "type=cacheonly",
        "--iidfile",
        &id_file,
        "--cache-from",
        &site.from(),
    ];
    build(&second, &arguments, &[])?;
    ensure!(site.downloaded()?.is_empty(), "layers were downloaded");
    ensure!(
        std::fs::read_to_string(&*id_file)? == id(&site.first)?,
        "another image"
    );
    // With an output that has files, they come.
    let out = second.scratch("out");
    let dest = format!("type=local,dest={}", out.display());
    build(
        &second,
        &["-o", "type=cacheonly", "-o", &dest, "--cache-from", &site.from()],
        &[],
    )?;
    ensure!(
        std::fs::read_to_string(out.join("app/app.py"))? == "one\n",
        "no file"
    );
    Ok(Outcome::Passed)
}

pub(super) fn lazy_index() -> TestResult {
    let registry = Registry::start()?;
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n";
    let files = [("Dockerfile", dockerfile), ("amd64", "one\n"), ("arm64", "two\n")];
    let cache = format!("type=registry,ref={}/cache:1", registry.host);
    let platforms = "linux/amd64,linux/arm64";
    let first = Project::with_bases("first", &[], &files)?;
    first.build(&["--platform", platforms, "--cache-to", &cache])?;
    let mut second = Project::with_bases("second", &[], &files)?;
    second.request.tag = format!("{}/app:1", registry.host);
    let arguments = ["--platform", platforms, "--push", "--cache-from", &cache];
    let ended = build(&second, &arguments, &[])?;
    says(&ended, "not kept here: 2 layers are only in a registry")?;
    ensure!(stored_layers(&second)? == 0, "layers are here");
    let index = registry.manifest(&second.request.tag)?;
    ensure!(
        index["manifests"].as_array().map_or(0, Vec::len) == 2,
        "no index of two: {index}"
    );
    let arguments = ["pull", "--platform", "linux/arm64", &second.request.tag];
    second.kiln.run(arguments)?.success()?;
    let image = second.image()?;
    let lines = image.tree.lines(false);
    ensure!(lines.contains_key(b"arch".as_slice()), "{lines:?}");
    Ok(Outcome::Passed)
}

pub(super) fn forced_compression() -> TestResult {
    let site = Site::new("")?;
    let second = site.machine(format!("{}/app:1", site.registry.host))?;
    site.registry.take_requests()?;
    let output = "type=image,push=true,compression=zstd,force-compression=true";
    let arguments = ["-o", output, "--cache-from", &site.from()];
    build(&second, &arguments, &[])?;
    ensure!(site.downloaded()?.len() == 5, "the files were not fetched");
    let manifest = site.registry.manifest(&second.request.tag)?;
    let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
    ensure!(
        layers
            .iter()
            .all(|layer| text(&layer["mediaType"]).ends_with("zstd")),
        "{manifest}"
    );
    // An image whose files were needed is kept.
    ensure!(id(&second)? == id(&site.first)?, "another image, or none");
    Ok(Outcome::Passed)
}

/// What stands on an image and does not look at it needs nothing of it, whether it is cached or not.
pub(super) fn image_below() -> TestResult {
    let registry = Registry::start()?;
    let base = registry.push_base("busybox:latest", "busybox:latest", &[])?;
    let layers = registry.manifest(&base)?["layers"].clone();
    let layers: Vec<String> = layers
        .as_array()
        .into_iter()
        .flatten()
        .map(|layer| text(&layer["digest"]))
        .collect();
    ensure!(!layers.is_empty(), "the base has no layer");
    let table = [
        ("labels", format!("FROM {base}\nLABEL a=b\n"), &[][..]),
        (
            "linked",
            format!("FROM {base}\nCOPY --link app.py /app.py\nCOPY --link --chmod=600 app.py /other\n"),
            &[
                "COPY --link app.py /app.py",
                "COPY --link --chmod=600 app.py /other",
            ][..],
        ),
    ];
    for (name, dockerfile, ran) in table {
        let files = [("Dockerfile", dockerfile.as_str()), ("app.py", "one\n")];
        let mut project = Project::with_bases(name, &[], &files)?;
        project.request.tag = format!("{}/{name}:1", registry.host);
        registry.take_requests()?;
        build(&project, &["--push"], ran)?;
        let requests = registry.take_requests()?;
        let fetched = requests.iter().any(|request| {
            request.starts_with("GET ") && layers.iter().any(|layer| request.ends_with(layer.as_str()))
        });
        ensure!(!fetched, "{name}: the base was downloaded: {requests:#?}");
        // It runs, from the registry; and where its files are needed they come.
        project.shell("true")?;
        let local = Project::with_bases(name, &[], &files)?;
        build(&local, &[], ran)?;
        let (pushed, kept) = (id(&project)?, id(&local)?);
        ensure!(
            !ran.is_empty() || pushed == kept,
            "{name}: {pushed} was pushed, {kept} is kept"
        );
        local.shell("true")?;
        // On the image a step that looks at it runs as ever.
        project.write(
            "Dockerfile",
            &format!("{dockerfile}RUN cat /etc/passwd > /copy\n"),
        )?;
        build(&project, &["--push"], &["RUN cat /etc/passwd > /copy"])?;
        project.shell("cat /copy")?;
    }
    Ok(Outcome::Passed)
}
