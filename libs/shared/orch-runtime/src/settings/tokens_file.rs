//! `auth.tokens_file`: read again while a daemon runs, so that keys are changed without a restart.

use std::path::{Path, PathBuf};

use super::read_bounded;
use crate::token::TokenSet;

/// Where tokens are listed, one a line, besides those of the environment.
#[derive(Clone, Debug)]
pub struct TokensFile {
    pub(super) path: PathBuf,
    /// Those of `LLORCH_API_TOKEN`, which stay valid.
    pub(super) environment: TokenSet,
}

impl TokensFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that are valid as the file is now; else what is wrong with it, as the end of a sentence about the file.
    pub fn read(&self) -> Result<TokenSet, String> {
        let text = match read_bounded(&self.path) {
            Ok(Some(text)) => text,
            Ok(None) => return Err("cannot be used: it does not exist".to_owned()),
            Err(error) => return Err(format!("cannot be used: {error}")),
        };
        let listed = TokenSet::parse(&text).map_err(|error| format!("cannot be used: {error}"))?;
        if listed.is_empty() {
            return Err("holds no token".to_owned());
        }
        let mut tokens = self.environment.clone();
        tokens.extend(listed.iter().cloned());
        Ok(tokens)
    }
}
