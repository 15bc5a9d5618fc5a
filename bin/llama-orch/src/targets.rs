//! From what was typed to instances, and who carries a step out on them.

use instance_config::{Catalog, LoadedInstance};
use orch_core::{ExitCode, Failure, InstanceName};
use orchestratord::client::DaemonClient;
use pool_manager::remnant;
use pool_manager::view::{InstanceView, broken_line, denied_line};

use crate::arguments::Selection;
use crate::context::Context;
use crate::runtime::block_on;

/// Who carries steps out.
#[derive(Clone)]
pub(crate) enum Plane {
    /// A control plane elsewhere: it alone knows its instances.
    Remote(DaemonClient),
    /// The living daemon of this home.
    Daemon(DaemonClient),
    /// This command itself.
    Alone,
}

impl Plane {
    pub(crate) fn find(context: &Context) -> Result<Self, Failure> {
        if let Some(client) = context.remote()? {
            return Ok(Plane::Remote(client));
        }
        Ok(DaemonClient::living(context.home()?).map_or(Plane::Alone, Plane::Daemon))
    }

    /// The same, or this command itself when the daemon was ended on the way.
    pub(crate) fn without_daemon(&self, ended: bool) -> Self {
        match self {
            Plane::Daemon(_) if ended => Plane::Alone,
            other => other.clone(),
        }
    }

    pub(crate) fn client(&self) -> Option<&DaemonClient> {
        match self {
            Plane::Remote(client) | Plane::Daemon(client) => Some(client),
            Plane::Alone => None,
        }
    }
}

/// One instance that a step is for.
pub(crate) struct Target {
    pub(crate) name: String,
    /// Not known of instances elsewhere, nor of what is left of one whose config is gone.
    pub(crate) instance: Option<LoadedInstance>,
    /// It is left of an instance of this home whose config is gone or cannot be read.
    pub(crate) remnant: bool,
}

/// What one of the typed words stands for.
pub(crate) struct Chosen {
    pub(crate) name: String,
    pub(crate) target: Result<Target, Failure>,
}

impl Chosen {
    fn remote(name: String) -> Self {
        Self { target: Ok(Target { name: name.clone(), instance: None, remnant: false }), name }
    }

    fn left(name: String) -> Self {
        Self { target: Ok(Target { name: name.clone(), instance: None, remnant: true }), name }
    }

    fn local(instance: &LoadedInstance) -> Self {
        let name = instance.config.name.to_string();
        let target = Target { name: name.clone(), instance: Some(instance.clone()), remnant: false };
        Self { target: Ok(target), name }
    }
}

/// Whether a selection takes instances as it finds them, so that what is so already is skipped.
pub(crate) fn is_sweeping(selection: &Selection) -> bool {
    selection.all || selection.tag.is_some()
}

/// The instances of a selection, each once, in the order of the words. `--all` and `--tag` leave out those for which
/// `is_so` holds already.
pub(crate) fn choose(
    context: &Context,
    plane: &Plane,
    selection: &Selection,
    is_so: impl Fn(&InstanceView) -> bool,
) -> Result<Vec<Chosen>, Failure> {
    match plane {
        Plane::Remote(client) => choose_remote(client, selection, is_so),
        Plane::Daemon(_) | Plane::Alone => choose_local(context, selection, is_so),
    }
}

fn choose_remote(
    client: &DaemonClient,
    selection: &Selection,
    is_so: impl Fn(&InstanceView) -> bool,
) -> Result<Vec<Chosen>, Failure> {
    if selection.tag.is_some() {
        return Err(Failure::new(ExitCode::Usage, "tags are known where the instances are")
            .hint("name the instances, or use --all"));
    }
    if !selection.all {
        return Ok(selection.names.iter().cloned().map(Chosen::remote).collect());
    }
    let rows = block_on(client.instances())?;
    let mut names: Vec<String> = rows.into_iter().filter(|row| !is_so(row)).map(|row| row.name).collect();
    names.dedup();
    Ok(names.into_iter().map(Chosen::remote).collect())
}

fn choose_local(
    context: &Context,
    selection: &Selection,
    is_so: impl Fn(&InstanceView) -> bool,
) -> Result<Vec<Chosen>, Failure> {
    let catalog = context.catalog()?;
    if !is_sweeping(selection) {
        return Ok(choose_by_name(&catalog, &selection.names));
    }
    let tagged = |instance: &&LoadedInstance| {
        selection
            .tag
            .as_ref()
            .is_none_or(|tag| instance.config.tags.iter().any(|it| it.eq_ignore_ascii_case(tag)))
    };
    let rows = context.look(|viewer| {
        let instances = catalog.instances.iter().filter(tagged);
        instances
            .map(|instance| Ok((instance, viewer.replicas(instance)?)))
            .collect::<Result<Vec<_>, Failure>>()
    })?;
    warn_of_broken(context, &catalog);
    let chosen = rows.into_iter().filter(|(_, rows)| !rows.iter().all(&is_so));
    Ok(chosen.map(|(instance, _)| Chosen::local(instance)).collect())
}

fn choose_by_name(catalog: &Catalog, names: &[String]) -> Vec<Chosen> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for name in names {
        let next = match catalog.select(name) {
            Ok(instance) => Chosen::local(instance),
            Err(failure) => Chosen { name: name.clone(), target: Err(failure) },
        };
        if chosen.iter().all(|known| known.name != next.name) {
            chosen.push(next);
        }
    }
    chosen
}

/// A name that no usable config claims, but of which something is left, stands for that.
pub(crate) fn reach_remnant(context: &Context, choice: &mut Chosen) -> Result<(), Failure> {
    if choice.target.is_ok() {
        return Ok(());
    }
    let Ok(name) = InstanceName::new(&choice.name) else { return Ok(()) };
    if remnant(context.home()?, context.reader()?.as_ref(), &name)?.is_some() {
        choice.target = Chosen::left(choice.name.clone()).target;
    }
    Ok(())
}

/// Tells when this command itself is about to touch a process that it may not look at. A daemon tells by an event.
pub(crate) fn warn_of_denied(context: &Context, plane: &Plane, target: &Target) -> Result<(), Failure> {
    let (Plane::Alone, Some(instance)) = (plane, &target.instance) else { return Ok(()) };
    for row in context.look(|viewer| viewer.replicas(instance))? {
        if let Some(line) = denied_line(&row) {
            context.talk.warning(&line);
        }
    }
    Ok(())
}

/// Engines of this home that run although their config is gone or cannot be read: `--all` means them too.
pub(crate) fn running_remnants(context: &Context, plane: &Plane) -> Result<Vec<Chosen>, Failure> {
    if matches!(plane, Plane::Remote(_)) {
        return Ok(Vec::new());
    }
    let catalog = context.catalog()?;
    let rows = context.look(|viewer| viewer.remnants(&catalog))?;
    let running = rows.into_iter().filter(|row| row.status.has_process());
    let mut names: Vec<String> = running.map(|row| row.name).collect();
    names.dedup();
    Ok(names.into_iter().map(Chosen::left).collect())
}

/// Configs that cannot be used are told, and stop nothing.
pub(crate) fn warn_of_broken(context: &Context, catalog: &Catalog) {
    for broken in &catalog.broken {
        context.talk.warning(&broken_line(broken));
    }
}
