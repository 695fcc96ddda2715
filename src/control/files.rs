//! The two files of the operator while the proxy runs.

use std::path::PathBuf;

use super::watch::{ContentOf, WatchOptions, Watcher};
use crate::config::{self, Config, LoadError, Loaded, PartitionMap};

/// How long after a refusal that is not the fault of the files they are read again, in
/// milliseconds.
const AGAIN_AFTER_MS: u64 = 5_000;

/// Faults that are told of one file pair; a log is no editor.
const MAX_FAULTS: usize = 20;

/// The main file and the partition map it named at the start.
#[derive(Debug)]
pub(super) struct Files {
    main: PathBuf,
    map: PathBuf,
    contents: [ContentOf; 2],
    /// They say something else than what was in force at the start.
    are_news: bool,
    /// When they are to be read again even if nobody changes them.
    again_ms: Option<u64>,
}

impl Files {
    /// `config` and `partition_map` are what was read from them a moment ago.
    pub(super) fn new(main: PathBuf, config: &Config, partition_map: &PartitionMap) -> Self {
        let map = config.partition_map.clone();
        let mut files = Self {
            contents: [ContentOf::new(&main), ContentOf::new(&map)],
            map,
            main,
            are_news: false,
            again_ms: None,
        };
        // Only now: what changes from here on is seen in the contents.
        files.are_news = !files
            .load()
            .is_ok_and(|loaded| loaded.config == *config && loaded.partition_map == *partition_map);
        files
    }

    /// Needs a runtime with a clock.
    pub(super) fn watch(&self) -> Watcher {
        let files = [self.main.clone(), self.map.clone()];
        Watcher::new(files, WatchOptions::default())
    }

    /// Whether either holds something else than at the last call; at the first call, than what is
    /// in force.
    pub(super) fn have_changed(&mut self) -> bool {
        let [main, map] = &mut self.contents;
        // Both are looked at, whatever the first says.
        std::mem::take(&mut self.are_news) | main.has_changed() | map.has_changed()
    }

    /// What they say could not be put in force and may be later.
    pub(super) fn read_again(&mut self, now_ms: u64) {
        self.again_ms = Some(now_ms + AGAIN_AFTER_MS);
    }

    /// Whether they are to be read again by now.
    pub(super) fn are_due(&mut self, now_ms: u64) -> bool {
        self.again_ms.take_if(|due_ms| *due_ms <= now_ms).is_some()
    }

    /// Reads both. The map is the one of the start, whatever the main file now names.
    ///
    /// # Errors
    /// Every fault, one line each.
    pub(super) fn load(&mut self) -> Result<Loaded, Vec<String>> {
        self.again_ms = None;
        let mut loaded = config::load(&self.main).map_err(|error| lines(&error))?;
        if loaded.config.partition_map != self.map {
            let map = config::load_partition_map(&self.map);
            loaded.partition_map = map.map_err(|error| lines(&error))?;
        }
        Ok(loaded)
    }
}

fn lines(error: &LoadError) -> Vec<String> {
    let LoadError::Faults(faults) = error else {
        return vec![error.to_string()];
    };
    let shown = faults.iter().take(MAX_FAULTS);
    let mut lines: Vec<_> = shown.map(config::Fault::in_one_line).collect();
    if faults.total() > MAX_FAULTS {
        lines.push(format!("and {} more", faults.total() - MAX_FAULTS));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MAP: &str = "version: 1\nbackends: [{name: a, address: 'a.example:1'}]\n";
    const MAIN: &str = "partition_map: map.yaml\n";

    #[test]
    fn what_changes_after_it_was_loaded_is_news_once() {
        for (file, text) in [
            ("map.yaml", MAP.replace("version: 1", "version: 2")),
            ("main.yaml", MAIN.replace("\n", "\nworkers: 3\n")),
            ("main.yaml", "a fault".to_owned()),
            ("map.yaml", format!("# Says the same.\n{MAP}")),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = |file: &str| directory.path().join(file);
            fs::write(path("map.yaml"), MAP).unwrap();
            fs::write(path("main.yaml"), MAIN).unwrap();
            let loaded = config::load(&path("main.yaml")).unwrap();
            fs::write(path(file), &text).unwrap();
            let main = path("main.yaml");
            let mut files = Files::new(main, &loaded.config, &loaded.partition_map);
            assert_eq!(files.have_changed(), !text.starts_with('#'), "{text}");
            assert!(!files.have_changed());
            fs::write(path(file), "other").unwrap();
            assert!(files.have_changed());
        }
    }
}
