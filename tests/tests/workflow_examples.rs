//! The examples of workflows, as they stand in the repository, on a real engine through the gateway: with a model whose
//! words are noise, so that nothing but what the engine enforces holds them together.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::home::Home;

fn example(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/workflows").join(name);
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}

/// A home whose daemon serves one model.
fn serving() -> Home {
    serving_with(&json!({"server": {"parallel": 2}}))
}

fn serving_with(changes: &Value) -> Home {
    let home = Home::real();
    home.instance("noise", changes);
    home.start_daemon();
    home.ok(&["up", "noise"]);
    home
}

fn events(home: &Home, job: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(home.path().join("runs").join(job).join("events.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(home: &Home, job: &str, kind: &str) -> usize {
    events(home, job).iter().filter(|event| event["type"] == kind).count()
}

/// Runs an example twice: at first the model is asked, then nobody.
#[track_caller]
fn runs_and_is_remembered(home: &Home, arguments: &[&str], project: &str, files: &[&str]) {
    for job in ["first", "second"] {
        let job = format!("{project}-{job}");
        home.ok(&[&["run", "--job-id", &job], arguments].concat());
        for file in files {
            let path = home.path().join("runs").join(&job).join("outputs").join(project).join(file);
            assert!(path.is_file(), "{}", path.display());
        }
    }
    assert!(count(home, &format!("{project}-first"), "llm.request") > 0);
    assert_eq!(count(home, &format!("{project}-second"), "llm.request"), 0, "{project}");
}

#[test]
fn a_project_is_designed_written_and_reviewed() {
    let home = serving();
    let spec = example("notes_api.yaml");
    runs_and_is_remembered(&home, &["--spec", &spec], "notes_api", &["main.py", "README.md", "review.json"]);
}

#[test]
fn files_are_summarised_each_and_together() {
    let home = serving();
    let spec = example("summaries.yaml");
    let files = format!("files={}", example("notes").clone() + "/*.txt");
    runs_and_is_remembered(&home, &["--spec", &spec, "--var", &files], "summaries", &["digest.json"]);
    let asked = count(&home, "summaries-first", "map.expanded");
    assert_eq!(asked, 1);
}

#[test]
fn a_text_is_rewritten_until_it_is_good_and_published_when_somebody_says_so() {
    let home = serving();
    let spec = example("review_gate.yaml");
    for job in ["one", "two"] {
        home.run(&["run", "--spec", &spec, "--job-id", job]).expect_exit(73);
        home.ok(&["decide", job, "approval", "approve"]);
        home.ok(&["run", "--resume", job]);
        assert!(home.path().join("runs").join(job).join("outputs/review_gate/article.txt").is_file());
    }
    assert!(count(&home, "one", "llm.request") > 0);
    assert_eq!(count(&home, "two", "llm.request"), 0);
}

#[test]
fn the_file_of_the_older_orchestrator_fits_a_small_context_whatever_the_model_says() {
    // 2,048 tokens for each request.
    let home = serving_with(&json!({"model": {"context_size": 4096}, "server": {"parallel": 2}}));
    for job in ["one", "two"] {
        home.ok(&["run", "--spec", &example("seed.json"), "--job-id", job, "--no-cache"]);
        for file in ["main.py", "README.md", "REVIEW.md"] {
            assert!(
                home.path().join("runs").join(job).join("outputs/notes_api").join(file).is_file(),
                "{file}"
            );
        }
    }
}
