//! Addresses of git repositories as Dockerfiles and command lines write them.
//!
//! `https://host/repository.git#ref:subdirectory`, the same with `ssh://`, `git://` and `http://`, the short
//! `user@host:repository.git`, and the query form `?ref=…&subdir=…`. What the fragment, the query and flags say
//! twice must agree.

use crate::percent;

/// Where an address was written: the forms that are taken for one differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// A source of `ADD`.
    Add,
    /// A build context, where `github.com/user/repository` is an address, too.
    Context,
}

/// Which time the files get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Modified {
    /// That of the checkout.
    #[default]
    Checkout,
    /// That of the commit.
    Commit,
}

/// A repository, and what is wanted of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitAddress {
    /// What git is given as the remote.
    pub remote: String,
    /// A branch, a tag, another reference, or a commit's full hash; `None` is the remote's default branch.
    pub reference: Option<String>,
    /// The directory that is wanted, relative and without `..`; empty for all.
    pub subdirectory: String,
    /// What the commit's (or its tag's) hash must begin with.
    pub checksum: Option<String>,
    /// Whether `.git` stays; `None` when the address does not say.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched; `None` when the address does not say.
    pub submodules: Option<bool>,
    /// The files' times.
    pub modified: Modified,
    /// The checksum is the commit: the remote is not asked where the reference points.
    pub fetch_by_commit: bool,
}

/// A text that is meant for a repository's address and is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The fragment, the query or a flag contradict each other.
    #[error("conflicting {what}: {first:?} and {second:?}")]
    Conflict {
        /// What is said twice.
        what: &'static str,
        /// Once.
        first: String,
        /// And once more.
        second: String,
    },
    /// A name in the query that means nothing.
    #[error("unknown query parameter {0:?}")]
    UnknownParameter(String),
    /// A name in the query comes twice.
    #[error("query parameter {0:?} is given more than once")]
    Repeated(String),
    /// A name in the query needs a value.
    #[error("query parameter {0:?} has no value")]
    NoValue(String),
    /// A value that is not possible.
    #[error("invalid value {value:?} of query parameter {name:?}: {expected}")]
    Value {
        /// The parameter.
        name: String,
        /// Its value.
        value: String,
        /// What is possible.
        expected: &'static str,
    },
    /// A percent escape is broken.
    #[error("malformed percent-encoding in {0:?}")]
    Encoding(String),
    /// Git would take it for an option, or it holds what no reference can.
    #[error("invalid reference {0:?}")]
    Reference(String),
    /// The remote cannot be one.
    #[error("invalid repository address {0:?}")]
    Remote(String),
    /// The subdirectory leads out of the repository.
    #[error("subdirectory {0:?} leads out of the repository")]
    Subdirectory(String),
    /// The checksum is no beginning of a commit's hash.
    #[error("invalid checksum {0:?}: a commit's hash in hexadecimal digits, or its beginning, is expected")]
    Checksum(String),
    /// `fetch-by-commit` without a whole hash.
    #[error("fetch-by-commit needs a full commit hash as reference or checksum")]
    NoCommit,
}

/// Hosts whose addresses need no scheme in [`Dialect::Context`].
const KNOWN_HOSTS: &[&str] = &["github.com"];

impl GitAddress {
    /// Reads an address; `None` when the text is none: a path, or the URL of a file.
    pub fn parse(text: &str, dialect: Dialect) -> Option<Result<Self, AddressError>> {
        let (rest, fragment) = split(text, '#');
        let (base, query) = split(rest, '?');
        let remote = remote(base, dialect)?;
        Some(remote.and_then(|remote| Self::complete(remote, fragment, query)))
    }

    fn complete(remote: String, fragment: Option<&str>, query: Option<&str>) -> Result<Self, AddressError> {
        let mut address = Self {
            remote,
            ..Self::default()
        };
        if let Some(fragment) = fragment {
            let decoded = percent::decode(fragment).ok_or(AddressError::Encoding(fragment.to_owned()))?;
            let (reference, subdirectory) = decoded.split_once(':').unwrap_or((&decoded, ""));
            address.reference = non_empty(reference);
            address.subdirectory = clean_subdirectory(subdirectory)?;
        }
        if let Some(query) = query {
            let pairs = percent::query(query).ok_or(AddressError::Encoding(query.to_owned()))?;
            address.apply_query(&pairs)?;
        }
        address.check()?;
        Ok(address)
    }

    fn apply_query(&mut self, pairs: &[(String, String)]) -> Result<(), AddressError> {
        let mut branch_or_tag: Option<String> = None;
        for (position, (name, value)) in pairs.iter().enumerate() {
            if pairs[..position].iter().any(|(earlier, _)| earlier == name) {
                return Err(AddressError::Repeated(name.clone()));
            }
            let is_switch = matches!(name.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_switch && PARAMETERS.contains(&name.as_str()) {
                return Err(AddressError::NoValue(name.clone()));
            }
            match name.as_str() {
                "ref" => agree("reference", &mut self.reference, value)?,
                "tag" => agree("reference", &mut branch_or_tag, &prefixed("refs/tags/", value))?,
                "branch" => agree("reference", &mut branch_or_tag, &prefixed("refs/heads/", value))?,
                "subdir" => self.agree_subdirectory(value)?,
                "checksum" | "commit" => self.agree_checksum(value)?,
                "keep-git-dir" => self.keep_git_dir = Some(switch(name, value)?),
                "submodules" => self.submodules = Some(switch(name, value)?),
                "fetch-by-commit" => self.fetch_by_commit = switch(name, value)?,
                "mtime" => self.modified = modified(name, value)?,
                _ => return Err(AddressError::UnknownParameter(name.clone())),
            }
        }
        match branch_or_tag {
            Some(full) => agree("reference", &mut self.reference, &full),
            None => Ok(()),
        }
    }

    fn agree_subdirectory(&mut self, value: &str) -> Result<(), AddressError> {
        let wanted = clean_subdirectory(value)?;
        if !self.subdirectory.is_empty() && self.subdirectory != wanted {
            return Err(AddressError::Conflict {
                what: "subdirectory",
                first: self.subdirectory.clone(),
                second: wanted,
            });
        }
        self.subdirectory = wanted;
        Ok(())
    }

    /// Takes a checksum given beside the address (`--checksum`); one in the address must be the same.
    pub fn agree_checksum(&mut self, value: &str) -> Result<(), AddressError> {
        let valid = (1..=64).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !valid {
            return Err(AddressError::Checksum(value.to_owned()));
        }
        agree("checksum", &mut self.checksum, &value.to_ascii_lowercase())
    }

    /// Takes `--keep-git-dir`; what the address says must be the same.
    pub fn agree_keep_git_dir(&mut self, value: bool) -> Result<(), AddressError> {
        match self.keep_git_dir {
            Some(other) if other != value => Err(AddressError::Conflict {
                what: "keep-git-dir",
                first: other.to_string(),
                second: value.to_string(),
            }),
            _ => {
                self.keep_git_dir = Some(value);
                Ok(())
            }
        }
    }

    fn check(&self) -> Result<(), AddressError> {
        if let Some(reference) = &self.reference
            && !is_possible_reference(reference)
        {
            return Err(AddressError::Reference(reference.clone()));
        }
        if self.fetch_by_commit && self.commit().is_none() {
            return Err(AddressError::NoCommit);
        }
        Ok(())
    }

    /// The commit's full hash, when the address has it and the remote need not be asked.
    pub fn commit(&self) -> Option<&str> {
        let reference = self.reference.as_deref().filter(|text| is_commit_hash(text));
        let checksum = self.checksum.as_deref().filter(|text| is_commit_hash(text));
        reference.or(checksum.filter(|_| self.fetch_by_commit))
    }

    /// The remote without a password, for people and for images.
    pub fn public_remote(&self) -> String {
        public(&self.remote)
    }
}

/// All names that a query may have.
const PARAMETERS: &[&str] = &[
    "ref",
    "tag",
    "branch",
    "subdir",
    "checksum",
    "commit",
    "keep-git-dir",
    "submodules",
    "mtime",
    "fetch-by-commit",
];

/// A full hash of a commit: SHA-1 or SHA-256.
pub(crate) fn is_commit_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A remote without user information that holds a password.
pub fn public(remote: &str) -> String {
    let Some((scheme, rest)) = remote.split_once("://") else {
        return remote.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, host)) if scheme.starts_with("http") || user.contains(':') => {
            // A token may stand alone where the name of a user does.
            let name = user
                .split_once(':')
                .map_or(String::new(), |(name, _)| format!("{name}:"));
            format!("{scheme}://{name}xxxxx@{host}{}", &rest[end..])
        }
        _ => remote.to_owned(),
    }
}

fn split(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn prefixed(prefix: &str, value: &str) -> String {
    if value.starts_with(prefix) {
        value.to_owned()
    } else {
        format!("{prefix}{value}")
    }
}

/// Sets what is not set, and refuses another value for what is.
fn agree(what: &'static str, old: &mut Option<String>, new: &str) -> Result<(), AddressError> {
    match old {
        Some(first) if first != new => Err(AddressError::Conflict {
            what,
            first: first.clone(),
            second: new.to_owned(),
        }),
        _ => {
            *old = Some(new.to_owned());
            Ok(())
        }
    }
}

fn switch(name: &str, value: &str) -> Result<bool, AddressError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(AddressError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            expected: "true or false is expected",
        }),
    }
}

fn modified(name: &str, value: &str) -> Result<Modified, AddressError> {
    match value {
        "checkout" => Ok(Modified::Checkout),
        "commit" => Ok(Modified::Commit),
        _ => Err(AddressError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            expected: "\"checkout\" or \"commit\" is expected",
        }),
    }
}

/// The remote of an address without query and fragment; `None` when it is no address of a repository.
fn remote(base: &str, dialect: Dialect) -> Option<Result<String, AddressError>> {
    if let Some((scheme, rest)) = base.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        let path = rest.find('/').map_or("", |slash| &rest[slash..]);
        let is_git = match scheme.as_str() {
            "git" | "ssh" => true,
            "http" | "https" => percent::decode(path).is_some_and(|path| path.strip_suffix(".git").is_some()),
            _ => false,
        };
        return is_git.then(|| checked_remote(&format!("{scheme}://{rest}"), rest));
    }
    if dialect == Dialect::Context
        && KNOWN_HOSTS
            .iter()
            .any(|host| base.strip_prefix(host).is_some_and(|rest| rest.starts_with('/')))
    {
        return Some(checked_remote(&format!("https://{base}"), base));
    }
    is_short_ssh(base).then(|| checked_remote(base, base))
}

/// `user@host:path`, as `scp` has it.
fn is_short_ssh(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else {
        return false;
    };
    let Some((host, path)) = rest.split_once(':') else {
        return false;
    };
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    word(user) && word(host) && !path.is_empty()
}

/// `rest` begins with the host. Git takes what begins with `-` for an option, and so does ssh a host.
fn checked_remote(remote: &str, rest: &str) -> Result<String, AddressError> {
    let authority = rest.split(['/']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let is_clean = remote.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    if !is_clean || host.is_empty() || host.starts_with('-') || remote.starts_with('-') {
        return Err(AddressError::Remote(public(remote)));
    }
    Ok(remote.to_owned())
}

/// What git itself forbids in a reference's name, and what would be an option or a refspec.
fn is_possible_reference(text: &str) -> bool {
    let forbidden =
        |byte: u8| byte <= b' ' || matches!(byte, 0x7f | b'~' | b'^' | b':' | b'?' | b'*' | b'[' | b'\\');
    !text.starts_with(['-', '+', '/'])
        && !text.ends_with(['/', '.'])
        && !text.contains("..")
        && !text.contains("@{")
        && !text.contains("//")
        && !text.bytes().any(forbidden)
}

/// A relative path without `.`, `..` and empty components. What leads out of the repository is refused rather
/// than cut off: somebody meant something by it.
fn clean_subdirectory(text: &str) -> Result<String, AddressError> {
    let mut components: Vec<&str> = Vec::new();
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                if components.pop().is_none() {
                    return Err(AddressError::Subdirectory(text.to_owned()));
                }
            }
            name if name.contains('\0') => return Err(AddressError::Subdirectory(text.to_owned())),
            name => components.push(name),
        }
    }
    Ok(components.join("/"))
}

#[cfg(test)]
mod tests;
