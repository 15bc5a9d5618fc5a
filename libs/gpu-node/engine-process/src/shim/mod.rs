//! The shim: one small process for each engine. It is the engine's parent, keeps its logs in bounds, tells when
//! it is ready and how it ended, and outlives every daemon.
//!
//! It uses no threads and no async runtime, so that it costs next to nothing for weeks.

#[cfg(unix)]
mod birth;
#[cfg(unix)]
mod ending;
#[cfg(unix)]
mod keeper;
#[cfg(unix)]
mod log_keeper;
#[cfg(unix)]
mod readiness;
#[cfg(unix)]
mod rotation;
#[cfg(unix)]
mod start;

/// The whole life of a shim. `main` enters here, before anything else, when the first argument is `shim`.
/// Returns the exit code of the process.
#[cfg(unix)]
pub fn shim_main() -> u8 {
    // The first process ends at once, so that whoever started it has nothing to wait for.
    if birth::leave_the_starter() == birth::Side::Starter {
        return 0;
    }
    match birth::read_request() {
        Ok(request) => start::serve(request),
        Err(error) => {
            birth::answer(&start::failed(crate::protocol::Step::Request, &error));
            1
        }
    }
}

/// Engines need file locks that a child inherits and a parent that may die first; on Windows job objects will
/// take that part. Until then a start is refused there, plainly.
#[cfg(not(unix))]
pub fn shim_main() -> u8 {
    1
}
