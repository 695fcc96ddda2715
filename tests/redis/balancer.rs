//! What stands before several proxies: each connection goes to one that takes it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Where to connect instead of to one of `proxies`. Ends with the tests.
pub(crate) fn balance(proxies: Vec<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let (before, after) = proxies.split_at(number % proxies.len());
            let mut in_turn = after.iter().chain(before);
            if let Some(proxy) = in_turn.find_map(|proxy| TcpStream::connect(proxy).ok()) {
                join(&client.unwrap(), &proxy);
            }
        }
    });
    address
}

/// What one end sends the other gets, and both end together.
fn join(client: &TcpStream, proxy: &TcpStream) {
    for (from, to) in [(client, proxy), (proxy, client)] {
        to.set_nodelay(true).unwrap();
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || {
            let _ = io::copy(&mut &from, &mut &to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}
