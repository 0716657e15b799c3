//! Tasks that can be stopped, alone or together.

use std::fmt;

/// A running task.
pub struct Task(Box<dyn Fn() + Send + Sync>);

impl Task {
    /// A task that `stop` stops; it may be called again, and after the end.
    pub fn new(stop: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Box::new(stop))
    }

    /// Ends it at the next place where it waits.
    pub fn stop(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

/// Tasks that are stopped together: by [`Tasks::stop`], or when this is dropped.
#[derive(Debug, Default)]
pub struct Tasks(Vec<Task>);

impl Tasks {
    /// Adds a task.
    pub fn add(&mut self, task: Task) {
        self.0.push(task);
    }

    /// Leaves them running, without a way to stop them.
    pub fn detach(&mut self) {
        self.0.clear();
    }

    /// Stops all of them.
    pub fn stop(&mut self) {
        for task in self.0.drain(..) {
            task.stop();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop();
    }
}
