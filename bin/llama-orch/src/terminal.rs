//! Whether a terminal understands what is more than text.

/// Consoles of Windows understand escape sequences only after they were asked to, and old ones never.
#[cfg(windows)]
pub(crate) fn understands_escapes() -> bool {
    ratatui::crossterm::ansi_support::supports_ansi()
}

#[cfg(not(windows))]
pub(crate) fn understands_escapes() -> bool {
    true
}
