//! Three panels that share their rows, one for each load: what a server does in terms of tokio, on a logarithmic scale,
//! so that twice and half are equally far from the line in the middle.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, Done, FAINT, INK, SHOWN, cross, dot, text};
use crate::load::Sample;
use crate::plan::Case;
use crate::rounds::Cell;
use crate::server::Program;

/// A figure, its name, and which side is better.
type Panel = (&'static str, &'static str, fn(&Sample) -> f64);

const PANELS: [Panel; 3] = [
    ("requests/s", "more is better →", |sample| sample.requests_per_second),
    ("CPU time per request", "← less is better", |sample| sample.cpu),
    ("peak memory", "← less is better", |sample| sample.memory),
];

/// Pixels: of the names on the left, of a panel, between two of them, and of the heads above.
const NAMES: i32 = 350;
const WIDTH: i32 = 245;
const GAP: i32 = 42;
const HEAD: i32 = 44;
/// Factors of two on each side of the middle.
const OCTAVES: f64 = 2.0;

pub(super) fn draw(area: &Area<'_>, cases: &[Case], groups: &[Vec<Cell>]) -> Done {
    let height = area.dim_in_pixel().1 as i32 - HEAD - 34;
    let row = |number: usize| HEAD + height * number as i32 / cases.len().max(1) as i32;
    for (number, case) in cases.iter().enumerate() {
        if number % 2 == 0 {
            let right = NAMES + 3 * WIDTH + 2 * GAP;
            let band = [(16, row(number)), (right, row(number + 1))];
            area.draw(&Rectangle::new(band, RGBColor(246, 246, 246).filled()))?;
        }
        let middle = (row(number) + row(number + 1)) / 2;
        text(area, &short(case.name), (NAMES - 14, middle - 8), 14, HPos::Right, INK)?;
    }
    for (number, panel) in PANELS.iter().enumerate() {
        let left = NAMES + number as i32 * (WIDTH + GAP);
        frame(area, left, panel, row(0), row(cases.len()))?;
        for (number, cells) in groups.iter().enumerate() {
            marks(area, left, panel.2, cells, (row(number) + row(number + 1)) / 2)?;
        }
    }
    Ok(())
}

/// Heads, and a line for each factor of two.
fn frame(area: &Area<'_>, left: i32, panel: &Panel, top: i32, bottom: i32) -> Done {
    text(area, panel.0, (left + WIDTH / 2, 2), 16, HPos::Center, INK)?;
    text(area, panel.1, (left + WIDTH / 2, 23), 12, HPos::Center, INK)?;
    for (octave, label) in [(-2.0, "¼"), (-1.0, "½"), (0.0, "tokio"), (1.0, "2×"), (2.0, "4×")] {
        let x = left + place(octave);
        let (colour, width) = if octave == 0.0 { (super::colour(Program::Tokio), 2) } else { (FAINT, 1) };
        area.draw(&PathElement::new([(x, top), (x, bottom)], colour.stroke_width(width)))?;
        text(area, label, (x, bottom + 6), 13, HPos::Center, INK)?;
    }
    Ok(())
}

fn marks(area: &Area<'_>, left: i32, value: fn(&Sample) -> f64, cells: &[Cell], middle: i32) -> Done {
    let of = |program: Program| cells.iter().find(|cell| cell.program == program).and_then(Cell::median);
    let Some(base) = of(Program::Tokio) else { return Ok(()) };
    for program in SHOWN.into_iter().filter(|program| *program != Program::Tokio) {
        let Some(sample) = of(program) else { continue };
        let octave = (value(&sample) / value(&base)).log2();
        // Without a single request there is no cost of one.
        let octave = if octave.is_nan() || octave == f64::INFINITY { continue } else { octave };
        let at = (left + place(octave.clamp(-OCTAVES, OCTAVES)), middle);
        if sample.starved > 0.0 {
            cross(area, at, super::colour(program))?;
        } else {
            dot(area, at, program)?;
        }
    }
    Ok(())
}

/// Pixels from a panel's left edge.
fn place(octave: f64) -> i32 {
    ((octave + OCTAVES) / (2.0 * OCTAVES) * f64::from(WIDTH)) as i32
}

/// The longest name in a form that there is room for.
fn short(name: &str) -> String {
    name.replace("8 that trickle and 8 that never read", "16 rude ones")
}
