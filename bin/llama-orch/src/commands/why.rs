//! `why`: why a step of a run ran, or did not: what became different in its request.

use orch_core::{Failure, UnixMicros};
use serde_json::Value;
use workflow::{Change, Runs, Store, Verdict, Why, WordChange, Words, why};

use crate::arguments::WhyArguments;
use crate::context::Context;
use crate::ending::CommandResult;

/// Of unchanged text, so much is shown beside a change.
const BESIDE: usize = 60;
/// Of a removed or added text, and of a value.
const LONGEST_TEXT: usize = 4000;
const LONGEST_VALUE: usize = 200;
const MOST_CHANGES: usize = 50;

pub(super) fn run(context: &Context, arguments: &WhyArguments) -> CommandResult {
    let home = context.home()?;
    let runs = Runs::new(home.runs());
    let now = UnixMicros::now();
    let id = runs.find(&arguments.job_id, now).map_err(Failure::from)?;
    let answer = why(&runs, &Store::home(home.cache()), &id, &arguments.step, now).map_err(Failure::from)?;
    if context.printer.json() {
        return Ok(context.printer.document(&answer)?);
    }
    context.printer.line(sentence(&answer))?;
    if let Verdict::Changed { changes } = &answer.verdict {
        let colored = context.color.on_stdout();
        for change in changes.iter().take(MOST_CHANGES) {
            context.printer.text(&shown(change, colored))?;
        }
        if changes.len() > MOST_CHANGES {
            context.printer.line(format!("  and {} more; --json shows all", changes.len() - MOST_CHANGES))?;
        }
    }
    Ok(())
}

fn sentence(answer: &Why) -> String {
    let (step, job) = (&answer.step, &answer.job_id);
    let earlier = answer.earlier.as_ref().map_or_else(String::new, |earlier| {
        if earlier.job_id == *job {
            "earlier in this job".to_owned()
        } else {
            format!("of {}", earlier.job_id)
        }
    });
    match &answer.verdict {
        Verdict::Hit => format!("{step} did not run in {job}: a stored result has its key"),
        Verdict::Joined => format!("{step} made no request in {job}: an equal one was under way"),
        Verdict::Resumed => {
            format!("{step} did not run again in {job}: its result of an earlier life of the job counts")
        }
        Verdict::Skipped { reason } => format!("{step} did not run in {job}: {}", skip_words(reason)),
        Verdict::FirstRun => {
            format!("{step} ran in {job} because it never had a result before: nothing was cached")
        }
        Verdict::NoResult { reason } => {
            format!("{step} ran in {job} because it had no result yet: {}", plain(reason))
        }
        Verdict::Refused { reason } => {
            format!("{step} ran in {job} because its stored result was refused: {}", plain(reason))
        }
        Verdict::NotTaken { reason } => {
            format!(
                "{step} ran in {job} though its request is that of its result {earlier}: {}",
                plain(reason)
            )
        }
        Verdict::Changed { .. } => {
            format!("{step} ran in {job} because its request is not that of its result {earlier}:")
        }
        Verdict::ChangedUnseen { reason } => format!(
            "{step} ran in {job} because its request is not that of its result {earlier}; what differs cannot be \
             shown: {reason}"
        ),
    }
}

fn skip_words(reason: &str) -> String {
    match reason {
        "condition" => "its condition, or that of a step it needs, did not hold".to_owned(),
        "upstream_failed" => "a step that it needs failed".to_owned(),
        other => plain(other),
    }
}

fn shown(change: &Change, colored: bool) -> String {
    let head = format!("  {}  {}", change.what, plain(&change.path));
    if change.words.iter().any(|words| words.change == WordChange::Same) {
        let text: String =
            with_less_unchanged(&change.words).iter().map(|words| marked(words, colored)).collect();
        return format!("{head}\n    {}\n", text.replace('\n', "\n    "));
    }
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("{head}: {} -> {}\n", value(before), value(after)),
        (None, Some(after)) => format!("{head}: added {}\n", value(after)),
        (Some(before), None) => format!("{head}: removed {}\n", value(before)),
        (None, None) => format!("{head}\n"),
    }
}

/// Unchanged text only near changes.
fn with_less_unchanged(words: &[Words]) -> Vec<Words> {
    let last = words.len().saturating_sub(1);
    let shorten = |(position, words): (usize, &Words)| {
        let text = plain_lines(&words.text);
        let text = match words.change {
            WordChange::Same => near(&text, position > 0, position < last),
            WordChange::Removed | WordChange::Added => cut(&text, LONGEST_TEXT),
        };
        Words { change: words.change, text }
    };
    words.iter().enumerate().map(shorten).collect()
}

/// The beginning and the end of a text, as far as something stands before and after it.
fn near(text: &str, something_before: bool, something_after: bool) -> String {
    let count = text.chars().count();
    let kept = |wanted: bool| if wanted { BESIDE } else { 0 };
    let (first, last) = (kept(something_before), kept(something_after));
    if count <= first + last {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(first).collect();
    let end: String = text.chars().skip(count - last).collect();
    format!("{beginning}…{end}")
}

fn marked(words: &Words, colored: bool) -> String {
    let (color, opening, closing) = match words.change {
        WordChange::Same => return words.text.clone(),
        WordChange::Removed => ("31", "[-", "-]"),
        WordChange::Added => ("32", "{+", "+}"),
    };
    let text = format!("{opening}{}{closing}", words.text);
    if colored { format!("\x1b[{color}m{text}\x1b[0m") } else { text }
}

fn value(value: &Value) -> String {
    plain(&cut(&value.to_string(), LONGEST_VALUE))
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// On its line, whatever a model put into it.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn plain_lines(text: &str) -> String {
    text.replace(|character: char| character.is_control() && character != '\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(change: WordChange, text: &str) -> Words {
        Words { change, text: text.to_owned() }
    }

    fn prompt(words: Vec<Words>) -> Change {
        let (before, after) = (Some(json!("before")), Some(json!("after")));
        Change { what: "prompt", path: "messages[0].content".to_owned(), before, after, words }
    }

    #[test]
    fn a_text_is_shown_with_what_is_near_its_changes() {
        let change = prompt(vec![
            words(WordChange::Same, &format!("{}\nDesign a ", "x".repeat(100))),
            words(WordChange::Removed, "small"),
            words(WordChange::Added, "large\u{1b}[2J"),
            words(WordChange::Same, " app."),
        ]);
        assert_eq!(
            shown(&change, false),
            format!(
                "  prompt  messages[0].content\n    …{}\n    Design a [-small-]{{+large [2J+}} app.\n",
                "x".repeat(50)
            )
        );
    }

    #[test]
    fn a_value_is_shown_before_and_after() {
        let change = |before, after| Change {
            what: "option",
            path: "candidates[0].options.seed".to_owned(),
            before,
            after,
            words: Vec::new(),
        };
        let text = |before, after| shown(&change(before, after), true);
        assert_eq!(text(Some(json!(1)), Some(json!(2))), "  option  candidates[0].options.seed: 1 -> 2\n");
        assert_eq!(text(None, Some(json!(2))), "  option  candidates[0].options.seed: added 2\n");
        assert_eq!(text(Some(json!(1)), None), "  option  candidates[0].options.seed: removed 1\n");
    }

    #[test]
    fn changes_are_marked_without_colour_and_coloured_besides() {
        assert_eq!(marked(&words(WordChange::Added, "a"), false), "{+a+}");
        assert_eq!(marked(&words(WordChange::Removed, "a"), true), "\x1b[31m[-a-]\x1b[0m");
    }
}
