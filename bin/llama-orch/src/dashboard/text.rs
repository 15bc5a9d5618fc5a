//! Text from elsewhere, made fit for a cell of the screen.

/// Columns of the screen that a text takes.
pub(super) fn width_of(text: &str) -> usize {
    ratatui::text::Span::raw(text).width()
}

/// Without what would steer a terminal: colour sequences and control characters; a tab is a blank.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => skip_sequence(&mut letters),
            '\t' => plain.push(' '),
            letter if letter.is_control() => {}
            letter => plain.push(letter),
        }
    }
    plain
}

/// `[…m` and its like: parameters, then a letter. Anything else after the escape is left alone.
fn skip_sequence(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    if letters.next_if_eq(&'[').is_none() {
        return;
    }
    while letters.next_if(|letter| matches!(letter, ' '..='?')).is_some() {}
    letters.next_if(|letter| matches!(letter, '@'..='~'));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_of_a_log_are_left_out_and_its_words_stay() {
        assert_eq!(plain("\u{1b}[1;32mready\u{1b}[0m\tslot [1m] ünïcode\u{7}"), "ready slot [1m] ünïcode");
        assert_eq!(plain("\u{1b}"), "");
        assert_eq!(plain("\u{1b}[38;5"), "");
    }

    proptest! {
        #[test]
        fn nothing_that_steers_a_terminal_is_left(text in any::<String>()) {
            prop_assert!(!plain(&text).contains(char::is_control));
        }
    }
}
