//! What the service manager of the system hears, and what packages are made from.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::client::{Client, put};
use crate::support::{PATIENCE, run, start};

/// What `socket` hears, until a message with `wanted`; returns that one.
fn hear(socket: &UnixDatagram, wanted: &str) -> String {
    let mut message = [0; 4096];
    loop {
        let length = socket.recv(&mut message).unwrap();
        let text = String::from_utf8_lossy(&message[..length]);
        if text.lines().any(|line| line == wanted) {
            return text.into_owned();
        }
    }
}

#[test]
fn systemd_hears_when_a_server_serves_how_it_is_that_it_reloads_and_that_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_staterouter"));
    let mut server = start(
        command
            .args(["state-server", "--listen", "127.0.0.1:0"])
            .env("NOTIFY_SOCKET", &path)
            .env(
                "WATCHDOG_USEC",
                Duration::from_millis(200).as_micros().to_string(),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    let ready = hear(&socket, "READY=1");
    assert!(ready.contains("STATUS=listening on 127.0.0.1:"), "{ready}");
    let alive = hear(&socket, "WATCHDOG=1");
    assert!(alive.contains("STATUS="), "{alive}");
    let pid = server.id().to_string();
    let signal = |name: &str| {
        let mut kill = start(Command::new("kill").args([name, &pid]));
        assert!(kill.wait().unwrap().success());
    };
    signal("-HUP");
    let reloading = hear(&socket, "RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    let reloaded = hear(&socket, "READY=1");
    assert!(reloaded.contains("STATUS=listening on"), "{reloaded}");
    signal("-TERM");
    hear(&socket, "STOPPING=1");
    assert!(server.wait().unwrap().success());
}

/// Its files may not grow, as on a disk that is full.
#[test]
fn systemd_hears_that_the_disk_of_a_state_server_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let mut server = start(
        Command::new("sh")
            .args(["-c", limited, env!("CARGO_BIN_EXE_staterouter")])
            .args(["state-server", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("sessions"))
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000")
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    let ready = hear(&socket, "READY=1");
    let status = ready.lines().find_map(|line| line.strip_prefix("STATUS="));
    let address = status.unwrap().strip_prefix("listening on ").unwrap();
    let address = address.strip_suffix(": 0 sessions").unwrap();
    let mut client = Client::connect(address.parse().unwrap());
    client.ask(&put("abcdefghijklmnopqrstuvwx", 0, &[b'x'; 200_000]));
    let wanted = "refuses writes";
    let mut message = [0; 4096];
    let heard = (0..100).any(|_| {
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).contains(wanted)
    });
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(heard);
}

#[test]
fn every_command_has_a_page_of_the_manual_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    let path = |file: &str| folder.path().join(file);
    let (exit, _, said) = run(&["manual", path("m").to_str().unwrap()]);
    assert_eq!(exit, Some(0), "{said}");
    let page = std::fs::read_to_string(path("m/staterouter-state-server.1")).unwrap();
    assert!(page.contains("tls\\-cert"), "{page}");
    let words = std::fs::read_to_string(path("m/staterouter.bash")).unwrap();
    assert!(words.contains("--tls-client-ca"), "{words}");
    std::fs::write(path("file"), "").unwrap();
    let (exit, _, said) = run(&["manual", path("file").to_str().unwrap()]);
    assert_eq!(exit, Some(3));
    assert!(said.contains("cannot write to"), "{said}");
}

#[test]
fn the_version_says_what_the_program_was_built_from_and_for() {
    let (_, said, _) = run(&["--version"]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], concat!("staterouter ", env!("CARGO_PKG_VERSION")));
    assert!(lines[1].starts_with("commit: "), "{said}");
    assert_eq!(
        lines[2],
        format!(
            "target: {}-{}",
            std::env::consts::ARCH,
            std::env::consts::OS
        ),
        "{said}"
    );
    let (_, short, _) = run(&["-V"]);
    assert_eq!(short.trim_end(), lines[0]);
}
