//! The smallest daemon on `life::run`, for the tests of a process's life: answers each line with a line.
//!
//! `wait` is answered when the daemon is told to stop, `hang` never; `panic` panics, `fail` ends the service.
//! Arguments: an address, then `-d PIDFILE`, `-o LOG`, `--keep-stdout`, `--patient` to wait a minute for what never ends,
//! and how to start: `--die`, `--panic` or `--never`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on must stop, also in helpers, which clippy's exception for tests does not cover"
)]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use kumo_server::life::{self, Cause, Service};
use kumo_server::logging;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

struct Echo {
    accept: JoinHandle<()>,
    stopping: watch::Sender<bool>,
    failed: Arc<Notify>,
}

impl Echo {
    async fn start(address: SocketAddr) -> Result<Self, Cause> {
        let listener =
            TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
        let (stopping, _) = watch::channel(false);
        let failed = Arc::new(Notify::new());
        let (stop, fail) = (stopping.clone(), Arc::clone(&failed));
        let accept = tokio::spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                tracing::info!(%peer, "accepted");
                tokio::spawn(talk(socket, stop.subscribe(), Arc::clone(&fail)));
            }
        });
        Ok(Self { accept, stopping, failed })
    }
}

/// Every conversation holds a receiver, so the sender's `closed` tells when the last has ended.
async fn talk(socket: TcpStream, mut stopping: watch::Receiver<bool>, failed: Arc<Notify>) {
    let (read, mut write) = socket.into_split();
    let mut lines = BufReader::new(read).lines();
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        let Ok(Some(line)) = line else { return };
        tracing::info!("asked to {line}");
        match line.as_str() {
            "wait" => drop(stopping.wait_for(|stop| *stop).await),
            "hang" => std::future::pending().await,
            "panic" => panic!("asked to"),
            "fail" => failed.notify_one(),
            _ => {}
        }
        if write.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A part that takes its time to go, and must not hold up an end at once.
struct Slow;

impl Drop for Slow {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_mins(1));
    }
}

impl Service for Echo {
    async fn stop(self, deadline: Instant) -> Result<(), Cause> {
        self.accept.abort();
        let _ = self.accept.await;
        self.stopping.send_replace(true);
        let slow = Slow;
        let _ = tokio::time::timeout_at(deadline, self.stopping.closed()).await;
        std::mem::forget(slow);
        Ok(())
    }

    fn reopen(&self) {
        tracing::info!("service reopens");
    }

    async fn failed(&mut self) -> Cause {
        self.failed.notified().await;
        "the service has failed".into()
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().expect("an address").parse().expect("an address");
    let mut settings = life::Settings {
        program: "echo".to_owned(),
        pid_file: None,
        keep_stdout: false,
        end_with_stdin: false,
        network_threads: None,
        blocking_calls: None,
        log: logging::Settings { target: logging::Target::Stdout, verbose: true },
        shutdown_timeout: Duration::from_millis(500),
    };
    let mut how = String::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-d" => settings.pid_file = Some(args.next().expect("a path").into()),
            "--keep-stdout" => settings.keep_stdout = true,
            "--patient" => settings.shutdown_timeout = Duration::from_mins(1),
            "-o" => settings.log.target = logging::Target::File(args.next().expect("a path").into()),
            _ => how = arg,
        }
    }
    life::run(&settings, async || {
        match how.as_str() {
            "--die" => std::process::abort(),
            "--panic" => panic!("asked to"),
            "--never" => std::future::pending().await,
            _ => {}
        }
        Echo::start(address).await
    })
}
