//! Tests that last as long as a session lives, or longer. Tests begin in the order of their names:
//! these first, beside which the others find room.

mod engine;
mod giving_up;
mod gone_proxy;
mod handover_end_to_end;
mod refused_moves;
mod replicas;
