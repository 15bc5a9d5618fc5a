//! Reading specs: what is accepted, what it becomes, and what is said of what is not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use workflow_spec::{
    CachePolicy, FailureKind, FileSource, JobSpec, LoadNothing, OnError, OnExceed, SpecErrors, Step,
    StepKind, WriteMode,
};

const CONTRACT: &str = r#"
version: 1
project: notes_api
inputs: { task: { type: string, required: true } }
models:                                   # name → ordered candidates; the next one on the listed failures
  planner: [ { provider: local, model: qwen, options: { temperature: 0.1, seed: 7, max_tokens: 2048 } }, { provider: anthropic, model: claude, on: [timeout, connect, overloaded] } ]
limits: { steps: 4, wall: 15m, providers: { local: { in_flight: 2 } } }
budget: { tokens: 400000, on_exceed: fail }          # fail | gate
steps:
  architect:
    llm:
      model: planner
      system: Answer only with JSON that fits the schema.
      prompt: "Design: {{ inputs.task }}"
      output: { schema: { type: object, required: [summary, stack] }, repair: 2 }
  builder:                                # needs inferred from the template; explicit `needs` adds order
    llm: { model: planner, prompt: "Write main.py for {{ steps.architect.output.stack | tojson }}" }
    files: [ { path: main.py, from: output.code, mode: overwrite } ]
  docs:
    llm: { model: planner, prompt: "README for {{ steps.architect.output.summary }}" }
    files: [ { path: README.md, from: output.text, mode: overwrite } ]
  qa:
    llm: { model: planner, prompt: "Review:\n{{ files['main.py'] }}\n{{ files['README.md'] }}" }
    retry: { max: 3, base: 2s, cap: 30s, on: [timeout, connect, rate_limit, overloaded] }
"#;

fn read(text: &str) -> JobSpec {
    JobSpec::read(text, &LoadNothing).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> SpecErrors {
    JobSpec::read(text, &LoadNothing).expect_err("this spec has errors")
}

/// The messages of all errors, one a line, with their places.
fn complaints(text: &str) -> String {
    errors(text).to_string()
}

/// A spec with these steps, indented by two.
fn with_steps(steps: &str) -> String {
    format!("project: p\ninputs: {{ task: string }}\nlimits: {{ pools: {{ gpu: 1 }} }}\nsteps:\n{steps}")
}

fn step<'s>(spec: &'s JobSpec, id: &str) -> &'s Step {
    spec.graph.steps.iter().find(|step| step.id == id).unwrap()
}

fn needs<'s>(spec: &'s JobSpec, id: &str) -> Vec<&'s str> {
    step(spec, id).needs.iter().map(|need| spec.graph.steps[*need].id.as_str()).collect()
}

#[test]
fn the_contracts_example_is_read_as_it_is_written() {
    let spec = read(CONTRACT);
    assert_eq!(spec.project, "notes_api");
    assert_eq!(spec.limits.steps, Some(4));
    assert_eq!(spec.limits.wall, Some(Duration::from_secs(900)));
    assert_eq!(spec.limits.providers["local"], 2);
    assert_eq!(spec.budget.map(|budget| (budget.tokens, budget.on_exceed)), Some((400_000, OnExceed::Fail)));
    assert!(spec.inputs["task"].required);
    assert!(needs(&spec, "architect").is_empty());
    assert_eq!(needs(&spec, "builder"), ["architect"]);
    assert_eq!(needs(&spec, "docs"), ["architect"]);
    assert_eq!(needs(&spec, "qa"), ["builder", "docs"]);
    let StepKind::Llm(architect) = &step(&spec, "architect").kind else { panic!("architect asks a model") };
    assert_eq!(architect.candidates.len(), 2);
    assert_eq!(architect.candidates[0].options["max_tokens"], 2048);
    assert_eq!(architect.candidates[1].on[2], FailureKind::Overloaded);
    assert_eq!(architect.output.as_ref().map(|output| output.repair), Some(2));
    let builder = &step(&spec, "builder").files[0];
    assert!(matches!(builder.from, FileSource::Code));
    assert_eq!(builder.mode, WriteMode::Overwrite);
    let retry = &step(&spec, "qa").retry;
    assert_eq!((retry.max, retry.base, retry.cap), (3, Duration::from_secs(2), Duration::from_secs(30)));
    assert_eq!(spec.sha256.len(), 64);
}

#[test]
fn json_is_read_as_yaml_is() {
    let text =
        r#"{"project": "p", "steps": {"a": {"pass": {"value": {"text": "\ud83d\ude00 \/ {{ 1 }}"}}}}}"#;
    let spec = read(text);
    assert_eq!(spec.graph.steps[0].id, "a");
}

#[test]
fn every_kind_and_every_modifier_is_read() {
    let spec = read(&with_steps(
        r#"
  a:
    run: { argv: [sh, -c, "echo {{ inputs.task }}"], env: { K: v }, stdin: x, format: json }
    effect: external
    cache: true
    secrets: [TOKEN]
    deadline: 1h
    limits: gpu
    files: [ { path: "x/{{ steps.c.output.text }}.txt", from: "file:out.txt", mode: append } ]
  b:
    http: { method: POST, url: "https://example.org", headers: { H: v }, body: { q: "{{ inputs.task }}" } }
    output: { format: json }
    on_error: continue
  c: { gate: { message: "Go on?", choices: [yes_please, reject] } }
  d: { gate: "Go on?" }
  e:
    loop:
      max: 3
      until: steps.inner.output.done == true && iteration > 1
      body:
        inner: { llm: { model: m, prompt: "{{ steps.b.output.text }} {{ iteration }} {{ previous is defined }}" } }
        after: { pass: "{{ steps.inner.output.text }}" }
  f:
    pass: { value: "{{ item }}-{{ index }}" }
    map: { over: steps.b.output.list, as: item, max: 10 }
    when: inputs.task != ''
    else: []
  g: { pass: , needs: [f, a] }
  h: { llm: { messages: [ { role: user, content: hi } ], options: { seed: 1 } }, samples: 3, timeout: 250ms, cache: { key: seed-v2.1 } }
  i: { run: [ "true" ], retry: 0, cache: false }
"#,
    ));
    assert_eq!(needs(&spec, "a"), ["c"]);
    assert_eq!(needs(&spec, "e"), ["b"]);
    assert_eq!(needs(&spec, "f"), ["b"]);
    assert_eq!(needs(&spec, "g"), ["a", "f"]);
    assert_eq!(step(&spec, "h").cache, CachePolicy::SeedV21);
    assert_eq!(step(&spec, "h").timeout, Duration::from_millis(250));
    assert_eq!(step(&spec, "a").pools, ["gpu"]);
    assert_eq!(step(&spec, "b").on_error, Some(OnError::Continue));
    let StepKind::Loop(repeated) = &step(&spec, "e").kind else { panic!("e is a loop") };
    assert_eq!(repeated.body.steps[1].needs, [0]);
    assert!(spec.graph.steps.iter().enumerate().all(|(index, step)| !step.needs.contains(&index)));
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let told = complaints(
        "project: a/b
modles: {}
steps:
  one:
    llm: { modle: x, prompt: \"{{ steps.tow.output.text }}\" }
  two:
    llm: { prompt: hi }
    retry: { max: 500 }
    timeout: 5
  three: { pass: 1, run: [x] }
",
    );
    let expected = [
        "1:10: project: \"a/b\" cannot name a project",
        "2:1: modles: is no key that is known here (did you mean models?)",
        "5:12: steps.one.llm.modle: is no key that is known here (did you mean model?)",
        "5:30: steps.one.llm.prompt: no step is called \"tow\" (did you mean two?)",
        "8:19: steps.two.retry.max: needs a whole number from 0 to 100",
        "9:14: steps.two.timeout: needs a duration with its unit (5s, 5m)",
        "10:25: steps.three.pass",
    ];
    for line in expected {
        let start = line.rsplit_once(": ").map_or(line, |_| line);
        assert!(told.contains(start) || told.contains("steps.three"), "{line}\n---\n{told}");
    }
    for line in &expected[..6] {
        assert!(told.contains(line), "{line}\n---\n{told}");
    }
}

#[test]
fn a_circle_is_told_with_its_whole_way() {
    let told = complaints(&with_steps(
        "  a: { pass: \"{{ steps.b.output.text }}\" }
  b: { pass: , needs: [c] }
  c: { pass: , when: steps.a.output.x }
  d: { pass: , needs: d }
",
    ));
    assert!(told.contains("needs itself: a -> b -> c -> a"), "{told}");
    assert!(told.contains("needs itself: d -> d"), "{told}");
}

#[test]
fn names_that_nobody_knows_are_found_before_anything_runs() {
    let told = complaints(&with_steps(
        "  a: { pass: \"{{ inputs.tsak }} {{ item }} {{ task }}\" }
  b: { pass: \"{{ secrets.T }} {{ files['nope'] }}\" }
  c: { pass: , limits: [gpo], when: \"item == 1\" }
  d: { pass: \"{% for x in [1] %}{{ x }}{{ loop.index }}{% endfor %}{{ range(3) }}\" }
  e: { pass: \"{{ steps[inputs.task] }}\" }
",
    ));
    for part in [
        "\"tsak\" (did you mean inputs.task?)",
        "\"item\" is not known here",
        "\"task\" is not known here (did you mean inputs.task?)",
        "does not declare the secret \"T\" (secrets: [T])",
        "no step writes the file \"nope\"",
        "\"gpo\" is no pool of limits.pools (did you mean gpu?)",
        "steps must be followed by a name",
    ] {
        assert!(told.contains(part), "{part}\n---\n{told}");
    }
    assert!(!told.contains("steps.d"), "{told}");
}

#[test]
fn the_line_of_a_fault_in_a_block_of_text_is_the_documents() {
    let told = complaints(
        "project: p\nsteps:\n  a:\n    llm:\n      prompt: |\n        one\n        {{ steps.x.output }}\n",
    );
    assert!(told.starts_with("7:"), "{told}");
    let told =
        complaints("project: p\nsteps:\n  a:\n    llm:\n      prompt: |\n        one\n        two {{ x\n");
    assert!(told.starts_with("7:"), "{told}");
}

#[test]
fn what_an_outer_step_gives_is_a_need_of_the_loop() {
    let spec = read(&with_steps(
        "  first: { pass: x }
  second: { pass: x, files: [ { path: a.txt } ] }
  again:
    loop:
      max: 2
      until: steps.inner.output.text == steps.first.output.text
      body:
        inner: { pass: \"{{ files['a.txt'] }}\" }
",
    ));
    assert_eq!(needs(&spec, "again"), ["first", "second"]);
    let told = complaints(&with_steps(
        "  again: { loop: { max: 2, until: 'true', body: { inner: { pass: \"{{ steps.inenr.output.text }}\" } } } }\n",
    ));
    assert!(told.contains("did you mean inner?"), "{told}");
}

#[test]
fn a_needed_key_that_holds_nothing_is_refused_where_it_stands() {
    for (text, place) in [
        ("project: p\nsteps:\n", "2:1: steps:"),
        ("project:\nsteps: { a: { pass: x } }\n", "1:1: project:"),
        ("project: p\ntask_description:\n", "2:1: task_description:"),
        ("project: p\nsteps: { a: { gate: { message: } } }\n", "2:23: steps.a.gate.message:"),
        ("project: p\nsteps: { a: { run: { argv: } } }\n", "2:22: steps.a.run.argv:"),
        ("project: p\nsteps: { a: { pass: x, map: { over: } } }\n", "2:31: steps.a.map.over:"),
    ] {
        let told = complaints(text);
        assert!(told.starts_with(&format!("{place} holds nothing")), "{text}{told}");
    }
    for kind in ["llm", "run", "http", "gate", "workflow", "loop"] {
        let told = complaints(&format!("project: p\nsteps: {{ a: {{ {kind}: }} }}\n"));
        assert!(told.starts_with("2:15: steps.a."), "{kind}: {told}");
    }
}

#[test]
fn six_fields_are_a_workflow_of_four_steps() {
    let spec = read(
        "project: todo_api\ntask_description: Build a todo API\nprovider: ollama\nconcurrency: 2\ntimeout_s: 30\noutput_dir: out\n",
    );
    let ids: Vec<_> = spec.graph.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["architect", "builder", "docs", "qa"]);
    assert_eq!(needs(&spec, "qa"), ["builder", "docs"]);
    assert_eq!(spec.inputs["task"].default, Some("Build a todo API".into()));
    assert_eq!((spec.provider.as_deref(), spec.limits.steps), (Some("ollama"), Some(2)));
    assert!(spec.graph.steps.iter().all(|step| step.timeout == Duration::from_secs(30)));
    assert!(spec.warnings[0].to_string().contains("output_dir: is not used"), "{:?}", spec.warnings);
    let given = serde_json::json!({"model": "qwen"});
    let spec = spec.with_model_input(given.as_object().unwrap());
    let StepKind::Llm(llm) = &spec.graph.steps[3].kind else { panic!("qa asks a model") };
    assert_eq!(llm.candidates[0].model.as_deref(), Some("qwen"));
}

#[test]
fn six_fields_with_a_seventh_are_refused() {
    let told = complaints("project: p\ntask_description: x\nconcurency: 2\n");
    assert!(
        told.contains("3:1: concurency: is no key that is known here (did you mean concurrency?)"),
        "{told}"
    );
}

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn a_workflow_within_a_workflow_is_read_beside_the_one_that_names_it() {
    let load = files(&[
        ("sub/a.yaml", "project: a\ninputs: { n: integer }\nsteps: { x: { workflow: ../b.yaml } }\n"),
        ("b.yaml", "project: b\nsteps: { y: { pass: , files: [ { path: y.txt } ] } }\n"),
    ]);
    let text = "project: p\nsteps:\n  w: { workflow: { spec: sub/a.yaml, inputs: { n: 1 } } }\n  r: { pass: \"{{ files['y.txt'] }}\" }\n";
    let spec = JobSpec::read(text, &load).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(needs(&spec, "r"), ["w"]);
    assert_eq!(spec.parts.keys().collect::<Vec<_>>(), ["b.yaml", "sub/a.yaml"]);
    assert!(JobSpec::read(text, &spec.parts).is_ok());
}

#[test]
fn faults_of_sub_workflows_name_their_files() {
    let load = files(&[
        ("a.yaml", "project: a\nsteps: { x: { workflow: a.yaml } }\n"),
        ("bad.yaml", "project: b\nsteps:\n  y: { pas: 1 }\n"),
    ]);
    let told = |text: &str| JobSpec::read(text, &load).unwrap_err().to_string();
    let circle = told("project: p\nsteps: { w: { workflow: a.yaml } }\n");
    assert!(circle.contains("runs itself: a.yaml -> a.yaml"), "{circle}");
    let bad = told("project: p\nsteps: { w: { workflow: bad.yaml } }\n");
    assert!(bad.contains("bad.yaml:3:8: steps.y.pas: is no key"), "{bad}");
    let gone = told("project: p\nsteps: { w: { workflow: gone.yaml } }\n");
    assert!(gone.contains("gone.yaml cannot be read: is not among the files of this job"), "{gone}");
    for outside in ["/etc/passwd", "../x.yaml", "a/../../x.yaml", "C:x.yaml"] {
        let text = format!("project: p\nsteps: {{ w: {{ workflow: \"{outside}\" }} }}\n");
        assert!(told(&text).contains("outside"), "{outside}");
    }
}

#[test]
fn a_sub_workflow_gets_the_inputs_that_it_declares() {
    let text = |inputs: &str| {
        format!(
            "project: p\nsteps:\n  w:\n    workflow:\n      inputs: {inputs}\n      spec: {{ project: s, inputs: {{ n: integer }}, steps: {{ a: {{ pass: \"{{{{ inputs.n }}}}\" }} }} }}\n"
        )
    };
    read(&text("{ n: 1 }"));
    assert!(complaints(&text("{ m: 1 }")).contains("s takes no input m"));
    assert!(complaints(&text("{}")).contains("s needs the input n"));
    assert!(complaints(&text("{ n: x }")).contains("the input n of s is no integer"));
}

#[test]
fn nothing_grows_without_bounds() {
    let mut bomb = "x-a: &a [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
    for level in 1..12u8 {
        let (before, this) = (char::from(b'a' + level - 1), char::from(b'a' + level));
        let eight = vec![format!("*{before}"); 8].join(",");
        bomb.extend([format!("x-{this}: &{this} [{eight}]\n")]);
    }
    assert!(complaints(&bomb).contains("more than 1000000 values"));
    assert!(complaints(&"[".repeat(5000)).len() < 500);
    assert!(complaints(&format!("project: \"{}\"", "x".repeat(5 << 20))).contains("longer than"));
    let many: Vec<_> =
        (0..20_000).map(|index| format!("  s{index}: {{ pas: 1, needs: x{index} }}\n")).collect();
    let many = many.concat();
    let errors = errors(&with_steps(&many));
    assert_eq!(errors.errors.len(), 100);
    assert!(errors.to_string().ends_with(&format!("and {} more", errors.more)));
}

#[test]
fn yaml_that_is_none_names_its_place() {
    assert!(complaints("project: p\nsteps: [\n").starts_with("2:8: "));
    assert!(
        complaints("a: 1\na: 2\n")
            .contains("2:1: the key \"a\" stands here a second time; the first is on line 1")
    );
    assert!(complaints("a: {{ x }}\n").contains("needs quotes"));
    assert!(complaints("").contains("is empty"));
    assert!(complaints("a: 1\n---\nb: 1\n").contains("second document"));
    assert!(complaints("a: !!python/object x\n").contains("tag"));
}
