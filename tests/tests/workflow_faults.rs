//! What goes wrong at a provider, through the command line and on a real socket: of which kind it is, how often the
//! provider is asked, and how long it is left alone in between.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::home::Home;
use testkit::ProgramRun;
use testkit::provider::{FakeProvider, Fault, Rule, Script, SeenRequest};

/// A home whose workflows ask this address.
fn home_of(base_url: &str) -> Home {
    let home = Home::fake();
    let config = format!(
        "[workflow]\nprovider = \"fake\"\n[providers.fake]\nkind = \"openai_compatible\"\nbase_url = \"{base_url}\"\n"
    );
    std::fs::write(home.path().join("config.toml"), config).unwrap();
    home
}

fn run(home: &Home, spec: &str) -> ProgramRun {
    let path = home.scratch().join("job.yaml");
    std::fs::write(&path, spec).unwrap();
    home.run(&["run", "--spec", path.to_str().unwrap(), "--job-id", "job"])
}

fn events(home: &Home, kind: &str) -> Vec<Value> {
    let journal = std::fs::read_to_string(home.path().join("runs/job/events.jsonl")).unwrap();
    let events = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["type"] == kind).collect()
}

/// Pauses between requests, on the provider's own clock.
fn pauses(requests: &[SeenRequest]) -> Vec<u64> {
    requests.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).collect()
}

fn status(status: u16, retry_after: Option<&str>) -> Fault {
    let retry_after = retry_after.map(str::to_owned);
    Fault::Status { status, retry_after, headers: BTreeMap::new(), body: None }
}

/// What goes wrong every time, and what has to come of it.
struct Case {
    fault: Fault,
    /// More of the step.
    step: &'static str,
    kind: &'static str,
    requests: usize,
    /// Milliseconds between two requests at least.
    pause: u64,
}

/// Two more tries where the kind is one to try again; between two of them at least half of 200 ms.
const RETRY: &str = "retry: { max: 2, base: 200ms, cap: 200ms }";
/// A short time for each attempt.
const SHORT: &str = "timeout: 1s, retry: { max: 2, base: 200ms, cap: 200ms }";
const SHORT_AGAIN: &str = "timeout: 1s, retry: { max: 1, base: 200ms, cap: 200ms, on: [timeout] }";

fn cases() -> Vec<Case> {
    let case = |fault, step, kind, requests, pause| Case { fault, step, kind, requests, pause };
    vec![
        case(Fault::Refuse, RETRY, "connect", 3, 100),
        case(Fault::Cut, RETRY, "connect", 3, 100),
        case(Fault::End, RETRY, "connect", 3, 100),
        case(Fault::Garbage, RETRY, "overloaded", 3, 100),
        case(Fault::Page, RETRY, "overloaded", 3, 100),
        case(status(503, None), RETRY, "overloaded", 3, 100),
        case(status(529, None), RETRY, "overloaded", 3, 100),
        case(status(529, Some("1")), "retry: { max: 1, base: 1ms }", "overloaded", 2, 1000),
        case(status(429, Some("1")), "retry: { max: 1, base: 1ms }", "rate_limit", 2, 1000),
        // A wait that the deadline would cut short is not begun.
        case(status(429, Some("3600")), "deadline: 1m", "rate_limit", 1, 0),
        case(status(429, None), "retry: 0", "rate_limit", 1, 0),
        case(status(401, None), RETRY, "auth", 1, 0),
        case(status(400, None), RETRY, "validation", 1, 0),
        // Whoever was slow once is not asked again unless the step says so.
        case(Fault::Hang, SHORT, "timeout", 1, 0),
        case(Fault::Stall, SHORT, "timeout", 1, 0),
        case(Fault::Slow { piece_ms: 60_000 }, SHORT, "timeout", 1, 0),
        case(Fault::Hang, SHORT_AGAIN, "timeout", 2, 1100),
    ]
}

#[track_caller]
fn fails_as_expected(case: &Case) {
    let rule = Rule { fault: Some(case.fault.clone()), ..Rule::default() };
    let provider = FakeProvider::start(Script::default().rule(rule));
    let home = home_of(&provider.url());
    let spec =
        format!("project: faults\nsteps: {{ a: {{ llm: {{ model: fake, prompt: A }}, {} }} }}\n", case.step);
    let run = run(&home, &spec);
    let what = format!("{:?} with {}\n{run}", case.fault, case.step);

    assert_eq!(run.exit_code, Some(70), "{what}");
    assert!(run.stderr.contains(&format!("step a: {}", case.kind)), "{what}");
    let failed = events(&home, "step.failed");
    assert_eq!((failed.len(), &failed[0]["data"]["kind"]), (1, &Value::from(case.kind)), "{what}");
    let requests = provider.requests();
    assert_eq!(requests.len(), case.requests, "{what}");
    assert_eq!(events(&home, "llm.request").len(), case.requests, "{what}");
    let retried = events(&home, "step.retrying");
    assert_eq!(retried.len(), case.requests - 1, "{what}");
    assert!(retried.iter().all(|event| event["data"]["kind"] == case.kind), "{what}");
    assert!(pauses(&requests).iter().all(|pause| *pause >= case.pause), "{what}\n{:?}", pauses(&requests));
}

#[test]
fn each_fault_has_its_kind_its_number_of_tries_and_its_waits() {
    let cases = cases();
    std::thread::scope(|scope| {
        let half = cases.len() / 2;
        for part in [&cases[..half], &cases[half..]] {
            scope.spawn(move || part.iter().for_each(fails_as_expected));
        }
    });
}

#[test]
fn where_nobody_listens_three_tries_are_made() {
    let home = home_of(&format!("http://127.0.0.1:{}", testkit::free_port()));
    let spec = "project: nobody\nsteps: { a: { llm: { model: fake, prompt: A }, retry: { max: 2, base: 200ms, cap: 200ms } } }\n";
    let run = run(&home, spec);
    run.expect_exit(70);
    assert!(run.stderr.contains("step a: connect") && run.stderr.contains("refused"), "{run}");
    assert_eq!(events(&home, "llm.request").len(), 3, "{run}");
    let delays: Vec<f64> = events(&home, "step.retrying")
        .iter()
        .map(|event| event["data"]["delay_s"].as_f64().unwrap())
        .collect();
    assert!(delays.len() == 2 && delays.iter().all(|delay| (0.1..=0.2).contains(delay)), "{delays:?}");
}

#[test]
fn a_provider_that_recovers_is_asked_when_it_said_and_its_answer_counts() {
    let faults = [status(429, Some("1")), status(529, None), Fault::Cut];
    let script = faults.into_iter().fold(Script::default(), |script, fault| script.fault("please", fault, 1));
    let provider = FakeProvider::start(script);
    let home = home_of(&provider.url());
    let spec = "project: recovers\nsteps: { a: { llm: { model: fake, prompt: please }, retry: { max: 3, base: 100ms, cap: 100ms } } }\n";
    run(&home, spec).expect_exit(0);
    let pauses = pauses(&provider.requests());
    assert_eq!(pauses.len(), 3, "{pauses:?}");
    assert!(pauses[0] >= 1000 && pauses[1] >= 50 && pauses[2] >= 50, "{pauses:?}");
    let kinds: Vec<Value> =
        events(&home, "step.retrying").iter().map(|event| event["data"]["kind"].clone()).collect();
    assert_eq!(kinds, ["rate_limit", "overloaded", "connect"]);
    assert_eq!(events(&home, "step.succeeded")[0]["data"]["provider_calls"], 4);
}

#[test]
fn a_slow_answer_is_a_good_one() {
    let slow = Rule { fault: Some(Fault::Slow { piece_ms: 100 }), ..Rule::default() };
    let provider = FakeProvider::start(Script::default().rule(slow));
    let home = home_of(&provider.url());
    run(&home, "project: slow\nsteps: { a: { llm: { model: fake, prompt: take your time } } }\n")
        .expect_exit(0);
    assert_eq!(provider.stats().completed, 1);
}

/// llama.cpp's words where its parser cannot read what the model said under a schema or tools.
fn unreadable(times: Option<u64>) -> Script {
    let message = "The model produced output that does not match the expected peg-native format";
    let body = Some(json!({"error": {"code": 500, "message": message, "type": "server_error"}}));
    let fault = Fault::Status { status: 500, retry_after: None, headers: BTreeMap::new(), body };
    Script::default().rule(Rule { fault: Some(fault), times, ..Rule::default() })
}

#[test]
fn an_answer_that_the_engine_cannot_read_is_asked_for_again_within_the_repairs() {
    let spec = "project: unreadable\nsteps: { a: { llm: { model: fake, prompt: A, output: { schema: { type: object }, repair: 2 } } } }\n";
    for (times, exit, requests) in [(Some(2), 0, 3), (None, 70, 3)] {
        let provider = FakeProvider::start(unreadable(times));
        let home = home_of(&provider.url());
        let run = run(&home, spec);
        run.expect_exit(exit);
        assert_eq!(provider.requests().len(), requests, "{run}");
        assert!(events(&home, "step.retrying").is_empty(), "a repair is no retry\n{run}");
        if exit != 0 {
            assert!(run.stderr.contains("step a: schema") && run.stderr.contains("peg-native"), "{run}");
        }
    }
}

/// What `show` says of the only step.
fn shown(home: &Home) -> String {
    home.ok(&["show", "job"]).stdout.lines().nth(1).unwrap().to_owned()
}

#[test]
fn an_answer_that_is_cut_where_the_step_said_so_counts_but_is_not_kept_for_others() {
    let provider = FakeProvider::start(Script::default().answer("", "one two three four"));
    let spec =
        "project: cut\nsteps: { a: { llm: { model: fake, prompt: A, options: { max_tokens: 2 } } } }\n";
    let home = home_of(&provider.url());
    let run = run(&home, spec);
    run.expect_exit(0);
    assert!(run.stderr.contains("a: the answer was cut at 2 tokens"), "{run}");
    let answer = &events(&home, "llm.response")[0];
    assert_eq!((&answer["level"], &answer["data"]["finish_reason"]), (&json!("WARN"), &json!("length")));
    assert!(shown(&home).contains("cut at 2 tokens"), "{}", shown(&home));
    assert!(events(&home, "cache.stored").is_empty());

    home.ok(&["run", "--resume", "job"]);
    assert_eq!(provider.stats().requests, 1, "the job itself goes on with it");
    home.ok(&["run", "--spec", home.scratch().join("job.yaml").to_str().unwrap(), "--job-id", "other"]);
    assert_eq!(provider.stats().requests, 2);
}

#[test]
fn an_answer_that_is_cut_by_the_models_context_fails_its_step_with_what_to_do() {
    let finish = Some("length".to_owned());
    let rule = Rule { text: Some("one two three".to_owned()), finish, ..Rule::default() };
    for (step, kind, advice) in [
        ("prompt: please be brief", "validation", "max_tokens"),
        ("prompt: please be brief, options: { max_tokens: -1 }", "validation", "sets no max_tokens"),
        ("prompt: please be brief, output: { schema: { type: object } }", "schema", "context"),
        (
            "prompt: please be brief, options: { max_tokens: 9 }, output: { schema: { type: object } }",
            "schema",
            "raise max_tokens",
        ),
    ] {
        let provider = FakeProvider::start(Script::default().rule(rule.clone()));
        let home = home_of(&provider.url());
        let run =
            run(&home, &format!("project: cut\nsteps: {{ a: {{ llm: {{ model: fake, {step} }} }} }}\n"));
        run.expect_exit(70);
        let told = format!("step a: {kind}: the answer was cut after 3 tokens, the prompt has 3");
        assert!(run.stderr.contains(&told) && run.stderr.contains(advice), "{run}");
        assert_eq!(provider.stats().requests, 1, "the same again would be cut again\n{run}");
        assert!(!home.path().join("cache").exists(), "nothing is kept of it");
    }
}

/// Answers of a server in trouble, so many or always.
fn trouble(times: Option<u64>) -> Script {
    Script::default().rule(Rule { fault: Some(status(503, None)), times, ..Rule::default() })
}

#[test]
fn a_provider_that_is_left_alone_is_passed_over_for_the_next_candidate_at_once() {
    let (bad, good) = (FakeProvider::start(trouble(None)), FakeProvider::start(Script::default()));
    let home = home_of(&bad.url());
    let more = format!("[providers.good]\nkind = \"openai_compatible\"\nbase_url = \"{}\"\n", good.url());
    let settings = home.path().join("config.toml");
    std::fs::write(&settings, std::fs::read_to_string(&settings).unwrap() + &more).unwrap();
    let spec = "
project: elsewhere
limits: { steps: 1 }
models: { m: [ { provider: fake, model: fake }, { provider: good, model: fake, on: [overloaded] } ] }
steps:
  all: { map: { over: '[1, 2, 3, 4, 5, 6, 7, 8]' }, llm: { model: m, prompt: 'step {{ item }}' }, retry: 0 }
";
    run(&home, spec).expect_exit(0);
    assert_eq!((bad.stats().requests, good.stats().requests), (5, 8), "the fifth failure opens the circuit");
    let kinds = events(&home, "step.retrying").into_iter().map(|event| event["data"]["kind"].clone());
    assert_eq!(kinds.filter(|kind| kind == "circuit_open").count(), 3);
}

#[test]
fn a_provider_that_is_left_alone_and_comes_back_fails_no_step() {
    let provider = FakeProvider::start(trouble(Some(6)));
    let home = home_of(&provider.url());
    let spec = "
project: back
limits: { steps: 6 }
steps:
  all:
    map: { over: '[1, 2, 3, 4, 5, 6]' }
    llm: { model: fake, prompt: 'step {{ item }}' }
    retry: { max: 6, base: 1ms }
";
    let run = run(&home, spec);
    run.expect_exit(0);
    let waited = events(&home, "step.retrying").iter().any(|event| event["data"]["kind"] == "circuit_open");
    assert!(waited, "{run}");
    assert_eq!(provider.stats().requests, 12, "six faults and six answers\n{run}");
}
