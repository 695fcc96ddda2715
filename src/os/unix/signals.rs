//! SIGTERM, SIGQUIT and Ctrl-C stop, SIGHUP asks for a reload. SIGUSR1 and SIGUSR2, which others
//! take for "open the log again" or "upgrade", do nothing.

use std::future::pending;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the system asks this process to do.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// From here on what stops the program no longer ends the process by itself. Needs a runtime.
    ///
    /// # Errors
    /// When the system gives no event queue or signal handler.
    pub fn new() -> io::Result<Self> {
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
            interrupt,
            terminate,
            quit,
            hangup: None,
        })
    }

    /// From here on what asks for a reload does not end the process. Needs a runtime.
    ///
    /// # Errors
    /// When the system gives no signal handler.
    pub fn catch_reload(&mut self) -> io::Result<()> {
        self.hangup = Some(signal(SignalKind::hangup())?);
        Ok(())
    }

    /// Returns at the first signal that ends the program; calls `on_reload` for each that asks for
    /// a reload, if that is caught.
    pub async fn stop(&mut self, on_reload: impl Fn()) {
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.quit.recv() => return,
                _ = hangup => on_reload(),
            }
        }
    }
}
