//! Sessions on the move: every rule, every state of small worlds, thousands of larger worlds.

mod model;
mod rules;
mod simulation;
