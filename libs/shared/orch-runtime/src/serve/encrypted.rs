//! The beginning of a connection where TLS is spoken.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::TlsIdentity;

/// The first byte of every TLS handshake.
const HANDSHAKE: u8 = 0x16;
/// For whoever typed `http://`.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
content-length: 41\r\n\r\nThis server speaks HTTPS: use https://...";

/// A connection that requests may come over.
pub(super) enum Secured {
    Encrypted(Box<TlsStream<TcpStream>>),
    /// Plain, from a program of this machine.
    Near(TcpStream),
}

/// Shakes hands. Nothing when the client does not, is not done within the limit, or the server ends.
pub(super) async fn secure(
    stream: TcpStream,
    identity: &TlsIdentity,
    limit: Duration,
    drain: &CancellationToken,
) -> Option<Secured> {
    tokio::select! {
        () = drain.cancelled() => None,
        secured = tokio::time::timeout(limit, begin(stream, identity)) => match secured {
            Ok(Ok(secured)) => Some(secured),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS connection came about");
                None
            }
            Err(_) => None,
        },
    }
}

async fn begin(mut stream: TcpStream, identity: &TlsIdentity) -> std::io::Result<Secured> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] == HANDSHAKE {
        return Ok(Secured::Encrypted(Box::new(identity.acceptor().accept(stream).await?)));
    }
    if is_near(stream.peer_addr()?, stream.local_addr()?) {
        return Ok(Secured::Near(stream));
    }
    stream.write_all(SPEAK_TLS).await?;
    stream.shutdown().await?;
    Err(std::io::Error::other("plain HTTP from another machine"))
}

/// Whether both ends are on this machine.
fn is_near(peer: SocketAddr, own: SocketAddr) -> bool {
    let (peer, own) = (peer.ip().to_canonical(), own.ip().to_canonical());
    peer.is_loopback() || peer == own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_this_machine_are_near() {
        let near = |peer: &str, own: &str| is_near(peer.parse().unwrap(), own.parse().unwrap());
        assert!(near("127.0.0.1:4000", "127.0.0.1:80"));
        assert!(near("[::ffff:127.0.0.1]:4000", "[::]:80"));
        assert!(near("192.168.1.5:4000", "192.168.1.5:80"));
        assert!(!near("192.168.1.6:4000", "192.168.1.5:80"));
        assert!(!near("[2001:db8::1]:4000", "[2001:db8::2]:80"));
    }

    #[test]
    fn the_word_for_plain_clients_has_the_length_that_it_tells() {
        let text = std::str::from_utf8(SPEAK_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{text}");
    }
}
