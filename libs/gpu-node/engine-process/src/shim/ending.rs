//! How an engine ended, and its last words.

use orch_core::{UnixMillis, redact_args, redact_text};

use super::keeper::Places;
use crate::exit_record::ExitRecord;
use crate::identity::ProcessIdentity;
use crate::logs::{StreamSelection, tail};
use crate::sys::End;

const LAST_LINES: usize = 20;
const LAST_LINE_CHARS: usize = 500;
/// The signal with which the kernel kills for want of memory.
const KILLED: i32 = 9;

/// What llama.cpp and its backends say when a device or the machine has too little memory.
const OUT_OF_MEMORY: [&str; 6] = [
    "out of memory",
    "cudamalloc failed",
    "failed to allocate",
    "erroroutofdevicememory",
    "bad_alloc",
    "cannot allocate memory",
];
/// After this the engine went on with less, so what was said before is not why it ended.
const RECOVERED: &str = "retrying without pipeline parallelism";

/// Writes the exit record. `kills` counts the kernel's memory kills before and after.
pub(super) fn write_record(
    places: &Places,
    identity: &ProcessIdentity,
    how: End,
    began_at: UnixMillis,
    kills: (Option<u64>, Option<u64>),
) {
    let last_stderr = last_lines(places, began_at);
    let killed_for_memory =
        how == End::Signal(KILLED) && kills.0.zip(kills.1).is_some_and(|(before, after)| after > before);
    let record = ExitRecord {
        pid: identity.pid,
        code: if let End::Code(code) = how { Some(code) } else { None },
        signal: if let End::Signal(signal) = how { Some(signal) } else { None },
        at: UnixMillis::now(),
        out_of_memory: killed_for_memory || (how != End::Code(0) && tells_of_memory(&last_stderr)),
        last_stderr,
    };
    // A full disk costs the record, not the clean end.
    let _ = record.write(&places.exit_record);
}

fn last_lines(places: &Places, began_at: UnixMillis) -> Vec<String> {
    let lines =
        tail(&places.log_files, StreamSelection::Stderr, LAST_LINES, Some(began_at)).unwrap_or_default();
    // Before a line is cut, which could leave half a secret.
    lines.iter().map(|line| as_shown(&redact_text(&line.text, &places.secrets))).collect()
}

/// An engine that refuses an argument repeats it, and what it says here goes into events and listings.
fn as_shown(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    redact_args(&words).join(" ").chars().take(LAST_LINE_CHARS).collect()
}

fn tells_of_memory(lines: &[String]) -> bool {
    let lines: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    let relevant = match lines.iter().rposition(|line| line.contains(RECOVERED)) {
        Some(position) => &lines[position + 1..],
        None => &lines[..],
    };
    relevant.iter().any(|line| OUT_OF_MEMORY.iter().any(|needle| line.contains(needle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tells(lines: &[&str]) -> bool {
        tells_of_memory(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_engine_that_repeats_a_key_does_not_tell_it() {
        let shown = as_shown("error: invalid argument: --api-key=sesame");
        assert!(
            shown.starts_with("error: invalid argument: --api-key=") && !shown.contains("sesame"),
            "{shown}"
        );
        assert_eq!(as_shown("  two  blanks "), "  two  blanks ");
    }

    #[test]
    fn last_words_about_memory_are_understood() {
        assert!(tells(&[
            "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
            "bye"
        ]));
        assert!(tells(&["terminate called after throwing an instance of 'std::bad_alloc'"]));
        assert!(!tells(&["error: invalid argument: --no-mmap"]));
    }

    #[test]
    fn an_allocation_the_engine_recovered_from_is_not_the_reason() {
        let retry = "graph_reserve: retrying without pipeline parallelism";
        assert!(!tells(&["failed to allocate compute buffers", retry, "assertion failed"]));
        assert!(tells(&["failed to allocate compute buffers", retry, "failed to allocate compute buffers"]));
    }
}
