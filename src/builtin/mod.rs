//! The services that the daemon hosts, for anybody's server.

mod bulletin;
mod command;
mod echo;
pub(crate) mod json;
mod kv;
mod time;
mod upper;

pub use bulletin::Bulletin;
pub use command::Command;
pub use echo::Echo;
pub use kv::Kv;
pub use time::Time;
pub use upper::{Upper, UpperLines};
