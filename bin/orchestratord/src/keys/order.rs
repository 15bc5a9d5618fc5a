//! A key that somebody wants, made: the secret for its owner, the digest for the store.

use control_store::{KeyRow, NewKey};
use orch_api::{CreatedKey, KeyOrder, KeyView};
use orch_core::{ExitCode, Failure, Scope};
use orch_runtime::Token;

/// By which people and scanners of leaked secrets know what they found.
const PREFIX: &str = "llo_";
const ID_PREFIX: &str = "key-";
/// Bytes of the secret's digest that make a key's id.
const ID_BYTES: usize = 6;
const LONGEST_NAME: usize = 64;
const LONGEST_MODEL: usize = 256;
const MOST_MODELS: usize = 256;
/// Far above what anybody uses, and exact in JSON everywhere.
const MOST_TOKENS: u64 = 1_000_000_000_000_000;

/// Makes a key, if what is wanted can be.
pub(super) fn make(order: KeyOrder) -> Result<(NewKey, CreatedKey), Failure> {
    check(&order)?;
    let token = Token::generate_with(PREFIX)
        .map_err(|error| Failure::new(ExitCode::General, format!("no randomness: {error}")))?;
    let digest = *token.digest().bytes();
    let id = format!("{ID_PREFIX}{}", hex::encode(&digest[..ID_BYTES]));
    let key = NewKey {
        name: order.name.unwrap_or_else(|| id.clone()),
        id,
        digest,
        scopes: if order.scopes.is_empty() { vec![Scope::Infer] } else { each_once(&order.scopes) },
        models: order.models,
        rpm: order.rpm,
        tpm: order.tpm,
        concurrency: order.concurrency,
        budget: order.budget,
        priority: order.priority,
    };
    let created = CreatedKey {
        id: key.id.clone(),
        name: key.name.clone(),
        token: token.secret().to_owned(),
        scopes: key.scopes.clone(),
    };
    Ok((key, created))
}

fn check(order: &KeyOrder) -> Result<(), Failure> {
    let bad = |what: &str, why: &str| Err(Failure::new(ExitCode::Usage, format!("{what} {why}")));
    let is_text = |text: &str, longest| {
        !text.trim().is_empty() && text.chars().count() <= longest && !text.contains(char::is_control)
    };
    if let Some(name) = &order.name
        && (!is_text(name, LONGEST_NAME) || name.starts_with(ID_PREFIX))
    {
        let why =
            format!("has 1 to {LONGEST_NAME} visible characters and does not begin like an id ({ID_PREFIX})");
        return bad("a key's name", &why);
    }
    if let Some(models) = &order.models
        && (models.is_empty()
            || models.len() > MOST_MODELS
            || !models.iter().all(|it| is_text(it, LONGEST_MODEL)))
    {
        return bad("the models of a key", &format!("are 1 to {MOST_MODELS} names; leave them out for all"));
    }
    let numbers = [
        ("rpm", order.rpm.map(u64::from)),
        ("tpm", order.tpm),
        ("concurrency", order.concurrency.map(u64::from)),
        ("budget", order.budget),
    ];
    for (what, number) in numbers {
        if number.is_some_and(|number| number == 0 || number > MOST_TOKENS) {
            return bad(what, &format!("has to be from 1 to {MOST_TOKENS}; leave it out for no limit"));
        }
    }
    Ok(())
}

/// A key as it is listed.
pub(super) fn view(row: KeyRow) -> KeyView {
    let NewKey { id, name, digest: _, scopes, models, rpm, tpm, concurrency, budget, priority } = row.key;
    KeyView {
        id,
        name,
        scopes,
        models,
        rpm,
        tpm,
        concurrency,
        budget,
        priority,
        spent: row.spent,
        created_at: row.created_at.to_rfc3339(),
        last_used_at: row.last_used_at.map(|at| at.to_rfc3339()),
    }
}

fn each_once(scopes: &[Scope]) -> Vec<Scope> {
    Scope::ALL.iter().copied().filter(|scope| scopes.contains(scope)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_random_known_by_its_digest_and_opens_inference_unless_told_otherwise() {
        let (key, created) = make(KeyOrder::default()).unwrap();
        let (other, _) = make(KeyOrder::default()).unwrap();
        assert_ne!(key.digest, other.digest);
        assert_eq!(&key.digest, Token::new(&created.token).unwrap().digest().bytes());
        assert_eq!((created.token.len(), created.token.starts_with(PREFIX)), (4 + 64, true));
        assert_eq!((&key.name, &key.scopes), (&key.id, &vec![Scope::Infer]));
        assert!(!format!("{created:?}").contains(&created.token));
    }

    #[test]
    fn scopes_are_kept_once_each() {
        let scopes = vec![Scope::Read, Scope::Infer, Scope::Read];
        let (key, _) = make(KeyOrder { scopes, ..KeyOrder::default() }).unwrap();
        assert_eq!(key.scopes, [Scope::Infer, Scope::Read]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let names = ["", " ", "a\nb", "key-123", &"n".repeat(65)]
            .map(|name| KeyOrder { name: Some(name.to_owned()), ..KeyOrder::default() });
        let models = [vec![], vec![String::new()], vec!["m".to_owned(); 257]]
            .map(|models| KeyOrder { models: Some(models), ..KeyOrder::default() });
        let numbers = [
            KeyOrder { rpm: Some(0), ..KeyOrder::default() },
            KeyOrder { tpm: Some(0), ..KeyOrder::default() },
            KeyOrder { concurrency: Some(0), ..KeyOrder::default() },
            KeyOrder { budget: Some(u64::MAX), ..KeyOrder::default() },
        ];
        for order in names.into_iter().chain(models).chain(numbers) {
            let shown = format!("{order:?}");
            assert_eq!(make(order).unwrap_err().exit, ExitCode::Usage, "{shown}");
        }
    }
}
