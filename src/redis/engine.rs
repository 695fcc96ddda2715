//! An engine as one thread uses it: which servers it has, and the connections to them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::OnceCell;

use super::client::{Client, Command, Link, Replicas};
use super::error::EngineError;
use super::key::push_base64_url;
use super::node::EngineNode;
use super::reply::EngineReply;
use super::script::{Script, Scripts};
use super::survey::{Info, Settings};
use super::topology::{SlotMap, Topology};
use crate::config::RedisSpec;
use crate::net::Deadlines;
use crate::store::{StoreDanger, StoreSurvey};

/// How often a command may be sent within its time.
const ATTEMPTS_IN_TIME: u32 = 4;

/// An attempt gets no less, however short the time is.
const MIN_ATTEMPT: Duration = Duration::from_millis(500);

/// The time of a server is asked anew after this: clocks drift.
const CLOCK_AGE: Duration = Duration::from_secs(60);

/// Servers that are connected to, or were.
const MAX_SERVERS: usize = 4096;

/// How an engine is used.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where it is.
    pub spec: RedisSpec,
    /// How long a command may take, with all that has to be tried.
    pub answer: Duration,
    /// Whether counters of locks grow by one each time, as tests of the protocol expect. An
    /// acquire that a failover lost may then share its cookie with a later one.
    pub steps_of_one: bool,
}

/// Where its servers are, what they are connected with, and what was found out about them.
pub struct Engine {
    spec: RedisSpec,
    client: Client,
    scripts: Scripts,
    clock: Rc<Deadlines>,
    attempt: Duration,
    /// The origin of [`Self::now_ms`].
    started: Instant,
    /// Replaced when it has to be looked up anew.
    topology: RefCell<Rc<OnceCell<RefCell<Topology>>>>,
    servers: RefCell<HashMap<Rc<EngineNode>, Rc<Server>>>,
    nonce_seed: [u8; 8],
    nonces: Cell<u64>,
}

/// One server.
#[derive(Debug, Default)]
struct Server {
    link: OnceCell<Link>,
    time: Cell<Option<ServerTime>>,
}

/// What a server's clock has shown.
#[derive(Debug, Clone, Copy)]
struct ServerTime {
    /// What to add to [`Engine::now_ms`]; rather too little than too much.
    offset_ms: i64,
    asked: Instant,
}

impl Engine {
    /// An engine that nobody has connected to yet. `clock` is the one of the thread that uses it.
    pub fn new(options: &EngineOptions, clock: Rc<Deadlines>) -> Self {
        Self {
            client: Client::new(&options.spec),
            spec: options.spec.clone(),
            scripts: Scripts::new(),
            clock,
            attempt: (options.answer / ATTEMPTS_IN_TIME).max(MIN_ATTEMPT),
            started: Instant::now(),
            topology: RefCell::default(),
            servers: RefCell::default(),
            nonce_seed: RandomState::new().hash_one(SystemTime::now()).to_be_bytes(),
            nonces: Cell::new(0),
        }
    }

    /// Waits until the engine can be used.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn ready(&self) -> Result<(), EngineError> {
        self.topology().await.map(drop)
    }

    /// What its servers say of themselves. What was known of them is looked up anew.
    pub(super) async fn survey(&self) -> StoreSurvey {
        let mut found = StoreSurvey::default();
        if let Err(error) = self.survey_servers(&mut found).await {
            let reason = error.to_string();
            found.dangers.insert(0, StoreDanger::Unusable { reason });
        }
        found
    }

    async fn survey_servers(&self, found: &mut StoreSurvey) -> Result<(), EngineError> {
        let topology = self.look_up().await?;
        for node in topology.masters() {
            let info = match self.ask(node, Command::new(&["INFO"])).await {
                Ok(info) => info,
                // Not everybody may ask: then there is nothing to say.
                Err(EngineError::Answered { .. }) => continue,
                Err(error) => return Err(error),
            };
            let question = ["CONFIG", "GET", "save", "min-replicas-to-write"];
            let wait_replicas = self.spec.wait_replicas;
            let settings = match self.ask(node, Command::new(&question)).await {
                Ok(answer) => Settings::read(&answer, wait_replicas),
                Err(EngineError::Answered { .. }) => Settings {
                    wait_replicas,
                    ..Settings::default()
                },
                Err(error) => return Err(error),
            };
            let info = info.text().unwrap_or_default();
            Info(info).add_to(found, &node.to_string(), settings);
        }
        let slots = topology.unserved();
        if slots > 0 {
            found.dangers.insert(0, StoreDanger::Unserved { slots });
        }
        self.topology
            .replace(Rc::new(OnceCell::new_with(Some(RefCell::new(topology)))));
        Ok(())
    }

    pub(super) fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    pub(super) fn clock(&self) -> &Rc<Deadlines> {
        &self.clock
    }

    pub(super) fn prefix(&self) -> &str {
        &self.spec.prefix
    }

    /// Milliseconds of a clock that is exact, and that no step of the wall clock moves.
    pub(super) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// A text that no other request has had.
    pub(super) fn nonce(&self) -> String {
        let number = self.nonces.get();
        self.nonces.set(number.wrapping_add(1));
        let mut nonce = String::with_capacity(22);
        push_base64_url(&mut nonce, &self.nonce_seed);
        push_base64_url(&mut nonce, &number.to_be_bytes());
        nonce
    }

    /// Runs `script` once, on the server that has `slot`. A server that does not know the script
    /// gets it first: nothing ran then.
    pub(super) async fn run(
        &self,
        script: &Script,
        asked: &ScriptAttempt<'_>,
        command: impl Fn(&str) -> Command,
    ) -> Result<(Rc<EngineNode>, EngineReply), EngineError> {
        let node = match asked.redirect {
            Some(node) => Rc::new(node.clone()),
            None => self.owner(asked.slot).await?,
        };
        let server = self.server(&node);
        let link = self.link(&node, &server).await?;
        let answer = async {
            let deadline = match asked.due_ms {
                None => "0".to_owned(),
                Some(due_ms) => {
                    let offset_ms = self.offset_ms(&server, link).await?;
                    (i64::try_from(due_ms)
                        .unwrap_or(i64::MAX)
                        .saturating_add(offset_ms))
                    .to_string()
                }
            };
            let once = async || match asked.replicas {
                0 => link.run(command(&deadline), asked.is_redirect()).await,
                wanted => {
                    let within_ms = self.attempt.as_millis() as u64 / 2;
                    let replicas = Replicas { wanted, within_ms };
                    let command = command(&deadline);
                    let changed =
                        link.run_replicated(command, asked.is_redirect(), asked.slot, replicas);
                    changed.await
                }
            };
            match once().await {
                Err(EngineError::Answered { code, .. }) if code == "NOSCRIPT" => {
                    link.load(script).await?;
                    once().await
                }
                answer => answer,
            }
        };
        let answer = self.within(asked.limit.min(self.attempt), answer).await;
        let answer = answer.unwrap_or_else(|| {
            Err(EngineError::Late {
                node: link.node.clone(),
            })
        });
        if let Err(
            EngineError::Broken { .. } | EngineError::Late { .. } | EngineError::Garbage { .. },
        ) = answer
        {
            self.forget(&node, &server);
        }
        answer.map(|answer| (node, answer))
    }

    /// Fetches a body that was too long for its script.
    pub(super) async fn fetch(
        &self,
        asked: &ScriptAttempt<'_>,
        key: &str,
    ) -> Result<EngineReply, EngineError> {
        let node = match asked.redirect {
            Some(node) => Rc::new(node.clone()),
            None => self.owner(asked.slot).await?,
        };
        let server = self.server(&node);
        let link = self.link(&node, &server).await?;
        let fetch = Command::new(&["HGET", key, "b"]);
        let answer = link.run(fetch, asked.is_redirect());
        let answer = self.within(asked.limit.min(self.attempt), answer).await;
        answer.unwrap_or_else(|| {
            Err(EngineError::Late {
                node: link.node.clone(),
            })
        })
    }

    /// A server has said where a slot is for good.
    pub(super) fn moved(&self, slot: u16, to: EngineNode) {
        let topology = self.topology.borrow();
        match topology.get() {
            Some(known) if matches!(*known.borrow(), Topology::Cluster(_)) => {
                known.borrow_mut().moved(slot, to);
            }
            _ => {
                drop(topology);
                self.look_anew();
            }
        }
    }

    /// What is known of the servers is wrong: it is looked up before the next command.
    pub(super) fn look_anew(&self) {
        self.topology.replace(Rc::default());
    }

    /// The server's clock is not where it was.
    pub(super) fn time_is_wrong(&self, slot: u16) {
        let topology = self.topology.borrow();
        let known = topology.get().and_then(|known| known.borrow().owner(slot));
        if let Some(node) = known {
            self.server(&node).time.set(None);
        }
    }

    /// The server that has this slot.
    pub(super) async fn owner(&self, slot: u16) -> Result<Rc<EngineNode>, EngineError> {
        let topology = self.topology().await?;
        let owner = topology.get().and_then(|known| known.borrow().owner(slot));
        owner.ok_or(EngineError::NoOwner { slot })
    }

    async fn topology(&self) -> Result<Rc<OnceCell<RefCell<Topology>>>, EngineError> {
        let topology = Rc::clone(&self.topology.borrow());
        if !topology.initialized() {
            let look = async || self.look_up().await.map(RefCell::new);
            topology.get_or_try_init(look).await?;
        }
        Ok(topology)
    }

    /// Asks the servers of the map until one knows where the keys are.
    async fn look_up(&self) -> Result<Topology, EngineError> {
        let mut failed = None;
        for url in &self.spec.urls {
            let seed = Rc::new(EngineNode::from(url));
            let looked = match &self.spec.sentinel {
                Some(name) => self.ask_sentinel(&seed, name).await,
                None => self.ask_seed(&seed).await,
            };
            match looked {
                Ok(topology) => return Ok(topology),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(EngineError::NoOwner { slot: 0 }))
    }

    async fn ask_seed(&self, seed: &Rc<EngineNode>) -> Result<Topology, EngineError> {
        match self.ask(seed, Command::new(&["CLUSTER", "SLOTS"])).await {
            Ok(answer) => {
                let map = SlotMap::read(&answer, seed);
                let map = map.ok_or_else(|| EngineError::Garbage {
                    node: EngineNode::clone(seed),
                })?;
                Ok(Topology::Cluster(map))
            }
            // A server without Cluster says so, or does not know the command, or forbids it.
            Err(EngineError::Answered { .. }) => {
                self.require_master(seed).await?;
                Ok(Topology::One(Rc::clone(seed)))
            }
            Err(error) => Err(error),
        }
    }

    async fn ask_sentinel(
        &self,
        sentinel: &EngineNode,
        name: &str,
    ) -> Result<Topology, EngineError> {
        let no_master = |reason: String| EngineError::NoMaster {
            name: name.to_owned(),
            reason,
        };
        let connect = self.client.connect_to_sentinel(sentinel);
        let connected = self.within(self.attempt, connect).await;
        let link = connected.unwrap_or_else(|| {
            Err(EngineError::ConnectLate {
                node: sentinel.clone(),
            })
        })?;
        let question = Command::new(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]);
        let answer = self.within(self.attempt, link.run(question, false)).await;
        let answer = answer.unwrap_or_else(|| {
            Err(EngineError::Late {
                node: sentinel.clone(),
            })
        })?;
        let master = match answer.list() {
            Some([host, port]) => {
                let port = port.text().and_then(|port| port.parse().ok());
                host.text()
                    .zip(port)
                    .map(|(host, port)| EngineNode::new(host, port))
            }
            _ => None,
        };
        let master = master.ok_or_else(|| no_master(format!("{sentinel} does not know it")))?;
        let master = Rc::new(master);
        self.require_master(&master).await?;
        Ok(Topology::One(master))
    }

    /// A Sentinel may name a server that is about to be one.
    async fn require_master(&self, node: &Rc<EngineNode>) -> Result<(), EngineError> {
        let role = match self.ask(node, Command::new(&["ROLE"])).await {
            // Not everybody may ask: then the first write shows it.
            Err(EngineError::Answered { .. }) => return Ok(()),
            answer => answer?,
        };
        let role = role.list().and_then(|role| role.first());
        match role.and_then(EngineReply::text) {
            Some("slave") => Err(EngineError::Replica {
                node: EngineNode::clone(node),
            }),
            _ => Ok(()),
        }
    }

    /// Asks one server.
    pub(super) async fn ask(
        &self,
        node: &Rc<EngineNode>,
        command: Command,
    ) -> Result<EngineReply, EngineError> {
        let server = self.server(node);
        let link = self.link(node, &server).await?;
        let answer = self.within(self.attempt, link.run(command, false)).await;
        let answer = answer.unwrap_or_else(|| {
            Err(EngineError::Late {
                node: link.node.clone(),
            })
        });
        if let Err(EngineError::Broken { .. } | EngineError::Late { .. }) = answer {
            self.forget(node, &server);
        }
        answer
    }

    fn server(&self, node: &Rc<EngineNode>) -> Rc<Server> {
        if let Some(server) = self.servers.borrow().get(node) {
            return Rc::clone(server);
        }
        let server = Rc::<Server>::default();
        let mut servers = self.servers.borrow_mut();
        if servers.len() >= MAX_SERVERS {
            // One that sends us to ever more servers does not fill the memory: those that are needed
            // are connected to anew.
            servers.clear();
        }
        servers.insert(Rc::clone(node), Rc::clone(&server));
        server
    }

    async fn link<'s>(
        &self,
        node: &EngineNode,
        server: &'s Server,
    ) -> Result<&'s Link, EngineError> {
        if let Some(link) = server.link.get() {
            return Ok(link);
        }
        let connect = server.link.get_or_try_init(|| self.client.connect(node));
        let connected = self.within(self.attempt, connect).await;
        connected.unwrap_or_else(|| Err(EngineError::ConnectLate { node: node.clone() }))
    }

    /// The connections to a server are of no use any more. What is under way on them ends by
    /// itself.
    fn forget(&self, node: &Rc<EngineNode>, server: &Rc<Server>) {
        let mut servers = self.servers.borrow_mut();
        if servers
            .get(node)
            .is_some_and(|known| Rc::ptr_eq(known, server))
        {
            servers.remove(node);
        }
    }

    /// What to add to this engine's time for the server's.
    async fn offset_ms(&self, server: &Server, link: &Link) -> Result<i64, EngineError> {
        if let Some(time) = server.time.get()
            && time.asked.elapsed() < CLOCK_AGE
        {
            return Ok(time.offset_ms);
        }
        let answer = link.run(Command::new(&["TIME"]), false).await?;
        let word = |word: &EngineReply| word.text().and_then(|word| word.parse::<i64>().ok());
        let server_ms = match answer.list() {
            Some([seconds, micros]) => {
                word(seconds)
                    .zip(word(micros))
                    .and_then(|(seconds, micros)| {
                        seconds.checked_mul(1000)?.checked_add(micros / 1000)
                    })
            }
            _ => None,
        };
        let server_ms = server_ms.ok_or_else(|| link.garbage())?;
        // The answer was on its way for a while: the server's clock shows more by now.
        let offset_ms = server_ms.saturating_sub_unsigned(self.now_ms());
        server.time.set(Some(ServerTime {
            offset_ms,
            asked: Instant::now(),
        }));
        Ok(offset_ms)
    }

    /// Waits no longer than `limit`.
    async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let deadline = self.clock.register();
        deadline.arm(limit);
        deadline.guard(future).await.ok()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("urls", &self.spec.urls)
            .finish_non_exhaustive()
    }
}

/// What goes with one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScriptAttempt<'a> {
    /// The slot of the key.
    pub(super) slot: u16,
    /// A server that the key is on its way to, instead of the one that has the slot.
    pub(super) redirect: Option<&'a EngineNode>,
    /// After this, in [`Engine::now_ms`], nobody waits any more: a copy that is late must not run.
    pub(super) due_ms: Option<u64>,
    /// How long the attempt may take.
    pub(super) limit: Duration,
    /// Replicas that must have what it changes.
    pub(super) replicas: u8,
}

impl ScriptAttempt<'_> {
    fn is_redirect(&self) -> bool {
        self.redirect.is_some()
    }
}
