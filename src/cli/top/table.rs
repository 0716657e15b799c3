//! The columns of the table: their contents, and which of them fit into a width.

use super::model::Model;
use super::row::{Rates, Row, Severity, whole};
use crate::client::Status;

/// A column of the table.
pub(super) struct Column {
    /// Its heading.
    pub(super) head: &'static str,
    /// Characters, where the rows do not decide.
    width: usize,
    /// Numbers stand on the right.
    pub(super) right: bool,
    /// A narrow screen leaves out the columns with the greatest numbers.
    rank: u8,
    cell: fn(&Row) -> String,
    /// Its cell in the line of totals.
    total: fn(&Model) -> String,
}

/// A cell without a value.
const NOTHING: &str = "-";
/// Between two columns.
pub(super) const GAP: usize = 1;

/// All columns in their order.
const COLUMNS: &[Column] = &[
    Column {
        head: "Server",
        width: 0,
        right: false,
        rank: 0,
        cell: |row| row.address.to_string(),
        total: |_| "all".to_owned(),
    },
    Column {
        head: "Status",
        width: 11,
        right: false,
        rank: 0,
        cell: |row| row.word().0.to_owned(),
        total: |_| String::new(),
    },
    number("QPS", 7, 1, |row| rate(row, Rates::total), |model| short(whole(model.total_rates().total()), 7)),
    number("Items", 8, 2, |row| count(row, 8, |status| status.items), |model| short(model.total_status().items, 8)),
    number("Get/s", 7, 3, |row| rate(row, |rates| rates.gets), |model| short(whole(model.total_rates().gets), 7)),
    number("Set/s", 7, 3, |row| rate(row, |rates| rates.sets), |model| short(whole(model.total_rates().sets), 7)),
    number("Del/s", 7, 3, |row| rate(row, |rates| rates.deletes), |model| short(whole(model.total_rates().deletes), 7)),
    number(
        "Skew",
        5,
        4,
        |row| row.skew.map_or(NOTHING.to_owned(), |skew| format!("{skew:+}s").replace("+0s", "0s")),
        |_| String::new(),
    ),
    number("#Get", 9, 6, |row| count(row, 9, |status| status.gets), |model| short(model.total_status().gets, 9)),
    number("#Set", 9, 6, |row| count(row, 9, |status| status.sets), |model| short(model.total_status().sets, 9)),
    number("#Del", 9, 6, |row| count(row, 9, |status| status.deletes), |model| short(model.total_status().deletes, 9)),
    number(
        "Time",
        8,
        7,
        |row| row.status().map_or(NOTHING.to_owned(), |status| time_of_day(status.time)),
        |_| String::new(),
    ),
    number("Clock", 10, 8, |row| row.clock().map_or(NOTHING.to_owned(), |clock| clock.to_string()), |_| String::new()),
];

const fn number(
    head: &'static str,
    width: usize,
    rank: u8,
    cell: fn(&Row) -> String,
    total: fn(&Model) -> String,
) -> Column {
    Column { head, width, right: true, rank, cell, total }
}

/// One line of the table.
pub(super) struct Line {
    pub(super) cells: Vec<String>,
    pub(super) severity: Severity,
    /// How alarming the skew is.
    pub(super) skew_severity: Severity,
}

/// The columns that fit into `width` characters, each with its own width.
pub(super) fn columns(rows: &[&Row], width: usize) -> Vec<(&'static Column, usize)> {
    let address = rows.iter().map(|row| row.address.to_string().len()).max().unwrap_or_default();
    let sized = |column: &'static Column| {
        (column, column.width.max(column.head.len()).max(if column.width == 0 { address } else { 0 }))
    };
    let mut chosen: Vec<_> = COLUMNS.iter().map(sized).collect();
    while needed(&chosen) > width {
        let Some(rank) = chosen.iter().map(|(column, _)| column.rank).max().filter(|rank| *rank > 0) else { break };
        chosen.retain(|(column, _)| column.rank < rank);
    }
    chosen
}

/// The characters that columns take with the gaps between them.
pub(super) fn needed(columns: &[(&Column, usize)]) -> usize {
    columns.iter().map(|(_, width)| width + GAP).sum::<usize>().saturating_sub(GAP)
}

/// The cells of a row.
pub(super) fn line(columns: &[(&Column, usize)], row: &Row) -> Line {
    let skew_severity = match row.skew.map_or(0, i64::unsigned_abs) {
        0..2 => Severity::Normal,
        2..5 => Severity::Busy,
        _ => Severity::Alarm,
    };
    Line {
        cells: columns.iter().map(|(column, _)| (column.cell)(row)).collect(),
        severity: row.word().1,
        skew_severity,
    }
}

/// The cells of the totals.
pub(super) fn totals(columns: &[(&Column, usize)], model: &Model) -> Vec<String> {
    columns.iter().map(|(column, _)| (column.total)(model)).collect()
}

/// The whole table as text, every column and row.
pub(super) fn text(model: &Model, rows: &[&Row]) -> String {
    let columns = columns(rows, usize::MAX);
    let heads = columns.iter().map(|(column, _)| column.head.to_owned()).collect();
    let lines = rows.iter().map(|row| line(&columns, row).cells);
    let mut text = String::new();
    for cells in std::iter::once(heads).chain(lines).chain([totals(&columns, model)]) {
        let cells = columns.iter().zip(&cells).map(|((column, width), cell)| {
            if column.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text += cells.collect::<Vec<_>>().join(" ").trim_end();
        text += "\n";
    }
    text
}

fn rate(row: &Row, rate: fn(Rates) -> f64) -> String {
    row.rates.map_or(NOTHING.to_owned(), |rates| short(whole(rate(rates)), 7))
}

fn count(row: &Row, width: usize, count: fn(&Status) -> u64) -> String {
    row.status().map_or(NOTHING.to_owned(), |status| short(count(status), width))
}

/// A number in at most `width` characters: whole if it fits, else in thousands, millions and so on.
pub(super) fn short(number: u64, width: usize) -> String {
    let whole = number.to_string();
    if whole.len() <= width {
        return whole;
    }
    let mut unit = 1000;
    for suffix in ["k", "M", "G", "T", "P", "E"] {
        let scaled = format!("{}.{}{suffix}", number / unit, number % unit / (unit / 10));
        if scaled.len() <= width {
            return scaled;
        }
        unit = unit.saturating_mul(1000);
    }
    whole
}

/// `19:20:59`, in UTC.
fn time_of_day(unix_seconds: u64) -> String {
    let second = unix_seconds % 86_400;
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::model::tests::{node, reading, span};
    use super::super::row::Sort;
    use super::*;

    #[test]
    fn numbers_fit() {
        for (number, width, text) in [
            (0, 7, "0"),
            (9_999_999, 7, "9999999"),
            (12_345_678, 7, "12.3M"),
            (123_456, 5, "123.4k"),
            (u64::MAX, 9, "18446.7P"),
        ] {
            let shown = short(number, width);
            if text.len() <= width {
                assert_eq!(shown, text);
            }
            assert!(shown.len() <= width, "{shown}");
        }
    }

    #[test]
    fn narrow_screens_keep_what_matters_most() {
        let model = Model::named(&[node(19801)]);
        let rows = model.sorted(Sort::Address, false);
        let heads = |width| columns(&rows, width).iter().map(|(column, _)| column.head).collect::<Vec<_>>();
        assert_eq!(heads(usize::MAX).len(), COLUMNS.len());
        assert_eq!(heads(80), ["Server", "Status", "QPS", "Items", "Get/s", "Set/s", "Del/s", "Skew"]);
        assert_eq!(heads(40), ["Server", "Status", "QPS"]);
        assert_eq!(heads(1), ["Server", "Status"]);
    }

    #[test]
    fn the_text_has_every_column_and_the_totals() {
        let mut model = Model::named(&[node(19801), node(19802)]);
        let start = Instant::now();
        model.take(node(19801), span(start), Ok(reading(0, 5, 0)));
        model.take(node(19801), span(start + Duration::from_secs(1)), Ok(reading(1234, 5, 0)));
        model.take(node(19802), span(start), Err(crate::wire::method::ErrorCode::NodeLost));
        let text = text(&model, &model.sorted(Sort::Address, false));
        let lines: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0].join(" "), "Server Status QPS Items Get/s Set/s Del/s Skew #Get #Set #Del Time Clock");
        assert_eq!(lines[1].join(" "), "127.0.0.1:19801 ready 1234 5 1234 0 0 0s 1234 0 0 19:20:59 77");
        assert_eq!(lines[2].join(" "), "127.0.0.1:19802 unreachable - - - - - - - - - - -");
        assert_eq!(lines[3].join(" "), "all 1234 5 1234 0 0 1234 0 0");
    }
}
