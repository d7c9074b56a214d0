//! The services that the daemon hosts, for anybody's server.

mod command;
mod echo;
mod kv;
mod upper;

pub use command::Command;
pub use echo::Echo;
pub use kv::Kv;
pub use upper::{Upper, UpperLines};
