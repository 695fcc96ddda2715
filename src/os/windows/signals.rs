//! Ctrl-C, Ctrl-Break, the closed window and the end of the session stop; so does the service
//! manager, which also asks for a reload.

use std::io;
use std::sync::LazyLock;

use tokio::signal::windows::{self, CtrlBreak, CtrlC, CtrlClose, CtrlShutdown};
use tokio::sync::watch;

/// How often the service manager has asked for each; a process is one service.
static ASKED: LazyLock<watch::Sender<Asked>> = LazyLock::new(|| watch::channel(Asked::default()).0);

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    stops: u64,
    reloads: u64,
}

/// What the service manager asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceRequest {
    /// End in good order; asked a second time, end at once.
    Stop,
    /// Read the files again.
    Reload,
}

/// Tells this process what the service manager asks for.
pub fn control(control: ServiceRequest) {
    ASKED.send_modify(|asked| match control {
        ServiceRequest::Stop => asked.stops += 1,
        ServiceRequest::Reload => asked.reloads += 1,
    });
}

/// What the system asks this process to do.
#[derive(Debug)]
pub struct Signals {
    ctrl_c: CtrlC,
    ctrl_break: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
    asked: watch::Receiver<Asked>,
    /// Stops and reloads that were heard of.
    heard: Asked,
}

impl Signals {
    /// From here on what stops the program no longer ends the process by itself. Needs a runtime.
    ///
    /// # Errors
    /// When the system takes no handler.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            ctrl_c: windows::ctrl_c()?,
            ctrl_break: windows::ctrl_break()?,
            close: windows::ctrl_close()?,
            shutdown: windows::ctrl_shutdown()?,
            asked: ASKED.subscribe(),
            heard: Asked::default(),
        })
    }

    /// The service manager is always listened to.
    ///
    /// # Errors
    /// None.
    pub fn catch_reload(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Returns at the first word that ends the program; calls `on_reload` for each that asks for a
    /// reload.
    pub async fn stop(&mut self, on_reload: impl Fn()) {
        loop {
            let heard = self.heard;
            let asked = self
                .asked
                .wait_for(|asked| asked.stops > heard.stops || asked.reloads > heard.reloads);
            tokio::select! {
                _ = self.ctrl_c.recv() => return,
                _ = self.ctrl_break.recv() => return,
                _ = self.close.recv() => return,
                _ = self.shutdown.recv() => return,
                Ok(asked) = asked => {
                    let (last, asked) = (heard, *asked);
                    if asked.reloads > last.reloads {
                        on_reload();
                    }
                    self.heard.reloads = asked.reloads;
                    if asked.stops > last.stops {
                        // A second stop that came meanwhile is a word of its own.
                        self.heard.stops = last.stops + 1;
                        return;
                    }
                }
            }
        }
    }
}
