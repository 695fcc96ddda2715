//! The admin server as an operator asks it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No answer, or not the wanted one, after this long is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// Status code and body of an answer.
pub type Answer = (u16, String);

pub fn get(admin: SocketAddr, path: &str) -> Answer {
    ask(admin, "GET", path, "")
}

/// Posts a body.
pub fn post(admin: SocketAddr, path: &str, body: &str) -> Answer {
    ask(admin, "POST", path, body)
}

/// Has the files read again; the status code and the outcome.
pub fn reload(admin: SocketAddr) -> (u16, Value) {
    let (status, body) = post(admin, "/reload", "");
    (status, serde_json::from_str(&body).unwrap())
}

/// The status page.
pub fn status(admin: SocketAddr) -> Value {
    serde_json::from_str(&get(admin, "/status").1).unwrap()
}

/// One backend of the status page.
pub fn backend<'s>(status: &'s Value, name: &str) -> &'s Value {
    let backends = status["backends"].as_array().unwrap();
    let found = backends.iter().find(|backend| backend["name"] == name);
    found.unwrap_or(&Value::Null)
}

/// Asks for the status page until `wanted` is true of it.
pub fn wait_for(admin: SocketAddr, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let status = status(admin);
        if wanted(&status) {
            return status;
        }
        assert!(
            since.elapsed() < PATIENCE,
            "never came true: {what}: {status:#}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a finding with this code is there.
pub fn wait_for_finding(admin: SocketAddr, code: &str) -> Value {
    let find = |status: &Value| {
        let findings = status["findings"].as_array().unwrap();
        findings.iter().find(|found| found["code"] == code).cloned()
    };
    let status = wait_for(admin, code, |status| find(status).is_some());
    find(&status).unwrap()
}

/// Head, in lower case, and body of an answer.
pub fn page(admin: SocketAddr, path: &str) -> (String, String) {
    exchange(admin, "GET", path, "")
}

fn ask(admin: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let (head, body) = exchange(admin, method, path, body);
    let status = head.strip_prefix("http/1.1 ").unwrap()[..3].parse();
    (status.unwrap(), body)
}

fn exchange(admin: SocketAddr, method: &str, path: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nStaterouter-Request: 1\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}
