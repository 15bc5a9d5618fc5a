use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use instance_config::{
    Change, EngineFact, Finding, KnownInstance, LintFacts, MigrationPlan, Severity, lint, plan_migration,
};
use orch_core::{ExitCode, UnixMillis};
use proptest::prelude::*;
use serde_json::{Value, json};
use testkit::{OldHome, OldInstance, Shape};

use crate::sandbox::{Sandbox, minimal_with};

const NOW: UnixMillis = UnixMillis(1_770_000_000_000);
const OLDER_FOLDER: &str = "00000007_6f1c2d3e-4a5b-4c6d-8e9f-0a1b2c3d4e5f";

fn plan(sandbox: &Sandbox, known: &[KnownInstance]) -> MigrationPlan {
    plan_migration(&sandbox.home, known).unwrap()
}

fn apply(plan: &MigrationPlan) -> Vec<std::path::PathBuf> {
    plan.configs.iter().map(|config| config.apply(NOW).unwrap()).collect()
}

fn changes(plan: &MigrationPlan) -> Vec<(&str, Value)> {
    plan.configs
        .iter()
        .flat_map(|config| &config.changes)
        .map(|change| (change.field, change.to.clone()))
        .collect()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn old_home(sandbox: &Sandbox, instances: usize) -> Vec<OldInstance> {
    OldHome { instances, ..OldHome::default() }.write(sandbox.home.root())
}

fn of_catalog(instance: &OldInstance, index: usize) -> KnownInstance {
    KnownInstance {
        uid: Some(uuid(&format!("5eed0001-51ce-4a0b-8f00-{index:012x}"))),
        number: Some(format!("{:08}", index + 1)),
        name: instance.name.clone(),
        display_name: Some(format!("Model {index}")),
        created_at: Some("2025-10-21T08:00:00Z".to_owned()),
        sort_order: Some(1),
    }
}

fn uuid(text: &str) -> uuid::Uuid {
    uuid::Uuid::parse_str(text).unwrap()
}

fn lint_of(plan: &MigrationPlan, sandbox: &Sandbox) -> Vec<Finding> {
    let engines = std::collections::BTreeMap::<String, EngineFact>::new();
    let facts = LintFacts {
        home: &sandbox.home,
        engines: &engines,
        cpu_count: 4,
        host_memory: None,
        port_in_use: &|_| false,
    };
    lint(&plan.catalog, &facts).findings
}

#[test]
fn a_home_of_the_older_tool_is_read_whole_whatever_shape_its_configs_have() {
    let sandbox = Sandbox::new();
    let written = old_home(&sandbox, 64);
    let plan = plan(&sandbox, &[]);
    assert!(plan.catalog.broken.is_empty(), "{:?}", plan.catalog.broken);
    assert_eq!(plan.catalog.instances.len(), 64);
    for instance in &written {
        let read = plan.catalog.select(&instance.name).unwrap();
        assert_eq!(read.config.server.port, instance.port, "{}", instance.name);
        let model = instance_config::resolve_model_path(&read.config, &read.path, &sandbox.home);
        assert!(model.is_file(), "{}: {}", instance.name, model.display());
    }
}

#[test]
fn only_what_is_lacking_or_liberal_changes_and_a_second_time_nothing_does() {
    let sandbox = Sandbox::new();
    let written = old_home(&sandbox, 16);
    let known = [of_catalog(&written[1], 1)];
    let first = plan(&sandbox, &known);
    let shapes: BTreeSet<String> = first
        .configs
        .iter()
        .map(|config| format!("{:?}", written.iter().find(|one| one.name == config.name).unwrap().shape))
        .collect();
    let expected =
        [Shape::NamedFolder, Shape::AddressInArgs, Shape::LooseTypes].map(|shape| format!("{shape:?}"));
    assert_eq!(shapes, BTreeSet::from(expected));
    apply(&first);
    assert!(plan(&sandbox, &known).configs.is_empty());
    assert!(plan(&sandbox, &[]).configs.is_empty());
}

#[test]
fn planning_changes_no_byte() {
    let sandbox = Sandbox::new();
    let written = old_home(&sandbox, 16);
    let before: Vec<Vec<u8>> = written.iter().map(|one| fs::read(&one.config).unwrap()).collect();
    plan(&sandbox, &[]);
    let after: Vec<Vec<u8>> = written.iter().map(|one| fs::read(&one.config).unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn what_a_config_lacks_comes_from_its_folder_then_from_the_catalog_then_is_new() {
    let sandbox = Sandbox::new();
    sandbox.write_json(OLDER_FOLDER, &minimal_with(&json!({"name": "a", "schema_version": "2"})));
    sandbox.write_json("b", &minimal_with(&json!({"name": "b", "schema_version": "2"})));
    sandbox.write_json("c", &minimal_with(&json!({"name": "c", "schema_version": "2"})));
    let known = [KnownInstance {
        uid: Some(uuid("00000000-0000-0000-0000-0000000000bb")),
        number: Some("00000031".to_owned()),
        name: "b".to_owned(),
        display_name: Some("Bee".to_owned()),
        created_at: None,
        sort_order: Some(3),
    }];
    let plan = plan(&sandbox, &known);
    apply(&plan);
    let catalog = sandbox.catalog();
    let identity = |name: &str| {
        let config = &catalog.select(name).unwrap().config;
        (config.instance_uid.to_string(), config.instance_no.clone().unwrap())
    };
    assert_eq!(identity("a"), (OLDER_FOLDER[9..].to_owned(), "00000007".to_owned()));
    assert_eq!(identity("b"), ("00000000-0000-0000-0000-0000000000bb".to_owned(), "00000031".to_owned()));
    assert_eq!(identity("c").1, "00000032", "above every number that was ever given");
    let bee = read(&catalog.select("b").unwrap().path);
    assert_eq!((&bee["display_name"], &bee["sort_order"]), (&json!("Bee"), &json!(3)));
}

#[test]
fn a_uid_that_was_computed_at_every_reading_is_the_one_that_is_written() {
    let sandbox = Sandbox::new();
    let path = sandbox.write_json("chat", &minimal_with(&json!({})));
    let before = sandbox.catalog().select("chat").unwrap().config.instance_uid;
    apply(&plan(&sandbox, &[]));
    assert_eq!(read(&path)["instance_uid"], json!(before));
}

#[test]
fn nobody_gets_a_number_that_another_config_has() {
    let sandbox = Sandbox::new();
    sandbox.write_json("a", &minimal_with(&json!({"name": "a", "instance_no": "00000007"})));
    sandbox.write_json(OLDER_FOLDER, &minimal_with(&json!({"name": "b"})));
    apply(&plan(&sandbox, &[]));
    let catalog = sandbox.catalog();
    assert_eq!(catalog.select("a").unwrap().config.instance_no.as_deref(), Some("00000007"));
    assert_eq!(catalog.select("b").unwrap().config.instance_no.as_deref(), Some("00000008"));
}

#[test]
fn a_copy_does_not_get_the_identity_of_its_original() {
    let sandbox = Sandbox::new();
    let uid = "00000000-0000-0000-0000-0000000000bb";
    sandbox.write_json("a", &minimal_with(&json!({"name": "a", "instance_uid": uid})));
    sandbox.write_json("b", &minimal_with(&json!({"name": "b"})));
    let known = KnownInstance { uid: Some(uuid(uid)), name: "b".to_owned(), ..KnownInstance::default() };
    apply(&plan(&sandbox, &[known]));
    let catalog = sandbox.catalog();
    assert_ne!(catalog.select("b").unwrap().config.instance_uid, uuid(uid));
}

#[test]
fn after_the_highest_number_the_free_ones_below_are_given() {
    let sandbox = Sandbox::new();
    sandbox.write_json("a", &minimal_with(&json!({"name": "a", "instance_no": "99999999"})));
    sandbox.write_json("b", &minimal_with(&json!({"name": "b", "instance_no": "00000001"})));
    sandbox.write_json("c", &minimal_with(&json!({"name": "c"})));
    sandbox.write_json("d", &minimal_with(&json!({"name": "d"})));
    apply(&plan(&sandbox, &[]));
    let catalog = sandbox.catalog();
    let number = |name: &str| catalog.select(name).unwrap().config.instance_no.clone().unwrap();
    assert_eq!((number("c"), number("d")), ("00000002".to_owned(), "00000003".to_owned()));
}

#[test]
fn the_old_file_is_kept_byte_by_byte_and_an_older_backup_is_never_overwritten() {
    let sandbox = Sandbox::new();
    let text = "\u{feff}{\r\n\"name\": \"chat\",\r\n\"model\": {\"path\": \"a\\\\m.gguf\"}\r\n}\r\n";
    let path = sandbox.write("chat", text);
    let older = sandbox.write_file("instances/chat/config.json.v1.backup", "older");
    let backups = apply(&plan(&sandbox, &[]));
    assert_eq!(backups, [path.with_file_name("config.json.v1.backup.1")]);
    assert_eq!(fs::read_to_string(&backups[0]).unwrap(), text);
    assert_eq!(fs::read_to_string(older).unwrap(), "older");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&backups[0]).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn unknown_keys_nulls_and_arguments_survive_as_they_were() {
    let sandbox = Sandbox::new();
    let args = json!(["-ot", r"blk\.(1|2)\.=CPU", "-ot", r"\.x=CPU", "--port", "9001", "--host=::1"]);
    let path = sandbox.write_json(
        OLDER_FOLDER,
        &minimal_with(&json!({
            "mine": {"kept": [1, 2.5, null]}, "server": {"timeout": null, "cors": true}, "args": args,
        })),
    );
    apply(&plan(&sandbox, &[]));
    let after = read(&path);
    assert_eq!(after["mine"], json!({"kept": [1, 2.5, null]}));
    assert_eq!(after["server"], json!({"timeout": null, "cors": true, "host": "::1", "port": 9001}));
    assert_eq!(after["args"], json!(["-ot", r"blk\.(1|2)\.=CPU", "-ot", r"\.x=CPU"]));
}

#[test]
fn a_config_means_the_same_before_and_after() {
    let sandbox = Sandbox::new();
    old_home(&sandbox, 64);
    let before = sandbox.catalog();
    apply(&plan(&sandbox, &[]));
    let after = sandbox.catalog();
    for (old, new) in before.instances.iter().zip(&after.instances) {
        assert_eq!(instance_config::config_hash(&old.config), instance_config::config_hash(&new.config));
        assert_eq!(old.config.display_name, new.config.display_name);
        assert_eq!(old.config.healthcheck, new.config.healthcheck);
    }
}

#[test]
fn colliding_ports_are_told_and_left() {
    let sandbox = Sandbox::new();
    let written = old_home(&sandbox, 16);
    let plan = plan(&sandbox, &[]);
    let collisions: Vec<Finding> = lint_of(&plan, &sandbox)
        .into_iter()
        .filter(|finding| {
            finding.field.as_deref() == Some("server.port") && finding.severity == Severity::Error
        })
        .collect();
    let names: Vec<&str> = collisions.iter().filter_map(|finding| finding.instance.as_deref()).collect();
    assert_eq!(names, [written[0].name.as_str(), &written[6].name]);
    apply(&plan);
    assert_eq!(read(&written[6].config)["server"]["port"], json!(written[0].port));
}

#[test]
fn what_only_movers_need_to_know_is_told() {
    let sandbox = Sandbox::new();
    let written = old_home(&sandbox, 16);
    let told: Vec<(String, String)> = plan(&sandbox, &[])
        .findings
        .into_iter()
        .map(|finding| (finding.instance.unwrap(), finding.message))
        .collect();
    let about = |shape: Shape| {
        let name = &written.iter().find(|one| one.shape == shape).unwrap().name;
        told.iter()
            .filter(|(instance, _)| instance == name)
            .map(|(_, message)| message.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(about(Shape::OtherNumber), ["is 00000008, its folder says 00000508: the config counts"]);
    assert_eq!(about(Shape::ParallelTwice), ["--parallel 4 in args wins over server.parallel, which is 2"]);
    assert_eq!(about(Shape::CustomCache).len(), 2);
    assert_eq!(told.len(), 4, "{told:?}");
}

#[test]
fn broken_configs_are_findings_and_stay_as_they_are() {
    let sandbox = Sandbox::new();
    let cut = sandbox.write("cut", "{\"name\": \"cut\", \"mod");
    let wrong = sandbox.write_json("wrong", &minimal_with(&json!({"name": "wrong", "server": {"port": 80}})));
    sandbox.write_json("fine", &minimal_with(&json!({"name": "fine"})));
    let before = (fs::read(&cut).unwrap(), fs::read(&wrong).unwrap());
    let plan = plan(&sandbox, &[]);
    apply(&plan);
    assert_eq!((fs::read(&cut).unwrap(), fs::read(&wrong).unwrap()), before);
    assert_eq!(plan.configs.len(), 1);
    let broken: Vec<&str> = plan.catalog.broken.iter().map(|broken| broken.name.as_str()).collect();
    assert_eq!(broken, ["cut", "wrong"]);
}

#[test]
fn of_two_configs_with_one_name_the_second_is_left_to_its_owner() {
    let sandbox = Sandbox::new();
    sandbox.write_json("chat", &minimal_with(&json!({})));
    let second = sandbox.write_json(OLDER_FOLDER, &minimal_with(&json!({})));
    let before = fs::read(&second).unwrap();
    let plan = plan(&sandbox, &[]);
    apply(&plan);
    assert_eq!((plan.configs.len(), plan.catalog.broken.len()), (1, 1));
    assert_eq!(fs::read(&second).unwrap(), before);
}

#[test]
fn a_file_that_changes_between_plan_and_apply_is_left_alone() {
    let sandbox = Sandbox::new();
    let path = sandbox.write_json("chat", &minimal_with(&json!({})));
    let plan = plan(&sandbox, &[]);
    let newer = minimal_with(&json!({"tags": ["mine"]})).to_string();
    fs::write(&path, &newer).unwrap();
    let failure = plan.configs[0].apply(NOW).unwrap_err();
    assert_eq!(failure.exit, ExitCode::General);
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn the_account_of_changes_masks_secrets() {
    let sandbox = Sandbox::new();
    let written =
        json!({"args": ["--api-key", "sesame1", "--port", "9001"], "env": {"A_TOKEN": "sesame2", "N": 1}});
    sandbox.write_json(OLDER_FOLDER, &minimal_with(&written));
    let plan = plan(&sandbox, &[]);
    let told: Vec<&Change> = plan.configs.iter().flat_map(|config| &config.changes).collect();
    assert!(told.len() >= 4, "{told:?}");
    let text = format!("{plan:?} {}", serde_json::to_string(&plan.configs).unwrap());
    assert!(!text.contains("sesame"), "{text}");
    assert!(changes(&plan).contains(&("server.port", json!(9001))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a config holds: one application is enough, what it means stays, and the old bytes are there.
    #[test]
    fn one_application_is_enough_and_loses_nothing(
        threads in prop_oneof![Just(json!("4")), Just(json!(4)), Just(json!(4.0)), Just(Value::Null)],
        version in prop_oneof![Just(Value::Null), Just(json!("1")), Just(json!(1)), Just(json!("2")), Just(json!("7"))],
        args in proptest::collection::vec(
            prop_oneof![Just("--port"), Just("--host"), Just("9001"), Just("::1"), Just("-v"), Just("--port=9002"), Just(r"a\b")],
            0..6,
        ),
        extra in proptest::collection::btree_map("x[a-z]{1,6}", any::<i32>(), 0..4),
        older in any::<bool>(),
    ) {
        let sandbox = Sandbox::new();
        let mut document = minimal_with(&json!({
            "schema_version": version, "args": args, "model": {"path": "m.gguf", "threads": threads},
        }));
        for (key, value) in &extra {
            document[key] = json!(value);
        }
        let path = sandbox.write_json(if older { OLDER_FOLDER } else { "chat" }, &document);
        let source = fs::read(&path).unwrap();
        let before = instance_config::load_file(&path);
        let first = plan(&sandbox, &[]);
        let backups = apply(&first);
        prop_assert!(plan(&sandbox, &[]).configs.is_empty());
        for backup in backups {
            prop_assert_eq!(fs::read(backup).unwrap(), source.clone());
        }
        if let Ok(before) = before {
            let after = instance_config::load_file(&path).unwrap();
            prop_assert_eq!(instance_config::config_hash(&before.config), instance_config::config_hash(&after.config));
            let written = read(&path);
            for (key, value) in &extra {
                prop_assert_eq!(&written[key], &json!(value));
            }
        } else {
            prop_assert_eq!(fs::read(&path).unwrap(), source);
        }
    }
}
