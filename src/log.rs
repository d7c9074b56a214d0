//! The log shim: the one place that knows whether lines go to `log` or to `defmt`.
//!
//! Under `defmt` only positional arguments of types it knows can be formatted, so every line of this crate
//! names its arguments by position and wraps what only has `Display` in [`Text`].

#[allow(unused_imports)]
pub(crate) use defmt_or_log::{debug, error, info, trace, warn};

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
