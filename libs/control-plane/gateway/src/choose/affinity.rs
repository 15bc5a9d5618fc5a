//! Which replica has the beginning of a prompt in its cache already.
//!
//! The engine alone knows its cache; what is kept here is what it *should* have: marks along every prompt that it
//! answered. The next turn of a conversation bears the same marks as far as the two are alike. What the engine then
//! reports (`cache_n`) is compared with what was promised: an engine whose promises prove empty is not believed.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llm_adapters::{PromptPiece, Usage, each_prompt_piece, has_prompt};
use tokio::time::Instant;

/// Shorter beginnings are as quickly computed as looked for, and common to strangers.
const SHORTEST: u32 = 256;
/// Text behind this does not tell conversations apart that are alike so far.
const LONGEST: u32 = 256 * 1024;
/// So many ends of messages are marked, from the last one backwards; a turn of a conversation adds a few.
const MESSAGE_ENDS: usize = 8;
/// Marks of one replica: those of some two hundred conversations. Half of them go at a time.
const ROOM: usize = 8 * 1024;
/// After so many empty promises in a row the engine is known to keep nothing.
const DISTRUST_AFTER: u32 = 3;

/// The beginning of a prompt up to some point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    hash: u64,
    /// Bytes of text in front of it.
    length: u32,
}

/// Marks along one prompt, the shortest beginning first: at distances that grow by a quarter, and at the ends of
/// its last messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PromptPrefix {
    marks: Vec<Mark>,
    length: u32,
}

impl PromptPrefix {
    /// Reads a request; nothing where it holds no prompt worth looking for.
    pub(crate) fn of_request(path: &str, body: &[u8]) -> Option<Self> {
        if !has_prompt(path) || body.len() < SHORTEST as usize {
            return None;
        }
        let mut marker = Marker::default();
        each_prompt_piece(body, |piece| match piece {
            PromptPiece::Text(text) => marker.text(text),
            PromptPiece::MessageEnd => marker.message_end(),
        });
        let prefix = marker.finish();
        (!prefix.marks.is_empty()).then_some(prefix)
    }
}

/// Walks along a prompt. One walk gives the same marks as another one as far as their texts are alike.
struct Marker {
    hasher: DefaultHasher,
    length: u32,
    next_block: u32,
    blocks: Vec<Mark>,
    message_ends: VecDeque<Mark>,
}

impl Default for Marker {
    fn default() -> Self {
        Self {
            hasher: DefaultHasher::new(),
            length: 0,
            next_block: SHORTEST,
            blocks: Vec::new(),
            message_ends: VecDeque::with_capacity(MESSAGE_ENDS),
        }
    }
}

impl Marker {
    fn text(&mut self, mut text: &[u8]) -> ControlFlow<()> {
        while self.length < LONGEST {
            let room = (self.next_block.min(LONGEST) - self.length) as usize;
            let (now, later) = text.split_at(room.min(text.len()));
            self.hasher.write(now);
            self.length += now.len() as u32;
            if self.length == self.next_block {
                self.blocks.push(self.mark());
                self.next_block += self.next_block / 4;
            }
            if later.is_empty() {
                // Two strings are not one.
                self.hasher.write_u8(0xff);
                return ControlFlow::Continue(());
            }
            text = later;
        }
        ControlFlow::Break(())
    }

    fn message_end(&mut self) -> ControlFlow<()> {
        if self.length >= SHORTEST {
            if self.message_ends.len() == MESSAGE_ENDS {
                self.message_ends.pop_front();
            }
            self.message_ends.push_back(self.mark());
        }
        ControlFlow::Continue(())
    }

    fn mark(&self) -> Mark {
        Mark { hash: self.hasher.finish(), length: self.length }
    }

    fn finish(self) -> PromptPrefix {
        let mut marks = self.blocks;
        marks.extend(self.message_ends);
        marks.sort_by_key(|mark| mark.length);
        PromptPrefix { marks, length: self.length }
    }
}

/// What ties a request to replicas: its session, and the beginning of its prompt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ties {
    session: Option<u64>,
    prefix: Option<PromptPrefix>,
}

impl Ties {
    pub(crate) fn new(session: Option<&str>, prefix: Option<PromptPrefix>) -> Self {
        let session = session.map(|name| {
            let mut hasher = DefaultHasher::new();
            hasher.write(b"session");
            hasher.write(name.as_bytes());
            hasher.finish()
        });
        Self { session, prefix }
    }

    fn is_empty(&self) -> bool {
        self.session.is_none() && self.prefix.is_none()
    }
}

/// How closely one replica is tied to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bond {
    /// When it last answered this session.
    pub(crate) session: Option<Instant>,
    /// So many bytes of the prompt should be in its cache.
    pub(crate) prefix: u32,
}

/// What a request is tied by, and how much of its prompt the chosen replica should have in its cache.
#[derive(Debug)]
pub(crate) struct Promise {
    pub(crate) ties: Arc<Ties>,
    pub(crate) bytes: u32,
}

impl Promise {
    pub(crate) fn of(memory: &ReplicaMemory, ties: &Arc<Ties>) -> Self {
        Self { ties: Arc::clone(ties), bytes: memory.bond(ties).prefix }
    }
}

/// What one engine's process has been given. Bounded; gone with the process.
#[derive(Default)]
pub(crate) struct ReplicaMemory(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// What was used lately, and what was used before that. When the young fill half of the room, the old go.
    young: HashMap<u64, Instant>,
    old: HashMap<u64, Instant>,
    /// Promises that proved empty, in a row.
    empty_promises: u32,
}

impl ReplicaMemory {
    /// What this replica can be expected to know of a request.
    pub(crate) fn bond(&self, ties: &Ties) -> Bond {
        if ties.is_empty() {
            return Bond::default();
        }
        let known = self.lock();
        let session = ties.session.and_then(|session| known.find(session));
        let prefix = ties.prefix.as_ref().and_then(|prefix| {
            let longest = prefix.marks.iter().rev().find(|mark| known.find(mark.hash).is_some());
            longest.map(|mark| mark.length)
        });
        Bond { session, prefix: prefix.unwrap_or_default() }
    }

    /// The replica has answered a request; `promised` is what was expected to be in its cache.
    pub(crate) fn answered(&self, promise: &Promise, usage: &Usage) {
        let Promise { ties, bytes: promised } = promise;
        if ties.is_empty() {
            return;
        }
        let mut known = self.lock();
        known.judge(proof(ties, *promised, usage));
        let trusted = known.empty_promises < DISTRUST_AFTER;
        let marks = ties.prefix.iter().filter(|_| trusted).flat_map(|prefix| &prefix.marks);
        let now = Instant::now();
        for hash in ties.session.into_iter().chain(marks.map(|mark| mark.hash)) {
            known.remember(hash, now);
        }
    }

    /// The process has ended, and its cache with it.
    pub(crate) fn forget_all(&self) {
        *self.lock() = Known::default();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn find(&self, hash: u64) -> Option<Instant> {
        self.young.get(&hash).or_else(|| self.old.get(&hash)).copied()
    }

    fn remember(&mut self, hash: u64, now: Instant) {
        if self.young.len() >= ROOM / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, now);
    }

    /// One promise in vain proves little, and is made good by the answer itself, which leaves its prompt in the
    /// cache. Several in a row come from an engine that keeps nothing.
    fn judge(&mut self, proof: Proof) {
        match proof {
            Proof::Kept => self.empty_promises = 0,
            Proof::Empty => {
                self.empty_promises = self.empty_promises.saturating_add(1);
                if self.empty_promises == DISTRUST_AFTER {
                    self.young.clear();
                    self.old.clear();
                }
            }
            Proof::None => {}
        }
    }
}

/// What an answer says about a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Kept,
    Empty,
    /// Nothing was promised, or the engine does not say.
    None,
}

fn proof(ties: &Ties, promised: u32, usage: &Usage) -> Proof {
    let (Some(prefix), Some(cached), Some(prompt)) = (&ties.prefix, usage.cached_tokens, usage.prompt_tokens)
    else {
        return Proof::None;
    };
    if promised == 0 {
        return if cached > 0 { Proof::Kept } else { Proof::None };
    }
    // Tokens are compared with text by their shares of the whole: half of what was promised is a promise kept.
    let kept =
        u128::from(cached) * u128::from(prefix.length) * 2 >= u128::from(promised) * u128::from(prompt);
    if kept { Proof::Kept } else { Proof::Empty }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const CHAT: &str = "/v1/chat/completions";

    fn prefix(messages: &[String]) -> Option<PromptPrefix> {
        let messages: Vec<_> = messages.iter().map(|text| json!({"role": "user", "content": text})).collect();
        PromptPrefix::of_request(CHAT, json!({"messages": messages}).to_string().as_bytes())
    }

    fn ties(messages: &[String]) -> Arc<Ties> {
        Arc::new(Ties::new(None, prefix(messages)))
    }

    fn answered(memory: &ReplicaMemory, ties: &Arc<Ties>, bytes: u32, usage: Usage) {
        memory.answered(&Promise { ties: Arc::clone(ties), bytes }, &usage);
    }

    fn conversation(topic: &str, turns: usize) -> Vec<String> {
        (0..turns).map(|turn| format!("{topic} {turn} ").repeat(20)).collect()
    }

    fn cached(cached: u64, prompt: u64) -> Usage {
        Usage { cached_tokens: Some(cached), prompt_tokens: Some(prompt), ..Usage::default() }
    }

    #[test]
    fn the_next_turn_is_tied_to_the_replica_that_answered_the_last_one() {
        let memory = ReplicaMemory::default();
        let first = ties(&conversation("ships", 5));
        assert_eq!(memory.bond(&first), Bond::default());
        answered(&memory, &first, 0, Usage::default());
        let whole = first.prefix.as_ref().unwrap().length;
        assert_eq!(memory.bond(&first).prefix, whole);
        let next = ties(&conversation("ships", 9));
        assert_eq!(memory.bond(&next).prefix, whole, "all of the last turn, to the byte");
        assert_eq!(memory.bond(&ties(&conversation("bread", 9))).prefix, 0);
    }

    #[test]
    fn conversations_under_one_long_system_prompt_are_told_apart() {
        let with = |topic: &str, turns| {
            let mut messages = vec!["You are a helpful assistant. ".repeat(700)];
            messages.extend(conversation(topic, turns));
            ties(&messages)
        };
        let (here, there) = (ReplicaMemory::default(), ReplicaMemory::default());
        answered(&here, &with("ships", 1), 0, Usage::default());
        answered(&there, &with("bread", 1), 0, Usage::default());
        let next = with("ships", 3);
        assert!(here.bond(&next).prefix > there.bond(&next).prefix);
        assert!(there.bond(&next).prefix > 10_000, "the system prompt is worth something too");
    }

    #[test]
    fn a_session_is_tied_to_whoever_answered_it_last() {
        let (first, second) = (ReplicaMemory::default(), ReplicaMemory::default());
        let session = Arc::new(Ties::new(Some("s1"), None));
        answered(&first, &session, 0, Usage::default());
        answered(&second, &session, 0, Usage::default());
        assert!(second.bond(&session).session >= first.bond(&session).session);
        assert_eq!(first.bond(&Ties::new(Some("s2"), None)).session, None);
    }

    #[test]
    fn one_promise_in_vain_is_made_good_by_the_answer_itself() {
        let memory = ReplicaMemory::default();
        let (old, new) = (ties(&conversation("ships", 4)), ties(&conversation("ships", 6)));
        answered(&memory, &old, 0, Usage::default());
        let promised = memory.bond(&new).prefix;
        answered(&memory, &new, promised, cached(0, 500));
        assert_eq!(memory.bond(&new).prefix, new.prefix.as_ref().unwrap().length);
    }

    #[test]
    fn an_engine_that_keeps_nothing_is_believed_no_more_until_it_keeps_something() {
        let memory = ReplicaMemory::default();
        let request = ties(&conversation("ships", 4));
        answered(&memory, &request, 0, Usage::default());
        for _ in 0..DISTRUST_AFTER {
            let promised = memory.bond(&request).prefix;
            assert!(promised > 0);
            answered(&memory, &request, promised, cached(1, 500));
        }
        assert_eq!(memory.bond(&request).prefix, 0);
        answered(&memory, &request, 0, cached(0, 500));
        assert_eq!(memory.bond(&request).prefix, 0, "still nothing");
        answered(&memory, &request, 0, cached(400, 500));
        assert!(memory.bond(&request).prefix > 0);
    }

    #[test]
    fn a_cache_dies_with_its_process() {
        let memory = ReplicaMemory::default();
        let request = Arc::new(Ties::new(Some("s"), prefix(&conversation("ships", 4))));
        answered(&memory, &request, 0, Usage::default());
        memory.forget_all();
        assert_eq!(memory.bond(&request), Bond::default());
    }

    #[test]
    fn small_prompts_and_requests_without_any_bear_no_marks() {
        assert_eq!(prefix(&["hi".to_owned()]), None);
        let long = json!({"input": "x".repeat(1000)}).to_string();
        assert_eq!(PromptPrefix::of_request("/v1/embeddings", long.as_bytes()), None);
        assert_eq!(PromptPrefix::of_request(CHAT, "x".repeat(1000).as_bytes()), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_latest_stays() {
        let memory = ReplicaMemory::default();
        for number in 0..2 * ROOM {
            answered(&memory, &Arc::new(Ties::new(Some(&number.to_string()), None)), 0, Usage::default());
        }
        let known = memory.lock();
        assert!(known.young.len() + known.old.len() <= ROOM);
        drop(known);
        let latest = Ties::new(Some(&(2 * ROOM - 1).to_string()), None);
        assert!(memory.bond(&latest).session.is_some());
    }

    #[test]
    fn a_huge_prompt_bears_few_marks() {
        let prefix = prefix(&["y".repeat(3 * LONGEST as usize)]).unwrap();
        assert_eq!(prefix.length, LONGEST);
        assert!(prefix.marks.len() < 40, "{}", prefix.marks.len());
    }

    proptest! {
        #[test]
        fn texts_share_exactly_the_marks_in_front_of_their_first_difference(
            common in "[a-z]{0,4000}", one in "[a-m]{1,400}", other in "[n-z]{1,400}",
        ) {
            let marks = |rest: &str| {
                let body = json!({"prompt": format!("{common}{rest}")}).to_string();
                PromptPrefix::of_request("/completion", body.as_bytes()).map_or_else(Vec::new, |prefix| prefix.marks)
            };
            let (one, other) = (marks(&one), marks(&other));
            for mark in &one {
                let shared = mark.length as usize <= common.len();
                prop_assert_eq!(other.contains(mark), shared, "{:?} of {}", mark, common.len());
            }
        }
    }
}
