//! Datagrams: the trait that answers UDP packets, and the sockets and multicast groups that packets come from.
//!
//! A datagram is a whole request. The server keeps nothing about its sender, and sends at most one datagram back.
//! Read `datagram` first (the trait and its adapter), then `udp_endpoint` (bind, receive, send), `group` (where a
//! multicast group is joined) and `memberships` (keeps groups joined while the network changes).
//! This module starts no thread and never waits: the engine decides which worker serves a socket, and when.

mod datagram;
mod group;
mod memberships;
mod udp_endpoint;

pub use datagram::{Answer, Datagram, Datagrams};
pub use group::{Group, Interface};
pub(crate) use memberships::Memberships;
pub(crate) use udp_endpoint::UdpEndpoint;
