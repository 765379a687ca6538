//! The table of `why.rs`: a change between two builds, and what is said of it.

use kiln_e2e::Result;
use kiln_e2e::project::Project;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::SystemTime;

/// What happens between two builds.
pub(crate) type Change = fn(&Project) -> Result<()>;

/// One row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) dockerfile: &'static str,
    /// Arguments of the first build, and of the second one.
    pub(crate) arguments: [&'static [&'static str]; 2],
    pub(crate) change: Change,
    /// What `kiln why` says of the second build.
    pub(crate) expected: &'static str,
}

pub(crate) const COPY: &str = "FROM busybox:latest\nCOPY . /src/\nRUN ls /src > /list\n";
const PATTERN: &str = "FROM busybox:latest\nCOPY pkg* /pkg/\n";
const ARGUMENT: &str = "FROM busybox:latest\nRUN echo before > /b\nARG SHA=none\nARG USED=no\nRUN echo one > /a\nRUN echo $USED > /u\n";
const SECRET: &str = "FROM busybox:latest\nRUN --mount=type=secret,id=one,required=false true > /x\n";
pub(crate) const STAGES: &str = "FROM busybox:latest AS gen\nCOPY pkg.txt /in\nRUN head -c1 /in > /out\n\
    FROM busybox:latest\nCOPY --from=gen /out /out\nRUN cp /out /copy\n";
pub(crate) const NOTHING: &str = "nothing ran: every step was cached\n";

#[expect(clippy::unnecessary_wraps, reason = "a change may fail")]
fn nothing(_: &Project) -> Result<()> {
    Ok(())
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "nothing changed",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: nothing,
        expected: NOTHING,
    },
    Row {
        name: "touch",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: |project| {
            let file = File::options().write(true).open(project.path("pkg.txt"))?;
            Ok(file.set_modified(SystemTime::UNIX_EPOCH)?)
        },
        expected: NOTHING,
    },
    Row {
        name: "changed, added and removed files",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: |project| {
            project.write("pkg.txt", "two\n")?;
            project.write("a/new.txt", "new\n")?;
            Ok(std::fs::remove_file(project.path("lib/x.txt"))?)
        },
        expected: "[2/3] COPY . /src/  (Dockerfile:2)\n    pkg.txt changed, a, a/new.txt added, lib/x.txt removed\n\
                   [3/3] RUN ls /src > /list  (Dockerfile:3)\n    after [2/3] COPY . /src/\n",
    },
    Row {
        name: "chmod",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: |project| {
            Ok(std::fs::set_permissions(
                project.path("pkg.txt"),
                Permissions::from_mode(0o755),
            )?)
        },
        expected: "[2/3] COPY . /src/  (Dockerfile:2)\n    pkg.txt changed its mode\n\
                   [3/3] RUN ls /src > /list  (Dockerfile:3)\n    after [2/3] COPY . /src/\n",
    },
    Row {
        name: "renamed directory of the same content",
        dockerfile: "FROM busybox:latest\nCOPY lib* /lib/\n",
        arguments: [&[], &[]],
        change: |project| Ok(std::fs::rename(project.path("lib"), project.path("lib2"))?),
        expected: NOTHING,
    },
    Row {
        name: "renamed file",
        dockerfile: PATTERN,
        arguments: [&[], &[]],
        change: |project| {
            Ok(std::fs::rename(
                project.path("pkg.txt"),
                project.path("pkg2.txt"),
            )?)
        },
        expected: "[2/2] COPY pkg* /pkg/  (Dockerfile:2)\n    pkg2.txt added, pkg.txt removed\n",
    },
    Row {
        name: "file that no pattern takes",
        dockerfile: PATTERN,
        arguments: [&[], &[]],
        change: |project| project.write("other.txt", "x"),
        expected: NOTHING,
    },
    Row {
        name: "argument that the command does not mention",
        dockerfile: ARGUMENT,
        arguments: [&["--build-arg", "SHA=a1"], &["--build-arg", "SHA=b2"]],
        change: nothing,
        expected: "[3/4] RUN echo one > /a  (Dockerfile:5)\n    ARG SHA changed: \"a1\" -> \"b2\" (line 3, not mentioned by the command)\n\
                   [4/4] RUN echo no > /u  (Dockerfile:6)\n    ARG SHA changed: \"a1\" -> \"b2\" (line 3, not mentioned by the command)\n",
    },
    Row {
        name: "argument that the command uses",
        dockerfile: "FROM busybox:latest\nRUN echo before > /b\nARG USED=no\nRUN echo $USED > /u\n",
        arguments: [&[], &["--build-arg", "USED=yes"]],
        change: nothing,
        expected: "[3/3] RUN echo yes > /u  (Dockerfile:4)\n    ARG USED changed: \"no\" -> \"yes\" (line 3)\n",
    },
    Row {
        name: "ENV",
        dockerfile: "FROM busybox:latest\nENV A=1\nRUN echo $A > /a\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\nENV A=2\nRUN echo $A > /a\n"),
        expected: "[2/2] RUN echo 2 > /a  (Dockerfile:3)\n    ENV A changed: \"1\" -> \"2\" (line 2)\n",
    },
    Row {
        name: "proxy",
        dockerfile: COPY,
        arguments: [&[], &["--build-arg", "HTTP_PROXY=http://127.0.0.1:9"]],
        change: nothing,
        expected: NOTHING,
    },
    Row {
        name: "address of an extra host",
        dockerfile: COPY,
        arguments: [&["--add-host", "db:10.0.0.1"], &["--add-host", "db:10.0.0.2"]],
        change: nothing,
        expected: NOTHING,
    },
    Row {
        name: "name of an extra host",
        dockerfile: "FROM busybox:latest\nRUN true > /x\n",
        arguments: [&["--add-host", "db:10.0.0.1"], &["--add-host", "db2:10.0.0.1"]],
        change: nothing,
        expected: "[2/2] RUN true > /x  (Dockerfile:2)\n    extra host changed: \"db\" -> \"db2\"\n",
    },
    Row {
        name: "value of a secret",
        dockerfile: SECRET,
        arguments: [
            &["--secret", "id=one,src=@CONTEXT@/pkg.txt"],
            &["--secret", "id=one,src=@CONTEXT@/lib/x.txt"],
        ],
        change: nothing,
        expected: NOTHING,
    },
    Row {
        name: "id of a secret",
        dockerfile: SECRET,
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                &SECRET.replace("id=one", "id=two,target=/run/secrets/one"),
            )
        },
        expected: "[2/2] RUN --mount=type=secret,id=two,target=/run/secrets/one,required=false true > /x  (Dockerfile:2)\n    \
                   mount /run/secrets/one: id changed: \"one\" -> \"two\"\n",
    },
    Row {
        name: "command",
        dockerfile: "FROM busybox:latest\nRUN echo one > /a\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\n\nRUN echo two > /a\n"),
        expected: "[2/2] RUN echo two > /a  (Dockerfile:3)\n    the command changed\n      - /bin/sh -c echo one > /a\n      \
                   + /bin/sh -c echo two > /a\n",
    },
    Row {
        name: "a step in between",
        dockerfile: "FROM busybox:latest\nRUN echo one > /a\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                "FROM busybox:latest\nCOPY pkg.txt /p\nRUN echo one > /a\n",
            )
        },
        expected: "[2/3] COPY pkg.txt /p  (Dockerfile:2)\n    no earlier record of this step\n\
                   [3/3] RUN echo one > /a  (Dockerfile:3)\n    after [2/3] COPY pkg.txt /p\n",
    },
    Row {
        name: "user and folder",
        dockerfile: "FROM busybox:latest\nRUN true > /tmp/x\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\nUSER 7\nRUN true > /tmp/x\n"),
        expected: "[2/2] RUN true > /tmp/x  (Dockerfile:3)\n    user changed: \"\" -> \"7\"\n",
    },
    Row {
        name: "destination of a copy",
        dockerfile: "FROM busybox:latest\nCOPY pkg.txt /a\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\nCOPY pkg.txt /b\n"),
        expected: "[2/2] COPY pkg.txt /b  (Dockerfile:2)\n    copy to changed: \"/a\" -> \"/b\"\n",
    },
    Row {
        name: "source of a mount",
        dockerfile: "FROM busybox:latest\nRUN --mount=type=bind,source=lib,target=/m ls /m > /x\n",
        arguments: [&[], &[]],
        change: |project| project.write("lib/x.txt", "other\n"),
        expected: "[2/2] RUN --mount=type=bind,source=lib,target=/m ls /m > /x  (Dockerfile:2)\n    mount /m: lib/x.txt changed\n",
    },
    Row {
        name: "base of another name and the same layers",
        dockerfile: "FROM busybox:latest\nRUN echo x > /x\n",
        arguments: [&[], &[]],
        change: |project| {
            project
                .kiln
                .run(["tag", "busybox:latest", "other:name"])?
                .success()?;
            project.write("Dockerfile", "FROM other:name\nRUN echo x > /x\n")
        },
        expected: NOTHING,
    },
    Row {
        name: "base",
        dockerfile: "FROM base:1\nRUN echo x > /x\n",
        arguments: [&[], &[]],
        change: |project| base(project, "two"),
        expected: "[2/2] RUN echo x > /x  (Dockerfile:2)\n    base docker.io/library/base:1 changed: sha256:… -> sha256:…\n",
    },
    Row {
        name: "no-cache",
        dockerfile: "FROM busybox:latest\nRUN echo x > /x\n",
        arguments: [&[], &["--no-cache"]],
        change: nothing,
        expected: "[2/2] RUN echo x > /x  (Dockerfile:2)\n    --no-cache\n",
    },
    Row {
        name: "no-cache-filter",
        dockerfile: STAGES,
        arguments: [&[], &["--no-cache-filter", "gen"]],
        change: nothing,
        expected: "[gen 2/3] COPY pkg.txt /in  (Dockerfile:2)\n    --no-cache-filter\n\
                   [gen 3/3] RUN head -c1 /in > /out  (Dockerfile:3)\n    --no-cache-filter\n\
                   [stage-1 2/3] COPY --from=gen /out /out  (Dockerfile:5)\n    kept: its inputs came out the same\n\
                   [stage-1 3/3] RUN cp /out /copy  (Dockerfile:6)\n    kept: its inputs came out the same\n\
                   early cutoff: 2 steps were kept, their inputs came out the same (saved …s)\n",
    },
    Row {
        name: "early cutoff",
        dockerfile: STAGES,
        arguments: [&[], &[]],
        change: |project| project.write("pkg.txt", "only the first byte counts\n"),
        expected: "[gen 2/3] COPY pkg.txt /in  (Dockerfile:2)\n    pkg.txt changed\n\
                   [gen 3/3] RUN head -c1 /in > /out  (Dockerfile:3)\n    after [gen 2/3] COPY pkg.txt /in\n\
                   [stage-1 2/3] COPY --from=gen /out /out  (Dockerfile:5)\n    kept: its inputs came out the same\n\
                   [stage-1 3/3] RUN cp /out /copy  (Dockerfile:6)\n    kept: its inputs came out the same\n\
                   early cutoff: 2 steps were kept, their inputs came out the same (saved …s)\n",
    },
    Row {
        name: "file of another stage",
        dockerfile: STAGES,
        arguments: [&[], &[]],
        change: |project| project.write("pkg.txt", "x"),
        expected: "[gen 2/3] COPY pkg.txt /in  (Dockerfile:2)\n    pkg.txt changed\n\
                   [gen 3/3] RUN head -c1 /in > /out  (Dockerfile:3)\n    after [gen 2/3] COPY pkg.txt /in\n\
                   [stage-1 2/3] COPY --from=gen /out /out  (Dockerfile:5)\n    out changed in [gen 3/3] RUN head -c1 /in > /out\n\
                   [stage-1 3/3] RUN cp /out /copy  (Dockerfile:6)\n    after [stage-1 2/3] COPY --from=gen /out /out\n",
    },
    Row {
        name: "reordered stages",
        dockerfile: "FROM busybox:latest AS a\nRUN echo a > /a\nFROM busybox:latest AS b\nRUN echo b > /b\n\
            FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        arguments: [&[], &[]],
        change: |project| {
            let text = "FROM busybox:latest AS b\nRUN echo b > /b\nFROM busybox:latest AS a\nRUN echo a > /a\n\
                FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
            project.write("Dockerfile", text)
        },
        expected: NOTHING,
    },
    Row {
        name: "a step that failed before",
        dockerfile: "FROM busybox:latest\nRUN --mount=type=secret,id=go,required=false test -e /run/secrets/go\n",
        arguments: [&[], &["--secret", "id=go,src=@CONTEXT@/pkg.txt"]],
        change: nothing,
        expected: "[2/2] RUN --mount=type=secret,id=go,required=false test -e /run/secrets/go  (Dockerfile:2)\n    \
                   it has not succeeded before\n",
    },
    // From here on: what else the truth table of `caching/` has.
    Row {
        name: "touch of a folder",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: |project| {
            for name in ["lib", "."] {
                File::open(project.path(name))?.set_modified(SystemTime::UNIX_EPOCH)?;
            }
            Ok(())
        },
        expected: NOTHING,
    },
    Row {
        name: "other bytes under the old size and time",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: |project| {
            let time = project.path("pkg.txt").metadata()?.modified()?;
            project.write("pkg.txt", "two\n")?;
            let file = File::options().write(true).open(project.path("pkg.txt"))?;
            Ok(file.set_modified(time)?)
        },
        expected: "[2/3] COPY . /src/  (Dockerfile:2)\n    pkg.txt changed\n\
                   [3/3] RUN ls /src > /list  (Dockerfile:3)\n    after [2/3] COPY . /src/\n",
    },
    Row {
        name: "rename inside a copied folder",
        dockerfile: "FROM busybox:latest\nCOPY lib /lib\n",
        arguments: [&[], &[]],
        change: |project| {
            Ok(std::fs::rename(
                project.path("lib/x.txt"),
                project.path("lib/y.txt"),
            )?)
        },
        expected: "[2/2] COPY lib /lib  (Dockerfile:2)\n    lib/y.txt added, lib/x.txt removed\n",
    },
    Row {
        name: "ignored file",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: |project| project.write("debug.log", "noise"),
        expected: NOTHING,
    },
    Row {
        name: "excluded file",
        dockerfile: "FROM busybox:latest\nCOPY --exclude=*.txt . /src/\nCOPY --parents lib /p/\n",
        arguments: [&[], &[]],
        change: |project| project.write("pkg.txt", "two\n"),
        expected: NOTHING,
    },
    Row {
        name: "argument before its declaration",
        dockerfile: "FROM busybox:latest\nRUN echo before > /b\nARG SHA\nLABEL sha=$SHA\n",
        arguments: [&["--build-arg", "SHA=a1"], &["--build-arg", "SHA=b2"]],
        change: nothing,
        expected: NOTHING,
    },
    Row {
        name: "argument that a copy does not use",
        dockerfile: "FROM busybox:latest\nARG SHA\nARG TO=/d\nCOPY pkg.txt /p\nWORKDIR /w\nCOPY pkg.txt $TO\n",
        arguments: [&["--build-arg", "SHA=a1"], &["--build-arg", "SHA=b2"]],
        change: nothing,
        expected: NOTHING,
    },
    Row {
        name: "argument that a copy uses",
        dockerfile: "FROM busybox:latest\nARG TO=/d\nCOPY pkg.txt $TO\n",
        arguments: [&[], &["--build-arg", "TO=/e"]],
        change: nothing,
        expected: "[2/2] COPY pkg.txt /e  (Dockerfile:3)\n    copy to changed: \"/d\" -> \"/e\"\n",
    },
    Row {
        name: "proxy that is declared",
        dockerfile: "FROM busybox:latest\nARG HTTP_PROXY\nRUN true > /x\n",
        arguments: [
            &["--build-arg", "HTTP_PROXY=http://127.0.0.1:1"],
            &["--build-arg", "HTTP_PROXY=http://127.0.0.1:2"],
        ],
        change: nothing,
        expected: "[2/2] RUN true > /x  (Dockerfile:3)\n    ARG HTTP_PROXY changed: \"http://127.0.0.1:1\" -> \"http://127.0.0.1:2\" \
                   (line 2, not mentioned by the command)\n",
    },
    Row {
        name: "id and sharing of a cache mount",
        dockerfile: "FROM busybox:latest\nRUN --mount=type=cache,id=one,target=/c echo x >> /c/log\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                "FROM busybox:latest\nRUN --mount=type=cache,id=two,target=/c,sharing=locked echo x >> /c/log\n",
            )
        },
        expected: NOTHING,
    },
    Row {
        name: "target of a cache mount",
        dockerfile: "FROM busybox:latest\nRUN --mount=type=cache,id=one,target=/c true > /x\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                "FROM busybox:latest\nRUN --mount=type=cache,id=one,target=/d true > /x\n",
            )
        },
        expected: "[2/2] RUN --mount=type=cache,id=one,target=/d true > /x  (Dockerfile:2)\n    \
                   mount /c is gone: \"cache writable\"\n    mount /d is new: \"cache writable\"\n",
    },
    Row {
        name: "mode and owner of a cache mount",
        dockerfile: "FROM busybox:latest\nRUN --mount=type=cache,target=/c true > /x\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                "FROM busybox:latest\nRUN --mount=type=cache,target=/c,mode=0700,uid=7 true > /x\n",
            )
        },
        expected: "[2/2] RUN --mount=type=cache,target=/c,mode=0700,uid=7 true > /x  (Dockerfile:2)\n    \
                   mount /c: mode is new: \"700\"\n    mount /c: uid is new: \"7\"\n",
    },
    Row {
        name: "another source of a mount with the same content",
        dockerfile: "FROM busybox:latest\nRUN --mount=type=bind,source=lib,target=/m ls /m > /x\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write("lib2/x.txt", "x\n")?;
            project.write(
                "Dockerfile",
                "FROM busybox:latest\nRUN --mount=type=bind,source=lib2,target=/m ls /m > /x\n",
            )
        },
        expected: NOTHING,
    },
    Row {
        name: "content beside the source of a mount",
        dockerfile: "FROM busybox:latest\nRUN --mount=type=bind,source=lib,target=/m ls /m > /x\n",
        arguments: [&[], &[]],
        change: |project| project.write("pkg.txt", "two\n"),
        expected: NOTHING,
    },
    Row {
        name: "base with other metadata and the same layers",
        dockerfile: "FROM base:1\nRUN echo x > /x\n",
        arguments: [&[], &[]],
        change: |project| base_of(project, "FROM busybox:latest\nRUN echo one > /base\nLABEL l=m\n"),
        expected: "[2/2] RUN echo x > /x  (Dockerfile:2)\n    kept: its inputs came out the same\n\
                   early cutoff: 1 step was kept, its inputs came out the same (saved …s)\n",
    },
    Row {
        name: "base of a linked copy",
        dockerfile: "FROM base:1\nCOPY --link pkg.txt /p\n",
        arguments: [&[], &[]],
        change: |project| base(project, "two"),
        expected: NOTHING,
    },
    Row {
        name: "users of the base of a copy that names one",
        dockerfile: "FROM busybox:latest\nRUN echo me:x:77:77::/:/bin/sh >> /etc/passwd\nCOPY --chown=me pkg.txt /named\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                "FROM busybox:latest\nRUN echo me:x:78:78::/:/bin/sh >> /etc/passwd\nCOPY --chown=me pkg.txt /named\n",
            )
        },
        expected: "[2/3] RUN echo me:x:78:78::/:/bin/sh >> /etc/passwd  (Dockerfile:2)\n    the command changed\n      \
                   - /bin/sh -c echo me:x:77:77::/:/bin/sh >> /etc/passwd\n      \
                   + /bin/sh -c echo me:x:78:78::/:/bin/sh >> /etc/passwd\n\
                   [3/3] COPY --chown=me pkg.txt /named  (Dockerfile:3)\n    \
                   after [2/3] RUN echo me:x:78:78::/:/bin/sh >> /etc/passwd\n",
    },
    Row {
        name: "renamed stage",
        dockerfile: "FROM busybox:latest AS one\nRUN echo 1 > /1\nFROM busybox:latest\nCOPY --from=one /1 /\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                "FROM busybox:latest AS other\nRUN echo 1 > /1\nFROM busybox:latest\nCOPY --from=other /1 /\n",
            )
        },
        expected: NOTHING,
    },
    Row {
        name: "earlier stage with the same mounted files",
        dockerfile: "FROM busybox:latest AS made\nARG ROUND=1\nRUN echo $ROUND > /noise && mkdir /d && echo x > /d/f\n\
            FROM busybox:latest\nRUN --mount=from=made,source=/d,target=/d cat /d/f > /out\n",
        arguments: [&[], &["--build-arg", "ROUND=2"]],
        change: nothing,
        expected: "[made 2/2] RUN echo 2 > /noise && mkdir /d && echo x > /d/f  (Dockerfile:3)\n    ARG ROUND changed: \"1\" -> \"2\" (line 2)\n\
                   [stage-1 2/2] RUN --mount=from=made,source=/d,target=/d cat /d/f > /out  (Dockerfile:5)\n    \
                   kept: its inputs came out the same\n\
                   early cutoff: 1 step was kept, its inputs came out the same (saved …s)\n",
    },
    Row {
        name: "comments, blanks, upper and lower case",
        dockerfile: "FROM busybox:latest\nCOPY pkg.txt /d/\nRUN echo x > /x\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                "# a comment\nfrom busybox:latest as named\n\ncopy   pkg.txt  \\\n # inside\n  /d/\n\nrun echo x > /x\n",
            )
        },
        expected: NOTHING,
    },
    Row {
        name: "order of copies",
        dockerfile: "FROM busybox:latest\nCOPY pkg.txt /a\nCOPY lib/x.txt /b\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                "FROM busybox:latest\nCOPY lib/x.txt /b\nCOPY pkg.txt /a\n",
            )
        },
        expected: "[2/3] COPY lib/x.txt /b  (Dockerfile:2)\n    it came after [2/3] COPY pkg.txt /a before\n\
                   [3/3] COPY pkg.txt /a  (Dockerfile:3)\n    after [2/3] COPY lib/x.txt /b\n",
    },
    Row {
        name: "a step that is gone",
        dockerfile: "FROM busybox:latest\nCOPY pkg.txt /a\nCOPY lib/x.txt /b\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\nCOPY lib/x.txt /b\n"),
        expected: "[2/2] COPY lib/x.txt /b  (Dockerfile:2)\n    it came after [2/3] COPY pkg.txt /a before\n",
    },
    Row {
        name: "body of a here-document that runs",
        dockerfile: "FROM busybox:latest\nRUN <<E\necho one > /o\nE\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\nRUN <<E\necho two > /o\nE\n"),
        expected: "[2/2] RUN <<E (echo two > /o)  (Dockerfile:2)\n    the command changed\n      \
                   - /bin/sh -c echo one > /o \n      + /bin/sh -c echo two > /o \n",
    },
    Row {
        name: "body of a here-document that is copied",
        dockerfile: "FROM busybox:latest\nCOPY <<E /o\none\nE\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\nCOPY <<E /o\ntwo\nE\n"),
        expected: "[2/2] COPY <<E /o  (Dockerfile:2)\n    heredoc changed\n",
    },
    Row {
        name: "labels and other metadata",
        dockerfile: "FROM busybox:latest\nLABEL a=1\nRUN echo a > /a\nCMD [\"x\"]\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                "FROM busybox:latest\nLABEL a=2\nEXPOSE 80\nRUN echo a > /a\nCMD [\"y\"]\n",
            )
        },
        expected: NOTHING,
    },
];

/// Only root can give a context's file away.
pub(crate) const OWNER: Row = Row {
    name: "owner of a context's file",
    dockerfile: COPY,
    arguments: [&[], &[]],
    change: |project| {
        Ok(std::os::unix::fs::chown(
            project.path("pkg.txt"),
            Some(1234),
            Some(4321),
        )?)
    },
    expected: NOTHING,
};

/// Makes the image `base:1`.
pub(crate) fn base(project: &Project, text: &str) -> Result<()> {
    base_of(
        project,
        &format!("FROM busybox:latest\nRUN echo {text} > /base\n"),
    )
}

/// Makes the image `base:1` of a Dockerfile.
fn base_of(project: &Project, dockerfile: &str) -> Result<()> {
    let context = project.scratch("base");
    std::fs::create_dir_all(&context)?;
    std::fs::write(context.join("Dockerfile"), dockerfile)?;
    let mut request = project.request.clone();
    (request.context, request.tag) = (context, "base:1".to_owned());
    kiln_e2e::builder::run(&mut project.kiln.build_command(&request))?.success()?;
    Ok(())
}
