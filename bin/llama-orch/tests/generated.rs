//! What is made from the definition of the command line: man pages and completions.

use clap::{Command, CommandFactory};
use llama_orch::arguments::Arguments;
use testkit::TempHome;

/// Every command with its full name, as `llama-orch-daemon-start`.
fn commands(command: &Command, name: &str) -> Vec<String> {
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    let below = below.flat_map(|command| commands(command, &format!("{name}-{}", command.get_name())));
    std::iter::once(name.to_owned()).chain(below).collect()
}

#[test]
fn every_command_has_a_man_page_that_names_its_options() {
    let folder = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(Arguments::command(), folder.path()).unwrap();
    let all = commands(&Arguments::command(), "llama-orch");
    assert!(all.len() > 30 && all.contains(&"llama-orch-daemon-install".to_owned()), "{all:?}");
    for name in all {
        let page = std::fs::read_to_string(folder.path().join(format!("{name}.1")))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".SH SYNOPSIS") && page.contains("help"), "{name}");
    }
    let page = std::fs::read_to_string(folder.path().join("llama-orch-daemon-install.1")).unwrap();
    assert!(page.contains(r"\-\-service\-name"), "{page}");
}

#[test]
fn every_shell_gets_completions_that_know_all_commands() {
    let home = TempHome::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = home.llama_orch(&["completions", shell]).expect_exit(0).stdout.clone();
        for command in Arguments::command().get_subcommands() {
            assert!(script.contains(command.get_name()), "{shell} does not know {}", command.get_name());
        }
        assert!(script.contains("service-name"), "{shell}");
    }
    home.llama_orch(&["completions", "dos"]).expect_exit(2);
}
