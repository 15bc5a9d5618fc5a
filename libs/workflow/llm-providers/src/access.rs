//! Where a provider is and what it has to be shown.

use std::fmt;
use std::sync::Arc;

use workflow::CallFailure;

/// A secret that a provider has to be shown. It can be sent, and not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// `None` where there is nothing but white space.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Where to send requests, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub base_url: String,
    pub token: Option<Token>,
}

/// Finds the way to a provider. Asked before the first request, and again when the last one failed.
pub(crate) type FindAccess = Arc<dyn Fn() -> Result<Access, CallFailure> + Send + Sync>;
