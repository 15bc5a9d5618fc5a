//! Who an instance is, where its config does not say: its folder, the catalog database, or a new number.

use std::collections::BTreeSet;
use std::path::Path;

use orch_core::UnixMillis;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::KnownInstance;
use super::change::Changing;
use crate::LoadedInstance;
use crate::catalog::older_folder;

pub(super) struct Identities<'a> {
    known: &'a [KnownInstance],
    /// Numbers that configs have already, and those given away since.
    taken: BTreeSet<String>,
    /// Above every number that anybody has or had.
    next: u32,
    /// Uids that configs have already.
    uids: BTreeSet<Uuid>,
}

/// Numbers have eight digits.
const HIGHEST: u32 = 99_999_999;

impl<'a> Identities<'a> {
    pub(super) fn new<'b>(
        known: &'a [KnownInstance],
        configs: impl Iterator<Item = (&'b Path, &'b Map<String, Value>)>,
    ) -> Self {
        let (mut taken, mut uids) = (BTreeSet::new(), BTreeSet::new());
        let mut highest: Option<u32> = None;
        let mut see = |number: &str| highest = highest.max(number.parse().ok());
        for (path, document) in configs {
            if let Some(number) = document.get("instance_no").and_then(Value::as_str) {
                see(number);
                taken.insert(number.to_owned());
            }
            let uid = document.get("instance_uid").and_then(Value::as_str);
            uids.extend(uid.and_then(|uid| Uuid::parse_str(uid.trim()).ok()));
            if let Some((number, _)) = older_folder(path) {
                see(&number);
            }
        }
        known.iter().filter_map(|known| known.number.as_deref()).for_each(see);
        Self { known, taken, next: highest.unwrap_or(0).saturating_add(1), uids }
    }

    /// Fills in what the document lacks.
    pub(super) fn complete(&mut self, changing: &mut Changing, before: &LoadedInstance) {
        let folder = older_folder(&before.path);
        let known = self.known_of(before, folder.as_ref().map(|(_, uid)| *uid), changing);
        if changing.lacks("instance_uid") {
            let (of_folder, of_catalog) =
                (folder.as_ref().map(|(_, uid)| *uid), known.and_then(|known| known.uid));
            let offers =
                [(of_folder, "from the name of its folder"), (of_catalog, "from the catalog database")];
            // A copy of a config does not get the identity of its original.
            let offer = offers
                .into_iter()
                .find_map(|(uid, reason)| Some((uid?, reason)).filter(|(uid, _)| self.uids.insert(*uid)));
            let (uid, reason) = offer.unwrap_or((before.config.instance_uid, "every instance has one"));
            changing.set("instance_uid", &json!(uid), reason);
        }
        if changing.lacks("instance_no") {
            let (number, reason) = self.number(folder.map(|(number, _)| number), known);
            changing.set("instance_no", &json!(number), reason);
        }
        let Some(known) = known else { return };
        let shown =
            known.display_name.as_ref().filter(|shown| **shown != known.name).map(|shown| json!(shown));
        let facts = [
            ("display_name", shown),
            (
                "created_at",
                known
                    .created_at
                    .as_ref()
                    .filter(|at| UnixMillis::from_rfc3339(at).is_some())
                    .map(|at| json!(at)),
            ),
            ("sort_order", known.sort_order.map(|order| json!(order))),
        ];
        for (path, value) in facts.into_iter().filter(|(path, _)| changing.lacks(path)).collect::<Vec<_>>() {
            if let Some(value) = value {
                changing.set(path, &value, "from the catalog database");
            }
        }
    }

    /// The row of this instance: by its uid if it brings one, else by its name.
    fn known_of(
        &self,
        before: &LoadedInstance,
        folder_uid: Option<Uuid>,
        changing: &Changing,
    ) -> Option<&'a KnownInstance> {
        let own = (!changing.lacks("instance_uid")).then_some(before.config.instance_uid);
        let uid = own.or(folder_uid);
        let by_uid = self.known.iter().find(|known| uid.is_some() && known.uid == uid);
        by_uid.or_else(|| self.known.iter().find(|known| known.name == before.config.name.as_str()))
    }

    fn number(&mut self, folder: Option<String>, known: Option<&KnownInstance>) -> (String, &'static str) {
        let of_catalog = known.and_then(|known| known.number.clone());
        let offers = [(folder, "from the name of its folder"), (of_catalog, "from the catalog database")];
        for (offer, reason) in offers {
            if let Some(number) = offer.filter(|number| self.taken.insert(number.clone())) {
                return (number, reason);
            }
        }
        let text = |number: u32| format!("{number:08}");
        let free =
            (self.next..=HIGHEST).chain(1..=HIGHEST).find(|number| !self.taken.contains(&text(*number)));
        // Were all of them taken, the linter would tell of the double.
        let number = free.unwrap_or(HIGHEST);
        self.next = number.saturating_add(1);
        self.taken.insert(text(number));
        (text(number), "the next free number")
    }
}
