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
