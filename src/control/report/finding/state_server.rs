//! What is wrong with a state server of our own, as it says itself.

use super::{Code, Finding};

/// Bytes in a MiB.
const MIB: u64 = 1 << 20;

impl Finding {
    /// A sync has failed, or the thread that writes is gone.
    pub fn disk_failed(folder: &str) -> Self {
        Self::new(
            Code::DiskFailed,
            format!("the disk with {folder} has failed: nobody knows what it has"),
            "Pages that store something fail. Sessions are read as before.",
            "The log says what failed. Replace the disk, then start the state server anew.",
        )
    }

    /// A write was refused, and is tried again.
    pub fn disk_refuses(folder: &str, free_bytes: Option<u64>) -> Self {
        let free = free_bytes.map(|free| format!(" ({} MiB are free)", free / MIB));
        let free = free.unwrap_or_default();
        Self::new(
            Code::DiskRefuses,
            format!("the disk with {folder} refuses writes{free}"),
            "Pages that store something fail. Sessions are read as before.",
            "The log names the reason. Make room on the volume, or let it be written to: the state \
             server tries every second and goes on by itself.",
        )
    }

    /// A write or sync has been going on for so long.
    pub fn disk_hangs(folder: &str, for_ms: u64) -> Self {
        Self::new(
            Code::DiskHangs,
            format!(
                "the disk with {folder} has not answered for {} s",
                for_ms / 1000
            ),
            "Pages that store something wait, then fail. Nothing that was stored before is lost.",
            "Look at the disk, its controller and its network; the kernel's log names the device.",
        )
    }

    /// The slowest write or sync of the last minute took so long.
    pub fn disk_slow(folder: &str, slowest_ms: u64) -> Self {
        Self::new(
            Code::DiskSlow,
            format!("the disk with {folder} took {slowest_ms} ms for one write or sync"),
            "Pages that stored something meanwhile waited as long.",
            "See what else uses the disk. Give the sessions a faster one, or one of their own.",
        )
    }

    /// The volume has little room left.
    pub fn disk_fills_up(folder: &str, free_bytes: u64) -> Self {
        Self::new(
            Code::DiskFillsUp,
            format!(
                "the volume with {folder} fills up: {} MiB are free",
                free_bytes / MIB
            ),
            "Nothing yet. Once it is full, pages that store something fail.",
            "Make room, or enlarge the volume: the files take up to twice what sessions need, plus \
             64 MiB.",
        )
    }

    /// New sessions were refused for lack of memory within the last minute, or will be.
    pub fn memory_full(used_bytes: u64, max_bytes: u64, refused: u64) -> Self {
        let (used, max) = (used_bytes / MIB, max_bytes / MIB);
        Self::new(
            Code::MemoryFull,
            match refused {
                0 => format!("the memory for sessions is full: {used} of {max} MiB"),
                _ => format!(
                    "the memory for sessions is full: {used} of {max} MiB, and {refused} new \
                     sessions were refused in the last minute"
                ),
            },
            "New sessions are refused, and their pages fail. Those that live go on.",
            "Add a state server or give this one less weight. More memory (--max-memory) takes a \
             restart; without --data that loses its sessions, so drain it first.",
        )
    }

    /// Most of the memory is used.
    pub fn memory_fills_up(used_bytes: u64, max_bytes: u64) -> Self {
        let (used, max) = (used_bytes / MIB, max_bytes / MIB);
        Self::new(
            Code::MemoryFillsUp,
            format!("the memory for sessions fills up: {used} of {max} MiB"),
            "Nothing yet. Once it is full, new sessions are refused, and their pages fail.",
            "Add a state server, or give this one less weight.",
        )
    }
}
