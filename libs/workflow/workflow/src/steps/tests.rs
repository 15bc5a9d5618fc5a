//! Programs and services as steps, with a world that answers as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use workflow_spec::{
    CachePolicy, Effect, FailureKind, FileRule, FileSource, HttpStep, Names, OutputFormat, RetryPolicy,
    RunStep, Step, StepKind, StepOutput, Template, ValueTemplate, WriteMode,
};

use super::*;
use crate::{
    Answer, AnswerPiece, AskModel, AskService, HearProgram, ModelFacts, ModelRequest, ProgramEnd,
    ProgramRequest, ProgramStream, RunProgram, ServiceAnswer, ServiceRequest,
};

const SECRET: &str = "hush-hush-value";

/// A world in which everything is written down and answered from one script.
#[derive(Clone, Default)]
struct World {
    programs: Arc<Mutex<Vec<ProgramRequest>>>,
    services: Arc<Mutex<Vec<ServiceRequest>>>,
    /// What the program says, and with what it ends.
    program: Option<ProgramEnd>,
    /// Files that the program leaves.
    leaves: Vec<(&'static str, &'static str)>,
    service: Option<ServiceAnswer>,
}

impl RunProgram for World {
    fn run(
        &self,
        request: ProgramRequest,
        ear: Arc<dyn HearProgram>,
    ) -> PortFuture<Result<ProgramEnd, CallFailure>> {
        let world = self.clone();
        Box::pin(async move {
            world.programs.lock().unwrap().push(request.clone());
            for (path, content) in &world.leaves {
                std::fs::write(request.cwd.join(path), content).unwrap();
            }
            let end = world.program.unwrap();
            ear.hear(ProgramStream::Stdout, end.stdout.as_bytes());
            ear.hear(ProgramStream::Stderr, end.stderr.as_bytes());
            Ok(end)
        })
    }
}

impl AskService for World {
    fn ask(&self, request: ServiceRequest) -> PortFuture<Result<ServiceAnswer, CallFailure>> {
        self.services.lock().unwrap().push(request);
        let answer = self.service.clone();
        Box::pin(async move {
            answer.ok_or_else(|| CallFailure::new(FailureKind::Connect, format!("refused {SECRET}")))
        })
    }
}

impl AskModel for World {
    fn facts(&self, _: &str, _: Option<&str>) -> PortFuture<Result<ModelFacts, CallFailure>> {
        unreachable!("no step here asks a model")
    }

    fn ask(&self, _: ModelRequest, _: Arc<dyn AnswerPiece>) -> PortFuture<Result<Answer, CallFailure>> {
        unreachable!("no step here asks a model")
    }
}

/// The one name that there is: an input.
struct Inputs(Value);

impl Names for Inputs {
    fn input(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned()
    }

    fn step(&self, _: &str) -> Option<Arc<StepOutput>> {
        None
    }

    fn file(&self, _: &str) -> Option<String> {
        None
    }

    fn local(&self, _: &str) -> Option<Value> {
        None
    }

    fn secret(&self, _: &str) -> Option<String> {
        None
    }
}

fn find_secret(name: &str) -> Option<String> {
    (name == "TOKEN").then(|| SECRET.to_owned())
}

fn template(text: &str) -> Template {
    Template::compile(text).unwrap()
}

fn step(kind: StepKind) -> Step {
    Step {
        id: "step".into(),
        kind,
        needs: Vec::new(),
        when: None,
        otherwise: None,
        map: None,
        samples: None,
        retry: RetryPolicy { max: 0, base: Duration::ZERO, cap: Duration::ZERO, on: Vec::new() },
        timeout: Duration::from_secs(60),
        deadline: None,
        cache: CachePolicy::OfKind,
        on_error: None,
        pools: Vec::new(),
        secrets: vec!["TOKEN".into()],
        effect: Effect::External,
        files: Vec::new(),
    }
}

fn run_step(argv: &[&str]) -> RunStep {
    RunStep {
        argv: argv.iter().map(|word| template(word)).collect(),
        env: BTreeMap::from([("AUTH".to_owned(), template("{{ secrets.TOKEN }}"))]),
        stdin: None,
        format: OutputFormat::Text,
    }
}

fn http_step(url: &str) -> HttpStep {
    HttpStep {
        method: "post".into(),
        url: template(url),
        headers: BTreeMap::from([("Authorization".to_owned(), template("Bearer {{ secrets.TOKEN }}"))]),
        body: Some(ValueTemplate::compile(&json!({"name": "{{ inputs.name }}"})).unwrap()),
        format: OutputFormat::Json,
    }
}

fn ended(code: i32, stdout: &str, stderr: &str) -> ProgramEnd {
    ProgramEnd { exit_code: Some(code), signal: None, stdout: stdout.to_owned(), stderr: stderr.to_owned() }
}

fn answered(status: u16, body: &str) -> ServiceAnswer {
    let retry_after = Some(Duration::from_secs(7));
    ServiceAnswer { status, body: body.to_owned(), retry_after }
}

struct Scene {
    folder: tempfile::TempDir,
    world: World,
    alive: TaskTracker,
}

impl Scene {
    fn new(world: World) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), world, alive: TaskTracker::new() }
    }

    fn sight(find: &dyn Fn(&str) -> Option<String>) -> Sight {
        let names: Arc<dyn Names> = Arc::new(Inputs(json!({"name": "anna\nbob", "nul": "a\u{0}b"})));
        Sight::new(&names, &["TOKEN".to_owned()], find)
    }

    fn attempt(&self) -> Attempt {
        let world = Arc::new(self.world.clone());
        Attempt {
            number: 1,
            candidate: 0,
            ports: Ports {
                models: world.clone(),
                programs: world.clone(),
                services: world,
                serving: None,
                secrets: Arc::new(find_secret),
            },
            working: self.folder.path().join("working"),
            log: self.folder.path().join("step.log"),
            idempotency_key: "key-1".into(),
            reports: Reports::new(|_| {}, |_| {}),
            alive: self.alive.token(),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("step.log")).unwrap_or_default()
    }

    async fn run(&self, step: &Step, run: &RunStep) -> Result<Performed, CallFailure> {
        let action = ProgramAction::new(step, run, &Self::sight(&find_secret), None)?;
        assert!(!action.key_document().to_string().contains(SECRET));
        Arc::new(action).perform(self.attempt()).await
    }

    async fn ask(&self, http: &HttpStep) -> Result<Performed, CallFailure> {
        let step = step(StepKind::Http(http.clone()));
        let action = ServiceAction::new(&step, http, &Self::sight(&find_secret), None)?;
        assert!(!action.key_document().to_string().contains(SECRET));
        Arc::new(action).perform(self.attempt()).await
    }
}

fn program_step(run: &RunStep) -> Step {
    step(StepKind::Run(run.clone()))
}

#[tokio::test]
async fn a_program_gets_the_secret_and_everybody_else_its_name() {
    let said = format!("token is {SECRET}\n");
    let scene = Scene::new(World { program: Some(ended(0, &said, &said)), ..World::default() });
    let run = run_step(&["deploy", "--to", "{{ inputs.name }}"]);
    let performed = scene.run(&program_step(&run), &run).await.unwrap();
    let request = scene.world.programs.lock().unwrap()[0].clone();
    assert_eq!(request.argv, ["deploy", "--to", "anna\nbob"]);
    assert!(request.env.contains(&("AUTH".into(), SECRET.into())));
    assert!(request.env.contains(&("LLAMA_ORCH_IDEMPOTENCY_KEY".into(), "key-1".into())));
    assert_eq!(performed.output.text, "token is «secret:TOKEN»");
    assert_eq!(scene.log(), "token is «secret:TOKEN»\ntoken is «secret:TOKEN»\n");
    assert!(!request.cwd.exists(), "the working folder is gone");
    scene.alive.close();
    scene.alive.wait().await;
}

#[tokio::test]
async fn a_program_that_fails_is_told_of_by_its_code_and_its_last_words() {
    let stderr = format!("{}\nlast words: {SECRET}\n", "x".repeat(5000));
    let scene = Scene::new(World { program: Some(ended(3, "out", &stderr)), ..World::default() });
    let run = run_step(&["deploy"]);
    let failure = scene.run(&program_step(&run), &run).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Tool);
    assert_eq!(failure.message, "deploy ended with exit code 3: last words: «secret:TOKEN»");
    assert!(!failure.unsure, "it says itself that it failed");
    let killed = ProgramEnd { exit_code: None, signal: Some(9), ..ended(0, "", "") };
    let scene = Scene::new(World { program: Some(killed), ..World::default() });
    assert!(scene.run(&program_step(&run), &run).await.unwrap_err().unsure, "nobody knows how far it came");
}

#[tokio::test]
async fn json_output_is_read_and_anything_else_is_of_the_wrong_shape() {
    let mut run = run_step(&["list"]);
    run.format = OutputFormat::Json;
    let scene = Scene::new(World { program: Some(ended(0, "[1, 2]\n", "")), ..World::default() });
    let performed = scene.run(&program_step(&run), &run).await.unwrap();
    assert_eq!(performed.output, StepOutput { text: "[1, 2]".into(), json: Some(json!([1, 2])) });
    let scene = Scene::new(World { program: Some(ended(0, "[1, 2", "")), ..World::default() });
    let failure = scene.run(&program_step(&run), &run).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Schema);
    assert!(failure.message.contains("[1, 2"), "{failure}");
    assert!(failure.unsure, "the program did its work");
}

#[tokio::test]
async fn files_of_the_working_folder_are_kept_unless_they_tell_a_secret() {
    let run = run_step(&["build"]);
    let mut step = program_step(&run);
    let file = |from: &str| FileRule {
        path: template("built.txt"),
        from: FileSource::Working(from.into()),
        mode: WriteMode::Overwrite,
    };
    step.files = vec![file("out.txt")];
    let world = World {
        program: Some(ended(0, "", "")),
        leaves: vec![("out.txt", "built"), ("told.txt", SECRET)],
        ..World::default()
    };
    let scene = Scene::new(world);
    let performed = scene.run(&step, &run).await.unwrap();
    assert_eq!(performed.collected, [Collected { path: "out.txt".into(), content: b"built".to_vec() }]);
    step.files = vec![file("told.txt")];
    let failure = scene.run(&step, &run).await.unwrap_err();
    assert!(failure.message.contains("TOKEN") && !failure.message.contains(SECRET), "{failure}");
    step.files = vec![file("missing.txt")];
    assert_eq!(scene.run(&step, &run).await.unwrap_err().kind, FailureKind::Tool);
}

#[tokio::test]
async fn words_that_no_program_can_be_given_are_refused_before_it_runs() {
    let scene = Scene::new(World::default());
    for argv in [&["", "x"][..], &["echo", "{{ inputs.nul }}"], &["echo", "{{ inputs.missing }}"]] {
        let run = run_step(argv);
        let failure = scene.run(&program_step(&run), &run).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Validation, "{failure}");
        assert!(failure.message.contains("argv["), "{failure}");
    }
    let run = run_step(&["deploy", "--token={{ secrets.TOKEN }}"]);
    let failure = scene.run(&program_step(&run), &run).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Validation);
    assert!(failure.message.contains("argv") && !failure.message.contains(SECRET), "{failure}");
    assert!(scene.world.programs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_secret_fails_the_effect_and_not_the_key() {
    let scene = Scene::new(World::default());
    let run = run_step(&["deploy"]);
    let action = ProgramAction::new(&program_step(&run), &run, &Scene::sight(&|_| None), None).unwrap();
    assert_eq!(action.key_document()["env"]["AUTH"], "«secret:TOKEN»");
    let failure = Arc::new(action).perform(scene.attempt()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Auth);
    assert!(scene.world.programs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_service_gets_secret_body_and_idempotency_key() {
    let body = json!({"echo": SECRET}).to_string();
    let scene = Scene::new(World { service: Some(answered(201, &body)), ..World::default() });
    let performed = scene.ask(&http_step("http://127.0.0.1:1/x")).await.unwrap();
    assert_eq!(performed.output.json, Some(json!({"echo": "«secret:TOKEN»"})));
    let request = scene.world.services.lock().unwrap()[0].clone();
    assert_eq!((request.method.as_str(), request.body.as_deref()), ("POST", Some(r#"{"name":"anna\nbob"}"#)));
    let header = |name: &str| {
        let named = request.headers.iter().find(|(header, _)| header == name);
        named.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    assert_eq!(header("Authorization"), format!("Bearer {SECRET}"));
    assert_eq!(header("Content-Type"), "application/json");
    assert_eq!(header("Idempotency-Key"), "key-1");
    assert!(scene.log().contains("POST http://127.0.0.1:1/x") && !scene.log().contains(SECRET));
}

#[tokio::test]
async fn what_a_service_says_no_to_has_the_kind_of_its_status() {
    for (status, kind) in [
        (401, FailureKind::Auth),
        (403, FailureKind::Auth),
        (404, FailureKind::Tool),
        (302, FailureKind::Tool),
        (408, FailureKind::Timeout),
        (429, FailureKind::RateLimit),
        (500, FailureKind::Overloaded),
        (529, FailureKind::Overloaded),
    ] {
        let scene = Scene::new(World { service: Some(answered(status, SECRET)), ..World::default() });
        let failure = scene.ask(&http_step("http://127.0.0.1:1/x")).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{status}");
        assert_eq!(failure.unsure, [408, 500].contains(&status), "{status}");
        assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
        assert!(failure.message.contains(&status.to_string()), "{failure}");
        assert!(!failure.message.contains(SECRET), "{failure}");
    }
    let refused = Scene::new(World::default());
    let failure = refused.ask(&http_step("http://127.0.0.1:1/x")).await.unwrap_err();
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Connect, "refused «secret:TOKEN»"));
}

#[tokio::test]
async fn a_secret_in_a_url_and_a_line_break_in_a_header_are_refused() {
    let scene = Scene::new(World::default());
    let failure = scene.ask(&http_step("http://127.0.0.1:1/{{ secrets.TOKEN }}")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Validation);
    let mut http = http_step("http://127.0.0.1:1/x");
    http.headers.insert("X-Name".into(), template("{{ inputs.name }}"));
    let failure = scene.ask(&http).await.unwrap_err();
    assert!(failure.message.contains("headers.X-Name"), "{failure}");
    assert!(scene.world.services.lock().unwrap().is_empty());
}
