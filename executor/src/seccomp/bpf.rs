//! Emits the BPF program.
//!
//! Everything is built from blocks that end in a return, so that jumps go forward only: a condition
//! either falls into the first block or skips it. Conditional jumps reach 255 instructions; where a
//! block may be longer, an unconditional jump (32 bits) follows the condition.

use libc::sock_filter;
use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator as Op};

use super::{Architecture, Outcome, Rule, X32_BIT};

/// `BPF_MAXINSNS`.
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

const KILL_PROCESS: u32 = 0x8000_0000;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const GREATER_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn condition(code: u16, k: u32, jt: usize, jf: usize) -> sock_filter {
    sock_filter {
        code,
        jt: jt as u8,
        jf: jf as u8,
        k,
    }
}

/// `if code(k) { yes } else { no }`, where `yes` always returns.
fn branch(code: u16, k: u32, yes: Vec<sock_filter>, no: Vec<sock_filter>) -> Vec<sock_filter> {
    let mut program = if u8::try_from(yes.len()).is_ok() {
        vec![condition(code, k, 0, yes.len())]
    } else {
        vec![condition(code, k, 1, 0), statement(JUMP, yes.len() as u32)]
    };
    program.extend(yes);
    program.extend(no);
    program
}

/// The whole filter: one search tree an architecture; anything else is killed.
pub(super) fn program(blocks: &[(Architecture, Vec<Outcome>)], default: u32) -> Vec<sock_filter> {
    let mut program = vec![statement(RETURN, KILL_PROCESS)];
    for (architecture, outcomes) in blocks.iter().rev() {
        program = branch(
            EQUAL,
            architecture.audit(),
            block(*architecture, outcomes, default),
            program,
        );
    }
    program.insert(0, statement(LOAD, ARCH));
    program
}

fn block(architecture: Architecture, outcomes: &[Outcome], default: u32) -> Vec<sock_filter> {
    let mut ranges: Vec<(u32, &Outcome)> = Vec::new();
    for (number, outcome) in outcomes.iter().enumerate() {
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((number as u32, outcome));
        }
    }
    let known = tree(&ranges, default);
    let too_new = vec![statement(RETURN, ENOSYS)];
    let highest = outcomes.len() as u32;
    // x32 numbers are far above all others, so that one comparison catches them too.
    debug_assert!(architecture != Architecture::X86_64 || highest < X32_BIT);
    let mut program = vec![statement(LOAD, NUMBER)];
    program.extend(branch(GREATER_EQUAL, highest, too_new, known));
    program
}

/// Binary search over ranges that are given by their first numbers.
fn tree(ranges: &[(u32, &Outcome)], default: u32) -> Vec<sock_filter> {
    match ranges {
        [] => vec![statement(RETURN, default)],
        [(_, outcome)] => leaf(outcome, default),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            branch(GREATER_EQUAL, high[0].0, tree(high, default), tree(low, default))
        }
    }
}

/// Tries the rules of one outcome.
fn leaf(outcome: &Outcome, default: u32) -> Vec<sock_filter> {
    let mut program: Vec<sock_filter> = Vec::new();
    for Rule { conditions, value } in &outcome.0 {
        let mut rule = vec![statement(RETURN, *value)];
        for argument in conditions.iter().rev() {
            let mut test = compare(argument, rule.len());
            test.extend(rule);
            rule = test;
        }
        program.extend(rule);
        if conditions.is_empty() {
            return program;
        }
    }
    program.push(statement(RETURN, default));
    program
}

/// Tests one 64-bit argument, half by half; falls through when it holds, else skips `rest`
/// instructions. (At most six conditions of five instructions: `rest` stays far below 255.)
fn compare(argument: &LinuxSeccompArg, rest: usize) -> Vec<sock_filter> {
    let offset = ARGUMENTS + 8 * argument.index() as u32;
    let (load_low, load_high) = (statement(LOAD, offset), statement(LOAD, offset + 4));
    let value = argument.value();
    let (low, high) = (value as u32, (value >> 32) as u32);
    match argument.op() {
        Op::ScmpCmpEq => vec![
            load_high,
            condition(EQUAL, high, 0, 2 + rest),
            load_low,
            condition(EQUAL, low, 0, rest),
        ],
        Op::ScmpCmpNe => {
            vec![
                load_high,
                condition(EQUAL, high, 0, 2),
                load_low,
                condition(EQUAL, low, rest, 0),
            ]
        }
        Op::ScmpCmpMaskedEq => {
            let wanted = argument.value_two().unwrap_or_default();
            vec![
                load_high,
                statement(AND, high),
                condition(EQUAL, (wanted >> 32) as u32, 0, 3 + rest),
                load_low,
                statement(AND, low),
                condition(EQUAL, wanted as u32, 0, rest),
            ]
        }
        operator @ (Op::ScmpCmpGe | Op::ScmpCmpGt) => {
            let code = if operator == Op::ScmpCmpGe {
                GREATER_EQUAL
            } else {
                GREATER
            };
            vec![
                load_high,
                condition(GREATER, high, 3, 0),
                condition(EQUAL, high, 0, 2 + rest),
                load_low,
                condition(code, low, 0, rest),
            ]
        }
        operator @ (Op::ScmpCmpLt | Op::ScmpCmpLe) => {
            let code = if operator == Op::ScmpCmpLt {
                GREATER_EQUAL
            } else {
                GREATER
            };
            vec![
                load_high,
                condition(GREATER, high, 3 + rest, 0),
                condition(EQUAL, high, 0, 2),
                load_low,
                condition(code, low, rest, 0),
            ]
        }
    }
}
