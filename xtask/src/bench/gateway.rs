//! `cargo xtask bench gateway`: the price of standing between clients and an engine.

use std::path::Path;

use anyhow::Result;
use serde_json::json;
use testkit::free_port;

use super::Options;
use super::contenders::{Contender, MODEL, SLOTS};
use super::latency::{self, Latency};
use super::ours::Ours;
use super::throughput::{Load, Throughput};
use super::{idle, machine, programs, report};
use crate::setup;

pub(super) fn run(options: &Options) -> Result<()> {
    let ours = Ours::new(&programs::llama_orch(options.program.as_deref())?);
    let has_load = programs::is_there("wrk", "wrk", "-v");
    let has_nginx = programs::is_there("nginx", "nginx", "-v");
    let machine = machine::describe();
    let contenders = start(&ours, has_nginx)?;
    let load = Load::new(ours.home.scratch(), options.seconds)?;
    let (mut throughput, mut latency) = (Throughput::default(), Latency::default());
    for _ in 0..options.rows {
        if has_load {
            throughput.measure_row(&load, &contenders)?;
        }
        latency.measure_row(&contenders)?;
    }
    let mut parts = vec![format!("Median of {} rows in one run (least to most). {machine}\n", options.rows)];
    if has_load {
        parts.push(format!("`{}`:\n\n{}", load.shown(), throughput.table(&contenders)?));
        parts.push(against_peers(&throughput, &contenders));
    }
    parts.push(format!("One client: {}:\n\n{}", latency::shown(), latency.table(&contenders)));
    // The rows before it are worth having without it.
    match idle::measure(&programs::llama_orch(options.program.as_deref())?) {
        Ok(text) => parts.push(text),
        Err(error) => eprintln!("idle streams are left out: {error:#}"),
    }
    parts.push(versions(&contenders));
    let text = parts.join("\n");
    report::publish("gateway", &text, options.write)
}

/// The engine itself first, then every way to it.
///
/// Direct, nginx and llama-orch reach the same engine, the one that llama-orch has started.
fn start(ours: &Ours, has_nginx: bool) -> Result<Vec<Contender>> {
    ours.write_instance(MODEL, free_port(), SLOTS, &json!({}));
    ours.run(&["daemon", "start"])?;
    ours.run(&["up", MODEL])?;
    let engine = ours.running_engine(MODEL);
    let direct = format!("127.0.0.1:{}", engine.port);
    let scratch = ours.home.scratch();
    let mut contenders = vec![Contender::started("direct", direct.clone(), Vec::new())];
    if has_nginx {
        contenders.push(Contender::nginx(scratch, &direct)?);
    }
    contenders.push(Contender::llama_cpp_router(scratch, &ours.home.tiny_model())?);
    match setup::litellm() {
        Ok(environment) => contenders.push(Contender::litellm(scratch, &direct, &environment)?),
        Err(error) => eprintln!("LiteLLM is left out: {error:#}"),
    }
    let own = vec![ours.daemon_pid()?, engine.shim_pid];
    contenders.push(Contender::started("llama-orch", ours.address(), own));
    Ok(contenders)
}

fn against_peers(throughput: &Throughput, contenders: &[Contender]) -> String {
    let last = contenders.len() - 1;
    let peers = contenders.iter().enumerate().take(last).skip(1);
    let ratios = peers.map(|(index, peer)| {
        format!("llama-orch ÷ {} = {}", peer.name, throughput.ratios(last, index).shown(3))
    });
    format!("Row by row: {}.\n", ratios.collect::<Vec<_>>().join(", "))
}

fn versions(contenders: &[Contender]) -> String {
    let mut all = vec![programs::engine_version()];
    if contenders.iter().any(|it| it.name == "LiteLLM") {
        all.push(testkit::LITELLM_PROXY.to_owned());
    }
    for program in ["nginx", "wrk"] {
        let takes_part = program == "wrk" || contenders.iter().any(|it| it.name == program);
        if takes_part {
            all.push(programs::version(Path::new(program), "-v"));
        }
    }
    format!("{}.\n", all.join("; "))
}
