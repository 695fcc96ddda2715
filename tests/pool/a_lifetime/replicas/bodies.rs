//! Bodies that are held whole because two servers get them.

use std::io::Write;
use std::thread;
use std::time::Duration;

use super::{Proxy, SLOTS, Server, TIMES, kept_twice, number, wait, wait_until_whole};
use crate::support::client::{Client, acquire, body, get, put, status};
use crate::support::sessions::ids;
use crate::support::system::wait_up_to;

/// Larger than the read buffer.
const LARGE: usize = 200_000;

/// It would bind the memory that others wait for.
#[test]
fn a_body_that_drips_is_cut_off_and_stored_nowhere() {
    let servers = [(); 3].map(|()| Server::start());
    let map = kept_twice(&servers.each_ref());
    let times = TIMES.replace("answer: 8s", "answer: 8s, client_stall: 1s");
    let proxy = Proxy::start(&map, &times);
    wait_until_whole(&[&proxy]);
    let [id] = ids(91, 1).try_into().unwrap();
    let request = put(&id, 0, &[b'x'; LARGE]);
    let mut client = Client::connect(proxy.address);
    let (at_once, mut dripping) = request.split_at(100_000);
    client.send(at_once);
    // Each byte comes long before the time for a part of the body is up.
    let cut_off = wait_up_to(Duration::from_secs(30), || {
        let (byte, rest) = dripping.split_at(1);
        dripping = rest;
        thread::sleep(Duration::from_millis(50));
        client.stream.write_all(byte).is_err().then_some(())
    });
    assert!(cut_off.is_some(), "it drips for ever");
    for address in servers.each_ref().map(|server| server.address) {
        assert_eq!(status(&Client::connect(address).ask(&get(&id))), "404");
    }
    proxy.wait_for_log("request failed");
    assert_eq!(proxy.status()["replication"]["slots"]["full"], SLOTS);
}

/// The page does not fail for want of memory: its slot goes on without the copy, and is filled anew.
#[test]
fn a_page_for_whose_copy_there_is_no_memory_goes_on_without() {
    let servers = [(); 3].map(|()| Server::start());
    let map = kept_twice(&servers.each_ref());
    let times = TIMES.replace("answer: 8s", "answer: 2s");
    let proxy = Proxy::start(&map, &format!("limits: {{body: 200KiB}}\n{times}"));
    wait_until_whole(&[&proxy]);
    let sessions: [String; 3] = ids(92, 3).try_into().unwrap();
    let others: [String; 4] = ids(93, 4).try_into().unwrap();
    let mut client = Client::connect(proxy.address);
    let content = [b'x'; LARGE];
    for id in &sessions {
        assert_eq!(status(&client.ask(&put(id, 0, &content))), "200");
    }
    // As many as there is memory for, half of each.
    let requests = others.each_ref().map(|other| put(other, 0, &content));
    let mut holders = requests.each_ref().map(|request| {
        let mut holder = Client::connect(proxy.address);
        holder.send(&request[..LARGE / 2]);
        holder
    });
    // The first lock of a session is copied before its page begins. One that comes before the memory
    // is taken is copied, and those that wait for memory have it when the next comes.
    for id in &sessions {
        let locked = client.ask(&acquire(id));
        assert_eq!((status(&locked), body(&locked)), ("200", &content[..]));
    }
    let behind = wait(&[&proxy], "a slot is behind", |status| {
        number(&status["replication"]["slots"]["full"]) < SLOTS
    });
    assert_eq!(behind["slots"]["steady"], SLOTS);
    for (holder, request) in holders.iter_mut().zip(&requests) {
        assert_eq!(status(&holder.ask(&request[LARGE / 2..])), "200");
    }
}
