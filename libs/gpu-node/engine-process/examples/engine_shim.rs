//! A binary that is nothing but a shim, for this crate's own tests: what every product binary does when its
//! first argument is `shim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(engine_process::shim_main())
}
