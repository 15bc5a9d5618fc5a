//! Starting points for new instances.

use orch_core::{ExitCode, Failure};
use serde_json::{Value, json};

/// Fields that a new config gets besides what was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    pub name: &'static str,
    pub meaning: &'static str,
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
        fields: || vec![("model.context_size", json!(8192))],
    },
    Template {
        name: "shared",
        meaning: "several users: four slots of 4096 tokens",
        fields: || vec![("model.context_size", json!(16_384)), ("server.parallel", json!(4))],
    },
    Template {
        name: "embedding",
        meaning: "embeddings only; a whole text in one batch",
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
        fields: || {
            vec![
                ("model.batch_size", json!(4096)),
                ("args", json!(["--rerank", "--ubatch-size", "4096"])),
                ("tags", json!(["rerank"])),
            ]
        },
    },
];

/// The template of a name; an unknown one is a usage error that lists them.
pub fn find_template(name: &str) -> Result<&'static Template, Failure> {
    TEMPLATES.iter().find(|template| template.name == name).ok_or_else(|| {
        let names = TEMPLATES.iter().map(|template| template.name).collect::<Vec<_>>().join(", ");
        Failure::new(ExitCode::Usage, format!("there is no template {name:?}"))
            .hint(format!("use one of {names}"))
    })
}
