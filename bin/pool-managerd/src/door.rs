//! Who may come in: the guard against web pages, then keys.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request};
use orch_core::ErrorCode;
use orch_runtime::{GuardSettings, Token, TokenSet, guard, presented_token};

/// Checks every request before it reaches a room.
pub struct Door {
    pub guard: GuardSettings,
    /// Keys that the user set: once there is one, everything needs one.
    pub tokens: TokenSet,
    /// The token of `run/daemon.json`: for the commands of this home.
    pub local: Token,
    /// Whether the listener is bound to loopback.
    pub loopback: bool,
}

/// Why somebody stays outside.
pub(crate) type Refused = (ErrorCode, String);

/// What a request has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// A key, once there is one.
    Key,
    /// A key or the local token, always.
    Admin,
}

impl Need {
    /// Health, readiness and metrics are open; changes of ours and the way around the gateway are for
    /// administrators.
    pub fn of<B>(request: &Request<B>) -> Need {
        let path = request.uri().path();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            "/health" | "/ready" | "/metrics" if reads => Need::Nothing,
            _ if path.starts_with("/upstream/") => Need::Admin,
            _ if is_ours(path) && !reads => Need::Admin,
            _ => Need::Key,
        }
    }
}

/// Whether a path belongs to our own interface; everything else speaks other people's protocols.
pub fn is_ours(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/") || path == orch_api::paths::OPENAPI
}

impl Door {
    /// Lets a request in or says why not.
    pub fn admit<B>(&self, request: &Request<B>) -> Result<(), Refused> {
        guard::check(request.headers(), request.uri(), &self.guard, self.loopback)
            .map_err(|rejection| (ErrorCode::Forbidden, rejection.to_string()))?;
        match Need::of(request) {
            Need::Nothing => return Ok(()),
            Need::Key if self.tokens.is_empty() => return Ok(()),
            need => self.check_key(request.headers(), need)?,
        }
        check_media_type(request)
    }

    fn check_key(&self, headers: &HeaderMap, need: Need) -> Result<(), Refused> {
        let Some(presented) = presented_token(headers) else {
            let message = if need == Need::Admin {
                "this needs the local token of run/daemon.json (the llama-orch command sends it by itself) or a key \
                 of LLORCH_API_TOKEN, as `Authorization: Bearer …`"
            } else {
                "this server asks for a key: send it as `Authorization: Bearer …` or `x-api-key`"
            };
            return Err((ErrorCode::Unauthorized, message.to_owned()));
        };
        if self.local.matches(presented) || self.tokens.find(presented).is_some() {
            return Ok(());
        }
        Err((ErrorCode::Unauthorized, "the key that was sent is not known here".to_owned()))
    }
}

/// A form or plain text may be sent by any web page; JSON may not.
fn check_media_type<B>(request: &Request<B>) -> Result<(), Refused> {
    let writes = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if !writes || !is_ours(request.uri().path()) {
        return Ok(());
    }
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = media_type.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err((ErrorCode::InvalidParams, "writes need `Content-Type: application/json`".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(keys: &str) -> Door {
        Door {
            guard: GuardSettings::default(),
            tokens: if keys.is_empty() { TokenSet::default() } else { TokenSet::parse(keys).unwrap() },
            local: Token::new("local-token-of-this-test").unwrap(),
            loopback: true,
        }
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().method(method).uri(path).header("host", "localhost:8080");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn code(result: Result<(), Refused>) -> Option<u16> {
        result.err().map(|(code, _)| code.http_status())
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const LOCAL: (&str, &str) = ("authorization", "Bearer local-token-of-this-test");

    #[test]
    fn an_open_home_serves_models_to_everybody_on_the_machine() {
        let open = door("");
        assert_eq!(code(open.admit(&request("POST", "/v1/chat/completions", &[]))), None);
        assert_eq!(code(open.admit(&request("GET", "/v2/instances", &[]))), None);
    }

    #[test]
    fn changes_need_the_local_token_and_json_even_in_an_open_home() {
        let open = door("");
        let path = "/v2/instances/a/start";
        assert_eq!(code(open.admit(&request("POST", path, &[JSON]))), Some(401));
        assert_eq!(
            code(open.admit(&request("POST", path, &[JSON, ("authorization", "Bearer wrong-token")]))),
            Some(401)
        );
        assert_eq!(code(open.admit(&request("POST", path, &[LOCAL]))), Some(400));
        assert_eq!(code(open.admit(&request("POST", path, &[LOCAL, JSON]))), None);
        assert_eq!(code(open.admit(&request("DELETE", "/v2/instances/a", &[LOCAL]))), None);
        assert_eq!(code(open.admit(&request("GET", "/upstream/a/props", &[]))), Some(401));
    }

    #[test]
    fn once_there_is_a_key_everything_but_health_needs_one() {
        let keyed = door("key-of-a-user-0123456789");
        assert_eq!(code(keyed.admit(&request("GET", "/v1/models", &[]))), Some(401));
        assert_eq!(
            code(keyed.admit(&request("GET", "/v1/models", &[("x-api-key", "key-of-a-user-0123456789")]))),
            None
        );
        assert_eq!(code(keyed.admit(&request("GET", "/v1/models", &[LOCAL]))), None);
        for path in ["/health", "/ready", "/metrics"] {
            assert_eq!(code(keyed.admit(&request("GET", path, &[]))), None);
        }
    }

    #[test]
    fn foreign_pages_are_refused_on_every_path() {
        for path in ["/health", "/metrics", "/v1/models", "/v2/instances", "/nowhere"] {
            let foreign = request("GET", path, &[("origin", "https://evil.example")]);
            assert_eq!(code(door("").admit(&foreign)), Some(403), "{path}");
            let rebound = Request::builder().uri(path).header("host", "evil.example").body(()).unwrap();
            assert_eq!(code(door("").admit(&rebound)), Some(403), "{path}");
        }
    }
}
