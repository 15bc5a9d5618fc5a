//! Reading a user's engine arguments without knowing every flag.

/// The flag that a token writes, in the engine's spelling: it takes `_` for `-` in long flags. None for values,
/// negative numbers among them. The part after `=` is cut off, although engines refuse that form: a check must see
/// what was meant.
pub(crate) fn flag_of(token: &str) -> Option<String> {
    let name = token.split('=').next().unwrap_or(token);
    if let Some(long) = name.strip_prefix("--") {
        let begins_well = long.starts_with(|first: char| first.is_ascii_alphanumeric());
        return begins_well.then(|| format!("--{}", long.replace('_', "-")));
    }
    let short = name.strip_prefix('-')?;
    short.starts_with(|first: char| first.is_ascii_alphabetic()).then(|| name.to_owned())
}

pub(crate) fn is_one_of(token: &str, flags: &[&str]) -> bool {
    flag_of(token).is_some_and(|flag| flags.contains(&flag.as_str()))
}

pub(crate) fn has_flag(args: &[String], flags: &[&str]) -> bool {
    args.iter().any(|token| is_one_of(token, flags))
}

/// The value that the engine will use: the last one written.
pub(crate) fn last_value<'a>(args: &'a [String], flags: &[&str]) -> Option<&'a str> {
    let position = args.iter().rposition(|token| is_one_of(token, flags))?;
    match args[position].split_once('=') {
        Some((_, value)) => Some(value),
        None => args.get(position + 1).map(String::as_str),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(list: &[&str]) -> Vec<String> {
        list.iter().map(|&token| token.to_owned()).collect()
    }

    #[test]
    fn flags_are_told_from_values() {
        for (token, flag) in [("-c", "-c"), ("--ctx_size", "--ctx-size"), ("--a=b_c", "--a")] {
            assert_eq!(flag_of(token).as_deref(), Some(flag));
        }
        for value in ["-1", "-.5", "8", "", "-", "--", r"blk\.\d+"] {
            assert_eq!(flag_of(value), None, "{value}");
        }
    }

    #[test]
    fn the_last_value_wins() {
        let args = args(&["-np", "2", "--parallel", "4", "-v"]);
        assert_eq!(last_value(&args, &["--parallel", "-np"]), Some("4"));
        assert_eq!(last_value(&args, &["--port"]), None);
        assert_eq!(last_value(&args, &["-v"]), None);
    }
}
