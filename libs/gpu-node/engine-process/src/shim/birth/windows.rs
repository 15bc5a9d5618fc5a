//! Windows: the starter has given the shim a console and standard streams of its own already.

use super::Side;
use crate::sys;

pub(super) use crate::sys::release_standard_streams;

/// There is no fork here; the starter does not wait for the end of what it starts.
pub(in crate::shim) fn leave_the_starter() -> Side {
    sys::leave_starter();
    Side::Shim
}
