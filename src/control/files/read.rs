//! The two files of the operator while the proxy runs. A thread of its own watches and reads them:
//! they may be on a disk that does not answer.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::interval;

use super::watch::{ContentOf, WatchOptions, Watcher};
use crate::config::{self, Config, LoadError, LoadedConfig, PartitionMap};
use crate::control::pulse::Pulse;
use crate::control::report::status::ReloadOutcome;

/// How long after a refusal that is not the fault of the files they are read again, in
/// milliseconds.
const AGAIN_AFTER_MS: u64 = 5_000;

/// Faults that are told of one file pair; a log is no editor.
const MAX_FAULTS: usize = 20;

/// Orders and results that wait at most.
const MAX_WAITING: usize = 64;

/// How often the thread says that it goes on.
const BEAT: Duration = Duration::from_secs(1);

/// Why the files were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// They hold something else.
    Changed,
    /// What they say could not be put in force, or read, and may be now.
    Again,
    /// Somebody has asked, with this number.
    Asked(u64),
}

/// What the files said.
#[derive(Debug)]
pub(crate) struct FilesRead {
    pub(crate) why: Why,
    /// Both without a fault, or every fault, one line each.
    pub(crate) loaded: Result<LoadedConfig, Vec<String>>,
}

/// The thread that reads the files, as control sees it.
#[derive(Debug)]
pub(crate) struct FileReader {
    orders: mpsc::Sender<Why>,
    pulse: Pulse,
    names: String,
    /// When they are to be read again even if nobody changes them.
    again_ms: Option<u64>,
    /// Who waits to be told what became of them, by number.
    waiting: Vec<(u64, oneshot::Sender<ReloadOutcome>)>,
    asked: u64,
    is_stuck: bool,
}

/// Whether the files can be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As far as is known.
    Works,
    /// The disk has just ceased to answer: what is wrong, for people.
    Stuck(String),
}

impl FileReader {
    /// Starts the thread, which ends with this, or with the disk that it hangs in.
    ///
    /// # Errors
    /// When the system gives no thread or event queue.
    pub(crate) fn start(files: Files) -> io::Result<(Self, mpsc::Receiver<FilesRead>)> {
        let names = format!("{} and {}", files.main.display(), files.map.display());
        let (results, read) = mpsc::channel(MAX_WAITING);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let (orders, ordered) = mpsc::channel(MAX_WAITING);
        let pulse = Pulse::default();
        let beating = pulse.clone();
        let follow = move || runtime.block_on(files.follow(ordered, results, &beating));
        let thread = thread::Builder::new().name("files".to_owned());
        thread.spawn(follow)?;
        let reader = Self {
            orders,
            pulse,
            names,
            again_ms: None,
            waiting: Vec::new(),
            asked: 0,
            is_stuck: false,
        };
        Ok((reader, read))
    }

    /// Has the files read, whatever they hold. `answer` is told what became of it by
    /// [`Self::answer`].
    ///
    /// # Errors
    /// Gives `answer` back when nobody can read them now.
    pub(crate) fn ask(
        &mut self,
        answer: oneshot::Sender<ReloadOutcome>,
    ) -> Result<(), (oneshot::Sender<ReloadOutcome>, String)> {
        if self.pulse.stuck().is_some() {
            return Err((answer, self.problem()));
        }
        self.asked += 1;
        if self.orders.try_send(Why::Asked(self.asked)).is_err() {
            return Err((answer, self.problem()));
        }
        self.waiting.push((self.asked, answer));
        Ok(())
    }

    /// Tells those who asked up to number `asked`.
    pub(crate) fn answer(&mut self, asked: u64, outcome: &ReloadOutcome) {
        let told = self.waiting.extract_if(.., |(number, _)| *number <= asked);
        for (_, answer) in told {
            // Whoever asked may not have waited.
            let _ = answer.send(outcome.clone());
        }
    }

    /// Tells everybody who asked.
    pub(crate) fn answer_all(&mut self, outcome: &ReloadOutcome) {
        self.answer(self.asked, outcome);
    }

    /// What they say could not be put in force and may be later.
    pub(crate) fn read_again(&mut self, now_ms: u64) {
        self.again_ms = Some(now_ms + AGAIN_AFTER_MS);
    }

    /// Has them read if they are due, and says when they can no longer be.
    pub(crate) fn follow(&mut self, now_ms: u64) -> Reading {
        let was_stuck = self.is_stuck;
        self.is_stuck = self.pulse.stuck().is_some();
        let is_due = self.again_ms.take_if(|due_ms| *due_ms <= now_ms).is_some();
        if self.is_stuck && !was_stuck {
            return Reading::Stuck(self.problem());
        }
        // What was said of a disk that did not answer is no longer true.
        if is_due || (was_stuck && !self.is_stuck) {
            // When so many orders wait, one of them does it.
            let _ = self.orders.try_send(Why::Again);
        }
        Reading::Works
    }

    fn problem(&self) -> String {
        let seconds = self.pulse.stuck().map_or(0, |stuck| stuck.since.as_secs());
        let names = &self.names;
        format!("cannot read {names}: the disk has not answered for {seconds} s")
    }
}

/// The main file and the partition map it named at the start.
#[derive(Debug)]
pub(crate) struct Files {
    main: PathBuf,
    map: PathBuf,
    contents: [ContentOf; 2],
    /// They say something else than what was in force at the start.
    are_news: bool,
    faults_at_start: Vec<String>,
}

impl Files {
    /// `config` and `partition_map` are what was read from them a moment ago.
    pub(crate) fn new(main: PathBuf, config: &Config, partition_map: &PartitionMap) -> Self {
        let map = config.partition_map.clone();
        let mut files = Self {
            contents: [ContentOf::new(&main), ContentOf::new(&map)],
            map,
            main,
            are_news: false,
            faults_at_start: Vec::new(),
        };
        // Only now: what changes from here on is seen in the contents.
        match files.load() {
            Ok(loaded) => {
                files.are_news = loaded.config != *config || loaded.partition_map != *partition_map;
            }
            Err(faults) => (files.are_news, files.faults_at_start) = (true, faults),
        }
        files
    }

    /// What was wrong with them at the start, one line each.
    pub(crate) fn faults_at_start(&self) -> Vec<String> {
        self.faults_at_start.clone()
    }

    /// Reads them when they change and when that is ordered, until nobody orders any more.
    async fn follow(
        mut self,
        mut orders: mpsc::Receiver<Why>,
        results: mpsc::Sender<FilesRead>,
        pulse: &Pulse,
    ) {
        pulse.beat("reading the files");
        let files = [self.main.clone(), self.map.clone()];
        let mut watcher = Watcher::new(files, WatchOptions::default());
        // Whatever changed between the start and the watching. Somebody may still be writing it.
        let mut are_news = self.have_changed();
        if are_news {
            watcher.expect_change();
        }
        let mut next = None;
        let mut beats = interval(BEAT);
        loop {
            if let Some(why) = next.take() {
                let loaded = self.load();
                if results.send(FilesRead { why, loaded }).await.is_err() {
                    return;
                }
            }
            pulse.beat("reading the files");
            tokio::select! {
                order = orders.recv() => match order {
                    Some(why) => {
                        // What is read now is no news when the watcher reports it.
                        self.have_changed();
                        are_news = false;
                        next = Some(why);
                    }
                    None => return,
                },
                () = watcher.changed() => {
                    let have_changed = self.have_changed();
                    next = match std::mem::take(&mut are_news) {
                        true => Some(Why::Again),
                        false => have_changed.then_some(Why::Changed),
                    };
                }
                _ = beats.tick() => {}
            }
        }
    }

    /// Whether either holds something else than at the last call; at the first call, than what is
    /// in force.
    fn have_changed(&mut self) -> bool {
        let [main, map] = &mut self.contents;
        // Both are looked at, whatever the first says.
        std::mem::take(&mut self.are_news) | main.has_changed() | map.has_changed()
    }

    /// Reads both. The map is the one of the start, whatever the main file now names.
    ///
    /// # Errors
    /// Every fault, one line each.
    fn load(&self) -> Result<LoadedConfig, Vec<String>> {
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
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use crate::control::pulse::STUCK_AFTER;
    use crate::control::report::status::ReloadResult;

    fn reader(pulse: &Pulse) -> (FileReader, mpsc::Receiver<Why>) {
        let (orders, ordered) = mpsc::channel(MAX_WAITING);
        let reader = FileReader {
            orders,
            pulse: pulse.clone(),
            names: "main.yaml and map.yaml".to_owned(),
            again_ms: None,
            waiting: Vec::new(),
            asked: 0,
            is_stuck: false,
        };
        (reader, ordered)
    }

    fn outcome() -> ReloadOutcome {
        ReloadOutcome {
            result: ReloadResult::Unchanged,
            map_version: 1,
            faults: Vec::new(),
            needs_restart: Vec::new(),
        }
    }

    #[test]
    fn a_disk_that_does_not_answer_is_told_once_and_asked_again_afterwards() {
        let pulse = Pulse::silent_for(2 * STUCK_AFTER);
        let (mut reader, mut ordered) = reader(&pulse);
        let Reading::Stuck(problem) = reader.follow(1) else {
            unreachable!("nothing is wrong");
        };
        let wanted = "cannot read main.yaml and map.yaml: the disk has not answered for 10 s";
        assert_eq!(problem, wanted);
        assert_eq!(reader.follow(2), Reading::Works);
        let (answer, mut answered) = oneshot::channel();
        let (answer, problem) = reader.ask(answer).unwrap_err();
        assert_eq!(problem, wanted);
        answer.send(outcome()).unwrap();
        answered.try_recv().unwrap();
        ordered.try_recv().unwrap_err();

        pulse.beat("reading the files");
        assert_eq!(reader.follow(3), Reading::Works);
        assert_eq!(ordered.try_recv(), Ok(Why::Again));
    }

    #[test]
    fn whoever_asks_is_told_of_what_was_read_after_that() {
        let (mut reader, mut ordered) = reader(&Pulse::default());
        let [mut first, mut second] = [(); 2].map(|()| {
            let (answer, answered) = oneshot::channel();
            reader.ask(answer).unwrap();
            answered
        });
        assert_eq!(ordered.try_recv(), Ok(Why::Asked(1)));
        reader.answer(1, &outcome());
        assert_eq!(first.try_recv(), Ok(outcome()));
        second.try_recv().unwrap_err();
        reader.answer_all(&outcome());
        assert_eq!(second.try_recv(), Ok(outcome()));
    }

    /// Nobody has told the watcher of it.
    #[test]
    fn what_is_written_while_the_proxy_starts_is_read_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = |file: &str| directory.path().join(file);
        fs::write(path("map.yaml"), MAP).unwrap();
        fs::write(path("main.yaml"), MAIN).unwrap();
        let loaded = config::load(&path("main.yaml")).unwrap();
        let files = Files::new(path("main.yaml"), &loaded.config, &loaded.partition_map);
        let half = "version: 2\nbackends:\n  - {name: a, address: 'a.example:1'}\n";
        fs::write(path("map.yaml"), half).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let read = runtime.block_on(async {
            let (_orders, ordered) = mpsc::channel(1);
            let (results, mut read) = mpsc::channel(1);
            let pulse = Pulse::default();
            let mut follow = pin!(files.follow(ordered, results, &pulse));
            let first = poll_fn(|context| Poll::Ready(follow.as_mut().poll(context))).await;
            assert!(first.is_pending());
            assert!(read.try_recv().is_err(), "half of it was read");
            let whole = format!("{half}  - {{name: b, address: 'b.example:1'}}\n");
            fs::write(path("map.yaml"), whole).unwrap();
            tokio::select! {
                () = follow => None,
                read = read.recv() => read,
            }
        });
        let loaded = read.unwrap().loaded.unwrap();
        assert_eq!(loaded.partition_map.backends.len(), 2);
    }

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
