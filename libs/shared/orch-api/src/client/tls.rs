//! TLS to a control plane elsewhere: its certificate has to be vouched for by an authority of this machine.

use std::io;
use std::sync::Arc;

use orch_core::{ExitCode, Failure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whom a client believes. Clones share it.
#[derive(Clone)]
pub(super) struct Trust {
    connector: TlsConnector,
    server: ServerName<'static>,
}

impl Trust {
    /// The authorities of the system; those of `SSL_CERT_FILE` or `SSL_CERT_DIR` in their place where one is set.
    pub(super) fn of_this_machine(host: &str) -> Result<Self, Failure> {
        let server = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::new(ExitCode::Usage, format!("{host} is no name of a server")))?;
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map_or(String::new(), |error| format!(": {error}"));
            return Err(Failure::new(
                ExitCode::General,
                format!("no certificate authorities are known{why}"),
            )
            .hint("install the system's ca-certificates, or name a PEM file in SSL_CERT_FILE"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(ExitCode::General, format!("TLS cannot be spoken: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { connector: Arc::new(config).into(), server })
    }

    pub(super) async fn secure(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.server.clone(), stream).await
    }
}
