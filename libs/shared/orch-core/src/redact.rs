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

#[cfg(test)]
mod tests {
    use super::*;

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
