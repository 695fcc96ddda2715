//! Sockets, buffers and time for everything that serves connections.
//!
//! One worker per core: a thread with its own runtime, its own listener on the shared port, its
//! own buffers and its own clock. Workers share nothing that is touched per request.
//!
//! * [`listen`]: one bound address, one listener per worker (`SO_REUSEPORT`) or for all.
//! * `accept`: how a worker gets its connections.
//! * [`worker`]: the threads, the accept loop, the connection cap, the orderly end.
//! * [`clock`]: the system's clock, and a worker's ticks.
//! * [`deadline`]: time limits without a timer per request.
//! * [`buffer`]: recycled read buffers; an idle connection holds none.
//! * [`request`]: the next request of a client, or the 400 that ends the connection.
//! * `host_name`: the name that this machine gives itself.
//! * [`stream`]: reading and writing one connection under a deadline.
//! * `transport`: what carries its bytes, a TCP socket, TLS over one, or memory.

mod accept;
pub mod buffer;
pub mod clock;
pub mod deadline;
mod host_name;
pub mod listen;
pub mod request;
pub mod stream;
mod transport;
pub mod worker;

pub use crate::os::is_shortage;
pub use crate::tls::is_tls_error;
pub use buffer::{Buffer, BufferPool};
pub use clock::{Moment, TimeSpent, UnixClock};
pub use deadline::{Deadline, Deadlines, Party};
pub use host_name::own_host_name;
pub use listen::{ListenError, Listeners};
pub use request::{
    MIN_PROGRESS_BYTES, RequestError, read_request_head, refuse_request, wait_for_request,
};
pub use stream::{Conn, IoError};
pub use transport::Quiet;
pub use worker::{
    ConnectionCap, Running, ServeOptions, Service, Worker, drive, spawn_workers, worker_ticks,
};
