//! Edge-triggered epoll: every socket is registered once, for reading and writing, and no call is
//! spent on changing that.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::Timespec;

use crate::Error;

/// Events fetched by one call.
const EVENTS: usize = 1024;

pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// What a socket is ready for. A socket that was closed or has failed is readable.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Poll {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Watches both directions of `socket` for changes, beginning with what it is ready for now.
    pub(crate) fn add(&self, socket: impl AsFd, token: usize) -> Result<(), Error> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        self.watch(socket, token, flags)
    }

    /// Watches a listener for as long as connections wait.
    pub(crate) fn add_listener(&self, socket: impl AsFd, token: usize) -> Result<(), Error> {
        // Only one of the threads that share the listener wakes up for a connection.
        self.watch(socket, token, EventFlags::IN | EventFlags::EXCLUSIVE)
    }

    fn watch(&self, socket: impl AsFd, token: usize, flags: EventFlags) -> Result<(), Error> {
        let token = EventData::new_u64(token as u64);
        Ok(epoll::add(&self.epoll, socket, token, flags)?)
    }

    /// Waits until something is ready or the time is over, then hands out what is ready.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<impl Iterator<Item = Ready> + use<'_>, Error> {
        let timeout = timeout.map(|t| Timespec {
            tv_sec: t.as_secs() as i64,
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let broken = EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP;
        Ok(self.events.iter().map(move |event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64() as usize,
                readable: flags.intersects(EventFlags::IN | broken),
                writable: flags.intersects(EventFlags::OUT | broken),
            }
        }))
    }
}
