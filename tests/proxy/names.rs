//! Backends that the map names by host name.

use crate::support::ProxyFiles;
use crate::support::answers::DONE;
use crate::support::backend::Backend;
use crate::support::client::{Client, head};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// `localhost` is often an IPv6 address as well, where nobody listens: the next one is tried.
#[test]
fn a_host_name_leads_to_whichever_of_its_addresses_listens() {
    let backend = Backend::start();
    let name = format!("localhost:{}", backend.address.port());
    let proxy = ProxyFiles::new(&[name], "").serve();
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(proxy.address)).collect();
    clients.iter_mut().for_each(|client| client.send(&head(ID)));
    for mut connection in clients.iter().map(|_| backend.accept()).collect::<Vec<_>>() {
        connection.expect(&head(ID), DONE);
    }
    for client in &mut clients {
        assert_eq!(client.answer_to(true), DONE);
    }
}

/// Whether the name service says no or says nothing: an error for the user, never an absence.
#[test]
fn a_host_name_that_leads_nowhere_costs_the_connection() {
    let name = "nowhere.invalid:42424";
    let proxy = ProxyFiles::new(&[name], "timeouts: {connect: 300ms}").serve();
    for _ in 0..3 {
        let mut client = Client::connect(proxy.address);
        client.send(&head(ID));
        assert_eq!(client.until_closed(), b"");
    }
    assert!(
        proxy.stop().contains("state-1"),
        "the failure is logged with the backend's name"
    );
}
