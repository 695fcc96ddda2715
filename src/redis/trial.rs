//! Whether an engine runs the scripts as it must: each of them once, on a key that no session has.
//!
//! Engines that speak the protocol of Redis differ most in their scripts. One that answers wrongly
//! would lose sessions without an error, so it is not used.

use std::rc::Rc;

use super::client::{Command, Reply};
use super::engine::Engine;
use super::error::EngineError;
use super::key::{item_key, slot_of};
use super::script::Script;
use super::topology::{Node, Topology};

/// A step: what is done, and whether the answer is right.
struct Trial<'a> {
    engine: &'a Engine,
    node: Rc<Node>,
    key: String,
}

/// Tries the server that has the key of the trial.
///
/// # Errors
/// [`EngineError::Unfit`] for a wrong answer, or what kept the engine from answering.
pub(super) async fn run(engine: &Engine, topology: &Topology) -> Result<(), EngineError> {
    // Not one that anybody else tries at the same time.
    let key = item_key(
        engine.prefix(),
        format!("trial {}", engine.nonce()).as_bytes(),
    );
    let slot = slot_of(&key);
    let node = topology.owner(slot).ok_or(EngineError::NoOwner { slot })?;
    let trial = Trial { engine, node, key };
    match trial.play().await {
        // A full server takes no new item, which says nothing about its scripts.
        Err(EngineError::Answered { code, .. }) if code == "OOM" => Ok(()),
        played => played,
    }
}

impl Trial<'_> {
    async fn play(&self) -> Result<(), EngineError> {
        let scripts = self.engine.scripts();
        let read = |nonce: &str, step| {
            let command = Command::script(&scripts.read, &self.key, 0).text(nonce);
            command.number(step).text("0").number(1000)
        };
        let put = |script, cookie| {
            let command = Command::script(script, &self.key, 0)
                .number(1)
                .number(cookie);
            let command = command.flag(false).flag(false).flag(false);
            command.text("0").bytes(b"tried")
        };
        let found = |counter| {
            let answer = [200, 1, counter, 0].map(Reply::Number);
            [&answer[..], &[Reply::Bytes(b"tried".to_vec())]].concat()
        };
        let done = || vec![Reply::Number(200)];
        let absent = || vec![Reply::Number(404)];
        let touch = Command::script(&scripts.touch, &self.key, 0);
        let release = Command::script(&scripts.release, &self.key, 0);
        let release = release.text("trial-2").number(3);
        let delete = Command::script(&scripts.delete, &self.key, 0);
        let delete = delete.number(3).flag(false).text("0");

        self.step(
            "a read of nothing",
            &scripts.read,
            &read("trial-0", 0),
            &absent(),
        )
        .await?;
        self.step("a new item", &scripts.put, &put(&scripts.put, 0), &done())
            .await?;
        self.step("a lock", &scripts.read, &read("trial-1", 1), &found(2))
            .await?;
        self.step(
            "the same lock again",
            &scripts.read,
            &read("trial-1", 1),
            &found(2),
        )
        .await?;
        let locked = self
            .ask("a second lock", &scripts.read, &read("trial-2", 1))
            .await?;
        if !matches!(
            locked[..],
            [Reply::Number(423), Reply::Number(2), Reply::Number(0..)]
        ) {
            return Err(self.unfit("a second lock", &locked));
        }
        let put_live = put(&scripts.put_live, 2);
        self.step("a change", &scripts.put_live, &put_live, &done())
            .await?;
        self.step("a touch", &scripts.touch, &touch, &done())
            .await?;
        self.step(
            "another lock",
            &scripts.read,
            &read("trial-2", 1),
            &found(3),
        )
        .await?;
        let released = [Reply::Number(200), Reply::Number(0)];
        self.step("a release", &scripts.release, &release, &released)
            .await?;
        self.step("a removal", &scripts.delete, &delete, &done())
            .await?;
        self.step("a touch of nothing", &scripts.touch, &touch, &absent())
            .await
    }

    async fn step(
        &self,
        what: &str,
        script: &Script,
        command: &Command,
        expected: &[Reply],
    ) -> Result<(), EngineError> {
        let answer = self.ask(what, script, command).await?;
        match answer == expected {
            true => Ok(()),
            false => Err(self.unfit(what, &answer)),
        }
    }

    async fn ask(
        &self,
        what: &str,
        script: &Script,
        command: &Command,
    ) -> Result<Vec<Reply>, EngineError> {
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
        match answer? {
            Reply::List(list) => Ok(list),
            other => Err(self.unfit(what, std::slice::from_ref(&other))),
        }
    }

    fn unfit(&self, what: &str, answer: &[Reply]) -> EngineError {
        EngineError::Unfit {
            node: Node::clone(&self.node),
            reason: format!("{what} was answered {answer:?}"),
        }
    }
}
