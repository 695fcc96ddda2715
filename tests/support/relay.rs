//! The network between proxies and one server: a way that can be closed to one process alone.

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Passes connections on to one server.
pub struct Relay {
    /// Where to connect instead.
    pub address: SocketAddr,
    ways: Arc<Mutex<Ways>>,
}

#[derive(Default)]
struct Ways {
    /// The process that does not get through.
    cut_off: Option<u32>,
    open: Vec<TcpStream>,
}

impl Relay {
    /// A way to the server at `server`.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ways = Arc::<Mutex<Ways>>::default();
        let shared = Arc::clone(&ways);
        // Ends with the tests.
        thread::spawn(move || {
            for client in listener.incoming() {
                pass_on(client.unwrap(), server, &shared);
            }
        });
        Self { address, ways }
    }

    /// From now on nothing of the process `pid` gets through, for everybody else it stays as it was.
    pub fn cut_off(&self, pid: u32) {
        let mut ways = self.ways.lock().unwrap();
        ways.cut_off = Some(pid);
        for client in ways.open.drain(..) {
            if is_of(pid, &client) {
                let _ = client.shutdown(Shutdown::Both);
            }
        }
    }

    /// Everybody gets through again.
    pub fn mend(&self) {
        self.ways.lock().unwrap().cut_off = None;
    }
}

fn pass_on(client: TcpStream, server: SocketAddr, ways: &Mutex<Ways>) {
    let mut ways = ways.lock().unwrap();
    if ways.cut_off.is_some_and(|pid| is_of(pid, &client)) {
        return;
    }
    let Ok(server) = TcpStream::connect(server) else {
        return;
    };
    ways.open.push(client.try_clone().unwrap());
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || {
            let _ = io::copy(&mut &from, &mut &to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

/// Whether the other end of a loopback connection belongs to a process.
fn is_of(pid: u32, client: &TcpStream) -> bool {
    let Ok(SocketAddr::V4(peer)) = client.peer_addr() else {
        return false;
    };
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let own = format!(":{:04X}", peer.port());
    let mut lines = table.lines().map(|line| line.split_whitespace());
    let inode = lines.find_map(|mut words| {
        let local = words.nth(1)?;
        local.ends_with(&own).then(|| words.nth(7))?
    });
    let Some(socket) = inode.map(|inode| format!("socket:[{inode}]")) else {
        return false;
    };
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    links.any(|link| link.as_os_str() == socket.as_str())
}
