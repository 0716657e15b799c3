//! The processes of a try-it cluster. They end when this one does, however it ends: each holds a pipe from it as
//! its stdin. One that ends by itself is shown, and started again after a pause.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::folder::Folder;
use super::ports::Ports;
use crate::cli::exit::Stop;

/// How long a process may take to end; more than it takes itself.
const END: Duration = Duration::from_secs(15);
/// Interval of polling the processes.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Name of the gateway.
const GATEWAY: &str = "gateway";
/// Pause between two keep-alives: on one machine, losses may be noticed soon.
const KEEP_ALIVE: &str = "0.5";
/// The pause before a start doubles up to this many times the first one, while a process keeps ending.
const PAUSE_GROWTH: u32 = 8;

/// The manager, the servers and the gateway, in this order.
pub(super) struct Children<'a> {
    folder: &'a Folder,
    program: PathBuf,
    members: Vec<Member>,
}

/// A process of the cluster.
struct Member {
    name: String,
    /// Its arguments, to start it again.
    args: Vec<OsString>,
    state: State,
    /// Pause before its next start.
    pause: Duration,
}

enum State {
    Running { child: Child, since: Instant },
    Ended { at: Instant },
}

impl Member {
    /// The status with which it has just ended, seen once.
    fn has_ended(&mut self) -> Result<Option<(u32, ExitStatus)>, Stop> {
        let State::Running { child, .. } = &mut self.state else { return Ok(None) };
        let ended = child.try_wait().map_err(|error| Stop::Failed(format!("{}: {error}", self.name)))?;
        Ok(ended.map(|status| (child.id(), status)))
    }
}

impl<'a> Children<'a> {
    pub(super) fn new(folder: &'a Folder) -> Result<Self, Stop> {
        let program = std::env::current_exe();
        let program = program.map_err(|error| Stop::Failed(format!("cannot find this program: {error}")))?;
        Ok(Self { folder, program, members: Vec::new() })
    }

    /// The process id of a member that runs.
    pub(super) fn pid(&self, name: &str) -> Option<u32> {
        let member = self.members.iter().find(|member| member.name == name)?;
        match &member.state {
            State::Running { child, .. } => Some(child.id()),
            State::Ended { .. } => None,
        }
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
        let args: Vec<_> = args.into_iter().map(OsStr::to_owned).collect();
        let child = self.spawn(name, &args)?;
        let state = State::Running { child, since: Instant::now() };
        self.members.push(Member { name: name.to_owned(), args, state, pause: Duration::ZERO });
        Ok(())
    }

    fn spawn(&self, name: &str, args: &[OsString]) -> Result<Child, Stop> {
        Command::new(&self.program)
            .args(args)
            .args(["-v", "--keepalive-interval", KEEP_ALIVE, "--end-with-stdin", "-o"])
            .arg(self.folder.log(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C in the terminal is for this process, which ends the others in order.
            .process_group(0)
            .spawn()
            .map_err(|error| Stop::Failed(format!("cannot start {name}: {error}")))
    }

    /// Fails if any has ended.
    pub(super) fn check(&mut self) -> Result<(), Stop> {
        for member in &mut self.members {
            if let Some((_, status)) = member.has_ended()? {
                let log = self.folder.log(&member.name);
                return Err(Stop::Failed(format!("{} has ended ({status}), see {}", member.name, log.display())));
            }
        }
        Ok(())
    }

    /// Completes when any has ended.
    pub(super) async fn watch(&mut self) -> Result<(), Stop> {
        loop {
            self.check()?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Shows what ends, and starts it again after this pause, if there is one; `hint` is what can be done about a
    /// server that is back. Completes when all have ended and none is to be started.
    pub(super) async fn keep_up(&mut self, pause: Option<Duration>, hint: &str) -> Result<(), Stop> {
        loop {
            for index in 0..self.members.len() {
                self.look_after(index, pause, hint)?;
            }
            let over = self.members.iter().all(|member| matches!(member.state, State::Ended { .. }));
            if over && pause.is_none() {
                return Err(Stop::Failed("all processes have ended".to_owned()));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn look_after(&mut self, index: usize, first_pause: Option<Duration>, hint: &str) -> Result<(), Stop> {
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        let ended = member.has_ended()?;
        match (&member.state, first_pause) {
            (State::Running { since, .. }, _) => {
                let Some((pid, status)) = ended else { return Ok(()) };
                let next = first_pause.map(|first| next_pause(first, member.pause, since.elapsed()));
                let then =
                    next.map_or("not started again".to_owned(), |pause| format!("started again after {pause:?}"));
                let log = self.folder.log(&member.name);
                show(&format!("{} (pid {pid}) has ended: {status}, see {}; {then}", member.name, log.display()));
                member.pause = next.unwrap_or_default();
                member.state = State::Ended { at: Instant::now() };
            }
            (State::Ended { at }, Some(first)) if at.elapsed() >= member.pause => {
                let (name, args) = (member.name.clone(), member.args.clone());
                let spawned = self.spawn(&name, &args);
                let Some(member) = self.members.get_mut(index) else { return Ok(()) };
                match spawned {
                    Ok(child) => {
                        let hint = if name.starts_with("server") { hint } else { "" };
                        show(&format!("{name} is started again, pid {}{hint}", child.id()));
                        member.state = State::Running { child, since: Instant::now() };
                    }
                    Err(Stop::Failed(line) | Stop::Unmet(line) | Stop::Usage(line) | Stop::Show(line)) => {
                        show(&line);
                        member.pause = next_pause(first, member.pause, Duration::ZERO);
                        member.state = State::Ended { at: Instant::now() };
                    }
                }
            }
            (State::Ended { .. }, _) => {}
        }
        Ok(())
    }

    /// Ends the manager, then the servers: it would take their end for a loss, and have them attached anew next time.
    pub(super) async fn stop(&mut self) {
        let mut others = self.members.split_off(self.members.len().min(1));
        end(&mut self.members).await;
        end(&mut others).await;
    }
}

/// The pause before a start: the first one, or twice the last one if the process has not run for longer than that.
fn next_pause(first: Duration, last: Duration, ran: Duration) -> Duration {
    if ran > last { first } else { last.saturating_mul(2).clamp(first, first.saturating_mul(PAUSE_GROWTH)) }
}

/// Prints a line of news. Nobody may be reading: the cluster runs all the same.
fn show(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Ends processes and waits for them; those that do not end in time are killed.
async fn end(members: &mut Vec<Member>) {
    for member in members.iter_mut() {
        if let State::Running { child, .. } = &mut member.state {
            drop(child.stdin.take());
        }
    }
    let deadline = Instant::now() + END;
    while Instant::now() < deadline {
        members.retain_mut(|member| match &mut member.state {
            State::Running { child, .. } => matches!(child.try_wait(), Ok(None)),
            State::Ended { .. } => false,
        });
        if members.is_empty() {
            return;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    for member in members {
        if let State::Running { child, .. } = &mut member.state {
            eprintln!("{} does not end: killing it", member.name);
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_ending_is_started_less_and_less_often() {
        let second = Duration::from_secs;
        let pause = |last, ran| next_pause(second(10), second(last), second(ran)).as_secs();
        assert_eq!((pause(0, 1), pause(10, 11)), (10, 10), "it has run well");
        assert_eq!((pause(10, 1), pause(20, 20), pause(40, 0), pause(80, 0)), (20, 40, 80, 80));
        assert_eq!(pause(0, 0), 10);
        assert_eq!(pause(80, 81), 10);
    }
}
