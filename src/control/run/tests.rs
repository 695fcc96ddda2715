use std::fs;
use std::io::Write;
use std::sync::Mutex;

use tokio::sync::oneshot;

use super::*;
use crate::config::{Config, PartitionMap};
use crate::control::owed::MAX_OWED;
use crate::control::{ControlOptions, prepare};

const MAP: &str = "version: 1\nbackends: [{name: a, id: 1, address: '10.0.0.1:1'}]";

/// What is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn removals_that_are_refused_do_not_fill_the_log() {
    const REFUSED: usize = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let state_file = directory.path().join("state");
    let full: String = (0..MAX_OWED)
        .map(|number| format!("{{\"place\":1,\"target\":\"{number:06}\"}}\n"))
        .collect();
    fs::write(directory.path().join("state.owed"), full).unwrap();
    let mut config = Config::new("map.yaml");
    config.handover.state_file = state_file;
    let options = ControlOptions {
        config,
        map: PartitionMap::parse(MAP, "map.yaml").unwrap(),
        main_file: None,
        level: None,
    };
    let mut control = prepare(options).unwrap().control;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), || {
        for _ in 0..REFUSED {
            let (noted, mut kept) = oneshot::channel();
            control.owe(proxy::Owed {
                to: Place::new(1).unwrap(),
                target: b"one more".to_vec(),
                noted,
            });
            assert_eq!(kept.try_recv(), Ok(false));
        }
    });
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let count = logged.matches("a removal is refused: 100000").count();
    assert!((1..REFUSED / 10).contains(&count), "{count} lines");
}
