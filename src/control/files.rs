//! The two files of the operator while the proxy runs.

use std::path::{Path, PathBuf};

use super::watch::{ContentOf, WatchOptions, Watcher};
use crate::config::{self, LoadError, Loaded};

/// Faults that are told of one file pair; a log is no editor.
const MAX_FAULTS: usize = 20;

/// The main file and the partition map it named at the start.
#[derive(Debug)]
pub(super) struct Files {
    main: PathBuf,
    map: PathBuf,
    contents: [ContentOf; 2],
}

impl Files {
    pub(super) fn new(main: PathBuf, map: &Path) -> Self {
        Self {
            contents: [ContentOf::new(&main), ContentOf::new(map)],
            map: map.to_owned(),
            main,
        }
    }

    /// Needs a runtime with a clock.
    pub(super) fn watch(&self) -> Watcher {
        let files = [self.main.clone(), self.map.clone()];
        Watcher::new(files, WatchOptions::default())
    }

    /// Whether either holds something else than at the last call.
    pub(super) fn have_changed(&mut self) -> bool {
        let [main, map] = &mut self.contents;
        // Both are looked at, whatever the first says.
        main.has_changed() | map.has_changed()
    }

    /// Reads both. The map is the one of the start, whatever the main file now names.
    ///
    /// # Errors
    /// Every fault, one line each.
    pub(super) fn load(&self) -> Result<Loaded, Vec<String>> {
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
    let line = |fault: &config::Fault| {
        let (file, line, column) = (fault.file(), fault.line(), fault.column());
        let (problem, help) = (fault.problem(), fault.help());
        format!("{file}:{line}:{column}: {problem}; {help}")
    };
    let mut lines: Vec<_> = faults.iter().take(MAX_FAULTS).map(line).collect();
    if faults.total() > MAX_FAULTS {
        lines.push(format!("and {} more", faults.total() - MAX_FAULTS));
    }
    lines
}
