//! Answers that no state server gives to what was asked: none reaches a client, for ASP.NET would
//! take it for an absent session, or for another user's.

use crate::support::answers::{DONE, item, locked_item};
use crate::support::backend::{ABSENT, Backend};
use crate::support::client::{Client, acquire, get, release};
use crate::support::metrics::Scrape;
use crate::support::operations::{self, BODY, Exchange};
use crate::support::{Program, admin, proxy, system};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// Somebody else's session.
const OTHER: &str = "the session of another user";

const UNFIT: &str = "staterouter_backend_unfit_answers_total{backend=\"state-1\"}";

/// Sends the request of `exchange`, has the backend answer `answer` and expects that the client gets
/// nothing of it.
fn expect_closed(proxy: &Program, backend: &Backend, exchange: &Exchange, answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    let mut client = Client::connect(proxy.address);
    client.send(&exchange.request.client);
    let mut connection = backend.accept();
    connection.expect(&exchange.request.backend, answer);
    let got = client.until_closed();
    assert!(got.is_empty(), "{}: {text} was passed on", exchange.name);
    // The true answer may still be on its way to an acquire: then the connection stays until then.
    if exchange.name != "acquire" {
        assert!(connection.is_closed(), "{}: {text}", exchange.name);
    }
}

#[test]
fn a_status_that_says_nothing_about_a_session_ends_the_connection() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    let mut count = 0.0;
    for exchange in operations::all(ID) {
        for answer in [
            &b"404 Not Found\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Length: 4\r\n\r\ngone",
            b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
            b"500 Internal Server Error\r\nX-AspNet-Version: 4.0.30319\r\nContent-Length: 0\r\n\r\n",
            b"501 Not Implemented\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            b"204 No Content\r\nX-AspNet-Version: 4.0.30319\r\nContent-Length: 0\r\n\r\n",
        ] {
            expect_closed(&proxy, &backend, &exchange, answer);
            count += 1.0;
        }
        // A refusal that a state server writes in its own words passes.
        let mut client = Client::connect(proxy.address);
        client.send(&exchange.request.client);
        let refusal = b"400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        let mut connection = backend.accept();
        connection.expect(&exchange.request.backend, refusal);
        assert_eq!(client.answer_to(exchange.name == "touch"), refusal);
        connection.close();
    }
    let scrape = Scrape::of(proxy.admin());
    assert_eq!(scrape.value(UNFIT), count);
    let reason = "staterouter_failed_requests_total{reason=\"unfit\"}";
    assert_eq!(scrape.value(reason), count);
    let found = admin::wait_for_finding(proxy.admin(), "answers_unfit");
    assert_eq!(found["about"], "state-1");
}

#[test]
fn an_answer_to_another_kind_of_request_ends_the_connection() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    let (an_item, locked) = (item(OTHER.as_bytes()), locked_item(7, OTHER.as_bytes()));
    for exchange in operations::all(ID) {
        let answers: &[&[u8]] = match exchange.name {
            "acquire" => &[DONE, &an_item],
            "get" => &[DONE, &locked],
            "touch" => &[&locked[..locked.len() - OTHER.len()]],
            _ => &[&an_item, &locked],
        };
        for answer in answers {
            expect_closed(&proxy, &backend, &exchange, answer);
        }
    }
}

#[test]
fn of_two_answers_to_one_request_none_is_passed_on() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    for exchange in operations::all(ID) {
        for second in [
            ABSENT,
            DONE,
            &item(OTHER.as_bytes()),
            b"HTTP/1.1 200 OK\r\n",
        ] {
            let both = [&exchange.answer.backend, second].concat();
            expect_closed(&proxy, &backend, &exchange, &both);
            if exchange.name == "acquire" {
                let mut connection = backend.accept();
                connection.expect(&release(ID, operations::COUNTER), DONE);
                connection.close();
            }
        }
    }
}

/// It took the lock, and its cookie came behind an answer that was not its own.
#[test]
fn the_lock_of_an_acquire_that_was_answered_late_is_given_back() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    for stray in [DONE, &item(OTHER.as_bytes())] {
        let mut client = Client::connect(proxy.address);
        client.send(&acquire(ID));
        let mut connection = backend.accept();
        connection.expect(&acquire(ID), stray);
        assert_eq!(client.until_closed(), b"");
        connection.write(&locked_item(42, BODY));
        let mut other = backend.accept();
        other.expect(&release(ID, 42), DONE);
        other.close();
    }
}

/// A second answer that comes a moment later would be taken for the one to the next request.
#[test]
fn connections_rest_once_a_backend_has_answered_twice() {
    let backend = Backend::start();
    // Idle for ever: what is closed was not closed for its age.
    let extra = "timeouts: {backend_idle: 1h}";
    let proxy = proxy(&[backend.address], extra);
    let admin = proxy.admin();
    let mut client = Client::connect(proxy.address);
    client.send(&get(ID));
    let mut first = backend.accept();
    first.expect(&get(ID), &item(BODY));
    assert_eq!(client.answer_to(false), item(BODY));
    // The first time it is seen when the connection is to be used again.
    first.write(&item(OTHER.as_bytes()));
    system::wait_until_arrived(&first.stream);
    client.send(&get(ID));
    let mut second = backend.accept();
    second.expect(&get(ID), &item(BODY));
    assert_eq!(client.answer_to(false), item(BODY));
    let is_counted = |count| move || Scrape::of(admin).value(UNFIT) == count;
    system::wait_until("the stray answer is counted", is_counted(1.0));
    // From then on without a request.
    second.write(&item(OTHER.as_bytes()));
    assert!(second.is_closed());
    system::wait_until("the other is as well", is_counted(2.0));
}
