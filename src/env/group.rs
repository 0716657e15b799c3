//! Tasks whose results somebody waits for.

use tokio::sync::mpsc;

use super::{Env, Gone, Tasks};

/// Tasks that run beside each other and give one result each. Those left when this is dropped are stopped.
#[derive(Debug)]
pub struct Group<T> {
    env: Env,
    sender: mpsc::UnboundedSender<Result<T, Gone>>,
    receiver: mpsc::UnboundedReceiver<Result<T, Gone>>,
    tasks: Tasks,
    open: usize,
}

impl<T: Send + 'static> Group<T> {
    /// No tasks yet.
    pub fn new(env: &Env) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { env: env.clone(), sender, receiver, tasks: Tasks::default(), open: 0 }
    }

    /// Runs one more.
    pub fn add(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.open += 1;
        let mut ending = Ending(Some(self.sender.clone()));
        self.tasks.add(self.env.spawn(async move { ending.tell(Ok(work.await)) }));
    }

    /// Whether every result has been taken.
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Waits for the next result; `None` if there are no tasks left. [`Gone`]: the task panicked.
    pub async fn next(&mut self) -> Option<Result<T, Gone>> {
        if self.is_empty() {
            return None;
        }
        let result = self.receiver.recv().await;
        self.open -= 1;
        result
    }

    /// Leaves those that are not ready running; nobody hears of their results.
    pub fn detach(mut self) {
        self.tasks.detach();
    }
}

/// Tells that a task has ended, also when a panic ends it.
struct Ending<T>(Option<mpsc::UnboundedSender<Result<T, Gone>>>);

impl<T> Ending<T> {
    fn tell(&mut self, result: Result<T, Gone>) {
        if let Some(sender) = self.0.take() {
            // Nobody may wait any more.
            let _ = sender.send(result);
        }
    }
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.tell(Err(Gone));
    }
}
