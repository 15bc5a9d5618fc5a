//! Being asked to end, and dying of it.

use std::sync::Arc;

use crate::engine::Engine;
use crate::logs::log;
use system::StopRequests;
pub(crate) use system::kill_self;

/// From here on, requests to end are answered by a thread of their own.
pub(crate) fn watch(engine: &Arc<Engine>) {
    let requests = StopRequests::hear();
    let engine = Arc::clone(engine);
    std::thread::spawn(move || obey(&engine, requests));
}

/// The first request ends it when no HTTP request is in flight any more, the second at once: as the real one.
fn obey(engine: &Arc<Engine>, mut requests: StopRequests) {
    let mut ignored = 0;
    let mut stopping = false;
    loop {
        let name = requests.next();
        if ignored < engine.faults().number("FAKE_IGNORE_SIGTERM").unwrap_or(0) {
            ignored += 1;
            log(&format!("fake: ignored {name}"));
        } else if stopping {
            log("Received second interrupt, terminating immediately.");
            std::process::exit(1);
        } else {
            stopping = true;
            log("srv    operator(): operator(): cleaning up before exit...");
            let engine = Arc::clone(engine);
            std::thread::spawn(move || {
                engine.wait_until_idle();
                std::process::exit(0);
            });
        }
    }
}

#[cfg(unix)]
mod system {
    use nix::sys::signal::{SIGINT, SIGTERM, SigSet, Signal, kill};
    use nix::unistd::getpid;

    use crate::logs::log;

    /// The stop signals, blocked for all threads that begin from now on.
    pub(super) struct StopRequests(SigSet);

    impl StopRequests {
        pub(super) fn hear() -> Self {
            let mut signals = SigSet::empty();
            signals.add(SIGTERM);
            signals.add(SIGINT);
            signals.thread_block().expect("blocking signals is always allowed");
            Self(signals)
        }

        pub(super) fn next(&mut self) -> String {
            self.0.wait().expect("the set holds valid signals").to_string()
        }
    }

    /// Dies of a signal, as after a crash.
    pub(crate) fn kill_self(number: u64) {
        let signal = i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok());
        let signal = signal.expect("FAKE_EXIT_SIGNAL names a signal");
        // Rust's own handler of SIGSEGV swallows the first one and steps aside.
        for _ in 0..10 {
            kill(getpid(), signal).expect("a process may signal itself");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        log(&format!("fake: {signal} did not end it"));
    }
}

#[cfg(windows)]
mod system {
    use tokio::runtime::Runtime;
    use tokio::signal::windows::{CtrlBreak, CtrlC, ctrl_break, ctrl_c};

    /// What is pressed at the console that it shares with whoever started it.
    pub(super) struct StopRequests {
        runtime: Runtime,
        ctrl_c: CtrlC,
        ctrl_break: CtrlBreak,
    }

    impl StopRequests {
        pub(super) fn hear() -> Self {
            let runtime =
                tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
            let guard = runtime.enter();
            let ctrl_c = ctrl_c().expect("a process may handle Ctrl-C");
            let ctrl_break = ctrl_break().expect("a process may handle Ctrl-Break");
            drop(guard);
            Self { runtime, ctrl_c, ctrl_break }
        }

        pub(super) fn next(&mut self) -> String {
            let (ctrl_c, ctrl_break) = (&mut self.ctrl_c, &mut self.ctrl_break);
            self.runtime.block_on(async {
                tokio::select! {
                    _ = ctrl_c.recv() => "Ctrl-C".to_owned(),
                    _ = ctrl_break.recv() => "Ctrl-Break".to_owned(),
                }
            })
        }
    }

    /// Dies as after a crash: there are no signals here.
    pub(crate) fn kill_self(_number: u64) {
        std::process::abort();
    }
}
