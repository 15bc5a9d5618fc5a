//! The keys of a home: made, listed and revoked in its store, and known to the door at once.

mod lent;
mod order;
mod ring;
mod spending;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_store::{ControlReader, ControlStore, KeyRow};
use gateway::Ledger;
use orch_api::{CreatedKey, KeyOrder, KeyView, RevokedKey};
use orch_core::{Failure, HomeLayout, UnixMillis};
use orch_runtime::{AuthSettings, Tasks, TokenSet, TokensFile};

pub(crate) use lent::{LOCAL, LentKey};
pub(crate) use ring::KeyRing;
use spending::Spending;

/// How often the store and the file of tokens are looked at for changes by others.
const LOOK_PACE: Duration = Duration::from_secs(1);

/// Every key of a home; nothing where it has no store yet.
pub fn stored_keys(home: &HomeLayout) -> Result<Vec<KeyView>, Failure> {
    let Some(reader) = ControlReader::open(&home.control_database())? else { return Ok(Vec::new()) };
    Ok(reader.keys()?.into_iter().map(order::view).collect())
}

/// Makes a key in a home whose daemon does not run; the next one will know it.
pub fn create_key(home: &HomeLayout, order: KeyOrder) -> Result<CreatedKey, Failure> {
    let (key, created) = order::make(order)?;
    ControlStore::open(&home.control_database())?.add_key(&key, UnixMillis::now())?;
    Ok(created)
}

/// Revokes a key in a home whose daemon does not run.
pub fn revoke_key(home: &HomeLayout, selector: &str) -> Result<RevokedKey, Failure> {
    revoke(&ControlStore::open(&home.control_database())?, selector)
}

fn revoke(store: &ControlStore, selector: &str) -> Result<RevokedKey, Failure> {
    let removed = store.remove_key(selector)?.key;
    Ok(RevokedKey { id: removed.id, name: removed.name, keys_left: store.keys()?.len() })
}

/// The keys of a running daemon. Clones share everything.
#[derive(Clone)]
pub(crate) struct KeyKeeper {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<ControlStore>,
    ring: KeyRing,
    spending: Arc<Spending>,
    tokens_file: Option<TokensFile>,
    /// What the ring was last made of. Held while it is replaced, so that no older state overwrites a newer one.
    seen: Mutex<Seen>,
}

struct Seen {
    tokens: TokenSet,
    rows: Vec<KeyRow>,
    changes: Option<i64>,
    /// What was last wrong with the file of tokens; told once.
    trouble: Option<String>,
}

impl KeyKeeper {
    /// Reads all keys. A store that cannot be read is a reason not to start: nobody would be asked for a key.
    pub(crate) fn open(store: Arc<ControlStore>, auth: &AuthSettings) -> Result<Self, Failure> {
        let seen = Seen { tokens: auth.tokens.clone(), rows: Vec::new(), changes: None, trouble: None };
        let inner = Inner {
            store,
            ring: KeyRing::default(),
            spending: Arc::default(),
            tokens_file: auth.tokens_file.clone(),
            seen: Mutex::new(seen),
        };
        let keeper = Self { inner: Arc::new(inner) };
        keeper.reload()?;
        Ok(keeper)
    }

    /// What the door asks.
    pub(crate) fn ring(&self) -> KeyRing {
        self.inner.ring.clone()
    }

    /// Whether there are keys in the store.
    pub(crate) fn has_stored(&self) -> bool {
        !self.inner.lock().rows.is_empty()
    }

    pub(crate) fn list(&self) -> Result<Vec<KeyView>, Failure> {
        self.write_spending();
        Ok(self.inner.store.keys()?.into_iter().map(order::view).collect())
    }

    /// Makes a key; when this returns, it is valid.
    pub(crate) fn create(&self, order: KeyOrder) -> Result<CreatedKey, Failure> {
        let (key, created) = order::make(order)?;
        self.inner.store.add_key(&key, UnixMillis::now())?;
        self.reload()?;
        tracing::info!(id = created.id, name = created.name, "a key was made; every request needs one now");
        Ok(created)
    }

    /// Revokes a key; when this returns, it opens nothing any more.
    pub(crate) fn revoke(&self, selector: &str) -> Result<RevokedKey, Failure> {
        let revoked = revoke(&self.inner.store, selector)?;
        self.reload()?;
        tracing::info!(id = revoked.id, name = revoked.name, left = revoked.keys_left, "a key was revoked");
        Ok(revoked)
    }

    /// Keeps up with what others change, and writes down what keys use.
    pub(crate) fn keep(&self, tasks: &Tasks) {
        let (spending, store) = (Arc::clone(&self.inner.spending), Arc::clone(&self.inner.store));
        tasks.spawn("spending", spending::write_forever(spending, store, tasks.clone()));
        tasks.spawn("key-watch", watch(self.clone(), tasks.clone()));
    }

    /// Writes down what has been used and is not written yet.
    pub(crate) fn write_spending(&self) {
        if let Err(error) = self.inner.spending.write(&self.inner.store) {
            tracing::warn!(%error, "what keys use cannot be written down");
        }
    }

    fn reload(&self) -> Result<(), Failure> {
        let mut seen = self.inner.lock();
        seen.changes = Some(self.inner.store.changes()?);
        seen.rows = self.inner.store.keys()?;
        self.inner.replace(&seen);
        Ok(())
    }

    /// Looks whether somebody else has changed the store or the file of tokens.
    fn look(&self) -> Result<(), Failure> {
        let mut seen = self.inner.lock();
        let changes = self.inner.store.changes()?;
        let mut changed = self.inner.read_tokens(&mut seen);
        if seen.changes != Some(changes) {
            let rows = self.inner.store.keys()?;
            let ids = |rows: &[KeyRow]| rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>();
            changed |= ids(&rows) != ids(&seen.rows);
            (seen.rows, seen.changes) = (rows, Some(changes));
        }
        if changed {
            self.inner.replace(&seen);
            tracing::info!(keys = ?self.inner.ring.shown(), "the keys have changed");
        }
        Ok(())
    }
}

impl Inner {
    fn replace(&self, seen: &Seen) {
        let ledger: Arc<dyn Ledger> = self.spending.clone();
        self.ring.replace(&seen.tokens, seen.rows.clone(), &ledger);
    }

    /// A file that cannot be used changes nothing: the keys that it had stay valid, and that is told.
    fn read_tokens(&self, seen: &mut Seen) -> bool {
        let Some(file) = &self.tokens_file else { return false };
        match file.read() {
            Ok(tokens) => {
                seen.trouble = None;
                let same = tokens
                    .iter()
                    .map(|it| it.digest().bytes())
                    .eq(seen.tokens.iter().map(|it| it.digest().bytes()));
                seen.tokens = tokens;
                !same
            }
            Err(why) => {
                if seen.trouble.as_ref() != Some(&why) {
                    let path = file.path().display();
                    tracing::warn!("the file of tokens {path} {why}; the tokens that it had stay valid");
                }
                seen.trouble = Some(why);
                false
            }
        }
    }

    /// What was seen is replaced as a whole, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch(keeper: KeyKeeper, owner: Tasks) {
    let ends = owner.token();
    let mut in_trouble = false;
    loop {
        tokio::select! {
            () = ends.cancelled() => return,
            () = tokio::time::sleep(LOOK_PACE) => {}
        }
        let looker = keeper.clone();
        let Ok(looked) = owner.spawn_blocking("key-watch", move || looker.look()).await else { return };
        if let (Err(failure), false) = (&looked, in_trouble) {
            tracing::warn!(%failure, "the keys cannot be looked at now; those that were known stay valid");
        }
        in_trouble = looked.is_err();
    }
}
