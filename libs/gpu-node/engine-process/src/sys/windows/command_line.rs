//! Command lines: on Windows a program gets one text, which it splits into arguments itself, nearly always by
//! the rules of Microsoft's C library.

/// One text that those rules split into these arguments again.
pub(crate) fn join<'a>(args: impl IntoIterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for arg in args {
        if !line.is_empty() {
            line.push(' ');
        }
        push_quoted(&mut line, arg);
    }
    line
}

fn push_quoted(line: &mut String, arg: &str) {
    if !arg.is_empty() && !arg.contains([' ', '\t', '\n', '\x0b', '"']) {
        line.push_str(arg);
        return;
    }
    line.push('"');
    let mut backslashes = 0;
    for character in arg.chars() {
        // Backslashes mean themselves, unless a quote follows them.
        if character == '"' {
            line.extend(std::iter::repeat_n('\\', backslashes + 1));
        }
        backslashes = if character == '\\' { backslashes + 1 } else { 0 };
        line.push(character);
    }
    line.extend(std::iter::repeat_n('\\', backslashes));
    line.push('"');
}

/// The arguments of a command line, the program's name first.
pub(crate) fn split(line: &str) -> Vec<String> {
    let line = line.trim_start_matches([' ', '\t']);
    if line.is_empty() {
        return Vec::new();
    }
    let (program, rest) = split_program(line);
    let mut args = vec![program];
    let mut rest = rest.trim_start_matches([' ', '\t']);
    while !rest.is_empty() {
        let (arg, after) = split_argument(rest);
        args.push(arg);
        rest = after.trim_start_matches([' ', '\t']);
    }
    args
}

/// In the program's name a backslash is never more than itself, because a path ends with one now and then.
fn split_program(line: &str) -> (String, &str) {
    let mut quoted = false;
    let mut program = String::new();
    for (position, character) in line.char_indices() {
        match character {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => return (program, &line[position..]),
            other => program.push(other),
        }
    }
    (program, "")
}

fn split_argument(line: &str) -> (String, &str) {
    let mut arg = String::new();
    let mut quoted = false;
    let mut backslashes = 0;
    let mut characters = line.char_indices().peekable();
    while let Some((position, character)) = characters.next() {
        if character == '\\' {
            backslashes += 1;
            continue;
        }
        if character != '"' {
            arg.extend(std::iter::repeat_n('\\', backslashes));
            backslashes = 0;
            if !quoted && matches!(character, ' ' | '\t') {
                return (arg, &line[position..]);
            }
            arg.push(character);
            continue;
        }
        arg.extend(std::iter::repeat_n('\\', backslashes / 2));
        let escaped = backslashes % 2 == 1;
        backslashes = 0;
        if escaped {
            arg.push('"');
        } else if quoted && characters.next_if(|(_, next)| *next == '"').is_some() {
            // Two quotes within quotes are one that is meant.
            arg.push('"');
        } else {
            quoted = !quoted;
        }
    }
    arg.extend(std::iter::repeat_n('\\', backslashes));
    (arg, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_split_as_the_c_library_splits_it() {
        for (line, args) in [
            (r#""C:\Program Files\x.exe" a b"#, &[r"C:\Program Files\x.exe", "a", "b"][..]),
            (r#"x.exe "a b" c"d e"f"#, &["x.exe", "a b", "cd ef"]),
            (r#"x.exe a\\b d"e f"g h"#, &["x.exe", r"a\\b", "de fg", "h"]),
            (r#"x.exe a\\\"b c d"#, &["x.exe", r#"a\"b"#, "c", "d"]),
            (r#"x.exe a\\\\"b c" d e"#, &["x.exe", r"a\\b c", "d", "e"]),
            (r#"x.exe "a""b""#, &["x.exe", r#"a"b"#]),
            (r#""C:\dir\" x"#, &[r"C:\dir\", "x"]),
            ("  x.exe\t  ", &["x.exe"]),
            ("", &[]),
        ] {
            assert_eq!(split(line), args, "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_was_joined_is_split_into_the_same(
            program in r"[A-Za-z]:(\\[A-Za-z0-9 .]{1,8}){1,4}\.exe",
            args in prop::collection::vec(r#"[a-z"\\ \t=-]{0,12}"#, 0..6),
        ) {
            let all: Vec<String> = [program].into_iter().chain(args).collect();
            prop_assert_eq!(split(&join(all.iter().map(String::as_str))), all);
        }
    }
}
