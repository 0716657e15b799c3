//! What happens in a world, in order: faults, warnings of the nodes, and a sum of all that travels, by which two runs can be
//! compared.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use super::world::World;

thread_local! {
    /// The machine whose task runs on this thread.
    static RUNNING: Cell<Option<IpAddr>> = const { Cell::new(None) };
}

/// Says that a task of this machine runs from now on; returns which one did.
pub(crate) fn enter(machine: Option<IpAddr>) -> Option<IpAddr> {
    RUNNING.replace(machine)
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) at: Duration,
    /// The machine that has logged it; `None`: the simulation.
    pub(crate) machine: Option<IpAddr>,
    pub(crate) text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.machine.map_or_else(|| "---".to_owned(), name);
        write!(f, "{:11.6} {who:9} {}", self.at.as_secs_f64(), self.text)
    }
}

/// The name of the machine at an address.
pub(crate) fn name(ip: IpAddr) -> String {
    let IpAddr::V4(ip) = ip else { return ip.to_string() };
    let [_, _, kind, number] = ip.octets();
    let kind = ["manager", "server", "client", "gateway"].get(usize::from(kind)).copied().unwrap_or("machine");
    format!("{kind}{number}")
}

/// The journal of a world.
#[derive(Default)]
pub(crate) struct Journal {
    lines: Mutex<Vec<Line>>,
    sum: AtomicU64,
    print: bool,
    print_bytes: bool,
}

impl Journal {
    /// An empty one; `print`: shows each line at once, `print_bytes`: and what is sent.
    pub(crate) fn new(print: bool, print_bytes: bool) -> Self {
        Self { print, print_bytes, ..Self::default() }
    }

    /// Bytes have been sent: counts them into the sum.
    pub(crate) fn add_sent(&self, at: Duration, from: IpAddr, to: IpAddr, bytes: &[u8]) {
        if self.print_bytes {
            println!(
                "{}",
                Line { at, machine: Some(from), text: format!("to {}: {}", name(to), bytes.escape_ascii()) }
            );
        }
        self.add_to_sum(at, name(from).as_bytes());
        self.add_to_sum(at, bytes);
    }

    fn add_to_sum(&self, at: Duration, bytes: &[u8]) {
        let mut sum = self.sum.load(Ordering::Relaxed);
        let mut mix = |word: u64| sum = (sum.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        mix(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
        let mut words = bytes.chunks_exact(8);
        for word in words.by_ref() {
            mix(word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
        mix(words.remainder().iter().fold(bytes.len() as u64, |word, byte| word << 8 | u64::from(*byte)));
        self.sum.store(sum, Ordering::Relaxed);
    }

    /// The sum of everything so far.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// Adds a line.
    pub(crate) fn add(&self, line: Line) {
        if self.print {
            println!("{line}");
        }
        self.lines.lock().push(line);
    }

    /// Shows a line if all is to be shown.
    pub(crate) fn trace(&self, at: Duration, text: impl FnOnce() -> String) {
        if self.print {
            println!("{}", Line { at, machine: None, text: text() });
        }
    }

    /// The events of the simulation itself.
    pub(crate) fn events(&self) -> Vec<Line> {
        self.lines.lock().iter().filter(|line| line.machine.is_none()).cloned().collect()
    }

    /// Whether a node has warned of anything between two times.
    pub(crate) fn has_warning(&self, from: Duration, to: Duration) -> bool {
        let lines = self.lines.lock();
        let is_warning = |line: &Line| line.text.starts_with("WARN") || line.text.starts_with("ERROR");
        lines.iter().any(|line| line.machine.is_some() && line.at >= from && line.at <= to && is_warning(line))
    }
}

/// Takes the log lines of a world's nodes.
pub(crate) struct Capture {
    pub(crate) world: Arc<World>,
    pub(crate) level: LevelFilter,
}

impl Subscriber for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let level: Level = *event.metadata().level();
        let mut text = Text(format!("{level} {}:", event.metadata().target()));
        event.record(&mut text);
        self.world.journal().add(Line { at: self.world.now(), machine: RUNNING.get(), text: text.0 });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The fields of an event as text.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
