//! How commands find a control plane: the daemon of their home, or one elsewhere.

use std::ops::Deref;

use orch_api::Client;
use orch_core::{Failure, HomeLayout};
use pool_managerd::daemon_file;

/// A control plane that commands ask: see [`Client`] for what can be asked.
#[derive(Clone)]
pub struct DaemonClient {
    client: Client,
    /// Whose daemon it is, if it was found by its home.
    home: Option<HomeLayout>,
}

impl DaemonClient {
    /// The living daemon of this home.
    pub fn living(home: &HomeLayout) -> Option<Self> {
        let file = daemon_file::living(home)?;
        let address = file.connect_address();
        let client = Client::new(address.ip().to_string(), address.port(), Some(file.token));
        Some(Self { client, home: Some(home.clone()) })
    }

    /// A control plane elsewhere: `http://host:port`.
    pub fn remote(url: &str, token: Option<String>) -> Result<Self, Failure> {
        Ok(Self { client: Client::remote(url, token)?, home: None })
    }

    /// Whether it is the daemon of a home here, and not a control plane elsewhere.
    pub fn is_of_home(&self) -> bool {
        self.home.is_some()
    }

    /// The daemon that lives in the same home now: after a restart it has another token, and maybe another address.
    /// `None` while there is none, and of a control plane elsewhere.
    #[must_use]
    pub fn renewed(&self) -> Option<Self> {
        self.home.as_ref().and_then(Self::living)
    }
}

impl Deref for DaemonClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
