//! Finding and executing the command.

use std::ffi::{CString, OsStr};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::execve;

use crate::error::CommandError;
use crate::plan::{Command, search_path};

/// Executes the command; returns only when that is not possible.
pub(super) fn execute(command: &Command) -> CommandError {
    let Some(name) = command.args.first() else {
        return CommandError::Empty;
    };
    let strings = |texts: &[String]| -> Vec<CString> {
        // The plan was refused if one of them contained a NUL byte.
        texts
            .iter()
            .filter_map(|text| CString::new(text.as_bytes()).ok())
            .collect()
    };
    let (args, env) = (strings(&command.args), strings(&command.env));
    if name.contains('/') {
        let errno = attempt(name, &args, &env);
        return explain(name, name, errno, None);
    }
    let path = search_path(&command.env);
    let mut denied = None;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{name}");
        match attempt(&candidate, &args, &env) {
            // Named but not usable: not the end of the search, unless it stays the best there is.
            Errno::ENOENT if Path::new(&candidate).exists() => {
                return explain(name, &candidate, Errno::ENOENT, Some(path));
            }
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => {
                denied.get_or_insert(candidate);
            }
            errno => return explain(name, &candidate, errno, Some(path)),
        }
    }
    match denied {
        Some(candidate) if Path::new(&candidate).exists() => {
            explain(name, &candidate, Errno::EACCES, Some(path))
        }
        _ => CommandError::NotFound {
            command: name.clone(),
            path: Some(path.to_owned()),
        },
    }
}

fn attempt(path: &str, args: &[CString], env: &[CString]) -> Errno {
    let Ok(path) = CString::new(path) else {
        return Errno::EINVAL;
    };
    match execve(&path, args, env) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

fn explain(name: &str, file: &str, errno: Errno, path: Option<&str>) -> CommandError {
    let command = file.to_owned();
    if errno == Errno::ENOENT || errno == Errno::ENOTDIR {
        return match interpreter(Path::new(file)) {
            Some(interpreter) => CommandError::BadInterpreter { command, interpreter },
            None => CommandError::NotFound {
                command: name.to_owned(),
                path: path.map(str::to_owned),
            },
        };
    }
    let reason = match errno {
        Errno::ENOEXEC => {
            "exec format error: not a program of this machine, nor a script that starts with #!"
        }
        Errno::EACCES if Path::new(file).is_dir() => "is a directory",
        errno => errno.desc(),
    };
    CommandError::NotExecutable {
        command,
        reason: reason.to_owned(),
    }
}

/// The interpreter that a script or a dynamically linked program names.
fn interpreter(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(4096).read_to_end(&mut start).ok()?;
    if let Some(line) = start.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        return words
            .next()
            .map(|word| OsStr::from_bytes(word).to_string_lossy().into_owned());
    }
    elf_interpreter(&start, &mut file).ok().flatten()
}

/// The `PT_INTERP` segment of a little-endian ELF file.
fn elf_interpreter(start: &[u8], file: &mut (impl Read + Seek)) -> io::Result<Option<String>> {
    if !start.starts_with(b"\x7fELF") || start.get(5) != Some(&1) {
        return Ok(None);
    }
    let wide = start.get(4) == Some(&2);
    let number = |at: usize, width: usize| -> Option<u64> {
        let bytes = start.get(at..at.checked_add(width)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    };
    let header = if wide {
        (number(32, 8), number(54, 2), number(56, 2))
    } else {
        (number(28, 4), number(42, 2), number(44, 2))
    };
    let (Some(table), Some(size), Some(count)) = header else {
        return Ok(None);
    };
    for index in 0..count {
        let Some(entry) = index.checked_mul(size).and_then(|o| o.checked_add(table)) else {
            return Ok(None);
        };
        let Ok(entry) = usize::try_from(entry) else {
            return Ok(None);
        };
        let field = |at: usize, width| entry.checked_add(at).and_then(|at| number(at, width));
        if field(0, 4) != Some(3) {
            continue;
        }
        let place = if wide {
            (field(8, 8), field(32, 8))
        } else {
            (field(4, 4), field(16, 4))
        };
        let (Some(offset), Some(length)) = place else {
            return Ok(None);
        };
        let mut name = Vec::new();
        file.seek(SeekFrom::Start(offset))?;
        file.take(length.min(4096)).read_to_end(&mut name)?;
        name.retain(|byte| *byte != 0);
        return Ok(Some(String::from_utf8_lossy(&name).into_owned()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_of_scripts_and_programs() {
        let path = std::env::temp_dir().join(format!("executor-interpreter-{}", std::process::id()));
        for (content, expected) in [
            ("#!/usr/bin/env python3\n", Some("/usr/bin/env")),
            ("#! /bin/sh -e", Some("/bin/sh")),
            ("echo\n", None),
            ("", None),
            ("\x7fELF", None),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(interpreter(&path).as_deref(), expected, "{content:?}");
        }
        std::fs::remove_file(path).unwrap();
        let ls = interpreter(Path::new("/bin/ls"));
        assert!(
            ls.is_none_or(|name| name.contains("ld-")),
            "a dynamic program names its loader"
        );
    }
}
