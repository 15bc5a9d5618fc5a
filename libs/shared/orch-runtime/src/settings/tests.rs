use std::collections::HashMap;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A folder with a settings file, and the two other sources.
#[derive(Default)]
struct Sources {
    folder: Option<TempDir>,
    environment: HashMap<&'static str, String>,
    flags: Vec<(&'static str, String)>,
}

impl Sources {
    fn file(content: impl AsRef<[u8]>) -> Self {
        Self::default().and_file("config.toml", content)
    }

    fn and_file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let folder = self.folder.get_or_insert_with(|| TempDir::new().unwrap());
        std::fs::write(folder.path().join(name), content).unwrap();
        self
    }

    fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.insert(name, value.to_owned());
        self
    }

    fn flag(mut self, path: &'static str, value: &str) -> Self {
        self.flags.push((path, value.to_owned()));
        self
    }

    fn load(&self) -> Result<Settings, Failure> {
        let file = self
            .folder
            .as_ref()
            .map_or(PathBuf::from("/nonexistent/config.toml"), |folder| folder.path().join("config.toml"));
        Settings::load(&file, &|name| self.environment.get(name).cloned(), &self.flags)
    }

    fn refusal(&self) -> String {
        let failure = self.load().unwrap_err();
        assert_eq!(failure.exit, ExitCode::ConfigInvalid, "{failure}");
        failure.message
    }
}

#[test]
fn without_any_source_the_defaults_count() {
    let settings = Sources::default().load().unwrap();
    assert_eq!(settings.orchestratord.addr.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.orchestratord.node_timeout, Duration::from_secs(30));
    assert_eq!(settings.orchestratord.placement_strategy, PlacementStrategy::Affinity);
    assert_eq!(settings.pool_managerd.addr.to_string(), "127.0.0.1:9200");
    assert_eq!(settings.pool_managerd.heartbeat_interval, Duration::from_secs(10));
    assert_eq!(settings.limits.body, ByteCount::from_mib(32));
    assert_eq!((settings.limits.queue, settings.limits.retries), (128, 2));
    assert_eq!(settings.limits.full_policy, FullPolicy::Reject);
    assert_eq!(settings.limits.drain, Duration::from_secs(4));
    assert!(settings.auth.tokens.is_empty());
    assert!(!settings.capture_bodies && !settings.workflow_allow_run);
}

#[test]
fn every_key_tells_where_its_value_came_from() {
    let settings =
        Sources::file("[orchestratord]\naddr = '127.0.0.1:1'\nnode_timeout_ms = 20000\n[limits]\nqueue = 7")
            .environment("ORCHESTRATORD_ADDR", "127.0.0.1:2")
            .environment("ORCHESTRATORD_NODE_TIMEOUT_MS", "25000")
            .flag("orchestratord.addr", "127.0.0.1:3")
            .load()
            .unwrap();
    assert_eq!(settings.orchestratord.addr.port(), 3);
    assert_eq!(settings.origin("orchestratord.addr"), Some(Origin::Flag));
    assert_eq!(settings.orchestratord.node_timeout, Duration::from_secs(25));
    assert_eq!(settings.origin("orchestratord.node_timeout_ms"), Some(Origin::Environment));
    assert_eq!(settings.limits.queue, 7);
    assert_eq!(settings.origin("limits.queue"), Some(Origin::File));
    assert_eq!(settings.origin("limits.retries"), Some(Origin::Default));
    assert_eq!(settings.origin("limits.nonsense"), None);
}

#[test]
fn every_key_of_the_table_is_read() {
    let settings = Sources::default().load().unwrap();
    let mut read: Vec<_> = settings.values().iter().map(|value| value.key).collect();
    let mut known: Vec<_> = KEYS.iter().map(|key| key.path).collect();
    read.sort_unstable();
    known.sort_unstable();
    assert_eq!(read, known);
}

#[test]
fn an_empty_variable_counts_as_none() {
    let settings = Sources::default().environment("ORCHESTRATORD_ADDR", " ").load().unwrap();
    assert_eq!(settings.origin("orchestratord.addr"), Some(Origin::Default));
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    let message = Sources::file("[limits]\nqueu = 3\n[orchestrator]\naddr = 'x'").refusal();
    assert!(message.contains("limits.queu is no setting; did you mean limits.queue?"), "{message}");
    assert!(message.contains("orchestrator is no setting; did you mean orchestratord?"), "{message}");
    let message = Sources::default().flag("limits.nothing_like_it", "1").refusal();
    assert!(message.contains("limits.nothing_like_it is no setting"), "{message}");
}

#[test]
fn a_zero_is_refused_for_every_number() {
    for key in KEYS.iter().filter(|key| matches!(key.kind, SettingKind::Number { .. })) {
        let message = Sources::file(format!("[{}]\n{} = 0", key.section(), key.name())).refusal();
        assert!(message.contains(&format!("{} must not be zero", key.path)), "{message}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_for_every_key() {
    for key in KEYS {
        let wrong =
            if matches!(key.kind, SettingKind::Number { .. } | SettingKind::Flag) { "'many'" } else { "-1" };
        let message = Sources::file(format!("[{}]\n{} = {wrong}", key.section(), key.name())).refusal();
        assert!(message.contains(key.path), "{message}");
    }
}

#[test]
fn all_problems_are_told_at_once_with_the_variable_they_came_from() {
    let message = Sources::file("[limits]\nqueue = 0\nretries = -1")
        .environment("ORCHESTRATORD_NODE_TIMEOUT_MS", "soon")
        .refusal();
    assert!(message.contains("limits.queue") && message.contains("limits.retries"), "{message}");
    assert!(message.contains("(from ORCHESTRATORD_NODE_TIMEOUT_MS)"), "{message}");
}

#[test]
fn contradictions_are_refused() {
    let cases = [
        ("[orchestratord]\nnode_timeout_ms = 10000", "pool_managerd.heartbeat_interval_ms"),
        ("[orchestratord]\naddr = '127.0.0.1:9200'", "pool_managerd.addr"),
        ("[orchestratord]\ntls_cert = 'a.pem'", "orchestratord.tls_cert is set without"),
        ("[orchestratord]\ntls_key = 'a.pem'", "orchestratord.tls_key is set without"),
        ("[orchestratord]\nstore = 'postgres://x'\nstore_file = 'f'", "orchestratord.store_file and"),
        ("[auth]\nhosts = ['http://box']", "auth.hosts"),
        ("[auth]\ncors_origins = ['*']", "auth.cors_origins"),
        ("[auth]\ncors_origins = ['https://chat.example/path']", "auth.cors_origins"),
        ("[pool_managerd]\nadvertise = 'box:9200'", "pool_managerd.advertise"),
        ("[pool_managerd]\nnode_id = 'a/b'", "pool_managerd.node_id"),
    ];
    for (file, expected) in cases {
        let message = Sources::file(file).refusal();
        assert!(message.contains(expected), "{file}: {message}");
    }
}

#[test]
fn what_is_not_built_yet_is_refused_and_says_so() {
    for file in [
        "[orchestratord]\nstore = 'postgres://user:hunter2@db/orch'",
        "[orchestratord]\ncloud_profile = true",
    ] {
        let message = Sources::file(file).refusal();
        assert!(message.contains("not built yet"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let message = Sources::file("[orchestratord]\nstore_file = 'secret'")
        .and_file("secret", "postgresql://user:hunter2@db/orch\n")
        .refusal();
    assert!(
        message.contains("orchestratord.store_file names PostgreSQL, which is not built yet"),
        "{message}"
    );
}

#[test]
fn a_certificate_lies_beside_the_settings_unless_its_path_is_whole() {
    assert_eq!(Sources::file("").load().unwrap().orchestratord.tls, None);
    let sources = Sources::file("[orchestratord]\ntls_cert = 'c.pem'\ntls_key = '/keys/k.pem'");
    let files = sources.load().unwrap().orchestratord.tls.unwrap();
    assert!(files.cert.is_absolute() && files.cert.ends_with("c.pem"), "{files:?}");
    assert_eq!(files.key, std::path::Path::new("/keys/k.pem"));
}

#[test]
fn tokens_come_from_the_environment_and_from_a_file() {
    let sources = Sources::file("[auth]\ntokens_file = 'tokens'")
        .and_file("tokens", "# rotated in spring\nfrom-file\n")
        .environment("LLORCH_API_TOKEN", "one, two");
    let settings = sources.load().unwrap();
    let secrets: Vec<_> = settings.auth.tokens.iter().map(crate::Token::secret).collect();
    assert_eq!(secrets, ["one", "two", "from-file"]);
    assert!(!format!("{settings:?}").contains("from-file"));
}

#[test]
fn a_token_file_without_tokens_is_refused() {
    let empty = Sources::file("[auth]\ntokens_file = 'tokens'").and_file("tokens", "# none\n").refusal();
    assert!(empty.contains("auth.tokens_file names a file that holds no token"), "{empty}");
    let absent = Sources::file("[auth]\ntokens_file = 'tokens'").refusal();
    assert!(absent.contains("it does not exist"), "{absent}");
}

#[test]
fn routes_are_read_and_their_mistakes_named() {
    let good = "[providers.far]\nkind = 'openai'\nmodels = ['m']\n[routes.fast]\nto = ['chat', 'far/m']\n\
                set = { temperature = 0.2, chat_template_kwargs = { enable_thinking = false } }\n\
                default = { max_tokens = 64 }\nstrip = ['logit_bias']\n[routes.chat]\nstrip = 'seed'";
    let settings = Sources::file(good).load().unwrap();
    let fast = &settings.routes["fast"];
    assert_eq!(fast.to, ["chat", "far/m"]);
    assert_eq!(fast.set["chat_template_kwargs"]["enable_thinking"], false);
    assert_eq!((&fast.default["max_tokens"], &fast.strip), (&64.into(), &vec!["logit_bias".to_owned()]));
    assert_eq!(
        (&settings.routes["chat"].to, &settings.routes["chat"].strip),
        (&vec!["chat".to_owned()], &vec!["seed".to_owned()])
    );
    for (text, problem) in [
        ("routes = 3", "routes has to hold tables"),
        ("[routes.fast]\nto = []", "routes.fast.to has to name 1 to 16"),
        ("[routes.fast]\nto = ['']", "routes.fast.to has to be a list of texts"),
        ("[routes.fast]\nset = { model = 'x' }", "routes.fast cannot change `model`"),
        ("[routes.fast]\nset = { a = 1979-05-27 }", "routes.fast.set holds a time"),
        ("[routes.fast]\nstirp = ['x']", "did you mean routes.fast.strip?"),
        ("[routes.'']\nto = ['a']", "has to be a name"),
        (
            "[providers.far]\nkind = 'openai'\nmodels = ['m']\n[routes.fast]\nto = ['far/n']",
            "routes.fast.to names n, which is not among providers.far.models",
        ),
    ] {
        let refusal = Sources::file(text).refusal();
        assert!(refusal.contains(problem), "{text}: {refusal}");
    }
}

#[test]
fn providers_are_read_and_their_mistakes_named() {
    let good = "[providers.far]\nkind = 'openai'\nbase_url = 'https://far.example/v1'\napi_key_env = 'FAR_KEY'\nmodels = ['m']";
    let settings = Sources::file(good).load().unwrap();
    assert_eq!(settings.providers["far"].models, ["m"]);
    for (file, expected) in [
        ("[providers.far]", "providers.far.kind is missing"),
        ("[providers.far]\nkind = 'carrier-pigeon'", "providers.far.kind has to be one of"),
        ("[providers.far]\nkind = 'openai'\nbase_ulr = 'x'", "did you mean providers.far.base_url?"),
        ("[providers.far]\nkind = 'openai'\napi_key_env = 'sk-123'", "not the key itself"),
        ("providers = 3", "providers has to hold tables"),
    ] {
        let message = Sources::file(file).refusal();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("sk-123"), "{message}");
    }
}

#[test]
fn localhost_is_an_address() {
    let settings = Sources::default().flag("orchestratord.addr", "localhost:9").load().unwrap();
    assert_eq!(settings.orchestratord.addr.to_string(), "127.0.0.1:9");
}

#[test]
fn a_file_with_a_byte_order_mark_and_windows_line_ends_is_read() {
    let settings = Sources::file("\u{feff}[limits]\r\nqueue = 5\r\n").load().unwrap();
    assert_eq!(settings.limits.queue, 5);
}

#[test]
fn a_file_that_is_no_toml_is_a_parse_error() {
    for content in [&b"[limits"[..], b"\xff\xfe", &vec![b'#'; MAX_FILE as usize + 1]] {
        let failure = Sources::file(content).load().unwrap_err();
        assert_eq!(failure.exit, ExitCode::ConfigParse, "{failure}");
    }
}

#[test]
fn a_parse_error_names_its_line() {
    let failure = Sources::file("[limits]\nqueue = 1\nretries = = 2\n").load().unwrap_err();
    assert!(failure.message.contains("config.toml, line 3: "), "{failure}");
}

#[test]
fn the_schema_lists_every_key_with_its_default() {
    let schema = Settings::json_schema();
    for key in KEYS {
        let property = &schema["properties"][key.section()]["properties"][key.name()];
        assert_eq!(property["description"], key.meaning, "{}", key.path);
        assert_eq!(property.get("default").is_some(), key.default.is_some(), "{}", key.path);
    }
    assert_eq!(schema["properties"]["limits"]["properties"]["queue"]["default"], 128);
}

#[test]
fn only_known_variables_are_asked_for() {
    for name in KEYS.iter().filter_map(|key| key.variable) {
        assert!(environment::ALL.iter().any(|variable| variable.name == name), "{name}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(content in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Sources::file(&content).load();
    }

    #[test]
    fn arbitrary_values_of_known_keys_never_panic(
        index in 0..KEYS.len(),
        value in prop_oneof!["\\PC{0,40}", "-?[0-9]{1,25}", "[a-z0-9.:/,\\[\\]@*-]{0,40}"],
    ) {
        let key = &KEYS[index];
        let written = toml::Value::String(value.clone());
        let _ = Sources::file(format!("[{}]\n{} = {written}", key.section(), key.name())).load();
        let _ = Sources::file(format!("[{}]\n{} = {value}", key.section(), key.name())).load();
        let _ = Sources::default().flag(key.path, &value).load();
    }

    #[test]
    fn arbitrary_keys_never_panic(section in "\\PC{0,20}", name in "\\PC{0,200}") {
        let table = toml::toml! { x = 1 };
        let mut file = toml::Table::new();
        file.insert(section, toml::Value::Table([(name, table["x"].clone())].into_iter().collect()));
        let _ = Sources::file(file.to_string()).load();
    }
}
