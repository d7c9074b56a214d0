//! Behaviour over real sockets, with real signals, of the library and of the real daemon: one file per topic.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

mod activation;
mod background;
mod binding;
mod check;
mod clock;
mod console;
mod control;
mod daemon;
mod deadlines;
mod documents;
mod endings;
mod examples;
mod fairness;
mod faults;
mod fork;
mod fork_shutdown;
mod full;
mod kv;
mod kv_model;
mod logging;
mod make;
mod metrics;
mod multicast;
mod network;
mod panics;
mod pid_file;
mod rotation;
mod services;
mod shares;
mod shutdown;
mod signals;
mod sinks;
mod soak;
mod stampede;
mod storms;
mod supervision;
mod udp;
mod user;
mod vanished;
mod vitals;
mod watchdog;
