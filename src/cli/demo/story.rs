//! The story that the demo tells: what is done to a farm that runs, and what its users notice.

use std::time::Duration;

use crate::app::StartError;
use crate::app::demo::{Demo, SESSION_MINUTES};

/// How long a scene is looked at before the next one begins.
const LOOK: Duration = Duration::from_secs(6);

/// How long the killed server is away: shorter than requests wait for it.
const AWAY: Duration = Duration::from_secs(2);

/// The share of the sessions with which an added server is filled. Its whole share is a quarter, and
/// comes with the sessions that are used last.
const FILLED_SHARE: f64 = 0.2;

const ADDED: &str = "state-d";
const DRAINED: &str = "state-a";
const KILLED: &str = "state-b";

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    Farm,
    Filling,
    Filled,
    Draining,
    Drained,
    Killed,
    Returning,
    Over,
}

/// How far the story is.
#[derive(Debug)]
pub(super) struct Story {
    scene: Scene,
    /// Since the demo began.
    since: Duration,
}

impl Story {
    pub(super) fn new() -> Self {
        Self {
            scene: Scene::Farm,
            since: Duration::ZERO,
        }
    }

    /// Goes on if it is time to, `now` after the demo began; returns what there is to say then.
    ///
    /// # Errors
    /// [`StartError`]: a server cannot be started, or a file not be written.
    pub(super) fn advance(
        &mut self,
        demo: &mut Demo,
        now: Duration,
    ) -> Result<Option<String>, StartError> {
        let looked = now.saturating_sub(self.since);
        let (version, written) = demo.map_versions();
        let is_settled = |name| {
            let (here, moving) = demo.slots(name);
            (version == written && moving == 0 && looked > Duration::from_secs(1)).then_some(here)
        };
        let (scene, says) = match self.scene {
            Scene::Farm if looked >= LOOK => {
                demo.add(ADDED)?;
                let says = format!(
                    "A fourth server, {ADDED}, is added to the partition map. Sessions move to it \
                     while they are used; a quarter of them will be there soon."
                );
                (Scene::Filling, says)
            }
            // A handful of sessions may be spread unevenly; then the handover's end tells.
            Scene::Filling
                if demo.share_of_sessions(ADDED) >= FILLED_SHARE
                    || is_settled(ADDED).is_some_and(|slots| slots > 0) =>
            {
                let says = format!("{ADDED} has its share of the sessions.");
                (Scene::Filled, says)
            }
            Scene::Filled if looked >= LOOK => {
                demo.drain(DRAINED)?;
                let says = format!(
                    "{DRAINED} is drained, to be patched: new sessions go elsewhere, and those that it \
                     has move away while they are used. That takes as long as a session lives, {SESSION_MINUTES} \
                     minute."
                );
                (Scene::Draining, says)
            }
            Scene::Draining if is_settled(DRAINED) == Some(0) => {
                demo.remove(DRAINED)?;
                let says = format!("{DRAINED} is empty, and is taken away. Nobody has noticed.");
                (Scene::Drained, says)
            }
            Scene::Drained if looked >= LOOK => {
                if let Some(server) = demo.server(KILLED) {
                    let _ = server.stop();
                }
                let says = format!(
                    "{KILLED} goes down. Pages of its users wait now, instead of starting empty \
                     sessions without a word."
                );
                (Scene::Killed, says)
            }
            Scene::Killed if looked >= AWAY => {
                if let Some(server) = demo.server(KILLED) {
                    server.restart()?;
                }
                let says = format!("{KILLED} is started again. Its sessions were on its disk.");
                (Scene::Returning, says)
            }
            Scene::Returning if looked >= LOOK => {
                let says =
                    "That was all: one server added, one taken away, one down for a moment. \
                            The farm goes on until Ctrl-C."
                        .to_owned();
                (Scene::Over, says)
            }
            _ => return Ok(None),
        };
        (self.scene, self.since) = (scene, now);
        Ok(Some(says))
    }
}
