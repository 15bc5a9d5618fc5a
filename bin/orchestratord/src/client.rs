//! How commands find a control plane: the daemon of their home, or one elsewhere.

use std::ops::Deref;

use orch_api::Client;
use orch_core::{Failure, HomeLayout};
use pool_managerd::daemon_file;

/// A control plane that commands ask: see [`Client`] for what can be asked.
#[derive(Clone)]
pub struct DaemonClient {
    client: Client,
}

impl DaemonClient {
    /// The living daemon of this home.
    pub fn living(home: &HomeLayout) -> Option<Self> {
        let file = daemon_file::living(home)?;
        let address = file.connect_address();
        let client = Client::new(address.ip().to_string(), address.port(), Some(file.token));
        Some(Self { client })
    }

    /// A control plane elsewhere: `http://host:port`.
    pub fn remote(url: &str, token: Option<String>) -> Result<Self, Failure> {
        Ok(Self { client: Client::remote(url, token)? })
    }
}

impl Deref for DaemonClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
