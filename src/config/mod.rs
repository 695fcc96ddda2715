//! stub until merge
#![allow(missing_docs)]
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
#[derive(Debug, Clone, Default)]
pub struct AllowList(pub Vec<ipnet::IpNet>);
impl AllowList {
    pub fn allows(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.0.iter().any(|n| n.contains(&ip))
    }
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendAddress {
    host: String,
    port: u16,
}
impl BackendAddress {
    pub fn host(&self) -> &str {
        &self.host
    }
    pub fn port(&self) -> u16 {
        self.port
    }
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    Active,
    Drain,
    Off,
}
#[derive(Debug, Clone)]
pub struct BackendSpec {
    pub name: String,
    pub id: u8,
    pub address: BackendAddress,
    pub weight: u32,
    pub state: BackendState,
}
#[derive(Debug, Clone)]
pub struct Timeouts {
    pub connect: Duration,
    pub answer: Duration,
    pub client_idle: Duration,
    pub client_stall: Duration,
    pub backend_idle: Duration,
    pub accept_wait: Duration,
    pub shutdown: Duration,
}
#[derive(Debug, Clone)]
pub struct Limits {
    pub head_bytes: usize,
    pub body_bytes: u64,
    pub client_connections: usize,
    pub idle_backend_connections: usize,
}
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    pub allow: AllowList,
    pub partition_map: PathBuf,
    pub workers: usize,
    pub timeouts: Timeouts,
    pub limits: Limits,
}
#[derive(Debug, Clone)]
pub struct KeyBytes(pub [u8; 16]);
#[derive(Debug, Clone)]
pub struct PartitionMap {
    pub version: u64,
    pub hash_key: KeyBytes,
    pub backends: Vec<BackendSpec>,
}
