//! The services that the daemon hosts, for anybody's server.

mod echo;

pub use echo::Echo;
