//! HTTP/1.1 as bytes: writing a request's head, reading an answer's head, and finding the end of its body
//! (RFC 9112). Every step is bounded, and wrong bytes from an engine are an error, never a panic.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, response};

/// A longer head of an answer, or longer trailers, are refused.
const HEAD_LIMIT: usize = 64 * 1024;
/// So are more headers.
const HEADER_COUNT: usize = 96;
/// The line before a chunk, extensions included.
const CHUNK_LINE_LIMIT: usize = 4 * 1024;

/// The engine said something that is not HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The head of a request, borrowed from where its parts live.
pub(crate) struct RequestHead<'r> {
    pub(crate) method: &'r Method,
    /// Path and query.
    pub(crate) target: &'r str,
    /// The client's headers, without those that frame the message.
    pub(crate) headers: &'r HeaderMap,
    /// Headers that come from here.
    pub(crate) own: &'r [(HeaderName, &'r HeaderValue)],
}

/// Writes a head in front of a body of the given length.
pub(super) fn write_head(out: &mut Vec<u8>, head: &RequestHead<'_>, body_length: usize) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let own = head.own.iter().map(|(name, value)| (name, *value));
    for (name, value) in own.chain(head.headers) {
        write_header(out, name.as_str(), value.as_bytes());
    }
    if body_length > 0 || !head.method.is_safe() {
        write_header(out, CONTENT_LENGTH.as_str(), body_length.to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn write_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The head of an answer and what it says about the bytes behind it.
pub(super) struct AnswerHead {
    pub(super) parts: response::Parts,
    pub(super) framing: Framing,
    /// Whether the engine keeps the connection open behind this answer.
    pub(super) keep_alive: bool,
}

/// Takes an answer's head off the front of the buffer; `None` until it is complete. Interim answers (1xx)
/// are passed over.
pub(super) fn read_head(buffer: &mut BytesMut, method: &Method) -> Result<Option<AnswerHead>, Malformed> {
    loop {
        let Some(mut parts) = take_head(buffer)? else { return Ok(None) };
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Malformed);
        }
        if !parts.status.is_informational() {
            let framing = Framing::of(&mut parts, method)?;
            let keep_alive = keeps_alive(&parts) && framing != Framing::UntilClose;
            return Ok(Some(AnswerHead { parts, framing, keep_alive }));
        }
    }
}

fn take_head(buffer: &mut BytesMut) -> Result<Option<response::Parts>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADER_COUNT];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_LIMIT => length,
        Ok(httparse::Status::Partial) if buffer.len() < HEAD_LIMIT => return Ok(None),
        _ => return Err(Malformed),
    };
    let mut parts = Response::new(()).into_parts().0;
    parts.status = StatusCode::from_u16(parsed.code.ok_or(Malformed)?).map_err(|_| Malformed)?;
    parts.version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    // Where each value lies, so that it can be a slice of the buffer instead of a copy.
    let start = buffer.as_ptr() as usize;
    let mut places = [(0, 0); HEADER_COUNT];
    let count = parsed.headers.len();
    let mut names = Vec::with_capacity(count);
    for (header, place) in parsed.headers.iter().zip(&mut places) {
        *place = ((header.value.as_ptr() as usize).wrapping_sub(start), header.value.len());
        names.push(HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| Malformed)?);
    }
    let head = buffer.split_to(length).freeze();
    parts.headers.reserve(count + 6);
    for (name, (at, length)) in names.into_iter().zip(places) {
        // An empty value may lie anywhere.
        let value = if length == 0 { Bytes::new() } else { head.slice(at..at + length) };
        parts.headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| Malformed)?);
    }
    Ok(Some(parts))
}

fn keeps_alive(parts: &response::Parts) -> bool {
    if parts.version == Version::HTTP_10 {
        has_token(&parts.headers, &CONNECTION, "keep-alive")
    } else {
        !has_token(&parts.headers, &CONNECTION, "close")
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// How the end of a body is found, and how much of it is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    Chunked(Chunk),
    /// Everything until the engine closes the connection.
    UntilClose,
    /// Nothing (more).
    Over,
}

/// Where in a chunked body the front of the buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Size,
    /// So many bytes of data.
    Data(u64),
    /// The line end behind the data.
    DataEnd,
    /// Lines behind the last chunk; so many bytes of them have been passed over.
    Trailers(usize),
}

impl Framing {
    /// Decided by RFC 9112, section 6.3. Where a length contradicts chunks, the chunks hold and the length is
    /// taken out of the head, so that nobody behind us believes it.
    fn of(parts: &mut response::Parts, method: &Method) -> Result<Framing, Malformed> {
        let bodiless = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if *method == Method::HEAD || bodiless {
            return Ok(Framing::Over);
        }
        if parts.headers.contains_key(TRANSFER_ENCODING) {
            parts.headers.remove(CONTENT_LENGTH);
            let chunked = has_token(&parts.headers, &TRANSFER_ENCODING, "chunked");
            return Ok(if chunked { Framing::Chunked(Chunk::Size) } else { Framing::UntilClose });
        }
        let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter().map(length_of);
        match lengths.next() {
            None => Ok(Framing::UntilClose),
            Some(first) if lengths.all(|other| other == first) => match first.ok_or(Malformed)? {
                0 => Ok(Framing::Over),
                length => Ok(Framing::Length(length)),
            },
            Some(_) => Err(Malformed),
        }
    }

    /// Takes the next piece of the body off the front of the buffer; `None` when more must be read first or
    /// the body is over.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        match self {
            Framing::Over => Ok(None),
            Framing::UntilClose => Ok((!buffer.is_empty()).then(|| buffer.split().freeze())),
            Framing::Length(left) => {
                let data = take(buffer, left);
                if *left == 0 {
                    *self = Framing::Over;
                }
                Ok(data)
            }
            Framing::Chunked(_) => self.next_chunk(buffer),
        }
    }

    fn next_chunk(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        while let Framing::Chunked(chunk) = self {
            match chunk {
                // The parser takes a missing size for zero, which would end the body.
                Chunk::Size if buffer.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) => {
                    return Err(Malformed);
                }
                Chunk::Size => match httparse::parse_chunk_size(buffer) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        buffer.advance(length);
                        *chunk = if size == 0 { Chunk::Trailers(0) } else { Chunk::Data(size) };
                    }
                    Ok(httparse::Status::Partial) if buffer.len() <= CHUNK_LINE_LIMIT => return Ok(None),
                    _ => return Err(Malformed),
                },
                Chunk::Data(left) => {
                    let data = take(buffer, left);
                    if *left == 0 {
                        *chunk = Chunk::DataEnd;
                    }
                    return Ok(data);
                }
                Chunk::DataEnd => {
                    if buffer.len() < 2 {
                        return Ok(None);
                    }
                    if !buffer.starts_with(b"\r\n") {
                        return Err(Malformed);
                    }
                    buffer.advance(2);
                    *chunk = Chunk::Size;
                }
                Chunk::Trailers(passed) => {
                    let Some(end) = memchr::memchr(b'\n', buffer) else {
                        return if *passed + buffer.len() < HEAD_LIMIT { Ok(None) } else { Err(Malformed) };
                    };
                    let empty = matches!(&buffer[..end], b"\r" | b"");
                    *passed += end + 1;
                    buffer.advance(end + 1);
                    if *passed > HEAD_LIMIT {
                        return Err(Malformed);
                    }
                    if empty {
                        *self = Framing::Over;
                    }
                }
            }
        }
        Ok(None)
    }
}

/// Up to `left` bytes of what is there.
fn take(buffer: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= length as u64;
    (length > 0).then(|| buffer.split_to(length).freeze())
}

fn length_of(value: &HeaderValue) -> Option<u64> {
    let digits = value.to_str().ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head_of(text: &str) -> Result<Option<AnswerHead>, Malformed> {
        read_head(&mut BytesMut::from(text), &Method::POST)
    }

    fn framing_of(headers: &str) -> Result<Framing, Malformed> {
        head_of(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")).map(|head| head.unwrap().framing)
    }

    /// Feeds an answer in pieces; gives its body and what is left in the buffer.
    fn read_in_pieces<'p>(
        pieces: impl Iterator<Item = &'p [u8]>,
    ) -> Result<(Vec<u8>, Framing, Vec<u8>), Malformed> {
        let mut buffer = BytesMut::new();
        let mut framing = None;
        let mut body = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            if framing.is_none() {
                framing = read_head(&mut buffer, &Method::POST)?.map(|head| head.framing);
            }
            if let Some(framing) = &mut framing {
                while let Some(data) = framing.next(&mut buffer)? {
                    body.extend_from_slice(&data);
                }
            }
        }
        Ok((body, framing.ok_or(Malformed)?, buffer.to_vec()))
    }

    #[test]
    fn a_request_is_written_with_its_length() {
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let host = HeaderValue::from_static("e:1");
        let mut out = Vec::new();
        let mut head = RequestHead {
            method: &Method::POST,
            target: "/x?y",
            headers: &headers,
            own: &[(http::header::HOST, &host)],
        };
        write_head(&mut out, &head, 3);
        assert_eq!(out, b"POST /x?y HTTP/1.1\r\nhost: e:1\r\naccept: */*\r\ncontent-length: 3\r\n\r\n");
        out.clear();
        head.method = &Method::GET;
        write_head(&mut out, &head, 0);
        assert_eq!(out, b"GET /x?y HTTP/1.1\r\nhost: e:1\r\naccept: */*\r\n\r\n");
    }

    #[test]
    fn the_head_tells_where_the_body_ends() {
        assert_eq!(framing_of("content-length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing_of("content-length: 0\r\n"), Ok(Framing::Over));
        assert_eq!(framing_of("content-length: 5\r\ncontent-length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing_of("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked(Chunk::Size)));
        assert_eq!(framing_of("transfer-encoding: gzip\r\n"), Ok(Framing::UntilClose));
        assert_eq!(framing_of(""), Ok(Framing::UntilClose));
        for contradiction in
            ["content-length: 5\r\ncontent-length: 6\r\n", "content-length: +5\r\n", "content-length: \r\n"]
        {
            assert_eq!(framing_of(contradiction), Err(Malformed), "{contradiction}");
        }
    }

    #[test]
    fn chunks_go_before_a_length_and_the_length_is_forgotten() {
        let head = head_of("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n");
        let head = head.unwrap().unwrap();
        assert_eq!(head.framing, Framing::Chunked(Chunk::Size));
        assert!(!head.parts.headers.contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn answers_without_a_body_have_none() {
        for text in
            ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"]
        {
            assert_eq!(head_of(text).unwrap().unwrap().framing, Framing::Over);
        }
        let mut buffer = BytesMut::from("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        let head = read_head(&mut buffer, &Method::HEAD).unwrap().unwrap();
        assert_eq!((head.framing, head.parts.headers.len()), (Framing::Over, 1));
    }

    #[test]
    fn interim_answers_are_passed_over_and_upgrades_refused() {
        let head =
            head_of("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 201 Created\r\nempty:\r\n\r\n");
        let head = head.unwrap().unwrap();
        assert_eq!(
            (head.parts.status, &head.parts.headers["empty"]),
            (StatusCode::CREATED, &HeaderValue::from_static(""))
        );
        assert!(head_of("HTTP/1.1 101 Switching Protocols\r\n\r\n").is_err());
    }

    #[test]
    fn a_connection_is_kept_as_its_version_says() {
        let kept = |text: &str| head_of(text).unwrap().unwrap().keep_alive;
        assert!(kept("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"));
        assert!(!kept("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nConnection: x, Close\r\n\r\n"));
        assert!(!kept("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n"));
        assert!(kept("HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n"));
        assert!(!kept("HTTP/1.1 200 OK\r\n\r\n"), "the end of the connection is the end of the body");
    }

    #[test]
    fn endless_heads_lines_and_trailers_are_refused() {
        let long = "x".repeat(HEAD_LIMIT);
        assert!(head_of(&format!("HTTP/1.1 200 OK\r\na: {long}")).is_err());
        let many = "a: b\r\n".repeat(HEADER_COUNT + 1);
        assert!(head_of(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
        let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for endless in
            [format!("1;{long}"), format!("0\r\n{long}"), format!("0\r\n{}", "a: b\r\n".repeat(20_000))]
        {
            assert!(read_in_pieces([start.as_bytes(), endless.as_bytes()].into_iter()).is_err());
        }
    }

    #[test]
    fn wrong_chunks_are_refused() {
        let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for wrong in ["x\r\n", "-1\r\n", "fffffffffffffffff\r\n", "1\r\nabc", "\r\n\r\n"] {
            assert!(read_in_pieces([start.as_bytes(), wrong.as_bytes()].into_iter()).is_err(), "{wrong:?}");
        }
    }

    fn cut<'b>(bytes: &'b [u8], sizes: &[usize]) -> Vec<&'b [u8]> {
        let mut rest = bytes;
        let mut pieces = Vec::new();
        for &size in sizes {
            let (piece, tail) = rest.split_at(size.min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        pieces.push(rest);
        pieces
    }

    proptest! {
        #[test]
        fn the_body_does_not_depend_on_how_it_arrives(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(1_usize..30, 0..20),
            chunked: bool,
            trailers: bool,
        ) {
            let body = chunks.concat();
            let mut wire = Vec::new();
            if chunked {
                wire.extend_from_slice(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
                for chunk in &chunks {
                    wire.extend_from_slice(format!("{:X};ext=\"1\"\r\n", chunk.len()).as_bytes());
                    wire.extend_from_slice(chunk);
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(if trailers { b"0\r\na: b\r\n\r\n" } else { b"0\r\n\r\n" });
            } else {
                wire.extend_from_slice(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
                wire.extend_from_slice(&body);
            }
            wire.extend_from_slice(b"rest");
            let got = read_in_pieces(cut(&wire, &cuts).into_iter());
            prop_assert_eq!(got, Ok((body, Framing::Over, b"rest".to_vec())));
        }

        #[test]
        fn hostile_bytes_never_panic(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0')], 0..80),
            cuts in prop::collection::vec(1_usize..10, 0..9),
        ) {
            let _ = read_in_pieces(cut(&bytes, &cuts).into_iter());
            let mut wire = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            wire.extend_from_slice(&bytes);
            let _ = read_in_pieces(cut(&wire, &cuts).into_iter());
        }
    }
}
