//! From one dialect to another: a request rewritten for an engine or a provider that speaks differently, and its
//! answer brought back in the caller's words.
//!
//! An answer is read into [`Delta`]s, which know neither dialect, and written from them. So there is one reader
//! for each dialect that is understood and one writer for each that is spoken, and any two fit together.
//! Requests are rewritten as JSON; what the other side cannot do is refused rather than dropped.

mod answer;
mod delta;
mod event_reader;
mod fields;
mod ollama_messages;
mod ollama_options;
mod ollama_request;
mod read_anthropic;
mod read_openai;
mod to_anthropic;
mod to_openai;
mod tool_calls;
mod write_anthropic;
mod write_ollama;
mod write_openai;

#[cfg(test)]
mod ollama_tests;
#[cfg(test)]
mod provider_tests;

use std::time::Duration;

use bytes::Bytes;
use orch_core::{ErrorCode, UnixMillis};

use crate::Problem;

pub use answer::{AnswerFault, AnswerTranslator, Piece, Reader as AnswerReader};
pub use delta::{Counts, Delta, Finish, ToolPiece};
pub use event_reader::{Event, EventReader, TooLong};
pub use ollama_request::translate_ollama;
pub use read_anthropic::AnthropicReader;
pub use read_openai::OpenAiReader;
pub use to_anthropic::openai_to_anthropic;
pub use to_openai::anthropic_to_openai;
pub use tool_calls::{ToolCall, ToolCalls};

/// A request in the words of the other side.
#[derive(Clone, Debug)]
pub struct Translated {
    /// The path at which the other side takes it.
    pub path: &'static str,
    pub body: Bytes,
    /// How the answer comes back.
    pub plan: AnswerPlan,
}

/// What a translated answer tells of its request.
#[derive(Clone, Debug)]
pub struct About {
    pub request_id: String,
    /// The name that the client asked for.
    pub model: String,
    /// When the answer began.
    pub began: UnixMillis,
    /// How long the request waited for a model that is loaded and has room.
    pub waited: Duration,
}

/// How an answer is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerPlan {
    reads: Reads,
    writes: Writes,
    streams: bool,
}

/// Whose answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    OpenAi,
    Anthropic,
}

/// What is written for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    OpenAi {
        /// Whether the client asked for the usage at the end of a stream.
        include_usage: bool,
    },
    Anthropic,
    Ollama(OllamaShape),
    OllamaEmbed,
    /// The answer to a request that only wants the model to be loaded.
    OllamaLoad(OllamaShape),
}

/// Which of Ollama's two generating endpoints answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OllamaShape {
    Chat,
    Generate,
}

impl Translated {
    /// The same request for a provider that speaks Anthropic's protocol; only chats can be told to one.
    pub fn for_anthropic(self) -> Result<Translated, Problem> {
        if self.path != "/v1/chat/completions" {
            let message = format!("this provider has nothing like {}", self.path);
            return Err(Problem::new(ErrorCode::InvalidParams, message));
        }
        let told = openai_to_anthropic(&self.body)?;
        Ok(Translated { plan: AnswerPlan { writes: self.plan.writes, ..told.plan }, ..told })
    }
}

impl AnswerPlan {
    /// Whether the client gets its answer piece by piece. Otherwise all of it comes at the end.
    pub fn streams(self) -> bool {
        self.streams
    }

    /// The media type of what the client gets.
    pub fn media_type(self) -> &'static str {
        match self.writes {
            Writes::OpenAi { .. } | Writes::Anthropic if self.streams => "text/event-stream",
            Writes::Ollama(_) if self.streams => "application/x-ndjson",
            _ => "application/json",
        }
    }

    /// Begins to translate one answer.
    pub fn begin(self, about: About) -> AnswerTranslator {
        AnswerTranslator::new(self, about)
    }
}
