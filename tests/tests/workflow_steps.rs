//! Steps that act on the world: programs, services, people. Through the command line, with real processes and sockets.

#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use support::SOON;
use support::home::{Background, Home};
use support::processes::{is_alive, kill_hard};
use testkit::{ProgramRun, wait_for, wait_for_value};

const JOB: &str = "job";
const SECRET: &str = "s3cret-value-of-the-test";

/// A home in which one workflow runs under one name.
struct Scene {
    home: Home,
}

impl Scene {
    fn new(spec: &str) -> Self {
        let scene = Self { home: Home::fake() };
        scene.write_spec(spec);
        scene
    }

    /// `{scratch}` stands for a folder that programs can reach.
    fn write_spec(&self, spec: &str) {
        let spec = spec.replace("{scratch}", &self.home.scratch().display().to_string());
        fs::write(self.spec(), format!("version: 1\nproject: p\n{spec}"))
            .expect("the scratch folder is writable");
    }

    fn spec(&self) -> PathBuf {
        self.home.scratch().join("job.yaml")
    }

    fn run(&self) -> ProgramRun {
        let mut command = self.home.command(&["run", "--job-id", JOB, "--spec"]);
        command.arg(self.spec()).env("TOKEN", SECRET);
        testkit::run(command)
    }

    fn resume(&self) -> ProgramRun {
        let mut command = self.home.command(&["run", "--resume", JOB]);
        command.env("TOKEN", SECRET);
        testkit::run(command)
    }

    fn start(&self) -> Background {
        let spec = self.spec();
        let spec = spec.to_str().expect("a path of tests is text");
        self.home.spawn(&["run", "--job-id", JOB, "--spec", spec], "run.txt")
    }

    fn start_again(&self) -> Background {
        self.home.spawn(&["run", "--resume", JOB], "resume.txt")
    }

    fn decide(&self, step: &str, choice: &str) -> ProgramRun {
        self.home.run(&["decide", JOB, step, choice])
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("runs").join(JOB)
    }

    /// What the journal tells so far: whole lines.
    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder().join("events.jsonl")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("a whole line is JSON")).collect()
    }

    /// The data of the events of a type, of one step.
    fn data(&self, kind: &str, step: &str) -> Vec<Value> {
        let events = self.events().into_iter();
        events.filter(|it| it["type"] == kind && it["step"] == step).map(|it| it["data"].clone()).collect()
    }

    fn count(&self, kind: &str) -> usize {
        self.events().iter().filter(|event| event["type"] == kind).count()
    }

    fn failure(&self, step: &str) -> Value {
        self.data("step.failed", step)
            .pop()
            .unwrap_or_else(|| panic!("{step} has not failed: {:?}", self.events()))
    }

    fn output(&self, path: &str) -> String {
        fs::read_to_string(self.folder().join("outputs/p").join(path)).expect("the file is there")
    }

    fn log(&self, step: &str) -> String {
        fs::read_to_string(self.folder().join("logs").join(format!("{step}.log"))).unwrap_or_default()
    }

    fn scratch(&self, name: &str) -> PathBuf {
        self.home.scratch().join(name)
    }

    fn pids(&self, name: &str, count: usize) -> Vec<u32> {
        wait_for_value("the pids of the tree", SOON, || {
            let text = fs::read_to_string(self.scratch(name)).ok()?;
            let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            (pids.len() == count && text.ends_with('\n')).then_some(pids)
        })
    }
}

#[track_caller]
fn wait_for_the_end_of(pids: &[u32]) {
    wait_for("the end of the whole tree", SOON, || !pids.iter().any(|pid| is_alive(*pid)));
}

/// Every file below a folder that holds a text.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if fs::read(&path)
            .is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        {
            found.push(path);
        }
    }
    found
}

/// A service that writes down what it is asked and answers from a script; the last answer stays.
struct Service {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn answering(script: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, heard): (Vec<String>, _) =
            (script.iter().map(|it| (*it).to_owned()).collect(), asked.clone());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let answer = &script[number.min(script.len() - 1)];
                if let Some(request) = exchange(stream, answer) {
                    heard.lock().expect("no test panics with it").push(request);
                }
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test panics with it").clone()
    }
}

/// `answer` is status line, further header lines, an empty line and the body, with `\n` between.
fn exchange(mut stream: TcpStream, answer: &str) -> Option<String> {
    stream.set_read_timeout(Some(SOON)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        request.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.push_str(&String::from_utf8_lossy(&body));
    let (head, body) = answer.split_once("\n\n").unwrap_or((answer, ""));
    let head = head.replace('\n', "\r\n");
    write!(stream, "HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        .ok()?;
    Some(request)
}

fn header(request: &str, name: &str) -> String {
    let prefix = format!("{}:", name.to_ascii_lowercase());
    let line = request.lines().find(|line| line.to_ascii_lowercase().starts_with(&prefix));
    line.map(|line| line[prefix.len()..].trim().to_owned()).unwrap_or_default()
}

#[test]
fn a_program_gives_text_json_and_files() {
    let scene = Scene::new(
        r#"
steps:
  list: { run: { argv: [sh, -c, 'echo "{\"name\": \"$0\"}"', "a b; $(id)"], format: json } }
  shout:
    run:
      argv: [sh, -c, 'tr a-z A-Z; pwd > where; printf "\001\002" > blob; test "$MODE" = loud']
      stdin: "{{ steps.list.output.name }}"
      env: { MODE: loud }
    files:
      - { path: said.txt, from: output.text }
      - { path: blob.bin, from: "file:blob" }
      - { path: where.txt, from: "file:where" }
"#,
    );
    scene.run().expect_exit(0);
    assert_eq!(scene.output("said.txt"), "A B; $(ID)");
    assert_eq!(scene.output("blob.bin"), "\u{1}\u{2}");
    let folder = scene.output("where.txt");
    let folder = Path::new(folder.trim());
    assert!(folder.starts_with(scene.folder()) && !folder.exists(), "{folder:?}");
}

#[test]
fn a_program_that_fails_is_told_of_by_its_last_words() {
    let scene = Scene::new("steps:\n  bad: { run: [sh, -c, 'echo out; echo why >&2; exit 3'] }\n");
    scene.run().expect_exit(70);
    let failure = scene.failure("bad");
    assert_eq!(failure["kind"], "tool");
    assert!(failure["message"].as_str().is_some_and(|it| it.contains("exit code 3: why")), "{failure}");
    // Two pipes: which of the two is read first is not known.
    let log = scene.log("bad");
    assert!(["out\nwhy\n", "why\nout\n"].contains(&log.as_str()), "{log:?}");
}

#[test]
fn a_link_that_leads_out_of_the_folder_is_not_published() {
    let scene = Scene::new(
        "steps:\n  bad:\n    run: [sh, -c, 'ln -s {scratch}/outside.txt here']\n    files: [{ path: x, from: 'file:here' }]\n",
    );
    fs::write(scene.scratch("outside.txt"), "not yours").expect("the scratch folder is writable");
    scene.run().expect_exit(70);
    assert!(scene.failure("bad")["message"].as_str().is_some_and(|it| it.contains("link")));
    assert_eq!(files_with(&scene.folder(), "not yours"), Vec::<PathBuf>::new());
}

#[test]
fn a_log_is_there_from_the_first_byte_while_the_program_runs() {
    let scene = Scene::new(
        "steps:\n  slow: { run: [sh, -c, 'printf begun; while ! test -e {scratch}/go; do sleep 0.05; done'] }\n",
    );
    let mut run = scene.start();
    wait_for("the first byte", SOON, || scene.log("slow") == "begun");
    fs::write(scene.scratch("go"), "").expect("the scratch folder is writable");
    wait_for("the end", SOON, || run.has_ended());
    assert_eq!(run.exit_status().and_then(|status| status.code()), Some(0));
}

/// Starts a tree: a child in the background, one that hears no polite word, one that left the group.
const TREE: &str = "echo $$ >> {scratch}/pids; \
    sleep 1000 & echo $! >> {scratch}/pids; \
    sh -c \"trap : TERM; echo \\$\\$ >> {scratch}/pids; while :; do sleep 1; done\" & \
    setsid sh -c \"echo \\$\\$ >> {scratch}/pids; exec sleep 1000\" & wait";

#[test]
fn a_program_over_its_time_ends_with_its_whole_tree() {
    let scene =
        Scene::new(&format!("steps:\n  slow: {{ run: [sh, -c, '{TREE}'], timeout: 2s, retry: 0 }}\n"));
    scene.run().expect_exit(70);
    assert_eq!(scene.failure("slow")["kind"], "timeout");
    wait_for_the_end_of(&scene.pids("pids", 4));
}

#[test]
fn a_cancelled_job_ends_with_the_whole_tree_of_its_programs() {
    let scene = Scene::new(&format!(
        "steps:\n  slow: {{ run: [sh, -c, '{TREE}'] }}\n  next: {{ needs: slow, pass: x }}\n"
    ));
    let mut run = scene.start();
    let pids = scene.pids("pids", 4);
    let told = scene.home.ok(&["cancel", JOB]);
    assert!(told.stdout.contains("cancelled"), "{told}");
    wait_for("the end of the run", SOON, || run.has_ended());
    assert_ne!(run.exit_status().and_then(|status| status.code()), Some(0));
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "nothing outlives the run");
    assert_eq!((scene.count("step.cancelled"), scene.count("job.cancelled")), (1, 1));
    assert!(!scene.folder().join("control/cancel").exists(), "the wish is taken");
}

#[test]
fn a_job_that_nobody_runs_is_marked_and_its_next_life_ends_at_once() {
    let scene = Scene::new("steps:\n  ask: { gate: Go on? }\n  after: { needs: ask, pass: done }\n");
    scene.run().expect_exit(73);
    let told = scene.home.ok(&["cancel", JOB]);
    assert!(told.stdout.contains("marked"), "{told}");
    assert_ne!(scene.resume().exit_code, Some(0));
    assert_eq!(scene.count("job.cancelled"), 1);
    scene.decide("ask", "approve");
    scene.resume().expect_exit(73);
    scene.decide("ask", "approve").expect_exit(0);
    scene.resume().expect_exit(0);
    let told = scene.home.ok(&["cancel", JOB]);
    assert!(told.stdout.contains("succeeded"), "{told}");
}

#[test]
fn the_program_of_a_killed_run_does_not_live_on() {
    let scene =
        Scene::new("steps:\n  slow: { run: [sh, -c, 'echo $$ > {scratch}/pids; exec sleep 1000'] }\n");
    let run = scene.start();
    let pids = scene.pids("pids", 1);
    kill_hard(run.pid());
    wait_for_the_end_of(&pids);
}

#[test]
fn no_secret_is_written_anywhere() {
    let scene = Scene::new(
        r#"
steps:
  echoes:
    run:
      argv: [sh, -c, 'printf "out $TOKEN "; printf "%.6s" "$TOKEN"; sleep 0.2; printf "%s\n" "${TOKEN#??????}"; echo "err $TOKEN" >&2']
      env: { TOKEN: "{{ secrets.TOKEN }}" }
    secrets: [TOKEN]
    files: [{ path: said.txt, from: output.text }]
  fails:
    needs: echoes
    run: { argv: [sh, -c, 'echo "cannot use $TOKEN" >&2; exit 1'], env: { TOKEN: "{{ secrets.TOKEN }}" } }
    secrets: [TOKEN]
"#,
    );
    let run = scene.run();
    run.expect_exit(70);
    assert!(!run.stdout.contains(SECRET) && !run.stderr.contains(SECRET), "{run}");
    assert_eq!(scene.output("said.txt"), "out «secret:TOKEN» «secret:TOKEN»");
    assert!(scene.log("echoes").contains("err «secret:TOKEN»"));
    assert!(scene.failure("fails")["message"].as_str().is_some_and(|it| it.contains("«secret:TOKEN»")));
    assert_eq!(files_with(scene.home.path(), SECRET), Vec::<PathBuf>::new());
}

#[test]
fn a_secret_that_everybody_on_the_machine_could_read_is_not_given_to_a_program() {
    let scene =
        Scene::new("steps:\n  told: { run: [echo, '--key={{ secrets.TOKEN }}'], secrets: [TOKEN] }\n");
    scene.run().expect_exit(70);
    let failure = scene.failure("told");
    assert_eq!(failure["kind"], "validation");
    assert!(failure["message"].as_str().is_some_and(|it| it.contains("argv")), "{failure}");
    assert_eq!(files_with(scene.home.path(), SECRET), Vec::<PathBuf>::new());
}

#[test]
fn a_secret_that_is_missing_or_too_short_is_told_by_name() {
    let spec = "steps:\n  bad: { run: [echo, '{{ secrets.SHORT }}'], secrets: [SHORT] }\n";
    for (value, kind) in [(None, "auth"), (Some("abc"), "validation")] {
        let scene = Scene::new(spec);
        let mut command = scene.home.command(&["run", "--job-id", JOB, "--spec"]);
        command.arg(scene.spec()).envs(value.map(|value| ("SHORT", value)));
        testkit::run(command).expect_exit(70);
        let failure = scene.failure("bad");
        assert_eq!(failure["kind"], kind);
        assert!(failure["message"].as_str().is_some_and(|it| it.contains("SHORT")), "{failure}");
    }
}

#[test]
fn a_gate_is_decided_while_nobody_runs_the_job() {
    let scene = Scene::new(
        "steps:\n  write: { run: [echo, text] }\n  ask: { needs: write, gate: 'Ship {{ steps.write.output.text }}?' }\n  \
         ship: { run: [echo, '{{ steps.ask.output.text }}'], files: [{ path: a.txt, from: output.text }] }\n",
    );
    scene.run().expect_exit(73);
    let asked = scene.data("gate.waiting", "ask").pop().expect("it asks");
    assert_eq!(asked["message"], "Ship text?");
    let answered = scene.decide("ask", "approve");
    answered.expect_exit(0);
    assert!(answered.stderr.contains("run --resume job"), "{answered}");
    scene.resume().expect_exit(0);
    assert_eq!(scene.output("a.txt"), "approve");
    assert_eq!(scene.data("gate.decided", "ask").len(), 1);
    // Once more changes nothing and asks nobody.
    scene.resume().expect_exit(0);
    assert_eq!(scene.data("gate.decided", "ask").len(), 1);
}

#[test]
fn a_gate_is_decided_while_other_steps_run() {
    let scene = Scene::new(
        "limits: { steps: 1 }\nsteps:\n  ask: { gate: { message: Which?, choices: [red, blue] } }\n  \
         paint: { run: [echo, '{{ steps.ask.output.text }}'], files: [{ path: a.txt, from: output.text }] }\n  \
         slow: { run: [sh, -c, 'while ! test -e {scratch}/go; do sleep 0.05; done'] }\n",
    );
    let mut run = scene.start();
    wait_for("the question", SOON, || scene.count("gate.waiting") == 1);
    wait_for("the slow step, for which the gate leaves room", SOON, || {
        scene.data("step.started", "slow").len() == 1
    });
    scene.decide("ask", "blue").expect_exit(0);
    wait_for("the answer", SOON, || scene.count("gate.decided") == 1);
    fs::write(scene.scratch("go"), "").expect("the scratch folder is writable");
    wait_for("the end", SOON, || run.has_ended());
    assert_eq!(run.exit_status().and_then(|status| status.code()), Some(0));
    assert_eq!(scene.output("a.txt"), "blue");
}

#[test]
fn a_rejected_gate_fails_its_step() {
    let scene = Scene::new("steps:\n  ask: { gate: Go on? }\n  after: { needs: ask, pass: x }\n");
    scene.run().expect_exit(73);
    scene.decide("ask", "reject").expect_exit(0);
    scene.resume().expect_exit(70);
    assert_eq!(scene.failure("ask")["kind"], "cancelled");
    // Who goes on with it nevertheless is asked again.
    scene.resume().expect_exit(73);
    scene.decide("ask", "approve").expect_exit(0);
    scene.resume().expect_exit(0);
}

#[test]
fn a_decision_that_nobody_waits_for_is_refused_with_what_could_be_meant() {
    let scene = Scene::new("steps:\n  ask: { gate: Go on? }\n  other: { pass: x }\n");
    scene.run().expect_exit(73);
    for (arguments, code, named) in [
        (["decide", "nobody", "ask", "approve"], 72, "nobody"),
        (["decide", JOB, "other", "approve"], 2, "ask"),
        (["decide", JOB, "ask", "perhaps"], 2, "approve, reject"),
    ] {
        let refused = scene.home.run(&arguments);
        refused.expect_exit(code);
        assert!(refused.stderr.contains(named), "{refused}");
    }
    assert_eq!(fs::read_dir(scene.folder().join("control")).expect("it is there").count(), 0);
    scene.home.run(&["cancel", "nobody"]).expect_exit(72);
}

const EXTERNAL: &str = "steps:\n  deploy:\n    effect: external\n    run: [sh, -c, \
    'echo $LLAMA_ORCH_IDEMPOTENCY_KEY >> {scratch}/keys; while ! test -e {scratch}/go; do sleep 0.05; done; echo done']\n  \
    after: { run: [echo, '[{{ steps.deploy.output.text }}]'], files: [{ path: a.txt, from: output.text }] }\n";

/// A run that was killed while it deployed: nobody knows how far that got.
fn with_unknown_outcome() -> Scene {
    let scene = Scene::new(EXTERNAL);
    let run = scene.start();
    wait_for("the effect", SOON, || {
        fs::read_to_string(scene.scratch("keys")).is_ok_and(|it| it.ends_with('\n'))
    });
    kill_hard(run.pid());
    fs::write(scene.scratch("go"), "").expect("the scratch folder is writable");
    scene.resume().expect_exit(73);
    scene
}

fn keys(scene: &Scene) -> Vec<String> {
    fs::read_to_string(scene.scratch("keys")).expect("written").lines().map(str::to_owned).collect()
}

#[test]
fn an_effect_whose_outcome_is_unknown_is_not_repeated_by_itself() {
    let scene = with_unknown_outcome();
    scene.resume().expect_exit(73);
    assert_eq!(keys(&scene).len(), 1, "asked twice, done once");
    let asked = scene.data("gate.waiting", "deploy").pop().expect("it asks");
    assert_eq!(asked["choices"], serde_json::json!(["repeat", "done", "fail"]));
    scene.decide("deploy", "repeat").expect_exit(0);
    scene.resume().expect_exit(0);
    let keys = keys(&scene);
    assert_eq!(keys.len(), 2);
    assert!(keys[0] == keys[1] && keys[0].len() >= 32, "the same effect has the same key: {keys:?}");
    assert_eq!(scene.output("a.txt"), "[done]");
    scene.resume().expect_exit(0);
    assert_eq!(self::keys(&scene).len(), 2);
}

#[test]
fn somebody_who_knows_the_outcome_says_so() {
    let scene = with_unknown_outcome();
    scene.decide("deploy", "done").expect_exit(0);
    scene.resume().expect_exit(0);
    assert_eq!(scene.output("a.txt"), "[]");
    let scene = with_unknown_outcome();
    scene.decide("deploy", "fail").expect_exit(0);
    scene.resume().expect_exit(70);
    assert_eq!(keys(&scene).len(), 1);
}

#[test]
fn what_somebody_took_as_done_is_not_asked_again_after_a_crash() {
    let scene = with_unknown_outcome();
    scene.decide("deploy", "done").expect_exit(0);
    scene.resume().expect_exit(0);
    // As if it had been killed right after it began to take the effect as done.
    let path = scene.folder().join("events.jsonl");
    let text = fs::read_to_string(&path).expect("a journal is text");
    let at = text.rfind("\"type\":\"step.started\",\"step\":\"deploy\"").expect("it was begun");
    let end = at + text[at..].find('\n').expect("a line ends") + 1;
    fs::write(&path, &text[..end]).expect("the journal is ours");
    fs::remove_dir_all(scene.folder().join(".cache")).expect("results of programs are the job's own");
    scene.resume().expect_exit(0);
    assert_eq!(keys(&scene).len(), 1);
}

#[test]
fn an_effect_that_failed_is_tried_again_under_the_same_key() {
    let service = Service::answering(&["503 busy\nretry-after: 0", "201 made\n\n{\"id\": 7}"]);
    let scene = Scene::new(&format!(
        "steps:\n  make:\n    effect: external\n    secrets: [TOKEN]\n    retry: {{ base: 10ms }}\n    http:\n      \
         {{ method: POST, url: 'http://{}/x', headers: {{ Authorization: 'Bearer {{{{ secrets.TOKEN }}}}' }}, \
         body: {{ a: 1 }}, format: json }}\n    files: [{{ path: id, from: output.id }}]\n",
        service.address
    ));
    scene.run().expect_exit(0);
    let asked = service.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(header(&asked[0], "authorization"), format!("Bearer {SECRET}"));
    assert!(asked[0].ends_with("{\"a\":1}"), "{}", asked[0]);
    let key = header(&asked[0], "idempotency-key");
    assert!(key.len() >= 32 && key == header(&asked[1], "idempotency-key"), "{key}");
    assert_eq!(scene.output("id").trim(), "7");
    assert_eq!(files_with(scene.home.path(), SECRET), Vec::<PathBuf>::new());
    assert_eq!(scene.count("step.retrying"), 1);
}

#[test]
fn what_a_service_refuses_has_its_kind() {
    for (answer, kind) in [
        ("401 no", "auth"),
        ("404 nothing", "tool"),
        ("429 slowly\nretry-after: 0", "rate_limit"),
        ("500 broken", "overloaded"),
        ("200 fine\n\nno json", "schema"),
    ] {
        let service = Service::answering(&[answer]);
        let scene = Scene::new(&format!(
            "steps:\n  ask: {{ retry: 0, http: {{ url: 'http://{}/x', format: json }} }}\n",
            service.address
        ));
        scene.run().expect_exit(70);
        assert_eq!(scene.failure("ask")["kind"], kind, "{answer}");
    }
}

#[test]
fn a_job_over_its_wall_time_ends_with_what_it_runs() {
    let scene = Scene::new(
        "limits: { wall: 1s }\nsteps:\n  slow: { run: [sh, -c, 'echo $$ > {scratch}/pids; sleep 1000'] }\n",
    );
    scene.run().expect_exit(70);
    wait_for_the_end_of(&scene.pids("pids", 1));
    assert_eq!(scene.count("job.failed"), 1);
    assert_eq!(scene.failure("slow")["kind"], "timeout");
}

#[test]
fn a_deadline_counts_all_attempts_and_the_waits_between_them() {
    let scene = Scene::new(
        "steps:\n  flaky:\n    run: [sh, -c, 'echo x >> {scratch}/tries; sleep 0.4; exit 1']\n    deadline: 1s\n    \
         retry: { max: 100, base: 50ms, cap: 50ms, on: [tool] }\n",
    );
    scene.run().expect_exit(70);
    let tries = fs::read_to_string(scene.scratch("tries")).expect("written").lines().count();
    assert!((2..=4).contains(&tries), "{tries}");
    let kind = scene.failure("flaky")["kind"].clone();
    assert!(kind == "timeout" || kind == "tool", "{kind}");
}

/// Long enough for a machine that is busy, short enough to see that nothing waits for the end of its limits.
const WHILE_IT_RUNS: Duration = SOON;

#[test]
fn an_interrupted_life_goes_on_where_it_was() {
    let scene = Scene::new(
        "steps:\n  one: { run: [sh, -c, 'echo x >> {scratch}/ones; echo one'] }\n  \
         two: { run: [sh, -c, 'echo y >> {scratch}/twos; test -e {scratch}/go || sleep 1000; echo {{ steps.one.output.text }}'], \
         files: [{ path: a.txt, from: output.text }] }\n",
    );
    let run = scene.start();
    wait_for("the second step", WHILE_IT_RUNS, || scene.scratch("twos").exists());
    kill_hard(run.pid());
    fs::write(scene.scratch("go"), "").expect("the scratch folder is writable");
    let mut again = scene.start_again();
    wait_for("the end", SOON, || again.has_ended());
    assert_eq!(again.exit_status().and_then(|status| status.code()), Some(0));
    assert_eq!(scene.output("a.txt"), "one");
    let lines = |name| fs::read_to_string(scene.scratch(name)).expect("written").lines().count();
    assert_eq!((lines("ones"), lines("twos")), (1, 2));
}
