//! From start to end: bind, load, serve, stop, crash.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::children;
use crate::disguise;
use crate::engine::Engine;
use crate::faults::Faults;
use crate::logs::{flood, log, tick};
use crate::options::Options;
use crate::router;
use crate::signals;

/// Runs an engine until something ends it.
pub(crate) fn run(options: Options, faults: Faults) -> ExitCode {
    // A router's child ends when its router closes stdin; here that variable can only be a leak.
    if std::env::var_os("LLAMA_SERVER_ROUTER_PORT").is_some() {
        log("cmd_router_to_child: EOF on stdin, exiting");
        return ExitCode::FAILURE;
    }
    disguise::hide(&faults);
    let may_crash = note_start(&options, &faults);
    // Before any thread, and before SIGTERM is blocked: children would inherit that.
    let children = children::spawn(&faults).expect("a running program can start itself");
    for pid in &children {
        log(&format!("fake: child {pid}"));
    }
    let engine = Arc::new(Engine::new(options, faults, children, may_crash));
    signals::watch(&engine);
    start_timed_faults(&engine);
    end_if_asked(&engine, "start");
    match bind(&engine) {
        Ok(listener) => {
            let loader = Arc::clone(&engine);
            std::thread::spawn(move || load(&loader));
            router::serve(&engine, &listener);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let Options { host, port, .. } = &engine.options;
            log(&format!(
                "start: couldn't bind HTTP server socket, hostname: {host}, port: {port} ({error})"
            ));
            log("llama_server: exiting due to HTTP server error");
            ExitCode::FAILURE
        }
    }
}

/// Starts what runs beside the requests; called again when the knobs change.
pub(crate) fn start_timed_faults(engine: &Arc<Engine>) {
    let faults = engine.faults();
    if let Some(after) = faults.number("FAKE_EXIT_AFTER_MS").filter(|_| engine.may_crash) {
        let engine = Arc::clone(engine);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(after));
            crash(&engine);
        });
    }
    if let Some(bytes) = faults.number("FAKE_FLOOD_BYTES") {
        std::thread::spawn(move || flood(bytes));
    }
    if faults.is_on("FAKE_LOG_EVERY_MS") {
        let engine = Arc::clone(engine);
        std::thread::spawn(move || tick(&engine));
    }
}

/// Ends the process the way the knobs say.
pub(crate) fn crash(engine: &Engine) -> ! {
    let faults = engine.faults();
    if let Some(words) = faults.text("FAKE_LAST_WORDS") {
        log(words);
    }
    if let Some(number) = faults.number("FAKE_EXIT_SIGNAL") {
        signals::kill_self(number);
    }
    let code = faults.number("FAKE_EXIT_CODE").unwrap_or(1);
    std::process::exit(i32::try_from(code).unwrap_or(1));
}

/// Writes the start log, and says whether this start may crash.
fn note_start(options: &Options, faults: &Faults) -> bool {
    let Some(path) = faults.text("FAKE_START_LOG") else { return true };
    let mut file =
        OpenOptions::new().create(true).append(true).open(path).expect("the start log is writable");
    let line = format!("{} {}\n", std::process::id(), options.port);
    file.write_all(line.as_bytes()).expect("the start log is writable");
    let starts = std::fs::read_to_string(path).expect("the start log is readable").lines().count() as u64;
    faults.number("FAKE_CRASHES").is_none_or(|crashes| starts <= crashes)
}

fn end_if_asked(engine: &Engine, moment: &str) {
    if engine.may_crash && engine.faults().text("FAKE_EXIT_AT") == Some(moment) {
        crash(engine);
    }
}

fn bind(engine: &Engine) -> io::Result<TcpListener> {
    let faults = engine.faults();
    std::thread::sleep(faults.millis("FAKE_BIND_MS"));
    while faults.is_on("FAKE_NEVER_BIND") {
        std::thread::park();
    }
    let host = engine.options.host.split(',').next().unwrap_or("127.0.0.1");
    let listener = TcpListener::bind((host, engine.options.port))?;
    log("srv  llama_server: initializing ...");
    Ok(listener)
}

/// The load: what `FAKE_LOAD_MS` and its kin say, then the same checks of the model as the real one's.
fn load(engine: &Engine) {
    let model = engine.options.model.display();
    log(&format!("srv    load_model: loading model '{model}'"));
    grow_while_loading(engine);
    if !is_gguf(&engine.options.model) {
        log(&format!("srv    load_model: failed to load model, '{model}'"));
        log("srv  llama_server: exiting due to model loading error");
        std::process::exit(1);
    }
    end_if_asked(engine, "loaded");
    disguise::change_user(&engine.faults());
    engine.become_ready();
    log("srv  llama_server: model loaded");
}

fn grow_while_loading(engine: &Engine) {
    let begin = Instant::now();
    let mut memory: Vec<Vec<u8>> = Vec::new();
    for step in 0_u64.. {
        let faults = engine.faults();
        if !faults.is_on("FAKE_NEVER_READY") && begin.elapsed() >= faults.millis("FAKE_LOAD_MS") {
            return;
        }
        match faults.text("FAKE_LOAD_GROWS") {
            Some("stderr") => log(&format!("load_model: step {step}")),
            Some("memory") => memory.push(vec![1; 256 * 1024]),
            Some("reads") => drop(std::fs::read(&engine.options.model)),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_gguf(path: &std::path::Path) -> bool {
    let mut magic = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"GGUF"
}
