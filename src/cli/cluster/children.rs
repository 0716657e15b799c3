//! The processes of a try-it cluster. They end when this one does, however it ends: each holds a pipe from it as
//! its stdin.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{GLANCE, Ports, folder::Folder};
use crate::cli::parse::Stop;

/// How long a process may take to end; more than it takes itself.
const END: Duration = Duration::from_secs(15);
/// Name of the gateway.
const GATEWAY: &str = "gateway";
/// Pause between two keep-alives: on one machine, losses may be noticed soon.
const KEEP_ALIVE: &str = "0.5";

/// The manager, the servers and the gateway, in this order.
pub(super) struct Children<'a> {
    folder: &'a Folder,
    program: PathBuf,
    running: Vec<(String, Child)>,
}

impl<'a> Children<'a> {
    pub(super) fn new(folder: &'a Folder) -> Result<Self, Stop> {
        let program = std::env::current_exe();
        let program = program.map_err(|error| Stop::Failed(format!("cannot find this program: {error}")))?;
        Ok(Self { folder, program, running: Vec::new() })
    }

    pub(super) fn start_manager(&mut self, ports: Ports) -> Result<(), Stop> {
        let own = ports.manager().to_string();
        self.start("manager", [OsStr::new("manager"), OsStr::new("-l"), OsStr::new(&own)])
    }

    pub(super) fn start_server(&mut self, ports: Ports, number: usize) -> Result<(), Stop> {
        let (manager, own) = (ports.manager().to_string(), ports.server(number).to_string());
        let (stream, store) = (ports.stream(number).port().to_string(), self.folder.store(number));
        let folder = self.folder.path().to_owned();
        let args: [&OsStr; 10] = [
            "-m".as_ref(),
            manager.as_ref(),
            "-l".as_ref(),
            own.as_ref(),
            "-L".as_ref(),
            stream.as_ref(),
            "-s".as_ref(),
            store.as_ref(),
            "-f".as_ref(),
            folder.as_ref(),
        ];
        self.start(&format!("server{number}"), args)
    }

    /// Starts a gateway that keeps whatever memcached clients expect to be kept.
    pub(super) fn start_gateway(&mut self, ports: Ports) -> Result<(), Stop> {
        let (manager, own) = (ports.manager().to_string(), ports.gateway().to_string());
        let args = ["-m", &manager, "-t", &own, "-F", "-E", "--flag-bytes", "4"].map(OsStr::new);
        self.start(GATEWAY, std::iter::once(OsStr::new("gateway")).chain(args))
    }

    fn start<'b>(&mut self, name: &str, args: impl IntoIterator<Item = &'b OsStr>) -> Result<(), Stop> {
        let child = Command::new(&self.program)
            .args(args)
            .args(["-v", "--keepalive-interval", KEEP_ALIVE, "--end-with-stdin", "-o"])
            .arg(self.folder.log(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C in the terminal is for this process, which ends the others in order.
            .process_group(0)
            .spawn()
            .map_err(|error| Stop::Failed(format!("cannot start {name}: {error}")))?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    /// Fails if any has ended.
    pub(super) fn check(&mut self) -> Result<(), Stop> {
        for (name, child) in &mut self.running {
            let ended = child.try_wait().map_err(|error| Stop::Failed(format!("{name}: {error}")))?;
            if let Some(status) = ended {
                let log = self.folder.log(name);
                return Err(Stop::Failed(format!("{name} has ended ({status}), see {}", log.display())));
            }
        }
        Ok(())
    }

    /// Completes when any has ended.
    pub(super) async fn watch(&mut self) -> Result<(), Stop> {
        loop {
            self.check()?;
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Ends the manager, then the servers: it would take their end for a loss, and have them attached anew next time.
    pub(super) async fn stop(&mut self) {
        let mut servers = self.running.split_off(self.running.len().min(1));
        end(&mut self.running).await;
        end(&mut servers).await;
    }
}

/// Ends processes and waits for them; those that do not end in time are killed.
async fn end(children: &mut Vec<(String, Child)>) {
    for (_, child) in children.iter_mut() {
        drop(child.stdin.take());
    }
    let deadline = Instant::now() + END;
    while Instant::now() < deadline {
        children.retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
        if children.is_empty() {
            return;
        }
        tokio::time::sleep(GLANCE).await;
    }
    for (name, child) in children {
        eprintln!("{name} does not end: killing it");
        // It may have ended just now.
        let _ = child.kill();
        let _ = child.wait();
    }
}
