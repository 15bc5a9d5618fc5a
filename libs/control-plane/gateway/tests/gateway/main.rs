//! The gateway on real sockets, between a client that sees every byte and engines that do what they are told.

#![expect(clippy::unwrap_used, reason = "a test ends where what it builds on fails")]

mod admission;
mod bad_days;
mod choosing;
mod dialects;
mod engines;
mod failing;
mod gate;
mod keys;
mod passing;
mod recording;
mod refusing;
mod routing;
mod support;
mod waiting;
