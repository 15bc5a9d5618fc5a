//! What can be said of a graph without running it.

use std::fmt::Write;

use crate::{Graph, StepKind};

/// Longer circles are shown with their beginning and their end.
const LONGEST_CIRCLE: usize = 60;

impl Graph {
    /// For each step the weight of the longest way from its start to the end of everything that needs it. Steps
    /// that ask models weigh more than those that only pass values on: a job's time is mostly theirs.
    pub fn remaining_path(&self) -> Vec<u64> {
        let mut remaining: Vec<u64> = self.steps.iter().map(|step| weight(&step.kind)).collect();
        let own = remaining.clone();
        for index in self.order().into_iter().rev() {
            for need in &self.steps[index].needs {
                remaining[*need] = remaining[*need].max(own[*need].saturating_add(remaining[index]));
            }
        }
        remaining
    }

    /// The steps in an order in which everything comes after its needs; as in the file where that allows it.
    pub fn order(&self) -> Vec<usize> {
        let mut missing: Vec<usize> = self.steps.iter().map(|step| step.needs.len()).collect();
        let dependents = self.dependents();
        let mut ready: std::collections::BinaryHeap<_> =
            (0..missing.len()).filter(|index| missing[*index] == 0).map(std::cmp::Reverse).collect();
        let mut order = Vec::with_capacity(missing.len());
        while let Some(std::cmp::Reverse(index)) = ready.pop() {
            order.push(index);
            for dependent in &dependents[index] {
                missing[*dependent] -= 1;
                if missing[*dependent] == 0 {
                    ready.push(std::cmp::Reverse(*dependent));
                }
            }
        }
        order
    }

    /// For each step those that need it.
    pub fn dependents(&self) -> Vec<Vec<usize>> {
        let mut dependents = vec![Vec::new(); self.steps.len()];
        for (index, step) in self.steps.iter().enumerate() {
            for need in &step.needs {
                dependents[*need].push(index);
            }
        }
        dependents
    }

    /// Steps with those of loop bodies and sub-workflows.
    pub fn expanded(&self) -> u64 {
        let inside = |kind: &StepKind| match kind {
            StepKind::Loop(repeated) => repeated.body.expanded(),
            StepKind::Workflow(workflow) => workflow.spec.graph.expanded(),
            _ => 0,
        };
        self.steps.iter().map(|step| 1 + inside(&step.kind)).fold(0, u64::saturating_add)
    }

    /// Circles of needs, each as the steps on it; at most one for each step that leads into one.
    pub(crate) fn circles(&self) -> Vec<Vec<usize>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Seen {
            No,
            OnTheWay,
            Done,
        }
        let mut seen = vec![Seen::No; self.steps.len()];
        let mut circles = Vec::new();
        for start in 0..self.steps.len() {
            if seen[start] != Seen::No {
                continue;
            }
            let mut way = vec![(start, 0)];
            seen[start] = Seen::OnTheWay;
            while let Some((step, next)) = way.last_mut() {
                let Some(need) = self.steps[*step].needs.get(*next).copied() else {
                    seen[*step] = Seen::Done;
                    way.pop();
                    continue;
                };
                *next += 1;
                match seen[need] {
                    Seen::No => {
                        seen[need] = Seen::OnTheWay;
                        way.push((need, 0));
                    }
                    Seen::OnTheWay => {
                        let from = way.iter().position(|(step, _)| *step == need).unwrap_or(0);
                        circles.push(way[from..].iter().map(|(step, _)| *step).collect());
                    }
                    Seen::Done => {}
                }
            }
        }
        circles
    }

    /// `a -> b -> a`, each needing the next.
    pub(crate) fn spell_circle(&self, circle: &[usize]) -> String {
        let id = |index: &usize| self.steps[*index].id.as_str();
        let mut ids: Vec<&str> = circle.iter().map(id).collect();
        ids.push(ids[0]);
        if ids.len() > LONGEST_CIRCLE {
            let half = LONGEST_CIRCLE / 2;
            ids.splice(half..ids.len() - half, ["…"]);
        }
        ids.join(" -> ")
    }

    /// For each step the length of the longest chain of needs before it.
    pub fn levels(&self) -> Vec<usize> {
        let mut levels = vec![0; self.steps.len()];
        for index in self.order() {
            let needs = self.steps[index].needs.iter().map(|need| levels[*need] + 1);
            levels[index] = needs.max().unwrap_or(0);
        }
        levels
    }

    /// The steps as a list of levels, each step with its kind and its needs, bodies below their steps.
    pub fn as_text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text, "");
        text
    }

    fn write_text(&self, text: &mut String, indent: &str) {
        let levels = self.levels();
        let mut order: Vec<usize> = (0..self.steps.len()).collect();
        order.sort_by_key(|index| levels[*index]);
        for index in order {
            let step = &self.steps[index];
            let _ = write!(text, "{indent}{:>2}  {}  {}", levels[index] + 1, step.id, step.kind.word());
            if step.map.is_some() {
                text.push_str(" for each");
            }
            if let Some(samples) = step.samples {
                let _ = write!(text, " × {samples}");
            }
            let needs: Vec<&str> = step.needs.iter().map(|need| self.steps[*need].id.as_str()).collect();
            if !needs.is_empty() {
                let _ = write!(text, "  after {}", needs.join(", "));
            }
            text.push('\n');
            match &step.kind {
                StepKind::Loop(repeated) => repeated.body.write_text(text, &format!("{indent}    ")),
                StepKind::Workflow(workflow) => {
                    workflow.spec.graph.write_text(text, &format!("{indent}    "));
                }
                _ => {}
            }
        }
    }

    /// The graph in Graphviz' language; arrows lead from a step to those that need it.
    pub fn as_dot(&self, name: &str) -> String {
        let mut dot = format!("digraph {} {{\n  rankdir=LR;\n  node [shape=box];\n", quoted(name));
        self.write_dot(&mut dot, "", "  ");
        dot.push_str("}\n");
        dot
    }

    fn write_dot(&self, dot: &mut String, prefix: &str, indent: &str) {
        let node = |index: usize| quoted(&format!("{prefix}{}", self.steps[index].id));
        for (index, step) in self.steps.iter().enumerate() {
            let label = quoted(&format!("{}\n{}", step.id, step.kind.word()));
            let _ = writeln!(dot, "{indent}{} [label={label}];", node(index));
            let inner = format!("{prefix}{}/", step.id);
            let body = match &step.kind {
                StepKind::Loop(repeated) => Some(&repeated.body),
                StepKind::Workflow(workflow) => Some(&workflow.spec.graph),
                _ => None,
            };
            if let Some(body) = body {
                let _ = writeln!(dot, "{indent}subgraph {} {{", quoted(&format!("cluster {inner}")));
                let _ = writeln!(dot, "{indent}  label={};", quoted(&step.id));
                body.write_dot(dot, &inner, &format!("{indent}  "));
                let _ = writeln!(dot, "{indent}}}");
            }
        }
        for (index, step) in self.steps.iter().enumerate() {
            for need in &step.needs {
                let _ = writeln!(dot, "{indent}{} -> {};", node(*need), node(index));
            }
        }
    }
}

/// A string of Graphviz' language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn weight(kind: &StepKind) -> u64 {
    let longest = |graph: &Graph| graph.remaining_path().into_iter().max().unwrap_or(0);
    match kind {
        StepKind::Pass(_) | StepKind::Gate(_) => 1,
        StepKind::Run(_) | StepKind::Http(_) => 16,
        StepKind::Llm(_) => 64,
        StepKind::Loop(repeated) => u64::from(repeated.max).saturating_mul(longest(&repeated.body)),
        StepKind::Workflow(workflow) => longest(&workflow.spec.graph),
    }
}
