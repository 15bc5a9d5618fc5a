//! Who the server is: a certificate and its key, read from files and read again when they change.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use orch_core::{ExitCode, Failure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Far above any chain of certificates.
const MAX_FILE: u64 = 1024 * 1024;

/// Where certificate and key lie, both as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that vouch for it.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A certificate with its key, for new connections; those that stand keep what they began with. Clones share it.
#[derive(Clone)]
pub struct TlsIdentity {
    files: TlsFiles,
    current: Arc<ArcSwap<Loaded>>,
}

struct Loaded {
    /// What the files held.
    pem: (Vec<u8>, Vec<u8>),
    config: Arc<ServerConfig>,
}

impl TlsIdentity {
    /// Reads the files. What is wrong with them is told with the setting that names them.
    pub fn load(files: TlsFiles) -> Result<Self, Failure> {
        let loaded = read(&files).and_then(load).map_err(|why| {
            let message = format!("orchestratord.tls_cert and orchestratord.tls_key cannot be used: {why}");
            Failure::new(ExitCode::ConfigInvalid, message)
        })?;
        Ok(Self { files, current: Arc::new(ArcSwap::from_pointee(loaded)) })
    }

    /// Reads the files again. Whether they have changed; or why what they hold now cannot be used, in which case the
    /// certificate that was known stays in use.
    pub fn reload(&self) -> Result<bool, String> {
        let pem = read(&self.files)?;
        if self.current.load().pem == pem {
            return Ok(false);
        }
        self.current.store(Arc::new(load(pem)?));
        Ok(true)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.load().config).into()
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity").field("files", &self.files).finish_non_exhaustive()
    }
}

fn read(files: &TlsFiles) -> Result<(Vec<u8>, Vec<u8>), String> {
    let read = |path: &Path| read_file(path).map_err(|error| format!("{}: {error}", path.display()));
    Ok((read(&files.cert)?, read(&files.key)?))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if read as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than a certificate can be"));
    }
    Ok(content)
}

/// TLS 1.2 and 1.3, HTTP/1.1, no certificates of clients: those have keys.
fn load(pem: (Vec<u8>, Vec<u8>)) -> Result<Loaded, String> {
    let chain = CertificateDer::pem_slice_iter(&pem.0)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    if chain.is_empty() {
        return Err("the certificate file holds no certificate".to_owned());
    }
    // The error may repeat what it could not read, which here is a secret.
    let key = PrivateKeyDer::from_pem_slice(&pem.1).map_err(|_| "the key file holds no key in PEM form")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("certificate and key do not go together: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded { pem, config: Arc::new(config) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, cert: &str, key: &str) -> TlsFiles {
        let files = TlsFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        std::fs::write(&files.cert, cert).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn files_that_cannot_be_used_are_refused_without_repeating_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let ((cert, key), (_, other)) = (made(), made());
        for (cert, key, why) in [
            ("", key.as_str(), "holds no certificate"),
            (&cert, "", "holds no key"),
            (&cert, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n", "holds no key"),
            (&cert, &other, "do not go together"),
        ] {
            let failure = TlsIdentity::load(write(folder.path(), cert, key)).unwrap_err();
            assert_eq!(failure.exit, ExitCode::ConfigInvalid);
            assert!(failure.message.contains(why) && !failure.message.contains("c2VjcmV0"), "{failure}");
        }
        let missing = TlsFiles { cert: folder.path().join("none.pem"), key: folder.path().join("none.pem") };
        assert!(TlsIdentity::load(missing).unwrap_err().message.contains("none.pem"));
    }

    #[test]
    fn a_change_is_taken_over_when_it_is_whole_and_until_then_the_old_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let ((cert, key), (next_cert, next_key)) = (made(), made());
        let identity = TlsIdentity::load(write(folder.path(), &cert, &key)).unwrap();
        assert_eq!(identity.reload(), Ok(false));
        write(folder.path(), &next_cert, &key);
        assert!(identity.reload().unwrap_err().contains("do not go together"));
        assert_eq!(identity.current.load().pem.0, cert.as_bytes());
        write(folder.path(), &next_cert, &next_key);
        assert_eq!(identity.reload(), Ok(true));
        assert_eq!(identity.reload(), Ok(false));
    }
}
