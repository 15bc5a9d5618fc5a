//! Everything that can stand between a client and the same small model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{free_port, http, python_in, real_llama_server, wait_for};

use super::ours::API_KEY;
use super::processes::children;
use crate::setup::is_root;

/// The model's name everywhere: the instance's, and for llama.cpp's router the file's.
pub(super) const MODEL: &str = "tiny";
/// Slots of every engine, so that four connections never wait for one.
pub(super) const SLOTS: u32 = 4;
pub(super) const CHAT: &str = "/v1/chat/completions";

/// One way to the model.
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) address: String,
    /// The processes that are the price of this way, engines not among them.
    pub(super) pids: Vec<u32>,
    /// Kept for as long as it is measured.
    _process: Option<Running>,
}

impl Contender {
    /// One that somebody else has started and will stop.
    pub(super) fn started(name: &'static str, address: String, pids: Vec<u32>) -> Self {
        Self { name, address, pids, _process: None }
    }

    /// nginx in front of the engine at `upstream`, tuned for this: one worker (more only take turns on few cores),
    /// connections kept on both sides, no buffering of streams, no access log. It may send a POST twice: the engine
    /// closes connections after streams without a word, and nginx answers 502 now and then when it may not.
    pub(super) fn nginx(folder: &Path, upstream: &str) -> Result<Self> {
        let folder = folder.join("nginx");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let address = format!("127.0.0.1:{}", free_port());
        let config = folder.join("nginx.conf");
        fs::write(&config, nginx_config(&folder, &address, upstream))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(&config).arg("-e").arg(folder.join("error.log"));
        let process = Running::start(command, &folder.join("output.log"))?;
        wait_until_it_chats("nginx", &address);
        let mut pids = vec![process.pid()];
        pids.extend(children(process.pid())?);
        Ok(Self { name: "nginx", address, pids, _process: Some(process) })
    }

    /// LiteLLM's proxy in front of the engine at `upstream`: one worker, no database, no log of requests.
    pub(super) fn litellm(folder: &Path, upstream: &str, environment: &Path) -> Result<Self> {
        let config = folder.join("litellm.yaml");
        let text = format!(
            "model_list:\n- model_name: {MODEL}\n  litellm_params:\n    model: openai/{MODEL}\n    \
             api_base: http://{upstream}/v1\n    api_key: none\ngeneral_settings:\n  master_key: {API_KEY}\n"
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let port = free_port();
        let mut command = Command::new(python_in(environment));
        command.args(["-m", "litellm.proxy.proxy_cli", "--host", "127.0.0.1", "--num_workers", "1"]);
        command.args(["--port", &port.to_string(), "--config"]).arg(&config);
        command.env("HOME", folder).env("LITELLM_LOG", "ERROR").env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
        let process = Running::start(command, &folder.join("litellm.log"))?;
        let address = format!("127.0.0.1:{port}");
        wait_until_it_chats("LiteLLM", &address);
        let mut pids = vec![process.pid()];
        pids.extend(children(process.pid())?);
        Ok(Self { name: "LiteLLM", address, pids, _process: Some(process) })
    }

    /// llama.cpp's own router, with an engine of its own that it starts for the first request.
    pub(super) fn llama_cpp_router(folder: &Path, model: &Path) -> Result<Self> {
        let models = folder.join("router");
        fs::create_dir_all(&models).with_context(|| format!("cannot make {}", models.display()))?;
        fs::copy(model, models.join(format!("{MODEL}.gguf"))).context("the model cannot be copied")?;
        let port = free_port();
        let mut command = Command::new(real_llama_server());
        command.arg("--models-dir").arg(&models).args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(ENGINE_FLAGS).args(["--parallel", &SLOTS.to_string()]);
        command.env("XDG_CONFIG_HOME", folder);
        let process = Running::start(command, &folder.join("router.log"))?;
        let address = format!("127.0.0.1:{port}");
        wait_until_it_chats("llama.cpp's router", &address);
        Ok(Self { name: "llama.cpp router", address, pids: vec![process.pid()], _process: Some(process) })
    }
}

/// What llama-orch passes to its engine too, where it makes a difference. An engine's threads spin while they wait
/// for each other: with more than one, two cores would measure little else.
const ENGINE_FLAGS: [&str; 11] = [
    "--threads",
    "1",
    "--ctx-size",
    "2048",
    "--batch-size",
    "512",
    "--device",
    "none",
    "--n-gpu-layers",
    "0",
    "--metrics",
];

/// A chat of `tokens` tokens, streamed or not.
pub(super) fn chat(tokens: u32, stream: bool) -> String {
    format!(
        r#"{{"model":"{MODEL}","max_tokens":{tokens},"stream":{stream},"temperature":0,"messages":[{{"role":"user","content":"hi"}}]}}"#
    )
}

fn wait_until_it_chats(name: &str, address: &str) {
    let authorization = format!("Bearer {API_KEY}");
    let headers = [("content-type", "application/json"), ("authorization", authorization.as_str())];
    wait_for(&format!("an answer through {name}"), Duration::from_secs(60), || {
        let reply = http::request(address, "POST", CHAT, &headers, chat(1, false).as_bytes());
        reply.is_ok_and(|reply| reply.status == 200)
    });
}

fn nginx_config(folder: &Path, address: &str, upstream: &str) -> String {
    // A worker of root's would become somebody who may not enter our private folder.
    let user = if is_root() { "user root;\n" } else { "" };
    let folder = folder.display();
    format!(
        "{user}daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  upstream engine {{ server {upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering off;
      proxy_next_upstream error timeout non_idempotent;
    }}
  }}
}}
"
    )
}

/// A child that is asked to end, and made to if it does not, when it is no longer needed.
struct Running {
    child: Child,
}

impl Running {
    fn start(mut command: Command, log: &PathBuf) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().context("an open file can be cloned")?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn().with_context(|| format!("{program} does not start"))?;
        Ok(Self { child })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // nginx and the router end their own children when asked. Gone already is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
