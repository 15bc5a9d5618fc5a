//! What `/ready` admits to while it still says yes, gathered from those who notice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use gateway::Gateway;

/// The conditions of one daemon. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Conditions {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    degraded: BTreeSet<&'static str>,
    gateway: Option<Gateway>,
}

impl Conditions {
    /// From here on the gateway tells them.
    pub(crate) fn report_to(&self, gateway: Gateway) {
        self.change(|inner| inner.gateway = Some(gateway));
    }

    /// Who notices a trouble tells it through this: whether it is there.
    pub(crate) fn teller(&self, reason: &'static str) -> impl Fn(bool) + Send + Sync + 'static {
        let conditions = self.clone();
        move |troubled| {
            conditions.change(|inner| {
                if troubled {
                    inner.degraded.insert(reason);
                } else {
                    inner.degraded.remove(reason);
                }
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut inner);
        if let Some(gateway) = &inner.gateway {
            gateway.set_degraded(inner.degraded.iter().map(|&reason| reason.to_owned()).collect());
        }
    }
}
