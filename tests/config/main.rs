//! The two configuration files: keys, faults, hostile input.

mod expect;
mod faults;
mod files;
mod hostile;
mod pool;
mod report;
mod warnings;
mod yaml;
