//! Everything that turns numbers into outputs: figures, tables, reports, finished jobs.
//!
//! Nothing here knows how a number was made.
//! A [`Figure`] or [`Table`] is plain data; [`Report::write`] renders all of it into one directory:
//! `report.md`, a self-contained `report.html`, `results.json`, and each figure as SVG, PNG and CSV.
//! Every file appears whole or not at all.
//!
//! | file | holds |
//! |---|---|
//! | `figure.rs` | what a figure shows, as plain data |
//! | `plan.rs`, `panels.rs`, `marks.rs`, `axis.rs`, `colour.rs`, `text.rs` | where each mark of a figure goes |
//! | `draw.rs` | marks to SVG and PNG; the only file that knows the plotting crate |
//! | `animation.rs` | pictures one after the other, as GIF |
//! | `csv.rs` | the numbers of a figure |
//! | `table.rs` | tables and the comparison *published, ours, difference* |
//! | `markdown.rs`, `html.rs`, `writing.rs` | a report as text, as a page, as files |
//! | `jobs.rs` | finished jobs, so that an interrupted run continues |
//! | `machine.rs` | what the numbers were made on |
//! | `files.rs` | atomic writes |

pub(crate) mod animation;
mod axis;
mod colour;
pub(crate) mod csv;
pub(crate) mod draw;
pub(crate) mod figure;
pub(crate) mod files;
mod html;
pub(crate) mod jobs;
pub(crate) mod machine;
mod markdown;
mod marks;
mod panels;
mod plan;
mod profile;
pub(crate) mod table;
mod text;
mod writing;

pub(crate) use figure::{Axis, Bars, Boxes, Figure, Heat, Kind, Lines, Marker, Panel, Raster, Scale, Series, Stroke};
pub(crate) use jobs::Jobs;
pub(crate) use machine::Machine;
pub(crate) use profile::Profile;
pub(crate) use table::{Cell, Column, Comparison, ComparisonRow, Measured, Table};
pub(crate) use writing::{DataLabel, Deviation, Record, Report, Written};
