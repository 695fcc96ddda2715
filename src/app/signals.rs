//! What asks the program to end: the first time it stops in good order, the second at once. Some
//! systems also ask for a reload. Which signals these are, `os` says.

use std::io;
use std::thread;

use tokio::sync::{Notify, oneshot};

use crate::os::{Phase, Signals, tell_manager, wanted_signs_of_life};

/// Watches for the signals that end the program.
#[derive(Debug)]
pub struct StopSignals {
    runtime: tokio::runtime::Runtime,
    signals: Signals,
}

impl StopSignals {
    /// From here on the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// When the system gives no event queue or signal handler.
    pub fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let signals = {
            let _entered = runtime.enter();
            Signals::new()?
        };
        Ok(Self { runtime, signals })
    }

    /// From here on a signal that asks for a reload (SIGHUP) does not end the process with requests
    /// in flight.
    ///
    /// # Errors
    /// When the system gives no signal handler.
    pub fn catch_reload(&mut self) -> io::Result<()> {
        let _entered = self.runtime.enter();
        self.signals.catch_reload()
    }

    /// Tells the system's service manager that the program serves, and `status`, a line, as often as
    /// that wants to know. Returns at a signal that ends the program; runs `on_reload` for those that
    /// ask for a reload, if that is caught, and tells the manager when it begins and ends.
    ///
    /// Control that is stuck is no reason to be ended by the manager: pages are served meanwhile.
    pub fn serve_until_stopped(&mut self, status: impl Fn() -> String, on_reload: impl AsyncFn()) {
        tell_manager(Phase::Ready(&status()));
        let signs_of_life = async {
            let Some(pause) = wanted_signs_of_life() else {
                return std::future::pending().await;
            };
            loop {
                tokio::time::sleep(pause).await;
                tell_manager(Phase::Alive(&status()));
            }
        };
        let asked = Notify::new();
        let reloads = async {
            loop {
                asked.notified().await;
                tell_manager(Phase::Reloading);
                on_reload().await;
                tell_manager(Phase::Reloaded(&status()));
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                () = self.signals.stop(|| asked.notify_one()) => {}
                () = signs_of_life => {}
                () = reloads => {}
            }
        });
        tell_manager(Phase::Stopping);
    }

    /// Waits for a signal that ends the program, or for `other` to be done.
    pub fn wait_or<T>(&mut self, other: impl Future<Output = T>) -> Option<T> {
        let stop = self.signals.stop(|| ());
        self.runtime.block_on(async {
            tokio::select! {
                () = stop => None,
                done = other => Some(done),
            }
        })
    }

    /// What `work` returns; `None` when a signal comes first. It goes on then, on a thread that is
    /// left to the end of the process.
    pub fn wait_for<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (result, done) = oneshot::channel();
        let begun = thread::Builder::new()
            .name("start".to_owned())
            .spawn(move || {
                // Nobody waits for it after a signal.
                let _ = result.send(work());
            });
        match begun {
            Ok(_) => self.wait_or(done)?.ok(),
            Err(_) => None,
        }
    }

    /// Waits for a signal that ends the program.
    pub fn wait(&mut self) {
        self.wait_or(std::future::pending::<()>());
    }

    /// Runs `stop`. A second signal gives up waiting for requests in flight.
    pub fn stop(mut self, stop: impl FnOnce() + Send + 'static) {
        let stopping = tokio::task::spawn_blocking;
        let handle = self.runtime.handle().clone();
        let stopped = async move {
            let _entered = handle.enter();
            let _ = stopping(stop).await;
        };
        self.wait_or(stopped);
        self.runtime.shutdown_background();
    }
}
