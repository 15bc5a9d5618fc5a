//! What every command gets: the home, who is to be asked, and how to speak.

use std::path::{Path, PathBuf};

use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};
use instance_config::Catalog;
use instance_config::home::{HomeChoice, HomeSource, find};
use orch_core::{ExitCode, Failure, HomeLayout, InstanceName, ReplicaId, UnixMillis};
use orch_runtime::environment;
use orchestratord::client::DaemonClient;
use orchestratord::compose;
use orchestratord::daemon::{DaemonOptions, load_settings};
use pool_manager::view::{Slots, Viewer};
use state_store::StateReader;

use crate::arguments::{ColorChoice, GlobalArguments};
use crate::ending::CommandResult;
use crate::printer::Printer;
use crate::talk::Talk;

/// The name of the product's folder among those of other programs.
const DATA_FOLDER: &str = "llama-orch";

/// The surroundings of one command.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) printer: Printer,
    pub(crate) talk: Talk,
    pub(crate) color: ColorChoice,
    choice: HomeChoice,
    /// Whether the platform told its data folder, should that be the home.
    has_data_folder: bool,
    /// `--server`.
    server: Option<String>,
}

impl Context {
    pub(crate) fn new(global: &GlobalArguments, talk: Talk) -> Self {
        let data_folder = data_folder();
        let working_folder = working_folder();
        let named = std::env::var(environment::HOME).ok();
        let fallback = data_folder.as_deref().unwrap_or(Path::new(DATA_FOLDER));
        let choice = find(global.home.as_deref(), named.as_deref(), &working_folder, fallback);
        if global.verbose > 0 {
            talk.note(&format!(
                "home: {} (chosen by {})",
                choice.layout.root().display(),
                choice.source.label()
            ));
        }
        Self {
            printer: Printer::new(global.json),
            talk,
            color: global.color,
            choice,
            has_data_folder: data_folder.is_some(),
            server: global.server.clone(),
        }
    }

    /// The home of this run. It need not exist.
    pub(crate) fn home(&self) -> Result<&HomeLayout, Failure> {
        if self.choice.source == HomeSource::DataFolder && !self.has_data_folder {
            return Err(Failure::new(ExitCode::General, "this user has no home folder")
                .hint("choose a home with --home or LLAMA_ORCH_HOME"));
        }
        Ok(&self.choice.layout)
    }

    /// Why this home, for people.
    pub(crate) fn home_source(&self) -> &'static str {
        self.choice.source.label()
    }

    /// The control plane elsewhere that was chosen by flag or environment.
    pub(crate) fn remote(&self) -> Result<Option<DaemonClient>, Failure> {
        let named = || std::env::var(environment::ORCHESTRATORD_URL).ok();
        let Some(url) = self.server.clone().or_else(named).filter(|url| !url.trim().is_empty()) else {
            return Ok(None);
        };
        let token = std::env::var(environment::CLIENT_TOKEN).ok().filter(|token| !token.is_empty());
        DaemonClient::remote(url.trim(), token).map(Some)
    }

    /// Where the control plane elsewhere is and what it is shown, as they were chosen.
    pub(crate) fn server_access(&self) -> Option<(String, Option<String>)> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
        let url = self.server.clone().or_else(|| variable(environment::ORCHESTRATORD_URL))?;
        Some((url.trim().to_owned(), variable(environment::CLIENT_TOKEN)))
    }

    /// The control plane that the flag names. What lies in this home is looked at here, whatever the environment says.
    pub(crate) fn named_server(&self) -> Result<Option<DaemonClient>, Failure> {
        if self.server.is_some() { self.remote() } else { Ok(None) }
    }

    /// Refuses `--server` for commands that only look at files of this machine.
    pub(crate) fn refuse_server(&self) -> Result<(), Failure> {
        match &self.server {
            None => Ok(()),
            Some(_) => {
                Err(Failure::new(ExitCode::Usage, "this command works on a home of this machine only")
                    .hint("leave --server out"))
            }
        }
    }

    /// Every instance of the home.
    pub(crate) fn catalog(&self) -> Result<Catalog, Failure> {
        let home = self.home()?;
        instance_config::discover(home).map_err(|error| {
            let exit = match error.kind() {
                std::io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
                _ => ExitCode::General,
            };
            Failure::new(exit, format!("cannot read {}: {error}", home.instances().display()))
        })
    }

    /// The name of an instance that has a history: also of one whose config cannot be used, or is gone.
    pub(crate) fn name_in_history(&self, selector: &str) -> Result<InstanceName, Failure> {
        let catalog = self.catalog()?;
        match catalog.select(selector) {
            Ok(instance) => Ok(instance.config.name.clone()),
            Err(failure) => {
                let Ok(name) = InstanceName::new(selector) else { return Err(failure) };
                let is_broken = catalog.broken.iter().any(|broken| broken.name == selector);
                let is_left = || pool_manager::remnant(self.home()?, self.reader()?.as_ref(), &name);
                if is_broken || is_left()?.is_some() { Ok(name) } else { Err(failure) }
            }
        }
    }

    /// The state of the home; `None` where nothing was ever started.
    pub(crate) fn reader(&self) -> Result<Option<StateReader>, Failure> {
        Ok(StateReader::open(self.home()?)?)
    }

    /// Shows a table and what should be known besides: once, or in place of what was shown a moment ago.
    pub(crate) fn show_table(
        &self,
        again: bool,
        headings: &[&str],
        rows: &[Vec<String>],
        warnings: &[String],
    ) -> CommandResult {
        if again && self.printer.is_terminal() {
            let warnings: Vec<String> =
                warnings.iter().map(|warning| format!("warning: {warning}")).collect();
            return Ok(self.printer.redraw(headings, rows, &warnings)?);
        }
        self.warn(warnings);
        Ok(self.printer.table(headings, rows)?)
    }

    pub(crate) fn warn(&self, warnings: &[String]) {
        for warning in warnings {
            self.talk.warning(warning);
        }
    }

    /// This machine's name among others. A settings file that cannot be used matters to the daemon, not here.
    pub(crate) fn node_id(&self) -> Result<String, Failure> {
        let options = DaemonOptions { home: self.home()?.clone(), flags: Vec::new() };
        Ok(load_settings(&options)
            .map_or_else(|_| compose::host_name(), |settings| compose::node_id(&settings)))
    }

    /// Looks at instances with the eyes of this process; slots are known to the daemon only.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Viewer<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let reader = self.reader()?;
        let node_id = self.node_id()?;
        let slots = |_: &InstanceName, _: ReplicaId| -> Option<Slots> { None };
        look(&Viewer {
            home: self.home()?,
            reader: reader.as_ref(),
            node_id: &node_id,
            now: UnixMillis::now(),
            slots: &slots,
        })
    }
}

/// A working folder that was removed is none.
pub(crate) fn working_folder() -> PathBuf {
    std::env::current_dir().unwrap_or_default()
}

/// Where this platform keeps programs' data; on Windows the part that does not roam.
fn data_folder() -> Option<PathBuf> {
    let strategy = choose_native_strategy().ok()?;
    let folder = if cfg!(windows) { strategy.cache_dir() } else { strategy.data_dir() };
    Some(folder.join(DATA_FOLDER))
}
