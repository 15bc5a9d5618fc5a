//! Finding `model` among the fields of an upload (`multipart/form-data`, as audio requests use it).

use memchr::memmem;

/// Longest field head and longest model name that are looked at.
const HEAD_LIMIT: usize = 4 * 1024;
const NAME_LIMIT: usize = 512;

/// The boundary of a `multipart/form-data` content type.
pub fn boundary_of(content_type: &str) -> Option<&str> {
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parts.find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case("boundary").then_some(value.trim())
    })?;
    let boundary = boundary.trim_matches('"');
    (!boundary.is_empty() && boundary.len() <= 70).then_some(boundary)
}

/// The text of the form field `model`.
pub fn model_in_multipart<'a>(body: &'a [u8], boundary: &str) -> Option<&'a str> {
    let delimiter = format!("--{boundary}");
    let starts: Vec<usize> = memmem::find_iter(body, delimiter.as_bytes()).collect();
    starts.windows(2).find_map(|pair| model_in_part(&body[pair[0] + delimiter.len()..pair[1]]))
}

fn model_in_part(part: &[u8]) -> Option<&str> {
    let head_end = memmem::find(&part[..part.len().min(HEAD_LIMIT)], b"\r\n\r\n")?;
    let head = std::str::from_utf8(&part[..head_end]).ok()?;
    let is_model = head.lines().any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("content-disposition:")
            && line.split(';').any(|item| item.trim() == "name=\"model\"")
    });
    let value = part[head_end + 4..].strip_suffix(b"\r\n")?;
    (is_model && value.len() <= NAME_LIMIT).then(|| std::str::from_utf8(value).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn upload() -> Vec<u8> {
        let mut body =
            b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\n".to_vec();
        body.extend([0xff, 0x00, b'-', b'-', b'x', b'\r', b'\n']);
        body.extend(
            b"\r\n--xyz\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--xyz--\r\n",
        );
        body
    }

    #[test]
    fn the_model_of_an_upload_is_found_behind_binary_parts() {
        assert_eq!(model_in_multipart(&upload(), "xyz"), Some("whisper"));
    }

    #[test]
    fn an_upload_without_a_model_names_none() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nmodel\r\n--b--\r\n";
        assert_eq!(model_in_multipart(body, "b"), None);
        assert_eq!(model_in_multipart(b"", "b"), None);
    }

    #[test]
    fn the_boundary_is_read_off_the_content_type() {
        assert_eq!(boundary_of("multipart/form-data; boundary=abc"), Some("abc"));
        assert_eq!(boundary_of("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\""), Some("a b"));
        assert_eq!(boundary_of("application/json"), None);
        assert_eq!(boundary_of("multipart/form-data"), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..64), cut in 0_usize..160) {
            let _ = model_in_multipart(&body, "b");
            let whole = upload();
            let _ = model_in_multipart(&whole[..cut.min(whole.len())], "xyz");
        }
    }
}
