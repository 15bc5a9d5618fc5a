//! What an API key opens, and how urgent its requests may be.

use crate::state::named_states;
use serde::{Deserialize, Serialize};

named_states! {
    /// What a key opens.
    Scope {
        /// Requests that models answer.
        Infer = "infer",
        /// Looking at instances, events and figures.
        Read = "read",
        /// Everything: changes, keys, and the way around the gateway too.
        Admin = "admin",
        /// Joining as a node.
        Node = "node",
    }
}

named_states! {
    /// The most urgent class that a key's requests may have.
    Priority {
        /// Somebody waits for it.
        Interactive = "interactive",
        /// It can wait for those.
        Batch = "batch",
    }
}
