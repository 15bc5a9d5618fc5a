//! A step's turn has come: does it run at all, was it done before, does somebody do it already? Only what is left
//! after these questions is an attempt.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use workflow_spec::{CachePolicy, Effect, FailureKind, Names, Step, StepKind, StepOutput};

use super::driver::{Driver, Heard};
use super::facts::Told;
use super::nodes::{Kept, Layer, NodeRef, NodeResult, Source, State, Work};
use super::plan::{Asked, Way};
use super::schedule::Urgency;
use crate::CallFailure;
use crate::key::{Digest, Key, KeyDocument, SeedRequest, code_version, key_of};
use crate::manifest::StepStatus;
use crate::recorder::SkipReason;
use crate::scope::NodeNames;
use crate::steps::{Action, AskAction, Place, ProgramAction, ServiceAction, Shape, Sight};
use crate::store::{Entry, Follower, Found, Seat, output_digest};

impl Driver {
    /// Puts a node whose needs have ended where its turn will come.
    pub(super) fn enqueue(&mut self, at: NodeRef) {
        let Some(scope) = self.scopes.get(at.scope) else { return };
        let node = &scope.nodes[at.index as usize];
        let candidate = match &node.state {
            State::Retrying(work) => work.candidate,
            _ => 0,
        };
        let needs_place = node.blocked.is_none() && !node.is_made_of_others();
        match node.way.lane(candidate).filter(|_| needs_place) {
            None => self.inline.push_back(at),
            Some(lane) => {
                let order = (u64::from(at.scope) << 32) | u64::from(at.index);
                let urgency = Urgency { remaining: node.remaining, order: std::cmp::Reverse(order) };
                self.ask_for_facts(at);
                self.ready.push(lane, urgency, at);
            }
        }
    }

    /// A node's turn.
    pub(super) fn open(&mut self, at: NodeRef) {
        // Its scope may have ended since it was put into the queue.
        let Some(scope) = self.scopes.get(at.scope) else { return };
        let stopped = scope.stop.is_some();
        let node = &scope.nodes[at.index as usize];
        match &node.state {
            State::Pending if node.blocked.is_some() => self.open_blocked(at),
            State::Pending if !stopped => self.open_new(at),
            State::Retrying(_) => self.open_again(at),
            _ => {}
        }
    }

    /// A need of it has left no output.
    fn open_blocked(&mut self, at: NodeRef) {
        let node = self.scopes.node(at);
        let conditional = node.blocked == Some(SkipReason::Condition) && node.step.otherwise.is_some();
        if conditional {
            self.stand_in(at);
        } else {
            let reason = node.blocked.unwrap_or(SkipReason::UpstreamFailed);
            self.skip(at, reason);
        }
    }

    fn open_new(&mut self, at: NodeRef) {
        let node = self.scopes.node(at);
        let (step, layer) = (node.step.clone(), node.layer);
        if layer == Layer::Whole
            && let Some(when) = &step.when
        {
            match when.holds(&self.names(at)) {
                Ok(true) => {}
                Ok(false) if step.otherwise.is_some() => return self.stand_in(at),
                Ok(false) => return self.skip(at, SkipReason::Condition),
                Err(error) => {
                    let message = format!("when: {error}");
                    return self.fail_unbegun(at, &CallFailure::new(FailureKind::Validation, message));
                }
            }
        }
        if self.scopes.node(at).is_made_of_others() {
            return self.expand(at);
        }
        match &step.kind {
            StepKind::Pass(pass) => match &pass.value {
                None => self.pass(at, None),
                Some(value) => match value.render(&self.names(at)) {
                    Ok(value) => self.pass(at, Some(value)),
                    Err(error) => self.fail_unbegun(at, &invalid("pass", &error)),
                },
            },
            StepKind::Gate(_) => self.open_gate(at),
            StepKind::Llm(_) | StepKind::Run(_) | StepKind::Http(_) => self.open_action(at),
            StepKind::Loop(_) | StepKind::Workflow(_) => self.expand(at),
        }
    }

    /// What the node's templates see.
    pub(super) fn names(&self, at: NodeRef) -> Arc<dyn Names> {
        Arc::new(self.node_names(at))
    }

    pub(super) fn node_names(&self, at: NodeRef) -> NodeNames {
        let scope = self.scopes.of(at);
        let node = &scope.nodes[at.index as usize];
        NodeNames::of_step(scope.around.clone(), node.step.clone(), node.locals.clone(), self.written.clone())
    }

    /// `else` in place of a step that is not run.
    fn stand_in(&mut self, at: NodeRef) {
        let step = self.scopes.node(at).step.clone();
        let Some(otherwise) = &step.otherwise else { return };
        match otherwise.render(&self.names(at)) {
            Ok(value) => {
                let output = Arc::new(StepOutput::of_json(value));
                self.finish_inline(at, output, Source::Otherwise);
            }
            Err(error) => self.fail_unbegun(at, &invalid("else", &error)),
        }
    }

    /// A value is made again in every life: that costs less than to look it up.
    fn pass(&mut self, at: NodeRef, value: Option<Value>) {
        let output = value.map_or_else(StepOutput::default, StepOutput::of_json);
        self.finish_inline(at, Arc::new(output), Source::Made);
    }

    fn finish_inline(&mut self, at: NodeRef, output: Arc<StepOutput>, source: Source) {
        let out = output_digest(&output);
        let key = self.inline_keys.key_of(out);
        let known = self.was_done(at, key, out);
        let source = if known && source == Source::Made { Source::Resume } else { source };
        if source == Source::Made {
            self.announce_inline(at, key);
        }
        let since = Instant::now();
        let result = NodeResult {
            output,
            out,
            key,
            source,
            since,
            attempt: 1,
            calls: 0,
            places: None,
            blobs: Vec::new(),
        };
        self.settle(at, result);
    }

    /// Whether an earlier life of the job has made the same of this very step: values are often equal.
    fn was_done(&self, at: NodeRef, key: Key, out: Digest) -> bool {
        let Some(past) = self.past.succeeded.get(key.as_str()) else { return false };
        let before = self.past.manifest.step(&self.scopes.node(at).id);
        past.out == out.as_str() && before.is_some_and(|step| step.status == StepStatus::Succeeded)
    }

    fn open_action(&mut self, at: NodeRef) {
        if !self.has_facts(at) {
            self.scopes.set_state(at, State::Asking);
            return;
        }
        let action = match self.action(at) {
            Ok(action) => action,
            Err(failure) => return self.fail_unbegun(at, &failure),
        };
        let kept = self.kept(&self.scopes.node(at).step);
        let document = match self.document(at, &*action, kept) {
            Ok(document) => document,
            Err(failure) => return self.fail_unbegun(at, &failure),
        };
        let work = Work {
            since: Instant::now(),
            action,
            document,
            kept,
            attempt: 0,
            announced: 0,
            refused: None,
            stale: !self.knows_all(at),
            is_sure: false,
            tries: 0,
            at_circuits: Duration::ZERO,
            candidate: 0,
            calls: 0,
            task: None,
            places: None,
        };
        if kept == Kept::Shared {
            self.lookups.add(at, Box::new(work));
        } else {
            self.take_or_do(at, Box::new(work));
        }
    }

    /// Takes what an earlier life of the job has made; else goes on as a new job would.
    pub(super) fn take_or_do(&mut self, at: NodeRef, work: Box<Work>) {
        if let Some(entry) = self.results.of_earlier_life(&self.past, &work.document.key()) {
            return self.settle(at, NodeResult::of_entry(*entry, &work, Source::Resume));
        }
        let lane = self.scopes.node(at).way.lane(work.candidate);
        if lane.is_none_or(|lane| self.limits.has_place(lane)) {
            return self.proceed(at, work);
        }
        // Those that were looked up together with it have all places; its turn comes again.
        self.scopes.set_state(at, State::Retrying(work));
        self.enqueue(at);
    }

    /// Takes what another job has made.
    pub(super) fn take_stored(&mut self, at: NodeRef, mut work: Box<Work>, entry: Entry) {
        let key = entry.key();
        self.results.uses(key);
        self.announce(at, &mut work);
        self.recorder.cache_hit(&self.scopes.node(at).id, key.as_str());
        self.settle(at, NodeResult::of_entry(entry, &work, Source::Made));
    }

    /// The turn of a step's next attempt.
    fn open_again(&mut self, at: NodeRef) {
        let State::Retrying(mut work) = self.scopes.set_state(at, State::Pending) else { return };
        if work.announced == 0 && self.scopes.of(at).stop.is_some() {
            // It has not begun, and nothing begins here any more.
            return self.settle_scope(at.scope);
        }
        if work.stale && !self.has_facts(at) {
            self.scopes.set_state(at, State::Retrying(work));
            return;
        }
        if work.stale
            && let Err(failure) = self.render_again(at, &mut work)
        {
            return self.fail(at, *work, &failure);
        }
        self.proceed(at, work);
    }

    /// What was not known of its models may be known by now.
    fn render_again(&mut self, at: NodeRef, work: &mut Work) -> Result<(), CallFailure> {
        work.action = self.action(at)?;
        work.stale = !self.knows_all(at);
        if work.kept == Kept::Shared {
            work.document = self.document(at, &*work.action.clone(), work.kept)?;
        }
        Ok(())
    }

    fn knows_all(&self, at: NodeRef) -> bool {
        let Way::Model { candidates } = &self.scopes.node(at).way else { return true };
        candidates.iter().all(|asked| self.facts.told(asked.pair).is_some_and(|told| told.is_ok()))
    }

    /// Whoever tries again asks again what could not be told.
    pub(super) fn forget_failed_facts(&mut self, at: NodeRef) {
        let Way::Model { candidates } = self.scopes.node(at).way.clone() else { return };
        for asked in candidates.iter() {
            self.facts.forget_failure(asked.pair);
        }
    }

    /// Takes an equal result, waits for one that is being made, or makes it.
    fn proceed(&mut self, at: NodeRef, mut work: Box<Work>) {
        let key = work.document.key();
        match self.results.find(&key, work.kept) {
            Found::Hit(entry) => return self.take_stored(at, work, *entry),
            // Told once, however often its turn comes.
            Found::Refused(_) if work.refused.is_some() => {}
            Found::Refused(refusal) => {
                self.announce(at, &mut work);
                let why = refusal.to_string();
                self.recorder.cache_refused(&self.scopes.node(at).id, key.as_str(), &why);
                work.refused = Some(why);
            }
            Found::Miss => {}
        }
        if let Some(foresee) = &self.foresee {
            foresee.action(&self.scopes.node(at).id, &work.document);
            return self.leave(at);
        }
        if let Some(why) = self.may_have_happened(at, &work) {
            return self.ask_what_became(at, work, why);
        }
        let Some(work) = self.afford(at, work) else { return };
        let leader = match self.seat(&work) {
            None => None,
            Some(Seat::Leader(leader)) => Some(leader),
            Some(Seat::Follower(follower)) => return self.follow(at, work, follower),
        };
        self.begin_attempt(at, work, leader);
    }

    fn seat(&self, work: &Work) -> Option<Seat> {
        (work.kept == Kept::Shared).then(|| self.results.home().join(&work.document.key()))
    }

    fn follow(&mut self, at: NodeRef, mut work: Box<Work>, follower: Follower) {
        self.announce(at, &mut work);
        self.recorder.cache_joined(&self.scopes.node(at).id, work.document.key().as_str());
        self.scopes.set_state(at, State::Following(work));
        let tell = self.tell.clone();
        self.launch_later(at, async move {
            let entry = follower.result().await;
            // A driver that has ended does not want to know.
            let _driver_is_gone = tell.send(Heard::Followed(at, entry));
        });
    }

    pub(super) fn followed(&mut self, at: NodeRef, entry: Option<Arc<Entry>>) {
        let Some(work) = self.take_work(at, |state| matches!(state, State::Following(_))) else { return };
        if let Some(entry) = entry {
            self.results.uses(entry.key());
            let entry = Arc::unwrap_or_clone(entry);
            self.settle(at, NodeResult::of_entry(entry, &work, Source::Made));
        } else {
            self.scopes.set_state(at, State::Retrying(work));
            self.enqueue(at);
        }
    }

    /// The step as the journal is to know it from now on.
    pub(super) fn announce(&mut self, at: NodeRef, work: &mut Work) {
        let number = work.attempt.max(1);
        if work.announced < number {
            work.announced = number;
            self.announce_started(at, number, work.document.key().as_str());
        }
    }

    fn announce_inline(&mut self, at: NodeRef, key: Key) {
        self.announce_started(at, 1, key.as_str());
    }

    pub(super) fn announce_started(&mut self, at: NodeRef, attempt: u32, key: &str) {
        let scope = self.scopes.of(at);
        let node = &scope.nodes[at.index as usize];
        let needs = match scope.plan() {
            Some(plan) => node.step.needs.iter().map(|need| plan.steps[*need].id.as_str()).collect(),
            None => Vec::new(),
        };
        self.recorder.step_started(&node.id, attempt, &needs, key);
    }

    fn document(&mut self, at: NodeRef, action: &dyn Action, kept: Kept) -> Result<KeyDocument, CallFailure> {
        let step = self.scopes.node(at).step.clone();
        if step.cache == CachePolicy::SeedV21 && matches!(step.kind, StepKind::Llm(_)) {
            return self.seed_document(at, &step);
        }
        Ok(self.results.document(action.key_document(), kept))
    }

    /// The key of Unified Orchestrator v2.1, which knows one provider and no prompt.
    fn seed_document(&self, at: NodeRef, step: &Step) -> Result<KeyDocument, CallFailure> {
        let Way::Model { candidates } = &self.scopes.node(at).way else {
            return Err(CallFailure::new(FailureKind::Internal, "the step asks no model"));
        };
        let StepKind::Llm(llm) = &step.kind else {
            return Err(CallFailure::new(FailureKind::Internal, "the step asks no model"));
        };
        let place = self.place(candidates[0]);
        let facts = place.facts.as_ref().as_ref().map_err(Clone::clone)?;
        let spec = &self.job.spec;
        let folder = self.job.options.folder.clone().unwrap_or_else(|| self.run_path());
        Ok(KeyDocument::seed_v21(&SeedRequest {
            provider: &facts.provider_kind,
            model: &facts.model,
            options: &llm.candidates[0].options,
            step: &step.id,
            inputs: &self.job.inputs,
            code_version: &code_version(&folder, &[&spec.source]),
        }))
    }

    fn kept(&self, step: &Step) -> Kept {
        let shared = match step.cache {
            CachePolicy::OfKind => matches!(step.kind, StepKind::Llm(_)),
            CachePolicy::On | CachePolicy::SeedV21 => true,
            CachePolicy::Off => false,
        };
        if shared && !self.job.options.no_cache && step.effect == Effect::None {
            Kept::Shared
        } else {
            Kept::Own
        }
    }

    fn action(&mut self, at: NodeRef) -> Result<Arc<dyn Action>, CallFailure> {
        let node = self.scopes.node(at);
        let (step, way) = (node.step.clone(), node.way.clone());
        let sample = node.locals.get("sample").and_then(Value::as_u64).map(|sample| sample as u32);
        let secrets = self.ports.secrets.clone();
        let sight = Sight::new(&self.names(at), &step.secrets, &|name| secrets(name));
        Ok(match (&step.kind, &way) {
            (StepKind::Run(run), _) => Arc::new(ProgramAction::new(&step, run, &sight, sample)?),
            (StepKind::Http(http), _) => Arc::new(ServiceAction::new(&step, http, &sight, sample)?),
            (StepKind::Llm(llm), Way::Model { candidates }) => {
                let shape = self.shape(&step)?;
                let places = candidates.iter().map(|asked| self.place(*asked)).collect();
                Arc::new(AskAction::new(llm, places, shape, &sight, sample)?)
            }
            _ => return Err(CallFailure::new(FailureKind::Internal, "the step is no action")),
        })
    }

    /// Compiled once, however often the step runs.
    fn shape(&mut self, step: &Arc<Step>) -> Result<Option<Arc<Shape>>, CallFailure> {
        let StepKind::Llm(llm) = &step.kind else { return Ok(None) };
        let Some(output) = &llm.output else { return Ok(None) };
        let address = Arc::as_ptr(step) as usize;
        if let Some(shape) = self.shapes.get(&address) {
            return Ok(Some(shape.clone()));
        }
        let shape = Arc::new(Shape::compile(&output.schema)?);
        self.shapes.insert(address, shape.clone());
        Ok(Some(shape))
    }

    fn place(&self, asked: Asked) -> Place {
        let pair = self.facts.names(asked.pair);
        let unasked =
            || Arc::new(Err(CallFailure::new(FailureKind::Internal, "the model was not asked about")));
        let facts = self.facts.told(asked.pair).cloned().unwrap_or_else(unasked);
        Place { provider: pair.provider.clone(), model: pair.model.clone(), facts }
    }

    /// Asks about the models of a step that nobody has asked about.
    fn ask_for_facts(&mut self, at: NodeRef) {
        let Way::Model { candidates } = self.scopes.node(at).way.clone() else { return };
        for asked in candidates.iter() {
            if !self.facts.ask(asked.pair) {
                continue;
            }
            let (pair, tell) = (asked.pair, self.tell.clone());
            let names = self.facts.names(pair);
            let facts = self.ports.models.facts(&names.provider, names.model.as_deref());
            self.tasks.spawn(async move {
                let told = facts.await;
                // A driver that has ended does not want to know.
                let _driver_is_gone = tell.send(Heard::Facts(pair, told));
            });
        }
    }

    /// Whether all is known of its models. Else the node is named when the next answer is there.
    fn has_facts(&mut self, at: NodeRef) -> bool {
        let Way::Model { candidates } = self.scopes.node(at).way.clone() else { return true };
        let unknown = candidates.iter().find(|asked| self.facts.told(asked.pair).is_none());
        if let Some(asked) = unknown {
            self.facts.wait(asked.pair, at);
        }
        unknown.is_none()
    }

    pub(super) fn facts_told(&mut self, pair: usize, told: Told) {
        for at in self.facts.tell(pair, told) {
            let Some(scope) = self.scopes.get(at.scope) else { continue };
            match scope.nodes[at.index as usize].state {
                State::Asking => {
                    self.scopes.set_state(at, State::Pending);
                    self.enqueue(at);
                }
                State::Retrying(_) => self.enqueue(at),
                _ => {}
            }
        }
    }

    pub(super) fn take_work(&mut self, at: NodeRef, is_it: impl Fn(&State) -> bool) -> Option<Box<Work>> {
        let scope = self.scopes.get(at.scope)?;
        if !is_it(&scope.nodes[at.index as usize].state) {
            return None;
        }
        match self.scopes.set_state(at, State::Pending) {
            State::Running(work) | State::Retrying(work) | State::Following(work) | State::Unfunded(work) => {
                Some(work)
            }
            _ => None,
        }
    }
}

fn invalid(what: &str, error: &workflow_spec::TemplateError) -> CallFailure {
    CallFailure::new(FailureKind::Validation, format!("{what}: {error}"))
}

/// Keys of values. A value's document is its digest; most values are none at all, so the last key is kept.
#[derive(Default)]
pub(super) struct InlineKeys(Option<(Digest, Key)>);

impl InlineKeys {
    fn key_of(&mut self, out: Digest) -> Key {
        match self.0 {
            Some((known, key)) if known == out => key,
            _ => {
                let key = key_of(&json!({"v": 1, "kind": "pass", "out": out.as_str()}));
                self.0 = Some((out, key));
                key
            }
        }
    }
}
