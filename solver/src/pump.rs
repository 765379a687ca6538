//! Passes the output of a step's process on: to the events, its log and the message of its failure, without the
//! secrets of the request.

use std::fs::File;
use std::io::Read;

use kiln_executor::Running;
use rustix::event::{PollFd, PollFlags, poll};

use crate::event::Stream;
use crate::output::OutputTail;
use crate::redact::{Patterns, Redactor};
use crate::task::Task;

/// One stream of the process.
struct Open<'a> {
    stream: Stream,
    file: &'a File,
    redactor: Redactor<'a>,
}

/// Passes the process's output on until both streams end.
pub(crate) fn pump(
    running: &Running,
    task: &Task,
    tail: &mut OutputTail,
    patterns: &Patterns,
) -> std::io::Result<()> {
    let streams = [
        (Stream::Stdout, running.stdout.as_ref()),
        (Stream::Stderr, running.stderr.as_ref()),
    ];
    let mut open: Vec<Open<'_>> = streams
        .into_iter()
        .filter_map(|(stream, file)| {
            Some(Open {
                stream,
                file: file?,
                redactor: Redactor::new(patterns),
            })
        })
        .collect();
    let mut pass = |stream: Stream, bytes: &[u8]| {
        if !bytes.is_empty() {
            task.output(stream, bytes);
            tail.add(stream, bytes);
        }
    };
    let mut buffer = vec![0; 32 << 10];
    while !open.is_empty() {
        let mut fds: Vec<PollFd<'_>> = open
            .iter()
            .map(|open| PollFd::new(open.file, PollFlags::IN))
            .collect();
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let mut still_open = Vec::with_capacity(open.len());
        for (mut open, ready) in open.into_iter().zip(ready) {
            if !ready {
                still_open.push(open);
                continue;
            }
            let mut file = open.file;
            let length = file.read(&mut buffer)?;
            if length == 0 {
                pass(open.stream, &open.redactor.finish());
                continue;
            }
            pass(open.stream, &open.redactor.take(&buffer[..length]));
            still_open.push(open);
        }
        open = still_open;
    }
    Ok(())
}
