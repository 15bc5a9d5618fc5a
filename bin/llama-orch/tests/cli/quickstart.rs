//! `quickstart`: the first five minutes, in seconds.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use testkit::{ProgramRun, TempHome, fake_engine, free_port, real_llama_server};

use crate::scene::{is_alive, only_error, row};

/// A machine with an engine and without a network.
struct Machine {
    home: TempHome,
    address: String,
    /// Left to itself, it would choose the port that another test is choosing at the same moment.
    port: String,
    engine: std::path::PathBuf,
    hub: String,
}

impl Machine {
    fn with(engine: &Path) -> Self {
        Self {
            home: TempHome::new(),
            address: format!("127.0.0.1:{}", free_port()),
            port: free_port().to_string(),
            engine: engine.to_owned(),
            hub: "http://127.0.0.1:9".to_owned(),
        }
    }

    fn quickstart(&self, arguments: &[&str]) -> ProgramRun {
        let mut command = self.home.command("llama-orch");
        command.arg("quickstart").args(arguments);
        if !arguments.contains(&"--stop") {
            command.args(["--port", &self.port]);
        }
        command.env("LLAMA_SERVER", &self.engine).env("HF_ENDPOINT", &self.hub);
        command.env("ORCHESTRATORD_ADDR", &self.address);
        testkit::run(command)
    }
}

#[test]
fn without_a_network_a_random_model_answers_and_says_so() {
    let machine = Machine::with(&real_llama_server());
    let run = machine.quickstart(&[]);
    run.expect_exit(0);
    assert!(run.stdout.contains("tokens/s") && run.stdout.contains("next:"), "{run}");
    assert!(run.stderr.contains("its words are noise"), "{run}");
    assert_eq!(row(&machine.home, "quickstart")["port"].to_string(), machine.port);
}

#[test]
fn a_second_run_finds_everything_in_place() {
    let machine = Machine::with(&fake_engine());
    machine.quickstart(&[]).expect_exit(0);
    let first = row(&machine.home, "quickstart");
    let run = machine.quickstart(&["--json"]);
    let document = run.expect_exit(0).json();
    assert!(!run.stderr.contains("asking for"), "the hub is not asked again\n{run}");
    assert_eq!(document["instance"]["pid"], first["pid"]);
    assert_eq!(document["model"]["noise"], true);
    assert!(!document["answer"].as_str().unwrap().is_empty());
}

#[test]
fn it_ends_what_it_started_and_nothing_else() {
    let machine = Machine::with(&fake_engine());
    machine.quickstart(&[]).expect_exit(0);
    let running = row(&machine.home, "quickstart");
    machine.quickstart(&["--stop"]).expect_exit(0);
    assert!(!is_alive(&running["pid"]));
    machine.home.llama_orch(&["daemon", "status"]).expect_exit(60);
    machine.quickstart(&["--stop"]).expect_exit(0);

    machine.home.llama_orch(&["daemon", "start", "--addr", &machine.address]).expect_exit(0);
    let mut command = machine.home.command("llama-orch");
    let engine = fake_engine().display().to_string();
    command.args(["quickstart", "--engine", &engine]);
    command.env("HF_ENDPOINT", "http://127.0.0.1:9");
    testkit::run(command).expect_exit(0);
    machine.quickstart(&["--stop"]).expect_exit(0);
    machine.home.llama_orch(&["daemon", "status"]).expect_exit(0);
}

#[test]
fn a_model_of_ones_own_takes_the_place_of_the_last_one() {
    let machine = Machine::with(&fake_engine());
    machine.quickstart(&[]).expect_exit(0);
    let first = row(&machine.home, "quickstart");
    let model = machine.home.tiny_model().display().to_string();
    let document = machine.quickstart(&["--model", &model, "--json"]).expect_exit(0).json();
    assert_eq!(
        (&document["model"]["path"], &document["model"]["noise"]),
        (&model.as_str().into(), &false.into())
    );
    assert_ne!(document["instance"]["pid"], first["pid"], "it was restarted for it");
    machine.quickstart(&["--model", "/nowhere/m.gguf"]).expect_exit(54);
    machine.quickstart(&["--model", "hf:nonsense"]).expect_exit(2);
    machine.quickstart(&["--model", "hf:owner/repository"]).expect_exit(52);
}

#[test]
fn a_port_that_somebody_holds_is_told_with_a_way_out() {
    let machine = Machine::with(&fake_engine());
    let holder = TcpListener::bind(&machine.address).unwrap();
    let run = machine.quickstart(&[]);
    let error = only_error(run.expect_exit(40));
    assert!(error.contains(&machine.address) && run.stderr.contains("ORCHESTRATORD_ADDR"), "{run}");
    drop(holder);
    machine.quickstart(&[]).expect_exit(0);
}

#[test]
fn an_engine_that_was_named_and_is_missing_is_not_replaced() {
    let machine = Machine::with(Path::new("/nowhere/llama-server"));
    let run = machine.quickstart(&[]);
    assert!(only_error(run.expect_exit(50)).contains("LLAMA_SERVER"), "{run}");
    machine.quickstart(&["--engine", "/nowhere/llama-server"]).expect_exit(50);
}

/// A hub that has the model which a quick start takes, and ends with the test.
fn hub_with(model: Vec<u8>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let file = "qwen2.5-0.5b-instruct-q4_k_m.gguf";
    let listing = serde_json::json!([{"type": "file", "path": file, "size": model.len()}]).to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let path = path_of(&stream);
            let body = if path.ends_with(file) { model.as_slice() } else { listing.as_bytes() };
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            // A client that went away needs no answer.
            let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(body));
        }
    });
    address
}

fn path_of(stream: &TcpStream) -> String {
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_real_model_comes_from_the_hub_once() {
    let mut machine = Machine::with(&fake_engine());
    machine.hub = hub_with(std::fs::read(machine.home.tiny_model()).unwrap());
    let document = machine.quickstart(&["--json"]).expect_exit(0).json();
    assert_eq!(document["model"]["noise"], false);
    let path = document["model"]["path"].as_str().unwrap();
    assert!(path.starts_with(machine.home.layout().models().to_str().unwrap()), "{path}");
    machine.hub = "http://127.0.0.1:9".to_owned();
    let again = machine.quickstart(&["--json"]).expect_exit(0).json();
    assert_eq!(again["model"], document["model"]);
}

#[test]
fn it_ends_its_daemon_also_when_that_has_lost_its_file() {
    let machine = Machine::with(&fake_engine());
    machine.quickstart(&[]).expect_exit(0);
    let daemon = machine.home.llama_orch(&["daemon", "status", "--json"]).expect_exit(0).json();
    std::fs::remove_file(machine.home.layout().daemon_file()).unwrap();
    let run = machine.quickstart(&["--stop", "--json"]);
    assert_eq!(run.expect_exit(0).json()["daemon_stopped"], true, "{run}");
    assert!(!is_alive(&daemon["pid"]));
}

#[test]
fn a_port_that_was_taken_meanwhile_is_given_up_for_another() {
    let machine = Machine::with(&fake_engine());
    machine.quickstart(&[]).expect_exit(0);
    machine.home.llama_orch(&["down", "quickstart"]).expect_exit(0);
    let holder = TcpListener::bind(("127.0.0.1", machine.port.parse().unwrap())).unwrap();
    let again = |named: bool| {
        let mut command = machine.home.command("llama-orch");
        command
            .args(["quickstart", "--json"])
            .args(named.then_some(["--port", &machine.port]).into_iter().flatten());
        command.env("LLAMA_SERVER", &machine.engine).env("ORCHESTRATORD_ADDR", &machine.address);
        testkit::run(command)
    };
    only_error(again(true).expect_exit(40));
    let run = again(false);
    let moved = run.expect_exit(0).json()["instance"]["port"].clone();
    assert_ne!(moved.to_string(), machine.port);
    drop(holder);
}

#[test]
fn homes_begin_to_look_for_ports_at_different_places() {
    let ports: std::collections::BTreeSet<String> = (0..4)
        .map(|_| {
            let machine = Machine::with(&fake_engine());
            let mut command = machine.home.command("llama-orch");
            command.args(["quickstart", "--json"]).env("LLAMA_SERVER", &machine.engine);
            command.env("HF_ENDPOINT", &machine.hub).env("ORCHESTRATORD_ADDR", &machine.address);
            let port = testkit::run(command).expect_exit(0).json()["instance"]["port"].to_string();
            machine.quickstart(&["--stop"]).expect_exit(0);
            port
        })
        .collect();
    assert!(ports.len() > 1, "{ports:?}");
}
