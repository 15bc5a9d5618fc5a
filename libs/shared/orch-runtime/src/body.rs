//! Reading a request's body with a limit on its size and on the sender's pauses.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use thiserror::Error;

/// A body whose length is not announced grows from here.
const FIRST_CHUNK: usize = 16 * 1024;

/// Why a body could not be read.
#[derive(Debug, Error)]
pub enum BodyError<E> {
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the body stopped arriving")]
    Stalled,
    #[error("the body broke off")]
    Broken(#[source] E),
}

/// Reads a whole body of at most `limit` bytes, none of them more than `idle` after the one before.
///
/// An announced length over the limit is refused before anything is read. A body that arrives in one piece is
/// handed on without a copy.
pub async fn read_body<B>(body: B, limit: u64, idle: Duration) -> Result<Bytes, BodyError<B::Error>>
where
    B: Body<Data = Bytes>,
{
    let announced = body.size_hint();
    if announced.lower() > limit {
        return Err(BodyError::TooLarge { limit });
    }
    let mut body = std::pin::pin!(body);
    let Some(first) = next_data(body.as_mut(), idle).await? else { return Ok(Bytes::new()) };
    if body.is_end_stream() && first.len() as u64 <= limit {
        return Ok(first);
    }
    let room = announced.exact().and_then(|length| usize::try_from(length).ok()).unwrap_or(FIRST_CHUNK);
    let mut whole = BytesMut::with_capacity(room.max(first.len()));
    let mut next = Some(first);
    while let Some(data) = next {
        if (whole.len() + data.len()) as u64 > limit {
            return Err(BodyError::TooLarge { limit });
        }
        whole.extend_from_slice(&data);
        next = next_data(body.as_mut(), idle).await?;
    }
    Ok(whole.freeze())
}

/// The next piece of data; trailers are passed over.
async fn next_data<B>(
    mut body: std::pin::Pin<&mut B>,
    idle: Duration,
) -> Result<Option<Bytes>, BodyError<B::Error>>
where
    B: Body<Data = Bytes>,
{
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| BodyError::Stalled)?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(BodyError::Broken(error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::{StreamExt, stream};
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    const IDLE: Duration = Duration::from_secs(5);

    /// Pieces of a body, each after a pause.
    fn pieces(
        pieces: &[&'static str],
        pause: Duration,
    ) -> impl Body<Data = Bytes, Error = Infallible> + use<> {
        let frames = stream::iter(pieces.to_vec()).then(move |piece| async move {
            tokio::time::sleep(pause).await;
            Ok(Frame::data(Bytes::from_static(piece.as_bytes())))
        });
        StreamBody::new(frames)
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_handed_on_without_a_copy() {
        let piece = Bytes::from_static(b"one piece");
        let read = read_body(Full::new(piece.clone()), 9, IDLE).await.unwrap();
        assert_eq!(read.as_ptr(), piece.as_ptr());
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_are_joined_however_long_they_take_together() {
        let body = pieces(&["a", "", "bc", "d"], Duration::from_millis(4999));
        assert_eq!(read_body(body, 4, IDLE).await.unwrap(), "abcd");
        assert_eq!(read_body(pieces(&[], IDLE), 0, IDLE).await.unwrap(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_over_the_limit_is_refused_announced_or_not() {
        let announced = read_body(Full::from("12345"), 4, IDLE).await;
        assert!(matches!(announced, Err(BodyError::TooLarge { limit: 4 })));
        let unannounced = read_body(pieces(&["123", "45"], Duration::ZERO), 4, IDLE).await;
        assert!(matches!(unannounced, Err(BodyError::TooLarge { limit: 4 })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_stops_is_not_waited_for() {
        let body = pieces(&["a", "b"], IDLE + Duration::from_secs(1));
        assert!(matches!(read_body(body, 9, IDLE).await, Err(BodyError::Stalled)));
    }
}
