//! HTTP clients, made when they are first needed: reading the system's certificates takes longer than many a
//! command.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url, redirect};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const IDLE_LIMIT: Duration = Duration::from_secs(60);
const AGENT: &str = concat!("llama-orch/", env!("CARGO_PKG_VERSION"));

/// One client for each way to a server; each keeps its connections open.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// This machine: no proxy, no TLS.
    here: OnceLock<Client>,
    /// Elsewhere without TLS.
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
}

impl Clients {
    /// The client for this address.
    pub(crate) fn client(&self, url: &Url) -> Result<&Client, reqwest::Error> {
        match url.scheme() {
            "https" => first_made(&self.tls, || builder().build()),
            _ if is_here(url) => first_made(&self.here, || without_tls(builder()).no_proxy().build()),
            _ => first_made(&self.plain, || without_tls(builder()).build()),
        }
    }
}

pub(crate) fn first_made(
    place: &OnceLock<Client>,
    make: impl FnOnce() -> Result<Client, reqwest::Error>,
) -> Result<&Client, reqwest::Error> {
    if let Some(client) = place.get() {
        return Ok(client);
    }
    let client = make()?;
    // Somebody else may have been quicker.
    Ok(place.get_or_init(|| client))
}

/// What all clients have in common.
pub(crate) fn builder() -> ClientBuilder {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Two may come here at once; the second's failure means that the first has done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .pool_idle_timeout(IDLE_LIMIT)
        .user_agent(AGENT)
        // What is sent with a key goes nowhere but where the user said.
        .redirect(redirect::Policy::none())
}

/// Without certificates there is nothing to read.
fn without_tls(builder: ClientBuilder) -> ClientBuilder {
    builder.tls_certs_only([])
}

fn is_here(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_reached_without_a_proxy() {
        for (url, here) in [
            ("http://localhost:1/v1", true),
            ("http://127.0.0.2/", true),
            ("http://[::1]:9/", true),
            ("http://10.0.0.1/", false),
            ("http://localhost.example.org/", false),
        ] {
            assert_eq!(is_here(&Url::parse(url).unwrap()), here, "{url}");
        }
    }

    #[test]
    fn a_client_without_tls_reads_no_certificates() {
        let clients = Clients::default();
        clients.client(&Url::parse("http://127.0.0.1:1/").unwrap()).unwrap();
        assert!(clients.here.get().is_some());
        assert!(clients.tls.get().is_none() && clients.plain.get().is_none());
    }
}
