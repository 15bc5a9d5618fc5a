//! The files behind the names under which the home's gateway serves models.

use std::path::PathBuf;

use instance_config::{LoadedInstance, weight_files};
use orch_core::HomeLayout;

/// The files of all instances of this home that serve under the name. `None` where it names none of them: a route of
/// the settings, or an instance of another node.
pub fn weights(home: &HomeLayout, model: &str) -> Option<Vec<PathBuf>> {
    let catalog = instance_config::discover(home).ok()?;
    let named = catalog.instances.iter().filter(|instance| instance.config.name.as_str() == model);
    let mut instances: Vec<&LoadedInstance> = named.collect();
    // A name goes before the same word as somebody's alias, as in the gateway.
    if instances.is_empty() {
        let has_alias = |instance: &&LoadedInstance| instance.config.aliases.iter().any(|it| it == model);
        instances.extend(catalog.instances.iter().filter(has_alias));
    }
    let files: Vec<PathBuf> = instances
        .into_iter()
        .flat_map(|instance| weight_files(&instance.config, &instance.path, home))
        .collect();
    (!files.is_empty()).then_some(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use testkit::TempHome;

    use super::*;

    #[test]
    fn names_and_aliases_lead_to_the_files_that_are_loaded() {
        let home = TempHome::new();
        let model = home.tiny_model();
        let config = |name: &str, args: &[&str]| json!({"name": name, "model": {"path": model}, "server": {"port": 0}, "aliases": ["gpt"], "args": args});
        home.write_instance("plain", &config("plain", &[]));
        home.write_instance("tuned", &config("tuned", &["--lora", "extra.gguf"]));
        let layout = home.layout();
        assert_eq!(weights(layout, "plain"), Some(vec![model.clone()]));
        let lora = home.path().join("extra.gguf");
        assert_eq!(weights(layout, "tuned"), Some(vec![model.clone(), lora.clone()]));
        assert_eq!(weights(layout, "gpt"), Some(vec![model.clone(), model, lora]));
        assert_eq!(weights(layout, "somebody else"), None);
    }
}
