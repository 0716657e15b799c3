//! The engine of every connection: bytes in, messages to their protocol, bytes out.
//!
//! One task drives one stream, whatever carries it and whatever is spoken on it. All that one read has brought is handled
//! in one go and answered with one write, from buffers of the thread: an idle connection holds none. Only the beginning
//! of a message, and answers that the peer does not take yet, are kept with the connection. The engine knows no protocol;
//! a [`Protocol`] knows no stream.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::budget::Budget;
use super::control::Control;
use super::output::Output;
use crate::env::Stream;
use crate::wire;

/// Bytes taken from a stream at a time.
const READ_SIZE: usize = 64 << 10;
/// Capacity that the thread's output buffer keeps.
const OUTPUT_KEPT: usize = 1 << 20;
/// How long a drained connection waits for its peer to close.
const LINGER: Duration = Duration::from_millis(250);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { input: vec![0; READ_SIZE], output: Vec::new() });
}

/// Buffers that the connections of a thread share; nothing stays in them between two polls.
struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error("closed by peer")]
    ByPeer,
    #[error("closed by this side")]
    BySelf,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] wire::Error),
    #[error("{0} bytes of answers left unread")]
    Backlog(usize),
    #[error("all connections together hold more than the limit")]
    MemoryLimit,
    #[error("too many clients are connected")]
    Crowded,
}

/// The result of parsing the bytes that have arrived.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Taken {
    /// How many it needs no more; those beyond what has arrived are dropped as they arrive.
    pub(crate) used: usize,
    /// It can do nothing with the rest before that has this length.
    pub(crate) needed: usize,
    /// Whole messages may be left: their turn comes when answers to those before have been sent.
    pub(crate) paused: bool,
    /// Nothing more is to be read: the connection ends when everything is answered.
    pub(crate) last: bool,
}

/// The protocol of a connection.
pub(crate) trait Protocol {
    /// Handles the whole messages in `input`. Answers that are known at once go to `out`.
    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Taken, Closed>;

    /// Appends what has become ready elsewhere: small things to `direct`, behind the answers that are there, or pieces
    /// to `out`, never both.
    fn collect(&mut self, direct: &mut Vec<u8>, out: &mut Output);

    /// Whether to take more messages while `unsent` bytes wait to be sent. If not, something that wakes the connection
    /// comes by itself, or `waker` is woken.
    fn may_read(&mut self, unsent: usize, waker: &Waker) -> bool;

    /// Whether everything that was taken is answered.
    fn is_idle(&self) -> bool;

    /// Whether the peer owes a message although none has begun.
    fn awaits_message(&self) -> bool {
        false
    }

    /// The peer will send nothing more: whether what is under way is still worth an answer.
    fn answers_after_end(&self) -> bool {
        false
    }

    /// Bytes have arrived. They are shown to [`Self::receive`], with what has been kept of those before.
    fn arrived(&self, _bytes: usize) {}

    /// Bytes of what was collected as pieces have been sent.
    fn sent(&self, _bytes: usize) {}

    /// The connection has ended with so many bytes of what was collected as pieces unsent.
    fn left_unsent(&self, _bytes: usize) {}
}

/// Limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// The budget that incomplete messages count against.
    pub(crate) input: &'a Budget,
    /// Bytes that may wait to be sent.
    pub(crate) backlog: usize,
}

/// Drives `stream` until it is closed. `now` tells the time by which progress is owed, in seconds.
pub(crate) async fn drive(
    stream: &mut Stream,
    protocol: &mut impl Protocol,
    control: &Control,
    bounds: Bounds<'_>,
    now: impl Fn() -> u32,
) -> Closed {
    let mut driver = Driver {
        stream,
        protocol,
        control,
        bounds,
        now,
        input: BytesMut::new(),
        counted: 0,
        needed: 0,
        skip: 0,
        paused: false,
        ending: false,
        out: Output::default(),
    };
    let closed = poll_fn(|cx| driver.poll(cx)).await;
    drop(driver);
    if matches!(closed, Closed::BySelf) && control.is_draining() && !control.is_closing() {
        linger(stream).await;
    }
    closed
}

/// Says that nothing more will come, and drops what still arrives, until the peer closes or [`LINGER`] is over.
///
/// To close with input unread would reset the connection: the peer could lose answers that it has not read yet.
async fn linger(stream: &mut Stream) {
    let until_closed = poll_fn(|cx| {
        if ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(&mut scratch.input);
                let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
                if read.is_err() || buffer.filled().is_empty() {
                    return Poll::Ready(());
                }
            }
        })
    });
    // Whoever goes on sending is cut off.
    let _ = tokio::time::timeout(LINGER, until_closed).await;
}

struct Driver<'a, P: Protocol, F> {
    stream: &'a mut Stream,
    protocol: &'a mut P,
    control: &'a Control,
    bounds: Bounds<'a>,
    now: F,
    /// The beginning of a message whose rest has not arrived, or messages whose turn comes later.
    input: BytesMut,
    /// Bytes of `input` that are counted against their bound.
    counted: usize,
    /// Nothing can be made of `input` before it has this length.
    needed: usize,
    /// Bytes to drop as they arrive.
    skip: usize,
    /// `input` may hold whole messages.
    paused: bool,
    /// No more is read.
    ending: bool,
    /// Bytes that the stream has not taken yet.
    out: Output,
}

/// Gives back what the connection holds, also when a panic ends it.
impl<P: Protocol, F> Drop for Driver<'_, P, F> {
    fn drop(&mut self) {
        self.bounds.input.release(self.counted);
        self.protocol.left_unsent(self.out.len());
    }
}

impl<P: Protocol, F: Fn() -> u32> Driver<'_, P, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        loop {
            // First: what becomes new from here on wakes this task.
            self.control.before_sleep(cx.waker());
            if self.control.is_closing() {
                return Poll::Ready(Closed::BySelf);
            }
            let step = match self.poll_output(cx) {
                Ok(blocked) => self.poll_step(cx, blocked),
                Err(closed) => Poll::Ready(Err(closed)),
            };
            if let Err(closed) = ready!(step) {
                return Poll::Ready(closed);
            }
        }
    }

    /// Sends what is ready, as far as the stream takes it; says whether it takes no more.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        if let Some(on) = self.control.take_nodelay() {
            self.stream.set_nodelay(on)?;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            self.protocol.collect(&mut scratch.output, &mut self.out);
            self.send(cx, &mut scratch.output)
        })?;
        Ok(!self.out.is_empty())
    }

    /// Reads and handles what there is, if more may be taken. Pending: nothing is to be done before something wakes this.
    fn poll_step(&mut self, cx: &mut Context<'_>, blocked: bool) -> Poll<Result<(), Closed>> {
        let draining = self.control.is_draining();
        if (self.ending || draining) && !blocked && self.protocol.is_idle() {
            return Poll::Ready(Err(if self.ending { Closed::ByPeer } else { Closed::BySelf }));
        }
        let may_read = !self.ending && !draining && self.protocol.may_read(self.out.len(), cx.waker());
        self.note_owing(blocked, may_read);
        self.control.note_reading(may_read);
        match may_read {
            false if self.control.take_look() && self.stream.is_lost() => Poll::Ready(Err(Closed::ByPeer)),
            false => Poll::Pending,
            true if self.paused => {
                Poll::Ready(SCRATCH.with_borrow_mut(|scratch| self.feed(cx, &[], &mut scratch.output)))
            }
            true => self.poll_input(cx),
        }
    }

    /// Tells the reaper whether the peer owes us something: its first message, the rest of one, or taking answers.
    ///
    /// Bytes that we do not read because we still owe answers are not counted against the peer.
    fn note_owing(&self, blocked: bool, may_read: bool) {
        let incomplete = !self.input.is_empty() || self.skip > 0 || self.protocol.awaits_message();
        let owing = blocked || (may_read && !self.paused && incomplete);
        self.control.note_owing(owing, &self.now);
    }

    /// Reads once, if there is something, and handles all of it.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { input, output } = scratch;
            let mut buffer = ReadBuf::new(input);
            ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                // Half a message will never be whole.
                self.ending = true;
                let worthwhile = self.protocol.answers_after_end();
                return Poll::Ready(if worthwhile { Ok(()) } else { Err(Closed::ByPeer) });
            }
            self.protocol.arrived(buffer.filled().len());
            Poll::Ready(self.feed(cx, buffer.filled(), output))
        })
    }

    /// Handles what has arrived, together with what was kept from before, and sends the answers.
    fn feed(&mut self, cx: &mut Context<'_>, bytes: &[u8], output: &mut Vec<u8>) -> Result<(), Closed> {
        self.control.attend();
        let received = self.receive(bytes, output);
        self.protocol.collect(output, &mut self.out);
        let sent = self.send(cx, output);
        received.and(sent)
    }

    fn receive(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Result<(), Closed> {
        let bytes = self.after_skip(bytes);
        if self.input.is_empty() {
            let used = self.hand_over(bytes, output)?;
            let rest = self.after_used(bytes, used);
            if !rest.is_empty() {
                self.input = BytesMut::from(rest);
            }
        } else {
            let mut all = std::mem::take(&mut self.input);
            all.extend_from_slice(bytes);
            let used = self.hand_over(&all, output)?;
            let kept = self.after_used(&all, used).len();
            all.advance(all.len() - kept);
            // A copy of what is left gives the memory of a large message back.
            self.input = if used > kept { BytesMut::from(&all[..]) } else { all };
        }
        let budget = self.bounds.input;
        budget.hold(self.input.len());
        budget.release(std::mem::replace(&mut self.counted, self.input.len()));
        if !self.input.is_empty() && budget.is_exceeded_by(0) { Err(Closed::MemoryLimit) } else { Ok(()) }
    }

    /// Shows the protocol what there is, unless it is too little; returns how many bytes it needs no more.
    fn hand_over(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Result<usize, Closed> {
        self.paused = false;
        if bytes.is_empty() || bytes.len() < self.needed {
            return Ok(0);
        }
        let Taken { used, needed, paused, last } = self.protocol.receive(bytes, output)?;
        self.paused = paused;
        self.needed = needed;
        self.ending |= last;
        if used > 0 {
            self.control.note_progress();
        }
        Ok(used)
    }

    /// The rest of `bytes` behind those that are to be dropped.
    fn after_skip<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let dropped = self.skip.min(bytes.len());
        self.skip -= dropped;
        bytes.get(dropped..).unwrap_or_default()
    }

    /// The rest of `bytes` behind the first `used`; of these, any that have not arrived yet are dropped when they do.
    fn after_used<'b>(&mut self, bytes: &'b [u8], used: usize) -> &'b [u8] {
        self.skip += used.saturating_sub(bytes.len());
        bytes.get(used..).unwrap_or_default()
    }

    /// Sends what is kept and then `direct`, as far as the stream takes it; the rest is kept.
    fn send(&mut self, cx: &mut Context<'_>, direct: &mut Vec<u8>) -> Result<(), Closed> {
        let sent = self.send_kept(cx).and_then(|()| self.send_direct(cx, direct));
        direct.clear();
        direct.shrink_to(OUTPUT_KEPT);
        sent
    }

    fn send_kept(&mut self, cx: &mut Context<'_>) -> Result<(), Closed> {
        while !self.out.is_empty() {
            let Poll::Ready(written) = Pin::new(&mut *self.stream).poll_write(cx, self.out.next()) else { break };
            let len = some(written)?;
            self.out.advance(len);
            self.protocol.sent(len);
            self.control.note_progress();
        }
        Ok(())
    }

    fn send_direct(&mut self, cx: &mut Context<'_>, direct: &[u8]) -> Result<(), Closed> {
        let mut rest = direct;
        while self.out.is_empty() && !rest.is_empty() {
            let Poll::Ready(written) = Pin::new(&mut *self.stream).poll_write(cx, rest) else { break };
            rest = rest.get(some(written)?..).unwrap_or_default();
        }
        self.out.extend(rest);
        if self.out.len() > self.bounds.backlog { Err(Closed::Backlog(self.out.len())) } else { Ok(()) }
    }
}

/// How much was written; nothing is an error, since there was something to write.
fn some(written: io::Result<usize>) -> Result<usize, Closed> {
    match written? {
        0 => Err(Closed::Io(io::ErrorKind::WriteZero.into())),
        len => Ok(len),
    }
}

#[cfg(test)]
mod tests;
