//! One machine with engines, as a daemon: supervision of a home's instances and `/v2` over them.
//!
//! `orchestratord` links this in at home and puts its gateway in front; alone it runs as `pool-managerd`. The
//! crate deliberately knows no gateway and no dialect of clients: who routes requests is told through a port.
//!
//! Read first: [`compose::open_node`], how the libraries are wired, and [`api::router`], what can be asked.

pub mod api;
pub mod compose;
pub mod daemon_file;
mod door;
mod home_daemon;
pub mod housekeeping;
pub mod node;
mod own_log;

pub use door::{Door, Found, Keys, Need, Visitor, is_ours};
pub use home_daemon::HomeDaemon;
