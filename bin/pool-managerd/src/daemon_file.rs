//! `run/daemon.json`: how commands find the living daemon of a home and prove that they belong to it.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;

use engine_process::StartMark;
use orch_core::{HomeLayout, UnixMillis};
use serde::{Deserialize, Serialize};

/// Far above any real file of this kind.
const MAX_FILE: u64 = 64 * 1024;

/// The living daemon. The file is 0600 and holds a secret; it is written atomically and removed at the end.
#[derive(Clone, Serialize, Deserialize)]
pub struct DaemonFile {
    pub pid: u32,
    pub process_started_at: StartMark,
    pub address: SocketAddr,
    /// Valid for every scope on this daemon, for as long as it lives.
    pub token: String,
    pub version: String,
    pub started_at: UnixMillis,
    /// The address as it was given with `--addr`: a restart keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr_flag: Option<String>,
}

impl std::fmt::Debug for DaemonFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DaemonFile")
            .field("pid", &self.pid)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl DaemonFile {
    /// Whether the process that wrote it still lives: its pid with the same start mark.
    pub fn is_alive(&self) -> bool {
        engine_process::start_mark(self.pid).is_some_and(|mark| mark == self.process_started_at)
    }

    /// Where a command on this machine connects to: a wildcard bind is reached through loopback.
    pub fn connect_address(&self) -> SocketAddr {
        connect_address(self.address)
    }

    pub fn write(&self, home: &HomeLayout) -> io::Result<()> {
        engine_process::write_private(&home.daemon_file(), &serde_json::to_vec(self)?)
    }
}

/// Where something that listens there is reached from this machine.
pub fn connect_address(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The file as it lies there; `None` when there is none or it cannot be understood.
pub fn read(path: &Path) -> Option<DaemonFile> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The daemon of this home, if it lives.
pub fn living(home: &HomeLayout) -> Option<DaemonFile> {
    read(&home.daemon_file()).filter(DaemonFile::is_alive)
}
