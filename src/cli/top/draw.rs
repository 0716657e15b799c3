//! The screen: a model and a view in, characters out. Knows no terminal.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline, SparklineBar};

use super::model::Model;
use super::row::{Row, Severity, Sort};
use super::table::{self, Column, GAP};
use crate::cli::tool::reason;

/// Height from which the chart is shown.
const TALL: u16 = 20;
/// Least height of the chart.
const CHART_MIN: u16 = 4;
/// Most of it: beyond that it tells no more.
const CHART_MAX: u16 = 13;
/// Least width of the sparklines behind the rows.
const SPARKS_MIN: usize = 10;
/// Most of it.
const SPARKS_MAX: usize = 60;
/// Heights of a bar within one character.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Keys that the last line explains, the more important first.
const KEYS: [&str; 4] =
    ["q quit", "sort: [t]otal [g]et [s]et [d]el [i]tems s[k]ew stat[u]s [a]ddress", "r reverse", "↑↓ scroll"];

/// How the model is looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    /// Rows that are scrolled out above.
    pub(super) scroll: usize,
    /// `HH:MM:SS` of this machine.
    pub(super) now: String,
    /// Seconds from one sample to the next.
    pub(super) interval: f64,
    pub(super) colours: bool,
}

/// Draws everything. Corrects the scrolling to what there is; returns how many rows a page has.
pub(super) fn draw(frame: &mut Frame, model: &Model, view: &mut View) -> usize {
    let area = frame.area();
    let rows = model.sorted(view.sort, view.reverse);
    let [head, replace, table, totals, chart, keys] = Layout::vertical(heights(area.height, rows.len())).areas(area);
    let page = usize::from(table.height.saturating_sub(1));
    view.scroll = view.scroll.min(rows.len().saturating_sub(page));

    frame.render_widget(Paragraph::new(heading(model, view, usize::from(head.width))), head);
    let (text, severity) = model.replace();
    let replacing = Line::from(vec![Span::raw("replace: "), Span::styled(text, view.style(severity))]);
    frame.render_widget(Paragraph::new(replacing), replace);
    rows_and_totals(frame, model, view, &rows, [table, totals]);
    if chart.height >= CHART_MIN {
        chart_of_all(frame, model, view, chart);
    }
    let shown =
        format!("{}-{} of {}", (view.scroll + 1).min(rows.len()), (view.scroll + page).min(rows.len()), rows.len());
    let more = if rows.len() > page { Some(shown) } else { None };
    let keys = Rect { y: keys.bottom().saturating_sub(1), height: keys.height.min(1), ..keys };
    frame.render_widget(Paragraph::new(explained(more, usize::from(keys.width))), keys);
    page
}

/// Heights of the parts: the table as tall as its rows, the chart what is left.
fn heights(all: u16, rows: usize) -> [Constraint; 6] {
    let available = all.saturating_sub(4);
    let reserved = if all >= TALL { CHART_MIN } else { 0 };
    let wanted = u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(1);
    let table = wanted.min(available.saturating_sub(reserved));
    let left = available.saturating_sub(table);
    let chart = left.min(CHART_MAX);
    [1, 1, table, 1, chart, (left - chart).saturating_add(1)].map(Constraint::Length)
}

impl View {
    fn style(&self, severity: Severity) -> Style {
        let style = Style::default();
        match severity {
            Severity::Normal => style,
            Severity::Busy if self.colours => style.fg(Color::Yellow),
            Severity::Alarm if self.colours => style.fg(Color::Red).add_modifier(Modifier::BOLD),
            Severity::Busy | Severity::Alarm => style.add_modifier(Modifier::BOLD),
        }
    }

    /// The head of the column that rows are sorted by.
    fn sorted_head(&self) -> &'static str {
        match self.sort {
            Sort::Address => "Server",
            Sort::Gets => "Get/s",
            Sort::Sets => "Set/s",
            Sort::Deletes => "Del/s",
            Sort::Total => "QPS",
            Sort::Items => "Items",
            Sort::Skew => "Skew",
            Sort::Status => "Status",
        }
    }
}

/// The first line: who answers, whom we ask, and the time at its end, as far as it fits.
fn heading<'a>(model: &Model, view: &View, width: usize) -> Line<'a> {
    let bold = Style::default().add_modifier(Modifier::BOLD);
    let (manager, severity) = match (model.failures.last(), &model.nodes) {
        (Some((manager, error)), _) => (format!(", manager {manager} {}", reason(*error)), Severity::Alarm),
        (None, Some(nodes)) => (format!(", manager {}", nodes.manager), Severity::Normal),
        (None, None) => (String::new(), Severity::Normal),
    };
    let mut line = Line::from(vec![Span::styled("kumotop  ", bold), Span::raw(model.census())]);
    if line.width() + manager.chars().count() <= width {
        line.push_span(Span::styled(manager, view.style(severity)));
    }
    if let Some(free) = width.checked_sub(line.width() + view.now.len()).filter(|free| *free > 0) {
        line.push_span(Span::raw(" ".repeat(free)));
        line.push_span(Span::raw(view.now.clone()));
    }
    line
}

fn rows_and_totals(frame: &mut Frame, model: &Model, view: &View, rows: &[&Row], [table, totals]: [Rect; 2]) {
    let columns = table::columns(rows, usize::from(table.width));
    let left = usize::from(table.width).saturating_sub(table::needed(&columns));
    let sparks =
        Some(left.saturating_sub(2 * GAP)).filter(|width| *width >= SPARKS_MIN).map(|width| width.min(SPARKS_MAX));
    let highest = rows.iter().flat_map(|row| latest(row, sparks.unwrap_or_default())).max().unwrap_or_default();

    let mut heads = Vec::new();
    for (column, width) in &columns {
        let mut style = Style::default().add_modifier(Modifier::REVERSED);
        if column.head == view.sorted_head() {
            style = style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
        }
        heads.push(Span::styled(padded(column, *width, column.head), style));
        heads.push(Span::styled(" ".repeat(GAP), Style::default().add_modifier(Modifier::REVERSED)));
    }
    let filled: usize = heads.iter().map(Span::width).sum();
    let label = sparks.map_or(String::new(), |_| format!(" QPS, highest {}", table::short(highest, 7)));
    let rest = format!("{label:<width$}", width = usize::from(table.width).saturating_sub(filled));
    heads.push(Span::styled(rest, Style::default().add_modifier(Modifier::REVERSED)));

    let page = usize::from(table.height.saturating_sub(1));
    let mut lines = vec![Line::from(heads)];
    for row in rows.iter().skip(view.scroll).take(page) {
        let line = table::line(&columns, row);
        let mut spans = Vec::new();
        for ((column, width), cell) in columns.iter().zip(&line.cells) {
            let severity = match column.head {
                "Status" => line.severity,
                "Skew" => line.skew_severity,
                _ => Severity::Normal,
            };
            spans.push(Span::styled(padded(column, *width, cell), view.style(severity)));
            spans.push(Span::raw(" ".repeat(GAP)));
        }
        if let Some(width) = sparks {
            // The latest stands at the right edge.
            let bars = bars(&latest(row, width).collect::<Vec<_>>(), highest);
            spans.push(Span::raw(format!(" {bars:>width$}")));
        }
        lines.push(Line::from(spans));
    }
    frame.render_widget(Paragraph::new(lines), table);

    let bold = Style::default().add_modifier(Modifier::BOLD);
    let cells =
        columns.iter().zip(table::totals(&columns, model)).map(|((column, width), cell)| padded(column, *width, &cell));
    frame.render_widget(Paragraph::new(Line::styled(cells.collect::<Vec<_>>().join(" "), bold)), totals);
}

fn padded(column: &Column, width: usize, cell: &str) -> String {
    let cell: String = cell.chars().take(width).collect();
    if column.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
}

/// The last samples of a row that fit in `width` characters, the latest last.
fn latest(row: &Row, width: usize) -> impl Iterator<Item = u64> + '_ {
    row.history.iter().skip(row.history.len().saturating_sub(width)).copied()
}

/// Bars of one character each; anything but nothing can be seen.
fn bars(values: &[u64], highest: u64) -> String {
    let top = u64::try_from(BARS.len() - 1).unwrap_or_default();
    let bar = |value: &u64| {
        let height = value.saturating_mul(top).checked_div(highest).unwrap_or_default().max(u64::from(*value > 0));
        usize::try_from(height).ok().and_then(|height| BARS.get(height)).unwrap_or(&' ')
    };
    values.iter().map(bar).collect()
}

/// All servers' requests in a second over time.
fn chart_of_all(frame: &mut Frame, model: &Model, view: &View, area: Rect) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let width = usize::from(body.width);
    let values: Vec<u64> = model.history.iter().skip(model.history.len().saturating_sub(width)).copied().collect();
    let highest = values.iter().copied().max().unwrap_or_default();
    let now = values.last().copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a screen has a few thousand columns at most")]
    let seconds = values.len() as f64 * view.interval;
    let label = format!("All servers' QPS: now {now}, highest {highest} in the last {seconds:.0} s");
    let dim = Style::default().add_modifier(Modifier::DIM);
    frame.render_widget(Paragraph::new(Line::styled(label, dim)), head);
    let empty = std::iter::repeat_n(SparklineBar::from(None), width.saturating_sub(values.len()));
    let shown: Vec<SparklineBar> = empty.chain(values.iter().map(|value| SparklineBar::from(Some(*value)))).collect();
    let style = if view.colours { Style::default().fg(Color::Cyan) } else { Style::default() };
    frame.render_widget(
        Sparkline::default().data(shown).max(highest.max(1)).absent_value_symbol(" ").style(style),
        body,
    );
}

/// The last line: as many of the keys as fit, whole ones.
fn explained<'a>(more: Option<String>, width: usize) -> Line<'a> {
    let dim = Style::default().add_modifier(Modifier::DIM);
    let mut text = String::new();
    for part in more.into_iter().chain(KEYS.map(ToOwned::to_owned)) {
        let gap = if text.is_empty() { "" } else { "  " };
        if text.chars().count() + gap.len() + part.chars().count() > width {
            continue;
        }
        text += gap;
        text += &part;
    }
    Line::styled(text, dim)
}

#[cfg(test)]
mod tests;
