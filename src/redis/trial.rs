//! Whether an engine runs the scripts as it must: each of them once, on a key that no session has. And
//! whether its user may say all else that requests need.
//!
//! Engines that speak the protocol of Redis differ most in their scripts. One that answers wrongly
//! would lose sessions without an error, so it is not used.

use std::rc::Rc;

use super::client::Command;
use super::engine::Engine;
use super::error::EngineError;
use super::key::{item_key, slot_of};
use super::node::EngineNode;
use super::reply::EngineReply;
use super::script::Script;
use super::shown::shown;

/// What the answers to all steps but reads and writes bear.
const NONCE: &str = "trial";

/// A step: what is done, and whether the answer is right.
struct Trial<'a> {
    engine: &'a Engine,
    node: Rc<EngineNode>,
    key: String,
}

/// Tries the server that has the key of the trial.
///
/// # Errors
/// [`EngineError::Unfit`] for a wrong answer, or what kept the engine from answering.
pub(super) async fn run(engine: &Engine) -> Result<(), EngineError> {
    // Not one that anybody else tries at the same time.
    let key = item_key(
        engine.prefix(),
        format!("trial {}", engine.nonce()).as_bytes(),
    );
    let slot = slot_of(&key);
    let node = engine.owner(slot).await?;
    Trial { engine, node, key }.play().await
}

impl Trial<'_> {
    async fn play(&self) -> Result<(), EngineError> {
        let scripts = self.engine.scripts();
        let (done, absent) = ([EngineReply::Number(200)], [EngineReply::Number(404)]);
        let touch = Command::script(&scripts.touch, &self.key, NONCE, 0);
        let release = Command::script(&scripts.release, &self.key, NONCE, 0).number(3);
        let released = [EngineReply::Number(200), EngineReply::Number(0)];
        let delete = Command::script(&scripts.delete, &self.key, NONCE, 0);
        let delete = delete.number(3).flag(false).text("0");
        let put_live = &scripts.put_live;

        self.reads("a read of nothing", "trial-0", 0, &absent)
            .await?;
        match self.stores("a new item", &scripts.put, 0).await {
            // A full server takes no new item. The twin, which it runs all the same, makes this one.
            Err(EngineError::Answered { code, .. }) if code == "OOM" => {
                self.stores("a new item beside", put_live, 0).await?;
            }
            made => made?,
        }
        self.reads("a lock", "trial-1", 1, &found(2)).await?;
        self.reads("the same lock again", "trial-1", 1, &found(2))
            .await?;
        self.is_locked_out("a second lock", "trial-2").await?;
        self.stores("a change", put_live, 2).await?;
        self.step("a touch", &scripts.touch, &touch, &done).await?;
        self.reads("another lock", "trial-2", 1, &found(3)).await?;
        self.stores("the same change again", put_live, 2).await?;
        self.step("a release", &scripts.release, &release, &released)
            .await?;
        self.step("a removal", &scripts.delete, &delete, &done)
            .await?;
        self.step("a touch of nothing", &scripts.touch, &touch, &absent)
            .await?;
        // Behind the scripts, for they say of a replica what it is.
        self.engine.ask(&self.node, Command::new(&["PING"])).await?;
        self.engine.may_wait(&self.node).await
    }

    fn read(&self, nonce: &str, step: i64) -> Command {
        let script = &self.engine.scripts().read;
        let command = Command::script(script, &self.key, nonce, 0);
        command.number(step).text("0").number(1000)
    }

    /// A write. Two with one cookie are copies of one.
    async fn stores(&self, what: &str, script: &Script, cookie: i64) -> Result<(), EngineError> {
        let nonce = format!("trial-put-{cookie}");
        let command = Command::script(script, &self.key, &nonce, 0).number(1);
        let command = command.number(cookie).flag(false).flag(false).flag(false);
        let command = command.text("0").bytes(b"tried");
        let answer = self.ask(what, script, &nonce, &command).await?;
        self.require(what, &answer, &[EngineReply::Number(200)])
    }

    async fn reads(
        &self,
        what: &str,
        nonce: &str,
        step: i64,
        expected: &[EngineReply],
    ) -> Result<(), EngineError> {
        let script = &self.engine.scripts().read;
        let command = self.read(nonce, step);
        let answer = self.ask(what, script, nonce, &command).await?;
        self.require(what, &answer, expected)
    }

    async fn is_locked_out(&self, what: &str, nonce: &str) -> Result<(), EngineError> {
        let script = &self.engine.scripts().read;
        let command = self.read(nonce, 1);
        let locked = self.ask(what, script, nonce, &command).await?;
        match locked[..] {
            [
                EngineReply::Number(423),
                EngineReply::Number(2),
                EngineReply::Number(0..),
            ] => Ok(()),
            _ => Err(self.unfit(what, &locked)),
        }
    }

    async fn step(
        &self,
        what: &str,
        script: &Script,
        command: &Command,
        expected: &[EngineReply],
    ) -> Result<(), EngineError> {
        let answer = self.ask(what, script, NONCE, command).await?;
        self.require(what, &answer, expected)
    }

    fn require(
        &self,
        what: &str,
        answer: &[EngineReply],
        expected: &[EngineReply],
    ) -> Result<(), EngineError> {
        match answer == expected {
            true => Ok(()),
            false => Err(self.unfit(what, answer)),
        }
    }

    async fn ask(
        &self,
        what: &str,
        script: &Script,
        nonce: &str,
        command: &Command,
    ) -> Result<Vec<EngineReply>, EngineError> {
        let answer = match self.engine.ask(&self.node, command.clone()).await {
            Err(EngineError::Answered { code, .. }) if code == "NOSCRIPT" => {
                let load = Command::new(&["SCRIPT", "LOAD", &script.text]);
                self.engine
                    .ask(&self.node, load)
                    .await
                    .map_err(|error| match error {
                        EngineError::Answered { node, code, detail } if code == "ERR" => {
                            let needed = "it needs Redis 7.0 or newer, or Valkey";
                            let reason = format!("it cannot read one, {needed}: {code} {detail}");
                            EngineError::Unfit { node, reason }
                        }
                        error => error,
                    })?;
                self.engine.ask(&self.node, command.clone()).await
            }
            answer => answer,
        };
        let answer = answer?;
        let own = answer.answer_to(nonce).map(<[_]>::to_vec);
        own.ok_or_else(|| self.unfit(what, std::slice::from_ref(&answer)))
    }

    fn unfit(&self, what: &str, answer: &[EngineReply]) -> EngineError {
        EngineError::Unfit {
            node: EngineNode::clone(&self.node),
            reason: shown(&format!("{what} was answered {answer:?}")),
        }
    }
}

/// The answer to a read of the item with this counter.
fn found(counter: i64) -> Vec<EngineReply> {
    let answer = [200, 1, counter, 0].map(EngineReply::Number);
    [&answer[..], &[EngineReply::Bytes(b"tried".to_vec())]].concat()
}
