//! The lower panels: processor time per request by connections and by workers, and memory by clients.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, Done, FAINT, INK, SHOWN, colour, text};
use crate::growth::{SILENT, WORKERS};
use crate::memory::{CLIENTS, Held};
use crate::rounds::Cell;
use crate::server::Program;
use crate::table::whole;

/// A server's values, step by step.
type Curve = (Program, Vec<f64>);

pub(super) fn by_connections(area: &Area<'_>, groups: &[Vec<Cell>]) -> Done {
    panel(area, "CPU µs per request, 64 busy clients", "silent clients beside them", &SILENT, &costs(groups))
}

pub(super) fn by_workers(area: &Area<'_>, groups: &[Vec<Cell>]) -> Done {
    panel(area, "CPU µs per request, 64 busy clients", "workers", &WORKERS, &costs(groups))
}

pub(super) fn memory(area: &Area<'_>, all: &[Held]) -> Done {
    let of = |program: Program| -> Curve {
        let rows = all.iter().filter(|held| held.program == program);
        (program, rows.map(|held| held.memory.unwrap_or(f64::NAN) / 1024.0).collect())
    };
    // The thread of each client would leave no room for the others.
    let shown = [Program::Tokio, Program::Epoll, Program::Lastorders];
    panel(area, "MiB resident, by clients served", "clients", &CLIENTS, &shown.map(of))
}

fn costs(groups: &[Vec<Cell>]) -> Vec<Curve> {
    let cost = |group: &Vec<Cell>, program: Program| {
        let cell = group.iter().find(|cell| cell.program == program);
        cell.and_then(Cell::median).map_or(f64::NAN, |sample| sample.cpu)
    };
    let shown = SHOWN.into_iter().filter(|program| groups[0].iter().any(|cell| cell.program == *program));
    shown.map(|program| (program, groups.iter().map(|group| cost(group, program)).collect())).collect()
}

/// Steps lie equally far apart, whatever they are. The other axis begins at nothing.
fn panel(area: &Area<'_>, title: &str, what: &str, steps: &[usize], curves: &[Curve]) -> Done {
    text(area, title, (60, 4), 16, HPos::Left, INK)?;
    let highest = curves.iter().flat_map(|(_, values)| values).copied().fold(1.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .margin_top(32)
        .margin_right(24)
        .margin_bottom(6)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(Steps(steps.to_vec()), 0.0..highest)?;
    let style = ("sans-serif", 13).into_text_style(area).color(&INK);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(FAINT)
        .x_desc(what)
        .label_style(style.clone())
        .axis_desc_style(style)
        .y_labels(6)
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for (program, values) in curves {
        let points: Vec<(f64, f64)> = values.iter().enumerate().map(|(step, value)| (step as f64, *value)).collect();
        let points = points.into_iter().filter(|(_, value)| value.is_finite());
        let (width, size) = if *program == Program::Lastorders { (3, 5) } else { (2, 4) };
        chart.draw_series(LineSeries::new(points.clone(), colour(*program).stroke_width(width)))?;
        chart.draw_series(points.map(|point| Circle::new(point, size, colour(*program).filled())))?;
    }
    Ok(())
}

/// An axis of a few numbers, whatever they are.
struct Steps(Vec<usize>);

impl Ranged for Steps {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value + 0.3) / (self.0.len() as f64 - 0.4);
        limit.0 + (f64::from(limit.1 - limit.0) * part) as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        (0..self.0.len()).map(|step| step as f64).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..self.0.len() as f64
    }
}

impl ValueFormatter<f64> for Steps {
    fn format(value: &f64) -> String {
        whole(*value)
    }

    fn format_ext(&self, value: &f64) -> String {
        self.0.get(*value as usize).map_or_else(String::new, |step| whole(*step as f64))
    }
}
