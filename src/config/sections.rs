//! The sections of the main file, and the scalars in them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::address::{AddressError, BackendAddress, BackendHost};
use super::kinds::{Choice, Durations, Integer, Mistake, Sizes, Text};
use super::printable::quoted;
use super::reader::{Field, MapReader};
use super::settings::{
    HandoverConfig, HealthConfig, Limits, LocksConfig, LogConfig, LogFormat, LogLevel, Timeouts,
};
use super::units;

/// The time limits, and the longest time that one operation on a backend takes.
pub(super) fn read_timeouts(map: &mut MapReader<'_, '_>) -> (Timeouts, Field<Duration>) {
    let default = Timeouts::default();
    let range = UP_TO_AN_HOUR;
    let connect = map.optional(
        "connect",
        "Connecting to a backend. Not longer than `answer`.",
        &range,
        default.connect,
    );
    let answer = map.optional(
        "answer",
        "The whole answer of a backend, connecting included. Keep it below the 10 s after which \
         ASP.NET gives up (stateNetworkTimeout).",
        &range,
        default.answer,
    );
    let help = "`answer` includes connecting: make `connect` shorter or `answer` longer";
    require_order(map, ("`connect`", &connect), ("`answer`", &answer), help);
    let operation = Field {
        value: connect.value + answer.value,
        place: answer.place.or(connect.place),
        sound: connect.sound && answer.sound,
    };
    let mut duration = |name, doc, default| map.optional(name, doc, &range, default).value;
    let timeouts = Timeouts {
        connect: connect.value,
        answer: answer.value,
        client_idle: duration(
            "client_idle",
            "A client connection without a request is closed after this.",
            default.client_idle,
        ),
        client_stall: duration(
            "client_stall",
            "A half-sent request or a half-read answer that makes no progress for this long ends \
             the connection.",
            default.client_stall,
        ),
        backend_idle: duration(
            "backend_idle",
            "A pooled backend connection without a request is closed after this. Must lie below \
             the idle limit of the state servers: the stock one closes a connection after 10 s \
             without traffic (its registry value SocketTimeout) and logs an error event each time.",
            default.backend_idle,
        ),
        accept_wait: duration(
            "accept_wait",
            "How long a new client connection waits for a place when `client_connections` is \
             reached, before it is refused.",
            default.accept_wait,
        ),
        shutdown: duration(
            "shutdown",
            "How long requests in flight may go on when the proxy stops.",
            default.shutdown,
        ),
    };
    (timeouts, operation)
}

pub(super) fn read_limits(map: &mut MapReader<'_, '_>) -> Limits {
    let default = Limits::default();
    let head = map.optional(
        "head",
        "Head of a request or an answer.",
        &Sizes(1 << 10..=64 << 10),
        default.head_bytes as u64,
    );
    let body = map.optional(
        "body",
        "Body of a request or an answer, that is the largest session.",
        &Sizes(1 << 10..=2047 << 20),
        default.body_bytes,
    );
    let client_connections = map.optional(
        "client_connections",
        "Client connections at a time. Each needs up to two file descriptors.",
        &Integer(1..=1_000_000),
        default.client_connections as u64,
    );
    let idle_backend_connections = map.optional(
        "idle_backend_connections",
        "Idle connections kept for reuse, per backend and worker.",
        &Integer(1..=65_536),
        default.idle_backend_connections as u64,
    );
    Limits {
        head_bytes: to_usize(head.value),
        body_bytes: body.value,
        client_connections: to_usize(client_connections.value),
        idle_backend_connections: to_usize(idle_backend_connections.value),
    }
}

pub(super) fn read_log(map: &mut MapReader<'_, '_>) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        level: map
            .optional(
                "level",
                "The least important messages that are logged.",
                &LEVELS,
                default.level,
            )
            .value,
        format: map
            .optional(
                "format",
                "The form of a log line.",
                &FORMATS,
                default.format,
            )
            .value,
    }
}

/// When a backend counts as down, and as up again.
pub(super) fn read_health(map: &mut MapReader<'_, '_>) -> HealthConfig {
    let default = HealthConfig::default();
    let mut duration = |name, doc, default| map.optional(name, doc, &UP_TO_AN_HOUR, default).value;
    let interval = duration(
        "interval",
        "Between two probes of a backend, give or take a fifth; a quarter of it, but at least \
         250ms, while the backend is suspect.",
        default.interval,
    );
    let timeout = duration(
        "timeout",
        "One probe, connecting included. A probe that takes longer has failed.",
        default.timeout,
    );
    let flap_window = duration(
        "flap_window",
        "A backend that goes down within this time after it came up needs twice as many good \
         probes each time, up to `max_rise`.",
        default.flap_window,
    );
    let mut count = |name, doc, max, default: u32| {
        map.optional(name, doc, &Integer(1..=max), u64::from(default))
    };
    let fall = count(
        "fall",
        "Failures in a row, of probes or requests, after which a backend counts as down.",
        100,
        default.fall,
    );
    let rise = count(
        "rise",
        "Good probes in a row after which it counts as up again.",
        100,
        default.rise,
    );
    let max_rise = count(
        "max_rise",
        "What `rise` grows to at most. Not below `rise`.",
        1000,
        default.max_rise,
    );
    let help = "make `max_rise` at least as large as `rise`";
    require_order(map, ("`rise`", &rise), ("`max_rise`", &max_rise), help);
    HealthConfig {
        interval,
        timeout,
        fall: to_u32(fall.value),
        rise: to_u32(rise.value),
        flap_window,
        max_rise: to_u32(max_rise.value),
    }
}

/// The keys of a handover, with the places of those that are held against other sections.
pub(super) struct HandoverDraft {
    pub(super) handover: HandoverConfig,
    pub(super) settle: Field<Duration>,
    pub(super) hold: Field<Duration>,
}

/// How sessions move between backends.
pub(super) fn read_handover(map: &mut MapReader<'_, '_>) -> HandoverDraft {
    let default = HandoverConfig::default();
    let settle = map.optional(
        "settle",
        "Longest time in which proxies may differ about where a session is. Not shorter than \
         `timeouts.connect` and `timeouts.answer` together; with `peers` at least 3 s longer than \
         the two.",
        &UP_TO_A_DAY,
        default.settle,
    );
    let (session_timeout, max_session_timeout) = read_session_timeouts(map, &default);
    let takeover = map.optional(
        "takeover",
        "Age at which ASP.NET breaks a lock: the execution timeout of the web farm.",
        &UP_TO_A_DAY,
        default.takeover,
    );
    let failover = map.optional(
        "failover",
        "`on`: other backends stand in for one that is down; what it holds is out of reach \
         meanwhile. `off`: its users wait for `hold`, and then get errors until it is back.",
        &SWITCH,
        default.failover,
    );
    let failover_after = map.optional(
        "failover_after",
        "How long a backend must be down before others stand in for it. In a handover it is at \
         least `timeouts.connect` and `timeouts.answer` together.",
        &UP_TO_A_DAY,
        default.failover_after,
    );
    let hold = map.optional(
        "hold",
        "How long a request waits for a backend that is down, or for another to stand in for it, \
         before it is refused. Counted since the backend fell, and never longer than \
         `timeouts.answer`. `0s`: refused at once.",
        &UP_TO_A_MINUTE,
        default.hold,
    );
    let max_moved_share = map.optional(
        "max_moved_share",
        "Percent of the sessions that one change of the partition map may move. A map that moves \
         more is refused, unless its `accept_moved_share` allows it.",
        &PERCENT,
        u64::from(default.max_moved_percent),
    );
    let state_file = map.optional(
        "state_file",
        "Where the proxy keeps which sessions are moving, over restarts; no other proxy may use \
         it. A relative path is relative to the directory of this file.",
        &FILE_PATH,
        default.state_file,
    );
    HandoverDraft {
        handover: HandoverConfig {
            settle: settle.value,
            session_timeout,
            max_session_timeout,
            takeover: takeover.value,
            failover: failover.value,
            failover_after: failover_after.value,
            hold: hold.value,
            max_moved_percent: to_percent(max_moved_share.value),
            state_file: state_file.value,
        },
        settle,
        hold,
    }
}

/// What becomes of requests for a locked session.
pub(super) fn read_locks(map: &mut MapReader<'_, '_>) -> LocksConfig {
    let default = LocksConfig::default();
    let wait = map.optional(
        "wait",
        "How long a request for a locked session waits for the lock before it is told that the \
         session is locked, and ASP.NET asks again after half a second. Exact to 100 ms. `0s`: not \
         at all.",
        &UP_TO_A_LOCK_WAIT,
        default.wait,
    );
    LocksConfig { wait: wait.value }
}

fn read_session_timeouts(
    map: &mut MapReader<'_, '_>,
    default: &HandoverConfig,
) -> (Duration, Duration) {
    let shortest = map.optional(
        "session_timeout",
        "The sessions that a handover moves have at least this long to move. When the proxy has \
         seen sessions with a longer timeout, that one counts.",
        &UP_TO_A_YEAR,
        default.session_timeout,
    );
    let longest = map.optional(
        "max_session_timeout",
        "Sessions with a longer timeout do not make a handover longer. Those that nobody uses \
         for this long may be lost in it.",
        &UP_TO_A_YEAR,
        default.max_session_timeout,
    );
    let help = "make `max_session_timeout` at least as long as `session_timeout`";
    require_order(
        map,
        ("`session_timeout`", &shortest),
        ("`max_session_timeout`", &longest),
        help,
    );
    (shortest.value, longest.value)
}

/// Reports a `lesser` that is above its `greater`, each with what it is called, at those of the two
/// that are in the file.
pub(super) fn require_order<T: PartialOrd + Shown>(
    map: &mut MapReader<'_, '_>,
    lesser: (&str, &Field<T>),
    greater: (&str, &Field<T>),
    help: &str,
) {
    let fields = [lesser.1, greater.1];
    if fields.iter().any(|field| !field.sound) || lesser.1.value <= greater.1.value {
        return;
    }
    let places = [lesser.1.place, greater.1.place];
    let [lesser, greater] = [lesser, greater].map(|(name, field)| {
        let origin = if field.place.is_some() {
            ""
        } else {
            ", the default"
        };
        format!("{name} ({}{origin})", field.value.shown())
    });
    let problem = format!("{lesser} is {} than {greater}", T::MORE);
    match places {
        [Some(place), Some(other)] => map.clash(place, other, problem, help),
        [Some(place), None] | [None, Some(place)] => map.fault(place, problem, help),
        [None, None] => {}
    }
}

/// A value as a message shows it.
pub(super) trait Shown {
    /// What a greater value is.
    const MORE: &str;

    fn shown(&self) -> String;
}

impl Shown for u64 {
    const MORE: &str = "larger";

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Duration {
    const MORE: &str = "longer";

    fn shown(&self) -> String {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        units::format(millis, units::TIME)
    }
}

/// Nothing at all included.
const UP_TO_A_MINUTE: Durations = Durations(0..=60_000);
/// Longer than a poll comes late: a thread of the web server waits all the time.
const UP_TO_A_LOCK_WAIT: Durations = Durations(0..=5_000);
const UP_TO_AN_HOUR: Durations = Durations(MIN_MS..=HOUR_MS);
const UP_TO_A_DAY: Durations = Durations(MIN_MS..=24 * HOUR_MS);
/// A year is the longest timeout that ASP.NET takes.
const UP_TO_A_YEAR: Durations = Durations(MIN_MS..=365 * 24 * HOUR_MS);

/// Time limits are exact to about this.
const MIN_MS: u64 = 100;
const HOUR_MS: u64 = 3_600_000;

/// A share in percent that lets something through.
pub(super) const PERCENT: Integer = Integer(1..=100);

const LEVELS: Choice<LogLevel> = Choice(&[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
]);

const FORMATS: Choice<LogFormat> = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

pub(super) const SWITCH: Choice<bool> = Choice(&[("on", true), ("off", false)]);

pub(super) const LARGE_SESSION: Sizes = Sizes(1 << 10..=2047 << 20);

pub(super) const LISTEN: Text<SocketAddr> = Text {
    wanted: "an IP address and a port, such as `127.0.0.1:42424` or `\"[::1]:42424\"`",
    pattern: Some(r"^(\[[0-9A-Fa-f:.%]+\]|[0-9.]+):[0-9]+$"),
    parse: parse_listen,
    write: SocketAddr::to_string,
    secret: false,
};

/// The admin address of another proxy. A leading `tcpip=` belongs to state servers.
pub(super) const PEER: Text<BackendAddress> = Text {
    wanted: "host and port, such as `10.0.0.6:42480`, `proxy-b.example:42480` or \
             `\"[fd00::6]:42480\"`",
    pattern: Some(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]+$"),
    parse: |text| {
        let address = match text.contains('=') {
            true => Err(AddressError::BadHost),
            false => BackendAddress::parse(text),
        };
        address
            .map_err(|error| Mistake::new(format!("{} is not an address: {error}", quoted(text))))
    },
    write: BackendAddress::to_string,
    secret: false,
};

/// What a backend or an application is called.
pub(super) const NAME: Text<String> = Text {
    wanted: "a name of 1 to 63 letters, digits, `.`, `_` and `-`",
    pattern: Some("^[A-Za-z0-9._-]{1,63}$"),
    parse: |text| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(text.to_owned());
        }
        Err(Mistake::new(format!("{} cannot be a name", quoted(text))))
    },
    write: String::clone,
    secret: false,
};

/// A name under which the admin server is known.
pub(super) const HOST_NAME: Text<String> = Text {
    wanted: "a host name without a port, such as `proxy-a.example`",
    pattern: Some("^[A-Za-z0-9._-]{1,254}$"),
    parse: |text| match BackendHost::parse(text) {
        Ok(BackendHost::Name(name)) => Ok(name),
        Ok(BackendHost::Ip(_)) => {
            let problem = format!("{} is an IP address, which is always known", quoted(text));
            Err(Mistake::with_help(problem, "leave it out"))
        }
        Err(_) => Err(Mistake::new(format!("{} is not a host name", quoted(text)))),
    },
    write: String::clone,
    secret: false,
};

pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, Mistake> {
    text.parse().map_err(|_| {
        let problem = format!("{} is not an IP address and a port", quoted(text));
        match text.contains('%') {
            true => Mistake::with_help(
                problem,
                "write the zone as the number of its interface (`ip link` shows it), as in \
                 `\"[fe80::1%2]:42424\"`",
            ),
            false => Mistake::new(problem),
        }
    })
}

pub(super) const FILE_PATH: Text<PathBuf> = Text {
    wanted: "the path of a file",
    pattern: None,
    parse: |text| {
        if text.is_empty() || text.contains('\0') {
            return Err(Mistake::new(format!(
                "{} is not the path of a file",
                quoted(text)
            )));
        }
        Ok(PathBuf::from(text))
    },
    write: |path| path.display().to_string(),
    secret: false,
};

/// A number from the file whose range lies far below the type's end on every platform.
pub(super) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A number from the file in the range of [`PERCENT`].
pub(super) fn to_percent(number: u64) -> u8 {
    u8::try_from(number).unwrap_or(100)
}
