//! What snapshots of commands look like.

#![expect(clippy::disallowed_methods, reason = "starts the program it looks at")]

use std::process::Command;

use testkit::{TempHome, fake_engine, run, run_snapshot};

#[test]
fn a_snapshot_holds_exit_code_and_both_streams() {
    let home = TempHome::new();
    let mut command = Command::new(fake_engine());
    command.arg("--version").env("FAKE_VERSION", format!("from {}, pid 12, 3.5 s", home.path().display()));
    run_snapshot!(home, run(command), @r"
    exit code: 0
    ----- stdout -----

    ----- stderr -----
    from [HOME], pid [PID], [DURATION]
    built with rustc
    ");
}

#[test]
fn a_failure_is_pinned_as_well() {
    let home = TempHome::new();
    let mut command = Command::new(fake_engine());
    command.args(["--list-devices", "--nonsense"]);
    run_snapshot!(home, run(command), @r"
    exit code: 1
    ----- stdout -----

    ----- stderr -----
    error: invalid argument: --nonsense
    ");
}
