//! `lastorders serve`: from the command line to a running server.
//!
//! In come the words, the environment and the program's [`Services`]. Read `settings` first, then `services`
//! and `options`, which fill the settings; `run` makes the server from them. The rest is what `run` does around the
//! server: `activation` takes inherited sockets, `notify` tells a supervisor, `background` detaches from the console,
//! `privileges` changes the user, and there are the pid file and the console. `check` tries all of that out.

mod activation;
mod background;
mod check;
mod console;
mod notify;
mod options;
mod pid_file;
mod privileges;
mod run;
mod services;
mod settings;

#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) use self::options::{flags, read};
pub(crate) use self::run::parse;
pub(crate) use self::services::Services;
pub(crate) use self::settings::Protocol;
pub use self::settings::Settings;
