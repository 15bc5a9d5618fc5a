//! Services that steps of kind `http` ask.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use orch_core::UnixMillis;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, Url};
use workflow::{AskService, CallFailure, PortFuture, ServiceAnswer, ServiceRequest};
use workflow_spec::FailureKind;

use crate::clients::{Clients, builder, first_made};
use crate::public_address::is_public;
use crate::waits;
use crate::wording::{not_reached, shown};

/// Which services may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All that this machine reaches.
    Everywhere,
    /// Only public addresses: what stands behind this machine's firewall, on this machine itself, or beside it at a
    /// cloud's provider is out of reach, also under a public name.
    PublicOnly,
}

/// Asks services over HTTP. Redirects are not followed: their answer is the answer.
#[derive(Clone)]
pub struct Services(Arc<Shared>);

struct Shared {
    reach: Reach,
    clients: Clients,
    /// Resolves names to public addresses alone, and uses no proxy, which would resolve them again.
    guarded: std::sync::OnceLock<Client>,
}

impl Services {
    pub fn new(reach: Reach) -> Self {
        Self(Arc::new(Shared { reach, clients: Clients::default(), guarded: std::sync::OnceLock::new() }))
    }
}

impl AskService for Services {
    fn ask(&self, request: ServiceRequest) -> PortFuture<Result<ServiceAnswer, CallFailure>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.ask(request).await })
    }
}

impl Shared {
    async fn ask(&self, request: ServiceRequest) -> Result<ServiceAnswer, CallFailure> {
        let url = url_of(&request.url)?;
        self.check(&url)?;
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_| unusable(format!("{:?} is no HTTP method", request.method)))?;
        let headers = headers(&request.headers)?;
        let client = self.client(&url).map_err(|error| failed(&url, &error))?;
        let mut asked = client.request(method, url.clone()).headers(headers);
        if let Some(body) = request.body {
            asked = asked.body(body);
        }
        let response = asked.send().await.map_err(|error| failed(&url, &error))?;
        let status = response.status().as_u16();
        let retry_after = waits::retry_after(response.headers(), UnixMillis::now());
        let body = body(response, request.answer_limit, &url).await?;
        Ok(ServiceAnswer { status, body, retry_after })
    }

    /// Addresses that are written as such never come to the resolver.
    fn check(&self, url: &Url) -> Result<(), CallFailure> {
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match address {
            Ok(address) if self.reach == Reach::PublicOnly && !is_public(address) => Err(out_of_reach(url)),
            _ => Ok(()),
        }
    }

    fn client(&self, url: &Url) -> Result<&Client, reqwest::Error> {
        match self.reach {
            Reach::Everywhere => self.clients.client(url),
            Reach::PublicOnly => first_made(&self.guarded, || {
                builder().no_proxy().dns_resolver(Arc::new(PublicResolver)).build()
            }),
        }
    }
}

fn unusable(message: impl Into<String>) -> CallFailure {
    CallFailure::new(FailureKind::Validation, message)
}

fn out_of_reach(url: &Url) -> CallFailure {
    unusable(format!("{} is not a public address, and this job may only ask public ones", shown(url)))
}

fn url_of(text: &str) -> Result<Url, CallFailure> {
    let url = Url::parse(text).map_err(|error| unusable(format!("{text:?} is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(unusable(format!("{} is not a URL of http or https", shown(&url))));
    }
    Ok(url)
}

fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, CallFailure> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName =
            name.parse().map_err(|_| unusable(format!("{name:?} is no name of a header")))?;
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| unusable(format!("the header {name} holds characters that cannot be sent")))?;
        // It may be a secret: nothing here can tell.
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

fn failed(url: &Url, error: &reqwest::Error) -> CallFailure {
    let mut source: Option<&dyn Error> = Some(error);
    while let Some(inner) = source {
        if inner.is::<OnlyPrivate>() {
            return out_of_reach(url);
        }
        source = inner.source();
    }
    not_reached("the service", url, error)
}

async fn body(mut response: Response, limit: usize, url: &Url) -> Result<String, CallFailure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(url, &error))? {
        if body.len() + chunk.len() > limit {
            let message = format!("the answer of {} is longer than {limit} bytes", shown(url));
            return Err(CallFailure::new(FailureKind::Tool, message).after_the_effect());
        }
        body.extend_from_slice(&chunk);
    }
    String::from_utf8(body).map_err(|_| {
        let message = format!("the answer of {} is not UTF-8 text", shown(url));
        CallFailure::new(FailureKind::Tool, message).after_the_effect()
    })
}

/// The system's resolver without the addresses that are not public.
struct PublicResolver;

/// A name has private addresses alone.
#[derive(Debug)]
struct OnlyPrivate;

impl fmt::Display for OnlyPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name has no public address")
    }
}

impl Error for OnlyPrivate {}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let all = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = all.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(OnlyPrivate.into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}
