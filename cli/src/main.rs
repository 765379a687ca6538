//! The `kiln` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A sandbox's first process is this program again: it must not get any further than here.
    kiln_executor::init::main_if_init();
    kiln_cli::main()
}
