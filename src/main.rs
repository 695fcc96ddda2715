//! The staterouter program.
fn main() {}
