//! What privilege forbids and a copy or an unpacking goes on without.

/// How often something could not be done for want of privilege, and was let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// Entries whose owner this user namespace does not have; they are the process's own instead.
    pub owners: u64,
    /// Devices that were left out, because a user namespace may not make any.
    pub devices: u64,
    /// Extended attributes that the destination does not take.
    pub xattrs: u64,
}

impl Refused {
    /// Adds what was refused elsewhere.
    pub fn absorb(&mut self, other: Self) {
        self.owners += other.owners;
        self.devices += other.devices;
        self.xattrs += other.xattrs;
    }
}
