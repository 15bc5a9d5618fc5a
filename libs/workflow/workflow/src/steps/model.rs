//! Steps that ask a model.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::time::Instant;
use workflow_spec::{FailureKind, LlmStep, Role, StepOutput};

use super::sight::{Rendered, Sight, unusable};
use super::{Action, AnswerFacts, Asking, Attempt, Performed, Reports};
use crate::canonical::canonical;
use crate::key::Digest;
use crate::log::{LogStream, StepLog};
use crate::secrets::{SecretStream, Secrets};
use crate::{
    Answer, AnswerPiece, CallFailure, ChatMessage, FinishReason, ModelFacts, ModelRequest, PortFuture,
    TokenUse,
};

/// Of the reason why an answer does not fit, so much goes back to the model.
const REASONS: usize = 5;
/// How often a step without an `output` is asked again when the engine could not read its model's answer.
const ASKED_AGAIN: u32 = 1;
/// Options that limit the length of an answer, in the words of all providers.
const LIMITS: [&str; 5] =
    ["max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict", "n_predict"];

/// One candidate, and what is known of its model.
pub(crate) struct Place {
    pub(crate) provider: Arc<str>,
    /// As the workflow names it.
    pub(crate) model: Option<String>,
    pub(crate) facts: Arc<Result<ModelFacts, CallFailure>>,
}

/// What an answer must look like: the schema, compiled once for a step.
pub(crate) struct Shape {
    schema: Arc<Value>,
    validator: jsonschema::Validator,
}

impl Shape {
    pub(crate) fn compile(schema: &Arc<Value>) -> Result<Self, CallFailure> {
        let validator = jsonschema::validator_for(schema).map_err(|error| {
            CallFailure::new(FailureKind::Validation, format!("output.schema is no JSON Schema: {error}"))
        })?;
        Ok(Self { schema: schema.clone(), validator })
    }

    /// The answer as JSON that fits, or what is wrong with it.
    fn read(&self, text: &str) -> Result<Value, String> {
        let value = json_in(text).ok_or("it is not JSON")?;
        let mut wrong = self.validator.iter_errors(&value);
        let told: Vec<String> = wrong.by_ref().take(REASONS).map(|error| told(&error)).collect();
        drop(wrong);
        if told.is_empty() { Ok(value) } else { Err(told.join("; ")) }
    }
}

fn told(error: &jsonschema::ValidationError<'_>) -> String {
    let at = error.instance_path().to_string();
    if at.is_empty() { error.to_string() } else { format!("at {at}: {error}") }
}

/// The JSON of an answer: the whole text, else its first fenced block.
fn json_in(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim()).ok().or_else(|| {
        let fenced = StepOutput::of_text(text);
        serde_json::from_str(fenced.code().trim()).ok()
    })
}

/// An `llm` step with every text rendered.
pub(crate) struct AskAction {
    places: Vec<Place>,
    options: Vec<serde_json::Map<String, Value>>,
    messages: Rendered<Vec<ChatMessage>>,
    shape: Option<Arc<Shape>>,
    repair: u32,
    tools: Option<Value>,
    sample: Option<u32>,
}

impl AskAction {
    pub(crate) fn new(
        llm: &LlmStep,
        places: Vec<Place>,
        shape: Option<Arc<Shape>>,
        sight: &Sight,
        sample: Option<u32>,
    ) -> Result<Self, CallFailure> {
        let messages = sight.render(|names| {
            let message = |message: &workflow_spec::Message| {
                let content = message.content.render(names).map_err(|error| unusable("prompt", &error))?;
                Ok(ChatMessage { role: message.role, content })
            };
            llm.messages.iter().map(message).collect()
        })?;
        Ok(Self {
            places,
            options: llm.candidates.iter().map(|candidate| candidate.options.clone()).collect(),
            messages,
            shape,
            repair: llm.output.as_ref().map_or(ASKED_AGAIN, |output| output.repair),
            tools: llm.tools.clone(),
            sample,
        })
    }

    async fn ask(&self, attempt: Attempt) -> Result<Performed, CallFailure> {
        let mut conversation = Conversation::begin(self, &attempt)?;
        let mut repairs = self.repair;
        loop {
            let answer = match conversation.ask().await {
                Ok(answer) => answer,
                Err(failure) if failure.kind == FailureKind::Schema && repairs > 0 => {
                    repairs -= 1;
                    conversation.ask_for_the_format();
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            match self.judge(&answer, &conversation.request.options) {
                Ok(output) => return Ok(conversation.performed(output, &answer)),
                Err(Fault::Final(kind, message)) => return Err(conversation.failure(kind, message)),
                Err(Fault::Repairable(why)) if repairs == 0 => {
                    let message = format!("the answer does not fit the schema: {why}");
                    return Err(conversation.failure(FailureKind::Schema, message));
                }
                Err(Fault::Repairable(why)) => {
                    repairs -= 1;
                    conversation.send_back(answer, &why);
                }
            }
        }
    }

    fn judge(&self, answer: &Answer, options: &serde_json::Map<String, Value>) -> Result<StepOutput, Fault> {
        if answer.finish == FinishReason::Refused {
            let message = format!("the model refused to answer: {}", super::format::beginning(&answer.text));
            return Err(Fault::Final(FailureKind::Validation, message));
        }
        if answer.finish == FinishReason::Length {
            self.allows_the_cut(answer, options)?;
        }
        if let Some(calls) = &answer.tool_calls {
            let json = Some(json!({ "tool_calls": calls }));
            return Ok(StepOutput { text: answer.text.clone(), json });
        }
        let Some(shape) = &self.shape else { return Ok(StepOutput::of_text(answer.text.clone())) };
        let json = shape.read(&answer.text).map_err(Fault::Repairable)?;
        Ok(StepOutput { text: answer.text.clone(), json: Some(json) })
    }

    /// A text may be cut where the step has said so. What has to be whole may not, and nothing may that the step did
    /// not limit.
    fn allows_the_cut(&self, answer: &Answer, options: &serde_json::Map<String, Value>) -> Result<(), Fault> {
        // For llama.cpp -1 is none.
        let has_limit = LIMITS.iter().any(|limit| options.get(*limit).and_then(Value::as_u64).is_some());
        let is_text = self.shape.is_none() && answer.tool_calls.is_none();
        if has_limit && is_text {
            return Ok(());
        }
        let TokenUse { prompt, completion, .. } = answer.usage;
        let cut = format!("the answer was cut after {completion} tokens, the prompt has {prompt}");
        let full = "the step sets no max_tokens, so the model's context is full or the provider has a limit of its own; \
             shorten the prompt or give the model a larger context (model.context_size)";
        let what_to_do = match (has_limit, is_text) {
            (true, _) => "it has to be whole, so raise max_tokens".to_owned(),
            (false, true) => format!("{full}, or set max_tokens for an answer that may be cut"),
            (false, false) => full.to_owned(),
        };
        let kind = if self.shape.is_some() { FailureKind::Schema } else { FailureKind::Validation };
        Err(Fault::Final(kind, format!("{cut}: {what_to_do}")))
    }
}

/// What is wrong with an answer.
enum Fault {
    Final(FailureKind, String),
    /// The model may do better when it is told.
    Repairable(String),
}

impl Action for AskAction {
    fn key_document(&self) -> Value {
        let candidate = |(place, options): (&Place, &serde_json::Map<String, Value>)| match &*place.facts {
            Ok(facts) => {
                let mut candidate =
                    json!({"provider": facts.provider_kind, "model": facts.model, "options": options});
                if let Some(digest) = &facts.digest {
                    candidate["digest"] = digest.clone().into();
                }
                candidate
            }
            Err(_) => json!({"unknown": [place.provider.as_ref(), place.model], "options": options}),
        };
        let message = |message: &ChatMessage| json!({"role": role(message.role), "content": message.content});
        let mut document = json!({
            "v": 1,
            "kind": "llm",
            "candidates": self.places.iter().zip(&self.options).map(candidate).collect::<Vec<_>>(),
            "messages": self.messages.shown.iter().map(message).collect::<Vec<_>>(),
        });
        if let Some(shape) = &self.shape {
            document["schema"] = Value::clone(&shape.schema);
        }
        if let Some(tools) = &self.tools {
            document["tools"] = tools.clone();
        }
        if let Some(sample) = self.sample {
            document["sample"] = sample.into();
        }
        document
    }

    fn perform(self: Arc<Self>, attempt: Attempt) -> PortFuture<Result<Performed, CallFailure>> {
        Box::pin(async move { self.ask(attempt).await })
    }
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

/// Question, answer, and further questions until the answer fits.
struct Conversation<'a> {
    action: &'a AskAction,
    attempt: &'a Attempt,
    provider: Arc<str>,
    request: ModelRequest,
    /// How often for the format.
    asked_again: u32,
    ear: Arc<Ear>,
    secrets: Secrets,
    usage: TokenUse,
}

impl<'a> Conversation<'a> {
    fn begin(action: &'a AskAction, attempt: &'a Attempt) -> Result<Self, CallFailure> {
        let place = &action.places[attempt.candidate];
        let model = place.facts.as_ref().as_ref().map_err(Clone::clone)?.model.clone();
        let (messages, secrets) = action.messages.revealed.clone()?;
        let log = StepLog::new(&attempt.log, &secrets);
        let ear = Ear {
            reports: attempt.reports.clone(),
            log: Mutex::new(log.stream()),
            shown: Mutex::new(secrets.stream()),
        };
        let request = ModelRequest {
            provider: place.provider.to_string(),
            model,
            messages,
            options: action.options[attempt.candidate].clone(),
            schema: action.shape.as_ref().map(|shape| shape.schema.clone()),
            tools: action.tools.clone(),
        };
        let provider = place.provider.clone();
        let (ear, usage) = (Arc::new(ear), TokenUse::default());
        Ok(Self { action, attempt, provider, request, asked_again: 0, ear, secrets, usage })
    }

    async fn ask(&mut self) -> Result<Answer, CallFailure> {
        self.attempt.reports.asking(self.told_of_request()).await?;
        let began = Instant::now();
        let answered = self.attempt.ports.models.ask(self.request.clone(), self.ear.clone()).await;
        let answered = answered.map_err(|failure| self.secrets.filter_failure(failure));
        let outcome = match &answered {
            Ok(answer) => Ok(AnswerFacts {
                usage: answer.usage,
                first_token: answer.first_token,
                finish: answer.finish,
            }),
            Err(failure) => Err(failure.clone()),
        };
        self.attempt.reports.answered(self.provider.clone(), began.elapsed(), outcome);
        let cost = answered.as_ref().map_or_else(|failure| failure.usage, |answer| answer.usage);
        self.usage.add(cost);
        answered.map_err(|failure| CallFailure { usage: self.usage, ..failure })
    }

    fn told_of_request(&self) -> Asking {
        let request = &self.request;
        let bytes: usize = request.messages.iter().map(|message| message.content.len()).sum();
        // Without secrets: what the journal holds can be tried out against guesses.
        let shown = self.action.messages.shown.iter().map(|message| message.content.as_str());
        let repairs = request.messages[self.action.messages.shown.len()..].iter();
        let texts: Vec<&str> = shown.chain(repairs.map(|message| message.content.as_str())).collect();
        let mut document = json!({"model": request.model, "options": request.options, "texts": texts});
        if self.asked_again > 0 {
            document["asked_again"] = self.asked_again.into();
        }
        Asking {
            provider: self.provider.clone(),
            model: request.model.clone(),
            prompt_tokens: bytes.div_ceil(4) as u64,
            request_sha256: Digest::of(&canonical(&document)),
        }
    }

    fn send_back(&mut self, answer: Answer, why: &str) {
        let again = format!(
            "Your answer cannot be used: {why}. Answer again, with nothing but JSON that fits the schema."
        );
        self.request.messages.push(ChatMessage { role: Role::Assistant, content: answer.text });
        self.request.messages.push(ChatMessage { role: Role::User, content: again });
    }

    /// The engine could not read what its model said, and tells nothing of it: the same question would lead to the
    /// same answer where nothing is left to chance.
    fn ask_for_the_format(&mut self) {
        self.asked_again += 1;
        if let Some(last) = self.request.messages.last_mut() {
            last.content.push_str("\n\nAn earlier answer could not be read. Keep strictly to the format.");
        }
    }

    fn performed(self, output: StepOutput, answer: &Answer) -> Performed {
        let output = match &self.action.messages.revealed {
            Ok((_, secrets)) => secrets.filter_output(output),
            Err(_) => output,
        };
        Performed {
            output,
            usage: self.usage,
            provider: self.provider.to_string(),
            model: self.request.model,
            finish: Some(answer.finish),
            only_for_this_job: answer.finish == FinishReason::Length,
            ..Performed::default()
        }
    }

    fn failure(&self, kind: FailureKind, message: String) -> CallFailure {
        CallFailure { usage: self.usage, ..CallFailure::new(kind, message) }.after_the_effect()
    }
}

/// Hears an answer: into the step's log, and to whoever looks on.
struct Ear {
    reports: Reports,
    log: Mutex<LogStream>,
    shown: Mutex<SecretStream>,
}

impl AnswerPiece for Ear {
    fn piece(&self, text: &str) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).write(text.as_bytes());
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).pass(text.as_bytes());
        self.reports.piece(&String::from_utf8_lossy(&shown));
    }
}
