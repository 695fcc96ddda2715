//! The store on a real `redis-server`, in the time that a test makes up.
//!
//! A server has a clock of its own, which nobody can set. So the items are moved instead: when the
//! test lets time pass, each of them gets so much nearer to its expiry, and its lock so much older.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, ready};
use std::rc::Rc;
use std::time::{Duration, Instant};

use staterouter::config::{RedisSpec, RedisUrl};
use staterouter::net::Deadlines;
use staterouter::redis::{Engine, EngineOptions, RedisStore, item_key};
use staterouter::store::{
    Body, CountedStore, ItemSnapshot, Now, SessionCommand, SessionStore, StoreOptions,
    StoreOutcome, StoreStats, SweepTurn,
};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::time::interval;

use crate::redis::{RedisClient, RedisServer, Resp};
use crate::stores::TestStore;

thread_local! {
    /// One for each test: every test has a thread of its own, and ends it.
    static SERVER: Rc<RedisServer> = Rc::new(RedisServer::start(&[]));
}

/// Moves every item `ARGV[1]` ms nearer to its end.
const TRAVEL: &str = "local d = tonumber(ARGV[1])
for _, k in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', k) - d
  if left <= 0 then redis.call('DEL', k) else
    redis.call('PEXPIRE', k, left)
    if redis.call('HEXISTS', k, 'l') == 1 then redis.call('HINCRBY', k, 'l', '-' .. ARGV[1]) end
  end
end";

pub(crate) struct OnRedis {
    runtime: LocalRuntime,
    clock: Rc<Deadlines>,
    /// When `clock` began.
    begun: Instant,
    pub(crate) store: RedisStore,
    prefix: String,
    /// The test's own connection; `None` to a server that takes none without a certificate.
    asked: Option<RefCell<RedisClient>>,
    now_ms: Cell<Option<u64>>,
    _server: Rc<RedisServer>,
}

impl OnRedis {
    /// The store of `spec`, whose server is emptied.
    pub(crate) fn over(server: Rc<RedisServer>, spec: RedisSpec, answer: Duration) -> Self {
        server.connect().expect(&["FLUSHALL"]);
        Self::over_unflushed(server, spec, answer)
    }

    pub(crate) fn over_unflushed(
        server: Rc<RedisServer>,
        spec: RedisSpec,
        answer: Duration,
    ) -> Self {
        let asked = Some(RefCell::new(server.connect()));
        let own = Self::without_own(server, spec, answer);
        Self { asked, ..own }
    }

    pub(crate) fn without_own(server: Rc<RedisServer>, spec: RedisSpec, answer: Duration) -> Self {
        let prefix = spec.prefix.clone();
        let options = EngineOptions {
            spec,
            answer,
            steps_of_one: true,
        };
        let clock = Deadlines::new();
        let engine = Engine::new(&options, Rc::clone(&clock));
        Self {
            runtime: Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
                .unwrap(),
            clock,
            begun: Instant::now(),
            store: RedisStore::new(engine, &options),
            prefix,
            asked: None,
            now_ms: Cell::new(None),
            _server: server,
        }
    }

    /// Waits for what the store is asked.
    pub(crate) fn wait<F: Future>(&self, asked: F) -> F::Output {
        self.runtime.block_on(async {
            tokio::select! {
                answer = asked => answer,
                never = tick(&self.clock, self.begun) => match never {},
            }
        })
    }

    fn asked(&self) -> &RefCell<RedisClient> {
        self.asked.as_ref().unwrap()
    }

    fn travel(&self, now: Now) {
        let before = self.now_ms.get().unwrap_or(now.unix_ms);
        let passed_ms = now.unix_ms.saturating_sub(before);
        self.now_ms.set(Some(before + passed_ms));
        if passed_ms > 0 {
            let mut asked = self.asked().borrow_mut();
            asked.expect(&["EVAL", TRAVEL, "0", &passed_ms.to_string()]);
        }
    }
}

async fn tick(clock: &Deadlines, begun: Instant) -> Infallible {
    let mut ticks = interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        clock.advance(begun.elapsed().as_millis() as u64);
    }
}

impl SessionStore for OnRedis {
    fn apply(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
    ) -> impl Future<Output = StoreOutcome> + use<'_> {
        self.travel(now);
        ready(self.wait(self.store.apply(key, command, now)))
    }

    fn sweep(&self, now: Now, max_items: usize) -> SweepTurn {
        self.travel(now);
        self.store.sweep(now, max_items)
    }
}

impl CountedStore for OnRedis {
    fn stats(&self) -> StoreStats {
        let count = self.asked().borrow_mut().expect(&["DBSIZE"]).number();
        StoreStats {
            items: u64::try_from(count).unwrap_or(0),
            ..StoreStats::default()
        }
    }
}

impl TestStore for OnRedis {
    const MODEL_CASES: u32 = 60;
    const SLACK_MS: u64 = 10_000;
    const LAST_COOKIE: u32 = 15_728_639;

    fn build(_options: &StoreOptions) -> Self {
        let server = SERVER.with(Rc::clone);
        let spec = RedisSpec::new(RedisUrl::parse(&server.url()).unwrap());
        Self::over(server, spec, Duration::from_secs(20))
    }

    fn look(&self, key: &[u8], now: Now) -> Option<ItemSnapshot> {
        self.travel(now);
        let key = item_key(&self.prefix, key);
        let mut asked = self.asked().borrow_mut();
        let fields = asked.expect(&["HMGET", &key, "t", "c", "l", "u", "b"]);
        let left_ms = asked.expect(&["PTTL", &key]).number();
        let [minutes, counter, lock, uninit, Resp::Bytes(body)] = fields.list() else {
            return None;
        };
        Some(ItemSnapshot {
            timeout_minutes: minutes.text().parse().unwrap(),
            cookie: counter.text().parse().unwrap(),
            locked: *lock != Resp::Nil,
            uninit: *uninit == Resp::Bytes(b"1".to_vec()),
            body: Body::from(body.as_slice()),
            expires_ms: self.now_ms.get().unwrap() + u64::try_from(left_ms).unwrap(),
        })
    }
}
