//! Host names that only one process knows: a file of its own in the place of `/etc/hosts`.

use std::fmt::Write;
use std::process::Command;

use tempfile::NamedTempFile;

/// Puts its first argument in the place of `/etc/hosts`, then becomes the program that follows.
const SCRIPT: &str = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";

/// The names, which can change while programs run with them.
pub struct Hosts {
    file: NamedTempFile,
}

impl Hosts {
    /// Names, each with an address. `None`, and a word about it, where this process may not give
    /// another one files of its own: that takes root.
    pub fn new(names: &[(&str, &str)]) -> Option<Self> {
        let hosts = Self {
            file: NamedTempFile::new().unwrap(),
        };
        let allowed = hosts.command("true").status();
        if !allowed.is_ok_and(|status| status.success()) {
            eprintln!("left out: host names of a test take root and `unshare --mount`");
            return None;
        }
        hosts.set(names);
        Some(hosts)
    }

    /// Other names, or other addresses, from now on.
    pub fn set(&self, names: &[(&str, &str)]) {
        let mut text = String::new();
        for (name, address) in names {
            writeln!(text, "{address} {name}").unwrap();
        }
        // In place: another file would not be seen.
        std::fs::write(self.file.path(), text).unwrap();
    }

    /// Runs a program that knows these names.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", SCRIPT])
            .arg(self.file.path())
            .arg(program);
        command
    }
}
