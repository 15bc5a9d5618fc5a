//! Keys, made and revoked on a home whose daemon does not run. With one: the end-to-end tests.

use std::fs;

use testkit::{TempHome, cli_snapshot};

use crate::scene::{only_error, picture};

fn create(home: &TempHome, arguments: &[&str]) -> serde_json::Value {
    let mut words = vec!["token", "create", "--json"];
    words.extend(arguments);
    home.llama_orch(&words).expect_exit(0).json()
}

#[test]
fn a_key_is_shown_once_with_what_it_may_do_and_says_that_keys_are_required() {
    let home = TempHome::new();
    let run = home
        .llama_orch(&["token", "create", "--name", "laptop", "--scope", "read,infer"])
        .expect_exit(0)
        .clone();
    let pairs: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let [id, name, scopes, token] = &pairs[..] else { panic!("{run}") };
    assert_eq!((name[1], scopes[1]), ("laptop", "infer,read"));
    assert!(id[1].starts_with("key-") && token[1].starts_with("llo_") && token[1].len() == 68, "{run}");
    assert!(run.stderr.contains("shown only now") && run.stderr.contains("keys are required now"), "{run}");

    let document = create(&home, &["--name", "ci", "--scope", "admin"]);
    let fields: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["id", "name", "token", "scopes"]);
    assert_eq!(document["scopes"], serde_json::json!(["admin"]));

    // Nothing ever tells it again, and the store does not have it.
    for secret in [token[1], document["token"].as_str().unwrap()] {
        for arguments in [&["token", "list"][..], &["token", "list", "--json"], &["events", "--json"]] {
            assert!(!home.llama_orch(arguments).expect_exit(0).to_string().contains(secret), "{arguments:?}");
        }
        for (name, content, _) in picture(home.path()) {
            let found = content.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{name} holds the key");
        }
        for side in ["control.sqlite-wal", "control.sqlite-shm"] {
            let content = fs::read(home.layout().state().join(side)).unwrap_or_default();
            assert!(
                !content.windows(secret.len()).any(|part| part == secret.as_bytes()),
                "{side} holds the key"
            );
        }
    }
}

#[test]
fn keys_are_listed_with_their_limits_and_revoked_by_name_or_id() {
    let home = TempHome::new();
    let limits = ["--models", "chat,gpt-4", "--rpm", "60", "--tpm", "10000", "--concurrency", "2"];
    let budget = ["--name", "ci", "--budget", "1000000", "--priority", "batch"];
    create(&home, &[&limits[..], &budget].concat());
    let plain = create(&home, &[]);
    assert_eq!(plain["id"], plain["name"]);

    let list = home.llama_orch(&["token", "list", "--json"]).expect_exit(0).json();
    assert_eq!(list[0]["models"], serde_json::json!(["chat", "gpt-4"]));
    let numbers = ["rpm", "tpm", "concurrency", "budget", "spent"].map(|name| list[0][name].as_u64());
    assert_eq!(numbers, [60, 10_000, 2, 1_000_000, 0].map(Some));
    assert_eq!((&list[0]["priority"], &list[1]["priority"]), (&"batch".into(), &serde_json::Value::Null));
    assert!(list[0].get("token").is_none() && list[0].get("digest").is_none(), "{list}");

    home.llama_orch(&["token", "revoke", plain["id"].as_str().unwrap()]).expect_exit(0);
    let id = list[0]["id"].as_str().unwrap();
    let table = home.llama_orch(&["token", "list"]).expect_exit(0).stdout.replace(id, "key-[12 digits]");
    insta::assert_snapshot!(table.split_whitespace().collect::<Vec<_>>().join(" "), @"ID NAME SCOPES MODELS RPM TPM CONCURRENCY BUDGET USED PRIORITY LAST USED key-[12 digits] ci infer chat,gpt-4 60 10000 2 1000000 0 batch -");
    cli_snapshot!(home, ["token", "revoke", "ci"], @r"
    exit code: 0
    ----- stdout -----
    ci is revoked

    ----- stderr -----
    warning: ci was the last key that was made: on loopback every program of this machine is served without one again, unless LLORCH_API_TOKEN or auth.tokens_file names any
    ");
    assert_eq!(home.llama_orch(&["token", "list", "--json"]).expect_exit(0).json(), serde_json::json!([]));
}

#[test]
fn what_cannot_be_done_says_why() {
    let home = TempHome::new();
    create(&home, &["--name", "ci"]);
    cli_snapshot!(home, ["token", "create", "--name", "ci"], @r"
    exit code: 14
    ----- stdout -----

    ----- stderr -----
    error: a key named ci exists already
    hint: choose another --name, or revoke that one first
    ");
    cli_snapshot!(home, ["token", "revoke", "nobody"], @r"
    exit code: 13
    ----- stdout -----

    ----- stderr -----
    error: no key is called nobody
    hint: see `llama-orch token list`
    ");
    for wrong in [
        &["--scope", "everything"][..],
        &["--priority", "urgent"],
        &["--rpm", "0"],
        &["--tpm", "many"],
        &["--name", ""],
        &["--models", ""],
    ] {
        home.llama_orch(&[&["token", "create"], wrong].concat()).expect_exit(2);
    }
}

#[test]
fn looking_at_keys_makes_no_home_and_a_store_that_cannot_be_used_is_left_alone() {
    let home = TempHome::new();
    let before = picture(home.path());
    assert_eq!(home.llama_orch(&["token", "list", "--json"]).expect_exit(0).json(), serde_json::json!([]));
    assert_eq!(picture(home.path()), before);

    fs::create_dir_all(home.layout().state()).unwrap();
    fs::write(home.layout().control_database(), "no database at all, but some text").unwrap();
    for arguments in [&["token", "list"][..], &["token", "create"], &["token", "revoke", "x"]] {
        let refused = home.llama_orch(arguments);
        refused.expect_exit(34);
        assert!(only_error(&refused).contains("control.sqlite is damaged"), "{refused}");
    }
    // A daemon that cannot know its keys would let everybody in.
    let refused = home.llama_orch(&["daemon", "start", "--foreground", "--addr", "127.0.0.1:0"]);
    refused.expect_exit(34);
}
