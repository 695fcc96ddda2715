//! What SIGTERM, SIGQUIT and Ctrl-C do: the first stops in good order, the second at once. SIGHUP
//! asks for a reload where that is caught. SIGUSR1 and SIGUSR2, which others take for "open the log
//! again" or "upgrade", do nothing.

use std::io;
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Watches for the signals that end the program.
#[derive(Debug)]
pub struct StopSignals {
    runtime: tokio::runtime::Runtime,
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hangup: Option<Signal>,
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
        let _entered = runtime.enter();
        let (interrupt, terminate, quit) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::quit())?,
        );
        // Without a handler they end the process. A handler stays when its signal is dropped.
        for ignored in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            drop(signal(ignored)?);
        }
        Ok(Self {
            runtime,
            interrupt,
            terminate,
            quit,
            hangup: None,
        })
    }

    /// From here on SIGHUP does not end the process with requests in flight.
    ///
    /// # Errors
    /// When the system gives no signal handler.
    pub fn catch_hangup(&mut self) -> io::Result<()> {
        let _entered = self.runtime.enter();
        self.hangup = Some(signal(SignalKind::hangup())?);
        Ok(())
    }

    /// Waits for a signal that ends the program; calls `on_hangup` for each SIGHUP, if that
    /// is caught.
    pub fn wait_through_hangups(&mut self, on_hangup: impl Fn()) {
        let mut caught = self.hangup.take();
        self.wait_or(async {
            if let Some(hangup) = &mut caught {
                while hangup.recv().await.is_some() {
                    on_hangup();
                }
            }
            std::future::pending::<()>().await;
        });
        self.hangup = caught;
    }

    /// Waits for a signal that ends the program, or for `other` to be done.
    pub fn wait_or<T>(&mut self, other: impl Future<Output = T>) -> Option<T> {
        let (interrupt, terminate) = (&mut self.interrupt, &mut self.terminate);
        let quit = &mut self.quit;
        self.runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => None,
                _ = terminate.recv() => None,
                _ = quit.recv() => None,
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
