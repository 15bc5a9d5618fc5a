//! One line: how it is written, and whether it is whole.
//!
//! A line is a compact JSON object whose last field is a checksum of all bytes before that field. Lines are
//! serialised straight into the buffer that is written later: no value in between, no allocation a line.

use serde::Serialize;

use crate::{EventType, Level};

/// Readers take no longer line. The recorder cuts what people and models write long before.
pub(crate) const LINE_LIMIT: usize = 16 * 1024 * 1024;

/// How every line begins: also what a search for lines inside damaged bytes looks for. Within a JSON text these
/// bytes can only stand at the beginning of an object, because quotes inside texts are escaped.
pub(crate) const BEGINNING: &[u8] = b"{\"ts\":\"";
const CRC_FIELD: &[u8] = b",\"crc\":\"";
const CRC_DIGITS: usize = 8;
const CRC_LENGTH: usize = CRC_FIELD.len() + CRC_DIGITS + 2;

/// The fields before the data.
pub(crate) struct Head<'a> {
    pub(crate) kind: EventType,
    pub(crate) level: Level,
    pub(crate) step: Option<&'a str>,
    pub(crate) attempt: Option<u32>,
}

/// Appends one whole line.
pub(crate) fn append(
    buffer: &mut Vec<u8>,
    stamp: &[u8],
    seq: u64,
    job_id: &str,
    head: &Head<'_>,
    data: &impl Serialize,
) {
    let begin = buffer.len();
    buffer.extend_from_slice(BEGINNING);
    buffer.extend_from_slice(stamp);
    buffer.extend_from_slice(b"\",\"seq\":");
    json(buffer, &seq);
    buffer.extend_from_slice(b",\"level\":\"");
    buffer.extend_from_slice(head.level.word().as_bytes());
    buffer.extend_from_slice(b"\",\"job_id\":\"");
    // Checked when it was made: nothing in it has to be escaped.
    buffer.extend_from_slice(job_id.as_bytes());
    buffer.extend_from_slice(b"\",\"type\":\"");
    buffer.extend_from_slice(head.kind.word().as_bytes());
    buffer.push(b'"');
    if let Some(step) = head.step {
        buffer.extend_from_slice(b",\"step\":");
        json(buffer, step);
    }
    if let Some(attempt) = head.attempt {
        buffer.extend_from_slice(b",\"attempt\":");
        json(buffer, &attempt);
    }
    buffer.extend_from_slice(b",\"data\":");
    json(buffer, data);
    let sum = digits(crc32fast::hash(&buffer[begin..]));
    buffer.extend_from_slice(CRC_FIELD);
    buffer.extend_from_slice(&sum);
    buffer.extend_from_slice(b"\"}\n");
}

fn json<T: Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(buffer, value).expect("plain data with text keys always becomes JSON");
}

fn digits(sum: u32) -> [u8; CRC_DIGITS] {
    let mut text = [0; CRC_DIGITS];
    for (place, digit) in text.iter_mut().enumerate() {
        let nibble = (sum >> (28 - 4 * place)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    text
}

/// Whether a line (without its newline) is whole: its checksum fits.
pub(crate) fn is_whole(line: &[u8]) -> bool {
    let Some(sum_at) = line.len().checked_sub(CRC_LENGTH) else { return false };
    let (before, sum) = line.split_at(sum_at);
    let Some(sum) = sum.strip_prefix(CRC_FIELD).and_then(|rest| rest.strip_suffix(b"\"}")) else {
        return false;
    };
    before.starts_with(BEGINNING) && sum == digits(crc32fast::hash(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line() -> Vec<u8> {
        let mut buffer = Vec::new();
        let head = Head {
            kind: EventType::StepStarted,
            level: Level::Info,
            step: Some("a \"b\"\n"),
            attempt: Some(1),
        };
        append(&mut buffer, b"2026-01-31T12:00:00.000000Z", 7, "job_x", &head, &json!({"needs": ["z"]}));
        buffer
    }

    #[test]
    fn a_line_is_compact_json_in_a_fixed_order() {
        let text = String::from_utf8(line()).unwrap();
        let (before, sum) = text.split_once(",\"crc\":").unwrap();
        assert_eq!(
            before,
            r#"{"ts":"2026-01-31T12:00:00.000000Z","seq":7,"level":"INFO","job_id":"job_x","type":"step.started","step":"a \"b\"\n","attempt":1,"data":{"needs":["z"]}"#
        );
        assert_eq!(sum, format!("\"{:08x}\"}}\n", crc32fast::hash(before.as_bytes())));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["seq"], 7);
    }

    #[test]
    fn no_changed_bit_goes_unseen() {
        let mut line = line();
        line.pop();
        assert!(is_whole(&line));
        for at in 0..line.len() {
            for bit in 0..8 {
                line[at] ^= 1 << bit;
                assert!(!is_whole(&line), "byte {at}, bit {bit}");
                line[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn no_beginning_of_a_line_is_whole() {
        let line = line();
        for end in 0..line.len() - 1 {
            assert!(!is_whole(&line[..end]));
        }
    }
}
