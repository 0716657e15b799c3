//! The engine by itself, with a protocol made for the purpose over a stream in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWriteExt, duplex};

use super::*;

/// Bytes that the stream takes before its reader has taken some.
const WINDOW: usize = 64;

/// Sends a hundred bytes, and panics at a message of eight.
struct Fragile {
    begun: bool,
    unsent: Arc<AtomicUsize>,
}

impl Protocol for Fragile {
    fn receive(&mut self, input: &[u8], _: &mut Vec<u8>) -> Result<Taken, Closed> {
        assert!(input.len() < 8, "a message that this protocol does not survive");
        Ok(Taken { needed: 8, ..Taken::default() })
    }

    fn collect(&mut self, _: &mut Vec<u8>, out: &mut Output) {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend(&[7; 100]);
        }
    }

    fn may_read(&mut self, _: usize, _: &Waker) -> bool {
        true
    }

    fn is_idle(&self) -> bool {
        true
    }

    fn left_unsent(&self, bytes: usize) {
        self.unsent.store(bytes, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn what_a_connection_holds_is_given_back_when_a_panic_ends_it() {
    let (budget, unsent) = (Arc::new(Budget::new(1000)), Arc::new(AtomicUsize::new(0)));
    let (near, mut far) = duplex(WINDOW);
    let mut protocol = Fragile { begun: false, unsent: unsent.clone() };
    let held = budget.clone();
    let driving = tokio::spawn(async move {
        let mut stream = Stream::Other(Box::new(near));
        let bounds = Bounds { input: &held, backlog: 1000 };
        drive(&mut stream, &mut protocol, &Control::default(), bounds, || 1).await
    });
    far.write_all(b"half").await.unwrap();
    let kept = async {
        while budget.held() != 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), kept).await.expect("half a message is counted");
    far.write_all(b"half").await.unwrap();
    assert!(driving.await.unwrap_err().is_panic());
    assert_eq!((budget.held(), unsent.load(Ordering::SeqCst)), (0, 100 - WINDOW));
}
