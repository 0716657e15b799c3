//! Screens of several sizes, compared line by line.

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::model::Nodes;
use super::super::model::tests::{copying, node, reading, span};
use super::super::row::Reading;
use super::*;
use crate::wire::method::{ErrorCode, FLAG_COPYING};

fn cluster(servers: u16) -> Model {
    let mut model = Model::default();
    let attached = (1..=servers).map(|port| (node(19800 + port), port != 2)).collect();
    model.take_nodes(Nodes { manager: node(19700), attached, detached: Vec::new(), flags: Some(0) });
    let start = Instant::now();
    for look in 0..20 {
        let at = start + Duration::from_millis(500) * look;
        for port in 1..=servers {
            let answer = match port {
                2 => Err(ErrorCode::NodeLost),
                _ => {
                    Ok(Reading { ahead: i64::from(port == 3) * 3, ..reading(u64::from(look * 50), 12_345_678_901, 0) })
                }
            };
            model.take(node(19800 + port), span(at), answer);
        }
        model.tick();
    }
    model
}

fn view() -> View {
    View { now: "19:20:59Z".to_owned(), interval: 0.5, colours: true, ..View::default() }
}

fn screen(model: &Model, view: &mut View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| _ = draw(frame, model, view)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn an_ordinary_screen() {
    let lines = screen(&cluster(3), &mut view(), 80, 24);
    assert_eq!(lines[0], "kumotop  2 of 3 servers answer, 1 in fault, manager 127.0.0.1:19700    19:20:59Z");
    assert_eq!(lines[1], "replace: none");
    let table = [
        "Server          Status          QPS    Items   Get/s   Set/s   Del/s  Skew",
        "127.0.0.1:19801 ready           100 12345.6M     100       0       0    0s",
        "127.0.0.1:19802 unreachable       -        -       -       -       -     -",
        "127.0.0.1:19803 ready           100 12345.6M     100       0       0   +3s",
    ];
    assert_eq!(lines[2..6], table);
    assert_eq!(lines[6], "all                             200 24691.3M     200       0       0");
    assert_eq!(lines[7], "All servers' QPS: now 200, highest 200 in the last 10 s");
    assert!(lines[8..20].iter().all(|line| line.ends_with(&"█".repeat(19))), "{lines:?}");
    assert_eq!(lines[23], "q quit  sort: [t]otal [g]et [s]et [d]el [i]tems s[k]ew stat[u]s [a]ddress");
}

#[test]
fn a_small_screen_keeps_rows_totals_and_keys() {
    let lines = screen(&cluster(3), &mut view(), 40, 10);
    assert_eq!(lines[0], "kumotop  2 of 3 servers answer, 1 in fau");
    assert_eq!(lines[2], "Server          Status          QPS");
    assert_eq!(lines[6], "all                             200");
    assert_eq!(lines[9], "q quit  r reverse  ↑↓ scroll");
    for (width, height) in [(1, 1), (10, 2), (20, 5)] {
        screen(&cluster(3), &mut view(), width, height);
    }
}

#[test]
fn a_wide_screen_shows_everything_and_how_it_went() {
    let lines = screen(&cluster(3), &mut view(), 200, 50);
    assert!(lines[2].contains("#Get      #Set      #Del     Time      Clock"), "{:?}", lines[2]);
    assert!(lines[2].ends_with("QPS, highest 100"), "{:?}", lines[2]);
    assert!(lines[3].ends_with(&"█".repeat(19)), "{:?}", lines[3]);
    assert!(lines[49].ends_with("[a]ddress  r reverse  ↑↓ scroll"), "{:?}", lines[49]);
}

#[test]
fn many_servers_are_scrolled_as_far_as_there_are_any() {
    let model = cluster(60);
    let mut view = View { scroll: usize::MAX, ..view() };
    let lines = screen(&model, &mut view, 80, 24);
    assert_eq!(view.scroll, 60 - 15);
    assert!(lines[17].starts_with("127.0.0.1:19860"), "{:?}", lines[17]);
    assert!(lines[23].starts_with("46-60 of 60  q quit"), "{:?}", lines[23]);
}

#[test]
fn what_is_wrong_is_highlighted() {
    let model = {
        let mut model = cluster(3);
        let figures = copying([5, 4, 3, 2]);
        let ours = Reading { figures: Some(Box::new(figures)), ..reading(0, 10, FLAG_COPYING) };
        model.take(node(19801), span(Instant::now()), Ok(ours));
        model.failures = vec![(node(19700), ErrorCode::TimedOut)];
        model
    };
    let lines = screen(&model, &mut view(), 100, 24);
    assert!(lines[0].contains("manager 127.0.0.1:19700 does not answer"), "{:?}", lines[0]);
    assert_eq!(lines[1], "replace: copying on 1 of 3 servers: 50 % scanned, 4 sent, 3 received, 2 dropped");
    let style = |colours| {
        let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        terminal.draw(|frame| _ = draw(frame, &model, &mut View { colours, ..view() })).unwrap();
        let buffer = terminal.backend().buffer();
        [3, 4].map(|y| (buffer[(16, y)].fg, buffer[(16, y)].modifier.contains(Modifier::BOLD)))
    };
    assert_eq!(style(true), [(Color::Yellow, false), (Color::Red, true)]);
    assert_eq!(style(false), [(Color::Reset, true), (Color::Reset, true)]);
}

#[test]
fn bars_show_the_least_and_the_most() {
    assert_eq!(bars(&[0, 1, 50, 100], 100), " ▁▄█");
    assert_eq!(bars(&[0, 0], 0), "  ");
}
