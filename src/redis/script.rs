//! The scripts: one for each operation, known to the engine by their digests.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// What stands around the text of each script. Its answer ends with the nonce that it was sent: whatever
/// stands between here and the server, no answer passes for that to another command.
const BEGIN: &str = "local function run()\n";
const END: &str = "end\nlocal answer = run()\nanswer[#answer + 1] = ARGV[1]\nreturn answer\n";

/// A full server runs the script.
const FLAGS: &str = " flags=allow-oom";

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
            read: Script::new(FLAGS, include_str!("scripts/read.lua")),
            release: Script::new(FLAGS, include_str!("scripts/release.lua")),
            put: Script::new("", put),
            put_live: Script::new(FLAGS, put),
            delete: Script::new(FLAGS, include_str!("scripts/delete.lua")),
            touch: Script::new(FLAGS, include_str!("scripts/touch.lua")),
        }
    }
}

impl Script {
    fn new(flags: &str, text: &str) -> Self {
        let text = format!("#!lua{flags}\n{BEGIN}{text}{END}");
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let sha = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        let sha = sha.collect();
        Self { text, sha }
    }
}
