//! Lines on their way to an output that may be slow: whoever logs never waits for it.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// How often it is looked whether a full queue has room again, at the end of the program.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// A bounded queue, and the thread that writes what is in it. A line that finds no room is lost and
/// counted.
#[derive(Debug)]
pub(super) struct LineQueue {
    entries: SyncSender<Entry>,
    lost: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Everything before it was handed to the output.
    Mark(Sender<()>),
}

impl LineQueue {
    /// Where the system gives no thread, every line is lost.
    pub(super) fn start(out: impl Write + Send + 'static, max_lines: usize) -> Self {
        let (entries, queued) = sync_channel(max_lines);
        let thread = thread::Builder::new().name("log".to_owned());
        // It ends with the process: an output that hangs must not keep that from ending.
        let _ = thread.spawn(move || write_all(out, &queued));
        Self {
            entries,
            lost: Arc::default(),
        }
    }

    /// Lines that found no room.
    pub(super) fn lost_lines(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether all lines until now were handed to the output before `deadline`.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        let (passed, marks_passed) = channel();
        let mut mark = Entry::Mark(passed);
        loop {
            match self.entries.try_send(mark) {
                Ok(()) => break,
                Err(TrySendError::Full(again)) if Instant::now() < deadline => mark = again,
                Err(_) => return false,
            }
            thread::sleep(ROOM_PAUSE);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        marks_passed.recv_timeout(left).is_ok()
    }
}

impl Clone for LineQueue {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            lost: Arc::clone(&self.lost),
        }
    }
}

impl Write for &LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.entries.try_send(Entry::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Writes until nobody can log any more. An output that fails is tried again with the next line.
fn write_all(mut out: impl Write, queued: &Receiver<Entry>) {
    for entry in queued {
        match entry {
            Entry::Line(line) => {
                let _ = out.write_all(&line);
            }
            Entry::Mark(passed) => {
                let _ = out.flush();
                // Nobody waits for it once the program has ended.
                let _ = passed.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// An output that takes a line only when it is told to, and keeps it.
    struct Gated {
        told: Receiver<()>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.told.recv().map_err(io::Error::other)?;
            self.taken.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated(max_lines: usize) -> (LineQueue, Sender<()>, Receiver<Vec<u8>>) {
        let ((tell, told), (taken, lines)) = (channel(), channel());
        (
            LineQueue::start(Gated { told, taken }, max_lines),
            tell,
            lines,
        )
    }

    #[test]
    fn an_output_that_takes_nothing_costs_lines_and_holds_nobody_up() {
        let (queue, tell, taken) = gated(4);
        for number in 0..100_u8 {
            (&queue).write_all(&[number]).unwrap();
        }
        // Four in the queue and perhaps one at the output.
        let lost = queue.lost_lines();
        assert!(matches!(lost, 95 | 96), "{lost}");
        assert!(!queue.flush(Instant::now()));

        for _ in 0..100 - lost {
            tell.send(()).unwrap();
        }
        assert!(queue.flush(Instant::now() + LONG));
        let taken: Vec<_> = taken.try_iter().collect();
        let first = (0..100 - lost as u8).map(|number| vec![number]);
        assert_eq!(taken, first.collect::<Vec<_>>());
    }

    #[test]
    fn an_output_that_fails_is_tried_again_with_the_next_line() {
        let (queue, tell, taken) = gated(4);
        drop(taken);
        for _ in 0..3 {
            tell.send(()).unwrap();
            (&queue).write_all(b"line").unwrap();
            assert!(queue.flush(Instant::now() + LONG));
        }
        assert_eq!(queue.lost_lines(), 0);
        assert!(tell.send(()).is_ok(), "the output is gone");
    }
}
