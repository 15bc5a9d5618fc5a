//! Starting points for new instances.

use orch_core::{ExitCode, Failure};
use serde_json::{Value, json};

use crate::Backend;

/// Fields that a new config gets besides what was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    pub name: &'static str,
    pub meaning: &'static str,
    /// What it computes on, where the template is about that.
    pub backend: Option<Backend>,
    fields: fn() -> Vec<(&'static str, Value)>,
}

impl Template {
    /// Field path and value.
    pub fn fields(&self) -> Vec<(&'static str, Value)> {
        (self.fields)()
    }
}

pub static TEMPLATES: &[Template] = &[
    Template {
        name: "chat",
        meaning: "one user, a longer context",
        backend: None,
        fields: || vec![("model.context_size", json!(8192))],
    },
    Template {
        name: "shared",
        meaning: "several users: four slots of 4096 tokens",
        backend: None,
        fields: || vec![("model.context_size", json!(16_384)), ("server.parallel", json!(4))],
    },
    Template {
        name: "embedding",
        meaning: "embeddings only; a whole text in one batch",
        backend: None,
        fields: || {
            vec![
                ("model.batch_size", json!(4096)),
                ("args", json!(["--embedding", "--ubatch-size", "4096"])),
                ("tags", json!(["embedding"])),
            ]
        },
    },
    Template {
        name: "rerank",
        meaning: "reranking only; a whole text in one batch",
        backend: None,
        fields: || {
            vec![
                ("model.batch_size", json!(4096)),
                ("args", json!(["--rerank", "--ubatch-size", "4096"])),
                ("tags", json!(["rerank"])),
            ]
        },
    },
    Template {
        name: "cpu",
        meaning: "on the processor, whatever GPU there is",
        backend: Some(Backend::Cpu),
        fields: Vec::new,
    },
    on_device("vulkan", "all layers on a Vulkan device", Backend::Vulkan),
    on_device("cuda", "all layers on an NVIDIA GPU", Backend::Cuda),
    on_device("metal", "all layers on an Apple GPU", Backend::Metal),
    on_device("hip", "all layers on an AMD GPU", Backend::Hip),
];

/// All layers on one kind of device, and prompts in larger steps, which a GPU needs to be busy.
const fn on_device(name: &'static str, meaning: &'static str, backend: Backend) -> Template {
    Template { name, meaning, backend: Some(backend), fields: || vec![("model.batch_size", json!(2048))] }
}

/// The template of a name; an unknown one is a usage error that lists them.
pub fn find_template(name: &str) -> Result<&'static Template, Failure> {
    TEMPLATES.iter().find(|template| template.name == name).ok_or_else(|| {
        let names = TEMPLATES.iter().map(|template| template.name).collect::<Vec<_>>().join(", ");
        Failure::new(ExitCode::Usage, format!("there is no template {name:?}"))
            .hint(format!("use one of {names}"))
    })
}
