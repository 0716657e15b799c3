//! Stopping when the process that launched this one ends, if that is asked for.
//!
//! The launcher holds the other end of stdin and never writes to it. However it ends, the kernel closes that end; no
//! pid has to be remembered or trusted for it.

use std::io::Read;

use tokio::sync::oneshot;

/// Completes when stdin ends, if `tied`; else never.
pub(super) async fn gone(tied: bool) {
    if !tied {
        return std::future::pending().await;
    }
    let (sender, receiver) = oneshot::channel::<()>();
    // Not on the runtime: a read of stdin cannot be cancelled, and must hold nothing up at the end.
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while std::io::stdin().read(&mut ignored).is_ok_and(|len| len > 0) {}
        drop(sender);
    });
    // The sender is dropped without a word.
    let _ = receiver.await;
}
