//! The terminal: keys in, screens out; it is restored at the end, also after an error or a panic.

use std::process::ExitCode;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::draw::{View, draw};
use super::model::Model;
use super::row::Sort;
use super::watch::{Poller, Update, Watch};
use crate::cli::exit::Stop;
use crate::clock::unix_seconds;

/// Keys that may wait.
const KEYS: usize = 64;
/// How long the thread that reads keys waits for one before it looks whether it is still needed.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Shows the model until a key or a signal ends it.
pub(super) async fn run(poller: Poller, interval: Duration, mut model: Model) -> Result<ExitCode, Stop> {
    let cannot = |what: &'static str| move |error: std::io::Error| Stop::Failed(format!("{what}: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot("cannot handle signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot("cannot handle signals"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(cannot("cannot handle signals"))?;
    let (mut watch, mut updates) = Watch::start(poller, interval);
    watch.follow(&model.servers());
    // Also puts the terminal back when something panics.
    let mut terminal = ratatui::try_init().map_err(cannot("cannot use the terminal"))?;
    let _restore = Restore;
    let mut keys = keys().map_err(cannot("cannot read keys"))?;
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut view = View { interval: interval.as_secs_f64(), colours, ..View::default() };
    let mut ticks = tokio::time::interval(interval);
    let mut page = show(&mut terminal, &model, &mut view)?;
    loop {
        tokio::select! {
            Some(found) = updates.recv() => {
                if take(&mut model, found) {
                    watch.follow(&model.servers());
                }
                continue;
            }
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if press(key, &mut view, page) {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                Some(_) => {}
                None => return Err(Stop::Failed("the terminal has gone".to_owned())),
            },
            _ = ticks.tick() => model.tick(),
            _ = interrupt.recv() => return Ok(ExitCode::from(130)),
            _ = terminate.recv() => return Ok(ExitCode::from(143)),
            _ = hangup.recv() => return Ok(ExitCode::from(129)),
        }
        page = show(&mut terminal, &model, &mut view)?;
    }
}

/// Puts the terminal back.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn show(terminal: &mut DefaultTerminal, model: &Model, view: &mut View) -> Result<usize, Stop> {
    let second = unix_seconds() % 86_400;
    view.now = format!("{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
    let mut page = 0;
    let drawn = terminal.draw(|frame| page = draw(frame, model, view));
    drawn.map_err(|error| Stop::Failed(format!("cannot draw: {error}")))?;
    Ok(page)
}

/// Takes what was found; whether other servers are to be watched now.
fn take(model: &mut Model, updates: Update) -> bool {
    match updates {
        Update::Server(server, time, answer) => model.take(server, time, answer),
        Update::Nodes(Ok(nodes)) => {
            model.take_nodes(nodes);
            return true;
        }
        Update::Nodes(Err(failures)) => model.failures = failures,
    }
    false
}

/// Does what a key means; whether that is to end.
fn press(key: KeyEvent, view: &mut View, page: usize) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let sort = match key.code {
        KeyCode::Char('c') if control => return true,
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('a') => Sort::Address,
        KeyCode::Char('g') => Sort::Gets,
        KeyCode::Char('s') => Sort::Sets,
        KeyCode::Char('d') => Sort::Deletes,
        KeyCode::Char('t') => Sort::Total,
        KeyCode::Char('i') => Sort::Items,
        KeyCode::Char('k') => Sort::Skew,
        KeyCode::Char('u') => Sort::Status,
        other => {
            match other {
                KeyCode::Char('r') => view.reverse = !view.reverse,
                KeyCode::Up => view.scroll = view.scroll.saturating_sub(1),
                KeyCode::Down => view.scroll = view.scroll.saturating_add(1),
                KeyCode::PageUp => view.scroll = view.scroll.saturating_sub(page),
                KeyCode::PageDown => view.scroll = view.scroll.saturating_add(page),
                KeyCode::Home => view.scroll = 0,
                // Drawing takes back what is too much.
                KeyCode::End => view.scroll = usize::MAX,
                _ => {}
            }
            return false;
        }
    };
    view.sort = sort;
    false
}

/// Reads keys on a thread of its own, which ends when nobody takes them any more.
fn keys() -> std::io::Result<mpsc::Receiver<Event>> {
    let (sender, receiver) = mpsc::channel(KEYS);
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while !sender.is_closed() {
            let event = match event::poll(POLL_INTERVAL) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let Ok(event) = event else { return };
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_the_help_says() {
        let mut view = View::default();
        let mut press = |code, modifiers| (press(KeyEvent::new(code, modifiers), &mut view, 10), view.clone());
        let mut plain = |letter| press(KeyCode::Char(letter), KeyModifiers::NONE);
        for (letter, sort) in [
            ('t', Sort::Total),
            ('g', Sort::Gets),
            ('s', Sort::Sets),
            ('d', Sort::Deletes),
            ('i', Sort::Items),
            ('k', Sort::Skew),
            ('u', Sort::Status),
            ('a', Sort::Address),
        ] {
            let (quit, view) = plain(letter);
            assert_eq!((quit, view.sort), (false, sort), "{letter}");
        }
        assert!(plain('r').1.reverse && !plain('r').1.reverse);
        assert!(!plain('c').0 && plain('q').0);
        assert!(press(KeyCode::Esc, KeyModifiers::NONE).0);
        assert!(press(KeyCode::Char('c'), KeyModifiers::CONTROL).0);
        for (code, scroll) in [
            (KeyCode::Up, 0),
            (KeyCode::Down, 1),
            (KeyCode::PageDown, 11),
            (KeyCode::PageUp, 1),
            (KeyCode::End, usize::MAX),
            (KeyCode::Home, 0),
        ] {
            assert_eq!(press(code, KeyModifiers::NONE).1.scroll, scroll, "{code:?}");
        }
    }
}
