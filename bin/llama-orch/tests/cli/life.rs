//! An instance's life without a daemon: made, started, looked at, restarted, stopped, removed.

use serde_json::json;
use testkit::{TempHome, cli_snapshot, fake_engine, free_port};

use crate::scene::{add_instance, home_with_engine, is_alive, row};

#[test]
fn from_init_to_rm() {
    let home = home_with_engine();
    let model = home.tiny_model().display().to_string();
    let port = free_port().to_string();
    home.llama_orch(&["init", "chat", "--model", &model, "--port", &port, "--context", "2048"])
        .expect_exit(0);
    home.llama_orch(&["up", "chat"]).expect_exit(0);

    let running = row(&home, "chat");
    assert_eq!(running["status"], "running");
    assert_eq!(running["health"], "healthy");
    assert_eq!(running["port"].to_string(), port);
    assert_eq!(running["restarts"], 0);
    assert!(is_alive(&running["pid"]));
    let health = home.llama_orch(&["health", "chat", "--json"]).expect_exit(0).json();
    assert_eq!(health[0]["health"], "healthy");

    home.llama_orch(&["restart", "chat"]).expect_exit(0);
    let restarted = row(&home, "chat");
    assert_ne!(restarted["pid"], running["pid"]);
    assert!(!is_alive(&running["pid"]));

    home.llama_orch(&["down", "chat"]).expect_exit(0);
    assert!(!is_alive(&restarted["pid"]));
    assert_eq!(row(&home, "chat")["status"], "stopped");
    home.llama_orch(&["health", "chat"]).expect_exit(20);

    home.llama_orch(&["rm", "chat"]).expect_exit(0);
    assert_eq!(home.llama_orch(&["ps", "--json"]).json(), json!([]));
    assert!(!home.layout().instance_config(&"chat".parse().unwrap()).exists());
}

#[test]
fn init_says_what_it_wrote_and_what_is_missing() {
    let home = TempHome::new();
    cli_snapshot!(home, ["init", "chat", "--model", "missing.gguf", "--port", "8123", "--threads", "1"], @r"
    exit code: 0
    ----- stdout -----
    chat is written: [HOME]/instances/chat/config.json (port [PORT])

    ----- stderr -----
    warning: model.path: there is no model [HOME]/missing.gguf
    start it with: llama-orch up chat
    ");
}

#[test]
fn init_chooses_threads_context_and_device_by_machine_model_and_template() {
    let home = TempHome::new();
    let model = home.tiny_model().display().to_string();
    let written = |name: &str, arguments: &[&str]| {
        home.llama_orch(&[&["--quiet", "init", name, "--model", &model], arguments].concat()).expect_exit(0);
        home.llama_orch(&["config", "show", name, "--json"]).expect_exit(0).json()["config"].clone()
    };
    let plain = written("plain", &["--backend", "cpu"]);
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    assert!((1..=cpus).contains(&plain["model"]["threads"].as_u64().unwrap()), "{plain}");
    assert_eq!(plain["model"]["context_size"], 2048, "the tiny model was made for so many");
    let gpu = written("gpu", &["--template", "vulkan"]);
    assert_eq!((&gpu["gpu"]["backend"], &gpu["gpu"]["layers"]), (&json!("vulkan"), &json!(999)));
    let both = written("both", &["--template", "vulkan", "--backend", "cpu", "--threads", "3"]);
    assert_eq!((&both["gpu"]["backend"], &both["model"]["threads"]), (&json!("cpu"), &json!(3)));
}

#[test]
fn init_refuses_a_name_and_a_port_that_are_taken() {
    let home = TempHome::new();
    home.llama_orch(&["init", "a", "--model", "m.gguf", "--port", "8123"]).expect_exit(0);
    home.llama_orch(&["init", "a", "--model", "m.gguf"]).expect_exit(14);
    home.llama_orch(&["init", "b", "--model", "m.gguf", "--port", "8123"]).expect_exit(11);
    home.llama_orch(&["init", "all", "--model", "m.gguf"]).expect_exit(2);
    home.llama_orch(&["init", "b", "--model", "m.gguf", "--template", "nonsense"]).expect_exit(2);
    home.llama_orch(&["init", "a", "--model", "n.gguf", "--port", "8124", "--force"]).expect_exit(0);
    assert_eq!(row(&home, "a")["model"], "n.gguf");
}

#[test]
fn inits_at_the_same_time_choose_different_ports() {
    let home = TempHome::new();
    let children: Vec<_> = (0..6)
        .map(|number| {
            let mut command = home.command("llama-orch");
            command.args(["--quiet", "init", &format!("i{number}"), "--model", "m.gguf"]);
            command.spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let rows = home.llama_orch(&["ps", "--json"]).json();
    let mut ports: Vec<u64> =
        rows.as_array().unwrap().iter().map(|row| row["port"].as_u64().unwrap()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 6);
}

#[test]
fn the_backend_is_that_of_the_engines_devices() {
    let home = TempHome::new();
    let mut command = home.command("llama-orch");
    command.args(["init", "chat", "--model", "m.gguf"]);
    command.env("LLAMA_SERVER", fake_engine());
    command.env("FAKE_DEVICES", "Vulkan0: Radeon (8192 MiB, 8000 MiB free)");
    testkit::run(command).expect_exit(0);
    assert_eq!(row(&home, "chat")["backend"], "vulkan");
}

#[test]
fn steps_take_tags_and_all() {
    let home = home_with_engine();
    for name in ["a", "b", "c"] {
        add_instance(&home, name, &[]);
    }
    home.llama_orch(&["config", "set", "a", "tags=fast"]).expect_exit(0);
    home.llama_orch(&["up", "--tag", "fast"]).expect_exit(0);
    assert_eq!(row(&home, "a")["status"], "running");
    assert_eq!(row(&home, "b")["status"], "stopped");
    let pid = row(&home, "a")["pid"].clone();
    home.llama_orch(&["up", "--all"]).expect_exit(0);
    assert_eq!(row(&home, "a")["pid"], pid, "what runs is left alone");
    assert_eq!(row(&home, "c")["status"], "running");
    home.llama_orch(&["down", "--all"]).expect_exit(0);
    for name in ["a", "b", "c"] {
        assert_eq!(row(&home, name)["status"], "stopped");
    }
    home.llama_orch(&["up", "--tag", "nobody"]).expect_exit(0);
}

#[test]
fn a_start_that_is_not_waited_for_goes_on() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[("FAKE_NEVER_READY", "1")]);
    let run = home.llama_orch(&["up", "chat", "--no-wait"]);
    assert!(run.expect_exit(0).stdout.contains("is starting"), "{run}");
    assert!(is_alive(&row(&home, "chat")["pid"]));
    home.llama_orch(&["down", "chat", "--force"]).expect_exit(0);
}

#[test]
fn a_start_that_is_interrupted_leaves_the_engine_running() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[("FAKE_NEVER_READY", "1")]);
    let starting = crate::scene::Attached::start(&home, &["up", "chat"]);
    testkit::wait_for("the engine", std::time::Duration::from_secs(30), || {
        !row(&home, "chat")["pid"].is_null()
    });
    assert_eq!(starting.interrupt(), Some(130));
    assert!(is_alive(&row(&home, "chat")["pid"]));
    home.llama_orch(&["down", "chat", "--force"]).expect_exit(0);
}

#[test]
fn a_dry_run_shows_the_command_line_without_secrets_and_starts_nothing() {
    let home = home_with_engine();
    let model = home.tiny_model();
    home.write_instance(
        "chat",
        &json!({
            "name": "chat", "model": {"path": model}, "args": ["--api-key", "sk-very-secret"],
            "env": {"SOME_TOKEN": "also-secret", "GREETING": "good day"},
        }),
    );
    let run = home.llama_orch(&["up", "chat", "--dry-run"]);
    let text = &run.expect_exit(0).stdout;
    assert!(text.contains("--api-key '********'") && text.contains("GREETING='good day'"), "{run}");
    assert!(!text.contains("secret"), "{run}");
    let json = home.llama_orch(&["up", "chat", "--dry-run", "--json"]).expect_exit(0).json();
    assert_eq!(json[0]["env"]["SOME_TOKEN"], "********");
    assert_eq!(row(&home, "chat")["pid"], json!(null));
    assert!(!home.llama_orch(&["describe", "chat", "--json"]).stdout.contains("secret"));
    assert!(!home.llama_orch(&["config", "show", "chat"]).stdout.contains("secret"));
}

#[test]
fn staying_attached_shows_the_output_and_stops_at_the_end() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[("FAKE_LOG_EVERY_MS", "20")]);
    let attached = crate::scene::Attached::start(&home, &["up", "chat", "--no-detach"]);
    attached.wait_for("the engine's words", |stdout| stdout.contains("chat | "));
    let pid = row(&home, "chat")["pid"].clone();
    assert_eq!(attached.interrupt(), Some(130));
    assert!(!is_alive(&pid));
    assert_eq!(row(&home, "chat")["desired_state"], "stopped");
}

#[test]
fn a_changed_config_asks_for_a_restart() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    home.llama_orch(&["config", "set", "chat", "tags=x", "healthcheck.interval=2"]).expect_exit(0);
    assert_eq!(row(&home, "chat")["restart_needed"], false);
    let run = home.llama_orch(&["config", "set", "chat", "model.batch_size=256"]);
    assert!(run.expect_exit(0).stderr.contains("llama-orch restart chat"), "{run}");
    assert_eq!(row(&home, "chat")["restart_needed"], true);
    let table = home.llama_orch(&["ps"]).stdout;
    assert!(table.contains("running (restart needed)"), "{table}");
    home.llama_orch(&["restart", "chat"]).expect_exit(0);
    assert_eq!(row(&home, "chat")["restart_needed"], false);
}
