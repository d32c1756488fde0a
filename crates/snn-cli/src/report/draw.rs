//! From a figure to an SVG text and PNG bytes: the only file that knows the plotting crate.
//!
//! Only its scene and its two writers are used; the layout is our own (see `plan.rs`), because panels in a grid with
//! aligned axes and legends outside the data need one hand.

use anyhow::{Context as _, Result, anyhow, ensure};
use kuva::backend::svg::SvgBackend;
use kuva::render::color::Color;
use kuva::render::render::{PathData, Primitive, Scene, TextAnchor, TextSpan};

use super::colour::Rgb;
use super::figure::Figure;
use super::files::file_stem;
use super::html::escape;
use super::marks::{Anchor, Mark};
use super::plan::{self, Plan};

/// Fonts for SVG: what papers are set in where it is installed; PNG always uses the built-in DejaVu Sans.
const FONTS: &str = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";
/// PNG pixels per unit: a full-width figure has about 300 dots per inch in print.
const PIXELS: f32 = 2.0;
/// A figure beyond this many units in height is a mistake, not a picture.
const HIGHEST: f64 = 12_000.0;

/// A drawn figure.
#[derive(Debug)]
pub(crate) struct Picture {
    scene: Scene,
    title: String,
}

/// Draws a figure.
///
/// # Errors
///
/// If the figure has no panel or would be absurdly high.
pub(crate) fn draw(figure: &Figure) -> Result<Picture> {
    ensure!(!figure.panels.is_empty(), "a figure needs at least one panel");
    let Plan { width, height, marks } = plan::plan(figure);
    ensure!(height <= HIGHEST, "the figure would be {height:.0} units high: too many panels");
    let mut scene = Scene::with_capacity(width, height, marks.len());
    scene.font_family = Some(FONTS.to_owned());
    // Clip names are global in a page that shows several figures.
    let stem = file_stem(&figure.name);
    for (index, mark) in marks.into_iter().enumerate() {
        add(&mut scene, mark, &stem, index);
    }
    let title = if figure.title.is_empty() { figure.name.clone() } else { figure.title.clone() };
    Ok(Picture { scene, title })
}

impl Picture {
    /// The picture as SVG; it scales to the width of its place.
    pub(crate) fn svg(&self) -> String {
        let svg = SvgBackend::new().render_scene(&self.scene);
        let view = format!(
            "<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {} {}\" ",
            escape(&self.title),
            self.scene.width,
            self.scene.height
        );
        svg.replacen("<svg ", &view, 1)
    }

    /// The picture as PNG file content.
    ///
    /// # Errors
    ///
    /// If the rasteriser or the encoder fails.
    pub(crate) fn png(&self) -> Result<Vec<u8>> {
        kuva::RasterBackend::new().with_scale(PIXELS).render_scene(&self.scene).map_err(|e| anyhow!("PNG: {e}"))
    }
}

/// The pixels of a picture, row by row from the top.
#[derive(Clone, Debug)]
pub(crate) struct Pixels {
    /// Pixels per row.
    pub(crate) width: usize,
    /// Red, green and blue of each pixel.
    pub(crate) colours: Vec<[u8; 3]>,
}

impl Picture {
    /// The picture as pixels, `scale` of them per unit of length.
    ///
    /// # Errors
    ///
    /// If the plotting crate cannot draw it.
    pub(crate) fn pixels(&self, scale: f32) -> Result<Pixels> {
        let bytes = kuva::RasterBackend::new().with_scale(scale).render_scene(&self.scene);
        let bytes = bytes.map_err(|e| anyhow!("pixels: {e}"))?;
        // The plotting crate hands out no pixels, only files.
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info()?;
        let mut buffer = vec![0; reader.output_buffer_size().context("pixels: the picture is too large")?];
        let info = reader.next_frame(&mut buffer)?;
        let samples = info.color_type.samples();
        ensure!(samples >= 3, "pixels: the picture is not in colour");
        buffer.truncate(info.buffer_size());
        let colours = buffer.chunks_exact(samples).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        Ok(Pixels { width: info.width as usize, colours })
    }
}

fn colour([r, g, b]: Rgb) -> Color {
    Color::Rgb(r, g, b)
}

fn add(scene: &mut Scene, mark: Mark, figure: &str, index: usize) {
    match mark {
        Mark::Line { points, colour: stroke, width } => scene.add(Primitive::PolyLine {
            points,
            stroke: colour(stroke),
            stroke_width: width,
            stroke_dasharray: None,
        }),
        Mark::Strokes { ends, colour: stroke, width } => {
            if ends.is_empty() {
                return;
            }
            let path =
                ends.iter().map(|[(x1, y1), (x2, y2)]| format!("M{x1:.2},{y1:.2}L{x2:.2},{y2:.2}")).collect::<String>();
            scene.add(Primitive::Path(Box::new(PathData {
                d: path,
                fill: None,
                stroke: colour(stroke),
                stroke_width: width,
                opacity: None,
                stroke_dasharray: None,
            })));
        }
        Mark::Area { points, fill, opacity, outline } => {
            let steps = points.iter().enumerate().map(|(i, (x, y))| {
                let command = if i == 0 { 'M' } else { 'L' };
                format!("{command}{x:.2},{y:.2}")
            });
            let (stroke, stroke_width) = outline.map_or((Color::None, 0.0), |(rgb, width)| (colour(rgb), width));
            scene.add(Primitive::Path(Box::new(PathData {
                d: steps.chain(["Z".to_owned()]).collect(),
                fill: Some(colour(fill)),
                stroke,
                stroke_width,
                opacity: Some(opacity),
                stroke_dasharray: None,
            })));
        }
        Mark::Rect { at: (x, y), size: (width, height), fill, outline } => scene.add(Primitive::Rect {
            x,
            y,
            width,
            height,
            fill: colour(fill),
            stroke: outline.map(|(rgb, _)| colour(rgb)),
            stroke_width: outline.map(|(_, width)| width),
            opacity: None,
        }),
        Mark::Dot { at: (cx, cy), radius, fill, outline } => scene.add(Primitive::Circle {
            cx,
            cy,
            r: radius,
            fill: colour(fill),
            fill_opacity: None,
            stroke: outline.map(|(rgb, _)| colour(rgb)),
            stroke_width: outline.map(|(_, width)| width),
        }),
        Mark::Text { text, .. } if text.is_empty() => {}
        Mark::Text { at: (x, y), text, size, anchor, bold, turn, colour: tint } => {
            let anchor = match anchor {
                Anchor::Start => TextAnchor::Start,
                Anchor::Middle => TextAnchor::Middle,
                Anchor::End => TextAnchor::End,
            };
            let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let color = Some(colour(tint));
            // Only text in spans can be bold in both outputs, and only plain text can be turned.
            scene.add(if turn == 0.0 {
                let spans = vec![TextSpan { bold, ..TextSpan::plain(text) }];
                Primitive::RichText { x, y, spans, size, anchor, color }
            } else {
                // A plain text between dollar signs would be read as a formula.
                let content = text.replace('$', "\\$");
                Primitive::Text { x, y, content, size, anchor, rotate: Some(turn), bold, color }
            });
        }
        Mark::Clip { at: (x, y), size: (width, height) } => {
            scene.add(Primitive::ClipStart { x, y, width, height, id: format!("clip-{figure}-{index}") });
        }
        Mark::EndClip => scene.add(Primitive::ClipEnd),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Axis, Bars, Boxes, Colours, Heat, Kind, Lines, Marker, Panel, Raster, Scale, Series};
    use super::*;

    /// One panel of each kind, in the manner of a published speed and accuracy figure.
    fn example() -> Figure {
        let steps: Vec<f64> = (3..12).map(|k| 2_f64.powi(k)).collect();
        let units: Vec<f64> = (1..=10).map(|k| 100.0 * f64::from(k)).collect();
        let name = |v: &f64| format!("{v:.0}");
        let speed = |n: f64, t: f64| 17.0 * (-(n / 700.0)).exp() * (-((t / 96.0).log2().powi(2)) / 18.0).exp() + 0.4;
        let grid = units.iter().map(|n| steps.iter().map(|t| Some(speed(*n, *t))).collect()).collect();
        let heat =
            Heat::new(steps.iter().map(name), units.iter().map(name), grid, "speed-up").diverging(Scale::Log2, 1.0);
        let times = |label: &str, factor: f64, index: usize, fade: f64| {
            let points = steps.iter().map(|t| (*t, factor * (0.01 + t * 4e-4), factor * t * 6e-5));
            Series::new(label, points).colour(index).fade(fade)
        };
        let layers = |n: f64, index: usize, marker| {
            let points = (1..=5).map(|l| (f64::from(l), 9.0 - n / 150.0 + (f64::from(l) * 1.3).sin(), 0.4));
            Series::new(format!("n = {n}"), points).colour(index).marker(marker)
        };
        let curve = |rate: f64, noise: f64| {
            (0..3000).map(move |i| {
                let t = f64::from(i) / 3000.0;
                (t, (-t * rate).exp() + noise * (f64::from(i) * 0.02).sin() * 0.03, 0.06)
            })
        };
        let tasks = ["Yin-Yang", "MNIST", "Fashion-MNIST", "N-MNIST", "SHD"];
        let some = |values: [f64; 5], sd: f64| values.map(|v| Some((v, Some(sd * v))));
        let events = |offset: u32| {
            (0..600_u32).map(move |i| {
                (
                    f64::from((i * 7919 + offset * 31) % 1000) / 10.0,
                    f64::from((i * 104_729 + offset) % 60 + offset * 70),
                )
            })
        };
        Figure::new("example", "Speed and accuracy of the block model (example data)", 3)
            .caption("Bars and lines: mean and standard deviation.")
            .panel(Panel::new("Speed-up over units and steps", "steps T", "units n", heat))
            .panel(Panel::new(
                "Time of a training step",
                Axis::log2("steps T"),
                Axis::log10("seconds"),
                Lines::new(vec![
                    times("standard, b 32", 1.0, 1, 0.5),
                    times("b 128", 2.2, 1, 0.0),
                    times("block, b 32", 0.05, 0, 0.5),
                    times("b 128", 0.11, 0, 0.0),
                    times("published", 2.5, 6, 0.0).published(),
                ]),
            ))
            .panel(Panel::new(
                "Speed-up over layers",
                "layers",
                "speed-up",
                Lines::new(vec![
                    layers(200.0, 0, Marker::Disc),
                    layers(400.0, 1, Marker::Square),
                    layers(800.0, 2, Marker::Triangle),
                ])
                .reference(1.0, "equal"),
            ))
            .panel(Panel::new(
                "Epoch time, single / block",
                "",
                "ratio",
                Bars::new(tasks)
                    .published("published", some([13.98, 4.6, 4.3, 4.6, 4.4], 0.0))
                    .colour(6)
                    .group("ours", some([21.0, 7.5, 6.1, 8.25, 5.0], 0.08))
                    .colour(0),
            ))
            .panel(Panel::new(
                "Loss and activity",
                Axis::linear("share of training").limits(0.0, 1.0),
                Axis::linear("share of maximum").limits(0.0, 1.05),
                Lines::new(vec![
                    Series::new("loss", curve(5.0, 1.0)).band(),
                    Series::new("activity", curve(1.0, 0.3)).stroke(super::super::Stroke::Dashed).band(),
                ]),
            ))
            .panel(Panel::new(
                "Spikes",
                "time (ms)",
                "unit",
                Raster::default().group("input", events(0).collect()).group("hidden", events(1).collect()),
            ))
            .panel(Panel::new(
                "Accuracy gap",
                "",
                "percentage points",
                Bars::new(tasks).group(
                    "ours",
                    [Some((0.27, None)), Some((-0.29, None)), None, Some((1.7, Some(0.2))), Some((0.7, None))],
                ),
            ))
            .panel(Panel::new(
                "Robustness on CIFAR10 with a title that is longer than its panel is wide",
                "",
                "",
                Kind::Note { text: "Not part of the smoke profile: run with --profile paper.".into() },
            ))
            .panel(Panel::new(
                "Accuracy over runs",
                "",
                "test accuracy (%)",
                Boxes::new(["best epoch", "last epoch"])
                    .group("count", [vec![98.76, 98.84, 98.85, 98.88, 98.91], vec![98.6, 98.7, 98.71, 98.72, 98.1]])
                    .group("first spike", [vec![97.7, 97.79, 97.9], vec![97.79]]),
            ))
            .panel(
                Panel::new(
                    "Spikes per sample",
                    "",
                    "spikes",
                    Bars::new(["adaptive leaky integrate-and-fire", "parallelisable", "time to first spike"])
                        .group("a", [Some((120_000.0, None)), Some((3_400.0, None)), Some((56.0, None))]),
                )
                .span(2),
            )
    }

    /// Writes the picture beside the test's other files when `SNN_KEEP_FIGURES` names a directory.
    fn keep(name: &str, picture: &Picture) {
        if let Some(directory) = std::env::var_os("SNN_KEEP_FIGURES") {
            let directory = std::path::PathBuf::from(directory);
            super::super::files::write_atomically(&directory.join(format!("{name}.png")), &picture.png().unwrap())
                .unwrap();
            super::super::files::write_atomically(&directory.join(format!("{name}.svg")), picture.svg().as_bytes())
                .unwrap();
        }
    }

    fn png_size(bytes: &[u8]) -> (u32, u32) {
        assert_eq!(bytes[..8], *b"\x89PNG\r\n\x1a\n");
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        (number(16), number(20))
    }

    #[test]
    fn every_kind_of_panel_is_drawn_in_one_picture() {
        let picture = draw(&example()).unwrap();
        keep("example", &picture);
        let svg = picture.svg();
        for needed in ["viewBox=\"0 0 1080 ", ">a<", ">i<", "Fashion-", "speed-up", "Not part of", "equal", "0.001"] {
            assert!(svg.contains(needed), "{needed}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf\""));
        let (width, height) = png_size(&picture.png().unwrap());
        assert_eq!(width, 2160);
        assert!((1000..4000).contains(&height), "{height}");
    }

    #[test]
    fn single_panels_are_drawn_at_their_own_size() {
        let mut figure = example();
        figure.columns = 1;
        figure.panels.truncate(1);
        let picture = draw(&figure).unwrap();
        keep("single", &picture);
        assert_eq!(png_size(&picture.png().unwrap()).0, 1120);
        figure.panels = example().panels.split_off(1);
        figure.columns = 2;
        keep("double", &draw(&figure).unwrap());
    }

    #[test]
    fn awkward_numbers_do_not_break_a_picture() {
        let values = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300, 5e-324];
        for scale in [Scale::Linear, Scale::Log2, Scale::Log10] {
            let axis = || Axis { label: "v".into(), scale, ..Axis::default() };
            for count in 0..=values.len() {
                let chosen = &values[..count];
                let points = chosen.iter().map(|v| (*v, *v, *v));
                let heat = Heat {
                    values: vec![chosen.iter().copied().map(Some).collect()],
                    colours: Colours { scale, centre: Some(1.0), limits: None },
                    ..Heat::new((0..count).map(|i| format!("v{i}")), ["row"], vec![], "c")
                };
                let bars = Bars::new((0..count).map(|i| format!("v{i}")))
                    .group("g", chosen.iter().map(|v| Some((*v, Some(*v)))));
                let boxes = Boxes::new(["b", "empty"]).group("g", [chosen.to_vec(), Vec::new()]);
                let figure = Figure::new("f", "", 2)
                    .panel(Panel::new("", axis(), axis(), boxes))
                    .panel(Panel::new(
                        "",
                        axis(),
                        axis(),
                        Lines::new(vec![Series::new("s", points)]).reference(f64::NAN, "r"),
                    ))
                    .panel(Panel::new("", axis(), axis(), bars))
                    .panel(Panel::new("", axis(), axis(), heat))
                    .panel(Panel::new(
                        "",
                        axis(),
                        axis(),
                        Raster::default().group("e", chosen.iter().map(|v| (*v, *v)).collect()),
                    ));
                let picture = draw(&figure).unwrap();
                assert!(!picture.svg().contains("NaN"), "{scale:?} {chosen:?}");
                png_size(&picture.png().unwrap());
            }
        }
    }

    #[test]
    fn a_figure_without_panels_is_refused() {
        assert!(draw(&Figure::new("f", "", 1)).is_err());
    }

    #[test]
    fn hostile_text_stays_text() {
        let evil = "</text><script>$x$ & \"quoted\" \u{0}";
        let figure = Figure::new(evil, evil, 1).panel(Panel::new(
            evil,
            evil,
            evil,
            Lines::new(vec![Series::new(evil, [(0.0, 1.0)])]),
        ));
        let svg = draw(&figure).unwrap().svg();
        assert!(!svg.contains("<script") && !svg.contains('\0'));
        assert!(svg.contains("$x$"));
    }
}
