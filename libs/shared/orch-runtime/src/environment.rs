//! Every environment variable the product reads, each once.

/// One variable, for help texts and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: &'static str,
    pub meaning: &'static str,
}

macro_rules! variables {
    ($($constant:ident = $name:literal, $meaning:literal;)+) => {
        $(#[doc = $meaning] pub const $constant: &str = $name;)+

        /// Every variable, in the order of the documentation.
        pub const ALL: &[Variable] = &[$(Variable { name: $name, meaning: $meaning },)+];
    };
}

variables! {
    HOME = "LLAMA_ORCH_HOME", "the home folder";
    LOG = "LLAMA_ORCH_LOG", "log filter, as `info` or `gateway=debug,info`";
    CLIENT_TOKEN = "LLAMA_ORCH_TOKEN", "bearer token the command line sends";
    API_TOKEN = "LLORCH_API_TOKEN", "bearer tokens both daemons accept, separated by commas; the first is the one sent";
    ENGINE = "LLAMA_SERVER", "the llama-server executable to use";
    ORCHESTRATORD_ADDR = "ORCHESTRATORD_ADDR", "address the control plane listens on";
    ORCHESTRATORD_CLOUD_PROFILE = "ORCHESTRATORD_CLOUD_PROFILE", "whether nodes join over the network";
    ORCHESTRATORD_NODE_TIMEOUT_MS = "ORCHESTRATORD_NODE_TIMEOUT_MS", "milliseconds without a heartbeat after which a node is offline";
    ORCHESTRATORD_PLACEMENT_STRATEGY = "ORCHESTRATORD_PLACEMENT_STRATEGY", "how a replica is chosen";
    ORCHESTRATORD_STORE = "ORCHESTRATORD_STORE", "where the control plane keeps its records";
    ORCHESTRATORD_URL = "ORCHESTRATORD_URL", "the control plane that commands and nodes talk to";
    POOL_MANAGERD_ADDR = "POOL_MANAGERD_ADDR", "address the node listens on";
    POOL_MANAGERD_NODE_ID = "POOL_MANAGERD_NODE_ID", "the node's name";
    POOL_MANAGERD_ADVERTISE = "POOL_MANAGERD_ADVERTISE", "URL under which control planes reach the node";
    POOL_MANAGERD_HEARTBEAT_INTERVAL_MS = "POOL_MANAGERD_HEARTBEAT_INTERVAL_MS", "milliseconds between heartbeats";
    HF_TOKEN = "HF_TOKEN", "token for downloads from Hugging Face";
    HF_ENDPOINT = "HF_ENDPOINT", "Hugging Face mirror to download from";
    GITHUB_TOKEN = "GITHUB_TOKEN", "token for downloads from GitHub";
    PROVIDER = "PROVIDER", "whom workflows ask that name no provider";
    OPENAI_API_KEY = "OPENAI_API_KEY", "key of the provider `openai` of workflows";
    OPENAI_BASE_URL = "OPENAI_BASE_URL", "address of the provider `openai`";
    ANTHROPIC_API_KEY = "ANTHROPIC_API_KEY", "key of the provider `anthropic`";
    ANTHROPIC_BASE_URL = "ANTHROPIC_BASE_URL", "address of the provider `anthropic`";
    OLLAMA_HOST = "OLLAMA_HOST", "where the provider `ollama` listens, as Ollama itself reads it";
    MLX_BASE_URL = "MLX_BASE_URL", "address of the provider `mlx`";
    NO_COLOR = "NO_COLOR", "when set, nothing is coloured";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_listed_once() {
        let mut names: Vec<_> = ALL.iter().map(|variable| variable.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
