//! Who may come in: the guard against web pages, then keys and what each opens.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request};
use orch_core::{ErrorCode, Scope};
use orch_runtime::{GuardSettings, Token, TokenSet, guard, presented_token};

/// The keys that somebody set: once there is one, everything needs one.
pub trait Keys: Send + Sync {
    /// What is known of a key besides its scopes.
    type Holder;

    fn is_empty(&self) -> bool;

    /// The key that is presented, if it is valid now, in time that does not tell how near it came.
    fn find(&self, presented: &[u8]) -> Option<Found<Self::Holder>>;
}

/// A valid key.
pub struct Found<H> {
    pub scopes: Arc<[Scope]>,
    pub holder: H,
}

/// Tokens of the environment open everything.
impl Keys for TokenSet {
    type Holder = ();

    fn is_empty(&self) -> bool {
        TokenSet::is_empty(self)
    }

    fn find(&self, presented: &[u8]) -> Option<Found<()>> {
        TokenSet::find(self, presented).map(|_| Found { scopes: Scope::ALL.into(), holder: () })
    }
}

/// Checks every request before it reaches a room.
pub struct Door<K> {
    pub guard: GuardSettings,
    pub keys: K,
    /// The token of `run/daemon.json`: for the commands of this home.
    pub local: Token,
    /// Whether the listener is bound to loopback.
    pub loopback: bool,
}

/// Who came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitor<H> {
    /// Nobody asked for a key.
    Anyone,
    /// A command of this home.
    Local,
    Holder(H),
}

/// Why somebody stays outside.
pub(crate) type Refused = (ErrorCode, String);

/// What a request has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// A key that infers, once there is a key.
    Infer,
    /// A key that reads, once there is a key.
    Read,
    /// A key that administers, once there is a key.
    Change,
    /// A key that infers or the local token, always.
    Submit,
    /// A key that joins nodes or the local token, always.
    Node,
    /// A key that administers or the local token, always.
    Admin,
}

impl Need {
    /// Health, readiness and metrics are open; changes of ours, keys and the way around the gateway are for
    /// administrators.
    pub fn of<B>(request: &Request<B>) -> Need {
        let path = request.uri().path();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            "/health" | "/ready" | "/metrics" if reads => Need::Nothing,
            _ if is_below(path, "/upstream") || is_below(path, "/v2/tokens") => Need::Admin,
            // What others have asked, word for word.
            _ if path.starts_with("/v2/requests/") => Need::Admin,
            _ if is_below(path, "/v2/tasks") || is_below(path, "/v2/jobs") => Need::Submit,
            _ if is_below(path, "/v2/nodes") && !reads => node_need(path),
            _ if is_ours(path) => {
                if reads {
                    Need::Read
                } else {
                    Need::Admin
                }
            }
            // For everybody who uses that engine.
            _ if !reads && changes_engine(path) => Need::Change,
            _ => Need::Infer,
        }
    }

    /// The scopes of which one is enough. An administrator may do everything.
    const fn scopes(self) -> &'static [Scope] {
        match self {
            Need::Nothing | Need::Infer | Need::Submit => &[Scope::Infer, Scope::Admin],
            Need::Read => &[Scope::Read, Scope::Admin],
            Need::Node => &[Scope::Node, Scope::Admin],
            Need::Change | Need::Admin => &[Scope::Admin],
        }
    }

    /// Whether everybody on the machine may, as long as there is no key.
    const fn is_open_at_home(self) -> bool {
        matches!(self, Need::Infer | Need::Read | Need::Change)
    }
}

/// What nodes do about themselves; what people do about nodes is for administrators.
fn node_need(path: &str) -> Need {
    let own = path == "/v2/nodes/register" || path.ends_with("/heartbeat");
    if own { Need::Node } else { Need::Admin }
}

/// Engines' paths that set what is common to all requests: properties, adapters, caches of slots.
fn changes_engine(path: &str) -> bool {
    path == "/props" || path == "/lora-adapters" || is_below(path, "/slots")
}

/// Whether a path belongs to our own interface; everything else speaks other people's protocols.
pub fn is_ours(path: &str) -> bool {
    is_below(path, "/v2") || path == orch_api::paths::OPENAPI
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl<K: Keys> Door<K> {
    /// Lets a request in and says whose it is, or says why not.
    pub fn admit<B>(&self, request: &Request<B>) -> Result<Visitor<K::Holder>, Refused> {
        guard::check(request.headers(), request.uri(), &self.guard, self.loopback)
            .map_err(|rejection| (ErrorCode::Forbidden, rejection.to_string()))?;
        let need = Need::of(request);
        // A key that was revoked does not open a door that others can reach.
        let open = need.is_open_at_home() && self.loopback && self.keys.is_empty();
        if open {
            // Nobody has to say who it is; what is done for this home itself says so.
            let presented = presented_token(request.headers());
            return Ok(presented.and_then(|it| self.known(it)).map_or(Visitor::Anyone, |it| it.holder));
        }
        if need == Need::Nothing {
            return Ok(Visitor::Anyone);
        }
        let visitor = self.check_key(request.headers(), need)?;
        check_media_type(request)?;
        Ok(visitor)
    }

    /// Whose a key is, and what it opens.
    fn known(&self, presented: &[u8]) -> Option<Found<Visitor<K::Holder>>> {
        if self.local.matches(presented) {
            return Some(Found { scopes: Scope::ALL.into(), holder: Visitor::Local });
        }
        let Found { scopes, holder } = self.keys.find(presented)?;
        Some(Found { scopes, holder: Visitor::Holder(holder) })
    }

    fn check_key(&self, headers: &HeaderMap, need: Need) -> Result<Visitor<K::Holder>, Refused> {
        let Some(presented) = presented_token(headers) else {
            let message = if need.is_open_at_home() {
                "this server asks for a key: send it as `Authorization: Bearer …` or `x-api-key`"
            } else {
                "this needs the local token of run/daemon.json (the llama-orch command sends it by itself) or a key \
                 that is allowed to, as `Authorization: Bearer …`"
            };
            return Err((ErrorCode::Unauthorized, message.to_owned()));
        };
        let Some(found) = self.known(presented) else {
            return Err((ErrorCode::Unauthorized, "the key that was sent is not known here".to_owned()));
        };
        if need.scopes().iter().any(|scope| found.scopes.contains(scope)) {
            return Ok(found.holder);
        }
        let words: Vec<_> = need.scopes().iter().map(|scope| format!("`{scope}`")).collect();
        Err((ErrorCode::Forbidden, format!("this needs a key of scope {}", words.join(" or "))))
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

    fn door(keys: &str) -> Door<TokenSet> {
        Door {
            guard: GuardSettings::default(),
            keys: if keys.is_empty() { TokenSet::default() } else { TokenSet::parse(keys).unwrap() },
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

    fn code<T>(result: Result<T, Refused>) -> Option<u16> {
        result.err().map(|(code, _)| code.http_status())
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const LOCAL: (&str, &str) = ("authorization", "Bearer local-token-of-this-test");

    #[test]
    fn an_open_home_serves_models_to_everybody_on_the_machine() {
        let open = door("");
        assert_eq!(code(open.admit(&request("POST", "/v1/chat/completions", &[]))), None);
        assert_eq!(code(open.admit(&request("GET", "/v2/instances", &[]))), None);
        assert_eq!(code(open.admit(&request("POST", "/slots/0", &[]))), None);
        let whose = |key: &str| {
            let key = format!("Bearer {key}");
            let request = request("POST", "/v1/chat/completions", &[("authorization", &key)]);
            open.admit(&request).ok()
        };
        assert_eq!(whose("local-token-of-this-test"), Some(Visitor::Local));
        assert_eq!(whose("what-clients-send-that-want-some-key"), Some(Visitor::Anyone));
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

    /// Keys that are named after what they open.
    struct Scoped;

    impl Keys for Scoped {
        type Holder = Scope;

        fn is_empty(&self) -> bool {
            false
        }

        fn find(&self, presented: &[u8]) -> Option<Found<Scope>> {
            let scope = Scope::from_label(std::str::from_utf8(presented).ok()?)?;
            Some(Found { scopes: [scope].into(), holder: scope })
        }
    }

    #[test]
    fn each_scope_opens_its_own_and_an_administrator_everything() {
        let keys = door("");
        let door = Door { guard: keys.guard, keys: Scoped, local: keys.local, loopback: true };
        let rows = [
            ("POST", "/v1/chat/completions", "infer"),
            ("GET", "/v1/models", "infer"),
            ("POST", "/nowhere", "infer"),
            ("POST", "/tokenize", "infer"),
            ("GET", "/props", "infer"),
            ("POST", "/props", "admin"),
            ("POST", "/lora-adapters", "admin"),
            ("POST", "/slots/0", "admin"),
            ("POST", "/v2/tasks", "infer"),
            ("GET", "/v2/tasks/1/events", "infer"),
            ("POST", "/v2/jobs", "infer"),
            ("GET", "/v2/jobs/j/events", "infer"),
            ("POST", "/v2/jobs/j/decide", "infer"),
            ("GET", "/v2/instances", "read"),
            ("GET", "/v2/nodes", "read"),
            ("POST", "/v2/nodes/register", "node"),
            ("POST", "/v2/nodes/n/heartbeat", "node"),
            ("POST", "/v2/nodes/n/drain", "admin"),
            ("POST", "/v2/instances/a/start", "admin"),
            ("DELETE", "/v2/instances/a", "admin"),
            ("GET", "/v2/tokens", "admin"),
            ("POST", "/v2/tokens", "admin"),
            ("GET", "/upstream/a/props", "admin"),
            ("GET", "/upstream", "admin"),
        ];
        for (method, path, wanted) in rows {
            for scope in Scope::ALL {
                let bearer = format!("Bearer {scope}");
                let answer = door.admit(&request(method, path, &[("authorization", &bearer), JSON]));
                let may = scope.label() == wanted || *scope == Scope::Admin;
                assert_eq!(code(answer), (!may).then_some(403), "{method} {path} with {scope}");
            }
            assert_eq!(code(door.admit(&request(method, path, &[JSON]))), Some(401), "{method} {path}");
        }
        let visitor = door.admit(&request("GET", "/v1/models", &[("x-api-key", "infer")]));
        assert_eq!(visitor.unwrap(), Visitor::Holder(Scope::Infer));
        assert_eq!(door.admit(&request("GET", "/v1/models", &[LOCAL])).unwrap(), Visitor::Local);
    }

    #[test]
    fn a_door_that_others_can_reach_does_not_open_when_its_last_key_goes() {
        let exposed = Door { loopback: false, ..door("") };
        assert_eq!(code(exposed.admit(&request("GET", "/v1/models", &[]))), Some(401));
        assert_eq!(code(exposed.admit(&request("GET", "/v1/models", &[LOCAL]))), None);
        assert_eq!(code(exposed.admit(&request("GET", "/health", &[]))), None);
    }
}
