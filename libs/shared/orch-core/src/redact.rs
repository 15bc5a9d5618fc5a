//! Secrets never reach logs, listings, events or error texts: everything shown goes through here first.

/// What stands in the place of a secret.
pub const MASK: &str = "********";

const SECRET_FLAGS: [&str; 3] = ["--api-key", "--hf-token", "-hft"];
const SECRET_WORDS: [&str; 5] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL"];

/// Whether an environment variable's value is to be hidden, judged by its name.
pub fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    SECRET_WORDS.iter().any(|word| upper.contains(word))
}

/// An environment value as it may be shown.
pub fn redact_env_value<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret_name(name) && !value.is_empty() { MASK } else { value }
}

/// A command line as it may be shown: the values of secret flags are masked, in both the `--flag value` and
/// the `--flag=value` form.
pub fn redact_args<S: AsRef<str>>(args: &[S]) -> Vec<String> {
    let mut shown = Vec::with_capacity(args.len());
    let mut hide_next = false;
    for arg in args {
        let arg = arg.as_ref();
        if std::mem::take(&mut hide_next) {
            shown.push(MASK.to_owned());
        } else if SECRET_FLAGS.contains(&arg) {
            hide_next = true;
            shown.push(arg.to_owned());
        } else {
            shown.push(redact_joined(arg));
        }
    }
    shown
}

fn redact_joined(arg: &str) -> String {
    match arg.split_once('=') {
        Some((flag, _)) if SECRET_FLAGS.contains(&flag) => format!("{flag}={MASK}"),
        _ => arg.to_owned(),
    }
}

/// A text as it may be shown: every occurrence of the given secrets is masked. Secrets under four characters
/// are left alone, because masking them would garble the text and they protect nothing.
pub fn redact_text<S: AsRef<str>>(text: &str, secrets: &[S]) -> String {
    let mut shown = text.to_owned();
    for secret in secrets {
        if secret.as_ref().len() >= 4 {
            shown = shown.replace(secret.as_ref(), MASK);
        }
    }
    shown
}

/// Names of JSON members whose text is a secret, without `_`, `-` and case. Exact: `max_tokens` is none.
const SECRET_MEMBERS: [&str; 10] = [
    "apikey",
    "xapikey",
    "authorization",
    "accesstoken",
    "authtoken",
    "bearertoken",
    "hftoken",
    "password",
    "secret",
    "clientsecret",
];
/// How well-known secrets begin; at least sixteen characters of a token follow.
const SECRET_BEGINNINGS: [&str; 9] =
    ["llo_", "sk-", "hf_", "ghp_", "gho_", "github_pat_", "xoxb-", "AKIA", "Bearer "];
const SHORTEST_TOKEN: usize = 16;

/// The body of a request as it may be kept: given secrets, members with a secret's name and words that begin like a
/// well-known secret are masked. Everything else stays byte for byte, so that it can be sent again.
pub fn redact_body<S: AsRef<str>>(body: &str, secrets: &[S]) -> String {
    let known = redact_text(body, secrets);
    redact_words(&redact_members(&known))
}

/// `"api_key": "…"`, read without a parser: a body that is not JSON may hold one as well.
fn redact_members(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, string, after)) = next_string(rest) {
        shown.push_str(before);
        shown.push_str(string);
        rest = after;
        if !is_secret_member(string) {
            continue;
        }
        let value = after.trim_start().strip_prefix(':').map(str::trim_start);
        if let Some(value) = value.filter(|value| value.starts_with('"'))
            && let Some((_, _, behind)) = next_string(value)
        {
            shown.push_str(&after[..after.len() - value.len()]);
            shown.extend(["\"", MASK, "\""]);
            rest = behind;
        }
    }
    shown.push_str(rest);
    shown
}

/// Splits at the next string: what is before it, itself with its quotes, what is behind it.
fn next_string(text: &str) -> Option<(&str, &str, &str)> {
    let begin = text.find('"')?;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(begin + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&text[..begin], &text[begin..=at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn is_secret_member(string: &str) -> bool {
    let name: String = string
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    SECRET_MEMBERS.contains(&name.as_str())
}

fn redact_words(text: &str) -> String {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=".contains(byte);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let found = SECRET_BEGINNINGS.iter().filter_map(|begin| Some((rest.find(begin)?, begin.len())));
        let Some((at, length)) = found.min() else { break };
        let (before, word) = rest.split_at(at + length);
        let token = word.bytes().take_while(is_token).count();
        // `task-` does not begin a secret.
        let is_new_word = !before[..at].bytes().next_back().is_some_and(|byte| byte.is_ascii_alphanumeric());
        shown.push_str(before);
        if token >= SHORTEST_TOKEN && is_new_word {
            shown.push_str(MASK);
            rest = &word[token..];
        } else {
            rest = word;
        }
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_loses_its_secrets_and_nothing_else() {
        let body = r#"{"api_key" : "a\"b", "max_tokens": 5, "tokens":"kept","X-Api-Key":null,"messages":[{"content":
            "my key is sk-abcdefghijklmnop1234, task-abcdefghijklmnop1234 is a name, engine-secret, sk-short,
            llo_0123456789abcdef, Authorization: Bearer abcdefghijklmnop.123"}]}"#;
        let expected = r#"{"api_key" : "********", "max_tokens": 5, "tokens":"kept","X-Api-Key":null,"messages":[{"content":
            "my key is sk-********, task-abcdefghijklmnop1234 is a name, ********, sk-short,
            llo_********, Authorization: Bearer ********"}]}"#;
        assert_eq!(redact_body(body, &["engine-secret"]), expected);
    }

    #[test]
    fn broken_bodies_stay_as_they_are() {
        for body in [
            "",
            "\"",
            "{\"api_key\"",
            "{\"api_key\":",
            "{\"api_key\":\"open",
            "\\\"",
            "sk-ü",
            "\"secret\":\"ü",
        ] {
            assert_eq!(redact_body::<&str>(body, &[]), body);
        }
    }

    #[test]
    fn secret_flags_lose_their_values_in_both_forms() {
        let shown = redact_args(&["--port", "1", "--api-key", "abcd", "--api-key=efgh", "-c", "2"]);
        assert_eq!(shown, ["--port", "1", "--api-key", MASK, &format!("--api-key={MASK}"), "-c", "2"]);
    }

    #[test]
    fn a_secret_flag_at_the_end_hides_nothing_else() {
        assert_eq!(redact_args(&["--api-key"]), ["--api-key"]);
    }

    #[test]
    fn environment_values_are_judged_by_their_name() {
        assert_eq!(redact_env_value("LLAMA_API_KEY", "x"), MASK);
        assert_eq!(redact_env_value("HF_TOKEN", "x"), MASK);
        assert_eq!(redact_env_value("CUDA_VISIBLE_DEVICES", "0"), "0");
    }

    #[test]
    fn known_secrets_vanish_from_free_text() {
        assert_eq!(redact_text("key sk-12345 refused", &["sk-12345"]), format!("key {MASK} refused"));
    }
}
