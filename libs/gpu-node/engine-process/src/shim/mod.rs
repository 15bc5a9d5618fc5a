//! The shim: one small process for each engine. It is the engine's parent, keeps its logs in bounds, tells when
//! it is ready and how it ended, and outlives every daemon.
//!
//! It uses no threads and no async runtime, so that it costs next to nothing for weeks.

mod birth;
mod charge;
mod ending;
mod keeper;
mod log_keeper;
mod readiness;
mod rotation;
mod start;

/// The whole life of a shim. `main` enters here, before anything else, when the first argument is `shim`.
/// Returns the exit code of the process.
pub fn shim_main() -> u8 {
    // On systems that fork, the first process ends at once: whoever started it has nothing to wait for.
    if birth::leave_the_starter() != birth::Side::Shim {
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
