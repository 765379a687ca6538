//! Reading a blob while it comes: somebody (a download, a compression) writes a file, and who follows it reads what is
//! there so far.
//!
//! What is read like this is not verified yet. So whatever is made of it counts only when the growth is
//! [whole](Growth::is_whole) in the end: then all that was read are bytes of the blob that the store has.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kiln_cache::BlobWriter;

/// How far a blob has come, between the [`Feed`] that says so and the [`Follower`] that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// The growing file, until somebody follows it.
    file: Option<File>,
    /// Bytes of the blob that are in the file.
    written: u64,
    /// The follower found what makes the rest of the blob useless.
    refused: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing is known yet.
    #[default]
    Expected,
    /// Bytes come.
    Growing,
    /// All bytes are there and verified.
    Whole,
    /// There is nothing to follow, or no more: the download failed, began anew, or was not needed.
    Void,
}

impl Growth {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The end for the download. When it is dropped before the blob is [whole](Feed::whole), followers get an error.
    pub(crate) fn feed(self: &Arc<Self>) -> Feed {
        Feed {
            growth: Arc::clone(self),
        }
    }

    /// Waits for the first bytes. `None` when there is nothing to follow, or nothing of use. One can follow at most.
    pub(crate) fn follow(self: &Arc<Self>) -> Option<Follower> {
        let mut state = self.state();
        while state.phase == Phase::Expected && !state.refused {
            state = self.wait(state);
        }
        let file = state.file.take()?;
        Some(Follower {
            growth: Arc::clone(self),
            file,
            at: 0,
        })
    }

    /// Nobody is to go on following: for a download that is about to end, or to begin anew. Of a whole blob nothing
    /// becomes wrong.
    pub(crate) fn void(&self) {
        let mut state = self.state();
        if state.phase != Phase::Whole {
            state.phase = Phase::Void;
            state.file = None;
            self.changed.notify_all();
        }
    }

    /// Says that the blob will not be used, whatever comes still: its download and its follower end.
    pub(crate) fn refuse(&self) {
        self.state().refused = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.state().refused
    }

    /// Whether the blob is in the store, and all bytes that were read meanwhile are its bytes.
    pub(crate) fn is_whole(&self) -> bool {
        self.state().phase == Phase::Whole
    }

    /// How many bytes are there behind the first `at`: at least one, or the end. Waits for them.
    fn behind(&self, at: u64) -> io::Result<u64> {
        let mut state = self.state();
        loop {
            if state.phase == Phase::Void || state.refused {
                return Err(io::Error::other("the blob did not come to its end"));
            }
            let there = state.written.saturating_sub(at);
            if there > 0 || state.phase == Phase::Whole {
                return Ok(there);
            }
            state = self.wait(state);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer's end of a [`Growth`].
#[derive(Debug)]
pub(crate) struct Feed {
    growth: Arc<Growth>,
}

impl Feed {
    /// Bytes go to `writer`, which may have some of an earlier process already.
    pub(crate) fn begin(&self, writer: &BlobWriter) -> Result<(), kiln_cache::Error> {
        self.begin_file(writer.reader()?, writer.offset());
        Ok(())
    }

    /// Bytes go to `file`, a second opening of which this is, and which has some already.
    pub(crate) fn begin_file(&self, file: File, written: u64) {
        let mut state = self.growth.state();
        if state.phase == Phase::Expected {
            state.phase = Phase::Growing;
            state.file = Some(file);
            state.written = written;
            self.growth.changed.notify_all();
        }
    }

    /// So many bytes are in the file by now.
    pub(crate) fn grown(&self, written: u64) {
        self.growth.state().written = written;
        self.growth.changed.notify_all();
    }

    /// To be called before the bytes so far are thrown away.
    pub(crate) fn restart(&self) {
        self.growth.void();
    }

    /// The blob is in the store.
    pub(crate) fn whole(&self) {
        let mut state = self.growth.state();
        if state.phase == Phase::Growing {
            state.phase = Phase::Whole;
            self.growth.changed.notify_all();
        }
    }

    /// Whether the download is to end since its blob is of no use.
    pub(crate) fn is_refused(&self) -> bool {
        self.growth.is_refused()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.growth.void();
    }
}

/// Reads a blob from its first byte, as it comes. It ends where the blob ends, once the blob is verified, and fails
/// as soon as the download does.
#[derive(Debug)]
pub(crate) struct Follower {
    growth: Arc<Growth>,
    file: File,
    at: u64,
}

impl io::Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = usize::try_from(self.growth.behind(self.at)?).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(there);
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let count = self.file.read_at(buffer, self.at)?;
        if count == 0 {
            // Cut off by a restart just now, or by somebody else.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use kiln_cache::BlobWriter;
    use kiln_image::Digest;

    use super::{Feed, Growth};
    use crate::cancel::Cancel;
    use crate::testing::TempDir;

    const BYTES: &[u8] = b"these are the bytes of a layer";

    /// Long enough for whoever does not wait to be seen.
    const MOMENT: Duration = Duration::from_millis(50);

    fn writer(dir: &TempDir) -> BlobWriter {
        let size = Some(BYTES.len() as u64);
        let store = dir.store();
        let writer = store.blobs().writer(&Digest::sha256_of(BYTES), size);
        writer.unwrap().unwrap()
    }

    fn write(feed: &Feed, writer: &mut BlobWriter, bytes: &[u8]) {
        writer.write_all(bytes).unwrap();
        feed.grown(writer.offset());
    }

    /// What has been read at the end of `download`, by who waited for its beginning.
    fn followed(writer: BlobWriter, download: impl FnOnce(&Feed, BlobWriter)) -> std::io::Result<Vec<u8>> {
        let growth = Growth::new();
        let feed = growth.feed();
        let (followed, is_followed) = channel();
        std::thread::scope(|scope| {
            let growth = &growth;
            let reading = scope.spawn(move || {
                let mut follower = growth.follow().unwrap();
                followed.send(()).unwrap();
                let mut all = Vec::new();
                follower.read_to_end(&mut all).map(|_| all)
            });
            assert!(is_followed.recv_timeout(MOMENT).is_err(), "nothing has begun");
            feed.begin(&writer).unwrap();
            is_followed.recv().unwrap();
            download(&feed, writer);
            drop(feed);
            reading.join().unwrap()
        })
    }

    #[test]
    fn reads_what_is_there_and_waits_for_more() {
        let dir = TempDir::new();
        let mut writer = writer(&dir);
        let growth = Growth::new();
        let feed = growth.feed();
        feed.begin(&writer).unwrap();
        let mut follower = growth.follow().unwrap();
        assert!(growth.follow().is_none(), "one follows");
        let (read, came) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut buffer = [0; 7];
                loop {
                    let count = follower.read(&mut buffer).unwrap();
                    read.send(buffer[..count].to_vec()).unwrap();
                    if count == 0 {
                        return;
                    }
                }
            });
            assert!(came.recv_timeout(MOMENT).is_err(), "nothing is there yet");
            write(&feed, &mut writer, &BYTES[..10]);
            assert_eq!(came.recv().unwrap(), &BYTES[..7]);
            assert_eq!(came.recv().unwrap(), &BYTES[7..10]);
            assert!(came.recv_timeout(MOMENT).is_err(), "the rest is missing");
            write(&feed, &mut writer, &BYTES[10..]);
            let mut rest = Vec::new();
            while rest.len() < BYTES.len() - 10 {
                rest.extend(came.recv().unwrap());
            }
            assert_eq!(rest, &BYTES[10..]);
            assert!(came.recv_timeout(MOMENT).is_err(), "the end is not verified yet");
            assert!(!growth.is_whole());
            writer.commit().unwrap();
            feed.whole();
            drop(feed);
            assert_eq!(came.recv().unwrap(), b"");
        });
        assert!(growth.is_whole());
    }

    #[test]
    fn bytes_of_an_earlier_process_are_read_first() {
        let dir = TempDir::new();
        let mut earlier = writer(&dir);
        earlier.write_all(&BYTES[..12]).unwrap();
        drop(earlier);
        let writer = writer(&dir);
        assert_eq!(writer.offset(), 12);
        let all = followed(writer, |feed, mut writer| {
            write(feed, &mut writer, &BYTES[12..]);
            writer.commit().unwrap();
            feed.whole();
        });
        assert_eq!(all.unwrap(), BYTES);
    }

    #[test]
    fn a_failed_download_is_an_error_and_no_end() {
        let dir = TempDir::new();
        // Even when all bytes came: they may not be the right ones.
        for count in [0, 5, BYTES.len()] {
            let failed = followed(writer(&dir), |feed, mut writer| {
                write(feed, &mut writer, &BYTES[..count]);
                writer.discard().unwrap();
            });
            assert_eq!(
                failed.unwrap_err().to_string(),
                "the blob did not come to its end"
            );
        }
        let growth = Growth::new();
        drop(growth.feed());
        assert!(growth.follow().is_none(), "there was no download");
    }

    #[test]
    fn after_a_restart_nothing_is_right_any_more() {
        let dir = TempDir::new();
        let mut writer = writer(&dir);
        let growth = Growth::new();
        let feed = growth.feed();
        feed.begin(&writer).unwrap();
        let mut follower = growth.follow().unwrap();
        write(&feed, &mut writer, b"others");
        let mut buffer = [0; 6];
        follower.read_exact(&mut buffer).unwrap();
        feed.restart();
        writer.restart().unwrap();
        assert!(follower.read(&mut buffer).is_err());
        feed.begin(&writer).unwrap();
        write(&feed, &mut writer, BYTES);
        writer.commit().unwrap();
        feed.whole();
        assert!(follower.read(&mut buffer).is_err());
        assert!(growth.follow().is_none());
        assert!(!growth.is_whole());
    }

    #[test]
    fn a_cancelled_follower_does_not_wait_for_its_download() {
        let dir = TempDir::new();
        let writer = writer(&dir);
        let (growth, cancel) = (Growth::new(), Cancel::new());
        let feed = growth.feed();
        let voided = std::sync::Arc::clone(&growth);
        let _link = cancel.on_raise(move || voided.void());
        feed.begin(&writer).unwrap();
        let mut follower = growth.follow().unwrap();
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || follower.read(&mut [0; 4]));
            std::thread::sleep(MOMENT);
            cancel.raise();
            assert!(reading.join().unwrap().is_err());
        });
        assert!(!feed.is_refused());
    }

    #[test]
    fn who_refuses_the_blob_does_not_wait_for_it() {
        let dir = TempDir::new();
        let writer = writer(&dir);
        let growth = Growth::new();
        let feed = growth.feed();
        feed.begin(&writer).unwrap();
        let mut follower = growth.follow().unwrap();
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || follower.read(&mut [0; 4]));
            std::thread::sleep(MOMENT);
            growth.refuse();
            assert!(reading.join().unwrap().is_err());
        });
        assert!(feed.is_refused() && growth.is_refused());
        let growth = Growth::new();
        growth.refuse();
        assert!(growth.follow().is_none(), "before its beginning");
    }

    #[test]
    fn a_whole_blob_stays_whole() {
        let dir = TempDir::new();
        let mut writer = writer(&dir);
        let growth = Growth::new();
        let feed = growth.feed();
        feed.begin(&writer).unwrap();
        let mut follower = growth.follow().unwrap();
        write(&feed, &mut writer, BYTES);
        writer.commit().unwrap();
        feed.whole();
        growth.void();
        drop(feed);
        let mut all = Vec::new();
        follower.read_to_end(&mut all).unwrap();
        assert_eq!(all, BYTES);
    }
}
