//! A gateway and nothing else: one socket in front of the engines named on the command line.
//!
//! `cargo run --release --example front -- 127.0.0.1:8080 127.0.0.1:8001 127.0.0.1:8002` serves the engines
//! on 8001 and 8002 as the model `chat`. For measuring what the gateway itself costs.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;

use gateway::{
    Gateway, Limits, MetricsRegistry, Replica, ReplicaKey, RoutedInstance, Routes, RoutingTable, TableHandle,
};
use hyper::service::service_fn;
use orch_core::{InstanceName, ReplicaId, Status, UnixMillis};
use orch_runtime::{ServeOptions, Tasks, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses = std::env::args().skip(1).map(|text| text.parse::<SocketAddr>());
    let listen = addresses.next().ok_or("usage: front LISTEN ENGINE…")??;
    let engines = addresses.collect::<Result<Vec<_>, _>>()?;
    let table = TableHandle::default();
    table.publish(RoutingTable::new(vec![chat(&engines)?]));
    let gateway = Gateway::new(table, Limits::default(), Routes::default(), MetricsRegistry::default(), None);
    let service = service_fn(move |request| {
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(gateway.handle(request).await) }
    });
    let tasks = Tasks::new();
    serve(orch_runtime::bind(listen)?, service, ServeOptions::default(), tasks).await;
    Ok(())
}

fn chat(engines: &[SocketAddr]) -> Result<RoutedInstance, Box<dyn Error>> {
    let replicas = engines.iter().zip(0..).map(|(&address, number)| Replica {
        key: ReplicaKey {
            node_id: "local".to_owned(),
            pool_id: "chat".to_owned(),
            replica_id: ReplicaId(number),
        },
        address,
        engine_version: None,
        api_key: None,
        ready: true,
        draining: false,
        slots_total: 4,
        slot_context: None,
        device_mask: None,
        free_vram: None,
        last_good_probe: UnixMillis(1),
    });
    Ok(RoutedInstance {
        name: InstanceName::new("chat")?,
        aliases: Vec::new(),
        status: Status::Running,
        loadable: gateway::Loadable::No,
        created_at: UnixMillis::now(),
        replicas: replicas.collect(),
    })
}
