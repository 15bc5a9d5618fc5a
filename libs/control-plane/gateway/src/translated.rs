//! Places that speak another dialect than the caller: requests rewritten for them, answers in the caller's words.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response};
use llm_adapters::{
    About, AnswerPlan, Dialect, Problem, Translated, anthropic_to_openai, engine_problem,
    openai_to_anthropic, translate_ollama,
};
use orch_core::{ErrorCode, UnixMillis};

use crate::body::GatewayBody;
use crate::call::{Call, engine_uri};
use crate::dispatch::{Dispatched, Outgoing};
use crate::provider::ProviderKind;
use crate::respond;
use crate::stream::StreamBody;

/// Longest error answer that is read.
const ERROR_LIMIT: usize = 64 * 1024;

impl Call {
    /// Puts the request into the words of a place: an engine here, or somebody else's server. `rewrite` is what a
    /// route changes; where there is something to translate it changes the request in OpenAI's words.
    pub(crate) fn tell(
        &mut self,
        place: Option<ProviderKind>,
        outgoing: &mut Outgoing,
        rewrite: impl Fn(&Bytes) -> Result<Bytes, Problem>,
    ) -> Result<(), Problem> {
        let Some(translated) = self.translated(place, &rewrite)? else {
            self.plan = None;
            outgoing.body = rewrite(&self.body)?;
            outgoing.uri = engine_uri(&self.parts.uri, &self.path)?;
            return Ok(());
        };
        self.plan = Some(translated.plan);
        outgoing.body = translated.body;
        outgoing.uri = engine_uri(&self.parts.uri, translated.path)?;
        outgoing.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // What comes back has to be read.
        outgoing.headers.remove(ACCEPT_ENCODING);
        Ok(())
    }

    /// The request in a place's words; nothing where those are the caller's.
    fn translated(
        &self,
        place: Option<ProviderKind>,
        rewrite: impl Fn(&Bytes) -> Result<Bytes, Problem>,
    ) -> Result<Option<Translated>, Problem> {
        let dialect = self.flight.dialect();
        // A request whose path names the instance is meant as it stands.
        let understood = match place {
            None => dialect != Dialect::Ollama || self.instance.is_some(),
            Some(kind) => {
                // What a provider keeps for the owner of its key is no client's to see or to change.
                if self.parts.method != Method::POST {
                    return Err(no_words());
                }
                kind.serves(&self.path)
            }
        };
        if understood {
            return Ok(None);
        }
        let to_anthropic = place == Some(ProviderKind::Anthropic);
        if dialect == Dialect::OpenAi && to_anthropic && self.path == "/v1/chat/completions" {
            return openai_to_anthropic(&rewrite(&self.body)?).map(Some);
        }
        let mut translated = match (dialect, self.path.as_str()) {
            (Dialect::Ollama, path) => translate_ollama(path, &self.body)?,
            (Dialect::Anthropic, "/v1/messages") if !to_anthropic => anthropic_to_openai(&self.body)?,
            _ => return Err(no_words()),
        };
        translated.body = rewrite(&translated.body)?;
        match place {
            None => Ok(Some(translated)),
            Some(ProviderKind::Anthropic) => translated.for_anthropic().map(Some),
            Some(kind) if kind.serves(translated.path) => Ok(Some(translated)),
            Some(_) => Err(no_words()),
        }
    }

    /// Turns an answer into one in the caller's words.
    pub(crate) async fn answer_translated(
        self,
        plan: AnswerPlan,
        dispatched: Dispatched,
        model: &str,
    ) -> Response<GatewayBody> {
        let Dispatched { mut head, answer, target, attempt } = dispatched;
        let waited = self.flight.waited();
        let about = About {
            request_id: self.flight.request_id().to_string(),
            model: model.to_owned(),
            began: UnixMillis::now(),
            waited,
        };
        let mut ours = HeaderMap::new();
        target.headers.name_in(&mut ours, attempt, waited);
        self.flight.arrival.caller.tell_limits(&mut ours);
        target.clean_response(&mut head.headers);
        head.headers.remove(CONTENT_LENGTH);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(plan.media_type()));
        head.headers.extend(ours.clone());

        let (status, dialect) = (head.status, self.flight.dialect());
        let request_id = self.flight.request_id().clone();
        let streams = status.is_success() && plan.streams();
        let events = streams.then(|| self.translated_events());
        let mut stream = StreamBody::new(answer, status, target, self.flight, events);
        if status.is_success() {
            stream.translate(plan.begin(about));
        }
        if streams {
            return Response::from_parts(head, GatewayBody::stream(stream));
        }
        // What is not streamed may still turn out to be an error, so its head waits for its end.
        let limit = if status.is_success() { usize::MAX } else { ERROR_LIMIT };
        let problem = match stream.collect(limit).await {
            Ok(body) if status.is_success() => return Response::from_parts(head, GatewayBody::whole(body)),
            Ok(error) => engine_problem(status.as_u16(), &error),
            Err(problem) => problem,
        };
        let mut refusal = respond::refuse(dialect, &problem, &request_id);
        refusal.headers_mut().extend(ours);
        refusal
    }
}

fn no_words() -> Problem {
    let message = "this model is served by a provider that has nothing like this API";
    Problem::new(ErrorCode::InvalidParams, message).param("model")
}
