//! Keys that this daemon lends to what it runs for somebody: their requests count as that somebody's, within the same
//! limits, and end with the key that they were submitted with.

use std::sync::{Arc, Mutex, PoisonError};

use gateway::Caller;
use orch_core::{ExitCode, Failure, Scope};
use orch_runtime::{Token, TokenDigest};
use pool_managerd::Found;

use super::KeyRing;

/// How the commands of this home are called in the request log, and as owners of what they submit.
pub(crate) const LOCAL: &str = "local";

/// What is lent now. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Lent {
    entries: Arc<Mutex<Vec<Entry>>>,
}

struct Entry {
    digest: TokenDigest,
    owner: String,
}

/// A key that is valid as long as this is held, and as long as its owner's is.
pub(crate) struct LentKey {
    token: Token,
    lent: Lent,
}

impl Lent {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whose the key is that is presented. All are compared, each in constant time.
    pub(super) fn owner_of(&self, presented: &TokenDigest) -> Option<String> {
        let matching = |found, entry: &Entry| {
            if entry.digest.matches(presented) { Some(entry.owner.clone()) } else { found }
        };
        self.with(|entries| entries.iter().fold(None, matching))
    }
}

impl LentKey {
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }
}

impl Drop for LentKey {
    fn drop(&mut self) {
        self.lent.with(|entries| entries.retain(|entry| !entry.digest.matches(self.token.digest())));
    }
}

impl KeyRing {
    /// A key with which somebody's requests are made in their name: it infers, and nothing else.
    pub(crate) fn lend(&self, owner: &str) -> Result<LentKey, Failure> {
        let token = Token::generate()
            .map_err(|error| Failure::new(ExitCode::General, format!("no randomness: {error}")))?;
        let entry = Entry { digest: *token.digest(), owner: owner.to_owned() };
        self.lent.with(|entries| entries.push(entry));
        Ok(LentKey { token, lent: self.lent.clone() })
    }

    /// Who has submitted something and what they may do now; nobody where their key is gone.
    pub(crate) fn owner(&self, id: &str) -> Option<Found<Caller>> {
        if id == LOCAL {
            return Some(Found { scopes: Scope::ALL.into(), holder: Caller::operator(LOCAL) });
        }
        self.by_id(id)
    }

    /// What a lent key opens.
    pub(super) fn find_lent(&self, presented: &TokenDigest) -> Option<Found<Caller>> {
        let owner = self.owner(&self.lent.owner_of(presented)?)?;
        let infers = owner.scopes.iter().any(|scope| matches!(scope, Scope::Infer | Scope::Admin));
        infers.then(|| Found { scopes: [Scope::Infer].into(), holder: owner.holder })
    }
}

#[cfg(test)]
mod tests {
    use pool_managerd::Keys;

    use super::*;

    const TOKEN: &str = "key-of-a-user-0123456789";

    #[test]
    fn a_lent_key_is_its_owners_infers_only_and_ends_with_either() {
        let ring = KeyRing::of_tokens(TOKEN);
        let owner = ring.find(TOKEN.as_bytes()).unwrap().holder.id.clone();
        let lent = ring.lend(&owner).unwrap();
        let secret = lent.token().secret().to_owned();
        let found = ring.find(secret.as_bytes()).unwrap();
        assert_eq!((found.holder.id.as_str(), &*found.scopes), (owner.as_str(), [Scope::Infer].as_slice()));
        drop(lent);
        assert!(ring.find(secret.as_bytes()).is_none(), "given back");

        let orphan = ring.lend("key-that-was-revoked").unwrap();
        assert!(ring.find(orphan.token().secret().as_bytes()).is_none());
        assert!(ring.owner("key-that-was-revoked").is_none());
    }

    #[test]
    fn what_commands_of_the_home_submit_is_theirs_and_opens_no_closed_door_by_itself() {
        let ring = KeyRing::default();
        let lent = ring.lend(LOCAL).unwrap();
        assert!(ring.is_empty(), "a home without keys stays open");
        assert_eq!(ring.find(lent.token().secret().as_bytes()).unwrap().holder.id, LOCAL);
    }
}
