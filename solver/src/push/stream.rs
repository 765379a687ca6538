//! Blobs that go out while they are made: compression and network work at the same time.
//!
//! What a blob's digest is, and so whether the registry has it already, is known only at its end. Until then the bytes
//! that are there go into an upload without a name, and then it gets one or is abandoned. Whatever goes wrong is no
//! failure of the push: the blob is in the store by then, and goes from there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kiln_cache::LayerId;
use kiln_image::{Descriptor, Reference};
use kiln_registry::{Client, ErrorKind, Streamed};

use crate::cancel::{Cancel, CancelGuard};
use crate::following::Growth;
use crate::image::Stoppable;
use crate::task::Task;

/// So many at a time. Each holds a connection from its first byte to its last, and there must be some left for
/// questions and for small blobs.
const STREAMS: usize = 2;

/// Bytes of the files of a layer that is worth it: less is compressed in a moment.
pub(crate) const LARGE: u64 = 16 << 20;

/// The blob of a layer on its way to a repository: the repository's name, the layer, the blob's form.
pub(crate) type Way = (String, LayerId, String);

/// The streams of an engine.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    shared: Arc<Shared>,
    /// Begun before the push that is to use them.
    early: Mutex<HashMap<Way, Stream>>,
}

#[derive(Debug, Default)]
struct Shared {
    in_use: AtomicUsize,
    /// Registries with which it did not work once.
    unwilling: Mutex<HashSet<String>>,
}

impl Streams {
    /// Sends a blob to the repository of `name` as it grows. `None` when enough of them go out already, or when the
    /// registry does not take blobs like this.
    pub(crate) fn begin(
        &self,
        client: Arc<Client>,
        name: &Reference,
        growth: &Arc<Growth>,
        stop: &Cancel,
    ) -> Option<Stream> {
        if lock(&self.shared.unwilling).contains(&name.registry) {
            return None;
        }
        let slot = Slot::take(&self.shared)?;
        let sent = Arc::<Sent>::default();
        let (ended, end) = channel();
        let work = Work {
            client: Arc::clone(&client),
            name: name.clone(),
            growth: Arc::clone(growth),
            sent: Arc::clone(&sent),
            stop: stop.clone(),
            slot,
            ended: ended.clone(),
        };
        let thread = std::thread::Builder::new().name("upload".to_owned());
        // Without a thread, there is no stream.
        thread.spawn(move || work.run()).ok()?;
        Some(Stream {
            client,
            name: name.clone(),
            growth: Arc::clone(growth),
            sent,
            end,
            // A thread may wait for a server that is silent: nobody waits for the thread then.
            _link: stop.on_raise(move || drop(ended.send(None))),
        })
    }

    /// Keeps a stream for the push that will come.
    pub(crate) fn keep(&self, way: Way, stream: Stream) {
        lock(&self.early).insert(way, stream);
    }

    pub(crate) fn is_kept(&self, way: &Way) -> bool {
        lock(&self.early).contains_key(way)
    }

    /// The stream that was kept, if any.
    pub(crate) fn take(&self, way: &Way) -> Option<Stream> {
        lock(&self.early).remove(way)
    }

    /// Abandons what was kept.
    pub(crate) fn clear(&self) {
        lock(&self.early).clear();
    }
}

/// The right to be one of the streams.
#[derive(Debug)]
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let more = |count| (count < STREAMS).then_some(count + 1);
        shared
            .in_use
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far a stream is, and who wants to see it.
#[derive(Debug, Default)]
struct Sent {
    bytes: AtomicU64,
    /// Set once the blob has a name to show.
    shown: OnceLock<(Task, Descriptor)>,
}

impl Sent {
    fn show(&self) {
        if let Some((task, blob)) = self.shown.get() {
            let bytes = self.bytes.load(Ordering::Relaxed);
            task.progress(blob.digest.to_string(), bytes, Some(blob.size), false);
        }
    }
}

/// A blob on its way. Dropped, it is abandoned.
#[derive(Debug)]
pub(crate) struct Stream {
    client: Arc<Client>,
    name: Reference,
    growth: Arc<Growth>,
    sent: Arc<Sent>,
    /// What the thread came to; it may come more than once.
    end: Receiver<Option<Streamed>>,
    _link: CancelGuard,
}

impl Stream {
    /// Waits until all of `blob`, which is what was growing, is there, and makes it a blob of the repository. False if
    /// it is none: it has to be sent in another way.
    pub(crate) fn commit(self, blob: &Descriptor, task: &Task) -> bool {
        // Nobody else sets it.
        let _ = self.sent.shown.set((task.clone(), blob.clone()));
        self.sent.show();
        // What was sent is this blob only if it is the growth that became it.
        let streamed = self.ended().filter(|_| self.growth.is_whole());
        streamed.is_some_and(|streamed| self.client.commit_streamed(&self.name, streamed, blob).is_ok())
    }

    /// Ends it, and waits until the registry knows.
    pub(crate) fn abandon(self) {
        self.growth.refuse();
        if let Some(streamed) = self.ended() {
            self.client.abandon_streamed(&streamed);
        }
    }

    fn ended(&self) -> Option<Streamed> {
        self.end.recv().ok().flatten()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.growth.refuse();
    }
}

/// What the thread of a stream does. However it ends, who waits is told.
struct Work {
    client: Arc<Client>,
    name: Reference,
    growth: Arc<Growth>,
    sent: Arc<Sent>,
    stop: Cancel,
    slot: Slot,
    ended: Sender<Option<Streamed>>,
}

impl Work {
    fn run(self) {
        // Nothing to follow: nothing has to be made.
        let Some(follower) = self.growth.follow() else {
            return;
        };
        let mut source = Stoppable {
            file: follower,
            stop: &self.stop,
        };
        let progress = |bytes| {
            self.sent.bytes.store(bytes, Ordering::Relaxed);
            self.sent.show();
        };
        match self.client.stream_blob(&self.name, &mut source, &progress) {
            Ok(streamed) => self.end(Some(streamed)),
            // An error of ours says nothing about the registry.
            Err(error) if matches!(error.kind(), ErrorKind::Local | ErrorKind::Interrupted) => {}
            Err(_) => drop(lock(&self.slot.0.unwilling).insert(self.name.registry.clone())),
        }
    }

    fn end(&self, streamed: Option<Streamed>) {
        if let Err(SendError(Some(streamed))) = self.ended.send(streamed) {
            // Nobody is interested any more.
            self.client.abandon_streamed(&streamed);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.end(None);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value behind these locks is consistent at every point.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, Instant};

    use kiln_image::Digest;
    use kiln_registry::{ClientConfig, RetryPolicy};

    use super::*;
    use crate::event::{Event, EventSink};
    use crate::following::Feed;
    use crate::task::Reporter;
    use crate::testing::TempDir;

    struct Nobody;

    impl EventSink for Nobody {
        fn event(&self, _: Event) {}
    }

    fn task() -> Task {
        Reporter::new(Arc::new(Nobody)).announce("x", Vec::new(), None)
    }

    fn blob() -> Descriptor {
        Descriptor::new("a/b", Digest::sha256_of(b"bytes"), 5)
    }

    fn begin(streams: &Streams, growth: &Arc<Growth>, stop: &Cancel) -> Option<Stream> {
        let config = ClientConfig {
            retry: RetryPolicy {
                attempts: 1,
                connect_attempts: 1,
                ..RetryPolicy::default()
            },
            ..ClientConfig::default()
        };
        // Nobody listens there.
        let name: Reference = "127.0.0.1:1/app:1".parse().unwrap();
        streams.begin(Arc::new(Client::new(config).unwrap()), &name, growth, stop)
    }

    /// A blob that has come to its end.
    fn grown(dir: &TempDir) -> (Arc<Growth>, Feed) {
        dir.write("blob", "bytes");
        let growth = Growth::new();
        let feed = growth.feed();
        feed.begin_file(File::open(dir.path().join("blob")).unwrap(), 5);
        feed.whole();
        (growth, feed)
    }

    #[test]
    fn a_few_at_a_time() {
        let (streams, growth, stop) = (Streams::default(), Growth::new(), Cancel::new());
        let all: Vec<Stream> = (0..STREAMS)
            .filter_map(|_| begin(&streams, &growth, &stop))
            .collect();
        assert_eq!(all.len(), STREAMS);
        assert!(begin(&streams, &growth, &stop).is_none());
        // There was nothing to make after all.
        growth.void();
        for stream in all {
            assert!(!stream.commit(&blob(), &task()));
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while begin(&streams, &Growth::new(), &stop).is_none() {
            assert!(Instant::now() < deadline, "the slots are not given back");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_registry_is_not_tried_again() {
        let dir = TempDir::new();
        let (streams, stop) = (Streams::default(), Cancel::new());
        let (growth, _feed) = grown(&dir);
        let stream = begin(&streams, &growth, &stop).unwrap();
        assert!(!stream.commit(&blob(), &task()));
        let (growth, _feed) = grown(&dir);
        assert!(begin(&streams, &growth, &stop).is_none());
    }

    #[test]
    fn nobody_waits_for_a_stream_after_the_end() {
        let (streams, growth, stop) = (Streams::default(), Growth::new(), Cancel::new());
        let stream = begin(&streams, &growth, &stop).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || stream.commit(&blob(), &task()));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            stop.raise();
            assert!(!waiting.join().unwrap());
        });
        growth.void();
    }

    #[test]
    fn what_was_begun_for_a_push_is_taken_once() {
        let (streams, growth) = (Streams::default(), Growth::new());
        let way = (
            "r/app".to_owned(),
            LayerId::from_diff_id(&blob().digest),
            "none".to_owned(),
        );
        let stream = begin(&streams, &growth, &Cancel::new()).unwrap();
        streams.keep(way.clone(), stream);
        assert!(streams.is_kept(&way));
        streams.take(&way).unwrap().growth.void();
        assert!(streams.take(&way).is_none());
        let stream = begin(&streams, &growth, &Cancel::new()).unwrap();
        streams.keep(way.clone(), stream);
        streams.clear();
        assert!(growth.is_refused() && !streams.is_kept(&way));
    }
}
