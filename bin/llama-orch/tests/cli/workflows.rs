//! `graph` and `config schema --kind job`: workflows looked at without running them.

use testkit::{TempHome, cli_snapshot};

const SPEC: &str = "project: notes
inputs: { task: string }
steps:
  plan: { llm: { prompt: \"{{ inputs.task }}\" } }
  write: { llm: { prompt: \"{{ steps.plan.output.text }}\" }, map: steps.plan.output.list }
  polish:
    loop:
      max: 3
      until: steps.check.output.good == true
      body:
        check: { llm: { prompt: \"{{ steps.write.output.text }}\" } }
  done: { gate: Fine?, needs: [polish] }
";

fn home_with(spec: &str) -> (TempHome, String) {
    let home = TempHome::new();
    let path = home.path().with_extension("job.yaml");
    std::fs::write(&path, spec).unwrap();
    (home, path.to_string_lossy().into_owned())
}

#[test]
fn a_graph_is_shown_as_levels_with_kinds_and_needs() {
    let (home, spec) = home_with(SPEC);
    cli_snapshot!(home, ["graph", "--spec", &spec], @r"
    exit code: 0
    ----- stdout -----
     1  plan  llm
     2  write  llm for each  after plan
     3  polish  loop  after write
         1  check  llm
     4  done  gate  after polish

    ----- stderr -----
    ");
    let document = home.llama_orch(&["graph", "--spec", &spec, "--json"]).expect_exit(0).json();
    assert_eq!(document["steps"][2]["steps"][0]["id"], "check");
    let dot = home.llama_orch(&["graph", "--spec", &spec, "--format", "dot"]).expect_exit(0).stdout.clone();
    assert!(dot.starts_with("digraph \"notes\" {") && dot.contains("\"plan\" -> \"write\";"), "{dot}");
    assert!(!home.path().join("state").exists(), "a look makes nothing");
}

#[test]
fn everything_that_is_wrong_with_a_workflow_is_told_with_its_place() {
    let (home, spec) = home_with("project: x y\nsteps:\n  a: { pas: 1 }\n  b: { pass: , needs: [b] }\n");
    let run = home.llama_orch(&["graph", "--spec", &spec]);
    let told = run.expect_exit(71).stderr.replace(&spec, "job.yaml");
    for part in [
        "error: job.yaml:1:10: project: \"x y\" cannot name a project",
        "error: job.yaml:3:8: steps.a.pas: is no key that is known here\nhint: did you mean pass?",
        "error: job.yaml:4:3: steps.b: needs itself: b -> b",
    ] {
        assert!(told.contains(part), "{part}\n---\n{told}");
    }
    home.llama_orch(&["graph", "--spec", "nowhere.yaml"]).expect_exit(71);
    home.llama_orch(&["graph"]).expect_exit(2);
}

#[test]
fn a_six_field_file_is_taken_with_a_warning() {
    let (home, spec) = home_with("project: todo\ntask_description: Build it\noutput_dir: out\n");
    let run = home.llama_orch(&["graph", "--spec", &spec]);
    let run = run.expect_exit(0);
    assert!(run.stdout.contains("qa  llm  after builder, docs"), "{}", run.stdout);
    assert!(run.stderr.contains(":3:13: output_dir: is not used"), "{}", run.stderr);
}

#[test]
fn the_schema_of_workflows_is_for_editors() {
    let home = TempHome::new();
    let schema = home.llama_orch(&["config", "schema", "--kind", "job"]).expect_exit(0).json();
    assert!(schema["$defs"]["Step"]["properties"]["llm"].is_object());
}
