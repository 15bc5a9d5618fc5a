//! `token`.

use clap::{Args, Subcommand};
use orch_api::KeyOrder;
use orch_core::{Priority, Scope};

use super::parsers::{priority, scope};

#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Make a key and show it, once; from the first key on every request needs one
    Create(TokenArguments),
    /// List keys with what they may do and have used; never the keys themselves
    List,
    /// Make a key useless, at once
    Revoke {
        /// Key: id or name
        key: String,
    },
}

#[derive(Debug, Args)]
pub struct TokenArguments {
    /// What you call it [default: its id]
    #[arg(long)]
    pub name: Option<String>,
    /// What it opens, separated by commas: infer, read, admin, node
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', default_value = "infer", value_parser = scope)]
    pub scope: Vec<Scope>,
    /// The models it may ask for, separated by commas [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub models: Option<Vec<String>>,
    /// Requests a minute
    #[arg(long, value_name = "N")]
    pub rpm: Option<u32>,
    /// Tokens a minute, of prompts and answers
    #[arg(long, value_name = "N")]
    pub tpm: Option<u64>,
    /// Requests at a time
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u32>,
    /// Tokens in its life
    #[arg(long, value_name = "N")]
    pub budget: Option<u64>,
    /// The most urgent class of its requests: interactive or batch
    #[arg(long, value_name = "CLASS", value_parser = priority)]
    pub priority: Option<Priority>,
}

impl TokenArguments {
    pub(crate) fn order(self) -> KeyOrder {
        KeyOrder {
            name: self.name,
            scopes: self.scope,
            models: self.models,
            rpm: self.rpm,
            tpm: self.tpm,
            concurrency: self.concurrency,
            budget: self.budget,
            priority: self.priority,
        }
    }
}
