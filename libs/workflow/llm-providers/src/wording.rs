//! What people are told when a provider does not answer. Nothing here ever holds a secret.

use std::error::Error as _;

use orch_core::redact_text;
use reqwest::Url;
use workflow::CallFailure;
use workflow_spec::FailureKind;

use crate::access::Token;

/// The longest word of a stranger's that is repeated.
const SHOWN: usize = 500;

/// An address as it may be shown: without user, password and query.
pub(crate) fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    // Addresses that cannot have these have none.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}

/// A stranger's words, shortened, on one line and without our own secret.
pub(crate) fn quoted(text: &str, token: Option<&Token>) -> String {
    let secrets: Vec<&str> = token.into_iter().map(Token::secret).collect();
    let text = redact_text(text, &secrets);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = words.chars().filter(|letter| !letter.is_control()).take(SHOWN).collect();
    if words.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// A request that could not be sent, or an answer that broke off.
pub(crate) fn not_reached(who: &str, url: &Url, error: &reqwest::Error) -> CallFailure {
    let (kind, what) = if error.is_builder() {
        (FailureKind::Validation, "cannot be asked")
    } else if error.is_connect() {
        (FailureKind::Connect, "cannot be reached")
    } else if error.is_timeout() {
        (FailureKind::Timeout, "did not answer in time")
    } else {
        (FailureKind::Connect, "broke the connection")
    };
    let failure = CallFailure::new(kind, format!("{who} at {} {what}: {}", shown(url), cause(error)));
    CallFailure { unsure: failure.unsure && !error.is_connect(), ..failure }
}

/// The innermost reason, which is the one that helps.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    if error.source().is_some() { innermost.to_string() } else { "no reason is known".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_what_they_may_hide() {
        let url = Url::parse("https://user:secret@host:1/v1/chat?key=secret#x").unwrap();
        assert_eq!(shown(&url), "https://host:1/v1/chat");
    }

    #[test]
    fn a_strangers_words_are_short_plain_and_without_our_secret() {
        let token = Token::new("sk-very-secret").unwrap();
        let text = format!("bad key sk-very-secret\n\u{1b}[31m{}", "x ".repeat(400));
        let quoted = quoted(&text, Some(&token));
        assert!(!quoted.contains("very-secret") && !quoted.contains('\n') && !quoted.contains('\u{1b}'));
        assert!(quoted.chars().count() == SHOWN + 1 && quoted.ends_with('…'));
    }
}
