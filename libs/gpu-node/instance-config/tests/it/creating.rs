use instance_config::{
    Backend, NewInstance, PortChoice, TEMPLATES, create, find_template, load_file, model_field,
};
use orch_core::{ExitCode, InstanceName, UnixMillis};
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, minimal_with, tiny_gguf};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn new(name: &str) -> NewInstance {
    NewInstance {
        name: InstanceName::new(name).unwrap(),
        model: "models/m.gguf".to_owned(),
        port: PortChoice::Auto,
        backend: Backend::Cpu,
        device: None,
        layers: None,
        context: None,
        threads: None,
        template: None,
        force: false,
    }
}

fn make(sandbox: &Sandbox, new: &NewInstance) -> Result<Value, orch_core::Failure> {
    let created = create(&sandbox.home, &sandbox.catalog(), new, &|_| true, NOW)?;
    let text = std::fs::read(&created.path).unwrap();
    Ok(serde_json::from_slice(&text).unwrap())
}

#[test]
fn a_new_config_holds_only_what_matters() {
    let sandbox = Sandbox::new();
    let mut written = make(&sandbox, &new("chat")).unwrap();
    assert!(written["instance_uid"].as_str().unwrap().len() == 36);
    written["instance_uid"] = json!("uid");
    assert_eq!(
        written,
        json!({
            "name": "chat", "schema_version": "2", "instance_uid": "uid", "instance_no": "00000001",
            "created_at": "2023-11-14T22:13:20.000Z", "updated_at": "2023-11-14T22:13:20.000Z",
            "model": {"path": "models/m.gguf"}, "server": {"port": 8001},
        })
    );
    assert_eq!(load_file(&sandbox.home.instances().join("chat/config.json")).unwrap().findings, []);
}

#[test]
fn a_gpu_backend_gets_all_layers_unless_told_otherwise() {
    let sandbox = Sandbox::new();
    let gpu = NewInstance { backend: Backend::Cuda, device: Some(1), ..new("chat") };
    assert_eq!(
        make(&sandbox, &gpu).unwrap()["gpu"],
        json!({"backend": "cuda", "device_id": 1, "layers": 999})
    );
    let some = NewInstance { backend: Backend::Metal, layers: Some(7), ..new("other") };
    assert_eq!(make(&sandbox, &some).unwrap()["gpu"], json!({"backend": "metal", "layers": 7}));
}

#[test]
fn auto_takes_the_first_port_that_nobody_claims_or_uses() {
    let sandbox = Sandbox::new();
    sandbox.write_json("a", &minimal_with(&json!({"name": "a", "server": {"port": 8001}})));
    sandbox.write_json("b", &json!({"name": "b", "server": {"port": 8003}}));
    let created = create(&sandbox.home, &sandbox.catalog(), &new("chat"), &|port| port != 8002, NOW).unwrap();
    assert_eq!(created.config.server.port, 8004, "8003 belongs to a config that is broken");
}

#[test]
fn a_claimed_port_is_refused_with_the_name_of_its_owner() {
    let sandbox = Sandbox::new();
    make(&sandbox, &new("first")).unwrap();
    let failure =
        make(&sandbox, &NewInstance { port: PortChoice::Fixed(8001), ..new("second") }).unwrap_err();
    assert_eq!(failure.exit, ExitCode::ConfigInvalid);
    assert!(failure.message.contains("first"), "{failure}");
    assert!(!sandbox.home.instances().join("second").exists());
}

#[test]
fn a_port_outside_the_range_is_refused_before_anything_is_written() {
    let sandbox = Sandbox::new();
    let failure = make(&sandbox, &NewInstance { port: PortChoice::Fixed(80), ..new("chat") }).unwrap_err();
    assert_eq!(failure.exit, ExitCode::ConfigInvalid);
    assert!(!sandbox.home.root().exists());
}

#[test]
fn an_existing_name_is_replaced_only_by_force_and_keeps_its_identity() {
    let sandbox = Sandbox::new();
    let first = make(&sandbox, &new("chat")).unwrap();
    assert_eq!(make(&sandbox, &new("chat")).unwrap_err().exit, ExitCode::AlreadyExists);
    let second = make(&sandbox, &NewInstance { force: true, context: Some(8192), ..new("chat") }).unwrap();
    assert_eq!(second["model"]["context_size"], 8192);
    for kept in ["instance_uid", "instance_no", "created_at", "server"] {
        assert_eq!(second[kept], first[kept], "{kept}");
    }
}

#[test]
fn a_broken_config_of_that_name_also_exists() {
    let sandbox = Sandbox::new();
    sandbox.write("chat", "{");
    assert_eq!(make(&sandbox, &new("chat")).unwrap_err().exit, ExitCode::AlreadyExists);
    assert!(make(&sandbox, &NewInstance { force: true, ..new("chat") }).is_ok());
}

#[test]
fn numbers_go_on_from_the_highest() {
    let sandbox = Sandbox::new();
    sandbox.write_json("a", &minimal_with(&json!({"name": "a", "instance_no": "00000041"})));
    assert_eq!(make(&sandbox, &new("chat")).unwrap()["instance_no"], "00000042");
}

#[test]
fn every_template_gives_a_valid_config_and_what_was_asked_for_wins() {
    for template in TEMPLATES {
        let sandbox = Sandbox::new();
        let asked = NewInstance { template: Some(template), context: Some(2048), ..new("chat") };
        assert_eq!(make(&sandbox, &asked).unwrap()["model"]["context_size"], 2048, "{}", template.name);
        assert_eq!(sandbox.catalog().instances[0].findings, [], "{}", template.name);
    }
    assert_eq!(find_template("none").unwrap_err().exit, ExitCode::Usage);
}

#[test]
fn a_template_for_a_device_says_what_it_computes_on() {
    for name in ["cpu", "vulkan", "cuda", "metal", "hip"] {
        let template = find_template(name).unwrap();
        assert_eq!(template.backend.unwrap().label(), name);
        let sandbox = Sandbox::new();
        let asked =
            NewInstance { template: Some(template), backend: template.backend.unwrap(), ..new("chat") };
        make(&sandbox, &asked).unwrap();
        let config = sandbox.catalog().instances[0].config.clone();
        assert_eq!(config.gpu.layers, if name == "cpu" { 0 } else { 999 }, "{name}");
        assert_eq!(config.model.batch_size, if name == "cpu" { 512 } else { 2048 }, "{name}");
    }
}

#[test]
fn a_context_that_nobody_asked_for_is_no_longer_than_the_models_own() {
    let sandbox = Sandbox::new();
    sandbox.write_file("models/m.gguf", tiny_gguf(2048));
    assert_eq!(make(&sandbox, &new("plain")).unwrap()["model"]["context_size"], 2048);
    let chat = NewInstance { template: Some(find_template("chat").unwrap()), ..new("templated") };
    assert_eq!(make(&sandbox, &chat).unwrap()["model"]["context_size"], 2048);
    let asked = NewInstance { context: Some(8192), ..new("asked") };
    assert_eq!(make(&sandbox, &asked).unwrap()["model"]["context_size"], 8192);
    sandbox.write_file("models/m.gguf", tiny_gguf(131_072));
    assert_eq!(make(&sandbox, &new("long")).unwrap()["model"].get("context_size"), None);
    sandbox.write_file("models/m.gguf", tiny_gguf(64));
    assert_eq!(make(&sandbox, &new("short")).unwrap()["model"]["context_size"], 512);
}

#[cfg(unix)]
#[test]
fn everything_created_belongs_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    make(&sandbox, &new("chat")).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let home = &sandbox.home;
    for folder in
        [home.root().to_owned(), home.state(), home.run(), home.logs(), home.instances().join("chat")]
    {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
    }
    assert_eq!(mode(&home.instances().join("chat/config.json")), 0o600);
}

#[test]
fn a_model_is_written_so_that_a_home_can_be_moved() {
    let sandbox = Sandbox::new();
    sandbox.write_file("models/in.gguf", "x");
    let outside = sandbox.outside();
    std::fs::write(outside.join("out.gguf"), "x").unwrap();
    let field = |reference: &str, folder: &std::path::Path| model_field(reference, folder, &sandbox.home);
    assert_eq!(field("in.gguf", &sandbox.home.models()), "models/in.gguf");
    assert_eq!(field("out.gguf", &outside), outside.join("out.gguf").display().to_string());
    let absolute = format!("file:{}", outside.join("out.gguf").display());
    assert_eq!(field(&absolute, &outside), outside.join("out.gguf").display().to_string());
    assert_eq!(field("hf:owner/repo:a.gguf", &outside), "hf:owner/repo:a.gguf");
    assert_eq!(field("none.gguf", &outside), "none.gguf");
}
