//! Engines that say exactly what a test wants, a gateway on a real socket, and a client that sees every byte.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::{
    Caller, Gateway, Limits, MetricsRegistry, Replica, ReplicaKey, RequestLog, RequestRecord, RoutedInstance,
    Routes, RoutingTable, TableHandle,
};
use hyper::service::service_fn;
use orch_core::{InstanceName, ReplicaId, Status, UnixMillis};
use orch_runtime::{ServeOptions, Tasks, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Names the caller of a request, as the door does in earnest.
pub(crate) const CALLER: &str = "x-test-caller";

/// No test waits longer for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A request as an engine got it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The how-manieth request of its connection, from 0.
    pub(crate) of_connection: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }
}

/// What an engine does about a request: the pieces are written one by one.
pub(crate) struct Script {
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    KeepAlive,
    Close,
    /// Says no more and waits until the other side leaves.
    Hang,
}

/// A scripted engine.
pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    /// Connections that the other side closed while a request was unanswered.
    pub(crate) abandoned: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    tasks: Tasks,
}

impl Engine {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Script + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), answer)
    }

    pub(crate) fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Seen) -> Script + Send + Sync + 'static,
    ) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(64).unwrap();
        let engine = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            abandoned: Arc::default(),
            seen: Arc::default(),
            tasks: Tasks::new(),
        };
        let (tasks, seen) = (engine.tasks.clone(), Arc::clone(&engine.seen));
        let (connections, abandoned) = (Arc::clone(&engine.connections), Arc::clone(&engine.abandoned));
        let answer: Arc<dyn Fn(&Seen) -> Script + Send + Sync> = Arc::new(answer);
        engine.tasks.spawn("engine", async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (answer, seen, abandoned) =
                    (Arc::clone(&answer), Arc::clone(&seen), Arc::clone(&abandoned));
                tasks.spawn("engine connection", converse(stream, answer, seen, abandoned));
            }
        });
        engine
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Ends the engine as a crash does: every connection goes, nobody listens.
    pub(crate) async fn kill(self) -> SocketAddr {
        self.tasks.shutdown(Duration::ZERO).await;
        self.address
    }
}

async fn converse(
    mut stream: TcpStream,
    answer: Arc<dyn Fn(&Seen) -> Script + Send + Sync>,
    seen: Arc<Mutex<Vec<Seen>>>,
    abandoned: Arc<AtomicUsize>,
) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    let mut count = 0;
    while let Some(mut request) = read_request(&mut stream, &mut buffer).await {
        request.of_connection = count;
        count += 1;
        seen.lock().unwrap().push(request.clone());
        let script = answer(&request);
        for piece in &script.pieces {
            if stream.write_all(piece).await.is_err() {
                abandoned.fetch_add(1, Ordering::SeqCst);
                return;
            }
            tokio::task::yield_now().await;
        }
        match script.then {
            Then::KeepAlive => {}
            Then::Close => return,
            Then::Hang => {
                let _ = stream.read(&mut [0; 16]).await;
                abandoned.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
}

pub(crate) async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let (line, headers) = parse_head(&buffer[..end]);
    let length: usize = find_header(&headers, "content-length").map_or(0, |text| text.parse().unwrap());
    while buffer.len() < end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Some(Seen { line, headers, body, of_connection: 0 })
}

/// A whole answer with a length.
pub(crate) fn whole(body: &str) -> Script {
    answer_with("200 OK", "application/json", body)
}

pub(crate) fn answer_with(status: &str, media_type: &str, body: &str) -> Script {
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n", body.len());
    Script { pieces: vec![head.into_bytes(), body.as_bytes().to_vec()], then: Then::KeepAlive }
}

/// The head of a chunked answer.
pub(crate) fn chunked_head(media_type: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ntransfer-encoding: chunked\r\n\r\n")
        .into_bytes()
}

pub(crate) fn chunk(data: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// A stream of events, one chunk each, ended in good order.
pub(crate) fn events(events: &[&str]) -> Script {
    let mut script = events_without_end(events, Then::KeepAlive);
    script.pieces.push(b"0\r\n\r\n".to_vec());
    script
}

/// A stream of events that does not end.
pub(crate) fn events_without_end(events: &[&str], then: Then) -> Script {
    let mut pieces = vec![chunked_head("text/event-stream")];
    pieces.extend(events.iter().map(|event| chunk(event.as_bytes())));
    Script { pieces, then }
}

/// Nothing at all, and the connection stays open.
pub(crate) fn silence() -> Script {
    Script { pieces: Vec::new(), then: Then::Hang }
}

/// A gateway on a socket.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) gateway: Gateway,
    records: Arc<Records>,
    tasks: Tasks,
}

/// Remembers every request that is over.
#[derive(Default)]
pub(crate) struct Records(Mutex<Vec<RequestRecord>>);

impl RequestLog for Records {
    fn record(&self, record: RequestRecord) {
        self.0.lock().unwrap().push(record);
    }
}

impl Front {
    pub(crate) async fn start(instances: Vec<RoutedInstance>) -> Self {
        Self::start_with(instances, Limits::default()).await
    }

    pub(crate) async fn start_with(instances: Vec<RoutedInstance>, limits: Limits) -> Self {
        Self::start_routed(instances, limits, Routes::default()).await
    }

    /// With routes that a user has written down.
    pub(crate) async fn start_routed(instances: Vec<RoutedInstance>, limits: Limits, routes: Routes) -> Self {
        let front = Self::serve(limits, routes).await;
        front.publish(instances);
        front
    }

    /// A gateway that has not been told of anything yet.
    pub(crate) async fn without_table() -> Self {
        Self::serve(Limits::default(), Routes::default()).await
    }

    async fn serve(limits: Limits, routes: Routes) -> Self {
        let records = Arc::new(Records::default());
        let (table, registry) = (TableHandle::default(), MetricsRegistry::default());
        let gateway = Gateway::new(table, limits, routes, registry, Some(records.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let served = gateway.clone();
        let service = service_fn(move |mut request: http::Request<_>| {
            let gateway = served.clone();
            // What the door does with a key.
            let caller = request.headers().get(CALLER).and_then(|id| id.to_str().ok()).map(Caller::unbounded);
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            async move { Ok::<_, Infallible>(gateway.handle(request).await) }
        });
        tasks.spawn("front", serve(listener, service, ServeOptions::default(), tasks.child()));
        Self { address, gateway, records, tasks }
    }

    /// What was written down so far of requests that are over.
    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.records.0.lock().unwrap().clone()
    }

    pub(crate) fn publish(&self, instances: Vec<RoutedInstance>) {
        self.gateway.table().publish(RoutingTable::new(instances));
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        exchange(self.address, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n"), b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Reply {
        self.post_with(path, "content-type: application/json\r\n", body).await
    }

    pub(crate) async fn post_with(&self, path: &str, headers: &str, body: &str) -> Reply {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {}\r\n", body.len());
        exchange(self.address, &head, body.as_bytes()).await
    }

    /// Sends a request and leaves the connection open for the test to look at.
    pub(crate) async fn open(&self, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        stream
    }

    /// One line of the metrics; nothing when it is absent.
    pub(crate) async fn metric(&self, start: &str) -> Option<String> {
        let text = self.get("/metrics").await.text();
        text.lines().find(|line| line.starts_with(start)).map(str::to_owned)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

/// What a client got before the connection closed.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// Chunks joined.
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its head had announced.
    pub(crate) complete: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends a request that closes its connection and reads all that comes.
pub(crate) async fn exchange(address: SocketAddr, head: &str, body: &[u8]) -> Reply {
    let work = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.unwrap();
        // A server that has refused may close before it read all of this.
        let _ = stream.write_all(body).await;
        read_reply(&mut stream).await
    };
    tokio::time::timeout(LIMIT, work).await.expect("an answer within the limit")
}

/// Reads until the connection closes.
pub(crate) async fn read_reply(stream: &mut TcpStream) -> Reply {
    let mut got = Vec::new();
    let work = async {
        while let Ok(count) = stream.read_buf(&mut got).await {
            if count == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(LIMIT, work).await.expect("the connection closes within the limit");
    parse_reply(&got)
}

/// Reads until the given text has come.
pub(crate) async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut got = Vec::new();
    let work = async {
        while find(&got, text.as_bytes()).is_none() {
            assert_ne!(
                stream.read_buf(&mut got).await.unwrap(),
                0,
                "closed after {:?}",
                String::from_utf8_lossy(&got)
            );
        }
    };
    tokio::time::timeout(LIMIT, work).await.expect("the text within the limit");
    String::from_utf8(got).unwrap()
}

fn parse_reply(got: &[u8]) -> Reply {
    let end =
        find(got, b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(got))) + 4;
    let (line, headers) = parse_head(&got[..end]);
    let rest = &got[end..];
    let (body, complete) = if find_header(&headers, "transfer-encoding").is_some() {
        join_chunks(rest)
    } else {
        let length = find_header(&headers, "content-length").map(|text| text.parse::<usize>().unwrap());
        (rest.to_vec(), length.is_none_or(|length| length == rest.len()))
    };
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, headers, body, complete }
}

fn join_chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line_end) = find(rest, b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).unwrap(), 16).unwrap();
        let Some(data) = rest.get(line_end + 2..line_end + 2 + size) else { break };
        if size == 0 {
            return (body, true);
        }
        body.extend_from_slice(data);
        rest = &rest[line_end + 2 + size + 2..];
    }
    (body, false)
}

fn parse_head(head: &[u8]) -> (String, Vec<(String, String)>) {
    let text = std::str::from_utf8(head).unwrap();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    (line, headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect())
}

fn find_header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// A replica that is ready, with two slots.
pub(crate) fn replica(pool: &str, number: u16, address: SocketAddr) -> Replica {
    Replica {
        key: key(pool, number),
        address,
        engine_version: Some("b11434".to_owned()),
        api_key: None,
        ready: true,
        draining: false,
        slots_total: 2,
        slot_context: Some(4096),
        device_mask: None,
        free_vram: None,
        last_good_probe: UnixMillis(1),
    }
}

pub(crate) fn key(pool: &str, number: u16) -> ReplicaKey {
    ReplicaKey { node_id: "node-1".to_owned(), pool_id: pool.to_owned(), replica_id: ReplicaId(number) }
}

pub(crate) fn instance(name: &str, replicas: Vec<Replica>) -> RoutedInstance {
    let status = if replicas.is_empty() { Status::Stopped } else { Status::Running };
    RoutedInstance {
        name: InstanceName::new(name).unwrap(),
        aliases: Vec::new(),
        status,
        loadable: gateway::Loadable::No,
        created_at: UnixMillis(1_700_000_000_000),
        replicas,
    }
}

/// An instance `chat` with one replica at each address.
pub(crate) fn chat(addresses: &[SocketAddr]) -> Vec<RoutedInstance> {
    let replicas =
        addresses.iter().zip(0..).map(|(&address, number)| replica("chat", number, address)).collect();
    vec![instance("chat", replicas)]
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Waits until no request holds a place on the replica.
pub(crate) async fn wait_idle(front: &Front, key: &ReplicaKey) {
    let table = front.gateway.table();
    testkit::wait_for_async("every slot to be free", LIMIT, || async {
        table.busy_slots(key) == 0 && table.in_flight(key) == 0
    })
    .await;
}
