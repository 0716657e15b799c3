//! A panic inside the store ends the process: a half-made decision must not be served or written.

/// Aborts when it is dropped by a panic that began after it was made.
pub(super) struct AbortOnPanic {
    place: &'static str,
    panicking_before: bool,
}

impl AbortOnPanic {
    /// `place` is for the log line.
    #[inline]
    pub(super) fn new(place: &'static str) -> Self {
        Self { place, panicking_before: std::thread::panicking() }
    }
}

impl Drop for AbortOnPanic {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() && !self.panicking_before {
            tracing::error!(place = self.place, "panic inside the store: stopping the process");
            std::process::abort();
        }
    }
}
