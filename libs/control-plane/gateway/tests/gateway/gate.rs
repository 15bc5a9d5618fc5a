//! An engine that keeps every request until the test lets it go, and counts how many it has at one time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use orch_runtime::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::support::{Front, LIMIT, Seen, events, read_request, whole};

/// What a streaming client of this engine gets.
pub(crate) const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n";

#[derive(Default)]
struct Counts {
    now: AtomicUsize,
    most: AtomicUsize,
    bodies: Mutex<Vec<String>>,
}

/// See the module.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    let_go: Arc<Semaphore>,
    counts: Arc<Counts>,
    _tasks: Tasks,
}

impl Gate {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (let_go, counts) = (Arc::new(Semaphore::new(0)), Arc::new(Counts::default()));
        let tasks = Tasks::new();
        let (gate, counted, children) = (Arc::clone(&let_go), Arc::clone(&counts), tasks.clone());
        tasks.spawn("gate", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (gate, counted) = (Arc::clone(&gate), Arc::clone(&counted));
                children.spawn("gate connection", serve(stream, gate, counted));
            }
        });
        Self { address, let_go, counts, _tasks: tasks }
    }

    /// Answers so many requests, now or when they come.
    pub(crate) fn let_go(&self, count: usize) {
        self.let_go.add_permits(count);
    }

    /// The most requests that it ever had at one time.
    pub(crate) fn most(&self) -> usize {
        self.counts.most.load(Ordering::SeqCst)
    }

    /// The bodies of all requests, in the order of their arrival.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.counts.bodies.lock().unwrap().clone()
    }

    pub(crate) async fn wait_seen(&self, count: usize) {
        testkit::wait_for_async("requests at the engine", LIMIT, || async { self.bodies().len() == count })
            .await;
    }
}

async fn serve(mut stream: TcpStream, gate: Arc<Semaphore>, counts: Arc<Counts>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        let now = counts.now.fetch_add(1, Ordering::SeqCst) + 1;
        counts.most.fetch_max(now, Ordering::SeqCst);
        let body = String::from_utf8(request.body.clone()).unwrap();
        counts.bodies.lock().unwrap().push(body);
        let mut byte = [0];
        let may_answer = tokio::select! {
            permit = gate.acquire() => permit.map(tokio::sync::SemaphorePermit::forget).is_ok(),
            _ = stream.read(&mut byte) => false,
        };
        // Counted before the answer goes: whoever has it may ask again at once.
        counts.now.fetch_sub(1, Ordering::SeqCst);
        if !may_answer || answer(&mut stream, &request).await.is_err() {
            return;
        }
    }
}

async fn answer(stream: &mut TcpStream, request: &Seen) -> std::io::Result<()> {
    let streams = String::from_utf8_lossy(&request.body).contains("\"stream\":true");
    let script = if streams { events(&[STREAM]) } else { whole("{}") };
    for piece in script.pieces {
        stream.write_all(&piece).await?;
    }
    Ok(())
}

/// Waits until so many requests wait in all queues together.
pub(crate) async fn wait_queued(front: &Front, count: usize) {
    testkit::wait_for_async("requests in the queue", LIMIT, || async { queued(front) == count }).await;
}

pub(crate) fn queued(front: &Front) -> usize {
    front.gateway.queues().iter().map(|queue| queue.interactive + queue.batch).sum()
}
