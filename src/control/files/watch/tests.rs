//! Every way a file is changed in practice, seen through the real watcher.

use std::future::pending;
use std::os::unix::fs::symlink;

use super::*;

const FILE: &str = "map.yaml";

/// No sign of a change after this long is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(30);

const NEVER: Duration = Duration::from_secs(3600);

const EVENTS_ONLY: WatchOptions = WatchOptions {
    events: true,
    restat: NEVER,
    quiet: Duration::from_millis(1),
    quiet_growing: Duration::from_millis(1),
    longest_wait: Duration::from_millis(10),
};

const RESTAT_ONLY: WatchOptions = WatchOptions {
    events: false,
    restat: Duration::from_millis(10),
    ..EVENTS_ONLY
};

const BOTH: WatchOptions = WatchOptions {
    events: true,
    ..RESTAT_ONLY
};

/// A directory of configuration files and who watches one of them.
struct Scene {
    root: tempfile::TempDir,
    watcher: Watcher,
    content: ContentOf,
}

impl Scene {
    /// `prepare` puts the first file into the directory.
    fn new(options: WatchOptions, prepare: impl Fn(&Path)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("config");
        fs::create_dir(&directory).unwrap();
        prepare(&directory);
        let file = directory.join(FILE);
        Self {
            root,
            watcher: Watcher::new([file.clone()], options),
            content: ContentOf::new(file),
        }
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("config")
    }

    fn file(&self) -> PathBuf {
        self.directory().join(FILE)
    }

    /// Reads after each report, until the file holds `wanted`; `None` for no file.
    async fn until_read(&mut self, wanted: Option<&str>) {
        loop {
            let changed = self.watcher.changed();
            let reported = tokio::time::timeout(PATIENCE, changed).await;
            assert!(reported.is_ok(), "{wanted:?} was never reported");
            if self.content.has_changed()
                && fs::read_to_string(self.file()).ok().as_deref() == wanted
            {
                return;
            }
        }
    }
}

/// Runs `scene` with events alone and with the slow look alone.
fn either_way<F: Future<Output = ()>>(scene: impl Fn(WatchOptions) -> F) {
    for options in [EVENTS_ONLY, RESTAT_ONLY] {
        run(scene(options));
    }
}

fn run(scene: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(scene);
}

fn old_file(directory: &Path) {
    fs::write(directory.join(FILE), "old").unwrap();
}

#[test]
fn another_file_is_renamed_over_it() {
    either_way(async |options| {
        let mut scene = Scene::new(options, old_file);
        let next = scene.directory().join(".map.yaml.tmp");
        fs::write(&next, "newer").unwrap();
        fs::rename(next, scene.file()).unwrap();
        scene.until_read(Some("newer")).await;
    });
}

#[test]
fn it_is_written_in_place_again_and_again() {
    either_way(async |options| {
        let mut scene = Scene::new(options, old_file);
        for content in ["newer", "newer still"] {
            fs::write(scene.file(), content).unwrap();
            scene.until_read(Some(content)).await;
        }
    });
}

#[test]
fn it_is_removed_and_comes_back() {
    either_way(async |options| {
        let mut scene = Scene::new(options, old_file);
        fs::remove_file(scene.file()).unwrap();
        scene.until_read(None).await;
        fs::write(scene.file(), "newer").unwrap();
        scene.until_read(Some("newer")).await;
    });
}

/// As Kubernetes brings a new version of mounted configuration.
#[test]
fn a_link_on_the_way_to_it_is_swapped() {
    let version = |directory: &Path, version: &str, content: &str| {
        fs::create_dir(directory.join(version)).unwrap();
        fs::write(directory.join(version).join(FILE), content).unwrap();
        symlink(version, directory.join("..data_tmp")).unwrap();
        fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
    };
    either_way(async |options| {
        let mut scene = Scene::new(options, |directory| {
            version(directory, "..2026_01", "old");
            symlink(Path::new("..data").join(FILE), directory.join(FILE)).unwrap();
        });
        version(&scene.directory(), "..2026_02", "newer");
        fs::remove_dir_all(scene.directory().join("..2026_01")).unwrap();
        scene.until_read(Some("newer")).await;
    });
}

#[test]
fn its_directory_is_replaced() {
    run(async {
        let mut scene = Scene::new(BOTH, old_file);
        fs::rename(scene.directory(), scene.root.path().join("away")).unwrap();
        fs::create_dir(scene.directory()).unwrap();
        fs::write(scene.file(), "newer").unwrap();
        scene.until_read(Some("newer")).await;
    });
}

#[test]
fn its_directory_is_missing_for_a_while() {
    run(async {
        let mut scene = Scene::new(BOTH, old_file);
        fs::remove_dir_all(scene.directory()).unwrap();
        scene.until_read(None).await;
        fs::create_dir(scene.directory()).unwrap();
        fs::write(scene.file(), "newer").unwrap();
        scene.until_read(Some("newer")).await;
    });
}

/// After one slow look the operating system tells of changes in the new directory.
#[test]
fn a_replaced_directory_is_watched_like_the_first() {
    run(async {
        let mut scene = Scene::new(EVENTS_ONLY, old_file);
        fs::remove_dir_all(scene.directory()).unwrap();
        fs::create_dir(scene.directory()).unwrap();
        assert!(scene.watcher.look().is_changed);
        // Late events of the old directory may report the first of these, but not all.
        for content in ["1", "2", "3", "4", "5", "6", "7", "8"] {
            fs::write(scene.file(), content).unwrap();
            scene.until_read(Some(content)).await;
        }
    });
}

#[test]
fn a_change_that_never_ends_is_reported_all_the_same() {
    run(async {
        let options = WatchOptions {
            quiet: NEVER,
            quiet_growing: NEVER,
            ..EVENTS_ONLY
        };
        let mut scene = Scene::new(options, old_file);
        fs::write(scene.file(), "newer").unwrap();
        scene.until_read(Some("newer")).await;
    });
}

#[test]
fn a_report_waits_until_it_is_quiet() {
    run(async {
        let watcher = Scene::new(EVENTS_ONLY, old_file).watcher;
        let first = Instant::now();
        let after = |is_growing, last_ms| {
            let mut watcher = Watcher::new([], watcher.options);
            watcher.options.quiet = Duration::from_millis(200);
            watcher.options.quiet_growing = Duration::from_millis(700);
            watcher.options.longest_wait = Duration::from_millis(2000);
            let unsettled = Unsettled {
                first,
                last: first + Duration::from_millis(last_ms),
                is_growing,
            };
            (watcher.due(unsettled) - first).as_millis()
        };
        assert_eq!(after(false, 0), 200);
        assert_eq!(after(false, 1500), 1700);
        assert_eq!(after(false, 1900), 2000);
        assert_eq!(after(true, 0), 700);
        assert_eq!(after(true, 1500), 2000);
    });
}

/// A map that is written in place, with a pause between its backends.
#[test]
fn a_file_that_grows_in_steps_is_reported_whole() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        const PAUSE: Duration = Duration::from_millis(900);
        // Without events, which would need the real clock: the looks stand in for them.
        let options = WatchOptions {
            events: false,
            restat: Duration::from_millis(50),
            ..WatchOptions::default()
        };
        let mut scene = Scene::new(options, old_file);
        let file = scene.file();
        let write = async {
            for lines in 0..=3 {
                fs::write(&file, "line\n".repeat(lines)).unwrap();
                // The second is longer than the time in which a file that does not grow is quiet.
                tokio::time::sleep(PAUSE * if lines == 1 { 3 } else { 1 }).await;
            }
            pending::<()>().await;
        };
        tokio::select! {
            () = scene.watcher.changed() => {}
            () = write => {}
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "line\n".repeat(3));
    });
}

#[test]
fn what_we_do_ourselves_is_no_change() {
    let access = |kind| may_change_content(&EventKind::Access(kind));
    assert!(!access(AccessKind::Open(AccessMode::Any)));
    assert!(!access(AccessKind::Close(AccessMode::Read)));
    assert!(access(AccessKind::Close(AccessMode::Write)));
}

#[test]
fn content_is_compared_and_not_the_file() {
    let directory = tempfile::tempdir().unwrap();
    old_file(directory.path());
    let file = directory.path().join(FILE);
    let mut content = ContentOf::new(&file);
    assert!(!content.has_changed());
    fs::remove_file(&file).unwrap();
    assert!(content.has_changed());
    assert!(!content.has_changed());
    old_file(directory.path());
    assert!(content.has_changed());
    old_file(directory.path());
    assert!(!content.has_changed());
}
