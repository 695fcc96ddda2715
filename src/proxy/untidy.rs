//! What is to be tidied up, and how much of it at once.

use std::cell::Cell;
use std::rc::Rc;

use crate::backend::Left;
use crate::net::Conn;

/// Requests that one worker has under way in the background, at most.
const MAX_UNDER_WAY: usize = 256;

/// Late answers that one worker waits for, at most. Beside the others, because each may take as long
/// as a takeover: those of one backend that hangs must not stop the tidying at all.
const MAX_LATE: usize = 128;

/// One thing to tidy up.
pub(super) enum Untidy {
    /// A lock whose client never learned of it; its cookie came with an answer.
    Lock(u32),
    /// The answer to an acquire has not come in time and is still expected on this connection.
    LateAnswer(Conn),
    /// What a moved item left behind, under this lock.
    Moved(u32),
    /// A copy that is to be kept alive.
    Copy,
}

impl From<Left> for Untidy {
    fn from(left: Left) -> Self {
        match left {
            Left::Late(conn) => Self::LateAnswer(conn),
            Left::Lock(cookie) => Self::Lock(cookie),
        }
    }
}

/// Counts what is under way.
#[derive(Debug, Default)]
pub(super) struct Tidying {
    late: Rc<Cell<usize>>,
    copies: Rc<Cell<usize>>,
    others: Rc<Cell<usize>>,
}

/// One of them.
pub(super) struct UnderWay(Rc<Cell<usize>>);

impl Tidying {
    pub(super) fn begin(&self, untidy: &Untidy) -> Option<UnderWay> {
        let (under_way, max) = match untidy {
            Untidy::LateAnswer(_) => (&self.late, MAX_LATE),
            Untidy::Copy => (&self.copies, MAX_UNDER_WAY),
            Untidy::Lock(_) | Untidy::Moved(_) => (&self.others, MAX_UNDER_WAY),
        };
        let free = under_way.get() < max;
        free.then(|| {
            under_way.set(under_way.get() + 1);
            UnderWay(Rc::clone(under_way))
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn late_answers_leave_room_for_locks_and_for_what_was_moved() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let late = Untidy::LateAnswer(Conn::new(stream.unwrap()));
        let tidying = Tidying::default();
        let begin_all =
            |untidy: &Untidy| Vec::from_iter(std::iter::from_fn(|| tidying.begin(untidy)));
        let waiting = begin_all(&late);
        assert_eq!(waiting.len(), MAX_LATE);
        let others = [Untidy::Lock(2), Untidy::Moved(2)].map(|untidy| begin_all(&untidy).len());
        assert_eq!(others, [MAX_UNDER_WAY; 2]);
        drop(waiting);
        assert!(tidying.begin(&late).is_some());
    }
}
