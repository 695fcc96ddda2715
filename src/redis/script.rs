//! The scripts: one for each operation, known to the engine by their digests.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// One script.
#[derive(Debug)]
pub(super) struct Script {
    /// What SCRIPT LOAD gets.
    pub(super) text: String,
    /// What EVALSHA gets, in hexadecimal digits.
    pub(super) sha: String,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) read: Script,
    pub(super) release: Script,
    pub(super) put: Script,
    /// The twin of `put` that a full server still runs; it is told to store live items only.
    pub(super) put_live: Script,
    pub(super) delete: Script,
    pub(super) touch: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let put = include_str!("scripts/put.lua");
        Self {
            read: Script::new(include_str!("scripts/read.lua").to_owned()),
            release: Script::new(include_str!("scripts/release.lua").to_owned()),
            put: Script::new(format!("#!lua\n{put}")),
            put_live: Script::new(format!("#!lua flags=allow-oom\n{put}")),
            delete: Script::new(include_str!("scripts/delete.lua").to_owned()),
            touch: Script::new(include_str!("scripts/touch.lua").to_owned()),
        }
    }
}

impl Script {
    fn new(text: String) -> Self {
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let sha = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        let sha = sha.collect();
        Self { text, sha }
    }
}
