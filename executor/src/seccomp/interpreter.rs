//! Runs a filter as the kernel would, for tests.

use libc::sock_filter;

pub(super) fn run(program: &[sock_filter], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    execute(program, arch, number, args).0
}

pub(super) fn steps(program: &[sock_filter], arch: u32, number: u32, args: [u64; 6]) -> usize {
    execute(program, arch, number, args).1
}

fn execute(program: &[sock_filter], arch: u32, number: u32, args: [u64; 6]) -> (u32, usize) {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    for arg in args {
        data.extend(arg.to_le_bytes());
    }
    let (mut at, mut accumulator) = (0, 0u32);
    for step in 1..=program.len() {
        let i = program[at];
        at += 1;
        let taken = match i.code {
            0x20 => {
                let k = i.k as usize;
                accumulator = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
                continue;
            }
            0x54 => {
                accumulator &= i.k;
                continue;
            }
            0x06 => return (i.k, step),
            0x05 => {
                at += i.k as usize;
                continue;
            }
            0x15 => accumulator == i.k,
            0x25 => accumulator > i.k,
            0x35 => accumulator >= i.k,
            code => panic!("instruction {code:#x} at {}", at - 1),
        };
        at += usize::from(if taken { i.jt } else { i.jf });
    }
    panic!("the program does not end");
}
