//! What the tests of whole solves share: a store, a context, graphs and a record of the events.

#![allow(dead_code, reason = "no test program uses all of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use kiln_cache::{BuildId, Snapshot, Store, StoreOptions};
use kiln_executor::Backend;
use kiln_image::Platform;
use kiln_solver::event::{Event, EventKind, EventSink, TaskId};
use kiln_solver::graph::{
    Copy, CopySource, FileAction, FileOp, Graph, LocalSource, MakeFile, NetworkMode, Op, Source, Vertex,
    VertexId,
};
use kiln_solver::task::Reporter;
use kiln_solver::{
    Cancel, ContextPolicy, Engine, EngineSettings, LocalContext, LocalKind, SolveRequest, Solved, StepOutcome,
};
use kiln_tree::TreePath;
use kiln_tree::walk::{Decision, WalkPolicy};

/// A folder with a store and a context, gone at the end.
pub(crate) struct Lab {
    pub(crate) path: PathBuf,
    pub(crate) hidden: &'static [&'static str],
    pub(crate) jobs: usize,
    backend: Arc<dyn Backend>,
    userxattr: bool,
}

impl Lab {
    pub(crate) fn new(backend: Arc<dyn Backend>, parent: &Path, userxattr: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("kiln-solve-{}-{number}", std::process::id()));
        std::fs::create_dir_all(path.join("context")).expect("a temporary directory");
        Self {
            path,
            hidden: &[],
            jobs: 4,
            backend,
            userxattr,
        }
    }

    pub(crate) fn store(&self) -> Arc<Store> {
        let boot = kiln_cache::boot::id().expect("the boot id");
        let options = StoreOptions {
            userxattr: self.userxattr,
            boot,
            runtime: None,
        };
        Store::open(&self.path.join("store"), options).expect("a store")
    }

    /// An engine as a new process would have it.
    pub(crate) fn engine(&self) -> Engine {
        let client = Box::new(|| kiln_registry::Client::new(kiln_registry::ClientConfig::default()));
        Engine::new(
            self.store(),
            client,
            Arc::clone(&self.backend),
            EngineSettings::default(),
        )
    }

    /// Writes a file of the context.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.context().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(path, text).expect("a file");
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.path.join("context")
    }

    pub(crate) fn request(&self) -> SolveRequest {
        let local = LocalContext {
            title: "the build context".to_owned(),
            kind: LocalKind::Directory,
            directory: self.context(),
            policy: Arc::new(Hiding(self.hidden)),
        };
        SolveRequest {
            jobs: self.jobs,
            contexts: BTreeMap::from([("context".to_owned(), local)]),
            build: BuildId::new(),
            network: NetworkMode::None,
            secrets: Arc::default(),
            ssh: Arc::default(),
            limits: kiln_solver::limits::Limits::default(),
            credentials: Arc::new(kiln_remote::NoCredentials),
            compress: None,
            upload_to: None,
            cache_imports: Vec::new(),
            cache_exports: false,
            cache_ttl: None,
            verify: None,
            needs: kiln_solver::Needs::Files,
            on_work: kiln_solver::Hook::default(),
        }
    }

    /// Solves as a new process would.
    pub(crate) fn solve(&self, graph: &Graph, target: VertexId) -> Solved {
        self.solve_with(graph, target, Arc::new(Record::default()), &Cancel::new())
    }

    pub(crate) fn solve_with(
        &self,
        graph: &Graph,
        target: VertexId,
        sink: Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Solved {
        self.engine()
            .solve(graph, target, &self.request(), &Reporter::new(sink), cancel)
    }

    /// The text of a file of a root file system.
    pub(crate) fn read(&self, snapshot: &Snapshot, path: &str) -> Option<String> {
        let lowers = self.store().layers().lowers(snapshot).expect("layers");
        lowers
            .iter()
            .find_map(|lower| std::fs::read_to_string(lower.join(path)).ok())
    }

    /// What lies about in the store for work in progress.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for owner in std::fs::read_dir(self.path.join("store/tmp"))
            .expect("tmp")
            .flatten()
        {
            let Ok(entries) = std::fs::read_dir(owner.path()) else {
                continue;
            };
            found.extend(entries.flatten().map(|entry| entry.path()));
        }
        found.retain(|path| path.file_name().is_some_and(|name| name != "lock"));
        found
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).expect("the directory goes");
    }
}

/// Hides some paths of the context.
#[derive(Debug)]
struct Hiding(&'static [&'static str]);

impl WalkPolicy for Hiding {
    fn decide(&self, path: &TreePath, _is_dir: bool) -> Decision {
        if self.why_excluded(path).is_some() {
            Decision::Prune
        } else {
            Decision::Include
        }
    }
}

impl ContextPolicy for Hiding {
    fn why_excluded(&self, path: &TreePath) -> Option<String> {
        let line = self.0.iter().position(|name| path.to_string() == *name)?;
        Some(format!(".dockerignore:{}", line + 1))
    }
}

/// What is done when a step starts, by the step's name.
pub(crate) type Action = Box<dyn Fn(&str) + Send + Sync>;

/// Keeps the events, and does something at the start of steps.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) events: Mutex<Vec<EventKind>>,
    pub(crate) at_start: Option<Action>,
    names: Mutex<BTreeMap<TaskId, String>>,
}

impl Record {
    pub(crate) fn at_start(action: impl Fn(&str) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            at_start: Some(Box::new(action)),
            ..Self::default()
        })
    }

    /// All output of processes, in order.
    pub(crate) fn output(&self) -> Vec<u8> {
        let events = self.events.lock().expect("the lock");
        let data = events.iter().filter_map(|event| match event {
            EventKind::Output { data, .. } => Some(data.clone()),
            _ => None,
        });
        data.flatten().collect()
    }
}

impl EventSink for Record {
    fn event(&self, event: Event) {
        match &event.kind {
            EventKind::Announced { task, name, .. } => {
                self.names.lock().expect("the lock").insert(*task, name.clone());
            }
            EventKind::Started { task } => {
                let name = self
                    .names
                    .lock()
                    .expect("the lock")
                    .get(task)
                    .cloned()
                    .unwrap_or_default();
                if let Some(action) = &self.at_start {
                    action(&name);
                }
            }
            _ => {}
        }
        self.events.lock().expect("the lock").push(event.kind);
    }
}

/// A graph in the making.
#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) graph: Graph,
    /// Vertices added from now on run whatever the cache says.
    pub(crate) ignore_cache: bool,
}

impl Builder {
    pub(crate) fn add(&mut self, name: &str, op: Op, inputs: &[VertexId]) -> VertexId {
        let vertex = Vertex {
            op,
            platform: Platform::host(),
            name: name.to_owned(),
            span: None,
            ignore_cache: self.ignore_cache,
        };
        self.graph.add(vertex, inputs)
    }

    pub(crate) fn scratch(&mut self) -> VertexId {
        self.add("scratch", Op::Source(Source::Scratch), &[])
    }

    pub(crate) fn context(&mut self) -> VertexId {
        self.add(
            "context",
            Op::Source(Source::Local(LocalSource {
                name: "context".to_owned(),
            })),
            &[],
        )
    }

    pub(crate) fn copy(
        &mut self,
        name: &str,
        base: VertexId,
        from: VertexId,
        what: (&[&str], &str),
    ) -> VertexId {
        self.copy_edited(name, base, from, what, |_| {})
    }

    pub(crate) fn copy_edited(
        &mut self,
        name: &str,
        base: VertexId,
        from: VertexId,
        (sources, destination): (&[&str], &str),
        edit: impl FnOnce(&mut Copy),
    ) -> VertexId {
        let mut copy = Copy {
            from: 1,
            sources: sources
                .iter()
                .map(|source| CopySource {
                    pattern: (*source).to_owned(),
                    ..CopySource::default()
                })
                .collect(),
            destination: destination.to_owned(),
            owner: None,
            mode: None,
            unpack: false,
            exclude: Vec::new(),
        };
        edit(&mut copy);
        self.add(
            name,
            Op::File(FileOp {
                actions: vec![FileAction::Copy(copy)],
            }),
            &[base, from],
        )
    }

    pub(crate) fn make_file(
        &mut self,
        name: &str,
        base: VertexId,
        destination: &str,
        text: &str,
    ) -> VertexId {
        let make = MakeFile {
            destination: destination.to_owned(),
            name: "file".to_owned(),
            data: text.as_bytes().to_vec(),
            mode: None,
            owner: None,
        };
        self.add(
            name,
            Op::File(FileOp {
                actions: vec![FileAction::MakeFile(make)],
            }),
            &[base],
        )
    }
}

/// The outcomes of the steps, by their names; the context, which is read each time, is left out.
pub(crate) fn outcomes(solved: &Solved) -> Vec<(&str, StepOutcome)> {
    let steps = solved.steps.iter().filter(|step| step.name != "context");
    steps.map(|step| (step.name.as_str(), step.outcome)).collect()
}

/// The root file system of a solve that must have succeeded.
pub(crate) fn snapshot(solved: &Solved) -> &Snapshot {
    match &solved.result {
        Ok(solution) => &solution.snapshot,
        Err(error) => panic!("{}", kiln_solver::chain(error)),
    }
}
