//! Reading token counts and timings off an answer that is passing through.
//!
//! Every engine writes them into the last event of a stream or near one end of a whole answer. So a little
//! of the head and a little of the tail are remembered, and looked at once, when the answer is over.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;

/// No context holds more. A greater number is a mistake or malice, and would spoil every sum that it goes into.
const MOST_TOKENS: u64 = u32::MAX as u64;

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
    /// The only piece so far. Most answers come in one; they are read where they lie.
    only: Option<Bytes>,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl UsageScanner {
    const HEAD_LIMIT: usize = 1024;
    const TAIL_LIMIT: usize = 4 * 1024;

    /// Looks at the next bytes of the answer.
    pub fn observe(&mut self, chunk: &Bytes) {
        if let Some(first) = self.only.take() {
            self.remember(&first);
            self.remember(chunk);
        } else if self.tail.is_empty() {
            self.only = Some(chunk.clone());
        } else {
            self.remember(chunk);
        }
    }

    /// The last bytes of the answer, a few thousand at most.
    pub fn tail(&self) -> &[u8] {
        let all = self.only.as_deref().unwrap_or(&self.tail);
        &all[all.len().saturating_sub(Self::TAIL_LIMIT)..]
    }

    /// What the answer said, once it is over.
    pub fn finish(&self) -> Usage {
        let mut usage = read(self.tail(), last_object);
        if usage.prompt_tokens.is_none() {
            let head = self.only.as_deref().unwrap_or(&self.head);
            // The end of a short answer lies within its head, too.
            let first = read(&head[..head.len().min(Self::HEAD_LIMIT)], first_object);
            usage.prompt_tokens = first.prompt_tokens;
            usage.completion_tokens = usage.completion_tokens.or(first.completion_tokens);
            usage.cached_tokens = usage.cached_tokens.or(first.cached_tokens);
        }
        usage
    }

    fn remember(&mut self, chunk: &[u8]) {
        let room = Self::HEAD_LIMIT.saturating_sub(self.head.len());
        self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        let chunk = &chunk[chunk.len().saturating_sub(Self::TAIL_LIMIT)..];
        if self.tail.len() + chunk.len() > 2 * Self::TAIL_LIMIT {
            let surplus = (self.tail.len() + chunk.len() - Self::TAIL_LIMIT).min(self.tail.len());
            self.tail.drain(..surplus);
        }
        self.tail.extend_from_slice(chunk);
    }
}

/// The numbers that engines write into `usage` and `timings`, under all their names.
#[derive(Default)]
struct Numbers {
    /// OpenAI's, cache included.
    prompt_tokens: Option<u64>,
    /// Anthropic's, cache apart. OpenAI's `responses` use the same word with the cache included.
    input_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    cache_read_tokens: Option<u64>,
    /// llama-server's, cache apart.
    timed_prompt: Option<u64>,
    timed_cache: Option<u64>,
    timed_completion: Option<u64>,
    prompt_ms: Option<f64>,
    decode_ms: Option<f64>,
}

impl Numbers {
    fn see(&mut self, key: &[u8], digits: &str) {
        let whole = || digits.parse().ok().filter(|count| *count <= MOST_TOKENS);
        let millis = || digits.parse().ok().filter(|time: &f64| time.is_finite() && *time >= 0.0);
        match key {
            b"prompt_tokens" => self.prompt_tokens = whole(),
            b"input_tokens" => self.input_tokens = whole(),
            b"completion_tokens" | b"output_tokens" => self.completion_tokens = whole(),
            b"cached_tokens" => self.cached_tokens = whole(),
            b"cache_read_input_tokens" => self.cache_read_tokens = whole(),
            b"prompt_n" => self.timed_prompt = whole(),
            b"cache_n" => self.timed_cache = whole(),
            b"predicted_n" => self.timed_completion = whole(),
            b"prompt_ms" => self.prompt_ms = millis(),
            b"predicted_ms" => self.decode_ms = millis(),
            _ => {}
        }
    }

    fn usage(&self) -> Usage {
        let with = |fresh: Option<u64>, cached: Option<u64>| {
            fresh.map(|fresh| fresh.saturating_add(cached.unwrap_or_default()))
        };
        let prompt_tokens = self
            .prompt_tokens
            .or_else(|| with(self.input_tokens, self.cache_read_tokens))
            .or_else(|| with(self.timed_prompt, self.timed_cache));
        Usage {
            prompt_tokens,
            completion_tokens: self.completion_tokens.or(self.timed_completion),
            cached_tokens: self.cached_tokens.or(self.cache_read_tokens).or(self.timed_cache),
            prompt_ms: self.prompt_ms,
            decode_ms: self.decode_ms,
        }
    }
}

// Searched from the front, because the search backwards is many times slower.
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static TIMINGS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"timings\""));

/// Which of the objects under a quoted key is meant.
type Pick = for<'b> fn(&'b [u8], &Finder<'_>) -> Option<&'b [u8]>;

fn read(bytes: &[u8], pick: Pick) -> Usage {
    let mut numbers = Numbers::default();
    for key in [&USAGE, &TIMINGS] {
        if let Some(object) = pick(bytes, key) {
            each_number(object, |key, digits| numbers.see(key, digits));
        }
    }
    numbers.usage()
}

fn last_object<'b>(bytes: &'b [u8], quoted_key: &Finder<'_>) -> Option<&'b [u8]> {
    quoted_key.find_iter(bytes).filter_map(|at| object_at(bytes, at + quoted_key.needle().len())).last()
}

fn first_object<'b>(bytes: &'b [u8], quoted_key: &Finder<'_>) -> Option<&'b [u8]> {
    quoted_key.find_iter(bytes).find_map(|at| object_at(bytes, at + quoted_key.needle().len()))
}

/// The object, from its brace on, that is the value of the quoted key that ends at `end`. A key inside generated text
/// is escaped there (`\"usage\"`) and so cannot be mistaken for one.
fn object_at(bytes: &[u8], end: usize) -> Option<&[u8]> {
    let value = bytes[end..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    value.starts_with(b"{").then_some(value)
}

/// Calls `see` with each number of an object, and of the objects within it, and the key before it.
fn each_number(object: &[u8], mut see: impl FnMut(&[u8], &str)) {
    let (mut at, mut depth, mut key) = (0, 0_usize, &b""[..]);
    while let Some(&byte) = object.get(at) {
        let rest = &object[at..];
        let length = match byte {
            b'"' => {
                let Some(end) = memchr::memchr(b'"', &rest[1..]) else { return };
                key = &rest[1..=end];
                end + 2
            }
            b'0'..=b'9' | b'-' => {
                let is_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let length = rest.iter().position(|byte| !is_number(byte)).unwrap_or(rest.len());
                see(key, std::str::from_utf8(&rest[..length]).expect("digits and signs are ASCII"));
                length
            }
            b'{' => {
                depth += 1;
                1
            }
            b'}' if depth <= 1 => return,
            b'}' => {
                depth -= 1;
                1
            }
            _ => 1,
        };
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(chunks: &[&str]) -> Usage {
        let mut scanner = UsageScanner::default();
        for chunk in chunks {
            scanner.observe(&Bytes::copy_from_slice(chunk.as_bytes()));
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
    fn numbers_that_no_engine_can_mean_are_unknown() {
        let usage = scan(&["{\"usage\":{\"prompt_tokens\":9223372036854775807,\"completion_tokens\":3},\
             \"timings\":{\"prompt_ms\":1e999,\"predicted_ms\":-1}}"]);
        assert_eq!(usage, Usage { completion_tokens: Some(3), ..Usage::default() });
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
    fn a_short_message_whose_end_lies_in_its_head_keeps_its_prompt() {
        let usage = scan(&[
            "event: message_start\ndata: {\"message\":{\"usage\":{\"cache_read_input_tokens\":7,\"input_tokens\":3,\"output_tokens\":0}}}\n\n",
            "event: message_delta\ndata: {\"usage\":{\"output_tokens\":1}}\n\n",
        ]);
        assert_eq!(
            (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
            (Some(10), Some(1), Some(7))
        );
    }

    #[test]
    fn embeddings_say_it_first() {
        let long = format!("],\"data\":[{}]}}", "0.1,".repeat(9000));
        let usage = scan(&["{\"model\":\"m\",\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}", &long]);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (Some(8), None));
    }

    #[test]
    fn objects_within_and_behind_are_told_apart() {
        let usage = scan(&["{\"usage\":{\"prompt_tokens\":1,\"x\":{\"cached_tokens\":2},\"s\":\"7\",\
            \"completion_tokens\":3},\"prompt_tokens\":9,\"usage\":null}"]);
        assert_eq!(
            (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens),
            (Some(1), Some(2), Some(3))
        );
    }

    #[test]
    fn an_answer_without_counts_stays_unknown() {
        assert_eq!(scan(&["{\"content\":\"usage\"}"]), Usage::default());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in "[{}\":,.0-9e-]{0,60}") {
            scan(&["\"usage\":{", &bytes]);
        }

        #[test]
        fn cuts_do_not_matter(cuts in prop::collection::vec(1_usize..900, 0..30)) {
            let stream = format!("{}data: {{\"usage\":{{\"prompt_tokens\":12,\"completion_tokens\":5}}}}\n\n",
                "data: {\"choices\":[]}\n\n".repeat(700));
            let mut scanner = UsageScanner::default();
            let mut rest = stream.as_bytes();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                scanner.observe(&Bytes::copy_from_slice(head));
                rest = tail;
            }
            scanner.observe(&Bytes::copy_from_slice(rest));
            prop_assert_eq!(scanner.finish().prompt_tokens, Some(12));
            prop_assert!(scanner.tail.len() <= 2 * UsageScanner::TAIL_LIMIT);
        }
    }
}
