//! A thread for what may wait on a disk, so that control never does for long.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long control waits for a disk that was quick until now.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long it waits for one that was slow and did answer.
const MOST_PATIENCE: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

/// Does one job after the other on a thread of its own. One that takes too long is given up and
/// goes on; until it has ended every other is refused at once, so that jobs never overtake.
///
/// A disk that answers slowly, but does, is waited for longer the next time: it would be given up
/// for ever otherwise.
#[derive(Debug)]
pub(crate) struct FileThread {
    jobs: Sender<Job>,
    least_patience: Duration,
    patience: Duration,
    /// The job that was given up and may still go on.
    late: Option<Late>,
}

#[derive(Debug)]
struct Late {
    begun: Instant,
    ended: Receiver<Instant>,
}

impl FileThread {
    /// Starts the thread; it ends with this, or with the job that it hangs in.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        // Tests share their disk with a whole test run.
        let patience = if cfg!(test) { MOST_PATIENCE } else { PATIENCE };
        Self::with_patience(name, patience)
    }

    pub(crate) fn with_patience(name: &str, least_patience: Duration) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let work = move || queue.into_iter().for_each(|job| job());
        thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self {
            jobs,
            least_patience,
            patience: least_patience,
            late: None,
        })
    }

    /// What `job` returns.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when it takes too long, and while one before it does. A job that
    /// has begun goes on: whether it has done its work is not known.
    pub(crate) fn run<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.wait_for_none()?;
        let begun = Instant::now();
        let (answer, answered) = channel();
        let (end, ended) = channel();
        let job = move || {
            let result = job();
            // Nobody waits for the result of a job that was given up.
            let _ = (end.send(Instant::now()), answer.send(result));
        };
        self.jobs.send(Box::new(job)).map_err(|_ended| gone())?;
        match answered.recv_timeout(self.patience) {
            Ok(result) => {
                self.took(begun.elapsed());
                Ok(result)
            }
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
            Err(RecvTimeoutError::Timeout) => {
                self.late = Some(Late { begun, ended });
                Err(late(begun.elapsed()))
            }
        }
    }

    /// Refuses while a job that was given up goes on.
    fn wait_for_none(&mut self) -> io::Result<()> {
        let Some(Late { begun, ended }) = &self.late else {
            return Ok(());
        };
        let took = match ended.try_recv() {
            Ok(end) => end.saturating_duration_since(*begun),
            Err(TryRecvError::Empty) => return Err(late(begun.elapsed())),
            Err(TryRecvError::Disconnected) => return Err(gone()),
        };
        self.late = None;
        self.took(took);
        Ok(())
    }

    fn took(&mut self, time: Duration) {
        let longest = self.least_patience.max(MOST_PATIENCE);
        self.patience = (2 * time).clamp(self.least_patience, longest);
    }
}

fn late(waited: Duration) -> io::Error {
    let seconds = waited.as_secs();
    let says = format!("the disk has not answered for {seconds} s");
    io::Error::new(io::ErrorKind::TimedOut, says)
}

fn gone() -> io::Error {
    io::Error::other("the thread that asks the disk has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_hangs_holds_nobody_up_and_is_never_overtaken() {
        let mut thread = FileThread::with_patience("test", Duration::from_millis(1)).unwrap();
        let (release, hang) = channel::<()>();
        let (note, notes) = channel();
        let first = note.clone();
        let hung = thread.run(move || {
            let _ = hang.recv();
            first.send(1).unwrap();
        });
        assert_eq!(hung.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let second = note.clone();
        let refused = thread.run(move || second.send(2).unwrap());
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
        release.send(()).unwrap();
        assert_eq!(notes.recv(), Ok(1));
        // From the end of the job on it is waited for again, as long as it took at least.
        while thread.wait_for_none().is_err() {
            thread::yield_now();
        }
        thread.patience = Duration::from_secs(30);
        thread.run(move || note.send(3).unwrap()).unwrap();
        assert_eq!(notes.recv(), Ok(3));
        assert!(notes.recv().is_err(), "the job that was refused was done");
    }

    #[test]
    fn a_slow_disk_is_waited_for_longer_and_a_quick_one_as_before() {
        let mut thread = FileThread::with_patience("test", PATIENCE).unwrap();
        for (took_s, wanted_s) in [(1, 3), (5, 10), (60, 30), (0, 3)] {
            thread.took(Duration::from_secs(took_s));
            assert_eq!(thread.patience, Duration::from_secs(wanted_s));
        }
    }
}
