//! Connections to engines.
//!
//! HTTP/1.1 towards an engine is spoken here and not through a general client, because this is where a
//! gateway's time goes: a general client hands each request to a task of its own and each piece of the answer
//! back through a channel. Here the task that serves the caller also reads the engine's socket, pieces of the
//! answer are slices of the buffer they were read into, and a caller who leaves takes the engine's connection
//! along at once. What is said on the wire is in [`codec`], which knows no socket.

mod answer;
mod codec;
mod connection;
mod pool;

pub(crate) use answer::Answer;
pub(crate) use codec::RequestHead;
pub(crate) use connection::{Connection, SendError};
pub(crate) use pool::IdleConnections;
