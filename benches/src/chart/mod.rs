//! The chart: on top, each server in terms of tokio under every load; below, how cost and memory grow.
//!
//! It must be understood at a glance, so it has few servers, and lastorders alone is drawn in red.

mod curves;
mod ratios;

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::Results;
use crate::server::Program;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Done = Result<(), Box<dyn Error>>;

const SIZE: (u32, u32) = (1200, 900);
/// Where the lower half begins.
const HALF: i32 = 520;
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(222, 222, 222);

/// Those in the chart, lastorders last: what is drawn last is on top.
const SHOWN: [Program; 6] =
    [Program::Memcached, Program::Pool, Program::Threads, Program::Tokio, Program::Epoll, Program::Lastorders];

fn colour(program: Program) -> RGBColor {
    match program {
        Program::Lastorders => RGBColor(200, 16, 46),
        Program::Tokio => RGBColor(90, 90, 90),
        Program::Epoll => RGBColor(29, 112, 184),
        Program::Threads => RGBColor(224, 135, 0),
        Program::Memcached => RGBColor(123, 63, 160),
        _ => RGBColor(42, 157, 63),
    }
}

/// Draws it into a file.
pub fn draw(results: &Results, path: &Path) -> Done {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    text(&root, "lastorders beside what people would use instead", (24, 18), 22, HPos::Left, INK)?;
    legend(&root)?;
    let (top, bottom) = root.split_vertically(HALF);
    ratios::draw(&top.margin(76, 0, 0, 0), &results.cases, &results.groups)?;
    let panels = bottom.split_evenly((1, 3));
    curves::by_connections(&panels[0], &results.by_connections)?;
    curves::by_workers(&panels[1], &results.by_workers)?;
    curves::memory(&panels[2], &results.memory)?;
    root.present()?;
    Ok(())
}

fn legend(root: &Area<'_>) -> Done {
    let mut x = 32;
    for program in SHOWN.iter().rev() {
        dot(root, (x, 59), *program)?;
        text(root, program.name(), (x + 12, 51), 14, HPos::Left, INK)?;
        x += 32 + 8 * program.name().len() as i32;
    }
    cross(root, (x, 59), INK)?;
    text(root, "starves some clients", (x + 12, 51), 14, HPos::Left, INK)
}

/// A server's mark.
fn dot(area: &Area<'_>, at: (i32, i32), program: Program) -> Done {
    match program {
        Program::Lastorders => area.draw(&Circle::new(at, 7, colour(program).filled()))?,
        _ => {
            area.draw(&Circle::new(at, 5, WHITE.filled()))?;
            area.draw(&Circle::new(at, 5, colour(program).stroke_width(2)))?;
        }
    }
    Ok(())
}

fn cross(area: &Area<'_>, at: (i32, i32), colour: RGBColor) -> Done {
    Ok(area.draw(&Cross::new(at, 5, colour.stroke_width(2)))?)
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, side: HPos, colour: RGBColor) -> Done {
    let style = ("sans-serif", size).into_text_style(area).color(&colour).pos(Pos::new(side, VPos::Top));
    Ok(area.draw_text(text, &style, at)?)
}
