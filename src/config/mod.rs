//! The two files of an operator: text -> typed, with all faults at once.
//!
//! [`load`] reads the main file and the partition map it names. [`Config::parse`] and
//! [`PartitionMap::parse`] read from memory. Every fault carries its file, line and column, the
//! line itself, and what would be right; nothing is guessed, and unknown keys are faults.
//!
//! Within: `raw` turns YAML into a tree, `locations` finds its nodes in the text, `reader` takes a map
//! apart key by key, `kinds` says what a scalar may be, `outline` keeps what the reader asked for and turns it into
//! the JSON Schemas, `fault` renders. `staterouter_file` with its `sections`, and `partition_map` say
//! which keys there are; they are the only place where that stands.

mod address;
mod admin_section;
mod allow;
mod applications;
mod arguments;
mod fault;
mod key_pair;
mod kinds;
mod load;
mod locations;
mod outline;
mod partition_map;
mod placement;
mod printable;
mod raw;
mod reader;
mod redis_section;
mod redis_spec;
mod sections;
mod settings;
mod staterouter_file;
mod tls_section;
mod token;
mod units;

pub use crate::os::{open_regular, read_regular};
pub use address::{AddressError, BackendAddress, BackendHost};
pub use allow::AllowList;
pub use applications::{ApplicationSpec, SentOn, application_hash, sent_on};
pub use arguments::{
    Network, format_size, parse_admin, parse_backend_name, parse_duration, parse_host_name,
    parse_network, parse_size,
};
pub use fault::{Fault, Faults};
pub use load::{
    LoadError, LoadedConfig, load, load_main, load_partition_map, read_main, read_map_text,
};
pub use partition_map::{
    BackendSpec, BackendState, MAX_BACKEND_ID, PartitionMap, derived_backend_id,
};
pub(crate) use printable::shown;
pub use redis_spec::{
    DEFAULT_REDIS_PREFIX, RedisIdentity, RedisSpec, RedisTls, RedisUrl, RedisUrlError,
};
pub use settings::{
    AdminConfig, HandoverConfig, HealthConfig, Limits, LocksConfig, LogConfig, LogFormat, LogLevel,
    PEER_SILENCE, Timeouts,
};
pub use staterouter_file::Config;
pub use tls_section::{BackendTls, TlsTrust};
pub use token::{AdminToken, TokenError};

/// A JSON Schema that editors check one of the files with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The usual name of the schema's file.
    pub file_name: &'static str,
    /// The schema, JSON with a line break at the end.
    pub text: String,
}

/// The JSON Schemas of the main file and of the partition map.
pub fn schemas() -> [Schema; 2] {
    let files = [
        (
            "staterouter.schema.json",
            "staterouter main file",
            staterouter_file::outline(),
        ),
        (
            "partition-map.schema.json",
            "staterouter partition map",
            partition_map::outline(),
        ),
    ];
    files.map(|(file_name, title, outline)| {
        let text = format!("{:#}\n", outline::schema(title, &outline));
        Schema { file_name, text }
    })
}
