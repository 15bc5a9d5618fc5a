//! What it writes to its two streams.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;

/// One line on stderr, where the real one logs.
pub(crate) fn log(text: &str) {
    // A full disk or a closed stream is no reason to stop serving.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Fills both streams with `bytes` of whole, numbered lines, so that a torn or lost one can be told.
pub(crate) fn flood(bytes: u64) {
    const LINE: &str = "................................................................................";
    const BATCH: usize = 64 * 1024;
    let mut written = 0;
    let mut number = 0_u64;
    while written < bytes {
        let (mut out, mut err) = (String::with_capacity(BATCH + 256), String::with_capacity(BATCH + 256));
        while out.len() < BATCH && written + (out.len() as u64) < bytes {
            let _ = writeln!(out, "stdout {number:010} {LINE} end");
            let _ = writeln!(err, "stderr {number:010} {LINE} end");
            number += 1;
        }
        let _ = std::io::stdout().write_all(out.as_bytes());
        let _ = std::io::stderr().write_all(err.as_bytes());
        written += out.len() as u64;
    }
    let _ = std::io::stdout().flush();
    log("fake: the flood is over");
}

/// A numbered line on both streams, again and again, until the knob is taken back.
pub(crate) fn tick(engine: &Arc<Engine>) {
    for number in 0_u64.. {
        let pause = engine.faults().millis("FAKE_LOG_EVERY_MS");
        if pause.is_zero() {
            return;
        }
        std::thread::sleep(pause.max(Duration::from_millis(1)));
        let _ = writeln!(std::io::stdout(), "stdout tick {number}");
        let _ = writeln!(std::io::stderr(), "stderr tick {number}");
    }
}
