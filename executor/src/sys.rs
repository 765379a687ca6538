//! Raw system calls that no safe wrapper covers, one small module each.

pub(crate) mod capset;
pub(crate) mod clone;
pub(crate) mod fds;
pub(crate) mod fork;
pub(crate) mod interface;
pub(crate) mod mount_setattr;
pub(crate) mod seccomp;
pub(crate) mod signals;
pub(crate) mod unshare;
