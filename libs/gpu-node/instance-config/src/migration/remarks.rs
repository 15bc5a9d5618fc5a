//! What is worth telling about a config that comes from the older tool, and is left as it is.

use crate::LoadedInstance;
use crate::arguments::last_value;
use crate::catalog::older_folder;
use crate::finding::Finding;

/// What engines as they are published can keep their cache in.
const CACHE_TYPES: [&str; 9] = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"];

pub(super) fn on(instance: &LoadedInstance) -> Vec<Finding> {
    [number(instance), parallel(instance)].into_iter().flatten().chain(cache_types(instance)).collect()
}

fn number(instance: &LoadedInstance) -> Option<Finding> {
    let (folder, _) = older_folder(&instance.path)?;
    let own = instance.config.instance_no.as_ref().filter(|own| **own != folder)?;
    let message = format!("is {own}, its folder says {folder}: the config counts");
    Some(Finding::info("instance_no", message))
}

fn parallel(instance: &LoadedInstance) -> Option<Finding> {
    let field = instance.config.server.parallel;
    let written = last_value(&instance.config.args, &["--parallel", "-np"])?;
    if written.parse() == Ok(field) {
        return None;
    }
    let message = format!("--parallel {written} in args wins over server.parallel, which is {field}");
    Some(Finding::info("args", message).suggest("write it as server.parallel and take it out of args"))
}

fn cache_types(instance: &LoadedInstance) -> Vec<Finding> {
    let flags: [&[&str]; 2] = [&["--cache-type-k", "-ctk"], &["--cache-type-v", "-ctv"]];
    let written = flags.into_iter().filter_map(|names| {
        let value = last_value(&instance.config.args, names)?;
        (!CACHE_TYPES.contains(&value)).then(|| (names[0], value))
    });
    let told = written.map(|(flag, value)| {
        let message =
            format!("{flag} {value} is no type of the published engines: only a build that has it starts");
        Finding::info("args", message).suggest("pin that build with binary.binary_id")
    });
    told.collect()
}
