//! The server's certificate, taken over when its files change: a renewal needs no restart.

use std::net::SocketAddr;
use std::time::Duration;

use orch_runtime::{Tasks, TlsIdentity};

/// How often the files are looked at.
const LOOK_PACE: Duration = Duration::from_secs(1);

/// Keeps up with the files of a certificate; without one, others that can reach the server are a reason to warn.
pub(crate) fn keep(identity: Option<TlsIdentity>, address: SocketAddr, tasks: &Tasks) {
    match identity {
        Some(identity) => drop(tasks.spawn("certificate", keep_current(identity, tasks.clone()))),
        None if address.ip().to_canonical().is_loopback() => {}
        None => tracing::warn!(
            %address,
            "others can reach this address and TLS is off: keys and prompts travel in the clear; see \
             orchestratord.tls_cert"
        ),
    }
}

/// Looks until the daemon ends. What cannot be used is told once, and the certificate that was known stays.
async fn keep_current(identity: TlsIdentity, owner: Tasks) {
    let ends = owner.token();
    let mut trouble = None;
    loop {
        tokio::select! {
            () = ends.cancelled() => return,
            () = tokio::time::sleep(LOOK_PACE) => {}
        }
        let looked = identity.clone();
        match owner.spawn_blocking("certificate", move || looked.reload()).await {
            Ok(Ok(changed)) => {
                trouble = None;
                if changed {
                    tracing::info!("new connections get the certificate that was just put there");
                }
            }
            Ok(Err(why)) => {
                if trouble.as_ref() != Some(&why) {
                    tracing::warn!(
                        "the certificate cannot be read again: {why}; the one that was known stays"
                    );
                }
                trouble = Some(why);
            }
            Err(_) => return,
        }
    }
}
