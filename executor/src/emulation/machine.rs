//! How programs of an architecture are told from others, and what qemu calls it.

/// An architecture that qemu interprets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// In Go's names.
    pub architecture: &'static str,
    /// The end of the interpreter's name.
    pub qemu: &'static str,
    /// 64 bits wide, else 32.
    pub wide: bool,
    /// Least significant byte first.
    pub little_endian: bool,
    /// `e_machine` of its ELF files.
    pub number: u16,
}

const fn machine(
    architecture: &'static str,
    qemu: &'static str,
    wide: bool,
    little_endian: bool,
    number: u16,
) -> Machine {
    Machine {
        architecture,
        qemu,
        wide,
        little_endian,
        number,
    }
}

/// The architectures, in the order in which they are shown.
pub(crate) const MACHINES: [Machine; 13] = [
    machine("amd64", "x86_64", true, true, 62),
    machine("386", "i386", false, true, 3),
    machine("arm64", "aarch64", true, true, 183),
    machine("arm", "arm", false, true, 40),
    machine("riscv64", "riscv64", true, true, 243),
    machine("ppc64le", "ppc64le", true, true, 21),
    machine("s390x", "s390x", true, false, 22),
    machine("loong64", "loongarch64", true, true, 258),
    machine("mips64le", "mips64el", true, true, 8),
    machine("mips64", "mips64", true, false, 8),
    machine("mipsle", "mipsel", false, true, 8),
    machine("mips", "mips", false, false, 8),
    machine("ppc64", "ppc64", true, false, 21),
];

impl Machine {
    /// The architecture of this name.
    pub fn find(architecture: &str) -> Option<&'static Self> {
        MACHINES
            .iter()
            .find(|machine| machine.architecture == architecture)
    }

    /// The first bytes of a program.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut header = vec![0x7f, b'E', b'L', b'F'];
        header.push(if self.wide { 2 } else { 1 });
        header.push(if self.little_endian { 1 } else { 2 });
        header.push(1);
        header.resize(16, 0);
        for number in [2, self.number] {
            header.extend(if self.little_endian {
                number.to_le_bytes()
            } else {
                number.to_be_bytes()
            });
        }
        header
    }

    /// The bytes that a program is recognized by.
    pub(super) fn magic(&self) -> Vec<u8> {
        self.header()
    }

    /// Which bits of them count: not the OS ABI, and both fixed and position-independent programs (types 2 and 3).
    pub(super) fn mask(&self) -> Vec<u8> {
        let mut mask = vec![0xff; 20];
        mask[7] = 0;
        mask[if self.little_endian { 16 } else { 17 }] = 0xfe;
        mask
    }
}
