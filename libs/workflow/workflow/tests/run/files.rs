//! Files and stored results that somebody or something has touched.

use workflow::{EventType, JobOutcome};

use crate::support::{Home, Model};

fn with_log(name: &str) -> String {
    format!(
        r#"
version: 1
project: p
steps:
  {name}: {{ llm: {{ model: m, prompt: "one" }}, files: [ {{ path: log, from: output.text, mode: append }} ] }}
  last: {{ llm: {{ model: m, prompt: "two" }}, needs: [{name}], files: [ {{ path: log, from: output.text, mode: append }}, {{ path: a/page.md, from: output.text, mode: overwrite }} ] }}
"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_resumed_job_writes_no_file_again_not_even_when_a_step_was_renamed() {
    let (home, model) = (Home::new(), Model::echo());
    home.run("one", &with_log("first"), &model).await;
    for name in ["first", "renamed"] {
        let end = home.run("one", &with_log(name), &model).await;
        assert_eq!(end.outcome, JobOutcome::Succeeded, "{:?}", end.error);
        assert_eq!(home.output("one", "log").unwrap(), "one!two!", "{name}");
        assert!(
            !home.told("one").iter().any(|line| line.starts_with("file.written")),
            "{:#?}",
            home.told("one")
        );
    }
    assert_eq!(model.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_job_restores_the_files_that_are_gone_or_changed() {
    let (home, model) = (Home::new(), Model::echo());
    home.run("one", &with_log("first"), &model).await;
    let outputs = home.run_folder("one").join("outputs/p");
    std::fs::remove_file(outputs.join("log")).unwrap();
    std::fs::write(outputs.join("a/page.md"), "spoilt").unwrap();
    home.run("one", &with_log("first"), &model).await;
    assert_eq!(home.output("one", "log").unwrap(), "one!two!");
    assert_eq!(home.output("one", "a/page.md").unwrap(), "two!");
    assert_eq!(model.calls(), 2, "the text comes from the store");
}

#[tokio::test(start_paused = true)]
async fn a_path_that_leads_out_is_refused_and_told() {
    let (home, model) = (Home::new(), Model::echo());
    let spec = r#"
version: 1
project: p
steps:
  name: { llm: { model: m, prompt: "../../../../escaped" } }
  write: { llm: { model: m, prompt: "text" }, files: [ { path: "x/{{ steps.name.output.text }}", from: output.text } ] }
"#;
    let end = home.run("one", spec, &model).await;
    assert_eq!(end.outcome, JobOutcome::Failed);
    assert!(home.told("one").contains(&"file.refused write".to_owned()), "{:#?}", home.told("one"));
    assert_eq!(home.data("one", EventType::StepFailed, "write")["kind"], "validation");
    let mut folder = home.run_folder("one").join("outputs/p");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    while folder.pop() && folder.starts_with(std::env::temp_dir()) {
        assert!(!folder.join("escaped!").exists());
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_entries_are_refused_with_an_event_and_the_step_runs_again() {
    let spec = "{ version: 1, project: p, steps: { a: { llm: { model: m, prompt: one } }, b: { llm: { model: m, prompt: two } } } }";
    let (home, model) = (Home::new(), Model::echo());
    home.run("one", spec, &model).await;
    let entry = |step: &str| {
        let key = home.data("one", EventType::StepSucceeded, step)["key"].as_str().unwrap().to_owned();
        let runs = home.run_folder("one");
        runs.ancestors().nth(2).unwrap().join(format!("cache/{}/{key}.json", &key[..2]))
    };
    let (path, sound, other) =
        (entry("a"), std::fs::read(entry("a")).unwrap(), std::fs::read(entry("b")).unwrap());
    let poisoned = String::from_utf8(sound.clone()).unwrap().replace("one!", "evil");
    let damages = [
        sound[..sound.len() - 1].to_vec(),
        sound[..sound.len() / 2].to_vec(),
        Vec::new(),
        other,
        poisoned.into_bytes(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        // A new file in its place: the run's own folder has a link to the old one.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, damage).unwrap();
        let job = format!("job{number}");
        let end = home.run(&job, spec, &model).await;
        assert_eq!(end.outcome, JobOutcome::Succeeded);
        let told = home.told(&job);
        assert!(told.contains(&"cache.refused a".to_owned()), "{number}: {told:#?}");
        assert!(
            told.contains(&"llm.request a".to_owned()) && told.contains(&"cache.hit b".to_owned()),
            "{told:#?}"
        );
        assert_eq!(model.calls(), 3 + number);
        let again = std::fs::read_to_string(&path).unwrap();
        assert!(
            again.contains("one!") && !again.contains("evil"),
            "{number}: the next result takes its place"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_path_was_edited_is_written_without_asking_again() {
    let (home, model) = (Home::new(), Model::echo());
    home.run("one", &with_log("first"), &model).await;
    let edited = with_log("first").replace("a/page.md", "b/page.md");
    home.run("one", &edited, &model).await;
    assert_eq!(home.output("one", "b/page.md").unwrap(), "two!");
    assert_eq!(home.output("one", "log").unwrap(), "one!two!");
    assert_eq!(model.calls(), 2);
}
