//! What the jobs of a daemon are run with: providers in their submitter's name, programs, services, engines.

use std::net::SocketAddr;
use std::sync::Arc;

use llm_providers::{Access, ProviderSetting, Reach, Token};
use orch_api::JobJournal;
use orch_core::{Failure, Scope};
use orch_runtime::Settings;
use workflow::{JobOptions, Ports, Serving, Store};
use workflow_spec::JobSpec;

use super::compose::{ProviderBook, Variables};
use super::permissions::Rights;
use crate::keys::{KeyRing, LentKey};

/// Everything that a job needs beside its spec.
pub(crate) struct Kit {
    pub(crate) store: Arc<Store>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) variables: Variables,
    pub(crate) keys: KeyRing,
    /// Where this daemon itself is reached from this machine.
    pub(crate) address: SocketAddr,
    pub(crate) serving: Arc<dyn Serving>,
}

impl Kit {
    pub(super) fn rights(&self, admin: bool) -> Rights {
        Rights { admin, allow_run: self.settings.workflow_allow_run }
    }

    /// What somebody may do now; nothing where their key is gone.
    pub(super) fn rights_of(&self, owner: &str) -> Option<Rights> {
        let found = self.keys.owner(owner)?;
        Some(self.rights(found.scopes.contains(&Scope::Admin)))
    }

    /// Whom steps ask that name nobody. Fails where a step names somebody whom nobody knows.
    pub(super) fn provider(&self, asked: Option<&str>, spec: &JobSpec) -> Result<String, Failure> {
        let book = self.providers(ProviderSetting::local(|| None))?;
        book.check_steps(spec)?;
        book.default_for(asked, spec, &self.settings, &self.variables)
    }

    /// The world of a job. The gateway is asked with a key that is lent for as long as the second is held: requests
    /// count as the submitter's, and its limits are theirs.
    pub(super) fn ports(&self, owner: &str, rights: Rights) -> Result<(Ports, LentKey), Failure> {
        let lent = self.keys.lend(owner)?;
        let access =
            Access { base_url: format!("http://{}", self.address), token: Token::new(lent.token().secret()) };
        let local = ProviderSetting::local(move || Some(access.clone()));
        let serving = Some(Arc::clone(&self.serving));
        let reach = if rights.may_ask_privately() { Reach::Everywhere } else { Reach::PublicOnly };
        let ports = self.providers(local)?.into_ports(self.variables.clone(), reach, serving);
        Ok((ports, lent))
    }

    fn providers(&self, local: ProviderSetting) -> Result<ProviderBook, Failure> {
        ProviderBook::new(&self.settings, &self.variables, local)
    }
}

/// How a job is run.
pub(super) fn options(asked: &orch_api::JobOptions, provider: String) -> JobOptions {
    JobOptions {
        concurrency: asked.concurrency,
        provider,
        no_cache: asked.no_cache,
        strict: asked.journal == JobJournal::Strict,
        // A job that waits for people holds no place.
        keep_waiting: false,
        // The spec came over the network: it lies in no folder with code.
        folder: None,
    }
}
