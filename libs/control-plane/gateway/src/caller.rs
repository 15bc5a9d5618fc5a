//! Who asks: what the door in front of the gateway found out from the key.

use std::sync::{Arc, LazyLock};

use crate::facts::Class;

/// The owner of a request. The door puts one into the request's extensions; without one it is anyone's.
#[derive(Clone, Debug)]
pub struct Caller(Arc<CallerFacts>);

/// What is known of a caller.
#[derive(Clone, Debug)]
pub struct CallerFacts {
    /// Names the key in the request log and keeps fairness between keys: a key's id, or a word for those without.
    pub id: String,
    /// What its owner called the key.
    pub name: Option<String>,
    /// Names that it may ask for; `None` = all.
    pub models: Option<Vec<String>>,
    /// The best class that its requests may have.
    pub ceiling: Option<Class>,
    pub limits: KeyLimits,
}

/// Bounds on the use of one key; `None` = unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests a minute.
    pub rpm: Option<u32>,
    /// Tokens a minute, prompt and answer together.
    pub tpm: Option<u64>,
    /// Requests at one time.
    pub concurrency: Option<u32>,
    /// Tokens in all.
    pub budget: Option<u64>,
}

impl Caller {
    /// A caller of whom everything is known.
    pub fn new(facts: CallerFacts) -> Self {
        Self(Arc::new(facts))
    }

    /// Somebody without bounds, under this name: nobody asked for a key, or the key has none.
    pub fn unbounded(id: &str) -> Self {
        let limits = KeyLimits::default();
        Self::new(CallerFacts { id: id.to_owned(), name: None, models: None, ceiling: None, limits })
    }
}

impl Default for Caller {
    /// Whoever comes to an open home.
    fn default() -> Self {
        // One for all: most requests of an open home have it.
        static ANYONE: LazyLock<Caller> = LazyLock::new(|| Caller::unbounded("anyone"));
        ANYONE.clone()
    }
}

impl std::ops::Deref for Caller {
    type Target = CallerFacts;

    fn deref(&self) -> &CallerFacts {
        &self.0
    }
}
