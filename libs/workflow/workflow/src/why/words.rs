//! Two texts word by word.

use std::time::Duration;

use serde::{Serialize, Serializer};
use similar::{Algorithm, ChangeTag, TextDiff};

/// Texts so different that it takes longer are compared less finely.
const LIMIT: Duration = Duration::from_millis(500);

/// A run of words with one fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Words {
    pub change: WordChange,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordChange {
    Same,
    Removed,
    Added,
}

impl WordChange {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Removed => "removed",
            Self::Added => "added",
        }
    }
}

impl Serialize for WordChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// What became of each word. Neighbours with the same fate are one; where words are exchanged, those removed come
/// before those added.
pub(super) fn compare(before: &str, after: &str) -> Vec<Words> {
    let diff = TextDiff::configure().algorithm(Algorithm::Myers).timeout(LIMIT).diff_words(before, after);
    let mut merged = Merged::default();
    for change in diff.iter_all_changes() {
        merged.push(change.tag(), change.value());
    }
    merged.finish()
}

#[derive(Default)]
struct Merged {
    done: Vec<Words>,
    removed: String,
    added: String,
    /// Space after exchanged words: it belongs to them if more are exchanged right behind it.
    space: String,
}

impl Merged {
    fn push(&mut self, tag: ChangeTag, text: &str) {
        let is_exchanging = !self.removed.is_empty() || !self.added.is_empty();
        match tag {
            ChangeTag::Equal if is_exchanging && text.trim().is_empty() && !text.contains('\n') => {
                self.space.push_str(text);
            }
            ChangeTag::Equal => {
                self.end_exchange();
                self.same(text);
            }
            ChangeTag::Delete | ChangeTag::Insert => {
                let space = std::mem::take(&mut self.space);
                self.removed.push_str(&space);
                self.added.push_str(&space);
                let side = if tag == ChangeTag::Delete { &mut self.removed } else { &mut self.added };
                side.push_str(text);
            }
        }
    }

    fn same(&mut self, text: &str) {
        match self.done.last_mut() {
            Some(last) if last.change == WordChange::Same => last.text.push_str(text),
            _ => self.done.push(Words { change: WordChange::Same, text: text.to_owned() }),
        }
    }

    fn end_exchange(&mut self) {
        for (change, text) in [
            (WordChange::Removed, std::mem::take(&mut self.removed)),
            (WordChange::Added, std::mem::take(&mut self.added)),
        ] {
            if !text.is_empty() {
                self.done.push(Words { change, text });
            }
        }
        let space = std::mem::take(&mut self.space);
        if !space.is_empty() {
            self.same(&space);
        }
    }

    fn finish(mut self) -> Vec<Words> {
        self.end_exchange();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(before: &str, after: &str) -> String {
        let mark = |words: &Words| match words.change {
            WordChange::Same => words.text.clone(),
            WordChange::Removed => format!("[-{}-]", words.text),
            WordChange::Added => format!("{{+{}+}}", words.text),
        };
        compare(before, after).iter().map(mark).collect()
    }

    #[test]
    fn exchanged_words_are_shown_in_their_place() {
        assert_eq!(shown("Design a small app.", "Design a large app."), "Design a [-small-]{+large+} app.");
        assert_eq!(shown("one two three", "one 2 3"), "one [-two three-]{+2 3+}");
        assert_eq!(shown("", "new"), "{+new+}");
        assert_eq!(shown("same text", "same text"), "same text");
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_from_the_comparison(before in "[ab \n]{0,30}", after in "[ab \n]{0,30}") {
            let words = compare(&before, &after);
            let without = |gone: WordChange| -> String {
                words.iter().filter(|words| words.change != gone).map(|words| words.text.as_str()).collect()
            };
            prop_assert_eq!(without(WordChange::Added), before);
            prop_assert_eq!(without(WordChange::Removed), after);
        }
    }
}
