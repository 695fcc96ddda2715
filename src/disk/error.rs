//! What can go wrong with the folder of a store.

use std::io;

/// The folder of the sessions cannot be used, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has it.
    #[error(
        "another process keeps its sessions in {folder}; each state server needs a folder of its own"
    )]
    InUse {
        /// The folder.
        folder: String,
    },
    /// The system refuses something.
    #[error("cannot {action} {file}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Where.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file is where a new one is to be made.
    #[error(
        "{file} is there already, and this state server has not made it: see which other program writes into the folder, and move the file away"
    )]
    InTheWay {
        /// The file.
        file: String,
    },
    /// A file is missing between others.
    #[error(
        "{file} is missing, and later files are there: put it back from a copy, or move all of them away to start without sessions"
    )]
    Missing {
        /// The file.
        file: String,
    },
    /// A file does not hold what was once safely on the disk.
    #[error(
        "{file} is damaged at byte {offset}: {fault}; put it back from a copy, or move all files away to start without sessions"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where the first bad byte may be.
        offset: u64,
        /// What is wrong.
        fault: &'static str,
    },
    /// A fault of the program.
    #[error("the thread that writes sessions has ended early")]
    Writer,
    /// The system gives no thread.
    #[error("cannot start the thread that writes sessions: {0}")]
    Thread(#[source] io::Error),
}
