//! An engine as one thread uses it: which servers it has, and the connections to them.
//!
//! What happens seldom is boxed: a command that meets nothing of it waits in a small future, which is
//! moved and kept for every request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::{Pin, pin};
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

/// Where the servers are is not looked up more often, once that has failed.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

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
    /// Replaced when it has to be looked up anew. Whoever needs it meanwhile waits for the one that
    /// looks.
    topology: RefCell<Rc<OnceCell<Looked>>>,
    servers: RefCell<HashMap<Rc<EngineNode>, Rc<Server>>>,
    nonce_seed: [u8; 8],
    nonces: Cell<u64>,
}

/// Where the servers are, or why nobody has said so.
struct Looked {
    at: Instant,
    found: Result<RefCell<Topology>, EngineError>,
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
            self.may_wait(node).await?;
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
            // A path in it may be in any encoding. What is no text at all says nothing of dangers.
            let info = info.lossy_text().ok_or_else(|| EngineError::Garbage {
                node: EngineNode::clone(node),
            })?;
            Info(&info).add_to(found, &node.to_string(), settings);
        }
        let slots = topology.unserved();
        if slots > 0 {
            found.dangers.insert(0, StoreDanger::Unserved { slots });
        }
        let looked = Looked::new(Ok(topology));
        self.topology
            .replace(Rc::new(OnceCell::new_with(Some(looked))));
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

    /// Whether this server takes the word that waits for replicas, if changes need it. Each server has
    /// users of its own, and one whose user lacks the right refuses every change while it looks well.
    pub(super) async fn may_wait(&self, node: &Rc<EngineNode>) -> Result<(), EngineError> {
        if self.spec.wait_replicas == 0 {
            return Ok(());
        }
        let answer = self.ask(node, Command::new(&["WAIT", "0", "0"])).await;
        answer.map(drop)
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
        let (node, server) = self.reach(asked).await?;
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
            match self.run_on(link, asked, command(&deadline)).await {
                Err(EngineError::Answered { code, .. }) if code == "NOSCRIPT" => {
                    let again = async {
                        link.load(script).await?;
                        self.run_on(link, asked, command(&deadline)).await
                    };
                    Box::pin(again).await
                }
                answer => answer,
            }
        };
        let answer = pin!(answer);
        let answer = self.within(self.time_of(asked), answer).await;
        let answer = self.judge(&node, &server, answer);
        answer.map(|answer| (node, answer))
    }

    async fn run_on(
        &self,
        link: &Link,
        asked: &ScriptAttempt<'_>,
        command: Command,
    ) -> Result<EngineReply, EngineError> {
        let slot = (asked.replicas > 0).then_some(asked.slot);
        let answer = match slot {
            None => link.run(command, asked.is_redirect()).await,
            Some(slot) => {
                let replicas = Replicas {
                    wanted: asked.replicas,
                    within_ms: self.attempt.as_millis() as u64 / 2,
                };
                Box::pin(link.run_replicated(command, asked.is_redirect(), slot, replicas)).await
            }
        };
        match answer {
            Err(error @ EngineError::Answered { .. }) => {
                let nonce = self.nonce();
                Err(Box::pin(link.confirm(error, slot, &nonce)).await)
            }
            answer => answer,
        }
    }

    /// Fetches a body that was too long for its script.
    pub(super) async fn fetch(
        &self,
        asked: &ScriptAttempt<'_>,
        key: &str,
        nonce: &str,
    ) -> Result<EngineReply, EngineError> {
        let (node, server) = self.reach(asked).await?;
        let link = self.link(&node, &server).await?;
        let fetched = link.fetch(key, "b", nonce, asked.is_redirect());
        let fetched = self.within(self.time_of(asked), fetched).await;
        self.judge(&node, &server, fetched)
    }

    /// The server that an attempt goes to, once it is connected to.
    async fn reach(
        &self,
        asked: &ScriptAttempt<'_>,
    ) -> Result<(Rc<EngineNode>, Rc<Server>), EngineError> {
        let known = match asked.redirect {
            Some(node) => Some(Rc::new(node.clone())),
            None => self.known_owner(asked.slot),
        };
        if let Some(node) = &known {
            let server = self.server(node);
            if server.link.initialized() {
                return Ok((Rc::clone(node), server));
            }
        }
        let reached = Box::pin(async {
            let node = match known {
                Some(node) => node,
                None => self.owner(asked.slot).await?,
            };
            let server = self.server(&node);
            self.link(&node, &server).await?;
            Ok((node, server))
        });
        self.until(asked.until_ms, reached).await
    }

    /// Waits until `until_ms` for what has to be done before a command is sent. Others may be at it, who
    /// have begun later and have more time.
    ///
    /// That is rare, and its state large: it lives on the heap.
    pub(super) async fn until<T>(
        &self,
        until_ms: u64,
        prepared: Pin<Box<impl Future<Output = Result<T, EngineError>>>>,
    ) -> Result<T, EngineError> {
        let prepared = self.within(self.left(until_ms), prepared).await;
        prepared.unwrap_or_else(|| {
            Err(EngineError::Unreached {
                engine: self.spec.to_string(),
            })
        })
    }

    /// What a server has answered, `None` for nothing in time. One that breaks or is late is connected to
    /// anew.
    fn judge(
        &self,
        node: &Rc<EngineNode>,
        server: &Rc<Server>,
        answer: Option<Result<EngineReply, EngineError>>,
    ) -> Result<EngineReply, EngineError> {
        let answer = answer.unwrap_or_else(|| {
            Err(EngineError::Late {
                node: EngineNode::clone(node),
            })
        });
        if let Err(
            EngineError::Broken { .. } | EngineError::Late { .. } | EngineError::Garbage { .. },
        ) = answer
        {
            self.forget(node, server);
        }
        answer
    }

    /// A server has said where a slot is for good.
    pub(super) fn moved(&self, slot: u16, to: EngineNode) {
        let topology = self.topology.borrow();
        match topology.get().and_then(Looked::known) {
            Some(known) if matches!(*known.borrow(), Topology::Cluster(_)) => {
                known.borrow_mut().moved(slot, to);
            }
            _ => {
                drop(topology);
                self.look_anew();
            }
        }
    }

    /// What is known of the servers is wrong: it is looked up before the next command, by the first who
    /// needs it. All whose connection breaks say so at a time.
    pub(super) fn look_anew(&self) {
        let is_known = {
            let topology = self.topology.borrow();
            topology.get().and_then(Looked::known).is_some()
        };
        if is_known {
            self.topology.replace(Rc::default());
        }
    }

    /// What came from this server was no answer to what it was asked: it is connected to anew.
    pub(super) fn distrust(&self, node: &Rc<EngineNode>) {
        self.servers.borrow_mut().remove(node);
    }

    /// The server's clock is not where it was.
    pub(super) fn time_is_wrong(&self, node: &Rc<EngineNode>) {
        self.server(node).time.set(None);
    }

    /// The server that has this slot.
    pub(super) async fn owner(&self, slot: u16) -> Result<Rc<EngineNode>, EngineError> {
        let topology = self.topology().await?;
        let owner = topology.get().and_then(|known| known.owner(slot));
        owner.ok_or(EngineError::NoOwner { slot })
    }

    /// The same, as far as that is known.
    fn known_owner(&self, slot: u16) -> Option<Rc<EngineNode>> {
        self.topology.borrow().get()?.owner(slot)
    }

    async fn topology(&self) -> Result<Rc<OnceCell<Looked>>, EngineError> {
        let is_outdated = {
            let topology = self.topology.borrow();
            topology.get().is_some_and(Looked::is_outdated)
        };
        if is_outdated {
            self.topology.replace(Rc::default());
        }
        let topology = Rc::clone(&self.topology.borrow());
        if !topology.initialized() {
            let look = async || Looked::new(self.look_up().await);
            Box::pin(topology.get_or_init(look)).await;
        }
        match topology.get().map(|looked| &looked.found) {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(Rc::clone(&topology)),
        }
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
        self.judge(node, &server, answer)
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
        let connected = self.within(self.attempt, Box::pin(connect)).await;
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
        let answer = Box::pin(link.run(Command::new(&["TIME"]), false)).await?;
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

    /// How long an answer to this attempt may take.
    fn time_of(&self, asked: &ScriptAttempt<'_>) -> Duration {
        self.left(asked.until_ms).min(self.attempt)
    }

    /// How long it is until then.
    fn left(&self, until_ms: u64) -> Duration {
        Duration::from_millis(until_ms.saturating_sub(self.now_ms()))
    }

    /// Waits no longer than `limit`.
    async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let deadline = self.clock.register();
        deadline.arm(limit);
        deadline.guard(future).await.ok()
    }
}

impl Looked {
    fn new(found: Result<Topology, EngineError>) -> Self {
        Self {
            at: Instant::now(),
            found: found.map(RefCell::new),
        }
    }

    fn known(&self) -> Option<&RefCell<Topology>> {
        self.found.as_ref().ok()
    }

    fn owner(&self, slot: u16) -> Option<Rc<EngineNode>> {
        self.known()?.borrow().owner(slot)
    }

    /// Whether a failure was long enough ago.
    fn is_outdated(&self) -> bool {
        self.found.is_err() && self.at.elapsed() >= LOOK_PAUSE
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
    /// When it is over, with all that has to be done before, in [`Engine::now_ms`].
    pub(super) until_ms: u64,
    /// Replicas that must have what it changes.
    pub(super) replicas: u8,
}

impl ScriptAttempt<'_> {
    fn is_redirect(&self) -> bool {
        self.redirect.is_some()
    }
}
