//! Providers of text for workflows: our own gateway, Ollama, OpenAI, Anthropic, MLX and whatever speaks OpenAI's
//! protocol, behind one port that streams.
