//! Progress of work on files: a bar on a terminal, nothing elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use crate::offline::Progress;

/// Redraws a second.
const REDRAWS: u8 = 10;

/// A bar on stderr, which draws nothing if that is no terminal.
pub(in crate::cli) struct Bar<'a> {
    bar: Mutex<ProgressBar>,
    stop: &'a AtomicBool,
}

impl<'a> Bar<'a> {
    /// Work that ends when `stop` is set.
    pub(in crate::cli) fn new(stop: &'a AtomicBool) -> Self {
        Self { bar: Mutex::new(ProgressBar::hidden()), stop }
    }
}

impl Progress for Bar<'_> {
    fn begin(&self, what: &str, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg} {wide_bar} {percent}% {human_pos} of {human_len}, {per_sec}, {eta} left",
            None => "{msg} {spinner} {human_pos} {elapsed}",
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(REDRAWS));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        std::mem::replace(&mut *self.bar.lock(), bar).finish_and_clear();
    }

    fn advance(&self, steps: u64) {
        self.bar.lock().inc(steps);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.bar.get_mut().finish_and_clear();
    }
}
