//! The graphs that everybody runs, and how each contender wants them written.

use std::fmt::Write;

/// How steps need one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nobody needs anybody.
    Wide,
    /// Each needs the one before.
    Chain,
    /// Layers of a hundred; each step needs two of the layer before.
    Layers,
    /// One, then all others but one, then the last.
    Diamond,
}

/// Steps of one layer.
const LAYER: usize = 100;

impl Shape {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Chain => "chain",
            Self::Layers => "layers",
            Self::Diamond => "diamond",
        }
    }

    /// What the step `at` of `steps` needs.
    fn needs(self, at: usize, steps: usize) -> Vec<usize> {
        match self {
            Self::Wide => Vec::new(),
            Self::Chain => at.checked_sub(1).into_iter().collect(),
            Self::Layers if at < LAYER => Vec::new(),
            Self::Layers => {
                let (layer, place) = (at / LAYER - 1, at % LAYER);
                vec![layer * LAYER + place, layer * LAYER + (place + 1) % LAYER]
            }
            Self::Diamond if at == 0 => Vec::new(),
            Self::Diamond if at + 1 == steps => (1..at).collect(),
            Self::Diamond => vec![0],
        }
    }

    fn named_needs(self, at: usize, steps: usize, before: &str) -> Vec<String> {
        self.needs(at, steps).into_iter().map(|need| format!("{before}s{need}")).collect()
    }

    /// Our own spec, of steps that do nothing.
    pub(super) fn spec(self, steps: usize) -> String {
        let mut text = format!("version: 1\nproject: {}\nsteps:\n", self.word());
        for at in 0..steps {
            let needs = self.named_needs(at, steps, "").join(", ");
            writeln!(text, "  s{at}: {{ pass: {{}}, needs: [{needs}] }}").expect("a string takes it");
        }
        text
    }

    /// The same, but the last step cannot make its value: what `spec` mends.
    pub(super) fn spec_with_a_last_step_that_fails(self, steps: usize) -> String {
        let text = self.spec(steps);
        let last = format!("  s{}: {{ pass: {{}}", steps - 1);
        let failing = format!("  s{}: {{ pass: {{ value: \"{{{{ 1 // 0 }}}}\" }}", steps - 1);
        text.replace(&last, &failing)
    }

    /// A Makefile whose steps leave an empty file each: what make knows of finished work.
    pub(super) fn makefile(self, steps: usize) -> String {
        let mut text = String::from("all:");
        (0..steps).for_each(|at| write!(text, " s{at}").expect("a string takes it"));
        text.push('\n');
        for at in 0..steps {
            let needs = self.named_needs(at, steps, "").join(" ");
            writeln!(text, "s{at}: {needs}\n\t@touch $@").expect("a string takes it");
        }
        text
    }

    /// The same for ninja.
    pub(super) fn ninja(self, steps: usize) -> String {
        let mut text = String::from("rule step\n  command = touch $out\n");
        for at in 0..steps {
            let needs = self.named_needs(at, steps, "").join(" ");
            writeln!(text, "build s{at}: step {needs}").expect("a string takes it");
        }
        text
    }
}

/// A spec of `steps` questions to a model, none of which needs another; the last may be told to ask for what is
/// refused once.
pub(super) fn questions(steps: usize) -> String {
    let mut text = String::from("version: 1\nproject: questions\nlimits: { steps: 16 }\nsteps:\n");
    for at in 0..steps {
        writeln!(text, "  s{at}: {{ llm: {{ model: m, prompt: \"question {at}.\" }} }}")
            .expect("a string takes it");
    }
    text
}

/// The seed's four steps, each a question.
pub(super) fn four_steps() -> String {
    let mut text = String::from("version: 1\nproject: four\nsteps:\n");
    for (id, needs) in
        [("architect", ""), ("builder", "architect"), ("docs", "architect"), ("qa", "builder, docs")]
    {
        writeln!(text, "  {id}: {{ llm: {{ model: m, prompt: \"{id}.\" }}, needs: [{needs}] }}")
            .expect("a string takes it");
    }
    text
}

/// Two chains of `length` questions each, fast and slow ones in turn: where one chain is slow the other is fast.
pub(super) fn staggered(length: usize) -> String {
    let mut text = String::from("version: 1\nproject: staggered\nsteps:\n");
    for (chain, other) in [("a", 0), ("b", 1)] {
        for at in 0..length {
            let pace = if (at + other) % 2 == 0 { "fast" } else { "slow" };
            let needs = if at == 0 { String::new() } else { format!("{chain}{}", at - 1) };
            writeln!(
                text,
                "  {chain}{at}: {{ llm: {{ model: m, prompt: \"{pace} {chain}{at}.\" }}, needs: [{needs}] }}"
            )
            .expect("a string takes it");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diamond_opens_and_closes() {
        assert_eq!(Shape::Diamond.needs(0, 4), Vec::<usize>::new());
        assert_eq!(Shape::Diamond.needs(2, 4), [0]);
        assert_eq!(Shape::Diamond.needs(3, 4), [1, 2]);
    }

    #[test]
    fn every_layer_needs_the_one_before() {
        assert_eq!(Shape::Layers.needs(99, 300), Vec::<usize>::new());
        assert_eq!(Shape::Layers.needs(100, 300), [0, 1]);
        assert_eq!(Shape::Layers.needs(199, 300), [99, 0]);
    }

    #[test]
    fn a_chain_is_written_for_everybody() {
        assert!(
            Shape::Chain
                .spec(2)
                .ends_with("  s0: { pass: {}, needs: [] }\n  s1: { pass: {}, needs: [s0] }\n")
        );
        assert!(Shape::Chain.makefile(2).starts_with("all: s0 s1\ns0: \n\t@touch $@\ns1: s0\n"));
        assert!(Shape::Chain.ninja(2).ends_with("build s0: step \nbuild s1: step s0\n"));
    }
}
