//! What clients and engines say to each other: dialects, error shapes, and what can be read off a body that
//! is only passing through.
//!
//! This crate deliberately knows no socket, no clock and no routing. Everything here works on bytes that
//! somebody else moves, with bounded memory, so it can be property-tested and fuzzed as it stands.
//!
//! Read first: [`Dialect`], whose language an answer is in, and [`Problem`], the one shape in which a
//! refusal reaches a client.

mod anthropic_start;
mod dialect;
mod end_marker;
mod endpoint;
mod engine_error;
mod error_body;
mod event_aligner;
mod json_fields;
mod multipart;
mod problem;
mod prompt_text;
mod translate;
mod usage;

pub use anthropic_start::MessageStartRepair;
pub use dialect::Dialect;
pub use end_marker::EndMarker;
pub use endpoint::{Endpoint, endpoint_paths, find_endpoint};
pub use engine_error::engine_problem;
pub use error_body::{error_body, terminal_event};
pub use event_aligner::EventAligner;
pub use json_fields::{BodyError, BodyFields, fields_in_json};
pub use multipart::{boundary_of, model_in_multipart};
pub use problem::{ContextNumbers, Problem};
pub use prompt_text::{PromptPiece, each_prompt_piece, has_prompt};
pub use translate::{
    About, AnswerFault, AnswerPlan, AnswerReader, AnswerTranslator, AnthropicReader, Counts, Delta, Event,
    EventReader, Finish, OpenAiReader, Piece, TooLong, ToolCall, ToolCalls, ToolPiece, Translated,
    anthropic_to_openai, openai_to_anthropic, translate_ollama,
};
pub use usage::{Usage, UsageScanner};
