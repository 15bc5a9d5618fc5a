//! Jobs that are gone on with: what is taken over from their earlier lives, through the command line.

#![cfg(target_os = "linux")]

mod support;

use std::io::Read;
use std::process::Stdio;

use serde_json::{Value, json};
use support::workflow::{Running, Scene};
use testkit::provider::{Fault, Script};

const INPUTS: &str = "
project: notes
inputs: { tone: string, doc: file, length: { type: integer, default: 3 } }
steps:
  a: { llm: { model: fake, prompt: 'A {{ inputs.tone }} {{ inputs.doc.text }} {{ inputs.length }}' } }
";

fn kept_inputs(scene: &Scene, job: &str) -> Value {
    let text = std::fs::read(scene.job(job).join("inputs/inputs.json")).expect("a job has inputs");
    serde_json::from_slice(&text).expect("they are JSON")
}

#[test]
fn inputs_that_are_given_again_take_the_place_of_the_jobs_own() {
    let scene = Scene::new(Script::default());
    let doc = scene.home.scratch().join("doc.txt");
    std::fs::write(&doc, "one").unwrap();
    let spec = scene.spec(INPUTS);
    scene.ok(&["--spec", &spec, "--job-id", "job", "--var", "tone=dry", "--var", "doc=doc.txt"]);
    std::fs::remove_file(&doc).unwrap();

    scene.ok(&["--resume", "job", "--var", "tone=warm"]);
    assert_eq!((scene.asked("A dry one 3"), scene.asked("A warm one 3")), (1, 1));
    std::fs::write(scene.home.scratch().join("other.txt"), "two").unwrap();
    scene.ok(&["--resume", "job", "--var", "doc=other.txt", "--var", "length=5"]);
    assert_eq!(scene.asked("A warm two 5"), 1);
    // They are the job's own from then on.
    scene.ok(&["--resume", "job"]);
    assert_eq!(scene.asked(""), 3);
    assert_eq!(kept_inputs(&scene, "job")["doc"]["path"], "other.txt");

    let wrong = scene.run(&["--resume", "job", "--var", "length=long", "--var", "nope=1"]);
    wrong.expect_exit(2);
    assert!(wrong.stderr.contains("input length") && wrong.stderr.contains("input nope"), "{wrong}");
    assert_eq!(kept_inputs(&scene, "job")["length"], json!(5));
}

#[test]
fn an_edited_workflow_may_want_other_inputs() {
    let scene = Scene::new(Script::default());
    let text = "project: notes\ninputs: { tone: string }\nsteps: { a: { llm: { model: fake, prompt: 'A {{ inputs.tone }}' } } }\n";
    scene.ok(&["--spec", &scene.spec(text), "--job-id", "job", "--var", "tone=dry"]);
    let more = text
        .replace("tone: string", "tone: string, size: { type: integer, default: 2 }, who: string")
        .replace("inputs.tone }}", "inputs.tone }} {{ inputs.size }} {{ inputs.who }}");
    let spec = scene.spec(&more);
    let missing = scene.run(&["--spec", &spec, "--resume", "job"]);
    missing.expect_exit(2);
    assert!(missing.stderr.contains("--var who=VALUE"), "{missing}");
    scene.ok(&["--spec", &spec, "--resume", "job", "--var", "who=me"]);
    assert_eq!(scene.asked("A dry 2 me"), 1);
}

#[test]
fn a_job_does_not_go_on_with_the_workflow_of_another_project() {
    let scene = Scene::new(Script::default());
    let text = "project: notes\nsteps: { a: { llm: { model: fake, prompt: A } } }\n";
    scene.ok(&["--spec", &scene.spec(text), "--job-id", "job"]);
    let before = std::fs::read(scene.journal("job")).unwrap();
    let other = scene.spec(&text.replace("notes", "letters"));
    let refused = scene.run(&["--spec", &other, "--resume", "job"]);
    refused.expect_exit(2);
    assert!(
        refused.stderr.contains("the job job is of the project notes, and the workflow of letters"),
        "{refused}"
    );
    assert_eq!(std::fs::read(scene.journal("job")).unwrap(), before);
    assert_eq!(std::fs::read_to_string(scene.job("job").join("inputs/spec.yaml")).unwrap(), text);
    scene.ok(&["--spec", &scene.spec(&text.replace("prompt: A", "prompt: B")), "--resume", "job"]);
    assert_eq!(scene.asked("B"), 1);
}

#[test]
fn a_job_that_was_cancelled_while_nobody_ran_it_still_knows_what_was_done() {
    let scene = Scene::new(Script::default().fault("C", Fault::Refuse, 1));
    let text = "
project: cut
steps:
  a: { llm: { model: fake, prompt: A } }
  b: { llm: { model: fake, prompt: 'B {{ steps.a.output.text }}' } }
  c: { llm: { model: fake, prompt: 'C {{ steps.b.output.text }}' }, retry: 0 }
";
    scene.run(&["--spec", &scene.spec(text), "--job-id", "cut"]).expect_exit(70);
    // It has failed; an edited journal is one of a job that was killed.
    let journal = std::fs::read_to_string(scene.journal("cut")).unwrap();
    let lines: Vec<&str> = journal.split_inclusive('\n').collect();
    std::fs::write(scene.journal("cut"), lines[..lines.len() - 1].concat()).unwrap();
    scene.home.ok(&["cancel", "cut"]);

    let ended = scene.run(&["--resume", "cut"]);
    ended.expect_exit(130);
    assert!(ended.stdout.contains("cancelled, 2 of 3 steps"), "{ended}");
    let shown = scene.home.json(&["show", "cut", "--json"]);
    assert_eq!(shown["progress"], json!({"done": 2, "all": 3}));
    assert_eq!(shown["steps"]["a"]["status"], "succeeded");
    assert_eq!(shown["pending_steps"], json!(["c"]));

    scene.ok(&["--resume", "cut"]);
    assert_eq!((scene.asked("A"), scene.asked("B")), (1, 1));
    let tokens = &scene.home.json(&["show", "cut", "--json"])["steps"]["a"]["tokens"];
    assert!(tokens.as_u64() > Some(0), "what a step took is known through all lives: {tokens}");
}

/// Runs a command whose files may have so many blocks, as on a disk that is full. Its exit code, and what it said.
#[expect(clippy::disallowed_methods, reason = "the shell sets the limit and then becomes our program")]
fn run_limited(scene: &Scene, blocks: u32, arguments: &[&str]) -> (Option<i32>, String) {
    let program = scene.home.command(arguments);
    let mut shell = std::process::Command::new("sh");
    let set = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    shell.args(["-c", &set]).arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(scene.home.scratch());
    // A pipe takes what a file would not.
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running(shell.spawn().expect("there is a shell"));
    let mut said = String::new();
    running.0.stderr.take().expect("it is a pipe").read_to_string(&mut said).expect("it says text");
    (running.exit_code(), said)
}

#[test]
fn a_run_that_cannot_even_begin_leaves_no_job() {
    let scene = Scene::new(Script::default());
    let steps: Vec<String> =
        ('a'..='d').map(|id| format!("{}: {{ pass: {{}} }}", id.to_string().repeat(40))).collect();
    let spec = scene.spec(&format!("project: full\nsteps: {{ {} }}\n", steps.join(", ")));
    let job = "full".repeat(25);
    // With none the workflow does not fit, with one the first line of the journal.
    for blocks in [0, 1] {
        let (code, said) = run_limited(&scene, blocks, &["run", "--spec", &spec, "--job-id", &job]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("hint: nothing was begun, and nothing of it is left"), "{said}");
        assert_eq!(said.contains("events.jsonl"), blocks == 1, "{said}");
        assert!(!scene.job(&job).exists(), "{said}");
    }
    scene.ok(&["--spec", &spec, "--job-id", &job]);
    // One that has begun stays, whatever becomes of its next life.
    assert_eq!(run_limited(&scene, 0, &["run", "--resume", &job]).0, Some(1));
    assert!(scene.journal(&job).is_file());
}
