//! System calls that fail on the real daemon: each fault is bounded in time, hits one client at most, heals by
//! itself, and is told of.

mod accepting;
mod limits;
mod starting;
pub mod tracer;
mod traffic;
mod writing;
