//! Does the work of a store's pools as tasks of its machine, so that one thread does everything.

use kumo_server::env::Env;
use kumo_server::store;

/// A machine that does a store's work.
#[derive(Debug)]
pub(crate) struct Driver(Env);

impl Driver {
    pub(crate) fn new(env: &Env) -> Self {
        Self(env.clone())
    }
}

impl store::Driver for Driver {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        self.0.detach_blocking(work);
    }
}
