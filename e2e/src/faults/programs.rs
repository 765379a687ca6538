//! The Dockerfiles of the fault runs. Each is made so that two builds anywhere give the same layers, most of them to
//! the byte: what a step writes gets a fixed time, and nothing depends on what a cache mount held. All is written by `dd`, which
//! fails when the disk is full; some other programs of busybox do not.

use crate::Result;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How many forms the context and the argument of each program have.
pub const VARIANTS: usize = 2;

/// A Dockerfile in one of its forms: what comes of it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Work {
    /// Index into [`PROGRAMS`].
    pub program: usize,
    /// Below [`VARIANTS`].
    pub variant: usize,
}

impl Work {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PROGRAMS.len()).flat_map(|program| (0..VARIANTS).map(move |variant| Self { program, variant }))
    }

    /// The program's name.
    pub fn name(self) -> &'static str {
        PROGRAMS[self.program].0
    }

    /// Whether its layers are the same to the byte wherever they are built. Deletions have the time at which they were
    /// made.
    pub fn has_equal_layers(self) -> bool {
        !PROGRAMS[self.program].1.contains(" rm ")
    }

    /// The tag of its image: what an image of this tag holds is known.
    pub fn tag(self) -> String {
        format!("{}-{}", self.name(), self.variant)
    }
}

/// Name and Dockerfile; `BASE` and `URL` stand for the base image and the address of a file.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("steps", STEPS),
    ("stages", STAGES),
    ("mounts", MOUNTS),
    ("trees", TREES),
];

const STEPS: &str = "FROM BASE\nARG VARIANT\n\
    RUN seq 1 40000 | dd of=/numbers && touch -d @1700000000 /numbers\n\
    RUN set -e; for i in 1 2 3 4 5 6 7 8 9; do echo $i $VARIANT | dd of=/f$i; done; touch -d @1700000000 /f?\n\
    COPY data /data\nENV A=$VARIANT\nRUN cat /data /f9 | md5sum | dd of=/sum && touch -d @1700000000 /sum\nCMD [\"cat\", \"/sum\"]\n";

/// Stages that run side by side, and what a server has.
const STAGES: &str = "FROM BASE AS one\nRUN sleep 0.05; yes one | head -c 200000 | dd of=/one && touch -d @1700000000 /one\n\
    FROM BASE AS two\nCOPY data /two\nRUN sleep 0.05; sort -r /two | md5sum | dd of=/sum && touch -d @1700000000 /sum\n\
    FROM BASE AS three\nADD URL /three\nRUN md5sum /three | dd of=/sum3 && touch -d @1700000000 /sum3\n\
    FROM BASE\nARG VARIANT\nCOPY --from=one /one /one\nCOPY --from=two /sum /sum\nCOPY --from=three /three /sum3 /\n\
    RUN (cat /sum /sum3 | md5sum; echo $VARIANT) | dd of=/all && touch -d @1700000000 /all\n";

/// A directory that all steps of both forms fill and read, and a bound folder.
const MOUNTS: &str = "FROM BASE\nARG VARIANT\n\
    RUN --mount=type=cache,id=shared,target=/cache,sharing=locked \
    head -c 100000 /dev/zero | dd of=/cache/$VARIANT.new && mv /cache/$VARIANT.new /cache/$VARIANT && \
    wc -c < /cache/$VARIANT | dd of=/size && touch -d @1700000000 /size\n\
    RUN --mount=type=bind,target=/context sort /context/data | head -n 50 | dd of=/bound && touch -d @1700000000 /bound\n\
    RUN --mount=type=cache,id=many,target=/cache ls /cache | dd of=/cache/$VARIANT.$$; unlink /cache/$VARIANT.$$; \
    echo done $VARIANT | dd of=/done && touch -d @1700000000 /done\n";

/// Many files, links, attributes of files, what is deleted and what is replaced.
const TREES: &str = "FROM BASE\nARG VARIANT\nCOPY --link data /linked\nCOPY many /\n\
    RUN chmod 4750 /file1 && chown 12:34 /file2 && ln /file3 /hard && ln -s file4 /soft && rm /file5 /bin/wc && \
    mkfifo /pipe && touch -hd @1700000000 /hard /soft /pipe /file1 /file2 /bin\n\
    RUN tar -c /file? | md5sum | dd of=/sum && rm /file7 && echo $VARIANT | dd of=/file8 && touch -d @1700000000 /sum /file8\n\
    COPY data /file7\n";

/// Writes a program's context. Both forms have the same names, sizes and times: only the bytes tell them apart.
pub fn write_context(work: Work, folder: &Path, base: &str, url: &str) -> Result<()> {
    std::fs::create_dir_all(folder.join("many"))?;
    let dockerfile = PROGRAMS[work.program].1.replace("BASE", base).replace("URL", url);
    let letter = char::from(b'a' + u8::try_from(work.variant)?);
    let line = |number: u32| format!("{letter}{}\n", number.wrapping_mul(2_654_435_761));
    let data: Vec<String> = (0..4000).map(line).collect();
    put(&folder.join("Dockerfile"), &dockerfile)?;
    put(&folder.join("data"), &data.concat())?;
    for number in 0..100 {
        put(
            &folder.join(format!("many/file{number}")),
            &format!("{letter} {number}\n").repeat(number + 1),
        )?;
    }
    Ok(())
}

/// What the server has at the address.
pub fn page() -> Vec<u8> {
    (0..30_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Writes a file in place, with a fixed time.
fn put(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    Ok(File::options().write(true).open(path)?.set_modified(time)?)
}
