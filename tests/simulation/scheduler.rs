//! Runs the tasks of all machines, one at a time. Which of those that can go on does is decided by the seed: on real
//! machines it is luck, and in a runtime as well, which wakes those who wait for one thing in an order of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use kumo_server::env::Work;
use parking_lot::Mutex;

/// The tasks of a world. Must be made within its runtime, and ends with that.
pub(crate) struct Scheduler(Arc<Tasks>);

#[derive(Default)]
struct Tasks(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None`: it is running.
    work: BTreeMap<u64, Option<Work>>,
    /// Those that can go on, or are to be dropped.
    ready: BTreeSet<u64>,
    stopped: BTreeSet<u64>,
    last: u64,
    panics: u64,
    /// Who runs them, while it has nothing to do.
    driver: Option<Waker>,
    /// The runtime has ended: nothing runs any more.
    over: bool,
}

/// What stops a task.
#[derive(Clone)]
pub(crate) struct Handle {
    tasks: Arc<Tasks>,
    id: u64,
}

impl Scheduler {
    /// One that chooses by this seed.
    pub(crate) fn new(seed: u64) -> Self {
        let tasks = Arc::<Tasks>::default();
        let driver = Driver { tasks: tasks.clone(), random: fastrand::Rng::with_seed(seed) };
        // The runtime would stop it after some steps, to be fair to others.
        tokio::spawn(tokio::task::unconstrained(driver));
        Self(tasks)
    }

    /// Runs a task.
    pub(crate) fn spawn(&self, work: Work) -> Handle {
        let mut state = self.0.0.lock();
        state.last += 1;
        let id = state.last;
        if !state.over {
            state.work.insert(id, Some(work));
            state.make_ready(id);
        }
        Handle { tasks: self.0.clone(), id }
    }

    /// Tasks that have panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.0.0.lock().panics
    }
}

impl Handle {
    /// Drops the task, as soon as it does not run.
    pub(crate) fn stop(&self) {
        let mut state = self.tasks.0.lock();
        if state.work.contains_key(&self.id) && state.stopped.insert(self.id) {
            state.make_ready(self.id);
        }
    }
}

impl State {
    fn make_ready(&mut self, id: u64) {
        self.ready.insert(id);
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// One of those that can go on.
    fn choose(&mut self, random: &mut fastrand::Rng) -> Option<(u64, Work, bool)> {
        while !self.ready.is_empty() {
            let place = random.usize(0..self.ready.len());
            let id = self.ready.iter().nth(place).copied()?;
            self.ready.remove(&id);
            let Some(work) = self.work.get_mut(&id).and_then(Option::take) else { continue };
            return Some((id, work, self.stopped.contains(&id)));
        }
        None
    }

    fn forget(&mut self, id: u64) {
        self.work.remove(&id);
        self.stopped.remove(&id);
        self.ready.remove(&id);
    }
}

/// What wakes a task.
struct Alarm {
    tasks: Arc<Tasks>,
    id: u64,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.tasks.0.lock().make_ready(self.id);
    }
}

struct Driver {
    tasks: Arc<Tasks>,
    random: fastrand::Rng,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let this = &mut *self;
            let mut state = this.tasks.0.lock();
            let Some((id, mut work, stopped)) = state.choose(&mut this.random) else {
                state.driver = Some(cx.waker().clone());
                return Poll::Pending;
            };
            drop(state);
            let waker = Waker::from(Arc::new(Alarm { tasks: this.tasks.clone(), id }));
            let mut step = || stopped || work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            let outcome = catch_unwind(AssertUnwindSafe(&mut step));
            let mut state = this.tasks.0.lock();
            if outcome.is_err() {
                state.panics += 1;
            }
            if let (Ok(false), Some(place)) = (outcome, state.work.get_mut(&id)) {
                *place = Some(work);
            } else {
                state.forget(id);
                drop(state);
                // What is dropped may stop and wake others.
                drop(work);
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let mut state = self.tasks.0.lock();
        state.over = true;
        let left = std::mem::take(&mut state.work);
        drop(state);
        drop(left);
    }
}
