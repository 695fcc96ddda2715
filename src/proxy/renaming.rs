//! Requests of applications that go by several ids: each gets the one that state servers know.

use super::applications::ApplicationSet;
use super::error::ProxyError;
use super::service::{ProxyService, RequestTarget};
use super::view::View;
use crate::net::{Buffer, RequestError};
use crate::route;
use crate::wire::{RequestHead, WireError};

impl ProxyService {
    /// Gives the target at the start of `received` the name that state servers know its application
    /// by, and finds where its session can be.
    #[inline(never)]
    pub(super) fn locate_renamed(
        &self,
        view: &View,
        set: &ApplicationSet,
        head: &mut RequestHead,
        received: &mut Buffer,
    ) -> Result<RequestTarget, ProxyError> {
        let target = head.target.of(received.filled());
        let mut names = self.names_buffer.borrow_mut();
        let renaming = route::renaming(&set.applications, target, &mut names)?;
        let others = set.applications.len();
        let application = renaming.map_or(others, |renaming| renaming.application);
        if let Some((count, start)) = renaming.and_then(|renaming| renaming.start) {
            let sent = head.replace_target_start(count, start.len());
            // It has room: a map with longer starts is refused.
            received.replace_value(sent, start).map_err(|no_room| {
                let max_bytes = no_room.room_bytes;
                RequestError::Malformed(WireError::HeadTooLarge { max_bytes })
            })?;
            if let Some(shard) = view.applications.get(application) {
                shard.renamed.increment();
            }
        }
        let located = self.locate(view, head.target.of(received.filled()))?;
        Ok(RequestTarget {
            application,
            ..located
        })
    }
}
