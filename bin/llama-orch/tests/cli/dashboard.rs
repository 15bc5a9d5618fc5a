//! `dashboard` where nobody could see it; its screens are tested in the program itself and in a real terminal.

use testkit::TempHome;

#[test]
fn without_a_terminal_it_says_what_there_is_for_scripts() {
    let home = TempHome::new();
    for arguments in [&["dashboard"][..], &["top"], &["dashboard", "--json"]] {
        let run = home.llama_orch(arguments);
        run.expect_exit(2);
        assert_eq!(run.stdout, "");
        assert!(run.stderr.starts_with("error: the dashboard needs a terminal\nhint: "), "{run}");
    }
}
