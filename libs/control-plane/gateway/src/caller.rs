//! Who asks: what the door in front of the gateway found out from the key.

use std::sync::{Arc, LazyLock};

use http::HeaderMap;

use crate::facts::Class;
use crate::quota::Quota;

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
    /// What it may use, and what it has used; `None` = as much as it likes, and nobody counts.
    pub quota: Option<Arc<Quota>>,
    /// Whether it may look after what others have submitted.
    pub operator: bool,
}

impl Caller {
    /// A caller of whom everything is known.
    pub fn new(facts: CallerFacts) -> Self {
        Self(Arc::new(facts))
    }

    /// Somebody without bounds, under this name: nobody asked for a key, or the key has none.
    pub fn unbounded(id: &str) -> Self {
        Self::new(CallerFacts::unbounded(id, false))
    }

    /// The same for one that may look after what others have submitted.
    pub fn operator(id: &str) -> Self {
        Self::new(CallerFacts::unbounded(id, true))
    }

    /// Whether it may see and cancel what the caller of this id has submitted.
    pub fn may_look_after(&self, owner: &str) -> bool {
        self.operator || self.id == owner
    }

    /// Whether it may have an instance under the name that it asked for. One that may ask for an instance may do so
    /// under all its names; one that may ask for an alias gets whatever stands behind it.
    pub(crate) fn may_ask(&self, asked: &str, instance: &str) -> bool {
        let Some(models) = &self.models else { return true };
        let name = asked.rsplit_once('@').map_or(asked, |(name, _)| name);
        models.iter().any(|allowed| [asked, name, instance].contains(&allowed.as_str()))
    }

    /// The class that a request gets which asks for `class`: not above the ceiling.
    pub(crate) fn class_of(&self, class: Class) -> Class {
        // The order is that of service: the greater waits longer.
        self.ceiling.map_or(class, |ceiling| class.max(ceiling))
    }

    /// Where its key stands now, for a client that paces itself.
    pub(crate) fn tell_limits(&self, headers: &mut HeaderMap) {
        if let Some(quota) = &self.quota {
            quota.tell(headers);
        }
    }
}

impl CallerFacts {
    fn unbounded(id: &str, operator: bool) -> Self {
        Self { id: id.to_owned(), name: None, models: None, ceiling: None, quota: None, operator }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(models: &[&str], ceiling: Option<Class>) -> Caller {
        let models = Some(models.iter().map(|&model| model.to_owned()).collect());
        Caller::new(CallerFacts { models, ceiling, ..CallerFacts::unbounded("key-1", false) })
    }

    #[test]
    fn what_somebody_has_submitted_is_theirs_and_the_operators() {
        let own = caller(&[], None);
        assert!(own.may_look_after("key-1") && !own.may_look_after("key-2"));
        assert!(Caller::operator("local").may_look_after("key-2"));
        assert!(!Caller::default().may_look_after("key-2"));
    }

    #[test]
    fn an_instance_that_is_allowed_is_so_under_all_its_names_and_an_alias_only_itself() {
        let caller = caller(&["chat", "gpt"], None);
        for (asked, instance) in
            [("chat", "chat"), ("nick", "chat"), ("gpt", "other"), ("gpt@node-1", "other")]
        {
            assert!(caller.may_ask(asked, instance), "{asked} of {instance}");
        }
        for (asked, instance) in [("other", "other"), ("nick", "other"), ("chat2", "chat2"), ("", "other")] {
            assert!(!caller.may_ask(asked, instance), "{asked} of {instance}");
        }
        assert!(Caller::default().may_ask("anything", "at-all"));
    }

    #[test]
    fn a_ceiling_lowers_and_never_raises() {
        for class in Class::ALL {
            assert_eq!(Caller::default().class_of(class), class);
            assert_eq!(caller(&[], Some(Class::Interactive)).class_of(class), class);
            assert_eq!(caller(&[], Some(Class::Batch)).class_of(class), Class::Batch);
        }
    }
}
