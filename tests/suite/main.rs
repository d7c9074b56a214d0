//! Behaviour over real sockets, with real signals, of the library and of the real daemon: one file per topic.

#![allow(missing_docs)]

mod support;

mod shutdown;
