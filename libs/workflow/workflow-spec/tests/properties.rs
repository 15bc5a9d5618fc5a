//! What holds for every spec.

use std::fmt::Write;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use workflow_spec::{Decision, JobSpec, LoadNothing, Names, StepOutput, Template, ValueTemplate};

/// Scraps of which specs, and things that are nearly specs, are made.
const SCRAPS: [&str; 58] = [
    "project: p\n",
    "steps:\n",
    "  a:\n",
    "  b: ",
    "    llm:\n",
    "      prompt: ",
    "{{ steps.a.output.text }}",
    "\n",
    "  ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    "'",
    "|\n",
    ">-\n",
    "&x ",
    "*x",
    "<<: ",
    "#",
    "{{",
    "}}",
    "{%",
    "%}",
    "{% raw %}",
    "{% endraw %}",
    "!!str ",
    "? ",
    "---\n",
    "pass: ",
    "run: [x]",
    "needs: [a]",
    "loop: ",
    "{ max: 2, until: 'true', body: { c: { pass: x } } }",
    "map: ",
    "steps.a.output.list",
    "inputs: { t: string }\n",
    "when: ",
    "1 + ",
    "((",
    "has(",
    ".map(x, ",
    "workflow: ",
    "files: [ { path: a.txt } ]",
    "files['a.txt']",
    "task_description: x\n",
    "9e999",
    "-0x1",
    ".inf",
    "null",
    "true",
    "1h",
    "\u{feff}",
    "\u{0}é😀",
];

fn nearly_a_spec() -> impl Strategy<Value = String> {
    let scrap = prop::sample::select(SCRAPS.to_vec());
    prop::collection::vec(scrap, 0..60).prop_map(|scraps| scraps.concat())
}

/// For each step the steps that it needs, any of them.
fn any_needs() -> impl Strategy<Value = Vec<Vec<usize>>> {
    (1usize..14).prop_flat_map(|count| prop::collection::vec(prop::collection::vec(0..count, 0..3), count))
}

fn spec_with(needs: &[Vec<usize>]) -> String {
    let mut text = "project: p\nsteps:\n".to_owned();
    for (index, needs) in needs.iter().enumerate() {
        // Half of the needs are written, half are named by a template.
        let (named, written): (Vec<&usize>, Vec<&usize>) = needs.iter().partition(|need| *need % 2 == 0);
        let named: Vec<_> = named.iter().map(|need| format!("{{{{ steps.s{need}.output.text }}}}")).collect();
        let written: Vec<_> = written.iter().map(|need| format!("s{need}")).collect();
        let _ = writeln!(
            text,
            "  s{index}: {{ pass: \"{} .\", needs: [{}] }}",
            named.concat(),
            written.join(", ")
        );
    }
    text
}

/// Whether steps can be taken away one after the other, each without needs that are left.
fn has_an_order(needs: &[Vec<usize>]) -> bool {
    let mut left: Vec<usize> = (0..needs.len()).collect();
    while !left.is_empty() {
        let before = left.len();
        let still = left.clone();
        left.retain(|step| needs[*step].iter().any(|need| still.contains(need)));
        if left.len() == before {
            return false;
        }
    }
    true
}

struct Fixed(Value);

impl Names for Fixed {
    fn input(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned()
    }
    fn step(&self, _: &str) -> Option<Arc<StepOutput>> {
        Some(Arc::new(StepOutput::of_json(self.0.clone())))
    }
    fn file(&self, _: &str) -> Option<String> {
        None
    }
    fn local(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned()
    }
    fn secret(&self, _: &str) -> Option<String> {
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_text_makes_the_reader_panic(text in nearly_a_spec()) {
        match JobSpec::read(&text, &LoadNothing) {
            Ok(spec) => prop_assert_eq!(spec.source, text),
            Err(errors) => {
                prop_assert!(!errors.errors.is_empty());
                let lines = text.lines().count() as u32 + 1;
                for error in errors.errors {
                    prop_assert!(error.line <= lines, "{} of {lines} lines: {text:?}", error);
                }
            }
        }
    }

    #[test]
    fn no_template_and_no_decision_makes_its_compiler_panic(text in nearly_a_spec(), other in "\\PC{0,40}") {
        for source in [text, other] {
            let names: Arc<dyn Names> = Arc::new(Fixed(json!({"x": [1]})));
            if let Ok(template) = Template::compile(&source) {
                let _ = template.render(&names);
            }
            if let Ok(template) = ValueTemplate::compile(&json!([source])) {
                let _ = template.render(&names);
            }
            if let Ok(decision) = Decision::compile(&source) {
                let _ = decision.evaluate(&names);
            }
        }
    }

    #[test]
    fn an_order_respects_needs_and_a_circle_is_found(needs in any_needs()) {
        let read = JobSpec::read(&spec_with(&needs), &LoadNothing);
        prop_assert_eq!(read.is_ok(), has_an_order(&needs));
        let Ok(spec) = read else {
            let told = read.unwrap_err().to_string();
            prop_assert!(told.contains("needs itself: s") && told.contains(" -> s"), "{}", told);
            return Ok(());
        };
        let order = spec.graph.order();
        prop_assert_eq!(order.len(), needs.len());
        let place = |step: usize| order.iter().position(|other| *other == step).unwrap();
        let remaining = spec.graph.remaining_path();
        let levels = spec.graph.levels();
        for (index, wanted) in needs.iter().enumerate() {
            for need in wanted {
                prop_assert!(spec.graph.steps[index].needs.contains(need));
                prop_assert!(place(*need) < place(index));
                prop_assert!(remaining[*need] > remaining[index]);
                prop_assert!(levels[*need] < levels[index]);
            }
        }
        prop_assert_eq!(spec.graph.as_text().lines().count(), needs.len());
        let arrows = spec.graph.as_dot("p").matches(" -> ").count();
        prop_assert_eq!(arrows, spec.graph.steps.iter().map(|step| step.needs.len()).sum::<usize>());
    }

    #[test]
    fn the_same_values_always_give_the_same_text(fields in prop::collection::btree_map("[a-z]{1,6}", 0i64..99, 1..12)) {
        let value = json!({ "m": fields, "list": [fields] });
        let once = || {
            let names: Arc<dyn Names> = Arc::new(Fixed(value.clone()));
            let decision = Decision::compile("inputs.list.map(x, x)").unwrap().evaluate(&names).unwrap();
            let text = Template::compile("{{ inputs.m | tojson }} {{ steps.a.output.m | items | list }}").unwrap();
            (decision.to_string(), text.render(&names).unwrap())
        };
        let first = once();
        for _ in 0..4 {
            prop_assert_eq!(&once(), &first);
        }
    }
}
