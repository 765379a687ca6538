//! When a step is taken from the cache and when it is not.
//!
//! The truth table; tests of other files have the file's name before them. The last column names the test that holds
//! what `kiln why` says of the row.
//!
//! | what changes | next build | test | `kiln why` |
//! |---|---|---|---|
//! | nothing | hit | second build is cached | why/nothing changed |
//! | times of files and folders | hit | touch is a hit; touch of a folder is a hit | why/touch; why/touch of a folder |
//! | owner of a context's file | hit | owner of a context file is no matter | why/owner of a context's file |
//! | mode of a file | miss | changed mode is a miss | why/chmod |
//! | content, with the old time and size | miss | changed bytes under an old time are a miss | why/other bytes under the old size and time |
//! | context elsewhere, equal metadata, other content | miss | contexts of equal metadata are told apart | why/a context elsewhere of equal metadata |
//! | name of a copied folder, same content | hit | renamed folder of the same content is a hit | why/renamed directory of the same content |
//! | name of a copied file | miss where it counts | renamed file is a miss only where its name counts | why/renamed file |
//! | name inside a copied folder | miss | rename inside a copied folder is a miss | why/rename inside a copied folder |
//! | file that `COPY pkg*` does not match | hit | file that no step copies is no matter | why/file that no pattern takes |
//! | ignored or excluded file | hit | ignored file is no matter; excluded file is no matter | why/ignored file; why/excluded file |
//! | build argument, before its declaration | hit | argument before its declaration is a hit | why/argument before its declaration |
//! | build argument, after its declaration | miss | changed argument misses after its declaration | why/argument that the command uses; why/argument that the command does not mention |
//! | build argument that a copy does not use | hit | argument that a copy does not use is no matter to it | why/argument that a copy does not use; why/argument that a copy uses |
//! | proxy, undeclared | hit | changed proxy is a hit | why/proxy |
//! | proxy, declared | miss | declared proxy is a miss | why/proxy that is declared |
//! | address of an extra host | hit | extra hosts count by their names | why/address of an extra host |
//! | name of an extra host | miss | extra hosts count by their names | why/name of an extra host |
//! | value of a secret | hit | a secret counts by its id; secrets/what decides about the cache | why/value of a secret |
//! | id of a secret | miss | a secret counts by its id; secrets/what decides about the cache | why/id of a secret |
//! | id, sharing, content of a cache mount | hit | a cache mount counts by its place; mounts/a cache mount is kept from build to build | why/id and sharing of a cache mount |
//! | target, mode, owner of a cache mount | miss | a cache mount counts by its place | why/target of a cache mount; why/mode and owner of a cache mount |
//! | source of a bind mount, same content | hit | source of a bind mount counts by what it shows | why/another source of a mount with the same content |
//! | content of a bind mount's source | miss | mounts/a bind of the context counts by what it shows | why/source of a mount |
//! | content beside a bind mount's source | hit | mounts/a bind of the context counts by what it shows | why/content beside the source of a mount |
//! | other name for the base, same DiffIDs | hit | base of another name and the same content is a hit | why/base of another name and the same layers |
//! | other metadata of the base, same DiffIDs | hit | base built again with other metadata is a hit | why/base with other metadata and the same layers |
//! | content of the base | miss | changed base is a miss | why/base |
//! | base of a linked copy | hit | linked copy outlives its base | why/base of a linked copy |
//! | users of the base, for `--chown=NAME` | miss | other users are a miss for a copy that names one | why/users of the base of a copy that names one |
//! | `--no-cache`, `--no-cache-filter` | miss | no-cache runs everything; no-cache-filter runs the steps of its stages | why/no-cache; why/no-cache-filter |
//! | result of a process, older than `--cache-ttl` | miss | cache_trust/results age; cache_trust/a result that is found again is as old as it is | why/cache-ttl |
//! | content, rewritten in place with the old time | miss | cache_trust/bytes rewritten in place are seen; cache_trust/files swapped by rename are seen | why/other bytes under the old size and time |
//! | order or names of stages | hit | reordered stages are a hit; renamed stage is a hit | why/reordered stages; why/renamed stage |
//! | earlier stage, same result | hit | stage rebuilt to the same content cuts off | why/early cutoff |
//! | earlier stage, same mounted files | hit | mounts/a bind of a stage counts by what it shows | why/earlier stage with the same mounted files |
//! | comments, blanks, upper and lower case | hit | comments and blanks are no matter | why/comments, blanks, upper and lower case |
//! | order of copies | miss | changed order of copies is a miss | why/order of copies |
//! | body of a here-document | miss | heredoc is a part of the key | why/body of a here-document that runs; why/body of a here-document that is copied |
//! | labels and other metadata | hit | changed metadata leaves the steps cached | why/labels and other metadata |
//! | file at an address, same content | hit | remote/an unchanged file is asked for and not downloaded | why/file at an address |

mod arguments;
mod bases;
mod context;
mod dockerfile;
mod lent;
mod steps;

use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named};
use kiln_e2e::{Result, ensure};
use std::process::ExitCode;

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("second build is cached", steps::second_build_is_cached),
        ("touch is a hit", context::touch_is_a_hit),
        (
            "changed source redoes the last copy only",
            context::changed_source,
        ),
        (
            "changed requirements run their step again",
            context::changed_requirements,
        ),
        ("changed mode is a miss", context::changed_mode),
        (
            "changed bytes under an old time are a miss",
            context::changed_under_old_time,
        ),
        (
            "contexts of equal metadata are told apart",
            context::equal_metadata,
        ),
        ("file that no step copies is no matter", context::file_not_copied),
        ("ignored file is no matter", context::ignored_file),
        ("stage rebuilt to the same content cuts off", steps::early_cutoff),
        (
            "changed argument misses after its declaration",
            arguments::changed_argument,
        ),
        ("changed proxy is a hit", arguments::changed_proxy),
        ("no-cache runs everything", steps::no_cache),
        ("changed base is a miss", bases::changed_base),
        ("linked copy outlives its base", bases::linked_copy),
        ("excluded file is no matter", context::excluded_file),
        (
            "steps are shared between Dockerfiles",
            dockerfile::shared_between_dockerfiles,
        ),
        (
            "changed metadata leaves the steps cached",
            dockerfile::changed_metadata,
        ),
        ("failed step is not remembered", steps::failed_step),
        ("touch of a folder is a hit", context::touched_folder),
        (
            "owner of a context file is no matter",
            context::changed_context_owner,
        ),
        (
            "renamed folder of the same content is a hit",
            context::renamed_folder,
        ),
        (
            "renamed file is a miss only where its name counts",
            context::renamed_file,
        ),
        ("rename inside a copied folder is a miss", context::renamed_inside),
        (
            "argument that a copy does not use is no matter to it",
            arguments::argument_of_a_copy,
        ),
        (
            "argument before its declaration is a hit",
            arguments::argument_before_declaration,
        ),
        ("declared proxy is a miss", arguments::declared_proxy),
        (
            "base of another name and the same content is a hit",
            bases::renamed_base,
        ),
        (
            "base built again with other metadata is a hit",
            bases::rebuilt_base,
        ),
        (
            "no-cache-filter runs the steps of its stages",
            steps::no_cache_filter,
        ),
        ("reordered stages are a hit", dockerfile::reordered_stages),
        ("renamed stage is a hit", dockerfile::renamed_stage),
        (
            "other users are a miss for a copy that names one",
            bases::changed_users,
        ),
        ("comments and blanks are no matter", dockerfile::changed_writing),
        ("changed order of copies is a miss", dockerfile::changed_order),
        ("heredoc is a part of the key", dockerfile::changed_heredoc),
        ("extra hosts count by their names", lent::changed_hosts),
        ("a secret counts by its id", lent::changed_secret),
        ("a cache mount counts by its place", lent::changed_cache_mount),
        (
            "source of a bind mount counts by what it shows",
            lent::changed_bind_source,
        ),
    ];
    trial::run_all("caching", tests)
}

/// The shape of the tutorials' Python app, with a step in place of pip that counts how often it ran.
const APP: &str = "FROM busybox:latest\nWORKDIR /app\nCOPY requirements.txt .\n\
    RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token\nCOPY . .\nCMD [\"cat\", \"app.py\"]\n";

fn app(name: &str) -> Result<Project> {
    let files = [
        ("Dockerfile", APP),
        ("requirements.txt", "b\na\n"),
        ("app.py", "one\n"),
        ("lib/x.py", "x\n"),
    ];
    Project::new(name, &files)
}

/// Fails unless exactly these steps ran.
fn ran(found: &[String], expected: &[&str]) -> Result<()> {
    ensure!(found == expected, "not cached: {found:?}, expected: {expected:?}");
    Ok(())
}

const INSTALL: &str = "RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token";

/// A Dockerfile and files, built once.
fn built(name: &str, files: &[(&str, &str)]) -> Result<Project> {
    let project = Project::new(name, files)?;
    project.build(&[])?;
    Ok(project)
}
