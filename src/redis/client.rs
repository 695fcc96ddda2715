//! Connections to one server, and the commands on them: the only file that names the crate `redis`.
//!
//! The crate parses and authenticates; `framing` bounds what it gets to parse. It sends nothing twice: what a lost
//! answer means is decided in `store`. Its own client for Clusters and its times are not used. The
//! former holds up all requests while it looks for the servers; the latter need a clock of the
//! runtime that workers do not have.

use std::fmt;
use std::path::PathBuf;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisConnectionInfo, RedisError, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::error::EngineError;
use super::framing::Guarded;
use super::node::EngineNode;
use super::reply::EngineReply;
use super::script::Script;
use super::shown::shown;
use crate::config::RedisSpec;
use crate::tls::{self, TrustTls};

/// Connections for changes that wait for replicas: each waits behind those before it.
const WAITING_CONNECTIONS: usize = 4;

/// How the servers of one engine are connected to.
#[derive(Debug)]
pub(super) struct Client {
    database: u16,
    user: Option<String>,
    files: Files,
    waiting_connections: usize,
}

/// Read for every connection: certificates and passwords are exchanged while programs run.
#[derive(Debug, Clone)]
struct Files {
    is_tls: bool,
    password: Option<PathBuf>,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

struct Secrets {
    password: Option<String>,
    /// `None` for connections without.
    tls: Option<TrustTls>,
}

impl Client {
    pub(super) fn new(spec: &RedisSpec) -> Self {
        let identity = spec.tls.identity.as_ref();
        Self {
            database: spec.database(),
            user: spec.user.clone(),
            files: Files {
                is_tls: spec.is_tls(),
                password: spec.password_file.clone(),
                ca: spec.tls.ca.clone(),
                identity: identity.map(|identity| (identity.cert.clone(), identity.key.clone())),
            },
            waiting_connections: match spec.wait_replicas {
                0 => 0,
                _ => WAITING_CONNECTIONS,
            },
        }
    }

    /// Connects to a server that holds sessions.
    pub(super) async fn connect(&self, node: &EngineNode) -> Result<Link, EngineError> {
        let secrets = self.read_files().await?;
        let mut settings = RedisConnectionInfo::default()
            .set_db(i64::from(self.database))
            .set_lib_name("staterouter", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &secrets.password {
            settings = settings.set_password(password);
        }
        let main = self.open(node, &settings, &secrets).await?;
        let mut waiting = Vec::with_capacity(self.waiting_connections);
        for _ in 0..self.waiting_connections {
            waiting.push(self.open(node, &settings, &secrets).await?);
        }
        Ok(Link {
            node: node.clone(),
            main,
            waiting,
        })
    }

    /// Connects to a Sentinel, which has users and passwords of its own: none is shown.
    pub(super) async fn connect_to_sentinel(&self, node: &EngineNode) -> Result<Link, EngineError> {
        let secrets = self.read_files().await?;
        let settings = RedisConnectionInfo::default();
        Ok(Link {
            node: node.clone(),
            main: self.open(node, &settings, &secrets).await?,
            waiting: Vec::new(),
        })
    }

    async fn open(
        &self,
        node: &EngineNode,
        settings: &RedisConnectionInfo,
        secrets: &Secrets,
    ) -> Result<MultiplexedConnection, EngineError> {
        let failed = |error: std::io::Error| EngineError::Connect {
            node: node.clone(),
            reason: shown(&error.to_string()),
        };
        let connected = TcpStream::connect((&*node.host, node.port)).await;
        let stream = connected.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &secrets.tls else {
            return shake_hands(node, settings, stream).await;
        };
        let name = tls::name_of(&node.host).ok_or_else(|| EngineError::Connect {
            node: node.clone(),
            reason: "no certificate can bear this name".to_owned(),
        })?;
        let encrypted = tls.connect(stream, name).await.map_err(failed)?;
        shake_hands(node, settings, encrypted).await
    }

    async fn read_files(&self) -> Result<Secrets, EngineError> {
        let files = self.files.clone();
        // A disk may hang, and this thread serves others.
        let read = tokio::task::spawn_blocking(move || files.read()).await;
        read.unwrap_or_else(|ended| {
            Err(EngineError::File {
                path: PathBuf::new(),
                reason: ended.to_string(),
            })
        })
    }
}

/// Shows who we are. The connection is driven by a task of its own, which ends with it.
async fn shake_hands(
    node: &EngineNode,
    settings: &RedisConnectionInfo,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<MultiplexedConnection, EngineError> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let guarded = Guarded::new(stream);
    let connected = MultiplexedConnection::new_with_config(settings, guarded, config).await;
    let (connection, driver) = connected.map_err(|error| connect_error(node, &error))?;
    tokio::spawn(driver);
    Ok(connection)
}

impl Files {
    fn read(&self) -> Result<Secrets, EngineError> {
        let password = match &self.password {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| EngineError::File {
                    path: path.clone(),
                    reason: error.to_string(),
                })?;
                Some(text.lines().next().unwrap_or_default().to_owned())
            }
            None => None,
        };
        let tls = self.is_tls.then(|| {
            let identity = self.identity.as_ref();
            let own = identity.map(|(cert, key)| (cert.as_path(), key.as_path()));
            TrustTls::read(self.ca.as_deref(), own)
        });
        let tls = tls.transpose().map_err(|error| EngineError::Tls {
            reason: error.to_string(),
        })?;
        Ok(Secrets { password, tls })
    }
}

/// Without what the crate says of itself, and without anything that was sent.
fn connect_error(node: &EngineNode, error: &RedisError) -> EngineError {
    let node = node.clone();
    let reason = reason_of(error);
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
            EngineError::Denied { node, reason }
        }
        _ => EngineError::Connect { node, reason },
    }
}

fn reason_of(error: &RedisError) -> String {
    shown(&match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (_, Some(detail)) => format!("{}: {detail}", error.category()),
        _ => error.to_string(),
    })
}

/// Connections to one server.
pub(super) struct Link {
    pub(super) node: EngineNode,
    main: MultiplexedConnection,
    /// For changes that wait for replicas. WAIT speaks of the changes of its own connection, so all
    /// copies of a command take the same one.
    waiting: Vec<MultiplexedConnection>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// A command as it goes out.
#[derive(Clone)]
pub(super) struct Command(Cmd);

/// How many replicas must have a change, and how long they may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replicas {
    pub(super) wanted: u8,
    pub(super) within_ms: u64,
}

impl Command {
    /// A command without arguments.
    pub(super) fn new(words: &[&str]) -> Self {
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        Self(command)
    }

    /// `script` on `key`, whose answer bears `nonce`.
    pub(super) fn script(script: &Script, key: &str, nonce: &str, argument_bytes: usize) -> Self {
        let mut command = Cmd::with_capacity(12, argument_bytes + key.len() + 128);
        command
            .arg("EVALSHA")
            .arg(&script.sha)
            .arg(1)
            .arg(key)
            .arg(nonce);
        Self(command)
    }

    /// With a text.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.0.arg(text);
        self
    }

    /// With a number.
    pub(super) fn number(mut self, number: i64) -> Self {
        self.0.arg(number);
        self
    }

    /// With `1` or `0`.
    pub(super) fn flag(self, flag: bool) -> Self {
        self.number(i64::from(flag))
    }

    /// With bytes.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.arg(bytes);
        self
    }
}

impl Link {
    /// Sends a command once. `asks` says that the server is asked on purpose for a key that is on
    /// its way to it.
    pub(super) async fn run(
        &self,
        command: Command,
        asks: bool,
    ) -> Result<EngineReply, EngineError> {
        let mut connection = self.main.clone();
        if !asks {
            let answer = connection.send_packed_command(&command.0).await;
            return self.reply(answer);
        }
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline
            .add_command(redis::cmd("ASKING"))
            .add_command(command.0);
        let answers = Box::pin(connection.send_packed_commands(&pipeline, 0, 2)).await;
        self.last_of(answers, 2)
    }

    /// Sends a change once, and waits until replicas have it.
    pub(super) async fn run_replicated(
        &self,
        command: Command,
        asks: bool,
        slot: u16,
        replicas: Replicas,
    ) -> Result<EngineReply, EngineError> {
        let mut connection = self.connection(Some(slot));
        let mut pipeline = Pipeline::with_capacity(3);
        if asks {
            pipeline.add_command(redis::cmd("ASKING"));
        }
        pipeline.add_command(command.0);
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas.wanted).arg(replicas.within_ms);
        pipeline.add_command(wait);
        let count = if asks { 3 } else { 2 };
        let answers = connection.send_packed_commands(&pipeline, 0, count).await;
        let mut answers = self.all_of(answers, count)?;
        let have = self.reply(Ok(answers.pop().unwrap_or_default()));
        let answer = self.reply(Ok(answers.pop().unwrap_or_default()))?;
        let have = have.map_err(unwaited)?;
        let have = have.number().and_then(|have| u64::try_from(have).ok());
        let have = have.ok_or_else(|| self.garbage())?;
        if have < u64::from(replicas.wanted) {
            return Err(EngineError::Unreplicated {
                node: self.node.clone(),
                have,
                wanted: replicas.wanted,
            });
        }
        Ok(answer)
    }

    /// What counts once a command was answered with `error`; `slot` is that of a change that has waited
    /// for replicas. Errors bear no nonce. One that was meant for another command would say that this one
    /// was not carried out. So the next answer on this connection must be that to the next question.
    pub(super) async fn confirm(
        &self,
        error: EngineError,
        slot: Option<u16>,
        nonce: &str,
    ) -> EngineError {
        let EngineError::Answered { code, .. } = &error else {
            return error;
        };
        let ping = Command::new(&["PING", nonce]);
        let answer = self.connection(slot).send_packed_command(&ping.0).await;
        match self.reply(answer) {
            Ok(reply) if reply.text() == Some(nonce) => error,
            // A server that loads its data, or runs a script for too long, says so to every question.
            Err(EngineError::Answered { code: also, .. }) if also == *code => error,
            Ok(_) | Err(EngineError::Answered { .. }) => self.garbage(),
            Err(broken) => broken,
        }
    }

    /// Fetches a field. What the server says behind it shows that it is this one.
    pub(super) async fn fetch(
        &self,
        key: &str,
        field: &str,
        nonce: &str,
        asks: bool,
    ) -> Result<EngineReply, EngineError> {
        let mut connection = self.main.clone();
        let mut pipeline = Pipeline::with_capacity(3);
        if asks {
            pipeline.add_command(redis::cmd("ASKING"));
        }
        pipeline.add_command(Command::new(&["HGET", key, field]).0);
        pipeline.add_command(Command::new(&["PING", nonce]).0);
        let count = if asks { 3 } else { 2 };
        let answers = connection.send_packed_commands(&pipeline, 0, count).await;
        let mut answers = self.all_of(answers, count)?;
        let shown = self.reply(Ok(answers.pop().unwrap_or_default()))?;
        if shown.text() != Some(nonce) {
            return Err(self.garbage());
        }
        self.reply(Ok(answers.pop().unwrap_or_default()))
    }

    /// Gives the server a script.
    pub(super) async fn load(&self, script: &Script) -> Result<(), EngineError> {
        let load = Command::new(&["SCRIPT", "LOAD", &script.text]);
        self.run(load, false).await.map(drop)
    }

    pub(super) fn garbage(&self) -> EngineError {
        EngineError::Garbage {
            node: self.node.clone(),
        }
    }

    /// The connection of a change of this slot that waits for replicas, or that of everything else.
    fn connection(&self, slot: Option<u16>) -> MultiplexedConnection {
        let index = slot.map(|slot| usize::from(slot) % self.waiting.len().max(1));
        let connection = index.and_then(|index| self.waiting.get(index));
        connection.unwrap_or(&self.main).clone()
    }

    fn last_of(
        &self,
        answers: Result<Vec<Value>, RedisError>,
        count: usize,
    ) -> Result<EngineReply, EngineError> {
        let mut answers = self.all_of(answers, count)?;
        self.reply(Ok(answers.pop().unwrap_or_default()))
    }

    fn all_of(
        &self,
        answers: Result<Vec<Value>, RedisError>,
        count: usize,
    ) -> Result<Vec<Value>, EngineError> {
        let answers = answers.map_err(|error| self.error(&error))?;
        match answers.len() == count {
            true => Ok(answers),
            false => Err(self.garbage()),
        }
    }

    fn reply(&self, answer: Result<Value, RedisError>) -> Result<EngineReply, EngineError> {
        let answer = answer.and_then(Value::extract_error);
        let answer = answer.map_err(|error| self.error(&error))?;
        reply(answer).ok_or_else(|| self.garbage())
    }

    fn error(&self, error: &RedisError) -> EngineError {
        let node = self.node.clone();
        match error.code() {
            Some(code) => EngineError::Answered {
                node,
                code: shown(code),
                detail: shown(error.detail().unwrap_or_default()),
            },
            None => EngineError::Broken {
                node,
                reason: reason_of(error),
            },
        }
    }
}

/// The change before it was carried out: no error to WAIT says that it was not.
fn unwaited(error: EngineError) -> EngineError {
    match error {
        EngineError::Answered { node, code, detail } => {
            EngineError::Unwaited { node, code, detail }
        }
        error => error,
    }
}

/// `None` for what no command here is answered with.
fn reply(value: Value) -> Option<EngineReply> {
    Some(match value {
        Value::Nil => EngineReply::Nil,
        Value::Int(number) => EngineReply::Number(number),
        Value::BulkString(bytes) => EngineReply::Bytes(bytes),
        Value::SimpleString(text) => EngineReply::Bytes(text.into_bytes()),
        Value::Okay => EngineReply::Bytes(b"OK".to_vec()),
        Value::Array(values) => {
            let list = values.into_iter().map(reply);
            EngineReply::List(list.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}
