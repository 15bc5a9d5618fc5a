//! Starting, watching and ending real processes.

mod support;

use std::time::{Duration, Instant};

use engine_process::{
    LaunchError, LockHolder, Ownership, StartMark, StopError, StopPlan, adopt, holder, launch,
    running_engine, start_mark, stop, wait_for_exit,
};
use orch_core::{ExitCode, Failure};
use support::{LIMIT, Scene, kill_hard, shim, wait_gone, was_killed};
use testkit::wait_for;

const FORCE: StopPlan =
    StopPlan { first_grace: Duration::from_secs(3), second_grace: Duration::from_secs(1), force: true };

#[test]
fn an_engine_tells_when_it_is_ready_and_goes_without_a_trace() {
    let scene = Scene::fake(&[("FAKE_LOAD_MS", "300"), ("FAKE_TOTAL_SLOTS", "5")]);
    let engine = scene.launch();
    assert_eq!(engine.identity.check(), Ownership::Ours);
    assert!(!scene.spec.handoff.exists(), "nothing is handed over while the model loads");

    let handoff = scene.wait_ready();
    assert!(scene.answers());
    assert_eq!(handoff.identity(), engine.identity);
    assert_eq!((handoff.slots_total, handoff.shim_pid), (5, engine.shim_pid));
    assert_eq!(handoff.url, format!("http://127.0.0.1:{}", scene.spec.port));

    let report = stop(&scene.target(&engine), &StopPlan::default()).unwrap();
    assert!(!report.already_gone && !report.killed && report.port_free, "{report:?}");
    assert!(!scene.spec.handoff.exists());
    assert_eq!(start_mark(engine.identity.pid), None);
    assert_eq!(start_mark(engine.shim_pid), None);
    assert_eq!(scene.exit_record(&engine).code, Some(0));
    assert_eq!(holder(&scene.spec.engine_lock), None);
    let again = stop(&scene.target(&engine), &StopPlan::default()).unwrap();
    assert!(again.already_gone);
}

#[test]
fn exit_codes_and_last_words_are_never_lost() {
    let scene = Scene::fake(&[
        ("FAKE_EXIT_AT", "start"),
        ("FAKE_EXIT_CODE", "7"),
        ("FAKE_LAST_WORDS", "error: invalid argument: --no-mmap"),
    ]);
    let engine = scene.launch();
    let record = scene.exit_record(&engine);
    assert_eq!((record.code, record.signal, record.out_of_memory), (Some(7), None, false));
    assert!(record.last_stderr.contains(&"error: invalid argument: --no-mmap".to_owned()));
    wait_gone("the shim", engine.shim_pid);

    let words = "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory";
    let scene = Scene::fake(&[("FAKE_EXIT_AT", "loaded"), ("FAKE_LAST_WORDS", words)]);
    let record = scene.exit_record(&scene.launch());
    assert!(record.out_of_memory);
}

#[test]
fn whoever_races_only_one_engine_is_started() {
    let scene = Scene::fake(&[("FAKE_LOAD_MS", "200"), ("FAKE_START_LOG", "starts.txt")]);
    let outcomes: Vec<_> = std::thread::scope(|threads| {
        let start = || launch(&shim(), &scene.spec);
        let racers: Vec<_> = (0..12).map(|_| threads.spawn(start)).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, LaunchError::AlreadyRunning { .. }), "{refused:?}");
        assert_eq!(Failure::from(refused).exit, ExitCode::AlreadyRunning);
    }
    let engine = running_engine(&scene.spec.engine_lock).unwrap();
    stop(&scene.target(&engine), &FORCE).unwrap();
    let starts = std::fs::read_to_string(scene.home.path().join("starts.txt")).unwrap();
    assert_eq!(starts.lines().count(), 1);
}

#[test]
fn a_refusal_names_the_engine_that_runs() {
    let scene = Scene::fake(&[]);
    let engine = scene.launch();
    let refusal = launch(&shim(), &scene.spec).unwrap_err();
    assert!(refusal.to_string().contains(&format!("pid {} on port", engine.identity.pid)), "{refusal}");
    let LaunchError::AlreadyRunning { holder: Some(LockHolder { engine: Some(named), .. }) } = refusal else {
        panic!("{refusal:?}");
    };
    assert_eq!(*named, engine.identity);
}

#[test]
fn a_killed_shim_leaves_its_engine_serving_and_a_new_one_takes_over() {
    let scene = Scene::fake(&[]);
    let (engine, _) = scene.launch_ready();
    kill_hard(engine.shim_pid);
    wait_gone("the shim", engine.shim_pid);
    assert!(scene.answers());
    assert!(matches!(launch(&shim(), &scene.spec), Err(LaunchError::AlreadyRunning { .. })));

    let shim_pid = adopt(&shim(), &scene.spec, &engine.identity).unwrap();
    assert_ne!(shim_pid, engine.shim_pid);
    assert_eq!(adopt(&shim(), &scene.spec, &engine.identity).unwrap(), shim_pid, "it has a shim already");
    assert_eq!(scene.wait_ready().shim_pid, shim_pid);
    assert_eq!(running_engine(&scene.spec.engine_lock).unwrap().shim_pid, shim_pid);

    kill_hard(engine.identity.pid);
    let record = scene.exit_record(&engine);
    if cfg!(unix) {
        assert_eq!((record.code, record.signal), (None, None), "only a parent is told the code");
    } else {
        assert_ne!(record.code, Some(0), "whoever holds the process is told the code");
    }
    wait_gone("the new shim", shim_pid);
    assert!(!scene.spec.handoff.exists());
    scene.launch();
}

#[test]
fn an_adopted_engine_is_still_asked_to_end_and_not_just_killed() {
    let scene = Scene::fake(&[]);
    let (engine, _) = scene.launch_ready();
    kill_hard(engine.shim_pid);
    wait_gone("the shim", engine.shim_pid);
    let shim_pid = adopt(&shim(), &scene.spec, &engine.identity).unwrap();
    let mut target = scene.target(&engine);
    target.shim_pid = Some(shim_pid);
    let patient = StopPlan { first_grace: LIMIT, ..StopPlan::default() };
    let report = stop(&target, &patient).unwrap();
    assert!(!report.killed && report.port_free, "{report:?}");
    assert_eq!(start_mark(shim_pid), None);
    assert_ne!(scene.exit_record(&engine).code, Some(1), "one request was enough");
}

#[test]
fn a_shim_killed_before_the_engine_was_ready_is_made_up_for() {
    let scene = Scene::fake(&[("FAKE_LOAD_MS", "1000")]);
    let engine = scene.launch();
    kill_hard(engine.shim_pid);
    let found = running_engine(&scene.spec.engine_lock).unwrap();
    assert_eq!(found, engine, "the lock tells what runs, though nobody wrote it down");
    let shim_pid = adopt(&shim(), &scene.spec, &found.identity).unwrap();
    assert_eq!(scene.wait_ready().shim_pid, shim_pid);
}

#[test]
fn what_is_gone_or_not_ours_is_not_adopted() {
    let scene = Scene::fake(&[]);
    let engine = scene.launch();
    stop(&scene.target(&engine), &FORCE).unwrap();
    let refusal = adopt(&shim(), &scene.spec, &engine.identity).unwrap_err();
    assert!(matches!(refusal, LaunchError::NotOurs { .. }), "{refusal:?}");
    assert_eq!(Failure::from(refusal).exit, ExitCode::ProcessNotFound);
}

#[test]
fn a_stop_takes_the_whole_tree_even_those_who_left_the_group_and_are_deaf() {
    let faults = [("FAKE_CHILDREN", "3"), ("FAKE_CHILDREN_NEW_SESSION", "1"), ("FAKE_CHILDREN_DEAF", "1")];
    for plan in [StopPlan::default(), FORCE] {
        let scene = Scene::fake(&faults);
        let (engine, _) = scene.launch_ready();
        wait_for("the children", LIMIT, || scene.children().len() == 3);
        stop(&scene.target(&engine), &plan).unwrap();
        assert_eq!(scene.children(), [0; 0]);
    }
}

#[test]
fn a_stop_without_a_shim_takes_the_whole_tree_too() {
    let faults = [("FAKE_CHILDREN", "2"), ("FAKE_CHILDREN_NEW_SESSION", "1"), ("FAKE_CHILDREN_DEAF", "1")];
    for plan in [StopPlan::default(), FORCE] {
        let scene = Scene::fake(&faults);
        let (engine, _) = scene.launch_ready();
        wait_for("the children", LIMIT, || scene.children().len() == 2);
        kill_hard(engine.shim_pid);
        let report = stop(&scene.target(&engine), &plan).unwrap();
        assert!(report.port_free);
        assert_eq!(scene.children(), [0; 0]);
        assert!(!scene.spec.handoff.exists(), "the shim's clean-up is done for it");
    }
}

#[test]
fn a_crash_leaves_no_children_behind() {
    let scene = Scene::fake(&[("FAKE_CHILDREN", "2"), ("FAKE_CHILDREN_NEW_SESSION", "1")]);
    let (engine, _) = scene.launch_ready();
    wait_for("the children", LIMIT, || scene.children().len() == 2);
    kill_hard(engine.identity.pid);
    wait_gone("the shim", engine.shim_pid);
    assert_eq!(scene.children(), [0; 0]);
    assert!(was_killed(&scene.exit_record(&engine)));
}

#[test]
fn children_that_outlived_engine_and_shim_do_not_block_the_next_start() {
    let scene = Scene::fake(&[("FAKE_CHILDREN", "2"), ("FAKE_CHILDREN_NEW_SESSION", "1")]);
    let (engine, _) = scene.launch_ready();
    wait_for("the children", LIMIT, || scene.children().len() == 2);
    let orphans = scene.children();
    kill_hard(engine.shim_pid);
    kill_hard(engine.identity.pid);
    wait_gone("the engine", engine.identity.pid);
    assert_eq!(scene.children().len(), 2, "nobody was there to end them");
    assert!(holder(&scene.spec.engine_lock).is_some(), "they hold the lock they inherited");

    let (next, _) = scene.launch_ready();
    assert_ne!(next.identity.pid, engine.identity.pid);
    assert!(scene.children().iter().all(|pid| !orphans.contains(pid)));
}

#[test]
fn leftovers_can_be_cleared_without_a_start_and_the_living_are_left_alone() {
    let scene = Scene::fake(&[("FAKE_CHILDREN", "1"), ("FAKE_CHILDREN_NEW_SESSION", "1")]);
    let (engine, _) = scene.launch_ready();
    wait_for("the child", LIMIT, || scene.children().len() == 1);
    assert_eq!(engine_process::clear_leftovers(&scene.spec.engine_lock), 0);
    kill_hard(engine.shim_pid);
    wait_gone("the shim", engine.shim_pid);
    assert_eq!(engine_process::clear_leftovers(&scene.spec.engine_lock), 0, "the engine lives");
    kill_hard(engine.identity.pid);
    wait_gone("the engine", engine.identity.pid);
    assert_eq!(engine_process::clear_leftovers(&scene.spec.engine_lock), 1);
    assert_eq!(scene.children(), [0; 0]);
}

#[test]
fn a_process_that_is_not_ours_is_never_signalled() {
    let scene = Scene::fake(&[]);
    let (engine, _) = scene.launch_ready();
    let mut reused = scene.target(&engine);
    reused.identity.started_at = StartMark("another boot:1".into());
    let mut other_port = scene.target(&engine);
    other_port.identity.port += 1;
    let mut other_program = scene.target(&engine);
    other_program.identity.executable = "/usr/bin/llama-server".into();
    for target in [reused, other_port, other_program] {
        let error = stop(&target, &FORCE).unwrap_err();
        assert!(matches!(error, StopError::NotOurs { .. }), "{error:?}");
        assert!(error.to_string().contains("nothing was signalled"));
    }
    assert!(scene.answers());
    assert_eq!(engine.identity.check(), Ownership::Ours);
}

#[test]
fn an_engine_that_ignores_the_first_request_is_asked_again_and_a_deaf_one_is_killed() {
    let quick = StopPlan {
        first_grace: Duration::from_millis(300),
        second_grace: Duration::from_millis(500),
        force: false,
    };
    let scene = Scene::fake(&[("FAKE_IGNORE_SIGTERM", "1")]);
    let (engine, _) = scene.launch_ready();
    let report = stop(&scene.target(&engine), &StopPlan { second_grace: LIMIT, ..quick }).unwrap();
    assert!(!report.killed && report.took >= quick.first_grace, "{report:?}");

    let scene = Scene::fake(&[("FAKE_IGNORE_SIGTERM", "1000")]);
    let (engine, _) = scene.launch_ready();
    let report = stop(&scene.target(&engine), &quick).unwrap();
    assert!(report.killed && report.port_free, "{report:?}");
    assert!(was_killed(&scene.exit_record(&engine)));
}

#[test]
fn force_takes_less_than_two_seconds() {
    let scene = Scene::fake(&[("FAKE_IGNORE_SIGTERM", "1000"), ("FAKE_HANG", "all")]);
    let engine = scene.launch();
    let begun = Instant::now();
    assert!(stop(&scene.target(&engine), &FORCE).unwrap().killed);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_next_start_waits_for_the_shim_of_the_last_one_to_finish() {
    let scene = Scene::fake(&[("FAKE_CHILDREN", "2")]);
    let mut last = scene.launch();
    for _ in 0..5 {
        kill_hard(last.identity.pid);
        wait_gone("the engine", last.identity.pid);
        last = scene.launch();
    }
    assert_eq!(last.identity.check(), Ownership::Ours);
}

#[tokio::test]
async fn an_exit_is_learnt_of_at_once() {
    let scene = Scene::fake(&[]);
    let engine = scene.launch();
    let identity = engine.identity.clone();
    let watch = wait_for_exit(identity.pid, &identity.started_at);
    let limit = Duration::from_millis(100);
    assert!(tokio::time::timeout(limit, watch).await.is_err(), "it lives");
    kill_hard(identity.pid);
    tokio::time::timeout(LIMIT, wait_for_exit(identity.pid, &identity.started_at)).await.unwrap();
    let reused = StartMark("another boot:1".into());
    tokio::time::timeout(LIMIT, wait_for_exit(std::process::id(), &reused)).await.unwrap();
}

#[test]
fn an_engine_that_says_its_keys_is_not_quoted_with_them() {
    let mut scene = Scene::fake(&[
        ("FAKE_EXIT_AT", "loaded"),
        ("FAKE_LAST_WORDS", "error: refused sk-first, sk-second and sk-third"),
    ]);
    scene.spec.args.extend(["--api-key".to_owned(), "sk-first,sk-second".to_owned()]);
    scene.spec.env.push(("LLAMA_API_KEY".into(), "sk-third".into()));
    let engine = scene.launch();
    let words = scene.exit_record(&engine).last_stderr.join("\n");
    assert!(words.contains("error: refused ********, ******** and ********"), "{words}");
    let written = std::fs::read_to_string(&scene.spec.exit_record).unwrap();
    assert!(!["sk-first", "sk-second", "sk-third"].iter().any(|key| written.contains(key)), "{written}");
}
