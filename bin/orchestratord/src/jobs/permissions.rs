//! What a workflow of somebody else's may do on this machine. Decided before it is taken, and again whenever it goes on:
//! a key or a setting may have changed meanwhile.
//!
//! What can only be known when a step runs, such as the address behind a name, is refused then: whoever may not reach
//! private addresses gets a service port that does not.

use std::net::IpAddr;

use orch_api::ErrorBody;
use orch_core::ErrorCode;
use workflow_spec::{Graph, HttpStep, JobSpec, LlmStep, Step, StepKind};

/// The gateway of this daemon, where keys have their limits.
const LOCAL_PROVIDER: &str = "local";

/// What whoever submits a workflow may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// The submitter administers this control plane.
    pub(crate) admin: bool,
    /// `workflow.allow_run`
    pub(crate) allow_run: bool,
}

/// What a step does that not everybody may.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    /// Runs a program of this machine.
    Runs,
    /// Asks a private address.
    AsksPrivately(String),
    /// Reads the environment of the daemon.
    ReadsSecrets,
    /// Asks another provider than the gateway, with the daemon's own keys.
    AsksProvider(String),
}

impl Act {
    const fn is_allowed(&self, rights: Rights) -> bool {
        match self {
            Self::Runs | Self::AsksPrivately(_) => rights.admin && rights.allow_run,
            Self::ReadsSecrets | Self::AsksProvider(_) => rights.admin,
        }
    }

    fn told(&self) -> String {
        match self {
            Self::Runs => "runs a program".to_owned(),
            Self::AsksPrivately(host) => format!("asks {host}, a private address,"),
            Self::ReadsSecrets => "reads secrets of the server".to_owned(),
            Self::AsksProvider(name) => format!("asks the provider {name} with the server's keys"),
        }
    }

    const fn needs_setting(&self) -> bool {
        matches!(self, Self::Runs | Self::AsksPrivately(_))
    }
}

impl Rights {
    /// Whether `http` steps may ask addresses that are not for everybody.
    pub(crate) const fn may_ask_privately(self) -> bool {
        self.admin && self.allow_run
    }

    /// Refuses a workflow that does what its submitter may not. `provider` is whom steps ask that name nobody.
    pub(crate) fn check(self, spec: &JobSpec, provider: &str) -> Result<(), Box<ErrorBody>> {
        let mut refused = None;
        each_act(spec, provider, "", &mut |step, act| {
            if !act.is_allowed(self) && refused.is_none() {
                refused = Some((step, act));
            }
        });
        let Some((step, act)) = refused else { return Ok(()) };
        let mut message = format!("step {step} {} and needs a key of scope `admin`", act.told());
        let mut lacking = Vec::new();
        if !self.admin {
            lacking.push("submit it with the key of an administrator");
        }
        if act.needs_setting() {
            message.push_str(" and workflow.allow_run");
            if !self.allow_run {
                lacking.push("set allow_run = true under [workflow] in the server's config.toml");
            }
        }
        let hint = lacking.join("; ");
        Err(Box::new(ErrorBody { hint: Some(hint), ..ErrorBody::new(ErrorCode::Forbidden, message) }))
    }
}

/// Every act of every step, also in loops and in workflows inside workflows.
fn each_act(spec: &JobSpec, provider: &str, prefix: &str, found: &mut dyn FnMut(String, Act)) {
    of_graph(&spec.graph, provider, prefix, found);
}

fn of_graph(graph: &Graph, provider: &str, prefix: &str, found: &mut dyn FnMut(String, Act)) {
    for step in &graph.steps {
        let id = format!("{prefix}{}", step.id);
        for act in own_acts(step, provider) {
            found(id.clone(), act);
        }
        match &step.kind {
            StepKind::Loop(inner) => of_graph(&inner.body, provider, &format!("{id}/"), found),
            StepKind::Workflow(inner) => each_act(&inner.spec, provider, &format!("{id}/"), found),
            _ => {}
        }
    }
}

fn own_acts(step: &Step, provider: &str) -> Vec<Act> {
    let mut acts = match &step.kind {
        StepKind::Run(_) => vec![Act::Runs],
        StepKind::Http(http) => private_host(http).map(Act::AsksPrivately).into_iter().collect(),
        StepKind::Llm(llm) => foreign_providers(llm, provider),
        StepKind::Gate(_) | StepKind::Workflow(_) | StepKind::Loop(_) | StepKind::Pass(_) => Vec::new(),
    };
    if !step.secrets.is_empty() {
        acts.push(Act::ReadsSecrets);
    }
    acts
}

fn foreign_providers(llm: &LlmStep, provider: &str) -> Vec<Act> {
    let asked = llm.candidates.iter().map(|it| it.provider.as_deref().unwrap_or(provider));
    asked.filter(|name| *name != LOCAL_PROVIDER).map(|name| Act::AsksProvider(name.to_owned())).collect()
}

/// The host of a URL whose beginning is written out, if it is private as it stands there.
fn private_host(http: &HttpStep) -> Option<String> {
    let source = http.url.source();
    let authority = source.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => host.split(':').next()?,
    };
    let is_private = match host.parse::<IpAddr>() {
        Ok(address) => is_private(address),
        Err(_) => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    };
    is_private.then(|| host.to_owned())
}

/// Addresses that only this machine or its own network knows.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const NOBODY: Rights = Rights { admin: false, allow_run: true };
    const ADMIN: Rights = Rights { admin: true, allow_run: false };
    const ALL: Rights = Rights { admin: true, allow_run: true };

    fn spec(steps: &str) -> JobSpec {
        let inner = "version: 1\nproject: inner\nsteps:\n  deep: { run: { argv: [ls] } }\n";
        let parts = BTreeMap::from([("inner.yaml".to_owned(), inner.to_owned())]);
        JobSpec::read(&format!("version: 1\nproject: p\nsteps:\n{steps}"), &parts).unwrap()
    }

    #[track_caller]
    fn assert_allowed(steps: &str, provider: &str, wanted: [bool; 3]) {
        let spec = spec(steps);
        let allowed = [NOBODY, ADMIN, ALL].map(|rights| rights.check(&spec, provider).is_ok());
        assert_eq!(allowed, wanted, "{steps}");
    }

    #[test]
    fn what_stays_inside_the_gateway_is_for_everybody() {
        for steps in [
            "  a: { llm: { model: m, prompt: hi } }\n",
            "  a: { pass: { value: 1 } }\n  b: { gate: { message: ok? } }\n",
            "  a: { http: { url: \"https://example.org/x\" } }\n",
            "  a: { http: { url: \"https://{{ inputs.host }}/\" } }\n",
        ] {
            let text =
                format!("version: 1\nproject: p\ninputs: {{ host: {{ type: string }} }}\nsteps:\n{steps}");
            let spec = JobSpec::read(&text, &BTreeMap::new()).unwrap();
            assert!(NOBODY.check(&spec, "local").is_ok(), "{steps}");
        }
    }

    #[test]
    fn programs_and_private_addresses_need_an_administrator_and_the_setting() {
        for steps in [
            "  a: { run: { argv: [ls] } }\n",
            "  a: { loop: { max: 2, until: 'true', body: { b: { run: { argv: [ls] } } } } }\n",
            "  a: { workflow: { spec: inner.yaml } }\n",
            "  a: { http: { url: \"http://127.0.0.1:9200/v2/state\" } }\n",
            "  a: { http: { url: \"http://user@10.0.0.1/\" } }\n",
            "  a: { http: { url: \"http://[::1]:80/\" } }\n",
            "  a: { http: { url: \"http://[::ffff:127.0.0.1]/\" } }\n",
            "  a: { http: { url: \"http://LocalHost/\" } }\n",
            "  a: { http: { url: \"http://169.254.169.254/latest\" } }\n",
        ] {
            assert_allowed(steps, "local", [false, false, true]);
        }
    }

    #[test]
    fn the_servers_secrets_and_keys_are_for_administrators() {
        let steps = "  a: { secrets: [TOKEN], http: { url: \"https://example.org/\" } }\n";
        assert_allowed(steps, "local", [false, true, true]);
        let named = "  a: { llm: { model: planner, prompt: hi } }\nmodels: { planner: [ { provider: local, model: m }, { provider: anthropic, model: x } ] }\n";
        assert_allowed(named, "local", [false, true, true]);
        let unnamed = "  a: { llm: { model: m, prompt: hi } }\n";
        assert_allowed(unnamed, "openai", [false, true, true]);
        assert_allowed(unnamed, "local", [true, true, true]);
    }

    #[test]
    fn a_refusal_names_the_step_and_what_would_help() {
        let spec = spec("  a: { workflow: { spec: inner.yaml } }\n");
        let refused = ADMIN.check(&spec, "local").unwrap_err();
        assert!(refused.message.starts_with("step a/deep runs a program"), "{}", refused.message);
        let hint = refused.hint.unwrap();
        assert!(hint.contains("allow_run = true") && !hint.contains("key"), "{hint}");
        let lacks_scope = Rights { admin: false, allow_run: true };
        let hint = lacks_scope.check(&spec, "local").unwrap_err().hint.unwrap();
        assert_eq!(hint, "submit it with the key of an administrator");
    }
}
