//! The keys that are valid now, as the door asks for them: read by every request, replaced as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use control_store::KeyRow;
use gateway::{Caller, CallerFacts, Class, KeyLimits, Ledger, Quota};
use orch_core::{Priority, Scope};
use orch_runtime::{TokenDigest, TokenSet};
use pool_managerd::{Found, Keys};

use super::lent::Lent;

/// The keys of the moment. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct KeyRing {
    current: Arc<ArcSwap<Ring>>,
    pub(super) lent: Lent,
}

/// One state of it.
#[derive(Default)]
pub(super) struct Ring {
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    digest: TokenDigest,
    scopes: Arc<[Scope]>,
    caller: Caller,
}

impl Entry {
    fn found(&self) -> Found<Caller> {
        Found { scopes: Arc::clone(&self.scopes), holder: self.caller.clone() }
    }
}

impl KeyRing {
    /// Replaces all keys. One that was there before keeps what it has used.
    pub(super) fn replace(&self, tokens: &TokenSet, rows: Vec<KeyRow>, ledger: &Arc<dyn Ledger>) {
        let old = self.current.load();
        let known = |digest: &TokenDigest| {
            old.entries.iter().find(|entry| entry.digest.matches(digest)).map(|entry| entry.caller.clone())
        };
        let all: Arc<[Scope]> = Scope::ALL.into();
        let listed = tokens.iter().map(|token| {
            let digest = *token.digest();
            let caller =
                known(&digest).unwrap_or_else(|| Caller::operator(&format!("env:{}", digest.fingerprint())));
            Entry { digest, scopes: Arc::clone(&all), caller }
        });
        let made = rows.into_iter().map(|row| {
            let digest = TokenDigest::new(row.key.digest);
            let scopes = row.key.scopes.as_slice().into();
            Entry { digest, scopes, caller: known(&digest).unwrap_or_else(|| caller(row, ledger)) }
        });
        let entries = listed.chain(made).collect();
        self.current.store(Arc::new(Ring { entries }));
    }

    /// A ring of listed tokens.
    #[cfg(test)]
    pub(crate) fn of_tokens(list: &str) -> Self {
        let ring = Self::default();
        let ledger: Arc<dyn Ledger> = Arc::new(super::Spending::default());
        ring.replace(&TokenSet::parse(list).expect("tests write tokens that can be"), Vec::new(), &ledger);
        ring
    }

    /// The key of this id.
    pub(super) fn by_id(&self, id: &str) -> Option<Found<Caller>> {
        self.current.load().entries.iter().find(|entry| entry.caller.id == id).map(Entry::found)
    }

    /// How the keys appear in logs, with their names.
    pub(super) fn shown(&self) -> Vec<String> {
        let show = |entry: &Entry| {
            let name = entry.caller.name.as_deref().unwrap_or(&entry.caller.id);
            format!("{name} ({})", entry.digest.fingerprint())
        };
        self.current.load().entries.iter().map(show).collect()
    }
}

impl Keys for KeyRing {
    type Holder = Caller;

    fn is_empty(&self) -> bool {
        self.current.load().entries.is_empty()
    }

    /// All keys are compared, each in constant time.
    fn find(&self, presented: &[u8]) -> Option<Found<Caller>> {
        let presented = TokenDigest::of(presented);
        let ring = self.current.load();
        let found = ring
            .entries
            .iter()
            .fold(None, |found, entry| if entry.digest.matches(&presented) { Some(entry) } else { found });
        found.map(Entry::found).or_else(|| self.find_lent(&presented))
    }
}

fn caller(row: KeyRow, ledger: &Arc<dyn Ledger>) -> Caller {
    let key = row.key;
    let limits = KeyLimits { rpm: key.rpm, tpm: key.tpm, concurrency: key.concurrency, budget: key.budget };
    let quota = Quota::new(key.id.as_str().into(), limits, row.spent, Arc::clone(ledger));
    Caller::new(CallerFacts {
        id: key.id,
        name: Some(key.name),
        models: key.models,
        ceiling: key.priority.map(|priority| match priority {
            Priority::Interactive => Class::Interactive,
            Priority::Batch => Class::Batch,
        }),
        quota: Some(Arc::new(quota)),
        operator: key.scopes.contains(&Scope::Admin),
    })
}
