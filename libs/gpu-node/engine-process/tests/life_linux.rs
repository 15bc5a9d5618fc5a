//! What only Linux shows of engines and their shims.
#![cfg(target_os = "linux")]

mod support;

use std::time::Duration;

use engine_process::{
    LaunchError, Ownership, StopPlan, adopt, holder, launch, running_engine, start_mark, stop,
};
use nix::sys::signal::Signal;
use orch_core::{ExitCode, Failure};
use support::{LIMIT, Scene, field, kill_hard, shim, signal, wait_gone};
use testkit::wait_for;

#[test]
fn a_signal_that_ended_an_engine_is_recorded() {
    let scene = Scene::fake(&[("FAKE_EXIT_AFTER_MS", "100"), ("FAKE_EXIT_SIGNAL", "11")]);
    let record = scene.exit_record(&scene.launch());
    assert_eq!((record.code, record.signal, record.shell_code()), (None, Some(11), Some(139)));
}

#[test]
fn an_engine_whose_shim_died_before_writing_anything_is_found_through_its_lock() {
    let scene = Scene::fake(&[]);
    let engine = scene.launch();
    kill_hard(engine.shim_pid);
    wait_gone("the shim", engine.shim_pid);
    std::fs::write(&scene.spec.engine_lock, "").unwrap();
    let LaunchError::AlreadyRunning { holder: Some(holder) } = launch(&shim(), &scene.spec).unwrap_err()
    else {
        panic!("it runs");
    };
    assert_eq!(*holder.engine.unwrap(), engine.identity);
    let found = running_engine(&scene.spec.engine_lock).unwrap();
    assert_eq!(found.identity, engine.identity);
    adopt(&shim(), &scene.spec, &found.identity).unwrap();
    scene.wait_ready();
}

#[test]
fn an_engine_inherits_nothing_but_what_it_is_given() {
    let scene = Scene::script(
        "/usr/bin/python3",
        "import time\nprint('up', flush=True)\nwhile True: time.sleep(1)\n",
    );
    let engine = scene.launch();
    let pid = engine.identity.pid;
    assert_eq!(engine.identity.check(), Ownership::Ours, "a script is known by its path");
    wait_for("the script", LIMIT, || std::fs::read(&scene.spec.stdout_log).is_ok_and(|log| log == b"up\n"));

    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let mut seen: Vec<String> =
        environ.split(|&byte| byte == 0).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect();
    seen.retain(|text| !text.is_empty());
    seen.sort();
    let mut given: Vec<String> =
        scene.spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    given.sort();
    assert_eq!(seen, given);

    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut files: Vec<_> = descriptors.map(|entry| std::fs::read_link(entry.path()).unwrap()).collect();
    files.sort();
    let mut expected = vec![
        "/dev/null".into(),
        scene.spec.stdout_log.clone(),
        scene.spec.stderr_log.clone(),
        scene.spec.engine_lock.clone(),
    ];
    expected.sort();
    files.retain(|file| file.extension().is_none_or(|extension| extension != "engine"));
    assert_eq!(files, expected);

    // Python itself ignores SIGPIPE (bit 12) and SIGXFSZ (bit 24); nothing else may be ignored or blocked.
    let ignored = u64::from_str_radix(&field(pid, "status", "SigIgn"), 16).unwrap();
    assert_eq!(ignored & !(1 << 12 | 1 << 24), 0, "{ignored:x}");
    assert_eq!(u64::from_str_radix(&field(pid, "status", "SigBlk"), 16).unwrap(), 0);
    assert_eq!(field(pid, "status", "Umask"), "0077");
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid.cast_signed()))).unwrap();
    assert_eq!(group.as_raw() as u32, pid, "it leads its own group");
}

#[test]
fn a_shim_is_small_alone_and_deaf() {
    let scene = Scene::fake(&[]);
    let (engine, _) = scene.launch_ready();
    let shim_pid = engine.shim_pid;
    for number in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        signal(shim_pid, number);
    }
    assert!(scene.answers());
    assert!(start_mark(shim_pid).is_some());
    assert_eq!(field(shim_pid, "status", "Threads"), "1");
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(shim_pid.cast_signed()))).unwrap();
    assert_eq!(session.as_raw() as u32, shim_pid, "no terminal can hang it up");
    assert_ne!(field(shim_pid, "status", "PPid"), std::process::id().to_string());
    let environ = std::fs::read(format!("/proc/{shim_pid}/environ")).unwrap();
    assert!(environ.is_empty(), "no secret of a daemon lives on in it");

    let kilobytes: u64 = field(shim_pid, "smaps_rollup", "Pss").trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes <= 3 * 1024, "proportional set size {kilobytes} kB");
}

#[test]
fn starts_that_cannot_work_say_why_and_hold_no_lock() {
    let mut scene = Scene::fake(&[]);
    let good = scene.spec.executable.clone();
    scene.spec.executable = "/nowhere/llama-server".into();
    let refusal = launch(&shim(), &scene.spec).unwrap_err();
    assert!(refusal.to_string().contains("/nowhere/llama-server"), "{refusal}");
    assert_eq!(Failure::from(refusal).exit, ExitCode::EngineNotFound);

    scene.spec.executable = scene.spec.model_path.clone();
    assert_eq!(Failure::from(launch(&shim(), &scene.spec).unwrap_err()).exit, ExitCode::PermissionDenied);

    scene.spec.executable = good;
    let logs = std::mem::replace(&mut scene.spec.stdout_log, "/proc/nowhere/stdout.log".into());
    assert!(launch(&shim(), &scene.spec).is_err());

    scene.spec.stdout_log = logs;
    assert_eq!(holder(&scene.spec.engine_lock), None);
    let none = launch(std::path::Path::new("/nowhere/llama-orch"), &scene.spec).unwrap_err();
    assert!(none.to_string().contains("/nowhere/llama-orch"), "{none}");
    scene.launch();
}

#[test]
fn keys_open_the_engine_to_its_shim_and_stay_out_of_listings() {
    let mut scene = Scene::fake(&[("LLAMA_API_KEY", "sk-very-secret")]);
    scene.spec.api_key = Some("sk-very-secret".into());
    let (engine, handoff) = scene.launch_ready();
    assert_eq!(handoff.api_key.as_deref(), Some("sk-very-secret"));
    assert_eq!(handoff.slots_total, 2, "the properties were read with the key");
    for pid in [engine.shim_pid, engine.identity.pid] {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&cmdline).contains("secret"));
    }
    assert!(!format!("{:?}", scene.spec).contains("sk-very-secret"));
}

#[test]
fn the_real_engine_is_started_handed_over_and_stopped() {
    let mut scene = Scene::of(&testkit::real_llama_server());
    let libraries = testkit::real_llama_server().parent().unwrap().to_str().unwrap().to_owned();
    scene.spec.env.push(("LD_LIBRARY_PATH".into(), libraries));
    scene.spec.env.push(("LLAMA_API_KEY".into(), "sk-real".into()));
    scene.spec.api_key = Some("sk-real".into());
    let (engine, handoff) = scene.launch_ready();
    assert_eq!(handoff.slots_total, 2);
    assert!(scene.answers());
    let report = stop(&scene.target(&engine), &StopPlan::default()).unwrap();
    assert!(!report.killed && report.port_free && report.took < Duration::from_secs(3), "{report:?}");
    assert_eq!(scene.exit_record(&engine).code, Some(0));
}
