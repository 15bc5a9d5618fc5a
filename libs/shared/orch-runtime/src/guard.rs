//! Keeps web pages out of an open home.
//!
//! A page in the user's browser can send requests to loopback, and through DNS rebinding even under a name of
//! its own. Both show: the first in a foreign `Origin`, the second in a foreign `Host`. The check is a pure
//! function over the headers and allocates nothing unless it refuses.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri};
use thiserror::Error;

/// Whom an open home trusts beyond itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardSettings {
    /// Names under which this server may be asked, as `name` (any port) or `name:port`.
    pub hosts: Vec<String>,
    /// Pages that may call, as `scheme://host[:port]`.
    pub cors_origins: Vec<String>,
}

/// Why a request is answered 403. The offending value is cut short and escaped, so that it can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GuardRejection {
    #[error("the request names no host")]
    MissingHost,
    #[error("the request names several hosts")]
    AmbiguousHost,
    #[error("host {0} is not this server; add it to auth.hosts to allow it")]
    ForeignHost(String),
    #[error("pages of {0} may not call this server; add it to auth.cors_origins to allow it")]
    ForeignOrigin(String),
}

/// Refuses requests that a web page could have forged. `loopback` tells whether the listener that took the
/// connection is bound to loopback; elsewhere a token is required and decides alone.
pub fn check(
    headers: &HeaderMap,
    uri: &Uri,
    settings: &GuardSettings,
    loopback: bool,
) -> Result<(), GuardRejection> {
    if !loopback {
        return Ok(());
    }
    let host = single_host(headers, uri)?;
    if let Some(authority) = uri.authority() {
        check_host(authority.as_str().as_bytes(), settings)?;
    }
    check_host(host, settings)?;
    headers.get_all(ORIGIN).iter().try_for_each(|origin| check_origin(origin, host, settings))
}

/// The request's `Origin` if it is one of `auth.cors_origins`: to be echoed in `Access-Control-Allow-Origin`.
pub fn allowed_origin<'a>(headers: &'a HeaderMap, settings: &GuardSettings) -> Option<&'a HeaderValue> {
    headers.get(ORIGIN).filter(|origin| is_listed_origin(origin.as_bytes(), settings))
}

fn single_host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Result<&'a [u8], GuardRejection> {
    let mut hosts = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(GuardRejection::AmbiguousHost),
        (Some(host), None) => Ok(host),
        (None, _) => {
            uri.authority().map(|authority| authority.as_str().as_bytes()).ok_or(GuardRejection::MissingHost)
        }
    }
}

fn check_host(host: &[u8], settings: &GuardSettings) -> Result<(), GuardRejection> {
    let known = split_port(host).is_some_and(|(name, _)| {
        is_loopback_name(name)
            || settings
                .hosts
                .iter()
                .map(String::as_bytes)
                .any(|listed| listed.eq_ignore_ascii_case(host) || listed.eq_ignore_ascii_case(name))
    });
    if known { Ok(()) } else { Err(GuardRejection::ForeignHost(shown(host))) }
}

fn check_origin(origin: &HeaderValue, host: &[u8], settings: &GuardSettings) -> Result<(), GuardRejection> {
    let origin = origin.as_bytes();
    if is_same_origin(origin, host) || is_listed_origin(origin, settings) {
        Ok(())
    } else {
        Err(GuardRejection::ForeignOrigin(shown(origin)))
    }
}

/// Pages this server itself hands out. The scheme is not compared: a proxy in front may end TLS.
fn is_same_origin(origin: &[u8], host: &[u8]) -> bool {
    let page = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    page.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

fn is_listed_origin(origin: &[u8], settings: &GuardSettings) -> bool {
    settings.cors_origins.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin))
}

/// `localhost`, any 127.0.0.0/8 address, `[::1]` and the IPv4-mapped form.
fn is_loopback_name(name: &[u8]) -> bool {
    if name.eq_ignore_ascii_case(b"localhost") {
        return true;
    }
    let Ok(text) = std::str::from_utf8(name) else { return false };
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => literal.parse::<Ipv6Addr>().is_ok_and(|ip| ip.to_canonical().is_loopback()),
        None => text.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

/// Name and port of a `Host` value; nothing if it is not one.
fn split_port(host: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let name_ends = match host.first()? {
        b'[' => host.iter().position(|byte| *byte == b']')? + 1,
        _ => host.iter().position(|byte| *byte == b':').unwrap_or(host.len()),
    };
    let (name, rest) = host.split_at(name_ends);
    match rest.split_first() {
        None => Some((name, None)),
        Some((b':', port)) if port.iter().all(u8::is_ascii_digit) => Some((name, Some(port))),
        Some(_) => None,
    }
}

/// Whether `text` can stand in `auth.hosts`.
pub(crate) fn is_host_entry(text: &str) -> bool {
    text.parse::<Authority>().is_ok() && !text.contains('@') && split_port(text.as_bytes()).is_some()
}

/// Whether `text` can stand in `auth.cors_origins`: an origin as browsers write it, so no path, no wildcard.
pub(crate) fn is_origin_entry(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, authority)| {
        !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && !authority.contains('*')
            && is_host_entry(authority)
    })
}

fn shown(value: &[u8]) -> String {
    const SHOWN: usize = 80;
    value[..value.len().min(SHOWN)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> GuardSettings {
        GuardSettings {
            hosts: vec!["box.lan".to_owned(), "proxy.lan:443".to_owned()],
            cors_origins: vec!["https://chat.example".to_owned()],
        }
    }

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn ask(host: &str) -> Result<(), GuardRejection> {
        check(&headers(&[(HOST, host)]), &Uri::from_static("/"), &settings(), true)
    }

    fn ask_from(host: &str, origin: &str) -> Result<(), GuardRejection> {
        check(&headers(&[(HOST, host), (ORIGIN, origin)]), &Uri::from_static("/"), &settings(), true)
    }

    #[test]
    fn loopback_names_and_listed_hosts_may_be_asked() {
        for host in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:8080",
            "box.lan",
            "BOX.lan:8080",
            "proxy.lan:443",
        ] {
            assert_eq!(ask(host), Ok(()), "{host}");
        }
    }

    #[test]
    fn any_other_host_is_foreign() {
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil-localhost",
            "localhost:8080@evil.example",
            "user@localhost",
            "localhost:80a",
            "127.1",
            "0177.0.0.1",
            "2130706433",
            "0.0.0.0",
            "0.0.0.0:8080",
            "[::]",
            "::1",
            "[::1",
            "[::1]evil",
            "[fe80::1%25lo]",
            "192.168.1.1",
            "proxy.lan",
            "proxy.lan:80",
            "",
            ":8080",
        ] {
            assert!(matches!(ask(host), Err(GuardRejection::ForeignHost(_))), "{host}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let uri = Uri::from_static("/");
        assert_eq!(check(&HeaderMap::new(), &uri, &settings(), true), Err(GuardRejection::MissingHost));
        let two = headers(&[(HOST, "localhost"), (HOST, "evil.example")]);
        assert_eq!(check(&two, &uri, &settings(), true), Err(GuardRejection::AmbiguousHost));
    }

    #[test]
    fn the_host_of_an_absolute_request_target_counts_as_well() {
        let foreign = Uri::from_static("http://evil.example/v1/models");
        let local = Uri::from_static("http://localhost:8080/v1/models");
        let host = headers(&[(HOST, "localhost:8080")]);
        assert!(check(&host, &foreign, &settings(), true).is_err());
        assert_eq!(check(&host, &local, &settings(), true), Ok(()));
        assert_eq!(check(&HeaderMap::new(), &local, &settings(), true), Ok(()));
    }

    #[test]
    fn pages_of_this_server_and_listed_pages_may_call() {
        assert_eq!(ask_from("localhost:8080", "http://localhost:8080"), Ok(()));
        assert_eq!(ask_from("box.lan", "https://box.lan"), Ok(()));
        assert_eq!(ask_from("localhost:8080", "https://chat.example"), Ok(()));
        assert_eq!(ask_from("localhost:8080", "https://CHAT.example"), Ok(()));
    }

    #[test]
    fn pages_of_others_may_not_call() {
        for origin in [
            "https://evil.example",
            "http://localhost:3000",
            "http://localhost",
            "https://chat.example:8443",
            "http://chat.example",
            "https://chat.example.evil.example",
            "null",
            "",
        ] {
            let refused = ask_from("localhost:8080", origin);
            assert!(matches!(refused, Err(GuardRejection::ForeignOrigin(_))), "{origin}");
        }
        let second = headers(&[(HOST, "a.b"), (ORIGIN, "http://a.b"), (ORIGIN, "https://evil.example")]);
        let open = GuardSettings { hosts: vec!["a.b".to_owned()], ..GuardSettings::default() };
        assert!(check(&second, &Uri::from_static("/"), &open, true).is_err());
    }

    #[test]
    fn outside_loopback_the_token_decides_alone() {
        let foreign = headers(&[(HOST, "evil.example"), (ORIGIN, "https://evil.example")]);
        assert_eq!(check(&foreign, &Uri::from_static("/"), &settings(), false), Ok(()));
    }

    #[test]
    fn only_listed_origins_are_echoed() {
        let listed = headers(&[(ORIGIN, "https://chat.example")]);
        assert_eq!(allowed_origin(&listed, &settings()).unwrap(), "https://chat.example");
        assert_eq!(allowed_origin(&headers(&[(ORIGIN, "https://evil.example")]), &settings()), None);
        assert_eq!(allowed_origin(&HeaderMap::new(), &settings()), None);
    }

    #[test]
    fn what_is_shown_of_a_refused_value_is_short_and_harmless() {
        let Err(GuardRejection::ForeignHost(shown)) = ask(&"\u{e9}".repeat(500)) else {
            panic!("must be foreign")
        };
        assert!(shown.is_ascii() && shown.len() <= 320, "{shown}");
    }

    /// Any bytes that HTTP lets through.
    fn header_value() -> impl Strategy<Value = HeaderValue> {
        let byte = prop_oneof![Just(b'\t'), 32..127_u8, 128..=255_u8];
        proptest::collection::vec(byte, 0..40)
            .prop_map(|bytes| HeaderValue::from_bytes(&bytes).expect("only allowed bytes are made"))
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic_and_names_outside_loopback_never_pass(
            host in header_value(),
            origin in proptest::option::of(header_value()),
        ) {
            let mut map = HeaderMap::new();
            map.append(HOST, host);
            map.extend(origin.map(|origin| (ORIGIN, origin)));
            let passed = check(&map, &Uri::from_static("/"), &GuardSettings::default(), true).is_ok();
            let name = String::from_utf8_lossy(map[HOST].as_bytes()).to_ascii_lowercase();
            let local = name.starts_with("localhost") || name.starts_with("127.") || name.starts_with('[');
            prop_assert!(!passed || local, "{}", name);
        }

        #[test]
        fn near_misses_of_loopback_never_pass(
            prefix in "[a-z0-9.@-]{0,6}",
            name in prop_oneof!["localhost", "127\\.0\\.0\\.1", "\\[::1\\]"],
            suffix in "[a-z.@%\\]-]{1,6}",
        ) {
            let host = format!("{prefix}{name}{suffix}");
            prop_assert!(ask(&host).is_err(), "{}", host);
        }

        #[test]
        fn an_origin_passes_only_if_it_is_the_server_or_listed(origin in "[a-z]{1,8}://[a-z.]{1,12}(:[0-9]{1,5})?") {
            let passed = ask_from("localhost:8080", &origin).is_ok();
            let expected = ["http://localhost:8080", "https://localhost:8080", "https://chat.example"];
            prop_assert_eq!(passed, expected.contains(&origin.as_str()));
        }
    }
}
