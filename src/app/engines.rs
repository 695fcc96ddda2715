//! The way to a Redis or Valkey of the partition map: a state server in this process.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Connector;
use crate::config::RedisSpec;
use crate::net::Deadlines;
use crate::redis::{Engine, EngineOptions, RedisStore};
use crate::state_server::LocalStateServer;

/// What the state server may take longer than the engine: then its own words are heard.
const MARGIN: Duration = Duration::from_millis(500);

/// The part of the proxy's patience that an engine gets.
const ENGINE_PART: u32 = 8;

/// The way to an engine. `answer` is the proxy's own patience, which the engine's must not outlast.
pub fn connector(spec: &RedisSpec, answer: Duration) -> Connector {
    let options = EngineOptions {
        spec: spec.clone(),
        answer: (answer - answer / ENGINE_PART)
            .saturating_sub(MARGIN)
            .max(answer / 2),
        steps_of_one: false,
    };
    let make_store = move |clock: &Rc<Deadlines>| {
        RedisStore::new(Engine::new(&options, Rc::clone(clock)), &options)
    };
    match LocalStateServer::new(answer, make_store) {
        Ok(server) => Connector::Local(Arc::new(server)),
        Err(error) => {
            tracing::error!("no thread for the clock of {spec}: {error}");
            Connector::Nowhere
        }
    }
}
