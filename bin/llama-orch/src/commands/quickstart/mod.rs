//! `quickstart`: from nothing to a first answer, and a second run that finds everything in place.

mod engine;
mod instance;
mod model;
mod stop;

use std::net::SocketAddr;
use std::time::Duration;

use instance_config::LoadedInstance;
use orch_core::{ExitCode, Failure};
use orchestratord::client::DaemonClient;
use orchestratord::compose;
use orchestratord::daemon_file::{self, DaemonFile};
use serde_json::json;

use super::ps;
use crate::arguments::QuickstartArguments;
use crate::chat::{Answer, Question, ask};
use crate::context::Context;
use crate::daemon_control;
use crate::ending::CommandResult;
use crate::progress::Spinner;
use crate::runtime::block_on;
use crate::steps::Warnings;
use crate::watching::look_at_home;

const NAME: &str = "quickstart";
const PROMPT: &str = "Say hello in one short sentence.";
const MAX_TOKENS: u32 = 48;
/// Ports that others take at the very moment.
const PORT_TRIES: u32 = 3;
/// A first load reads the model from a slow disk at worst.
const READY_LIMIT: Duration = Duration::from_secs(300);

pub(super) fn run(context: &Context, arguments: &QuickstartArguments) -> CommandResult {
    if arguments.stop {
        return stop::run(context);
    }
    // Made first: whatever cannot be written is told before anything is fetched.
    drop(compose::open_node(context.home()?)?);
    let known = instance::known(context)?;
    let engine = engine::find_or_install(context, arguments.engine.as_deref())?;
    context.talk.note(&format!("engine    {}", engine.words()));
    let model = model::find_or_fetch(context, arguments.model.as_deref(), known.as_ref())?;
    context.talk.note(&format!("model     {}", model.words()));
    let mut instance = instance::write(context, known, &engine, &model, arguments.port)?;
    let daemon = gateway(context)?;
    let gateway = daemon.connect_address();
    context.talk.note(&format!("gateway   http://{gateway} (pid {})", daemon.pid));
    let spinner = Spinner::start(context.talk, "loading the model");
    let ready = make_ready(context, &mut instance, arguments.port.is_some());
    spinner.stop();
    ready?;
    context.talk.note(&format!("instance  {}", instance.path.display()));
    let answer = converse(context, gateway, &daemon.token)?;
    tell(context, &Told { gateway, answer: &answer, engine: &engine, model: &model })
}

/// The daemon that runs, or else a new one, which `--stop` will end.
fn gateway(context: &Context) -> Result<DaemonFile, Failure> {
    let home = context.home()?;
    if let Some(file) = daemon_file::living(home) {
        return Ok(file);
    }
    let started = daemon_control::start(home, None)?;
    stop::remember(home, &started)?;
    Ok(started)
}

/// Starts the instance; on another port where somebody else was quicker, unless the user has named this one.
fn make_ready(context: &Context, instance: &mut LoadedInstance, port_is_named: bool) -> Result<(), Failure> {
    let client = DaemonClient::living(context.home()?).ok_or_else(daemon_control::not_running)?;
    for _ in 0..PORT_TRIES {
        match start(&client) {
            Err(failure) if failure.exit == ExitCode::PortInUse && !port_is_named => {
                context.talk.note(&format!("{failure}; trying another"));
                instance::move_port(context, instance)?;
            }
            result => return result,
        }
    }
    start(&client)
}

/// Starts the instance, or starts it anew where its config has changed since.
fn start(client: &DaemonClient) -> Result<(), Failure> {
    match block_on(client.up(NAME, Some(READY_LIMIT))) {
        Err(failure) if failure.exit == ExitCode::AlreadyRunning => {
            let rows = block_on(client.instances())?;
            if rows.iter().any(|row| row.name == NAME && row.restart_needed) {
                block_on(client.restart(NAME, false, Duration::ZERO, Some(READY_LIMIT)))
            } else {
                Ok(())
            }
        }
        result => result,
    }
}

fn converse(context: &Context, gateway: SocketAddr, token: &str) -> Result<Answer, crate::ending::Ended> {
    let printer = context.printer;
    let question = Question { gateway, token, model: NAME, prompt: PROMPT, max_tokens: MAX_TOKENS };
    if !printer.json() {
        printer.text(&format!("\n> {PROMPT}\n"))?;
    }
    let answer = block_on(ask(&question, &mut |text| {
        if printer.json() { Ok(()) } else { Ok(printer.text(text)?) }
    }))?;
    if !printer.json() {
        printer.text("\n\n")?;
    }
    Ok(answer)
}

struct Told<'a> {
    gateway: SocketAddr,
    answer: &'a Answer,
    engine: &'a engine::Engine,
    model: &'a model::Model,
}

fn tell(context: &Context, told: &Told<'_>) -> CommandResult {
    let Told { gateway, answer, engine, model } = told;
    let rows = look_at_home(context)?.rows;
    let first_token_ms = answer.first_token.map(|time| (time.as_secs_f64() * 1e4).round() / 10.0);
    let rate = answer.tokens_per_second.or_else(|| measured_rate(answer));
    if context.printer.json() {
        let row = rows.iter().find(|row| row.name == NAME);
        return Ok(context.printer.document(&json!({
            "gateway": format!("http://{gateway}"),
            "engine": {"executable": engine.executable, "version": engine.version},
            "model": {"path": model.path, "noise": model.is_noise},
            "instance": row,
            "prompt": PROMPT,
            "answer": answer.text,
            "first_token_ms": first_token_ms,
            "tokens": answer.tokens,
            "tokens_per_second": rate,
        }))?);
    }
    let tokens = answer.tokens.map_or(String::new(), |tokens| format!("{tokens} tokens, "));
    let rate = rate.map_or("unknown speed".to_owned(), |rate| format!("{rate:.1} tokens/s"));
    context
        .printer
        .line(format_args!("{tokens}first after {} ms, {rate}\n", first_token_ms.unwrap_or_default()))?;
    if model.is_noise {
        Warnings::default()
            .tell(context, "this model is random: its words are noise, everything else is real");
    }
    ps::show(context, &rows)?;
    Ok(context.printer.text(&next_steps(*gateway, model.is_noise))?)
}

/// What the engine did not tell is measured: everything after the first word.
fn measured_rate(answer: &Answer) -> Option<f64> {
    let (tokens, first) = (answer.tokens?, answer.first_token?);
    let time = answer.total.saturating_sub(first).as_secs_f64();
    (time > 0.0).then(|| tokens.saturating_sub(1) as f64 / time)
}

fn next_steps(gateway: SocketAddr, is_noise: bool) -> String {
    let own_model = if is_noise {
        "llama-orch quickstart --model FILE.gguf          # a model with sense\n  "
    } else {
        ""
    };
    format!(
        "\nnext:\n  curl http://{gateway}/v1/chat/completions -H 'Content-Type: application/json' \\\n    \
         -d '{{\"model\": \"{NAME}\", \"messages\": [{{\"role\": \"user\", \"content\": \"hi\"}}]}}'\n  \
         {own_model}llama-orch init NAME --model FILE.gguf && llama-orch up NAME\n  \
         llama-orch logs -f {NAME}\n  llama-orch quickstart --stop\n"
    )
}
