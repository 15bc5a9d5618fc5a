//! Providers of text for workflows: our own gateway, Ollama, OpenAI, Anthropic, MLX and whatever speaks OpenAI's
//! protocol, behind one port that streams.
//!
//! This crate deliberately knows no job, no journal and no retry: one call is one attempt, and its failure says of
//! which kind it is. What belongs to a provider as a whole lives here: its connections, its circuit breaker, and
//! the waits that it asks for.
//!
//! Read first: [`ProviderSetting`], who is asked and where, and [`FAILURE_TABLE`], what a provider's answer means.

mod access;
mod breaker;
mod clients;
mod collect;
mod dialect;
mod environment;
mod exchange;
mod failures;
mod framing;
mod hold;
mod provider;
mod providers;
mod public_address;
mod refused_schemas;
mod services;
mod setting;
mod waits;
mod weights;
mod wording;

pub use access::{Access, Token};
pub use environment::{default_provider, from_environment};
pub use failures::{FAILURE_TABLE, FailureRow, Said};
pub use providers::Providers;
pub use services::{Reach, Services};
pub use setting::{Api, ProviderKind, ProviderSetting};
