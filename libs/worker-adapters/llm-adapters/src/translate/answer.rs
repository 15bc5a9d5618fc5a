//! One answer on its way from one dialect to another, in pieces of any size.

use bytes::{Bytes, BytesMut};
use orch_core::ErrorCode;
use serde_json::Value;

use super::delta::Delta;
use super::event_reader::{Event, EventReader, TooLong};
use super::read_anthropic::AnthropicReader;
use super::read_openai::OpenAiReader;
use super::write_anthropic::AnthropicWriter;
use super::write_ollama::{OllamaWriter, embeddings, loaded};
use super::write_openai::OpenAiWriter;
use super::{About, AnswerPlan, OllamaShape, Reads, Writes};
use crate::Problem;

/// Why an answer cannot be translated to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    #[error("the engine sent something that is not an answer: {0}")]
    Malformed(&'static str),
    #[error("the engine sent more than can be translated")]
    TooLong,
    #[error("the engine ended its answer too early")]
    Incomplete,
    #[error("the engine broke off: {0}")]
    BrokenOff(String),
}

impl AnswerFault {
    /// The fault as the client hears of it.
    pub fn problem(&self) -> Problem {
        Problem::new(ErrorCode::WorkerReset, self.to_string())
    }
}

/// What goes to the client now, and whether it is the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    pub bytes: Bytes,
    /// The answer ends here, behind the bytes, and badly.
    pub fault: Option<AnswerFault>,
}

/// Reads events or a whole body of one dialect.
pub trait Reader: std::fmt::Debug + Send {
    /// What one event says; nothing at the end of the stream.
    fn event(&mut self, event: Event) -> Result<Option<Delta>, AnswerFault>;

    /// Whether a stream that stops here is complete.
    fn is_complete(&self) -> bool;

    /// What a whole answer says.
    fn whole(&mut self, body: Value) -> Result<Delta, AnswerFault>;
}

/// Writes an answer in one dialect.
pub(super) trait Writer: std::fmt::Debug + Send {
    /// Writes what a delta adds to a stream.
    fn piece(&mut self, delta: Delta, out: &mut Vec<u8>) -> Result<(), AnswerFault>;

    /// Writes the good end of a stream.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), AnswerFault>;

    /// Writes an answer that is not streamed.
    fn whole(&mut self, delta: Delta) -> Result<Value, AnswerFault>;
}

/// Translates one answer. Its result does not depend on how the bytes were cut.
#[derive(Debug)]
pub struct AnswerTranslator {
    state: State,
    reader: Box<dyn Reader>,
    writer: Box<dyn Writer>,
    writes: Writes,
    about: About,
}

#[derive(Debug)]
enum State {
    Events(EventReader),
    /// An answer that is not streamed is kept until it is whole.
    Whole(BytesMut),
    Over,
}

impl AnswerTranslator {
    /// The largest answer that is kept; thousands of long embeddings fit.
    const WHOLE_LIMIT: usize = 256 * 1024 * 1024;

    pub(super) fn new(plan: AnswerPlan, about: About) -> Self {
        let state =
            if plan.streams { State::Events(EventReader::default()) } else { State::Whole(BytesMut::new()) };
        let reader: Box<dyn Reader> = match plan.reads {
            Reads::OpenAi => Box::new(OpenAiReader::default()),
            Reads::Anthropic => Box::new(AnthropicReader::default()),
        };
        let writer: Box<dyn Writer> = match plan.writes {
            Writes::OpenAi { include_usage } => Box::new(OpenAiWriter::new(&about, include_usage)),
            Writes::Anthropic => Box::new(AnthropicWriter::new(&about)),
            Writes::Ollama(shape) | Writes::OllamaLoad(shape) => Box::new(OllamaWriter::new(&about, shape)),
            Writes::OllamaEmbed => Box::new(OllamaWriter::new(&about, OllamaShape::Generate)),
        };
        Self { state, reader, writer, writes: plan.writes, about }
    }

    /// Takes the next bytes of the answer.
    pub fn push(&mut self, chunk: &[u8]) -> Piece {
        let mut out = Vec::new();
        let pushed = match &mut self.state {
            State::Events(events) => {
                events.push(chunk);
                self.drain(&mut out)
            }
            State::Whole(held) if held.len() + chunk.len() > Self::WHOLE_LIMIT => Err(AnswerFault::TooLong),
            State::Whole(held) => {
                held.extend_from_slice(chunk);
                Ok(())
            }
            State::Over => Ok(()),
        };
        self.piece(out, pushed)
    }

    /// The other side has sent all of its answer.
    pub fn finish(&mut self) -> Piece {
        let mut out = Vec::new();
        let finished = match std::mem::replace(&mut self.state, State::Over) {
            State::Events(_) if !self.reader.is_complete() => Err(AnswerFault::Incomplete),
            State::Events(_) => self.writer.end(&mut out),
            State::Whole(held) => self.whole(&held, &mut out),
            State::Over => Ok(()),
        };
        self.piece(out, finished)
    }

    /// Translates every event that is whole.
    fn drain(&mut self, out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        while let State::Events(events) = &mut self.state {
            let Some(event) = events.next_event().map_err(|TooLong| AnswerFault::TooLong)? else { break };
            if let Some(delta) = self.reader.event(event)? {
                self.writer.piece(delta, out)?;
            } else {
                self.state = State::Over;
                self.writer.end(out)?;
            }
        }
        Ok(())
    }

    fn whole(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        let answer = match self.writes {
            Writes::OllamaLoad(shape) => loaded(&self.about, shape),
            Writes::OllamaEmbed => embeddings(parsed(body)?, &self.about)?,
            Writes::OpenAi { .. } | Writes::Anthropic | Writes::Ollama(_) => {
                let delta = self.reader.whole(parsed(body)?)?;
                self.writer.whole(delta)?
            }
        };
        out.extend_from_slice(answer.to_string().as_bytes());
        Ok(())
    }

    fn piece(&mut self, out: Vec<u8>, result: Result<(), AnswerFault>) -> Piece {
        let fault = result.err();
        if fault.is_some() {
            self.state = State::Over;
        }
        Piece { bytes: out.into(), fault }
    }
}

/// The JSON of an event or a body.
pub(super) fn parsed(bytes: &[u8]) -> Result<Value, AnswerFault> {
    serde_json::from_slice(bytes).map_err(|_| AnswerFault::Malformed("no valid JSON"))
}
