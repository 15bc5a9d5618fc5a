//! What lets a page of `auth.cors_origins` read its answers: cross-origin headers, and answers to preflights.
//!
//! Whether a page may call at all is decided by the guard; here a browser is only told about it. An engine has no
//! say in this: it knows its own origins, not those of the home.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS");
const EXPOSED: HeaderValue = HeaderValue::from_static("X-Request-Id, Retry-After, X-Llama-Orch-Instance");
const USUAL_HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type");

/// Seconds for which a browser may remember a preflight. Short, so that a changed setting is soon in force.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// A longer list of wanted headers is not echoed.
const MAX_ECHOED: usize = 1024;

/// Whether a browser asks on behalf of a page what the page may send.
pub(crate) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight, beyond what [`settle`] adds to every answer.
pub(crate) fn allow(asked: &HeaderMap, answer: &mut HeaderMap) {
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(asked));
    answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
}

/// Makes an answer readable for the page of `origin`; without one it stays as it is.
pub(crate) fn settle(answer: &mut HeaderMap, origin: Option<HeaderValue>) {
    let Some(origin) = origin else { return };
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if !varies_by_origin(answer) {
        answer.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// Removes what an engine told browsers. Only looks at names, and at most answers finds nothing.
pub(crate) fn strip(answer: &mut HeaderMap) {
    while let Some(name) = answer.keys().find(|name| name.as_str().starts_with("access-control-")).cloned() {
        answer.remove(name);
    }
}

fn allowed_headers(asked: &HeaderMap) -> HeaderValue {
    let wanted =
        asked.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|wanted| is_list_of_names(wanted.as_bytes()));
    wanted.cloned().unwrap_or(USUAL_HEADERS)
}

fn is_list_of_names(list: &[u8]) -> bool {
    list.len() <= MAX_ECHOED
        && list.split(|byte| *byte == b',').all(|name| HeaderName::from_bytes(name.trim_ascii()).is_ok())
}

fn varies_by_origin(answer: &HeaderMap) -> bool {
    let values = answer.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case(ORIGIN.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: HeaderValue = HeaderValue::from_static("https://chat.example");

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn allowed_when_asking_for(wanted: &str) -> HeaderValue {
        let mut answer = HeaderMap::new();
        allow(&headers(&[("access-control-request-headers", wanted)]), &mut answer);
        answer[ACCESS_CONTROL_ALLOW_HEADERS].clone()
    }

    #[test]
    fn only_options_that_ask_for_a_method_are_preflights() {
        let request = |method: &str, pairs: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri("/v1/models").body(()).unwrap();
            *request.headers_mut() = headers(pairs);
            request
        };
        let asks = [("access-control-request-method", "POST")];
        assert!(is_preflight(&request("OPTIONS", &asks)));
        assert!(!is_preflight(&request("OPTIONS", &[])));
        assert!(!is_preflight(&request("GET", &asks)));
    }

    #[test]
    fn nothing_that_an_engine_told_browsers_is_left() {
        let mut answer = headers(&[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-origin", "https://other.example"),
            ("Access-Control-Allow-Credentials", "true"),
            ("access-control-allow-private-network", "true"),
            ("content-type", "text/plain"),
        ]);
        strip(&mut answer);
        settle(&mut answer, None);
        assert_eq!(answer, headers(&[("content-type", "text/plain")]));
    }

    #[test]
    fn a_listed_page_may_read_its_answer_and_the_headers_that_help_it() {
        let mut answer = headers(&[("vary", "Accept-Encoding")]);
        settle(&mut answer, Some(PAGE));
        assert_eq!(answer.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter().collect::<Vec<_>>(), [&PAGE]);
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], EXPOSED);
        assert_eq!(answer.get_all(VARY).iter().collect::<Vec<_>>(), ["Accept-Encoding", "Origin"]);
    }

    #[test]
    fn an_answer_that_varies_by_origin_already_says_so_once() {
        let mut answer = headers(&[("vary", "Accept-Encoding, Origin")]);
        settle(&mut answer, Some(PAGE));
        assert_eq!(answer.get_all(VARY).iter().count(), 1);
    }

    #[test]
    fn a_preflight_gets_the_headers_it_asks_for() {
        let wanted = "authorization,content-type, X-Stainless-Lang";
        assert_eq!(allowed_when_asking_for(wanted), wanted);
    }

    #[test]
    fn lists_that_are_too_long_or_no_lists_of_names_are_not_echoed() {
        for wanted in ["", ",", "a,,b", "a b", "a: b", "a;b", &"a,".repeat(600), &"a".repeat(1025)] {
            assert_eq!(allowed_when_asking_for(wanted), USUAL_HEADERS, "{wanted}");
        }
        let mut answer = HeaderMap::new();
        allow(&HeaderMap::new(), &mut answer);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], USUAL_HEADERS);
        assert_eq!(
            (&answer[ACCESS_CONTROL_ALLOW_METHODS], &answer[ACCESS_CONTROL_MAX_AGE]),
            (&METHODS, &MAX_AGE)
        );
    }
}
