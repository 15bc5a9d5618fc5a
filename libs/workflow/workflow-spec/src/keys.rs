//! Every key of a spec, once: the reader knows them from here, the published JSON Schema and the reference in
//! the documentation are made from here.

/// A mapping of the spec.
pub(crate) struct Section {
    /// Its name in the JSON Schema and in the reference.
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    /// Keys of which exactly one is written.
    pub(crate) one_of: &'static [&'static str],
    pub(crate) keys: &'static [Key],
}

pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) holds: Holds,
    /// As it is shown: `required`, a default, or nothing.
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
}

impl Key {
    pub(crate) fn is_required(&self) -> bool {
        self.default == "required"
    }
}

/// What may stand under a key.
pub(crate) enum Holds {
    /// Text as it is.
    Text,
    /// Text with `{{ … }}`.
    Template,
    /// A CEL expression.
    Decision,
    Flag,
    /// A whole number from … to ….
    Count(u64, u64),
    /// `250ms`, `2s`, `15m`, `1h30m`.
    Span,
    /// One of these words.
    Word(&'static [&'static str]),
    List(&'static Holds),
    /// A mapping from names of the writer's own.
    Named(&'static Holds),
    In(&'static Section),
    /// A JSON Schema.
    Schema,
    /// Any value.
    Any,
    /// Any value; strings in it are templates.
    Value,
    Either(&'static [Holds]),
    /// Nothing: `null`, or nothing after the colon.
    Nothing,
}

pub(crate) const FAILURES: &[&str] = &[
    "timeout",
    "connect",
    "rate_limit",
    "overloaded",
    "auth",
    "schema",
    "validation",
    "tool",
    "budget",
    "cancelled",
    "circuit_open",
    "internal",
];

const fn key(name: &'static str, holds: Holds, default: &'static str, about: &'static str) -> Key {
    Key { name, holds, default, about }
}

const ON_ERROR: Holds = Holds::Word(&["drain", "cancel", "continue"]);
const FAILURE_LIST: Holds = Holds::List(&Holds::Word(FAILURES));
const IN_FLIGHT: Holds = Holds::Either(&[Holds::Count(1, 10_000), Holds::In(&IN_FLIGHT_LIMIT)]);

pub(crate) static SPEC: Section = Section {
    title: "Workflow",
    about: "The document itself. Keys that begin with `x-` are free, for anchors and notes.",
    one_of: &[],
    keys: &[
        key("version", Holds::Count(1, 1), "1", "The version of this format."),
        key(
            "project",
            Holds::Text,
            "required",
            "Names the job and its folder below `outputs/`: up to 64 letters, digits, `_`, `-` and `.`, not beginning with a `.`.",
        ),
        key(
            "inputs",
            Holds::Named(&Holds::Either(&[Holds::Word(INPUT_TYPES), Holds::In(&INPUT)])),
            "",
            "What the workflow takes, given with `--var name=value`: a declaration or only its type.",
        ),
        key(
            "models",
            Holds::Named(&Holds::Either(&[
                Holds::Text,
                Holds::In(&CANDIDATE),
                Holds::List(&Holds::In(&CANDIDATE)),
            ])),
            "",
            "Names for ordered lists of candidates; the next one is asked on the failures that it names. A text is the name of one model.",
        ),
        key(
            "provider",
            Holds::Text,
            "command line, `PROVIDER`, settings, then `local`",
            "The provider of candidates that name none.",
        ),
        key("limits", Holds::In(&LIMITS), "", "How much may happen at once, and for how long."),
        key(
            "budget",
            Holds::Either(&[Holds::Count(1, u64::MAX), Holds::In(&BUDGET)]),
            "",
            "Tokens of the whole job; a number is `tokens`.",
        ),
        key(
            "on_error",
            ON_ERROR,
            "drain",
            "What a failed step does to the rest: `drain` lets running steps finish and starts no further one, `cancel` ends them at once, `continue` goes on with whatever does not need it.",
        ),
        key(
            "steps",
            Holds::Named(&Holds::In(&STEP)),
            "required",
            "The steps by id: up to 100 letters, digits, `_` and `-`.",
        ),
    ],
};

pub(crate) const INPUT_TYPES: &[&str] = &["string", "integer", "number", "boolean", "json", "file", "files"];

pub(crate) static INPUT: Section = Section {
    title: "Input",
    about: "A declaration below `inputs`.",
    one_of: &[],
    keys: &[
        key(
            "type",
            Holds::Word(INPUT_TYPES),
            "string",
            "`file` reads the file that is named: `{path, text, sha256}`; `files` those that a pattern names: a list of them.",
        ),
        key("required", Holds::Flag, "true where there is no default", "Whether the job starts without it."),
        key("default", Holds::Any, "", "Its value where none is given."),
        key("description", Holds::Text, "", "For whoever gives it."),
    ],
};

pub(crate) static CANDIDATE: Section = Section {
    title: "Candidate",
    about: "One model at one provider, below `models`.",
    one_of: &[],
    keys: &[
        key("provider", Holds::Text, "the job's provider", "A provider's name."),
        key(
            "model",
            Holds::Text,
            "the input `model`, else the first that the provider lists",
            "The model's name at the provider.",
        ),
        key(
            "options",
            Holds::Named(&Holds::Any),
            "",
            "Passed on and part of the key: `temperature`, `top_p`, `seed`, `max_tokens`, `stop` …",
        ),
        key(
            "on",
            FAILURE_LIST,
            "timeout, connect, overloaded, circuit_open",
            "The failures of the candidate before it that lead here.",
        ),
    ],
};

pub(crate) static LIMITS: Section = Section {
    title: "Limits",
    about: "The key `limits` of the document.",
    one_of: &[],
    keys: &[
        key("steps", Holds::Count(1, 10_000), "4", "Steps at once. `--concurrency` goes before it."),
        key("wall", Holds::Span, "", "The whole job's time; what still runs then fails with `timeout`."),
        key("providers", Holds::Named(&IN_FLIGHT), "", "Requests in flight by provider."),
        key("models", Holds::Named(&IN_FLIGHT), "", "Requests in flight by model."),
        key(
            "pools",
            Holds::Named(&Holds::Count(1, 10_000)),
            "",
            "Places of pools of your own, of which steps name those that they take.",
        ),
    ],
};

pub(crate) static IN_FLIGHT_LIMIT: Section = Section {
    title: "Limit",
    about: "One provider or model below `limits`; a number means the same.",
    one_of: &[],
    keys: &[key("in_flight", Holds::Count(1, 10_000), "required", "Requests at once.")],
};

pub(crate) static BUDGET: Section = Section {
    title: "Budget",
    about: "The key `budget` of the document.",
    one_of: &[],
    keys: &[
        key(
            "tokens",
            Holds::Count(1, u64::MAX),
            "required",
            "Prompt and completion tokens. Answers from the cache cost nothing.",
        ),
        key(
            "on_exceed",
            Holds::Word(&["fail", "gate"]),
            "fail",
            "`gate`: the job waits at the gate `budget` until somebody decides `continue` or `stop`.",
        ),
    ],
};

/// The kinds of step, in the order of the reference.
pub(crate) static KINDS: [&str; 7] = ["llm", "run", "http", "gate", "workflow", "loop", "pass"];

pub(crate) static STEP: Section = Section {
    title: "Step",
    about: "Exactly one of `llm`, `run`, `http`, `gate`, `workflow`, `loop` and `pass`, and how it is done.",
    one_of: &KINDS,
    keys: &[
        key("llm", Holds::In(&LLM), "", "Asks a model."),
        key(
            "run",
            Holds::Either(&[Holds::List(&Holds::Template), Holds::In(&RUN)]),
            "",
            "Runs a program; a list is its `argv`.",
        ),
        key("http", Holds::In(&HTTP), "", "Asks an HTTP service."),
        key(
            "gate",
            Holds::Either(&[Holds::Template, Holds::In(&GATE)]),
            "",
            "Waits until somebody decides; holds no slot. A text is its `message`.",
        ),
        key(
            "workflow",
            Holds::Either(&[Holds::Text, Holds::In(&WORKFLOW)]),
            "",
            "Runs another workflow; a text is its `spec`.",
        ),
        key("loop", Holds::In(&LOOP), "", "Runs its body again and again until a decision holds."),
        key(
            "pass",
            Holds::Either(&[Holds::Nothing, Holds::Template, Holds::In(&PASS)]),
            "",
            "Makes a value. A text is its `value`; with nothing it only stands for its needs.",
        ),
        key(
            "needs",
            Holds::Either(&[Holds::Text, Holds::List(&Holds::Text)]),
            "",
            "Steps that come before this one, besides those that its templates and decisions name.",
        ),
        key(
            "when",
            Holds::Decision,
            "",
            "The step runs only if this holds; else it is skipped, and what needs it too. Of a `map` it is decided once, before the list.",
        ),
        key(
            "else",
            Holds::Value,
            "",
            "The output where the step is skipped by a condition, its own or one of a need.",
        ),
        key(
            "map",
            Holds::Either(&[Holds::Decision, Holds::In(&MAP)]),
            "",
            "Runs once for each element of a list; a text is `over`. The output is the list of outputs.",
        ),
        key(
            "samples",
            Holds::Count(1, 1000),
            "",
            "Runs so many times, with `sample` (from 0) in the key. The output is the list of outputs.",
        ),
        key(
            "retry",
            Holds::Either(&[Holds::Count(0, 100), Holds::In(&RETRY)]),
            "",
            "When a failed attempt is made again; a number is `max`.",
        ),
        key("timeout", Holds::Span, "600s", "Of one attempt."),
        key("deadline", Holds::Span, "", "Of all attempts and the waits between them."),
        key(
            "cache",
            Holds::Either(&[Holds::Flag, Holds::In(&CACHE)]),
            "true for `llm`, else false",
            "Whether a result may come from an earlier run.",
        ),
        key("on_error", ON_ERROR, "the document's", "What this step's failure does to the rest."),
        key(
            "limits",
            Holds::Either(&[Holds::Text, Holds::List(&Holds::Text)]),
            "",
            "Pools of `limits.pools` of which the step holds one place each while it runs.",
        ),
        key(
            "secrets",
            Holds::List(&Holds::Text),
            "",
            "Environment variables that the step's templates may read as `secrets.NAME`. Values stay out of keys, logs and the journal.",
        ),
        key(
            "effect",
            Holds::Word(&["none", "external"]),
            "none",
            "`external`: the step changes something out there. It is never repeated when its outcome is unknown.",
        ),
        key("files", Holds::List(&Holds::In(&FILE)), "", "Files that the step writes when it succeeds."),
        key("output", Holds::In(&OUTPUT), "", "What the output must look like."),
    ],
};

pub(crate) static LLM: Section = Section {
    title: "llm",
    about: "Asks a model. Exactly one of `prompt` and `messages`.",
    one_of: &["prompt", "messages"],
    keys: &[
        key("model", Holds::Text, "as of a candidate", "A name of `models`, or a model's own name."),
        key("provider", Holds::Text, "the job's provider", "Where `model` is a model's own name."),
        key("system", Holds::Template, "", "The system text, before `prompt`."),
        key("prompt", Holds::Template, "", "What is asked."),
        key("messages", Holds::List(&Holds::In(&MESSAGE)), "", "The whole conversation instead."),
        key("options", Holds::Named(&Holds::Any), "", "Go before those of each candidate."),
        key("output", Holds::In(&OUTPUT), "", "What the answer must look like."),
        key("tools", Holds::Any, "", "Tool definitions, passed on as they are."),
    ],
};

pub(crate) static MESSAGE: Section = Section {
    title: "Message",
    about: "One of `messages`.",
    one_of: &[],
    keys: &[
        key("role", Holds::Word(&["system", "user", "assistant"]), "required", "Who says it."),
        key("content", Holds::Template, "required", "What is said."),
    ],
};

pub(crate) static OUTPUT: Section = Section {
    title: "Output",
    about: "`output` of a step or inside of `llm`.",
    one_of: &[],
    keys: &[
        key(
            "schema",
            Holds::Schema,
            "",
            "Of `llm`: the JSON Schema that the answer must fit; the provider's own mode or a grammar helps it to.",
        ),
        key(
            "repair",
            Holds::Count(0, 10),
            "1",
            "Of `llm`: how often an answer that does not fit is sent back.",
        ),
        key("format", Holds::Word(FORMATS), "text", "Of `run` and `http`: how their text is read."),
    ],
};

const FORMATS: &[&str] = &["text", "json"];

pub(crate) static RUN: Section = Section {
    title: "run",
    about: "Runs a program in a folder of its own. Exit 0 is success, standard output the step's text.",
    one_of: &[],
    keys: &[
        key(
            "argv",
            Holds::List(&Holds::Template),
            "required",
            "Program and arguments, never a shell's line.",
        ),
        key("env", Holds::Named(&Holds::Template), "", "Variables on top of a small inherited environment."),
        key("stdin", Holds::Template, "", "What the program reads."),
        key("format", Holds::Word(FORMATS), "text", "`json`: standard output must be one JSON document."),
    ],
};

pub(crate) static HTTP: Section = Section {
    title: "http",
    about: "Asks a service. A status of 200 to 299 is success, the body the step's text.",
    one_of: &[],
    keys: &[
        key("url", Holds::Template, "required", "`http://` or `https://`."),
        key("method", Holds::Word(METHODS), "GET", "In capitals."),
        key("headers", Holds::Named(&Holds::Template), "", "Header fields."),
        key("body", Holds::Value, "", "A text is sent as it is, anything else as JSON."),
        key("format", Holds::Word(FORMATS), "text", "`json`: the body must be one JSON document."),
    ],
};

pub(crate) const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

pub(crate) static GATE: Section = Section {
    title: "gate",
    about: "Waits for `llama-orch decide`.",
    one_of: &[],
    keys: &[
        key("message", Holds::Template, "required", "What is to be decided."),
        key(
            "choices",
            Holds::List(&Holds::Text),
            "approve, reject",
            "1 to 20 words. `reject` fails the step, any other is its text.",
        ),
    ],
};

pub(crate) static WORKFLOW: Section = Section {
    title: "workflow",
    about: "Runs the steps of another workflow with inputs of its own, up to 16 within each other. The output is the JSON or text of each step by id, its text that of the last step.",
    one_of: &[],
    keys: &[
        key(
            "spec",
            Holds::Either(&[Holds::Text, Holds::In(&SPEC)]),
            "required",
            "A path, from the folder of the file that names it and not above that of the first; or the workflow itself.",
        ),
        key("inputs", Holds::Named(&Holds::Value), "", "Values for its inputs."),
    ],
};

pub(crate) static LOOP: Section = Section {
    title: "loop",
    about: "Its body sees `iteration` (from 1) and `previous`: `null` in the first iteration, then the JSON or text of each step of the one before, `previous.<id>`. The output is the same of the last iteration, its text that of the last step.",
    one_of: &[],
    keys: &[
        key(
            "max",
            Holds::Count(1, 1000),
            "required",
            "Iterations; the step fails where `until` never holds.",
        ),
        key("until", Holds::Decision, "required", "Sees the body's steps; decided after each iteration."),
        key(
            "body",
            Holds::Named(&Holds::In(&STEP)),
            "required",
            "Steps. They see each other and the steps outside.",
        ),
    ],
};

pub(crate) static PASS: Section = Section {
    title: "pass",
    about: "Makes a value without doing anything.",
    one_of: &[],
    keys: &[key("value", Holds::Value, "", "The output.")],
};

pub(crate) static MAP: Section = Section {
    title: "map",
    about: "Each element is seen as `item` (or what `as` says) and its position, from 0, as `index`.",
    one_of: &[],
    keys: &[
        key("over", Holds::Decision, "required", "A list."),
        key("as", Holds::Text, "item", "The element's name."),
        key("max", Holds::Count(1, 100_000), "1000", "More elements fail the step."),
    ],
};

pub(crate) static RETRY: Section = Section {
    title: "retry",
    about: "When a failed attempt is made again.",
    one_of: &[],
    keys: &[
        key("max", Holds::Count(0, 100), "2", "Further tries after the first."),
        key("base", Holds::Span, "1s", "The first wait; it doubles from try to try, with jitter."),
        key(
            "cap",
            Holds::Span,
            "30s",
            "The longest wait; a provider's `Retry-After` may be longer, up to an hour.",
        ),
        key("on", FAILURE_LIST, "connect, rate_limit, overloaded", "The failures that are tried again."),
    ],
};

pub(crate) static CACHE: Section = Section {
    title: "cache",
    about: "A key by another formula.",
    one_of: &[],
    keys: &[key("key", Holds::Word(&["seed-v2.1"]), "required", "The formula of Unified Orchestrator v2.1.")],
};

pub(crate) static FILE: Section = Section {
    title: "File",
    about: "One of `files`.",
    one_of: &[],
    keys: &[
        key("path", Holds::Template, "required", "Below `outputs/<project>/`; never out of it."),
        key(
            "from",
            Holds::Text,
            "output.text",
            "`output.text`, `output.code` (the first fenced block), `output.json` or a field of it (`output.files.main`), or `file:<path>` for what a program left in its folder.",
        ),
        key(
            "mode",
            Holds::Word(&["create_new", "overwrite", "append"]),
            "create_new",
            "`create_new` fails where there is a file with other content.",
        ),
    ],
};

/// The six keys of Unified Orchestrator v2.1, of which a document consists that has `task_description`.
pub(crate) static SIX_FIELDS: Section = Section {
    title: "SixFields",
    about: "The spec of Unified Orchestrator v2.1, which becomes architect → {builder, docs} → qa.",
    one_of: &[],
    keys: &[
        key("project", Holds::Text, "required", "As above."),
        key("task_description", Holds::Text, "required", "What to build; the default of the input `task`."),
        key("provider", Holds::Text, "as above", "As above."),
        key("concurrency", Holds::Count(1, 10_000), "4", "Steps at once."),
        key("timeout_s", Holds::Count(1, 31_536_000), "600", "Seconds of one attempt of each step."),
        key("output_dir", Holds::Text, "", "Not used: files lie in the run's folder."),
    ],
};
