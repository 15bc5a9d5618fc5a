//! The model list, in which several dialects are mixed.

use serde_json::json;

use crate::connection::Answer;
use crate::engine::Engine;

pub(crate) fn models(engine: &Engine) -> Answer {
    let name = &engine.options.alias;
    let context = engine.options.context / engine.options.slots as u64;
    let body = json!({
        "models": [{
            "name": name, "model": name, "modified_at": "", "size": "", "digest": "", "type": "model",
            "description": "", "tags": [""], "capabilities": ["completion"], "parameters": "",
            "details": {"parent_model": "", "format": "gguf", "family": "", "families": [""],
                        "parameter_size": "", "quantization_level": ""},
        }],
        "object": "list",
        "data": [{
            "id": name, "aliases": [name], "tags": [], "object": "model",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "created": orch_core::UnixMillis::now().0 / 1000, "owned_by": "llamacpp",
            "meta": {"vocab_type": 1, "n_vocab": 354, "n_ctx": context, "n_ctx_train": 2048, "n_embd": 64,
                     "n_params": 127_552, "size": 510_208, "ftype": "all F32"},
        }],
    });
    Answer::json(200, &body)
}
