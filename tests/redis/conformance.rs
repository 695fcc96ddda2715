//! Whoever keeps the sessions, a client sees a state server.

use std::time::Duration;

use staterouter::conformance::{self, ConformanceOptions, SuiteStop, Verdict};

use crate::redis_server::{RedisServer, has_redis};
use crate::support::scene::{Map, Proxy, SHORT_TIMES};

/// Its locks have other numbers than a stock server's, which is nobody's business.
#[test]
fn the_suite_holds_through_a_proxy_whose_sessions_are_on_redis() {
    if !has_redis() {
        return;
    }
    let redis = RedisServer::start(&[]);
    let mut map = Map::of(&[]);
    map.add_redis(&format!("urls: [\"{}\"]", redis.url()));
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let options = ConformanceOptions {
        target: proxy.address,
        tls: None,
        rate_per_s: 10_000,
        answer_timeout: Duration::from_secs(30),
        thorough: false,
        only: Vec::new(),
        stop: SuiteStop::default(),
    };
    let report = conformance::run(&options, &mut |_| {}).unwrap();
    let is_fine = |verdict| matches!(verdict, Verdict::AsDescribed | Verdict::Observed);
    let wrong = report.checks.iter().find(|check| !is_fine(check.verdict));
    assert_eq!(wrong, None);
    assert!(report.checks.len() >= 65, "{}", report.checks.len());
    assert_eq!((report.left_behind, &*report.spelling), (0, &[][..]));
    assert_eq!(redis.connect().expect(&["DBSIZE"]).number(), 0);
}
