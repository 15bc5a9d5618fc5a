//! A workflow of any text is read or refused with a reason, and what is read can be shown and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use workflow_spec::{JobSpec, LoadNothing};

fuzz_target!(|text: &str| {
    match JobSpec::read(text, &LoadNothing) {
        Ok(spec) => {
            assert_eq!(spec.graph.order().len(), spec.graph.steps.len(), "needs go in a circle");
            let _ = (spec.graph.as_text(), spec.graph.as_dot(&spec.project), spec.graph.remaining_path());
            let again = JobSpec::read(&spec.source, &spec.parts).expect("it was read before");
            assert_eq!(again.sha256, spec.sha256);
        }
        Err(errors) => assert!(!errors.errors.is_empty(), "refused without a reason"),
    }
});
