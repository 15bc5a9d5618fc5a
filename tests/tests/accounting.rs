//! What was asked, what it cost and how it ended: metrics, the request log and the commands that read it.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use serde_json::json;
use support::SOON;
use support::home::Home;
use testkit::{http, wait_for};

/// The names of a scrape, each with the names of its labels, one a line.
fn names_and_labels(scrape: &str) -> BTreeSet<String> {
    let samples = scrape.lines().filter(|line| !line.starts_with('#'));
    let shape = |line: &str| {
        let (series, _) = line.rsplit_once(' ')?;
        let Some((name, labels)) = series.split_once('{') else { return Some(series.to_owned()) };
        let labels: Vec<&str> =
            labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect();
        Some(format!("{name}{{{}}}", labels.join(",")))
    };
    samples.filter_map(shape).filter(|shape| !shape.contains("_bucket{") && !shape.contains("_sum")).collect()
}

/// One completion through the gateway.
fn ask(address: &str) {
    let asked = json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4});
    let answer = http::post_json(address, "/v1/chat/completions", &asked).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The sum of all series of one metric that counts whole things.
fn total(scrape: &str, name: &str) -> u64 {
    let values = scrape.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok())?
    });
    values.sum::<f64>() as u64
}

#[test]
fn a_scrape_has_the_metrics_of_the_contract_and_the_engines_own_counters() {
    let home = Home::real();
    home.instance("chat", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    ask(&daemon.address);
    let scrape = http::get(&daemon.address, "/metrics").unwrap().text();
    let shapes: Vec<String> = names_and_labels(&scrape).into_iter().collect();
    insta::assert_snapshot!(shapes.join("\n"));
}

#[test]
fn the_engines_counters_agree_with_ours_and_never_fall_when_an_engine_starts_anew() {
    let home = Home::real();
    home.instance("chat", &json!({}));
    let daemon = home.start_daemon();
    let scrape = || http::get(&daemon.address, "/metrics").unwrap().text();
    // An answer is there a moment before the engine has counted it, and a look shows what was known a second ago.
    let agreed = |generated: u64| {
        wait_for("both counters", SOON, || {
            let scrape = scrape();
            total(&scrape, "tokens_out_total") == generated
                && total(&scrape, "llamacpp_tokens_predicted_total") == generated
                && total(&scrape, "tokens_in_total")
                    == total(&scrape, "llamacpp_prompt_tokens_total")
                        + total(&scrape, "llamacpp_prompt_tokens_cached_total")
        });
    };
    home.ok(&["up", "chat"]);
    ask(&daemon.address);
    agreed(4);
    let calm = scrape();
    assert_eq!(calm, scrape(), "a scrape changes nothing");
    home.ok(&["restart", "chat"]);
    assert!(total(&scrape(), "llamacpp_tokens_predicted_total") >= 4);
    ask(&daemon.address);
    agreed(8);
}
