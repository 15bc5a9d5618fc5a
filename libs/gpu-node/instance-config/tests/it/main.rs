//! The crate as others use it: real files in, findings, commands and files out.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test that called it")]

mod catalog;
mod command_line;
mod creating;
mod engine_environment;
mod findings;
mod home_choice;
mod migration;
mod model_path;
mod patching;
mod reading;
mod sandbox;
mod schema;
mod writing;
