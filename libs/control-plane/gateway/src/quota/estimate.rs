//! What a request will use, as far as that can be told before an engine has seen it.

use llm_adapters::Usage;

/// Bytes of a request that make one token, about: text of one language gives more to a token, code and JSON less.
const BYTES_A_TOKEN: u64 = 4;
/// What an answer is taken for that the request does not bound.
const USUAL_ANSWER: u64 = 256;

/// Tokens that a request is expected to use. What it really used corrects it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Estimate {
    prompt: u64,
    answer: u64,
}

impl Estimate {
    /// Of a generation: the size of its body, the most tokens it asks for, and the context that it has to fit into,
    /// which bounds what pictures in the body would be taken for.
    pub(crate) fn of(body: usize, max_tokens: Option<u64>, context: Option<u64>) -> Self {
        let context = context.unwrap_or(u64::MAX);
        let prompt = (body as u64).div_ceil(BYTES_A_TOKEN).min(context);
        Self { prompt, answer: max_tokens.unwrap_or(USUAL_ANSWER).min(context - prompt) }
    }

    pub(super) fn total(self) -> u64 {
        self.prompt.saturating_add(self.answer)
    }

    /// What a generation used: what its engine told, or else the prompt and so many pieces of an answer.
    pub(super) fn corrected(self, told: &Usage, pieces: u64) -> u64 {
        match (told.prompt_tokens, told.completion_tokens) {
            (None, None) => self.prompt.saturating_add(pieces),
            (prompt, answer) => prompt.unwrap_or(0).saturating_add(answer.unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_for_its_size_and_what_it_asks_for_but_never_for_more_than_fits() {
        assert_eq!(Estimate::of(400, Some(50), None).total(), 150);
        assert_eq!(Estimate::of(400, None, None).total(), 100 + USUAL_ANSWER);
        assert_eq!(Estimate::of(400, Some(1_000_000), Some(4096)).total(), 4096);
        assert_eq!(Estimate::of(8_000_000, Some(50), Some(4096)).total(), 4096);
    }

    #[test]
    fn what_the_engine_told_counts_and_without_it_what_went_by() {
        let estimate = Estimate::of(400, Some(50), None);
        let told =
            |prompt, answer| Usage { prompt_tokens: prompt, completion_tokens: answer, ..Usage::default() };
        assert_eq!(estimate.corrected(&told(Some(12), Some(3)), 99), 15);
        assert_eq!(estimate.corrected(&told(Some(12), None), 99), 12);
        assert_eq!(estimate.corrected(&told(None, None), 7), 107);
    }
}
