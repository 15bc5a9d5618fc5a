//! `config show`: what counts, and where each value comes from.

use instance_config::Origin;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::ending::CommandResult;

pub(super) fn run(context: &Context, name: &str) -> CommandResult {
    let catalog = context.catalog()?;
    let instance = catalog.select(name)?;
    let values = instance.effective();
    if context.printer.json() {
        let origins: Map<String, Value> =
            values.iter().map(|value| (value.field.to_owned(), json!(value.origin))).collect();
        return Ok(context.printer.document(&json!({
            "name": instance.config.name,
            "path": instance.path,
            "config": instance.config.shown(),
            "origins": origins,
            "findings": instance.findings,
        }))?);
    }
    context.printer.line(instance.path.display())?;
    let rows: Vec<Vec<String>> = values
        .iter()
        .filter(|value| !value.value.is_null())
        .map(|value| {
            let origin = match value.origin {
                Origin::File => "file",
                Origin::Default => "default",
            };
            vec![value.field.to_owned(), value.value.to_string(), origin.to_owned()]
        })
        .collect();
    context.printer.table(&["FIELD", "VALUE", "FROM"], &rows)?;
    for finding in &instance.findings {
        let field = finding.field.as_deref().map_or(String::new(), |field| format!("{field}: "));
        context.talk.warning(&format!("{field}{}", finding.message));
    }
    Ok(())
}
