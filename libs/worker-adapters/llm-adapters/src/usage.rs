//! Reading token counts and timings off an answer that is passing through.
//!
//! Every engine writes them into the last event of a stream or near one end of a whole answer. So a little
//! of the head and a little of the tail are remembered, and looked at once, when the answer is over.

use memchr::memmem;
use serde::Deserialize;

/// What a finished answer said about itself. Absent is unknown, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// All tokens of the prompt, those from the cache included.
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    /// Prompt tokens that came from the engine's cache.
    pub cached_tokens: Option<u64>,
    /// Time spent on the prompt, in milliseconds, by the engine's clock.
    pub prompt_ms: Option<f64>,
    /// Time spent generating, in milliseconds, by the engine's clock.
    pub decode_ms: Option<f64>,
}

/// Remembers the two ends of one answer.
#[derive(Debug, Default)]
pub struct UsageScanner {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl UsageScanner {
    const HEAD_LIMIT: usize = 1024;
    const TAIL_LIMIT: usize = 4 * 1024;

    /// Looks at the next bytes of the answer.
    pub fn observe(&mut self, chunk: &[u8]) {
        let room = Self::HEAD_LIMIT.saturating_sub(self.head.len());
        self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        let chunk = &chunk[chunk.len().saturating_sub(Self::TAIL_LIMIT)..];
        if self.tail.len() + chunk.len() > 2 * Self::TAIL_LIMIT {
            let surplus = (self.tail.len() + chunk.len() - Self::TAIL_LIMIT).min(self.tail.len());
            self.tail.drain(..surplus);
        }
        self.tail.extend_from_slice(chunk);
    }

    /// The last bytes of the answer, a few thousand at most.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// What the answer said, once it is over.
    pub fn finish(&self) -> Usage {
        let tail = read(&self.tail);
        let head = read(&self.head);
        Usage {
            prompt_tokens: tail.prompt_tokens.or(head.prompt_tokens),
            completion_tokens: tail.completion_tokens.or(head.completion_tokens),
            cached_tokens: tail.cached_tokens.or(head.cached_tokens),
            prompt_ms: tail.prompt_ms.or(head.prompt_ms),
            decode_ms: tail.decode_ms.or(head.decode_ms),
        }
    }
}

/// `usage` as OpenAI and Anthropic write it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct UsageObject {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    cache_read_input_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
}

/// `timings` as llama-server writes them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TimingsObject {
    cache_n: Option<u64>,
    prompt_n: Option<u64>,
    prompt_ms: Option<f64>,
    predicted_n: Option<u64>,
    predicted_ms: Option<f64>,
}

fn read(bytes: &[u8]) -> Usage {
    let usage: UsageObject = last_object(bytes, b"\"usage\"").unwrap_or_default();
    let timings: TimingsObject = last_object(bytes, b"\"timings\"").unwrap_or_default();
    let details = usage.prompt_tokens_details.or(usage.input_tokens_details).unwrap_or_default();
    // Anthropic counts what came from the cache apart from the rest of the prompt, OpenAI within it.
    let anthropic_prompt = usage.input_tokens.map(|fresh| fresh + usage.cache_read_input_tokens.unwrap_or(0));
    let timed_prompt = timings.prompt_n.map(|fresh| fresh + timings.cache_n.unwrap_or(0));
    Usage {
        prompt_tokens: usage.prompt_tokens.or(anthropic_prompt).or(timed_prompt),
        completion_tokens: usage.completion_tokens.or(usage.output_tokens).or(timings.predicted_n),
        cached_tokens: details.cached_tokens.or(usage.cache_read_input_tokens).or(timings.cache_n),
        prompt_ms: timings.prompt_ms,
        decode_ms: timings.predicted_ms,
    }
}

/// The last object that is the value of the given quoted key. A key inside generated text is escaped there
/// (`\"usage\"`) and so cannot be mistaken for one.
fn last_object<'a, T: Deserialize<'a>>(bytes: &'a [u8], quoted_key: &[u8]) -> Option<T> {
    memmem::rfind_iter(bytes, quoted_key).find_map(|at| {
        let value = bytes[at + quoted_key.len()..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        if !value.starts_with(b"{") {
            return None;
        }
        serde_json::Deserializer::from_slice(value).into_iter().next()?.ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(chunks: &[&str]) -> Usage {
        let mut scanner = UsageScanner::default();
        for chunk in chunks {
            scanner.observe(chunk.as_bytes());
        }
        scanner.finish()
    }

    #[test]
    fn the_final_chunk_of_an_openai_stream_is_read() {
        let usage = scan(&[
            "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":9}\"}}],\"usage\":null}\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":5,\"prompt_tokens\":12,\"total_tokens\":17,\
             \"prompt_tokens_details\":{\"cached_tokens\":3}},\"timings\":{\"cache_n\":3,\"prompt_n\":9,\
             \"prompt_ms\":1.5,\"predicted_n\":5,\"predicted_ms\":20.25}}\n\n",
            "data: [DONE]\n\n",
        ]);
        let expected = Usage {
            prompt_tokens: Some(12),
            completion_tokens: Some(5),
            cached_tokens: Some(3),
            prompt_ms: Some(1.5),
            decode_ms: Some(20.25),
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn timings_alone_are_enough() {
        let usage = scan(&["data: {\"timings\": {\"cache_n\": 4, \"prompt_n\": 6, \"predicted_n\": 2}}\n\n"]);
        assert_eq!(
            (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
            (Some(10), Some(2), Some(4))
        );
    }

    #[test]
    fn anthropic_counts_the_cache_apart() {
        let usage = scan(&[
            "event: message_start\ndata: {\"message\":{\"usage\":{\"cache_read_input_tokens\":7,\"input_tokens\":3,\"output_tokens\":0}}}\n\n",
            &"event: ping\ndata: {}\n\n".repeat(600),
            "event: message_delta\ndata: {\"usage\":{\"output_tokens\":21}}\n\n",
        ]);
        assert_eq!(
            (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
            (Some(10), Some(21), Some(7))
        );
    }

    #[test]
    fn embeddings_say_it_first() {
        let long = format!("],\"data\":[{}]}}", "0.1,".repeat(9000));
        let usage = scan(&["{\"model\":\"m\",\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}", &long]);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (Some(8), None));
    }

    #[test]
    fn an_answer_without_counts_stays_unknown() {
        assert_eq!(scan(&["{\"content\":\"usage\"}"]), Usage::default());
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(cuts in prop::collection::vec(1_usize..900, 0..30)) {
            let stream = format!("{}data: {{\"usage\":{{\"prompt_tokens\":12,\"completion_tokens\":5}}}}\n\n",
                "data: {\"choices\":[]}\n\n".repeat(700));
            let mut scanner = UsageScanner::default();
            let mut rest = stream.as_bytes();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                scanner.observe(head);
                rest = tail;
            }
            scanner.observe(rest);
            prop_assert_eq!(scanner.finish().prompt_tokens, Some(12));
            prop_assert!(scanner.tail.len() <= 2 * UsageScanner::TAIL_LIMIT);
        }
    }
}
