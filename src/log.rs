//! The log shim: the one place that knows whether lines go to `log` or to `defmt`.
//!
//! Under `defmt` only positional arguments of types it knows can be formatted, so every line of the library names its
//! arguments by position and wraps what only has `Display` in [`Text`]. Under `log` every record carries [`TARGET`]:
//! the macros' default, the path of the module, would change under an operator's filters whenever a file moves.

/// Has the logger write out what it holds, as a child process must before it ends.
pub(crate) fn flush() {
    #[cfg(feature = "log")]
    ::log::logger().flush();
}

/// The target of every record.
#[cfg(feature = "log")]
pub(crate) const TARGET: &str = "lastorders";

#[cfg(feature = "log")]
macro_rules! error_record { ($($part:tt)+) => { ::log::error!(target: $crate::log::TARGET, $($part)+) } }
#[cfg(feature = "log")]
macro_rules! warn_record { ($($part:tt)+) => { ::log::warn!(target: $crate::log::TARGET, $($part)+) } }
#[cfg(feature = "log")]
macro_rules! info_record { ($($part:tt)+) => { ::log::info!(target: $crate::log::TARGET, $($part)+) } }
#[cfg(feature = "log")]
macro_rules! debug_record { ($($part:tt)+) => { ::log::debug!(target: $crate::log::TARGET, $($part)+) } }

#[cfg(not(feature = "log"))]
pub(crate) use defmt_or_log::{debug, error, info, warn};
#[cfg(feature = "log")]
pub(crate) use {debug_record as debug, error_record as error, info_record as info, warn_record as warn};

#[cfg(feature = "defmt")]
pub(crate) use defmt::Display2Format as Text;

/// Shows a value by its `Display` under either back end.
#[cfg(not(feature = "defmt"))]
pub(crate) struct Text<'a, T: ?Sized>(pub &'a T);

#[cfg(not(feature = "defmt"))]
impl<T: core::fmt::Display + ?Sized> core::fmt::Display for Text<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}
