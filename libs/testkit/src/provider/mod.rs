//! A provider of text that is not one: it speaks OpenAI's two protocols, Anthropic's and Ollama's on a real
//! socket, answers with functions of the prompt, counts, and misbehaves on request.

mod answer;
mod asked;
mod connection;
mod ledger;
mod schema;
mod script;
mod serve;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use ledger::{ProviderStats, SeenRequest};
pub use script::{Fault, Rule, Script, ToolCall};

use ledger::Ledger;

/// A running fake provider, with a thread of its own. It ends when dropped.
///
/// `GET /stats` and `GET /requests` tell what it saw, `POST /script` replaces the script. A path that is in no
/// dialect is answered with the request itself, as JSON.
pub struct FakeProvider {
    address: SocketAddr,
    ledger: Arc<Ledger>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeProvider {
    /// On a free loopback port.
    pub fn start(script: Script) -> Self {
        Self::start_at(0, script).expect("loopback has a free port")
    }

    /// On this loopback port.
    pub fn start_at(port: u16, script: Script) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ledger = Arc::new(Ledger::new(script));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&ledger);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener that does not block");
                tokio::select! {
                    () = serve::serve(listener, shared) => {}
                    // Dropped is told as well.
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, ledger, stop: Some(stop), thread: Some(thread) })
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set_script(&self, script: Script) {
        self.ledger.set_script(script);
    }

    pub fn stats(&self) -> ProviderStats {
        self.ledger.stats()
    }

    /// The latest requests, oldest first.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.ledger.seen()
    }

    /// How many requests came whose prompt contains `part`.
    pub fn count(&self, part: &str) -> u64 {
        let prompts = self.ledger.stats().prompts;
        prompts.iter().filter(|(prompt, _)| prompt.contains(part)).map(|(_, count)| count).sum()
    }
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Gone already is as good.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; a second one here would hide the test's own.
            let _ = thread.join();
        }
    }
}
